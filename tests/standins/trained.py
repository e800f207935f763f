"""Run directories as jobs leave them, with metrics of real runs of prime-rl."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medarc_plugin import runs

if TYPE_CHECKING:
    from collections.abc import Iterable

EVIDENCE = Path(__file__).parents[2] / "docs" / "evidence" / "2026-11-22"
START = 1_795_000_000.0
"""When the made-up runs began, in seconds of the epoch."""

COMMIT = "559b44772e471d1538537b8805cc77f3824a5e64"


def real_rows(name: str, steps: int) -> list[dict[str, Any]]:
    """The rows of the first steps of a real run: `rl-one`, `rl-requeued`, `tiny-sft`."""
    with gzip.open(EVIDENCE / f"{name}.metrics.jsonl.gz", "rt", encoding="utf-8") as file:
        return [row for row in map(json.loads, file) if row["step"] <= steps]


def utc(epoch: float) -> str:
    return dt.datetime.fromtimestamp(epoch, dt.UTC).isoformat(timespec="seconds")


class Recorded:
    """A run directory.

    Args:
        run_dir: The folder.
        entrypoint: `rl`, `sft` or `inference`.
        name: The job's name.
        shape: Which prime-rl it is of.
        config: Further values of the config.
    """

    def __init__(
        self,
        run_dir: Path,
        entrypoint: str = "rl",
        name: str = "reverse-rl",
        shape: str = "main",
        **config: Any,
    ) -> None:
        self.run_dir = run_dir
        self.launch = run_dir / "configs" / "launch"
        self.launch.mkdir(parents=True)
        self.config = {"max_steps": 25, "model": {"name": "tiny"}, **config}
        self.write(f"configs/{entrypoint}.json", self.config)
        plan = {
            "format": 2,
            "name": name,
            "entrypoint": entrypoint,
            "token": "abc",
            "gpus": {"count": 2, "shared": False, "trainer": 1, "inference": 1},
            "fields": {"shape": shape},
        }
        self.write("configs/launch/launch.json", plan)
        provenance = {
            "command": ["rl", "--backend", "slurm", "@", "rl.toml", "--output-dir", "runs/a b"],
            "working_directory": "/home/ada/project",
            "medarc_plugin": "1.2.3",
            "python": "3.11.2",
            "prime_rl": {
                "python": "/opt/prime-rl/.venv/bin/python",
                "directory": "/opt/prime-rl",
                "commit": COMMIT,
                "local_changes": True,
            },
            "shape": shape,
            "checked": True,
            "warnings": [],
        }
        self.write("configs/launch/provenance.json", provenance)

    @property
    def run(self) -> runs.Run:
        return runs.open_run(self.run_dir)

    def write(self, name: str, document: Any) -> Path:
        path = self.run_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return path

    def add_rows(self, rows: Iterable[dict[str, Any]], name: str = "metrics.jsonl") -> None:
        path = self.run_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    def add_steps(self, first: int, last: int, loss: float = 0.5, began: float = START, **more: Any) -> None:
        """Add made-up steps of a trainer, ten seconds each."""
        for step in range(first, last + 1):
            at = began + 10.0 * (step - first + 1)
            times = {"time/step": 10.0, "time/forward_backward": 6.0, "time/save_ckpt": 1.0}
            self.add_rows(
                {"step": step, "time": at, **values}
                for values in ({"loss/mean": loss + step / 100}, times, more)
                if values
            )

    def add_attempt(
        self,
        number: int,
        began: float,
        seconds: float,
        phases: Iterable[tuple[str | None, float]] = (),
        *,
        over: bool = True,
        **record: Any,
    ) -> None:
        """Add an attempt; phases are given with the seconds after which they began."""
        folder = f"configs/attempts/{number}"
        start = {
            "attempt": number,
            "job_id": "17",
            "host": "gpu03",
            "gpus": [0, 1],
            "started": utc(began),
        }
        self.write(f"{folder}/started.json", {**start, "token": "abc"})
        launched = {
            "command": ["/opt/prime-rl/.venv/bin/python", "-m", "prime_rl.entrypoints.rl"],
            "server_command": None,
            "working_directory": "/home/ada/project",
            "environment": {"CUDA_VISIBLE_DEVICES": "0,1"},
        }
        self.write(f"{folder}/launched.json", launched)
        beat = self.write(f"{folder}/heartbeat.json", {"attempt": number, "beat": 3, "ended": over})
        os.utime(beat, (began + seconds, began + seconds))
        lines = [json.dumps({"phase": name, "time": utc(began + after)}) + "\n" for name, after in phases]
        if lines:
            self.write(f"{folder}/phases.jsonl", "".join(lines))
        if over:
            end = {"ended": utc(began + seconds), "exit_code": 0, "reason": "finished", "requeued": False}
            with (self.launch / "attempts.jsonl").open("a") as file:
                file.write(json.dumps({**start, **end, **record}) + "\n")

    def add_gpus(self, began: float, count: int, gpus: int = 2, attempt: int = 1) -> None:
        """Add samples of GPUs, one every ten seconds."""
        with (self.launch / "gpus.jsonl").open("a") as file:
            for number in range(count):
                readings = [
                    {
                        "index": index,
                        "memory_used_mib": 1024 * (10 + index),
                        "memory_total_mib": 1024 * 80,
                        "use_percent": 50 + number % 40,
                    }
                    for index in range(gpus)
                ]
                row = {
                    "time": began + 10 * number,
                    "seconds": 10,
                    "attempt": attempt,
                    "gpus": readings,
                }
                file.write(json.dumps(row) + "\n")

    def set_state(self, **values: Any) -> None:
        self.write("configs/launch/state.json", {"format": 1, **values})


def full_run(run_dir: Path, name: str = "reverse-rl") -> Recorded:
    """A real RL run of 25 steps, as if in two attempts."""
    made = Recorded(run_dir, name=name)
    rows = real_rows("rl-one", 25)
    made.add_rows(rows)
    first, last = rows[0]["time"], rows[-1]["time"]
    middle = (first + last) / 2
    made.add_attempt(
        1,
        first - 60,
        middle - first + 60,
        [("waiting for vLLM", 2), ("warming up", 40), ("training", 70)],
        reason="time-limit",
        steps=12,
        step=12,
        checkpoint=10,
        requeued=True,
        signals=["SIGUSR2"],
    )
    phases = [("training", 5), ("evaluating", 20), ("training", 25), ("exporting", last - middle)]
    made.add_attempt(2, middle + 5, last - middle + 30, phases, steps=15, step=25, resumed_from=10)
    made.add_gpus(first - 60, 20)
    made.add_gpus(middle + 5, 20, attempt=2)
    made.set_state(phase="done", attempt=2, step=25, reason="finished")
    return made
