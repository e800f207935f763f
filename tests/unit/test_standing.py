"""How runs stand: what SLURM says, what their records say, and whose word counts."""

import json
import os
import re
from datetime import UTC, datetime, timedelta

import pytest
from standins import recorded
from standins.recorded import MARK, TOKEN, ago, begin, end, now, write_state

from medarc_plugin import flight, index, logs, runs, standing, why
from medarc_plugin.cli import board
from medarc_plugin.job.child import started_at
from medarc_plugin.job.fence import _boot
from medarc_plugin.models import Submission
from medarc_plugin.rundir import record
from medarc_plugin.slurm import queue
from medarc_plugin.standing import GONE, LOST, UNKNOWN, UNSUBMITTED, look, look_at


@pytest.fixture
def make_run(work):
    """Write what a launch leaves of a run: `make_run("a", job_id="7")`."""
    return lambda name="a", *args, **options: recorded.make_run(work / "runs" / name, *args, **options)


def test_a_running_run_is_told_by_slurm_and_its_records(make_run, slurm):
    run = make_run()
    begin(run)
    eta = (now() + timedelta(minutes=10)).isoformat()
    write_state(run, eta=eta, updated=now().isoformat())
    slurm.set(
        jobs={
            "17": {
                "state": "RUNNING",
                "node": "node7",
                "comment": f"a | b {MARK}",
                "end": "2030-01-01T00:00:00",
            }
        }
    )

    found = look_at(run)

    assert (found.state, found.reason, found.node, found.job_id) == ("RUNNING", None, "node7", "17")
    assert (found.step, found.max_steps, found.reward, found.loss) == (12, 40, 0.5, 0.1)
    assert (found.phase, found.attempt, found.gpus, found.gpu_ids) == ("training", 1, 2, (2, 3))
    assert 595 <= found.seconds_left <= 600
    assert found.gpu_hours == pytest.approx(4.0, abs=0.01)
    assert found.limit is not None
    assert (found.over, found.alive, found.note, found.trouble) == (False, True, None, ())
    assert (found.sources["state"], found.sources["step"], found.sources["gpus"]) == (
        "squeue",
        "records",
        "plan",
    )


def test_a_pending_run_has_slurms_reason_and_expected_start(make_run, slurm):
    run = make_run()
    job = {
        "state": "PENDING",
        "reason": "Resources",
        "start": "2030-01-01T00:00:00",
        "end": "2030-01-02T00:00:00",
    }
    slurm.set(jobs={"17": job | {"comment": MARK}})

    found = look_at(run)

    assert (found.state, found.reason) == ("PENDING", "Resources")
    assert found.estimated_start == datetime(2030, 1, 1).astimezone(UTC)
    assert (found.started, found.ended, found.limit, found.node, found.phase) == (None,) * 5


def test_a_requeued_run_waits_and_keeps_what_it_came_to(make_run, slurm):
    run = make_run()
    end(run, reason="time-limit", exit_code=143, requeued=True)
    write_state(run, phase="ended", eta=None)
    slurm.set(jobs={"17": {"state": "PENDING", "reason": "BeginTime", "comment": MARK}})

    found = look_at(run)

    assert (found.state, found.attempt, found.step, found.phase) == ("PENDING", 1, 12, None)
    assert (found.exit_code, found.ended, found.node) == (None, None, None)
    assert found.gpu_hours == pytest.approx(2.0)


def test_gpu_hours_are_those_of_all_attempts(make_run, slurm):
    run = make_run()
    end(run, 1, reason="preempted", requeued=True)
    end(run, 2, reason="failed", exit_code=1, gpus=[0])
    begin(run, 3, token="earlier-submission", silent=3600)

    assert look_at(run).gpu_hours == pytest.approx(2.0 + 1.0 + 2.0, abs=0.01)


@pytest.mark.parametrize(
    ("reason", "state", "why"),
    [
        ("finished", "COMPLETED", None),
        ("failed", "FAILED", "trainer failed with exit code 1: out of memory"),
        ("cancelled", "CANCELLED", None),
        ("time-limit", "TIMEOUT", "time-limit"),
        ("preempted", "PREEMPTED", "preempted"),
        ("idle", "FAILED", "idle"),
        ("something-new", "FAILED", "something-new"),
    ],
)
def test_a_job_that_slurm_forgot_is_told_by_its_records(make_run, slurm, reason, state, why):
    run = make_run()
    failure = why if reason == "failed" else ""
    end(run, reason=reason, exit_code=0 if state == "COMPLETED" else 5, failure=failure)

    found = look_at(run)

    assert (found.state, found.reason, found.over) == (state, why, True)
    assert found.note == "from the run's records: SLURM no longer knows job 17"
    assert found.exit_code == (0 if state == "COMPLETED" else 5)
    assert slurm.calls("sacct") == []


