"""Reading JSON that others wrote: it may be torn, foreign, or nested so deeply that nothing could walk it."""

from __future__ import annotations

import json
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
        level = [document]
        for _ in range(DEEPEST):
            level = [each for value in level for each in _inside(value)]
    if level:
        raise ValueError(f"it is nested more than {DEEPEST} levels deep")
    return document


def _inside(value: object) -> list[Any]:
    """The tables and lists in a value."""
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [each for each in values if isinstance(each, (dict, list))]
