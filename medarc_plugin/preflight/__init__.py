"""What is looked at before anything is written: small functions, and tuples of them.

`plan` looks at the plan and at this machine, `surroundings` at what a submitted run finds around it, and
`cluster` at what SLURM says of its partitions, nodes and accounts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from medarc_plugin import hookimpl
from medarc_plugin.preflight import cluster, plan, surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from medarc_plugin.models import JobPlan, Problem

CHECKS: tuple[Callable[[JobPlan], Iterator[Problem]], ...] = plan.CHECKS
"""What is looked at in any case."""

SUBMISSION_CHECKS: tuple[Callable[[JobPlan], Iterator[Problem]], ...] = (
    cluster.cluster_can_take_the_job,
    *surroundings.CHECKS,
)
"""What a submission needs beside; `--no-preflight` leaves it out."""


@hookimpl
def medarc_preflight(plan: JobPlan) -> Iterable[Problem]:
    """Run every check."""
    checks = (*CHECKS, *SUBMISSION_CHECKS) if plan.preflight else CHECKS
    return [problem for check in checks for problem in check(plan)]
