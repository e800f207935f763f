"""What an attempt goes on from: a whole checkpoint of this very run, or the one that the config names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .checkpoints import ABANDONED, TORN
from .config import asked_to_resume, read

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .attempt import Attempt
    from .checkpoints import Checkpoints
    from .log import Log


def find_resume(
    attempt: Attempt, config: Mapping[str, Any], checkpoints: Checkpoints | None, log: Log, *, again: bool
) -> Mapping[str, Any] | None:
    """Find what to go on from, as `attempt_config` takes it.

    A checkpoint of this very run comes before the one that the config names. Where there is none, an empty
    table passes prime-rl's guard against a used run directory, and starts from the beginning; what is
    half-written is then moved out of its way.

    Args:
        attempt: The attempt; it is told where it goes on from.
        config: The resolved config.
        checkpoints: The run's checkpoints; `None` for what has none.
        log: The job's own lines.
        again: Whether this attempt has started prime-rl before.
    """
    if checkpoints is None:
        return None
    own = asked_to_resume(config, attempt.launch.fields)
    before = attempt.restarts > 0 or again or _was_launched_before(attempt)
    if not before and own is None:
        return None
    named = own or None
    newest = checkpoints.newest()
    if named is not None and (not before or newest is None):
        step = named.get("step")
        attempt.resumed_from = step if isinstance(step, int) else None
        _set_aside(checkpoints, attempt.resumed_from, log)
        return named
    attempt.resumed_from = newest
    _set_aside(checkpoints, newest, log)
    if newest is not None:
        log.say(f"going on from the checkpoint of step {newest}")
        return {"step": newest, "dir": None}
    log.say("there is no whole checkpoint: starting from the beginning")
    return {}


def _set_aside(checkpoints: Checkpoints, step: int | None, log: Log) -> None:
    """Move what lies behind the checkpoint to go on from out of the way."""
    for number, whole in checkpoints.beyond(step).items():
        torn = "not whole: it is not resumed from"
        why = "of a branch that the run does not go on with" if whole else torn
        try:
            moved = checkpoints.set_aside(number, ABANDONED if whole else TORN)
        except OSError as error:
            log.say(f"cannot move the checkpoint of step {number} aside: {error}")
        else:
            log.say(f"the checkpoint of step {number} is {why}; it is {moved.name} now")


def _was_launched_before(attempt: Attempt) -> bool:
    """Whether an earlier attempt of this submission started prime-rl."""
    attempts = attempt.launch.run_dir / "configs" / "attempts"
    for path in attempts.glob("*/launched.json"):
        if path.parent.name != str(attempt.number):
            started = read(path.with_name("started.json"))
            if started.get("token") == attempt.launch.token:
                return True
    return False
