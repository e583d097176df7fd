"""Annotations in text: found, rewritten, converted, split; and plain equations that get them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selftrain.calculator.annotation import (
    Annotation,
    annotate_equations,
    canonicalise,
    drop_trivial,
    find,
    split_for_training,
    to_angle,
    to_bracket,
    write,
)


def test_find_angle() -> None:
    text = "24/2 = <<24/2=12>>12, <<x=1>>, <<5>>, <<1=2=3>>, <<1+\n1=2>>, <<<<3=3>>"
    assert find(text, "angle") == [
        Annotation(7, 18, "24/2", "12"),
        Annotation(22, 29, "x", "1"),
        Annotation(text.index("<<3=3"), len(text), "3", "3"),
    ]


def test_find_bracket() -> None:
    text = "a [ 48 / 2 = 24 ] 24 [note] [ 1 [ 2 = 2 ]"
    assert [(a.expression, a.result, text[a.start : a.end]) for a in find(text, "bracket")] == [
        ("48 / 2", "24", "[ 48 / 2 = 24 ]"),
        ("2", "2", "[ 2 = 2 ]"),
    ]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("3*2 = <<3*2=6.0>>6.0", "3*2 = <<3*2=6>>6.0"),
        ("<<110-60=50.00>>50.00", "<<110-60=50>>50.00"),
        ("<<.5*3=01.50>>", "<<.5*3=1.5>>"),
        ("<<1000*2=2,000>>2,000", "<<1000*2=2000>>2,000"),
        ("<<1/128=0.0078125>>", "<<1/128=0.01>>"),  # what the calculator would write
        ("<<7*6=41>>41", "<<7*6=41>>41"),  # wrong: left alone
        ("<<10/3=3.3>>", "<<10/3=3.3>>"),
        ("<<x*2=6.0>>", "<<x*2=6.0>>"),
        ("6.0 <<3*2=6.0>>6.0 and <<2*2=4.0>>", "6.0 <<3*2=6>>6.0 and <<2*2=4>>"),
    ],
)
def test_canonicalise(before: str, after: str) -> None:
    assert canonicalise(before, "angle") == after
    assert canonicalise(after, "angle") == after


def test_canonicalise_bracket() -> None:
    assert canonicalise("[ 3 * 2 = 6.0 ] 6.0", "bracket") == "[ 3 * 2 = 6 ] 6.0"


def test_drop_trivial() -> None:
    assert drop_trivial("he has <<24=24>>24 and <<-3=-3.0>>-3") == "he has 24 and -3"
    kept = "<<24=25>>24 <<2*12=24>>24 <<(24)=24>>24"
    assert drop_trivial(kept) == kept
    assert drop_trivial("he has [ 24 = 24 ] 24", "bracket") == "he has 24"


@pytest.mark.parametrize(
    ("angle", "bracket"),
    [
        ("48/2 = <<48/2=24>>24 clips", "48/2 = [ 48 / 2 = 24 ] 24 clips"),
        ("$<<(1+2)*3.5=10.5>>10.5", "$ [ ( 1 + 2 ) * 3.5 = 10.5 ] 10.5"),
        ("<<560//10=56>>56", "[ 560 // 10 = 56 ] 56"),
        ("<<1-3=-2>>", "[ 1 - 3 = -2 ]"),
        ("<<50*20%=10>>\nnext", "[ 50 * 20% = 10 ]\nnext"),
        ("<<1+1=2>><<2+2=4>>4", "[ 1 + 1 = 2 ] [ 2 + 2 = 4 ] 4"),
    ],
)
def test_to_bracket(angle: str, bracket: str) -> None:
    assert to_bracket(angle) == bracket
    assert to_angle(bracket).replace(" ", "") == angle.replace(" ", "")


def test_writings_convert_back_where_a_space_stands_before() -> None:
    text = "so 48/2 = <<48/2=24>>24 and 3 * <<2*3=6>>6\n= <<5-1=4>>4"
    assert to_angle(to_bracket(text)) == text


def test_split_angle() -> None:
    text = "48/2 = <<48/2=24>>24 and <<1+1=2>>"
    assert split_for_training(text, "angle") == ["48/2 = <<48/2=", "24", ">>", "24 and <<1+1=", "2", ">>"]


def test_split_bracket() -> None:
    text = "so [ 48 / 2 = 24 ] 24 and [ 1 = 1]."
    assert split_for_training(text, "bracket") == ["so [ 48 / 2 =", " 24", " ]", " 24 and [ 1 =", " 1", "]", "."]


def test_split_of_nothing() -> None:
    assert split_for_training("", "angle") == []
    assert split_for_training("no = sign", "angle") == ["no = sign"]


@settings(deadline=None, derandomize=True)
@given(st.text(alphabet="<>[]= 12+a\n\u202e\u200f", max_size=60))
def test_total_and_lossless(text: str) -> None:
    for style in ("angle", "bracket"):
        pieces = split_for_training(text, style)
        assert "".join(pieces) == text
        assert "" not in pieces
        canonicalise(text, style)
        drop_trivial(text, style)
    to_bracket(text)
    to_angle(text)
    annotate_equations(text)


def test_write() -> None:
    assert write("1 + 2*3", "7", "angle") == "<<1+2*3=7>>"
    assert write("1+2*3", "7", "bracket") == "[ 1 + 2 * 3 = 7 ]"


ANNOTATED = [
    ("5 + 3 = 8 apples", "5 + 3 = <<5+3=8>>8 apples"),
    ("31 girls x 2 boys/girl = 62", "31 girls x 2 boys/girl = <<31*2=62>>62"),
    ("$5 * 4 = $20", "$5 * 4 = $<<5*4=20>>20"),
    ("$ 5 * 4 = $ 20", "$ 5 * 4 = $ <<5*4=20>>20"),
    ("he has 12÷4=3 left", "he has 12÷4=<<12/4=3>>3 left"),
    ("98 × 4 − 2 = 390", "98 × 4 − 2 = <<98*4-2=390>>390"),
    ("$400,000 x 6/100 = $24,000.", "$400,000 x 6/100 = $<<400000*6/100=24000>>24,000."),
    ("240 meters / 40 meters/minute = 6 minutes", "240 meters / 40 meters/minute = <<240/40=6>>6 minutes"),
    ("12 * (1 meter / 2 meters) = 6", "12 * (1 meter / 2 meters) = <<12*(1/2)=6>>6"),
    ("3+2(22)=47.0 minutes", "3+2(22)=<<3+2*22=47>>47.0 minutes"),
    ("$1530 * 20% = $306", "$1530 * 20% = $<<1530*20%=306>>306"),
    ("350 / 1400 * 100% = 25%", "350 / 1400 * 100% = <<350/1400*100=25>>25%"),
    ("100% - 30% = 70%", "100% - 30% = <<100-30=70>>70%"),
    ("50% * 50% = 25%", "50% * 50% = <<50%*50%*100=25>>25%"),
    ("3 / 4 = 75.0%", "3 / 4 = <<3/4*100=75>>75.0%"),
    ("T = 193 - 139 = 54 balls", "T = 193 - 139 = <<193-139=54>>54 balls"),
    ("   - 75 plants × £8 per plant = £600", "   - 75 plants × £8 per plant = £<<75*8=600>>600"),
    ("-5 + 3 = -2", "-5 + 3 = <<-5+3=-2>>-2"),
    ("$3 - $5 = -$2", "$3 - $5 = <<3-5=-2>>-$2"),
    ("10 / 4 = 2.5; 2.5 * 2 = 5", "10 / 4 = <<10/4=2.5>>2.5; 2.5 * 2 = <<2.5*2=5>>5"),
    ("10 / 3 = 3.33", "10 / 3 = <<10/3=3.33>>3.33"),  # what the calculator would write
    ("5*4 = <<5*4=20>>20 + 5 = 25", "5*4 = <<5*4=20>>20 + 5 = <<20+5=25>>25"),
    ("(5 + 3 = 8)", "(5 + 3 = <<5+3=8>>8)"),
    ("1 + 1 = 2\n2 + 2 = 4\n", "1 + 1 = <<1+1=2>>2\n2 + 2 = <<2+2=4>>4\n"),
]


@pytest.mark.parametrize(("plain", "annotated"), ANNOTATED)
def test_equation_is_annotated(plain: str, annotated: str) -> None:
    assert annotate_equations(plain) == annotated
    assert annotate_equations(annotated) == annotated


@pytest.mark.parametrize(
    "text",
    [
        "48=48",
        "12 = 12",
        "36=36 emails",
        "5 + 3 = 9",
        "19*0.5=9 tubes",
        "12÷2/5=30 minutes",
        "2x + 80 = 82",
        "70 + T = 139 + T = 193",
        "13/65 = 1/5",
        "1 1/2 * 2 = 1",
        "2^3 * 2 = 6",
        "5 + 3 == 8",
        "5 + 3 >= 8",
        "half * 110 ladybugs = 55",
        "10 - 5 = 5:30",
        "5 + 3 = 8.5",
        "5 + 3 = 8,000",
        "2 * 3 = 6x",
        "5*4 = <<5*4=20>>20",
        "$5*4 = $<<5*4=20>>20",
        "= 5",
        "5 + = 5",
        "5 apples, 3 = 8",
    ],
)
def test_equation_stays_plain(text: str) -> None:
    assert annotate_equations(text) == text


def test_gsm8k_is_annotated_again(data_dir: Path) -> None:
    """Annotations taken away and put back: where both have one the results agree, and nearly all come back."""
    num_gold = num_back = 0
    for line in (data_dir / "gsm8k" / "dev.jsonl").read_text(encoding="utf-8").splitlines():
        gold = canonicalise(json.loads(line)["answer"], "angle")
        plain = re.sub(r"<<.*?>>", "", gold)
        back = annotate_equations(plain)
        assert re.sub(r"<<.*?>>", "", back) == plain
        wanted, got = results_by_place(gold), results_by_place(back)
        num_gold += len(wanted)
        num_back += len(wanted.keys() & got.keys())
        assert all(wanted[place] == got[place] for place in wanted.keys() & got.keys())
    assert num_gold > 2000
    assert num_back / num_gold > 0.97


def results_by_place(text: str) -> dict[int, str]:
    """Result of each annotation, by where it would stand in the plain text."""
    results, removed = {}, 0
    for annotation in find(text, "angle"):
        results[annotation.start - removed] = annotation.result
        removed += annotation.end - annotation.start
    return results
