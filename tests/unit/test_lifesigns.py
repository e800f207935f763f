"""What a job leaves in its run directory, whatever SLURM remembers of it."""

import json
import os
import time

import pytest

from medarc_plugin import lifesigns
from medarc_plugin.lifesigns import Signs

TOKEN = "0123456789ab"


@pytest.fixture
def run(work):
    folder = work / "runs" / "a"
    (folder / "configs" / "launch").mkdir(parents=True)
    return folder


def attempt(run, number, token=TOKEN, *, seconds_ago=0, beat=None):
    folder = run / "configs" / "attempts" / str(number)
    folder.mkdir(parents=True)
    written = {"started": {"token": token, "job_id": "17", "attempt": number}}
    if beat is not None:
        written["heartbeat"] = {"ended": beat == "ended"}
    for name, document in written.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(document))
        os.utime(path, times=(time.time() - seconds_ago,) * 2)


def end(run, token=TOKEN, **row):
    with (run / "configs" / "launch" / "attempts.jsonl").open("a") as file:
        file.write(json.dumps({"token": token, **row}) + "\n")


def test_a_run_directory_without_a_job_tells_nothing(run, work):
    assert lifesigns.read(run, TOKEN) == Signs()
    assert lifesigns.read(work / "nowhere", TOKEN) == Signs()


def test_a_record_of_the_start_names_the_job(run):
    attempt(run, 1, seconds_ago=500)

    found = lifesigns.read(run, TOKEN)

    assert (found.job_id, found.started, found.ended, found.alive) == ("17", True, False, False)
    assert found.last == pytest.approx(time.time() - 500, abs=60)


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00"])
def test_torn_records_tell_nothing(run, text):
    attempt(run, 1)
    (run / "configs" / "attempts" / "1" / "started.json").write_text(text)
    (run / "configs" / "launch" / "attempts.jsonl").write_text(text)

    assert lifesigns.read(run, TOKEN) == Signs()


def test_the_records_of_another_submission_tell_nothing(run):
    attempt(run, 1, token="ba9876543210", beat="beats")
    end(run, token="ba9876543210")

    assert lifesigns.read(run, TOKEN) == Signs()


@pytest.mark.parametrize(
    ("beat", "seconds_ago", "alive"), [("beats", 0, True), ("beats", 600, False), ("ended", 0, False)]
)
def test_a_heartbeat_that_goes_on_is_a_live_job(run, beat, seconds_ago, alive):
    attempt(run, 1, beat=beat, seconds_ago=seconds_ago)

    assert lifesigns.read(run, TOKEN).alive is alive


@pytest.mark.parametrize(("requeued", "ended"), [(False, True), (True, False)])
def test_the_end_that_counts_is_the_last_one(run, requeued, ended):
    end(run, requeued=True)
    end(run, requeued=requeued)

    assert lifesigns.read(run, TOKEN).ended is ended


def test_a_log_is_a_beginning(run):
    (run / "job_17.log").touch()

    assert lifesigns.read(run, TOKEN, "17").started
    assert not lifesigns.read(run, TOKEN, "18").started


def test_a_log_from_before_the_submission_is_another_jobs(run):
    log = run / "job_17.log"
    log.touch()
    os.utime(log, times=(1000, 1000))

    assert not lifesigns.read(run, TOKEN, "17", since=time.time()).started


def test_the_jobs_that_have_a_log_are_named(run):
    for name in ("job_17.log", "job_9.log", "job_x.log", "rl.sbatch"):
        (run / name).touch()

    assert lifesigns.logs(run) == {"9", "17"}
    assert lifesigns.logs(run / "nowhere") == frozenset()
