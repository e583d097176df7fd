"""What every section of a configuration is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Base of every section: frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
