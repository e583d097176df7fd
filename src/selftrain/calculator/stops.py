"""Where a backend without the automaton has to stop, so that the calculator can write: the tokens that begin with `=`.

    stops = stop_token_ids(tables)      # of the codec's `ForcingTables`
    if not equals_stands_alone(tables): ...

An annotation's `=` comes after a digit, `)` or `%`, and in most vocabularies it then begins a token: `=`, `)=`, or
one that runs on (`=-`, `=$`). Decoding is stopped at each of them, inside an annotation or not; what is done there is
the automaton's affair (`forcing`). Most other `=` of a text stand behind a space, which is another token and no stop;
in the bracket writing a space is usual inside the annotation too, so there it is one.

Leaves out: a `=` that a model writes another way. Whoever decodes finds it when the tokens are there.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selftrain.calculator.annotation import Style
    from selftrain.calculator.forcing import ForcingTables

_STOP: dict[Style, re.Pattern[str]] = {"angle": re.compile(r"[)%]*="), "bracket": re.compile(r" ?[)%]*=")}
_PROBES: dict[Style, tuple[str, ...]] = {
    "angle": (*(f"<<4+{digit}=" for digit in range(10)), "<<12/48=", "<<2*(1+3)=", "<<50*20%="),
    "bracket": (*(f"[ 4 + {digit} =" for digit in range(10)), "[ 12 / 48 =", "[ 2 * ( 1 + 3 ) =", "[ 50 * 20% ="),
}


def stop_token_ids(tables: ForcingTables) -> tuple[int, ...]:
    """Ids whose text begins with `=`, after any `)` and `%`; ascending. A few hundred at most in real vocabularies."""
    pattern = _STOP[tables.style]
    return tuple(token for token, piece in enumerate(tables.pieces) if pattern.match(piece))


def equals_stands_alone(tables: ForcingTables) -> bool:
    """Whether an annotation's `=` begins a token here, whatever the expression ends with (no token is `2=`)."""
    pattern = _STOP[tables.style]
    return all(pattern.fullmatch(tables.pieces[tables.encode(probe)[-1]]) for probe in _PROBES[tables.style])
