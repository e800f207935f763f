"""Ends that are not the run's own: what follows, what is resumed from, and what is left behind."""

import json
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from medarc_plugin.job import failures
from medarc_plugin.sandbox.processes import is_alive

RUNNING = "JobState=RUNNING Reason=None Requeue=1 Restarts={restarts} EndTime=Unknown PreemptTime=None"


@pytest.fixture
def long_run(run: Any) -> Any:
    """A run of nine steps with a checkpoint after every second one."""
    run.set_config(max_steps=9, ckpt={"interval": 2})
    return run


def steps_made(run: Any) -> list[int]:
    path = run.run_dir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["step"] for line in lines if "loss/mean" in line]


def stop(run: Any, until: Any, tmp_path: Path, number: int, at: int = 5, **variables: str) -> Any:
    """Start an attempt, and send it a signal when it has made a step."""
    process = run.start(STANDIN_PAUSE_AT=str(at), STANDIN_WAIT_FOR=str(tmp_path / "never"), **variables)
    until(lambda: at in steps_made(run))
    process.send_signal(number)
    return run.finish(process)


# What an end means, and what follows


@pytest.mark.parametrize(
    ("number", "fields", "reason", "requeued"),
    [
        # The warning ahead of a time limit, and one that somebody sent.
        (signal.SIGUSR2, "JobState=RUNNING Reason=None Restarts=0 EndTime={soon}", "time-limit", True),
        (
            signal.SIGUSR2,
            "JobState=RUNNING Reason=None Restarts=0 EndTime=2999-01-01T00:00:00",
            "asked",
            True,
        ),
        (signal.SIGUSR2, "JobState=RUNNING Restarts=0 PreemptTime=2026-01-01T00:00:00", "preempted", True),
        # At the limit itself; after `scontrol requeue` or a preemption; after `scancel`.
        (signal.SIGTERM, "JobState=COMPLETING Reason=TimeLimit Restarts=0", "time-limit", True),
        (signal.SIGTERM, "JobState=COMPLETING Reason=None Restarts=1", "requeued", True),
        (signal.SIGTERM, "JobState=COMPLETING Reason=None Restarts=0", "cancelled", False),
        # `kill`, or `scancel --batch --signal TERM`.
        (signal.SIGTERM, "JobState=RUNNING Reason=None Restarts=0", "signalled", False),
    ],
)
def test_what_a_signal_means_decides_what_follows(
    long_run: Any, until: Any, tmp_path: Path, number: int, fields: str, reason: str, requeued: bool
) -> None:
    soon = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 100))
    long_run.set_slurm(fields.format(soon=soon))

    finished = stop(long_run, until, tmp_path, number)

    (attempt,) = long_run.attempts()
    assert finished.code != 0
    assert (attempt["reason"], attempt["requeued"]) == (reason, requeued), finished.log
    # What SLURM has put back the job need not give back.
    assert long_run.requeued == (requeued and reason != "requeued")
    assert (attempt["checkpoint"], attempt["resumed_from"]) == (4, None)


def test_outside_slurm_nothing_is_requeued(long_run: Any, until: Any, tmp_path: Path) -> None:
    finished = stop(long_run, until, tmp_path, signal.SIGUSR2, SLURM_JOB_ID="")

    assert long_run.attempts()[0]["requeued"] is False, finished.log
    assert not long_run.asked.exists()


def test_requeueing_can_be_turned_off(long_run: Any, until: Any, tmp_path: Path) -> None:
    long_run.document["survive"]["requeue"] = False

    finished = stop(long_run, until, tmp_path, signal.SIGUSR2)

    assert "not put back into the queue: --no-requeue" in finished.log
    assert not long_run.requeued


