"""Processes of a sandbox, found by what they are rather than by a number that was written down.

A pid file can outlive its process, and after a reboot its number belongs to somebody else. Every
daemon therefore carries the sandbox's unique short path in its arguments, and whatever runs inside
a job carries it in its environment; /proc is searched for those.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

PROC = Path("/proc")
_POLL_SECONDS = 0.01
_KILL_SECONDS = 5.0


@dataclass(frozen=True)
class Process:
    """One running process.

    Attributes:
        pid: Its process id.
        parent: That of its parent.
        arguments: Its command line; a program may have overwritten it with a title of its own.
    """

    pid: int
    parent: int
    arguments: tuple[str, ...]


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll until a condition holds.

    Args:
        condition: Called every few milliseconds, at least once.
        seconds: When to give up.

    Returns:
        Whether it held in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def running(proc: Path = PROC) -> Iterator[Process]:
    """Yield every process that runs; a zombie, which nobody may ever reap, counts as ended."""
    for entry in proc.iterdir():
        if entry.name.isdigit() and (process := _read(entry)) is not None:
            yield process


def is_alive(pid: int, proc: Path = PROC) -> bool:
    """Whether a process runs and is not merely a zombie."""
    return _read(proc / str(pid)) is not None


def daemons(command: Sequence[str], proc: Path = PROC) -> list[Process]:
    """Find the processes of one daemon.

    Args:
        command: The command that starts it; its arguments tell it from others of the same program.
        proc: Where processes are listed.

    Returns:
        The daemon, before processes that it forked and that still look like it.
    """
    program, wanted = _program(command), set(command[1:])
    found = [
        process
        for process in running(proc)
        if _program(process.arguments) == program and wanted <= set(process.arguments)
    ]
    pids = {process.pid for process in found}
    return sorted(found, key=lambda process: (process.parent in pids, process.pid))


def of_sandbox(marks: Iterable[str], proc: Path = PROC) -> list[Process]:
    """Find everything that a sandbox started: daemons, step daemons, and what jobs left behind.

    Args:
        marks: Paths that only this sandbox's processes know: its short path and its own.
        proc: Where processes are listed.

    Returns:
        The processes; this one and its ancestors are never among them.
    """
    marks = tuple(marks)
    everything = list(running(proc))
    spared = _ancestry(everything)
    return [process for process in everything if process.pid not in spared and _belongs(process, marks, proc)]


def end(processes: Iterable[Process], *, grace: float, proc: Path = PROC) -> None:
    """End processes: SIGTERM, and SIGKILL for those that are still there after a while.

    Args:
        processes: Which.
        grace: Seconds between the two; 0 for SIGKILL at once.
        proc: Where processes are listed.
    """
    pids = [process.pid for process in processes]

    def all_gone() -> bool:
        return not any(is_alive(pid, proc) for pid in pids)

    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, _KILL_SECONDS)):
        if seconds > 0 and not all_gone():
            for pid in pids:
                send(pid, number)
            wait_until(all_gone, seconds)


def send(pid: int, number: signal.Signals) -> None:
    """Signal a process; one that is gone or somebody else's is left alone."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _belongs(process: Process, marks: tuple[str, ...], proc: Path) -> bool:
    program = _program(process.arguments)
    if program in {"munged", "slurmctld", "slurmd"}:
        return any(_under(word.partition("=")[2] or word, marks) for word in process.arguments)
    entry = proc / str(process.pid)
    if program.startswith("slurmstepd") or program.endswith("slurmscriptd"):
        return any(_under(path, marks) for path in open_files(process.pid, proc))
    # SLURMD_NODENAME is what slurmd gives to jobs alone: a user's shell has SLURM_CONF too.
    variables = _environment(entry)
    return "SLURMD_NODENAME" in variables and _under(variables.get("SLURM_CONF", ""), marks)


def _program(command: Sequence[str]) -> str:
    return command[0].rpartition("/")[2] if command else ""


def _under(path: str, folders: tuple[str, ...]) -> bool:
    return path.startswith(tuple(f"{folder}/" for folder in folders))


def _read(entry: Path) -> Process | None:
    try:
        # The name in the second field may hold spaces and brackets: count from its end.
        state, parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
        arguments = (entry / "cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    if state in {"Z", "X"}:
        return None
    words = os.fsdecode(arguments).rstrip("\0").split("\0")
    return Process(int(entry.name), int(parent), tuple(words))


def open_files(pid: int, proc: Path = PROC) -> list[str]:
    """List the paths of a process's open files; that of a deleted file ends in ` (deleted)`."""
    paths = []
    try:
        for descriptor in (proc / str(pid) / "fd").iterdir():
            paths.append(os.readlink(descriptor))  # noqa: PTH115, PERF401  a path or `socket:[1]`
    except OSError:
        pass
    return paths


def _environment(entry: Path) -> dict[str, str]:
    try:
        text = os.fsdecode((entry / "environ").read_bytes())
    except OSError:
        return {}
    pairs = (item.partition("=") for item in text.split("\0"))
    return {name: value for name, _, value in pairs}


def _ancestry(everything: list[Process]) -> set[int]:
    parents = {process.pid: process.parent for process in everything}
    pid, ancestry = os.getpid(), set[int]()
    while pid and pid not in ancestry:
        ancestry.add(pid)
        pid = parents.get(pid, 0)
    return ancestry
