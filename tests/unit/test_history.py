"""A run's course, read from what prime-rl and the job wrote."""

import json
import math

import pytest
from standins.trained import START, Recorded, full_run, real_rows, utc

from medarc_plugin.report import history
from medarc_plugin.report.history import Series

NOW = START + 100_000


def read(recorded, now=NOW):
    return history.read(recorded.run, now=lambda: now)


@pytest.fixture
def made(tmp_path):
    """Make a run directory: `made("sft", max_steps=3)`."""
    return lambda *args, **config: Recorded(tmp_path / "run", *args, **config)


# Steps


def test_a_real_rl_run(made):
    recorded = made()
    recorded.add_rows(real_rows("rl-one", 10))
    found = read(recorded)

    assert (found.source, found.step, found.max_steps) == ("metrics", 10, 25)
    assert list(found.reward.steps) == list(range(1, 11))
    assert found.reward.values[0] == pytest.approx(0.481, abs=0.001)
    assert found.loss.values[1] == pytest.approx(0.00094, abs=0.00001)
    assert found.throughput.unit == "tokens/s"
    assert {name: list(series.steps) for name, series in found.evals.items()} == {"held-out": [1, 10]}
    parts = {name: series.values[4] for name, series in found.step_seconds.parts.items()}
    assert set(parts) == {
        *("wait_for_batch", "load_data", "forward_backward", "broadcast_weights", "save_ckpt", "other")
    }
    assert sum(parts.values()) == pytest.approx(found.step_seconds.whole.values[4])
    assert set(found.rollout_seconds.parts) == {"wait_for_policy", "pack", "save_ckpt", "other"}
    assert len(found.rollout_seconds.whole) == 10


def test_a_real_sft_run(made):
    recorded = made("sft", max_steps=400)
    recorded.add_rows(real_rows("tiny-sft", 20))
    recorded.add_rows([{"step": 20, "time": START, "val/loss": 0.75}])
    found = read(recorded)

    assert (len(found.loss), found.step, found.reward.last) == (20, 20, None)
    assert list(found.validation_loss.values) == [0.75]
    assert found.peak_memory.last == pytest.approx(0.56, abs=0.01)


def test_of_several_agents_the_mean_counts(made):
    recorded = made()
    keys = [f"train/agg/effective/{agent}/reward/mean" for agent in "ab"]
    evals = [f"eval/x/y/effective/{agent}/reward/mean" for agent in "ab"]
    recorded.add_rows([{"step": 1, keys[0]: 0.25, keys[1]: 0.75}, {"step": 1, evals[0]: 0, evals[1]: 1}])
    found = read(recorded)

    assert list(found.reward.values) == [0.5]
    assert list(found.evals["x/y"].values) == [0.5]


def test_steps_that_are_made_again_count_once_and_the_abandoned_branch_is_kept_apart(made):
    recorded = made()
    recorded.add_steps(1, 8, loss=1)
    recorded.add_steps(6, 7, loss=2)
    found = read(recorded)

    assert list(found.loss.steps) == [1, 2, 3, 4, 5, 6, 7]
    assert found.loss.values[-1] == 2.07
    # Step 8 as well: the run has not come to it on the branch that it goes on with.
    assert list(found.loss.abandoned_steps) == [6, 7, 8]
    assert found.loss.abandoned_values[0] == 1.06
    assert found.step == 7
    assert list(found.step_seconds.parts["save_ckpt"].steps) == [1, 2, 3, 4, 5, 6, 7]


def test_what_is_no_number_is_named_and_left_out(made):
    recorded = made()
    recorded.write("metrics.jsonl", '{"step": 1, "loss/mean": NaN}\n{"step": 2, "loss/mean": -Infinity}\n')
    recorded.add_rows(
        [{"step": 3, "loss/mean": 0.5}, {"step": 4, "loss/mean": "x"}, {"step": 5, "loss/mean": True}]
    )
    found = read(recorded)

    assert list(found.loss.steps) == [3]
    assert found.loss.not_finite == [1, 2]


def test_a_step_that_was_no_number_is_forgotten_when_it_is_made_again():
    series = Series("loss")
    for step, value in ((1, 0.5), (2, math.nan), (2, 0.25)):
        series.add(step, value)

    assert list(series.values) == [0.5, 0.25]
    assert series.not_finite == []


@pytest.mark.parametrize(
    "torn",
    [
        '{"step": 3, "time": 1, "loss/me',
        "\0\0\0",
        "[1, 2]\n",
        '{"step": "x", "loss/mean": 1}\n',
        '{"step": -1, "loss/mean": 1}\n',
        '{"step": 1e400, "loss/mean": 1}\n',
        '{"loss/mean": 1}\n',
        "[" * 5000,
        "x" * (history.LONGEST_ROW + 10) + "\n",
    ],
)
def test_a_torn_line_costs_no_other(made, torn):
    recorded = made()
    recorded.add_steps(1, 2)
    with (recorded.run_dir / "metrics.jsonl").open("a") as file:
        file.write(torn)
    # What is written behind a torn beginning is on the same line.
    recorded.add_steps(3, 3)
    found = read(recorded)

    assert list(found.loss.steps)[:2] == [1, 2]
    assert found.loss.steps[-1] == 3


