"""Handing a script to SLURM exactly once, with an sbatch that goes wrong."""

import json
import signal
from dataclasses import replace

import pytest
from standins import make_plan

from medarc_plugin import flight
from medarc_plugin.backends.slurm import SlurmBackend
from medarc_plugin.errors import RunDirectoryError, SubmissionError
from medarc_plugin.signals import Hold

FAILED = "sbatch: error: Batch job submission failed"
KILLED = {"dies": True}
LOST = {"complains": f"{FAILED}: Zero Bytes were transmitted or received\n", "code": 1}


class Arriving(Hold):
    """A signal that comes when sbatch has done its work and hangs."""

    def __init__(self, sign):
        super().__init__()
        self.sign = sign

    @property
    def count(self):
        return super().count + self.sign.exists()


class Sent:
    """A run that is sent, and what is said about it."""

    def __init__(self, work, slurm):
        self.slurm = slurm
        self.plan = make_plan(work / "runs" / "a b")
        self.plan.files.launch.mkdir(parents=True)
        comment = f"mine [medarc:{self.plan.token}]"
        self.plan.files.script.write_text(f'#!/bin/bash\n#SBATCH --comment="{comment}"\n')
        self.said = []
        self.when_said = {}
        self.flight = flight.Flight(self.plan, say=self.hear)
        self.flight.patience = flight.Patience(
            answer=20, grace=0.1, controller=5, settle=0.05, backoff=0.01, sendings=3
        )

    def hear(self, text):
        self.said.append(text)
        for words, act in self.when_said.items():
            if words in text:
                act()

    def submit(self, **secrets):
        return SlurmBackend().submit_once(self.plan, secrets, self.flight)

    def stop_when_sent(self, *signals):
        """Let signals come as soon as the script is about to be sent."""
        begin = self.flight.begin

        def begin_and_stop():
            begin()
            for number in signals:
                self.flight.hold.note(number)

        self.flight.begin = begin_and_stop

    @property
    def sendings(self):
        return [call["environment"]["MEDARC_SENDING"] for call in self.slurm.calls("sbatch")]

    @property
    def note(self):
        return flight.read(self.plan.files.launch)


@pytest.fixture
def sent(work, slurm):
    return Sent(work, slurm)


def test_an_answer_is_taken_and_nothing_is_asked(sent, slurm):
    found = sent.submit(HF_TOKEN="sesame")

    assert (found.job_id, found.token) == ("17", sent.plan.token)
    assert found.log == sent.plan.run_dir / "job_17.log"
    assert sent.sendings == [f"{sent.plan.token}:1"]
    assert slurm.calls("sbatch")[0]["environment"]["HF_TOKEN"] == "sesame"
    assert slurm.calls("squeue") == []
    assert sent.said == []


@pytest.mark.parametrize(
    "act",
    [
        KILLED,
        LOST,
        {"says": "2"},
        {"says": "Submitted batch job 23\n"},
        {"code": 1},
        {"complains": f"{FAILED}: Unspecified error\n", "code": 1},
        {"code": 137},
    ],
    ids=[
        "killed",
        "connection lost",
        "cut",
        "other words",
        "silent",
        "refused all the same",
        "wrapper killed",
    ],
)
@pytest.mark.parametrize("state", ["PENDING", "COMPLETED"])
def test_a_job_that_was_accepted_is_adopted(sent, slurm, act, state):
    slurm.act({**act, "job": "23", "as": {"state": state}})

    found = sent.submit()

    assert (found.job_id, len(sent.sendings)) == ("23", 1)
    assert f"SLURM has the job all the same: 23 ({state})" in sent.said[-1]


def test_a_job_whose_comment_the_site_rewrote_is_adopted(sent, slurm):
    slurm.act({**KILLED, "job": "23", "as": {"comment": "project x"}})

    assert sent.submit().job_id == "23"