def test_a_check_that_failed_is_the_reason(make_run, slurm):
    run = make_run()
    end(run, reason="checks-failed", exit_code=3, failed=["GPUs: 1 of 2 wanted\nhint: x", "config: torn"])

    assert look_at(run).reason == "GPUs: 1 of 2 wanted; config: torn"


@pytest.mark.parametrize(
    ("attempts", "says"),
    [
        ([], "it never started"),
        (
            [{"silent": 7200}],
            "attempt 1 on node7 left no record of its end, and gave its last sign of life 2 h ago",
        ),
        ([{"reason": "time-limit"}], r"attempt 1 ended \(time-limit\) and went back into the queue"),
    ],
)
def test_a_job_without_an_end_that_slurm_does_not_know_any_more_is_gone(make_run, slurm, attempts, says):
    run = make_run()
    for fields in attempts:
        if "reason" in fields:
            end(run, requeued=True, **fields)
        else:
            begin(run, **fields)

    found = look_at(run)

    assert (found.state, found.over) == (GONE, True)
    assert re.search(says, found.reason)
    assert found.reason.endswith("; SLURM, which forgets ended jobs, no longer knows it")


@pytest.mark.parametrize(
    ("controller", "says"),
    [
        ({"next_id": 12}, "SLURM's next job will be 12: it forgot this one"),
        ({"keeps": 0}, "SLURM, which keeps ended jobs for ever, forgot it within "),
    ],
)
def test_a_job_that_slurm_accepted_and_forgot_is_lost(make_run, slurm, controller, says):
    slurm.set(controller={"cluster": "sandbox", "keeps": 300, "next_id": 100, **controller})

    found = look_at(make_run())

    assert (found.state, found.over) == (LOST, True)
    assert f"it never started, as far as its records tell; {says}" in found.reason


def test_another_clusters_silence_about_a_job_says_nothing(make_run, slurm):
    run = make_run()
    note = flight.Note("accepted", TOKEN, "slurm", 1, "", "", "login1", 1, cluster="west", job_id="17")
    flight.write(run.files, note)

    found = look_at(run)

    assert (found.state, found.reason) == (
        UNKNOWN,
        "cluster west took it, and this machine asks sandbox",
    )


def test_accounting_tells_what_the_controller_forgot(make_run, slurm):
    run = make_run()
    begin(run, silent=7200)
    row = {"id": "17", "state": "OUT_OF_MEMORY", "exit_code": "0:9", "comment": MARK}
    slurm.set(accounting=[row | {"end": "2026-11-22T17:00:00"}])

    found = look_at(run)

    assert (found.state, found.exit_code, found.sources["state"]) == ("OUT_OF_MEMORY", 137, "sacct")
    assert found.ended is not None


@pytest.mark.parametrize(("node", "hours"), [("node3", 3.0), ("", 0.0)])
def test_accounting_tells_the_gpu_hours_of_a_run_without_records(make_run, slurm, node, hours):
    run = make_run()
    planned = run.plan["gpus"]["count"]
    times = {"start": "2026-11-22T14:00:00", "end": "2026-11-22T17:00:00", "node": node}
    slurm.set(accounting=[{"id": "17", "state": "CANCELLED", "comment": MARK, **times}])

    assert look_at(run).gpu_hours == pytest.approx(hours * planned)


def test_a_jobs_end_is_told_though_its_id_was_given_again(make_run, slurm):
    run = make_run()
    own = {"id": "17", "state": "FAILED", "exit_code": "7:0", "comment": MARK}
    other = own | {"state": "COMPLETED", "exit_code": "0:0", "comment": "[medarc:another]"}
    jobs = {"17": {"state": "RUNNING", "comment": "[medarc:another]", "script": "/y/rl.sbatch"}}
    slurm.set(jobs=jobs, accounting=[own, other | {"submit": now().isoformat()}])

    found = look_at(run)

    assert (found.state, found.exit_code, found.sources["state"]) == ("FAILED", 7, "sacct")


