"""Starting commands and waiting for them, with no moment at which a signal is lost.

All signals of interest stay blocked in this process for its whole life and are fetched when it
waits: there are no handlers, so nothing can arrive between starting a child and knowing its id.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# What SLURM, a user or a terminal sends to end a run or to announce its end.
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_FETCHED = (*STOPS, signal.SIGCHLD)

REAP_SECONDS = 1.0
GRACE_SECONDS = 5.0
_POLL_SECONDS = 0.05


class StoppedError(Exception):
    """A signal to stop arrived while nothing of prime-rl's was running.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def hold_signals() -> None:
    """Block the signals of interest: from here on they wait until they are fetched."""
    # Were it ignored (as nohup's children may find it), ended children could not be waited for.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, _FETCHED)


def start(
    command: Sequence[str],
    environment: Mapping[str, str],
    working_directory: Path,
    output: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a command in a process group of its own, with no signal blocked.

    Args:
        command: The argument list.
        environment: All of its variables.
        working_directory: Where it runs.
        output: Descriptor for its output and errors; this process's own when `None`.
    """

    def prepare() -> None:
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FETCHED)

    return subprocess.Popen(
        command,
        env=dict(environment),
        cwd=working_directory,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        preexec_fn=prepare,  # noqa: PLW1509 - this process has a single thread
    )


def send(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to the process group that the command leads."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def wait(
    process: subprocess.Popen[bytes],
    on_stop: Callable[[int], None],
    seconds: float | None = None,
) -> int | None:
    """Wait for a command to end.

    Args:
        process: The command.
        on_stop: Called with each signal that arrives meanwhile.
        seconds: How long at most; `None` for as long as it takes.

    Returns:
        Its exit code, negative for a signal, or `None` when the time is over.
    """
    end = None if seconds is None else time.monotonic() + seconds
    while process.poll() is None:
        if end is None:
            arrived: signal.struct_siginfo | None = signal.sigwaitinfo(_FETCHED)
        else:
            arrived = signal.sigtimedwait(_FETCHED, max(0.0, end - time.monotonic()))
        if arrived is None:
            return None
        if arrived.si_signo != signal.SIGCHLD:
            on_stop(arrived.si_signo)
    return process.returncode


def left_behind(process: subprocess.Popen[bytes]) -> tuple[int, ...]:
    """List what still runs of the process group that an ended command led.

    Zombies are left out: in a container there may be nobody who ever waits for them.
    """
    pids = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text(errors="replace")
        except OSError:
            continue
        # The name in the second field may hold spaces and brackets: count from its end.
        state, _, group = stat.rpartition(")")[2].split()[:3]
        if int(group) == process.pid and state not in ("Z", "X"):
            pids.append(int(entry.name))
    return tuple(pids)


def end_rest(process: subprocess.Popen[bytes], on_stop: Callable[[int], None]) -> None:
    """End the process group that an ended command led: SIGTERM, and SIGKILL for what ignores it.

    Args:
        process: The command, which has ended.
        on_stop: Called with each signal to stop that arrives meanwhile.
    """
    for number, seconds in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, REAP_SECONDS)):
        if not left_behind(process):
            return
        send(process, number)
        end = time.monotonic() + seconds
        # They are no children of this process, so that no signal tells of their end.
        while left_behind(process) and time.monotonic() < end:
            arrived = signal.sigtimedwait(STOPS, _POLL_SECONDS)
            if arrived is not None:
                on_stop(arrived.si_signo)


@dataclass(frozen=True)
class Answer:
    """What a bounded command came to.

    Attributes:
        code: Exit code, negative for a signal; `None` when it took too long and was killed.
        output: Its output and errors.
    """

    code: int | None
    output: str


def ask(
    command: Sequence[str],
    environment: Mapping[str, str],
    working_directory: Path,
    seconds: float,
) -> Answer:
    """Run a command that must answer in time.

    Raises:
        OSError: It cannot be started.
        StoppedError: A signal to stop arrived; the command was killed.
    """
    output = os.memfd_create("answer")
    try:
        process = start(command, environment, working_directory, output)
        try:
            code = wait(process, _stop, seconds)
        finally:
            # The whole group, with what the command itself started. Hanging on a file system, it
            # may outlive even that: do not wait for it for long.
            send(process, signal.SIGKILL)
            wait(process, _stop, REAP_SECONDS)
        os.lseek(output, 0, os.SEEK_SET)
        with os.fdopen(os.dup(output), encoding="utf-8", errors="replace") as file:
            return Answer(code, file.read())
    finally:
        os.close(output)


def _stop(number: int) -> None:
    raise StoppedError(number)


def pending_stop() -> int | None:
    """Fetch a signal to stop that has already arrived, if any."""
    arrived = signal.sigtimedwait(STOPS, 0)
    return None if arrived is None else arrived.si_signo
