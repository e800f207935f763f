"""Runs of two clusters that share a real accounting: what only accounting knows, and who is asked."""

import json
import shutil
import tempfile
from pathlib import Path

import pytest
from standins import accounting
from standins.cluster import EXAMPLES, SCRIPTS, eventually, log_in

from medarc_plugin.sandbox import Sandbox, SandboxSpec
from medarc_plugin.sandbox.controller import client_environment

pytestmark = pytest.mark.slurm

SFT = ("--gpus", "1", "--max-steps", "1")
EAST = ("--sbatch-arg", "clusters=east")
HELD = ("--sbatch-arg", "hold")

LOSES_ITS_ANSWER = """#!/bin/sh
case "$*" in *--test-only*) exec {sbatch} "$@" ;; esac
{sbatch} "$@" >/dev/null
[ -z "$LAUNCH" ] || kill -9 "$LAUNCH"
kill -9 $$
"""


class World:
    """Clusters west and east, a user's shell on west, and an sbatch that loses its answer."""

    def __init__(self, folder, daemons, clusters):
        self.daemons = daemons
        self.clusters = clusters
        self.shell = log_in(folder, client_environment(clusters["west"].environment()["SLURM_CONF"]))
        self.losing = folder / "losing"
        self.losing.mkdir()
        sbatch = self.losing / "sbatch"
        sbatch.write_text(LOSES_ITS_ANSWER.format(sbatch=shutil.which("sbatch")))
        sbatch.chmod(0o755)

    def medarc(self, *argv):
        return self.shell.run(SCRIPTS / "medarc_slurm", *argv)

    def status(self, *runs):
        done = self.medarc("status", *runs, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["runs"]

    def losing_launch(self, name, *argv, kill=False):
        """Launch with an sbatch that loses its answer, and that kills the launch too where that is wanted."""
        path = f"{self.losing}:{self.shell.env['PATH']}"
        return self.launch(name, *argv, PATH=path, KILL="yes" if kill else "")

    def launch(self, name, *argv, **variables):
        return self.shell.run(
            *("sh", "-c", 'LAUNCH=${KILL:+$$} exec "$@"', "sh", SCRIPTS / "sft", "--backend", "slurm"),
            *("@", EXAMPLES / "sft.toml", *SFT, "--output-dir", f"runs/{name}", *argv),
            **variables,
            MEDARC_PATIENCE="controller=1,settle=1,backoff=0.1,sendings=2",
        )

    def recorded(self, name):
        path = self.shell.folder / "runs" / name / "configs/launch/submission.json"
        found = json.loads(path.read_text())
        return found["job_id"], found["cluster"]

    def jobs(self, cluster, name):
        """The ids of the jobs of a name that a cluster has."""
        done = self.shell.run("squeue", "-M", cluster, "-h", "-t", "all", "-n", name, "-o", "%A")
        return done.stdout.split()

    def forget(self, cluster):
        """Let a cluster forget all of its jobs, ended or not, and begin with the first id anew."""
        sandbox = self.clusters[cluster]
        sandbox.kill("slurmctld")
        for name in ("job_state", "job_state.old"):
            (Path(sandbox.directory) / "state" / name).unlink(missing_ok=True)
        sandbox.boot("slurmctld")
        eventually(lambda: self.shell.run("squeue", "-M", cluster, "-h").returncode == 0)


@pytest.fixture(scope="module")
def world(slurm_programs):
    lacking = accounting.missing()
    if lacking:
        pytest.skip(f"{', '.join(lacking)} not found (Debian: slurmdbd, mariadb-server-core)")
    folder = Path(tempfile.mkdtemp(prefix="acct-"))
    (folder / "accounting").mkdir()
    folder.chmod(0o755)
    daemons = accounting.Accounting(folder / "accounting")
    clusters = {name: Sandbox(folder / name) for name in ("west", "east")}
    try:
        daemons.up(*clusters)
        for name, sandbox in clusters.items():
            lines = (*daemons.lines(name, comments=True), "MessageTimeout=2")
            sandbox.up(SandboxSpec(gpus=8, gpu_type="h100", gpu_kind="standin", extra_lines=lines))
        yield World(folder, daemons, clusters)
    finally:
        for sandbox in clusters.values():
            sandbox.down()
        daemons.down()
        shutil.rmtree(folder)


@pytest.mark.parametrize("named", ["east", "east,west"])
def test_a_launch_onto_another_cluster_that_was_cut_off_is_found_there(world, named):
    name = f"cut-{len(named)}"
    where = ("--sbatch-arg", f"clusters={named}")

    killed = world.losing_launch(name, *where, *HELD, kill=True)
    jobs = {cluster: world.jobs(cluster, name) for cluster in world.clusters}
    ((cluster, (job,)),) = [(at, found) for at, found in jobs.items() if found]
    again = world.losing_launch(name, *where, *HELD)

    assert (killed.returncode, again.returncode) == (-9, 2)
    assert f"belongs to job {job} (PENDING" in again.stderr
    assert f"`scancel -M {cluster} {job}`" in again.stderr
    assert {at: world.jobs(at, name) for at in world.clusters} == jobs
    assert world.recorded(name) == (job, cluster)


def test_of_several_clusters_the_one_that_took_the_job_is_recorded_and_asked(world):
    done = world.losing_launch("several", "--sbatch-arg", "clusters=east,west", *HELD)
    job, cluster = world.recorded("several")

    assert "SLURM has the job all the same" in done.stderr
    assert cluster in world.clusters
    assert world.jobs(cluster, "several") == [job]
    (found,) = world.status("runs/several")
    assert (found["state"], found["cluster"]) == ("PENDING", cluster)
    cancelled = world.medarc("cancel", "--yes", "runs/several")
    assert cancelled.stdout == f"runs/several: job {job} is over: CANCELLED\n"


def test_a_job_is_told_by_accounting_though_its_id_was_given_again(world):
    world.forget("east")
    first = world.shell.submit("sft", "--output-dir", "runs/first", *SFT, *EAST)
    assert world.medarc("wait", first.run).returncode == 0
    for path in (first.run / "configs/launch").glob("attempts.jsonl"):
        path.unlink()
    shutil.rmtree(first.run / "configs/attempts")
    asked = ("sacct", "-M", "east", "-n", "-X", "-P", "-o", "State,Comment", "-j")
    eventually(lambda: "COMPLETED|[medarc:" in world.shell.run(*asked, first.job).stdout)
    world.forget("east")
    second = world.shell.submit("sft", "--output-dir", "runs/second", *SFT, *EAST, *HELD)

    found, other = world.status(first.run, second.run)

    assert second.job == first.job
    assert (found["state"], found["exit_code"], found["sources"]["state"]) == ("COMPLETED", 0, "sacct")
    assert found["started"] is not None
    assert found["ended"] >= found["started"]
    assert (other["state"], other["reason"]) == ("PENDING", "JobHeldUser")

    world.daemons.kill("slurmdbd")
    unasked = world.launch("unasked", *EAST, *HELD)
    silent = world.medarc("status", first.run)
    world.daemons.boot()

    assert unasked.returncode == 2
    assert "nothing was submitted" in unasked.stderr
    assert "SLURM did not answer" in silent.stdout
