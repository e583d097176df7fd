"""What a run is: its configuration without run control, which says how a run is carried out.

identity(config) == identity(other)      # both may use the same run folder
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from selftrain.config import RunConfig

RUN_CONTROL = (
    "name", "description", "baselines", "checkpoints", "compute.device", "compute.threads", "compute.compile",
    "compute.min_free_disk_gb", "compute.isolation", "training.micro_batch_tokens", "training.layout",
    "training.gradient_checkpointing", "training.checkpoint_every_s", "training.trackers", "training.sharded",
)  # fmt: skip


def identity(config: RunConfig) -> dict[str, Any]:
    """What a run is: its configuration without run control, flattened to dotted keys."""
    flat = dict(flattened(config.model_dump(mode="json")))
    return {key: value for key, value in flat.items() if not key.startswith(RUN_CONTROL)}


def flattened(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Plain values of sections within sections, each with its dotted key."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from flattened(inner, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for number, inner in enumerate(value):
            yield from flattened(inner, f"{prefix}.{number}")
    else:
        yield prefix, value


def as_yaml(config: RunConfig) -> str:
    """The configuration as it was checked, every default filled in."""
    import yaml

    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def from_yaml(text: str) -> RunConfig:
    """The configuration that `as_yaml` wrote, with the defaults of this version for what it does not name.

    Raises:
        ValueError: it is none that this version knows.
    """
    import yaml

    try:
        return RunConfig.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
