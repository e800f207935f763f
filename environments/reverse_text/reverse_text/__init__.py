"""Reverse a text character by character: one environment for both verifiers APIs.

The classic API finds `load_environment` here, the v1 API finds `ReverseTextTaskset` through
`__all__`. Both are imported on first use, so that `import reverse_text` needs neither verifiers
nor datasets, and a release of verifiers without one of the APIs can still use the other.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reverse_text.classic import load_environment
    from reverse_text.taskset import ReverseTextTaskset

__all__ = ["ReverseTextTaskset", "load_environment"]

_HOMES = {
    "ReverseTextTaskset": "reverse_text.taskset",
    "load_environment": "reverse_text.classic",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562: whatever the module exports
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
