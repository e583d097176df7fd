"""How the report writes numbers and names, for terminal and page alike."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

PENDING = "not there yet"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """Control characters of untrusted text, those that turn its direction too, as a visible sign."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def percent(accuracy: Mapping[str, Any] | None) -> str:
    """An accuracy as results.json has it, in percent; a dash where there is none."""
    return "-" if accuracy is None else f"{100 * accuracy['accuracy']:.1f}"


def interval(accuracy: Mapping[str, Any] | None) -> str:
    """Its interval, in percent."""
    return "" if accuracy is None else f"{100 * accuracy['low']:.1f} to {100 * accuracy['high']:.1f}"


def share(value: float | None) -> str:
    """A fraction in percent."""
    return "-" if value is None else f"{100 * value:.1f} %"


def shown(row: Mapping[str, Any]) -> str:
    """A model's name in tables; the delivered one says so."""
    return f"{row['label']}, delivered" if row["delivered"] else str(row["label"])


def pick(values: Sequence[Mapping[str, Any]], k: int) -> float:
    """The value at k of a list of {k, value}."""
    return next(float(row["value"]) for row in values if row["k"] == k)


def seconds_text(seconds: float) -> str:
    """Seconds as people say them.

    >>> seconds_text(8.24), seconds_text(75), seconds_text(3 * 3600 + 125)
    ('8.2 s', '1 min 15 s', '3 h 2 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def gigabytes(size: int) -> str:
    """Bytes as people say them.

    >>> gigabytes(1_234_000_000), gigabytes(4_000_000)
    ('1.2 GB', '4.0 MB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 5e7 else f"{size / 1e6:.1f} MB"


def count(value: float | None) -> str:
    """A count with thousands apart.

    >>> count(1234567)
    '1,234,567'
    """
    return "-" if value is None else f"{value:,}"


def flops_text(value: float | None) -> str:
    """FLOPs in powers of ten.

    >>> flops_text(8.1e13)
    '8.1e13'
    """
    if not value:
        return "-" if value is None else "0"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def before_and_after(dpo: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Lines of the DPO table: pass@k and maj@k, before and after, at every k that either side has."""
    for field, title in (("pass_at", "pass"), ("maj_at", "majority")):
        before, after = ({row["k"]: row for row in (dpo[side] or {}).get(field, [])} for side in ("before", "after"))
        for k in sorted(before | after):
            yield {"name": f"{title}@{k}", "before": before.get(k), "after": after.get(k)}
