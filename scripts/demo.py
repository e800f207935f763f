"""The main job on a private SLURM, from the command line to the job's end, and what came of it.

Uses prime-rl when there is one. Without prime-rl or a GPU the job still runs: it checks its
allocation and says what is missing.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

from medarc_plugin import rundir
from medarc_plugin.backends.planning import run_files
from medarc_plugin.cli.entrypoints import point_at_sandbox, start_sandbox
from medarc_plugin.cli.output import guarded, say
from medarc_plugin.sandbox import Sandbox, default_directory
from medarc_plugin.slurm import gateway

CONFIG = "examples/reverse_text/rl.toml"
FOLLOW_SECONDS = 0.2
NOT_HERE = ("prime-rl", "NVIDIA driver", "environments")
"""Checks that a machine without prime-rl and GPUs cannot pass."""


def main() -> int:
    """Run the demonstration; 0 when the job did all that this machine can do."""
    sandbox = Sandbox(default_directory())
    was_up = sandbox.status().state == "up"
    try:
        return demonstrate()
    finally:
        if not was_up:
            sandbox.down()


def demonstrate() -> int:
    """Start SLURM, submit, follow, sum up."""
    heading("A real SLURM in .slurm-sandbox")
    point_at_sandbox(default_directory())
    start_sandbox(default_directory())
    subprocess.run(["sinfo", "-o", "%P %N %T %c CPUs %G"], check=True)

    heading("The run, submitted")
    run_dir = Path("runs", f"demo-{datetime.now():%Y%m%d-%H%M%S}").absolute()  # noqa: DTZ005 - local
    command = ["rl", "--backend", "slurm", "--sandbox", "--no-check", "@", CONFIG]
    command += ["--output-dir", str(run_dir), "--train-gpus", "1", "--infer-gpus", "1"]
    say(f"$ uv run {shlex.join(command)}")
    submitted = subprocess.run([Path(sys.executable).with_name(command[0]), *command[1:]], check=False)
    if submitted.returncode:
        return submitted.returncode
    submission = rundir.read_submission(run_files(run_dir, "rl"))
    assert submission is not None

    heading(f"Job {submission.job_id}, as it runs")
    state = follow(submission.job_id, submission.log)

    heading("What happened")
    return sum_up(run_dir, submission.job_id, state)


def follow(job_id: str, log: Path) -> str:
    """Print the job's log as it grows, until the job has ended; returns SLURM's last word."""
    shown = 0
    while True:
        state = gateway.job_state(job_id)
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        sys.stdout.write(text[shown:])
        sys.stdout.flush()
        shown = len(text)
        if state.over:
            return state.state
        time.sleep(FOLLOW_SECONDS)


def sum_up(run_dir: Path, job_id: str, state: str) -> int:
    """Say how the job ended, and exactly what was missing."""
    record = run_dir / "configs" / "launch" / "attempts.jsonl"
    if not record.exists():
        print(f"job {job_id} ended {state} without a record; see its log in {run_dir}")
        return 1
    attempt = json.loads(record.read_text(encoding="utf-8").splitlines()[-1])
    print(f"run        {run_dir}")
    print(f"job        {job_id}: {state}, exit code {attempt['exit_code']}")
    print(f"GPUs       {', '.join(map(str, attempt['gpus']))} on {attempt['host']}, as SLURM allocated them")
    if attempt["reason"] == "finished":
        print("result     prime-rl ran to its end")
        return 0
    missing = [text.splitlines()[0] for text in attempt["failed"]]
    for index, text in enumerate(missing):
        print(f"{'missing' if index == 0 else '':<10} {text}")
    unexpected = [text for text in missing if not text.startswith(NOT_HERE)]
    if attempt["reason"] == "checks-failed" and not unexpected:
        print("result     allocated, checked and ended as it should; only the above is missing here")
        needs = "get prime-rl, set PRIME_RL_DIR, " if "prime-rl" in " ".join(missing) else ""
        print(f"next       on a machine with GPUs: {needs}run this again")
        return 0
    print(f"result     the run did not go through ({attempt['reason']}); the log says why")
    return 1


def heading(text: str) -> None:
    """Print a heading."""
    print(f"\n== {text} ==", flush=True)


if __name__ == "__main__":
    sys.exit(guarded(main))
