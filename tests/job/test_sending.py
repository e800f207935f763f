"""A job that came late gives way to the one that was sent in its place."""

import json
import signal
import threading

import pytest

from medarc_plugin.job import sending
from medarc_plugin.job.launch import read_launch
from medarc_plugin.job.log import Log


@pytest.fixture
def note(run):
    def write(**values):
        document = {"token": "3f2a", "state": "accepted", "sending": 2, "job_id": "18", **values}
        (run.folder / "delivery.json").write_text(json.dumps(document))

    return write


def test_one_in_whose_place_another_was_sent_ends_without_a_trace(run, note):
    note()

    ended = run.attempt(MEDARC_SENDING="3f2a:1")

    assert (ended.code, ended.lines("")) == (
        0,
        ["this job came late: its script was sent again, and job 18 has the run; ending"],
    )
    assert not (run.run_dir / "configs" / "attempts").exists()
    assert not (run.folder / "attempts.jsonl").exists()


@pytest.mark.parametrize(
    ("variable", "values"),
    [
        ("3f2a:2", {}),
        ("3f2a:1", {"job_id": "17"}),
        ("3f2a:1", {"sending": 1}),
        ("3f2a:1", {"token": "another"}),
        ("3f2a:1", {"state": "none", "job_id": None}),
        ("another:1", {}),
        ("", {}),
        ("3f2a", {}),
        ("3f2a:x", {}),
    ],
)
def test_any_other_has_the_run(run, note, variable, values):
    note(**values)

    ended = run.attempt(MEDARC_SENDING=variable)

    assert (ended.code, run.attempts()[-1]["reason"]) == (0, "finished"), ended.log


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_torn_note_ends_nothing(run, text):
    (run.folder / "delivery.json").write_text(text)

    assert run.attempt(MEDARC_SENDING="3f2a:1").code == 0
    assert run.attempts()[-1]["reason"] == "finished"


def test_while_the_launch_is_sending_its_word_is_waited_for(run, note):
    note(state="open", job_id=None)
    process = run.start(MEDARC_SENDING="3f2a:1")
    note()

    assert "job 18 has the run" in run.finish(process).log


def test_a_job_that_waits_can_be_ended(run, note):
    note(state="open", job_id=None)
    run.write()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        launch = read_launch(run.folder / "launch.json")
        code = sending.gives_way(launch, {"MEDARC_SENDING": "3f2a:1", "SLURM_JOB_ID": "17"}, Log())
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    assert code == 128 + signal.SIGTERM
