"""`python -m fuzz TARGET SECONDS --corpus DIR`: fuzz one target, or `all` in turn; needs the extra `fuzz`.

DIR/TARGET is the fuzzer's corpus; it starts with what tests/golden/fuzz keeps, and is gone on with. A text that breaks
a promise is written to DIR/TARGET.crash-..., one that takes too long to DIR/TARGET.timeout-... After `all` the branches
that the corpora take are counted; `--keep` writes the few texts that take them to tests/golden/fuzz, for the tests.

Exit code 1: something was found, or too few branches were taken.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from pathlib import Path

from fuzz import TARGETS
from fuzz.branches import SMALLEST_SHARE, measure
from fuzz.corpus import as_text, keep, lay_out, minimised, texts_in
from fuzz.seeds import HOSTILE, WORDS

LIMIT_S = 20  # for one text
MAX_BYTES = 1000
SHOWN = 300  # characters of what was found
GOOD = ("number_of_executed_units", "average_exec_per_sec")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("target", choices=(*TARGETS, "all"))
    parser.add_argument("seconds", type=int, help="for each target; 0: count branches only")
    parser.add_argument("--corpus", type=Path, required=True, help="a folder; made, or gone on with")
    parser.add_argument("--keep", action="store_true", help="with all: write tests/golden/fuzz anew")
    arguments = parser.parse_args()
    corpus: Path = arguments.corpus
    for target in TARGETS:
        lay_out(target, corpus / target)
    if arguments.target != "all":
        fuzz(arguments.target, arguments.seconds, corpus)
        return 0
    asked = TARGETS if arguments.seconds else ()
    broken = [target for target in asked if not _in_its_process(target, arguments.seconds, corpus)]
    texts = {target: texts_in(corpus / target) for target in TARGETS}
    share, table = measure({target: [*some, *HOSTILE.values()] for target, some in texts.items()})
    print(table)
    if arguments.keep:
        checks = importlib.import_module("fuzz.targets").CHECKS
        for target, some in texts.items():
            keep(target, minimised(checks[target], some))
    return int(bool(broken) or share < SMALLEST_SHARE)


def fuzz(target: str, seconds: int, corpus: Path) -> None:
    """Fuzz in this process, which the fuzzer ends; its reports go to stderr."""
    import atheris

    with atheris.instrument_imports(include=["selftrain"]):
        check = importlib.import_module("fuzz.targets").CHECKS[target]
    for text in HOSTILE.values():
        check(text)
    words = corpus / f"{target}.words"
    words.write_text("\n".join(map(_quoted, WORDS[target])) + "\n", encoding="ascii")
    options = {
        "max_total_time": seconds,
        "timeout": LIMIT_S,
        "max_len": MAX_BYTES,
        "dict": words,
        "artifact_prefix": corpus / f"{target}.",
        "print_final_stats": 1,
    }
    atheris.Setup(
        [sys.argv[0], *(f"-{name}={value}" for name, value in options.items()), str(corpus / target)],
        lambda content: check(as_text(content)),
    )
    atheris.Fuzz()


def _quoted(word: str) -> str:
    """A word as libFuzzer's dictionaries have it."""
    return '"' + "".join(f"\\x{byte:02X}" for byte in word.encode("utf-8")) + '"'


def _in_its_process(target: str, seconds: int, corpus: Path) -> bool:
    """Fuzz a target in a process of its own, say what came of it; whether nothing was found."""
    log = corpus / f"{target}.log"
    before = set(corpus.glob(f"{target}.*-*"))
    with log.open("w", encoding="utf-8") as stream:
        command = [sys.executable, "-m", "fuzz", target, str(seconds), "--corpus", str(corpus)]
        done = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, check=False)
    said = log.read_text(encoding="utf-8", errors="replace").splitlines()
    stats = [line.removeprefix("stat::") for line in said if line.removeprefix("stat::").startswith(GOOD)]
    print(f"{target}: {', '.join(' '.join(line.split()) for line in stats) or 'no figures'}", flush=True)
    for path in sorted(set(corpus.glob(f"{target}.*-*")) - before):
        print(f"  found {path}: {as_text(path.read_bytes())[:SHOWN]!r}")
    if done.returncode:
        print(f"  exit code {done.returncode}; see {log}\n  " + "\n  ".join(said[-12:]))
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
