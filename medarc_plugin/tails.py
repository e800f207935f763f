"""Reading logs that others write: their last lines, and what they gain.

Made for network file systems: nothing is announced there, so files are opened anew at each look, which is
when such a file system says how long they are. What is read may be anything: lines without an end, progress
bars that write over themselves, colours, bytes that are no text.
"""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BLOCK = 64 * 1024
"""Bytes that are read at once from a file's end."""

PER_LOOK = 1024 * 1024
"""Bytes of a file that one look takes at most."""

BACKLOG = 16 * 1024 * 1024
"""Bytes that may wait to be read; of more, only the last ones are."""

LONGEST_LINE = 16 * 1024
"""Characters of a line that are shown."""

REST = 256 * 1024
"""Bytes of a line that are looked at, and of one without an end that are kept."""

IDLE_SECONDS = 2.0
"""After which a line without an end is shown as it is."""

BAR_SECONDS = 10.0
"""Between two showings of a progress bar that never ends its line."""

_ESCAPES = re.compile(
    # Colours first, to be told from the rest; then control sequences, strings for the terminal, and others.
    r"(?P<colour>\x1b\[[0-9;]*m)"
    r"|\x1b\[[0-?]*[ -/]*[@-~]"
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"
    r"|\x1b[ -/]*[0-~]?"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1a\x1c-\x1f\x7f-\x9f]")


def text_of(line: bytes, *, colours: bool = False) -> str:
    """Turn a line into what a terminal would have shown in the end, and nothing that it would obey.

    Args:
        line: The line, without its end.
        colours: Keep its colours; they are ended with the line.
    """
    # A progress bar writes over itself: its last state counts.
    states = [state for state in line.split(b"\r") if state.strip()]
    state = states[-1] if states else b""
    text = state[:REST].decode("utf-8", "replace")
    coloured = False

    def keep(found: re.Match[str]) -> str:
        nonlocal coloured
        if not colours or found["colour"] is None:
            return ""
        coloured = True
        return found["colour"]

    text = _CONTROLS.sub("", _ESCAPES.sub(keep, text))
    if len(state) > REST:
        text = f"{text[:LONGEST_LINE]} ... ({len(state)} bytes)"
    elif len(text) > LONGEST_LINE:
        text = f"{text[:LONGEST_LINE]} ... ({len(text) - LONGEST_LINE} more characters)"
    return f"{text}\x1b[0m" if coloured else text


def last_lines(path: Path, count: int, start: int = 0, end: int | None = None) -> tuple[list[bytes], int]:
    """Read a file's last lines from its end.

    Args:
        path: The file; one that cannot be read has no lines.
        count: How many at most.
        start: Where to begin: what lies before is not looked at.
        end: Where to end; the file's end unless given.

    Returns:
        The lines, the last one whether it is whole or not, and where in the file they end.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            stop = position = size if end is None else min(end, size)
            blocks: list[bytes] = []
            breaks, newest = 0, stop
            # A line more than is wanted, so that the first one is whole; and not all of one endless line.
            while position > start and breaks <= count and newest - position < BACKLOG:
                length = min(BLOCK, position - start)
                position -= length
                file.seek(position)
                blocks.append(file.read(length))
                if found := blocks[-1].count(b"\n"):
                    breaks, newest = breaks + found, position
    except OSError:
        return [], 0
    lines = b"".join(reversed(blocks)).split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    return lines[-count:] if count else [], stop


def sections(path: Path, mark: re.Pattern[bytes]) -> Iterator[tuple[re.Match[bytes], int]]:
    """Find the lines of a file that match, with their places; a file that cannot be read has none.

    Args:
        path: The file.
        mark: The pattern, matched at a line's beginning.
    """
    try:
        with path.open("rb") as file:
            place = 0
            while line := file.readline(REST):
                found = mark.match(line)
                if found:
                    yield found, place
                place += len(line)
    except OSError:
        return


class Growth:
    """What a file gains, from one look to the next.

    A file that was replaced or cut short is read from its beginning; one that is missing gains nothing yet.

    Args:
        path: The file.
        offset: Where to begin.
        clock: Seconds that only go up.
    """

    def __init__(self, path: Path, offset: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._offset = offset
        self._clock = clock
        self._file: tuple[int, int] | None = None
        self._rest = b""
        self._shown: bytes | None = None
        self._gained_at = self._shown_at = clock()

    def look(self) -> list[bytes]:
        """Return the lines that are new.

        A line without an end is among them when nothing has come after it for a moment, and once more when it
        has become another one.
        """
        lines: list[bytes] = []
        data = self._read(lines)
        now = self._clock()
        if data:
            self._gained_at = now
            *whole, self._rest = (self._rest + data).split(b"\n")
            if whole and whole[0] == self._shown:
                del whole[0]
            if whole:
                self._shown, self._shown_at = None, now
            lines += whole
            self._shorten()
        idle = now - self._gained_at >= IDLE_SECONDS
        bar = b"\r" in self._rest and now - self._shown_at >= BAR_SECONDS
        return lines + self._show_rest() if idle or bar else lines

    def end(self) -> list[bytes]:
        """Return what is left, a line without an end too."""
        lines: list[bytes] = []
        while new := self.look():
            lines += new
        return lines + self._show_rest()

    def _show_rest(self) -> list[bytes]:
        if not self._rest or self._rest == self._shown:
            return []
        self._shown, self._shown_at = self._rest, self._clock()
        return [self._rest]

    def _read(self, lines: list[bytes]) -> bytes:
        try:
            with self.path.open("rb") as file:
                stat = os.fstat(file.fileno())
                if self._file is None:
                    self._file = (stat.st_dev, stat.st_ino)
                if (stat.st_dev, stat.st_ino) != self._file or stat.st_size < self._offset:
                    self._file = (stat.st_dev, stat.st_ino)
                    self._offset, self._rest, self._shown = 0, b"", None
                waiting = stat.st_size - self._offset
                if waiting > BACKLOG:
                    lines.append(f"... ({(waiting - PER_LOOK) / 2**20:.0f} MiB are passed over)".encode())
                    self._offset, self._rest = stat.st_size - PER_LOOK, b""
                file.seek(self._offset)
                data = file.read(PER_LOOK)
        except OSError:
            return b""
        self._offset += len(data)
        return data

    def _shorten(self) -> None:
        """Keep of a line without an end what will be shown of it."""
        if len(self._rest) > REST:
            # Of a progress bar its newest states, of anything else the beginning.
            self._rest = self._rest[-REST:] if b"\r" in self._rest else self._rest[:REST]
