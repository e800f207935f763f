"""What it means how sbatch ended."""

import pytest

from medarc_plugin.process import Completed
from medarc_plugin.slurm import answers
from medarc_plugin.slurm.answers import Outcome

FAILED = "sbatch: error: Batch job submission failed"


def read(stdout="", stderr="", code=0):
    return answers.read(Completed(("sbatch",), code, stdout, stderr))


def test_an_accepted_job_has_an_id():
    assert read("17\n") == answers.Answer(Outcome.ACCEPTED, job_id="17")


def test_a_federation_names_its_cluster():
    assert read("17;west\n") == answers.Answer(Outcome.ACCEPTED, job_id="17", cluster="west")


def test_a_sites_own_words_before_the_id_do_no_harm():
    assert read("Your quota: 80 %\n17\n").job_id == "17"


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "\n",
        "1",
        "17",
        "17;we",
        "Submitted batch job 17\n",
        "17 x\n",
        "seventeen\n",
        "17\nbye\n",
        "1\u0667\n",
        "17\n0\n",
        "017\n",
        "99999999999\n",
        pytest.param("9" * 5000 + "\n", id="endless"),
    ],
)
def test_an_answer_that_is_cut_or_something_else_is_no_id(answer):
    assert read(answer).outcome is Outcome.CUT_OFF


def test_what_a_terminal_would_obey_is_not_shown():
    assert read("\x1b[2Jbye\n").words == "answered something that is not a job id: ?[2Jbye"


@pytest.mark.parametrize("code", [-9, -15, 137, 143, 124])
def test_an_sbatch_that_was_killed_or_given_up_has_not_said_anything(code):
    assert read("17\n", "no answer within 2 s", code).outcome is Outcome.CUT_OFF


# Seen on 22.05, with a controller that was killed, stopped, or not there.
@pytest.mark.parametrize(
    ("why", "outcome"),
    [
        ("Unable to contact slurm controller (connect failure)", Outcome.UNREACHED),
        ("Unable to contact slurm controller (send failure)", Outcome.CUT_OFF),
        ("Unable to contact slurm controller (receive failure)", Outcome.CUT_OFF),
        ("Socket timed out on send/recv operation", Outcome.CUT_OFF),
        ("Zero Bytes were transmitted or received", Outcome.CUT_OFF),
        ("Unexpected missing socket error", Outcome.CUT_OFF),
        ("Connection reset by peer", Outcome.CUT_OFF),
        ("Slurm backup controller in standby mode", Outcome.CUT_OFF),
        ("Resource temporarily unavailable", Outcome.CUT_OFF),
        ("Requested node configuration is not available", Outcome.REFUSED),
        ("Invalid account or account/partition combination specified", Outcome.REFUSED),
        (
            "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
            Outcome.REFUSED,
        ),
        ("Requested time limit is invalid (missing or exceeds some limit)", Outcome.REFUSED),
        ("Unspecified error", Outcome.REFUSED),
    ],
)
def test_a_failure_on_the_way_is_told_from_a_refusal(why, outcome):
    assert read(stderr=f"{FAILED}: {why}\n", code=1).outcome is outcome


def test_the_last_word_counts_and_not_what_was_tried_before():
    tried = "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying\n"

    assert read(stderr=f"{tried}{FAILED}: Invalid qos specification", code=1).outcome is Outcome.REFUSED


@pytest.mark.parametrize(
    ("stderr", "code"),
    [
        ("sbatch: error: Invalid --time specification", 255),
        ("sbatch: unrecognized option '--zzz'", 255),
        ("sbatch: error: Unable to open file /x", 1),
        ("sbatch: fatal: Could not establish a configuration source", 1),
    ],
)
def test_what_sbatch_itself_does_not_take_was_never_sent(stderr, code):
    assert read(stderr=stderr, code=code).outcome is Outcome.UNSENT


def test_without_accounting_another_cluster_is_not_found_and_nothing_is_sent():
    said = (
        "sbatch: error: slurm_persist_conn_open_without_init: failed to open persistent connection to "
        "host:127.0.0.1:22827: Connection refused\nsbatch: error: Problem talking to database\n"
        "sbatch: error: There is a problem talking to the database: Connection refused.  Only local cluster "
        "communication is available, remove --cluster from your command line or contact your admin to "
        "resolve the problem.\n"
    )

    assert read(stderr=said, code=1).outcome is Outcome.UNREACHED


def test_an_sbatch_that_is_not_there_has_sent_nothing():
    done = Completed(("sbatch",), 127, "", "sbatch: No such file or directory", started=False)

    assert answers.read(done).outcome is Outcome.UNSENT


@pytest.mark.parametrize("stderr", ["", "site wrapper: something is wrong"])
def test_words_of_somebody_else_leave_it_open(stderr):
    assert read(stderr=stderr, code=1).outcome is Outcome.UNCLEAR
