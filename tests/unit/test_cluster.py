"""What is known of a cluster, read from what four versions of SLURM printed of the same one."""

from pathlib import Path

import pytest

from medarc_plugin.process import Completed
from medarc_plugin.slurm import cluster, parsing
from medarc_plugin.slurm.facts import ANY_TYPE, Association, Defaults, Node, Partition, Qos

CAPTURED = Path(__file__).parents[1] / "captured" / "cluster"
QUERIES = ("settings", "partitions", "nodes", "reservations", "associations", "accounts", "qos")


def said(stdout="", stderr="", code=0):
    return Completed(("scontrol",), code, stdout, stderr)


def captured(version):
    return {name: said((CAPTURED / version / name).read_text()) for name in QUERIES}


@pytest.fixture(params=sorted(path.name for path in CAPTURED.iterdir()))
def version(request):
    return request.param


@pytest.fixture
def facts(version):
    return cluster.read(captured(version), "root", frozenset({"root"}))


def test_everything_is_known(facts, version):
    assert facts.unknown == ()
    assert facts.settings == cluster.Settings(
        name="mini",
        version=version,
        enforce_part_limits="NO",
        accounting=True,
        enforced=frozenset({"associations", "limits", "qos"}),
        memory_counts=True,
        slurm_user="root",
        defaults=Defaults(memory_per_cpu=8000),
    )


def test_partitions(facts):
    assert facts.partitions == (
        Partition("debug", default=True, max_time=86400, default_time=600, total_nodes=7),
        Partition(
            "short",
            max_time=3600,
            default_time=600,
            max_nodes=1,
            total_nodes=2,
            max_cpus_per_node=32,
            allow_accounts=("lab", "guest"),
            defaults=Defaults(max_memory_per_node=200_000),
        ),
        Partition("closed", state="DOWN", total_nodes=1, allow_qos=("high",)),
        Partition(
            "whole",
            state="DRAIN",
            total_nodes=3,
            allow_groups=("wheel", "staff"),
            deny_accounts=("guest",),
            whole_nodes=True,
            hidden=True,
            defaults=Defaults(memory_per_node=64_000),
        ),
        Partition(
            "mig",
            total_nodes=2,
            qos="partq",
            defaults=Defaults(memory_per_gpu=30_000, cpus_per_gpu=4, max_memory_per_cpu=8000),
        ),
    )


def test_nodes(facts):
    nodes = {node.name: node for node in facts.nodes or ()}

    assert nodes["node1"] == Node(
        name="node1",
        partitions=("debug", "short", "whole"),
        state="MIXED",
        cpus=64,
        memory=512_000,
        gpus={"h100": 8},
        features=("h100",),
        cpus_used=22,
        memory_used=56_320,
        gpus_used={"h100": 4},
        host="localhost",
    )
    assert nodes["mix1"].gpus == {"a100": 2, "v100": 4}
    assert nodes["mix1"].features == ("a100", "v100", "ib")
    assert nodes["mig1"].gpus == {"1g.10gb": 7, "3g.40gb": 2}
    assert nodes["mig1"].memory == 250_000
    assert nodes["plain1"].gpus == {ANY_TYPE: 8}
    assert nodes["cpu1"].gpus == {}
    assert nodes["cpu1"].features == ()


def test_what_keeps_nodes_from_jobs(facts):
    assert {node.name: (node.trouble, node.reason) for node in facts.nodes or ()} == {
        "cpu1": ("not answering", None),
        "mig1": ("down", "no power"),
        "mix1": ("not answering", None),
        "node1": (None, None),
        "node2": ("drained", "bad GPU | State=IDLE"),
        "node3": (None, None),
        "plain1": ("not answering", None),
    }


def test_free_gpus(facts):
    free = {node.name: node.free_gpus() for node in facts.nodes or ()}

    assert (free["node1"], free["node3"], free["cpu1"]) == (4, 8, 0)
    assert [node.free_gpus("h100") for node in facts.nodes if node.name == "node1"] == [4]


def test_reservations(facts):
    found = {one.name: (one.nodes, one.state, one.users, one.accounts) for one in facts.reservations or ()}

    assert found == {
        "course": ("node3", "INACTIVE", ("root",), ()),
        "service": ("mig1", "ACTIVE", (), ("lab",)),
    }


def test_associations(facts):
    accounting = facts.accounting
    mine = {(one.account, one.partition): one for one in accounting.associations}

    assert accounting.default_account == "lab"
    assert set(mine) == {("root", None), ("guest", None), ("lab", None), ("lab", "short"), ("team", None)}
    assert mine["lab", None] == Association("lab", "root", qos=("high", "normal"), default_qos="normal")
    assert (mine["team", None].max_wall, mine["team", None].max_jobs) == (7200, 3)
    assert {one.account: (one.parent, one.group_tres) for one in accounting.accounts} == {
        "root": (None, {}),
        "lab": ("root", {}),
        "guest": ("root", {}),
        "team": ("lab", {"gres/gpu": 4}),
    }


