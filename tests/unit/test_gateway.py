"""SLURM's commands: what is asked, how the answers are read, what is passed on to them."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import pytest

from medarc_plugin.errors import SlurmError, SubmissionError
from medarc_plugin.models import JobState
from medarc_plugin.slurm import gateway

if TYPE_CHECKING:
    from pathlib import Path

    from standins import Slurm


FAILED = "sbatch: error: Batch job submission failed"


@pytest.fixture
def script(work: Path) -> Path:
    path = work / "a b" / "rl.sbatch"
    path.parent.mkdir()
    path.write_text("#!/bin/bash\n#SBATCH --partition=gpu\n")
    return path


def test_an_accepted_job_has_an_id(slurm: Slurm, script: Path) -> None:
    assert gateway.sbatch(script, {}) == gateway.Accepted("17", None)
    assert slurm.calls("sbatch")[0]["argv"] == ["--parsable", str(script)]


def test_a_federation_names_its_cluster(slurm: Slurm, script: Path) -> None:
    slurm.set(cluster="west")

    assert gateway.sbatch(script, {}) == gateway.Accepted("17", "west")


def test_a_sites_own_words_before_the_id_do_no_harm(slurm: Slurm, script: Path) -> None:
    slurm.answer("sbatch", "Your quota: 80 %\n17\n")

    assert gateway.sbatch(script, {}).job_id == "17"


@pytest.mark.parametrize("answer", ["", "\n", "Submitted batch job 17\n", "17 x\n", "seventeen\n"])
def test_an_answer_that_is_no_id_is_an_error_that_says_where_to_look(
    slurm: Slurm, script: Path, answer: str
) -> None:
    slurm.answer("sbatch", answer)

    with pytest.raises(SubmissionError, match="not a job id") as caught:
        gateway.sbatch(script, {})

    assert "squeue --me" in (caught.value.hint or "")
    assert str(script) in (caught.value.hint or "")


# What each refusal was seen to print on 22.05.
@pytest.mark.parametrize(
    ("stderr", "code", "hint"),
    [
        (
            "sbatch: error: Batch job submission failed: Requested node configuration is not available",
            1,
            "no node has this much",
        ),
        ("sbatch: error: Invalid --time specification", 255, "mend what SLURM names"),
        ("sbatch: error: Batch job submission failed: Invalid feature specification", 1, "--constraint"),
        (
            "sbatch: error: Batch job submission failed: Requested reservation is invalid",
            1,
            "show reservation",
        ),
        ("sbatch: error: Batch job submission failed: Invalid node name specified", 1, "sinfo -N"),
        (
            f"{FAILED}: Invalid account or account/partition combination specified",
            1,
            "sacctmgr show associations",
        ),
        (
            "sbatch: error: Batch job submission failed: Invalid qos specification",
            1,
            "sacctmgr show associations",
        ),
        (
            f"{FAILED}: Unable to contact slurm controller (connect failure)",
            1,
            "scontrol ping",
        ),
        ("sbatch: unrecognized option '--zzz'", 255, "--sbatch-arg"),
        (
            "sbatch: error: s_p_parse_file: cannot stat file /etc/slurm/slurm.conf: No such file",
            1,
            "login node",
        ),
        ("", 1, "mend what SLURM names"),
    ],
)
def test_a_refusal_says_what_slurm_said_and_what_helps(
    slurm: Slurm, script: Path, stderr: str, code: int, hint: str
) -> None:
    slurm.answer("sbatch", stderr=stderr, code=code)

    with pytest.raises(SubmissionError) as caught:
        gateway.sbatch(script, {})

    assert stderr in caught.value.message
    assert f"exit code {code}" in caught.value.message
    assert f"the files of the run are kept: {script}" in caught.value.message
    assert hint in (caught.value.hint or "")


def test_an_unknown_partition_is_answered_with_the_known_ones(slurm: Slurm, script: Path) -> None:
    slurm.set(partitions=["a100", "h100"])

    with pytest.raises(SubmissionError, match="invalid partition specified: gpu") as caught:
        gateway.sbatch(script, {})

    assert "the partitions here are: a100, h100" in (caught.value.hint or "")


def test_a_missing_sbatch_is_named_and_the_files_are_kept(slurm: Slurm, script: Path) -> None:
    slurm.remove()

    with pytest.raises(
        SubmissionError, match="sbatch was not found on this machine; the files of the run are kept"
    ):
        gateway.sbatch(script, {})


def test_an_sbatch_that_hangs_is_given_up_without_claiming_anything(
    slurm: Slurm, script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = slurm.programs / "sbatch"
    program.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    monkeypatch.setattr(gateway, "SUBMIT_TIMEOUT", 0.05)

    with pytest.raises(SubmissionError, match="may or may not have been accepted") as caught:
        gateway.sbatch(script, {})

    assert "squeue --me" in (caught.value.hint or "")


def test_sbatch_gets_secrets_and_none_of_the_surroundings_wishes(
    slurm: Slurm, script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = ("SBATCH_PARTITION", "SLURM_JOB_ID", "SLURM_MEM_PER_NODE", "SLURM_EXPORT_ENV", "MEDARC_BACKEND")
    for name in dropped:
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm/here.conf")
    monkeypatch.setenv("MINE", "kept")

    gateway.sbatch(script, {"HF_TOKEN": "sesame"})

    environment = slurm.calls("sbatch")[0]["environment"]
    assert not set(dropped) & set(environment)
    assert {name: environment[name] for name in ("SLURM_CONF", "MINE", "HF_TOKEN")} == {
        "SLURM_CONF": "/etc/slurm/here.conf",
        "MINE": "kept",
        "HF_TOKEN": "sesame",
    }


def test_the_shown_command_drops_what_a_submission_drops() -> None:
    base = {
        "SBATCH_QOS": "a",
        "SLURM_JOB_ID": "1",
        "SLURM_CONF": "/c",
        "MEDARC_BACKEND": "slurm",
        "PATH": "/bin",
    }
    shown = gateway.shown_command(("sbatch", "--parsable", "/a b/x"), base)

    assert shlex.split(shown) == [
        *("env", "-u", "MEDARC_BACKEND", "-u", "SBATCH_QOS", "-u", "SLURM_JOB_ID"),
        *("sbatch", "--parsable", "/a b/x"),
    ]


def test_the_shown_command_is_bare_where_nothing_is_dropped() -> None:
    assert gateway.shown_command(("sbatch", "x"), {"PATH": "/bin"}) == "sbatch x"


def test_the_shown_command_says_which_slurm_is_meant() -> None:
    shown = gateway.shown_command(("sbatch", "x"), {}, added={"SLURM_CONF": "/a b"})

    assert shlex.split(shown) == ["env", "SLURM_CONF=/a b", "sbatch", "x"]


def state(slurm: Slurm, token: str | None = "0123456789ab", **job: Any) -> JobState:
    slurm.set(jobs={"17": job} if job else {})
    return gateway.job_state("17", gateway.Cluster(slurm.state["cluster"]), token)


def test_a_job_is_known_by_its_state(slurm: Slurm) -> None:
    found = state(slurm, state="RUNNING", comment="[medarc:0123456789ab]")

    assert found == JobState("RUNNING", "None", "0:0", "node1")


def test_a_cluster_is_asked_by_name(slurm: Slurm) -> None:
    slurm.set(cluster="west")

    assert state(slurm, state="PENDING", comment="[medarc:0123456789ab]").state == "PENDING"


def test_another_job_under_the_same_id_is_not_ours(slurm: Slurm) -> None:
    assert state(slurm, state="RUNNING", comment="somebody else's").state == gateway.GONE


def test_a_job_that_lost_its_comment_is_taken_for_ours(slurm: Slurm) -> None:
    assert state(slurm, state="RUNNING").state == "RUNNING"


def test_a_comment_that_reads_like_fields_hides_nothing(slurm: Slurm) -> None:
    found = state(slurm, state="RUNNING", comment="sweep lr=1e-6 JobState=FAILED [medarc:0123456789ab]")

    assert found.state == "RUNNING"


@pytest.mark.parametrize(
    "name", ["a JobState=COMPLETED Reason=x", "UserId=x JobState=FAILED", "JobState=FAILED a"]
)
def test_a_name_that_reads_like_a_state_hides_nothing(slurm: Slurm, name: str) -> None:
    assert state(slurm, name=name, state="RUNNING", comment="[medarc:0123456789ab]").state == "RUNNING"


def test_a_job_that_the_controller_forgot_is_looked_up_in_accounting(slurm: Slurm) -> None:
    slurm.set(accounting=["17|CANCELLED by 1000|0:15|node1", "18|FAILED|1:0|node2"])

    assert state(slurm) == JobState("CANCELLED", None, "0:15", "node1")


@pytest.mark.parametrize("accounting", [None, [], ["18|FAILED|1:0|node2"]])
def test_a_job_that_nobody_knows_is_gone(slurm: Slurm, accounting: list[str] | None) -> None:
    slurm.set(accounting=accounting)

    assert state(slurm).state == gateway.GONE


def test_when_the_controller_is_down_nobody_knows(slurm: Slurm) -> None:
    slurm.set(up=False)

    assert state(slurm, state="RUNNING").state == gateway.UNKNOWN


def test_without_slurm_nobody_knows(slurm: Slurm) -> None:
    slurm.remove()

    assert gateway.job_state("17").state == gateway.UNKNOWN


def test_a_job_is_ended(slurm: Slurm) -> None:
    gateway.cancel("17")

    assert slurm.calls("scancel")[0]["argv"] == ["17"]


def test_a_job_that_cannot_be_ended_is_an_error(slurm: Slurm) -> None:
    slurm.set(up=False)

    with pytest.raises(SlurmError, match=r"(?s)job 17 could not be ended: .*Unable to contact"):
        gateway.cancel("17")


def test_partitions_are_named_once(slurm: Slurm) -> None:
    slurm.set(partitions=["gpu", "cpu", "gpu"])

    assert gateway.partitions() == ("gpu", "cpu")


def test_partitions_of_a_cluster_that_is_down_are_none(slurm: Slurm) -> None:
    slurm.set(up=False)

    assert gateway.partitions() == ()
