"""What must hold of every text, for each target: a check raises where it does not.

    CHECKS["numeric"]("#### 42")        # nothing: all is well

Everything is total: only the documented errors are let through. What is written canonically is read back and written
the same again; a text with a strict answer has the same flexible one; nothing grows beyond a bound.
"""

from __future__ import annotations

import contextlib
import functools
import re
import tempfile
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest.mock import patch

from fuzz.corpus import as_bytes
from fuzz.letters import LETTERS, Letters
from selftrain.calculator.annotation import (
    Style,
    annotate_equations,
    canonicalise,
    drop_trivial,
    find,
    split_for_training,
    to_angle,
    to_bracket,
    value_of,
)
from selftrain.calculator.expression import MAX_BITS, MAX_CHARS, MAX_DIGITS, ExpressionError, canonical, evaluate
from selftrain.calculator.forcing import Forcer, ForcingTables, build_tables, forced_spans
from selftrain.calculator.stops import equals_stands_alone, stop_token_ids
from selftrain.config import PromptConfig
from selftrain.data.reading import read_rows
from selftrain.errors import DataError
from selftrain.prompts import Codec, one_line, space_operators
from selftrain.records import Problem, Verdict
from selftrain.verify import choice, extract, formats, numeric, symbolic, verdicts

MAX_COMPLETION_CHARS = 2000  # of a text for the automaton: a completion's tokens are bounded too
MAX_MESSAGE_CHARS = 500
STYLES: tuple[Style, Style] = ("angle", "bracket")
MERGED = ("<<", ">>", " <<", "(<<", "<<7", "<<<", "=4", "=>>", "6=", "*6", "42", "==", "\n<", "[ ", " ]", " =", ") =")
CLINGING = ("1=", "==", "a=", ")=", "1 =", "1<", "=<", "a<", ")<", "11", "a1", "=1", ")1", "1 ", "= ", "a ", ") ")


def calculator(text: str) -> None:
    """Evaluating and writing; the automaton on the text's tokens, over vocabularies that cut it anyhow."""
    try:
        value = evaluate(text)
    except ExpressionError as error:
        assert len(str(error)) <= MAX_MESSAGE_CHARS
    else:
        written = canonical(value)
        assert max(value.numerator.bit_length(), value.denominator.bit_length()) <= MAX_BITS
        assert canonical(Fraction(written)) == written and abs(Fraction(written) - value) <= Fraction(1, 200)
        if sum(map(str.isdigit, written)) <= MAX_DIGITS:
            assert evaluate(written) == Fraction(written)
    for tokenizer, tables in _vocabularies():
        _automaton(tables, tokenizer.encode(text[:MAX_COMPLETION_CHARS]))
        part = text[:MAX_CHARS]
        ids = tables.encode(part)
        assert tokenizer.decode(ids) == part or not set(part) <= set(LETTERS)


def _automaton(tables: ForcingTables, sampled: Sequence[int]) -> None:
    """As an engine asks it; what it forced must be found again from the ids alone."""
    forcer, state = Forcer(tables), Forcer.start()
    written: list[int] = []
    spans = []
    for token in sampled:
        step = forcer.feed(state, token) if tables.interesting[token] or state.is_open else None
        assert state.expression is None or len(state.expression) <= MAX_CHARS
        if step is None:
            written.append(token)
            continue
        written += [token] if step.replace is None else step.replace
        spans.append((len(written), len(written) + len(step.forced)))
        written += step.forced
    assert state.calls == len(spans)
    assert forced_spans(tables, written) == spans


@functools.cache
def _vocabularies() -> list[tuple[Letters, ForcingTables]]:
    found = []
    for tokens in ((), MERGED, CLINGING):
        tokenizer: Any = Letters(tokens)
        for style in STYLES:
            tables = build_tables(tokenizer, style)
            assert equals_stands_alone(tables) == (not tokens)
            assert stop_token_ids(tables)
            found.append((tokenizer, tables))
    return found


def annotation(text: str) -> None:
    """Annotations found, rewritten, converted, split; equations annotated."""
    for style in STYLES:
        pieces = split_for_training(text, style)
        assert "".join(pieces) == text and "" not in pieces
        written = canonicalise(text, style)
        assert canonicalise(written, style) == written
        assert [found.expression for found in find(written, style)] == [found.expression for found in find(text, style)]
        assert len(drop_trivial(text, style)) <= len(text)
    assert len(to_bracket(text)) <= 3 * len(text) + 10
    assert len(to_angle(text)) <= 2 * len(text)
    annotated = annotate_equations(text)
    if "<<" not in text:
        assert re.sub(r"<<[^<>\n]*>>", "", annotated) == text
        for found in find(annotated, "angle"):
            value = value_of(found.expression)
            assert value is not None and canonical(value) == found.result
        assert annotate_equations(annotated) == annotated


