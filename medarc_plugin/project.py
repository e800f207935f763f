"""The project that a command is typed in: whose profile holds, and whose newest run is meant."""

from __future__ import annotations

import os
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


def profile_places(folder: Path | None = None) -> tuple[Path, ...]:
    """Say where profiles are looked for: of the project, of the user, of the site.

    Args:
        folder: A folder of the project; the current one unless given.
    """
    import platformdirs

    sites = platformdirs.site_config_dir(multipath=True).split(os.pathsep)
    return (root(folder) / PROFILE, user_profile(), *(Path(place, "medarc", PROFILE) for place in sites))


def user_profile() -> Path:
    """The user's own profile."""
    import platformdirs

    return Path(platformdirs.user_config_path("medarc"), PROFILE)
