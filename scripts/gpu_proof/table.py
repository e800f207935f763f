"""The table at the end, from what the stages found."""

from __future__ import annotations

from bisect import bisect_right
from math import fsum
from operator import sub
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from gpu_proof import stages
from gpu_proof.moments import MOMENTS
from gpu_proof.place import read_json
from medarc_plugin.job.memory import GIB

if TYPE_CHECKING:
    from gpu_proof.place import Place

EVALUATED = {
    "base": "before training",
    "sft": "after SFT",
    stages.ONE: "after RL, one GPU",
    stages.TWO: "after RL, two GPUs",
    stages.REQUEUED: "after RL, requeued and killed on the way",
}
RUNS = {
    stages.ONE: "plugin, cold",
    stages.BY_HAND: "prime-rl's own `rl`, cold",
    "pace-plugin": "plugin, beside the next",
    "pace-by-hand": "prime-rl's own `rl`, beside the one before",
    "pace-again-plugin": "plugin, again",
    "pace-again-by-hand": "prime-rl's own `rl`, again",
}
"""By what had been compiled before."""


PLANNED = {"trainer": "trainer_bytes", "vLLM at least": "inference_bytes", "beside both": "reserve_bytes"}
"""Parts of the plan of a GPU's memory, in bytes."""

BLOCK_SECONDS = 30.0
"""What is one observation of the pace: about a dozen steps of each run."""


def render(place: Place) -> str:
    """Write what was seen as Markdown; what was not seen is there too."""
    found = {stage.name: place.found(stage.name) for stage in stages.STAGES}
    found |= paired(found)
    parts = [machine(place), rewards(found), starts(found), steps(found), memory(found)]
    return "\n".join([*parts, others(found), seen(place)])


def paired(found: dict[str, Any]) -> dict[str, Any]:
    """The runs of the pairs, by the names of their directories."""
    return {
        f"{name}-{part}": (found.get(name) or {}).get(part) for name in stages.PACES for part in stages.PARTS
    }


def machine(place: Place) -> str:
    """The machine of each call."""
    calls: list[dict[str, Any]] = read_json(place.work / "machine.json") or []
    lines = [
        f"- {key}: " + ", then ".join(dict.fromkeys(str(call.get(key)) for call in calls))
        for key in dict.fromkeys(key for call in calls for key in call)
    ]
    return "\n".join(["## Machine", "", *lines, ""])


