"""The run directory: whether it can take a run, what `--clean` may delete, and how files get there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from dataclasses import asdict, fields, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medarc_plugin import json_text, lifesigns, lock
from medarc_plugin.errors import RunDirectoryError
from medarc_plugin.models import ENTRYPOINTS, Submission

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

    from medarc_plugin.models import JobPlan, JobState, RunFiles, TextFile

LAUNCHER_ENTRIES = frozenset({"configs", "rl.sbatch", "sft.sbatch"})
"""What a launcher writes before a run starts; beside these, prime-rl's guard allows `job_*.log`."""

RUN_ENTRIES = (
    *(
        "checkpoints",
        "weights",
        "weights_*",
        "rollouts",
        "broadcasts",
        "evals",
        "logs",
        "logs_*",
        "run_*",
        "wandb",
        "traces",
        "token_exports",
    ),
    *("metrics*.jsonl", "*.sbatch"),
)
"""What prime-rl leaves in a run directory. `--clean` deletes no folder that holds anything else."""


def artifacts(run_dir: Path, script: str) -> list[str]:
    """Name what a run has left in a run directory, by the rule of prime-rl's own guard.

    Args:
        run_dir: The run directory.
        script: Name of the batch script that will be written there; it is not in the way.
    """
    if not run_dir.is_dir():
        return []
    return sorted(
        entry.name
        for entry in run_dir.iterdir()
        if entry.name not in LAUNCHER_ENTRIES | {script}
        and not entry.match("job_*.log")
        and not _is_draft(entry, script)
    )


def _is_draft(path: Path, script: str) -> bool:
    """Whether it is a script that a launch was killed while it wrote: see `write_whole`."""
    return re.fullmatch(rf"\.{re.escape(script)}\.\w{{8}}", path.name, re.ASCII) is not None


def sweep(files: RunFiles) -> None:
    """Take away what a launch that was killed had begun to write: prime-rl's guard would not have it."""
    with contextlib.suppress(OSError):
        for path in files.script.parent.iterdir():
            if _is_draft(path, files.script.name):
                path.unlink()


