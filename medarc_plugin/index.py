"""The user's list of submitted runs: a line each, appended as a run is accepted.

The list finds run directories; what a run is and how it goes is told by its directory and by SLURM. It may be
deleted at any time: runs are then named by their directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medarc_plugin import hookimpl, json_text, project

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from medarc_plugin.models import JobPlan, RunFiles, Submission

MOST = 5000
"""Lines that are kept; the oldest go first."""

LONGEST_LINE = 64 * 1024
"""Bytes of a line; what is longer is nobody's run."""


@dataclass(frozen=True)
class Entry:
    """One submission.

    Attributes:
        run_dir: The run directory, absolute.
        entrypoint: `rl`, `sft` or `inference`.
        name: The job's name.
        backend: The backend that took it.
        job_id: SLURM's number.
        cluster: The cluster, where SLURM names one.
        slurm_conf: The SLURM_CONF that named it, where one did.
        token: The word that tells the submission from any other.
        submitted_at: UTC, ISO 8601.
        project: Root of the project that it was submitted from.
        gpus: GPUs of the allocation.
        rehearsal: Whether the job launches nothing.
    """

    run_dir: str
    entrypoint: str
    name: str
    backend: str
    job_id: str
    cluster: str | None
    slurm_conf: str | None
    token: str
    submitted_at: str
    project: str
    gpus: int
    rehearsal: bool = False


def path(environment: Mapping[str, str] = os.environ) -> Path:
    """Where the list is: under MEDARC_STATE_DIR, else under the user's state folder.

    MEDARC_STATE_DIR may be set for everybody, so that each user has a list of their own in it.
    """
    place = environment.get("MEDARC_STATE_DIR")
    if place:
        return Path(os.path.abspath(os.path.expanduser(place)), f"runs-{os.geteuid()}.jsonl")  # noqa: PTH100, PTH111
    import platformdirs

    return Path(platformdirs.user_state_path("medarc"), "runs.jsonl")


def add(entry: Entry) -> None:
    """Append a submission.

    Raises:
        OSError: The list cannot be written.
    """
    place = path()
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    line = json.dumps(asdict(entry)).encode() + b"\n"
    descriptor = os.open(place, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "ab+") as handle:
        with contextlib.suppress(OSError):  # a file system without locks: a line is one write all the same
            fcntl.flock(handle, fcntl.LOCK_EX)
        handle.seek(0)
        lines = handle.read().splitlines(keepends=True)
        torn = bool(lines) and not lines[-1].endswith(b"\n")
        handle.write(b"\n" + line if torn else line)
        handle.flush()
        if len(lines) >= MOST + MOST // 10:
            _shorten(place, [*lines, line][-MOST:])


def _shorten(place: Path, lines: Iterable[bytes]) -> None:
    draft = place.with_name(f".{place.name}-{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_bytes(b"".join(lines))
    draft.replace(place)


def entries() -> list[Entry]:
    """Read the list, oldest first; a line that is torn or foreign is passed over."""
    try:
        text = path().read_bytes()
    except OSError:
        return []
    found = [_entry(line) for line in text.splitlines() if len(line) <= LONGEST_LINE]
    return [entry for entry in found if entry is not None]


_TYPES = {"gpus": (int,), "rehearsal": (bool,), "cluster": (str, type(None)), "slurm_conf": (str, type(None))}


def _entry(line: bytes) -> Entry | None:
    try:
        document: Any = json_text.parse(line)
    except ValueError:
        return None
    if not isinstance(document, dict):
        return None
    known = {"rehearsal": False, **document}  # older versions wrote no rehearsals
    values: dict[str, Any] = {each.name: known.get(each.name) for each in fields(Entry)}
    whole = all(isinstance(value, _TYPES.get(name, (str,))) for name, value in values.items())
    # A newer version may have written more; what this one knows is enough.
    return Entry(**values) if whole and all(map(_can_be_named, values.values())) else None


def _can_be_named(value: object) -> bool:
    """Whether a value can be part of a command or a path."""
    try:
        return not isinstance(value, str) or b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def add_found(files: RunFiles, submission: Submission) -> None:
    """Append a submission whose launch was cut off before it could do so, from what it had written.

    Raises:
        OSError: The list cannot be written.
    """
    try:
        plan = json_text.parse(files.plan.read_text(encoding="utf-8"))
        made = json_text.parse(files.provenance.read_text(encoding="utf-8"))
        found = Entry(
            run_dir=str(plan["run_dir"]),
            entrypoint=str(plan["entrypoint"]),
            name=str(plan["name"]),
            backend=submission.backend,
            job_id=submission.job_id,
            cluster=submission.cluster,
            slurm_conf=submission.slurm_conf,
            token=submission.token,
            submitted_at=submission.submitted_at,
            project=str(project.root(Path(made["working_directory"]))),
            gpus=int(plan["gpus"]["count"]),
            rehearsal=bool(plan["rehearse"]),
        )
    except (OSError, ValueError, TypeError, KeyError):
        return
    add(found)


@hookimpl
def medarc_submitted(submission: Submission, plan: JobPlan) -> None:
    """Put a run, or a rehearsal of one, into the list."""
    add(
        Entry(
            run_dir=str(plan.run_dir),
            entrypoint=plan.resolved.entrypoint,
            name=plan.name,
            backend=plan.backend,
            job_id=submission.job_id,
            cluster=submission.cluster,
            slurm_conf=submission.slurm_conf,
            token=submission.token,
            submitted_at=submission.submitted_at,
            project=str(project.root()),
            gpus=plan.allocation.gpus,
            rehearsal=plan.launch.rehearse,
        )
    )
