"""The config of one attempt: the resolved one with this node's ports and this attempt's checkpoint."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .ports import rewritten

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .launch import Launch
    from .ports import Lease

RESUME_PATHS = (("resume",), ("trainer", "resume"), ("orchestrator", "resume"))
"""Where a resolved config holds `resume`: prime-rl copies it into the trainer's and orchestrator's."""


def attempt_config(
    launch: Launch,
    config: Mapping[str, Any],
    lease: Lease | None,
    resume: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Fill in what only the job knows.

    Args:
        launch: The plan.
        config: The resolved config; left as it is.
        lease: The leased ports.
        resume: What `resume` is to be; `None` leaves it as it is.
    """
    changed = json.loads(json.dumps(config))
    if lease is not None and launch.ports is not None:
        changed = rewritten(changed, launch.ports["slots"], lease)
    if resume is not None:
        for *tables, name in RESUME_PATHS:
            table = changed
            for key in tables:
                table = table.get(key)
                if not isinstance(table, dict):
                    break
            else:
                if not tables or name in table:
                    table[name] = dict(resume)
    return dict(changed)


def resumed(value: object) -> bool:
    """Whether a config's `resume` asks to go on; `{}` does, from the newest checkpoint."""
    return value is not None and value is not False


def read(path: Path) -> dict[str, Any]:
    """Read one of the run's own JSON files; nothing when it is not there or torn."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
