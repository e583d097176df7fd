"""The report's tables as plain rows, for CSV and Markdown: accuracy, comparisons, stages, selection, DPO, data.

    for table in tables(results):
        table.name, table.header, table.rows

Numbers are numbers, as results.json has them (shares in [0, 1], seconds), text is text as it stands: whoever writes it
down escapes it. None is an empty cell.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]
Cell = str | int | float | bool | None

MODEL = ("label", "kind", "stage", "delivered", "extraction")
ESTIMATE = ("right", "rows", "accuracy", "low", "high")
WRITTEN = ("calls_per_completion", "uncalculated", "tokens", "forced_tokens", "cut_at_limit", "prompts_over_limit")
COMPARISON = (
    "first", "second", "second_label", "difference", "low", "high", "p_value", "only_a", "only_b", "num", "num_groups",
    "confidence", "verdict",
)  # fmt: skip
STAGE = ("stage", "part", "seconds", "trained_tokens", "sampled_tokens", "forwarded_tokens", "flops")
SAMPLED = (
    "questions",
    "completions",
    "right",
    "all_right",
    "mixed",
    "all_wrong",
    "unparsed",
    "timeouts",
    "cut_at_limit",
)
KEPT = ("lost_exact", "lost_near", "lost_to_cap", "over_limit", "brought")
TRAINED = ("loss", "reward_accuracy", "margin", "chosen_change_per_token", "rejected_change_per_token")
DATA = ("rows", "with_rationale", "groups", "near_copies", "too_long", "over_limit", "source", "path", "rows_sha256")


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """A table with a name that a file can have."""

    name: str
    header: tuple[str, ...]
    rows: list[tuple[Cell, ...]]


def tables(results: Json) -> list[Table]:
    """Every table of a run's results; one without rows yet has its header."""
    strict, flexible = ([f"{kind}_{name}" for name in ESTIMATE] for kind in ("strict", "flexible"))
    return [
        Table("accuracy", ("test_set", *MODEL, *ESTIMATE, *strict, *flexible, *WRITTEN), list(_accuracy(results))),
        Table("comparisons", ("test_set", *COMPARISON), list(_comparisons(results))),
        Table("stages", STAGE, [_of(row, STAGE) for row in results["cost"]["stages"]]),
        Table("selection", ("arm", "iteration", "drawn_for", *SAMPLED, "kept", *KEPT), list(_selection(results))),
        Table("dpo", ("iteration", "pairs", "steps", *TRAINED, "changed_fraction", "k", *_PASS), list(_dpo(results))),
        Table("data", ("set", *DATA), [(role, *_of(row, DATA)) for role, row in results["data"].items()]),
    ]


def _of(row: Json | None, names: Sequence[str]) -> tuple[Cell, ...]:
    """These fields of a row; empty where there is none."""
    return tuple((row or {}).get(name) for name in names)


def _accuracy(results: Json) -> Iterator[tuple[Cell, ...]]:
    for test_set in results["test_sets"]:
        for row in test_set["models"]:
            estimates = (cell for kind in ("accuracy", "strict", "flexible") for cell in _of(row[kind], ESTIMATE))
            yield test_set["name"], *_of(row, MODEL), *estimates, *_of(row, WRITTEN)


def _comparisons(results: Json) -> Iterator[tuple[Cell, ...]]:
    for test_set in results["test_sets"]:
        yield from ((test_set["name"], *_of(row, COMPARISON)) for row in test_set["comparisons"])


def _selection(results: Json) -> Iterator[tuple[Cell, ...]]:
    """A line a sampling: how the samples fared, and the pairs or pseudo-labels that were kept of them.

    Samples made elsewhere have a line of their own; `brought` says how many of the kept ones are theirs.
    """
    for row in results["selection"]:
        for purpose, made, kept in (("pairs", "pairing", "pairs"), ("labels", "labelling", "kept")):
            sampled = row[f"sampled_for_{purpose}"]
            if sampled:
                yield (
                    row["arm"], row["iteration"], purpose, *_of(sampled, SAMPLED), *_of(row[made], (kept, *KEPT)),
                )  # fmt: skip
    if brought := results.get("brought"):
        purpose = "pairs, labels" if brought["use"] == "both" else brought["use"]
        yield "samples made elsewhere", None, purpose, *_of(brought["health"], SAMPLED), *_of(None, ("kept", *KEPT))


_PASS = tuple(f"pass_at_k_{when}{bound}" for when in ("before", "after") for bound in ("", "_low", "_high"))


def _dpo(results: Json) -> Iterator[tuple[Cell, ...]]:
    for row in results["dpo"]:
        passes: list[Cell] = []
        for when in ("before", "after"):
            found = (row[when] or {}).get("pass_at", [])
            at_k = next((one for one in found if one["k"] == row["common_k"]), None)
            passes += _of(at_k, ("value", "low", "high"))
        trained = _of(row["after_training"], TRAINED)
        yield row["iteration"], row["pairs"], row["steps"], *trained, row["changed_fraction"], row["common_k"], *passes
