"""Secrets, taken out of what is shown or kept: what is printed, a run's diary, its results.

    without_secrets("from https://me:pass@pypi.example/simple")    # "from https://***@pypi.example/simple"
    redacted({"message": [...]})                                   # the same in every text of a JSON value

Known as secrets are names and passwords in addresses, the hub's tokens, and the values of variables that are called so.
Leaves out: what other programs write into logs of their own (vLLM's), and secrets that look like any other text.
"""

from __future__ import annotations

import os
import re
from typing import Any

SECRET = re.compile("TOKEN(?!IZ)|SECRET|PASSWORD|API_KEY")  # in the name of a variable whose value is not shown
MIN_SECRET = 8  # characters of such a value


def without_secrets(text: str) -> str:
    """A text with names and passwords in addresses, the hub's tokens and what the environment calls a secret as ***.

    >>> without_secrets("from https://me:pass@pypi.example/simple, with hf_abcdefghijklmnopqrstuv")
    'from https://***@pypi.example/simple, with ***'
    """
    return _without(text, _values())


def redacted(value: Any) -> Any:
    """A JSON value, `without_secrets` in each of its texts.

    >>> redacted({"rows": 3, "said": ["at ftp://me:pass@host.example"]})
    {'rows': 3, 'said': ['at ftp://***@host.example']}
    """
    return _redacted(value, _values())


def _values() -> list[str]:
    return [value for name, value in os.environ.items() if len(value) >= MIN_SECRET and SECRET.search(name.upper())]


def _without(text: str, values: list[str]) -> str:
    text = re.sub(r"(?<=://)[^/\s@]+(?=@)", "***", text)
    text = re.sub(r"\bhf_[A-Za-z0-9]{20,}", "***", text)
    for value in values:
        text = text.replace(value, "***")
    return text


def _redacted(value: Any, values: list[str]) -> Any:
    if isinstance(value, str):
        return _without(value, values)
    if isinstance(value, dict):
        return {key: _redacted(item, values) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(item, values) for item in value]
    return value
