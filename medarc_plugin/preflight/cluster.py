"""The cluster's checks: what its facts say of a plan, and what could not be looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medarc_plugin.preflight import accounts, names, nodes, partitions
from medarc_plugin.preflight.findings import counted, memory_words, time_words, unless_changed
from medarc_plugin.preflight.free import words_of_what_is_free
from medarc_plugin.preflight.target import Target, Wish, wish_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from medarc_plugin.models import JobPlan, Problem
    from medarc_plugin.slurm.facts import ClusterFacts

PARTITION_CHECKS = (*partitions.CHECKS, *accounts.CHECKS, *nodes.CHECKS)
"""What is looked at for each partition where the job may run."""

TOLD_BY = {
    "settings": "limits",
    "partitions": "partition and time limit",
    "nodes": "GPUs, CPUs, memory and features",
    "reservations": "reservation",
    "associations": "account",
    "accounts": "limits of accounts",
    "qos": "QoS",
}
"""What cannot be looked at without an answer."""


def cluster_can_take_the_job(plan: JobPlan) -> Iterator[Problem]:
    """Partition, nodes, account, QoS and limits allow the job, as far as SLURM says."""
    facts = plan.cluster
    if facts is None:
        return
    wish = wish_of(plan)
    yield from partitions.partitions_are_there(wish, facts)
    unnamed = [problem for check in names.CHECKS for problem in check(wish, facts)]
    yield from unnamed
    said = {problem.check for problem in unnamed if problem.fatal}
    # What is nowhere is not in a partition either, and is said once.
    yield from (problem for problem in _in_some_partition(wish, facts) if problem.check not in said)


def _in_some_partition(wish: Wish, facts: ClusterFacts) -> Iterator[Problem]:
    """Look at each partition; of several one is enough, unless the cluster wants all of them to do."""
    wanted = wish.partitions or (None,)
    targets = [Target(wish, found, facts) for name in wanted if (found := facts.partition(name)) is not None]
    found_by = [_findings(target) for target in targets]
    all_must = facts.settings is not None and facts.settings.enforce_part_limits == "ALL"
    good = [findings for findings in found_by if not any(problem.fatal for problem in findings)]
    if good and not all_must:
        # Where it can run without a word of warning, nothing is to be said of the others.
        yield from min(good, key=len)
        return
    seen = set()
    for problem in (problem for findings in found_by for problem in findings):
        if problem not in seen:
            seen.add(problem)
            yield problem


def _findings(target: Target) -> list[Problem]:
    found = [problem for check in PARTITION_CHECKS for problem in check(target)]
    if target.wish.partitions:
        return found
    return [unless_changed(problem, target.facts, "partition") for problem in found]


def defaults_of(plan: JobPlan) -> Mapping[str, str]:
    """Say what the job gets of what it does not ask for.

    Returns:
        Words for `partition`, `time`, `memory`, `account` and `qos`, those that are known.
    """
    facts = plan.cluster
    wish = wish_of(plan)
    partition = facts.partition(wish.partitions[0] if wish.partitions else None) if facts else None
    if facts is None or partition is None or len(wish.partitions) > 1:
        return {}
    target = Target(wish, partition, facts)
    rights = accounts.Rights(target, facts.accounting) if facts.accounting else None
    time = partition.default_time or partition.max_time
    memory = (
        {target.memory_on(node) for node in nodes.fitting(target)} if target.defaults.has_memory else set()
    )
    known = {
        "partition": partition.name,
        "time": time_words(time) if time else None,
        "memory": memory_words(memory.pop()) if len(memory) == 1 else None,
        "account": rights.account if rights else None,
        "qos": rights.qos_name if rights else None,
    }
    return {name: words for name, words in known.items() if words}


def free_now(plan: JobPlan) -> str | None:
    """Say that the job would fit what is free now; `None` when it would not, or nobody knows."""
    facts, wish = plan.cluster, wish_of(plan)
    if facts is None:
        return None
    found = [facts.partition(name) for name in wish.partitions or (None,)]
    return words_of_what_is_free(Target(wish, one, facts) for one in found if one is not None)


def unanswered(plan: JobPlan) -> str:
    """Say in one line what was not looked at and why; empty when everything was."""
    facts = plan.cluster
    if facts is None:
        return ""
    by_reason: dict[str, list[str]] = {}
    for unknown in facts.unknown:
        if unknown.what != "reservations" or plan.options.reservation:
            by_reason.setdefault(unknown.why, []).append(TOLD_BY[unknown.what])
    names = wish_of(plan).partitions or (None,)
    for found in filter(None, map(facts.partition, names)):
        if hidden := facts.hidden_of(found):
            why = f"SLURM does not show {counted(hidden, 'node')} of partition {found.name!r} now"
            by_reason.setdefault(why, []).append(TOLD_BY["nodes"])
    return "; ".join(f"{', '.join(whats)} ({why})" for why, whats in by_reason.items())
