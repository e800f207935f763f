"""Why a run is not where it should be: why it waits, why it failed, and what would help.

`explain` is the whole of it. `ended` reads logs and records and finds the known failure
(`medarc_plugin.failures`); `pending` says in plain words what SLURM's reason means (`reasons`) and what the
job waits for; `sooner` looks for the smallest change with which it would fit now.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from medarc_plugin import records, standing
from medarc_plugin.process import show
from medarc_plugin.standing import COMPLETED, PENDING, UNEXPORTED, UNKNOWN, UNSUBMITTED
from medarc_plugin.why import ended, going, pending
from medarc_plugin.why.answer import Answer, headline

if TYPE_CHECKING:
    from medarc_plugin.runs import Run
    from medarc_plugin.standing import RunStatus

__all__ = ["Answer", "explain"]

HELD = frozenset({"SPECIAL_EXIT", "REQUEUE_HOLD"})
"""States of jobs that wait for somebody to let them go; some versions call them pending."""


def explain(run: Run) -> Answer:
    """Say why a run waits, runs or has ended as it did.

    Args:
        run: The run.
    """
    return of(standing.look_at(run))


def of(status: RunStatus) -> Answer:
    """The same for a run whose status is known."""
    if status.state == PENDING or status.state in HELD:
        return pending.explain(status)
    if status.state == UNSUBMITTED:
        return _unsubmitted(status)
    if status.state == COMPLETED:
        return _completed(status)
    if status.state == UNKNOWN or status.over:
        return ended.explain(status)
    return going.explain(status)


def _unsubmitted(status: RunStatus) -> Answer:
    return Answer(
        status,
        headline(status, "was not submitted"),
        (status.reason or "its files are written, and no job was submitted",),
        (
            f"sbatch {status.run.files.script}"
            if records.is_there(status.run.files.script)
            else "launch it again",
        ),
    )


def _completed(status: RunStatus) -> Answer:
    last = status.records.newest(status.run.token)
    what = "has rehearsed" if last is not None and last.reason == "rehearsed" else "has finished"
    lines = []
    if status.step is not None:
        of_all = f" of {status.max_steps}" if status.max_steps else ""
        lines.append(f"it made {status.step}{of_all} steps")
    earlier = [each for each in status.records.attempts if each.failure]
    lines += [f"attempt {each.number} had failed: {each.failure}" for each in earlier]
    why = records.unexported(status.run, last) if last is not None else None
    if why is None:
        return Answer(status, headline(status, f"{what}: nothing is wrong"), tuple(lines))
    lines.append(f"the export said: {why}; its checkpoint is there, and the job's log tells more")
    way = f"{show(['medarc_slurm', 'export', str(status.run.run_dir)])} writes them"
    return Answer(status, headline(status, f"{what}, and {UNEXPORTED}"), tuple(lines), (way,))
