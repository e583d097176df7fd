"""The model hub, asked at most once: cache, one lookup, download.

    model_hub.cached("owner/name", usable)            # a folder of the hub's own cache, no network
    model_hub.list_files("owner/name")                # one request, 3 seconds to the first byte, no retry
    model_hub.download("owner/name", ["config.json", "model.safetensors"])
    model_hub.ask("whoami-v2")                        # status and body of any such request

The hub's client resends what fails, and bounds connecting and reading apart, so that without a network it can
hold a user for minutes. The lookup here is one request in a thread that is waited for 3 seconds, name
resolution and all. A download that follows is left to the client. `huggingface_hub` is imported on first use.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

FIRST_BYTE_S = 3.0
NEXT_BYTE_S = 10.0  # the client's own limit, for an answer that has begun


class HubError(Exception):
    """The hub did not give what was asked; the message says why, as the end of a sentence."""


def switched_off() -> bool:
    """Whether the user's environment forbids asking the hub (HF_HUB_OFFLINE=1)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def cached(repo: str, usable: Callable[[Path], bool]) -> Path | None:
    """The repository's folder in the hub's cache, if it is there and `usable`; asks no network."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repo, local_files_only=True))
    except (OSError, ValueError):  # not there; no name that the hub could have
        return None
    return folder if usable(folder) else None


def list_files(repo: str, first_byte_s: float = FIRST_BYTE_S) -> list[str]:
    """The names of a repository's files, by one request.

    Raises:
        HubError: no such repository, no answer within `first_byte_s` seconds, or one that makes no sense.
    """
    status, body = ask(f"models/{repo}", first_byte_s)
    if status in (401, 404):
        raise HubError("the hub knows no public model of that name (a private one needs `hf auth login`)")
    try:
        return [str(row["rfilename"]) for row in json.loads(body)["siblings"]]
    except (ValueError, KeyError, TypeError) as error:
        raise HubError(f"the hub's answer cannot be used (status {status})") from error


def ask(path: str, first_byte_s: float = FIRST_BYTE_S) -> tuple[int, bytes]:
    """Status and body of one GET under the hub's /api/, as the user who is logged in, if one is.

    Raises:
        HubError: no answer within `first_byte_s` seconds, or none at all.
    """
    from huggingface_hub import constants, get_session, get_token

    token = get_token()
    headers = {"authorization": f"Bearer {token}"} if token else {}
    lookup = _Lookup(get_session(), f"{constants.ENDPOINT}/api/{path}", headers)
    lookup.start()
    if not lookup.begun.wait(first_byte_s):
        raise HubError(f"the hub gives no answer within {first_byte_s:g} seconds")
    lookup.join()
    if lookup.error is not None:
        raise HubError(f"the hub cannot be reached ({lookup.error})") from lookup.error
    return lookup.status, lookup.body


class _Lookup(threading.Thread):
    """One GET; `begun` is set at the first byte of the answer, or at the failure."""

    def __init__(self, session: Any, url: str, headers: dict[str, str]) -> None:
        super().__init__(daemon=True, name="hub-lookup")
        self.session, self.url, self.headers = session, url, headers
        self.begun = threading.Event()
        self.error: Exception | None = None
        self.status, self.body = 0, b""

    def run(self) -> None:
        """Ask, and keep the answer or the error."""
        try:
            with self.session.stream("GET", self.url, headers=self.headers, timeout=NEXT_BYTE_S) as answer:
                self.begun.set()
                self.status, self.body = answer.status_code, answer.read()
        except Exception as error:  # noqa: BLE001 - the client's errors differ between its versions, with no root
            self.error = error
        finally:
            self.begun.set()


def download(repo: str, files: Sequence[str]) -> Path:
    """Bring the named files into the hub's cache; returns their folder.

    Raises:
        HubError: the download failed.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError

    try:
        return Path(snapshot_download(repo, allow_patterns=list(files)))
    except GatedRepoError as error:
        raise HubError("the model is gated: accept its terms on its page, then `hf auth login`") from error
    except Exception as error:  # as above
        raise HubError(f"the download failed ({first_line(error)})") from error


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
