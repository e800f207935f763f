"""Reading and setting values of a config by dotted path, and what is said when one is of no use."""

from __future__ import annotations

from typing import Any

Document = dict[str, Any]


class FieldError(Exception):
    """A wish that the config cannot meet: what happened, and the way out.

    Args:
        message: What happened.
        hint: The way out.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def get(document: Any, path: str) -> Any:  # noqa: ANN401
    """Return the value at a dotted path, or `None` where a part of the path is missing."""
    for part in path.split("."):
        if not isinstance(document, dict):
            return None
        document = document.get(part)
    return None if document == "None" else document


def put(document: Document, path: str, value: Any) -> None:  # noqa: ANN401
    """Set the value at a dotted path, making tables on the way."""
    *tables, leaf = path.split(".")
    for part in tables:
        below = document.get(part)
        if not isinstance(below, dict):
            below = document[part] = {}
        document = below
    document[leaf] = value


def is_named(document: Any, path: str) -> bool:  # noqa: ANN401
    """Whether a config has a field at a dotted path, whatever it holds."""
    *tables, leaf = path.split(".")
    for part in tables:
        document = document.get(part) if isinstance(document, dict) else None
    return isinstance(document, dict) and leaf in document


def path_of(document: Document, path: str) -> str | None:
    """Return a file's path.

    Raises:
        FieldError: It is none.
    """
    value = get(document, path)
    if value is not None and not isinstance(value, str):
        raise FieldError(f"{path} = {value!r} is not a path")
    return value


def first(document: Document, *paths: str) -> int | None:
    """Return the first number that is there.

    Raises:
        FieldError: It is none.
    """
    for path in paths:
        value = get(document, path)
        if value is not None:
            return number(path, value)
    return None


def count(document: Document, path: str, default: int) -> int:
    """Return a number, or what holds without it.

    Raises:
        FieldError: It is none.
    """
    value = get(document, path)
    return default if value is None else number(path, value)


def number(path: str, value: Any) -> int:  # noqa: ANN401
    """Read a whole number.

    Raises:
        FieldError: It is none.
    """
    try:
        return int(str(value))
    except ValueError:
        raise FieldError(f"{path} = {value!r} is not a whole number") from None


def fraction(document: Document, path: str) -> float | None:
    """Return a number, or `None` where there is none.

    Raises:
        FieldError: It is something else.
    """
    value = get(document, path)
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        raise FieldError(f"{path} = {value!r} is not a number") from None


def is_true(document: Document, path: str) -> bool:
    """Whether a switch is on, in a file or as text from the command line."""
    return str(get(document, path)).lower() == "true"
