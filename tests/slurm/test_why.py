"""Why a job waits, and why one failed, on a real SLURM."""

import json

import pytest
from standins.cluster import SCRIPTS, eventually, log_in

pytestmark = pytest.mark.slurm

SFT = ("sft", "--max-steps", "4")


@pytest.fixture
def cluster(slurm_env, tmp_path):
    return log_in(tmp_path, slurm_env)


def why(cluster, *argv):
    done = cluster.run(SCRIPTS / "medarc_slurm", "why", *argv)
    assert done.returncode == 0, done.stderr
    return done.stdout


def explained(cluster, *argv):
    return json.loads(why(cluster, *argv, "--json"))


def hold(cluster, gpus, *argv):
    """Let a job of somebody else's hold GPUs."""
    argv = [
        "sbatch",
        "--parsable",
        f"--gres=gpu:{gpus}",
        "--mem=1000",
        "-t",
        "30",
        *argv,
        "--wrap",
        "sleep 600",
    ]
    done = cluster.run(*argv)
    assert done.returncode == 0, done.stderr
    job = done.stdout.strip()
    eventually(lambda: cluster.squeue(job, "%T") == "RUNNING")
    return job


def pending(cluster, job, reason):
    eventually(lambda: cluster.squeue(job, "%T %r") == f"PENDING {reason}")


def test_a_job_that_waits_for_gpus_names_who_holds_them_and_what_would_fit_now(cluster):
    holder = hold(cluster, 5)
    submitted = cluster.submit(
        *SFT, "--output-dir", "runs/a", "--gpus", "4", "--mem", "8G", "--time", "1:00:00"
    )
    try:
        pending(cluster, submitted.job, "Resources")

        text = why(cluster, submitted.run)
        found = explained(cluster, submitted.job)["waiting"]
    finally:
        cluster.run("scancel", holder, submitted.job)

    assert (found["reason"], found["kind"], found["known"]) == ("Resources", "resources", True)
    assert [(job["job_id"], job["gpus"]) for job in found["jobs"]] == [(holder, 5)]
    (node,) = found["nodes"]
    assert (node["gpus"], node["gpus_free"], node["usable"]) == (8, 3, True)
    assert [change["options"] for change in found["sooner"]] == ["--gpus 3"]
    assert "5 of 8 GPUs (h100) in use" in text
    assert f"by job {holder} (" in text
    assert text.splitlines()[-1].startswith(f"hint: --gpus 3 would fit what is free on {node['name']} now")


def test_a_held_job_and_one_that_depends_on_another_say_so(cluster):
    holder = hold(cluster, 1)
    held = cluster.submit(*SFT, "--output-dir", "runs/a", "--sbatch-arg", "hold")
    dependent = cluster.submit(*SFT, "--output-dir", "runs/b", "--dependency", f"afterok:{holder}")
    try:
        pending(cluster, held.job, "JobHeldUser")
        pending(cluster, dependent.job, "Dependency")

        text = why(cluster, held.run)
        found = explained(cluster, dependent.run)["waiting"]
    finally:
        cluster.run("scancel", holder, held.job, dependent.job)

    assert "its owner holds it back" in text
    assert text.splitlines()[-1] == f"hint: `scontrol release {held.job}`"
    assert [(each["job_id"], each["kind"], each["met"], each["state"]) for each in found["depends_on"]] == [
        (holder, "afterok", False, "RUNNING")
    ]


def test_a_run_that_failed_is_explained_from_its_records_and_slurm(cluster, wait_for_job):
    submitted = cluster.submit(*SFT, "--output-dir", "runs/a", STANDIN_CRASH="trainer:2:1")
    wait_for_job(submitted.job)

    found = explained(cluster, submitted.run)

    assert found["state"] == "FAILED"
    assert found["failure"]["component"] == "trainer"
    assert found["slurm"]["state"] == "FAILED"