def read_submission(files: RunFiles) -> Submission | None:
    """Read the record of the newest submission; `None` when there is none.

    What a newer version has written beside is passed over.

    Raises:
        RunDirectoryError: There is one that cannot be read.
    """
    try:
        record = json_text.parse(files.submission.read_text(encoding="utf-8"))
        _check_record(record)
        known = {each.name: record[each.name] for each in fields(Submission) if each.name in record}
        return Submission(**{**known, "script": Path(known["script"]), "log": Path(known["log"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunDirectoryError(
            f"the record of a submission cannot be read: {files.submission}: {error}",
            hint="`squeue --me` shows whether its job still runs; then remove the file",
        ) from None


def job_of(files: RunFiles) -> str | None:
    """Name the job that a directory's records are of; `None` when there was none, or it only rehearsed.

    Args:
        files: The run's files.
    """
    try:
        if json_text.parse(files.plan.read_text(encoding="utf-8"))["rehearse"]:
            return None
    except (OSError, ValueError, TypeError, KeyError):
        pass
    recorded = read_submission(files)
    if recorded is not None:
        return recorded.job_id
    # Of a script that was submitted by hand only its log tells.
    return lifesigns.newest_log(files.script.parent)


def check(
    plan: JobPlan, query: Callable[[Submission], JobState], *, clean: bool, resume: bool
) -> JobState | None:
    """Refuse a run directory that cannot take this run.

    Args:
        plan: The run.
        query: Says how a submitted job is doing.
        clean: What an earlier run left will be deleted.
        resume: The run goes on where it stopped.

    Returns:
        How the job that it had before is doing; `None` when it had none.

    Raises:
        RunDirectoryError: It is somebody else's, its job is queued or running, or it holds a run.
    """
    run_dir = plan.run_dir
    try:
        run_dir.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunDirectoryError(
            f"{run_dir} cannot be used: {error.strerror}", hint="choose another --output-dir"
        ) from None
    if run_dir.stat().st_uid != os.geteuid() and not os.access(run_dir, os.W_OK):
        raise RunDirectoryError(f"{run_dir} belongs to another user", hint="choose another --output-dir")
    earlier = _refuse_while_a_job_lives(plan.files, query)
    left = artifacts(run_dir, plan.files.script.name)
    if clean:
        _refuse_to_clean(run_dir, left)
    elif left and not resume:
        shown = ", ".join(left[:5]) + (", ..." if len(left) > 5 else "")  # noqa: PLR2004
        if not (run_dir / "configs").is_dir():
            raise RunDirectoryError(
                f"{run_dir} is not empty, and not a run: {shown}", hint="choose another --output-dir"
            )
        raise RunDirectoryError(
            f"{run_dir} already holds a run: {shown}",
            hint="--resume goes on with it, --clean deletes it first, another --output-dir keeps both",
        )
    return earlier


def _refuse_while_a_job_lives(files: RunFiles, query: Callable[[Submission], JobState]) -> JobState | None:
    recorded = read_submission(files)
    earlier = recorded or _unrecorded(files)
    if earlier is None:
        return None
    state = query(earlier)
    job_id = state.job_id or earlier.job_id
    # Without a record there may never have been a job, and a dry run needs no SLURM to be asked.
    if state.over or (recorded is None and state.state == "UNKNOWN"):
        return replace(state, job_id=job_id)
    said = "SLURM does not say how it is" if state.state == "UNKNOWN" else state.state
    if state.reason not in {None, "", "None"}:
        said += f": {state.reason}"
    raise RunDirectoryError(
        f"{files.launch.parent.parent} belongs to job {job_id} ({said})",
        hint=f"wait for it, or end it with `{earlier.scancel(job_id, state.cluster)}`; or choose another "
        "--output-dir",
    )


def _unrecorded(files: RunFiles) -> Submission | None:
    """Make up the record of a submission that only the plan tells of: by hand, or cut off."""
    try:
        plan = json_text.parse(files.plan.read_text(encoding="utf-8"))
        token, backend = str(plan["token"]), str(plan["backend"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    conf = os.environ.get("SLURM_CONF")
    return Submission("", None, files.script, files.log, "", token, backend, slurm_conf=conf)


def clean(files: RunFiles) -> None:
    """Delete what an earlier run left; call `check` first, and hold the lock, which stays.

    Raises:
        RunDirectoryError: It cannot be deleted.
    """
    run_dir = files.launch.parent.parent
    folders = (run_dir, files.launch.parent, files.launch)
    kept = (*folders[1:], files.launch / lock.LOCK, files.launch / lock.OWNER)
    try:
        for folder in folders:
            for entry in folder.iterdir():
                if entry in kept:
                    continue
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
    except OSError as error:
        raise RunDirectoryError(f"{run_dir} cannot be cleaned: {error}") from None


def _check_record(record: Any) -> None:  # noqa: ANN401 - whatever the file holds
    """Refuse a record that somebody else's hand has changed.

    Raises:
        ValueError: A value is of a kind that no launch writes.
    """
    if not isinstance(record, dict):
        raise TypeError("it is no table")
    for name in (each.name for each in fields(Submission) if each.name in record):
        value = record[name]
        expected = int if name == "exit_code" else str
        if not isinstance(value, expected) and value is not None:
            raise ValueError(f"{name} is {value!r}")
        if isinstance(value, str) and "\0" in value:
            raise ValueError(f"{name} is {value!r}")
    if not re.fullmatch(r"\d+|local-\d+", record["job_id"]):
        raise ValueError(f"job_id is {record['job_id']!r}")


def _refuse_to_clean(run_dir: Path, left: list[str]) -> None:
    """Allow --clean for what is plainly a run and nothing else."""
    if os.environ.get("NEVER_CLEAN"):
        raise RunDirectoryError(
            f"{run_dir}: --clean is refused because NEVER_CLEAN is set, which prime-rl honours too",
            hint="unset NEVER_CLEAN, or choose another --output-dir",
        )
    configs = run_dir / "configs"
    names = (*ENTRYPOINTS, "trainer", "orchestrator")
    resolved = [f"{name}{suffix}" for name in names for suffix in (".json", ".toml")]
    foreign = [name for name in left if not any(fnmatch(name, pattern) for pattern in RUN_ENTRIES)]
    what = None
    if foreign:
        what = f"it holds {', '.join(foreign[:5])}"
    elif Path.cwd().is_relative_to(run_dir.resolve()):
        what = "it is where you are"
    elif configs.is_symlink() or (configs / "launch").is_symlink():
        what = "its configs are a link to somewhere else"
    elif left and not any((configs / name).is_file() for name in [*resolved, "launch/launch.json"]):
        what = f"it has no resolved config below configs/, and holds {', '.join(left[:5])}"
    if what:
        raise RunDirectoryError(
            f"--clean would delete {run_dir}, which is not a run and nothing else: {what}",
            hint="choose another --output-dir, or delete by hand what may go",
        )


def locked(
    files: RunFiles, say: Callable[[str], None] = lambda _: None, *, foreground: bool = False
) -> AbstractContextManager[int | None]:
    """Hold a run directory against a second launch at the same moment: see `medarc_plugin.lock.held`.

    Raises:
        RunDirectoryError: Another launch still holds it after a while, or it cannot be written.
    """
    return lock.held(files.launch, say, foreground=foreground)


def write(files: Iterable[TextFile]) -> None:
    """Write files: all of them, or none.

    Each is written beside its place first, so that a full disk changes nothing. What can be started gets its
    name last: whoever finds it finds all that it needs.

    Raises:
        RunDirectoryError: One cannot be written.
    """
    made: list[Path] = []
    ready: list[tuple[Path, Path]] = []
    placed: list[Path] = []
    path = Path()
    try:
        for file in sorted(files, key=lambda file: bool(file.mode & 0o111)):
            path = file.path
            made = [*lock.make_folder(path.parent), *made]
            ready.append((_write_beside(path, file.text, file.mode), path))
        for name, path in ready:
            placed += [] if os.path.lexists(path) else [path]
            name.replace(path)
    except BaseException as error:
        for left in [*(name for name, _ in ready), *placed]:
            left.unlink(missing_ok=True)
        lock.remove_folders(made)
        if not isinstance(error, OSError):
            raise
        raise RunDirectoryError(
            f"{path} cannot be written: {error.strerror or error}",
            hint="choose another --output-dir, or free some space",
        ) from None


def write_whole(path: Path, text: str | bytes, mode: int = 0o644) -> None:
    """Write a file so that nobody ever sees half of it."""
    beside = _write_beside(path, text, mode)
    try:
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _write_beside(path: Path, text: str | bytes, mode: int) -> Path:
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(data)
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(mode & ~umask)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name)


def record(files: RunFiles, submission: Submission) -> None:
    """Write the record from which every later command starts."""
    document = {
        key: str(value) if isinstance(value, Path) else value for key, value in asdict(submission).items()
    }
    write_whole(files.submission, json.dumps(document, indent=2) + "\n")
