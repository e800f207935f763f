"""Looking at runs and steering them, on a real SLURM."""

import json
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest
from standins.cluster import EXAMPLES, SCRIPTS, eventually, log_in

from medarc_plugin.sandbox import Sandbox, SandboxSpec
from medarc_plugin.sandbox.controller import client_environment
from medarc_plugin.sandbox.processes import is_alive

pytestmark = pytest.mark.slurm

SFT = ("--gpus", "1", "--max-steps", "8")


@pytest.fixture
def cluster(slurm_env, tmp_path):
    return log_in(tmp_path, slurm_env)


def medarc(cluster, *argv, **variables):
    return cluster.run(SCRIPTS / "medarc_slurm", *argv, **variables)


def paused(cluster, name, at="3", **variables):
    """Submit a run that stops at a step until the file `gate` is there."""
    return cluster.submit(
        *("sft", "--output-dir", f"runs/{name}", *SFT, "--ckpt-interval", "2"),
        STANDIN_PAUSE_AT=at,
        STANDIN_WAIT_FOR=str(cluster.folder / "gate"),
        **variables,
    )


def status(cluster, *named):
    done = medarc(cluster, "status", *named, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["runs"]


def running_at(cluster, submitted, step):
    """Wait until a run has come to a step, and give its status."""

    def look():
        (found,) = status(cluster, submitted.run)
        return found if found["state"] == "RUNNING" and found["step"] == step else None

    return eventually(look)


def start(cluster, *argv):
    return subprocess.Popen(
        [SCRIPTS / "medarc_slurm", *map(str, argv)],
        cwd=cluster.folder,
        env=cluster.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_run_is_seen_in_the_queue_at_work_and_at_its_end(cluster):
    going = paused(cluster, "going")
    waits = cluster.submit("sft", "--output-dir", "runs/waits", *SFT, "--sbatch-arg", "hold")

    found = running_at(cluster, going, 3)
    held = status(cluster, waits.job)[0]
    table = medarc(cluster, "list")

    assert (found["job_id"], found["phase"], found["max_steps"]) == (going.job, "training", 8)
    assert (found["attempt"], found["gpus"], len(found["gpu_ids"])) == (1, 1, 1)
    assert (found["node"], found["partition"]) == ("node1", "debug")
    assert found["gpu_hours"] > 0
    assert found["limit"] is not None
    assert {found["sources"][name] for name in ("state", "node", "limit")} == {"squeue"}
    assert (held["state"], held["reason"]) == ("PENDING", "JobHeldUser")
    assert [line.split()[:3] for line in table.stdout.splitlines()[1:]] == [
        ["runs/waits", waits.job, "PENDING"],
        ["runs/going", going.job, "RUNNING"],
    ]

    (cluster.folder / "gate").touch()
    waited = medarc(cluster, "wait", going.run)
    (ended,) = status(cluster, going.run)
    cancelled = medarc(cluster, "cancel", "--yes", waits.run)
    code = medarc(cluster, "wait", waits.run).returncode

    # The stand-in's environment has nothing to export with.
    assert waited.returncode == 0
    assert waited.stdout.startswith(
        f"job {going.job} is over: COMPLETED, exit code 0: its weights are not exp"
    )
    assert (ended["state"], ended["exit_code"], ended["step"], ended["over"]) == ("COMPLETED", 0, 8, True)
    assert (cancelled.returncode, cancelled.stdout) == (
        0,
        f"runs/waits: job {waits.job} is over: CANCELLED\n",
    )
    assert code == 143


def test_logs_are_followed_across_a_requeue_to_the_end(cluster):
    submitted = paused(cluster, "x", at="3,5")
    running_at(cluster, submitted, 3)
    follower = start(cluster, "logs", "-f", submitted.run)
    eventually(lambda: "step 3 of 8" in follower.stdout.readline())

    assert cluster.run("scontrol", "requeue", submitted.job).returncode == 0
    eventually((submitted.run / "configs/attempts/2").exists)
    running_at(cluster, submitted, 5)
    (cluster.folder / "gate").touch()
    out, err = follower.communicate(timeout=120)

    lines = out.splitlines()
    assert follower.returncode == 0
    assert any(
        line.startswith(f"job          | medarc | x: sft, attempt 2, job {submitted.job}") for line in lines
    )
    steps = [int(line.split()[3]) for line in lines if line.startswith("trainer      | step ")] or [
        int(line.rsplit(maxsplit=1)[1]) for line in lines if line.startswith("trainer      | step ")
    ]
    assert steps[-6:] == [3, 4, 5, 6, 7, 8]
    assert "attempt 2" in err
    assert err.splitlines()[-1].startswith(
        f"job {submitted.job} is over: COMPLETED, exit code 0: its weights"
    )


def test_a_launch_that_is_followed_ends_as_its_run_does(cluster):
    launch = (SCRIPTS / "sft", "--backend", "slurm", "@", EXAMPLES / "sft.toml", *SFT, "--follow")

    good = cluster.run(*launch, "--output-dir", "runs/good")
    bad = cluster.run(*launch, "--output-dir", "runs/bad", STANDIN_EXIT_CODE="7")

    assert (good.returncode, bad.returncode) == (0, 7)
    assert "trainer      | step 8" in good.stdout
    assert "is over: FAILED, exit code 7" in bad.stderr


def test_ctrl_c_ends_the_following_and_not_the_run(cluster):
    launch = (SCRIPTS / "sft", "--backend", "slurm", "@", EXAMPLES / "sft.toml", "--output-dir", "runs/x")
    gate = {"STANDIN_PAUSE_AT": "3", "STANDIN_WAIT_FOR": str(cluster.folder / "gate")}
    follower = subprocess.Popen(
        list(map(str, (*launch, *SFT, "--follow"))),
        cwd=cluster.folder,
        env={**cluster.env, **gate},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    eventually(lambda: "step 3 of 8" in follower.stdout.readline())
    follower.send_signal(signal.SIGINT)
    _, err = follower.communicate(timeout=60)
    (found,) = status(cluster, "runs/x")

    assert follower.returncode == 130
    assert "the run goes on; come back with: medarc_slurm logs -f runs/x" in err
    assert found["state"] == "RUNNING"
    assert medarc(cluster, "cancel", "--yes", "runs/x").returncode == 0


def test_a_cancelled_run_has_nothing_left_when_the_command_returns(cluster):
    submitted = paused(cluster, "x", STANDIN_DETACH=str(cluster.folder / "detached"))
    running_at(cluster, submitted, 3)
    detached = int(eventually(lambda: text(cluster.folder / "detached")))
    trainer = cluster.report()["process"]

    done = medarc(cluster, "cancel", submitted.job, "--yes")

    assert (done.returncode, done.stdout) == (
        0,
        f"runs/x: job {submitted.job} is over: CANCELLED, exit code 143\n",
    )
    assert [pid for pid in (detached, trainer) if is_alive(pid)] == []
    assert [attempt["reason"] for attempt in submitted.attempts] == ["cancelled"]


def text(path):
    return path.read_text() if path.exists() else ""


def test_a_signal_puts_a_run_back_into_the_queue_and_resume_waits_for_its_end(cluster):
    submitted = paused(cluster, "x", at="3,5")
    running_at(cluster, submitted, 3)

    sent = medarc(cluster, "cancel", "--yes", "--signal", "USR2", submitted.run)
    eventually(lambda: status(cluster, submitted.run)[0]["attempt"] == 2, seconds=90)
    running_at(cluster, submitted, 5)
    refused = medarc(cluster, "resume", submitted.run)
    medarc(cluster, "cancel", "--yes", submitted.run)
    resumed = medarc(cluster, "resume", submitted.run, "--max-steps", "10")
    ended = medarc(cluster, "wait", submitted.run)
    (found,) = status(cluster, submitted.run)

    assert sent.returncode == 0
    assert submitted.attempts[0]["reason"] == "asked"
    assert (refused.returncode, f"belongs to job {submitted.job}" in refused.stderr) == (2, True)
    assert resumed.returncode == 0, resumed.stderr
    assert ended.returncode == 0, ended.stderr
    assert (found["step"], found["attempt"], found["job_id"] != submitted.job) == (10, 3, True)


def test_a_rerun_is_the_same_run(cluster, wait_for_job):
    first = cluster.submit("sft", "--output-dir", "runs/a", *SFT, "--time", "30")
    wait_for_job(first.job)
    done = medarc(cluster, "rerun", first.run, "--output-dir", "runs/b")
    again = medarc(cluster, "rerun", first.run, "--output-dir", "runs/c", "--time", "40")

    same, other = (medarc(cluster, "diff", "runs/a", f"runs/{name}", "--json") for name in "bc")

    assert (done.returncode, again.returncode) == (0, 0)
    assert medarc(cluster, "wait", "runs/b").returncode == 0
    assert (same.returncode, other.returncode) == (0, 1), same.stdout
    assert json.loads(other.stdout)["differences"] == [
        {"section": "options", "path": "--time", "left": "30", "right": "40"}
    ]


@pytest.fixture
def own(slurm_programs):
    """A sandbox of the test's own, whose controller forgets ended jobs soon, and is given up on soon."""
    folder = Path(tempfile.mkdtemp(prefix="medarc-"))
    sandbox = Sandbox(folder / "slurm")
    lines = ("MinJobAge=2", "MessageTimeout=2")
    try:
        sandbox.up(SandboxSpec(cpus=64, gpus=8, gpu_type="h100", gpu_kind="standin", extra_lines=lines))
        yield sandbox
    finally:
        sandbox.down()
        shutil.rmtree(folder)


def test_the_records_answer_where_slurm_does_not(own, tmp_path):
    cluster = log_in(tmp_path, client_environment(own.environment()["SLURM_CONF"]))
    ended = cluster.submit("sft", "--output-dir", "runs/ended", *SFT)
    going = paused(cluster, "going")
    medarc(cluster, "wait", ended.run)
    running_at(cluster, going, 3)
    own.kill("slurmctld")

    silent = status(cluster, ended.run, going.run)
    refused = medarc(cluster, "cancel", "--yes", going.run)
    own.boot("slurmctld")
    eventually(lambda: cluster.run("scontrol", "ping").returncode == 0)
    own.down()
    gone = status(cluster, ended.run)[0]

    assert [run["state"] for run in silent] == ["COMPLETED", "RUNNING"]
    assert all(
        "SLURM did not answer: slurm_load_jobs error: Unable to contact" in run["note"] for run in silent
    )
    assert (refused.returncode, "SLURM does not answer" in refused.stderr) == (2, True)
    assert (gone["state"], "it is gone with" in gone["note"]) == ("COMPLETED", True)


def test_a_job_that_slurm_forgot_is_told_by_its_records(own, tmp_path):
    cluster = log_in(tmp_path, client_environment(own.environment()["SLURM_CONF"]))
    ended = cluster.submit("sft", "--output-dir", "runs/ended", *SFT)
    lost = cluster.submit("sft", "--output-dir", "runs/lost", *SFT, "--sbatch-arg", "hold")
    medarc(cluster, "wait", ended.run)
    cluster.run("scancel", lost.job)
    forgotten = eventually(
        lambda: cluster.run("squeue", "-h", "-t", "all", "-o", "%A").stdout == "" or None, seconds=120
    )

    found = status(cluster, ended.run, lost.run)

    assert forgotten
    assert [run["state"] for run in found] == ["COMPLETED", "GONE"]
    assert found[0]["note"] == f"from the run's records: SLURM no longer knows job {ended.job}"
    assert medarc(cluster, "wait", lost.run).returncode == 125
