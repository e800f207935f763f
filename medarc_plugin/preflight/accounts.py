"""Whether account and QoS are the user's, may use the partition, and allow a job of that size and length.

Of several limits on one thing, that of the first in this order holds: the partition's QoS, the job's QoS (the
other way round with the flag OverPartQOS), the user's association, the account, those above it
(https://slurm.schedmd.com/resource_limits.html).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from medarc_plugin.preflight.findings import (
    counted,
    listed,
    memory_words,
    nearest,
    refused,
    time_words,
    unless_changed,
)
from medarc_plugin.slurm.access import takes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from medarc_plugin.models import Problem
    from medarc_plugin.preflight.target import Target
    from medarc_plugin.slurm.facts import Accounting, Association, Qos

LISTING = "`sacctmgr show associations user=$USER` lists them"


@dataclass(frozen=True)
class Rights:
    """What accounting lets a job do in a partition.

    Attributes:
        target: The job and the partition.
        accounting: Accounting.
    """

    target: Target
    accounting: Accounting

    @property
    def enforced(self) -> frozenset[str]:
        """What of accounting is enforced; nothing where the settings are not known."""
        settings = self.target.facts.settings
        return settings.enforced if settings else frozenset()

    @property
    def account(self) -> str | None:
        """The account that the job is charged to."""
        return self.target.wish.account or self.accounting.default_account

    @cached_property
    def association(self) -> Association | None:
        """The association that counts: one for the partition before one for all."""
        mine = [
            one
            for one in self.accounting.associations or ()
            if _same(one.account, self.account) and one.partition in (None, self.target.partition.name)
        ]
        return min(mine, key=lambda one: one.partition is None, default=None)

    @property
    def qos_name(self) -> str | None:
        """The QoS that the job gets, as far as it can be told."""
        if self.target.wish.qos:
            return self.target.wish.qos
        association = self.association
        if association is None:
            return None
        return association.default_qos or (association.qos[0] if len(association.qos) == 1 else None)

    def qos(self, name: str | None) -> Qos | None:
        """Find a QoS."""
        return next((one for one in self.accounting.qos or () if _same(one.name, name)), None)

    @cached_property
    def above(self) -> tuple[Association, ...]:
        """The account and those above it, from below."""
        accounts = {one.account: one for one in self.accounting.accounts or ()}
        found: list[Association] = []
        name = self.account
        while name in accounts and accounts[name] not in found:
            found.append(accounts[name])
            name = accounts[name].parent
        return tuple(found)

    @cached_property
    def levels(self) -> tuple[tuple[str, Qos | Association], ...]:
        """Who sets limits, the one that wins first, each with its name."""
        qos, of_partition = self.qos(self.qos_name), self.qos(self.target.partition.qos)
        both = [
            (f"the QoS {one.name!r}{whose}", one)
            for one, whose in ((of_partition, f" of partition {self.target.partition.name!r}"), (qos, ""))
            if one is not None
        ]
        if qos is not None and "OverPartQOS" in qos.flags:
            both.reverse()
        found: list[tuple[str, Qos | Association]] = list(both)
        if self.association is not None:
            found.append((f"your association with account {self.association.account!r}", self.association))
        return (*found, *((f"account {one.account!r}", one) for one in self.above))


def _same(name: str | None, other: str | None) -> bool:
    return name is not None and other is not None and name.lower() == other.lower()


def rights_of(target: Target) -> Rights | None:
    """What accounting lets a job do; `None` where it is not known."""
    accounting = target.facts.accounting
    return None if accounting is None else Rights(target, accounting)


def account_is_the_users(target: Target) -> Iterator[Problem]:
    """The account is one of the user's, where accounts are enforced."""
    rights = rights_of(target)
    if rights is None or rights.accounting.associations is None or "associations" not in rights.enforced:
        return
    mine = list(dict.fromkeys(one.account for one in rights.accounting.associations))
    if not mine:
        yield refused(
            "account",
            f"accounting does not know {target.facts.user}, and takes no jobs of strangers",
            "ask the cluster's administrators for an account",
        )
    elif rights.account is None:
        problem = refused(
            "account", "the job names no account, and you have no default one", f"--account {mine[0]}"
        )
        yield unless_changed(problem, target.facts, "account")
    elif rights.association is None and any(_same(rights.account, name) for name in mine):
        places = [
            str(one.partition) for one in rights.accounting.associations if _same(one.account, rights.account)
        ]
        yield refused(
            "account",
            f"account {rights.account!r} is yours in partition {listed(places)} alone, not in "
            f"{target.partition.name!r}",
            f"name another --account ({listed(mine)}) or --partition",
        )
    elif rights.association is None:
        near = nearest(rights.account, mine)
        yield refused(
            "account",
            f"account {rights.account!r} is not one of yours",
            (f"did you mean {near}? " if near else "")
            + f"yours are: {listed(mine)}; name one with --account",
        )


