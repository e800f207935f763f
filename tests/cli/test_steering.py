"""`cancel`, `wait` and `diff`, as they are typed."""

import io
import json

import pytest
import typer
from standins.recorded import MARK, begin, end


def test_nothing_is_ended_without_being_asked(here, running, slurm):

    done = here("medarc_slurm", "cancel")

    assert (done.code, slurm.calls("scancel")) == (2, [])
    assert "add --yes" in done.err


def test_a_run_is_ended_and_a_node_that_hangs_is_told_by_the_code(here, make_run, slurm):
    run = make_run()
    slurm.set(jobs={"17": {"state": "PENDING", "comment": MARK}})

    done = here("medarc_slurm", "cancel", "17", "--yes")
    assert (done.code, done.out) == (0, "runs/a: job 17 is over: CANCELLED\n")

    begin(run)
    (slurm.programs / "scancel").write_text("#!/bin/sh\n")
    slurm.set(jobs={"17": {"state": "COMPLETING", "node": "node1", "comment": MARK}})
    stuck = here("medarc_slurm", "cancel", "17", "--yes", "--timeout", "0", "--json")
    (told,) = json.loads(stuck.out)["runs"]
    assert (stuck.code, told["gone"], told["state"]) == (1, False, "COMPLETING")


def test_one_wrong_name_ends_nothing(here, running, slurm):

    done = here("medarc_slurm", "cancel", "runs/a", "nowhere", "--yes")

    assert (done.code, slurm.calls("scancel")) == (2, [])


def test_a_signal_is_sent_and_not_waited_for(here, running, slurm):

    done = here("medarc_slurm", "cancel", "--yes", "--signal", "USR2")

    assert (done.code, done.out) == (0, "runs/a: USR2 is sent to job 17\n")


def test_a_wait_prints_the_end_and_has_its_code(here, make_run, slurm):
    end(make_run(), reason="failed", exit_code=7, failure="trainer failed with exit code 7")

    done = here("medarc_slurm", "wait")
    assert (done.code, done.out) == (
        7,
        "job 17 is over: FAILED, exit code 7: trainer failed with exit code 7\n",
    )

    document = json.loads(here("medarc_slurm", "wait", "--json").out)
    assert (document["format"], document["code"], document["run"]["state"]) == (1, 7, "FAILED")


def test_a_wait_that_is_over_before_the_run_says_so(here, running, slurm):

    done = here("medarc_slurm", "wait", "--timeout", "0")

    assert (done.code, done.out) == (124, "")
    assert "job 17 is RUNNING, after 0 s of waiting" in done.err


@pytest.mark.parametrize(
    ("job", "says"),
    [
        ({"state": "PENDING", "reason": "BeginTime", "comment": MARK}, "is waiting (BeginTime), after"),
        (None, "is UNKNOWN (it never started, as far as its records tell), after"),
    ],
)
def test_a_wait_says_what_the_run_waited_for(here, make_run, slurm, job, says):
    make_run()
    slurm.set(jobs={"17": job}) if job else slurm.remove()

    done = here("medarc_slurm", "wait", "--timeout", "0")

    assert done.code == 124
    assert f"job 17 {says} 0 s of waiting" in done.err


def test_differences_are_listed_with_their_code(here, make_run, slurm):
    for name, rate in (("a", 1e-6), ("b", 2e-6)):
        run = make_run(name, "17" if name == "a" else "18", token=name)
        run.files.config.write_text(json.dumps({"optim": {"lr": rate}, "same": True}))

    same, other = here("medarc_slurm", "diff", "runs/a", "17"), here("medarc_slurm", "diff", "17", "18")
    document = json.loads(here("medarc_slurm", "diff", "17", "18", "--json").out)

    assert (same.code, same.out) == (0, "")
    assert (other.code, other.out.splitlines()[1].split()) == (1, ["config", "optim.lr", "1e-06", "2e-06"])
    assert document["differences"] == [{"section": "config", "path": "optim.lr", "left": 1e-6, "right": 2e-6}]


def test_an_interrupted_cancel_says_where_to_look(here, running, slurm, monkeypatch):
    monkeypatch.setattr("medarc_plugin.steering.cancel", lambda *_: interrupt())

    done = here("medarc_slurm", "cancel", "--yes")

    assert (done.code, done.out) == (130, "")
    assert done.err == "\ninterrupted; what has ended: medarc_slurm status runs/a\n"


def interrupt(*_):
    raise KeyboardInterrupt


def test_ctrl_c_instead_of_an_answer_ends_nothing(here, running, slurm, monkeypatch):
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("typer.confirm", abort)

    done = here("medarc_slurm", "cancel")

    assert (done.code, done.out) == (130, "")
    assert done.err.endswith("\nnothing is done\n")
    assert slurm.calls("scancel") == []


class Terminal(io.StringIO):
    def isatty(self):
        return True


def abort(*_, **__):
    raise typer.Abort
