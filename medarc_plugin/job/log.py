"""The job's own lines in the job's log: marked, flushed at once, and without secrets."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

PREFIX = "medarc | "

# Shorter values are no secrets, and would blank out half the log.
SHORTEST_SECRET = 6


class Log:
    """Prints lines that can be told from prime-rl's.

    Args:
        secrets: Values that must not appear; each is shown as `***`.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {secret for secret in secrets if len(secret) >= SHORTEST_SECRET}
        self._secrets = sorted(known, key=len, reverse=True)

    def redact(self, text: str) -> str:
        """Return the text with every secret blanked out."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def say(self, text: str) -> None:
        """Print a text, every line of it marked."""
        lines = self.redact(text).splitlines() or [""]
        write("".join(f"{PREFIX}{line}\n" for line in lines).encode("utf-8", "backslashreplace"))


def write(text: bytes) -> None:
    """Write to the job's log; a log that cannot be written must not end the run.

    Past Python's own stream, which would try again at the end, and fail there.
    """
    with contextlib.suppress(OSError):
        while text:
            text = text[os.write(1, text) :]
