"""A run that is named and is not there, by every command that takes one."""

import re

import pytest

from medarc_plugin.cli import completion_table


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


def test_every_command_has_help_by_both_names(here):
    for words in {"", *(words for words, _ in completion_table.look_up())}:
        long, short = (
            here("medarc_slurm", *words.split(), "--help"),
            here("medarc_slurm", *words.split(), "-h"),
        )
        assert (long.code, short.code) == (0, 0), words
        assert short.out == long.out != "", words


def test_the_help_follows_the_way_of_a_run(here):
    commands = here("medarc_slurm", "--help").out.partition(" Commands ")[2]
    listed = re.findall(r"^\W+([a-z]+) {2,}\S", commands, re.MULTILINE)

    assert listed[:8] == ["rl", "sft", "inference", "status", "list", "logs", "why", "cancel"]


def test_options_says_that_it_takes_a_profile(here, work):
    (work / "medarc.toml").write_text('[profile.x]\ntime = "7"\n')

    assert "--profile" in here("medarc_slurm", "options", "--help").out
    assert f"{work}/medarc.toml [profile.x]" in here("medarc_slurm", "options", "--profile", "x").out
