"""What it means how sbatch ended: whether SLURM took the job, did not, or nobody can say.

sbatch says `Batch job submission failed: WHY`: the controller's reason when it was refused, or what went
wrong on the way, and then the request may have arrived.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from medarc_plugin.process import NOT_FOUND, TIMED_OUT

if TYPE_CHECKING:
    from medarc_plugin.process import Completed


class Outcome(Enum):
    """What is known of a submission."""

    ACCEPTED = auto()
    """It has an id."""
    REFUSED = auto()
    """SLURM does not want it."""
    UNSENT = auto()
    """sbatch itself does not want it, or is not there."""
    UNREACHED = auto()
    """There was no connection: it surely did not arrive."""
    CUT_OFF = auto()
    """It may have arrived. If it did not, it may be sent again."""
    UNCLEAR = auto()
    """It may have arrived. If it did not, sending it again would probably end the same way."""


@dataclass(frozen=True)
class Answer:
    """What sbatch's end tells.

    Attributes:
        outcome: What is known.
        words: How it ended, in the past tense, after "sbatch", on one line.
        said: What it said about that.
        job_id: The job's id.
        cluster: The cluster, where sbatch names one.
        started: Whether there was an sbatch at all.
    """

    outcome: Outcome
    words: str = ""
    said: str = ""
    job_id: str = ""
    cluster: str | None = None
    started: bool = True


SIGNALLED, UNREADABLE = 128, 255
"""Exit codes above the first are a shell's word for a signal; the second is sbatch's own for what it cannot
read."""

MOST_SHOWN = 200
"""Characters of an answer that a message shows."""

_ID = re.compile(r"([1-9]\d{0,9})(?:;(\S+))?", re.ASCII)
"""SLURM's ids have 32 bits and begin with 1: a 0 may be the exit code that a wrapper prints last."""

NOT_HERE = "was not found on this machine"

_FAILED = "submission failed:"

_UNREACHED = re.compile(
    r"Unable to contact slurm controller \(connect failure\)|Communication connection failure|"
    # Where another cluster is named, sbatch asks accounting for its address before it sends anything.
    r"There is a problem talking to the database"
)

_CUT_OFF = re.compile(
    r"contact|connect|socket|messag|communicat|transmit|timed out|temporarily unavailable|standby|protocol|"
    r"authenticat|credential|broken pipe|endpoint|route to host|network is|interrupted|rpc|rate limit",
    re.IGNORECASE,
)
"""Words of a failure on the way, and of no refusal that is known. Seen, among others: `Socket timed out on
send/recv operation`, `Zero Bytes were transmitted or received`, `Unexpected missing socket error`."""

_SBATCHS_OWN = re.compile(r"^sbatch: (error|fatal): ", re.MULTILINE)


def read(done: Completed) -> Answer:
    """Read how sbatch ended."""
    if not done.started:
        words = NOT_HERE if done.returncode == NOT_FOUND else f"was not started: {done.stderr}"
        return Answer(Outcome.UNSENT, words, started=False)
    if done.returncode == TIMED_OUT:
        return Answer(Outcome.CUT_OFF, f"was given up: {done.stderr.splitlines()[0]}")
    # 255 is its own exit code for what it cannot read.
    if done.returncode < 0 or SIGNALLED < done.returncode < UNREADABLE:
        return Answer(Outcome.CUT_OFF, "was killed")
    return _read_id(done.stdout) if done.ok else _read_failure(done)


def _read_id(output: str) -> Answer:
    # Site plugins may print lines of their own before it. Without its line's end an id may be cut short.
    last = output.rstrip("\n").rpartition("\n")[2] if output.endswith("\n") else ""
    match = _ID.fullmatch(last.strip())
    if match is None:
        shown = " ".join(output.split())[:MOST_SHOWN] or "(nothing)"
        shown = "".join(letter if letter.isprintable() else "?" for letter in shown)
        return Answer(Outcome.CUT_OFF, f"answered something that is not a job id: {shown}")
    return Answer(Outcome.ACCEPTED, job_id=match[1], cluster=match[2])


def _read_failure(done: Completed) -> Answer:
    said = done.stderr.strip() or done.stdout.strip()
    # What it said before that was about tries of its own.
    why = next((line for line in reversed(said.splitlines()) if _FAILED in line), said)
    if _UNREACHED.search(why):
        outcome = Outcome.UNREACHED
    elif _CUT_OFF.search(why):
        outcome = Outcome.CUT_OFF
    elif _FAILED in why:
        outcome = Outcome.REFUSED
    elif done.returncode == UNREADABLE or _SBATCHS_OWN.search(said):
        outcome = Outcome.UNSENT
    else:
        outcome = Outcome.UNCLEAR
    reason = f": {why.rpartition(_FAILED)[2].strip()}" if _FAILED in why else ""
    return Answer(outcome, f"failed with exit code {done.returncode}{reason}", said)
