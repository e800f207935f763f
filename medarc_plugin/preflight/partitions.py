"""Whether a partition is there, takes jobs, is the user's, and gives the time that the job asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medarc_plugin.preflight.accounts import rights_of
from medarc_plugin.preflight.findings import listed, nearest, refused, time_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from medarc_plugin.models import Problem
    from medarc_plugin.preflight.target import Target, Wish
    from medarc_plugin.slurm.facts import ClusterFacts, Partition

QUEUE_ANYWAY = "--no-preflight queues it all the same"


def partitions_are_there(wish: Wish, facts: ClusterFacts) -> Iterator[Problem]:
    """Every partition that the job names exists; or there is a default one."""
    if facts.partitions is None:
        return
    known = [partition.name for partition in facts.partitions]
    listing = f"the partitions here are: {listed(open_ones(facts))}; name one with --partition"
    may_get_one = facts.settings is not None and bool(facts.settings.changed_by)
    if not wish.partitions and facts.partition(None) is None and not may_get_one:
        yield refused("partition", "no partition is named, and the cluster has no default one", listing)
    for name in wish.partitions:
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {near}? {listing}" if near else listing
            yield refused("partition", f"there is no partition {name!r}", hint)


def open_ones(facts: ClusterFacts) -> list[str]:
    """The partitions that take jobs of this user, as far as groups say so; all where none does."""
    partitions = facts.partitions or ()
    names = [
        one.name
        for one in partitions
        if one.state == "UP" and not (one.hidden or one.needs_reservation) and _is_the_users(one, facts)
    ]
    return names or [one.name for one in partitions]


def _is_the_users(partition: Partition, facts: ClusterFacts) -> bool:
    # https://slurm.schedmd.com/slurm.conf.html#OPT_AllowGroups: root and SlurmUser may always.
    if facts.user in {"root", facts.settings.slurm_user if facts.settings else None}:
        return True
    allowed = partition.allow_groups
    return not partition.only_root and (allowed is None or bool(facts.groups.intersection(allowed)))


def partition_takes_jobs(target: Target) -> Iterator[Problem]:
    """It is up, and takes jobs of one node. One that is down takes jobs and starts none."""
    partition = target.partition
    others = [name for name in open_ones(target.facts) if name != partition.name]
    hint = f"those that are up: {listed(others)}"
    if partition.state == "DOWN":
        message = (
            f"partition {partition.name!r} is down: the job would wait until somebody brings it up again"
        )
        yield refused("partition", message, f"{hint}; {QUEUE_ANYWAY}")
    elif partition.state != "UP":
        message = f"partition {partition.name!r} takes no jobs now: its state is {partition.state}"
        yield refused("partition", message, hint)
    if partition.takes_no_single_node and not _overruled(target, "PartitionMinNodes", "PartitionMaxNodes"):
        message = (
            f"partition {partition.name!r} {partition.takes_no_single_node}, and a run lives on one: "
            "it would never start"
        )
        yield refused(
            "partition", message, "another --partition; `scontrol show partition` shows their limits"
        )


def partition_is_the_users(target: Target) -> Iterator[Problem]:
    """Groups let the user in, and a partition that needs a reservation gets one."""
    partition, facts = target.partition, target.facts
    if not _is_the_users(partition, facts):
        whose = "root alone" if partition.only_root else f"the groups {listed(partition.allow_groups or ())}"
        yield refused(
            "partition",
            f"partition {partition.name!r} is for {whose}; {facts.user} is in {listed(sorted(facts.groups))}",
            f"those that are yours: {listed(open_ones(facts))}; this machine's list of groups may be old: "
            "log in again after you were added to one",
        )
    if partition.needs_reservation and target.wish.reservation is None:
        yield refused(
            "partition",
            f"partition {partition.name!r} takes jobs with a reservation alone",
            "name one with --reservation (`scontrol show reservation` lists them), or another --partition",
        )


def time_is_within(target: Target) -> Iterator[Problem]:
    """The time limit is not longer than the partition's: SLURM would let the job wait for ever."""
    asked, most = target.wish.time, target.partition.max_time
    if asked is None or most is None or asked <= most or _overruled(target, "PartitionTimeLimit"):
        return
    candidates = [target.facts.partition(name) for name in open_ones(target.facts)]
    longer = [one.name for one in candidates if one and (one.max_time is None or one.max_time >= asked)]
    elsewhere = f", or a partition that allows it: {listed(longer)}" if longer else ""
    yield refused(
        "time limit",
        f"--time {time_words(asked)} is longer than partition {target.partition.name!r} allows, "
        f"{time_words(most)}: the job would never start",
        f"--time {time_words(most)} at most{elsewhere}; a run that meets its limit is requeued and goes on",
    )


def _overruled(target: Target, *flags: str) -> bool:
    """Whether the QoS sets a limit instead of the partition (https://slurm.schedmd.com/qos.html)."""
    rights = rights_of(target)
    qos = rights.qos(rights.qos_name) if rights else None
    return qos is not None and not qos.flags.isdisjoint(flags)


CHECKS: tuple[Callable[[Target], Iterator[Problem]], ...] = (
    partition_takes_jobs,
    partition_is_the_users,
    time_is_within,
)
"""What is looked at for each partition where the job may run."""
