"""A sandbox from its start to its end: `up`, `status`, `down`."""

from __future__ import annotations

import os
import secrets
import signal
import socket
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from medarc_plugin.errors import SandboxError
from medarc_plugin.sandbox import configuration, controller, daemons, folder, processes
from medarc_plugin.sandbox.controller import Controller
from medarc_plugin.sandbox.gpus import allot, detect, is_real
from medarc_plugin.sandbox.ports import free_ports, is_free, is_served
from medarc_plugin.sandbox.programs import Programs, locate
from medarc_plugin.sandbox.spec import DaemonStatus, SandboxSpec, SandboxStatus

if TYPE_CHECKING:
    from medarc_plugin.sandbox.daemons import Daemon
    from medarc_plugin.sandbox.folder import Record
    from medarc_plugin.sandbox.gpus import Gpu

_READY_SECONDS = 30.0
_PATIENCE_SECONDS = 3.0
# What a job gets to end in order; SLURM itself would give it KillWait.
_JOB_END_SECONDS = 8.0
_DAEMON_END_SECONDS = 3.0
# What cannot be carried over to another machine description or another SLURM.
_STATE = frozenset({"gpu", "run", "spool", "state", *folder.CONFIGURATION})


def default_directory() -> Path:
    """Give the sandbox's folder when none is named: `.slurm-sandbox` in the current one."""
    return Path.cwd() / ".slurm-sandbox"


