"""Copy what belongs beside docs/evidence.md out of a proof's folder, small and without the machine's paths.

cd scripts && python -m gpu_proof.keep ../runs/proof ../docs/evidence/NAME --path "$PWD"=/scratch
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medarc_plugin.runs import read_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ANSWERED = ("example_id", "answer", "reward")
"""What is kept of a row of vf-eval, beside the text and what was said to it."""


def main() -> None:
    """Copy the table, what each stage found, logs, prime-rl's metrics and vf-eval's answers."""
    parser = argparse.ArgumentParser(prog="gpu_proof.keep", description=__doc__)
    parser.add_argument("work", type=Path, help="the folder of the proof")
    parser.add_argument("folder", type=Path, help="where to")
    parser.add_argument(
        "--path",
        action="append",
        default=[],
        type=_replacement,
        metavar="OLD=NEW",
        help="a path of the machine, and what is written in its place; repeat",
    )
    arguments = parser.parse_args()
    if not (arguments.work / "results").is_dir():
        parser.error(f"{arguments.work} is not the folder of a proof: it has no results")
    keep(arguments.work, arguments.folder, arguments.path)


def _replacement(word: str) -> tuple[str, str]:
    old, equals, new = word.partition("=")
    if not old or not equals:
        raise argparse.ArgumentTypeError(f"{word!r} is not OLD=NEW")
    return old, new


def keep(work: Path, folder: Path, paths: Sequence[tuple[str, str]] = ()) -> None:
    """Copy what belongs beside docs/evidence.md.

    Args:
        work: The folder of the proof.
        folder: Where to; made when it is not there.
        paths: Paths of the machine, and what is written in their place.
    """

    def written(text: str) -> str:
        for old, new in paths:
            text = text.replace(old, new)
        return text

    for file in (work / "results.md", work / "machine.json", *work.glob("results/[!.]*.json")):
        if file.exists():
            copy = folder / file.relative_to(work)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(written(file.read_text(encoding="utf-8")), encoding="utf-8")
    for file in sorted((*work.glob("runs/*/metrics.jsonl"), *work.glob("runs/*/job_*.log"))):
        text = written(file.read_text(encoding="utf-8", errors="replace"))
        compress(folder / f"{file.parent.name}.{file.name}.gz", text)
    for evaluation in sorted(work.glob("evals/*")):
        rows = [
            shortened(row) for file in sorted(evaluation.rglob("results.jsonl")) for row in read_rows(file)
        ]
        if rows:
            compress(folder / f"{evaluation.name}.answers.jsonl.gz", written("".join(rows)))


def shortened(row: Mapping[str, Any]) -> str:
    """What is kept of one of vf-eval's answers."""
    text, said = (row[part][-1]["content"] for part in ("prompt", "completion"))
    return json.dumps({"text": text, "said": said, **{key: row[key] for key in ANSWERED}}) + "\n"


def compress(file: Path, text: str) -> None:
    """Write a gzip file; the same text makes the same bytes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main()