def test_a_job_is_requeued_so_often_and_no_more(long_run: Any, until: Any, tmp_path: Path) -> None:
    long_run.document["survive"]["max_requeues"] = 2
    long_run.set_slurm(RUNNING.format(restarts=2))

    process = long_run.start(
        SLURM_RESTART_COUNT="2", STANDIN_PAUSE_AT=",,5", STANDIN_WAIT_FOR=str(tmp_path / "never")
    )
    until(lambda: 5 in steps_made(long_run))

    process.send_signal(signal.SIGUSR2)

    ended = long_run.finish(process)
    assert "it has been restarted 2 times, and --max-requeues is 2" in ended.log
    assert not long_run.requeued


def test_slurms_own_restarts_are_limited_too(long_run: Any) -> None:
    long_run.document["survive"]["max_requeues"] = 2

    finished = long_run.attempt(SLURM_RESTART_COUNT="3")

    assert finished.code == 3
    assert "SLURM has restarted this job 3 times, and --max-requeues is 2" in finished.log
    assert long_run.attempts()[0]["reason"] == "given-up"
    assert steps_made(long_run) == []


def test_a_task_of_an_array_is_requeued_alone(long_run: Any, until: Any, tmp_path: Path) -> None:
    text = f'#!/bin/sh\necho "$*" >> {long_run.asked}\n[ "$1" = requeue ] && kill -TERM $PPID\necho\n'
    long_run.set_program("scontrol", text)

    stop(long_run, until, tmp_path, signal.SIGUSR2, SLURM_ARRAY_JOB_ID="17", SLURM_ARRAY_TASK_ID="3")

    assert long_run.asked.read_text().splitlines() == [
        "-o show job 17_3",
        "-o show job 17_3",
        "requeue 17_3",
    ]


def test_what_slurm_says_to_a_requeue_is_shown(long_run: Any, until: Any, tmp_path: Path) -> None:
    refusal = "echo 'Requested operation is presently disabled' >&2; exit 1"
    long_run.set_slurm(RUNNING.format(restarts=0), requeue=refusal)

    finished = stop(long_run, until, tmp_path, signal.SIGUSR2)

    assert "could not be put back into the queue: scontrol: Requested operation" in finished.log
    assert "hint: submit it again with --resume" in finished.log


# Failures


def test_a_failure_after_progress_is_worth_another_attempt(long_run: Any) -> None:
    first = long_run.attempt(STANDIN_CRASH="trainer:5:1")
    long_run.set_slurm(RUNNING.format(restarts=1))
    second = long_run.attempt(STANDIN_CRASH="trainer:5:1", SLURM_RESTART_COUNT="1")

    attempts = long_run.attempts()
    assert [(a["reason"], a["checkpoint"], a["requeued"]) for a in attempts] == [
        ("failed", 4, True),
        ("failed", 4, False),
    ], first.log
    assert "it failed without a new checkpoint (the newest is of step 4)" in second.log
    assert long_run.asked.read_text().splitlines().count("requeue 17") == 1


def test_a_failure_at_the_start_is_the_end(long_run: Any) -> None:
    finished = long_run.attempt(STANDIN_CRASH="trainer:1:1")

    assert finished.code == 1
    assert not long_run.requeued
    assert long_run.attempts()[0]["requeued"] is False


def test_a_failure_behind_the_last_checkpoint_is_the_end(long_run: Any) -> None:
    finished = long_run.attempt(STANDIN_EXIT_CODE="7")

    assert finished.code == 7
    assert "the checkpoint of its last step, 9, is there" in finished.log
    assert not long_run.requeued


def test_time_without_a_new_checkpoint_is_given_twice(long_run: Any, until: Any, tmp_path: Path) -> None:
    long_run.set_config(ckpt={"interval": None})
    for count in range(2):
        long_run.set_slurm(f"JobState=COMPLETING Reason=TimeLimit Restarts={count}")
        process = long_run.start(
            SLURM_RESTART_COUNT=str(count),
            STANDIN_PAUSE_AT="5,5",
            STANDIN_WAIT_FOR=str(tmp_path / "never"),
        )
        until(lambda: steps_made(long_run).count(5) == count + 1)  # noqa: B023
        process.terminate()
        finished = long_run.finish(process)

    assert [a["requeued"] for a in long_run.attempts()] == [True, False]
    assert "2 attempts in a row have used up their time without a new checkpoint" in finished.log
    assert "--ckpt-interval" in finished.log