def test_of_a_job_that_was_requeued_the_last_time_counts(make_run, slurm):
    first = {"id": "17", "state": "REQUEUED", "submit": ago(hours=2), "comment": MARK}
    last = {"id": "17", "state": "COMPLETED", "submit": ago(hours=1), "comment": MARK}
    slurm.set(accounting=[last, first])

    assert look_at(make_run()).state == "COMPLETED"


@pytest.mark.parametrize("state", ["TIMEOUT", "CANCELLED by 1000", "NODE_FAIL"])
def test_no_exit_code_of_a_job_that_slurm_ended_is_a_good_one(make_run, slurm, state):
    slurm.set(accounting=[{"id": "17", "state": state, "exit_code": "0:0", "comment": MARK}])

    assert look_at(make_run()).exit_code is None


def test_a_job_that_nobody_cancelled_is_not_said_to_be_ended_on_purpose(make_run, slurm):
    run = make_run()
    slurm.set(accounting=[{"id": "17", "state": "CANCELLED", "comment": MARK}])
    assert look_at(run).reason == standing.BY_ITSELF

    slurm.set(accounting=[{"id": "17", "state": "CANCELLED by 1000", "comment": MARK}])
    assert look_at(run).reason is None


def test_while_accounting_does_not_answer_nobody_knows_the_end(make_run, slurm):
    run = make_run()
    slurm.answer("sacct", stderr="sacct: error: Problem talking to the database: Connection refused", code=1)

    found = look_at(run)

    assert (found.state, found.over, found.unaccounted) == (UNKNOWN, False, True)
    assert found.note.endswith("Problem talking to the database: Connection refused")


def test_accounting_without_comments_is_believed_by_name_and_time(make_run, slurm):
    run = make_run()
    row = {
        "id": "17",
        "state": "CANCELLED by 1000",
        "submit": now().astimezone().strftime("%Y-%m-%dT%H:%M:%S"),
    }
    slurm.set(accounting=[row])
    assert look_at(run).state == "CANCELLED"

    slurm.set(accounting=[row | {"name": "another"}])
    assert look_at(run).state == GONE

    slurm.set(accounting=[row | {"submit": "2020-01-01T00:00:00"}])
    assert look_at(run).state == GONE


def test_an_id_that_was_used_again_for_the_same_name_is_not_mistaken(make_run, slurm):
    run, later = make_run("a"), make_run("b", token="later")
    for each, token in ((run, TOKEN), (later, "later")):
        index.add(
            index.Entry(
                *(str(each.run_dir), "rl", "reverse", "slurm", "17", None, None, token, ago(hours=1), "/p", 2)
            )
        )
    at = now().astimezone().strftime("%Y-%m-%dT%H:%M:%S")
    slurm.set(accounting=[{"id": "17", "state": "COMPLETED", "submit": at}])

    assert [found.state for found in look([run, later])] == [GONE, "COMPLETED"]


def test_a_job_of_somebody_elses_under_the_same_id_is_not_the_runs(make_run, slurm):
    run = make_run()
    slurm.set(jobs={"17": {"state": "RUNNING", "comment": "[medarc:another]", "script": "/y/rl.sbatch"}})

    found = look_at(run)

    assert found.state == LOST
    assert "job 17 is another one now" in found.note


def test_a_job_whose_comment_a_site_took_is_known_by_its_script(make_run, slurm):
    run = make_run()
    slurm.set(jobs={"17": {"state": "RUNNING", "script": str(run.files.script)}})
    assert look_at(run).state == "RUNNING"

    slurm.set(jobs={"17": {"state": "RUNNING", "script": "/x/other.sbatch"}})
    assert look_at(run).state == LOST


def test_what_slurm_refused_is_not_the_runs_job_though_it_has_an_id(make_run, slurm):
    run = make_run()
    refused = {"state": "FAILED", "submit": "1767225600", "start": "1767225600", "comment": MARK}
    slurm.set(jobs={"17": {"state": "RUNNING", "comment": MARK, "node": "node3"}, "18": refused})
    running = look_at(run)
    slurm.set(jobs={"18": refused})
    found = look_at(run)

    assert (running.state, running.node) == ("RUNNING", "node3")
    assert found.state != "FAILED"


def test_a_script_that_was_submitted_again_by_hand_is_the_runs(make_run, slurm):
    run = make_run()
    slurm.set(
        jobs={"17": {"state": "COMPLETED", "comment": MARK}, "21": {"state": "PENDING", "comment": MARK}}
    )

    assert (look_at(run).job_id, look_at(run).state) == ("21", "PENDING")


