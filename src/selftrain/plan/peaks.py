"""What a run took of memory and disk, as it wrote down at the end of each stage that computes (journal event "peak").

    for line in peak_lines(plan, run): print(line)       # planned, was, and the ratio

Memory: of the process that did the stage; on a GPU tensors at their peak, elsewhere what was resident, less what was
held before the first stage (Python and its libraries, which the plan leaves out too). Of a toy model what is left is
libraries still. Disk: the run's folder at the end of a stage, its checkpoint still there. Left out: what vLLM's own
process takes, other devices of a team, and a stage that was cut off and not finished.
"""

from __future__ import annotations

from collections.abc import Iterator

from selftrain.hardware import folder_bytes
from selftrain.plan.make import Plan
from selftrain.plan.work import kind_of
from selftrain.report.files import RunFiles
from selftrain.report.text import table
from selftrain.report.wording import gigabytes

Rows = list[tuple[str, int | None, int]]


def peak_lines(plan: Plan, run: RunFiles) -> Iterator[str]:
    """Planned beside what was: memory of training and sampling, disk at its peak and now, as a table."""
    peaks, needs = run.events("peak"), plan.needs
    kind = "gpu" if any("gpu" in peak["memory"] for peak in peaks) else "host"
    known = [peak for peak in peaks if kind in peak["memory"]]
    held = min((int(peak["before"].get(kind, 0)) for peak in known), default=0)
    rows: Rows = []
    for name, planned in (("training", needs.training), ("sampling", needs.sampling)):
        found = [int(peak["memory"][kind]) for peak in known if kind_of(str(peak["stage"])) == name]
        rows += [(f"memory, {name}", planned, max(found) - held)] if found else []
    rows += [("disk", needs.disk, max(int(peak["disk"]) for peak in peaks))] if peaks else []
    rows += [("disk, run done", needs.disk_after, folder_bytes(run.folder))]
    yield from table(["at its peak", "planned", "was", "ratio"], [_row(*row) for row in rows])
    if not peaks:
        yield "memory and disk at their peak: the version that made this run wrote none down"
    elif kind == "gpu":
        yield "memory: of tensors on the GPU"
    elif known:
        yield f"memory: resident, less {gigabytes(held)} that were held before the first stage"


def _row(name: str, planned: int | None, was: int) -> list[str]:
    if planned is None:
        return [name, "?", gigabytes(was), ""]
    return [name, gigabytes(planned), gigabytes(was), f"{was / planned:.2f}" if planned else ""]
