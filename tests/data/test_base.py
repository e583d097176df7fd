"""Numbers, groups, the table of sources, and the proof of gold answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from selftrain.config import DataSpec
from selftrain.data import SOURCES, load, prove_gold
from selftrain.data.base import group_part, join_question, load_key, number_text
from selftrain.errors import DataError
from selftrain.records import Problem


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (51.0, "51"),
        (3, "3"),
        (-2, "-2"),
        (0.1, "0.1"),
        (1e-6, "0.000001"),
        ("1,800", "1800"),
        (" $29.00 ", "29"),
        ("-$5", "-5"),
        ("+7.", "7"),
        (".5", "0.5"),
        ("1,2,3", None),
        ("1,80", None),
        ("72 apples", None),
        ("5/2", None),
        ("50%", None),
        ("1e5", None),
        ("٣", None),
        ("", None),
        ("9" * 50, None),
        (1 / 3, None),
        ("0.1234567", None),
        (float("nan"), None),
        (float("inf"), None),
        (1e300, None),
        (10**60, None),
        (True, None),
        (None, None),
        ([3], None),
    ],
)
def test_number_text(value: object, text: str | None) -> None:
    assert number_text(value) == text


def test_join_question() -> None:
    assert join_question("If he had 3 cats,", " how many? ") == "If he had 3 cats, how many?"
    assert join_question("He has 3 ", "How many?") == "He has 3. How many?"
    assert join_question("", "How many?") == "How many?"


def test_group_parts_are_about_three_to_one_and_fixed() -> None:
    names = [f"template-{number:02d}" for number in range(100)]
    parts = [group_part(name) for name in names]
    # Binomial(100, 0.75): outside 55..95 with probability below 1e-5; and the hash is fixed, so it cannot flake.
    assert 55 < parts.count("known") < 95
    assert set(parts) == {"known", "unseen"}
    assert parts == [group_part(name) for name in names]


def arithmetic(**fields: object) -> DataSpec:
    return DataSpec.model_validate({"source": "arithmetic", "params": {"seed": 1, "size": 60}, **fields})


@pytest.fixture
def grouped(tmp_path: Path) -> Callable[..., DataSpec]:
    """Sixty rows of twelve groups in a file of their own."""
    rows = [{"question": f"{n} and 1?", "answer": n + 1, "group": f"form-{n % 12:02d}"} for n in range(60)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def spec(**fields: object) -> DataSpec:
        return DataSpec.model_validate({"source": "file", "path": str(tmp_path / "rows.jsonl"), **fields})

    return spec


def test_groups(grouped: Callable[..., DataSpec]) -> None:
    everything = load(grouped()).problems
    some = load(grouped(groups=["form-03"])).problems
    assert len(everything) == 60 and len(some) == 5
    assert some == [problem for problem in everything if problem.group == "form-03"]


def test_rationales_are_dropped_where_asked() -> None:
    everything, bare = load(arithmetic()).problems, load(arithmetic(rationales=False)).problems
    assert all(problem.rationale for problem in everything)
    assert all(problem.rationale is None for problem in bare)
    assert [problem.id for problem in bare] == [problem.id for problem in everything]


def test_group_split_parts_do_not_overlap(grouped: Callable[..., DataSpec]) -> None:
    parts = [{p.id for p in load(grouped(group_split=part)).problems} for part in ("known", "unseen")]
    assert all(parts) and not set.intersection(*parts)
    assert set.union(*parts) == {problem.id for problem in load(grouped()).problems}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"source": "gsm9k"}, "Did you mean 'gsm8k'"),
        ({"source": "gsm8k:hard", "path": "x"}, "has no parts"),
        ({"source": "arithmetic", "path": "x"}, "makes its problems itself"),
        ({"source": "arithmetic", "fields": {"question": "q"}}, "knows its own columns"),
        (
            {"source": "arithmetic", "params": {"sise": 3}},
            "unknown parameter 'sise'; parameters of arithmetic: seed, size",
        ),
        ({"source": "arithmetic", "params": {"size": 0}}, "params.size: expected an integer from 1"),
        ({"source": "arithmetic", "params": {"size": "3"}}, "got '3'"),
        ({"source": "svamp", "path": "x", "split": "test"}, "not from the hub"),
        ({"source": "svamp", "path": "no/such.json"}, "there is no such file"),
        ({"source": "arithmetic", "groups": ["form-x"]}, "no problem belongs to group 'form-x'"),
        ({"source": "arithmetic", "group_split": "seen"}, "expected 'known' or 'unseen', got 'seen'"),
    ],
)
def test_specs_that_cannot_be_loaded(spec: dict[str, object], said: str) -> None:
    with pytest.raises(DataError) as caught:
        load(DataSpec.model_validate(spec))
    assert said in str(caught.value)


def test_load_key_tells_what_is_read_from_what_is_taken() -> None:
    assert load_key(arithmetic(take=3, shuffle=1)) == load_key(arithmetic(skip=2, rationales=False))
    assert load_key(arithmetic()) != load_key(arithmetic(params={"seed": 2, "size": 60}))


def test_prove_gold() -> None:
    good = Problem("a", "q", "0.5", "1/2=<<1/2=0.5>>0.5\n#### 0.5")
    assert prove_gold([good, Problem("b", "q", "-3")]) == []
    bad = [
        Problem("other", "q", "7", "4*2=<<4*2=8>>8\n#### 8"),
        Problem("word", "q", "Tuesday"),
        Problem("none", "q", "7", "It is seven"),
    ]
    assert [failure.split(":")[0] for failure in prove_gold([*bad, good])] == ["other", "word", "none"]


def test_data_loads_neither_torch_nor_extras() -> None:
    code = (
        "import sys, selftrain.data\n"
        "print([m for m in ('torch', 'transformers', 'datasets', 'reasoning_gym') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_source_is_registered() -> None:
    assert set(SOURCES) == {"arithmetic", "asdiv", "file", "gsm8k", "hub", "multiarith", "reasoning_gym", "svamp"}
