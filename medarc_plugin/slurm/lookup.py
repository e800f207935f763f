"""Finding the job of a submission by its word, whatever id it got: waiting, running, or ended a while ago.

squeue shows ended jobs too when it is asked for all states, for as long as the controller keeps them
(MinJobAge). What SLURM has refused is no job, though it may have an id. Where a site's own plugin has
rewritten the comment, the script tells the job: it lies in the run directory, which is the run's alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medarc_plugin.models import JobState
from medarc_plugin.process import run, run_apart
from medarc_plugin.slurm import gateway

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FIELD = "\x1f"
"""Between two fields: no path and no comment has it."""

FORMAT = FIELD.join(("%A", "%T", "%V", "%S", "%N", "%o", "%k"))

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


@dataclass(frozen=True)
class Found:
    """A job that is the submission's.

    Attributes:
        job_id: Its id.
        state: SLURM's word for its state.
        submitted: When it was submitted, or put back into the queue, in seconds since 1970.
        cluster: The cluster that named itself, where several were asked.
    """

    job_id: str
    state: str
    submitted: float
    cluster: str | None = None

    @property
    def over(self) -> bool:
        """Whether it has ended for good."""
        return JobState(self.state).over


def find(
    sought: Sought, cluster: gateway.Cluster = gateway.HERE, *, stop: Callable[[], bool] | None = None
) -> tuple[Found, ...] | None:
    """Look for the jobs of a submission.

    Args:
        sought: The submission.
        cluster: Who is asked.
        stop: Asked often whether to give up.

    Returns:
        Its jobs, what lives last and the newest of them last; none when SLURM has none; `None` when nobody
        can be asked.
    """
    argv = ["squeue", *cluster.option, "-h", "-a", "-t", "all", "-u", str(os.geteuid()), "-o", FORMAT]
    environment = {**cluster.environment, "SLURM_TIME_FORMAT": "%s"}
    if stop is None:
        done = run(argv, env=environment, timeout=gateway.QUERY_TIMEOUT)
    else:
        done = run_apart(argv, env=environment, timeout=gateway.QUERY_TIMEOUT, stop=stop)
    if not done.ok:
        return None
    named, found = None, []
    for line in done.stdout.splitlines():
        if line.startswith("CLUSTER: "):
            named = line.removeprefix("CLUSTER: ").strip()
        job = _job(line, sought, named)
        if job is not None:
            found.append(job)
    return tuple(sorted(found, key=lambda job: (not job.over, job.submitted, int(job.job_id))))


def _job(line: str, sought: Sought, cluster: str | None) -> Found | None:
    """Read a line of squeue's; `None` when the job is not the submission's."""
    values = line.split(FIELD, FORMAT.count(FIELD))
    if len(values) != FORMAT.count(FIELD) + 1 or not values[0].isdigit():
        return None
    job_id, state, time, start, node, script, comment = values
    if state == "FAILED" and not node and start == time:
        # What is left of some that SLURM refuses: it has an id, and sbatch is not told it.
        return None
    submitted = float(time) if time.isdigit() else 0.0
    marked = gateway.is_marked(comment, sought.token)
    if marked is None:
        marked = (
            script == str(sought.script)
            and job_id not in sought.earlier
            and submitted >= sought.since - CLOCKS_SECONDS
        )
    return Found(job_id, state, submitted, cluster) if marked else None
