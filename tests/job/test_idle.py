"""The idle watchdog: what counts as doing something, and who waits for whom."""

# ruff: noqa: E501, ISC004 - lines of logs

from pathlib import Path
from typing import Any

import pytest

from medarc_plugin.job.idle import GAP, INTERVAL, IdleWatch, LogActivity, who_waits
from medarc_plugin.job.launch import read_launch

PIPELINE = "Train batch 3/128 (2.3%); 64 inflight episodes (train=64, eval=0)"


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def say(tmp_path: Path) -> Any:
    """Append messages to a component's log."""
    folder = tmp_path / "logs" / "attempt_1"
    folder.mkdir(parents=True)
    (tmp_path / "logs" / "latest").symlink_to(folder.name)
    count = iter(range(10_000))

    def write(component: str, *messages: str) -> None:
        path = folder / f"{component}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            for message in messages:
                second = next(count)
                file.write(f"10:{second // 60:02}:{second % 60:02}    INFO {message}\n")

    return write


@pytest.fixture
def looks(tmp_path: Path, clock: Clock) -> Any:
    """Look at the logs after a while; says whether there was something new."""
    activity = LogActivity(tmp_path, tmp_path / "metrics.jsonl", clock=clock)
    before = [activity.count]

    def look() -> bool:
        clock.now += INTERVAL
        before.append(activity.look())
        return before[-1] != before[-2]

    return look


# Whether it is asked for


@pytest.mark.parametrize(
    ("value", "seconds"), [({"idle_timeout": 1800}, 1800), ({"idle_timeout": None}, None), ({}, None)]
)
def test_the_plan_says_how_long(value: dict[str, Any], seconds: int | None, run: Any) -> None:
    run.document |= value
    run.write()

    assert read_launch(run.folder / "launch.json").idle_timeout == seconds


# What the logs say


def test_a_new_line_anywhere_is_activity(say: Any, looks: Any, tmp_path: Path) -> None:
    said = [looks()]
    for component in ("orchestrator", "envs/train/reverse-text", "trainer/torchrun/x/attempt_0/0/stdout"):
        say(component, "Loading")
        said += [looks(), looks()]

    assert said == [False, True, False, True, False, True, False]