class Sandbox:
    """A real SLURM in one folder, run by the user who starts it.

    Any number of them run side by side, each in its folder and on ports of its own.

    Args:
        directory: The folder; it need not exist, its path may be long and hold spaces.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()

    def environment(self) -> dict[str, str]:
        """Give the variables with which SLURM's commands speak to this sandbox, up or not.

        Raises:
            SandboxError: The folder is there, and neither is a sandbox nor could become one.
        """
        folder.check(self.directory)
        return {"SLURM_CONF": str(self.directory / "slurm.conf")}

    def up(self, spec: SandboxSpec | None = None) -> SandboxStatus:
        """Start what does not run, and return when every node takes jobs.

        Args:
            spec: What it is to be; `None` for what it was before, or the default.

        Returns:
            The sandbox as it then is, with the names of the daemons that were started.

        Raises:
            SandboxError: Programs are missing, the folder cannot be used, it runs with another
                spec, or a daemon did not start.
        """
        folder.check(self.directory)
        programs = locate()
        with folder.locked(self.directory, create=True):
            try:
                record = self._settle(spec, programs)
            except SandboxError:
                self._leave_no_empty_folder()
                raise
            started = self._start_missing(record, programs)
        return replace(self.status(), started=started)

    def down(self) -> None:
        """Cancel the jobs, end the daemons, remove the folder; nothing stays behind.

        Without a sandbox it does nothing; one whose folder was deleted is ended all the same.

        Raises:
            SandboxError: The folder is not a sandbox, was moved, holds files of others (which
                stay), or a process cannot be ended.
        """
        if not folder.check(self.directory) and not folder.shorts_of(self.directory):
            return
        with folder.locked(self.directory, create=False) as exists:
            shorts = self._shorts()
            if not exists:
                self._insist_on_deleted(shorts)
            self._end_jobs()
            self._end_processes(shorts)
            for short in shorts:
                folder.remove_short(short)
            if exists:
                folder.remove(self.directory)

    def status(self) -> SandboxStatus:
        """See what there is, without changing anything.

        Raises:
            SandboxError: The folder is not a sandbox, or its record cannot be read.
        """
        record = self._record() if folder.check(self.directory) else None
        if record is None:
            return SandboxStatus(state="down", directory=str(self.directory))
        found = tuple(DaemonStatus(one.name, one.pid) for one in daemons.of(record))
        alive = [one.name for one in found if one.alive]
        # An answer takes both, and without one of them the question takes half a minute.
        speaker = self._controller() if {daemons.MUNGED, daemons.CONTROLLER} <= {*alive} else None
        nodes = speaker.nodes() if speaker else None
        return SandboxStatus(
            state=_state(len(alive), len(found), answers=nodes is not None),
            directory=str(self.directory),
            daemons=found,
            nodes=nodes or (),
            gpus=len(record.gpus) // record.spec.nodes,
            gpu_type=",".join(dict.fromkeys(gpu.type for gpu in record.gpus)),
            real_gpus=is_real(record.gpus),
            queue_length=speaker.queue_length() if speaker and nodes is not None else None,
            slurm_version="{}.{:02}".format(*record.version),
        )

    def kill(self, name: str) -> None:
        """End one daemon with SIGKILL, as a crash would; for tests.

        Args:
            name: `munged`, `slurmctld` or `slurmd-NODE`.

        Raises:
            SandboxError: The sandbox has no such daemon.
        """
        daemon = self._daemon(name)
        for process in daemon.processes():
            processes.send(process.pid, signal.SIGKILL)
        processes.wait_until(lambda: daemon.pid is None, _DAEMON_END_SECONDS)

    def boot(self, name: str) -> None:
        """Start one daemon that does not run; for tests.

        Args:
            name: `munged`, `slurmctld` or `slurmd-NODE`.

        Raises:
            SandboxError: The sandbox has no such daemon, or it did not start.
        """
        daemon = self._daemon(name, locate())
        if daemon.pid is None:
            daemons.start(daemon, self.directory)

    def _record(self) -> Record | None:
        """Read the record, unless it came with a copy of another sandbox's folder."""
        record = folder.load(self.directory)
        ours = record is not None and folder.leads_to(record.short, self.directory)
        return record if ours else None

    def _settle(self, spec: SandboxSpec | None, programs: Programs) -> Record:
        """Decide what the sandbox is, and write that down before anything is started."""
        before = self._record()
        if before is not None and any(one.pid for one in daemons.of(before)):
            _insist_on_the_same(before, spec, programs, self.directory)
            if not folder.point(before.short, self.directory):
                raise SandboxError(
                    f"the short path {before.short} does not lead to {self.directory} any more",
                    hint="`medarc_slurm sandbox down` and then `up`",
                )
            return before
        wanted = spec or (before.spec if before else SandboxSpec())
        real = detect() if wanted.gpu_kind == "auto" else ()
        gpus = allot(wanted, real)
        if before is None or (before.spec, before.gpus, before.version) != (
            wanted,
            gpus,
            programs.version,
        ):
            self._discard_state()
        record = self._decide(before, wanted, gpus, programs)
        folder.save(self.directory, record)
        return record

    def _decide(
        self,
        before: Record | None,
        spec: SandboxSpec,
        gpus: tuple[Gpu, ...],
        programs: Programs,
    ) -> Record:
        daemons.user_name()
        ports = before.ports if before else ()
        if len(ports) != spec.nodes + 1 or not all(is_free(port) for port in ports):
            ports = free_ports(spec.nodes + 1)
        short = before.short if before else None
        if short is None or not folder.point(short, self.directory):
            short = folder.new_short()
            folder.point(short, self.directory)
        return folder.Record(
            spec=spec,
            short=short,
            ports=ports,
            version=programs.version,
            gpus=gpus,
            loopback_only=_host_is_loopback(),
        )

    def _start_missing(self, record: Record, programs: Programs) -> tuple[str, ...]:
        """Start what does not run; when that fails, what was started here is ended again."""
        missing = [one for one in daemons.of(record, programs.paths) if one.pid is None]
        if not missing:
            return ()
        try:
            self._write_files(record)
            for daemon in missing:
                daemons.start(daemon, self.directory)
                if daemon.name == daemons.CONTROLLER:
                    self._wait_for_controller(daemon, record)
            self._reintroduce_nodes(record, programs, started=missing)
            self._wait_until_ready(record, programs)
        except SandboxError:
            leftover = [process for daemon in missing for process in daemon.processes()]
            processes.end(leftover, grace=_DAEMON_END_SECONDS)
            raise
        return tuple(daemon.name for daemon in missing)

    def _write_files(self, record: Record) -> None:
        folder.make(self.directory)
        where = daemons.place(record)
        cgroup = configuration.render_cgroup_conf(record.version)
        for name, text in (
            (
                "slurm.conf",
                configuration.render_slurm_conf(record.spec, where, record.gpus),
            ),
            ("gres.conf", configuration.render_gres_conf(where, record.gpus)),
            ("cgroup.conf", cgroup),
        ):
            if text is not None:
                folder.write(self.directory / name, text)
        _write_key(self.directory / "munge" / "key")
        for gpu in record.gpus:
            _link(self.directory / configuration.device_link(gpu), gpu.device)

    def _wait_for_controller(self, daemon: Daemon, record: Record) -> None:
        """Wait until it listens: whoever is refused by it tries again a whole second later."""
        port = record.ports[0]
        processes.wait_until(lambda: is_served(port) or daemon.pid is None, _READY_SECONDS)
        if daemon.pid is None:
            raise daemons.failure(daemon, self.directory)

    def _reintroduce_nodes(self, record: Record, programs: Programs, *, started: list[Daemon]) -> None:
        """Have nodes that ran on report to a controller that was started anew.

        By itself it looks for them after 5 s; SIGHUP makes slurmd register again at once.
        """
        names = {daemon.name for daemon in started}
        survivors = [
            daemon
            for daemon in daemons.of(record, programs.paths)
            if daemon.name.startswith(daemons.NODE_PREFIX) and daemon.name not in names
        ]
        if daemons.CONTROLLER not in names or not survivors:
            return
        for daemon in survivors:
            if daemon.pid is not None:
                processes.send(daemon.pid, signal.SIGHUP)

    def _wait_until_ready(self, record: Record, programs: Programs) -> None:
        """Wait for the nodes; a daemon that ends meanwhile is the error."""
        speaker = self._controller(programs)
        everyone = daemons.of(record, programs.paths)

        def settled() -> bool:
            return any(one.pid is None for one in everyone) or self._all_ready(speaker, record)

        if not processes.wait_until(settled, _PATIENCE_SECONDS):
            # The controller remembers what it gave up before it was restarted.
            speaker.resume([node for node in speaker.nodes() or () if controller.is_given_up(node)])
            processes.wait_until(settled, _READY_SECONDS)
        for daemon in everyone:
            if daemon.pid is None:
                raise daemons.failure(daemon, self.directory)
        if not self._all_ready(speaker, record):
            states = [f"{node.name} {node.state}" for node in speaker.nodes() or ()]
            raise daemons.failure(
                everyone[-1],
                self.directory,
                f": after {_READY_SECONDS:g} s the nodes are not ready "
                f"({', '.join(states) or 'the controller does not answer'})",
            )

    @staticmethod
    def _all_ready(speaker: Controller, record: Record) -> bool:
        nodes = speaker.nodes()
        return nodes is not None and record.spec.nodes == sum(map(controller.is_ready, nodes))

    def _shorts(self) -> list[Path]:
        """Find this sandbox's folders under /tmp, even when its record is damaged or gone."""
        found = folder.shorts_of(self.directory)
        try:
            record = self._record()
        except folder.DamagedRecordError:
            record = None
        return found if record is None else [record.short, *(one for one in found if one != record.short)]

    def _insist_on_deleted(self, shorts: list[Path]) -> None:
        """Make sure that the folder, which is not there, was not just moved: it is in use then."""
        for process in processes.of_sandbox(map(str, shorts)):
            for file in map(Path, processes.open_files(process.pid)):
                home = file.parent.parent
                if file.parent.name == "log" and (home / folder.RECORD).exists():
                    raise SandboxError(
                        f"the sandbox of {self.directory} was moved to {home}",
                        hint=f"`medarc_slurm sandbox down --dir {home}` ends it",
                    )

    def _end_jobs(self) -> None:
        """Let running jobs end as SLURM ends them, if there is still a SLURM to do it."""
        try:
            record = self._record()
            if record is None or not all(one.pid for one in daemons.of(record)):
                return
        except folder.DamagedRecordError:
            return
        self._controller().cancel_all(daemons.user_name())
        known = {process.pid for daemon in daemons.of(record) for process in daemon.processes()}
        marks = (str(record.short), str(self.directory))
        processes.wait_until(
            lambda: (
                not any(
                    "slurmstepd" in process.arguments[0]
                    for process in processes.of_sandbox(marks)
                    if process.pid not in known
                )
            ),
            _JOB_END_SECONDS,
        )

    def _end_processes(self, shorts: list[Path]) -> None:
        marks = (*map(str, shorts), str(self.directory))
        processes.end(processes.of_sandbox(marks), grace=_DAEMON_END_SECONDS)

        def gone() -> bool:
            remaining = processes.of_sandbox(marks)
            processes.end(remaining, grace=0)
            return not remaining

        if not processes.wait_until(gone, _DAEMON_END_SECONDS):
            pids = ", ".join(str(process.pid) for process in processes.of_sandbox(marks))
            raise SandboxError(
                f"processes of the sandbox in {self.directory} cannot be ended: {pids}",
                hint="they may wait for a device or a file system; try again, or end them by hand",
            )

    def _discard_state(self) -> None:
        """Drop jobs and files of a sandbox that was something else before."""
        self._end_processes(self._shorts())
        folder.clear(self.directory, _STATE)

    def _leave_no_empty_folder(self) -> None:
        if not (self.directory / folder.RECORD).exists():
            folder.remove(self.directory)

    def _daemon(self, name: str, programs: Programs | None = None) -> Daemon:
        record = self._record()
        everyone = daemons.of(record, programs.paths if programs else None) if record else ()
        for daemon in everyone:
            if daemon.name == name:
                return daemon
        raise SandboxError(
            f"the sandbox in {self.directory} has no daemon {name!r}",
            hint=f"it has: {', '.join(one.name for one in everyone) or 'none; start it first'}",
        )

    def _controller(self, programs: Programs | None = None) -> Controller:
        return Controller(self.environment()["SLURM_CONF"], programs.paths if programs else {})