def test_the_first_component_that_fails_is_named(run: Any) -> None:
    finished = run.attempt(STANDIN_CRASH="orchestrator:1:1")

    (line,) = finished.lines("failed first")
    log = run.run_dir / "logs" / "latest" / "orchestrator.log"
    assert "orchestrator" in line
    assert "exit code 1" in line
    assert "RuntimeError: the stand-in was told to fail" in line
    assert str(log) in line or str(log.resolve()) in line
    assert line == f"failed first: {run.attempts()[0]['failure']}"


def test_a_launcher_that_takes_its_time_after_a_failure_is_ended(run: Any) -> None:
    began = time.monotonic()

    finished = run.attempt(STANDIN_CRASH="trainer:1:-9", STANDIN_CRASH_SECONDS="600")

    assert "SIGKILL" in finished.lines("failed first")[0]
    assert time.monotonic() - began < 60
    assert run.attempts()[0]["reason"] == "failed"


# Checkpoints


def test_a_half_written_checkpoint_is_not_resumed_from(long_run: Any, until: Any) -> None:
    torn = long_run.run_dir / "checkpoints" / "step_4" / "trainer" / "__0_0.distcp"
    process = long_run.start(STANDIN_TORN="4")
    until(torn.exists)
    process.terminate()
    long_run.finish(process)

    second = long_run.attempt(SLURM_RESTART_COUNT="1")

    assert second.code == 0, second.log
    assert "the checkpoint of step 4 is not whole: it is not resumed from" in second.log
    assert "Resuming from step 2" in second.log
    assert [a["checkpoint"] for a in long_run.attempts()] == [2, 9]


def test_a_half_written_checkpoint_alone_is_moved_aside(long_run: Any, until: Any) -> None:
    torn = long_run.run_dir / "checkpoints" / "step_2" / "trainer" / "__0_0.distcp"
    process = long_run.start(STANDIN_TORN="2")
    until(torn.exists)
    process.terminate()
    long_run.finish(process)

    second = long_run.attempt(SLURM_RESTART_COUNT="1")

    assert second.code == 0, second.log
    assert "Starting from scratch" in second.log
    assert (long_run.run_dir / "checkpoints" / "torn_step_2").is_dir()


def test_a_warned_run_may_finish_its_checkpoint(long_run: Any, until: Any) -> None:
    torn = long_run.run_dir / "checkpoints" / "step_4" / "trainer"
    process = long_run.start(STANDIN_TORN="4")
    until((torn / "__0_0.distcp").exists)
    process.send_signal(signal.SIGUSR2)
    signals = long_run.run_dir / "configs" / "attempts" / "1" / "signals.jsonl"
    until(signals.exists)

    assert process.poll() is None
    (torn / ".metadata").write_text("whole")

    finished = long_run.finish(process)
    assert long_run.attempts()[0]["checkpoint"] == 4, finished.log


# Nothing is left


def test_a_grandchild_with_a_session_of_its_own_is_ended(run: Any, tmp_path: Path) -> None:
    finished = run.attempt(STANDIN_DETACH=str(tmp_path / "detached"))

    assert finished.code == 0, finished.log
    assert not is_alive(int((tmp_path / "detached").read_text()))


def test_a_killed_owner_leaves_nothing(run: Any, until: Any, tmp_path: Path) -> None:
    process = run.start(STANDIN_WAIT_FOR=str(tmp_path / "never"), STANDIN_DETACH=str(tmp_path / "detached"))
    report = Path(run.variables["STANDIN_REPORT"])
    until(lambda: report.exists() and (tmp_path / "detached").exists())
    trainer = json.loads(report.read_text())["process"]
    detached = int((tmp_path / "detached").read_text())

    process.kill()

    until(lambda: not is_alive(trainer) and not is_alive(detached))
    log = run.finish(process).log
    assert "medarc | the process that owned this run was killed" in log