def test_an_sbatch_that_hangs_is_killed_with_all_it_started(sent, slurm):
    sent.flight.patience = replace(sent.flight.patience, answer=2.0)
    slurm.act({"job": "23", "says": "23\n", "waits": True})

    found = sent.submit()

    assert found.job_id == "23"
    assert sent.said[-1].startswith("sbatch was given up: no answer within 2 s; SLURM has the job")


@pytest.mark.parametrize(
    "act", [KILLED, LOST, {"says": "bye\n"}], ids=["killed", "connection lost", "other words"]
)
def test_what_surely_did_not_arrive_is_sent_again(sent, slurm, act):
    slurm.act(act, act, {"job": "24", "says": "24\n"})

    found = sent.submit()

    assert found.job_id == "24"
    assert sent.sendings == [f"{sent.plan.token}:{number}" for number in (1, 2, 3)]
    assert [*slurm.jobs] == ["24"]
    assert "SLURM does not have the job: sending it again (2 of 3)" in " ".join(sent.said)


def test_it_is_not_sent_for_ever(sent, slurm):
    slurm.act(*[KILLED] * 9)

    with pytest.raises(SubmissionError, match="nothing was submitted: sbatch was tried 3 times") as caught:
        sent.submit()

    assert not caught.value.unsettled
    assert (len(sent.sendings), sent.note.state) == (3, flight.NONE)


def test_a_request_that_arrives_while_it_is_looked_for_is_adopted(sent, slurm):
    sent.flight.patience = replace(sent.flight.patience, settle=5)
    late = {"23": {"state": "PENDING", "comment": f"[medarc:{sent.plan.token}]"}}
    sent.when_said = {"looking for the job": lambda: slurm.set(jobs=late)}
    slurm.act(KILLED)

    assert (sent.submit().job_id, len(sent.sendings)) == ("23", 1)


def test_a_request_that_arrives_too_late_is_ended(sent, slurm):
    late = {"23": {"state": "PENDING", "comment": f"[medarc:{sent.plan.token}]"}}
    sent.when_said = {"sending it again": lambda: slurm.set(jobs=late)}
    slurm.act(KILLED, {"job": "24", "says": "24\n"})

    found = sent.submit()

    assert found.job_id == "24"
    assert [call["argv"] for call in slurm.calls("scancel")] == [["23"]]
    assert sent.said[-1] == "an earlier sending arrived late, as job 23; job 24 is the run's"


def test_a_controller_that_is_down_is_waited_for(sent, slurm):
    slurm.set(up=False)
    sent.when_said = {"for SLURM to answer": lambda: slurm.set(up=True)}

    assert sent.submit().job_id == "17"
    assert len(sent.sendings) == 2


def test_a_controller_that_stays_down_has_surely_taken_nothing(sent, slurm):
    slurm.set(up=False)
    sent.flight.patience = replace(sent.flight.patience, controller=0.1)

    with pytest.raises(SubmissionError, match=r"(?s)nothing was submitted: .*Unable to contact") as caught:
        sent.submit()

    assert "scontrol ping" in caught.value.hint
    assert sent.note.state == flight.NONE
    assert len(sent.sendings) == 1


def test_when_nobody_can_say_that_is_said_and_nothing_is_sent_again(sent, slurm):
    slurm.set(up=False)
    slurm.act(KILLED)
    sent.flight.patience = replace(sent.flight.patience, controller=0.1)

    with pytest.raises(
        SubmissionError, match="nobody can say whether SLURM has the job: sbatch was killed"
    ) as caught:
        sent.submit()

    assert caught.value.unsettled
    assert f"grep {sent.plan.token}" in caught.value.hint
    assert sent.note.state == flight.OPEN
    assert len(sent.sendings) == 1


@pytest.mark.parametrize("act", [{"code": 1}, {"complains": "wrapper: quota\n", "code": 3}])
def test_a_failure_in_unknown_words_is_looked_after_and_not_repeated(sent, slurm, act):
    slurm.act(act)

    with pytest.raises(SubmissionError, match="SLURM refused the job: sbatch failed with exit code"):
        sent.submit()

    assert (len(sent.sendings), sent.note.state) == (1, flight.NONE)


