"""The config of one attempt: the resolved one with this node's ports and this attempt's checkpoint."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .ports import rewritten

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
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
    memory_share: float | None = None,
    variables: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Fill in what only the job knows.

    Args:
        launch: The plan.
        config: The resolved config; left as it is.
        lease: The leased ports.
        resume: What `resume` is to be; `None` leaves it as it is.
        memory_share: vLLM's share of its GPU's memory; `None` leaves it as it is.
        variables: The job's own folders. Later prime-rl sets some of these for its components itself, over
            the environment that it is given; what stands in `env_vars` goes over that.
    """
    changed = json.loads(json.dumps(config))
    if lease is not None and launch.ports is not None:
        changed = rewritten(changed, launch.ports["slots"], lease)
    if resume is not None:
        for path in RESUME_PATHS:
            _put(changed, path, dict(resume), always=len(path) == 1)
    if memory_share is not None and launch.memory is not None:
        _put(changed, str(launch.memory["share_path"]).split("."), memory_share, always=True)
    if variables and launch.checked:
        own = changed.get("env_vars")
        changed["env_vars"] = {**variables, **(own if isinstance(own, dict) else {})}
    return dict(changed)


def split_server(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split off the inference server that is started first, and alone.

    prime-rl starts none for a config without `inference`, and uses the address in the client's.

    Args:
        config: The config of this attempt.

    Returns:
        The server's config, without what only its launcher takes, and the run's.
    """
    server = {name: value for name, value in config["inference"].items() if name not in LAUNCHERS}
    return server, {**config, "inference": None}


LAUNCHERS = ("deployment", "slurm", "output_dir", "dry_run")
"""What prime-rl's launcher leaves out of the server's config."""


def _put(document: Any, path: Sequence[str], value: object, *, always: bool) -> None:  # noqa: ANN401
    """Set a field of a table that is there; unless `always`, only where the field is there too."""
    *tables, name = path
    for key in tables:
        document = document.get(key) if isinstance(document, dict) else None
    if isinstance(document, dict) and (always or name in document):
        document[name] = value


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