def _state(alive: int, known: int, *, answers: bool) -> Literal["up", "partly", "down"]:
    if alive == 0:
        return "down"
    return "up" if alive == known and answers else "partly"


def _insist_on_the_same(
    before: Record, spec: SandboxSpec | None, programs: Programs, directory: Path
) -> None:
    way_out = f"`medarc_slurm sandbox down --dir {directory}` first; that cancels its jobs"
    if spec is not None and spec != before.spec:
        theirs, ours = before.spec.to_dict(), spec.to_dict()
        changes = [
            f"{name} {theirs[name]} (asked for: {ours[name]})"
            for name in theirs
            if theirs[name] != ours[name]
        ]
        raise SandboxError(f"the sandbox in {directory} is running with {', '.join(changes)}", hint=way_out)
    if before.version != programs.version:
        raise SandboxError(
            "the sandbox in {} runs SLURM {}.{:02}, and {}.{:02} is installed now".format(
                directory, *before.version, *programs.version
            ),
            hint=way_out,
        )


def _host_is_loopback() -> bool:
    """Whether this host's own name is 127.0.0.1 and nothing else.

    SLURM binds that address when told not to listen everywhere, whatever its configuration says.
    """
    try:
        return socket.gethostbyname_ex(socket.gethostname())[2] == ["127.0.0.1"]
    except OSError:
        return False


def _write_key(key: Path) -> None:
    if key.exists():
        return
    descriptor = os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123  a descriptor with its mode set
        file.write(secrets.token_bytes(128))


def _link(link: Path, target: str) -> None:
    link.parent.mkdir(exist_ok=True)
    if link.is_symlink() and os.readlink(link) == target:  # noqa: PTH115  text, not a path
        return
    link.unlink(missing_ok=True)
    link.symlink_to(target)
