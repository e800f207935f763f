"""What `doctor` finds of the cluster."""

import datetime as dt

import pytest
from standins.findings import found, program, statuses
from standins.sites import install_site

from medarc_plugin.doctor import Subject, slurm
from medarc_plugin.slurm import gateway
from medarc_plugin.slurm.facts import ClusterFacts, Node, Partition


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Captured clusters: `site("no-gpus")`."""

    def use(name="shared-h100"):
        install_site(name, tmp_path / "site")
        monkeypatch.setenv("PATH", str(tmp_path / "site"))

    return use


def test_shared_nodes(site):
    site()
    subject = Subject()

    assert statuses(slurm.commands, subject) == ["ok"]
    assert found(slurm.controller, subject) == [("ok", "Slurmctld(primary) at vm is UP")]
    assert found(slurm.version, subject) == [("ok", "SLURM 22.05.8, cluster shared-h100, with accounting")]
    assert (
        "ok",
        "shared (the cluster's default): 16x h100 on 2 nodes, 1 out of service; 16 free now",
    ) in found(slurm.partitions, subject)
    assert found(slurm.chosen, subject) == [("ok", "shared (the cluster's default)")]
    assert found(slurm.accounts, subject) == [
        ("ok", "lab and root (default lab); QoS with lab: normal"),
    ]
    assert statuses(slurm.questions, subject) == ["ok"]


def test_nodes_that_slurm_does_not_show(monkeypatch):
    nodes = (Node("up1", ("mixed",), gpus={"h100": 8}),)
    partitions = (Partition("cloud", total_nodes=2), Partition("mixed", total_nodes=2))
    facts = ClusterFacts("me", partitions=partitions, nodes=nodes)
    subject = Subject()
    monkeypatch.setattr(subject, "facts", lambda: facts)

    assert found(slurm.partitions, subject) == [
        ("ok", "cloud: 2 nodes that SLURM does not show now"),
        ("ok", "mixed: 8x h100 on 1 node; 8 free now, and 1 node that SLURM does not show now"),
    ]


def test_a_controller_that_does_not_answer(site):
    site("no-controller")
    subject = Subject()

    assert found(slurm.controller, subject) == [("failed", "Slurmctld(primary) at vm is DOWN")]
    for look in (
        slurm.version,
        slurm.clock,
        slurm.partitions,
        slurm.chosen,
        slurm.accounts,
        slurm.questions,
    ):
        assert statuses(look, subject) == ["skipped"]


def test_a_configuration_that_is_not_there_is_not_waited_for(site, monkeypatch):
    site("no-controller")
    monkeypatch.setenv("SLURM_CONF", "/none/slurm.conf")
    monkeypatch.delattr(gateway, "run")
    subject = Subject()

    [finding] = slurm.controller(subject)

    assert (finding.status, finding.text) == (
        "failed",
        "SLURM_CONF names /none/slurm.conf, which is not there",
    )
    assert "`unset SLURM_CONF`" in finding.hint
    assert (statuses(slurm.clock, subject), statuses(slurm.version, subject)) == (["skipped"], ["skipped"])


def test_a_backup_that_does_its_work(site, monkeypatch, tmp_path):
    lines = "Slurmctld(primary) at a is DOWN\\nSlurmctld(backup1) at b is UP"
    program(tmp_path / "two", "scontrol", f'#!/bin/sh\nprintf "{lines}\\n"\n')
    monkeypatch.setenv("PATH", str(tmp_path / "two"))

    assert statuses(slurm.controller) == ["warning"]


def test_no_slurm_at_all():
    assert statuses(slurm.commands) == ["failed"]
    assert statuses(slurm.controller) == ["skipped"]


def test_some_commands_are_missing(site, tmp_path):
    site()
    (tmp_path / "site" / "scancel").unlink()
    (tmp_path / "site" / "sacct").unlink()

    assert found(slurm.commands) == [
        ("failed", "scancel not on PATH"),
        ("warning", "sacct not on PATH: what they tell is not known"),
        ("ok", f"{tmp_path}/site/sbatch"),
    ]


@pytest.mark.parametrize(
    ("seconds", "status"),
    [(0, "ok"), (-60, "warning"), (60, "warning"), (-900, "failed"), (900, "failed")],
)
def test_clocks(tmp_path, monkeypatch, seconds, status):
    theirs = dt.datetime.now() - dt.timedelta(seconds=seconds)  # noqa: DTZ005 - as SLURM prints it
    program(
        tmp_path / "clock",
        "scontrol",
        f"#!/bin/sh\necho 'Configuration data as of {theirs:%Y-%m-%dT%H:%M:%S}'\n",
    )
    monkeypatch.setenv("PATH", str(tmp_path / "clock"))

    ((said, words),) = found(slurm.clock)

    assert said == status
    assert "ahead" not in words or seconds > 0


def test_the_default_partition_without_gpus(site):
    site("whole-nodes")
    subject = Subject()

    assert found(slurm.chosen, subject) == [("warning", "batch (the cluster's default) has no GPUs")]


def test_a_partition_that_is_not_there(site, work):
    site()
    (work / "medarc.toml").write_text('[slurm]\npartition = "nope,shared"\n')

    ((status, words),) = found(slurm.chosen)

    assert status == "failed"
    assert words == f"there is no partition 'nope' (from {work}/medarc.toml [slurm])"


def test_a_partition_that_is_not_the_users(site, work, monkeypatch):
    site()
    monkeypatch.setattr("medarc_plugin.slurm.cluster._user_name", lambda: "me")
    monkeypatch.setattr("medarc_plugin.slurm.cluster._groups", lambda _: frozenset())
    (work / "medarc.toml").write_text('[slurm]\npartition = "staff"\n')

    assert statuses(slurm.chosen) == ["failed"]


def test_an_account_that_is_not_the_users(site, work):
    site()
    (work / "medarc.toml").write_text('[slurm]\naccount = "theirs"\n')

    assert statuses(slurm.accounts) == ["failed", "ok"]


def test_no_gpus(site):
    site("no-gpus")

    assert found(slurm.partitions) == [("warning", "none is good for a run: main has no GPUs")]
    assert statuses(slurm.accounts) == ["skipped"]
