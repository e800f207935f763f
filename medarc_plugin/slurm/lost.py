"""What became of a job that SLURM accepted and does not know: forgotten before its end, or only too old.

A controller that is killed forgets what it has not written yet, jobs and the number of the next one among
it: it then gives the ids of forgotten jobs to others. A job that has ended it keeps for MinJobAge. From that
follows what can be told apart, and what cannot.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medarc_plugin.process import run
from medarc_plugin.slurm import gateway

if TYPE_CHECKING:
    from medarc_plugin.lifesigns import Signs

_LOCAL_ID = 0x03FFFFFF
"""The bits of a job id that count jobs; those above name the cluster of a federation."""

_HALF = _LOCAL_ID // 2
"""Ids that are further behind than this have begun anew at the first one."""


@dataclass(frozen=True)
class Controller:
    """What a controller says of itself.

    Attributes:
        cluster: The cluster's name.
        next_id: The id that the next job will get.
        keeps: For how many seconds it keeps a job that has ended.
    """

    cluster: str | None = None
    next_id: int | None = None
    keeps: float | None = None


def controller(cluster: gateway.Cluster = gateway.HERE) -> Controller | None:
    """Ask a controller about itself; `None` when it does not answer."""
    argv = ["scontrol", *cluster.option, "show", "config"]
    done = run(argv, env=cluster.environment, timeout=gateway.QUERY_TIMEOUT)
    if not done.ok:
        return None
    found = dict(re.findall(r"^(\w+)\s*= ?(.*?)\s*$", done.stdout, re.MULTILINE))
    next_id, keeps = found.get("NEXT_JOB_ID", ""), found.get("MinJobAge", "").partition(" ")[0]
    return Controller(
        cluster=found.get("ClusterName"),
        next_id=int(next_id) if next_id.isdigit() else None,
        # 0 is for ever: https://slurm.schedmd.com/slurm.conf.html#OPT_MinJobAge
        keeps=(float(keeps) or math.inf) if keeps.isdigit() else None,
    )


@dataclass(frozen=True)
class Finding:
    """What became of a job.

    Attributes:
        state: `LOST`, `GONE` or `RUNNING`.
        began: How far it came, in a sentence's first half.
        evidence: What tells that, in the second half.
    """

    state: str
    began: str
    evidence: str


def judge(job_id: str, age: float, signs: Signs, told: Controller, *, taken: bool) -> Finding:
    """Say what became of a job that the controller does not know, and accounting has not seen end.

    Args:
        job_id: The id that it had.
        age: Seconds since it was submitted.
        signs: What its run directory tells.
        told: What the controller says of itself.
        taken: Whether the id is another job's now.

    Returns:
        `LOST` for one that SLURM forgot before its end, `GONE` for one that may have ended and be too old,
        and `RUNNING` for one that lives although SLURM has lost it; each with the evidence.
    """
    if signs.ended:
        return Finding(gateway.GONE, "its own records tell its end", "SLURM knows it no longer")
    if signs.alive:
        return Finding("RUNNING", "its own heartbeat goes on", "SLURM has lost it")
    quiet = age if signs.last is None else min(age, time.time() - signs.last)
    began = "it had begun, and recorded no end" if signs.started else "it never began"
    if taken:
        return Finding(gateway.LOST, began, "SLURM has given its id to another job")
    if told.next_id is not None and _is_ahead(int(job_id), told.next_id):
        return Finding(gateway.LOST, began, f"SLURM's next job will be {told.next_id}: it forgot this one")
    if told.keeps is not None and quiet < told.keeps:
        keeps = "ended jobs for ever" if math.isinf(told.keeps) else f"ended jobs for {told.keeps:g} s"
        return Finding(gateway.LOST, began, f"SLURM, which keeps {keeps}, forgot it within {quiet:.0f} s")
    return Finding(gateway.GONE, began, "SLURM, which forgets ended jobs, no longer knows it")


def _is_ahead(job_id: int, next_id: int) -> bool:
    """Whether an id is one that the controller has not given yet, as far as it remembers."""
    ahead = (job_id & _LOCAL_ID) - (next_id & _LOCAL_ID)
    return 0 <= ahead < _HALF
