"""How a submission's job is doing, with an id that may be another's and a controller that forgets."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from standins import make_plan

from medarc_plugin import flight
from medarc_plugin.backends.slurm import SlurmBackend
from medarc_plugin.models import Submission


@pytest.fixture
def plan(work):
    plan = make_plan(work / "runs" / "a")
    plan.files.launch.mkdir(parents=True)
    plan.files.script.write_text("#!/bin/bash\n")
    return plan


def query(plan, job_id="17", minutes_ago=1):
    at = (datetime.now(UTC) - timedelta(minutes=minutes_ago)).isoformat(timespec="seconds")
    script, log = plan.files.script, plan.files.log_of(job_id)
    return SlurmBackend().query(Submission(job_id, None, script, log, at, plan.token, "slurm"))


def job(plan, state="RUNNING", **other):
    return {"state": state, "comment": f"[medarc:{plan.token}]", "script": str(plan.files.script), **other}


OTHER = {"state": "RUNNING", "comment": "[medarc:ba9876543210]", "script": "/x/rl.sbatch"}


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETED"])
def test_a_job_is_known_by_id_and_word(plan, slurm, state):
    slurm.set(jobs={"17": job(plan, state)})

    assert query(plan).state == state


def test_a_script_that_was_submitted_again_by_hand_is_the_run_that_lives(plan, slurm):
    slurm.set(jobs={"17": job(plan, "FAILED"), "23": job(plan, "PENDING")})

    found = query(plan)

    assert (found.state, found.job_id) == ("PENDING", "23")


@pytest.mark.parametrize("minutes_ago", [1, 10**5])
def test_a_job_whose_id_slurm_gave_to_another_is_lost(plan, slurm, minutes_ago):
    slurm.set(jobs={"17": OTHER})

    found = query(plan, minutes_ago=minutes_ago)

    assert (found.state, found.over) == ("LOST", True)
    assert "SLURM has given its id to another job" in found.reason


def test_a_job_that_slurm_forgot_at_once_is_lost(plan, slurm):
    assert query(plan).state == "LOST"


def test_a_job_that_is_too_old_for_slurm_is_gone(plan, slurm):
    assert query(plan, minutes_ago=10).state == "GONE"


def test_an_id_that_slurm_has_not_given_yet_was_given_before_it_was_killed(plan, slurm):
    slurm.set(controller={"cluster": "sandbox", "keeps": 300, "next_id": 12})

    assert query(plan, minutes_ago=10).state == "LOST"


def test_a_job_that_tells_its_own_end_is_not_lost(plan, slurm):
    row = {"token": plan.token, "attempt": 1, "requeued": False}
    (plan.files.launch / "attempts.jsonl").write_text(json.dumps(row) + "\n")
    slurm.set(jobs={"17": OTHER})

    assert query(plan).state == "GONE"


def test_a_job_that_lives_though_slurm_forgot_it_keeps_its_directory(plan, slurm):
    attempt = plan.run_dir / "configs" / "attempts" / "1"
    attempt.mkdir(parents=True)
    (attempt / "started.json").write_text(json.dumps({"token": plan.token, "job_id": "17"}))
    (attempt / "heartbeat.json").write_text(json.dumps({"ended": False}))

    found = query(plan)

    assert (found.state, found.over) == ("RUNNING", False)


def test_another_clusters_answer_says_nothing_about_this_ones_job(plan, slurm):
    under_way = flight.Flight(plan)
    under_way.begin()
    under_way.settle("17", "west")
    slurm.set(jobs={"17": OTHER})

    found = query(plan)

    assert (found.state, found.over) == ("UNKNOWN", False)
    assert found.reason == "cluster west took it, and this machine asks sandbox"


def test_while_the_controller_is_down_nobody_knows(plan, slurm):
    slurm.set(up=False)

    assert query(plan).state == "UNKNOWN"
    assert query(plan, job_id="").state == "UNKNOWN"


def test_without_an_id_the_word_finds_the_job(plan, slurm):
    slurm.set(jobs={"23": job(plan, "COMPLETED")})

    found = query(plan, job_id="")

    assert (found.state, found.job_id) == ("COMPLETED", "23")


def test_without_an_id_what_the_job_left_finds_it(plan, slurm):
    (plan.run_dir / "job_9.log").touch()
    under_way = flight.Flight(plan)
    under_way.begin()
    assert query(plan, job_id="").job_id is None

    (plan.run_dir / "job_23.log").touch()

    assert query(plan, job_id="").job_id == "23"


def test_without_an_id_and_without_a_job_there_is_none(plan, slurm):
    found = query(plan, job_id="")

    assert (found.state, found.job_id) == ("GONE", None)


def test_a_subclass_with_a_submission_of_its_own_is_launched_by_that(plan, slurm):
    class Night(SlurmBackend):
        def submit(self, plan, secrets):
            return super().submit(plan, {**secrets, "NIGHT": "1"})

    class Day(SlurmBackend):
        name = "day"

    assert Night.submit_once is None
    assert Day.submit_once is SlurmBackend.submit_once
    assert Night().submit(plan, {}).job_id == "17"
    assert slurm.calls("sbatch")[0]["environment"]["NIGHT"] == "1"


def test_a_sandbox_that_was_taken_down_has_no_jobs(plan, slurm, work):
    conf = str(work / "no-such.conf")
    submission = Submission(
        "17", None, plan.files.script, plan.files.log, "", plan.token, "slurm", slurm_conf=conf
    )

    assert SlurmBackend().query(submission).state == "GONE"
    assert slurm.calls("squeue") == []
