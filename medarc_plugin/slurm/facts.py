"""What is known of a cluster: its settings, partitions, nodes, reservations and accounting.

Records alone: `cluster.ask` fills them, `parsing` reads them from what SLURM printed. Everywhere sizes are
MiB, times seconds, and `None` for a limit means that there is none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ANY_TYPE = ""
"""The type of GPUs that a cluster gives no type."""


@dataclass(frozen=True)
class Defaults:
    """What a job gets that does not ask, and what it may ask at most; partitions overrule the cluster.

    Attributes:
        memory_per_cpu: Default memory for each CPU.
        memory_per_node: Default memory of the job on a node.
        memory_per_gpu: Default memory for each GPU.
        cpus_per_gpu: Default CPUs for each GPU.
        max_memory_per_cpu: The most memory for each CPU: SLURM takes more CPUs for a job that asks for more.
        max_memory_per_node: The most memory of a job on a node.
    """

    memory_per_cpu: int | None = None
    memory_per_node: int | None = None
    memory_per_gpu: int | None = None
    cpus_per_gpu: int | None = None
    max_memory_per_cpu: int | None = None
    max_memory_per_node: int | None = None

    @property
    def has_memory(self) -> bool:
        """Whether a job that asks for no memory gets a share of the node's instead of all of it."""
        return (self.memory_per_cpu, self.memory_per_node, self.memory_per_gpu) != (None, None, None)


@dataclass(frozen=True)
class Settings:
    """The cluster's configuration, as far as it says what a job may ask for.

    Attributes:
        name: The cluster's name.
        version: SLURM's version, `22.05.8`.
        enforce_part_limits: `NO`, `ANY` or `ALL`: whether sbatch refuses what a partition's limits forbid, or
            lets it wait for ever.
        accounting: Whether an accounting database runs.
        enforced: What of accounting is enforced: `associations`, `limits`, `qos`, `safe`, `wckeys`.
        private: What users may not see of each other: `jobs`, `nodes`, `accounts` and so on.
        memory_counts: Whether memory is given out like CPUs. Where it is not, jobs share it by good manners.
        slurm_user: The user of SLURM's own daemons, who may use every partition, like root.
        changed_by: Plugins of the site that may give a job what it does not name: partition, account, QoS.
        defaults: Defaults and limits where a partition has none.
    """

    name: str | None = None
    version: str | None = None
    enforce_part_limits: str = "NO"
    accounting: bool = False
    enforced: frozenset[str] = frozenset()
    private: frozenset[str] = frozenset()
    memory_counts: bool = True
    slurm_user: str | None = None
    changed_by: tuple[str, ...] = ()
    defaults: Defaults = Defaults()


@dataclass(frozen=True)
class Partition:
    """A partition.

    Attributes:
        name: Its name.
        default: Whether a job that names none goes there.
        state: `UP`; `DOWN` takes jobs and starts none, `DRAIN` takes none, `INACTIVE` neither.
        max_time: The longest time limit.
        default_time: Time limit of a job that sets none; `None`: the longest.
        min_nodes: The least nodes of a job; 0 and 1 are the same.
        max_nodes: The most nodes of a job.
        total_nodes: How many nodes it has, those that SLURM does not show among them.
        max_cpus_per_node: The most CPUs of one node that its jobs may use together.
        allow_groups: Groups whose members may use it; `None`: everybody.
        allow_accounts: Accounts that may use it; `None`: all.
        deny_accounts: Accounts that may not.
        allow_qos: QoS that may use it; `None`: all.
        deny_qos: QoS that may not.
        qos: The QoS whose limits hold for all its jobs.
        whole_nodes: Whether each job gets whole nodes, whatever it asks for.
        only_root: Whether root alone may use it.
        needs_reservation: Whether a job must name a reservation.
        hidden: Whether `sinfo` shows it only with `-a`.
        defaults: Defaults and limits of memory and CPUs.
    """

    name: str
    default: bool = False
    state: str = "UP"
    max_time: int | None = None
    default_time: int | None = None
    min_nodes: int = 0
    max_nodes: int | None = None
    total_nodes: int | None = None
    max_cpus_per_node: int | None = None
    allow_groups: tuple[str, ...] | None = None
    allow_accounts: tuple[str, ...] | None = None
    deny_accounts: tuple[str, ...] = ()
    allow_qos: tuple[str, ...] | None = None
    deny_qos: tuple[str, ...] = ()
    qos: str | None = None
    whole_nodes: bool = False
    only_root: bool = False
    needs_reservation: bool = False
    hidden: bool = False
    defaults: Defaults = Defaults()

    @property
    def takes_no_single_node(self) -> str | None:
        """Why it takes no job of one node, as in `is for jobs of 2 nodes at least`; `None` when it does."""
        if self.max_nodes == 0:
            return "gives a job no node (MaxNodes=0)"
        return f"is for jobs of {self.min_nodes} nodes at least" if self.min_nodes > 1 else None


