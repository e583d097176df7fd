"""A path as a user writes it: `~` is the home folder.

user_path("~/models/mine")
"""

from __future__ import annotations

import os
from pathlib import Path


def user_path(text: str | Path) -> Path:
    """The path, with a leading `~` or `~user` filled in; of no such user it stays, where `Path.expanduser` raises."""
    return Path(os.path.expanduser(text))
