"""`--offline`: connections are refused in a child process; `smoke` runs where there is no network at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from selftrain import offline
from selftrain.errors import RunError

SOURCE = Path(__file__).parents[1] / "src"
TRIES = """
import socket, sys
from selftrain.offline import go_offline
if sys.argv[1] == "offline":
    go_offline()
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname(), timeout=5).close()
print("this machine can be reached")
socket.create_connection(("192.0.2.1", 9), timeout=0.2)
"""


def child(*command: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "HOME": str(home), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)


def test_a_connection_is_refused_by_name_and_without_it_is_tried(tmp_path: Path) -> None:
    refused = child(sys.executable, "-c", TRIES, "offline", home=tmp_path)
    assert "this machine can be reached" in refused.stdout
    assert "A connection to 192.0.2.1 was tried, and --offline forbids it." in refused.stderr
    tried = child(sys.executable, "-c", TRIES, "online", home=tmp_path)
    assert "this machine can be reached" in tried.stdout
    assert "forbids" not in tried.stderr and "Error" in tried.stderr


@pytest.mark.parametrize(
    ("host", "allowed"),
    [("localhost", True), ("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("0.0.0.0", True), (b"::1", True)]
    + [("localhost.example", False), ("127.example", False), ("::1234", False), ("10.0.0.1", False), ("hub", False)],
)
def test_only_this_machine_itself_can_be_reached(host: str | bytes, allowed: bool) -> None:
    for event, arguments in (("socket.connect", (None, (host, 80))), ("socket.getaddrinfo", (host, 80))):
        with contextlib.nullcontext() if allowed else pytest.raises(RunError, match="forbids it"):
            offline._refuse(event, arguments)


def test_a_hub_name_is_refused_at_once(tmp_path: Path) -> None:
    done = child(
        sys.executable, "-m", "selftrain", "--offline", "run", "smoke", "model=nobody/nothing", "--out",
        str(tmp_path / "run"), home=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2 and "nobody/nothing" in done.stderr and "Traceback" not in done.stderr


def test_smoke_runs_where_there_is_no_network(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or child(unshare, "-rn", "true", home=tmp_path).returncode != 0:
        reason = "unshare -rn does not work here, so that a run without network cannot be seen"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    done = child(
        unshare, "-rn", sys.executable, "-m", "selftrain", "--offline", "run", "smoke", "baselines=[]", "--out",
        str(tmp_path / "run"), home=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
