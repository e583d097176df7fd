"""What a person sees of a run: a live view on a terminal, plain lines elsewhere (stderr, so stdout stays data)."""

from __future__ import annotations

import sys
import time
from typing import Any

from selftrain.progress import Progress
from selftrain.report.text import clean_lines

PLAIN_EVERY_S = 15.0


def make_progress() -> Progress:
    """The live view where stderr is a terminal, else plain lines."""
    return Live() if sys.stderr.isatty() else Plain()


def say(message: str) -> None:
    """A line, or some, for the reader: on stderr, since stdout is data."""
    print(clean_lines(message), file=sys.stderr, flush=True)


class Plain:
    """One line when a stage begins, one every 15 seconds, one when it ends."""

    def __init__(self) -> None:
        self._stage, self._unit, self._total = "", "", None
        self._done, self._started, self._last = 0, 0.0, 0.0

    def begin(self, stage: str, total: int | None = None, unit: str = "") -> None:
        """See `progress.Progress`."""
        self._stage, self._unit, self._total, self._done = stage, unit, total, 0  # type: ignore[assignment]
        self._started = self._last = time.monotonic()
        self.say(f"{stage}: {total} {unit}" if total else f"{stage} ...")

    def advance(self, amount: int = 1, detail: str = "") -> None:
        """See `progress.Progress`."""
        self._done += amount
        now = time.monotonic()
        if now - self._last >= PLAIN_EVERY_S:
            self._last = now
            rate = _rate_line(self._done, self._total, now - self._started, self._unit)
            self.say(f"  {self._stage}: {rate} {detail}".rstrip())

    def end(self, figure: str = "", skipped: bool = False) -> None:
        """See `progress.Progress`."""
        seconds = time.monotonic() - self._started
        took = "already done" if skipped else f"{seconds:.0f} s"
        self.say(f"  {self._stage}: {figure + ', ' if figure else ''}{took}")

    def say(self, message: str) -> None:
        """See `progress.Progress`."""
        say(message)


class Live:
    """A bar for the stage at hand, with rate and time left; finished stages scroll up as lines."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        self._console = Console(stderr=True)
        self._bars = Bars(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}  {task.fields[detail]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task: Any = None
        self._stage, self._unit, self._started, self._done = "", "", 0.0, 0

    def begin(self, stage: str, total: int | None = None, unit: str = "") -> None:
        """See `progress.Progress`."""
        self._stage, self._unit, self._started, self._done = stage, unit, time.monotonic(), 0
        self._bars.start()
        self._task = self._bars.add_task(stage, total=total, unit=unit, detail="")

    def advance(self, amount: int = 1, detail: str = "") -> None:
        """See `progress.Progress`."""
        self._done += amount
        if self._task is not None:
            rate = self._done / max(time.monotonic() - self._started, 1e-9)
            self._bars.update(self._task, advance=amount, detail=f"{rate:.2f}/s {detail}")

    def end(self, figure: str = "", skipped: bool = False) -> None:
        """See `progress.Progress`."""
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None
        self._bars.stop()
        took = "already done" if skipped else f"{time.monotonic() - self._started:.0f} s"
        self._console.print(f"[green]✓[/green] {self._stage:<34} {figure}  [dim]{took}[/dim]", highlight=False)

    def say(self, message: str) -> None:
        """See `progress.Progress`."""
        self._console.print(clean_lines(message), highlight=False, markup=False)


def _rate_line(done: int, total: int | None, seconds: float, unit: str) -> str:
    rate = done / max(seconds, 1e-9)
    if not total:
        return f"{done} {unit}, {rate:.2f}/s"
    left = (total - done) / rate if rate > 0 else 0.0
    return f"{done}/{total} {unit}, {rate:.2f}/s, {left:.0f} s left"
