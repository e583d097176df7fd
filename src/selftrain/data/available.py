"""Whether a run's sets can be read at all, asked before anything is downloaded or computed."""

from __future__ import annotations

import importlib.util

from selftrain.config import DataConfig, DataSpec
from selftrain.data.base import find_source
from selftrain.data.reading import open_path
from selftrain.data.reasoning_gym import missing_package
from selftrain.verify import open_verifier

GYM = "reasoning_gym"


def check_available(config: DataConfig) -> None:
    """Refuse an unknown source or verifier, a missing file, or a package that is not installed.

    Raises:
        DataError: what is missing and what to do.
        ConfigError: a verifier that cannot be had.
    """
    specs = [config.train, config.unlabelled, config.validation, *config.test]
    for spec in specs:
        if spec is not None:
            _check(spec)
    if config.samples is not None:
        open_path(config.samples.path, "a file of samples (data.samples)")


def _check(spec: DataSpec) -> None:
    name = find_source(spec)[0]
    open_verifier(spec.verify)
    if spec.path is not None:
        open_path(spec.path, f"the file of source {name}")
    if name == GYM and importlib.util.find_spec(GYM) is None:
        raise missing_package("it is not installed")
