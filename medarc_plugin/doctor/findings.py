"""What a check finds, and what checks share: each thing looked up once, by whichever check comes first."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from medarc_plugin.errors import MedarcError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

OK, WARNING, FAILED, SKIPPED = "ok", "warning", "failed", "skipped"


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        status: `ok`; `warning`, with which runs may go well; `failed`, with which they do not; `skipped`,
            where there is nothing to look at.
        text: What was found.
        hint: The way out.
    """

    status: str
    text: str
    hint: str = ""


def ok(text: str, hint: str = "") -> Finding:
    """All is well."""
    return Finding(OK, text, hint)


def warning(text: str, hint: str = "") -> Finding:
    """Runs may go well all the same."""
    return Finding(WARNING, text, hint)


def failed(text: str, hint: str = "") -> Finding:
    """Runs do not go well."""
    return Finding(FAILED, text, hint)


def skipped(text: str, hint: str = "") -> Finding:
    """There is nothing to look at, or nothing to look with."""
    return Finding(SKIPPED, text, hint)


def of_error(error: MedarcError) -> Finding:
    """What an error says, as a finding."""
    return failed(error.message, error.hint or "")


class ToldElsewhereError(Exception):
    """Something is not known, and another check says why.

    Args:
        check: That check's name.
    """

    def __init__(self, check: str) -> None:
        super().__init__(f"not looked at: see {check!r}")


class Once(Generic[T]):
    """Something that is looked up once; whoever asks meanwhile waits.

    Args:
        look: Looks it up.
        check: Name of the check that says why it cannot be had.
    """

    def __init__(self, look: Callable[[], T], check: str) -> None:
        self._look = look
        self._check = check
        self._lock = threading.Lock()
        self._found: list[T] = []
        self._error: MedarcError | ToldElsewhereError | None = None

    def __call__(self) -> T:
        """Return it.

        Raises:
            ToldElsewhereError: It cannot be had.
        """
        try:
            return self.or_say_why()
        except MedarcError:
            raise ToldElsewhereError(self._check) from None

    def or_say_why(self) -> T:
        """The same, for the check that says why.

        Raises:
            MedarcError: What the look-up raised.
            ToldElsewhereError: Something that it needs cannot be had.
        """
        with self._lock:
            if self._error is None and not self._found:
                try:
                    self._found.append(self._look())
                except (MedarcError, ToldElsewhereError) as error:
                    self._error = error
        if self._error is not None:
            raise self._error
        return self._found[0]
