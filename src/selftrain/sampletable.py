"""What `selftrain sample` has to say of each set: counted from the completions, and printed as a short table.

    row = figures_of("svamp", completions, too_long=0)
    print(table_text([row], samples=8, drawn={"svamp": Drawn(8000, 420_000, 1800.0)}))

Shares are over the problems that have a gold answer. `strict` and `flexible` are shares of completions; pass@k is the
share of problems with at least one strictly right completion among their k. No intervals: `selftrain report` and
`selftrain.metrics` have them.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence

from selftrain.judged import FLEXIBLE, STRICT, is_right, num_timeouts
from selftrain.records import Completion
from selftrain.report.accuracy import counts
from selftrain.report.text import clean, table


@dataclasses.dataclass(frozen=True, slots=True)
class SetFigures:
    """One set's completions, counted; JSON-ready. Shares are None where nothing could be judged.

    `problems` were sampled, `too_long` left out for their prompt, `unjudged` sampled but without a gold answer.
    `tokens` and `calls` are means a completion. `timeouts` got no verdict in time and count as not right.
    """

    name: str
    problems: int
    too_long: int
    unjudged: int
    completions: int
    strict: float | None
    flexible: float | None
    pass_at_k: float | None
    tokens: float
    calls: float
    uncalculated: int
    cut_at_limit: int
    timeouts: int = 0


@dataclasses.dataclass(slots=True)
class Drawn:
    """What was drawn just now, and the wall seconds inside the sampler that it took."""

    completions: int = 0
    tokens: int = 0
    seconds: float = 0.0


def figures_of(name: str, completions: Sequence[Completion], too_long: int) -> SetFigures:
    """Count one set's completions."""
    rights: dict[str, list[bool]] = collections.defaultdict(list)
    for completion in completions:
        if completion.strict is not None:
            rights[completion.problem_id].append(is_right(completion, STRICT))
    judged = [completion for completion in completions if completion.strict is not None]
    num_problems = len({completion.problem_id for completion in completions})
    written = counts(completions)
    return SetFigures(
        name=name,
        problems=num_problems,
        too_long=too_long,
        unjudged=num_problems - len(rights),
        completions=len(completions),
        strict=_share([is_right(completion, STRICT) for completion in judged]),
        flexible=_share([is_right(completion, FLEXIBLE) for completion in judged]),
        pass_at_k=_share([any(found) for found in rights.values()]),
        tokens=written["tokens"] / max(len(completions), 1),
        calls=written["calls_per_completion"],
        uncalculated=written["uncalculated"],
        cut_at_limit=written["cut_at_limit"],
        timeouts=num_timeouts(completions),
    )


def table_text(rows: Sequence[SetFigures], samples: int, drawn: Mapping[str, Drawn]) -> str:
    """A line a set; rates only for what was drawn just now."""
    header = (
        "", "problems", "completions", "strict %", "flexible %", f"pass@{samples} %", "tokens", "calls",
        "uncalculated", "cut", "too long", "completions/s", "tokens/s",
    )  # fmt: skip
    lines = table(header, [_cells(row, drawn.get(row.name, Drawn())) for row in rows])
    notes = [
        f"{row.name}: {row.unjudged} of {row.problems} problems have no gold answer; shares are of the others."
        for row in rows
        if 0 < row.unjudged < row.problems
    ]
    notes += [f"{row.name}: {row.timeouts} completions were not judged in time." for row in rows if row.timeouts]
    return "\n".join(clean(line) for line in (*lines, *notes))


def _cells(row: SetFigures, drawn: Drawn) -> list[str]:
    return [
        row.name, str(row.problems), str(row.completions), _percent(row.strict), _percent(row.flexible),
        _percent(row.pass_at_k), f"{row.tokens:.1f}", f"{row.calls:.2f}", str(row.uncalculated),
        str(row.cut_at_limit), str(row.too_long), _rate(drawn.completions, drawn), _rate(drawn.tokens, drawn),
    ]  # fmt: skip


def _share(right: Sequence[bool]) -> float | None:
    return sum(right) / len(right) if right else None


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _rate(amount: int, drawn: Drawn) -> str:
    return f"{amount / drawn.seconds:.1f}" if drawn.seconds > 0 else "-"
