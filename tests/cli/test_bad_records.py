"""Records that are torn, foreign, or somebody else's: every command answers, and none with a traceback."""

from __future__ import annotations

import json
import time

import pytest
from standins import recorded
from standins.terminal import in_a_terminal

from medarc_plugin import index
from medarc_plugin.difference import flat

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


EVIL = "\x1b]0;title\x07\x1b[31mred\x1b[2J\x9b1m\x7f"


@pytest.fixture
def evil(make_run, slurm):
    """A run whose every text is meant for the terminal."""
    run = make_run(f"a{EVIL}", plan={"name": EVIL, "backend": "slurm"})
    recorded.end(run, reason=EVIL, exit_code=1, host=EVIL, failure=f"{EVIL} ended with exit code 1: {EVIL}")
    recorded.write_state(run, phase=EVIL)
    run.files.config.write_text(json.dumps({EVIL: EVIL}))
    run.run_dir.joinpath("job_17.log").write_text(f"{EVIL}\n")
    environment = run.run_dir / "logs" / "attempt_1" / "envs" / "train" / f"{EVIL}.log"
    environment.parent.mkdir(parents=True)
    environment.write_text("x\n")
    slurm.set(up=False)
    return run


@pytest.mark.parametrize("command", ["status", "list", "logs", "why", "wait", "diff", "plot", "cancel"])
def test_nothing_of_a_record_reaches_a_terminal_that_would_obey_it(here, evil, make_run, command):
    other = make_run("b", "18", token="t18")
    other.files.config.write_text("{}")
    named = {"list": (), "diff": (str(evil.run_dir), str(other.run_dir)), "cancel": ("-y", str(evil.run_dir))}

    done = here("medarc_slurm", command, *named.get(command, (str(evil.run_dir),)))

    assert "Traceback" not in done.err
    assert [letter for letter in done.printed if not letter.isprintable() and letter != "\n"] == []
    assert "red" in done.printed


def test_a_terminal_is_shown_what_a_name_would_have_it_do(evil):
    shown = in_a_terminal("status", str(evil.run_dir))

    assert r"\x1b]0;title\x07" in shown.replace("\r\n", "")
    assert "\x1b]0;" not in shown
    assert "\x1b[2J" not in shown


@pytest.fixture
def named_awkwardly(make_run):
    """A run whose name no encoding but UTF-8 has, and whose config has numbers that JSON has not."""
    name = f"é名😀{EVIL}"
    run = make_run(name, plan={"name": name, "backend": "slurm"})
    recorded.end(run, reason="failed", exit_code=1, failure=name)
    run.files.config.write_text('{"a": NaN, "b": [Infinity, -Infinity]}')
    return run


def document_of(text):
    def refuse(word):
        raise AssertionError(word)

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("command", ["status", "why", "wait", "diff", "cancel", "report", "plot"])
def test_a_document_is_json_whatever_it_holds(here, named_awkwardly, make_run, command):
    other = make_run("b", "18", token="t18")
    other.files.config.write_text("{}")
    run_dir = str(named_awkwardly.run_dir)
    named = {"diff": (run_dir, str(other.run_dir)), "cancel": ("-y", run_dir)}

    done = here("medarc_slurm", command, "--json", *named.get(command, (run_dir,)))

    document = document_of(done.out)
    assert document["format"] == 1
    assert run_dir in [value for _, value in flat(document)]
    assert [letter for letter in done.out if not letter.isprintable() and letter != "\n"] == []


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_document_is_json_in_every_encoding(cli, named_awkwardly, encoding):
    done = cli("medarc_slurm", "status", "--json", PYTHONIOENCODING=encoding)

    (found,) = document_of(done.out)["runs"]
    assert found["run_dir"] == str(named_awkwardly.run_dir)


def test_what_gpus_do_may_be_no_number(here, make_run, slurm):
    run = make_run("b")
    recorded.begin(run)
    recorded.write_state(run, gpus=[{"index": 0, "memory_used_mib": float("nan")}])
    slurm.set(jobs={"17": {"state": "RUNNING", "comment": recorded.MARK}})

    done = here("medarc_slurm", "status", "--json", str(run.run_dir))

    assert json.loads(done.out)["runs"][0]["gpu_use"] == [{"index": 0, "memory_used_mib": "NaN"}]


def test_a_folder_that_may_not_be_entered_is_no_place_to_resume_from(here, run, work, monkeypatch):
    made = {"command": ["rl", "@", "rl.toml"], "working_directory": str(work)}
    run.files.provenance.write_text(json.dumps(made))

    def refuse(place):
        raise PermissionError(13, "Permission denied", str(place))

    monkeypatch.setattr("os.chdir", refuse)

    done = here("medarc_slurm", "resume", str(run.run_dir), "--dry-run")

    assert (done.code, done.out) == (2, "")
    assert f"was launched in {work}, which cannot be entered: Permission denied\nhint: " in done.err
