"""Which sending of its submission a job is: one that came late gives way to the one sent in its place.

A launch that loses sbatch's answer, and finds that SLURM does not have the job, sends the script again.
Should the first request arrive after all, there are two jobs. Each knows by `MEDARC_SENDING` which one it is,
and the launch's `delivery.json` says which of them the run has. A script that is submitted by hand has no
such variable, and gives way to nobody.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from .child import STOPS
from .config import read

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .launch import Launch
    from .log import Log

VARIABLE = "MEDARC_SENDING"

SECONDS = 300
"""For how long a launch is waited for that is sending still; it has given up by then."""

SIGNALLED = 128


def gives_way(launch: Launch, variables: Mapping[str, str], log: Log) -> int | None:
    """Say whether another job has the run.

    Args:
        launch: The plan.
        variables: The environment as the job found it.
        log: Told which one.

    Returns:
        The exit code with which this one ends; `None` when the run is its own.
    """
    token, _, number = variables.get(VARIABLE, "").partition(":")
    mine = int(number) if number.isascii() and number.isdigit() else None
    if not launch.token or token != launch.token or mine is None:
        return None
    for _ in range(SECONDS):
        note = read(launch.folder / "delivery.json")
        newest = note.get("sending")
        if note.get("token") != token or not isinstance(newest, int) or newest <= mine:
            break
        if note.get("state") != "open":
            return _ends_for(note.get("job_id"), variables.get("SLURM_JOB_ID"), log)
        came = signal.sigtimedwait(STOPS, 1.0)
        if came is not None:
            return SIGNALLED + came.si_signo
    return None


def _ends_for(other: object, own: str | None, log: Log) -> int | None:
    if other is None or other == own:
        return None
    log.say(f"this job came late: its script was sent again, and job {other} has the run; ending")
    return 0
