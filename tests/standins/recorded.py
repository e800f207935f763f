"""Run directories as launches and attempts leave them, without a launch."""

import json
import os
from datetime import UTC, datetime, timedelta

from medarc_plugin import runs
from medarc_plugin.models import Submission
from medarc_plugin.rundir import record

TOKEN = "0123456789ab"
MARK = f"[medarc:{TOKEN}]"


def now():
    return datetime.now(UTC).replace(microsecond=0)


def ago(**time):
    return (now() - timedelta(**time)).isoformat()


def make_run(run_dir, job_id="17", token=TOKEN, backend="slurm", plan=None, **submission):
    """Write what a launch leaves of a run; no record of a submission with `job_id=None`."""
    launch = run_dir / "configs" / "launch"
    launch.mkdir(parents=True, exist_ok=True)
    planned = {
        "name": "reverse",
        "entrypoint": "rl",
        "backend": backend,
        "token": token,
        "gpus": {"count": 2},
    }
    (launch / "launch.json").write_text(json.dumps(planned | (plan or {})))
    run = runs.open_run(run_dir)
    if job_id is not None:
        values = (job_id, None, run.files.script, run.files.log_of(job_id), ago(hours=3), token, backend)
        record(run.files, Submission(*values, **submission))
    return runs.open_run(run_dir)


def begin(run, number=1, *, silent=0.0, token=TOKEN, **fields):
    """Let an attempt begin; its last sign of life is that many seconds old."""
    folder = run.run_dir / "configs" / "attempts" / str(number)
    folder.mkdir(parents=True, exist_ok=True)
    started = {"attempt": number, "job_id": "17", "restart_count": 0, "host": "node7", "gpus": [2, 3]}
    started |= {"started": ago(hours=2), "token": token, **fields}
    (folder / "started.json").write_text(json.dumps(started))
    beat = folder / "heartbeat.json"
    beat.write_text(json.dumps({"attempt": number, "host": "node7", "boot": "x", "process": 1, "start": "1"}))
    then = datetime.now(UTC).timestamp() - silent
    os.utime(beat, (then, then))
    return started


def end(run, number=1, reason="finished", exit_code=0, token=TOKEN, **fields):
    """Let an attempt end with a record."""
    line = begin(run, number, token=token) | {"ended": ago(hours=1), "exit_code": exit_code, "reason": reason}
    with (run.files.launch / "attempts.jsonl").open("a") as file:
        file.write(json.dumps(line | {"requeued": False, "failure": "", "failed": [], **fields}) + "\n")


def write_state(run, **fields):
    """Write how far the run is."""
    state = {"attempt": 1, "phase": "training", "step": 12, "max_steps": 40, "reward": 0.5, "loss": 0.1}
    (run.files.launch / "state.json").write_text(json.dumps(state | fields))


def write_checkpoint(run_dir, step, *, progress=False):
    """Leave a checkpoint that looks whole, of RL with `progress`; gives the folder of the trainer's part."""
    trainer = run_dir / "checkpoints" / f"step_{step}" / "trainer"
    trainer.mkdir(parents=True)
    for name in (".metadata", "__0_0.distcp"):
        (trainer / name).write_bytes(b"x")
    if progress:
        (trainer.parent / "orchestrator").mkdir()
        (trainer.parent / "orchestrator" / "progress.pt").write_bytes(b"x")
    return trainer
