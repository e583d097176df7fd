"""What the fuzzer found, replayed without it; that the checks can fail; and how texts are kept and chosen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fuzz import TARGETS, corpus, targets
from fuzz.branches import share_and_table
from fuzz.corpus import as_bytes, as_text, branches_of, keep, kept, lay_out, minimised, texts_in
from fuzz.letters import END, UNKNOWN, Letters
from fuzz.seeds import HOSTILE, SEEDS, WORDS


@pytest.mark.parametrize("target", TARGETS)
def test_promises_hold_for_what_the_fuzzer_found(target: str) -> None:
    texts = kept(target)
    assert len(texts) == len(set(texts)) >= 10
    for text in (*texts, *SEEDS[target], *WORDS[target]):
        targets.CHECKS[target](text)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_promises_hold_for_hostile_text(target: str, text: str) -> None:
    targets.CHECKS[target](text)


def test_every_target_has_all_that_it_needs() -> None:
    assert set(TARGETS) == set(targets.CHECKS) == set(SEEDS) == set(WORDS)
    assert {path.stem for path in corpus.KEPT.iterdir()} == set(TARGETS)


@pytest.mark.parametrize(
    ("target", "name", "wrong", "text"),
    [
        ("calculator", "canonical", lambda value: f"{value.numerator}", "1/2"),
        ("calculator", "forced_spans", lambda tables, ids: [], "<<1+1=2>>"),
        ("annotation", "canonicalise", lambda text, style: text + " ", "a"),
        ("annotation", "annotate_equations", lambda text: f"<<1=2>>{text}", "a"),
        ("numeric", "numeric.flexible_answer", lambda text: "8", "#### 7"),
        ("numeric", "numeric.strict_answer", lambda text: "7" * 300, "#### 7"),
        ("choice", "choice.strict_choice", lambda text: "AB", "#### A"),
        ("symbolic", "symbolic.strict_expression", lambda text: "x" * 501, "#### x"),
        ("prompts", "space_operators", lambda text, style: f"{text}.", "a"),
        ("prompts", "one_line", lambda text: text, "a\nb"),
        ("reading", "read_rows", lambda path: [], "{}"),
    ],
)
def test_the_checks_can_fail(target: str, name: str, wrong: object, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    targets.CHECKS[target](text)
    monkeypatch.setattr(f"fuzz.targets.{name}", wrong)
    with pytest.raises(AssertionError):
        targets.CHECKS[target](text)


@pytest.mark.parametrize("content", [b"", b"7\x00", "\u202e\u0665".encode(), b"\xff\xfe", b"\xed\xa0\x80", b"\xe2\x80"])
def test_every_file_is_a_text_and_every_such_text_the_file(content: bytes) -> None:
    assert as_bytes(as_text(content)) == content


def test_half_a_pair_becomes_bytes_that_are_no_text() -> None:
    with pytest.raises(UnicodeDecodeError):
        as_bytes("\ud800").decode("utf-8")


def test_texts_are_kept_and_laid_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "KEPT", tmp_path / "golden")
    texts = ["\udcff", "7\n", "\u202e\x00"]
    keep("numeric", texts)
    assert kept("numeric") == texts
    assert (tmp_path / "golden" / "numeric.json").read_bytes().isascii()
    lay_out("numeric", tmp_path / "corpus")
    laid = texts_in(tmp_path / "corpus")
    assert set(laid) == {*texts, *SEEDS["numeric"]}
    assert [len(text) for text in laid] == sorted(len(text) for text in laid)
    assert kept("choice") == []


def test_only_texts_that_take_another_branch_are_kept() -> None:
    check = targets.CHECKS["numeric"]
    check("1")  # what is made once is made
    texts = ["", "7", "8", "9", "#### 7", "#### 8", "x" * (corpus.MAX_KEPT_CHARS + 1)]
    assert minimised(check, texts) == ["", "7", "#### 7"]
    assert branches_of(check, "8") == branches_of(check, "9") != branches_of(check, "#### 9")


def test_letters_take_the_longest_token() -> None:
    tokenizer = Letters(["<<", "<<7"])
    ids = tokenizer.encode("<<7<<<é")
    assert [tokenizer.decode([token]) for token in ids] == ["<<7", "<<", "<", "\ufffd"]
    assert ids[-1] == UNKNOWN and tokenizer.decode([END]) == ""
    assert tokenizer.decode(tokenizer.encode("a = 1\n")) == "a = 1\n"


def test_parsers_alone_count() -> None:
    def found(branches: int, taken: int, missing: list[list[int]]) -> dict[str, object]:
        return {"summary": {"num_branches": branches, "covered_branches": taken}, "missing_branches": missing}

    share, table = share_and_table(
        {
            "verify/killable.py": found(10, 0, [[1, 2]]),
            "calculator/expression.py": found(8, 8, []),
            "verify/numeric.py": found(12, 10, [[7, 9], [7, -6]]),
        }
    )
    assert share == pytest.approx(0.9)
    lines = table.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [
        "calculator/expression.py",
        "verify/numeric.py",
        "verify/killable.py",
        "parsers",
    ]
    assert "7 -> 9, 7 -> -6" in lines[2] and "no parser" in lines[3] and "90.0%" in lines[4]


def test_kept_texts_are_one_a_line() -> None:
    for target in TARGETS:
        lines = (corpus.KEPT / f"{target}.json").read_text(encoding="utf-8").splitlines()
        assert len(lines) == len(json.loads("".join(lines))) + 2