def test_neighbours_are_left_alone(run: Any, tmp_path: Path) -> None:
    neighbour = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        run.attempt(STANDIN_DETACH=str(tmp_path / "detached"))

        assert neighbour.poll() is None
    finally:
        neighbour.kill()
        neighbour.wait()


# Two attempts at once


def test_a_later_attempt_ends_an_older_one(long_run: Any, until: Any, tmp_path: Path) -> None:
    long_run.document["survive"]["beat_seconds"] = 0.2
    older = long_run.start(STANDIN_PAUSE_AT="5", STANDIN_WAIT_FOR=str(tmp_path / "never"))
    until(lambda: 5 in steps_made(long_run))

    second = long_run.attempt(SLURM_RESTART_COUNT="1")

    first = long_run.finish(older)
    assert second.code == 0, second.log
    assert "attempt 1 of job 17 on" in second.log
    assert "a later attempt of this job has taken over the run" in first.log
    ends = {a["attempt"]: (a["reason"], a["requeued"]) for a in long_run.attempts()}
    assert ends == {1: ("superseded", False), 2: ("finished", False)}
    # The older one wrote nothing once the later one had begun.
    assert steps_made(long_run) == [1, 2, 3, 4, 5, 5, 6, 7, 8, 9]


def test_another_job_finds_the_run_directory_taken(long_run: Any, until: Any, tmp_path: Path) -> None:
    long_run.document["survive"]["beat_seconds"] = 0.2
    older = long_run.start(STANDIN_PAUSE_AT="5", STANDIN_WAIT_FOR=str(tmp_path / "gate"))
    until(lambda: 5 in steps_made(long_run))

    second = long_run.attempt(SLURM_JOB_ID="18")

    (tmp_path / "gate").touch()
    first = long_run.finish(older)
    assert second.code == 3
    assert "attempt 1 of job 17 on" in second.log
    assert "is alive in this run directory: prime-rl is not started" in second.log
    assert first.code == 0, first.log
    assert steps_made(long_run) == list(range(1, 10))


def test_an_attempt_that_fell_silent_is_not_waited_for_long(long_run: Any) -> None:
    long_run.document["survive"]["beat_seconds"] = 0.1
    folder = long_run.run_dir / "configs" / "attempts" / "1"
    folder.mkdir(parents=True)
    beat = {
        "attempt": 1,
        "job_id": "17",
        "host": "another",
        "boot": "b",
        "process": 7,
        "start": "1",
        "beat": 3,
    }
    (folder / "heartbeat.json").write_text(json.dumps(beat))

    finished = long_run.attempt(SLURM_RESTART_COUNT="1")

    assert finished.code == 0, finished.log
    assert "attempt 1 of job 17 on another was not seen to end" in finished.log


def test_a_dead_owner_on_this_node_is_not_waited_for(long_run: Any, until: Any, tmp_path: Path) -> None:
    process = long_run.start(STANDIN_PAUSE_AT="5", STANDIN_WAIT_FOR=str(tmp_path / "never"))
    until(lambda: 5 in steps_made(long_run))
    process.kill()
    long_run.finish(process)

    second = long_run.attempt(SLURM_RESTART_COUNT="1")

    assert second.code == 0, second.log
    assert "was not seen to end" not in second.log
    assert "Resuming from step 4" in second.log


# One GPU for both

BEGUN = "the trainer has begun"


@pytest.fixture
def shared(run: Any) -> Any:
    """A run whose trainer and vLLM share a GPU."""
    run.document["gpus"] = {"count": 1, "shared": True, "trainer": 1, "inference": 1}
    run.variables |= {"CUDA_VISIBLE_DEVICES": "5", "SLURM_JOB_GPUS": "5"}
    run.document["ports"] = {
        "size": 3,
        "above": [],
        "slots": [
            {"offset": 1, "paths": ["inference.server.port", "orchestrator.model.client.base_url"]},
            {"offset": 2, "paths": ["inference.backend_port", "orchestrator.model.client.admin_base_url[*]"]},
        ],
    }
    client = {"base_url": "http://localhost:8000/v1", "admin_base_url": ["http://localhost:8100/v1"]}
    run.set_config(
        inference={"server": {"port": 8000}, "backend_port": 8100, "output_dir": "x"},
        orchestrator={"model": {"client": client}},
        weight_broadcast={"type": "filesystem"},
        env_vars={"MY_SWITCH": "on"},
    )
    return run


