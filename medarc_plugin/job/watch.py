"""What is looked at about twice a second while prime-rl runs, and what it comes to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .formats import form_of
from .gpuwatch import GpuWatch
from .idle import IdleWatch, LogActivity
from .progress import DONE, Progress, StateFile
from .record import write_whole
from .supervise import Verdict
from .timeline import GpuTimeline, PhaseTimeline

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .attempt import Attempt
    from .fence import Fence
    from .log import Log

ENDED = "ended"
"""Phase of an attempt that is over, whatever becomes of the run."""

SUPERSEDED = Verdict(
    "superseded",
    "a later attempt of this job has taken over the run: ending at once, without writing",
    at_once=True,
)


class Watch:
    """Follows one launch of prime-rl. Make it before prime-rl is started.

    Args:
        attempt: The attempt; its steps are kept up to date.
        config: The config as prime-rl reads it.
        variables: The environment as the job found it.
        fence: The attempt's heartbeat.
        log: The job's own lines.
    """

    def __init__(
        self,
        attempt: Attempt,
        config: Mapping[str, Any],
        variables: Mapping[str, str],
        fence: Fence,
        log: Log,
    ) -> None:
        launch = attempt.launch
        self._attempt = attempt
        self._fence = fence
        self._log = log
        form = form_of(launch.fields.shape)
        self._progress = Progress(launch.run_dir, launch.entrypoint, config, form)
        self._state = StateFile(launch.folder / "state.json")
        self._gpus = GpuWatch(attempt.gpus or (), variables)
        self._gpu_timeline = GpuTimeline(launch.folder / "gpus.jsonl", attempt.number)
        self._phases = PhaseTimeline(launch.run_dir, attempt.number)
        self._idle: tuple[LogActivity, IdleWatch] | None = None
        if launch.idle_timeout is not None:
            activity = LogActivity(launch.run_dir, form.metrics_path(launch.run_dir, config), form)
            self._idle = activity, IdleWatch(launch.idle_timeout, launch.run_dir, form)
        self._writes = self._keeps = True
        self._failed = False

    def tick(self) -> Verdict | None:
        """Look at everything.

        Returns:
            Why the run is to end, if it is.
        """
        if not self._fence.beat():
            return SUPERSEDED
        try:
            return self._look()
        except Exception as error:
            # To look at a run is no reason to end it.
            if not self._failed:
                self._failed = True
                self._log.say(f"what the run does cannot be followed: {type(error).__name__}: {error}")
            return None

    def _look(self) -> Verdict | None:
        self._progress.gpus = self._gpus.tick()
        self._follow()
        self._write()
        self._keep()
        if self._idle is None:
            return None
        activity, idle = self._idle
        why = idle.tick(activity.look(), self._gpus.use)
        return Verdict("idle", why) if why else None

    def enter(self, phase: str) -> None:
        """Say what the run is at, where prime-rl's files do not tell."""
        self._progress.enter(phase)
        self._write(at_once=True)
        self._keep()

    def stop(self) -> None:
        """Read what prime-rl wrote last; it has ended."""
        self._gpus.stop()
        self._follow()

    def close(self) -> None:
        """Write the last state."""
        if self._attempt.reason != "superseded":
            self._progress.enter(DONE if self._attempt.reason == "finished" else ENDED)
            self._write(at_once=True)
            self._keep()

    def _follow(self) -> None:
        for line in self._progress.tick():
            self._log.say(line)
        self._attempt.steps = self._progress.steps_made
        self._attempt.step = self._progress.step

    def _write(self, *, at_once: bool = False) -> None:
        if not self._writes:
            return
        state = document(self._attempt, self._progress, self._log)
        try:
            self._state.write(state, at_once=at_once)
        except OSError as error:
            self._writes = False
            self._log.say(f"state.json is not kept up to date: {error}")

    def _keep(self) -> None:
        """Keep what the run does for whoever looks at its course later."""
        if not self._keeps:
            return
        try:
            self._phases.enter(self._progress.phase)
            self._gpu_timeline.take(self._progress.gpus)
        except Exception as error:  # a file of somebody else's making, too, is no reason to end a run
            self._keeps = False
            self._log.say(f"phases and GPUs are not kept any more: {error}")


def document(attempt: Attempt, progress: Progress, log: Log) -> dict[str, Any]:
    """What `state.json` holds of an attempt."""
    state = progress.state()
    if attempt.reason:
        state = {**state, **{name: None for name in ("seconds_left", "eta") if name in state}}
    return {
        **state,
        "attempt": attempt.number,
        "resumed_from": attempt.resumed_from,
        "reason": attempt.reason or None,
        "failure": log.redact(attempt.failure) or None,
    }


def write_end(attempt: Attempt, config: Mapping[str, Any], log: Log) -> None:
    """Write the state of an attempt that ended before prime-rl was started.

    Args:
        attempt: The attempt.
        config: The config, as far as it is known.
        log: The job's own lines.
    """
    launch = attempt.launch
    progress = Progress(launch.run_dir, launch.entrypoint, config, form_of(launch.fields.shape))
    progress.enter(ENDED)
    try:
        write_whole(launch.folder / "state.json", document(attempt, progress, log))
    except OSError as error:
        log.say(f"state.json cannot be written: {error}")
