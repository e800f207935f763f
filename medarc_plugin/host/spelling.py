"""Overrides that prime-rl has renamed, spelled as the prime-rl at hand spells them.

For prime-rl's own command, which is not to wait for its imports; the resolver asks the schema itself.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from medarc_plugin.host import fields

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from medarc_plugin.models import Host

MODELS = {f"--{shape.engine.model}" for shape in fields.SHAPES.values()}
"""How releases have spelled the model of an inference server."""


def respelled(host: Host | None, argv: Sequence[str]) -> list[str]:
    """Spell the model's name as this prime-rl does."""
    if not any(token.partition("=")[0] in MODELS for token in argv):
        return list(argv)
    shape = _shape_of(_inference_config(host))
    return list(argv) if shape is None else fields.spelled(argv, "inference", shape)


def _shape_of(source: str | None) -> fields.Shape | None:
    """Tell the shape by the class's fields, as they stand in its source."""
    if source is None:
        return fields.MAIN
    for shape in fields.SHAPES.values():
        table = shape.engine.model.partition(".")[0]
        if re.search(rf"^    {table}\s*:", source, re.MULTILINE):
            return shape
    return None


def _inference_config(host: Host | None) -> str | None:
    """Read the schema's source: importing it would take seconds for one name."""
    for path in _candidates(host):
        if path.is_file():
            return path.read_text(encoding="utf-8", errors="replace")
    return None


def _candidates(host: Host | None) -> list[Path]:
    name = "prime_rl/configs/inference.py"
    if host is None:
        return []
    below = (
        [host.directory / part for part in ("packages/prime-rl-configs/src", "src", "")]
        if host.directory
        else []
    )
    installed = sorted(host.python.parent.parent.glob("lib/python3*/site-packages"))
    return [folder / name for folder in [*below, *installed]]
