"""What a cluster lets this user have: which partitions, and by which account and QoS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from medarc_plugin.slurm.facts import Association, ClusterFacts, Partition

STATES = {"DOWN": "starts no jobs (DOWN)", "DRAIN": "takes no jobs (DRAIN)", "INACTIVE": "is INACTIVE"}
"""What the state of a partition means."""

ROOT = "root"
"""The user, and the account above all others."""

USUAL_QOS = "normal"
"""What a job gets where its association names no default (slurmctld's job_mgr.c)."""

INHERITED_SINCE = (23, 11)
"""From this version on a partition's list of accounts holds for those below them too
(https://slurm.schedmd.com/slurm.conf.html#OPT_AllowAccounts; seen on 24.11 and not on 22.05)."""


@dataclass(frozen=True)
class Charged:
    """Whom a partition's jobs are charged to, as far as accounting tells.

    Attributes:
        account: What the user may do with the account that is chosen; `None` where accounting tells none.
        accounts: All accounts that may be used there.
        default: The user's default account.
        qos: The QoS that a job has to name, or had better; `None` where the cluster chooses.
        offered: All QoS that may be used there with that account.
        by_itself: The QoS that a job gets which names none.
    """

    account: Association | None = None
    accounts: tuple[str, ...] = ()
    default: str | None = None
    qos: str | None = None
    offered: tuple[str, ...] = ()
    by_itself: str | None = None


def why_not(facts: ClusterFacts, partition: Partition) -> str | None:
    """Say why a partition is nothing for a run of this user, as in `cpu has no GPUs`; `None` where it is.

    Whether its nodes start jobs right now is not looked at.
    """
    known = facts.nodes is not None and not facts.hidden_of(partition)
    if known and not any(node.gpu_count for node in facts.nodes_of(partition)):
        return "has no GPUs"
    if partition.state != "UP":
        return STATES.get(partition.state, f"is {partition.state}")
    # https://slurm.schedmd.com/slurm.conf.html#OPT_AllowGroups: root and SlurmUser may always.
    always = facts.user in {ROOT, facts.settings.slurm_user if facts.settings else ROOT}
    if partition.only_root and not always:
        return "is for root alone"
    groups = partition.allow_groups
    if groups is not None and not facts.groups.intersection(groups) and not always:
        return f"is for members of {listed(groups, 'or')}"
    if partition.needs_reservation:
        return "takes jobs of a reservation alone"
    return partition.takes_no_single_node or _why_not_charged(facts, partition)


def _why_not_charged(facts: ClusterFacts, partition: Partition) -> str | None:
    associations = _associations(facts)
    if associations is None:
        return None
    if not associations:
        enforced = facts.settings is not None and "associations" in facts.settings.enforced
        return f"needs an account, and accounting knows none of {facts.user}" if enforced else None
    if not _usable(facts, partition):
        return f"is for {_which_accounts(partition)}; yours: {listed(accounts_of(facts))}"
    if not charged(facts, partition).offered and partition.allow_qos is not None:
        return f"is for the QoS {listed(partition.allow_qos, 'or')}, which your accounts may not use"
    return None


def _which_accounts(partition: Partition) -> str:
    if partition.allow_accounts is not None:
        several = "accounts" if len(partition.allow_accounts) > 1 else "account"
        return f"the {several} {listed(partition.allow_accounts, 'or')}"
    if partition.deny_accounts:
        return f"all accounts but {listed(partition.deny_accounts)}"
    return "accounts that name it"


def charged(facts: ClusterFacts, partition: Partition) -> Charged:
    """Say whom a partition's jobs are charged to: of the accounts that it takes, the user's default one."""
    accounting = facts.accounting
    usable = _usable(facts, partition)
    if accounting is None or not usable:
        return Charged(accounts=partition.allow_accounts or (), offered=partition.allow_qos or ())
    default = accounting.default_account
    account = next((one for one in usable if one.account == default), usable[0])
    offered = tuple(
        name
        for name in sorted(account.qos)
        if (partition.allow_qos is None or name in partition.allow_qos) and name not in partition.deny_qos
    )
    by_itself = account.default_qos or (USUAL_QOS if USUAL_QOS in account.qos else None)
    chosen = None
    if offered and by_itself not in offered:
        chosen = offered[0]
    elif len(offered) > 1:
        chosen = by_itself
    return Charged(account, _names(usable), default, chosen, offered, by_itself)


def accounts_of(facts: ClusterFacts) -> tuple[str, ...]:
    """Name the user's accounts; none where they are not known."""
    return _names(_associations(facts) or ())


def _names(associations: Iterable[Association]) -> tuple[str, ...]:
    return tuple(sorted({one.account for one in associations}))


def _associations(facts: ClusterFacts) -> tuple[Association, ...] | None:
    return facts.accounting.associations if facts.accounting else None


def _usable(facts: ClusterFacts, partition: Partition) -> list[Association]:
    """The user's associations that a partition takes; of an account the one for this partition first."""
    found = [
        one
        for one in _associations(facts) or ()
        if one.partition in (None, partition.name) and takes(facts, partition, one.account)
    ]
    return sorted(found, key=lambda one: (one.account, one.partition is None))


def takes(facts: ClusterFacts, partition: Partition, account: str | None) -> bool:
    """Whether a partition takes jobs of an account, as far as it can be told.

    Args:
        facts: What is known of the cluster.
        partition: The partition.
        account: The account; `None` for a job that is charged to none.
    """
    allowed = partition.allow_accounts
    # Where some are allowed, the denied ones count no more (slurm.conf(5), AllowAccounts).
    if allowed is None:
        return account is None or not _share(partition.deny_accounts, [account])
    if account is None:
        return False
    names = family(facts, account) if _inherits(facts) else [account]
    return names is None or _share(allowed, names)


def _share(names: Iterable[str], others: Iterable[str]) -> bool:
    return not {name.lower() for name in names}.isdisjoint(other.lower() for other in others)


def _inherits(facts: ClusterFacts) -> bool:
    """Whether a partition that takes an account takes those below it; so where the version is not known."""
    version = facts.settings.version if facts.settings else None
    if version is None:
        return True
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal()) >= INHERITED_SINCE


def family(facts: ClusterFacts, account: str) -> list[str] | None:
    """An account and those above it; `None` where accounting runs and does not tell."""
    known = (facts.accounting.accounts if facts.accounting else None) or ()
    parents = {one.account.lower(): (one.parent or "").lower() for one in known}
    if account.lower() not in parents and (facts.settings is None or facts.settings.accounting):
        return None
    found: list[str] = []
    name = account.lower()
    while name and name not in found:
        found.append(name)
        name = parents.get(name, "")
    return found


def listed(names: Sequence[str], last: str = "and") -> str:
    """List names in a sentence."""
    return f" {last} ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
