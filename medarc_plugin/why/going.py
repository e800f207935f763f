"""A run that runs: what it is at, and whether it looks stuck."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from medarc_plugin import logs
from medarc_plugin.backends.planning import who_waits
from medarc_plugin.process import show
from medarc_plugin.standing import duration
from medarc_plugin.why.answer import Answer, headline
from medarc_plugin.why.evidence import shape_of

if TYPE_CHECKING:
    from medarc_plugin.standing import RunStatus

STILL = timedelta(minutes=10)
"""Without a new line in any log, after which a run looks stuck."""


def explain(status: RunStatus) -> Answer:
    """Say what a run is at, and whether it looks stuck."""
    phase = f", {status.phase}" if status.phase else ""
    steps = (
        f", step {status.step} of {status.max_steps}" if status.step is not None and status.max_steps else ""
    )
    where = f" on {status.node}" if status.node else ""
    lines = [*([status.note] if status.note else []), *status.trouble]
    hints: list[str] = []
    silent = _silent(status)
    if status.phase and silent is not None and silent >= STILL:
        lines.append(f"it looks stuck: no log has had a new line for {duration(silent.total_seconds())}")
        lines.append(who_waits(status.run.run_dir, shape_of(status.run)))
        run = str(status.run.run_dir)
        hints = [
            f"{show(['medarc_slurm', 'logs', '-f', run])} shows whether it goes on",
            "--idle-timeout TIME ends such a run by itself",
        ]
    elif status.phase and silent is not None:
        lines.append(f"its logs had a new line {duration(silent.total_seconds())} ago")
    what = f"runs ({status.state}){where}{phase}{steps}"
    return Answer(status, headline(status, what), tuple(lines), tuple(hints))


def _silent(status: RunStatus) -> timedelta | None:
    """For how long none of the newest attempt's logs has changed."""
    found = logs.of_attempt(logs.find(status.run, status.records), status.records)
    times = []
    for log in found:
        # The job's own log has a line for as long as the job lives.
        if log.component == logs.JOB:
            continue
        try:
            times.append(log.path.stat().st_mtime)
        except OSError:
            continue
    return datetime.now(UTC) - datetime.fromtimestamp(max(times), UTC) if times else None
