"""Where a proof happens: its folder, the programs that it calls, and how long it may take."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gpu_proof.jobs import Job

CHECKOUT = Path(__file__).resolve().parents[2]
COMMAND_SECONDS = 300.0

POLL_SECONDS = 0.2
END_SECONDS = 30.0
"""For a command that is asked to end: a launch looks first whether its job has arrived."""


class StageError(Exception):
    """A stage did not come to its end; the message says why, for the table."""


class OutOfTimeError(StageError):
    """The time budget is used up, or the proof was stopped."""


@dataclass(frozen=True)
class Place:
    """What every stage needs to know.

    Attributes:
        work: The proof's folder: data, runs, logs and results.
        prime_rl: prime-rl's checkout.
        python: prime-rl's interpreter.
        gpus: GPUs of this machine.
        ends: When the budget is used up, on the monotonic clock.
        chosen: Names of the stages that are asked for; none of them named is all of them.
        pace_seconds: How long two runs are at work, past their first steps, while their pace is compared.
        submitted: Jobs that are in the queue already, by the stage that is to follow them.
        dropped: Stages that were asked for, and will not be begun.
        stopped: Set when the proof is to end early.
    """

    work: Path
    prime_rl: Path
    python: Path
    gpus: int
    ends: float
    chosen: tuple[str, ...] = ()
    pace_seconds: float = 900.0
    submitted: dict[str, Job] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def sandbox(self) -> Path:
        """The private SLURM."""
        return self.work / "slurm"

    @property
    def tiny(self) -> Path:
        """Model and data, where the example's configs look for them from the proof's folder."""
        return self.work / "runs" / "tiny"

    def run_dir(self, name: str) -> Path:
        """A run's directory."""
        return self.work / "runs" / name

    def log(self, stage: str) -> Path:
        """What a stage called and what that printed."""
        return self.work / "logs" / f"{stage}.log"

    def result(self, stage: str) -> Path:
        """What a stage found; only a stage that came to its end has one."""
        return result_in(self.work, stage)

    def asks_for(self, stage: str) -> bool:
        """Whether a stage is asked for, and may still be begun."""
        return (not self.chosen or stage in self.chosen) and stage not in self.dropped

    def found(self, stage: str) -> dict[str, Any] | None:
        """What a stage found; `None` when it did not come to its end, or that was not written whole."""
        return found_in(self.work, stage)

    def seconds_left(self) -> float:
        """What is left of the budget."""
        return self.ends - time.monotonic()

    def pause(self, seconds: float = 0.5) -> None:
        """Wait a little.

        Raises:
            OutOfTimeError: The budget is used up, or the proof was stopped.
        """
        if self.stopped.wait(min(seconds, max(self.seconds_left(), 0.0))):
            raise OutOfTimeError("stopped")
        if self.seconds_left() <= 0:
            raise OutOfTimeError("the time budget was used up")


def result_in(work: Path, stage: str) -> Path:
    """Where a stage writes down what it found, below a proof's folder or what was kept of it."""
    return work / "results" / f"{stage}.json"


def found_in(work: Path, stage: str) -> dict[str, Any] | None:
    """What a stage found; `None` when it did not come to its end, or that was not written whole."""
    document = read_json(result_in(work, stage))
    found = document.get("found") if isinstance(document, dict) else None
    return found if isinstance(found, dict) else None


def program(name: str, place: Place) -> Path:
    """Find a program: beside this interpreter, else beside prime-rl's.

    Raises:
        StageError: It is in neither.
    """
    folders = (Path(sys.executable).parent, place.python.parent)
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    raise StageError(f"{name} was found neither in {folders[0]} nor in {folders[1]}")


def call(
    place: Place,
    stage: str,
    command: Sequence[str | Path],
    *,
    seconds: float = COMMAND_SECONDS,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a command, keep what it printed in the stage's log, return its standard output.

    Raises:
        StageError: It failed, or took too long.
    """
    words = [str(word) for word in command]
    log = place.log(stage)
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    code, out, err = _run(place, words, max(min(seconds, place.seconds_left()), 1.0), environment or {})
    with log.open("a", encoding="utf-8") as handle:
        handle.write(f"$ {shlex.join(words)}\n{out}{err}")
        handle.write(f"# exit code {code}, {time.monotonic() - began:.1f} s\n\n")
    if place.stopped.is_set() and code != "0":
        raise OutOfTimeError("stopped")
    if code != "0":
        last = (err.strip() or out.strip() or "it printed nothing").splitlines()
        shown = next((line for line in last if line.startswith("error:")), last[-1])
        raise StageError(f"{Path(words[0]).name} failed (exit code {code}): {shown}")
    return out


def _run(
    place: Place, words: Sequence[str], seconds: float, environment: Mapping[str, str]
) -> tuple[str, str, str]:
    """Run a command until it ends, its time is over or the proof is stopped; code, output and errors."""
    over = time.monotonic() + seconds
    with subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        cwd=place.work,
        env={**os.environ, **environment},
        start_new_session=True,  # what a terminal sends is for the proof, which ends the command itself
    ) as process:
        while True:
            try:
                out, err = process.communicate(timeout=POLL_SECONDS)
            except subprocess.TimeoutExpired:
                if place.stopped.is_set() or time.monotonic() > over:
                    why = "none, it was stopped" if place.stopped.is_set() else "none, it took too long"
                    return (why, *_end(process))
            else:
                return str(process.returncode), out, err


def _end(process: subprocess.Popen[str]) -> tuple[str, str]:
    """End a command and all that it has started; what it printed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=END_SECONDS)
    return "", ""


@contextmanager
def alone(work: Path) -> Iterator[None]:
    """Have a proof's folder for oneself.

    Raises:
        StageError: Another proof has it.
    """
    with (work / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StageError(
                f"another scripts/prove is at work in {work}; wait for it, or name another --work"
            ) from None
        yield


def write_json(path: Path, document: Any) -> None:  # noqa: ANN401 - whatever JSON can hold
    """Write a file whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}")
    draft.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    draft.replace(path)


def read_json(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    """Read a file; `None` when there is none or it is not whole."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