def account_may_use_the_partition(target: Target) -> Iterator[Problem]:
    """The partition lets the account in. SLURM would let the job wait for ever."""
    partition, rights = target.partition, rights_of(target)
    account = rights.account if rights else target.wish.account
    settings = target.facts.settings
    if rights is None and account is None and settings is not None and settings.accounting:
        # Which account is the default one is not known.
        return
    if takes(target.facts, partition, account):
        return
    allowed = partition.allow_accounts
    hint = _which_account(target, rights, allowed)
    if allowed is not None:
        who = f"the job's is {account!r}" if account else "the job names none"
        problem = refused(
            "account",
            f"partition {partition.name!r} is for the accounts {listed(allowed)}, and {who}: "
            "it would never start",
            hint,
        )
    else:
        problem = refused(
            "account",
            f"partition {partition.name!r} is closed to account {account!r}: the job would never start",
            hint,
        )
    yield problem if target.wish.account else unless_changed(problem, target.facts, "account")


def _which_account(target: Target, rights: Rights | None, allowed: Sequence[str] | None) -> str:
    """Say which accounts the partition lets in instead: the user's, where they are known."""
    if rights is None or rights.accounting.associations is None:
        return (
            f"--account {_one_of(allowed)}, or another --partition"
            if allowed
            else "another --account or --partition"
        )
    names = dict.fromkeys(one.account for one in rights.accounting.associations)
    mine = [name for name in names if takes(target.facts, target.partition, name)]
    if not mine:
        return "it lets in none of your accounts: another --partition"
    return f"--account {_one_of(mine)}, or another --partition"


def _one_of(names: Sequence[str]) -> str:
    """Write the first of several names as an option's value, and the others behind it."""
    return names[0] + (f" (or {listed(names[1:])})" if names[1:] else "")


def qos_is_the_users(target: Target) -> Iterator[Problem]:
    """The QoS exists and goes with the account, and the partition lets it in."""
    rights = rights_of(target)
    if rights is None or rights.accounting.qos is None:
        return
    partition, asked = target.partition, target.wish.qos
    known = [one.name for one in rights.accounting.qos]
    association = rights.association
    mine = list(association.qos) if association else []
    if asked and not any(_same(asked, name) for name in known):
        near = nearest(asked, mine or known)
        yield refused(
            "qos",
            f"there is no QoS {asked!r}",
            (f"did you mean {near}? " if near else "")
            + f"those of your account are: {listed(mine or known)}",
        )
        return
    if asked and association and "qos" in rights.enforced and not any(_same(asked, name) for name in mine):
        yield refused(
            "qos",
            f"QoS {asked!r} does not go with account {association.account!r}",
            f"those that do are: {listed(mine)}; another --qos or --account ({LISTING})",
        )
    name = rights.qos_name
    if name is None:
        return
    if partition.allow_qos is not None and not any(_same(name, other) for other in partition.allow_qos):
        problem = refused(
            "qos",
            f"partition {partition.name!r} is for the QoS {listed(partition.allow_qos)}, and the job's is "
            f"{name!r}: it would never start",
            f"--qos {_one_of(partition.allow_qos)}, or another --partition",
        )
        yield problem if asked else unless_changed(problem, target.facts, "QoS")
    elif any(_same(name, other) for other in partition.deny_qos):
        problem = refused(
            "qos",
            f"partition {partition.name!r} is closed to QoS {name!r}: the job would never start",
            "another --qos or --partition",
        )
        yield problem if asked else unless_changed(problem, target.facts, "QoS")


