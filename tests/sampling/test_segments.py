"""Decoding by segments against a plain loop that writes one token at a time, as the engine does."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selftrain.calculator.expression import MAX_CHARS
from selftrain.calculator.forcing import Forcer, ForcingTables
from selftrain.calculator.stops import stop_token_ids
from selftrain.sampling.base import Generated, Request
from selftrain.sampling.segments import Segment, SegmentedRow, run_segments
from selftrain.seeding import derive_seed

EOS = 0
PIECES = ("", *"0123456789+-*/().%=<> a\n", "<<", ">>", "=4", ")=", " =", "=>>", "12", "a<", "=<<", "<<7")


class LongestFirst:
    def encode(self, text: str) -> tuple[int, ...]:
        ids = []
        while text:
            token = max((t for t, p in enumerate(PIECES) if p and text.startswith(p)), key=lambda t: len(PIECES[t]))
            ids.append(token)
            text = text[len(PIECES[token]) :]
        return tuple(ids)


ENCODER: Any = LongestFirst()
TABLES = ForcingTables("angle", PIECES, np.array(["<" in piece for piece in PIECES]), ENCODER)
STOPS = frozenset({EOS, *stop_token_ids(TABLES)})
PROMPT = (5, 5, 5)


def ids(*pieces: str) -> list[int]:
    return [PIECES.index(piece) for piece in pieces]


def text(token_ids: Sequence[int]) -> str:
    return "".join(PIECES[token] for token in token_ids)


def request(number: int = 0) -> Request:
    return Request(f"q{number}", number % 4, PROMPT, derive_seed("test", number))


class Script:
    """A model that wants to write a given token at each place, whatever stands before; the end token after that."""

    def __init__(self, script: Sequence[int]) -> None:
        self.script = script
        self.added: deque[tuple[int, Segment]] = deque()
        self.seen: list[Segment] = []
        self.most = 0

    def token(self, position: int) -> int:
        return self.script[position] if position < len(self.script) else EOS

    def add(self, key: int, segment: Segment) -> None:
        assert segment.prompt_ids[: len(PROMPT)] == PROMPT
        assert len(segment.prompt_ids) == len(PROMPT) + segment.position
        assert segment.max_tokens >= 1
        self.added.append((key, segment))
        self.seen.append(segment)
        self.most = max(self.most, len(self.added))

    def step(self) -> list[tuple[int, list[int]]]:
        key, segment = self.added.pop() if len(self.seen) % 3 else self.added.popleft()
        drawn: list[int] = []
        while len(drawn) < segment.max_tokens and not (drawn and drawn[-1] in STOPS):
            drawn.append(self.token(segment.position + len(drawn)))
        return [(key, drawn)]


def by_segments(script: Sequence[int], room: int, calculator: bool = True) -> tuple[Generated, SegmentedRow]:
    row = SegmentedRow(request(), room, EOS, Forcer(TABLES) if calculator else None)
    ((_, generated),) = run_segments(Script(script), [row], window=1)
    return generated, row


def one_by_one(script: Sequence[int], room: int) -> Generated:
    """The engine's bookkeeping, a token at a time: a queue of forced tokens, and a look at the end after each token."""
    model, forcer, state = Script(script), Forcer(TABLES), Forcer.start()
    written: list[int] = []
    queue: deque[int] = deque()
    spans: list[tuple[int, int]] = []
    while True:
        if queue:
            written.append(queue.popleft())
        else:
            token = model.token(len(written))
            step = forcer.feed(state, token) if TABLES.interesting[token] or state.is_open else None
            tokens = (token,) if step is None or step.replace is None else step.replace
            written.append(tokens[0])
            queue.extend(tokens[1:])
            if step is not None:
                start = len(written) + len(queue)
                spans.append((start, start + len(step.forced)))
                queue.extend(step.forced)
        ended = written[-1] == EOS and not queue
        if ended or len(written) >= room:
            size = len(written)
            forced = tuple((start, min(end, size)) for start, end in spans if start < size)
            return Generated(tuple(written), "eos" if ended else "length", forced, state.calls, state.uncalculated)


FRAGMENTS = [
    ids("<<"), ids("<", "<"), ids("a<", "<"), ids("<<7"), ids("7", "*", "6"), ids("12", "/", "4"), ids("(", "1"),
    ids(")"), ids(")="), ids("="), ids("=4"), ids(" ="), ids("=>>"), ids("=<<"), ids(">>"), ids("5", "%"), ids("a"),
    ids("\n"), ids("3", "/", "0", "="), [EOS],
]  # fmt: skip
SCRIPTS = st.lists(st.sampled_from(FRAGMENTS), max_size=30).map(
    lambda parts: [token for part in parts for token in part]
)


@settings(deadline=None, derandomize=True, max_examples=600)
@given(script=SCRIPTS, room=st.integers(1, 60))
def test_same_tokens_spans_and_counts_as_one_by_one(script: list[int], room: int) -> None:
    generated, _ = by_segments(script, room)
    assert generated == one_by_one(script, room)