def rewards(found: dict[str, Any]) -> str:
    """Mean rewards on held-out strings."""
    lines = ["## Reward on held-out strings", "", "| model | 20 x 3 | 200 x 3 |", "|---|---|---|"]
    for name, title in EVALUATED.items():
        values = (found.get(f"eval-{name}") or {}).get("rewards") or {}
        cells = [
            f"{value['reward']:.3f} ± {value['standard_error'] or 0:.3f}" if value else "not seen"
            for value in (values.get("20 x 3"), values.get("200 x 3"))
        ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def starts(found: dict[str, Any]) -> str:
    """Where the start's time goes."""
    names = [name for name in RUNS if (found.get(name) or {}).get("timeline")]
    lines = ["## Seconds after the job's start", ""]
    if not names:
        return "\n".join([*lines, "No run was seen.", ""])
    lines += [f"| moment | {' | '.join(RUNS[name] for name in names)} |", "|---" * (len(names) + 1) + "|"]
    for moment in MOMENTS:
        cells = [_seconds(found[name]["timeline"].get(moment.name)) for name in names]
        lines.append(f"| {moment.name} | {' | '.join(cells)} |")
    for key in (f"eval-{name}" for name in EVALUATED):
        if (found.get(key) or {}).get("healthy"):
            lines.append(f"\n`inference` of {key} was healthy after {found[key]['healthy']} s")
    return "\n".join([*lines, ""])


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def steps(found: dict[str, Any]) -> str:
    """Seconds a step."""
    lines = ["## Seconds a step of RL", "", "| run | steps | median | batch | forward, backward |"]
    lines.append("|---|---|---|---|---|")
    for name in (*RUNS, stages.TWO, stages.REQUEUED):
        told = (found.get(name) or {}).get("step_seconds")
        if told:
            cells = (told.get("median"), told.get("wait_for_batch"), told.get("forward_backward"))
            title = RUNS.get(name, name)
            lines.append(f"| {title} | {told['steps']} | {' | '.join(map(str, cells))} |")
    ratio = pace(found)
    if ratio:
        lines.append("")
        ours, theirs = ratio["steps"]
        lines.append(
            f"While both runs of a pair were at work, the plugin's made {ours} steps and prime-rl's own "
            f"{theirs}; one of the plugin took {ratio['ratio']:.3f} ± {ratio['error']:.3f} times as long."
        )
    return "\n".join([*lines, ""])


def pace(found: dict[str, Any]) -> dict[str, Any] | None:
    """Compare the mean step of the plugin's runs with that of prime-rl's own, while both were at work.

    The common time is cut into blocks, in each of which both runs of a pair are compared: what slows the
    machine slows both, and steps of a run that depend on the one before are mostly in one block with it.

    Returns:
        `ratio`, its standard error `error` over the blocks, and the numbers of `steps`; `None` when no pair
        was seen for two blocks.
    """
    blocks: list[tuple[float, float]] = []
    counts = [0, 0]
    for name in stages.PACES:
        runs = pair_of(found, name)
        window = common(runs)
        if window is None:
            continue
        began, ended = window
        edges = [began + BLOCK_SECONDS * number for number in range(int((ended - began) / BLOCK_SECONDS) + 1)]
        ours, theirs = ([steps_made(steps, at) for at in edges] for steps in runs)
        blocks += zip(map(sub, ours[1:], ours), map(sub, theirs[1:], theirs), strict=True)
        for part, steps in enumerate(runs):
            counts[part] += sum(began < at <= ended for at, _ in steps)
    if len(blocks) < 2:  # noqa: PLR2004 - a standard deviation takes two
        return None
    made = [fsum(part) for part in zip(*blocks, strict=True)]
    ratio = made[1] / made[0]
    error = stdev(theirs - ratio * ours for ours, theirs in blocks) * len(blocks) ** 0.5 / made[0]
    return {"ratio": ratio, "error": error, "steps": tuple(counts)}


def steps_made(steps: list[tuple[float, float]], at: float) -> float:
    """How many steps a run has made until a moment, with the part of the one that it is at."""
    ends = [end for end, _ in steps]
    done = bisect_right(ends, at)
    if not 0 < done < len(ends):
        return float(done)
    return done + (at - ends[done - 1]) / (ends[done] - ends[done - 1])


def pair_of(found: dict[str, Any], name: str) -> list[list[tuple[float, float]]]:
    """When each step of a pair's runs ended and how long it took; the plugin's first."""
    return [(found.get(f"{name}-{part}") or {}).get("steps_ended", []) for part in stages.PARTS]


def common(runs: list[list[tuple[float, float]]]) -> tuple[float, float] | None:
    """When both of a pair's runs were at work, past their first steps, in seconds since the epoch.

    Whichever ends first leaves the other one all of the machine: only what they have in common counts.
    """
    if min(map(len, runs)) <= stages.SETTLED:
        return None
    return max(steps[stages.SETTLED - 1][0] for steps in runs), min(steps[-1][0] for steps in runs)


def memory(found: dict[str, Any]) -> str:
    """Memory of the GPUs, planned and used."""
    told = [(name, found[name]) for name in (stages.ONE, "pace-plugin", stages.TWO) if found.get(name)]
    lines = ["## Memory", ""]
    for name, it in told:
        known = it.get("memory") or {}
        share, planned, used = (known.get(key) or {} for key in ("share", "planned", "most_used_mib"))
        words = [f"vLLM's share {share}"] if share else []
        words += [
            f"planned {what} {planned[key] / GIB:.2f} GiB"
            for what, key in PLANNED.items()
            if planned.get(key)
        ]
        words += [f"used at most {mib / 1024:.1f} GiB of GPU {gpu}" for gpu, mib in used.items()]
        if it.get("trainer_peak_memory_gib") is not None:
            words.append(f"reserved by the trainer {it['trainer_peak_memory_gib']:.2f} GiB")
        lines.append(f"- {name}: {', '.join(words) or 'not known'}")
    return "\n".join([*lines, ""])


def others(found: dict[str, Any]) -> str:
    """Everything else in a line each."""
    lines = ["## Else", ""]
    for name in (stages.ONE, stages.TWO, stages.REQUEUED, *paired(found)):
        told = found.get(name)
        if told and told.get("rewards"):
            last = [reward for _, reward in told["rewards"][-3:]]
            lines.append(
                f"- {name}: training reward {told['rewards'][0][1]:.3f} at first, {fmean(last):.3f} at last"
            )
        if told and told.get("attempts"):
            lines.append(f"- {name}: attempts {told['attempts']}")
    shown = [(name, found[name]) for name in ("fixed-ports", "weights", stages.REHEARSAL) if found.get(name)]
    lines += [f"- {name}: { {key: it[key] for key in it if key != 'answers'} }" for name, it in shown]
    return "\n".join([*lines, ""])


def seen(place: Place) -> str:
    """What was shown and what was not."""
    lines = ["## Stages", "", "| stage | shows | result |", "|---|---|---|"]
    for stage in stages.STAGES:
        failed = place.work / "results" / f"{stage.name}.failed"
        if place.found(stage.name) is not None:
            word = f"seen, {read_json(place.result(stage.name)).get('seconds')} s"
        elif failed.exists():
            told = failed.read_text(encoding="utf-8", errors="replace").splitlines()
            word = told[-1] if told else "FAILED, and could not write why"
        else:
            word = "NOT SEEN"
        lines.append(f"| {stage.name} | {stage.shows} | {word} |")
    return "\n".join([*lines, ""])
