"""Memory and use of this job's GPUs, asked from time to time without ever waiting for the answer."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import child

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping, Sequence

ARGUMENTS = (
    "--query-gpu=index,memory.used,memory.total,utilization.gpu",
    "--format=csv,noheader,nounits",
)

INTERVAL = 10.0
"""Seconds between two questions."""

PATIENCE = 20.0
"""Seconds that an answer may take."""

STALE = 60.0
"""Seconds after which an old answer is none."""

MOST_FAILURES = 3
"""Failures in a row after which it is asked only every `RARELY` seconds."""

RARELY = 300.0


@dataclass(frozen=True)
class Reading:
    """What one GPU said.

    Attributes:
        index: Its number.
        memory_used: Memory in use by whoever, in MiB; `None` where the driver does not say.
        memory_total: Its memory, in MiB; likewise.
        use: Share of the last moments in which it computed, in percent; likewise.
    """

    index: int
    memory_used: int | None
    memory_total: int | None
    use: int | None

    def document(self) -> dict[str, Any]:
        """What `state.json` holds of it."""
        return {
            "index": self.index,
            "memory_used_mib": self.memory_used,
            "memory_total_mib": self.memory_total,
            "use_percent": self.use,
        }


class GpuWatch:
    """Asks `nvidia-smi` about this job's GPUs; its absence and its hanging change nothing else.

    Args:
        gpus: Ids of this job's GPUs, as `nvidia-smi` numbers them.
        variables: The environment it runs in.
        clock: Seconds that only go up.
    """

    def __init__(
        self,
        gpus: Sequence[int],
        variables: Mapping[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # A GPU that two components share is named twice elsewhere.
        self._gpus = tuple(dict.fromkeys(gpus))
        self._variables = variables
        self._clock = clock
        self._program = shutil.which("nvidia-smi", path=variables.get("PATH", os.defpath))
        self._process: subprocess.Popen[bytes] | None = None
        self._output = -1
        self._asked = -RARELY
        self._answered = 0.0
        self._failures = 0
        self._readings: tuple[Reading, ...] | None = None

    def tick(self) -> tuple[Reading, ...] | None:
        """Fetch an answer that has come, ask again when it is time, and return the newest answer.

        Returns:
            A reading for each GPU; `None` when there is no answer that still holds.
        """
        now = self._clock()
        if self._process is not None:
            self._fetch(now)
        elif self._program is not None and self._gpus and now - self._asked >= self._interval():
            self._ask(now)
        if now - self._answered > STALE:
            self._readings = None
        return self._readings

    @property
    def use(self) -> int | None:
        """The highest use among the GPUs, in percent; `None` when it is not known of all of them."""
        known = [reading.use for reading in self._readings or () if reading.use is not None]
        return max(known) if known and len(known) == len(self._gpus) else None

    def stop(self) -> None:
        """End a question that is still open."""
        if self._process is not None:
            self._end()

    def _interval(self) -> float:
        return INTERVAL if self._failures < MOST_FAILURES else RARELY

    def _ask(self, now: float) -> None:
        self._asked = now
        ids = ",".join(map(str, self._gpus))
        self._output = os.memfd_create("gpus")
        try:
            command = (str(self._program), f"--id={ids}", *ARGUMENTS)
            self._process = child.start(command, self._variables, Path("/"), self._output)
        except OSError:
            self._failures += 1
            os.close(self._output)

    def _fetch(self, now: float) -> None:
        if self._process is None:
            return
        code = self._process.poll()
        if code is None and now - self._asked < PATIENCE:
            return
        text = os.pread(self._output, 64 * 1024, 0).decode("utf-8", "replace")
        self._end()
        readings = parse_readings(text) if code == 0 else None
        if readings:
            self._readings, self._answered, self._failures = readings, now, 0
        else:
            self._failures += 1

    def _end(self) -> None:
        """Leave the command behind: one that hangs in the driver may outlive even this."""
        if self._process is not None and self._process.poll() is None:
            child.send(self._process, signal.SIGKILL)
            with contextlib.suppress(Exception):
                self._process.wait(timeout=0.1)
        self._process = None
        os.close(self._output)


def parse_readings(text: str) -> tuple[Reading, ...] | None:
    """Read what `nvidia-smi` printed; `None` when it is not the answer to the question."""
    readings = []
    for line in filter(None, map(str.strip, text.splitlines())):
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != len(ARGUMENTS[0].split(",")) or not fields[0].isdigit():
            return None
        # `[N/A]` and `[Not Supported]` stand for figures that a GPU, or a part of one, does not have.
        figures = [int(field) if field.isdigit() else None for field in fields[1:]]
        readings.append(Reading(int(fields[0]), *figures))
    return tuple(readings) or None