@pytest.mark.parametrize(("silent", "state"), [(0.0, "RUNNING"), (7200.0, UNKNOWN)])
def test_when_slurm_does_not_answer_the_records_do_and_it_is_said(make_run, slurm, silent, state):
    run = make_run()
    begin(run, silent=silent)
    slurm.set(up=False)

    found = look_at(run)

    assert (found.state, found.over) == (state, False)
    assert found.note.startswith(
        "from the run's records, SLURM did not answer: slurm_load_jobs error: Unable"
    )


def test_without_slurms_commands_the_records_do(make_run, slurm):
    run = make_run()
    end(run)
    slurm.remove()

    found = look_at(run)

    assert (found.state, found.note) == (
        "COMPLETED",
        "from the run's records, SLURM did not answer: squeue is not here",
    )


def test_a_run_that_slurm_does_not_know_and_that_lives_is_said_to_run(make_run, slurm):
    run = make_run()
    begin(run)

    found = look_at(run)

    assert (found.state, found.note) == ("RUNNING", "from the run's records: SLURM no longer knows job 17")


def test_a_silent_run_that_slurm_calls_running_is_remarked_on(make_run, slurm):
    run = make_run()
    begin(run, silent=600)
    slurm.set(jobs={"17": {"state": "RUNNING", "comment": MARK}})

    assert look_at(run).trouble == ("attempt 1 gave its last sign of life 10 min ago",)


def test_an_attempt_before_prime_rl_is_starting(make_run, slurm):
    run = make_run()
    slurm.set(jobs={"17": {"state": "RUNNING", "comment": MARK}})
    assert look_at(run).phase == "starting"

    begin(run)
    write_state(run, attempt=7)
    assert look_at(run).phase == "starting"


def test_a_job_that_was_cancelled_while_it_waited_never_started(make_run, slurm):
    run = make_run()
    at = "2026-11-27T12:00:00"
    slurm.set(jobs={"17": {"state": "CANCELLED", "start": at, "end": at, "node": "", "comment": MARK}})
    found = look_at(run)

    assert (found.started, found.ended is None) == (None, False)
    assert board._time(found).endswith(", before it began")  # noqa: SLF001


def test_a_dry_run_is_no_job(make_run, slurm):
    found = look_at(make_run(job_id=None))

    assert (found.state, found.job_id, found.over) == (UNSUBMITTED, None, True)


def test_weights_that_were_not_exported_are_told_of_until_they_are(make_run, slurm):
    run = make_run()
    end(run, checkpoint=20, unexported="exit code 13: cannot import torch")
    slurm.remove()
    found = look_at(run)
    way = f"medarc_slurm export {run.run_dir}"

    assert found.trouble == (
        f"its weights are not exported (exit code 13: cannot import torch); `{way}` writes them",
    )
    assert logs.ending(found).endswith(f": {found.trouble[0]}")
    answer = why.of(found)
    assert answer.headline.endswith("has finished, and its weights are not exported")
    assert answer.hints == (f"{way} writes them",)
    assert any("cannot import torch" in line for line in answer.lines)

    weights = run.run_dir / "weights" / "step_20"
    weights.mkdir(parents=True)
    (weights / "export.json").touch()
    assert look_at(run).trouble == ()
    assert why.explain(run).headline.endswith("has finished: nothing is wrong")


def test_one_question_for_many_runs(make_run, slurm):
    many = [make_run(f"run{number}", str(number), token=f"t{number}") for number in range(40)]
    for run in many[:10]:
        end(run, token=run.token)
    slurm.set(
        jobs={str(n): {"state": "RUNNING", "comment": f"[medarc:t{n}]"} for n in range(10, 20)}, accounting=[]
    )

    found = look(many)

    assert [status.state for status in found] == ["COMPLETED"] * 10 + ["RUNNING"] * 10 + [GONE] * 20
    assert (len(slurm.calls("squeue")), len(slurm.calls("sacct")), len(slurm.calls("scontrol"))) == (1, 1, 1)
    asked = slurm.calls("sacct")[0]["argv"]
    assert asked[asked.index("-j") + 1].split(",") == [str(number) for number in range(20, 40)]


def test_each_slurm_is_asked_once(make_run, slurm, tmp_path):
    confs = [tmp_path / name for name in ("one.conf", "two.conf")]
    for conf in confs:
        conf.touch()
    many = [make_run(f"r{n}", str(n), token=f"t{n}", slurm_conf=str(confs[n % 2])) for n in range(6)]

    look(many)

    asked = [call["environment"]["SLURM_CONF"] for call in slurm.calls("squeue")]
    assert sorted(asked) == sorted(map(str, confs))


