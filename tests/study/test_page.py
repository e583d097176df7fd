"""A study's page: everything is there, links lead somewhere, what is foreign is shown as text, nothing is loaded."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from selftrain.stagefolder import write_json
from selftrain.study.collect import study_results
from selftrain.study.page import study_page
from selftrain.study.spec import Study, StudyRun
from tests.report.tags import Tags


class Reader(Tags):
    """Reads a page: links and text besides, outside of figures."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def attribute(self, name: str, value: str) -> None:
        assert not name.startswith("on")
        if name in ("href", "src") and "svg" not in self.open:
            self.links.append(value)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def report(runs: list[StudyRun]) -> Path:
    """Give each run that is there a report; the study's folder."""
    for run in runs:
        if run.folder.is_dir():
            (run.folder / "report.html").write_text("<p>")
    return runs[0].folder.parents[1]


def test_figures_intervals_and_sentences_are_there(tiny: Study, made: list[StudyRun]) -> None:
    page = Reader(study_page(study_results(tiny, made)))
    for arm in tiny.arms:
        assert arm in page.text
    for wanted in (
        "tiny: made by <hand>",
        "6 of 6 runs are finished",
        "▲ Better. On first, k9 is better than main: +30.0 points (95 % interval +",
        "first (20 problems)",
        "second (8 problems in 4 groups)",
        "paper 50.0, band",
        "+30.0, +30.0",
        "first: accuracy by iteration",
    ):
        assert wanted in page.text, wanted
    assert page.tags.count("svg") == 2, "accuracy by iteration, one a test set"


def test_every_figure_leads_to_its_runs_and_every_run_to_its_samples(tiny: Study, made: list[StudyRun]) -> None:
    folder = report(made)
    page = Reader(study_page(study_results(tiny, made)))
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        file, _, place = link.partition("#")
        assert (folder / file).is_file() if file else place in page.ids, link
    for run in made:
        assert {f"{run.title}/report.html#better", f"{run.title}/report.html#samples"} <= set(page.links)
    sets, shown = 2, len(tiny.seeds)
    assert page.links.count("main/seed-1/report.html#better") >= 4 * sets, "three arms of its own, and comparisons"
    assert sum("k9/seed-1" in link for link in page.links) >= sets * shown


def test_a_study_that_is_not_finished_shows_what_is_there(tiny: Study, runs: list[StudyRun], make: Any) -> None:
    empty = Reader(study_page(study_results(tiny, runs)))
    assert "that is not finished" in empty.text and "k9/seed-2: not begun" in empty.text
    assert "Nothing can be compared yet." in empty.text and "svg" not in empty.tags
    assert [link for link in empty.links if not link.startswith("#")] == []
    for run in runs[:2]:
        make(run)
    report(runs)
    page = Reader(study_page(study_results(tiny, runs)))
    assert "k9 is better than main" in page.text and "not there yet" in page.text
    assert {link.partition("#")[0] for link in page.links if not link.startswith("#")} == {
        f"{run.title}/report.html" for run in runs[:2]
    }


def test_why_arms_are_not_compared_is_told(tiny: Study, runs: list[StudyRun], make: Any) -> None:
    for run in runs:
        make(run, **({"trained_on": "u" * 64} if run.arm == "k9" else {}))
    page = Reader(study_page(study_results(tiny, runs)))
    assert "not compared: other training data" in page.text and "k9 is better" not in page.text


def test_what_is_foreign_is_shown_as_text_and_nothing_runs(tiny: Study, made: list[StudyRun]) -> None:
    hostile = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    with (made[0].folder / "journal.jsonl").open("a", encoding="utf-8") as journal:
        journal.write(json.dumps({"event": "warning", "stage": "1-iteration/dpo", "message": hostile}) + "\n")
    study = tiny.model_copy(update={"description": f"{hostile}\x1b\u202e", "paper_says": {"random-llama": hostile}})
    source = study_page(study_results(study, made))
    page = Reader(source)
    assert not {"img", "script", "iframe", "link", "form", "base"} & set(page.tags)
    assert page.text.count(hostile) >= 3 and not set("\x1b\u202e") & set(source)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', source)
    assert policy is not None and policy[1].startswith("default-src 'none'; ") and "script-src" not in policy[1]


@pytest.mark.parametrize("shown", [["compute"], ["iterations", "compute"]])
def test_a_study_without_its_table_has_the_others(shown: list[str], tiny: Study, made: list[StudyRun]) -> None:
    study = tiny.model_copy(update={"show": shown})
    page = Reader(study_page(study_results(study, made)))
    assert "arms" not in page.ids and "accuracy against FLOPs" in page.text
    assert page.tags.count("svg") == 2 * len(shown)


def test_the_page_comes_from_the_stored_results_alone(tiny: Study, made: list[StudyRun], tmp_path: Path) -> None:
    results = study_results(tiny, made)
    write_json(tmp_path / "study.json", results)
    assert study_page(json.loads((tmp_path / "study.json").read_text())) == study_page(results)
