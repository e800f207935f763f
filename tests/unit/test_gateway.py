"""SLURM's commands: what is asked, how the answers are read, what is passed on to them."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from medarc_plugin.errors import SlurmError
from medarc_plugin.models import JobState
from medarc_plugin.slurm import gateway

if TYPE_CHECKING:
    from standins import Slurm


@pytest.fixture
def script(work: Path) -> Path:
    path = work / "a b" / "rl.sbatch"
    path.parent.mkdir()
    path.write_text("#!/bin/bash\n#SBATCH --partition=gpu\n")
    return path


def test_sbatch_gets_secrets_and_none_of_the_surroundings_wishes(
    slurm: Slurm, script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = ("SBATCH_PARTITION", "SLURM_JOB_ID", "SLURM_MEM_PER_NODE", "SLURM_EXPORT_ENV", "MEDARC_BACKEND")
    for name in dropped:
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm/here.conf")
    monkeypatch.setenv("MINE", "kept")

    gateway.send(script, {"HF_TOKEN": "sesame"}, timeout=20)

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


@pytest.mark.parametrize("job", [{}, {"comment": "somebody else's"}, {"comment": "[medarc:ba9876543210]"}])
def test_another_job_under_the_same_id_is_not_ours(slurm: Slurm, job: dict[str, str]) -> None:
    assert state(slurm, state="RUNNING", **job) == JobState(gateway.GONE, gateway.TAKEN)


@pytest.mark.parametrize("comment", ["", "rewritten by the site"])
def test_a_job_that_lost_its_comment_is_known_by_its_script(slurm: Slurm, comment: str) -> None:
    slurm.set(jobs={"17": {"state": "RUNNING", "comment": comment, "script": "/a b/rl.sbatch"}})

    def found(script: str) -> str:
        return gateway.job_state("17", token="0123456789ab", script=Path(script)).state

    assert (found("/a b/rl.sbatch"), found("/a b/c/rl.sbatch")) == ("RUNNING", gateway.GONE)


def test_the_script_of_another_submission_is_not_ours(slurm: Slurm) -> None:
    job = {"state": "RUNNING", "comment": "[medarc:ba9876543210]", "script": "/a/rl.sbatch"}
    slurm.set(jobs={"17": job})

    assert gateway.job_state("17", token="0123456789ab", script=Path("/a/rl.sbatch")).state == gateway.GONE


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


def test_accounting_tells_a_job_from_others_that_had_its_id(slurm: Slurm) -> None:
    rows = [
        "17|FAILED|1:0|node1|1000000|",
        "17|COMPLETED|0:0|node2|2000000|mine [medarc:0123456789ab]",
        "17|TIMEOUT|0:0|node3|3000000|[medarc:ba9876543210]",
    ]
    slurm.set(accounting=rows)

    assert state(slurm) == JobState("COMPLETED", None, "0:0", "node2")


def test_accounting_without_comments_tells_a_job_by_its_time(slurm: Slurm) -> None:
    slurm.set(accounting=["17|FAILED|1:0|node1|1000000|"])

    def found(since: float) -> str:
        return gateway.job_state("17", token="0123456789ab", since=since).state

    assert (found(1000000), found(2000000)) == ("FAILED", gateway.GONE)


def test_a_job_that_only_accounting_has_as_running_is_lost(slurm: Slurm) -> None:
    slurm.set(accounting=["17|RUNNING|0:0|node1"])

    assert state(slurm).state == gateway.LOST


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
