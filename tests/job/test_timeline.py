"""What stays of a run's course: its GPUs and phases over time, in files that stay small."""

import json
from pathlib import Path
from typing import Any

import pytest

from medarc_plugin.job import timeline
from medarc_plugin.job.gpuwatch import INTERVAL, Reading
from medarc_plugin.job.timeline import GpuTimeline, PhaseTimeline, merged, read_rows, thinned

START = 1_787_306_400.0


class Clock:
    """Seconds that a test moves."""

    now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gpus.jsonl"


def answers(kept: GpuTimeline, clock: Clock, *uses: int, index: int = 0, memory: int = 100) -> None:
    """Give an answer of one GPU every ten seconds, each fetched twice, as ticks do."""
    for use in uses:
        clock.now += INTERVAL
        readings = (Reading(index, memory, 1000, use),)
        kept.take(readings)
        kept.take(readings)


def row(time: int, use: int | None, memory: int = 100, attempt: int = 1, seconds: int = 10) -> dict[str, Any]:
    gpu = {"index": 0, "memory_used_mib": memory, "memory_total_mib": 1000, "use_percent": use}
    return {"time": time, "seconds": seconds, "attempt": attempt, "gpus": [gpu]}


# GPUs


def test_each_answer_is_a_row(path: Path, clock: Clock) -> None:
    kept = GpuTimeline(path, 2, clock)
    kept.take(None)
    answers(kept, clock, 5, 7)

    assert read_rows(path) == [
        row(int(START) + 10, 5, attempt=2),
        row(int(START) + 20, 7, attempt=2),
    ]


def test_what_a_gpu_does_not_say_is_null(path: Path, clock: Clock) -> None:
    GpuTimeline(path, 1, clock).take((Reading(0, None, None, None),))

    (found,) = read_rows(path)
    assert found["gpus"] == [
        {"index": 0, "memory_used_mib": None, "memory_total_mib": None, "use_percent": None}
    ]


def test_a_merged_row_has_the_most_memory_and_the_mean_use() -> None:
    rows = [row(100, 0, 10), row(110, 90, 30), row(120, None, 20)]

    assert merged(rows) == row(120, 45, 30, seconds=30)


def test_rows_of_another_attempt_or_behind_a_gap_are_not_merged() -> None:
    rows = [row(100, 1), row(110, 3), row(120, 5, attempt=2), row(500, 7, attempt=2)]

    assert thinned(rows, 20) == [
        row(110, 2, seconds=20),
        row(120, 5, attempt=2),
        row(500, 7, attempt=2),
    ]


def test_however_long_a_run_takes_the_file_stays_short(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "MOST_ROWS", 50)
    kept = GpuTimeline(path, 1, clock)
    longest = 0
    for number in range(1000):
        answers(kept, clock, 100 if number == 321 else 0, memory=900 if number == 321 else 100)
        longest = max(longest, len(path.read_text().splitlines()))

    rows = read_rows(path)
    assert 20 <= len(rows) <= longest <= 50
    assert sum(found["seconds"] for found in rows) == pytest.approx(10_000, rel=0.05)
    assert max(found["gpus"][0]["memory_used_mib"] for found in rows) == 900
    assert max(found["seconds"] for found in rows) == 320


def test_a_later_attempt_is_kept_as_coarsely_as_the_earlier_ones(path: Path, clock: Clock) -> None:
    path.write_text(json.dumps(row(int(START), 50, seconds=40)) + "\n")
    kept = GpuTimeline(path, 2, clock)
    answers(kept, clock, *range(9))

    assert [found["seconds"] for found in read_rows(path)] == [40, 10, 40, 40]


def test_very_many_short_attempts_lose_their_oldest_rows(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "MOST_ROWS", 10)
    for attempt in range(1, 31):
        answers(GpuTimeline(path, attempt, clock), clock, 1)

    found = [found["attempt"] for found in read_rows(path)]
    assert found == sorted(found)
    assert found[-1] == 30
    assert len(found) <= 10


def test_torn_and_foreign_lines_cost_no_other(path: Path, clock: Clock) -> None:
    path.write_text('{"time": 1\n[]\n{"time": 1, "seconds": 2, "gpus": [7]}\n')
    answers(GpuTimeline(path, 1, clock), clock, 5)

    assert read_rows(path) == [row(int(START) + 10, 5)]


# Phases


def test_a_phase_is_kept_once_until_it_changes(tmp_path: Path) -> None:
    folder = tmp_path / "configs" / "attempts" / "3"
    folder.mkdir(parents=True)
    kept = PhaseTimeline(tmp_path, 3)
    for phase in ("training", "training", "evaluating", "training"):
        kept.enter(phase)

    found = [json.loads(line) for line in (folder / "phases.jsonl").read_text().splitlines()]
    assert [line["phase"] for line in found] == ["training", "evaluating", "training"]
    assert all(line["time"].endswith("+00:00") for line in found)


def test_phases_without_end_are_not_kept_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "MOST_PHASES", 4)
    folder = tmp_path / "configs" / "attempts" / "1"
    folder.mkdir(parents=True)
    kept = PhaseTimeline(tmp_path, 1)
    for number in range(9):
        kept.enter(f"phase {number}")

    found = [json.loads(line)["phase"] for line in (folder / "phases.jsonl").read_text().splitlines()]
    assert found == ["phase 0", "phase 1", "phase 2", None]


# In the job

SMI = """#!/bin/sh
case "$1" in
--query-gpu=index,uuid,name,memory.total)
    echo "2, GPU-2c1f2b7e-5a3d-4f6e-9b1a-0d2c4e6f8a12, NVIDIA H200, 143771 MiB"
    echo "5, GPU-5c1f2b7e-5a3d-4f6e-9b1a-0d2c4e6f8a15, NVIDIA H200, 143771 MiB" ;;
--id=2,5)
    echo "2, 1000, 143771, 40"
    echo "5, 2000, 143771, [N/A]" ;;
*)
    exit 1 ;;
esac
"""


def test_a_job_keeps_its_gpus_and_phases(run: Any, until: Any) -> None:
    run.set_program("nvidia-smi", SMI)
    path = run.folder / "gpus.jsonl"
    gate = run.run_dir.parent / "gate"
    process = run.start(STANDIN_WAIT_FOR=str(gate))
    until(path.exists)
    gate.touch()
    finished = run.finish(process)

    assert finished.code == 0, finished.log
    found = read_rows(path)[0]
    assert found["attempt"] == 1
    assert [(gpu["index"], gpu["memory_used_mib"], gpu["use_percent"]) for gpu in found["gpus"]] == [
        (2, 1000, 40),
        (5, 2000, None),
    ]
    phases = (run.run_dir / "configs" / "attempts" / "1" / "phases.jsonl").read_text().splitlines()
    assert json.loads(phases[-1])["phase"] == "done"


def test_a_job_whose_file_cannot_be_written_goes_on(run: Any) -> None:
    run.set_program("nvidia-smi", SMI)
    (run.folder / "gpus.jsonl").mkdir()
    finished = run.attempt()

    assert finished.code == 0, finished.log
