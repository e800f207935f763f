"""How a finding is put: what refuses a submission, what warns of it, and how amounts are written."""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import TYPE_CHECKING

from medarc_plugin.models import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from medarc_plugin.slurm.facts import ClusterFacts

MOST_NAMED = 8
"""Names that a sentence lists."""


def refused(check: str, message: str, hint: str | None = None) -> Problem:
    """A finding for which a submission is refused, and of which a dry run warns."""
    return Problem(check, message, hint, submission=True)


def warned(check: str, message: str, hint: str | None = None) -> Problem:
    """A finding that refuses nothing."""
    return Problem(check, message, hint, fatal=False, submission=True)


def unless_changed(problem: Problem, facts: ClusterFacts, what: str) -> Problem:
    """Warn of what refuses a job only while the site's own plugin leaves it as it is.

    Args:
        problem: The finding.
        facts: The cluster.
        what: What the job does not name, and the plugin may set.
    """
    plugins = facts.settings.changed_by if facts.settings is not None else ()
    if not plugins or not problem.fatal:
        return problem
    words = f"{problem.message}, unless the site's own plugin ({', '.join(plugins)}) gives it another {what}"
    return replace(problem, fatal=False, message=words)


def listed(names: Iterable[str], nothing: str = "none") -> str:
    """List names, the first few of many."""
    known = list(names)
    more = f" and {len(known) - MOST_NAMED} more" if len(known) > MOST_NAMED else ""
    return ", ".join(known[:MOST_NAMED]) + more or nothing


def counted(count: int, what: str) -> str:
    """Say how many there are: `1 GPU`, `8 GPUs`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def nearest(name: str, known: Iterable[str], *, misspelt: bool = True) -> str | None:
    """The known name that another one stands for, if any is near.

    Args:
        name: The other one.
        known: The known names.
        misspelt: Whether it may be misspelt. A b200 is no misspelt h200.
    """
    by_folded = {other.lower(): other for other in known}
    folded = name.lower()
    if folded in by_folded:
        return by_folded[folded]
    # A type may be part of a longer name: h100 and nvidia_h100_80gb_hbm3.
    inside = [other for other in by_folded if folded in other or other in folded]
    if len(inside) == 1:
        return by_folded[inside[0]]
    near = difflib.get_close_matches(folded, by_folded, n=1, cutoff=0.7) if misspelt else []
    return by_folded[near[0]] if near else None


def time_words(seconds: float) -> str:
    """Write a time as sbatch takes it: `12:00:00`, `7-00:00:00`, `UNLIMITED`."""
    if seconds == float("inf"):
        return "UNLIMITED"
    days, rest = divmod(int(seconds), 86400)
    clock = f"{rest // 3600:02}:{rest % 3600 // 60:02}:{rest % 60:02}"
    return f"{days}-{clock}" if days else clock


GIB = 1024
"""MiB of a GiB."""


def memory_words(mebibytes: float) -> str:
    """Write memory for people, `62.5 GiB`."""
    if mebibytes < GIB:
        return f"{mebibytes:.0f} MiB"
    return f"{mebibytes / GIB:.1f}".removesuffix(".0") + " GiB"


def memory_option(mebibytes: float) -> str:
    """Write memory as an option takes it, rounded down: `62G`, `900M`."""
    return f"{int(mebibytes // GIB)}G" if mebibytes >= 10 * GIB else f"{int(mebibytes)}M"
