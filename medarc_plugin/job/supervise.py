"""Watching over a run's processes: their output, their failures, the signals, and their end."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import failures
from .child import FETCHED, STOPS, descendants, end_all, reap, send, signal_all, start
from .log import write

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from .log import Log

TICK_SECONDS = 0.5

FAILURE_SECONDS = 3.0
"""What prime-rl's launcher gets to end the rest itself once a component has failed. It may take
minutes, in which the GPUs do nothing."""

REST_SECONDS = 5.0
"""Between SIGTERM and SIGKILL for what outlives the command that started it."""

_PIECE = 1024 * 1024
_BACKLOG = 16 * 1024 * 1024
_KEPT = 64 * 1024
_FAILED = b"failed with exit code"


@dataclass
class Started:
    """A command of the run.

    Attributes:
        name: What it is called when it fails.
        process: The process.
        output: The file that it prints to.
        shown: Whether that is copied into the job's log.
        read: Bytes of it that have been read.
        rest: The last line, when it has no end yet.
    """

    name: str
    process: subprocess.Popen[bytes]
    output: Path
    shown: bool
    read: int = 0
    rest: bytes = b""


@dataclass(frozen=True)
class Verdict:
    """Why the run is to end before its time.

    Attributes:
        reason: One word for the record: `superseded`, `idle`.
        text: What to say.
        at_once: Whether it gets no time to end in order.
    """

    reason: str
    text: str
    at_once: bool = False


@dataclass(frozen=True)
class Outcome:
    """How it ended.

    Attributes:
        code: Exit code of the command that ended; negative for a signal.
        reason: `finished`, `failed`, `signalled`, or a verdict's word.
        stop: The signal that ended it, when one did.
        component: Who failed first, and its exit code.
    """

    code: int
    reason: str
    stop: int | None = None
    component: tuple[str, int] | None = None


class Supervisor:
    """Starts the commands of a run and stays with them until all has ended.

    Args:
        log: The job's own lines.
        grace: Seconds between SIGTERM and SIGKILL.
        spare: Process ids below this one that are not the run's.
        on_signal: Told of each signal that arrives, for the record.
        hold_end: Says how many more seconds a run that is asked to end may take for what it is doing.
        tick: Called about twice a second; may say that the run is to end.
    """

    def __init__(
        self,
        log: Log,
        grace: float,
        spare: Sequence[int],
        on_signal: Callable[[int], None],
        hold_end: Callable[[], float],
        tick: Callable[[], Verdict | None],
    ) -> None:
        self._log = log
        self._grace = grace
        self._spare = tuple(spare)
        self._on_signal = on_signal
        self._hold_end = hold_end
        self._tick = tick
        self._started: list[Started] = []
        self._reason = ""
        self._stop: int | None = None
        self._component: tuple[str, int] | None = None
        self._term_at: float | None = None
        self._kill_at: float | None = None

    def start(
        self,
        name: str,
        command: Sequence[str],
        variables: Mapping[str, str],
        working_directory: Path,
        output: Path,
        *,
        shown: bool,
        sign: int | None = None,
    ) -> Started:
        """Start a command of the run.

        Args:
            name: What to call it.
            command: The argument list.
            variables: All of its environment.
            working_directory: Where it runs.
            output: The file for what it prints; appended to.
            shown: Copy that into the job's log.
            sign: Descriptor for its input; an empty one when `None`.

        Raises:
            OSError: It cannot be started.
        """
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            descriptor = os.open(output, flags, 0o644)
        except OSError as error:
            self._log.say(f"{output} cannot be written ({error.strerror}): what {name} prints is not read")
            descriptor = os.dup(1)
        try:
            before = os.fstat(descriptor).st_size
            process = start(command, variables, working_directory, descriptor, sign)
        finally:
            os.close(descriptor)
        started = Started(name, process, output, shown, before)
        self._started.append(started)
        return started

    def until(self, condition: Callable[[], bool]) -> Outcome | None:
        """Stay until a condition holds.

        Returns:
            Nothing; or how the run ended, when it did so before.
        """
        while True:
            ended = self._ended()
            if ended is not None:
                return self._finish(ended, early=True)
            if self._kill_at is None and condition():
                return None
            self._step()

    def run(self) -> Outcome:
        """Stay until one of the commands ends, and end the others."""
        while (ended := self._ended()) is None:
            self._step()
        return self._finish(ended)

    def _ended(self) -> Started | None:
        """The command that has ended: a server's death ends the run as well."""
        over = [started for started in self._started if started.process.poll() is not None]
        return over[-1] if over else None

    def _step(self) -> None:
        arrived = signal.sigtimedwait(FETCHED, self._pause())
        if arrived is not None and arrived.si_signo in STOPS:
            self._receive(arrived.si_signo)
        reap(started.process for started in self._started)
        self._relay()
        verdict = self._tick()
        if verdict is not None and (verdict.at_once or self._kill_at is None):
            self._judge(verdict)
        self._press()

    def _pause(self) -> float:
        moments = [moment for moment in (self._term_at, self._kill_at) if moment is not None]
        due = min(moments, default=float("inf")) - time.monotonic()
        # What cannot even be killed is looked at now and then.
        return min(TICK_SECONDS, due) if due > 0 else TICK_SECONDS / 2

    def _receive(self, number: int) -> None:
        """Act on a signal: some end the run, the others are passed on."""
        again = self._stop == number
        self._on_signal(number)
        if number in (signal.SIGTERM, signal.SIGUSR2):
            self._end("signalled", wait=self._hold_end() if number == signal.SIGUSR2 else 0.0)
            self._remember(number)
        elif number == signal.SIGINT and again:
            self._kill_at = time.monotonic()
        else:
            for started in self._started:
                send(started.process, number)
            if number in (signal.SIGINT, signal.SIGHUP):
                self._end("signalled", wait=self._grace)
                self._remember(number)

    def _remember(self, number: int) -> None:
        """Keep the signal that ends the run: the first one, unless SIGTERM comes.

        That has the last word: somebody may cancel what SLURM has only warned.
        """
        self._stop = number if number == signal.SIGTERM else self._stop or number

    def _judge(self, verdict: Verdict) -> None:
        self._log.say(verdict.text)
        self._end(verdict.reason, wait=0.0)
        if verdict.at_once:
            self._reason = verdict.reason
            self._kill_at = time.monotonic()

    def _end(self, reason: str, wait: float) -> None:
        """Plan the run's end: SIGTERM after a wait, SIGKILL after the grace."""
        now = time.monotonic()
        self._reason = self._reason or reason
        if self._term_at is None and self._kill_at is None:
            self._term_at = now + wait
        elif self._term_at is not None:
            self._term_at = min(self._term_at, now + wait)
        if self._term_at is not None:
            self._kill_at = self._term_at + self._grace

    def _press(self) -> None:
        """Do what has become due."""
        now = time.monotonic()
        if self._term_at is not None and now < self._term_at and self._stop == signal.SIGUSR2:
            # It need not wait longer than what it waits for.
            self._term_at = min(self._term_at, now + self._hold_end())
            self._kill_at = self._term_at + self._grace
        if self._term_at is not None and now >= self._term_at:
            self._term_at = None
            signal_all(signal.SIGTERM, self._spare)
        if self._kill_at is not None and now >= self._kill_at:
            signal_all(signal.SIGKILL, self._spare)

    def _finish(self, ended: Started, *, early: bool = False) -> Outcome:
        """End what is left, and say how it went."""
        code = ended.process.wait()
        self._relay()
        others = [other.name for other in self._started if other.process.poll() is None]
        left = len(descendants(self._spare))
        if left:
            what = f"{left} process(es) that {ended.name} left behind"
            self._log.say(f"ending {' and '.join(others) or what}")
            end_all(
                self._receive_late,
                [started.process for started in self._started],
                self._spare,
                0.0 if self._reason == "superseded" else min(self._grace, REST_SECONDS),
            )
        self._relay(last=True)
        if self._reason == "":
            if early or ended.name != self._started[-1].name:
                # A server is not meant to end before the run does, however well.
                self._component = self._component or (ended.name, code)
                code = code or 1
            self._reason = "finished" if code == 0 else "failed"
        if self._reason == "failed" and self._component is None:
            self._component = (ended.name, code)
        return Outcome(code, self._reason, self._stop, self._component)

    def _receive_late(self, number: int) -> None:
        self._on_signal(number)
        self._remember(number)

    def _relay(self, *, last: bool = False) -> None:
        """Copy what was printed into the job's log, and listen for failures in it.

        A little at a time: a run that prints without end must not keep this process from its signals.
        """
        for started in self._started:
            budget = _BACKLOG if last else _PIECE
            while budget > 0 and (piece := self._read(started, min(budget, _PIECE))):
                budget -= len(piece)
                self._take(started, piece)
            if last and started.rest:
                self._take(started, b"\n")

    def _read(self, started: Started, most: int) -> bytes:
        try:
            with started.output.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                if size - started.read > _BACKLOG:
                    skipped = size - started.read - _BACKLOG
                    started.read, started.rest = started.read + skipped, b""
                    self._log.say(f"{skipped} bytes of output are not shown here: see {started.output}")
                file.seek(started.read)
                piece = file.read(most)
        except OSError:
            return b""
        started.read += len(piece)
        return piece

    def _take(self, started: Started, piece: bytes) -> None:
        """Show the whole lines, and keep the one that is begun."""
        whole, feed, rest = (started.rest + piece).rpartition(b"\n")
        if not feed and len(rest) > _KEPT:
            # A line without an end is shown as it comes.
            whole, rest = rest, b""
        started.rest = rest
        if started.shown and whole:
            write(whole + feed)
        if _FAILED not in whole or self._component is not None or self._kill_at is not None:
            return
        for line in whole.split(b"\n"):
            found = failures.read_line(line[:_KEPT].decode(errors="replace")) if _FAILED in line else None
            if found is not None:
                self._component = found
                self._end("failed", wait=FAILURE_SECONDS)
                return
