"""The config of one attempt: the resolved one with this node's ports and this attempt's checkpoint."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .ports import rewritten

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .launch import Fields, Launch
    from .ports import Lease

NEWEST = -1
"""The step that stands for the newest checkpoint, where a config names a step."""


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
        resume: Where to go on, with `step` and `dir`, or from the newest checkpoint when it is empty;
            `None` leaves it to the config.
        memory_share: vLLM's share of its GPU's memory; `None` leaves it as it is.
        variables: The job's own folders. Later prime-rl sets some of these for its components itself, over
            the environment that it is given; what stands in `env_vars` goes over that.
    """
    changed = json.loads(json.dumps(config))
    if lease is not None and launch.ports is not None:
        changed = rewritten(changed, launch.ports["slots"], lease)
    if resume is not None:
        _put_resume(changed, launch.fields, resume)
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
    table, name = _table(document, path), path[-1]
    if isinstance(table, dict) and (always or name in table):
        table[name] = value


def _put_resume(document: dict[str, Any], fields: Fields, resume: Mapping[str, Any]) -> None:
    """Say where to go on, in every field that says so: prime-rl copies what its launcher is told.

    A table that is missing for the launcher is made where a component has its own: with no word of going
    on, the launcher's guard refuses a directory that holds checkpoints.
    """
    value: object = dict(resume)
    if fields.resume_by_step:
        step = resume.get("step")
        value = NEWEST if step is None else step
    own, *copies = (path.split(".") for path in fields.resume_paths)
    saves = any(isinstance(_table(document, path), dict) for path in copies)
    if saves and len(own) > 1 and not isinstance(document.get(own[0]), dict):
        document[own[0]] = {}
    _put(document, own, value, always=True)
    for path in copies:
        _put(document, path, value, always=False)


def asked_to_resume(config: Mapping[str, Any], fields: Fields) -> dict[str, Any] | None:
    """Read where a config asks to go on.

    Args:
        config: The resolved config.
        fields: Where it says so.

    Returns:
        `step` and `dir`; nothing in it for the newest checkpoint; `None` when it does not ask.
    """
    path = fields.resume_paths[0].split(".")
    table = _table(config, path)
    value = table.get(path[-1]) if isinstance(table, dict) else None
    if value is None or value is False or value == "None":
        return None
    if fields.resume_by_step:
        return {"step": value, "dir": None} if isinstance(value, int) and value > NEWEST else {}
    return dict(value) if isinstance(value, dict) and any(value.values()) else {}


def _table(document: Any, path: Sequence[str]) -> Any:  # noqa: ANN401
    """The table that a field is in."""
    for key in path[:-1]:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def read(path: Path) -> dict[str, Any]:
    """Read one of the run's own JSON files; nothing when it is not there or torn."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
