"""Jobs of the private SLURM: submitted by this project's commands, or by hand; followed, counted, ended."""

from __future__ import annotations

import os
import re
import shutil
import signal
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_proof.place import CHECKOUT, Place, StageError, call, program, read_json
from medarc_plugin import rundir
from medarc_plugin.backends.planning import run_files
from medarc_plugin.process import run
from medarc_plugin.runs import read_rows
from medarc_plugin.slurm import gateway

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FOLLOW_SECONDS = 0.5


@dataclass(frozen=True)
class Job:
    """A submitted job.

    Attributes:
        job_id: SLURM's number.
        run_dir: The run directory.
    """

    job_id: str
    run_dir: Path


def submit(
    place: Place,
    stage: str,
    entrypoint: str,
    arguments: Sequence[str | Path],
    name: str,
    environment: Mapping[str, str] | None = None,
) -> Job:
    """Submit a run by `rl|sft|inference --backend slurm`.

    Args:
        place: The proof.
        stage: Whose log it goes to.
        entrypoint: `rl`, `sft` or `inference`.
        arguments: What follows, without the run directory.
        name: The run's name; an earlier, unfinished run of that name is moved aside.
        environment: Further variables that it is submitted with.
    """
    run_dir = place.run_dir(name)
    move_aside(run_dir)
    call(
        place,
        stage,
        environment=environment,
        command=[
            program(entrypoint, place),
            *("--backend", "slurm", f"--sandbox={place.sandbox}"),
            *("--prime-rl-dir", place.prime_rl, "--output-dir", run_dir),
            *arguments,
        ],
    )
    submission = rundir.read_submission(run_files(run_dir, entrypoint))
    if submission is None:
        raise StageError(f"{run_dir} has no record of a submission")
    return Job(submission.job_id, run_dir)


def submit_by_hand(place: Place, stage: str, script: str, name: str) -> Job:
    """Submit a script of one's own, without this project."""
    run_dir = place.run_dir(name)
    move_aside(run_dir)
    folder = place.work / "by-hand"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.sbatch"
    file.write_text(script, encoding="utf-8")
    answer = call(place, stage, ["sbatch", "--parsable", "--output", folder / f"{name}.log", file])
    return Job(answer.strip().split(";")[0], run_dir)


def move_aside(run_dir: Path) -> None:
    """Keep what an unfinished run left, out of the way of the next."""
    number = 1
    while run_dir.with_name(f"{run_dir.name}.{number}").exists():
        number += 1
    if run_dir.exists():
        shutil.move(run_dir, run_dir.with_name(f"{run_dir.name}.{number}"))


def follow(place: Place, job: Job) -> str:
    """Wait until a job is over; returns SLURM's word for its end."""
    while True:
        state = gateway.job_state(job.job_id)
        if state.over:
            return state.state
        place.pause(FOLLOW_SECONDS)


def follow_to_success(place: Place, job: Job) -> None:
    """Wait until a job has ended well.

    Raises:
        StageError: It ended otherwise; the message holds the job's own words.
    """
    state = follow(place, job)
    if state != "COMPLETED":
        raise StageError(f"job {job.job_id} ended {state}: {last_words(job.run_dir)}")


def is_over(job: Job) -> bool:
    """Whether a job has ended."""
    return gateway.job_state(job.job_id).over


def slurm_state(job: Job) -> str:
    """SLURM's word for how a job is."""
    return gateway.job_state(job.job_id).state


def wait_until_running(place: Place, job: Job) -> None:
    """Wait until a job has begun."""
    while gateway.job_state(job.job_id).state == "PENDING":
        place.pause(FOLLOW_SECONDS)


def started_at(job: Job) -> float:
    """When a job's first attempt began, in seconds since the epoch.

    By its own record; for one that was submitted by hand, by SLURM, in whole seconds.
    """
    own = read_json(job.run_dir / "configs" / "attempts" / "1" / "started.json")
    if own:
        return datetime.fromisoformat(own["started"]).timestamp()
    answer = run(["scontrol", "-o", "show", "job", job.job_id], timeout=30)
    found = re.search(r" StartTime=(\S+)", answer.stdout)
    if found is None:
        raise StageError(f"SLURM does not say when job {job.job_id} started")
    return datetime.fromisoformat(found[1]).timestamp()


def last_words(run_dir: Path) -> str:
    """What the job's own code said last about why."""
    logs = sorted(run_dir.glob("job_*.log"))
    lines = logs[-1].read_text(encoding="utf-8", errors="replace").splitlines() if logs else []
    ours = [line for line in lines if line.startswith("medarc | ")]
    told = [line for line in ours if "failed first" in line or "[FAIL]" in line] or ours or lines
    return told[-1] if told else "it printed nothing"


def checks(run_dir: Path) -> list[str]:
    """What the checks of a job said, a line each, without the job's mark."""
    lines = [
        line
        for log in sorted(run_dir.glob("job_*.log"))
        for line in log.read_text(encoding="utf-8").splitlines()
    ]
    return [line.removeprefix("medarc | ") for line in lines if line.startswith("medarc | [")]


def attempts(run_dir: Path) -> list[dict[str, Any]]:
    """The records of a run's attempts."""
    return read_rows(run_dir / "configs" / "launch" / "attempts.jsonl")


def state(run_dir: Path) -> dict[str, Any]:
    """How a run goes, by its own word; empty before it says anything."""
    return read_json(run_dir / "configs" / "launch" / "state.json") or {}


def whole_checkpoints(run_dir: Path) -> list[int]:
    """Steps whose checkpoints the trainer has finished writing."""
    files = run_dir.glob("checkpoints/step_*/trainer/.metadata")
    return sorted(int(file.parent.parent.name.removeprefix("step_")) for file in files)


def cancel(job: Job) -> None:
    """End a job."""
    gateway.cancel(job.job_id)


def kill_trainer(run_dir: Path) -> int:
    """Kill the run's trainer process itself, as a crash would; returns its process id.

    Raises:
        StageError: There is none.
    """
    run_id = (run_dir / "configs" / "launch" / "run_id").read_text(encoding="utf-8").strip()
    wanted = {f"PRL_RUN_ID={run_id}".encode(), b"LOCAL_RANK=0"}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = set((folder / "environ").read_bytes().split(b"\0"))
        except OSError:
            continue
        if wanted <= variables:
            os.kill(int(folder.name), signal.SIGKILL)
            return int(folder.name)
    raise StageError(f"no trainer process of {run_dir.name} was found")


def example(name: str) -> Path:
    """A config of the tiny example."""
    return CHECKOUT / "examples" / "reverse_text" / "tiny" / name
