"""The cluster: SLURM's commands, its controller and clock, and what there is for this user."""

from __future__ import annotations

import datetime as dt
import re
import time
from collections import Counter
from typing import TYPE_CHECKING

from medarc_plugin.doctor.findings import Finding, failed, ok, skipped, warning
from medarc_plugin.doctor.subject import ask_slurm, program
from medarc_plugin.process import NOT_FOUND
from medarc_plugin.slurm.access import accounts_of, charged, listed, why_not
from medarc_plugin.slurm.gateway import NAME_ANOTHER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from medarc_plugin.doctor.subject import Subject
    from medarc_plugin.slurm.facts import ClusterFacts, Partition

NEEDED = ("sbatch", "scontrol", "squeue", "scancel")
FURTHER = ("sinfo", "sacct", "sacctmgr")

SKEW_SECONDS = 20
"""Between two clocks, above which times in logs and records mislead."""

MUNGE_SECONDS = 300
"""For which a credential of munge is good (munged(8), --max-ttl): SLURM refuses older ones."""

OLDEST = (20, 11)
"""The oldest SLURM that this was tried with."""


def commands(subject: Subject) -> Iterator[Finding]:  # noqa: ARG001
    """SLURM's commands on PATH."""
    places = {name: program(name) for name in (*NEEDED, *FURTHER)}
    missing = [name for name in NEEDED if places[name] is None]
    if len(missing) == len(NEEDED):
        yield failed(
            "sbatch and the others are not on PATH",
            "submit from a login node of the cluster; --sandbox tries things out without one",
        )
        return
    if missing:
        yield failed(f"{listed(missing)} not on PATH", "install SLURM's client commands, or load its module")
    lesser = [name for name in FURTHER if places[name] is None]
    if lesser:
        yield warning(f"{listed(lesser)} not on PATH: what they tell is not known")
    yield ok(f"{places['sbatch'] or places['scontrol']}")


def controller(subject: Subject) -> Iterator[Finding]:  # noqa: ARG001
    """The controller answers."""
    done = ask_slurm("scontrol", "ping")
    if done.returncode == NOT_FOUND:
        yield skipped("there is no scontrol to ask with")
        return
    if not done.started:
        yield failed(done.stderr, NAME_ANOTHER)
        return
    lines = [line.strip() for line in done.stdout.splitlines() if " is " in line]
    up = [line for line in lines if line.endswith("UP")]
    if up and len(up) == len(lines):
        yield ok(listed(lines))
    elif up:
        yield warning(listed(lines), "the backup does its work meanwhile")
    else:
        words = listed(lines) or (done.stderr or done.stdout).strip().rpartition("\n")[2]
        here = "SLURM_CONF names the configuration of another cluster"
        hint = f"`scontrol ping` says when it is back, and jobs go on meanwhile; {here}"
        if "onfigur" in words:
            hint = f"this machine belongs to no cluster: go to a login node, or try --sandbox; {here}"
        yield failed(words or f"scontrol ping ended with exit code {done.returncode}", hint)


def version(subject: Subject) -> Iterator[Finding]:
    """SLURM's version and the cluster's name."""
    settings = subject.facts().settings
    if settings is None:
        yield skipped(_unknown(subject.facts(), "settings"))
        return
    accounting = "with accounting" if settings.accounting else "without accounting"
    words = f"SLURM {settings.version or 'of unknown version'}, cluster {settings.name}, {accounting}"
    numbers = tuple(map(int, re.findall(r"\d+", settings.version or "")[:2]))
    if numbers and numbers < OLDEST:
        yield warning(f"{words}: older than any that this was tried with (20.11)")
    else:
        yield ok(words)


def clock(subject: Subject) -> Iterator[Finding]:
    """The controller's clock and this machine's agree."""
    done = subject.settings()
    now = time.time()
    # The controller's own time, as it answers (slurmctld's proc_req.c); printed in this machine's zone.
    found = re.match(r"Configuration data as of (\d+-\d+-\d+T\d+:\d+:\d+)", done.stdout)
    if found is None:
        yield skipped("the controller does not tell its time")
        return
    theirs = dt.datetime.fromisoformat(found[1]).astimezone().timestamp()
    skew = round(now - theirs)
    if abs(skew) > MUNGE_SECONDS:
        yield failed(
            f"this machine's is {_apart(skew)}: SLURM refuses what it signs",
            "set the clock: time servers do that",
        )
    elif abs(skew) > SKEW_SECONDS:
        yield warning(f"this machine's is {_apart(skew)}", "set the clock: times in logs and records mislead")
    else:
        yield ok("this machine's and the controller's agree")


def _apart(skew: int) -> str:
    return f"{abs(skew)} s {'ahead of' if skew > 0 else 'behind'} the controller's"