def test_metrics_that_cannot_be_read_are_told(made):
    recorded = made()
    path = recorded.write("metrics.jsonl", "x")
    path.unlink()
    path.symlink_to("/proc/self/mem")
    found = read(recorded)

    assert found.trouble == (f"{path} cannot be read: Input/output error",)
    assert len(found.loss) == 0


def test_a_config_may_name_the_metrics_file(made):
    recorded = made(trainer={"monitors": {"file": {"path": "mine.jsonl"}}})
    recorded.add_rows([{"step": 1, "loss/mean": 2.0}], "mine.jsonl")

    assert read(recorded).loss.last == 2.0


# v0.8.0, and logs


def test_v0_8_0_has_a_file_for_each_of_two(made):
    table = {"file_monitor": {"filename": "metrics.jsonl"}}
    recorded = made(shape="v0.8.0", trainer=table, orchestrator=table)
    recorded.add_steps(1, 3)
    key = "train/agg/effective/main/reward/mean"
    rows = [
        {"step": step, key: step / 10, "time/step": 9.0, "time/wait_for_policy": 1.0} for step in (1, 2, 3)
    ]
    recorded.add_rows(rows, "run_default/metrics.jsonl")
    found = read(recorded)

    assert list(found.reward.values) == [0.1, 0.2, 0.3]
    assert len(found.loss) == 3
    assert set(found.rollout_seconds.parts) == {"wait_for_policy", "save_ckpt", "other"}


TRAINER = (
    "10:11:12 SUCCESS Step {step} |   8.5s | Loss {loss} | Entropy 0.1000 | LR 1.00e-06 "
    "| Throughput 1000 tokens/s | MFU 1.0% | Peak Mem. 1.5 GiB\n"
)
ORCHESTRATOR = "10:11:12 SUCCESS Step {step} |   1m 5s | Reward 0.2{step} | Trainable 1/1\n"


@pytest.mark.parametrize(
    ("shape", "folders"),
    [
        ("v0.8.0", ["logs_1", "logs_2", "logs"]),
        ("main", ["logs/attempt_2", "logs/attempt_10", "logs/attempt_11"]),
    ],
)
def test_without_a_metrics_file_the_logs_of_all_launches_are_read(made, shape, folders):
    off = {"trainer": {"monitors": {"file": None}}} if shape == "main" else {}
    recorded = made(shape=shape, **off)
    for folder, steps, loss in zip(folders, ((1, 2), (3,), (3, 4)), ("0.1", "0.2", "0.3"), strict=True):
        lines = [TRAINER.format(step=step, loss=loss) for step in steps]
        recorded.write(f"{folder}/trainer.log", "starting\n" + "".join(lines))
        rewards = [ORCHESTRATOR.format(step=step) for step in steps]
        recorded.write(f"{folder}/orchestrator.log", "".join(rewards))
    found = read(recorded)

    assert found.source == "logs"
    assert list(found.loss.values) == [0.1, 0.1, 0.3, 0.3]
    assert list(found.loss.abandoned_values) == [0.2]
    assert list(found.reward.steps) == [1, 2, 3, 4]
    assert list(found.step_seconds.whole.values) == [8.5] * 4
    assert list(found.rollout_seconds.whole.values) == [65.0] * 4
    assert found.throughput.last == 1000


# Attempts


def test_attempts_have_phases_reasons_and_gpu_hours(tmp_path):
    found = read(full_run(tmp_path / "run"))
    first, second = found.attempts

    assert (first.reason, second.reason) == ("time-limit", "finished")
    assert [phase.name for phase in first.phases] == [
        "starting",
        "waiting for vLLM",
        "warming up",
        "training",
    ]
    assert first.phases[0].ended - first.phases[0].began == pytest.approx(2, abs=1)
    assert first.phases[-1].ended == first.ended
    assert found.gpu_hours == pytest.approx(2 * (first.seconds + second.seconds) / 3600)
    assert second.launched["environment"] == {"CUDA_VISIBLE_DEVICES": "0,1"}


def test_an_attempt_that_runs_is_known_by_its_heartbeat(made):
    recorded = made()
    recorded.add_attempt(1, START, 600, over=False)
    recorded.set_state(attempt=1, steps_this_attempt=7, step=12, resumed_from=5)
    (attempt,) = read(recorded).attempts

    assert (attempt.over, attempt.reason, attempt.seconds) == (False, None, 600)
    assert attempt.gpu_hours == pytest.approx(2 * 600 / 3600)
    assert (attempt.record["steps"], attempt.record["resumed_from"]) == (7, 5)
    assert attempt.is_alive(START + 650)
    assert not attempt.is_alive(START + 6500)


