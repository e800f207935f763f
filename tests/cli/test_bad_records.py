"""Records that are torn, foreign, or somebody else's: every command answers, and none with a traceback."""

from __future__ import annotations

import json

import pytest
from standins import recorded

COMMANDS = ("status", "logs", "why", "report", "plot")
RECORDS = ("launch.json", "submission.json", "state.json", "attempts.jsonl", "provenance.json")


@pytest.fixture
def run(make_run):
    """A run that failed."""
    made = make_run("a")
    recorded.end(made, reason="failed", exit_code=1)
    recorded.write_state(made)
    made.files.config.write_text("{}")
    return made


@pytest.mark.parametrize("record", RECORDS)
@pytest.mark.parametrize("levels", [900, 100_000])
def test_a_record_may_be_nested_without_end(here, run, record, levels):
    (run.files.launch / record).write_text('{"a":' * levels + "1" + "}" * levels)

    codes = {command: here("medarc_slurm", command, str(run.run_dir)).code for command in COMMANDS}

    assert codes == dict.fromkeys(COMMANDS, 0)


def test_a_line_of_the_users_list_may_be_nested_without_end(here, run):
    from medarc_plugin import index

    with index.path().open("a") as file:
        file.write("[" * 60_000 + "\n")

    done = here("medarc_slurm", "list", "--json")

    assert [each["job_id"] for each in json.loads(done.out)["runs"]] == ["17"]
