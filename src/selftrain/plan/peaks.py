"""What a run took of memory and disk, as it wrote down at the end of each stage that computes (journal event "peak").

    for line in peak_lines(plan, run): print(line)       # planned, was, and the ratio

Memory: of the process that did the stage; on a GPU tensors at their peak, elsewhere what was resident, less what was
held before the first stage (Python and its libraries, which the plan leaves out too). What libraries take later is in
it still, so there is no ratio where less was planned than the process held before: of a toy model nothing else is
seen. Disk: the run's folder at the end of a stage, its checkpoint still there. Left out: what vLLM's own process takes,
other devices of a team, and a stage that was cut off and not finished.
"""

from __future__ import annotations

from collections.abc import Iterator

from selftrain.hardware import folder_bytes
from selftrain.plan.make import Plan
from selftrain.plan.work import kind_of
from selftrain.report.files import RunFiles
from selftrain.report.text import table
from selftrain.report.wording import gigabytes


def peak_lines(plan: Plan, run: RunFiles) -> Iterator[str]:
    """Planned beside what was: memory of training and sampling, disk at its peak and now, as a table."""
    peaks, needs = run.events("peak"), plan.needs
    kind = "gpu" if any("gpu" in peak["memory"] for peak in peaks) else "host"
    known = [peak for peak in peaks if kind in peak["memory"]]
    held = min((int(peak["before"].get(kind, 0)) for peak in known), default=0)
    rows, is_small = [], False
    for name, planned in (("training", needs.training), ("sampling", needs.sampling)):
        found = [int(peak["memory"][kind]) for peak in known if kind_of(str(peak["stage"])) == name]
        rows += [_row(f"memory, {name}", planned, max(found) - held, at_least=held)] if found else []
        is_small |= planned is not None and planned < held and bool(found)
    rows += [_row("disk", needs.disk, max(int(peak["disk"]) for peak in peaks))] if peaks else []
    rows += [_row("disk, run done", needs.disk_after, folder_bytes(run.folder))]
    yield from table(["at its peak", "planned", "was", "ratio"], rows)
    if not peaks:
        yield "memory and disk at their peak: the version that made this run wrote none down"
    elif kind == "gpu":
        yield "memory: of tensors on the GPU"
    elif known:
        yield f"memory: resident, less {gigabytes(held)} that were held before the first stage"
    if is_small:
        yield "no ratio where less was planned than that: the rest is libraries still, which the plan leaves out"


def _row(name: str, planned: int | None, was: int, at_least: int = 0) -> list[str]:
    """A line; what was planned below `at_least` gets no ratio."""
    if planned is None:
        return [name, "?", gigabytes(was), ""]
    ratio = f"{was / planned:.2f}" if planned and planned >= at_least else ""
    return [name, gigabytes(planned), gigabytes(was), ratio]