def test_vllm_is_started_first_and_alone(shared: Any, until: Any, tmp_path: Path, report: Any) -> None:
    names = "MY_SWITCH,CUDA_VISIBLE_DEVICES"
    process = shared.start(STANDIN_HEALTHY=str(tmp_path / "healthy"), STANDIN_REPORT_NAMES=names)
    until(Path(shared.variables["STANDIN_REPORT"]).exists)
    server = report()
    trained_early = (shared.run_dir / "logs").exists()
    (tmp_path / "healthy").touch()
    finished = shared.finish(process)

    attempt = shared.run_dir / "configs" / "attempts" / "1"
    assert finished.code == 0, finished.log
    assert not trained_early
    assert server["argv"] == ["@", str(attempt / "inference.json")]
    assert server["environment"]["MY_SWITCH"] == "on"
    assert server["environment"]["CUDA_VISIBLE_DEVICES"] == "5"
    assert report()["gpus"] == [5]
    assert report()["argv"] == ["@", str(attempt / "rl.json")]
    assert json.loads((attempt / "rl.json").read_text())["inference"] is None
    assert "output_dir" not in json.loads((attempt / "inference.json").read_text())
    assert finished.lines("vLLM has its share of the GPU after")
    assert not is_alive(server["process"])


def test_the_trainer_alone_waits_until_vllm_has_the_gpu(
    shared: Any, until: Any, tmp_path: Path, report: Any
) -> None:
    process = shared.start(STANDIN_HEALTHY=str(tmp_path / "healthy"))
    log = shared.run_dir / "configs" / "attempts" / "1" / "prime_rl.log"
    # The orchestrator is at work before vLLM has said anything.
    until(lambda: log.exists() and "asking the server" in log.read_text())
    early = log.read_text()
    (tmp_path / "healthy").touch()
    finished = shared.finish(process)

    assert finished.code == 0, finished.log
    assert BEGUN not in early
    assert BEGUN in log.read_text()
    assert not Path(report()["commands"]["torchrun"]).exists()  # gone with the run's caches


def test_a_launcher_that_is_asked_to_end_takes_the_waiting_trainer_with_it(
    shared: Any, until: Any, tmp_path: Path
) -> None:
    process = shared.start(STANDIN_HEALTHY=str(tmp_path / "never"))
    log = shared.run_dir / "configs" / "attempts" / "1" / "prime_rl.log"
    until(lambda: log.exists() and "asking the server" in log.read_text())

    process.send_signal(signal.SIGTERM)
    finished = shared.finish(process)

    assert finished.code == 1, finished.log  # the launcher's, as prime-rl's is then
    assert BEGUN not in log.read_text()
    assert shared.attempts()[0]["signals"] == ["SIGTERM"]


def test_the_trainer_starts_when_vllm_has_measured_the_gpu_and_is_not_healthy_yet(
    shared: Any, until: Any, tmp_path: Path
) -> None:
    process = shared.start(STANDIN_HEALTHY=str(tmp_path / "healthy"), STANDIN_MEASURED="1")
    log = shared.run_dir / "configs" / "attempts" / "1" / "prime_rl.log"
    until(lambda: log.exists() and BEGUN in log.read_text())
    (tmp_path / "healthy").touch()
    finished = shared.finish(process)

    assert finished.code == 0, finished.log
    assert finished.lines("vLLM has its share of the GPU after")