def limits_allow_it(target: Target) -> Iterator[Problem]:
    """No limit of QoS, account or association is smaller than this one job."""
    rights = rights_of(target)
    if rights is None or not {"limits", "safe"} & rights.enforced:
        return
    for problem in (*_wall(rights), *_amounts(rights)):
        yield problem if target.wish.qos else unless_changed(problem, target.facts, "QoS")


def _wall(rights: Rights) -> Iterator[Problem]:
    asked = rights.target.wish.time
    limit = next(((who, level.max_wall) for who, level in rights.levels if level.max_wall is not None), None)
    if asked is None or limit is None or asked <= limit[1]:
        return
    who, most = limit
    yield refused(
        "time limit",
        f"--time {time_words(asked)} is longer than {who} allows, {time_words(most)}: the job would "
        "never start",
        f"--time {time_words(most)} at most, or {_another(rights)}; a run that meets its limit is requeued "
        "and goes on",
    )


def _another(rights: Rights) -> str:
    mine = rights.association.qos if rights.association else ()
    others = [name for name in mine if not _same(name, rights.qos_name)]
    return f"another --qos ({listed(others)}) or --account" if others else "another --account"


GROUPS: tuple[tuple[str, str], ...] = (
    ("max_tres", "a job"),
    ("max_tres_per_user", "all jobs of a user together"),
    ("group_tres", "all its jobs together"),
)
"""Limits by name, and whom they are for."""

RESOURCES = {
    "cpu": ("CPU", "--cpus-per-gpu"),
    "mem": ("memory", "--mem-per-gpu"),
    "gres/gpu": ("GPU", "--train-gpus, --infer-gpus or --gpus"),
}
"""Resources by SLURM's name: what they are called, and the options that ask for them."""


def _amounts(rights: Rights) -> Iterator[Problem]:
    for name, asked in _asked(rights.target).items():
        for limit, whom in GROUPS:
            found = _first(rights, limit, name)
            if found is not None and asked > found[1]:
                who, most = found
                yield refused(
                    "limits",
                    f"{who} allows {whom} {_amount(name, most)}, and the job asks for "
                    f"{_amount(name, asked)}: it would never start",
                    f"ask for less with {_options(name)}, or name {_another(rights)}",
                )
                break
        least = _first(rights, "min_tres", name)
        if least is not None and asked < least[1]:
            yield refused(
                "limits",
                f"{least[0]} wants {_amount(name, least[1])} at least, and the job asks for "
                f"{_amount(name, asked)}",
                f"ask for more with {_options(name)}, or name {_another(rights)}",
            )


def _asked(target: Target) -> Mapping[str, int]:
    wish = target.wish
    found = {"gres/gpu": wish.gpus, "cpu": wish.cpus, "node": 1}
    if wish.gpu_type:
        found[f"gres/gpu:{wish.gpu_type}"] = wish.gpus
    if wish.memory is not None:
        found["mem"] = wish.memory
    return found


def _first(rights: Rights, limit: str, name: str) -> tuple[str, int] | None:
    """Find the limit that holds, and whose it is."""
    for who, level in rights.levels:
        amounts: Mapping[str, int] = getattr(level, limit, {})
        if name in amounts:
            return who, amounts[name]
    return None


def _amount(name: str, amount: int) -> str:
    if name == "mem":
        return f"{memory_words(amount)} of memory"
    base, _, kind = name.partition(":")
    what = RESOURCES.get(base, (base, ""))[0]
    return counted(amount, what) + (f" of type {kind}" if kind else "")


def _options(name: str) -> str:
    return RESOURCES.get(name.partition(":")[0], ("", "the job's options"))[1]


CHECKS: tuple[Callable[[Target], Iterator[Problem]], ...] = (
    account_is_the_users,
    account_may_use_the_partition,
    qos_is_the_users,
    limits_allow_it,
)
"""What is looked at for each partition where the job may run."""
