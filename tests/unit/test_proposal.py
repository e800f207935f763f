"""What `init` proposes on captured clusters, and that a profile can be read which holds it."""

import dataclasses
import re

import pytest
from standins import sites

from medarc_plugin import profile_files
from medarc_plugin.proposal import Entry, propose
from medarc_plugin.slurm.facts import Accounting, Association, ClusterFacts, Node, Partition, Qos, Settings


@pytest.fixture
def written(tmp_path):
    """Write a proposal and read it as a profile."""

    def write(facts, beside=()):
        proposal = propose(facts, beside)
        path = tmp_path / "medarc.toml"
        path.write_text(proposal.text)
        return proposal, profile_files.read(path)

    return write


def comment_on(text, line):
    """The comment behind a line, whether its value is proposed or not."""
    found = re.search(rf"^(?:# )?{re.escape(line)} # (.*)$", text, re.MULTILINE)
    assert found, text
    return found[1]


def small(partitions, nodes=None, **more):
    return ClusterFacts(
        user="me",
        groups=frozenset({"users"}),
        settings=Settings(name="small", version="22.05.8"),
        partitions=tuple(partitions),
        nodes=nodes
        if nodes is not None
        else tuple(
            Node(f"n-{one.name}", (one.name,), cpus=64, memory=512_000, gpus={"h100": 8})
            for one in partitions
        ),
        **more,
    )


@pytest.mark.parametrize("site", sites.NAMES)
def test_a_proposal_is_a_profile(site, written):
    proposal, profile = written(sites.facts_of(site))

    assert profile is not None
    assert (proposal.partition is None) == (site in {"no-gpus", "no-controller"})


@pytest.mark.parametrize("version", sites.VERSIONS)
def test_so_is_that_for_each_version_of_slurm(version, written):
    proposal, profile = written(sites.facts_of_version(version))

    assert proposal.partition == profile.default == "debug"
    assert set(profile.named) == {"debug", "short", "mig"}
    assert profile.every_run == {"account": "lab", "qos": "normal"}
    assert "gpu_type" not in profile.named["debug"]
    assert comment_on(proposal.text, 'gpu_type = "1g.10gb"') == "7 of them in debug"


def test_shared_nodes(written):
    proposal, profile = written(sites.facts_of("shared-h100"))

    assert profile.default == "shared"
    assert profile.every_run == {"account": "lab"}
    assert profile.named == {
        "shared": {
            "partition": "shared",
            "gpu_type": "h100",
            "cpus_per_gpu": 12,
            "mem_per_gpu": "251G",
            "time": "1-00:00:00",
        },
        "debug": {
            "partition": "debug",
            "gpu_type": "h100",
            "cpus_per_gpu": 4,
            "mem_per_gpu": "251G",
            "time": "0:30:00",
        },
    }
    text = proposal.text
    assert comment_on(text, 'partition = "shared"') == (
        "the cluster's default; 3 nodes with 8x h100 each, 1 of them drained"
    )
    assert comment_on(text, "cpus_per_gpu = 12") == "gpu1 has 96 CPUs for 8 GPUs"
    assert comment_on(text, "cpus_per_gpu = 4") == "gpu1 has 32 CPUs (MaxCPUsPerNode of debug) for 8 GPUs"
    assert comment_on(text, 'time = "1-00:00:00"') == (
        "MaxTime of shared is 2-00:00:00, DefaultTime 1:00:00; a shorter job starts sooner"
    )
    assert "cpu has no GPUs; staff is for members of operators." in text


def test_members_of_a_group_get_its_partition(written):
    _, profile = written(sites.facts_of("shared-h100", groups=frozenset({"users", "operators"})))

    assert set(profile.named) == {"shared", "debug", "staff"}


def test_whole_nodes_with_accounts_and_qos(written):
    proposal, profile = written(sites.facts_of("whole-nodes"))

    assert profile.named == {}
    assert profile.every_run == {
        "partition": "gpu",
        "gpu_type": "a100",
        "cpus_per_gpu": 16,
        "mem_per_gpu": "125G",
        "time": "12:00:00",
        "exclusive": True,
        "account": "proj0042",
        "qos": "day",
    }
    text = proposal.text
    assert comment_on(text, 'account = "proj0042"') == "gpu does not take your default account, home"
    assert comment_on(text, 'account = "proj0099"') == "another account of yours"
    assert comment_on(text, 'time = "12:00:00"').startswith("MaxWall of QoS day is 12:00:00")
    assert comment_on(text, 'qos = "urgent"') == (
        "at most 2:00:00, 64 CPUs and 4 GPUs for your jobs together, 2 running jobs of yours"
    )
    header = text.partition("[slurm]")[0].replace("\n# ", " ")
    assert (
        "course takes jobs of a reservation alone; guests is for the account visitors; yours: home" in header
    )


