"""Submissions to a real SLURM that is killed meanwhile, through an sbatch that goes wrong."""

import json
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from standins import faults
from standins.cluster import eventually

from medarc_plugin import flight, launch
from medarc_plugin.backends.planning import run_files
from medarc_plugin.errors import SubmissionError
from medarc_plugin.sandbox import Sandbox, SandboxSpec

pytestmark = pytest.mark.slurm

COUNT = 20


@pytest.fixture
def world(monkeypatch):
    """A sandbox of the test's own, and a folder of runs; this process is its user."""
    folder = Path(tempfile.mkdtemp(prefix="once-"))
    sandbox = Sandbox(folder / "slurm")
    # A controller that is down is then given up on after 2 s, and not after 9.
    sandbox.up(SandboxSpec(gpus=8, gpu_type="h100", gpu_kind="standin", extra_lines=("MessageTimeout=2",)))
    made = faults.World(folder, sandbox)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    yield made
    sandbox.down()
    shutil.rmtree(folder)


def submit(world, number, *met):
    """Submit a run whose sendings meet these faults; returns what was said."""
    said = []
    prepared = faults.prepare(world.run_dir(number))
    world.fault(*met)
    submission = launch.submit(prepared, said.append, {}, said.append)
    return submission, said, prepared


def state(prepared, submission):
    return prepared.backend.query(submission)


def test_whatever_goes_wrong_each_run_has_one_job_and_its_record(world):
    wanted = faults.cases(COUNT, seed=7)
    world.submit_all(wanted, 6, faults.chaos(2, seed=7, every=2.0))

    found = faults.find_out(world, COUNT)

    assert found.kills >= 1
    assert (found.twice, found.orphans, found.mistaken) == ([], [], [])
    assert found.named_lost == found.forgotten
    assert (found.open, found.crashed) == (set(), 0)


def test_each_fault_by_itself_ends_with_one_job(world):
    wanted = [faults.Case(number, (fault,)) for number, fault in enumerate(faults.FAULTS)]
    world.submit_all(wanted, len(wanted))

    found = faults.find_out(world, len(wanted))

    assert found.outcomes["submitted"] == len(wanted)
    assert (found.twice, found.orphans, found.mistaken, found.forgotten) == ([], [], [], set())
    assert found.lines["adopted"] + found.lines["sent again"] == len(wanted)


def test_a_job_that_a_killed_controller_forgot_is_lost_and_not_taken_for_its_successor(world):
    world.ask("scontrol", "update", "NodeName=node1", "State=DRAIN", "Reason=test")
    first, _, prepared = submit(world, 1)
    world.sandbox.kill("slurmctld")
    (Path(world.sandbox.directory) / "state" / "job_state").unlink(missing_ok=True)
    (Path(world.sandbox.directory) / "state" / "job_state.old").unlink(missing_ok=True)
    world.sandbox.boot("slurmctld")
    eventually(lambda: world.ask("squeue", "-h", "-o", "%i") == "" and world.ask("scontrol", "ping"))
    forgotten = state(prepared, first)
    second, _, other = submit(world, 2)

    assert second.job_id == first.job_id
    assert forgotten.state == "LOST"
    assert "SLURM's next job will be" in forgotten.reason
    assert state(prepared, first).state == "LOST"
    assert "given its id to another job" in state(prepared, first).reason
    assert state(other, second).state == "PENDING"


def test_what_slurm_refuses_is_refused_though_the_answer_is_lost(world):
    prepared = faults.prepare(world.run_dir(1), gpus=9)
    world.fault("killed-after", "lost-after")

    with pytest.raises(SubmissionError, match="Requested node configuration is not available"):
        launch.submit(prepared, print, {}, print)

    listed = world.ask("squeue", "-h", "-a", "-t", "all", "-o", "%T %r").splitlines()
    assert listed == ["FAILED BadConstraints"] * 3
    assert flight.read(prepared.plan.files.launch).state == flight.NONE


def test_a_request_that_a_hanging_controller_takes_later_is_adopted(world):
    controller = next(one for one in world.sandbox.status().daemons if one.name == "slurmctld")
    prepared = faults.prepare(world.run_dir(1))
    world.fault()
    said = []

    def hear(text):
        said.append(text)
        if "SLURM does not answer" in text or "looking for the job" in text:
            os.kill(controller.pid, signal.SIGCONT)

    os.kill(controller.pid, signal.SIGSTOP)
    submission = launch.submit(prepared, hear, {}, hear)
    listed = world.ask("squeue", "-h", "-a", "-t", "all", "-o", "%A").split()

    assert listed == [submission.job_id]
    assert "SLURM has the job all the same" in said[-1]
    assert json.loads((run_files(world.run_dir(1), "rl").launch / flight.NAME).read_text())["sending"] == 1
