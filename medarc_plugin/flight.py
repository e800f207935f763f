"""A submission under way: its record, written before SLURM is asked to take the job and settled after.

`configs/launch/delivery.json` is open from before the first sending until it is known whether there is a job.
Whatever ends a launch in between leaves it open, and the next launch in that directory settles it first.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from medarc_plugin import json_text, lifesigns, rundir
from medarc_plugin.errors import RunDirectoryError
from medarc_plugin.models import JobState, Submission
from medarc_plugin.signals import Hold

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from medarc_plugin.lifesigns import Signs
    from medarc_plugin.models import JobPlan, RunFiles

OPEN, ACCEPTED, NONE = "open", "accepted", "none"
"""Nobody knows yet whether there is a job; there is one; there surely is none."""

FORMAT = 1
NAME = "delivery.json"


@dataclass(frozen=True)
class Note:
    """The record of a submission under way.

    Attributes:
        state: `open`, `accepted` or `none`.
        token: The submission's word.
        backend: The backend that is to take it.
        sending: How often the script was sent; 0 before the first time.
        since: When the first sending began, UTC, ISO 8601.
        sent: When the newest one began, likewise.
        host: The machine that sends it.
        process: The process that does.
        earlier: Ids of the jobs that this run directory had before.
        cluster: Name of the cluster, as its controller says.
        slurm_conf: The SLURM_CONF that names it, where one does.
        job_id: The job, once there is one.
        named: The cluster or clusters that the launch names, as for sbatch's `--clusters`.
        format: Version of this record.
    """

    state: str
    token: str
    backend: str
    sending: int
    since: str
    sent: str
    host: str
    process: int
    earlier: tuple[str, ...] = ()
    cluster: str | None = None
    slurm_conf: str | None = None
    job_id: str | None = None
    named: str | None = None
    format: int = FORMAT


@dataclass(frozen=True)
class Patience:
    """How long is waited for what, in seconds. `MEDARC_PATIENCE=answer=2,settle=1` is for tests alone.

    Attributes:
        answer: For sbatch, until it is killed.
        grace: For sbatch after a signal to end.
        controller: For a controller that does not answer.
        settle: After sbatch's end, until a request that it had sent must have arrived. The controller itself
            gives up reading one after its MessageTimeout, 10 seconds unless a site changes it.
        backoff: Before the second sending; twice as long before each further one.
        sendings: How often the script is sent at most.
    """

    answer: float = 120.0
    grace: float = 10.0
    controller: float = 120.0
    settle: float = 10.0
    backoff: float = 1.0
    sendings: int = 5

    @classmethod
    def wanted(cls, environment: Mapping[str, str] = os.environ) -> Patience:
        """Read the variable; what it does not say, or says wrongly, stays."""
        words = (word.partition("=") for word in environment.get("MEDARC_PATIENCE", "").split(","))
        found: dict[str, Any] = {}
        for name, _, value in words:
            with contextlib.suppress(ValueError):
                found[name] = int(value) if name == "sendings" else float(value)
        return cls(**{each.name: found[each.name] for each in fields(cls) if each.name in found})


class Flight:
    """One submission under way.

    Args:
        plan: The run; its files are written, and its run directory is held.
        hold: The signals that have come.
        say: Told what goes on beside the ordinary.
        earlier: The job that the run directory had before.
        lock: What sbatch inherits, so that nobody else begins while it lives.
    """

    def __init__(
        self,
        plan: JobPlan,
        *,
        hold: Hold | None = None,
        say: Callable[[str], None] = lambda _: None,
        earlier: str | None = None,
        lock: int | None = None,
    ) -> None:
        self.plan = plan
        self.hold = hold or Hold()
        self.say = say
        self.patience = Patience.wanted()
        self.keep: tuple[int, ...] = () if lock is None else (lock,)
        run_dir = plan.files.launch.parent.parent
        known = lifesigns.logs(run_dir) | ({earlier} if earlier else set())
        self.note = Note(
            state=OPEN,
            token=plan.token,
            backend=plan.backend,
            sending=0,
            since=_now(),
            sent="",
            host=socket.gethostname(),
            process=os.getpid(),
            earlier=tuple(sorted(known)),
            slurm_conf=os.environ.get("SLURM_CONF"),
        )

    def name_cluster(self, named: str | None) -> None:
        """Keep which cluster the launch names, for who has to find out what came of it.

        Args:
            named: The cluster or clusters; `None` for this machine's own.
        """
        self.note = replace(self.note, named=named)

    def begin(self) -> None:
        """Take note that the script is about to be sent once more.

        Raises:
            RunDirectoryError: That cannot be written: then nothing may be sent either.
        """
        try:
            self._write(sending=self.note.sending + 1, sent=_now())
        except OSError as error:
            raise RunDirectoryError(
                f"{self.plan.files.launch / NAME} cannot be written: {error.strerror or error}",
                hint="free some space, then run the same command again",
            ) from None

    def settle(self, job_id: str | None, cluster: str | None = None) -> None:
        """Take note of what came of it.

        Args:
            job_id: The job; `None` when there surely is none.
            cluster: Name of the cluster that took it.
        """
        with contextlib.suppress(OSError):
            self._write(state=NONE if job_id is None else ACCEPTED, job_id=job_id, cluster=cluster)

    def signs(self) -> Signs:
        """Look whether a job of this submission has begun, whatever SLURM says."""
        run_dir = self.plan.files.launch.parent.parent
        signs = lifesigns.read(run_dir, self.note.token)
        new = lifesigns.newest_log(run_dir, self.note.earlier)
        if signs.started or new is None:
            return signs
        return replace(signs, started=True, job_id=new)

    def _write(self, **changes: Any) -> None:  # noqa: ANN401 - values of a note
        self.note = replace(self.note, **changes)
        write(self.plan.files, self.note)


def write(files: RunFiles, note: Note) -> None:
    """Write a note whole.

    Raises:
        OSError: It cannot be written.
    """
    rundir.write_whole(files.launch / NAME, json.dumps(asdict(note), indent=2) + "\n")


def read(launch: Path) -> Note | None:
    """Read the note of a run's newest submission; `None` when there is none that can be read.

    A newer version may have written more than this one knows.
    """
    try:
        document: Any = json_text.parse((launch / NAME).read_text(encoding="utf-8"))
        values = {each.name: document[each.name] for each in fields(Note) if each.name in document}
        note = Note(**{**values, "earlier": tuple(map(str, values.get("earlier") or ()))})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    words = (note.state, note.token, note.backend, note.since, note.sent, note.host)
    return note if all(isinstance(word, str) for word in words) and isinstance(note.sending, int) else None


def elsewhere(launch: Path, token: str, asked: str | None) -> str | None:
    """Say that another cluster took a submission than the one that is asked; `None` when nothing tells that.

    Args:
        launch: The launch's own folder.
        token: The submission's word.
        asked: Name of the cluster that is asked; `None` when it did not say.
    """
    note = read(launch)
    if note is None or note.token != token or not note.cluster or asked in {None, note.cluster}:
        return None
    return f"cluster {note.cluster} took it, and this machine asks {asked}"


def is_open(files: RunFiles) -> bool:
    """Whether a launch may be under way here, or was cut off."""
    note = read(files.launch)
    return note is not None and note.state == OPEN


def settle(
    files: RunFiles, query: Callable[[Submission], JobState], say: Callable[[str], None]
) -> Submission | None:
    """Find out what came of a launch that was cut off, and record it. The run directory must be held.

    Args:
        files: The run's files.
        query: Says how a submitted job is doing.
        say: Told what was found.

    Returns:
        The submission that was found and recorded; `None` when there is nothing to record.

    Raises:
        RunDirectoryError: Nobody can say.
        OSError: It cannot be recorded.
    """
    note = read(files.launch)
    if note is None or note.state != OPEN:
        return None
    recorded = rundir.read_submission(files)
    if recorded is not None and recorded.token == note.token:
        write(files, replace(note, state=ACCEPTED, job_id=recorded.job_id))
        return None
    whose = f"the launch of {note.since} on {note.host}, which was cut off"
    asked = Submission(
        *("", note.named, files.script, files.log, note.since, note.token, note.backend),
        slurm_conf=note.slurm_conf,
    )

    def tell(why: str) -> None:
        say(f"looking what came of {whose}" + (f"; {why}" if why else ""))

    state = _ask_until_settled(note, lambda: query(asked), tell)
    if state.state == "UNKNOWN":
        why = f": {state.reason}" if state.reason else ""
        raise RunDirectoryError(
            f"nobody can say whether SLURM took the job of {whose}{why}",
            hint="run the same command again when `scontrol ping` says that the controller is up; "
            f"where you know that there is no job, delete {files.launch / NAME}",
        )
    if not state.job_id:
        say(f"{whose}, submitted no job")
        write(files, replace(note, state=NONE))
        return None
    found = replace(
        asked,
        job_id=state.job_id,
        cluster=state.cluster or note.named,
        log=files.log_of(state.job_id),
    )
    rundir.record(files, found)
    write(files, replace(note, state=ACCEPTED, job_id=found.job_id))
    say(f"{whose}, submitted job {found.job_id} ({state.state}), which is recorded now")
    return found


def _ask_until_settled(note: Note, ask: Callable[[], JobState], tell: Callable[[str], None]) -> JobState:
    """Ask for a job until there is one, or what was sent at last must have arrived and SLURM has answered.

    A controller that does not answer is waited for as a launch does.
    """
    if not note.sending:
        return JobState("GONE")
    patience = Patience.wanted()
    recent = time.time() - seconds(note.sent) < patience.answer + patience.settle
    began = time.monotonic()
    told, pause = False, 0.1
    while True:
        asked = time.monotonic()
        state = ask()
        silent = state.state == "UNKNOWN" and not state.reason
        certain = not recent or asked >= began + patience.settle
        if state.job_id or (not silent and certain) or time.monotonic() > began + patience.controller:
            return state
        if not told:
            tell(f"SLURM does not answer: waiting up to {patience.controller:g} s" if silent else "")
            told = True
        time.sleep(pause)
        pause = min(2 * pause, 5.0, max(0.1, patience.settle))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def seconds(text: str) -> float:
    """Read a time of a record, in seconds since 1970; 0 when it cannot be read."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0
