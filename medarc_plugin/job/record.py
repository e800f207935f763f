"""What stays in the run directory: the attempts, and the name that prime-rl knows the run by.

All of it under `configs/`: prime-rl refuses a fresh run directory that holds anything else.
"""

from __future__ import annotations

import datetime as dt
import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def now() -> str:
    """The time, in UTC, to the second."""
    utc = dt.timezone.utc  # noqa: UP017 - datetime.UTC is not in Python 3.9
    return dt.datetime.now(utc).isoformat(timespec="seconds")


def claim_attempt(run_dir: Path, restart_count: int) -> int:
    """Take the next attempt's number by making its folder, `configs/attempts/N`.

    Where that cannot be written, count by SLURM's restarts alone.
    """
    folder = run_dir / "configs" / "attempts"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = [int(path.name) for path in folder.iterdir() if path.name.isdigit()]
        number = max(taken, default=0) + 1
        while True:
            try:
                (folder / str(number)).mkdir()
            except FileExistsError:
                number += 1
            else:
                return number
    except OSError:
        return restart_count + 1


def write_attempt(run_dir: Path, number: int, document: Mapping[str, Any]) -> None:
    """Write what an attempt really launched with, `configs/attempts/N/launched.json`."""
    path = run_dir / "configs" / "attempts" / str(number) / "launched.json"
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def write_config(run_dir: Path, number: int, entrypoint: str, document: Mapping[str, Any]) -> Path:
    """Write the config that an attempt launches with, and return its path."""
    path = run_dir / "configs" / "attempts" / str(number) / f"{entrypoint}.json"
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return path


def append_attempt(folder: Path, document: Mapping[str, Any]) -> None:
    """Append a line to `attempts.jsonl`, in one write, so that attempts cannot mix."""
    line = json.dumps(document).encode() + b"\n"
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(folder / "attempts.jsonl", flags, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        # What a full disk once cut short must not swallow this line.
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        os.write(descriptor, b"\n" + line if torn else line)
    finally:
        os.close(descriptor)


def stable_run_id(folder: Path) -> str:
    """Return the id that prime-rl, and W&B with it, know this run by: the same in every attempt."""
    path = folder / "run_id"
    fresh = os.urandom(16).hex()
    try:
        draft = folder / f".run_id-{fresh}"
        draft.write_text(fresh + "\n", encoding="utf-8")
        try:
            # Linked, not renamed: of two attempts at once, both use the first one's.
            os.link(draft, path)
        except FileExistsError:
            return path.read_text(encoding="utf-8").strip() or fresh
        finally:
            draft.unlink()
    except OSError:
        return fresh
    return fresh
