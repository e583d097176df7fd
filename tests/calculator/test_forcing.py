"""The automaton against a plain twin that decodes the whole text at every step, over tokenizers that merge anyhow."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from selftrain.calculator.annotation import Style, split_for_training
from selftrain.calculator.expression import MAX_CHARS, ExpressionError, canonical, evaluate
from selftrain.calculator.forcing import EXTRA_IDS, Forcer, ForcingTables, build_tables, forced_spans
from tests.lookalikes import byte_fallback, byte_level, metaspace_unigram


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def run(tables: ForcingTables, sampled: Sequence[int]) -> tuple[list[int], int, int]:
    """What an engine writes, with its calls and uncalculated."""
    forcer, state, written = Forcer(tables), Forcer.start(), []
    for token in sampled:
        step = None
        if tables.interesting[token] or state.is_open:
            step = forcer.feed(state, token)
        if step is None:
            written.append(token)
        else:
            written += [token] if step.replace is None else step.replace
            written += step.forced
    return written, state.calls, state.uncalculated


def slow_twin(tokenizer: Any, tables: ForcingTables, sampled: Sequence[int]) -> tuple[list[int], int, int]:
    """The same by decoding the whole text at every step and looking at it with string functions."""
    opening, closing = ("<<", ">>") if tables.style == "angle" else ("[", "]")
    anchor = list(tokenizer.encode("a", add_special_tokens=False))
    written: list[int] = []
    calls = uncalculated = done = 0  # characters before `done` belong to what was computed, forced or given up
    for token in sampled:
        before = decode(tokenizer, anchor + written)
        after = decode(tokenizer, [*anchor, *written, token])
        new: list[int] = [token]
        for place in range(len(before), len(after)):
            line = after[done:place].rpartition("\n")[2]
            start, _, expression = line.rpartition(opening)
            is_open = opening in line and closing not in expression and len(expression) <= MAX_CHARS
            if is_open and len(expression) == MAX_CHARS and after[place] not in "=\n":
                uncalculated += not (expression + after[place]).endswith((opening, closing))
            if after[place] != "=" or not is_open:
                continue
            done = place + 1
            try:
                value = canonical(evaluate(expression))
            except ExpressionError:
                uncalculated += 1
                continue
            calls += 1
            if done < len(after):
                new = list(tables.encode(after[len(before) : done]))
            new += tables.encode(value if opening == "<<" else f" {value}")
            new += tables.encode(closing if opening == "<<" else f" {closing}")
            done = len(decode(tokenizer, anchor + written + new))
            break
        written += new
    return written, calls, uncalculated


FRAGMENTS = [
    "<<",
    "<",
    "[ ",
    " [",
    "7*6",
    "12/4",
    " 5 + 3",
    "(1",
    ")",
    "1/0",
    "=",
    "=",
    "=",
    "41",
    "3",
    ">>",
    ">",
    " ]",
    "\n",
]
texts = st.lists(st.sampled_from([*FRAGMENTS, " ", "a", "(<<", "<<1+1=", "[ 2 * 3 ="]), max_size=12).map("".join)
merged = st.lists(
    st.sampled_from(
        [
            "<<",
            " <<",
            "(<<",
            "<<7",
            "<<<",
            "=4",
            "=>",
            "=>>",
            "6=",
            "*6=4",
            ">>",
            "6>",
            "41",
            "a<",
            "==",
            "\n<",
            " [",
            "[ ",
            "[ 7",
            " =",
            "= ",
            "=]",
            " ]",
            " 4",
        ]
    )
    | st.text(alphabet="<>=[]6 ", min_size=2, max_size=4),
    max_size=6,
)


def segmented(tables: ForcingTables, text: str, choose: Any) -> list[int]:
    """Token ids that spell `text`, in one of all the ways the vocabulary has."""
    ids = []
    while text:
        fitting = [token for token, piece in enumerate(tables.pieces) if piece and text.startswith(piece)]
        ids.append(fitting[choose(len(fitting))])
        text = text[len(tables.pieces[ids[-1]]) :]
    return ids


@settings(deadline=None, max_examples=250, derandomize=True)
@given(merged, texts, st.data())
def test_agrees_with_slow_twin_byte_level(tokens: list[str], text: str, data: st.DataObject) -> None:
    tokenizer = byte_level(tokens)
    for style in ("angle", "bracket"):
        tables = build_tables(tokenizer, style)
        sampled = segmented(tables, text, lambda size: data.draw(st.integers(0, size - 1)))
        assert run(tables, sampled) == slow_twin(tokenizer, tables, sampled)


@settings(deadline=None, max_examples=150, derandomize=True)
@given(merged, texts, st.data())
def test_agrees_with_slow_twin_metaspace(tokens: list[str], text: str, data: st.DataObject) -> None:
    tokenizer = metaspace_unigram([token for token in tokens if not set(token) & set("<>\n")])
    tables = build_tables(tokenizer, "bracket")
    text = re.sub("[<>\n]", "", text)
    sampled = segmented(tables, text, lambda size: data.draw(st.integers(0, size - 1)))
    assert run(tables, sampled) == slow_twin(tokenizer, tables, sampled)


@settings(deadline=None, max_examples=150, derandomize=True)
@given(merged, texts, st.data())
def test_agrees_with_slow_twin_byte_fallback(tokens: list[str], text: str, data: st.DataObject) -> None:
    tokenizer = byte_fallback(tokens)
    for style in ("angle", "bracket"):
        tables = build_tables(tokenizer, style)
        sampled = segmented(tables, text, lambda size: data.draw(st.integers(0, size - 1)))
        assert run(tables, sampled) == slow_twin(tokenizer, tables, sampled)


@settings(deadline=None, max_examples=150, derandomize=True)
@given(merged, st.lists(st.integers(0, 10**6), max_size=30))
def test_agrees_with_slow_twin_random_ids(tokens: list[str], numbers: list[int]) -> None:
    chars = "7*=<>\n6a"
    tokenizer = byte_level([token for token in tokens if set(token) <= set(chars)], chars)
    tables = build_tables(tokenizer, "angle")
    sampled = [number % len(tokenizer) for number in numbers]
    assert run(tables, sampled) == slow_twin(tokenizer, tables, sampled)


MERGES: list[list[str]] = [
    [],
    ["<<"],
    ["<<", ">>"],
    [" <<", "=4", "41"],
    ["(<<", "<<7", "*6=4"],
    ["=>>", "=>", "6="],
    ["<<7*6=41>>"],
    ["41>>", "42", "42>>"],
]


@pytest.mark.parametrize("tokens", MERGES, ids=str)
def test_wrong_result_is_forced_right_whatever_the_merges(tokens: list[str]) -> None:
    """A model that always writes `<<7*6=41>>` gets 42, however its vocabulary cuts the text."""
    tokenizer = byte_level(tokens)
    tables = build_tables(tokenizer, "angle")
    written, calls, uncalculated = run(tables, segmented(tables, "a (<<7*6=", lambda size: size - 1))
    assert decode(tokenizer, written) == "a (<<7*6=42>>"
    assert (calls, uncalculated) == (1, 0)
    for choose in (lambda size: 0, lambda size: size - 1):
        sampled = segmented(tables, "a (<<7*6=41>>", choose)
        written, calls, _ = run(tables, sampled)
        assert decode(tokenizer, written).startswith("a (<<7*6=42>>")
        assert calls == 1


def test_sampled_token_is_cut_back_to_the_equals_sign() -> None:
    tokenizer = byte_level(["=4", "=>>", "6="])
    tables = build_tables(tokenizer, "angle")
    forcer, state = Forcer(tables), Forcer.start()
    for char in "<<7*6":
        assert forcer.feed(state, tables.encode(char)[0]) is None
    step = forcer.feed(state, tables.pieces.index("=4"))
    assert step is not None and step.replace is not None
    assert decode(tokenizer, step.replace) == "="
    assert step.forced == tables.encode("42") + tables.encode(">>")
    assert (state.is_open, state.calls) == (False, 1)

    state = Forcer.start()
    for char in "<<7*":
        forcer.feed(state, tables.encode(char)[0])
    step = forcer.feed(state, tables.pieces.index("6="))
    assert step is not None and step.replace is None  # it ends at the `=`


@pytest.mark.parametrize(
    ("text", "written", "calls", "uncalculated"),
    [
        ("<<1/0=", "<<1/0=", 0, 1),
        ("<<1/0=5=6>>", "<<1/0=5=6>>", 0, 1),  # counted once
        ("<<a=<<1+1=", "<<a=<<1+1=2>>", 1, 1),
        ("<<3+<<4*5=", "<<3+<<4*5=20>>", 1, 0),  # a second opening starts again
        ("<<<4*5=", "<<<4*5=20>>", 1, 0),
        ("<<3<4=", "<<3<4=", 0, 1),
        ("<<3<=<5+1=", "<<3<=<5+1=", 0, 1),  # the `<` before the `=` is used up
        ("<=<5+1=", "<=<5+1=", 0, 0),
        ("<<3+4>>7=", "<<3+4>>7=", 0, 0),
        ("<<3+4\n=", "<<3+4\n=", 0, 0),
        ("< <3+4=", "< <3+4=", 0, 0),
        ("<3+4=", "<3+4=", 0, 0),
        ("3+4=7", "3+4=7", 0, 0),
        ("<<" + "1" * MAX_CHARS + "=", "<<" + "1" * MAX_CHARS + "=", 0, 1),
        ("<<" + "1" * (MAX_CHARS + 1) + "=", "<<" + "1" * (MAX_CHARS + 1) + "=", 0, 1),
        ("<<" + "1" * (MAX_CHARS + 900) + "=>>", "<<" + "1" * (MAX_CHARS + 900) + "=>>", 0, 1),  # once
        ("<<" + "1" * MAX_CHARS + ">>=", "<<" + "1" * MAX_CHARS + ">>=", 0, 1),
        ("<<" + "1" * MAX_CHARS + "\n=", "<<" + "1" * MAX_CHARS + "\n=", 0, 0),
        ("<<1+1=<<2*3=", "<<1+1=2>><<2*3=6>>", 2, 0),
        ("<<1/3=<<-1/8=", "<<1/3=0.33>><<-1/8=-0.125>>", 2, 0),
    ],
)
def test_what_is_forced(text: str, written: str, calls: int, uncalculated: int) -> None:
    tokenizer = byte_level()
    tables = build_tables(tokenizer, "angle")
    ids, num_calls, num_uncalculated = run(tables, [tables.pieces.index(char) for char in text])
    assert (decode(tokenizer, ids), num_calls, num_uncalculated) == (written, calls, uncalculated)


@pytest.mark.parametrize(
    ("text", "forced"),
    [
        ("a<<7*6=42>>42", ["42>>"]),
        ("<<7*6=41>>", ["4"]),  # not what the calculator writes: as far as it agrees
        ("<<7*6=", []),
        ("<<7*6=42", ["42"]),
        ("<<1+1=2>><<2*3=6>>=7", ["2>>", "6>>"]),
        ("<<1/0=5>> 3+4=7", []),
    ],
)
def test_forced_spans_are_found_from_the_ids_alone(text: str, forced: list[str]) -> None:
    tokenizer = byte_level()
    tables = build_tables(tokenizer, "angle")
    ids = [tables.pieces.index(char) for char in text]
    assert [decode(tokenizer, ids[start:end]) for start, end in forced_spans(tables, ids)] == forced


def test_bracket_writing_is_forced_with_its_spaces() -> None:
    tokenizer = metaspace_unigram(["▁7", "42", "▁42", "▁]"])
    tables = build_tables(tokenizer, "bracket")
    sampled = tokenizer.encode("a [ 7 * 6 =", add_special_tokens=False)
    written, calls, _ = run(tables, sampled)
    assert decode(tokenizer, written) == "a [ 7 * 6 = 42 ]"
    assert tokenizer.convert_ids_to_tokens(written[-2:]) == ["▁42", "▁]"]
    assert calls == 1


def build(kind: str, tokens: Sequence[str]) -> tuple[Any, Style]:
    if kind == "byte_level":
        return byte_level(tokens), "angle"
    if kind == "byte_fallback":
        return byte_fallback(tokens), "angle"
    return metaspace_unigram([token for token in tokens if not set(token) & set("<>\n")]), "bracket"


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback", "metaspace"])
@settings(deadline=None, max_examples=60, derandomize=True)
@given(tokens=merged, text=st.text(alphabet="0123456789.->=]a+", min_size=1, max_size=8), space=st.booleans())
def test_encode_adds_exactly_the_text(kind: str, tokens: list[str], text: str, space: bool) -> None:
    tokenizer, style = build(kind, tokens)
    text = (" " if space else "") + (text.replace(">", "]") if style == "bracket" else text)
    tables = build_tables(tokenizer, style)
    prefix = list(tokenizer.encode("a3*4=", add_special_tokens=False))
    assert decode(tokenizer, [*prefix, *tables.encode(text)]) == decode(tokenizer, prefix) + text


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback", "metaspace"])
@pytest.mark.parametrize("tokens", MERGES, ids=str)
def test_training_and_decoding_write_the_same_ids(kind: str, tokens: list[str]) -> None:
    """A model that has learned the pieces of `split_for_training` is forced to exactly those ids."""
    tokenizer, style = build(kind, tokens)
    tables = build_tables(tokenizer, style)
    text = "a <<7*6=42>>42 - <<1-3.5=-2.5>>2" if style == "angle" else "a [ 7 * 6 = 42 ] 42 - [ 1 - 3.5 = -2.5 ] 2"
    pieces = [tables.encode(piece) for piece in split_for_training(text, style)]
    assert len(pieces) == 7
    trained = [token for piece in pieces for token in piece]
    sampled = [token for place in (0, 3, 6) for token in pieces[place]]  # what the model itself writes
    assert run(tables, sampled)[:2] == (trained, 2)


def test_encode_cuts_as_the_tokenizer_itself_does() -> None:
    tokenizer = byte_level(["12", "48", "24"])  # in "1248" the 1 merges; behind "=" the first merge is 48
    tables = build_tables(tokenizer, "angle")
    assert tokenizer.convert_ids_to_tokens(tables.encode("248")) == ["2", "48"]


def test_encode_of_what_the_tokenizer_does_not_know() -> None:
    tokenizer = metaspace_unigram(["=4"])
    tables = build_tables(tokenizer, "bracket")
    assert tokenizer.convert_ids_to_tokens(tables.encode("4é")) == ["4", "<unk>"]
    assert tables.encode("") == ()


def test_pieces_are_what_each_id_adds() -> None:
    tables = build_tables(byte_fallback([" ="]), "angle")
    tokenizer = byte_fallback([" ="])
    for token, text in (("▁=", " ="), ("<0x3C>", "<"), ("<0x0A>", "\n"), ("▁", " "), ("4", "4"), ("<0xC3>", "\ufffd")):
        assert tables.pieces[tokenizer.convert_tokens_to_ids(token)] == text
    assert tables.interesting.sum() == 1  # the byte of `<`; `<unk>` is special and has no text
    assert tables.pieces[0] == ""


def test_special_and_padding_ids_have_no_text() -> None:
    tokenizer = byte_level()
    tokenizer.add_special_tokens({"eos_token": AddedToken("<<end=>>", special=True)})
    tables = build_tables(tokenizer, "angle")
    eos = tokenizer.eos_token_id
    assert tables.pieces[eos] == "" and not tables.interesting[eos]
    assert len(tables.pieces) == len(tables.interesting) == len(tokenizer) + EXTRA_IDS
    assert Forcer(tables).feed(Forcer.start(), len(tokenizer) + EXTRA_IDS + 5) is None
    with pytest.raises(ValueError, match="read-only"):
        tables.interesting[0] = True


def test_interesting_names_every_opening() -> None:
    tokenizer = byte_level(["a<", " <<", "=4", " ["])
    angle, bracket = build_tables(tokenizer, "angle"), build_tables(tokenizer, "bracket")
    assert {angle.pieces[token] for token in np.flatnonzero(angle.interesting)} == {"<", "a<", " <", " <<"}
    assert {bracket.pieces[token] for token in np.flatnonzero(bracket.interesting)} == {"[", " ["}


def test_is_open_after_a_single_angle() -> None:
    tables = build_tables(byte_level(), "angle")
    forcer, state = Forcer(tables), Forcer.start()
    seen = [state.is_open]
    for char in "a<a<<1>><":
        forcer.feed(state, tables.pieces.index(char))
        seen.append(state.is_open)
    assert seen == [False, False, True, False, True, True, True, True, False, True]
