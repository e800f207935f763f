"""What stays in the run directory: the attempts, and the name that prime-rl knows the run by.

All of it under `configs/`: prime-rl refuses a fresh run directory that holds anything else.

An attempt's line in `attempts.jsonl` is written at its end. Of one that was killed before that,
`configs/attempts/N/` tells how far it came: `started.json` is there from its start,
`launched.json` from each start of prime-rl, `signals.jsonl` has a line for each signal that was
passed on to prime-rl, and `phases.jsonl` one for each phase.
"""

from __future__ import annotations

import contextlib
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


def write_attempt(run_dir: Path, number: int, name: str, document: Mapping[str, Any]) -> Path:
    """Write a file of an attempt, `configs/attempts/N/NAME.json`, and return its path.

    Args:
        run_dir: The run directory.
        number: The attempt.
        name: `started`; `launched`, for what it really launched with; the entrypoint's name, for
            the config that it launches with.
        document: What to write.

    Raises:
        OSError: It cannot be written.
    """
    path = attempt_folder(run_dir, number) / f"{name}.json"
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return path


def write_whole(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON file so that whoever reads it finds a whole one.

    Args:
        path: The file.
        document: What it holds.

    Raises:
        OSError: It cannot be written.
    """
    write_text_whole(path, json.dumps(document, indent=2) + "\n")


def write_text_whole(path: Path, text: str) -> None:
    """The same for any text.

    Raises:
        OSError: It cannot be written.
    """
    draft = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def append_signal(run_dir: Path, number: int, name: str) -> None:
    """Append a signal that arrived to `configs/attempts/N/signals.jsonl`.

    Raises:
        OSError: It cannot be written.
    """
    append_line(attempt_folder(run_dir, number) / "signals.jsonl", {"signal": name, "time": now()})


def append_attempt(folder: Path, document: Mapping[str, Any]) -> None:
    """Append an attempt that ended to `attempts.jsonl`.

    Raises:
        OSError: It cannot be written.
    """
    append_line(folder / "attempts.jsonl", document)


def attempt_folder(run_dir: Path, number: int) -> Path:
    """Where an attempt's files lie: `configs/attempts/N`."""
    return run_dir / "configs" / "attempts" / str(number)


def append_line(path: Path, document: Mapping[str, Any]) -> None:
    """Append a line to a file of JSON lines, in one write, so that attempts cannot mix.

    Raises:
        OSError: It cannot be written.
    """
    line = json.dumps(document).encode() + b"\n"
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o644)
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