def test_new_metrics_are_activity(looks: Any, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("{}\n")

    assert [looks(), looks()] == [True, False]


def test_what_is_said_again_and_again_is_none(say: Any, looks: Any) -> None:
    say("orchestrator", PIPELINE)
    say("inference", '(APIServer pid=1) INFO:     127.0.0.1:50000 - "GET /metrics HTTP/1.1" 200 OK')
    looks()
    said = []
    for second in range(3):
        say(
            "orchestrator",
            PIPELINE,
            f"Inference server was not reached after {10 + second} seconds (Error: x)",
        )
        say(
            "inference",
            f'(APIServer pid=1) INFO:     127.0.0.1:5{second} - "GET /health HTTP/1.1" 200 OK',
            "Engine 000: Avg prompt throughput: 0.0 tokens/s, Avg generation throughput: 0.0 tokens/s, "
            f"Running: {second} reqs, Waiting: 0 reqs",
        )
        said.append(looks())
    say("orchestrator", PIPELINE.replace("3/128", "4/128"))
    said.append(looks())

    assert said == [False, False, False, True]


def test_a_progress_bar_is_activity(say: Any, looks: Any, tmp_path: Path) -> None:
    path = tmp_path / "logs" / "attempt_1" / "trainer.log"
    said = []
    for percent in (1, 2):
        with path.open("a") as file:
            file.write(f"\rdownloading {percent}%")
        said.append(looks())
    said.append(looks())

    assert said == [True, True, False]


def test_logs_are_not_looked_at_all_the_time(say: Any, tmp_path: Path, clock: Clock) -> None:
    activity = LogActivity(tmp_path, None, clock=clock)
    activity.look()
    say("trainer", "Step 1")
    clock.now = INTERVAL - 1
    early = activity.look()
    clock.now = INTERVAL

    assert (early, activity.look()) == (0, 1)


# When it ends a run


def test_a_still_run_is_ended_after_its_time(tmp_path: Path, clock: Clock) -> None:
    watch = IdleWatch(1800, tmp_path, clock=clock)
    said = []
    for moment in (0, 30, 60):
        clock.now = moment
        said.append(watch.tick(7, 0))
    for moment in range(60, 1799, 30):
        clock.now = moment
        assert watch.tick(7, 5) is None
    clock.now = 1800
    said.append(watch.tick(7, 0))

    assert said == [
        None,
        None,
        None,
        "nothing happened for 30 min (no new line in the logs, no GPU above 5 %): its logs do not tell which "
        "component was waiting for which",
    ]


@pytest.mark.parametrize(("log_activity", "gpu_use"), [(8, 0), (7, 80)])
def test_logs_or_gpus_keep_it_alive(log_activity: int, gpu_use: int, tmp_path: Path, clock: Clock) -> None:
    watch = IdleWatch(100, tmp_path, clock=clock)
    watch.tick(7, 0)
    clock.now = 50
    watch.tick(log_activity, gpu_use)
    clock.now = 100

    assert watch.tick(log_activity, 0) is None
    clock.now = 150
    assert watch.tick(log_activity, 0) is not None


def test_logs_alone_decide_without_gpu_figures(tmp_path: Path, clock: Clock) -> None:
    watch = IdleWatch(50, tmp_path, clock=clock)
    watch.tick(7, None)
    clock.now = 50

    text = watch.tick(7, None)

    assert text is not None
    assert "what its GPUs do is not known" in text


def test_a_suspended_job_was_not_idle(tmp_path: Path, clock: Clock) -> None:
    watch = IdleWatch(100, tmp_path, clock=clock)
    watch.tick(7, 0)
    clock.now = 50
    watch.tick(7, 0)
    clock.now = 50 + GAP * 100

    assert watch.tick(7, 0) is None
    clock.now += 50
    assert watch.tick(7, 0) is not None


# Who waits for whom


@pytest.mark.parametrize(
    ("logs", "told"),
    [
        (
            {
                "orchestrator": ["Waiting for policy inference pool to be ready"],
                "inference": ["Loading weights"],
            },
            "orchestrator was waiting for inference (vLLM); inference's last line is 'Loading weights'",
        ),
        (
            {
                "orchestrator": [
                    "Policy inference pool ready",
                    "Step 4 |    9.0s | Reward 0.5",
                    "Pausing dispatcher to prevent orchestrator from racing from trainer. Waiting for new policy...",
                    PIPELINE,
                    PIPELINE,
                ],
                "trainer": ["Saving checkpoint at step 3"],
            },
            "trainer was waiting for the file system; orchestrator was waiting for the trainer's weights",
        ),
        (
            {
                "orchestrator": ["Step 4 |    9.0s | Reward 0.5", "Resuming dispatcher", PIPELINE],
                "trainer": ["Step 4 |    8.0s | Loss 0.1 | Entropy 0.5 | Throughput 1 tokens/s"],
            },
            "trainer was waiting for a batch of the orchestrator; orchestrator was waiting for rollouts of the "
            "environments' servers and of inference (vLLM)",
        ),
        (
            {
                "trainer": ["Step 4 |    8.0s | Loss 0.1 | LR 1e-6"],
                "evals": ["Watching /r/broadcasts for new weight broadcasts"],
            },
            "evals was waiting for the trainer's weights; trainer's last line is 'Step 4 |    8.0s | Loss 0.1 | LR 1e-6'",
        ),
        (
            {"trainer": ["Something else"]},
            "its logs do not tell which component was waiting for which; trainer's last line is 'Something else'",
        ),
    ],
)
def test_who_waits_for_whom(logs: dict[str, list[str]], told: str, say: Any, tmp_path: Path) -> None:
    for component, messages in logs.items():
        say(component, *messages)

    assert who_waits(tmp_path) == told
