"""What long work says of itself: the protocol, and a silent one. `terminal.py` has those that people see."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Hears of stages and of work done inside them."""

    def begin(self, stage: str, total: int | None = None, unit: str = "") -> None:
        """A stage starts; `total` units of work are ahead, where that is known."""
        ...

    def advance(self, amount: int = 1, detail: str = "") -> None:
        """`amount` units are done; `detail` is a key figure so far."""
        ...

    def end(self, figure: str = "", skipped: bool = False) -> None:
        """The stage is finished; `figure` is what it found."""
        ...

    def say(self, message: str) -> None:
        """One line for the reader."""
        ...


class Silent:
    """Says nothing."""

    def begin(self, stage: str, total: int | None = None, unit: str = "") -> None:
        """See `Progress`."""

    def advance(self, amount: int = 1, detail: str = "") -> None:
        """See `Progress`."""

    def end(self, figure: str = "", skipped: bool = False) -> None:
        """See `Progress`."""

    def say(self, message: str) -> None:
        """See `Progress`."""
