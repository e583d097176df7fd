"""The hub's lookup against a server on this machine that misbehaves on purpose."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from selftrain import model_hub

ANSWER = json.dumps({"siblings": [{"rfilename": "config.json"}, {"rfilename": "onnx/model.onnx"}]}).encode()


class Hub(ThreadingHTTPServer):
    """Counts requests; the repository's name says how it answers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.paths: list[str] = []
        self.over = threading.Event()


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        name = self.path.rsplit("/", 1)[-1]
        if name == "silent":
            self.server.over.wait(30)
            self.close_connection = True
            return
        self.send_response(int(name) if name.isdigit() else 200)
        self.send_header("Content-Length", str(len(ANSWER)))
        self.end_headers()
        if name == "slow":
            for start in range(0, len(ANSWER), 20):
                self.server.over.wait(0.2)
                self.wfile.write(ANSWER[start : start + 20])
        elif not name.isdigit():
            self.wfile.write(b"<html>" + b" " * (len(ANSWER) - 6) if name == "page" else ANSWER)
        else:
            self.wfile.write(b"{}" + b" " * (len(ANSWER) - 2))

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


def test_files_are_listed_by_one_request(hub: Hub) -> None:
    assert model_hub.list_files("owner/good") == ["config.json", "onnx/model.onnx"]
    assert hub.paths == ["/api/models/owner/good"]


def test_a_silent_hub_is_given_up_after_one_request(hub: Hub) -> None:
    with pytest.raises(model_hub.HubError, match=r"no answer within 0\.3 seconds"):
        model_hub.list_files("owner/silent", first_byte_s=0.3)
    assert hub.paths == ["/api/models/owner/silent"]
    assert model_hub.FIRST_BYTE_S == 3.0


def test_an_answer_that_has_begun_is_not_cut(hub: Hub) -> None:
    assert len(ANSWER) > 3 * 20  # the body takes longer than the first byte may
    assert model_hub.list_files("owner/slow", first_byte_s=0.5) == ["config.json", "onnx/model.onnx"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("404", "knows no public model"), ("401", "knows no public model"), ("503", "status 503"), ("429", "status 429")],
)
def test_errors_are_not_retried(hub: Hub, name: str, reason: str) -> None:
    with pytest.raises(model_hub.HubError, match=reason):
        model_hub.list_files(f"owner/{name}")
    assert len(hub.paths) == 1


def test_an_answer_that_is_no_json(hub: Hub) -> None:
    with pytest.raises(model_hub.HubError, match="cannot be used"):
        model_hub.list_files("owner/page")


def test_nobody_listens(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as closed:
        port = closed.server_address[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    with pytest.raises(model_hub.HubError, match="cannot be reached"):
        model_hub.list_files("owner/good")


def test_cached_finds_the_hubs_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "a" * 40
    repo = tmp_path / "models--owner--name"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    snapshot = repo / "snapshots" / commit
    snapshot.mkdir(parents=True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert model_hub.cached("owner/name", lambda folder: True) == snapshot
    assert model_hub.cached("owner/name", lambda folder: False) is None
    assert model_hub.cached("owner/other", lambda folder: True) is None
    assert model_hub.cached("no//name", lambda folder: True) is None
