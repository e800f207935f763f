"""One attempt at a time: heartbeats in the run directory, and a claim that ends an older attempt.

After a node is lost SLURM may start a job again while the old copy still runs there, cut off from the
controller and not from the file system. Each attempt writes a heartbeat,
`configs/attempts/N/heartbeat.json`. The one that SLURM started later claims the run in
`configs/launch/lease.json`, and waits until the older one has ended or fallen silent; the older one
finds the claim at its next beat, and ends before it writes again.

Silence is measured by this process's own clock: clocks of two nodes are not compared.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .child import started_at
from .config import read
from .guardian import kill_marked
from .record import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .log import Log

SILENT_BEATS = 3
"""Beats that a live attempt cannot miss."""

PATIENT_BEATS = 12
"""Beats that an older attempt of this job gets to find the claim and end."""


class FencedError(Exception):
    """Another attempt lives in this run directory; carries what to do about it.

    Args:
        message: Which one, and where.
        hint: The way out.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Identity:
    """Who an attempt is.

    Attributes:
        attempt: Its number.
        job_id: SLURM's id of its job; empty outside SLURM.
        host: Name of the node.
        boot: The node's boot, and the process namespace there.
        process: Process id of the owner.
        start: When that process started, in clock ticks since the boot.
        mark: What its processes carry in their environment.
    """

    attempt: int
    job_id: str
    host: str
    boot: str
    process: int
    start: str
    mark: str


class Fence:
    """An attempt's heartbeat, and its eye on who claims the run.

    Args:
        run_dir: The run directory.
        attempt: This attempt's number.
        job_id: SLURM's id of the job; empty outside SLURM.
        seconds: Between two beats.
        mark: What this attempt's processes carry in their environment.
    """

    def __init__(self, run_dir: Path, attempt: int, job_id: str, seconds: float, mark: str) -> None:
        self._attempts = run_dir / "configs" / "attempts"
        self._lease = run_dir / "configs" / "launch" / "lease.json"
        self._seconds = seconds
        self._beats = 0
        self._next = 0.0
        self._me = Identity(
            attempt, job_id, os.uname().nodename, _boot(), os.getpid(), started_at(os.getpid()), mark
        )

    def take(self, log: Log, pause: Callable[[float], None]) -> None:
        """Make sure that no other attempt is alive, and claim the run.

        Args:
            log: Told what is waited for.
            pause: Waits for a number of seconds.

        Raises:
            FencedError: Another job's attempt is alive, or an older one of this job does not end.
        """
        self.beat()
        for older in self._others():
            if self._is_dead(older):
                self._kill_left(older, log)
                continue
            words = f"attempt {older.attempt} of job {older.job_id or '?'} on {older.host}"
            again = bool(self._me.job_id) and older.job_id == self._me.job_id
            beats = PATIENT_BEATS if again else SILENT_BEATS
            if again:
                self._claim()
            log.say(f"{words} was not seen to end: watching it for up to {beats * self._seconds:.0f} s")
            if not self._falls_silent(older, beats, pause):
                raise FencedError(
                    f"{words} is alive in this run directory",
                    "end it on its node" if again else f"wait for it, or end it: scancel {older.job_id}",
                )
            log.say(f"attempt {older.attempt} is over")
            self._kill_left(older, log)
        self._claim()

    def _kill_left(self, older: Identity, log: Log) -> None:
        """End what an attempt left on this very node: its owner may have been killed, or hang."""
        if older.host == self._me.host and older.mark and older.mark != self._me.mark:
            count = kill_marked(older.mark)
            if count:
                log.say(f"{count} process(es) of attempt {older.attempt} were still there, and are ended")

    def beat(self) -> bool:
        """Give a sign of life when it is time, and say whether this attempt still owns the run.

        Returns:
            False once a later attempt has claimed it.
        """
        now = time.monotonic()
        if now < self._next:
            return True
        self._next = now + self._seconds
        self._beats += 1
        self._write(ended=False)
        number = read(self._lease).get("attempt")
        return not (isinstance(number, int) and number > self._me.attempt)

    def end(self) -> None:
        """Say that this attempt writes nothing any more."""
        self._write(ended=True)

    def _write(self, *, ended: bool) -> None:
        path = self._attempts / str(self._me.attempt) / "heartbeat.json"
        with contextlib.suppress(OSError):
            write_whole(path, {**asdict(self._me), "beat": self._beats, "ended": ended})

    def _claim(self) -> None:
        with contextlib.suppress(OSError):
            write_whole(self._lease, asdict(self._me))

    def _others(self) -> list[Identity]:
        """The earlier attempts that nobody saw end.

        Each gives its first sign of life when it takes its number: of two jobs that start at once the one
        with the later number gives way.
        """
        found = []
        for path in self._attempts.glob("*/heartbeat.json"):
            beat = read(path)
            if beat and not beat.get("ended"):
                with contextlib.suppress(KeyError, TypeError, ValueError):
                    found.append(_identity(beat))
        return sorted(
            (other for other in found if other.attempt < self._me.attempt), key=lambda other: other.attempt
        )

    def _is_dead(self, older: Identity) -> bool:
        """Whether its process is known to be gone: on this node that can be seen."""
        if older.host != self._me.host:
            return False
        if older.boot != self._me.boot:
            # Another boot of this node ended it; another process namespace may hide it.
            return older.boot.partition("/")[0] != self._me.boot.partition("/")[0]
        return started_at(older.process) != older.start

    def _falls_silent(self, older: Identity, beats: int, pause: Callable[[float], None]) -> bool:
        """Wait until an attempt ends or misses its beats."""
        path = self._attempts / str(older.attempt) / "heartbeat.json"
        step = self._seconds / 5
        last, silent, waited = read(path), 0.0, 0.0
        while waited < beats * self._seconds + step:
            if not last or last.get("ended") or self._is_dead(older):
                return True
            pause(step)
            self.beat()
            waited += step
            seen = read(path)
            silent = silent + step if seen == last else 0.0
            last = seen
            if silent >= SILENT_BEATS * self._seconds:
                return True
        return False


def _identity(beat: Mapping[str, Any]) -> Identity:
    return Identity(
        int(beat["attempt"]),
        str(beat["job_id"]),
        str(beat["host"]),
        str(beat["boot"]),
        int(beat["process"]),
        str(beat["start"]),
        str(beat.get("mark", "")),
    )


def _boot() -> str:
    """Name this node's boot and this process's view of its processes."""
    boot = namespace = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    with contextlib.suppress(OSError):
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return f"{boot}/{namespace}"
