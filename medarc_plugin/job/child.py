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
    from collections.abc import Callable, Iterable, Mapping, Sequence

# What SLURM, a user or a terminal sends to end a run or to announce its end.
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
FETCHED = (*STOPS, signal.SIGCHLD)

REAP_SECONDS = 1.0
KILL_SECONDS = 3.0
GRACE_SECONDS = 5.0
_POLL_SECONDS = 0.05

GONE = ("Z", "X")
"""States of a process that has ended and is not waited for yet."""
_ROUNDS = 50


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
    signal.pthread_sigmask(signal.SIG_BLOCK, FETCHED)


def start(
    command: Sequence[str],
    environment: Mapping[str, str],
    working_directory: Path,
    output: int | None = None,
    sign: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a command in a process group of its own, with no signal blocked.

    Args:
        command: The argument list.
        environment: All of its variables.
        working_directory: Where it runs.
        output: Descriptor for its output and errors; this process's own when `None`.
        sign: Descriptor for its input; an empty one when `None`.
    """

    def prepare() -> None:
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FETCHED)

    return subprocess.Popen(
        command,
        env=dict(environment),
        cwd=working_directory,
        stdin=subprocess.DEVNULL if sign is None else sign,
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
            arrived: signal.struct_siginfo | None = signal.sigwaitinfo(FETCHED)
        else:
            arrived = signal.sigtimedwait(FETCHED, max(0.0, end - time.monotonic()))
        if arrived is None:
            return None
        if arrived.si_signo != signal.SIGCHLD:
            on_stop(arrived.si_signo)
    return process.returncode


def adopt_orphans() -> None:
    """Become the parent of whatever a descendant leaves behind, however it detached itself.

    A process that makes its own session and whose parent ends would become init's child, and be lost
    among the node's processes. Asked for with prctl(2), PR_SET_CHILD_SUBREAPER, it becomes this
    process's: everything that the run ever started stays below it in the process tree.
    """
    # Where Python has no ctypes, what detaches itself with a session of its own is not found.
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


_PR_SET_CHILD_SUBREAPER = 36


def reap(children: Iterable[subprocess.Popen[bytes]]) -> None:
    """Wait for adopted processes that have ended, so that they do not stay as zombies.

    Args:
        children: The commands started here, whose exit codes are left for `Popen.poll`.
    """
    own = {child.pid for child in children}
    for pid, (parent, state) in process_table().items():
        if parent == os.getpid() and state == "Z" and pid not in own:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def process_table() -> dict[int, tuple[int, str]]:
    """Read parent and state of every process on this node."""
    table = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - many entries, asked for often
        if not name.isdigit():
            continue
        fields = _stat(name)
        if fields:
            table[int(name)] = (int(fields[1]), fields[0])
    return table


def started_at(process: int) -> str:
    """When a process started, by field 22 of proc(5)'s stat; empty when it is gone or a zombie."""
    fields = _stat(str(process))
    return "" if not fields or fields[0] in GONE else fields[19]


def _stat(process: str) -> list[str]:
    """Read proc(5)'s stat of a process, from its third field on; nothing when it is gone."""
    try:
        stat = Path("/proc", process, "stat").read_text(errors="replace")
    except OSError:
        return []
    # The name in the second field may hold spaces and brackets: count from its end.
    return stat.rpartition(")")[2].split()


def descendants(spare: Iterable[int] = ()) -> tuple[int, ...]:
    """List what runs below this process: children, their children, and adopted ones.

    Zombies are left out, and so is whatever stands in `spare`.
    """
    table = process_table()
    return tuple(pid for pid in below(os.getpid(), table, spare) if table[pid][1] not in GONE)


def below(root: int, table: Mapping[int, tuple[int, str]], spare: Iterable[int] = ()) -> list[int]:
    """List all processes below one, in whatever state.

    Args:
        root: The process.
        table: What `process_table` returned.
        spare: Processes to leave out, with all below them.
    """
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in table.items():
        children.setdefault(parent, []).append(pid)
    found, left = [], list(children.get(root, ()))
    spared = set(spare)
    while left:
        pid = left.pop()
        if pid not in spared:
            found.append(pid)
            left += children.get(pid, ())
    return found


def signal_all(number: int, spare: Iterable[int] = ()) -> int:
    """Send a signal to everything below this process, and return how many that are."""
    pids = descendants(spare)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
    return len(pids)


def end_all(
    on_stop: Callable[[int], None],
    children: Sequence[subprocess.Popen[bytes]] = (),
    spare: Iterable[int] = (),
    grace: float = GRACE_SECONDS,
) -> int:
    """End everything below this process: SIGTERM, and SIGKILL for what is left after a grace.

    Args:
        on_stop: Called with each signal to stop that arrives meanwhile.
        children: The commands started here.
        spare: Processes to leave alone.
        grace: Seconds between the two.

    Returns:
        How many processes there were.
    """
    spare = tuple(spare)
    count = 0
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, KILL_SECONDS)):
        end = time.monotonic() + seconds
        if number == signal.SIGKILL:
            _hold_still(spare)
        sent = signal_all(number, spare)
        count = max(count, sent)
        while sent and time.monotonic() < end:
            arrived = signal.sigtimedwait(FETCHED, _POLL_SECONDS)
            if arrived is not None and arrived.si_signo != signal.SIGCHLD:
                on_stop(arrived.si_signo)
            for child in children:
                child.poll()
            reap(children)
            if not descendants(spare):
                break
            if number == signal.SIGKILL:
                # What was started between the look and the kill.
                signal_all(number, spare)
    return count


