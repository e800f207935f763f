"""Finding the job of a submission by its word."""

import os
import time
from pathlib import Path

from medarc_plugin.slurm import gateway, lookup

TOKEN = "0123456789ab"
SCRIPT = "/a b/rl.sbatch"


def job(state="PENDING", comment=f"mine [medarc:{TOKEN}]", script=SCRIPT, **other):
    return {"state": state, "comment": comment, "script": script, **other}


def find(since=0.0, earlier=(), cluster=gateway.HERE):
    found = lookup.find(lookup.Sought(TOKEN, Path(SCRIPT), since, earlier), cluster)
    return found if found is None else [(one.job_id, one.state) for one in found]


def test_a_job_is_found_by_its_word_whatever_its_id(slurm):
    slurm.set(
        jobs={"16": job(comment="[medarc:ba9876543210]"), "23": job(), "24": job(comment="", script="/x")}
    )

    assert find() == [("23", "PENDING")]


def test_a_short_job_that_has_ended_is_found_too(slurm):
    slurm.set(jobs={"23": job("COMPLETED")})

    assert find() == [("23", "COMPLETED")]


def test_what_slurm_refused_is_no_job_though_it_has_an_id(slurm):
    # As 22.05 shows it for `Requested node configuration is not available`.
    slurm.set(
        jobs={
            "22": job("FAILED", submit="100", start="100"),
            "23": job("FAILED", submit="100", start="100", node="node1"),
        }
    )

    assert find() == [("23", "FAILED")]


def test_what_lives_and_then_the_newest_comes_last(slurm):
    slurm.set(
        jobs={
            "9": job("RUNNING"),
            "30": job("FAILED", submit="200"),
            "31": job("FAILED", submit="100"),
            "10": job("PENDING"),
        }
    )

    assert [job_id for job_id, _ in find()] == ["31", "30", "9", "10"]


def test_a_job_whose_comment_was_rewritten_is_found_by_its_script(slurm):
    slurm.set(
        jobs={"22": job(comment="site|words", script="/a b/c/rl.sbatch"), "23": job(comment="site|words")}
    )

    assert find(since=time.time()) == [("23", "PENDING")]


def test_an_earlier_job_with_the_same_script_is_not_taken_for_it(slurm):
    old = str(int(time.time() - 3600))
    slurm.set(
        jobs={
            "20": job("FAILED", comment="", submit=old),
            "21": job("FAILED", comment=""),
            "22": job("FAILED", comment="[medarc:ba9876543210]"),
        }
    )

    assert find(since=time.time(), earlier=("21",)) == []


def test_when_the_controller_is_down_nobody_knows(slurm):
    slurm.set(up=False, jobs={"23": job()})

    assert find() is None


def test_without_squeue_nobody_knows(slurm):
    slurm.remove("squeue")

    assert find() is None


def test_a_cluster_that_names_itself_is_noted(slurm):
    def shown(job_id, comment):
        job = (job_id, "RUNNING", "None", "100", "N/A", "node1", "gpu", "100", SCRIPT, comment)
        return "\x1e" + "\x1f".join(job) + "\n"

    mark = f"[medarc:{TOKEN}]"
    others = shown("22", "[medarc:ba9876543210]\ntwo lines") + shown("24", mark)
    slurm.answer("squeue", f"CLUSTER: east\n{others}CLUSTER: west\n{shown('23', mark)}CLUSTER: north\n")

    found = lookup.find(lookup.Sought(TOKEN, Path(SCRIPT)), gateway.Cluster("east,west,north"))

    # With -h the real one does not say whose jobs follow.
    assert "-h" not in slurm.calls("squeue")[0]["argv"]

    assert {job.job_id: (job.cluster, job.comment) for job in found} == {
        "24": ("east", mark),
        "23": ("west", mark),
    }


def test_the_users_own_wishes_for_squeue_hide_no_job(slurm, monkeypatch):
    for name in ("SQUEUE_PARTITION", "SQUEUE_STATES", "SQUEUE_NAMES", "SLURM_TIME_FORMAT"):
        monkeypatch.setenv(name, "x")
    slurm.set(jobs={"23": job()})

    assert find() == [("23", "PENDING")]
    (call,) = slurm.calls("squeue")
    assert [name for name in call["environment"] if name.startswith("SQUEUE_")] == []
    assert call["environment"]["SLURM_TIME_FORMAT"] == "%s"
    assert call["argv"][call["argv"].index("-u") + 1] == str(os.geteuid())
