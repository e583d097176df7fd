"""`selftrain --offline`: no network at all, whatever a library would like to ask.

    go_offline()        # for the rest of this process, and for what it starts

Libraries that can be told are told by their variables; a connection that is tried all the same is refused. This machine
itself (loopback, Unix sockets) can be reached.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from typing import Any

from selftrain.errors import RunError

OFFLINE = "SELFTRAIN_OFFLINE"  # for children of ours, which refuse connections by themselves
VARIABLES = {
    "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PIP_NO_INDEX": "1",
    "UV_OFFLINE": "1", OFFLINE: "1", "WANDB_MODE": "offline", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1",
}  # fmt: skip


def go_offline() -> None:
    """Refuse every connection from now on; cannot be taken back."""
    os.environ.update(VARIABLES)
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None  # a Unix socket's address is no tuple
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    host = host.decode(errors="replace") if isinstance(host, bytes) else host
    if isinstance(host, str) and host and not _is_here(host):
        raise RunError(
            f"A connection to {host} was tried, and --offline forbids it.", "Leave --offline out to allow it."
        )


def _is_here(host: str) -> bool:
    """Whether a name or address is this machine's own."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    return address.is_loopback or address.is_unspecified
