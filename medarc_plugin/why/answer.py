"""The answer to why: what is printed, and the same as facts for scripts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from medarc_plugin.standing import RunStatus


@dataclass(frozen=True)
class Answer:
    """Why a run stands as it does.

    Attributes:
        status: How it stands.
        headline: That in a sentence.
        lines: What is known, a sentence each.
        hints: What to do, a sentence each.
        facts: What else scripts may want, by the names of docs/why.md.
    """

    status: RunStatus
    headline: str
    lines: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The facts for `--json`."""
        status = self.status
        return {
            "run_dir": str(status.run.run_dir),
            "name": status.run.name,
            "job_id": status.job_id,
            "state": status.state,
            "reason": status.reason,
            "note": status.note,
            "answer": self.headline,
            "details": list(self.lines),
            "hints": list(self.hints),
            **dict.fromkeys(FACTS),
            **self.facts,
        }


FACTS = ("waiting", "failure", "slurm", "attempts")
"""The parts of the document that are `null` where they do not apply."""


def headline(status: RunStatus, what: str) -> str:
    """Begin an answer: which run, which job, and what is with it."""
    job = f", job {status.job_id}" if status.job_id else ""
    return f"{status.run.name}{job}: {what}"
