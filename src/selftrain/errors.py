"""The error tree: what a user can put right is a `UserError`, anything else is a bug.

    SelftrainError
    └── UserError          exit code 2, one message, no traceback
        ├── ConfigError    a recipe, field or value that cannot be used
        ├── DataError      a data file or row that cannot be used (names the line)
        ├── ModelError     weights or a tokenizer that cannot be found or used
        └── RunError       a run folder that cannot be used (another run, locked, disk full)

A message says what was expected and what was got; `hint` is what to do, on a line of its own.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class SelftrainError(Exception):
    """Root of every error that selftrain raises on purpose."""


class UserError(SelftrainError):
    """Something that the user can put right; the command line prints it and exits with 2."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message if hint is None else f"{message}\n{hint}")
        self.message = message
        self.hint = hint


class ConfigError(UserError):
    """A recipe, a field or a value that cannot be used."""


class DataError(UserError):
    """A data file or a row that cannot be used."""


class ModelError(UserError):
    """Weights or a tokenizer that cannot be found or used."""


class RunError(UserError):
    """A run folder that cannot be used."""


def first_line(error: BaseException) -> str:
    """What an error of a library says, cut to its first line; its kind where it says nothing.

    >>> first_line(ValueError("no such shape\\nand much more")), first_line(KeyError())
    ('no such shape', 'KeyError')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def listed(names: Sequence[str], limit: int) -> str:
    """The first names, and how many more there are.

    >>> listed(["a", "b", "c"], 2), listed(["a"], 2)
    ('a, b and 1 more', 'a')
    """
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to `name`, or None when nothing is near.

    >>> nearest("trainin", ["training", "sampling"])
    'training'
    """
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return found[0] if found else None
