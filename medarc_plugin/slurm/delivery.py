"""Handing a script to SLURM exactly once, whatever becomes of sbatch on the way.

Where sbatch's end leaves it open whether SLURM has the job, the job is looked for by the word in its comment
before anything else. A job that is there is taken as if sbatch had said so; the script is sent again only
when the job surely is not there.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medarc_plugin.errors import SlurmError, SubmissionError
from medarc_plugin.slurm import answers, gateway, lookup
from medarc_plugin.slurm.answers import Answer, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from medarc_plugin.flight import Flight
    from medarc_plugin.slurm.queue import Job


SENDING = "MEDARC_SENDING"
"""Variable by which a job knows which sending of its submission it is: `TOKEN:NUMBER`."""

LONGEST_PAUSE = 5.0
"""Seconds between two questions at most."""


@dataclass(frozen=True)
class Accepted:
    """A job that SLURM has.

    Attributes:
        job_id: Its id.
        cluster: The cluster, where SLURM names one.
    """

    job_id: str
    cluster: str | None = None


def deliver(
    script: Path,
    secrets: Mapping[str, str],
    flight: Flight,
    since: float,
    cluster: gateway.Cluster = gateway.HERE,
) -> Accepted:
    """Hand a script to SLURM.

    Args:
        script: The script.
        secrets: Variables for sbatch's environment; never to be shown or written.
        flight: The submission under way.
        since: When it began, in seconds since 1970.
        cluster: Who takes it.

    Raises:
        SubmissionError: There surely is no job; or, with `unsettled`, nobody can say.
    """
    delivery = _Delivery(script, flight, since, cluster)
    while True:
        answer = delivery.send(secrets)
        if answer.outcome is Outcome.ACCEPTED:
            return delivery.take(Accepted(answer.job_id, answer.cluster))
        if answer.outcome is Outcome.UNSENT:
            raise delivery.refused(answer)
        found = delivery.glance(answer) if answer.outcome is Outcome.REFUSED else delivery.look(answer)
        if found is not None:
            return found
        # From here it is sure that there is no job.
        if answer.outcome in {Outcome.REFUSED, Outcome.UNCLEAR}:
            raise delivery.refused(answer)
        delivery.pause_or_give_up(answer)


class _Delivery:
    """A script on its way."""

    def __init__(self, script: Path, flight: Flight, since: float, cluster: gateway.Cluster) -> None:
        self._script = script
        self._flight = flight
        self._cluster = cluster
        self._sought = lookup.Sought(flight.note.token, script, since, flight.note.earlier)
        self._ended = 0.0

    def send(self, secrets: Mapping[str, str]) -> Answer:
        """Send it once, and read how that ended."""
        flight = self._flight
        if flight.hold.count:
            raise self._not_submitted("the signal came before the script was sent")
        flight.begin()
        variables = {**secrets, SENDING: f"{flight.note.token}:{flight.note.sending}"}
        command, environment = gateway.sbatch_command(self._script), gateway.submission_environment(variables)
        done = gateway.in_vain(command, environment) or gateway.send(
            self._script,
            variables,
            flight.patience.answer,
            stop=self._grace(),
            keep=flight.keep,
        )
        self._ended = time.monotonic()
        return answers.read(done)

    def take(self, accepted: Accepted) -> Accepted:
        """Take a job that SLURM has, and end others that earlier sendings have become after all."""
        flight = self._flight
        if flight.note.sending > 1:
            for twin in lookup.find(self._sought, self._cluster) or ():
                # On two clusters both may have the same id.
                itself = twin.job_id == accepted.job_id and twin.cluster in {None, accepted.cluster}
                if not itself and not twin.over:
                    self._end(twin, accepted)
        return accepted

    def glance(self, answer: Answer) -> Accepted | None:
        """Look once for the job, where SLURM's words are a refusal as far as anybody knows."""
        jobs = lookup.find(self._sought, self._cluster)
        return self._adopt(answer, jobs[-1]) if jobs else None

    def look(self, answer: Answer) -> Accepted | None:
        """Look for the job until SLURM has answered for certain; `None` when it surely is not there.

        Raises:
            SubmissionError: Nobody can say.
        """
        flight, patience = self._flight, self._flight.patience
        certain = self._ended + (0.0 if answer.outcome is Outcome.UNREACHED else patience.settle)
        deadline, pause, told = time.monotonic() + patience.controller, 0.1, False
        signals = flight.hold.count
        while True:
            asked = time.monotonic()
            jobs = lookup.find(self._sought, self._cluster, stop=lambda: flight.hold.count > signals)
            if jobs:
                return self._adopt(answer, jobs[-1])
            if jobs is not None and (begun := self._begun(answer)):
                return begun
            if jobs is not None and asked >= certain:
                return None
            # After a signal one question is enough, and another signal ends that.
            given_up = flight.hold.count > signals or (jobs is None and flight.hold.count)
            if given_up or (jobs is None and time.monotonic() > deadline):
                raise self._unsettled(answer)
            if not told:
                flight.say(self._what_is_waited_for(answer, answered=jobs is not None))
                told = True
            flight.hold.pause(min(pause, max(0.1, certain - time.monotonic())) if jobs is not None else pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def pause_or_give_up(self, answer: Answer) -> None:
        """Wait a little before the next sending.

        Raises:
            SubmissionError: There will be none.
        """
        flight, sent = self._flight, self._flight.note.sending
        if flight.hold.count:
            raise self._not_submitted(f"sbatch {answer.words}")
        if sent >= flight.patience.sendings:
            raise self._not_submitted(f"sbatch was tried {sent} times; at last it {answer.words}")
        flight.say(
            f"sbatch {answer.words}; SLURM does not have the job: sending it again "
            f"({sent + 1} of {flight.patience.sendings})"
        )
        flight.hold.pause(flight.patience.backoff * 2 ** (sent - 1))

    def refused(self, answer: Answer) -> SubmissionError:
        """Make the error for a script that SLURM does not want."""
        self._flight.settle(None)
        kept = f"the files of the run are kept: {self._script}"
        if not answer.started:
            away = "submit from a login node of the cluster, or add --sandbox to try it here"
            hint = away if answer.words == answers.NOT_HERE else gateway.NAME_ANOTHER
            return SubmissionError(f"sbatch {answer.words}; {kept}", hint=hint)
        return SubmissionError(
            f"SLURM refused the job: sbatch {answer.words}; {kept}\n{answer.said}".strip(),
            hint=gateway.hint_for(answer.said) or "mend what SLURM names, then run the same command again",
        )

    def _grace(self) -> Callable[[], bool]:
        """Make what says whether sbatch is to be killed: some time after a signal, or at a second one."""
        hold, grace, since = self._flight.hold, self._flight.patience.grace, 0.0

        def is_over() -> bool:
            nonlocal since
            if hold.count and not since:
                since = time.monotonic()
                self._flight.say(
                    f"stopping: sbatch is at work, and has {grace:g} s to say whether SLURM takes the job"
                )
            return hold.count > 1 or bool(since and time.monotonic() > since + grace)

        return is_over

    def _adopt(self, answer: Answer, job: Job) -> Accepted:
        self._flight.say(f"sbatch {answer.words}; SLURM has the job all the same: {job.job_id} ({job.state})")
        return self.take(Accepted(job.job_id, job.cluster or self._cluster.name))

    def _begun(self, answer: Answer) -> Accepted | None:
        """The job that SLURM does not know, and that has begun: the controller was killed after that."""
        signs = self._flight.signs()
        if not signs.started or not signs.job_id:
            return None
        self._flight.say(
            f"sbatch {answer.words}; job {signs.job_id} has begun all the same, and SLURM does not know it"
        )
        return self.take(Accepted(signs.job_id, self._cluster.name))

    def _end(self, twin: Job, accepted: Accepted) -> None:
        """End a job that came late: the script was sent again meanwhile."""
        self._flight.say(
            f"an earlier sending arrived late, as job {twin.job_id}; job {accepted.job_id} is the run's"
        )
        try:
            gateway.cancel(twin.job_id, self._cluster.with_job(twin.cluster))
        except SlurmError as error:
            self._flight.say(f"{error.message}; it ends by itself when it starts")

    def _what_is_waited_for(self, answer: Answer, *, answered: bool) -> str:
        patience = self._flight.patience
        if answer.outcome is Outcome.UNREACHED:
            return f"sbatch {answer.words}: waiting up to {patience.controller:g} s for SLURM to answer"
        if answered:
            return f"sbatch {answer.words}; looking for the job for {patience.settle:g} s"
        return (
            f"sbatch {answer.words}, and SLURM does not answer: waiting up to {patience.controller:g} s for "
            "it to say whether it has the job"
        )

    def _not_submitted(self, why: str, *, silent: bool = False) -> SubmissionError:
        self._flight.settle(None)
        return SubmissionError(
            f"nothing was submitted: {why}; the files of the run are kept: {self._script}",
            hint=gateway.hint_for(why) or "run the same command again",
            silent=silent,
        )

    def _unsettled(self, answer: Answer) -> SubmissionError:
        token = self._flight.note.token
        if answer.outcome is Outcome.UNREACHED:
            # Whatever the controller knows: there was no connection to send anything over.
            why = f"sbatch {answer.words}, and SLURM did not answer since"
            return self._not_submitted(why, silent=not self._flight.hold.count)
        return SubmissionError(
            f"nobody can say whether SLURM has the job: sbatch {answer.words}, and SLURM gave no certain "
            f"answer since; the files of the run are kept: {self._script}",
            hint=f"the same command again looks for it first, and never submits it twice; by hand: "
            f"`{' '.join(['squeue', *self._cluster.option])} --me -t all -o '%i %T %k' | grep {token}`",
            unsettled=True,
            silent=not self._flight.hold.count,
        )
