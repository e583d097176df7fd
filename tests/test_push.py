"""Pushing a model against a server on this machine that speaks as the hub does, and keeps what it is given."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import typer
from huggingface_hub import constants

from selftrain.errors import ConfigError, ModelError, RunError, UserError
from selftrain.push import carry_out, files_of, plan_upload
from selftrain.subcommands import push

# The hub's client hands files to its HTTP library in a way that this one calls old.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO, TOKEN, COMMIT = "ann/tutor", "hf_made_up", "c" * 40
MODEL = {
    "README.md": "---\nlibrary_name: transformers\n---\n# tutor\n", "config.json": '{"model_type": "llama"}',
    "model.safetensors": "weights " * 200, "selftrain.json": "{}", "tokenizer.json": '{"model": {}}',
}  # fmt: skip
BESIDE = {"train.jsonl": '{"question": "6 times 7?"}', "notes.json": "[]", ".secret": "x"}


class Hub(ThreadingHTTPServer):
    """The hub's side: who asks, which repositories there are, and what was uploaded."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.role, self.refuse = "write", ""
        self.repos: dict[str, dict[str, Any]] = {}
        self.blobs: dict[str, bytes] = {}
        self.header: dict[str, Any] = {}
        self.asked: list[str] = []

    def there(self, *files: str, private: bool = False) -> None:
        """Have a repository with these files."""
        siblings = [{"rfilename": name} for name in files]
        self.repos[REPO] = {"id": REPO, "private": private, "sha": COMMIT, "siblings": siblings, "files": {}}

    def answer(self, path: str, body: bytes) -> tuple[int, Any]:
        """Status and JSON of a request."""
        if path == "/api/whoami-v2":
            return 200, {"type": "user", "name": "ann", "auth": {"accessToken": {"role": self.role}}}
        if path.startswith("/api/models/") and path.count("/") == 4:
            found = self.repos.get(path.removeprefix("/api/models/"))
            return (200, found) if found else (404, {"error": "Repository not found"})
        if self.refuse and self.refuse in path:
            return 403, {"error": "You don't have the rights to do that"}
        told = [json.loads(line) for line in body.splitlines()] if path.endswith("/commit/main") else json.loads(body)
        if path == "/api/repos/create":
            self.there(private=told["visibility"] == "private" if "visibility" in told else told["private"])
            return 200, {"url": f"{self.url}/{REPO}", "name": REPO, "id": REPO}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path.endswith("/preupload/main"):
            return 200, {"files": [self._mode(file["path"]) for file in told["files"]]}
        if path == f"/{REPO}.git/info/lfs/objects/batch":
            return 200, {"objects": [self._room(one) for one in told["objects"]]}
        self._commit(told)
        return 200, {"success": True, "commitUrl": f"{self.url}/{REPO}/commit/{COMMIT}", "commitOid": COMMIT}

    def _mode(self, name: str) -> dict[str, Any]:
        return {
            "path": name,
            "uploadMode": "lfs" if name.endswith(".safetensors") else "regular",
            "shouldIgnore": False,
        }

    def _room(self, one: dict[str, Any]) -> dict[str, Any]:
        return {**one, "actions": {"upload": {"href": f"{self.url}/blobs/{one['oid']}"}}}

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        files = self.repos[REPO]["files"]
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.header = value
            else:
                files[value["path"]] = (
                    self.blobs[value["oid"]] if line["key"] == "lfsFile" else base64.b64decode(value["content"])
                )


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        self._serve(self._body())

    def do_PUT(self) -> None:
        body = self._body()
        oid = self.path.rsplit("/", 1)[-1]
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.blobs[oid] = body
        self._send(200, {})

    def _serve(self, body: bytes) -> None:
        self.server.asked.append(self.path)
        if self.headers.get("authorization") != f"Bearer {TOKEN}":
            self._send(401, {"error": "Invalid user token."})
        else:
            self._send(*self.server.answer(self.path, body))

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # plain uploads, which the stand-in understands
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "no-tokens"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder with more in it than a model."""
    folder = tmp_path / "run" / "model"
    folder.mkdir(parents=True)
    for name, text in {**MODEL, **BESIDE}.items():
        (folder / name).write_text(text)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/config.json").write_text("{}")
    return folder


@pytest.fixture
def run(model: Path) -> Path:
    """The run folder that it was delivered into."""
    (model.parent / "config.yaml").write_text("name: tiny\n")
    (model.parent / "data").mkdir()
    (model.parent / "data/train.jsonl").write_text(BESIDE["train.jsonl"])
    return model.parent


def test_a_run_s_model_arrives_whole_and_alone(hub: Hub, run: Path) -> None:
    upload = plan_upload(run, REPO, private=True)
    assert hub.repos == {}, "looking changes nothing"
    assert upload.left_out == (".secret", "checkpoints", "notes.json", "train.jsonl")
    assert carry_out(upload) == f"{hub.url}/{REPO}"
    assert hub.repos[REPO]["private"] is True
    assert hub.repos[REPO]["files"] == {name: text.encode() for name, text in MODEL.items()}
    assert not any(b"6 times 7" in blob for blob in hub.blobs.values())


def test_the_plan_says_what_goes_where(hub: Hub, model: Path) -> None:
    lines = plan_upload(model, REPO).text().splitlines()
    assert lines[0] == f"{model} -> {REPO} (new, public), as ann:"
    assert [line.split() for line in lines[1:6]] == [
        ["README.md", "43", "B"], ["config.json", "23", "B"], ["selftrain.json", "2", "B"],
        ["tokenizer.json", "13", "B"], ["model.safetensors", "1.6", "kB"],
    ]  # fmt: skip
    assert lines[6:] == [
        "5 files, 1.7 kB.", "Left out, as no part of a model: .secret, checkpoints, notes.json, train.jsonl.",
    ]  # fmt: skip


@pytest.mark.parametrize("whole", [True, False])
def test_weights_in_parts(model: Path, whole: bool) -> None:
    parts = {f"model-0000{n}-of-00002.safetensors" for n in (1, 2)}
    for name in parts:
        (model / name).write_text("part")
    index = {"weight_map": {name: name for name in parts}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    if not whole:
        (model / "model.safetensors").unlink()
    files, left_out = files_of(model)
    expected = {"model.safetensors"} if whole else {*parts, "model.safetensors.index.json"}
    assert {name for name in files if name.startswith("model")} == expected
    assert {name for name in left_out if name.startswith("model")} == (
        {*parts, "model.safetensors.index.json"} if whole else set()
    )


def test_what_is_there_is_told_and_a_change_in_between_is_noticed(hub: Hub, model: Path) -> None:
    hub.there(".gitattributes", "README.md", "evil\x1b[2J\nname", private=True)
    upload = plan_upload(model, REPO)
    assert "(there already, private)" in upload.text()
    assert "Of the files that are there README.md is replaced (the old ones stay in its history)." in upload.text()
    assert "Left as they are there: .gitattributes, evil\ufffd[2J\ufffdname." in upload.text()
    carry_out(upload)
    assert hub.header["parentCommit"] == COMMIT and hub.repos[REPO]["private"] is True
    assert "/api/repos/create" not in hub.asked


def test_other_weights_that_would_stay_are_refused(hub: Hub, model: Path) -> None:
    hub.there(
        "model-00001-of-00002.safetensors", "model.safetensors.index.json", "model.safetensors", "old/a.safetensors"
    )
    with pytest.raises(
        ModelError, match=r"other weights.*: model-00001-of-00002.safetensors, model.safetensors.index.json"
    ):
        plan_upload(model, REPO)
    hub.there("model.safetensors", "old/a.safetensors", "pytorch_model.bin")
    assert plan_upload(model, REPO).remote is not None


def test_a_public_repository_is_not_taken_for_a_private_one(hub: Hub, model: Path) -> None:
    hub.there("README.md")
    with pytest.raises(ConfigError, match="is there and public; --private makes new repositories private"):
        plan_upload(model, REPO, private=True)
    hub.repos[REPO]["id"] = "ann/renamed"
    with pytest.raises(ConfigError, match="the hub calls this repository ann/renamed"):
        plan_upload(model, REPO)


@pytest.mark.parametrize(
    "name",
    [
        "tutor",
        "ann/my/tutor",
        "ann/my tutor",
        "runs/quickstart/model",
        "",
        "ann/",
        "-a/b",
        "a/b--c",
        "a/b.git",
        "a/" + "b" * 95,
    ],
)
def test_a_name_of_the_wrong_form_is_refused_before_anything_is_asked(hub: Hub, model: Path, name: str) -> None:
    with pytest.raises(ConfigError) as refused:
        plan_upload(model, name)
    assert "ann/my-model" in str(refused.value.hint) and hub.asked == []


def without(name: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).unlink()


def linked(folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder.parent / "elsewhere.json")
    (folder / "tokenizer.json").symlink_to(folder.parent / "elsewhere.json")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (without("model.safetensors"), r"expected model\.safetensors"),
        (without("config.json"), r"expected a config\.json"),
        (without("tokenizer.json"), "expected a tokenizer"),
        (without("README.md"), r"expected a card \(README\.md\)"),
        (linked, r"tokenizer\.json: expected a file, got a link"),
    ],
)
def test_a_folder_that_is_no_whole_model_is_refused(
    hub: Hub, model: Path, change: Callable[[Path], Any], expected: str
) -> None:
    change(model)
    with pytest.raises(ModelError, match=expected):
        plan_upload(model, REPO)
    assert hub.asked == []


def test_a_run_without_a_model_and_no_folder_are_refused(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("name: tiny\n")
    with pytest.raises(RunError, match="has not delivered its model"):
        plan_upload(tmp_path, REPO)
    with pytest.raises(ModelError, match="there is none"):
        plan_upload(tmp_path / "none", REPO)


def test_who_is_not_logged_in_is_told_how(hub: Hub, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.role = "read"
    with pytest.raises(ModelError, match="ann is logged in with a token that may only read"):
        plan_upload(model, REPO)
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    with pytest.raises(ModelError, match="does not take the token"):
        plan_upload(model, REPO)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ModelError, match="Nobody is logged in") as refused:
        plan_upload(model, REPO)
    assert "hf auth login" in str(refused.value.hint)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set"):
        plan_upload(model, REPO)


def test_a_hub_that_cannot_be_reached(hub: Hub, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as closed:
        port = closed.server_address[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    with pytest.raises(ModelError, match="nothing was uploaded: the hub cannot be reached"):
        plan_upload(model, REPO)


@pytest.mark.parametrize(
    ("where", "state"),
    [("/api/repos/create", "nothing has changed there"), ("/preupload/", "the repository was made and is empty")],
)
def test_a_refusal_says_what_has_happened(hub: Hub, model: Path, where: str, state: str) -> None:
    hub.refuse = where
    with pytest.raises(ModelError, match=f"not uploaded, {state} .*have the rights to do that") as refused:
        carry_out(plan_upload(model, REPO))
    assert "may write to ann/tutor" in str(refused.value.hint)
    assert hub.repos.get(REPO, {}).get("files", {}) == {}


class Keyboard(io.StringIO):
    """A user at a terminal, who types this."""

    def isatty(self) -> bool:
        return True


def test_it_asks_and_no_is_no(hub: Hub, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Keyboard("n\n"))
    with pytest.raises(typer.Abort):
        push(model, REPO)
    assert hub.repos == {}
    monkeypatch.setattr(sys, "stdin", Keyboard("y\n"))
    push(model, REPO)
    assert len(hub.repos[REPO]["files"]) == len(MODEL)


def test_where_nobody_can_be_asked_it_wants_yes(
    hub: Hub, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(UserError, match="nobody can be asked here") as refused:
        push(model, REPO)
    assert "--yes" in str(refused.value.hint) and hub.repos == {}
    assert "model.safetensors" in capsys.readouterr().err


def test_the_command(hub: Hub, run: Path) -> None:
    """As a user calls it: the list on stderr, the page's address alone on stdout."""
    source = str(Path(__file__).resolve().parents[1] / "src")
    env = {
        **os.environ, "PYTHONPATH": source, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"
    }  # fmt: skip
    command = [sys.executable, "-m", "selftrain", "push", str(run), REPO, "--private", "--yes"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{hub.url}/{REPO}\n" and "(new, private), as ann:" in done.stderr
    assert hub.repos[REPO]["files"]["model.safetensors"] == MODEL["model.safetensors"].encode()
