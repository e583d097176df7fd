"""The live page: this machine alone, two addresses, made again when the folder has changed."""

from __future__ import annotations

import http.client
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from selftrain.errors import RunError
from selftrain.report.command import serve_report
from selftrain.report.serve import HOST, LivePage, make_server, serve, state_of

Get = Callable[..., tuple[int, str]]


@pytest.fixture
def get(finished: Path) -> Iterator[Get]:
    """Asks a server of the run's page: path -> status and text."""
    server = make_server(LivePage(finished, rest_s=0), 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def ask(path: str, host: str | None = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection(HOST, server.server_port, timeout=30)
        connection.request("GET", path, headers={"Host": host} if host else {})
        answer = connection.getresponse()
        text = answer.read().decode("utf-8")
        connection.close()
        return answer.status, text

    yield ask
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_page_and_its_version(get: Get, finished: Path) -> None:
    status, page = get("/")
    assert status == 200 and "<h1>tiny: did" in page and f'data-version="{state_of(finished)}"' in page
    assert get("/version") == (200, state_of(finished))
    assert "connect-src 'self'" in page and page.count("<script") == 3


def test_a_change_in_the_folder_makes_a_new_page(get: Get, finished: Path) -> None:
    before = get("/")[1]
    with (finished / "journal.jsonl").open("a", encoding="utf-8") as out:
        out.write('{"event": "warning", "stage": "1-iteration", "message": "something new"}\n')
    after = get("/")[1]
    assert "something new" in after and "something new" not in before
    assert f'data-version="{get("/version")[1]}"' in after


@pytest.mark.parametrize("path", ["/config.yaml", "/../config.yaml", "/data/", "/report.html", "/?x", "/version/"])
def test_there_is_nothing_else(get: Get, path: str) -> None:
    status, text = get(path)
    assert status == 404 and "tiny" not in text


def test_another_host_is_refused(get: Get) -> None:
    assert get("/", "evil.example:8008")[0] == 403 and get("/version", "evil.example")[0] == 403
    assert get("/version", "localhost:1")[0] == 200


def test_nothing_is_written(get: Get, finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert get("/")[0] == 200
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_the_old_page_stays_while_the_next_cannot_be_made(finished: Path) -> None:
    live = LivePage(finished, rest_s=0)
    before = live.get()
    (finished / "0-warmup/evaluate/first/completions.jsonl").write_text("torn")
    (finished / "journal.jsonl").touch()
    assert live.get() == before


def test_a_page_rests_however_often_the_folder_changes(finished: Path) -> None:
    live = LivePage(finished, rest_s=3600)
    before = live.get()
    (finished / "journal.jsonl").open("a").close()
    shutil.rmtree(finished / "1-iteration")
    assert live.get() == before and live.version() != state_of(finished)


def test_this_machine_alone_and_a_port_that_is_free(finished: Path) -> None:
    with make_server(LivePage(finished), 0) as server:
        assert server.server_address[0] == "127.0.0.1"
        with pytest.raises(RunError, match=f"Port {server.server_port} of 127.0.0.1 cannot be had"):
            make_server(LivePage(finished), server.server_port)
    with pytest.raises(RunError, match="cannot be had"):
        make_server(LivePage(finished), 99999)


def test_ctrl_c_ends_it_with_a_line(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: ThreadingHTTPServer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", interrupted)
    told: list[str] = []
    serve_report(finished, 0, False, told.append)
    assert told[0].startswith("http://127.0.0.1:") and told[1:] == ["The report is no longer served."]


def test_what_cannot_be_served_is_refused_before_anything(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="expected a run folder"):
        serve(tmp_path / "none", 0, print)
    with pytest.raises(RunError, match="writes no files"):
        serve_report(finished, None, True, print)