def test_a_server_that_dies_before_it_is_healthy_ends_the_job(
    shared: Any, until: Any, tmp_path: Path, report: Any
) -> None:
    process = shared.start(STANDIN_HEALTHY=str(tmp_path / "never"))
    until(Path(shared.variables["STANDIN_REPORT"]).exists)

    os.kill(report()["process"], signal.SIGKILL)

    finished = shared.finish(process)
    assert finished.code == 128 + signal.SIGKILL
    assert "inference" in finished.lines("failed first")[0]
    assert shared.attempts()[0]["reason"] == "failed"


def test_a_server_that_dies_while_training_ends_the_run(
    shared: Any, until: Any, tmp_path: Path, report: Any
) -> None:
    shared.set_config(max_steps=9)
    process = shared.start(STANDIN_PAUSE_AT="3", STANDIN_WAIT_FOR=str(tmp_path / "never"))
    until(lambda: 3 in steps_made(shared))
    trainer = report()["process"]
    for line in (shared.run_dir / "configs/attempts/1/inference.log").read_text().splitlines():
        assert "serving" in line
    pids = subprocess.run(
        ["pgrep", "-f", shlex.join(["prime_rl.entrypoints.inference"])],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    mine = [pid for pid in pids if str(shared.run_dir) in Path("/proc", pid, "cmdline").read_text()]

    os.kill(int(mine[0]), signal.SIGKILL)

    finished = shared.finish(process)
    assert finished.code == 128 + signal.SIGKILL, finished.log
    assert "inference" in finished.lines("failed first")[0]
    assert not is_alive(trainer)


def test_a_stop_while_vllm_starts_ends_it(shared: Any, until: Any, tmp_path: Path, report: Any) -> None:
    process = shared.start(STANDIN_HEALTHY=str(tmp_path / "never"))
    until(Path(shared.variables["STANDIN_REPORT"]).exists)
    server = report()["process"]

    process.terminate()

    finished = shared.finish(process)
    assert shared.attempts()[0]["reason"] == "signalled", finished.log
    assert not is_alive(server)


# Weights


def test_a_finished_run_without_exported_weights_is_finished(run: Any) -> None:
    run.document["export"] = True

    finished = run.attempt()

    # The stand-in's environment has no torch.
    assert finished.code == 0
    assert run.attempts()[0]["reason"] == "finished"
    assert run.attempts()[0]["unexported"].startswith("exit code 13: ")
    assert "torch" in run.attempts()[0]["unexported"]
    assert "the run is finished, and its weights are not exported (exit code 13)" in finished.log
    assert f"hint: medarc_slurm export {run.run_dir}" in finished.log
    assert json.loads((run.folder / "state.json").read_text())["phase"] == "done"


def test_a_run_that_failed_exports_nothing(run: Any) -> None:
    run.document["export"] = True

    finished = run.attempt(STANDIN_EXIT_CODE="7")

    assert finished.code == 7
    assert "weights" not in finished.log


# What was found by those who tried to break it


def test_a_cancellation_after_a_warning_is_final(long_run: Any, until: Any) -> None:
    data = long_run.run_dir / "checkpoints" / "step_4" / "trainer" / "__0_0.distcp"
    process = long_run.start(STANDIN_TORN="4")
    until(data.exists)
    process.send_signal(signal.SIGUSR2)
    until((long_run.run_dir / "configs/attempts/1/signals.jsonl").exists)
    long_run.set_slurm("JobState=COMPLETING Reason=None Restarts=0 EndTime=2026-01-01T00:00:00")

    process.terminate()

    finished = long_run.finish(process)
    (attempt,) = long_run.attempts()
    assert (attempt["reason"], attempt["requeued"]) == ("cancelled", False), finished.log
    assert not long_run.requeued


def test_a_job_that_is_cancelled_while_it_winds_down_is_not_requeued(long_run: Any) -> None:
    # The controller says so when it is asked a last time.
    text = f'#!/bin/sh\necho "$*" >> {long_run.asked}\necho JobState=COMPLETING Reason=None Restarts=0\n'
    long_run.set_program("scontrol", text)

    finished = long_run.attempt(STANDIN_CRASH="trainer:5:1")

    assert "this job was cancelled meanwhile" in finished.log
    assert not long_run.requeued


def test_two_jobs_that_start_at_once_do_not_both_train(long_run: Any, until: Any, tmp_path: Path) -> None:
    gate = tmp_path / "checked"
    lines = "echo '2, GPU-2, NVIDIA H200, 143771 MiB'; echo '5, GPU-5, NVIDIA H200, 143771 MiB'"
    long_run.set_program(
        "nvidia-smi",
        f'#!/bin/sh\n[ "$SLURM_JOB_ID" = 17 ] && until [ -e {gate} ]; do sleep 0.01; done\n{lines}\n',
    )
    first = long_run.start()
    until((long_run.run_dir / "configs/attempts/1/heartbeat.json").exists)

    second = long_run.attempt(SLURM_JOB_ID="18")

    gate.touch()
    ended = long_run.finish(first)
    assert second.code == 3, second.log
    assert ended.code == 0, ended.log
    assert steps_made(long_run) == list(range(1, 10))


def test_a_checkpoint_that_is_written_anew_over_a_whole_trainers_part_is_not_trusted(
    long_run: Any, until: Any
) -> None:
    long_run.attempt(STANDIN_STEPS="4")
    (long_run.run_dir / "checkpoints" / "step_4" / "orchestrator" / "progress.pt").unlink()
    progress = long_run.run_dir / "checkpoints" / "step_4" / "orchestrator" / "progress.pt"
    process = long_run.start(SLURM_RESTART_COUNT="1", STANDIN_TORN="4")
    until(progress.exists)
    until((long_run.run_dir / "checkpoints" / "step_4" / "trainer" / "__0_0.distcp").exists)
    process.terminate()
    long_run.finish(process)

    third = long_run.attempt(SLURM_RESTART_COUNT="2")

    assert third.code == 0, third.log
    assert "Resuming from step 2" in third.log


def test_a_branch_that_was_left_is_not_gone_on_with(long_run: Any, until: Any, tmp_path: Path) -> None:
    long_run.attempt(STANDIN_STEPS="8")
    long_run.document["token"] = "77aa"
    long_run.set_config(resume={"step": 4, "dir": None})
    process = long_run.start(STANDIN_PAUSE_AT="7", STANDIN_WAIT_FOR=str(tmp_path / "never"))
    until(lambda: steps_made(long_run).count(7) == 2)
    process.terminate()
    long_run.finish(process)

    third = long_run.attempt(SLURM_RESTART_COUNT="1")

    assert "Resuming from step 6" in third.log, third.log
    assert (long_run.run_dir / "checkpoints" / "abandoned_step_8").is_dir()
    assert [a["resumed_from"] for a in long_run.attempts()] == [None, 4, 6]


def test_a_server_that_ends_before_it_is_healthy_has_failed_however_well(shared: Any) -> None:
    python = shlex.quote(shared.document["python"])
    program = f'#!/bin/sh\ncase "$2" in *inference) exit 0;; esac\nexec {python} "$@"\n'
    shared.document["python"] = str(shared.set_program("python", program))

    finished = shared.attempt()

    assert finished.code == 1, finished.log
    assert shared.attempts()[0]["reason"] == "failed"
    assert "inference" in finished.lines("failed first")[0]


def test_ordinary_words_of_failure_end_nothing() -> None:
    assert failures.read_line("trainer failed with exit code 1") is None
    assert failures.read_line("12:00:01   ERROR Error: Trainer failed with exit code 1") == ("trainer", 1)


def test_output_without_end_keeps_no_signal_away(run: Any, until: Any) -> None:
    program = (
        f'#!/bin/sh\n[ "$1" = -m ] || exec {shlex.quote(run.document["python"])} "$@"\n'
        "exec yes 'a line of some length, over and over again, without an end that anybody has seen'\n"
    )
    run.document["python"] = str(run.set_program("python", program))
    run.document["survive"]["requeue"] = False
    with (run.run_dir / "out").open("wb") as out:
        run.write()
        process = subprocess.Popen(
            [run.interpreter, run.folder / "job", run.folder / "launch.json"], env=run.variables, stdout=out
        )
        output = run.run_dir / "configs/attempts/1/prime_rl.log"
        until(lambda: output.exists() and output.stat().st_size > 50_000_000)
        process.terminate()
        process.wait(timeout=60)

    assert run.attempts()[0]["signals"] == ["SIGTERM"]
    output.unlink()


def test_a_log_that_cannot_be_written_does_not_end_the_run(run: Any) -> None:
    run.write()
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [run.interpreter, run.folder / "job", run.folder / "launch.json"],
            env=run.variables,
            stdout=full,
            stderr=full,
            timeout=60,
            check=False,
        )

    assert done.returncode == 0
    assert run.attempts()[0]["reason"] == "finished"