def numeric_answers(text: str) -> None:
    """Numeric answers."""
    strict, flexible = numeric.strict_answer(text), numeric.flexible_answer(text)
    assert strict is None or flexible == strict
    for found in (strict, flexible):
        assert found is None or (found.isascii() and len(found) <= numeric.MAX_ANSWER_CHARS)
        assert found is None or numeric.strict_answer(f"#### {found}") == found
    numeric.states(text, "42")
    if flexible is not None:
        assert numeric.states(f"It is {flexible} in all.", flexible) and not numeric.states("None.", flexible)
        assert _outcomes(flexible, text, "numeric") == ("unparsed" if strict is None else "right", "right")
    _outcomes("42", text, "numeric")
    _outcomes(text, text, "numeric")


def options(text: str) -> None:
    """Options, and the places where an answer stands."""
    strict, flexible = choice.strict_choice(text), choice.flexible_choice(text)
    assert strict is None or flexible == strict
    for found in (strict, flexible, choice.parse_choice(text)):
        assert found is None or (found in list("ABCDEFGHIJKLMNOPQRSTUVWXYZ") and choice.parse_choice(found) == found)
    if strict is not None:
        assert _outcomes(strict, text, "choice") == ("right", "right")
    _outcomes("B", text, "choice")
    _outcomes(text, text, "choice")
    lines = extract.answer_lines(text)
    assert len(lines) <= extract.MAX_LINES
    for part in (extract.last_boxed(text), *lines):
        assert part is None or len(part) <= extract.MAX_ANSWER_CHARS
    assert len(extract.own_part(text)) <= extract.MAX_CHARS
    assert sum(formats.count_formats(text.split("\n", 9)).values()) <= 10


def expressions(text: str) -> None:
    """Where an expression is found; what answers for math-verify says anything, or nothing."""
    strict, flexible = symbolic.strict_expression(text), symbolic.flexible_expression(text)
    assert strict is None or strict == flexible
    for found in (strict, flexible):
        assert found is None or 0 < len(found) <= extract.MAX_ANSWER_CHARS
    with patch.object(symbolic, "worker", _Anything):
        for gold in ("42", None, text):
            for verdict in symbolic.verdicts(Problem("q", "?", gold), text, Fraction(0)):
                _well_formed(verdict)


class _Anything:
    """In the place of math-verify's process: each of its answers for some texts."""

    def ask(self, message: dict[str, str]) -> dict[str, str] | None:
        outcome = ("right", "wrong", "unparsed", "no gold", "")[sum(map(ord, message["text"])) % 5]
        return {"outcome": outcome} if outcome else None


def _outcomes(gold: str, text: str, verifier: str) -> tuple[str, str]:
    strict, flexible = verdicts(Problem("q", "?", gold, verify=verifier), text)
    return _well_formed(strict), _well_formed(flexible)


def _well_formed(verdict: Verdict) -> str:
    assert verdict.outcome in ("right", "wrong", "unparsed", "timeout")
    assert verdict.outcome != "right" or verdict.extracted is not None
    return verdict.outcome


def prompts(text: str) -> None:
    """Text written as a vocabulary can write it, tokenised in pieces, and read back."""
    for style in STYLES:
        spaced = space_operators(text, style)
        assert space_operators(spaced, style) == spaced
        assert spaced.replace(" ", "") == text.replace(" ", "")
        assert len(spaced) <= 3 * len(text)
    line = one_line(text)
    assert one_line(line) == line and "\n" not in line and len(line) <= 2 * len(text) + 1
    if len(text) > MAX_COMPLETION_CHARS:
        return
    for codec in _codecs():
        written, ids = codec.written(text), codec.target(text)
        assert ids[-1] == codec.eos_id
        if set(written) <= set(LETTERS):
            assert codec.text(ids) == written


@functools.cache
def _codecs() -> list[Codec]:
    tokenizer: Any = Letters(MERGED)
    return [
        Codec.build(tokenizer, PromptConfig(annotation=style, spacing=spacing), encoder_decoder=style == "bracket")
        for style in STYLES
        for spacing in ("plain", "operators")
    ]


def reading(text: str) -> None:
    """The same bytes as a file of each kind."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("rows.jsonl", "rows.json", "rows.csv"):
            path = Path(folder) / name
            path.write_bytes(as_bytes(text))
            try:
                rows = read_rows(path)
            except DataError as error:
                assert len(str(error)) <= MAX_MESSAGE_CHARS + len(str(path))
                continue
            assert len({row.key for row in rows}) == len({row.where for row in rows}) == len(rows) > 0
            for row in rows:
                with contextlib.suppress(DataError):
                    assert row.text("q").encode("utf-8").strip()


CHECKS: dict[str, Callable[[str], None]] = {
    "calculator": calculator,
    "annotation": annotation,
    "numeric": numeric_answers,
    "choice": options,
    "symbolic": expressions,
    "prompts": prompts,
    "reading": reading,
}
