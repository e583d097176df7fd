"""Under which licence a set of problems was published: for a model's card and for exported rows.

licence_of("gsm8k")                 # "MIT"
licence_of("file")                  # "yours, not known"

Licences are as the authors state them, looked up in November 2026: SVAMP's in its repository, GSM8K's and ASDiv's on
pages of the hub that cite theirs, reasoning-gym's in its package. None was found for MultiArith. A local file of a
source is taken to be a copy of what was published. This is no legal advice.
"""

from __future__ import annotations

LICENCES = {
    "gsm8k": "MIT",
    "svamp": "MIT",
    "asdiv": "CC BY-NC 4.0 (not for commercial use)",
    "reasoning_gym": "Apache-2.0",
    "multiarith": "not stated",
    "arithmetic": "none needed: made up by selftrain",
}
NOT_KNOWN = "yours, not known"


def licence_of(source: str) -> str:
    """The licence of a source as `data.train.source` names it; of a file or a set of the hub it is not known here.

    >>> licence_of("reasoning_gym:gsm_symbolic"), licence_of("hub:someone/sums:train")
    ('Apache-2.0', 'yours, not known')
    """
    return LICENCES.get(source.partition(":")[0], NOT_KNOWN)