# What each refusal was seen to print on 22.05.
@pytest.mark.parametrize(
    ("stderr", "code", "hint"),
    [
        (f"{FAILED}: Requested node configuration is not available", 1, "no node has this much"),
        ("sbatch: error: Invalid --time specification", 255, "mend what SLURM names"),
        (f"{FAILED}: Invalid feature specification", 1, "--constraint"),
        (f"{FAILED}: Requested reservation is invalid", 1, "show reservation"),
        (f"{FAILED}: Invalid node name specified", 1, "sinfo -N"),
        (
            f"{FAILED}: Invalid account or account/partition combination specified",
            1,
            "sacctmgr show associations",
        ),
        (f"{FAILED}: Invalid qos specification", 1, "sacctmgr show associations"),
        ("sbatch: unrecognized option '--zzz'", 255, "--sbatch-arg"),
        ("sbatch: error: s_p_parse_file: cannot stat file /etc/slurm/slurm.conf", 1, "login node"),
    ],
)
def test_a_refusal_says_what_slurm_said_and_what_helps(sent, slurm, stderr, code, hint):
    slurm.act({"complains": stderr, "code": code})

    with pytest.raises(SubmissionError) as caught:
        sent.submit()

    assert stderr in caught.value.message
    assert f"exit code {code}" in caught.value.message
    assert f"the files of the run are kept: {sent.plan.files.script}" in caught.value.message
    assert hint in caught.value.hint
    assert (len(sent.sendings), sent.note.state) == (1, flight.NONE)


def test_an_unknown_partition_is_answered_with_the_known_ones(sent, slurm):
    slurm.set(partitions=["a100", "h100"])
    sent.plan.files.script.write_text("#!/bin/bash\n#SBATCH --partition=gpu\n")

    with pytest.raises(SubmissionError, match="invalid partition specified: gpu") as caught:
        sent.submit()

    assert "the partitions here are: a100, h100" in caught.value.hint


def test_a_missing_sbatch_is_named_and_the_files_are_kept(sent, slurm):
    slurm.remove()

    with pytest.raises(
        SubmissionError, match="sbatch was not found on this machine; the files of the run are kept"
    ):
        sent.submit()

    assert sent.note.state == flight.NONE


