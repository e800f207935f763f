"""Asks a cluster what it has and allows: a few queries at once, each bounded in time.

`ask` never fails: what is forbidden, missing or unanswered is `None` in the facts, and named in `unknown`.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from medarc_plugin.process import NOT_FOUND, TIMED_OUT, Completed
from medarc_plugin.slurm import gateway, parsing
from medarc_plugin.slurm.facts import (
    ANY_TYPE,
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
from medarc_plugin.slurm.gateway import HERE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from medarc_plugin.slurm.gateway import Cluster

__all__ = [
    "ANY_TYPE",
    "Accounting",
    "Association",
    "ClusterFacts",
    "Defaults",
    "Node",
    "Partition",
    "Qos",
    "Reservation",
    "Settings",
    "Unknown",
    "ask",
]

SECONDS = 5.0
"""How long each query may take. They run at the same time."""

_NO_ACCOUNTING = "supported accounting_storage plugin"
"""What sacctmgr says where no accounting runs, which is an answer."""


def ask(at: Cluster = HERE, *, seconds: float = SECONDS) -> ClusterFacts:
    """Ask a cluster what it has and allows.

    Args:
        at: The cluster.
        seconds: How long each query may take.

    Returns:
        The facts, with `None` for what could not be asked.
    """
    user = _user_name()
    queries = _queries(user, at)
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(queries)) as pool:
        asked = {
            name: pool.submit(gateway.ask, argv, at.environment, seconds) for name, argv in queries.items()
        }
        answers = {name: future.result() for name, future in asked.items()}
    return read(answers, user, _groups(user))


def _queries(user: str, at: Cluster) -> dict[str, tuple[str, ...]]:
    """The queries by what they are to tell."""
    scontrol = ("scontrol", *at.option)
    sacctmgr = ("sacctmgr", "-n", "-P", "show")
    here = (f"cluster={at.name}",) if at.name else ()
    return {
        "settings": (*scontrol, "show", "config"),
        "partitions": (*scontrol, "-a", "-o", "show", "partition"),
        # In detail, since GPUs in use are said nowhere else where accounting does not count them.
        "nodes": (*scontrol, "-a", "-d", "-o", "show", "node"),
        "reservations": (*scontrol, "-o", "show", "reservation"),
        "associations": (
            *(*sacctmgr, "user", "withassoc", "where", f"name={user}", *here),
            f"format={','.join(parsing.USER_FIELDS)}",
        ),
        "accounts": (
            *(*sacctmgr, "assoc", "where", "user=", *here),
            f"format={','.join(parsing.ACCOUNT_FIELDS)}",
        ),
        "qos": (*sacctmgr, "qos", f"format={','.join(parsing.QOS_FIELDS)}"),
    }


def read(answers: Mapping[str, Completed], user: str, groups: frozenset[str] = frozenset()) -> ClusterFacts:
    """Put what the queries printed together.

    Args:
        answers: How each query ended, by what it was to tell.
        user: The user that was asked for.
        groups: The user's groups.
    """
    answers = {name: _without_emptiness(name, done) for name, done in answers.items()}
    said = {name: done.stdout for name, done in answers.items() if done.ok}
    silent = any(_NO_ACCOUNTING in done.stderr for done in answers.values())
    unknown = tuple(
        Unknown(name, _why(done))
        for name, done in answers.items()
        if not done.ok and not (silent and name in {"associations", "accounts", "qos"})
    )
    settings = parsing.parse_settings(said["settings"]) if "settings" in said else None
    return ClusterFacts(
        user=user,
        groups=groups,
        settings=settings,
        partitions=parsing.parse_partitions(said["partitions"]) if "partitions" in said else None,
        nodes=parsing.parse_nodes(said["nodes"]) if "nodes" in said else None,
        reservations=parsing.parse_reservations(said["reservations"]) if "reservations" in said else None,
        accounting=_accounting(said, user, settings.name if settings else None),
        unknown=unknown,
    )


def _without_emptiness(name: str, done: Completed) -> Completed:
    """Take a cluster that shows no node or partition for one that hides them (PrivateData=nodes)."""
    if done.ok and name in {"partitions", "nodes"} and "Name=" not in done.stdout:
        return replace(done, returncode=1, stderr="SLURM shows none to this user")
    return done


def _accounting(said: Mapping[str, str], user: str, cluster: str | None) -> Accounting | None:
    if not {"associations", "accounts", "qos"} & said.keys():
        return None
    default, associations = None, None
    if "associations" in said:
        default, associations = parsing.parse_user(said["associations"], user, cluster)
    return Accounting(
        default_account=default,
        associations=associations,
        accounts=parsing.parse_accounts(said["accounts"], cluster) if "accounts" in said else None,
        qos=parsing.parse_qos(said["qos"]) if "qos" in said else None,
    )


def _why(done: Completed) -> str:
    """Say in a few words why a query was not answered."""
    if done.returncode == NOT_FOUND:
        return f"{done.argv[0]} is not there"
    if done.returncode == TIMED_OUT:
        return done.stderr.partition("\n")[0]
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    words = lines[-1] if lines else f"exit code {done.returncode}"
    return re.sub(r"^\w+:? (?:error|fatal): |^slurm_load_\w+: ", "", words)


def _user_name() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _groups(user: str) -> frozenset[str]:
    """The names of the user's groups, as this machine knows them."""
    import grp
    import pwd

    try:
        numbers = os.getgrouplist(user, pwd.getpwnam(user).pw_gid)
    except (KeyError, OSError):
        numbers = os.getgroups()
    names = set()
    for number in numbers:
        try:
            names.add(grp.getgrgid(number).gr_name)
        except KeyError:
            continue
    return frozenset(names)
