"""The reward curves of a proof as a picture.

cd scripts && uv run --with matplotlib python -m gpu_proof.plot ../runs/proof ../docs/evidence/reward.png
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from gpu_proof import stages
from gpu_proof.place import read_json
from gpu_proof.table import paired

SHOWN = {
    stages.ONE: "one GPU",
    stages.TWO: "two GPUs",
    stages.REQUEUED: "one GPU, requeued and trainer killed",
    "pace-plugin": "one GPU, beside prime-rl's own",
    "pace-by-hand": "prime-rl's own rl",
}


def main() -> None:
    """Draw what there is."""
    work, picture = map(Path, sys.argv[1:])
    found = {stage.name: load(work, stage.name) for stage in stages.STAGES}
    draw(found | paired(found), picture)


def load(work: Path, stage: str) -> dict[str, Any]:
    """What a stage found; empty when it was not seen."""
    return (read_json(work / "results" / f"{stage}.json") or {}).get("found") or {}


def draw(found: dict[str, dict[str, Any]], picture: Path) -> None:
    """Mean reward of each step's rollouts, and the held-out rewards before and after as lines."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 4.2), dpi=120)
    for name, label in SHOWN.items():
        points = (found[name] or {}).get("rewards") or []
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
    # Above the curves' beginning, and below their end.
    places = {"base": ("before training", 0.99), "sft": ("after SFT", 0.99), stages.ONE: ("after RL", 0.01)}
    for name, (label, across) in places.items():
        told = found[f"eval-{name}"].get("rewards") or {}
        if told:
            height = told["200 x 3"]["reward"]
            axes.axhline(height, color="grey", linewidth=0.8, linestyle=":")
            axes.annotate(
                f"held out, {label}: {height:.2f}",
                (across, height),
                xycoords=("axes fraction", "data"),
                ha="right" if across > 0.5 else "left",  # noqa: PLR2004 - the middle
                va="bottom",
                fontsize=8,
            )
    axes.set(xlabel="step", ylabel="mean reward of the step's rollouts", ylim=(0, 1.02))
    axes.legend(loc="lower right", fontsize=8, bbox_to_anchor=(1.0, 0.12))
    figure.tight_layout()
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture)


if __name__ == "__main__":
    main()