def partitions(subject: Subject) -> Iterator[Finding]:
    """The partitions that have GPUs and are this user's."""
    facts = subject.facts()
    if facts.partitions is None or facts.nodes is None:
        yield skipped(_unknown(facts, "partitions" if facts.partitions is None else "nodes"))
        return
    good = [one for one in facts.partitions if why_not(facts, one) is None]
    if not good:
        reasons = "; ".join(f"{one.name} {why_not(facts, one)}" for one in facts.partitions)
        yield warning(f"none is good for a run: {reasons or 'there is none'}")
    for one in good:
        yield _described(facts, one)


def _described(facts: ClusterFacts, partition: Partition) -> Finding:
    nodes = [node for node in facts.nodes_of(partition) if node.gpu_count]
    usable = [node for node in nodes if node.usable]
    totals: Counter[str] = Counter()
    for node in usable:
        totals.update(node.gpus)
    kinds = listed([f"{count}x {kind or 'GPU'}" for kind, count in sorted(totals.items())])
    default = " (the cluster's default)" if partition.default else ""
    hidden = facts.hidden_of(partition)
    shown = f"{hidden} node{'' if hidden == 1 else 's'} that SLURM does not show now"
    if hidden and not usable:
        return ok(f"{partition.name}{default}: {shown}")
    if not usable:
        troubles = Counter(node.trouble or "" for node in nodes)
        words = listed([f"{count} {why}" for why, count in troubles.items()])
        return warning(
            f"{partition.name}{default}: none of its {len(nodes)} nodes with GPUs starts jobs: {words}"
        )
    free = sum(node.free_gpus() for node in usable)
    out = f", {len(nodes) - len(usable)} out of service" if len(usable) < len(nodes) else ""
    count = f"{len(usable)} node{'' if len(usable) == 1 else 's'}"
    more = f", and {shown}" if hidden else ""
    return ok(f"{partition.name}{default}: {kinds} on {count}{out}; {free} free now{more}")


def chosen(subject: Subject) -> Iterator[Finding]:
    """Where a run goes that names no partition on its command line."""
    facts, settled = subject.facts(), subject.settled()
    if facts.partitions is None:
        yield skipped(_unknown(facts, "partitions"))
        return
    name, source = settled.options.partition, settled.sources["partition"]
    first = _first(name)
    partition = facts.partition(first)
    propose = "`medarc_slurm init` proposes a profile for this cluster"
    if partition is None:
        if first is None:
            yield warning("no partition is set, and the cluster has no default one", propose)
        else:
            yield failed(f"there is no partition {first!r} (from {source})", propose)
        return
    words = f"{partition.name} ({source})" if first else f"{partition.name} (the cluster's default)"
    reason = why_not(facts, partition)
    if reason is not None:
        yield (failed if first else warning)(f"{words} {reason}", propose)
    else:
        yield ok(words)


def _first(names: str | None) -> str | None:
    """The first of several partitions, of which SLURM takes one."""
    return names.partition(",")[0] if names else None


def accounts(subject: Subject) -> Iterator[Finding]:
    """The accounts and QoS that this user may use."""
    facts, options = subject.facts(), subject.settled().options
    if facts.settings is not None and not facts.settings.accounting:
        yield skipped("no accounting runs here: no account and no QoS is needed")
        return
    if facts.accounting is None or facts.accounting.associations is None:
        yield skipped(_unknown(facts, "associations"))
        return
    mine = accounts_of(facts)
    if not mine:
        enforced = facts.settings is not None and "associations" in facts.settings.enforced
        words = f"accounting knows no account of {facts.user}"
        yield (failed if enforced else warning)(words, "ask the cluster's administrators for one")
        return
    default = facts.accounting.default_account
    if options.account and options.account.lower() not in {one.lower() for one in mine}:
        yield failed(f"account {options.account!r} is not one of yours: {listed(mine)}")
    partition = facts.partition(_first(options.partition))
    paid = charged(facts, partition) if partition else None
    qos = f"; QoS with {paid.account.account}: {listed(paid.offered)}" if paid and paid.account else ""
    yield ok(
        f"{listed(mine)}{f' (default {default})' if default else ''}{qos if paid and paid.offered else ''}"
    )


def questions(subject: Subject) -> Iterator[Finding]:
    """What the cluster does not tell."""
    facts = subject.facts()
    if facts.partitions is None:
        yield skipped(_unknown(facts, "partitions"))
        return
    by_reason: dict[str, list[str]] = {}
    for one in facts.unknown:
        by_reason.setdefault(one.why, []).append(one.what)
    for why, what in by_reason.items():
        yield warning(f"no answer about {listed(what)}: {why}", "checks that need this are skipped")
    if not by_reason:
        yield ok("SLURM answers all that it is asked")


def _unknown(facts: ClusterFacts, what: str) -> str:
    why = next((one.why for one in facts.unknown if one.what == what), "nothing was said")
    return f"not known: {why}"
