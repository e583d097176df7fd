"""ASDiv: 2,305 human-written problems in XML, answers like "9 (apples)", formulas like "7+2=9".

    DataSpec(source="asdiv", path="ASDiv.xml")       # or no path: EleutherAI/asdiv from the hub (CC BY-NC)
    params: {usable: formula}    one number with an optional unit, and the formula's left side equals it exactly
    params: {usable: answer}     one number with an optional unit; a rationale where the formula gives one

The default is `formula`, so that training, unlabelled and test sets are drawn from one pool. Rationales are
made of the formula (`formula`). Ids are "asdiv/ID"; the hub's copy has no ids and gives "asdiv/SPLIT-ROW".

Departs from the paper, whose "2,096 single-number problems" no filter of the public file gives: a number with an
optional unit gives 2,084. The XML is read without document types or entities, and with a bound on its size.
"""

from __future__ import annotations

import collections
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator
from pathlib import Path

from selftrain.config import DataSpec
from selftrain.data.base import LoadedSet, join_question, number_text, rows_digest, source, with_own_ids
from selftrain.data.formula import FormulaError, rationale
from selftrain.data.hub import hub_rows, splits_of
from selftrain.data.reading import Row, open_path, read_text
from selftrain.errors import DataError
from selftrain.records import Problem
from selftrain.stagefolder import file_digest

HUB_NAME = "EleutherAI/asdiv"
HUB_REVISION = "refs/convert/parquet"
MAX_XML_CHARS = 50_000_000
MAX_ANSWER_CHARS = 240
NOT_ONE_NUMBER = "answer is not one number with an optional unit"
_ANSWER = re.compile(r"([^()]+?)\s*(?:\([^()]*\))?")


@source("asdiv", params=["usable"])
def load_asdiv(spec: DataSpec, offline: bool) -> LoadedSet:
    """The usable problems, in file order, and how many are not, by reason."""
    usable = spec.params.get("usable", "formula" if spec.rationales else "answer")
    if usable not in ("formula", "answer"):
        raise DataError(f"{spec.label}: params.usable: expected 'formula' or 'answer', got {usable!r}.")
    if spec.path is None:
        rows: Iterable[Row] = hub_rows(
            HUB_NAME, splits_of(spec.split, ["validation"]), offline=offline, revision=HUB_REVISION
        )
        problems, skipped = _usable(rows, usable)
        return LoadedSet(problems, skipped, [f"hub data set {HUB_NAME}"], rows_digest(problems))
    path = open_path(spec.path, "ASDiv's XML file")
    problems, skipped = _usable(_xml_rows(path), usable)
    return LoadedSet(problems, skipped, [], file_digest(path))


def _usable(rows: Iterable[Row], usable: str) -> tuple[list[Problem], dict[str, int]]:
    found: list[tuple[Row, Problem]] = []
    skipped: collections.Counter[str] = collections.Counter()
    for row in rows:
        answer = single_number(row.text("answer"))
        if answer is None:
            skipped[NOT_ONE_NUMBER] += 1
            continue
        worked, reason = None, ""
        try:
            worked = rationale(str(row.values.get("formula") or ""), answer)
        except FormulaError as error:
            reason = str(error)
        if worked is None and usable == "formula":
            skipped[reason] += 1
            continue
        question = join_question(row.text("body"), row.text("question"))
        found.append((row, Problem(f"asdiv/{row.key}", question, answer, worked)))
    return with_own_ids(found), dict(skipped)


def single_number(answer: str) -> str | None:
    """The number of an answer that is one number with an optional unit.

    >>> single_number("9.80 (dollars)"), single_number("6 (cm); 15 (cm)"), single_number("5/2")
    ('9.8', None, None)
    """
    answer = answer.strip()
    match = _ANSWER.fullmatch(answer) if len(answer) <= MAX_ANSWER_CHARS else None  # the pattern is quadratic
    return number_text(match[1]) if match else None


def _xml_rows(path: Path) -> Iterator[Row]:
    """One row for each Problem element, its children's names in lower case, its ID as the key."""
    elements = _root(path).findall(".//Problem")
    if not elements:
        raise DataError(f"{path}: expected ASDiv's XML with <Problem> elements, got none.")
    for number, element in enumerate(elements, start=1):
        identity = element.get("ID")
        if not identity:
            raise DataError(f"{path}: Problem {number} has no ID attribute.")
        values = {child.tag.lower(): child.text or "" for child in element}
        yield Row(f"{path}, Problem {number} ({identity[:80]})", identity, values)


def _root(path: Path) -> ElementTree.Element:
    text = read_text(path)
    if len(text) > MAX_XML_CHARS:
        raise DataError(f"{path}: {len(text)} characters of XML; at most {MAX_XML_CHARS} are read.")
    if re.search(r"<!\s*(?:DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise DataError(
            f"{path}: declares a document type or entities, which are not read.", "Remove the <!...> declarations."
        )
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        line, column = error.position
        why = error.msg.partition(":")[0]
        raise DataError(f"{path}, line {line}: not XML ({why}, column {column}).") from error
