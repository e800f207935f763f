"""Overrides that prime-rl has renamed, spelled as the prime-rl at hand spells them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from medarc_plugin.models import Host

OLD_MODEL, NEW_MODEL = "--model.name", "--vllm.model"


def respelled(host: Host | None, argv: Sequence[str]) -> list[str]:
    """Spell the model's name as this prime-rl does."""
    if not any(token.partition("=")[0] == OLD_MODEL for token in argv):
        return list(argv)
    source = _inference_config(host)
    if source is not None and not re.search(r"^    vllm\s*:", source, re.MULTILINE):
        return list(argv)
    return [
        NEW_MODEL + token.removeprefix(OLD_MODEL) if token.partition("=")[0] == OLD_MODEL else token
        for token in argv
    ]


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
