"""Host lists as SLURM writes them: `node[1-3,07],login`."""

from __future__ import annotations

import re

MOST_HOSTS = 100_000
"""A longer list is no list of nodes."""


def expand(text: str) -> tuple[str, ...] | None:
    """List the hosts of a host list.

    Args:
        text: `node[1-3,07],login`, `rack[1-2]node[0-9]`.

    Returns:
        The names, each once; `None` for a text that is none, the path of a file with hosts for one.
    """
    parts = re.findall(r"(?:[^,\[\]]|\[[^\[\]]*\])+", text)
    if not parts or "/" in text or ",".join(parts) != text:
        return None
    found: list[str] = []
    for part in parts:
        names = [""]
        for piece in re.findall(r"\[[^\]]*\]|[^\[\]]+", part):
            tails = _numbers(piece[1:-1]) if piece.startswith("[") else [piece]
            if not tails or len(names) * len(tails) > MOST_HOSTS:
                return None
            names = [name + tail for name in names for tail in tails]
        found += names
    return tuple(dict.fromkeys(found))


def _numbers(text: str) -> list[str]:
    """Expand what stands in brackets; nothing where that is no list of numbers."""
    found: list[str] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match is None:
            return []
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last - first > MOST_HOSTS:
            return []
        found += [str(number).zfill(len(match[1])) for number in range(first, last + 1)]
    return found