@dataclass(frozen=True)
class Node:
    """A node.

    Attributes:
        name: Its name.
        partitions: Names of its partitions.
        state: What it does: `IDLE`, `MIXED`, `ALLOCATED`, `DOWN`, `UNKNOWN` and so on.
        flags: What else is said of its state: `DRAIN`, `MAINTENANCE`, `NOT_RESPONDING`, `POWERED_DOWN`.
        cpus: CPUs that jobs can have.
        memory: Memory that jobs can have.
        gpus: GPUs by type, MIG slices too; `ANY_TYPE` for those without a type.
        shards: Shares of GPUs (`gres/shard`) by type.
        features: Features that the node has or can have.
        cpus_used: CPUs that are given out now.
        memory_used: Memory that is given out now.
        gpus_used: GPUs that are given out now, by type; of a type that is not there, none is.
        reason: Why it is down or drained, as the operator says it.
        host: The name of the machine.
    """

    name: str
    partitions: tuple[str, ...] = ()
    state: str = "IDLE"
    flags: frozenset[str] = frozenset()
    cpus: int = 0
    memory: int = 0
    gpus: Mapping[str, int] = field(default_factory=dict)
    shards: Mapping[str, int] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    cpus_used: int = 0
    memory_used: int = 0
    gpus_used: Mapping[str, int] = field(default_factory=dict)
    reason: str | None = None
    host: str | None = None

    @property
    def gpu_count(self) -> int:
        """GPUs of all types."""
        return sum(self.gpus.values())

    @property
    def trouble(self) -> str | None:
        """Why it starts no jobs now, in a word or two; `None` when it does."""
        asleep = self.flags & {"POWERED_DOWN", "POWERING_UP", "POWERING_DOWN", "POWER_UP", "POWER_DOWN"}
        silent = self.state == "UNKNOWN" or "NOT_RESPONDING" in self.flags
        for holds, words in (
            (self.state == "FUTURE", "not in service yet"),
            (self.state in {"DOWN", "ERROR", "FAIL"} or "FAIL" in self.flags, "down"),
            ("DRAIN" in self.flags, "drained"),
            ("MAINTENANCE" in self.flags, "in maintenance"),
            ("INVALID_REG" in self.flags, "not as SLURM was told that it is"),
            (silent and not asleep, "not answering"),
        ):
            if holds:
                return words
        return None

    @property
    def usable(self) -> bool:
        """Whether it starts jobs now, once what they ask for is free."""
        return self.trouble is None

    def free_gpus(self, kind: str | None = None) -> int:
        """Count GPUs that nobody uses now.

        Args:
            kind: Their type; `None` for any.
        """
        kinds = self.gpus if kind is None else (kind,)
        return sum(max(0, self.gpus.get(one, 0) - self.gpus_used.get(one, 0)) for one in kinds)


@dataclass(frozen=True)
class Reservation:
    """A reservation.

    Attributes:
        name: Its name.
        state: `ACTIVE` or `INACTIVE`.
        start: When it begins, as SLURM prints it.
        end: When it ends.
        partition: Its partition, where it is for one.
        nodes: Its nodes as a host list.
        users: Who may use it; empty where accounts or groups say so.
        accounts: Which accounts may use it; empty where users or groups say so.
        groups: Which groups may use it.
        flags: `MAINT`, `DAILY` and so on.
    """

    name: str
    state: str = "ACTIVE"
    start: str | None = None
    end: str | None = None
    partition: str | None = None
    nodes: str | None = None
    users: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Association:
    """What a user may do with an account, or the limits of an account itself.

    Amounts go by SLURM's names, `gres/gpu`, `gres/gpu:h100`, `cpu`, `mem`, `node`.

    Attributes:
        account: The account.
        user: The user; `None` for the account itself.
        partition: The one partition that this is about; `None`: all.
        parent: The account above it; `None` for a user's.
        qos: QoS that may be used.
        default_qos: QoS of a job that names none.
        max_wall: The longest time limit.
        max_tres: The most of each resource for a job.
        group_tres: The most of each resource for all its jobs together.
        max_jobs: The most running jobs.
        max_submit: The most jobs running and waiting.
    """

    account: str
    user: str | None = None
    partition: str | None = None
    parent: str | None = None
    qos: tuple[str, ...] = ()
    default_qos: str | None = None
    max_wall: int | None = None
    max_tres: Mapping[str, int] = field(default_factory=dict)
    group_tres: Mapping[str, int] = field(default_factory=dict)
    max_jobs: int | None = None
    max_submit: int | None = None


