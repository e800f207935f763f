"""A run that is named and is not there, by every command that takes one."""

import pytest


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["status", "nowhere"], "there is no run nowhere"),
        (["status", "999"], "there is no run of job 999"),
        (["status"], "no run was submitted from"),
        (["status", "--watch", "--json"], "contradict each other"),
        (["logs", "-c", "trainor", "runs/a"], "there is no component 'trainor'"),
        (["logs", "nowhere"], "there is no run nowhere"),
        (["cancel", "nowhere", "--yes"], "there is no run nowhere"),
        (["wait", "nowhere"], "there is no run nowhere"),
        (["resume", "nowhere"], "there is no run nowhere"),
        (["rerun", "nowhere"], "there is no run nowhere"),
        (["diff", "nowhere", "nowhere"], "there is no run nowhere"),
    ],
)
def test_bad_names_are_said_to_be_bad(here, work, slurm, argv, says):
    (work / "runs" / "a" / "configs").mkdir(parents=True)

    done = here("medarc_slurm", *argv)

    assert done.code == 2
    assert says in done.err
    assert done.out == ""