def test_the_random_scripts_have_calls() -> None:
    script = ids("<<7", "*", "6", "=", "a", "a", "a", "a", "a", "<<", "12", "/", "4", "=4", "a")
    assert one_by_one(script, 60).calls == 2


def test_a_wrong_product_is_put_right() -> None:
    script = ids("<<", "7", "*", "6", "=", "4", "1", "a", "a", "a")
    generated, row = by_segments(script, 40)
    assert text(generated.token_ids) == "<<7*6=42>>aa"  # the script goes by place: two of its `a` are left
    assert generated.forced == ((5, 8),)
    assert (generated.stop, generated.calls, generated.uncalculated, row.num_dropped) == ("eos", 1, 0, 0)


def test_a_token_that_runs_past_the_equals_sign_is_cut() -> None:
    generated, row = by_segments(ids("<<", "7", "*", "6", "=4", "1"), 40)
    assert text(generated.token_ids) == "<<7*6=42>>"
    assert PIECES[generated.token_ids[4]] == "="
    assert row.num_dropped == 0


def test_an_equals_sign_that_is_no_stop_is_still_computed() -> None:
    script = ids("<<", "7", "*", "6", " =", "4", "1", ">>", "a", "a", "a")
    generated, row = by_segments(script, 40)
    assert text(generated.token_ids) == "<<7*6 =42>>aaa"
    assert row.num_dropped == len(script) - 5 + 1  # and the end token
    assert generated == one_by_one(script, 40)


def test_what_cannot_be_computed_goes_on_and_is_counted() -> None:
    generated, _ = by_segments(ids("<<", "3", "/", "0", "=", "5", ">>", "a"), 40)
    assert text(generated.token_ids) == "<<3/0=5>>a"
    assert (generated.calls, generated.uncalculated, generated.forced) == (0, 1, ())


def test_an_endless_expression() -> None:
    script = ids("<<", "1", *["+", "1"] * 5000, "=", "2", ">>")
    generated, _ = by_segments(script, 20_000)
    assert len(script) > 10_000 > MAX_CHARS
    assert generated == one_by_one(script, 20_000)
    assert generated.token_ids == (*script, EOS)
    assert (generated.calls, generated.uncalculated) == (0, 1)


@pytest.mark.parametrize(
    ("room", "written", "forced"),
    [
        (5, "<<7*6=", ()),
        (6, "<<7*6=4", ((5, 6),)),
        (7, "<<7*6=42", ((5, 7),)),
        (8, "<<7*6=42>>", ((5, 8),)),
        (9, "<<7*6=42>>a", ((5, 8),)),
    ],
)
def test_room_ends_anywhere(room: int, written: str, forced: tuple[tuple[int, int], ...]) -> None:
    generated, _ = by_segments(ids("<<", "7", "*", "6", "=", *"aaaaaaaa"), room)
    assert text(generated.token_ids) == written
    assert (generated.stop, generated.calls, generated.forced) == ("length", 1, forced)


def test_a_segment_may_take_what_is_left() -> None:
    model = Script(ids("<<", "7", "*", "6", "=", "a", "a", "a", "a", "=", "a"))
    dict(run_segments(model, [SegmentedRow(request(), 30, EOS, Forcer(TABLES))], window=1))
    assert [(segment.position, segment.max_tokens) for segment in model.seen] == [(0, 30), (8, 22), (10, 20)]


def test_calculator_off() -> None:
    script = ids("<<", "7", "*", "6", "=", "4", "1", ">>")
    generated, _ = by_segments(script, 40, calculator=False)
    assert generated == Generated((*script, EOS), "eos")


def test_all_seeds_differ_and_depend_on_the_request_alone() -> None:
    script = ids("<<", "7", "*", "6", "=", "a", "a", "a", "=", "a", "=", "a")
    rows = [SegmentedRow(request(number), 40, EOS, Forcer(TABLES)) for number in range(300)]
    model = Script(script)
    outputs = dict(run_segments(model, rows, window=7))
    assert len(outputs) == 300
    seeds = [segment.seed for segment in model.seen]
    assert len(seeds) >= 900
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= 0
    assert max(seeds) < 2**63
    again = Script(script)
    dict(run_segments(again, [SegmentedRow(request(5), 40, EOS, Forcer(TABLES))], window=1))
    assert {segment.seed for segment in again.seen} <= set(seeds)


def test_no_more_than_the_window_is_handed_over() -> None:
    rows = [SegmentedRow(request(number), 40, EOS, None) for number in range(50)]
    model = Script(ids("a", "=", "a", "="))
    assert sorted(index for index, _ in run_segments(model, rows, window=6)) == list(range(50))
    assert model.most == 6


def test_an_empty_segment_is_an_error() -> None:
    row = SegmentedRow(request(), 40, EOS, None)
    with pytest.raises(RuntimeError, match="empty segment"):
        row.take([])


def test_nothing_to_do() -> None:
    assert list(run_segments(Script([]), [], window=4)) == []
