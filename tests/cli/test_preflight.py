"""Checks that need accounting, on a cluster that says what a real one said; and what is said of silence."""

import json
from pathlib import Path

import pytest
from standins.impossible import REQUESTS

EXAMPLES = Path(__file__).parents[2] / "examples" / "reverse_text"
CAPTURED = Path(__file__).parents[1] / "captured" / "cluster"
VERSIONS = sorted(path.name for path in CAPTURED.iterdir())
SFT = ("--backend", "slurm", "@", str(EXAMPLES / "sft.toml"), "--output-dir", "run", "--no-check")


@pytest.fixture
def submit(here, slurm, monkeypatch):
    """Submit an SFT run on one GPU: `submit("--account", "nope")`."""
    monkeypatch.setenv("WANDB_MODE", "offline")

    def run(*flags):
        return here("sft", *SFT, "--gpus", "1", *flags)

    return run


def row(result, name):
    """A row of the plan that is shown."""
    rows = [
        line.removeprefix(name).strip() for line in result.err.splitlines() if line.startswith(f"{name} ")
    ]
    return rows[0] if rows else None


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("request_", [one for one in REQUESTS if one.played], ids=lambda one: one.name)
def test_what_accounting_forbids_is_refused_before_the_queue(submit, slurm, request_, version):
    slurm.play(CAPTURED / version)
    result = submit(*request_.flags)

    errors = [line for line in result.err.splitlines() if line.startswith(("error:", "hint:"))]
    assert (result.code, result.out) == (2, "")
    assert len(errors) == 2, result.err
    assert request_.says in errors[0]
    assert request_.hint in errors[1]
    assert slurm.calls("sbatch") == slurm.calls("trial") == []
    assert not Path("run").exists()


def test_a_good_job_is_shown_what_accounting_gives_it(submit, slurm):
    slurm.play(CAPTURED / "22.05.8")
    result = submit()

    assert result.code == 0, result.err
    assert row(result, "preflight") == "cluster 'mini' was asked"
    assert row(result, "account") == "lab (the cluster's default)"
    assert row(result, "qos") == "normal (the cluster's default)"
    assert row(result, "memory").startswith("62.5 GiB")
    assert row(result, "starts") == "now on node1, as SLURM estimates"
    assert len(slurm.calls("trial")) == len(slurm.calls("sbatch")) == 1


@pytest.mark.parametrize(
    ("flags", "says"),
    [((), "; 8 GPUs of node1 are free now"), (("--begin", "now+1hour"), ""), (("-d", "afterok:1"), "")],
)
def test_an_estimate_is_doubted_where_gpus_are_free(submit, slurm, flags, says):
    words = (
        "sbatch: Job 9 to start at 2099-01-01T00:00:00 using 8 processors on nodes node1 in partition debug"
    )
    slurm.set(facts={"trial": words})
    result = submit(*flags)

    starts = row(result, "starts")
    assert starts.startswith("2099-01-01 00:00 (in ")
    assert starts.endswith(f"on node1, as SLURM estimates{says}")


def test_what_is_asked_for_is_written_as_everywhere(submit, slurm):
    result = submit("--mem-per-gpu", "62G", "--time", "5", "--dry-run")

    assert row(result, "memory") == "62 GiB"
    assert row(result, "time limit") == "5 min"


def test_a_list_that_does_not_hold_is_named(submit, slurm, work):
    (work / "medarc.toml").write_text('[slurm]\nenv = ["MY_NAME=secret", "A=1"]\nmodule = ["cuda"]\n')
    result = submit("--env", "A=1", "--dry-run")

    assert (
        row(result, "replaces")
        == f"--env of the command line, in place of MY_NAME ({work}/medarc.toml [slurm])"
    )
    assert "secret" not in result.printed
    assert row(submit("--dry-run"), "replaces") is None


def test_what_is_forbidden_or_missing_is_said_in_one_line(submit, slurm):
    slurm.set(
        facts={
            "nodes": "error: slurm_load_node error: Access/permission denied",
            "reservations": "error: slurm_load_reservations error: Access/permission denied",
        }
    )
    slurm.remove("sacctmgr")
    result = submit("--partition", "debug", "--gpu-type", "b300")

    assert result.code == 0, result.err
    assert row(result, "preflight") == (
        "cluster 'sandbox' was asked; not looked at: GPUs, CPUs, memory and features (Access/permission "
        "denied); account, limits of accounts, QoS (sacctmgr is not there)"
    )


def test_a_silent_controller_is_said_and_left_to_sbatch(submit, slurm):
    slurm.set(up=False)
    result = submit()

    assert result.code == 2
    assert row(result, "preflight").startswith("not looked at: limits, partition and time limit, GPUs")
    assert "Unable to contact slurm controller" in row(result, "preflight")
    assert "nothing was submitted: sbatch failed" in result.err
    assert slurm.calls("trial") == []