@dataclass(frozen=True)
class Qos:
    """A quality of service.

    Attributes:
        name: Its name.
        max_wall: The longest time limit.
        max_tres: The most of each resource for a job.
        max_tres_per_user: The most of each resource for a user's jobs together.
        min_tres: The least of each resource that a job must ask for.
        group_tres: The most of each resource for all its jobs together.
        max_jobs_per_user: The most running jobs of a user.
        max_submit_per_user: The most jobs of a user, running and waiting.
        flags: `DenyOnLimit`, `OverPartQOS` and so on.
        priority: What it adds to a job's priority.
    """

    name: str
    max_wall: int | None = None
    max_tres: Mapping[str, int] = field(default_factory=dict)
    max_tres_per_user: Mapping[str, int] = field(default_factory=dict)
    min_tres: Mapping[str, int] = field(default_factory=dict)
    group_tres: Mapping[str, int] = field(default_factory=dict)
    max_jobs_per_user: int | None = None
    max_submit_per_user: int | None = None
    flags: frozenset[str] = frozenset()
    priority: int = 0


@dataclass(frozen=True)
class Accounting:
    """What accounting says of this user. Each part is `None` where it could not be asked.

    Attributes:
        default_account: Account of a job that names none.
        associations: What the user may do, an entry for each account, and for a partition of it.
        accounts: The accounts themselves, with their parents and limits.
        qos: Every QoS of the cluster.
    """

    default_account: str | None = None
    associations: tuple[Association, ...] | None = None
    accounts: tuple[Association, ...] | None = None
    qos: tuple[Qos, ...] | None = None


@dataclass(frozen=True)
class Unknown:
    """A question that nobody answered.

    Attributes:
        what: What was to be known: `settings`, `partitions`, `nodes`, `reservations`, `associations`,
            `accounts`, `qos`.
        why: What stood in the way, in a few words.
    """

    what: str
    why: str


@dataclass(frozen=True)
class ClusterFacts:
    """All that is known of a cluster. A part that could not be asked is `None`, and `unknown` says why.

    Attributes:
        user: The user that was asked for.
        groups: The user's groups on this machine.
        settings: The configuration.
        partitions: The partitions, hidden ones too.
        nodes: The nodes.
        reservations: The reservations.
        accounting: Accounting; `None` too where the cluster has none.
        unknown: The questions that nobody answered.
    """

    user: str
    groups: frozenset[str] = frozenset()
    settings: Settings | None = None
    partitions: tuple[Partition, ...] | None = None
    nodes: tuple[Node, ...] | None = None
    reservations: tuple[Reservation, ...] | None = None
    accounting: Accounting | None = None
    unknown: tuple[Unknown, ...] = ()

    @property
    def silent(self) -> bool:
        """Whether nobody answered anything."""
        known = (self.settings, self.partitions, self.nodes, self.reservations, self.accounting)
        return known == (None,) * len(known)

    def partition(self, name: str | None) -> Partition | None:
        """Find a partition; the default one for `None`."""
        for partition in self.partitions or ():
            if partition.default if name is None else partition.name == name:
                return partition
        return None

    def nodes_of(self, partition: Partition) -> tuple[Node, ...]:
        """The nodes of a partition."""
        return tuple(node for node in self.nodes or () if partition.name in node.partitions)

    def hidden_of(self, partition: Partition) -> int:
        """How many nodes of a partition SLURM does not show: those of a cloud that are powered down."""
        if self.nodes is None or partition.total_nodes is None:
            return 0
        return max(0, partition.total_nodes - len(self.nodes_of(partition)))

    @property
    def hides_nodes(self) -> bool:
        """Whether there are nodes that SLURM does not show."""
        return any(self.hidden_of(partition) for partition in self.partitions or ())

    def defaults_of(self, partition: Partition) -> Defaults:
        """A partition's defaults and limits, with the cluster's where it has none of its own."""
        own, all_ = partition.defaults, self.settings.defaults if self.settings else Defaults()
        # For each CPU or for the node: what a partition says of one replaces both.
        base = own if (own.memory_per_cpu, own.memory_per_node) != (None, None) else all_
        limited = (own.max_memory_per_cpu, own.max_memory_per_node) != (None, None)
        limits = own if limited else all_
        return Defaults(
            memory_per_cpu=base.memory_per_cpu,
            memory_per_node=base.memory_per_node,
            memory_per_gpu=own.memory_per_gpu if own.memory_per_gpu is not None else all_.memory_per_gpu,
            cpus_per_gpu=own.cpus_per_gpu or all_.cpus_per_gpu,
            max_memory_per_cpu=limits.max_memory_per_cpu,
            max_memory_per_node=limits.max_memory_per_node,
        )