@pytest.mark.parametrize("lease", ['{"attempt": null}', "[]", '{"attempt": "seven"}', "torn"])
def test_a_lease_that_says_nothing_is_none(run: Any, lease: str) -> None:
    (run.folder / "lease.json").write_text(lease)

    finished = run.attempt()

    assert finished.code == 0, finished.log


def test_an_attempt_that_nobody_saw_end_is_recorded_by_the_next(long_run: Any) -> None:
    long_run.document["survive"]["beat_seconds"] = 0.1
    folder = long_run.run_dir / "configs" / "attempts" / "1"
    folder.mkdir(parents=True)
    (folder / "started.json").write_text(json.dumps({"attempt": 1, "job_id": "17", "token": "3f2a"}))

    long_run.attempt(SLURM_RESTART_COUNT="1")

    assert [(a["attempt"], a["reason"]) for a in long_run.attempts()] == [(1, "lost"), (2, "finished")]


def test_the_jobs_folders_go_over_what_prime_rl_sets_itself(run: Any) -> None:
    run.set_config(env_vars={"TRITON_CACHE_DIR": "/mine"})

    run.attempt()

    variables = json.loads((run.run_dir / "configs/attempts/1/rl.json").read_text())["env_vars"]
    assert variables["TRITON_CACHE_DIR"] == "/mine"
    assert "/medarc-" in variables["VLLM_CACHE_ROOT"]