def test_slices_of_gpus(written):
    proposal, profile = written(sites.facts_of("mig-slices"))

    assert profile.default == "mig"
    assert profile.named["mig"]["gpu_type"] == "3g.40gb"
    assert profile.named["mig"]["mem_per_gpu"] == "31G"
    assert comment_on(proposal.text, 'mem_per_gpu = "31G"') == "at most 3.9 GiB for each CPU (MaxMemPerCPU)"
    assert "gpu_type" not in profile.named["teaching"]
    assert comment_on(proposal.text, 'gpu_type = "1g.10gb"') == "7 of them in teaching"
    assert comment_on(proposal.text, 'gpu_type = "3g.40gb"')
    assert "No accounting runs" in proposal.text


def test_gpus_without_a_type_and_memory_that_nobody_counts(written):
    proposal, profile = written(sites.facts_of("no-types"))

    assert profile.every_run == {"partition": "everything", "cpus_per_gpu": 8, "time": "1-00:00:00"}
    assert comment_on(proposal.text, 'mem_per_gpu = "31G"').endswith("that a job need not ask for it")


def test_no_gpus(written):
    proposal, profile = written(sites.facts_of("no-gpus"))

    assert profile.every_run == {}
    assert proposal.why_none == "no partition is good for a run: main has no GPUs"
    assert '# partition = "NAME"' in proposal.text


def test_a_controller_that_does_not_answer(written):
    proposal, profile = written(sites.facts_of("no-controller"))

    assert profile.every_run == {}
    assert not proposal.asked
    assert proposal.why_none == (
        "SLURM could not be asked: Unable to contact slurm controller (connect failure)"
    )
    assert len(proposal.unknown) == 1


def test_what_is_beside_the_cluster_holds_for_every_run(written):
    beside = [
        Entry("prime_rl_dir", "./prime-rl", "from ./prime-rl"),
        Entry("hf_cache_dir", "DIR", taken=False),
    ]

    proposal, profile = written(sites.facts_of("shared-h100"), beside)

    assert profile.every_run["prime_rl_dir"] == f"{profile.path.parent}/prime-rl"
    assert '# hf_cache_dir = "DIR"\n' in proposal.text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": "DOWN"}, "gpu starts no jobs (DOWN)"),
        ({"state": "DRAIN"}, "gpu takes no jobs (DRAIN)"),
        ({"only_root": True}, "gpu is for root alone"),
        ({"allow_groups": ("a", "b")}, "gpu is for members of a or b"),
        ({"needs_reservation": True}, "gpu takes jobs of a reservation alone"),
    ],
)
def test_a_partition_that_is_nothing_for_this_user(changes, words, written):
    proposal, profile = written(small([Partition("gpu", **changes)]))

    assert proposal.why_none == f"no partition is good for a run: {words}"
    assert profile.every_run == {}
    assert comment_on(proposal.text, 'partition = "gpu"').startswith(words.removeprefix("gpu "))


def test_the_default_partition_comes_first_and_then_the_largest(written):
    partitions = [Partition("b", max_time=60), Partition("a", max_time=3600), Partition("c", default=True)]
    proposal, _ = written(small(partitions))
    assert proposal.partition == "c"

    partitions[2] = Partition("c", max_time=7200, whole_nodes=True)
    proposal, _ = written(small(partitions))
    assert proposal.partition == "a"


def test_one_whose_nodes_are_all_out_of_service_comes_last(written):
    down = Node("n1", ("x",), state="DOWN", cpus=8, memory=8000, gpus={"h100": 1})
    good = Node("n2", ("y",), cpus=8, memory=8000, gpus={"h100": 1})

    proposal, profile = written(small([Partition("x", default=True), Partition("y")], (down, good)))

    assert proposal.partition == "y"
    assert set(profile.named) == {"x", "y"}


