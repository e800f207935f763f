"""Ending runs and waiting for their end."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from standins import recorded
from standins.recorded import MARK, begin, end

from medarc_plugin import runs, standing, steering
from medarc_plugin.errors import SlurmError, UsageError
from medarc_plugin.job.child import started_at
from medarc_plugin.job.fence import _boot


class Clock:
    """Time that passes in pauses alone; in each something may happen."""

    def __init__(self, *happens):
        self.now = 0.0
        self._happens = list(happens)

    def __call__(self):
        return self.now

    def pause(self, seconds):
        self.now += seconds
        if self._happens:
            self._happens.pop(0)()


@pytest.fixture
def run(work):
    return recorded.make_run(work / "runs" / "a")


def cancel(found, clock=None, seconds=60):
    clock = clock or Clock()
    return steering.cancel(found, seconds, clock.pause, clock)


def scancelled(slurm):
    return [call["argv"] for call in slurm.calls("scancel")]


def test_a_run_is_ended_and_its_record_waited_for(run, slurm):
    begin(run)
    slurm.set(jobs={"17": {"state": "RUNNING", "comment": MARK}})

    (ended,) = cancel([run], Clock(lambda: None, lambda: end(run, 1, "cancelled", 143)))

    assert scancelled(slurm) == [["17"]]
    assert (ended.gone, ended.text) == (True, "job 17 is over: CANCELLED, exit code 143")


def test_several_runs_are_ended_by_one_command(work, slurm):
    many = [recorded.make_run(work / "runs" / str(n), str(n), token=f"t{n}") for n in (1, 2, 3)]
    slurm.set(jobs={str(n): {"state": "PENDING", "comment": f"[medarc:t{n}]"} for n in (1, 2)})
    end(many[2], token="t3")

    ended = cancel(many)

    assert scancelled(slurm) == [["1", "2"]]
    assert [each.gone for each in ended] == [True] * 3
    assert ended[2].text == "nothing to end, job 3 is over: COMPLETED, exit code 0"


def test_a_job_of_somebody_elses_is_never_ended(run, slurm):
    slurm.set(jobs={"17": {"state": "RUNNING", "comment": "[medarc:another]", "script": "/y/rl.sbatch"}})

    (ended,) = cancel([run])

    assert scancelled(slurm) == []
    assert ended.text.startswith("nothing to end, job 17 is lost")


def test_a_second_job_with_the_same_script_is_ended_too(run, slurm):
    slurm.set(jobs={"17": {"state": "RUNNING", "comment": MARK}, "23": {"state": "PENDING", "comment": MARK}})

    (ended,) = cancel([run])

    assert sorted(scancelled(slurm)) == [["17"], ["23"]]
    assert ended.gone


def test_a_cancelled_job_stays_cancelled_when_slurm_is_gone(run, slurm):
    slurm.set(jobs={"17": {"state": "PENDING", "comment": MARK}})
    cancel([run])
    slurm.remove()

    status = standing.look_at(run)

    assert (status.state, status.over, steering.code_of(status)) == ("CANCELLED", True, 143)
    # The next submission in the same place is another job.
    assert standing.look_at(replace(run, submission=replace(run.submission, token="x"))).state == "UNKNOWN"


def test_a_node_that_does_not_end_a_job_is_named(run, slurm):
    begin(run)
    slurm.set(jobs={"17": {"state": "COMPLETING", "node": "node7", "comment": MARK}})
    program = slurm.programs / "scancel"
    program.write_text("#!/bin/sh\nexit 0\n")

    (ended,) = cancel([run], seconds=30)

    assert not ended.gone
    assert ended.text == "job 17 is still COMPLETING on node7: SLURM has not ended it yet"


def test_a_run_that_was_killed_without_a_record_is_not_called_gone(run, slurm):
    begin(run)
    slurm.set(jobs={"17": {"state": "RUNNING", "comment": MARK}})

    (ended,) = cancel([run])

    assert not ended.gone
    assert "its attempt on node7 left no record of its end" in ended.text


def test_nothing_is_ended_while_slurm_is_silent(run, slurm):
    begin(run)
    slurm.set(up=False)

    with pytest.raises(SlurmError, match="SLURM does not answer, so job 17 cannot be ended"):
        cancel([run])


def test_a_run_that_slurm_does_not_know_and_that_lives_is_ended_on_its_node(run, slurm):
    begin(run)

    with pytest.raises(SlurmError, match="SLURM does not know job 17") as raised:
        cancel([run])
    assert "ssh node7 kill 1" in (raised.value.hint or "")


def test_a_signal_goes_to_the_batch_process(run, slurm):
    begin(run)
    slurm.set(jobs={"17": {"state": "RUNNING", "comment": MARK}})

    steering.send_signal([run], "USR2")

    assert scancelled(slurm) == [["--batch", "--signal", "USR2", "17"]]


@pytest.mark.parametrize(("name", "says"), [("-9", "no signal"), ("usr2 x", "no signal"), ("", "no signal")])
def test_what_is_no_signal_is_refused(run, slurm, name, says):
    with pytest.raises(UsageError, match=says):
        steering.send_signal([run], name)


def test_a_signal_that_slurm_does_not_know_is_an_error(run, slurm):
    slurm.set(jobs={"17": {"state": "RUNNING", "comment": MARK}})
    slurm.answer("scancel", stderr="scancel: error: Unknown job signal: FOO\n", code=1)

    with pytest.raises(SlurmError, match="Unknown job signal: FOO"):
        steering.send_signal([run], "FOO")


@pytest.mark.parametrize("state", ["PENDING", "COMPLETED"])
def test_there_is_no_process_to_signal_in_a_run_that_does_not_run(run, slurm, state):
    slurm.set(jobs={"17": {"state": state, "comment": MARK}})

    with pytest.raises(UsageError, match="there is no process to signal"):
        steering.send_signal([run], "USR2")


@pytest.fixture
def local(work):
    """A run of the local backend, whose owner is a process of this test's."""
    run = recorded.make_run(work / "runs" / "l", job_id=None, backend="local")
    begin(run)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        beat = {"attempt": 1, "host": os.uname().nodename, "boot": _boot(), "process": process.pid}
        beat["start"] = started_at(process.pid)
        (run.run_dir / "configs/attempts/1/heartbeat.json").write_text(json.dumps(beat))
        yield run, process
        process.kill()