def _hold_still(spare: Iterable[int]) -> None:
    """Stop everything below this process, so that nothing can start another while it is killed."""
    spare = tuple(spare)
    known: set[int] = set()
    for _ in range(_ROUNDS):
        fresh = set(descendants(spare)) - known
        if not fresh:
            return
        for pid in fresh:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGSTOP)
        known |= fresh


@dataclass(frozen=True)
class Answer:
    """What a bounded command came to.

    Attributes:
        code: Exit code, negative for a signal; `None` when it took too long and was killed.
        output: Its output and errors.
    """

    code: int | None
    output: str

    @property
    def killed(self) -> bool:
        """Whether a signal ended it that nobody here sent."""
        return self.code is not None and self.code < 0

    @property
    def ending(self) -> str:
        """How it ended, in words that go on behind its name."""
        if not self.killed:
            return f"ended with exit code {self.code}"
        name = signal.Signals(-(self.code or 0)).name
        return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def ask(
    command: Sequence[str],
    environment: Mapping[str, str],
    working_directory: Path,
    seconds: float,
    on_stop: Callable[[int], None] | None = None,
    meanwhile: Callable[[], object] | None = None,
) -> Answer:
    """Run a command that must answer in time.

    Args:
        command: The argument list.
        environment: All of its variables.
        working_directory: Where it runs.
        seconds: How long at most.
        on_stop: Called with each signal to stop that arrives meanwhile.
        meanwhile: Called every second while it runs.

    Raises:
        OSError: It cannot be started.
        StoppedError: A signal to stop arrived, and nobody was to be called; the command was killed.
    """
    on_stop = on_stop or _stop
    output = os.memfd_create("answer")
    try:
        process = start(command, environment, working_directory, output)
        try:
            end = time.monotonic() + seconds
            code = None
            while code is None and (left := end - time.monotonic()) > 0:
                code = wait(process, on_stop, min(left, 1.0) if meanwhile else left)
                if meanwhile is not None:
                    meanwhile()
        finally:
            # The whole group, with what the command itself started. Hanging on a file system, it
            # may outlive even that: do not wait for it for long.
            send(process, signal.SIGKILL)
            wait(process, on_stop, REAP_SECONDS)
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
