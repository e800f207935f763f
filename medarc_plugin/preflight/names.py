"""Whether the features, nodes and the reservation that the job names are there at all."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from medarc_plugin.preflight.findings import listed, nearest, refused, warned
from medarc_plugin.slurm.access import family
from medarc_plugin.slurm.hostlist import expand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from medarc_plugin.models import Problem
    from medarc_plugin.preflight.target import Wish
    from medarc_plugin.slurm.facts import ClusterFacts, Reservation


def features_are_there(wish: Wish, facts: ClusterFacts) -> Iterator[Problem]:
    """Every feature of the constraint is one that some node has."""
    if not wish.constraint or not facts.nodes or facts.hides_nodes:
        return
    known = sorted({feature for node in facts.nodes for feature in node.features})
    for name in dict.fromkeys(re.findall(r"[^&|\[\]()!,*\s]+(?!\*)", re.sub(r"\*\d+", "", wish.constraint))):
        if name not in known:
            near = nearest(name, known)
            yield refused(
                "constraint",
                f"no node has the feature {name!r} of --constraint {wish.constraint}",
                (f"did you mean {near}? " if near else "") + f"the features there are: {listed(known)}",
            )


def named_nodes_are_there(wish: Wish, facts: ClusterFacts) -> Iterator[Problem]:
    """Every node of --nodelist and --exclude is one of the cluster, and the job is meant for one."""
    if not facts.nodes:
        return
    known = [node.name for node in facts.nodes]
    for option, text in (("--nodelist", wish.nodelist), ("--exclude", wish.exclude)):
        names = expand(text or "") or ()
        strange = [name for name in names if name not in known and not facts.hides_nodes]
        if strange:
            yield refused(
                "nodes",
                f"{option} {text}: there is no node {listed(strange)}",
                f"the nodes are: {listed(known)}",
            )
        elif option == "--nodelist" and len(names) > 1:
            yield refused(
                "nodes",
                f"--nodelist {text} asks for {len(names)} nodes, and a run lives on one",
                "name one node; to choose among several, --exclude the others",
            )


def reservation_is_the_users(wish: Wish, facts: ClusterFacts) -> Iterator[Problem]:
    """The reservation exists, is the user's, and goes with the partition."""
    if wish.reservation is None or facts.reservations is None:
        return
    names = [one.name for one in facts.reservations]
    wanted = wish.reservation.split(",")
    for name in wanted:
        found = next((one for one in facts.reservations if one.name == name), None)
        if found is None:
            hint = (
                f"those that there are: {listed(names)}"
                if names
                else "the cluster has none now; they end with their time"
            )
            yield refused("reservation", f"there is no reservation {name!r}", hint)
        elif not _lets_in(found, wish, facts):
            yield refused(
                "reservation",
                f"reservation {name!r} is for {_whose(found)}",
                "leave --reservation out, or ask its owner to add you",
            )
        elif found.state == "INACTIVE" and found.start:
            yield warned(
                "reservation",
                f"reservation {name!r} begins at {found.start.replace('T', ' ')}, and the job waits for it",
            )


def _lets_in(reservation: Reservation, wish: Wish, facts: ClusterFacts) -> bool:
    """Whether a reservation is the user's, as far as it can be told; `-name` in a list keeps somebody out."""
    lists = (
        (reservation.users, {facts.user}),
        (tuple(name.lower() for name in reservation.accounts), _accounts(wish, facts)),
        (reservation.groups, facts.groups),
    )
    if any(f"-{name}" in names for names, mine in lists for name in mine or ()):
        return False
    named = [
        (names, mine) for names, mine in lists if names and not all(name.startswith("-") for name in names)
    ]
    return not named or any(mine is None or mine.intersection(names) for names, mine in named)


def _accounts(wish: Wish, facts: ClusterFacts) -> frozenset[str] | None:
    """The job's account and those above it, which stand for it; `None` where they are not known."""
    account = wish.account or (facts.accounting.default_account if facts.accounting else None)
    if account is not None:
        names = family(facts, account)
        return None if names is None else frozenset(name.lower() for name in names)
    return None if facts.settings is None or facts.settings.accounting else frozenset()


def _whose(reservation: Reservation) -> str:
    parts = (("users", reservation.users), ("accounts", reservation.accounts), ("groups", reservation.groups))
    return ", ".join(f"the {what} {listed(names)}" for what, names in parts if names)


CHECKS: tuple[Callable[[Wish, ClusterFacts], Iterator[Problem]], ...] = (
    features_are_there,
    named_nodes_are_there,
    reservation_is_the_users,
)
"""What is looked at once, whatever the partition."""