def test_sbatch_is_not_left_to_wait_for_a_configuration_that_is_not_there(sent, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", "/none/slurm.conf")

    with pytest.raises(SubmissionError) as caught:
        sent.submit()

    assert str(caught.value).startswith(
        "sbatch was not started: SLURM_CONF names /none/slurm.conf, which is not there; the files of the run"
    )
    assert "`unset SLURM_CONF`" in caught.value.hint
    assert (sent.sendings, sent.note.state) == ([], flight.NONE)


def test_a_job_that_has_begun_and_that_slurm_forgot_is_adopted(sent, slurm):
    attempt = sent.plan.run_dir / "configs" / "attempts" / "1"
    attempt.mkdir(parents=True)
    (attempt / "started.json").write_text(json.dumps({"token": sent.plan.token, "job_id": "23"}))
    slurm.act(KILLED)

    assert (sent.submit().job_id, len(sent.sendings)) == ("23", 1)
    assert "job 23 has begun all the same, and SLURM does not know it" in sent.said[-1]


def test_a_log_that_was_not_there_before_is_a_jobs_beginning(sent, slurm):
    (sent.plan.run_dir / "job_9.log").touch()
    sent.flight = flight.Flight(sent.plan, say=sent.hear)
    sent.flight.patience = flight.Patience(settle=0.0)
    (sent.plan.run_dir / "job_23.log").touch()
    slurm.act(KILLED)

    assert sent.submit().job_id == "23"


def test_a_signal_before_the_script_is_sent_ends_it(sent, slurm):
    sent.flight.hold.note(signal.SIGINT)

    with pytest.raises(
        SubmissionError, match="nothing was submitted: the signal came before the script was sent"
    ):
        sent.submit()

    assert sent.sendings == []


def test_after_a_signal_sbatch_has_a_moment_to_answer(sent, slurm):
    sent.flight.patience = replace(sent.flight.patience, grace=20)
    slurm.act({"job": "23", "says": "23\n", "waits": True})
    sent.when_said = {"stopping: sbatch is at work": (slurm.folder / "go").touch}
    sent.stop_when_sent(signal.SIGTERM)

    assert sent.submit().job_id == "23"


@pytest.mark.parametrize("there", [True, False])
def test_after_a_signal_the_job_is_looked_for_and_never_sent_again(sent, slurm, there):
    slurm.act({"waits": True, **({"job": "23"} if there else {})})
    sent.flight.hold = Arriving(slurm.folder / "waiting")

    if there:
        assert sent.submit().job_id == "23"
    else:
        with pytest.raises(
            SubmissionError, match="nothing was submitted: sbatch was given up: it was stopped"
        ):
            sent.submit()

    assert len(sent.sendings) == 1


def test_a_second_signal_leaves_the_rest_to_the_next_launch(sent, slurm):
    slurm.act({"waits": True})
    sent.flight.patience = replace(sent.flight.patience, grace=60, settle=60)
    sent.stop_when_sent(signal.SIGINT, signal.SIGINT)
    sent.when_said = {"looking for the job": lambda: sent.flight.hold.note(signal.SIGINT)}

    with pytest.raises(SubmissionError, match="nobody can say"):
        sent.submit()

    assert sent.note.state == flight.OPEN


def test_what_cannot_be_written_down_is_not_sent(sent, slurm):
    (sent.plan.files.launch / flight.NAME).mkdir()
    (sent.plan.files.launch / flight.NAME / "x").touch()

    with pytest.raises(RunDirectoryError, match=r"delivery\.json cannot be written"):
        sent.submit()

    assert sent.sendings == []


def test_a_cluster_that_is_asked_for_is_looked_at(work, slurm):
    slurm.set(cluster="west")
    sent = Sent(work, slurm)
    sent.plan = make_plan(work / "runs" / "b", {"sbatch_arg": ["clusters=west"]})
    sent.plan.files.launch.mkdir(parents=True)
    sent.plan.files.script.write_text(f'#SBATCH --comment="[medarc:{sent.plan.token}]"\n')
    sent.flight = flight.Flight(sent.plan)
    sent.flight.patience = flight.Patience(settle=0.0)
    slurm.act({**KILLED, "job": "23"})

    found = sent.submit()

    assert (found.job_id, found.cluster) == ("23", "west")


def test_what_came_late_on_another_cluster_is_ended_there_alone(work, slurm):
    slurm.set(cluster="west")
    sent = Sent(work, slurm)
    sent.plan = make_plan(work / "runs" / "b", {"sbatch_arg": ["clusters=east,west"]})
    sent.plan.files.launch.mkdir(parents=True)
    sent.plan.files.script.touch()
    sent.flight = flight.Flight(sent.plan, say=sent.hear)
    sent.flight.patience = flight.Patience(settle=0.0, backoff=0.0)
    row = ("24", "PENDING", "None", "N/A", "N/A", "", "gpu", "100", "/x", f"[medarc:{sent.plan.token}]")
    job = "\x1e" + "\x1f".join(row) + "\n"
    both = f"CLUSTER: east\n{job}\nCLUSTER: west\n{job}"
    slurm.answer("squeue", "CLUSTER: east\n\nCLUSTER: west\n")
    sent.when_said = {"sending it again": lambda: slurm.answer("squeue", both)}
    slurm.act(KILLED, {"job": "24", "says": "24;east\n"})

    found = sent.submit()

    assert (found.job_id, found.cluster) == ("24", "east")
    assert [call["argv"] for call in slurm.calls("scancel")] == [["-M", "west", "24"]]


def test_patience_is_set_for_tests_alone():
    wanted = flight.Patience.wanted({"MEDARC_PATIENCE": "answer=2,sendings=3,settle=x,else=1,"})

    assert wanted == flight.Patience(answer=2.0, sendings=3)
    assert flight.Patience.wanted({}) == flight.Patience()
