"""What makes two runs different."""

import json

import pytest
from standins import recorded

from medarc_plugin.difference import compare, compare_tables
from medarc_plugin.errors import RunDirectoryError

CONFIG = {
    "output_dir": "{parent}",
    "run": {"name": "{name}", "dir": "{name}"},
    "trainer": {"output_dir": "{run}", "optim": {"lr": 1e-6}},
    "sources": [{"id": "a"}, {"id": "b"}],
    "resume": None,
}
SCRIPT = """#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --comment="[medarc:{name}]"
#SBATCH --output="{run}/job_%j.log"
#SBATCH --requeue
#SBATCH --cpus-per-task=16
# Written by medarc_plugin.
export A=1
exec python {run}/configs/launch/job
"""


@pytest.fixture
def make(work):
    def make_one(name, config=None, script=SCRIPT, plan=None, versions=None):
        run = recorded.make_run(work / name / name, token=name, plan=plan)
        words = {"{run}": str(run.run_dir), "{parent}": str(run.run_dir.parent), "{name}": name}
        text = json.dumps({**CONFIG, **(config or {})})
        for word, value in words.items():
            text, script = text.replace(word, value), script.replace(word, value)
        run.files.config.write_text(text)
        run.files.script.write_text(script)
        run.files.provenance.write_text(json.dumps({"prime_rl": {"commit": "abc"}, **(versions or {})}))
        return run

    return make_one


def listed(left, right):
    return [(each.section, each.path, each.left, each.right) for each in compare(left, right)]


def test_names_and_places_are_no_difference(make):
    assert listed(make("a"), make("b")) == []


def test_null_and_nothing_are_the_same_and_names_of_variables_are_said_once(make):
    left = make("a", {"resume": None}, plan={"caches": {"warm": True, "kept": []}})
    right = make("b", {"resume": {"step": None}}, plan={"caches": {"warm": True, "kept": ["A"]}})

    assert listed(left, right) == []


def test_a_config_differs_path_by_path(make):
    changed = {
        "trainer": {"output_dir": "{run}", "optim": {"lr": 2e-6}},
        "sources": [{"id": "a"}, {"id": "c"}, {"id": "d"}],
        "resume": {"step": 4},
    }

    assert listed(make("a"), make("b", changed)) == [
        ("config", "trainer.optim.lr", (1e-6,), (2e-6,)),
        ("config", "sources.1.id", ("b",), ("c",)),
        ("config", "sources.2.id", (), ("d",)),
        ("config", "resume.step", (), (4,)),
    ]


def test_options_versions_and_lines_of_the_script_differ(make):
    script = SCRIPT.replace("=16", "=8").replace("--requeue", "--no-requeue").replace("A=1", "A=2")
    left = make("a", plan={"cpus": 16})
    right = make("b", script=script, plan={"cpus": 8}, versions={"prime_rl": {"commit": "def"}})

    assert listed(left, right) == [
        ("options", "cpus", (16,), (8,)),
        ("options", "--requeue", (True,), ()),
        ("options", "--cpus-per-task", ("16",), ("8",)),
        ("options", "--no-requeue", (), (True,)),
        ("versions", "prime_rl.commit", ("abc",), ("def",)),
        ("script", "line", ("export A=1",), ()),
        ("script", "line", (), ("export A=2",)),
    ]


def test_a_switch_is_no_number():
    assert len(compare_tables("config", {"a": 1}, {"a": True})) == 1
    assert compare_tables("config", {"a": 1}, {"a": 1.0}) == []
    assert len(compare_tables("config", {"a": []}, {"a": None})) == 1
    assert [each.path for each in compare_tables("config", {}, {"a": 1})] == ["a"]


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_config_that_is_torn_is_an_error(make, text):
    left, right = make("a"), make("b")
    right.files.config.write_text(text)

    with pytest.raises(RunDirectoryError, match=r"config"):
        compare(left, right)