def test_qos(facts):
    assert facts.accounting.qos == (
        Qos("normal"),
        Qos(
            "high",
            max_wall=43_200,
            max_tres_per_user={"cpu": 64, "gres/gpu": 4},
            min_tres={"gres/gpu": 1},
            group_tres={"gres/gpu": 16, "gres/gpu:h100": 8},
            max_jobs_per_user=2,
            flags=frozenset({"DenyOnLimit"}),
        ),
        Qos("partq", max_tres={"gres/gpu": 2, "mem": 102_400}),
    )


def test_a_partition_is_found_by_name_or_as_the_default(facts):
    assert facts.partition(None).name == "debug"
    assert facts.partition("mig").qos == "partq"
    assert facts.partition("nowhere") is None
    assert [node.name for node in facts.nodes_of(facts.partition("short"))] == ["node1", "node2"]


def test_a_partitions_memory_rules_replace_the_clusters(facts):
    assert facts.defaults_of(facts.partition("debug")).memory_per_cpu == 8000
    assert facts.defaults_of(facts.partition("whole")) == Defaults(memory_per_node=64_000)
    assert facts.defaults_of(facts.partition("mig")) == Defaults(
        memory_per_cpu=8000, memory_per_gpu=30_000, cpus_per_gpu=4, max_memory_per_cpu=8000
    )


@pytest.mark.parametrize("missing", QUERIES)
def test_what_is_forbidden_is_unknown_and_the_rest_is_known(missing):
    answers = {
        **captured("24.11.5"),
        missing: said("", "slurm_load_node error: Access/permission denied\n", 1),
    }
    facts = cluster.read(answers, "root")

    assert facts.unknown == (cluster.Unknown(missing, "Access/permission denied"),)
    assert facts.accounting is not None
    assert [name for name in QUERIES[:4] if getattr(facts, name) is None] == (
        [missing] if missing in QUERIES[:4] else []
    )


def test_why_a_query_was_not_answered():
    answers = {
        "settings": Completed(("scontrol",), 127, "", "scontrol: No such file or directory"),
        "nodes": Completed(("scontrol",), 124, "", "no answer within 5 s\nwords"),
        "partitions": said("", "", 3),
        "qos": said("", "sacctmgr: error: x\nsacctmgr: error: Unable to connect to database\n", 1),
    }

    assert [(one.what, one.why) for one in cluster.read(answers, "root").unknown] == [
        ("settings", "scontrol is not there"),
        ("nodes", "no answer within 5 s"),
        ("partitions", "exit code 3"),
        ("qos", "Unable to connect to database"),
    ]


def test_a_cluster_without_accounting_has_none_and_that_is_known():
    none = said(
        "", "You are not running a supported accounting_storage plugin\nOnly 'slurmdbd' is supported.\n", 1
    )
    facts = cluster.read({**captured("22.05.8"), "associations": none, "accounts": none, "qos": none}, "root")

    assert facts.accounting is None
    assert facts.unknown == ()


def test_nodes_that_are_hidden_are_unknown():
    facts = cluster.read({**captured("24.11.5"), "nodes": said("\n")}, "root")

    assert facts.nodes is None
    assert facts.unknown == (cluster.Unknown("nodes", "SLURM shows none to this user"),)


def test_of_several_clusters_in_one_database_this_one_counts():
    answers = captured("22.05.8")
    elsewhere = "lab|other|secret||normal|normal|||||\n"
    answers["associations"] = said(answers["associations"].stdout + elsewhere)

    accounts = {one.account for one in cluster.read(answers, "root").accounting.associations}

    assert "secret" not in accounts


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("(null)", {}),
        ("", {}),
        ("gpu:8", {"gpu": {ANY_TYPE: 8}}),
        ("gpu", {"gpu": {ANY_TYPE: 1}}),
        ("gpu:h100:8(S:0-1)", {"gpu": {"h100": 8}}),
        ("gpu:h100:2(IDX:0,3-4),shard:h100:0(0/4,0/4)", {"gpu": {"h100": 2}, "shard": {"h100": 0}}),
        ("gpu:a100:2(S:0,1),gpu:v100:4(S:1)", {"gpu": {"a100": 2, "v100": 4}}),
        ("gpu:1g.10gb:7,gpu:3g.40gb:2(S:0)", {"gpu": {"1g.10gb": 7, "3g.40gb": 2}}),
        ("gpu:a100_1g.5gb:14", {"gpu": {"a100_1g.5gb": 14}}),
        ("gpu:h100:4,gpu:h100:4", {"gpu": {"h100": 8}}),
        ("gpu:h100:no_consume:8", {"gpu": {"h100": 8}}),
        ("gpu:nvidia_h100_80gb_hbm3:8,mps:400K,lustre:1", None),
    ],
)
def test_generic_resources(text, counts):
    found = parsing.parse_gres(text)

    assert found == counts if counts is not None else found["gpu"] == {"nvidia_h100_80gb_hbm3": 8}


