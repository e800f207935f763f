"""How a run goes, read from files as prime-rl writes them."""

import json

# ruff: noqa: E501 - lines of logs
import os
from pathlib import Path
from typing import Any

import pytest

from medarc_plugin.job import gpuwatch, progress
from medarc_plugin.job.gpuwatch import GpuWatch, Reading, parse_readings
from medarc_plugin.job.progress import Progress, StateFile, duration
from medarc_plugin.job.record import write_whole
from medarc_plugin.job.tail import BACKLOG, Tail, last_lines

START = 1_787_306_400.0


class Clock:
    """Seconds that a test moves."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Written:
    """A run directory, written by the trainer, the orchestrator and the launcher in turn."""

    def __init__(self, run_dir: Path, clock: Clock) -> None:
        self.run_dir = run_dir
        self.clock = clock
        self.metrics = run_dir / "metrics.jsonl"

    def row(self, step: int, **values: Any) -> None:
        row = {"step": step, "time": self.clock(), **values}
        with self.metrics.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def trainer(self, step: int, loss: float = 0.5, seconds: float = 8.0) -> None:
        self.row(step, **{"perf/throughput": 12345.6, "perf/mfu": 1.2, "perf/peak_memory": 22.25})
        self.row(step, **{"optim/lr": 1e-6})
        self.row(step, **{"loss/mean": loss, "entropy/all/mean": 0.5})
        self.row(
            step,
            **{
                "time/step": seconds,
                "time/wait_for_batch": seconds / 2,
                "time/load_data": 0.0,
                "time/broadcast_weights": 0.5,
                "time/save_ckpt": 0,
                "time/forward_backward": 3.0,
            },
        )
        self.row(step, **{"disk/free": 1.0})

    def rollouts(self, step: int, **rewards: float) -> None:
        self.row(
            step,
            **{f"train/agg/all/{agent}/reward/mean": 0.0 for agent in rewards},
            **{f"train/agg/effective/{agent}/reward/mean": reward for agent, reward in rewards.items()},
            **{
                "train/agg/effective/solver/rewards/reward/mean": 9.0,
                "train/x/effective/solver/reward/mean": 9.0,
            },
            **{"time/step": 9.0, "time/pack": 0.25, "time/save_ckpt": 0.0, "time/wait_for_policy": 1.5},
        )

    def launch(self, attempt: int) -> Path:
        folder = self.run_dir / "logs" / f"attempt_{attempt}"
        folder.mkdir(parents=True)
        link = self.run_dir / "logs" / "latest"
        link.unlink(missing_ok=True)
        link.symlink_to(folder.name)
        return folder

    def say(self, component: str, *messages: str) -> None:
        with (self.run_dir / "logs" / "latest" / f"{component}.log").open("a") as file:
            for message in messages:
                file.write(
                    f"\x1b[2m10:11:12\x1b[0m \x1b[1m   INFO\x1b[0m \x1b[1m\x1b[22m{message}\x1b[0m\x1b[0m\n"
                )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def written(tmp_path: Path, clock: Clock) -> Written:
    return Written(tmp_path, clock)


@pytest.fixture
def follow(tmp_path: Path, clock: Clock) -> Any:
    """Begin to follow the run."""

    def begin(entrypoint: str = "rl", **config: Any) -> Progress:
        return Progress(tmp_path, entrypoint, {"max_steps": 100, **config}, clock=clock)

    return begin


# Steps


def test_a_step_is_a_line_and_a_state(written: Written, follow: Any, clock: Clock) -> None:
    run = follow()
    written.rollouts(1, solver=0.25)
    written.trainer(1, loss=0.1234)

    lines = run.tick()

    assert lines == [
        "step 1 of 100: loss 0.1234, reward 0.2500, 8.0 s (waiting for the batch 4.0, forward and backward 3.0, weights 0.5, other 0.5), 12346 tokens/s, 13 min 12 s left"
    ]
    assert run.tick() == []
    assert run.state() == {
        "format": 1,
        "entrypoint": "rl",
        "phase": "training",
        "started": "2026-08-21T10:00:00+00:00",
        "updated": "2026-08-21T10:00:00+00:00",
        "gpus": None,
        "step": 1,
        "max_steps": 100,
        "highest_step": 1,
        "steps_this_attempt": 1,
        "loss": 0.1234,
        "validation_loss": None,
        "reward": 0.25,
        "evals": {},
        "tokens_per_second": 12345.6,
        "trainer_peak_memory_gib": 22.25,
        "step_seconds": {
            "step": 8.0,
            "wait_for_batch": 4.0,
            "load_data": 0.0,
            "forward_backward": 3.0,
            "broadcast_weights": 0.5,
            "save_ckpt": 0.0,
            "other": 0.5,
        },
        "rollout_seconds": {"step": 9.0, "wait_for_policy": 1.5, "pack": 0.25, "save_ckpt": 0.0},
        "seconds_left": 792,
        "eta": "2026-08-21T10:13:12+00:00",
        "last_step_at": "2026-08-21T10:00:00+00:00",
    }


def test_the_reward_is_the_agents_mean_and_may_come_late(written: Written, follow: Any, clock: Clock) -> None:
    run = follow()
    written.trainer(1)
    assert run.tick() == []
    written.rollouts(1, first=0.2, second=0.4)

    lines = run.tick()

    assert len(lines) == 1
    assert "reward 0.3000" in lines[0]


def test_a_line_does_not_wait_for_a_reward_for_ever(written: Written, follow: Any, clock: Clock) -> None:
    run = follow()
    written.trainer(1)
    assert run.tick() == []
    clock.now += progress.REWARD_SECONDS

    lines = run.tick()

    assert len(lines) == 1
    assert "reward" not in lines[0]


def test_sft_has_no_reward_to_wait_for(written: Written, follow: Any) -> None:
    run = follow("sft", max_steps=None)
    written.row(2, **{"val/loss": 0.75, "val/perplexity": 2.1})
    written.trainer(2)

    assert run.tick() == [
        "step 2: loss 0.5000, 8.0 s (waiting for the batch 4.0, forward and backward 3.0, weights 0.5, other 0.5), 12346 tokens/s"
    ]
    assert run.state()["validation_loss"] == 0.75
    assert run.state()["eta"] is None


def test_rollouts_ahead_of_the_trainer_are_not_its_step(written: Written, follow: Any) -> None:
    run = follow()
    written.rollouts(1, solver=0.25)
    written.trainer(1)
    written.rollouts(2, solver=0.5)
    run.tick()

    state = run.state()

    assert (state["step"], state["reward"]) == (1, 0.25)


def test_rows_that_are_no_rows_change_nothing(written: Written, follow: Any) -> None:
    run = follow()
    with written.metrics.open("ab") as file:
        file.write(b'\xff\xfe\n[1]\n"text"\n{"step": "x"}\n{"step": true}\n{"time": 1}\n{"step": -1}\n\n')
        file.write(
            b'{"step": 1, "time": null, "loss/mean": NaN, "time/step": "x", "time/forward_backward": 1}\n'
        )
        file.write(b"[" * 100_000 + b"\n")
    lines = run.tick()
    written.trainer(1)

    assert lines == []
    assert len(run.tick()) + len(run.tick()) == 0
    assert run.state()["step"] == 1


def test_a_torn_line_is_read_when_it_is_whole(written: Written, follow: Any) -> None:
    run = follow("sft")
    written.trainer(1)
    text = written.metrics.read_bytes()
    written.metrics.write_bytes(text[:-150])
    assert run.tick() == []
    with written.metrics.open("ab") as file:
        file.write(text[-150:])

    assert len(run.tick()) == 1


def test_a_row_behind_a_torn_one_is_read(written: Written, follow: Any) -> None:
    written.metrics.write_text('{"step": 4, "time": 17')
    run = follow("sft")
    written.row(3, **{"time/step": 1.0, "time/forward_backward": 1.0})

    run.tick()

    assert run.state()["step"] == 3


def test_a_metrics_file_of_another_name_is_read(tmp_path: Path, written: Written, follow: Any) -> None:
    written.metrics = tmp_path / "other.jsonl"
    run = follow("sft", monitors={"file": {"path": "other.jsonl"}})
    written.trainer(1)

    assert len(run.tick()) == 1


def test_a_replaced_metrics_file_is_read_from_its_beginning(written: Written, follow: Any) -> None:
    run = follow("sft")
    for step in (1, 2, 3):
        written.trainer(step)
    run.tick()
    written.metrics.unlink()
    written.trainer(4)

    assert [line.split(":")[0] for line in run.tick()] == ["step 4 of 100"]


# Attempts


def test_steps_of_an_earlier_attempt_are_counted_once(written: Written, follow: Any) -> None:
    written.launch(1)
    for step in range(1, 46):
        written.rollouts(step, solver=step / 100)
        written.trainer(step)
    run = follow()
    first = run.tick(), run.state()
    written.launch(2)
    written.say("trainer", "Resuming training from checkpoint step 40")
    second = run.tick(), run.state()
    written.rollouts(41, solver=0.9)
    written.trainer(41, loss=0.25)
    third = run.tick(), run.state()

    keys = "step", "highest_step", "steps_this_attempt", "phase", "reward", "eta"
    assert first[0] == []
    assert [first[1][key] for key in keys] == [45, 45, 0, "waiting for vLLM", 0.45, None]
    assert second[0] == []
    assert [second[1][key] for key in keys[:4]] == [40, 45, 0, "waiting for vLLM"]
    assert len(third[0]) == 1
    assert third[0][0].startswith("step 41 of 100: loss 0.2500, reward 0.9000")
    assert [third[1][key] for key in keys[:5]] == [41, 45, 1, "training", 0.9]


def test_a_step_twice_in_one_attempt_is_one_line(written: Written, follow: Any) -> None:
    run = follow("sft")
    written.trainer(1)
    written.trainer(1, loss=0.25)

    lines = run.tick()

    assert len(lines) == 1
    assert run.state()["steps_this_attempt"] == 1


def test_a_huge_history_is_read_from_its_end(written: Written, follow: Any) -> None:
    with written.metrics.open("wb") as file:
        file.seek(500 * 2**20)
        file.write(b"\n")
    for step in range(1, 4):
        written.trainer(step)
    run = follow("sft")
    written.trainer(4)

    assert [line.split(":")[0] for line in run.tick()] == ["step 4 of 100"]
    assert run.state()["highest_step"] == 4


# The remaining time


def test_the_remaining_time_leaves_out_the_step_that_compiled(
    written: Written, follow: Any, clock: Clock
) -> None:
    run = follow("sft")
    written.trainer(1, seconds=100.0)
    run.tick()
    with_first = run.state()["seconds_left"]
    for step, seconds in enumerate((8.0, 10.0, 9.0, 50.0, 9.0), start=2):
        written.trainer(step, seconds=seconds)
    run.tick()
    clock.now += 4

    assert with_first == 99 * 100
    assert run.state()["seconds_left"] == 94 * 9 - 4


def test_a_long_step_does_not_use_up_the_time_of_the_others(
    written: Written, follow: Any, clock: Clock
) -> None:
    run = follow("sft")
    written.trainer(98)
    run.tick()
    clock.now += 10_000

    assert run.state()["seconds_left"] == 8


# Phases


def test_rl_waits_warms_up_trains_and_evaluates(written: Written, follow: Any) -> None:
    phases = []
    run = follow(eval={})
    written.launch(1)

    def look() -> None:
        run.tick()
        phases.append(run.phase)

    look()
    written.say("orchestrator", "Waiting for policy inference pool to be ready")
    look()
    written.say("orchestrator", "Policy inference pool ready")
    look()
    written.say("orchestrator", "Starting evals in reverse-text, math 500 (128 total rollouts)")
    look()
    written.say("orchestrator", "Evaluated reverse-text (Step 1) | Policy v0 | 16.1s | Reward 0.1070")
    look()
    written.say("orchestrator", "Eval @ step=1 env=math 500: no episodes returned, skipping log")
    look()
    written.rollouts(1, solver=0.1)
    written.trainer(1)
    look()
    run.enter("exporting")
    look()
    run.enter("done")
    look()

    assert phases == [
        "waiting for vLLM",
        "waiting for vLLM",
        "warming up",
        "evaluating",
        "evaluating",
        "warming up",
        "training",
        "exporting",
        "done",
    ]


def test_sft_trains_while_others_evaluate(written: Written, follow: Any) -> None:
    phases = []
    run = follow("sft", eval={"source": []})
    written.launch(1)
    for component, message in (
        ("evals", "Waiting for inference pool to be ready"),
        ("evals", "Inference pool ready"),
        ("evals", "Starting evals in reverse-text at step 1 (64 total rollouts)"),
    ):
        written.say(component, message)
        run.tick()
        phases.append(run.phase)
    written.trainer(1)
    run.tick()
    phases.append(run.phase)
    written.say("trainer", "SFT trainer finished!")
    run.tick()
    phases.append(run.phase)

    assert phases == ["waiting for vLLM", "warming up", "warming up", "training", "evaluating"]


def test_plain_sft_waits_for_nobody(follow: Any) -> None:
    assert follow("sft", eval=None).phase == "warming up"


def test_an_evaluation_is_a_line(written: Written, follow: Any) -> None:
    run = follow()
    row = {"eval/a/b/effective/agent/reward/mean": 0.75, "eval/a/b/policy_version": 9.0}
    written.metrics.write_text(json.dumps({"step": 10.0, "time": START, **row}) + "\n")

    assert run.tick() == ["evaluation of a/b at step 10: reward 0.7500"]
    assert run.state()["evals"] == {"a/b": {"step": 10, "reward": 0.75}}
    assert run.state()["step"] is None


def test_an_earlier_launchs_logs_say_nothing_of_this_one(written: Written, follow: Any) -> None:
    written.launch(1)
    written.say("orchestrator", "Policy inference pool ready")
    run = follow()
    run.tick()

    assert run.phase == "waiting for vLLM"


def test_a_server_is_serving_and_nothing_else(follow: Any) -> None:
    run = follow("inference")

    assert run.tick() == []
    assert set(run.state()) == {"format", "entrypoint", "phase", "started", "updated", "gpus"}
    assert run.state()["phase"] == "serving"


# Without a metrics file


def test_logs_tell_where_metrics_are_turned_off(written: Written, follow: Any) -> None:
    run = follow(monitors={"file": None})
    written.launch(1)
    written.say("orchestrator", "Step 3 | 1m 5s | Reward 0.4321 | Trainable 64/64 (100.0%) | Turns 1.0")
    written.say(
        "trainer",
        "Step 3 |  250ms | Loss -0.0123 | Entropy 0.5 | Mismatch KL 0.0001 | Grad. Norm 0.1 | LR 1.00e-06 | "
        "Throughput 12345 tokens/s | MFU 1.2% | Peak Mem. 22.1 GiB",
    )

    lines = run.tick()

    assert lines == ["step 3 of 100: loss -0.0123, reward 0.4321, 0.2 s, 12345 tokens/s, 24 s left"]
    assert run.state()["trainer_peak_memory_gib"] == 22.1


# state.json


def test_the_state_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_whole(path, {"phase": "training"})
    before = path.stat().st_ino
    write_whole(path, {"phase": "done"})

    assert json.loads(path.read_text()) == {"phase": "done"}
    assert path.stat().st_ino != before
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


def test_a_state_that_cannot_be_written_leaves_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.mkdir()

    with pytest.raises(OSError, match="state"):
        write_whole(path, {})

    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


def test_the_state_is_written_when_it_changes_and_at_most_once_a_second(tmp_path: Path) -> None:
    clock = Clock(0.0)
    file = StateFile(tmp_path / "state.json", clock)
    done = []
    for moment, state in (
        (0.0, {"step": 1, "updated": "a"}),
        (0.5, {"step": 2, "updated": "b"}),
        (1.0, {"step": 2, "updated": "c"}),
        (2.0, {"step": 2, "updated": "d"}),
        (15.9, {"step": 2, "updated": "e"}),
        (16.0, {"step": 2, "updated": "f"}),
    ):
        clock.now = moment
        done.append(file.write(state))
    last = file.write({"step": 3}, at_once=True)

    assert done == [True, False, True, False, False, True]
    assert last
    assert json.loads(file.path.read_text()) == {"step": 3}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (3725, "1 h 2 min"), (86400, "1 d"), (90000, "1 d 1 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# Files that grow


def test_a_tail_skips_what_it_cannot_keep_up_with(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"".join(b"%06d\n" % number for number in range(2000)))
    tail = Tail(path, backlog=100)

    lines = tail.read()

    assert lines[-1] == "001999"
    assert lines[0] == "001986"
    assert tail.read() == []


def test_a_tail_reads_a_bounded_piece_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\ntwo\nthree\n")
    tail = Tail(path)

    assert [tail.read(5), tail.read(5), tail.read(5)] == [["one"], ["two"], ["three"]]


def test_a_line_without_an_end_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medarc_plugin.job.tail.LONGEST_LINE", 10)
    path = tmp_path / "log"
    path.write_bytes(b"x" * 40 + b"\nshort\n")
    tail = Tail(path)

    assert [line for _ in range(10) for line in tail.read(8)] == ["short"]


def test_a_cut_and_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = Tail(path)
    assert tail.read() == []
    path.write_text("one\ntwo\n")
    assert tail.read() == ["one", "two"]
    os.truncate(path, 4)

    assert tail.read() == ["one"]
    assert last_lines(tmp_path / "none") == []
    assert last_lines(path) == ["one", ""]
    assert tail.backlog == BACKLOG


# GPUs


def test_what_nvidia_smi_says_of_gpus() -> None:
    text = "2, 45875, 143771, 97\n5, 12, [N/A], [Not Supported]\n"

    assert parse_readings(text) == (Reading(2, 45875, 143771, 97), Reading(5, 12, None, None))
    assert parse_readings("No devices were found\n") is None
    assert parse_readings("") is None


@pytest.fixture
def smi(tmp_path: Path) -> Any:
    """Put an `nvidia-smi` on the path that does as told."""

    def write(text: str) -> dict[str, str]:
        path = tmp_path / "nvidia-smi"
        path.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n{text}\n')
        path.chmod(0o755)
        return {"PATH": f"{tmp_path}:/usr/bin:/bin"}

    return write


def test_gpus_are_asked_now_and_then(smi: Any, tmp_path: Path, until: Any) -> None:
    clock = Clock(0.0)
    watch = GpuWatch((5, 2, 5), smi("echo '2, 10, 100, 3'; echo '5, 20, 100, 97'"), clock)

    assert watch.tick() is None
    until(watch.tick)
    again = watch.tick()
    assert again == (Reading(2, 10, 100, 3), Reading(5, 20, 100, 97))
    assert watch.use == 97
    assert again[0].document() == {
        "index": 2,
        "memory_used_mib": 10,
        "memory_total_mib": 100,
        "use_percent": 3,
    }
    asked = (tmp_path / "asked").read_text()
    assert asked == f"--id=5,2 {' '.join(gpuwatch.ARGUMENTS)}\n"


def test_an_answer_that_never_comes_is_given_up(smi: Any) -> None:
    clock = Clock(0.0)
    watch = GpuWatch((0,), smi("exec sleep 600"), clock)
    watch.tick()
    process = watch._process  # noqa: SLF001
    clock.now = gpuwatch.PATIENCE
    watch.tick()

    assert process is not None
    assert process.wait(timeout=10) == -9
    assert watch.use is None


def test_an_old_answer_is_none(smi: Any, until: Any) -> None:
    clock = Clock(0.0)
    watch = GpuWatch((0,), smi("echo '0, 10, 100, 3'"), clock)
    watch.tick()
    until(watch.tick)
    clock.now = gpuwatch.STALE + 1

    assert watch.tick() is None
    assert watch.use is None
    watch.stop()
    watch.stop()


def test_one_that_keeps_failing_is_asked_rarely(smi: Any, tmp_path: Path, until: Any) -> None:
    clock = Clock(0.0)
    watch = GpuWatch((0,), smi("exit 9"), clock)
    for _ in range(20):
        clock.now += gpuwatch.INTERVAL
        watch.tick()
        until(lambda: watch.tick() is None and watch._process is None)  # noqa: SLF001

    assert len((tmp_path / "asked").read_text().splitlines()) == gpuwatch.MOST_FAILURES


def test_without_a_driver_nothing_is_asked(tmp_path: Path) -> None:
    watch = GpuWatch((0,), {"PATH": str(tmp_path)})

    assert watch.tick() is None
    assert watch.use is None
    watch.stop()
