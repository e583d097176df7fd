"""`selftrain report RUN --serve`: the page of a run that goes on, made again whenever its folder has changed.

    serve(Path("runs/quickstart"), port=8008, say=print)     # until Ctrl-C

Answers on 127.0.0.1 alone, and only two addresses: the page and its version. Nothing is written into the run folder,
and nothing of it is served but what the page shows. A request that names another host is refused, so that no page of
another site can read this one through a name that points here (DNS rebinding).
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from selftrain.errors import RunError, UserError
from selftrain.report.collect import collect
from selftrain.report.files import RunFiles
from selftrain.report.html import page, page_extras
from selftrain.stagefolder import MANIFEST

HOST = "127.0.0.1"
DEFAULT_PORT = 8008
MIN_REST_S = 10.0  # between two makings: the run needs the processor more than its page does
WATCHED = (MANIFEST, "journal.jsonl", "train-log.jsonl")


class LivePage:
    """The newest page of a run folder; safe to ask from several threads.

    Args:
        rest_s: seconds that a page stays, however often the folder changes.
    """

    def __init__(self, folder: Path, rest_s: float = MIN_REST_S) -> None:
        self.folder, self.rest_s = folder, rest_s
        self._lock = threading.Lock()
        self._page, self._version, self._made = b"", "", float("-inf")

    def version(self) -> str:
        """Which state of the folder the page shows, or should show now."""
        if time.monotonic() - self._made < self.rest_s:
            return self._version
        return state_of(self.folder)

    def get(self) -> bytes:
        """The page, made again where the folder has changed.

        Raises:
            UserError: there is none yet and it cannot be made. A page that was made stays when the next cannot be.
        """
        with self._lock:
            version = self.version()
            if version != self._version:
                self._make(version)
            return self._page

    def _make(self, version: str) -> None:
        try:
            run = RunFiles(self.folder)
            results = collect(run)
            content = page(results, page_extras(run, results), version).encode("utf-8", errors="replace")
        except (UserError, OSError):  # a stage is being redone and its files went away under our hands
            if not self._page:
                raise
        else:
            self._page, self._version = content, version
        self._made = time.monotonic()


def state_of(folder: Path) -> str:
    """A digest of which files a page is made from, when they changed and how long they are."""
    seen = hashlib.sha256()
    for path in sorted(path for name in WATCHED for path in folder.rglob(name)):
        try:
            found = path.stat()
        except OSError:
            continue
        seen.update(f"{path.relative_to(folder)}\0{found.st_mtime_ns}\0{found.st_size}\n".encode(errors="replace"))
    return seen.hexdigest()[:16]


def make_server(live: LivePage, port: int) -> ThreadingHTTPServer:
    """A server for the page, bound and not yet answering; port 0 takes any free one.

    Raises:
        RunError: the port cannot be had.
    """

    class Handler(BaseHTTPRequestHandler):
        """Answers GET / and GET /version."""

        server_version, sys_version = "selftrain", ""

        def do_GET(self) -> None:
            """See the class."""
            if self.headers.get("Host", "").partition(":")[0] not in (HOST, "localhost"):
                self._send(HTTPStatus.FORBIDDEN, "text/plain", b"Ask for 127.0.0.1.\n")
            elif self.path == "/version":
                self._send(HTTPStatus.OK, "text/plain", live.version().encode("ascii"))
            elif self.path == "/":
                self._page()
            else:
                self._send(HTTPStatus.NOT_FOUND, "text/plain", b"There is only the report, at /.\n")

        def _page(self) -> None:
            try:
                content = live.get()
            except (UserError, OSError) as error:
                message = f"The report cannot be made now: {error}\n".encode("utf-8", errors="replace")
                self._send(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", message)
            else:
                self._send(HTTPStatus.OK, "text/html", content)

        def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Content-Security-Policy", "frame-ancestors 'none'")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Requests are nobody's news."""

    try:
        server = ThreadingHTTPServer((HOST, port), Handler)
    except (OSError, OverflowError) as error:
        raise RunError(f"Port {port} of {HOST} cannot be had ({error}).", "Choose another: --port 0") from error
    server.daemon_threads = True
    return server


def serve(folder: Path, port: int, say: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        RunError: the folder holds no run, or the port cannot be had.
    """
    live = LivePage(folder)
    live.get()
    with make_server(live, port) as server:
        say(f"http://{HOST}:{server.server_port}/ shows {folder} and follows it. Ctrl-C ends this, not the run.")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("The report is no longer served.")
