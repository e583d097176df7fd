"""Fuzzing: texts that nobody wrote, for everything that reads a text; found by the branches that they take.

    make fuzz SECONDS=600                              # every target in turn, then the branches that were taken
    python -m fuzz numeric 60 --corpus .fuzz           # one target; needs the extra `fuzz`

    targets    what must hold whatever the text is; imports no fuzzer, so that tests replay texts without one
    letters    a tokenizer made up of the tokens that it is given, for the calculator's automaton
    corpus     texts as files for the fuzzer, and as JSON in tests/golden/fuzz: those that take a branch first
    branches   how many branches of the parsers the texts take, by coverage.py

Leaves out: processes (`verify.worker` and what it hands to math-verify; tests/verify/test_symbolic.py), Parquet.
"""

TARGETS = ("calculator", "annotation", "numeric", "choice", "symbolic", "prompts", "reading")