@pytest.mark.parametrize("missing", ["everything", "slurm.conf"])
def test_a_dry_run_needs_no_cluster_and_says_nothing_of_it(submit, slurm, monkeypatch, missing):
    if missing == "everything":
        slurm.remove()
    else:
        # SLURM's commands would wait a minute for it.
        monkeypatch.setenv("SLURM_CONF", "/nowhere/slurm.conf")
    result = submit("--dry-run")

    assert result.code == 0
    assert (row(result, "preflight"), row(result, "starts")) == (None, None)
    assert row(result, "memory") == "the cluster's default (--mem-per-gpu sets it)"
    assert slurm.calls("scontrol") == []


def test_a_dry_run_asks_a_cluster_that_is_there_and_refuses_nothing(submit, slurm):
    result = submit("--partition", "debug", "--time", "8-00:00:00", "--dry-run")

    assert result.code == 0
    assert (
        "warning: a submission would be refused: time limit: --time 8-00:00:00 is longer than partition "
        "'debug' allows, 7-00:00:00: the job would never start; --time 7-00:00:00 at most" in result.err
    )
    assert (Path("run") / "sft.sbatch").exists()
    assert row(result, "starts") is None


def test_no_preflight_asks_nobody(submit, slurm):
    result = submit("--partition", "debug", "--time", "8-00:00:00", "--no-preflight")

    assert result.code == 0
    assert slurm.calls("scontrol") == slurm.calls("sacctmgr") == slurm.calls("trial") == []


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (
            "sbatch: error: Site policy: name a project",
            2,
            "error: sbatch: SLURM would refuse the job: Site policy",
        ),
        (
            "allocation failure: Requested node configuration is not available",
            0,
            "warning: sbatch: SLURM finds no node for the job at this moment",
        ),
        (
            "allocation failure: Unable to contact slurm controller",
            0,
            "starts      unknown: sbatch --test-only: ",
        ),
    ],
)
def test_what_slurm_says_of_a_job_that_it_is_shown(submit, slurm, words, code, said):
    slurm.set(facts={"trial": words})
    result = submit()

    assert result.code == code
    assert said in result.err
    assert Path("run").exists() == (code == 0)


def test_several_runs_ask_the_cluster_once(here, slurm, monkeypatch, work):
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("a", "b", "c"):
        (work / f"{name}.toml").write_text((EXAMPLES / "sft.toml").read_text())
    result = here(
        *("medarc_slurm", "sft", "a.toml", "b.toml", "c.toml", "--output-dir", "runs/{stem}", "--no-check"),
        *("--gpus", "1", "--partition", "debug"),
    )

    assert result.code == 0, result.err
    asked = [call["argv"] for call in slurm.calls("scontrol") if call["argv"][-1] == "partition"]
    assert len(asked) == len(slurm.calls("trial")) == 1
    assert len(slurm.calls("sbatch")) == 3


def test_a_refusal_of_several_runs_is_said_once(here, slurm, work):
    for name in ("a", "b"):
        (work / f"{name}.toml").write_text((EXAMPLES / "sft.toml").read_text())
    result = here(
        *("medarc_slurm", "sft", "a.toml", "b.toml", "--output-dir", "runs/{stem}", "--no-check"),
        *("--gpus", "1", "--gpu-type", "b300", "--time", "8-00:00:00"),
    )

    assert result.code == 2
    assert result.err.count("error: all 2 configs: GPUs: ") == 1
    assert result.err.count("error: all 2 configs: time limit: ") == 1
    assert "0 of 2 runs submitted; 2 could not be" in result.err


def test_a_private_slurm_that_is_not_up_is_none_to_ask(here, slurm, work):
    result = here("sft", *SFT, "--gpus", "1", "--sandbox=nowhere", "--dry-run")

    assert result.code == 0
    assert slurm.calls("scontrol") == []


def test_values_of_keys_are_never_shown(submit, slurm, monkeypatch, work):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "sentinel-9f8e7d6c5b")
    result = submit("--monitors.wandb.project", "x")

    assert result.code == 0, result.err
    assert "sentinel" not in result.printed
    assert not any("sentinel" in path.read_text() for path in Path("run").rglob("*.json"))
    assert json.loads(Path("run/configs/launch/submission.json").read_text())["job_id"] == "17"


def test_a_plugins_cluster_is_asked_too(submit, slurm, monkeypatch):
    from medarc_plugin import plugins
    from medarc_plugin.backends.slurm import SlurmBackend

    class Night(SlurmBackend):
        name = "night"

    real = plugins._backends  # noqa: SLF001

    def with_night(manager):
        backends, owners = real(manager)
        return {**backends, "night": Night()}, {**owners, "night": "mine"}

    monkeypatch.setattr(plugins, "_backends", with_night)
    result = submit("--backend", "night", "--gpu-type", "b300")

    assert result.code == 2
    assert "error: GPUs: no node of partition 'gpu' has GPUs of type 'b300'" in result.err
