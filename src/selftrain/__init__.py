"""selftrain: make a small language model reason better by training it on its own checked answers.

    import selftrain
    results = selftrain.run("quickstart")             # a recipe's name, a YAML file, or a RunConfig
    selftrain.sample("runs/quickstart/model", "my.jsonl", "samples.jsonl", samples=8)

The method is DPO-augmented self-training (Wang, Li, Lu; ACL 2024). Importing this package loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["CalculatorLogitsProcessor", "RunConfig", "__version__", "load_config", "run", "sample"]

if TYPE_CHECKING:
    from selftrain.api import run
    from selftrain.config import RunConfig
    from selftrain.processor import CalculatorLogitsProcessor
    from selftrain.recipe import load_config
    from selftrain.samplefile import sample


_HOMES = {
    "CalculatorLogitsProcessor": "selftrain.processor",
    "RunConfig": "selftrain.config",
    "load_config": "selftrain.recipe",
    "run": "selftrain.api",
    "sample": "selftrain.samplefile",
}


def __getattr__(name: str) -> Any:
    """Load public names on first use, so that `import selftrain` stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'selftrain' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
