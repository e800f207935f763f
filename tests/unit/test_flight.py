"""The record of a submission under way, and what the next launch makes of one that is open."""

import json
from dataclasses import asdict, replace

import pytest
from standins import make_plan

from medarc_plugin import flight, rundir
from medarc_plugin.errors import RunDirectoryError
from medarc_plugin.models import JobState, Submission

LONG_AGO = "2026-01-01T00:00:00+00:00"


@pytest.fixture
def plan(work):
    plan = make_plan(work / "runs" / "a")
    plan.files.launch.mkdir(parents=True)
    return plan


@pytest.fixture
def cut_off(plan):
    """A launch that was cut off while it sent the script."""
    under_way = flight.Flight(plan)
    under_way.begin()
    under_way.note = replace(under_way.note, sent=LONG_AGO, since=LONG_AGO)
    flight.write(plan.files, under_way.note)
    return under_way


def settle(plan, state, said):
    asked = []

    def query(submission):
        asked.append(submission)
        return state

    flight.settle(plan.files, query, said.append)
    return asked


def test_a_submission_is_open_from_before_it_is_sent_until_it_is_settled(plan):
    under_way = flight.Flight(plan, earlier="9")
    assert not flight.is_open(plan.files)
    under_way.begin()
    assert flight.is_open(plan.files)
    under_way.settle("17", "sandbox")
    found = flight.read(plan.files.launch)

    assert not flight.is_open(plan.files)
    assert (found.state, found.job_id, found.cluster) == ("accepted", "17", "sandbox")
    assert (found.token, found.sending, found.earlier) == (plan.token, 1, ("9",))


def test_a_job_of_a_launch_that_was_cut_off_is_recorded(plan, cut_off):
    said = []
    (asked,) = settle(plan, JobState("RUNNING", job_id="23"), said)
    found = rundir.read_submission(plan.files)

    assert (asked.token, asked.job_id, asked.submitted_at) == (plan.token, "", LONG_AGO)
    assert (found.job_id, found.token, found.log) == ("23", plan.token, plan.run_dir / "job_23.log")
    assert flight.read(plan.files.launch).state == flight.ACCEPTED
    whose = f"the launch of {LONG_AGO} on {cut_off.note.host}, which was cut off"
    assert said == [f"{whose}, submitted job 23 (RUNNING), which is recorded now"]


@pytest.mark.parametrize(("named", "took"), [("east", None), ("east,west", "west")])
def test_a_launch_onto_another_cluster_is_looked_for_there(plan, named, took):
    under_way = flight.Flight(plan)
    under_way.name_cluster(named)
    under_way.begin()

    (asked,) = settle(plan, JobState("RUNNING", job_id="23", cluster=took), [])

    assert asked.cluster == named
    assert rundir.read_submission(plan.files).cluster == (took or named)


def test_a_launch_that_was_cut_off_behind_its_record_needs_no_answer(plan, cut_off):
    submission = Submission("17", None, plan.files.script, plan.files.log, LONG_AGO, plan.token, "slurm")
    rundir.record(plan.files, submission)
    said = []

    assert settle(plan, JobState("GONE"), said) == []
    assert (flight.read(plan.files.launch).job_id, said) == ("17", [])


def test_a_launch_that_was_cut_off_without_a_job_is_settled_too(plan, cut_off):
    said = []
    settle(plan, JobState("GONE"), said)

    assert rundir.read_submission(plan.files) is None
    assert flight.read(plan.files.launch).state == flight.NONE
    assert "submitted no job" in said[0]
    assert settle(plan, JobState("UNKNOWN"), said) == []


def test_a_controller_that_is_silent_is_waited_for(plan, cut_off, monkeypatch):
    answers = [JobState("UNKNOWN"), JobState("UNKNOWN"), JobState("PENDING", job_id="23")]
    monkeypatch.setattr(flight.time, "sleep", lambda _: None)
    said = []
    flight.settle(plan.files, lambda _: answers.pop(0), said.append)

    assert rundir.read_submission(plan.files).job_id == "23"
    assert said[0].endswith("SLURM does not answer: waiting up to 120 s")


def test_while_nobody_can_say_nothing_goes_on(plan, cut_off):
    with pytest.raises(
        RunDirectoryError, match="nobody can say whether SLURM took the job of the launch"
    ) as caught:
        settle(plan, JobState("UNKNOWN", "it hangs"), [])

    assert caught.value.message.endswith("which was cut off: it hangs")
    assert "scontrol ping" in caught.value.hint
    assert flight.is_open(plan.files)


def test_a_launch_that_never_sent_anything_needs_no_answer(plan):
    flight.write(plan.files, flight.Flight(plan).note)

    assert settle(plan, JobState("UNKNOWN"), []) == []
    assert not flight.is_open(plan.files)


def test_what_was_sent_a_moment_ago_may_arrive_yet(plan, monkeypatch):
    monkeypatch.setenv("MEDARC_PATIENCE", "settle=5")
    flight.Flight(plan).begin()
    answers = [JobState("GONE"), JobState("GONE"), JobState("PENDING", job_id="23")]
    monkeypatch.setattr(flight.time, "sleep", lambda _: None)
    flight.settle(plan.files, lambda _: answers.pop(0), lambda _: None)

    assert rundir.read_submission(plan.files).job_id == "23"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"state": 1}'])
def test_a_torn_note_says_nothing(plan, text):
    (plan.files.launch / flight.NAME).write_text(text)

    assert flight.read(plan.files.launch) is None
    assert not flight.is_open(plan.files)


def test_a_note_of_a_newer_version_is_read(plan, cut_off):
    document = {**asdict(cut_off.note), "format": 7, "more": {}}
    (plan.files.launch / flight.NAME).write_text(json.dumps(document))

    assert flight.is_open(plan.files)
