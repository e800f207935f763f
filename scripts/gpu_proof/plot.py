"""The reward curves of a proof as a picture, and its comparison of the pace as another one.

cd scripts && uv run --with matplotlib python -m gpu_proof.plot ../runs/proof ../docs/evidence/FOLDER
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from gpu_proof import stages
from gpu_proof.place import found_in
from gpu_proof.table import common, pair_of, paired

if TYPE_CHECKING:
    from collections.abc import Sequence

SHOWN = {
    stages.ONE: "one GPU",
    stages.TWO: "two GPUs",
    stages.REQUEUED: "one GPU, requeued and trainer killed",
}
SMOOTHED = 20
"""Steps whose mean is drawn as a line."""


def main() -> None:
    """Draw what there is."""
    import matplotlib as mpl

    mpl.use("Agg")
    parser = argparse.ArgumentParser(prog="gpu_proof.plot", description=__doc__)
    parser.add_argument("work", type=Path, help="the folder of the proof, or what was kept of it")
    parser.add_argument("folder", type=Path, help="where the pictures go to")
    arguments = parser.parse_args()
    work, folder = arguments.work, arguments.folder
    found = {stage.name: found_in(work, stage.name) or {} for stage in stages.STAGES}
    folder.mkdir(parents=True, exist_ok=True)
    if any(found[name].get("rewards") for name in SHOWN):
        draw_rewards(found, folder / "reward.png")
    pairs = [name for name in stages.PACES if common(pair_of(paired(found), name))]
    if pairs:
        draw_pace(paired(found), pairs, folder / "pace.png")


def draw_rewards(found: dict[str, dict[str, Any]], picture: Path) -> None:
    """Mean reward of each step's rollouts, and the held-out rewards before and after as lines."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 4.2), dpi=120)
    for name, label in SHOWN.items():
        points = (found[name] or {}).get("rewards") or []
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
    # Above the curves' beginning, and below their end.
    places = {"base": ("before training", 0.99), "sft": ("after SFT", 0.99), stages.ONE: ("after RL", 0.01)}
    for name, (label, across) in places.items():
        told = (found[f"eval-{name}"].get("rewards") or {}).get("200 x 3")
        if told:
            height = told["reward"]
            axes.axhline(height, color="grey", linewidth=0.8, linestyle=":")
            axes.annotate(
                f"held out, {label}: {height:.2f}",
                (across, height),
                xycoords=("axes fraction", "data"),
                ha="right" if across > 0.5 else "left",  # noqa: PLR2004 - the middle
                va="bottom",
                fontsize=8,
            )
    axes.set(
        title="RL of the tiny reverse-text example",
        xlabel="step",
        ylabel="mean reward of the rollouts trained on",
        ylim=(0, 1.02),
    )
    axes.legend(loc="lower right", fontsize=8, bbox_to_anchor=(1.0, 0.12))
    figure.tight_layout()
    figure.savefig(picture)


def draw_pace(found: dict[str, Any], pairs: Sequence[str], picture: Path) -> None:
    """Seconds of each step of the pairs' runs; what is compared lies between the dotted lines."""
    from matplotlib import pyplot as plt

    figure, all_axes = plt.subplots(ncols=len(pairs), figsize=(7.5, 3.6), dpi=120, sharey=True, squeeze=False)
    for name, axes in zip(pairs, all_axes[0], strict=True):
        runs = pair_of(found, name)
        began = min(steps[0][0] for steps in runs)
        for steps, label, colour in zip(runs, ("the plugin", "prime-rl's own rl"), ("C0", "C1"), strict=True):
            minutes = [(at - began) / 60 for at, _ in steps[1:]]
            seconds = [took for _, took in steps[1:]]
            smooth = [
                fmean(seconds[max(0, middle - SMOOTHED // 2) : middle + SMOOTHED // 2])
                for middle in range(len(seconds))
            ]
            axes.plot(minutes, seconds, ".", markersize=2, alpha=0.5, color=colour)
            axes.plot(minutes, smooth, linewidth=1.2, color=colour, label=label)
        for at in common(runs) or ():
            axes.axvline((at - began) / 60, color="grey", linewidth=0.8, linestyle=":")
        axes.set(xlabel="minutes after the first step of a pair", ylim=(0, None), title=name)
    all_axes[0][0].set_ylabel("seconds a step")
    all_axes[0][0].legend(loc="lower right", fontsize=8, title=f"mean of {SMOOTHED} steps", title_fontsize=8)
    figure.tight_layout()
    figure.savefig(picture)


if __name__ == "__main__":
    main()
