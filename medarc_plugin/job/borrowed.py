"""What an export takes from prime-rl's environment: the only packages that job code ever imports.

They are imported when they are needed and by no other module, so that the rest of the job code
starts without them, and a missing one is reported like any other failure.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from .environment import MEND

PACKAGES = frozenset({"huggingface_hub", "prime_rl", "safetensors", "torch"})
"""What may be borrowed."""


class ExportError(Exception):
    """Weights cannot be exported.

    Args:
        code: What the process ends with, one of the codes below.
        message: What happened, with the value.
        hint: The way out.
    """

    def __init__(self, code: int, message: str, hint: str) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


NO_CHECKPOINT = 10
"""There is no whole checkpoint, or not of the step that was asked for."""

TORN = 11
"""The checkpoint that was asked for is not whole."""

LAYOUT = 12
"""prime-rl has no model class that turns the weights' layout back."""

PACKAGES_MISSING = 13
"""The interpreter lacks torch or another package."""

CANNOT_WRITE = 14
"""The disk is full, or the run directory cannot be written."""

MODEL_FILES = 15
"""The model's config or tokenizer is neither in a folder nor in the cache, nor to be had."""

IN_THE_WAY = 16
"""`weights/step_N` is there and not whole, or another export is at work."""

BAD_RUN = 17
"""The run directory or its config cannot be read, or such a run has no weights."""


def borrow(name: str) -> Any:  # noqa: ANN401 - types come with the packages, which are elsewhere
    """Import a module of another package.

    Args:
        name: Dotted name; its first part is one of `PACKAGES`.

    Raises:
        ExportError: It is not there or cannot be imported.
    """
    try:
        return import_module(name)
    except Exception as error:
        raise ExportError(
            PACKAGES_MISSING,
            f"{sys.executable} cannot import {name}: {type(error).__name__}: {error}",
            f"export with the interpreter of prime-rl's own environment: `{MEND}` in its checkout, named "
            "with PRIME_RL_DIR",
        ) from error