@pytest.mark.parametrize(
    ("text", "state", "flags"),
    [
        ("IDLE", "IDLE", set()),
        ("idle~", "IDLE", {"POWERED_DOWN"}),
        ("mixed-", "MIXED", {"PLANNED"}),
        ("DOWN*+DRAIN", "DOWN", {"NOT_RESPONDING", "DRAIN"}),
        ("drained*", "IDLE", {"NOT_RESPONDING", "DRAIN"}),
        ("draining", "MIXED", {"DRAIN"}),
        ("DOWN$", "DOWN", {"MAINTENANCE"}),
        ("maint", "IDLE", {"MAINTENANCE"}),
        ("IDLE+CLOUD+POWER", "IDLE", {"CLOUD", "POWERED_DOWN"}),
        ("ALLOCATED+MAINTENANCE+RESERVED", "ALLOCATED", {"MAINTENANCE", "RESERVED"}),
    ],
)
def test_states_of_nodes(text, state, flags):
    assert parsing.parse_state(text) == (state, flags)


@pytest.mark.parametrize(
    ("state", "flags", "trouble"),
    [
        ("IDLE", {"CLOUD", "POWERED_DOWN", "NOT_RESPONDING"}, None),
        ("MIXED", {"PLANNED"}, None),
        ("ALLOCATED", {"NOT_RESPONDING"}, "not answering"),
        ("FUTURE", set(), "not in service yet"),
        ("IDLE", {"INVALID_REG"}, "not as SLURM was told that it is"),
        ("IDLE", {"MAINTENANCE"}, "in maintenance"),
    ],
)
def test_what_a_state_means_for_a_job(state, flags, trouble):
    assert Node("n", state=state, flags=frozenset(flags)).trouble == trouble


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7-00:00:00", 604_800),
        ("01:30:00", 5400),
        ("10:00", 600),
        ("UNLIMITED", None),
        ("n/a", None),
        ("", None),
    ],
)
def test_times(text, seconds):
    assert parsing.parse_time(text) == seconds


@pytest.mark.parametrize(
    ("text", "mebibytes"),
    [("62.50G", 64_000), ("512000M", 512_000), ("512000", 512_000), ("2T", 2_097_152), ("x", None)],
)
def test_memory(text, mebibytes):
    assert parsing.parse_memory(text) == mebibytes


def test_what_older_versions_keep_for_the_system_is_taken_off():
    line = "NodeName=n CPUTot=64 RealMemory=1000 CoreSpecCount=2 CPUSpecList=0-3 ThreadsPerCore=2 State=IDLE"
    (node,) = parsing.parse_nodes(line)

    assert node.cpus == 60


def test_gpus_in_use_without_detail_are_those_of_accounting():
    line = "NodeName=n Gres=gpu:h100:8 State=MIXED AllocTRES=cpu=2,gres/gpu=3,gres/gpu:h100=3"
    (node,) = parsing.parse_nodes(line)

    assert node.free_gpus() == 5


def test_free_text_is_not_read_as_fields():
    line = (
        "NodeName=n Gres=gpu:2 State=IDLE Reason=Gres=gpu:99 State=DOWN [me@2026-11-27T11:47:02] "
        "Comment=NodeName=x"
    )
    (node,) = parsing.parse_nodes(line)

    assert (node.name, node.gpus, node.state) == ("n", {ANY_TYPE: 2}, "IDLE")
    assert node.reason == "Gres=gpu:99 State=DOWN"


def test_asking_without_slurm_knows_nothing_and_does_not_fail(clean_environment):
    facts = cluster.ask()

    assert {one.what for one in facts.unknown} == set(QUERIES)
    assert (facts.settings, facts.partitions, facts.nodes, facts.accounting) == (None, None, None, None)


def test_a_default_and_a_limit_of_no_memory_are_none():
    (partition,) = parsing.parse_partitions("PartitionName=p DefMemPerCPU=0 MaxMemPerNode=0\n")

    assert partition.defaults == Defaults()


def test_plugins_that_may_change_a_job_are_told_from_others():
    said = "JobSubmitPlugins = lua,logging,job_submit/all_partitions\nCliFilterPlugins = (null)\n"

    assert parsing.parse_settings(said).changed_by == ("lua", "job_submit/all_partitions")


def test_each_cluster_has_a_default_account_of_its_own():
    said = "lab|one|lab||normal||||||\nteam|two|team||normal||||||\n"

    default, (association,) = parsing.parse_user(said, "me", "two")

    assert (default, association.account) == ("team", "team")
