"""The page in a real browser: its filters are clicked, what is shown is read back, and nothing foreign runs.

Needs chromium and its driver (Debian, Ubuntu: apt install chromium chromium-driver). Without them these tests are
skipped, or fail where SELFTRAIN_BROWSER=required says that they must not be missing, as `.ci/run` does.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from selftrain.recipe import checked
from selftrain.records import Completion, Problem
from selftrain.report.browse import Source, answer_set
from selftrain.report.comparepage import write_comparison
from selftrain.report.serve import LivePage, make_server
from selftrain.report.write import write_report
from selftrain.study.collect import study_results
from selftrain.study.page import study_page
from selftrain.study.spec import Study, runs_of

REQUIRED = os.environ.get("SELFTRAIN_BROWSER") == "required"
NUM_MANY = 45


def missing(what: str) -> Any:
    """Skip, or fail where a browser must be there."""
    message = f"{what} to look at the page with (Debian, Ubuntu: apt install chromium chromium-driver; pip: selenium)"
    return pytest.fail(message) if REQUIRED else pytest.skip(message)


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    """A headless chromium, without network."""
    try:
        from selenium import webdriver
    except ImportError:
        missing("no selenium")
    browser = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)
    tool = shutil.which("chromedriver")
    if browser is None or tool is None:
        missing("no chromium" if browser is None else "no chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1200,900",
        "--disable-background-networking", "--no-first-run", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=tool))
    yield started
    started.quit()


class Page:
    """What a reader does with the page, and sees."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def script(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(f"return {code}", *arguments)

    def open(self, path: Path | str) -> None:
        """Load it anew, with no filter kept from before."""
        address = path.as_uri() if isinstance(path, Path) else path
        self.driver.get_log("browser")
        self.driver.get(address)
        self.script("sessionStorage.clear()")
        self.driver.get(address)

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def click(self, name: str, value: str) -> None:
        """Click a round choice, as a reader does: on its text."""
        self.find(f".choice:has(input[name={name}][value={value}])").click()

    def pick(self, name: str, label: str) -> None:
        from selenium.webdriver.support.select import Select

        Select(self.find(f"#{name}")).select_by_visible_text(label)

    def type(self, text: str) -> None:
        words = self.find("#words")
        words.clear()
        words.send_keys(text)

    def shown(self) -> list[str]:
        """Ids of the problems that are shown."""
        return list(self.script("[...document.querySelectorAll('#results h3 small')].map(e => e.textContent)"))

    def titles(self) -> set[str]:
        titles = "[...document.querySelectorAll('#results h3')].map(e => e.firstChild.textContent.trim())"
        return set(self.script(titles))

    def texts(self, selector: str) -> list[str]:
        return list(self.script("[...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector))

    def numbers(self) -> list[str]:
        """The counts beside what changed."""
        return [text.strip() for text in self.texts("#browser .number")]

    def severe(self) -> list[str]:
        """Errors of the console, violations of the page's policy among them."""
        return [row["message"] for row in self.driver.get_log("browser") if row["level"] in ("SEVERE", "WARNING")]


def ids(numbers: Any) -> list[str]:
    return [f"p{number}" for number in numbers]


@pytest.fixture(scope="module")
def report(hostile_run: Path) -> Path:
    """The page of the hostile run."""
    write_report(hostile_run)
    return hostile_run / "report.html"


@pytest.fixture
def page(driver: Any, report: Path) -> Page:
    opened = Page(driver)
    opened.open(report)
    return opened


def test_nothing_foreign_ran_and_nothing_was_loaded(page: Page, hostile_text: str) -> None:
    for value in ("any", "gained", "lost", "right", "wrong"):
        page.click("change", value)
    assert page.script("window.pwned") is None
    assert page.script("document.images.length") == 0
    assert page.script("document.scripts.length") == 2
    assert page.script("performance.getEntriesByType('resource').length") == 0
    assert page.severe() == []
    # the planted text is there to read, in the title and headings, in settings, questions, answers and rationales
    planted = "<script>window.pwned=1</script>"
    assert planted in page.find("h1").text
    assert planted in page.texts("details pre")[-1]
    page.click("change", "any")
    page.type("p0")
    assert planted in page.find("#results pre").text
    assert planted in page.texts("#results article p b")[0], "the gold answer"
    assert all(planted in text for text in page.texts("#results .sides pre"))
    page.pick("first", "base model, zero-shot")
    page.type("p7")
    assert planted in page.texts("#results .sides small")[0], "the answer found"
    shown = page.texts("#results .sides pre")[0]
    assert shown.replace("\N{REPLACEMENT CHARACTER}", "?") == (
        "".join("?" if c in "\x00\x1b\u202e" else c for c in hostile_text) + " <<6*7=42>>42 p7"
    )


def test_our_own_policy_stops_a_script_that_slipped_in(page: Page) -> None:
    page.script(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.pwned=9'}))"
    )
    page.driver.execute_script("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=window.pwned=8>')")
    time.sleep(0.2)
    assert page.script("window.pwned") is None
    assert any("Content Security Policy" in message for message in page.severe())


def test_what_changed_between_two_models(page: Page) -> None:
    # the warm-up is right on p0..p4, the delivered model on p0..p3 and p5..p18
    assert page.shown() == ids(range(20)) and page.numbers() == ["20", "14", "1", "4", "1"]
    page.click("change", "gained")
    assert page.shown() == ids(range(5, 19)) and page.titles() == {"✗ → ✓ wrong to right"}
    page.click("change", "lost")
    assert page.shown() == ["p4"] and page.titles() == {"✓ → ✗ right to wrong"}
    page.click("change", "right")
    assert page.shown() == ids(range(4)) and page.titles() == {"✓ ✓ right both times"}
    page.click("change", "wrong")
    assert page.shown() == ["p19"] and page.titles() == {"✗ ✗ wrong both times"}
    assert page.find("#shown").text == "1 of 20 fit; the first 1 are shown."
    page.click("change", "any")
    assert page.shown() == ids(range(20))


def test_both_rationales_side_by_side_with_the_calculator_marked(page: Page) -> None:
    page.click("change", "lost")
    left, right = page.texts("#results .sides small")
    assert left.startswith("warm-up (SFT on labelled): ✓ right, answer found 42, 1 call")
    assert right.startswith("iteration 1: ✗ wrong, answer found ")
    assert page.texts("#results mark") == ["42>>", "42>>"]
    boxes = page.script(
        "[...document.querySelectorAll('#results .sides > div')].map(e => e.getBoundingClientRect().top)"
    )
    assert boxes[0] == boxes[1], "beside each other on a wide screen"


def test_right_or_wrong(page: Page) -> None:
    page.click("verdict", "right")
    assert page.shown() == ids(range(5)) and page.numbers() == ["5", "0", "1", "4", "0"]
    page.click("verdict", "wrong")
    assert page.shown() == ids(range(5, 20))
    page.click("change", "wrong")
    assert page.shown() == ["p19"]


def test_other_models_and_one_alone(page: Page) -> None:
    page.pick("first", "base model, zero-shot")
    page.pick("second", "DPO sampler, iteration 1")
    assert page.numbers() == ["20", "9", "0", "1", "10"], "the base model by the flexible extraction: p0"
    page.click("change", "gained")
    page.pick("second", "none")
    assert len(page.shown()) == 20 and len(page.texts("#results .sides > div")) == 20
    assert not page.find("#browser input[value=gained]").is_enabled()
    page.click("verdict", "right")
    assert page.shown() == ["p0"] and page.titles() == {"✓ right"}


def test_other_questions(page: Page) -> None:
    page.pick("set", "test set second")
    assert page.shown() == [f"q{number}" for number in range(8)] and page.numbers() == ["8", "6", "0", "0", "2"]
    page.pick("set", "questions that were sampled")
    assert page.find("#first").get_attribute("value") == "0" and len(page.shown()) == 12
    page.click("change", "gained")
    assert page.shown() == ["u1, draw 2", "u2, draw 2"]
    page.click("change", "lost")
    assert page.shown() == ["u3, draw 2"]
    page.click("verdict", "wrong")
    assert page.shown() == [] and page.find("#shown").text == "Nothing of 12 fits these filters."


def test_full_text_search(page: Page) -> None:
    page.type("P7")
    assert page.shown() == ["p7"]
    page.type("42 P1")
    assert page.shown() == ids([1, *range(10, 20)])
    page.type("13: <script>")
    assert page.shown() == ["p13"], "every word, in question, answer or rationale"
    page.click("change", "lost")
    assert page.shown() == []
    page.find("#clear").click()
    assert page.shown() == ids(range(20)) and page.find("#words").get_attribute("value") == ""


def test_filters_outlive_a_reload(page: Page) -> None:
    page.pick("first", "DPO sampler, iteration 1")
    page.click("change", "gained")
    before = page.shown()
    page.driver.refresh()
    assert page.shown() == before == ids(range(10, 19))
    page.script("sessionStorage.setItem('selftrain-browser:' + location.pathname, '[\"9\",{}]')")
    page.driver.refresh()
    assert page.shown() == ids(range(20)) and page.severe() == []


def test_by_keyboard(page: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    page.find("#browser input[name=change]:checked").send_keys(Keys.ARROW_RIGHT)
    assert page.titles() == {"✗ → ✓ wrong to right"}
    outline = "getComputedStyle(document.activeElement.nextElementSibling).outlineStyle"
    assert page.script(outline) == "solid", "one sees where one is"
    page.find("#words").send_keys("p5", Keys.TAB)
    assert page.shown() == ["p5"] and page.script("document.activeElement.name") == "change"


def test_on_a_phone(page: Page) -> None:
    size = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        page.driver.refresh()
        assert page.script("document.documentElement.scrollWidth") <= 360
        tops = "[...document.querySelectorAll('#results .sides > div')].map(e => e.getBoundingClientRect().top)"
        assert page.script(tops)[0] < page.script(tops)[1], "one below the other"
        page.click("change", "lost")
        assert page.shown() == ["p4"]
        assert page.script("document.querySelector('#words').getBoundingClientRect().height") >= 40
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_in_print_fixed_samples_stand_in_place_of_the_browser(page: Page) -> None:
    def seen() -> tuple[bool, bool]:
        return page.find("#browser").is_displayed(), page.find(".fixed-samples").is_displayed()

    assert seen() == (True, False)
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert seen() == (False, True)
    finally:
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_without_script_fixed_samples_are_there(driver: Any, report: Path) -> None:
    page = Page(driver)
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        driver.get(report.as_uri())
        assert not page.find("#browser").is_displayed() and page.find(".fixed-samples article").is_displayed()
    finally:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_many_problems_come_in_pages(driver: Any, tmp_path: Path, report: Path) -> None:
    problems = [Problem(f"m{i}", f"{i}?", "42") for i in range(NUM_MANY)]
    answers = [Completion(problem.id, 0, (1,), "6", "eos") for problem in problems]
    one = answer_set("test set many", problems, [Source.of("a", "strict", answers)], 0, None, 100_000)
    made = render_browser(report, {"sets": [one]})
    (tmp_path / "many.html").write_text(made, encoding="utf-8")
    page = Page(driver)
    page.open(tmp_path / "many.html")
    numbers = []
    while page.find("#more").is_displayed():
        numbers.append(len(page.shown()))
        page.find("#more").click()
    assert [*numbers, len(page.shown())] == [20, 40, NUM_MANY]
    assert page.script("document.activeElement.querySelector('h3 small').textContent") == "m40", "reading goes on there"


def render_browser(report: Path, browser: dict[str, Any]) -> str:
    """The run's page with other answers in its browser."""
    from selftrain.report.collect import collect
    from selftrain.report.files import RunFiles
    from selftrain.report.html import page, page_extras

    run = RunFiles(report.parent)
    results = collect(run)
    return page(results, {**page_extras(run, results), "browser": browser})


def test_a_comparison_of_two_runs(driver: Any, hostile_run: Path, rival: Path, tmp_path: Path) -> None:
    write_comparison(hostile_run, rival, tmp_path / "page.html")
    page = Page(driver)
    page.open(tmp_path / "page.html")
    assert page.numbers() == ["20", "1", "9", "9", "1"]
    page.click("change", "gained")
    assert page.shown() == ["p4"]
    assert [text.partition(":")[0] for text in page.texts("#results .sides small")] == ["A", "B"]
    page.pick("first", "B: warm-up (SFT on labelled)")
    page.click("change", "lost")
    assert page.shown() == []
    assert page.script("window.pwned") is None and page.script("document.images.length") == 0 and page.severe() == []


def test_a_study_runs_nothing_foreign(driver: Any, hostile_run: Path, hostile_text: str, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    arms = {"main": {}, "other": {"description": hostile_text}}
    overrides = {"data.test": [{"source": "arithmetic", "name": name} for name in ("first", "second")]}
    study = checked(Study, {"name": "tiny", "description": hostile_text, "recipe": "smoke", "overrides": overrides,
                            "seeds": [1], "arms": arms, "reference": "main"})  # fmt: skip
    runs = runs_of(study, folder)
    shutil.copytree(hostile_run, runs[0].folder)
    (folder / "study.html").write_text(study_page(study_results(study, runs)), encoding="utf-8")
    page = Page(driver)
    page.open(folder / "study.html")
    assert "<script>window.pwned=1</script>" in page.find("body").text
    assert page.script("window.pwned") is None and page.script("document.images.length") == 0
    assert page.script("document.scripts.length") == 0 and page.severe() == []


def test_a_live_page_follows_its_run(driver: Any, make_until: Callable[[str], Path]) -> None:
    folder = make_until("1-iteration/evaluate/first")
    server = make_server(LivePage(folder, rest_s=0), 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    page = Page(driver)
    try:
        page.open(f"http://127.0.0.1:{server.server_port}/")
        page.click("change", "lost")
        assert page.shown() == ["p4"] and "something new" not in page.find("body").text
        with (folder / "journal.jsonl").open("a", encoding="utf-8") as out:
            out.write('{"event": "warning", "stage": "1-iteration", "message": "something new"}\n')
        deadline = time.monotonic() + 30
        while "something new" not in (page.script("document.body.innerText") or "") and time.monotonic() < deadline:
            time.sleep(0.2)
        assert "something new" in page.script("document.body.innerText")
        assert page.shown() == ["p4"] and page.severe() == []
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
