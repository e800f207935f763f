"""What the facts of a cluster mean for a job."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from standins import make_plan

from medarc_plugin.models import GpuNeeds, JobPlan, Problem
from medarc_plugin.preflight import cluster, nodes
from medarc_plugin.preflight.findings import memory_words, nearest, time_words
from medarc_plugin.slurm.facts import (
    Accounting,
    Association,
    ClusterFacts,
    Defaults,
    Node,
    Partition,
    Qos,
    Reservation,
    Settings,
    Unknown,
)

if TYPE_CHECKING:
    from pathlib import Path

NODES = (
    Node("big1", ("gpu", "whole"), cpus=128, memory=1_024_000, gpus={"h100": 8}, features=("h100", "ib")),
    Node("big2", ("gpu",), cpus=128, memory=1_024_000, gpus={"h100": 8}, features=("h100",)),
    Node("old1", ("old",), cpus=32, memory=256_000, gpus={"a100": 2, "v100": 2}, features=("a100", "v100")),
    Node("bare1", ("bare",), cpus=16, memory=64_000, gpus={"": 4}, features=("titan",)),
    Node("cpu1", ("cpu",), cpus=16, memory=64_000),
)
FACTS = ClusterFacts(
    user="me",
    groups=frozenset({"users"}),
    settings=Settings(name="c", version="22.05.8", defaults=Defaults(memory_per_cpu=4000)),
    partitions=(
        Partition("gpu", default=True, max_time=86_400, default_time=3600),
        Partition("old", max_time=7 * 86_400),
        Partition("bare"),
        Partition("cpu"),
        Partition("whole", whole_nodes=True),
        Partition("staff", allow_groups=("staff",)),
        Partition("root", only_root=True),
    ),
    nodes=NODES,
    reservations=(),
)
ENFORCED = frozenset({"associations", "limits", "qos"})


def problems(
    work: Path,
    options: dict[str, Any] | None = None,
    gpus: int = 1,
    facts: ClusterFacts = FACTS,
) -> list[Problem]:
    plan = replace(make_plan(work / "run", options, gpus=GpuNeeds(gpus, 0)), cluster=facts)
    return list(cluster.cluster_can_take_the_job(plan))


def words(found: list[Problem]) -> list[str]:
    return [f"{'' if one.fatal else 'warning: '}{one.check}: {one.message}" for one in found]


def with_partition(name: str, **changes: Any) -> ClusterFacts:
    changed = [replace(one, **changes) if one.name == name else one for one in FACTS.partitions or ()]
    return replace(FACTS, partitions=tuple(changed))


def with_nodes(**changes: Any) -> ClusterFacts:
    """The same cluster, with both of its big nodes changed."""
    changed = [replace(one, **changes) if one.name.startswith("big") else one for one in NODES]
    return replace(FACTS, nodes=tuple(changed))


def test_a_modest_job_has_no_problem(work: Path) -> None:
    assert problems(work) == []
    assert problems(work, {"partition": "old", "gpu_type": "v100", "time": "7-00:00:00"}, gpus=2) == []
    assert problems(work, {"partition": "bare", "cpus_per_gpu": 4}, gpus=4) == []


def test_a_cluster_of_which_nothing_is_known_has_none(work: Path) -> None:
    assert problems(work, {"partition": "x", "constraint": "y"}, facts=ClusterFacts("me")) == []


def test_every_finding_is_of_the_submission_and_has_a_hint(work: Path) -> None:
    options = {"partition": "gpu", "gpu_type": "b200", "time": "2-00:00:00", "cpus_per_gpu": 400, "mem": "9T"}
    found = problems(work, {**options, "constraint": "no", "nodelist": "n[1-2]", "reservation": "r"})

    assert len(found) == 7
    assert all(one.submission and one.hint for one in found)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("staff", {}, "partition: partition 'staff' is for the groups staff; me is in users"),
        ("root", {}, "partition: partition 'root' is for root alone; me is in users"),
        ("gpu", {"state": "DRAIN"}, "partition: partition 'gpu' takes no jobs now: its state is DRAIN"),
        (
            "gpu",
            {"needs_reservation": True},
            "partition: partition 'gpu' takes jobs with a reservation alone",
        ),
        (
            "gpu",
            {"min_nodes": 2},
            "partition: partition 'gpu' is for jobs of 2 nodes at least, and a run lives on one",
        ),
        ("gpu", {"max_nodes": 0}, "partition: partition 'gpu' gives a job no node (MaxNodes=0)"),
        ("gpu", {"deny_accounts": ("lab",)}, "account: partition 'gpu' is closed to account 'lab'"),
        (
            "gpu",
            {"allow_accounts": ("guest",)},
            "account: partition 'gpu' is for the accounts guest, and the job's is 'lab': it would never",
        ),
    ],
)
def test_a_partition_that_does_not_take_the_job(
    work: Path, name: str, changes: dict[str, Any], said: str
) -> None:
    found = words(
        problems(work, {"partition": name, "account": "lab"}, facts=with_partition(name, **changes))
    )

    assert said in found[0]


@pytest.mark.parametrize(
    "options",
    [
        {"gpu_type": "b200"},
        {"cpus_per_gpu": 400},
        {"constraint": "mig=on"},
        {"nodelist": "cloud-1"},
        {"exclude": "cloud-1,big[1-2]"},
    ],
)
def test_what_nodes_have_that_slurm_does_not_show_is_left_to_slurm(
    work: Path, options: dict[str, Any]
) -> None:
    facts = with_partition("gpu", total_nodes=3)
    plan = replace(make_plan(work / "run"), cluster=facts)

    assert [one for one in problems(work, options, facts=facts) if one.fatal] == []
    assert [one.fatal for one in problems(work, options, facts=with_partition("gpu", total_nodes=2))] == [
        True
    ]
    assert cluster.unanswered(plan) == (
        "GPUs, CPUs, memory and features (SLURM does not show 1 node of partition 'gpu' now)"
    )


def test_nodes_that_are_down_are_not_all_where_slurm_does_not_show_some(work: Path) -> None:
    facts = replace(with_nodes(state="DOWN"), partitions=with_partition("gpu", total_nodes=9).partitions)

    assert problems(work, facts=facts) == []


@pytest.mark.parametrize("who", ["root", "slurm"])
def test_root_and_slurms_own_user_may_use_every_partition(work: Path, who: str) -> None:
    facts = replace(with_partition("gpu", only_root=True, allow_groups=("staff",)), user=who)
    facts = replace(facts, settings=Settings(slurm_user="slurm", defaults=Defaults(memory_per_cpu=1)))

    assert problems(work, facts=facts) == []


def test_a_cluster_without_a_default_partition_wants_a_name(work: Path) -> None:
    facts = with_partition("gpu", default=False)

    (found,) = problems(work, facts=facts)
    assert found.message == "no partition is named, and the cluster has no default one"
    assert found.hint == "the partitions here are: gpu, old, bare, cpu, whole; name one with --partition"
    assert problems(work, {"partition": "gpu"}, facts=facts) == []


def routed(facts: ClusterFacts) -> ClusterFacts:
    """The same cluster, with a plugin that may give a job what it does not name."""
    return replace(facts, settings=replace(facts.settings or Settings(), changed_by=("lua",)))


def test_a_cluster_that_chooses_partitions_itself_is_not_told_that_there_is_no_default(work: Path) -> None:
    assert problems(work, facts=routed(with_partition("gpu", default=False))) == []


@pytest.mark.parametrize(
    ("facts", "options", "named"),
    [
        (FACTS, {"gpu_type": "a100"}, {"partition": "gpu"}),
        (FACTS, {"time": "9-00:00:00"}, {"partition": "gpu"}),
    ],
)
def test_what_the_default_partition_lacks_refuses_nobody_whom_a_plugin_may_send_elsewhere(
    work: Path, facts: ClusterFacts, options: dict[str, Any], named: dict[str, Any]
) -> None:
    (found,) = problems(work, options, facts=routed(facts))
    (sure,) = problems(work, {**options, **named}, facts=routed(facts))

    assert not found.fatal
    assert found.message == (f"{sure.message}, unless the site's own plugin (lua) gives it another partition")
    assert sure.fatal


def test_a_misspelt_partition_is_guessed(work: Path) -> None:
    (found,) = problems(work, {"partition": "stafff"})

    assert found.hint is not None
    assert found.hint.startswith("did you mean staff? ")


@pytest.mark.parametrize(
    ("time", "refused"),
    [("1-00:00:00", False), ("1-00:00:01", True), ("1440", False), ("UNLIMITED", True), (None, False)],
)
def test_a_time_limit_counts_in_whole_minutes(work: Path, time: str | None, refused: bool) -> None:
    found = problems(work, {"time": time} if time else None)

    assert [one.check for one in found] == ["time limit"] * refused
    assert not found or (found[0].hint or "").startswith("--time 1-00:00:00 at most, or a partition that")


def test_a_qos_may_overrule_the_partitions_time_limit(work: Path) -> None:
    accounting = Accounting(qos=(Qos("long", flags=frozenset({"PartitionTimeLimit"})),))

    assert (
        problems(work, {"time": "3-00:00:00", "qos": "long"}, facts=replace(FACTS, accounting=accounting))
        == []
    )


def test_the_qos_that_a_job_gets_by_itself_may_overrule_it_too(work: Path) -> None:
    flags = frozenset({"PartitionTimeLimit", "PartitionMinNodes"})
    facts = accounted(
        replace(LAB, default_qos="Long"), qos=(Qos("long", flags=flags),), max_time=3600, min_nodes=2
    )

    assert problems(work, {"time": "3-00:00:00"}, facts=facts) == []


def test_memory_that_a_job_gets_by_default_is_looked_at(work: Path) -> None:
    limits = Defaults(memory_per_cpu=8000, max_memory_per_node=40_000)
    (found,) = problems(work, facts=with_partition("gpu", defaults=limits))

    assert found.message == (
        "no node of partition 'gpu' can give 62.5 GiB, the default for such a job: the most is 39.1 GiB "
        "(its MaxMemPerNode)"
    )
    assert found.hint == "--mem-per-gpu 39G or less"
    # Without a default SLURM gives what there is.
    assert (
        problems(
            work,
            {"exclusive": True},
            facts=with_partition("gpu", defaults=replace(limits, memory_per_cpu=None)),
        )
        == []
    )


def test_of_several_partitions_one_is_enough(work: Path) -> None:
    options = {"partition": "gpu,old", "time": "2-00:00:00"}
    all_must = replace(FACTS, settings=replace(FACTS.settings or Settings(), enforce_part_limits="ALL"))

    assert problems(work, options) == []
    assert [one.check for one in problems(work, options, facts=all_must)] == ["time limit"]
    assert [one.check for one in problems(work, {**options, "time": "9-00:00:00"})] == ["time limit"] * 2


@pytest.mark.parametrize(
    ("options", "gpus", "message", "hint"),
    [
        ({}, 9, "no node of partition 'gpu' has 9 GPUs: the most is 8", "at most 8 with --train-gpus"),
        (
            {"gpu_type": "a100"},
            1,
            "no node of partition 'gpu' has GPUs of type 'a100'",
            "the types there are: h100; partitions that have it: old",
        ),
        (
            {"gpu_type": "titan", "partition": "bare"},
            1,
            "no node of partition 'bare' has GPUs of type 'titan'",
            "its GPUs have no type: leave --gpu-type out, and say --constraint titan",
        ),
        (
            {"partition": "cpu"},
            1,
            "no node of partition 'cpu' has a GPU",
            "partitions that have it: gpu, old, bare",
        ),
        (
            {"partition": "old", "gpu_type": "v100"},
            3,
            "no node of partition 'old' has 3 GPUs of type v100: the most is 2",
            "at most 2",
        ),
    ],
)
def test_gpus_that_no_node_has(
    work: Path, options: dict[str, Any], gpus: int, message: str, hint: str
) -> None:
    (found,) = problems(work, {**options, "cpus_per_gpu": 1}, gpus)

    assert (found.check, found.message, found.fatal) == ("GPUs", message, True)
    assert hint in (found.hint or "")


def test_gpus_without_a_wanted_type_may_be_of_several(work: Path) -> None:
    assert problems(work, {"partition": "old", "cpus_per_gpu": 8}, gpus=4) == []


def test_what_no_node_has_together(work: Path) -> None:
    facts = replace(FACTS, nodes=(*NODES, Node("fat1", ("gpu",), cpus=256, memory=2_048_000)))
    (found,) = problems(work, {"mem": "1500G", "gpu_type": "h100"}, facts=facts)

    assert found.message == (
        "no node of partition 'gpu' has all of it: 1 GPU of type h100, 8 CPUs, 1500 GiB of memory"
    )
    assert found.hint == "big1 (8 h100, 128 CPUs, 1000 GiB) comes nearest and lacks: 1500 GiB of memory"


@pytest.mark.parametrize(
    ("option", "size", "hint"),
    [("mem", "3000G", "--mem 1000G or less"), ("mem_per_gpu", "1500G", "--mem-per-gpu 500G or less")],
)
def test_too_much_memory_is_answered_in_the_option_that_asked(
    work: Path, option: str, size: str, hint: str
) -> None:
    (found,) = problems(work, {option: size}, gpus=2)

    assert (found.check, found.hint) == ("memory", hint)


def test_memory_that_comes_with_cpus_may_ask_for_too_many(work: Path) -> None:
    facts = with_partition("gpu", defaults=Defaults(max_memory_per_cpu=4000))
    (found,) = problems(work, {"mem": "600G"}, facts=facts)

    assert found.message == (
        "no node of partition 'gpu' can give 154 CPUs, which come with 600 GiB of memory: the most is 128"
    )
    assert found.hint == "--mem-per-gpu 500G or less"


@pytest.mark.parametrize(
    ("constraint", "met"),
    [
        ("h100", True),
        ("h100&ib", True),
        ("a100|h100", True),
        ("[a100|h100]", True),
        ("h100*1", True),
        ("(h100&ib)|a100", True),
        ("a100&h100", False),
        ("a100|v100", False),
    ],
)
def test_constraints(work: Path, constraint: str, met: bool) -> None:
    found = problems(work, {"constraint": constraint})

    assert [one.check for one in found] == [] if met else ["constraint"]
    assert nodes.meets(constraint, ("h100", "ib")) is met


def test_a_list_of_nodes_is_refused_and_one_is_not(work: Path) -> None:
    (several,) = problems(work, {"nodelist": "big[1-2]"})
    (elsewhere,) = problems(work, {"nodelist": "old1"})

    assert several.message == "--nodelist big[1-2] asks for 2 nodes, and a run lives on one"
    assert elsewhere.message == "--nodelist old1 names no node of partition 'gpu'"
    assert problems(work, {"nodelist": "big2"}) == problems(work, {"exclude": "big2"}) == []


def test_nodes_out_of_service_are_waited_for(work: Path) -> None:
    drained = with_nodes(flags=frozenset({"DRAIN"}), reason="bad GPU")
    (found,) = problems(work, facts=drained)
    (one,) = problems(work, {"nodelist": "big1"}, facts=drained)

    assert found.message == (
        "none of the 2 nodes that can take it is in service now, so the job will wait: "
        "big1 drained (bad GPU), big2 drained (bad GPU)"
    )
    assert not found.fatal
    assert one.message.startswith("the one node that can take it is drained now")


@pytest.mark.parametrize(
    ("options", "gpus", "messages"),
    [
        ({"cpus_per_gpu": 16, "mem_per_gpu": "125G"}, 2, []),
        (
            {"cpus_per_gpu": 17},
            2,
            ["the job takes 34 CPUs for 2 of the 8 GPUs of big1; their share of its 128 CPUs is 32"],
        ),
        (
            {"mem_per_gpu": "126G"},
            2,
            ["the job takes 252 GiB for 2 of the 8 GPUs of big1; their share of its 1000 GiB is 250 GiB"],
        ),
        # The memory is the cluster's default for that many CPUs, and goes with them.
        (
            {"cpus_per_gpu": 100},
            1,
            ["the job takes 100 CPUs for 1 of the 8 GPUs of big1; their share of its 128 CPUs is 16"],
        ),
        # Nobody else is on a node of which it takes every GPU, or all.
        ({"cpus_per_gpu": 16, "mem": "1000G"}, 8, []),
        ({"cpus_per_gpu": 60, "exclusive": True}, 2, []),
    ],
)
def test_good_neighbours(work: Path, options: dict[str, Any], gpus: int, messages: list[str]) -> None:
    found = problems(work, options, gpus)

    assert [one.message.partition(", and jobs on the others")[0] for one in found] == messages
    assert not any(one.fatal for one in found)


def test_a_job_that_gets_all_memory_is_told_so(work: Path) -> None:
    facts = replace(FACTS, settings=Settings())
    (found,) = problems(work, facts=facts)

    assert found.message == (
        "neither the job nor the cluster says how much memory it gets, so it takes all 1000 GiB of big1 and "
        "keeps its other 7 GPUs from everybody"
    )
    assert found.hint == "--mem-per-gpu 125G"
    assert problems(work, facts=replace(FACTS, settings=Settings(memory_counts=False))) == []


def test_a_default_that_is_more_than_a_share_is_the_clusters(work: Path) -> None:
    (found,) = problems(work, facts=with_partition("gpu", defaults=Defaults(memory_per_gpu=200_000)))

    assert "the job takes 195.3 GiB, the cluster's default, for 1 of the 8 GPUs" in found.message


def test_whole_nodes_are_to_be_used(work: Path) -> None:
    (found,) = problems(work, {"partition": "whole"}, 2)

    assert (
        found.message == "partition 'whole' gives whole nodes alone, so 6 GPUs of the job's node will be idle"
    )
    assert problems(work, {"partition": "whole"}, 8) == []


@pytest.mark.parametrize(
    ("reservation", "message"),
    [
        (Reservation("r", users=("me",), nodes="big1"), None),
        (Reservation("r", groups=("users",)), None),
        (Reservation("r", accounts=("lab",)), None),
        (Reservation("r", users=("-you",)), None),
        (Reservation("r"), None),
        (Reservation("r", users=("you",)), "reservation 'r' is for the users you"),
        (Reservation("r", users=("-me",)), "reservation 'r' is for the users -me"),
        (Reservation("r", accounts=("guest",)), "reservation 'r' is for the accounts guest"),
        (Reservation("r", users=("me",), nodes="old1"), "reservation 'r' has no node of partition 'gpu'"),
        (
            Reservation("r", users=("me",), state="INACTIVE", start="2026-11-27T12:00:00"),
            "reservation 'r' begins at 2026-11-27 12:00:00, and the job waits for it",
        ),
    ],
)
def test_reservations(work: Path, reservation: Reservation, message: str | None) -> None:
    facts = replace(FACTS, reservations=(reservation,))
    found = problems(work, {"reservation": "r", "account": "lab"}, facts=facts)

    assert [one.message for one in found] == ([message] if message else [])


def test_a_reservation_of_nodes_in_maintenance_gets_them(work: Path) -> None:
    facts = with_nodes(flags=frozenset({"MAINTENANCE"}))
    facts = replace(facts, reservations=(Reservation("r", users=("me",), nodes="big[1-2]"),))

    assert problems(work, {"reservation": "r"}, facts=facts) == []
    assert [one.check for one in problems(work, facts=facts)] == ["nodes"]


LAB = Association("lab", "me", qos=("normal", "high"), default_qos="normal")
TREE = (
    Association("root"),
    Association("lab", parent="root", group_tres={"gres/gpu": 6}),
    Association("guest", parent="root"),
)


def accounted(
    *mine: Association,
    qos: tuple[Qos, ...] = (Qos("normal"), Qos("high"), Qos("other")),
    enforced: frozenset[str] = ENFORCED,
    default: str | None = "lab",
    tree: tuple[Association, ...] = TREE,
    of_partition: str | None = None,
    **changes: Any,
) -> ClusterFacts:
    facts = with_partition("gpu", qos=of_partition, **changes)
    settings = replace(facts.settings or Settings(), accounting=True, enforced=enforced)
    return replace(facts, settings=settings, accounting=Accounting(default, mine or (LAB,), tree, qos))


@pytest.mark.parametrize(
    ("accounts", "options", "lets_in"),
    [
        (("lab",), {}, True),
        (("Lab",), {"account": "team"}, True),
        (("team",), {}, True),
        (("lab",), {"account": "guest"}, False),
        (("-guest",), {}, True),
        (("-guest",), {"account": "guest"}, False),
        (("-lab",), {}, False),
    ],
)
def test_a_reservation_of_an_account_is_for_those_below_it(
    work: Path, accounts: tuple[str, ...], options: dict[str, Any], lets_in: bool
) -> None:
    mine = Association("team", "me", qos=("normal",)), Association("guest", "me", qos=("normal",))
    tree = (*TREE, Association("team", parent="lab"))
    facts = accounted(*mine, default="team", tree=tree)
    facts = replace(facts, reservations=(Reservation("r", accounts=accounts),))

    assert (problems(work, {"reservation": "r", **options}, facts=facts) == []) is lets_in


def test_a_reservation_is_not_refused_where_the_users_accounts_are_not_known(work: Path) -> None:
    facts = replace(accounted(), accounting=None, reservations=(Reservation("r", accounts=("lab",)),))

    assert problems(work, {"reservation": "r"}, facts=facts) == []


@pytest.mark.parametrize(
    ("facts", "options", "said"),
    [
        (accounted(), {}, None),
        (accounted(), {"account": "LAB", "qos": "High"}, None),
        (accounted(), {"account": "guest"}, "account: account 'guest' is not one of yours"),
        (accounted(enforced=frozenset()), {"account": "guest"}, None),
        (accounted(default=None), {}, "account: the job names no account, and you have no default one"),
        (
            accounted(replace(LAB, partition="old")),
            {},
            "account: account 'lab' is yours in partition old alone, not in 'gpu'",
        ),
        (accounted(), {"qos": "none"}, "qos: there is no QoS 'none'"),
        (accounted(), {"qos": "other"}, "qos: QoS 'other' does not go with account 'lab'"),
        (
            accounted(allow_qos=("high",)),
            {},
            "qos: partition 'gpu' is for the QoS high, and the job's is 'normal': it would never start",
        ),
        (accounted(deny_qos=("high",)), {"qos": "high"}, "qos: partition 'gpu' is closed to QoS 'high'"),
        (accounted(allow_qos=("high",)), {"qos": "high"}, None),
    ],
)
def test_accounts_and_qos(work: Path, facts: ClusterFacts, options: dict[str, Any], said: str | None) -> None:
    found = words(problems(work, options, facts=facts))

    assert len(found) == (said is not None)
    assert said is None or said in found[0]


@pytest.mark.parametrize(
    ("facts", "options", "named"),
    [
        (accounted(default=None), {}, "account"),
        (accounted(allow_accounts=("guest",)), {}, "account"),
        (accounted(deny_accounts=("lab",)), {}, "account"),
        (accounted(allow_qos=("high",)), {}, "QoS"),
        (accounted(deny_qos=("normal",)), {}, "QoS"),
        (accounted(qos=(Qos("normal", max_wall=3600),)), {"time": "2:00:00"}, "QoS"),
    ],
)
def test_an_account_or_a_qos_that_a_plugin_may_change_refuses_nobody(
    work: Path, facts: ClusterFacts, options: dict[str, Any], named: str
) -> None:
    (found,) = problems(work, {"partition": "gpu", **options}, facts=routed(facts))

    assert not found.fatal
    assert found.message.endswith(f", unless the site's own plugin (lua) gives it another {named}")


def test_whom_accounting_does_not_know_gets_nothing(work: Path) -> None:
    facts = accounted()
    accounting = replace(facts.accounting or Accounting(), associations=())
    (found,) = problems(work, facts=replace(facts, accounting=accounting))

    assert found.message == "accounting does not know me, and takes no jobs of strangers"


@pytest.mark.parametrize(
    ("version", "lets_in"), [("22.05.8", False), ("23.11.0", True), ("26.05.5", True), (None, True)]
)
def test_a_partition_lets_accounts_below_in_since_23_11(
    work: Path, version: str | None, lets_in: bool
) -> None:
    facts = accounted(
        Association("team", "me", qos=("normal",)),
        default="team",
        tree=(*TREE, Association("team", parent="lab")),
        allow_accounts=("lab",),
    )
    facts = replace(facts, settings=replace(facts.settings or Settings(), version=version))

    assert (problems(work, facts=facts) == []) is lets_in


@pytest.mark.parametrize(
    ("allowed", "hint"),
    [
        (("guest",), "it lets in none of your accounts: another --partition"),
        (("guest", "team"), "--account team, or another --partition"),
    ],
)
def test_the_way_out_is_an_account_of_the_users(work: Path, allowed: tuple[str, ...], hint: str) -> None:
    facts = accounted(LAB, replace(LAB, account="team"), allow_accounts=allowed)

    (found,) = problems(work, facts=facts)

    assert found.hint == hint


def test_where_accounts_are_allowed_those_that_are_denied_count_no_more(work: Path) -> None:
    assert problems(work, facts=accounted(allow_accounts=("lab",), deny_accounts=("lab",))) == []


@pytest.mark.parametrize("accounting", [Accounting("team", (Association("team", "me"),)), None])
def test_an_account_that_may_be_below_an_allowed_one_is_not_refused(
    work: Path, accounting: Accounting | None
) -> None:
    facts = accounted(allow_accounts=("lab",))
    settings = replace(facts.settings or Settings(), version="24.11.5")

    found = problems(
        work, {"account": "team"}, facts=replace(facts, settings=settings, accounting=accounting)
    )

    assert found == []


@pytest.mark.parametrize(
    ("facts", "options", "gpus", "said"),
    [
        (
            accounted(qos=(Qos("normal", max_wall=3600),)),
            {"time": "2:00:00"},
            1,
            "time limit: --time 02:00:00 is longer than the QoS 'normal' allows, 01:00:00",
        ),
        # The QoS's own limit holds instead of the association's.
        (
            accounted(replace(LAB, max_wall=60), qos=(Qos("normal", max_wall=36_000),)),
            {"time": "2:00:00"},
            1,
            None,
        ),
        (
            accounted(replace(LAB, max_wall=60)),
            {"time": "2:00:00"},
            1,
            "than your association with account 'lab' allows, 00:01:00",
        ),
        (accounted(), {}, 6, None),
        (
            accounted(),
            {},
            7,
            "limits: account 'lab' allows all its jobs together 6 GPUs, and the job asks for 7 GPUs",
        ),
        (
            accounted(qos=(Qos("normal", max_tres_per_user={"gres/gpu": 2}),)),
            {},
            3,
            "limits: the QoS 'normal' allows all jobs of a user together 2 GPUs, and the job asks for 3 GPUs",
        ),
        (
            accounted(qos=(Qos("normal", max_tres={"gres/gpu:h100": 1}),)),
            {"gpu_type": "h100"},
            2,
            "allows a job 1 GPU of type h100, and the job asks for 2 GPUs of type h100",
        ),
        (
            accounted(qos=(Qos("normal", max_tres={"mem": 102_400}),)),
            {"mem": "101G"},
            1,
            "allows a job 100 GiB of memory, and the job asks for 101 GiB of memory",
        ),
        (
            accounted(qos=(Qos("normal", min_tres={"gres/gpu": 2}),)),
            {},
            1,
            "limits: the QoS 'normal' wants 2 GPUs at least, and the job asks for 1 GPU",
        ),
        (
            accounted(
                qos=(Qos("normal", max_tres={"cpu": 99}), Qos("p", max_tres={"cpu": 4})), of_partition="p"
            ),
            {},
            1,
            "limits: the QoS 'p' of partition 'gpu' allows a job 4 CPUs, and the job asks for 8 CPUs",
        ),
        (
            accounted(
                qos=(
                    Qos("normal", max_tres={"cpu": 99}, flags=frozenset({"OverPartQOS"})),
                    Qos("p", max_tres={"cpu": 4}),
                ),
                of_partition="p",
            ),
            {},
            1,
            None,
        ),
        (
            accounted(qos=(Qos("normal", max_tres={"cpu": 1}),), enforced=frozenset({"associations"})),
            {},
            1,
            None,
        ),
    ],
)
def test_limits(
    work: Path, facts: ClusterFacts, options: dict[str, Any], gpus: int, said: str | None
) -> None:
    found = words(problems(work, options, gpus, facts))

    assert len(found) == (said is not None), found
    assert said is None or said in found[0]


def test_what_was_not_answered_is_said_with_what_it_means(work: Path) -> None:
    unknown = (Unknown("nodes", "denied"), Unknown("reservations", "denied"), Unknown("qos", "gone"))
    plan = replace(make_plan(work / "a"), cluster=replace(FACTS, unknown=unknown))

    assert cluster.unanswered(plan) == "GPUs, CPUs, memory and features (denied); QoS (gone)"
    plan = replace(make_plan(work / "a", {"reservation": "r"}), cluster=plan.cluster)
    assert "features, reservation (denied)" in cluster.unanswered(plan)


def test_what_a_job_gets_that_asks_for_nothing(work: Path) -> None:
    def gets(facts: ClusterFacts, **options: Any) -> dict[str, str]:
        plan: JobPlan = replace(make_plan(work / "a", options, gpus=GpuNeeds(2, 0)), cluster=facts)
        return dict(cluster.defaults_of(plan))

    assert gets(FACTS) == {"partition": "gpu", "time": "01:00:00", "memory": "62.5 GiB"}
    assert gets(FACTS, partition="old")["time"] == "7-00:00:00"
    assert gets(accounted())["account"] == "lab"
    assert gets(accounted())["qos"] == "normal"
    assert gets(ClusterFacts("me")) == gets(FACTS, partition="gpu,old") == {}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3600, "01:00:00"), (604_800, "7-00:00:00"), (90_061, "1-01:01:01"), (float("inf"), "UNLIMITED")],
)
def test_times_are_written_as_sbatch_takes_them(seconds: float, text: str) -> None:
    assert time_words(seconds) == text


def test_amounts_and_names() -> None:
    assert [memory_words(mebibytes) for mebibytes in (900, 1024, 100_000)] == ["900 MiB", "1 GiB", "97.7 GiB"]
    assert nearest("H100", ["a100", "h100"]) == "h100"
    assert nearest("h100", ["nvidia_h100_80gb_hbm3", "nvidia_a100"]) == "nvidia_h100_80gb_hbm3"
    assert nearest("b200", ["h200"], misspelt=False) is None