def test_the_slurm_that_took_a_run_is_asked_and_no_other(make_run, slurm, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", "/somewhere/else.conf")
    monkeypatch.setenv("SQUEUE_PARTITION", "debug")

    look_at(make_run())

    environment = slurm.calls("squeue")[0]["environment"]
    assert not {"SLURM_CONF", "SQUEUE_PARTITION"} & environment.keys()


def test_a_sandbox_that_was_taken_down_is_not_asked(make_run, slurm):
    run = make_run(slurm_conf="/gone/slurm.conf")
    end(run)

    found = look_at(run)

    assert (found.state, slurm.calls("squeue")) == ("COMPLETED", [])
    assert "it is gone with /gone/slurm.conf" in found.note


def test_a_local_run_is_told_by_its_records_alone(make_run, slurm):
    going, ended, failed = (make_run(name, None, token=name, backend="local") for name in "abc")
    begin(going, token="a")
    end(ended, token="b")
    record(
        failed.files,
        Submission("local-5", None, failed.files.plan, failed.files.log, "2026", "c", "local", exit_code=3),
    )

    found = look([going, ended, runs.open_run(failed.run_dir)])

    assert [status.state for status in found] == ["RUNNING", "COMPLETED", "FAILED"]
    assert slurm.calls("squeue") == []


def test_the_owner_of_an_attempt_is_looked_at_where_that_is_possible(make_run, slurm):
    run = make_run(job_id=None, backend="local")
    begin(run, silent=7200)
    beat = {"attempt": 1, "host": os.uname().nodename, "boot": _boot(), "process": os.getpid()}
    path = run.run_dir / "configs/attempts/1/heartbeat.json"
    path.write_text(json.dumps(beat | {"start": started_at(os.getpid())}))
    assert look_at(run).state == "RUNNING"

    path.write_text(json.dumps(beat | {"start": "1"}))
    assert look_at(run).state == GONE


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00", '{"attempt": "x", "step": [], "gpus": 3}'])
def test_torn_and_foreign_records_raise_nothing(make_run, slurm, text):
    run = make_run()
    begin(run)
    for path in run.run_dir.rglob("*.json"):
        if path.name != "launch.json":
            path.write_text(text)
    (run.files.launch / "attempts.jsonl").write_text(f"{text}\n7\n" + '{"attempt": 2}')
    (run.files.launch / "state.json").write_text(text)

    (found,) = look([runs.open_run(run.run_dir)])

    assert found.state in {GONE, "RUNNING"}
    json.dumps(found.document())


def test_a_run_whose_directory_is_gone_is_told_by_slurm(work, slurm):
    entry = index.Entry(
        *(str(work / "gone"), "rl", "reverse", "slurm", "17", None, None, TOKEN, ago(hours=1), "/p", 2)
    )
    slurm.set(jobs={"17": {"state": "RUNNING", "comment": MARK}})

    (found,) = look(standing.of_entries([entry]))

    assert (found.state, found.gpus) == ("RUNNING", 2)
    assert "moved or deleted" in found.trouble[0]


def test_what_accounting_believes_to_run_and_the_controller_forgot_is_lost(make_run, slurm):
    run = make_run()
    row = {"id": "17", "state": "RUNNING", "comment": MARK}
    slurm.set(accounting=[row])
    found = look_at(run)
    assert (found.state, "accounting has it as RUNNING" in found.reason) == (LOST, True)

    slurm.remove("squeue")
    assert (look_at(run).state, look_at(run).sources["state"]) == ("RUNNING", "sacct")


def test_a_controller_that_hangs_is_given_up_on(make_run, slurm, monkeypatch):
    run = make_run()
    end(run)
    (slurm.programs / "squeue").write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    monkeypatch.setattr(queue, "QUERY_TIMEOUT", 0.05)

    found = look_at(run)

    assert (found.state, found.unanswered) == ("COMPLETED", True)
    assert "squeue had no answer within 0.05 s" in found.note


def test_figures_that_json_cannot_say_are_not_known(make_run, slurm):
    run = make_run()
    end(run)
    (run.files.launch / "state.json").write_text('{"reward": NaN, "loss": Infinity, "step": 3}')

    found = look_at(run)

    assert (found.reward, found.loss, found.step) == (None, None, 3)
