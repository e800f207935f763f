"""Finding the job of a submission by its word, whatever id it got: waiting, running, or ended a while ago.

squeue shows ended jobs too when it is asked for all states, for as long as the controller keeps them
(MinJobAge). Where a site's own plugin has rewritten the comment, the script tells the job: it lies in the run
directory, which is the run's alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medarc_plugin.slurm import gateway, queue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CLOCKS_SECONDS = 300.0
"""By how much the clocks of this machine and the controller may differ."""


@dataclass(frozen=True)
class Sought:
    """What is looked for.

    Attributes:
        token: The word in the job's comment.
        script: The job's script.
        since: When it was submitted at the earliest, in seconds since 1970; an earlier job with this script
            is another submission's.
        earlier: Ids of the earlier submissions of this run directory.
    """

    token: str
    script: Path
    since: float = 0.0
    earlier: tuple[str, ...] = ()


def find(
    sought: Sought, cluster: gateway.Cluster = gateway.HERE, *, stop: Callable[[], bool] | None = None
) -> tuple[queue.Job, ...] | None:
    """Look for the jobs of a submission.

    Args:
        sought: The submission.
        cluster: Who is asked.
        stop: Asked often whether to give up.

    Returns:
        Its jobs, what lives last and the newest of them last; none when SLURM has none; `None` when nobody
        can be asked.
    """
    answer = queue.queue(cluster, [os.geteuid()], stop=stop)
    if answer.problem is not None:
        return None
    own = [job for job in answer.jobs if _is_of(sought, job)]
    return tuple(sorted(own, key=lambda job: (not job.over, job.submitted or queue.EVER, int(job.job_id))))


def _is_of(sought: Sought, job: queue.Job) -> bool:
    """Whether a job is the submission's."""
    marked = gateway.is_marked(job.comment or "", sought.token)
    if marked is not None:
        return marked
    submitted = (job.submitted or queue.EVER).timestamp()
    return (
        job.script == str(sought.script)
        and job.job_id not in sought.earlier
        and submitted >= sought.since - CLOCKS_SECONDS
    )
