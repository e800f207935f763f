"""JSON: reading what others wrote, which may be anything, and writing what every reader takes."""

from __future__ import annotations

import json
import math
import re
from typing import Any

DEEPEST = 100
"""Levels of a document; no record and no config has a tenth of it."""


def parse(text: str | bytes) -> Any:  # noqa: ANN401 - whatever it holds
    """Read a document.

    Raises:
        ValueError: It is no JSON, or nested too deeply.
    """
    try:
        document = json.loads(text)
    except RecursionError:
        document = None
        level: list[Any] = [[]]
    else:
        level, depth = [document], 0
        while level and depth < DEEPEST:
            level = [each for value in level for each in _inside(value)]
            depth += 1
    if level:
        raise ValueError(f"it is nested more than {DEEPEST} levels deep")
    return document


def _inside(value: object) -> list[Any]:
    """The tables and lists in a value."""
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [each for each in values if isinstance(each, (dict, list))]


def plain(value: Any) -> Any:  # noqa: ANN401 - whatever a record holds
    """Name the numbers that JSON does not have: `NaN`, `Infinity`."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)
    return value


def write(value: Any, *, indent: int | None = None, ascii_only: bool = False) -> str:  # noqa: ANN401
    """Write a document.

    Args:
        value: What it holds.
        indent: Blanks of a level; `None` writes all into one line.
        ascii_only: Escape every letter beyond ASCII, for a reader that may not know them.
    """
    text = json.dumps(plain(value), indent=indent, ensure_ascii=ascii_only, allow_nan=False)
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


_CONTROLS = re.compile("[\x7f-\x9f]")
"""What a terminal may obey, and JSON does not escape."""
