"""What became of a job that SLURM accepted and does not know."""

import math
import time

import pytest

from medarc_plugin.lifesigns import Signs
from medarc_plugin.slurm import lost
from medarc_plugin.slurm.lost import Controller

KEEPS = Controller("sandbox", next_id=100, keeps=300)
NEVER = Signs()


def judge(age=1000.0, signs=NEVER, told=KEEPS, *, job_id="17", taken=False):
    return lost.judge(job_id, age, signs, told, taken=taken)


def began(seconds_ago):
    return Signs("17", started=True, last=time.time() - seconds_ago)


def test_one_that_slurm_must_still_know_is_lost():
    found = judge(age=100)

    assert (found.state, found.began) == ("LOST", "it never began")
    assert found.evidence == "SLURM, which keeps ended jobs for 300 s, forgot it within 100 s"


def test_one_that_may_have_been_cancelled_long_ago_is_gone():
    assert judge(age=301).state == "GONE"


def test_one_whose_id_is_anothers_now_is_lost_however_old():
    found = judge(age=1e6, taken=True)

    assert found.state == "LOST"
    assert found.evidence == "SLURM has given its id to another job"


@pytest.mark.parametrize(("job_id", "state"), [("99", "GONE"), ("100", "LOST"), ("170", "LOST")])
def test_one_whose_id_slurm_has_not_given_yet_is_lost(job_id, state):
    assert judge(age=1e6, job_id=job_id).state == state


def test_ids_that_began_anew_prove_nothing():
    assert judge(age=1e6, job_id="67043000").state == "GONE"


def test_ids_of_a_federation_count_each_clusters_own():
    west = 3 << 26

    assert judge(age=1e6, job_id=str(west + 170)).state == "LOST"
    assert judge(age=1e6, job_id=str(west + 17)).state == "GONE"


@pytest.mark.parametrize("taken", [True, False])
def test_one_whose_own_records_tell_its_end_is_not_lost(taken):
    found = judge(age=10, signs=Signs("17", started=True, ended=True, last=time.time()), taken=taken)

    assert (found.state, found.began) == ("GONE", "its own records tell its end")


def test_one_that_gives_signs_of_life_runs():
    found = judge(signs=Signs("17", started=True, alive=True, last=time.time()), taken=True)

    assert (found.state, found.began) == ("RUNNING", "its own heartbeat goes on")


def test_one_that_had_begun_is_lost_when_it_was_alive_a_moment_ago():
    found = judge(age=86400, signs=began(seconds_ago=70))

    assert found.state == "LOST"
    assert found.began == "it had begun, and recorded no end"


def test_one_that_fell_silent_long_ago_may_have_ended_without_a_record():
    assert judge(age=86400, signs=began(seconds_ago=3600)).state == "GONE"


def test_a_controller_that_forgets_nothing_has_lost_what_it_does_not_know():
    assert judge(age=1e9, told=Controller(next_id=100, keeps=math.inf)).state == "LOST"


def test_without_the_controllers_settings_only_the_id_tells():
    assert judge(age=1, told=Controller()).state == "GONE"
    assert judge(age=1, told=Controller(), taken=True).state == "LOST"


def test_a_controller_says_what_it_is(slurm):
    assert lost.controller() == Controller("sandbox", next_id=100, keeps=300)

    slurm.set(controller={"cluster": "west", "keeps": 0, "next_id": 7})

    assert lost.controller() == Controller("west", next_id=7, keeps=math.inf)


def test_a_controller_that_is_down_says_nothing(slurm):
    slurm.set(up=False)

    assert lost.controller() is None
