"""The daemons of a sandbox: their commands, their start, and why one did not start."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medarc_plugin.errors import SandboxError
from medarc_plugin.process import run
from medarc_plugin.sandbox import processes
from medarc_plugin.sandbox.configuration import Place
from medarc_plugin.sandbox.programs import search_path

if TYPE_CHECKING:
    from pathlib import Path

    from medarc_plugin.sandbox.folder import Record
    from medarc_plugin.sandbox.processes import Process

MUNGED = "munged"
CONTROLLER = "slurmctld"
NODE_PREFIX = "slurmd-"

_START_SECONDS = 30.0
_LOG_LINES = 12
# Jobs get the submitter's environment. Daemons run on for days and need little of it: a token that
# happens to be exported stays out of theirs.
_INHERITED = ("HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")


@dataclass(frozen=True)
class Daemon:
    """One daemon of a sandbox.

    Attributes:
        name: `munged`, `slurmctld` or `slurmd-NODE`; its log is `log/NAME.log`.
        command: What starts it; it goes to the background by itself.
    """

    name: str
    command: tuple[str, ...]

    def processes(self) -> list[Process]:
        """Find its processes, itself first; none when it does not run."""
        return processes.daemons(self.command)

    @property
    def pid(self) -> int | None:
        """Its process id; `None` when it does not run."""
        found = self.processes()
        return found[0].pid if found else None


def place(record: Record) -> Place:
    """Say where a sandbox's daemons find everything.

    Raises:
        SandboxError: This user has no name.
    """
    return Place(
        root=record.root,
        munge_socket=record.munge_socket,
        user=user_name(),
        controller_port=record.ports[0],
        node_ports=record.ports[1:],
        loopback_only=record.loopback_only,
    )


def of(record: Record, programs: dict[str, str] | None = None) -> tuple[Daemon, ...]:
    """List a sandbox's daemons in the order in which they start.

    Args:
        record: The sandbox.
        programs: Paths of programs by name; their bare names will do to find running daemons.
    """
    paths = programs or {}
    root = record.root
    configuration = f"{root}/slurm.conf"
    return (
        Daemon(
            MUNGED,
            (
                paths.get("munged", "munged"),
                f"--socket={record.munge_socket}",
                f"--key-file={root}/munge/key",
                f"--seed-file={root}/munge/seed",
                f"--pid-file={root}/run/munged.pid",
                f"--log-file={root}/log/munged.log",
                # Without it munged refuses folders whose parents somebody else can write.
                "--force",
            ),
        ),
        Daemon(CONTROLLER, (paths.get("slurmctld", "slurmctld"), "-f", configuration)),
        *(
            Daemon(
                f"{NODE_PREFIX}{node}",
                (paths.get("slurmd", "slurmd"), "-f", configuration, "-N", node),
            )
            for node in record.spec.node_names
        ),
    )


def start(daemon: Daemon, directory: Path) -> None:
    """Start a daemon and return when it is in the background.

    Args:
        daemon: Which.
        directory: The sandbox's folder.

    Raises:
        SandboxError: It did not start; the message holds the end of its log.
    """
    done = run(daemon.command, env=environment(), cwd=directory, timeout=_START_SECONDS)
    if not done.ok:
        raise failure(daemon, directory, f"\n{done.describe()}")


def failure(daemon: Daemon, directory: Path, detail: str = "") -> SandboxError:
    """Make the error for a daemon that does not run.

    Args:
        daemon: Which.
        directory: The sandbox's folder.
        detail: More about it.

    Returns:
        The error, with the end of the daemon's log.
    """
    log = directory / "log" / f"{daemon.name}.log"
    return SandboxError(
        f"{daemon.name} did not start{detail}\nthe end of {log}:\n{log_tail(log)}",
        hint="`medarc_slurm sandbox down` and then `up` starts from nothing",
    )


def log_tail(log: Path) -> str:
    """Give the end of a log; a remark when there is none."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "  (no log was written)"
    return "\n".join(f"  {line}" for line in lines[-_LOG_LINES:]) or "  (the log is empty)"


def environment() -> dict[str, str]:
    """Give the few variables that daemons start with."""
    kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return kept | {"PATH": search_path()}


def user_name() -> str:
    """Give the name of the user who runs this, as SLURM looks it up.

    Raises:
        SandboxError: The user id has no passwd entry.
    """
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise SandboxError(
            f"the user id {os.geteuid()} has no name, and SLURM needs one",
            hint="add an entry to /etc/passwd, or run as a user who has one",
        ) from None
