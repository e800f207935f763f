"""A run's weights, written after the run: `medarc_slurm export`.

The work is the job code's and is done in prime-rl's interpreter, which has torch; here it is found.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medarc_plugin.backends.planning import job_code, run_files
from medarc_plugin.errors import RunDirectoryError
from medarc_plugin.host.locate import locate, require
from medarc_plugin.process import run_attached
from medarc_plugin.runs import read_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def export(run_dir: Path, step: int | None = None, *, force: bool = False) -> int:
    """Write the weights of a run's checkpoint, and print their path.

    Args:
        run_dir: The run directory.
        step: The checkpoint's step; `None` for the newest whole one.
        force: Write them anew when they are there.

    Returns:
        0, or a code of `job/borrowed.py` for what went wrong, which has then been said.

    Raises:
        RunDirectoryError: It is no run.
        HostNotFoundError: There is no prime-rl to do it with.
    """
    return run_attached(export_command(run_dir.absolute(), step, force=force))


def export_command(run_dir: Path, step: int | None, *, force: bool) -> Sequence[str]:
    """Choose interpreter and job code: the run's own where they are still there.

    Args:
        run_dir: The run directory, absolute.
        step: The checkpoint's step; `None` for the newest whole one.
        force: Write the weights anew when they are there.

    Raises:
        RunDirectoryError: It is no run.
        HostNotFoundError: There is no prime-rl to do it with.
    """
    if not os.path.isdir(run_dir / "configs"):  # noqa: PTH112 - Path.is_dir raises where it may not look
        raise RunDirectoryError(
            f"{run_dir} is no run: it has no folder configs/",
            hint="name the run directory, as --output-dir did",
        )
    files = run_files(run_dir, "rl")
    frozen = files.job if os.access(files.job / "export.py", os.R_OK) else job_code()
    asked = () if step is None else ("--step", str(step))
    python = _python(read_table(files.plan))
    return (str(python), str(frozen), "export", str(run_dir), *asked, *(("--force",) if force else ()))


def _python(plan: Mapping[str, Any]) -> Path:
    """prime-rl's interpreter: the one that the run was launched with, else as a launch finds it."""
    named = plan.get("python")
    if isinstance(named, str) and os.access(named, os.X_OK) and Path(named).is_file():
        return Path(named)
    return require(locate(None), option=False).python
