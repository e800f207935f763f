"""Finding runs that were submitted: by directory, job id or name, or the newest of the project.

Every command that looks at a run or steers it begins here. A `Run` is what the run's own directory tells; the
user's list of submissions only says where to look.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medarc_plugin import index, json_text, project, rundir
from medarc_plugin.backends.planning import run_files
from medarc_plugin.errors import RunDirectoryError, SlurmError, UsageError
from medarc_plugin.models import ENTRYPOINTS
from medarc_plugin.slurm import gateway

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from medarc_plugin.models import RunFiles, Submission

_JOB_ID = re.compile(r"\d+|local-\d+", re.ASCII)
NAME_IT = "name a run by its directory (as --output-dir did) or its job id; `medarc_slurm list` shows them"


@dataclass(frozen=True)
class Run:
    """A run that was planned here, perhaps submitted.

    Attributes:
        run_dir: The run directory, absolute.
        entrypoint: `rl`, `sft` or `inference`.
        files: Where its files are.
        submission: The newest submission; `None` when none was recorded.
        plan: `launch.json`; empty when it is missing or torn.
        trouble: Records that could not be read, a sentence each.
    """

    run_dir: Path
    entrypoint: str
    files: RunFiles
    submission: Submission | None
    plan: Mapping[str, Any] = field(default_factory=dict)
    trouble: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The job's name, else that of the directory."""
        name = self.plan.get("name")
        return name if isinstance(name, str) and name else self.run_dir.name

    @property
    def rehearsal(self) -> bool:
        """Whether its job launches nothing."""
        return self.plan.get("rehearse") is True

    @property
    def token(self) -> str | None:
        """The word that tells its submission from any other."""
        planned = self.plan.get("token")
        if self.submission is not None:
            return self.submission.token
        return planned if isinstance(planned, str) else None


def find(named: str | None = None) -> Run:
    """Find the run that a command means.

    Args:
        named: A run directory, a job id, or the name of one run; `None` for the newest run of this project,
            or its newest rehearsal where there is no run.

    Raises:
        UsageError: There is none.
        RunDirectoryError: The directory that was named, or that the job belongs to, is no run.
    """
    if named is None:
        return _newest_of_project()
    is_id = _JOB_ID.fullmatch(named) is not None
    if os.path.isdir(named):  # noqa: PTH112 - Path.is_dir raises where it may not look
        try:
            return open_run(Path(named))
        except RunDirectoryError:
            # A folder that only happens to be called as the job is.
            if not is_id:
                raise
    if is_id:
        return _by_job_id(named)
    run = _by_name(named)
    if run is None:
        shown = named or repr(named)
        raise UsageError(
            f"there is no run {shown}: it is no folder, no job id, and no run's name", hint=NAME_IT
        )
    return run


def find_all(named: Sequence[str]) -> list[Run]:
    """Find several runs, each once, in the order of their names; without names the project's newest."""
    found = [find(name) for name in named] if named else [find()]
    return list({run.run_dir: run for run in found}.values())


def open_run(run_dir: Path) -> Run:
    """Read what a run directory tells.

    Raises:
        RunDirectoryError: It is no run.
    """
    run_dir = run_dir.absolute()
    trouble: list[str] = []
    configs = run_dir / "configs"
    launch = configs / "launch"
    plan = read_table(launch / "launch.json", trouble)
    entrypoint = plan.get("entrypoint")
    if entrypoint not in ENTRYPOINTS:
        written = [name for name in ENTRYPOINTS if os.access(configs / f"{name}.json", os.F_OK)]
        if not os.access(launch, os.F_OK) or not written:
            raise RunDirectoryError(
                f"{run_dir} is no run: it has no configs/launch/launch.json", hint=NAME_IT
            )
        entrypoint = written[0]
    files = run_files(run_dir, entrypoint)
    submission = None
    try:
        submission = rundir.read_submission(files)
    except RunDirectoryError as error:
        trouble.append(error.message)
    return Run(run_dir, entrypoint, files, submission, plan, tuple(trouble))


def of_project(folder: Path | None = None) -> list[index.Entry]:
    """List the newest submission of each of the project's run directories, newest first."""
    here = str(project.root(folder))
    return _latest([entry for entry in index.entries() if entry.project == here])


def of_user() -> list[index.Entry]:
    """The same for all of the user's run directories."""
    return _latest(index.entries())


def read_table(path: Path, trouble: list[str] | None = None) -> dict[str, Any]:
    """Read a JSON table of a run; an empty one when it is missing, torn or no table.

    Args:
        path: The file.
        trouble: Told what was wrong, but for a file that is not there.
    """
    try:
        document = json_text.parse(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict):
            raise TypeError("it is no table")  # noqa: TRY301 - said below, like the others
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        if trouble is not None:
            trouble.append(f"{path} cannot be read: {error}")
        return {}
    return document


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read a file of JSON lines, as far as they are whole."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    rows = []
    for line in lines:
        try:
            row = json_text.parse(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _latest(found: Sequence[index.Entry]) -> list[index.Entry]:
    newest: dict[str, index.Entry] = {}
    for entry in reversed(found):
        newest.setdefault(entry.run_dir, entry)
    return list(newest.values())


def _newest_of_project() -> Run:
    gone = []
    for entry in sorted(of_project(), key=lambda entry: entry.rehearsal):
        try:
            return open_run(Path(entry.run_dir))
        except RunDirectoryError:
            gone.append(entry.run_dir)
    here = project.root()
    if gone:
        raise UsageError(f"the runs of {here} are gone: {', '.join(gone[:3])}", hint=NAME_IT)
    raise UsageError(f"no run was submitted from {here} yet", hint=NAME_IT)


def _by_name(named: str) -> Run | None:
    """Find the one run of a name, its job's or its directory's: of this project's, else of all of the user's.

    Raises:
        UsageError: There are several.
    """
    for entries in (of_project(), of_user()):
        places = [entry.run_dir for entry in entries if named in {entry.name, Path(entry.run_dir).name}]
        found = [Path(place) for place in places if os.path.isdir(place)]  # noqa: PTH112 - as in find
        if len(found) > 1:
            raise UsageError(
                f"{named} is the name of {len(found)} runs: {', '.join(map(str, found[:3]))}", hint=NAME_IT
            )
        if found:
            return open_run(found[0])
    return None


def _by_job_id(job_id: str) -> Run:
    entry = next((entry for entry in reversed(index.entries()) if entry.job_id == job_id), None)
    if entry is not None:
        try:
            return open_run(Path(entry.run_dir))
        except RunDirectoryError:
            raise RunDirectoryError(
                f"the run of job {job_id} is not at {entry.run_dir} any more: it was moved or deleted",
                hint=NAME_IT,
            ) from None
    try:
        script = gateway.script_of(job_id)
    except SlurmError as error:
        raise UsageError(
            f"there is no run of job {job_id} in your list of runs, and SLURM does not say what it is: "
            f"{error.message}",
            hint=NAME_IT,
        ) from None
    if script is None:
        raise UsageError(
            f"there is no run of job {job_id}: neither your list of runs nor SLURM knows one", hint=NAME_IT
        )
    try:
        return open_run(script.parent)
    except RunDirectoryError:
        raise UsageError(f"job {job_id} is no run of this plugin: it runs {script}", hint=NAME_IT) from None