def test_the_share_is_that_of_the_node_that_has_least(written):
    nodes = (
        Node("n1", ("gpu",), cpus=64, memory=128_000, gpus={"h100": 4}),
        Node("n2", ("gpu",), cpus=30, memory=512_000, gpus={"h100": 4}),
        Node("n3", ("gpu",), state="DOWN", cpus=1, memory=1000, gpus={"h100": 4}),
    )

    proposal, profile = written(small([Partition("gpu")], nodes))

    assert (profile.every_run["cpus_per_gpu"], profile.every_run["mem_per_gpu"]) == (7, "31G")
    assert comment_on(proposal.text, "cpus_per_gpu = 7") == "n2 has 30 CPUs for 4 GPUs"
    assert comment_on(proposal.text, 'mem_per_gpu = "31G"') == "n1 has 125 GiB for 4 GPUs"


def test_features_that_tell_nodes_apart_are_choices(written):
    nodes = tuple(
        Node(f"n{n}", ("gpu",), cpus=8, memory=8000, gpus={"h100": 1}, features=features)
        for n, features in enumerate([("h100", "ib"), ("h100",)])
    )

    proposal, _ = written(small([Partition("gpu")], nodes))

    assert comment_on(proposal.text, 'constraint = "ib"') == "1 of 2 nodes"
    assert 'constraint = "h100"' not in proposal.text


def accounting(*associations, qos=(), default=None, accounts=()):
    return Accounting(default, tuple(associations), tuple(accounts), tuple(qos))


def test_a_default_qos_that_the_partition_refuses_is_replaced(written):
    partition = Partition("gpu", allow_qos=("gold",))
    paid = accounting(Association("lab", "me", qos=("gold", "normal"), default_qos="normal"), default="lab")

    proposal, profile = written(small([partition], accounting=paid))

    assert profile.every_run["qos"] == "gold"
    assert comment_on(proposal.text, 'qos = "gold"') == (
        "gpu does not take the default with account lab, normal, but this"
    )


def test_one_qos_that_is_the_default_needs_no_word(written):
    paid = accounting(Association("lab", "me", qos=("normal",)), qos=[Qos("normal")], default="lab")

    _, profile = written(small([Partition("gpu")], accounting=paid))

    assert "qos" not in profile.every_run


def test_a_stranger_to_accounting_is_told_so(written):
    facts = small([Partition("gpu")], accounting=accounting())
    settings = Settings(
        name="small", version="22.05.8", accounting=True, enforced=frozenset({"associations"})
    )

    proposal, _ = written(dataclasses.replace(facts, settings=settings))

    assert proposal.why_none.endswith("gpu needs an account, and accounting knows none of me")


@pytest.mark.parametrize(("version", "good"), [("22.05.8", False), ("24.11.5", True)])
def test_a_partition_for_an_account_is_for_those_below_it_in_newer_slurm(version, good, written):
    paid = accounting(
        Association("team", "me"),
        accounts=[Association("team", parent="lab"), Association("lab", parent="root")],
    )
    facts = small([Partition("gpu", allow_accounts=("lab",))], accounting=paid)

    proposal, _ = written(dataclasses.replace(facts, settings=Settings(name="s", version=version)))

    assert (proposal.partition == "gpu") is good


def test_accounts_that_differ_by_partition_stay_with_it(written):
    partitions = [
        Partition("a", allow_accounts=("one",), default=True),
        Partition("b", allow_accounts=("two",)),
    ]
    paid = accounting(Association("one", "me"), Association("two", "me"), default="one")

    _, profile = written(small(partitions, accounting=paid))

    assert "account" not in profile.every_run
    assert [profile.named[name]["account"] for name in "ab"] == ["one", "two"]


def test_odd_names_make_no_bad_profile(written):
    node = Node("n1", ("gpu.a",), cpus=8, memory=9000, gpus={"h100:x": 2}, reason="x\n[slurm]")
    other = Node("n2", ("gpu a",), cpus=8, memory=9000, gpus={"h100": 2})

    proposal, profile = written(small([Partition("gpu.a", default=True), Partition("gpu a")], (node, other)))

    assert set(profile.named) == {"gpu-a", "gpu-a-2"}
    assert "gpu_type" not in profile.named["gpu-a"]
    assert '# gpu_type = "h100:x"' in proposal.text


def test_a_partition_whose_nodes_slurm_does_not_show_is_proposed(written):
    partitions = [Partition("cloud", default=True, total_nodes=4), Partition("big", min_nodes=2)]
    proposal, profile = written(
        small(partitions, (Node("n", ("big",), cpus=8, memory=9000, gpus={"h100": 2}),))
    )

    assert profile.every_run["partition"] == "cloud"
    assert "# the cluster's default; 4 nodes that SLURM does not show now" in proposal.text
    assert "Not proposed: big is for jobs of 2 nodes at least." in proposal.text