def test_a_killed_owner_leaves_nothing_that_has_lost_its_environment(
    run: Any, until: Any, tmp_path: Path
) -> None:
    # As a program that writes its title over it; it leaves a child of the same kind behind.
    program = (
        f'#!/bin/sh\n[ "$1" = -m ] || exec {shlex.quote(run.document["python"])} "$@"\n'
        f"env -i sleep 600 &\necho $! > {tmp_path}/child\necho $$ > {tmp_path}/self\n"
        f"touch {tmp_path}/ready\nexec env -i sleep 600\n"
    )
    run.document["python"] = str(run.set_program("python", program))
    process = run.start()
    until((tmp_path / "ready").exists)
    pids = [int((tmp_path / name).read_text()) for name in ("child", "self")]
    # The guardian is told of a process once it is started.
    until((run.run_dir / "configs" / "launch" / "state.json").exists)

    process.kill()

    until(lambda: not any(map(is_alive, pids)))
    run.finish(process)


# Compile caches


def test_what_was_compiled_is_given_back_while_the_run_goes_on(run: Any, tmp_path: Path) -> None:
    run.document["caches"] = {"warm": True, "most_mib": 64}
    run.variables["MEDARC_CACHE_DIR"] = str(tmp_path / "warm")
    run.set_config(max_steps=9)
    process = run.start(STANDIN_PAUSE_AT="3", STANDIN_WAIT_FOR=str(tmp_path / "go"))
    said = next(line for line in process.stdout if "nothing new was compiled" in line)
    (tmp_path / "go").touch()
    finished = run.finish(process)

    assert said.startswith("medarc | compile caches: ")
    assert finished.code == 0, finished.log
    assert finished.lines("nothing new was compiled")
