"""A model's reward on held-out strings: served by this project's `inference`, asked by `vf-eval`."""

from __future__ import annotations

import contextlib
import json
import math
import random
import shutil
import socket
import statistics
import time
import urllib.request
from typing import TYPE_CHECKING, Any

from gpu_proof import jobs, moments
from gpu_proof.place import Place, StageError, call, program
from medarc_plugin.runs import read_rows

if TYPE_CHECKING:
    from pathlib import Path

SAMPLES = {"20 x 3": (20, 3), "200 x 3": (200, 3)}
"""Strings and answers to each, as `vf-eval -n N -r R`."""

GREEDY = 20
"""Strings that are answered without chance, to compare weights by."""

MAX_TOKENS = 64
SYSTEM = "Reverse the text character-by-character. Put your answer in <reversed_text> tags."


def evaluate(place: Place, stage: str, model: Path, name: str) -> dict[str, Any]:
    """Serve a model in a job, evaluate it, end the job.

    Returns:
        `rewards` by sample, each with `reward`, its standard error over strings, and `rollouts`;
        `healthy`, seconds from the job's start to an answer; `greedy`, an answer for each string.
    """
    port = free_port()
    arguments: list[str | Path] = [
        "--vllm.model",
        model,
        "--server.port",
        str(port),
        "--gpus",
        "1",
        "--hf-hub-offline",
    ]
    job = jobs.submit(place, stage, "inference", [*arguments, *SERVER], f"serve-{name}")
    try:
        healthy = wait_until_healthy(place, job, port)
        logs = moments.logs_of(job.run_dir)
        logs["inference"] = [*sorted(job.run_dir.glob("job_*.log")), *logs["inference"]]
        found = {
            "healthy": round(healthy, 1),
            "timeline": moments.timeline(logs, jobs.started_at(job)),
            "rewards": {key: ask(place, stage, model, port, *sizes) for key, sizes in SAMPLES.items()},
            "greedy": [greedy(model, port, text) for text in held_out(place)[:GREEDY]],
        }
    finally:
        jobs.cancel(job)
    with contextlib.suppress(StageError):
        jobs.follow(place, job)
    return found


SERVER: tuple[str, ...] = ()
"""What else a server of the tiny model is told."""


def free_port() -> int:
    """A port that nobody has right now.

    Low: vLLM's router has its metrics 21000 above, and from 32768 on the kernel gives ports to connections.
    """
    for port in random.sample(range(10_000, 11_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise StageError("no port is free between 10000 and 11000")


def wait_until_healthy(place: Place, job: jobs.Job, port: int) -> float:
    """Wait until a server answers; returns seconds since the job's start."""
    jobs.wait_until_running(place, job)
    began = jobs.started_at(job)
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
                if answer.status == 200:  # noqa: PLR2004 - HTTP's word for yes
                    return time.time() - began
        except OSError:
            pass
        if jobs.is_over(job):
            raise StageError(f"the server's job ended: {jobs.last_words(job.run_dir)}")
        place.pause()


def ask(place: Place, stage: str, model: Path, port: int, strings: int, answers: int) -> dict[str, Any]:
    """Let `vf-eval` evaluate a served model on held-out strings."""
    into = place.work / "evals" / f"{stage}-{strings}"
    shutil.rmtree(into, ignore_errors=True)
    where = json.dumps({"dataset_name": str(place.tiny / "rl"), "dataset_split": "test"})
    call(
        place,
        stage,
        [
            *(program("vf-eval", place), "reverse-text", "-a", where),
            *("-m", model, "-b", f"http://127.0.0.1:{port}/v1", "-k", "NO_KEY"),
            *("-n", str(strings), "-r", str(answers), "--max-tokens", str(MAX_TOKENS)),
            *("--max-concurrent", "64", "--save-results", "--output-dir", into, "-d", "-A"),
        ],
        environment={"NO_KEY": "none"},
    )
    return summary([row for file in into.rglob("results.jsonl") for row in read_rows(file)])


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean reward, with its standard error over strings (answers to one string are not independent).

    Raises:
        StageError: There are no rewards, or some were given without an answer of the model.
    """
    failed = [row["error"] for row in rows if row.get("error")]
    if failed:
        first = failed[0].get("error_chain_str", failed[0]) if isinstance(failed[0], dict) else failed[0]
        raise StageError(f"{len(failed)} of {len(rows)} answers failed, the first with {first}")
    if not all(isinstance(row.get("reward"), int | float) and math.isfinite(row["reward"]) for row in rows):
        raise StageError("vf-eval saved a reward that is no number")
    by_string: dict[Any, list[float]] = {}
    for row in rows:
        by_string.setdefault(row["example_id"], []).append(float(row["reward"]))
    if not by_string:
        raise StageError("vf-eval saved no rewards")
    means = [statistics.fmean(values) for values in by_string.values()]
    error = statistics.stdev(means) / len(means) ** 0.5 if len(means) > 1 else None
    return {
        "reward": round(statistics.fmean(means), 4),
        "standard_error": None if error is None else round(error, 4),
        "strings": len(means),
        "rollouts": sum(map(len, by_string.values())),
    }


def held_out(place: Place) -> list[str]:
    """The strings that no training has seen."""
    files = sorted((place.tiny / "rl").glob("test*.jsonl"))
    return [
        str(json.loads(line)["prompt"])
        for file in files
        for line in file.read_text(encoding="utf-8").splitlines()
    ]


def greedy(model: Path, port: int, text: str) -> str:
    """The answer without chance."""
    body = {
        "model": str(model),
        "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}],
        "temperature": 0.0,
        "max_tokens": MAX_TOKENS,
        "skip_special_tokens": True,
    }
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(json.load(answer)["choices"][0]["message"]["content"])
