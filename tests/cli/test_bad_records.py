"""Records that are torn, foreign, or somebody else's: every command answers, and none with a traceback."""

from __future__ import annotations

import json
import time

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


@pytest.mark.parametrize(
    "values",
    [
        {"run_dir": "/a\0b"},
        {"run_dir": "/\ud800"},
        {"cluster": "\0"},
        {"slurm_conf": "\0"},
    ],
)
def test_a_line_of_the_users_list_that_names_nothing_is_passed_over(here, run, values):
    from medarc_plugin import index

    known = json.loads(index.path().read_text())
    with index.path().open("a") as file:
        file.write(json.dumps({**known, "run_dir": "/gone", "job_id": "18", **values}) + "\n")

    done = here("medarc_slurm", "list", "--json")

    assert [each["job_id"] for each in json.loads(done.out)["runs"]] == ["17"]


def test_a_record_of_a_submission_that_names_nothing_cannot_be_read(here, run):
    record = json.loads(run.files.submission.read_text())
    run.files.submission.write_text(json.dumps({**record, "cluster": "\0"}))

    done = here("medarc_slurm", "status", str(run.run_dir))

    assert done.code == 0
    assert r"cluster is '\x00'" in done.out


@pytest.mark.parametrize("value", ["1" + "0" * 400, "-1" + "0" * 400, "NaN", "Infinity", "1e999"])
def test_a_figure_that_no_float_holds_is_none(here, run, value):
    run.files.launch.joinpath("state.json").write_text(f'{{"step": 3, "reward": {value}, "loss": 0.5}}')

    (found,) = json.loads(here("medarc_slurm", "status", "--json", str(run.run_dir)).out)["runs"]

    assert (found["step"], found["reward"], found["loss"]) == (3, None, 0.5)


@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59+00:00", "0001-01-01T00:00:00+00:00"])
@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
def test_a_moment_that_another_zone_has_no_date_for_is_none(here, make_run, monkeypatch, slurm, moment, zone):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    run = make_run("b")
    recorded.end(run, started=moment, reason="failed", exit_code=1)
    with (run.files.launch / "attempts.jsonl").open() as file:
        row = json.loads(file.read())
    (run.files.launch / "attempts.jsonl").write_text(json.dumps({**row, "ended": moment}) + "\n")

    try:
        done = here("medarc_slurm", "status", str(run.run_dir))
        slurm.set(jobs={"17": {"state": "RUNNING", "comment": recorded.MARK, "end": moment[:19]}})
        running = here("medarc_slurm", "status", str(run.run_dir))
    finally:
        monkeypatch.undo()
        time.tzset()

    assert (done.code, running.code) == (0, 0)
    assert "FAILED, exit code 1" in done.out
    assert "state      RUNNING" in running.out


@pytest.mark.parametrize("code", [256, 512, -1, 10**30])
def test_a_run_that_failed_never_ends_wait_with_zero(here, make_run, code):
    run = make_run("b")
    recorded.end(run, reason="failed", exit_code=code)

    assert here("medarc_slurm", "wait", str(run.run_dir)).code == 1


def test_folders_of_logs_may_have_any_name(here, run):
    for name in ("attempt_²", "attempt_", "attempt_x"):
        (run.run_dir / "logs" / name).mkdir(parents=True)

    assert here("medarc_slurm", "logs", str(run.run_dir)).code == 0
    assert here("medarc_slurm", "why", str(run.run_dir)).code == 0
