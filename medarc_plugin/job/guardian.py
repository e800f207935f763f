"""Who cleans up when the owner is killed: a process that does nothing but wait for its end.

SIGKILL leaves a process no last word. The guardian is forked from the owner at its start and reads
from a pipe whose other end is the owner's alone: when that ends without a farewell, the owner was
killed, and everything that carries this attempt's mark in its environment is killed too.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .log import Log

MARK = "MEDARC_ATTEMPT"
"""The variable by which every process of an attempt is known."""

_FAREWELL = b"farewell"
_ROUNDS = 50
_ROUND_SECONDS = 0.02


class Guardian:
    """The owner's side of it.

    Attributes:
        mark: The value of the variable `MARK` for everything that this attempt starts.
        pid: The guardian's process id; `None` when there is none.
    """

    def __init__(self, token: str, log: Log) -> None:
        """Fork the guardian, before anything is held that it would inherit.

        Args:
            token: The submission's token.
            log: Where it says what it did.
        """
        self.mark = f"{token}.{os.urandom(6).hex()}"
        self.pid: int | None = None
        self._pipe: int | None = None
        reading, writing = os.pipe()
        try:
            pid = os.fork()
        except OSError:
            os.close(reading)
            os.close(writing)
            return
        if pid == 0:
            os.close(writing)
            try:
                _guard(reading, self.mark, log)
            finally:
                os._exit(0)
        os.close(reading)
        self.pid, self._pipe = pid, writing

    def watch_over(self, folder: Path) -> None:
        """Remove a folder too, should the owner be killed."""
        self._tell(os.fsencode(folder))

    def dismiss(self) -> None:
        """Say farewell: the owner has cleaned up itself."""
        self._tell(_FAREWELL)
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
        if self.pid is not None:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
            self.pid = None

    def _tell(self, words: bytes) -> None:
        if self._pipe is not None:
            with contextlib.suppress(OSError):
                os.write(self._pipe, words + b"\0")


def _guard(pipe: int, mark: str, log: Log) -> None:
    """Wait for the owner's end, in a session of one's own that no signal to its group reaches."""
    with contextlib.suppress(OSError):
        os.setsid()
    # A broken pipe of the log must not end it before its work is done.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    said = b""
    while piece := os.read(pipe, 65536):
        said += piece
    words = said.split(b"\0")
    if _FAREWELL in words:
        return
    count = 0
    for _ in range(_ROUNDS):
        pids = list(marked(mark))
        count = max(count, len(pids))
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if not pids:
            break
        time.sleep(_ROUND_SECONDS)
    for folder in filter(None, words):
        shutil.rmtree(os.fsdecode(folder), ignore_errors=True)
    with contextlib.suppress(OSError, ValueError):
        log.say(f"the process that owned this run was killed: {count} process(es) of the run ended")


def marked(mark: str) -> Iterator[int]:
    """List this user's processes that carry a mark in their environment."""
    wanted = f"{MARK}={mark}".encode()
    for name in os.listdir("/proc"):  # noqa: PTH208 - many entries
        if not name.isdigit():
            continue
        try:
            variables = Path("/proc", name, "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if wanted in variables:
            yield int(name)
