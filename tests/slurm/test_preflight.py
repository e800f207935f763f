"""Requests that can never be met are refused before the queue; plain sbatch takes some of them."""

import getpass
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from standins.cluster import EXAMPLES, log_in
from standins.impossible import CLUSTER, REQUESTS, RESERVATION

from medarc_plugin.sandbox import Sandbox, SandboxSpec
from medarc_plugin.sandbox.controller import client_environment
from medarc_plugin.slurm import cluster as facts

pytestmark = pytest.mark.slurm

HERE = [request for request in REQUESTS if not request.played]
SFT = ("--backend", "slurm", "@", str(EXAMPLES / "sft.toml"), "--output-dir", "run")


@pytest.fixture(scope="module")
def crowded(slurm_programs):
    """A SLURM with partitions of many kinds, two nodes that run and one that was never there."""
    folder = Path(tempfile.mkdtemp(prefix="medarc-"))
    sandbox = Sandbox(folder / "slurm")
    sandbox.up(SandboxSpec(nodes=2, gpus=8, gpu_type="h100", gpu_kind="standin", extra_lines=CLUSTER))
    environment = client_environment(sandbox.environment()["SLURM_CONF"])
    subprocess.run(["scontrol", "create", "reservation", *RESERVATION], env=environment, check=True)
    yield environment
    sandbox.down()
    shutil.rmtree(folder)


@pytest.fixture
def shell(crowded, here, monkeypatch, tmp_path):
    """Run a command in this process, as somebody on that cluster's login node."""
    cluster = log_in(tmp_path, crowded)
    for name in set(os.environ) - cluster.env.keys():
        monkeypatch.delenv(name)
    for name, value in cluster.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(cluster.folder)
    cluster.here = here
    return cluster


def queue(shell):
    return shell.run("squeue", "-h", "-a", "-o", "%i").stdout.split()


@pytest.mark.parametrize("request_", HERE, ids=lambda one: one.name)
def test_the_impossible_is_refused_before_the_queue_and_plain_sbatch_takes_some(shell, request_):
    command = ("sft", *SFT, "--gpus", "1", *request_.flags)
    result = shell.here(*command)
    nothing = not (shell.folder / "run").exists()
    queued = queue(shell)
    dry = shell.here(*command, "--dry-run")
    plain = shell.run("sbatch", "--parsable", shell.folder / "run" / "sft.sbatch")
    shell.run("scancel", *plain.stdout.split())

    errors = [line for line in result.err.splitlines() if line.startswith(("error:", "hint:"))]
    assert (result.code, result.out, nothing, queued) == (2, "", True, [])
    assert len(errors) == 2, result.err
    assert request_.says in errors[0]
    assert request_.hint in errors[1]
    assert dry.code == 0
    assert f"warning: a submission would be refused: {errors[0].removeprefix('error: ')}" in dry.err
    assert (plain.returncode == 0) == request_.sbatch_takes_it, plain.stderr


def test_a_possible_job_is_submitted_with_what_it_gets_and_when(shell):
    result = shell.here("sft", *SFT, "--gpus", "1")
    shell.run("scancel", *queue(shell))

    assert result.code == 0, result.err
    assert "partition   debug (the cluster's default)" in result.err
    assert "memory      62.5 GiB (the cluster's default; --mem-per-gpu sets it)" in result.err
    assert "time limit  1-00:00:00 (the partition's default; --time sets it)" in result.err
    assert "preflight   cluster 'sandbox' was asked\n" in result.err
    assert "starts      now on node1, as SLURM estimates" in result.err


def test_what_can_be_had_one_day_is_queued_with_a_warning(shell):
    result = shell.here("sft", *SFT, "--gpus", "1", "--partition", "old")
    (job,) = queue(shell)
    shell.run("scancel", job)

    assert result.code == 0, result.err
    assert "the one node that can take it is not answering now, so the job will wait: old1" in result.err
    assert "starts " not in result.err


def test_a_job_waits_for_a_reservation_that_begins_later(shell):
    later = ("ReservationName=later", "StartTime=now+1hour", "Duration=60", "Nodes=node1")
    shell.run("scontrol", "create", "reservation", *later, f"Users={getpass.getuser()}")
    result = shell.here("sft", *SFT, "--gpus", "1", "--reservation", "later", "--time", "10")
    shell.run("scancel", *queue(shell))
    shell.run("scontrol", "delete", "reservation", "later")

    assert result.code == 0, result.err
    assert "warning: reservation: reservation 'later' begins at " in result.err


def test_without_preflight_it_is_left_to_slurm(shell):
    result = shell.here("sft", *SFT, "--gpus", "1", "--partition", "closed", "--no-preflight")
    (job,) = queue(shell)
    shell.run("scancel", job)

    assert result.code == 0
    assert "preflight   " not in result.err


def test_a_job_that_takes_more_than_its_share_is_told_so(shell):
    result = shell.here("sft", *SFT, "--gpus", "2", "--cpus-per-gpu", "16", "--mem", "400G", "--dry-run")

    assert (
        "neighbours: the job takes 32 CPUs for 2 of the 8 GPUs of node1; their share of its 64 CPUs is 16, "
        "and jobs on the others may find too few; --cpus-per-gpu 8" in result.err
    )
    assert (
        "the job takes 400 GiB for 2 of the 8 GPUs of node1; their share of its 500 GiB is 125 GiB"
        in result.err
    )


def test_all_findings_come_at_once(shell):
    result = shell.here(
        *("sft", *SFT, "--gpus", "4", "--gpu-type", "H100", "--cpus-per-gpu", "20", "--time", "9-00:00:00"),
        *("--nodelist", "nodeX", "--constraint", "quantum", "--reservation", "none"),
    )

    checks = [line.split(": ")[1] for line in result.err.splitlines() if line.startswith("error:")]
    assert checks == ["constraint", "nodes", "reservation", "time limit", "GPUs", "CPUs"]
    assert "did you mean h100?" in result.err


def test_facts_of_a_running_cluster(shell, monkeypatch):
    found = facts.ask()

    assert found.unknown == ()
    assert found.accounting is None
    assert {one.name: one.state for one in found.partitions}["closed"] == "DOWN"
    assert {one.name: (one.gpu_count, one.trouble) for one in found.nodes} == {
        "node1": (8, None),
        "node2": (8, None),
        "old1": (2, "not answering"),
    }


def test_a_controller_that_does_not_answer_is_named_and_left_to_sbatch(shell, monkeypatch, tmp_path):
    conf = tmp_path / "slurm.conf"
    text = Path(os.environ["SLURM_CONF"]).read_text()
    lines = [line for line in text.splitlines() if not line.startswith("SlurmctldPort")]
    conf.write_text("\n".join([*lines, "SlurmctldPort=1", "MessageTimeout=2", ""]))
    monkeypatch.setenv("SLURM_CONF", str(conf))
    monkeypatch.setenv("MEDARC_PATIENCE", "controller=1")
    result = shell.here("sft", *SFT, "--gpus", "1", "--constraint", "quantum")

    (row,) = [line for line in result.err.splitlines() if line.startswith("preflight")]
    assert row.startswith("preflight   not looked at: limits, partition and time limit, GPUs, CPUs")
    assert "Unable to contact slurm controller" in row
    assert "error: nothing was submitted: " in result.err
