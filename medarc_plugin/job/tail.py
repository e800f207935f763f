"""Reading files that other processes append to: what is new, or the end, and never all of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PER_READ = 256 * 1024
"""Bytes that one look at a file takes at most."""

BACKLOG = 8 * 1024 * 1024
"""Bytes that may wait to be read; of more, only the last ones are."""

LONGEST_LINE = 1024 * 1024
"""Bytes of a line; a longer one is dropped."""


class Tail:
    """The lines that a file gains, from one look to the next.

    A line counts once its line feed is there. A file that was replaced or cut short is read from its
    beginning, and one that is missing has no lines yet.

    Args:
        path: The file.
        backlog: Bytes at most that may wait; the rest before them is skipped.
    """

    def __init__(self, path: Path, backlog: int = BACKLOG) -> None:
        self.path = path
        self.backlog = backlog
        self.offset = 0
        self._file: tuple[int, int] | None = None
        self._rest = b""
        self._skips = False

    def read(self, most: int = PER_READ) -> list[str]:
        """Return the lines that are new and whole.

        Args:
            most: Bytes to read at most; the rest waits for the next look.
        """
        try:
            stat = os.stat(self.path)  # noqa: PTH116 - twice a second: Path.stat costs several times as much
            if (stat.st_dev, stat.st_ino) != self._file or stat.st_size < self.offset:
                self._begin((stat.st_dev, stat.st_ino))
            if stat.st_size == self.offset:
                return []
            if stat.st_size - self.offset > self.backlog:
                # The line that is begun in the middle is none.
                self.offset, self._rest, self._skips = stat.st_size - self.backlog, b"", True
            with open(self.path, "rb", buffering=0) as file:  # noqa: PTH123 - likewise
                file.seek(self.offset)
                data = file.read(most) or b""
        except OSError:
            return []
        self.offset += len(data)
        return self._lines(data)

    def _begin(self, file: tuple[int, int]) -> None:
        self._file, self.offset, self._rest, self._skips = file, 0, b"", False

    def _lines(self, data: bytes) -> list[str]:
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = self._rest + lines[0]
            if self._skips:
                del lines[0]
            self._skips = False
            self._rest = rest
        else:
            self._rest += rest
        if len(self._rest) > LONGEST_LINE:
            self._rest, self._skips = b"", True
        return [line.decode("utf-8", "replace") for line in lines]


MOST_LINES = 4000
"""Lines of a file's end that are looked at."""


def last_lines(path: Path, most: int = PER_READ) -> list[str]:
    """Return the lines at a file's end, the last one whether it is whole or not.

    Args:
        path: The file; one that cannot be read has no lines.
        most: Bytes to read at most.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - most))
            data = file.read(most)
    except OSError:
        return []
    lines = data.decode("utf-8", "replace").rsplit("\n", MOST_LINES)
    cut = size > most or len(lines) > MOST_LINES
    return lines[1:] if cut and len(lines) > 1 else lines