def test_an_attempt_that_was_lost_lasted_until_its_last_heartbeat(made):
    recorded = made()
    recorded.add_attempt(1, START, 300, over=False)
    line = {"attempt": 1, "reason": "lost"}
    recorded.write("configs/launch/attempts.jsonl", json.dumps(line) + "\n")
    (attempt,) = read(recorded).attempts

    assert (attempt.reason, attempt.seconds, attempt.record["host"]) == ("lost", 300, "gpu03")


def test_without_kept_phases_they_are_told_from_the_steps(made):
    recorded = made()
    recorded.add_steps(1, 5, began=START + 100)
    recorded.add_attempt(1, START, 200)
    recorded.add_attempt(2, START + 500, 50)
    first, second = read(recorded).attempts

    assert [(phase.name, phase.ended - phase.began) for phase in first.phases] == [
        ("starting", 100),
        ("training", 50),
        ("ending", 50),
    ]
    assert not first.phases_kept
    assert [phase.name for phase in second.phases] == ["starting"]


def test_phases_that_were_not_kept_any_more_have_no_name(made):
    recorded = made()
    recorded.add_attempt(1, START, 100, [("training", 0), (None, 60)])
    (attempt,) = read(recorded).attempts

    assert [(phase.name, phase.ended - phase.began) for phase in attempt.phases] == [
        ("training", 60),
        (None, 40),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"attempt": "x"}',
        '{"attempt": 1, "gpus": 7, "started": 5, "steps": "many", "resumed_from": [], "failed": 1}',
        '{"attempt": 1, "started": "2026-99-99", "ended": "later"}',
    ],
)
def test_a_torn_or_foreign_record_is_read_as_far_as_it_is_whole(made, line):
    recorded = made()
    recorded.write("configs/launch/attempts.jsonl", line + "\n")
    found = read(recorded)

    assert all(attempt.gpus == 2 for attempt in found.attempts)
    assert found.gpu_hours == 0


def test_a_run_of_which_only_the_plan_is_there(made):
    found = read(made())

    assert (found.step, found.source, found.attempts, found.gpus) == (None, "", (), ())
    assert found.trouble == ()


def test_torn_records_are_told(made):
    recorded = made()
    for name in ("rl.json", "launch/state.json", "launch/provenance.json"):
        recorded.write(f"configs/{name}", "{")
    found = read(recorded)

    assert len(found.trouble) == 3
    assert found.config == {}


def test_a_server_has_no_steps(made):
    recorded = made("inference")
    recorded.add_steps(1, 3)
    recorded.add_gpus(START, 3)
    found = read(recorded)

    assert (found.source, len(found.loss), len(found.gpus)) == ("", 0, 2)


# GPUs


def test_gpus_over_time(made):
    recorded = made()
    recorded.add_gpus(START + 1000, 2, gpus=1, attempt=2)
    recorded.add_gpus(START, 2)
    with (recorded.launch / "gpus.jsonl").open("a") as file:
        file.write('{"time": 5, "gpus": [7, {"index": "x"}]}\n{"time": NaN, "gpus": [{"index": 0}]}\n{"ti')
    first, second = read(recorded).gpus

    assert list(first.times) == [START, START + 10, START + 1000, START + 1010]
    assert list(first.attempts) == [1, 1, 2, 2]
    assert (first.memory_used[0], second.memory_used[0]) == (10240, 11264)
    assert list(first.use) == [50, 51, 50, 51]


def test_what_a_gpu_did_not_say_is_no_number(made):
    recorded = made()
    gpu = {"index": 0, "memory_used_mib": None, "memory_total_mib": 5, "use_percent": None}
    recorded.write("configs/launch/gpus.jsonl", json.dumps({"time": 1, "gpus": [gpu]}) + "\n")
    (found,) = read(recorded).gpus

    assert math.isnan(found.use[0])
    assert found.memory_total[0] == 5


# Any figure


def test_any_figure_can_be_read_by_its_key(made):
    recorded = made()
    recorded.add_rows(real_rows("rl-one", 3))
    run = recorded.run
    found = history.read_metrics(run, ["optim/grad_norm", "nothing"])

    assert list(found["optim/grad_norm"].steps) == [1, 2, 3]
    assert len(found["nothing"]) == 0
    known = history.metric_keys(run)
    assert {"optim/grad_norm", "time/step"} <= set(known)
    assert known == sorted(known)
    assert "step" not in known


def test_a_long_run_is_read_whole(made):
    recorded = made("sft")
    rows = (
        {"step": step, "time": START, "loss/mean": 1 / step, "time/step": 1.0, "time/forward_backward": 0.5}
        for step in range(1, 20_001)
    )
    recorded.add_rows(rows)
    found = read(recorded)

    assert (len(found.loss), found.step) == (20_000, 20_000)


def test_the_clock_of_a_record_may_have_any_offset(made):
    recorded = made()
    record = {"attempt": 1, "started": "2026-11-18T12:06:40+01:00", "ended": utc(START + 60)}
    recorded.write("configs/launch/attempts.jsonl", json.dumps(record) + "\n")
    (attempt,) = read(recorded).attempts

    assert attempt.seconds == 60
    assert attempt.started == START
