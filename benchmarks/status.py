"""Measure `status` over many runs: how long it takes, and how often SLURM is asked.

    uv run python benchmarks/status.py [--runs N] [--rounds N]

Makes run directories with the records of runs that wait, run, have ended and are lost, and stand-ins for
squeue and sacct that count their calls and know the jobs as SLURM would.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("medarc_slurm")
FIELD, RECORD = "\x1f", "\x1e"
KINDS = ("RUNNING", "PENDING", "finished", "failed", "forgotten")

STAND_IN = """#!/bin/sh
echo {name} >> {folder}/calls
exec cat {folder}/{name}.answer
"""


def make_run(folder: Path, number: int, kind: str, now: dt.datetime) -> None:
    """Write what a launch and its attempts leave of a run."""
    launch = folder / "configs" / "launch"
    launch.mkdir(parents=True)
    plan = {"name": folder.name, "entrypoint": "rl", "backend": "slurm", "token": f"token{number}"}
    (launch / "launch.json").write_text(json.dumps({**plan, "format": 2, "gpus": {"count": 2}}, indent=2))
    submission = {
        "job_id": str(number),
        "cluster": None,
        "script": str(folder / "rl.sbatch"),
        "exit_code": None,
        "log": str(folder / f"job_{number}.log"),
        "submitted_at": now.isoformat(),
        "slurm_conf": None,
        "token": f"token{number}",
        "backend": "slurm",
    }
    (launch / "submission.json").write_text(json.dumps(submission, indent=2))
    if kind == "PENDING":
        return
    attempt = folder / "configs" / "attempts" / "1"
    attempt.mkdir(parents=True)
    started = {
        "attempt": 1,
        "job_id": str(number),
        "restart_count": 0,
        "host": "node1",
        "gpus": [0, 1],
        "started": (now - dt.timedelta(hours=2)).isoformat(),
        "token": f"token{number}",
    }
    (attempt / "started.json").write_text(json.dumps(started))
    (attempt / "heartbeat.json").write_text(
        json.dumps({"attempt": 1, "host": "node1", "boot": "x", "beat": 7})
    )
    if kind == "forgotten":
        os.utime(attempt / "heartbeat.json", (0, 0))
    state = {"format": 1, "attempt": 1, "phase": "training", "step": 12, "max_steps": 40, "reward": 0.5}
    (launch / "state.json").write_text(json.dumps(state, indent=2))
    if kind in {"finished", "failed"}:
        ended = {"ended": now.isoformat(), "exit_code": int(kind == "failed"), "reason": kind}
        (launch / "attempts.jsonl").write_text(json.dumps({**started, **ended, "requeued": False}) + "\n")


def make_cluster(folder: Path, kinds: dict[int, str]) -> None:
    """Write the stand-ins and what they answer."""
    (folder / "bin").mkdir()
    when = "2026-11-22T16:43:41"
    queued = [
        RECORD
        + FIELD.join(
            [
                str(number),
                kind,
                "None",
                when,
                "N/A",
                "node1",
                "gpu",
                when,
                "(null)",
                f"[medarc:token{number}]",
            ]
        )
        for number, kind in kinds.items()
        if kind in {"RUNNING", "PENDING"}
    ]
    (folder / "squeue.answer").write_text("\n".join(queued) + "\n")
    accounted = [
        FIELD.join([str(n), "NODE_FAIL", "0:0", when, when, "node1", "gpu", when, "x", f"[medarc:token{n}]"])
        for n, kind in kinds.items()
        if kind == "forgotten"
    ]
    (folder / "sacct.answer").write_text("\n".join(accounted) + "\n")
    for name in ("squeue", "sacct"):
        path = folder / "bin" / name
        path.write_text(STAND_IN.format(name=name, folder=folder))
        path.chmod(0o755)


def main() -> None:
    """Measure, and print a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        now = dt.datetime.now(dt.UTC).replace(microsecond=0)
        kinds = {number: KINDS[number % len(KINDS)] for number in range(1, asked.runs + 1)}
        for number, kind in kinds.items():
            make_run(folder / "runs" / f"run{number}", number, kind, now)
        make_cluster(folder, kinds)
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("SLURM_")},
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "HOME": name,
        }
        argv: list[str | Path] = [PROGRAM, "status", *sorted((folder / "runs").iterdir()), "--json"]
        seconds = []
        for _ in range(asked.rounds):
            began = time.perf_counter()
            done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
            seconds.append(time.perf_counter() - began)
        states: dict[str, int] = {}
        for run in json.loads(done.stdout)["runs"]:
            states[run["state"]] = states.get(run["state"], 0) + 1
        calls = (folder / "calls").read_text().split()
    print(f"runs                  {asked.runs}: {', '.join(f'{n} {state}' for state, n in states.items())}")
    print(f"squeue calls each     {calls.count('squeue') / asked.rounds:g}")
    print(f"sacct calls each      {calls.count('sacct') / asked.rounds:g}")
    middle, most = statistics.median(seconds), max(seconds)
    print(f"seconds               {middle:.2f} (median of {asked.rounds}, {most:.2f} at most)")


if __name__ == "__main__":
    main()
