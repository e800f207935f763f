"""Asking an inference server whether it is ready, and reading whether it has measured the GPU."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import re
    from pathlib import Path

SECONDS = 2.0


def is_healthy(host: str | None, port: int) -> bool:
    """Whether `GET /health` is answered with 200, as vLLM and its router do once they can serve.

    Args:
        host: The address that the server listens on; `None` and 0.0.0.0 are every one.
        port: Its port.
    """
    address = "127.0.0.1" if host in (None, "", "0.0.0.0", "::") else host  # noqa: S104 - compared, not bound
    request = f"GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection((address, port), timeout=SECONDS) as connection:
            connection.sendall(request.encode("ascii"))
            answer = connection.recv(64)
    except (OSError, UnicodeError):
        return False
    return answer.startswith(b"HTTP/1.") and answer.split(b" ", 2)[1:2] == [b"200"]


def has_measured(log: Path, said: re.Pattern[str]) -> bool:
    """Whether vLLM has measured the GPU's free memory and decided about its own.

    From then on others may take what it has left. It captures CUDA graphs and starts to listen after that.

    Args:
        log: What it prints.
        said: What it says when it has.
    """
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return said.search(text) is not None
