"""Who cleans up when the owner is killed: a process that does nothing but wait for its end.

SIGKILL leaves a process no last word. The guardian is forked from the owner at its start and reads
from a pipe whose other end is the owner's alone: when that ends without a farewell, the owner was
killed, and everything that carries this attempt's mark in its environment is killed too.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .child import GONE, below, process_table, started_at
from .record import append_attempt, now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .log import Log

MARK = "MEDARC_ATTEMPT"
"""The variable by which every process of an attempt is known."""

_FAREWELL = b"farewell"
_LINE = b"line="
_PROCESS = b"process="
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

    def follow(self, process: int) -> None:
        """Kill a process with all below it too, should the owner be killed."""
        # Numbers of processes are used again: with the time of its start it is the same one.
        self._tell(_PROCESS + f"{process} {started_at(process)}".encode())

    def watch_over(self, folder: Path) -> None:
        """Remove a folder too, should the owner be killed."""
        self._tell(os.fsencode(folder))

    def remember(self, folder: Path, line: Mapping[str, Any]) -> None:
        """Append a line to the launch's `attempts.jsonl`, should the owner be killed before it does.

        Args:
            folder: The launch's own folder.
            line: The attempt's record; the time of its end is filled in.
        """
        self._tell(_LINE + json.dumps({"folder": str(folder), "line": dict(line)}).encode())

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
    followed = [word[len(_PROCESS) :].decode().split() for word in words if word.startswith(_PROCESS)]
    roots = {int(said[0]) for said in followed if len(said) > 1 and started_at(int(said[0])) == said[1]}
    count = _kill(lambda: {*marked(mark), *_led_by(roots)})
    for word in filter(None, words):
        if word.startswith(_LINE):
            _append(word)
        elif not word.startswith(_PROCESS):
            shutil.rmtree(os.fsdecode(word), ignore_errors=True)
    with contextlib.suppress(OSError, ValueError):
        log.say(f"the process that owned this run was killed: {count} process(es) of the run ended")


def _append(word: bytes) -> None:
    """Write the record of the attempt that could not do so itself."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        said = json.loads(word[len(_LINE) :])
        append_attempt(Path(said["folder"]), {**said["line"], "ended": now()})


def _led_by(roots: set[int]) -> set[int]:
    """List processes and all that runs below them, and in their process groups."""
    table = process_table()
    found = {pid for pid in roots if pid in table}.union(*(below(root, table) for root in roots))
    for pid in table:
        with contextlib.suppress(OSError):
            if os.getpgid(pid) in roots:
                found.add(pid)
    return {pid for pid in found if table[pid][1] not in GONE}


def kill_marked(mark: str) -> int:
    """Kill what carries a mark, and return how many processes that were."""
    return _kill(lambda: set(marked(mark)))


def _kill(find: Callable[[], set[int]]) -> int:
    """Kill processes until none is found any more, and return how many there were at once."""
    count = 0
    for _ in range(_ROUNDS):
        pids = find()
        count = max(count, len(pids))
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if not pids:
            break
        time.sleep(_ROUND_SECONDS)
    return count


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
