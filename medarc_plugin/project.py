"""The project that a command is typed in: whose profile holds, and whose newest run is meant."""

from __future__ import annotations

from pathlib import Path

PROFILE = "medarc.toml"
"""Name of a project's profile, which also marks its root."""


def root(start: Path | None = None) -> Path:
    """Find the project's root.

    Args:
        start: Where to begin; the current folder unless given.

    Returns:
        The nearest folder upwards that holds `medarc.toml`, else the nearest that holds `.git`, else `start`
        itself; absolute.
    """
    here = (start or Path.cwd()).absolute()
    folders = (here, *here.parents)
    for mark in (PROFILE, ".git"):
        for folder in folders:
            if (folder / mark).exists():
                return folder
    return here