def test_a_local_run_is_ended_by_its_owner(local):
    run, process = local

    def ends():
        process.wait(30)
        end(run, 1, "signalled", 143)

    (ended,) = cancel([run], Clock(ends))

    assert process.returncode == -signal.SIGTERM
    assert (ended.gone, ended.status.state) == (True, "FAILED")


def test_a_signal_that_this_machine_has_not_is_an_error(local):
    run, _ = local

    with pytest.raises(SlurmError, match="could not be signalled: Invalid argument"):
        steering.send_signal([run], "99")


def test_a_local_run_of_another_machine_is_not_reached(work):
    run = recorded.make_run(work / "runs" / "l", job_id=None, backend="local")
    begin(run)

    with pytest.raises(SlurmError, match="runs on node7, not here"):
        cancel([run])


def wait(run, seconds=None, *happens):
    clock, said = Clock(*happens), []
    status, code = steering.wait(run, seconds, said.append, clock.pause, clock)
    return status.state, code, said


def test_a_wait_ends_with_the_runs_own_code(run, slurm):
    end(run, reason="failed", exit_code=7)

    assert wait(run) == ("FAILED", 7, [])


def test_a_wait_goes_on_across_a_requeue(run, slurm, monkeypatch):
    monkeypatch.setattr("medarc_plugin.watching.FIRST", 0.0)
    monkeypatch.setattr("medarc_plugin.watching.MOST", 0.0)
    end(run, 1, "time-limit", 143, requeued=True)
    slurm.set(jobs={"17": {"state": "PENDING", "reason": "BeginTime", "comment": MARK}})

    state, code, said = wait(
        *(run, None, lambda: slurm.set(jobs={"17": {"state": "RUNNING", "comment": MARK}})),
        lambda: (end(run, 2), slurm.set(jobs={"17": {"state": "COMPLETED", "comment": MARK}})),
    )

    assert (state, code) == ("COMPLETED", 0)
    assert said[0] == "job 17 is waiting (BeginTime)"


def test_a_wait_may_have_a_limit(run, slurm):
    slurm.set(jobs={"17": {"state": "RUNNING", "comment": MARK}})

    assert wait(run, 20.0)[:2] == ("RUNNING", steering.TIMED_OUT)


def test_without_a_record_slurms_exit_code_counts(run, slurm):
    slurm.set(jobs={"17": {"state": "FAILED", "exit_code": "0:9", "comment": MARK}})

    assert wait(run)[:2] == ("FAILED", 137)


@pytest.mark.parametrize(
    ("state", "code"), [("COMPLETED", 0), ("CANCELLED", 143), ("NODE_FAIL", 1), ("TIMEOUT", 1)]
)
def test_a_state_without_a_code_has_one_all_the_same(run, slurm, state, code):
    slurm.set(jobs={"17": {"state": state, "comment": MARK}})

    assert wait(run)[:2] == (state, code)


def test_of_a_lost_run_nobody_knows(run, slurm):
    assert wait(run)[:2] == ("GONE", steering.UNKNOWN_END)


def test_what_was_not_submitted_has_no_end(work, slurm):
    run = recorded.make_run(work / "runs" / "b", job_id=None)

    with pytest.raises(UsageError, match="was not submitted"):
        wait(runs.open_run(run.run_dir))
