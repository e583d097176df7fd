"""The page: everything is there, everything foreign is escaped, nothing is loaded or run."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from selftrain.report.collect import collect
from selftrain.report.files import RunFiles
from selftrain.report.html import compared_stages, page, page_extras
from selftrain.report.pages import embedded_json
from selftrain.report.wording import before_and_after
from selftrain.report.write import write_report
from tests.report.tags import Tags

SECTIONS = {"done", "better", "dpo", "selection", "cost", "curves", "samples", "warnings", "data", "lineage"}


class Reader(Tags):
    """Collects attributes, links and text besides."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.attributes: set[str] = set()
        self.text: list[str] = []
        self.marked: list[str] = []
        self.scripts: list[str] = []

    def attribute(self, name: str, value: str) -> None:
        self.attributes.add(name)
        if name in ("href", "src", "xlink:href", "action", "data"):
            self.links.append(value)

    def handle_data(self, data: str) -> None:
        (self.scripts if self.open and self.open[-1] == "script" else self.text).append(data)
        if self.open and self.open[-1] == "mark":
            self.marked.append(data)


def read(finished_page: str) -> Reader:
    reader = Reader()
    reader.feed(finished_page)
    reader.close()
    assert reader.open == []
    return reader


def test_all_sections_are_there_and_links_lead_somewhere(finished_page: str) -> None:
    reader = read(finished_page)
    assert set(reader.ids) >= SECTIONS
    assert len(reader.ids) == len(set(reader.ids))
    assert {link[1:] for link in reader.links if link.startswith("#")} >= {"done", "samples"}


def test_nothing_is_loaded_and_nothing_foreign_runs(finished_page: str) -> None:
    reader = read(finished_page)
    assert not {"img", "link", "iframe", "object", "form", "base"} & set(reader.tags)
    assert not [name for name in reader.attributes if name.startswith("on")]
    assert [link for link in reader.links if not link.startswith("#")] == []
    assert "@import" not in finished_page and not re.search(r"url\((?!#)", finished_page)


def test_one_script_is_allowed_by_its_digest(finished_page: str) -> None:
    data, script = read(finished_page).scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', finished_page)
    assert policy is not None and policy[1].startswith("default-src 'none'; ")
    assert policy[1].endswith(f"; script-src 'sha256-{digest}'")
    assert json.loads(data)["sets"][0]["title"] == "test set first"
    assert not set("<>&") & set(data)


def test_our_scripts_turn_no_text_into_markup_and_call_nobody(finished_page: str) -> None:
    script = read(finished_page).scripts[1]
    for name in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "fetch("):
        assert name not in script


def test_embedded_json_cannot_end_its_element() -> None:
    found = embedded_json({"a": "</script><!--\u2028\ud800&"})
    assert found.isascii() and not set("<>&") & set(found)
    assert json.loads(found)["a"] == "</script><!--\u2028\ud800&"


def test_hostile_text_of_models_data_and_names_is_shown_as_text(finished_page: str) -> None:
    text = "".join(read(finished_page).text)
    assert "<script>window.pwned=1</script>" in text and "<img src=x onerror=window.pwned=2>" in text
    assert "<i>did next to nothing</i>" in text
    assert "Test set second" in text
    assert "no <number>" in text and "2 of these rows over the run's limits on tokens" in text and "<a>.jsonl" in text
    assert not set("\x00\x1b\u202e") & set(finished_page)


def test_what_the_calculator_wrote_is_marked(finished_page: str) -> None:
    assert "42>>" in read(finished_page).marked


def test_the_figures_a_reader_looks_for(finished_page: str) -> None:
    text = re.sub(r"\s+", " ", " ".join(read(finished_page).text))
    for wanted in (
        "Better. On first, the delivered model is better than the warm-up model: +65.0 points",
        "delivered 90.0 % 69.9 to 97.2 · 18 of 20",
        "Only the delivered model is right on 14, only the other on 1.",
        "iteration 1, delivered",
        "all right 25.0 % (gives no pair)",
        "1.50 a question, from 2 questions",
        "pass@2, %",
        "the model answered 4 questions, 12 times in all (50.0 % right); right against wrong made 3 pairs",
        "1-iteration/dpo",
    ):
        assert wanted in text, wanted


def test_the_figures_are_drawn(finished_page: str) -> None:
    assert read(finished_page).tags.count("svg") == 5  # two test sets, cost, loss, one DPO


@pytest.mark.parametrize("stage", ["data", "0-base/evaluate/first", "0-warmup/sft", "1-iteration/pair",
                                   "1-iteration/dpo", "1-iteration/sample-for-labels"])  # fmt: skip
def test_a_page_of_a_run_that_was_cut_off(make_until: Callable[[str], Path], stage: str) -> None:
    folder = make_until(stage)
    results = write_report(folder)
    page = (folder / "report.html").read_text(encoding="utf-8")
    text = "".join(read(page).text)
    assert "of a run that is not finished" in text and "not there yet" in text
    assert results["run"]["pending"][0] in text


def test_training_that_is_under_way_has_its_curve(make_until: Callable[[str], Path]) -> None:
    folder = make_until("1-iteration/dpo")
    (folder / "1-iteration/dpo/manifest.json").unlink()
    results = write_report(folder)
    assert results["dpo"][0]["steps"] == 2 and not results["dpo"][0]["done"]
    assert "Training curves of 1-iteration/dpo" in (folder / "report.html").read_text(encoding="utf-8")


def test_accuracy_by_iteration_is_drawn_where_there_are_two(finished: Path) -> None:
    run = RunFiles(finished)
    results = collect(run)
    title = "Accuracy by iteration on test set 1"
    assert title not in page(results, page_extras(run, results))
    models = results["test_sets"][0]["models"]
    models.append({**models[-1], "stage": "2-iteration/evaluate/first", "label": "iteration 2", "delivered": False})
    assert title in page(results, page_extras(run, results))


def test_before_and_after_have_every_k() -> None:
    row = {
        "before": {"pass_at": [{"k": 1, "value": 0.1}, {"k": 3, "value": 0.3}], "maj_at": []},
        "after": {"pass_at": [{"k": 1, "value": 0.2}, {"k": 5, "value": 0.5}], "maj_at": [{"k": 5, "value": 0.4}]},
    }
    lines = [(line["name"], line["before"] and line["before"]["value"], line["after"] and line["after"]["value"])
             for line in before_and_after(row)]  # fmt: skip
    assert lines == [("pass@1", 0.1, 0.2), ("pass@3", 0.3, None), ("pass@5", None, 0.5), ("majority@5", None, 0.4)]
    assert [line["after"] for line in before_and_after({**row, "after": None})] == [None, None]


def test_the_newest_iteration_stands_in_for_the_delivered_model(make_until: Callable[[str], Path]) -> None:
    folder = make_until("1-iteration/evaluate/first")
    test_set = write_report(folder)["test_sets"][0]
    assert compared_stages(test_set) == ("0-warmup/evaluate/first", "1-iteration/evaluate/first")
    assert RunFiles(folder).delivered is None
