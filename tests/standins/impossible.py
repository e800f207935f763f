"""Twenty requests that a cluster can never meet, and what plain sbatch does with them."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Impossible:
    """A request that is to be refused before the queue.

    Attributes:
        name: What is wrong with it.
        flags: What is added to `sft --gpus 1`.
        says: A part of what is found.
        hint: A part of its way out.
        sbatch_takes_it: Whether plain sbatch accepts the same job (seen on 22.05.8).
        environment: Variables beside.
        played: Needs accounting, and so a cluster that is played by what a real one said.
    """

    name: str
    flags: tuple[str, ...]
    says: str
    hint: str
    sbatch_takes_it: bool
    environment: dict[str, str] = field(default_factory=dict)
    played: bool = False


CLUSTER = (
    "NodeName=old1 NodeHostname=localhost Port=7999 CPUs=32 RealMemory=128000 Gres=gpu:v100:2 Feature=v100",
    "PartitionName=short Nodes=node1 MaxTime=60 DefaultTime=10 State=UP",
    "PartitionName=closed Nodes=node1 State=DOWN",
    "PartitionName=drained Nodes=node1 State=DRAIN",
    "PartitionName=lab Nodes=node1 AllowAccounts=lab State=UP",
    "PartitionName=small Nodes=node1 MaxMemPerNode=100000 MaxCPUsPerNode=16 State=UP",
    "PartitionName=old Nodes=old1 State=UP",
)
"""Lines of slurm.conf beside those of a sandbox with node1 and node2, each 64 CPUs, 500 GiB and 8 h100."""

RESERVATION = ("ReservationName=course", "StartTime=now+1hour", "Duration=60", "Nodes=node2", "Users=nobody")
"""A reservation of somebody else's on it."""

WANDB = ("--monitors.wandb.project", "reverse")

REQUESTS = (
    Impossible(
        "a partition that is not there", ("--partition", "nowhere"), "no partition 'nowhere'", "debug", False
    ),
    Impossible(
        "a partition that is down", ("--partition", "closed"), "'closed' is down", "those that are up", True
    ),
    Impossible(
        "a partition that takes no jobs", ("--partition", "drained"), "takes no jobs now", "debug", False
    ),
    Impossible(
        "a partition of other accounts",
        ("--partition", "lab", "--account", "other"),
        "is for the accounts lab, and the job's is 'other'",
        "--account lab",
        True,
    ),
    Impossible(
        "more GPUs than a node has",
        ("--gpus", "16", "--deployment.gpus-per-node", "16", "--cpus-per-gpu", "2"),
        "has 16 GPUs: the most is 8",
        "ask for at most 8",
        False,
    ),
    Impossible(
        "GPUs that nobody has", ("--gpu-type", "b300"), "GPUs of type 'b300'", "types there are: h100", False
    ),
    Impossible(
        "GPUs of another partition",
        ("--partition", "old", "--gpu-type", "h100"),
        "no node of partition 'old' has GPUs of type 'h100'",
        "partitions that have it: debug",
        False,
    ),
    Impossible(
        "more CPUs than a node has",
        ("--gpus", "4", "--cpus-per-gpu", "20"),
        "80 CPUs: the most is 64",
        "--cpus-per-gpu 16",
        False,
    ),
    Impossible(
        "more CPUs than the partition gives of a node",
        ("--partition", "small", "--cpus-per-gpu", "20"),
        "20 CPUs: the most is 16 (its MaxCPUsPerNode)",
        "--cpus-per-gpu 16",
        True,
    ),
    Impossible(
        "more memory than a node has",
        ("--mem", "600G"),
        "600 GiB: the most is 500 GiB",
        "--mem 500G",
        False,
    ),
    Impossible(
        "more memory than the partition gives of a node",
        ("--partition", "small", "--mem", "200G"),
        "200 GiB: the most is 97.7 GiB (its MaxMemPerNode)",
        "--mem 97G",
        True,
    ),
    Impossible(
        "more time than the partition gives",
        ("--partition", "short", "--time", "2:00:00"),
        "--time 02:00:00 is longer than partition 'short' allows, 01:00:00",
        "--time 01:00:00 at most",
        True,
    ),
    Impossible(
        "a feature that no node has",
        ("--constraint", "quantum"),
        "no node has the feature 'quantum'",
        "h100, v100",
        False,
    ),
    Impossible(
        "nodes without the rest",
        ("--exclude", "node[1-2],old1"),
        "--exclude node[1-2],old1 leaves no node",
        "node1, node2, old1",
        False,
    ),
    Impossible(
        "somebody else's reservation",
        ("--reservation", "course"),
        "reservation 'course' is for the users nobody",
        "leave --reservation out",
        False,
    ),
    Impossible(
        "W&B without a key",
        WANDB,
        "the config logs to https://api.wandb.ai, and there is no key",
        "WANDB_API_KEY",
        True,
    ),
    Impossible(
        "a model that is not in the cache, offline",
        ("--hf-hub-offline", "--model.name", "nobody/nothing", "--data.name", "/"),
        "nobody/nothing: the cache",
        "hf download nobody/nothing",
        True,
    ),
    Impossible(
        "an account of other people",
        ("--account", "nope"),
        "account 'nope' is not one of yours",
        "lab",
        False,
        played=True,
    ),
    Impossible(
        "a QoS that does not go with the account",
        ("--account", "guest", "--qos", "high"),
        "QoS 'high' does not go with account 'guest'",
        "those that do are: normal",
        False,
        played=True,
    ),
    Impossible(
        "more GPUs than the account may use",
        ("--account", "team", "--gpus", "6"),
        "account 'team' allows all its jobs together 4 GPUs, and the job asks for 6 GPUs",
        "ask for less with --train-gpus",
        True,
        played=True,
    ),
)
"""All of them."""
