"""What follows an attempt: why it was asked to end, and whether its job goes back to the queue."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from . import slurm
from .attempt import FAILED, REQUEUED, RESUMABLE, TIME_LIMIT, earlier_lines, why_not_again

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .attempt import Attempt
    from .checkpoints import Checkpoints
    from .log import Log

GIVEN_BACK = (TIME_LIMIT, FAILED, "preempted", "asked")
"""What ends an attempt and not the run: the job gives itself back to the queue."""

FINAL = {
    "cancelled": "it was cancelled",
    "signalled": "somebody ended it",
    "idle": "it did nothing any more",
}
"""Ends after which somebody has to say that the run goes on."""

WARNING_SLACK_SECONDS = 75.0
"""A limit that is this near was announced: SLURM sends its warning up to a minute early."""

REQUEUE_SECONDS = 60.0
"""How long SLURM may take to end a job that was given back to the queue."""


class Afterwards:
    """Decides what becomes of a job whose attempt has ended.

    Args:
        attempt: The attempt; it is told whether its job goes back.
        given: The environment of the job.
        config: The resolved config.
        checkpoints: The run's checkpoints; `None` for what has none.
        log: The job's own lines.
    """

    def __init__(
        self,
        attempt: Attempt,
        given: Mapping[str, str],
        config: Mapping[str, Any],
        checkpoints: Checkpoints | None,
        log: Log,
    ) -> None:
        self._attempt = attempt
        self._launch = attempt.launch
        self._given = given
        self._config = config
        self._checkpoints = checkpoints
        self._log = log
        self.gives_back = False

    def why_stopped(self, number: int) -> str:
        """Find out what a signal to stop meant, which the signal itself does not say.

        Args:
            number: The signal.

        Returns:
            A word for the record.
        """
        if not self._given.get("SLURM_JOB_ID") or number not in (signal.SIGTERM, signal.SIGUSR2):
            return "signalled"
        job = slurm.ask_about(self._given)
        if job.problem:
            self._log.say(f"why this job ends is not known: {job.problem}")
        if job.restarts > self._attempt.restarts:
            return REQUEUED
        if job.reason == "TimeLimit":
            return TIME_LIMIT
        if slurm.is_cancelled(job, self._attempt.restarts):
            return "cancelled"
        if job.preempted:
            return "preempted"
        return "signalled" if number == signal.SIGTERM else self._what_was_announced(job)

    def _what_was_announced(self, job: slurm.Job) -> str:
        """Whether it was the end of the time limit, or somebody's wish."""
        left = job.seconds_left
        near = left is not None and left <= self._launch.survive.signal_seconds + WARNING_SLACK_SECONDS
        return TIME_LIMIT if near else "asked"

    def was_cancelled(self) -> bool:
        """Whether somebody has ended the job for good."""
        return slurm.is_cancelled(slurm.ask_about(self._given), self._attempt.restarts)

    def decide(self) -> None:
        """Decide whether the job goes back to the queue, and say what becomes of it."""
        attempt, log = self._attempt, self._log
        if not self._given.get("SLURM_JOB_ID") or self._launch.entrypoint not in RESUMABLE:
            return
        if self._launch.rehearse:
            log.say("the rehearsal was cut short: it says nothing about the run")
            return
        most = self._launch.survive.max_requeues
        if attempt.reason == REQUEUED:
            attempt.requeued = True
            goes_on = f"the next attempt {self._goes_on()}"
            if attempt.restarts >= most:
                goes_on = (
                    f"that is once more than --max-requeues {most} allows, and prime-rl is not started again"
                )
            log.say(f"SLURM has put this job back into the queue: {goes_on}")
            return
        why_not = FINAL.get(attempt.reason, "")
        if attempt.reason in GIVEN_BACK:
            earlier = earlier_lines(self._launch.folder, self._launch.token)
            why_not = why_not_again(attempt, earlier, self._max_steps())
            self.gives_back = attempt.requeued = not why_not
        if why_not:
            log.say(f"this job is not put back into the queue: {why_not}")
            if self._checkpoints is not None and self._checkpoints.newest() is not None:
                log.say(f"hint: submitted again with --resume the run {self._goes_on()}")

    def _goes_on(self) -> str:
        """Say where another attempt would begin."""
        newest = None if self._checkpoints is None else self._checkpoints.newest()
        if newest is None:
            return "begins again: there is no whole checkpoint"
        return f"goes on from the checkpoint of step {newest}"

    def _max_steps(self) -> int | None:
        steps = self._config.get("max_steps")
        return steps if isinstance(steps, int) else None

    def requeue(self) -> None:
        """Give the job back, and wait for SLURM to end this process."""
        if self.was_cancelled():
            self._log.say("this job was cancelled meanwhile: it is not put back into the queue")
            return
        if not self._launch.folder.is_dir():
            self._log.say("the run directory is gone: this job is not put back into the queue")
            return
        self._log.say(f"giving this job back to the queue: the next attempt {self._goes_on()}")
        problem = slurm.requeue(self._given, REQUEUE_SECONDS)
        if problem:
            self._log.say(
                f"this job could not be put back into the queue: {problem}\n"
                "hint: submit it again with --resume"
            )
