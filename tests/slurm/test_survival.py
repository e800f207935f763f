"""What a real SLURM does to a run, and what becomes of it."""

import json
import os
import shutil
import signal
import socket
import tempfile
import time
from pathlib import Path

import pytest
from standins.cluster import SCRIPTS, eventually, log_in

from medarc_plugin.sandbox import Sandbox, SandboxSpec
from medarc_plugin.sandbox.controller import client_environment
from medarc_plugin.sandbox.processes import is_alive

pytestmark = pytest.mark.slurm

LINES = (
    "PreemptType=preempt/partition_prio",
    "PreemptMode=REQUEUE",
    "PartitionName=low Nodes=ALL Default=YES PriorityTier=1 DefaultTime=1-00:00:00 State=UP",
    "PartitionName=high Nodes=ALL PriorityTier=9 PreemptMode=OFF DefaultTime=1-00:00:00 State=UP",
    "SlurmdTimeout=10",
    # A node that is lost comes back by itself when its slurmd does.
    "ReturnToService=2",
)

RL = ("--train-gpus", "1", "--infer-gpus", "1", "--max-steps", "16", "--ckpt-interval", "2")


@pytest.fixture
def slurm(slurm_programs):
    """A cluster of the test's own: two nodes, two partitions of which one preempts the other."""
    folder = Path(tempfile.mkdtemp(prefix="medarc-"))
    sandbox = Sandbox(folder / "slurm")
    spec = SandboxSpec(
        nodes=2, cpus=64, gpus=8, gpu_type="h100", gpu_kind="standin", partition=None, extra_lines=LINES
    )
    try:
        sandbox.up(spec)
        yield sandbox
    finally:
        sandbox.down()
        shutil.rmtree(folder)


@pytest.fixture
def local():
    """The nodes' own disk: a short path, since sockets lie below it."""
    folder = Path(tempfile.mkdtemp(prefix="local-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def cluster(slurm, local, tmp_path):
    environment = client_environment(slurm.environment()["SLURM_CONF"])
    return log_in(tmp_path, {**environment, "TMPDIR": str(local)})


def steps_made(run):
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["step"] for line in lines if "loss/mean" in line]


def read(path):
    return path.read_text() if path.exists() else ""


def heartbeat(run, attempt=1):
    return json.loads((run / "configs" / "attempts" / str(attempt) / "heartbeat.json").read_text())


def paused(cluster, *argv, at="5", **variables):
    """Submit a run that stops at a step, and wait until it is there."""
    submitted = cluster.submit(
        "rl",
        *("--output-dir", "runs/x", *RL, *argv),
        STANDIN_PAUSE_AT=at,
        STANDIN_WAIT_FOR=str(cluster.folder / "gate"),
        **variables,
    )
    eventually(lambda: int(at.split(",")[0]) in steps_made(submitted.run))
    return submitted


def test_a_run_survives_a_requeue_a_time_limit_and_a_preemption(cluster, wait_for_end_of):
    submitted = paused(cluster, "-p", "low", at="5,9,13")
    run, job = submitted.run, submitted.job

    cluster.run("scontrol", "requeue", job)
    eventually(lambda: steps_made(run)[-1] == 9)
    cluster.run("scontrol", "update", f"job={job}", "EndTime=now+1")
    eventually(lambda: len(submitted.attempts) == 2)
    # The limit is the job's from then on; it is set anew as an operator would.
    eventually(lambda: cluster.run("scontrol", "update", f"job={job}", "TimeLimit=60").returncode == 0)
    eventually(lambda: steps_made(run)[-1] == 13)
    urgent = cluster.run(
        *("sbatch", "--parsable", "-p", "high", "-N2", "--gres=gpu:8", "--wrap", "true", "-o", "/dev/null")
    ).stdout.strip()
    wait_for_end_of(urgent, cluster.env)
    ended = wait_for_end_of(job, cluster.env, seconds=90)

    log = submitted.log.read_text()
    assert ended["JobState"] == "COMPLETED", log
    attempts = submitted.attempts
    assert [a["reason"] for a in attempts] == ["requeued", "time-limit", "requeued", "finished"]
    assert [a["requeued"] for a in attempts] == [True, True, True, False]
    assert [a["resumed_from"] for a in attempts] == [None, 4, 8, 12]
    assert [a["checkpoint"] for a in attempts] == [4, 8, 12, 16]
    assert steps_made(run) == [1, 2, 3, 4, 5, *range(5, 10), *range(9, 14), 13, 14, 15, 16]
    assert all(f"rl, attempt {number}, job {job}" in log for number in (1, 2, 3, 4))
    state = json.loads((run / "configs" / "launch" / "state.json").read_text())
    assert (state["phase"], state["step"], state["highest_step"]) == ("done", 16, 16)
    run_ids = {
        json.loads(path.read_text())["environment"]["PRL_RUN_ID"]
        for path in run.glob("configs/attempts/*/launched.json")
    }
    assert len(run_ids) == 1
    assert_reported(cluster, submitted)


def assert_reported(cluster, submitted):
    """The run's report, by its job's id, is of all attempts, and has each step once."""
    done = cluster.run(SCRIPTS / "medarc_slurm", "report", submitted.job, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["run_dir"] == str(submitted.run)
    assert [attempt["reason"] for attempt in found["attempts"]] == [a["reason"] for a in submitted.attempts]
    assert all(attempt["phases_kept"] for attempt in found["attempts"])
    assert found["gpu_hours"] > 0
    assert found["attempts"][-1]["phases"][-1]["phase"] == "done"
    loss = found["series"]["loss"]
    assert (loss["steps"], loss["abandoned"]["steps"]) == (list(range(1, 17)), [5, 9, 13])
    assert {gpu["memory_used_mib"][0] for gpu in found["gpus"]} == {4096}
    page = cluster.run(SCRIPTS / "medarc_slurm", "report")
    assert page.stdout == f"report  {submitted.run}/configs/launch/report.html\n", page.stderr


def test_the_warning_ahead_of_a_time_limit_ends_the_run_in_order(cluster, wait_for_end_of):
    # Of one minute SLURM sends it at once, since it may come a minute early.
    submitted = cluster.submit(
        *("rl", "--output-dir", "runs/x", *RL, "--time", "3", "--signal-time", "110"),
        STANDIN_PAUSE_AT="5",
        STANDIN_WAIT_FOR=str(cluster.folder / "gate"),
    )
    eventually(lambda: 5 in steps_made(submitted.run))
    cluster.run("scancel", "--batch", "--signal", "USR2", submitted.job)

    ended = wait_for_end_of(submitted.job, cluster.env, seconds=90)

    assert ended["JobState"] == "COMPLETED", submitted.log.read_text()
    # With 180 s to go and a warning 110 s ahead, it is taken for what SLURM itself would send.
    assert [(a["reason"], a["requeued"]) for a in submitted.attempts] == [
        ("time-limit", True),
        ("finished", False),
    ]
    assert submitted.attempts[1]["resumed_from"] == 4


def test_a_deliberate_end_is_final(cluster, wait_for_end_of):
    submitted = paused(cluster)

    cluster.run("scancel", submitted.job)

    ended = wait_for_end_of(submitted.job, cluster.env)
    eventually(lambda: submitted.attempts)
    assert ended["JobState"] == "CANCELLED"
    assert [(a["reason"], a["requeued"]) for a in submitted.attempts] == [("cancelled", False)]


def test_an_owner_that_is_killed_leaves_nothing_and_can_be_requeued(cluster, local, wait_for_end_of):
    submitted = paused(cluster, STANDIN_DETACH=str(cluster.folder / "detached"))
    trainer = cluster.report()["process"]
    detached = int(eventually(lambda: read(cluster.folder / "detached")))

    os.kill(heartbeat(submitted.run)["process"], signal.SIGKILL)

    wait_for_end_of(submitted.job, cluster.env)
    eventually(lambda: not is_alive(trainer) and not is_alive(detached))
    eventually(lambda: not list(local.iterdir()))
    cluster.run("scontrol", "requeue", submitted.job)
    (cluster.folder / "gate").touch()
    eventually((submitted.run / "configs/attempts/2").exists)
    ended = wait_for_end_of(submitted.job, cluster.env, seconds=90)
    assert ended["JobState"] == "COMPLETED", submitted.log.read_text()
    assert "Resuming from step 4" in submitted.log.read_text()


@pytest.mark.parametrize("daemon", ["slurmctld", "slurmd-node1"])
def test_a_run_outlives_slurms_own_daemons(slurm, cluster, wait_for_end_of, daemon):
    submitted = paused(cluster)
    before = heartbeat(submitted.run)["beat"]
    # A controller writes down what it knows some seconds later: only then does it know the job again.
    since = time.time()
    cluster.run("scontrol", "update", f"job={submitted.job}", "Nice=1")
    eventually(lambda: (slurm.directory / "state" / "job_state").stat().st_mtime > since)
    slurm.kill(daemon)
    eventually(lambda: heartbeat(submitted.run)["beat"] > before)
    slurm.boot(daemon)

    (cluster.folder / "gate").touch()

    ended = wait_for_end_of(submitted.job, cluster.env, seconds=90)
    assert ended["JobState"] == "COMPLETED", submitted.log.read_text()
    assert [a["reason"] for a in submitted.attempts] == ["finished"]


def test_a_lost_nodes_attempt_ends_when_another_node_takes_over(slurm, cluster, wait_for_end_of):
    submitted = paused(cluster)
    trainer = cluster.report()["process"]
    node = cluster.squeue(submitted.job, "%N")

    slurm.kill(f"slurmd-{node}")

    eventually((submitted.run / "configs/attempts/2/launched.json").exists, seconds=120)
    assert not is_alive(trainer)
    ended = wait_for_end_of(submitted.job, cluster.env, seconds=90)
    assert ended["JobState"] == "COMPLETED", submitted.log.read_text()
    ends = {a["attempt"]: a["reason"] for a in submitted.attempts}
    assert ends == {1: "superseded", 2: "finished"}
    assert steps_made(submitted.run) == [1, 2, 3, 4, 5, *range(5, 17)]


def cancel(cluster, submitted):
    cluster.run("scancel", submitted.job)


def time_out(cluster, submitted):
    cluster.run("scontrol", "update", f"job={submitted.job}", "EndTime=now+1")


def finish(cluster, submitted):
    del submitted
    (cluster.folder / "gate").touch()


def kill_trainer(cluster, submitted):
    del submitted
    os.kill(cluster.report()["process"], signal.SIGKILL)


def kill_owner(cluster, submitted):
    del cluster
    os.kill(heartbeat(submitted.run)["process"], signal.SIGKILL)


@pytest.mark.parametrize(
    "end", [finish, cancel, time_out, kill_trainer, kill_owner], ids=lambda end: end.__name__
)
def test_nothing_is_left_after_any_end(cluster, local, wait_for_end_of, end):
    submitted = paused(
        cluster, "--no-requeue", STANDIN_DETACH=str(cluster.folder / "detached"), STANDIN_BIND="1"
    )
    detached = int(eventually(lambda: read(cluster.folder / "detached")))
    config = json.loads((submitted.run / "configs/attempts/1/rl.json").read_text())
    ports = [config["inference"]["server"]["port"], config["inference"]["backend_port"]]
    assert list(local.iterdir())

    end(cluster, submitted)

    wait_for_end_of(submitted.job, cluster.env, seconds=90)
    eventually(lambda: not is_alive(detached))
    eventually(lambda: not list(local.iterdir()))
    for port in ports:
        socket.create_server(("", port)).close()
