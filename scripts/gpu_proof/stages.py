"""What is shown, a function for each: it submits, waits, measures, and returns what it found."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_proof import jobs, moments, rewards
from gpu_proof.place import CHECKOUT, Place, StageError, call, read_json
from medarc_plugin.errors import MedarcError
from medarc_plugin.job.ports import Lease, rewritten
from medarc_plugin.process import run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SFT = "tiny-sft"
ONE, TWO, REQUEUED = "rl-one", "rl-two", "rl-requeued"
REHEARSAL = "rehearsal"
BY_HAND, FIXED_PORTS = "by-hand", ("fixed-ports-1", "fixed-ports-2")
PACES = ("pace", "pace-again")

SHORT = 12
"""Steps of a run that is made for its start alone."""

HARNESS = Path(__file__).with_name("harness")
"""On `PYTHONPATH` of those runs: where verifiers finds `in-process-chat`."""

SETTLED = 15
"""Steps of each run that do not count in the comparison.

prime-rl has 32 answers in the making at first, and all of them only ten steps later; of two runs the one that
begins later would look slower.
"""

STILL_SECONDS = 120.0
"""A run of a pair that makes no step for so long stands still."""

PARTS = ("plugin", "by-hand")
"""The runs of a pair: the plugin's, and prime-rl's own."""

PORTS = {BY_HAND: 7100, "pace-by-hand": 7200, "pace-again-by-hand": 7300}
"""First port of a run by hand that is not to meet another one, below those that a job leases."""

COMPILE_CACHES = ("VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "CUDA_CACHE_PATH")
"""Where vLLM, PyTorch, Triton and the driver keep what they compile."""

RESUME_AFTER = 5
KILL_AFTER = 10


@dataclass(frozen=True)
class Stage:
    """One thing to show.

    Attributes:
        name: Its name.
        shows: What it shows, in a few words.
        run: Does it; returns what goes into the table.
        after: Stages that must be done before.
        gpus: GPUs that it takes.
        seconds: How long it takes about; it is not begun with less of the budget left.
    """

    name: str
    shows: str
    run: Callable[[Place], dict[str, Any]]
    after: tuple[str, ...] = ()
    gpus: int = 0
    seconds: int = 60

    def seconds_in(self, place: Place) -> float:
        """How much of the budget it needs; a comparison of the pace takes its time beside."""
        return self.seconds + (place.pace_seconds if self.name in PACES else 0.0)


def make_tiny(place: Place) -> dict[str, Any]:
    """Write the model and the data."""
    began = time.monotonic()
    jobs.move_aside(place.tiny)
    call(place, "tiny", [place.python, jobs.example("make_tiny.py"), place.tiny])
    return {"seconds": round(time.monotonic() - began, 1)}


def train_sft(place: Place) -> dict[str, Any]:
    """Fine-tune the tiny model."""
    arguments: list[str | Path] = ["@", jobs.example("sft.toml"), "--gpus", "1", "--hf-hub-offline"]
    job = jobs.submit(place, SFT, "sft", arguments, SFT)
    if place.asks_for(ONE):
        place.submitted[ONE] = submit_rl_one(place, job)
    jobs.follow_to_success(place, job)
    return told(place, job) | {"weights": str(weights(job.run_dir))}


def rl_arguments(*shape: str) -> list[str | Path]:
    """What every RL run of the proof is started with.

    The config names as its model what SFT will have exported at its end: it need not be there when RL is
    submitted.
    """
    return ["@", jobs.example("rl.toml"), *shape, "--hf-hub-offline"]


def submit_rl_one(place: Place, sft: jobs.Job | None = None) -> jobs.Job:
    """Submit RL on one GPU; behind an SFT that is queued, SLURM starts it when that has ended well."""
    after = () if sft is None else ("--dependency", f"afterok:{sft.job_id}")
    return jobs.submit(place, ONE, "rl", rl_arguments("--single-gpu", *after), ONE)


def rl_one(place: Place) -> dict[str, Any]:
    """RL with trainer and vLLM on one GPU, nothing compiled before."""
    job = place.submitted.pop(ONE, None) or submit_rl_one(place)
    jobs.follow_to_success(place, job)
    return told(place, job)


def rehearsal(place: Place) -> dict[str, Any]:
    """Every check up to the launch of RL on one GPU, and no launch."""
    job = jobs.submit(place, REHEARSAL, "rl", rl_arguments("--single-gpu", "--rehearse"), REHEARSAL)
    jobs.follow_to_success(place, job)
    checks = jobs.checks(job.run_dir)
    return {
        "checks": {
            word: sum(line.startswith(f"[{word}]") for line in checks) for word in (" ok ", "FAIL", "skip")
        },
        "skipped": [line for line in checks if line.startswith("[skip]")],
        "said": jobs.last_words(job.run_dir),
    }


def rl_two(place: Place) -> dict[str, Any]:
    """RL with a GPU for vLLM and one for the trainer."""
    shape = ("--train-gpus", "1", "--infer-gpus", "1")
    job = jobs.submit(place, TWO, "rl", rl_arguments(*shape), TWO)
    jobs.follow_to_success(place, job)
    return told(place, job)


def rl_requeued(place: Place) -> dict[str, Any]:
    """RL that is requeued once, and whose trainer is killed once."""
    job = jobs.submit(place, REQUEUED, "rl", rl_arguments("--single-gpu"), REQUEUED)
    wait_for_checkpoint(place, job, RESUME_AFTER)
    call(place, REQUEUED, ["scontrol", "requeue", job.job_id])
    wait_for_checkpoint(place, job, KILL_AFTER)
    killed = jobs.kill_trainer(job.run_dir)
    jobs.follow_to_success(place, job)
    return told(place, job) | {"killed": killed}


def wait_for_checkpoint(place: Place, job: jobs.Job, step: int) -> None:
    """Wait until a run has a whole checkpoint of a step or a later one."""
    while max(jobs.whole_checkpoints(job.run_dir), default=0) < step:
        if jobs.is_over(job):
            raise StageError(f"it ended before step {step}: {jobs.last_words(job.run_dir)}")
        place.pause()


def told(place: Place, job: jobs.Job) -> dict[str, Any]:
    """What the records of a run tell."""
    state = jobs.state(job.run_dir)
    return {
        "job": job.job_id,
        "attempts": [
            {key: line.get(key) for key in ("attempt", "reason", "resumed_from", "step", "gpus", "ports")}
            for line in jobs.attempts(job.run_dir)
        ],
        "step": state.get("step"),
        "step_seconds": moments.step_seconds(job.run_dir),
        "timeline": moments.timeline(moments.logs_of(job.run_dir), jobs.started_at(job)),
        "rewards": moments.rewards(job.run_dir),
        "memory": memory_used(place, job.run_dir),
        "trainer_peak_memory_gib": moments.peak_memory_gib(job.run_dir),
    }


def memory_used(place: Place, run_dir: Path) -> dict[str, Any]:
    """The most memory of the run's GPUs while it ran, beside what was planned."""
    plan = read_json(run_dir / "configs" / "launch" / "launch.json") or {}
    served = read_json(run_dir / "configs" / "attempts" / "1" / "inference.json") or {}
    lines = jobs.attempts(run_dir)
    gpus = {gpu for line in lines for gpu in line.get("gpus") or ()}
    began = min((line["started"] for line in lines), default="")
    ended = max((line["ended"] for line in lines), default="")
    most: dict[int, int] = {}
    file = place.work / "gpus.csv"
    for row in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        at, *numbers = row.split(",")
        # The driver may know no number, and the last row may be cut.
        if len(numbers) != 2 or not all(map(str.isdecimal, numbers)):  # noqa: PLR2004 - index and memory
            continue
        index, used = map(int, numbers)
        if index in gpus and began <= at <= ended:
            most[index] = max(most.get(index, 0), used)
    return {
        "share": ((served.get("vllm") or {}).get("gpu_memory_utilization")),
        "planned": plan.get("memory"),
        "most_used_mib": most,
    }


def weights(run_dir: Path) -> Path:
    """The exported weights of a run.

    Raises:
        StageError: There are none.
    """
    steps = {
        int(found[1]): folder
        for folder in run_dir.glob("weights/*")
        if (found := re.fullmatch(r"step_(\d+)", folder.name))
    }
    if not steps:
        raise StageError(f"{run_dir} has no exported weights")
    return steps[max(steps)]


def evaluation(name: str, model: Callable[[Place], Path]) -> Callable[[Place], dict[str, Any]]:
    """Make the stage that evaluates a model."""

    def evaluate(place: Place) -> dict[str, Any]:
        return rewards.evaluate(place, f"eval-{name}", model(place), name)

    return evaluate


def by_hand(place: Place) -> dict[str, Any]:
    """prime-rl's own `rl`, with the one-GPU run's config, nothing compiled before."""
    job = submit_by_hand(place, BY_HAND, steps=SHORT, cold=True)
    state = jobs.follow(place, job)
    if state != "COMPLETED":
        raise StageError(f"prime-rl's own run ended {state}; see {place.work}/by-hand/{BY_HAND}.log")
    return told_by_hand(place, job)


def pair(name: str) -> Callable[[Place], dict[str, Any]]:
    """Make the stage that has the plugin's run and prime-rl's own at the same time, a GPU each.

    Side by side, so that both have the same machine, and for as long as is needed to tell them apart; then
    both are ended.
    """

    def run_pair(place: Place) -> dict[str, Any]:
        our_name, their_name = (f"{name}-{part}" for part in PARTS)
        python_path = {"PYTHONPATH": str(HARNESS)}
        arguments: list[str | Path] = ["@", paced_config(place), "--single-gpu", "--hf-hub-offline"]
        arguments += ["--env", f"PYTHONPATH={HARNESS}"]
        both = [jobs.submit(place, name, "rl", arguments, our_name, environment=python_path)]
        try:
            wait_for_launch(place, both[0])
            both.append(submit_by_hand(place, their_name, like=our_name, variables=python_path))
            work_for(place, both, place.pace_seconds)
            refuse_standstill(both)
        finally:
            for job in both:
                jobs.cancel(job)
        for job in both:
            jobs.follow(place, job)
        ours, theirs = both
        found = {PARTS[0]: told(place, ours), PARTS[1]: told_by_hand(place, theirs)}
        for part, job in zip(PARTS, both, strict=True):
            found[part]["steps_ended"] = moments.steps_ended(job.run_dir)
        return found

    return run_pair


def work_for(place: Place, together: Sequence[jobs.Job], seconds: float) -> None:
    """Wait until all of some runs have worked for a time, past their first steps.

    Raises:
        StageError: One of them ended before.
    """
    began = None
    while began is None or time.monotonic() < began + seconds:
        for job in together:
            if jobs.is_over(job):
                raise StageError(f"{job.run_dir.name} ended before the comparison did: see its logs")
        if began is None and all(len(moments.steps_ended(job.run_dir)) >= SETTLED for job in together):
            began = time.monotonic()
        place.pause(2.0)


def refuse_standstill(together: Sequence[jobs.Job]) -> None:
    """Make sure that runs have gone on until now: the comparison counts the steps that have ended.

    Raises:
        StageError: One of them stands still.
    """
    for job in together:
        still = time.time() - moments.steps_ended(job.run_dir)[-1][0]
        if still > STILL_SECONDS:
            raise StageError(f"{job.run_dir.name} has made no step for {still:.0f} s: see its logs")


def paced_config(place: Place) -> Path:
    """Write the example's RL config for a comparison of the pace.

    What would hide a small difference is taken away: no answer has a process of its own, which would wait for
    a CPU; the policy hardly learns, so that answers stay as long as they are; no evaluation comes between.
    Twice the batch makes the trainer's step longer than vLLM takes to read weights: prime-rl deletes those of
    the step before the last, read or not.
    """
    text = jobs.example("rl.toml").read_text(encoding="utf-8")
    for name, old, new in (
        ("max_steps", r"\d+", "100000"),
        ("lr", "3e-4", "1e-6"),
        ("batch_size", "128", "256"),
        ("interval", "15", "100000"),
        ("id", '"null"', '"in-process-chat"'),
    ):
        text, count = re.subn(rf"^{name} = {old}(?!\S)", f"{name} = {new}", text, flags=re.MULTILINE)
        if not count:
            raise StageError(f"the example's rl.toml has no {name} = {old} any more")
    file = place.work / "paced.toml"
    file.write_text(text, encoding="utf-8")
    return file


def wait_for_launch(place: Place, job: jobs.Job) -> None:
    """Wait until a run's first attempt has written what it launches with."""
    while not (job.run_dir / "configs" / "attempts" / "1" / "launched.json").exists():
        if jobs.is_over(job):
            raise StageError(f"it ended before its launch: {jobs.last_words(job.run_dir)}")
        place.pause()


def told_by_hand(place: Place, job: jobs.Job) -> dict[str, Any]:
    """What the records of prime-rl's own run tell."""
    return {
        "job": job.job_id,
        "step_seconds": moments.step_seconds(job.run_dir),
        "timeline": hand_timeline(place, job),
        "rewards": moments.rewards(job.run_dir),
    }


def fixed_ports(place: Place) -> dict[str, Any]:
    """Two of prime-rl's own runs at once, a GPU for each, with the ports that prime-rl gives both."""
    pair = [submit_by_hand(place, name) for name in FIXED_PORTS]
    while not any(jobs.is_over(job) for job in pair):
        if all(jobs.whole_checkpoints(job.run_dir) for job in pair):
            break
        place.pause()
    states = [jobs.slurm_state(job) for job in pair]
    for job in pair:
        jobs.cancel(job)
    for job in pair:
        jobs.follow(place, job)
    said = [line for job in pair for line in complaints(place, job)]
    return {"states": states, "one_failed": "FAILED" in states, "said": said[:4]}


def complaints(place: Place, job: jobs.Job) -> list[str]:
    """What the logs of a run by hand say about ports."""
    logs = [*job.run_dir.glob("logs/attempt_1/**/*.log"), place.work / "by-hand" / f"{job.run_dir.name}.log"]
    return [
        f"{file.name}: {line}"
        for file in logs
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines()
        if "ddress already in use" in line or ("port" in line.lower() and "in use" in line)
    ]


def hand_timeline(place: Place, job: jobs.Job) -> dict[str, float | None]:
    """Moments of a run that was started by hand."""
    logs = moments.logs_of(job.run_dir, launcher=place.work / "by-hand" / f"{job.run_dir.name}.log")
    return moments.timeline(logs, jobs.started_at(job))


def submit_by_hand(
    place: Place,
    name: str,
    like: str = ONE,
    steps: int | None = None,
    *,
    cold: bool = False,
    variables: Mapping[str, str] | None = None,
) -> jobs.Job:
    """Write and submit what a person would, for one GPU that both components share.

    Args:
        place: The proof.
        name: The run's name.
        like: The run whose config it gets.
        steps: Steps to make; as many as that run unless given.
        cold: Whether it finds nothing compiled; it finds what earlier ones have compiled unless so.
        variables: Further variables of its environment.
    """
    configs = place.run_dir(like) / "configs"
    config = read_json(configs / "rl.json")
    served = read_json(configs / "attempts" / "1" / "inference.json")
    plan = read_json(configs / "launch" / "launch.json")
    if name in PORTS:
        with socket.socket() as unbound:
            block = Lease(PORTS[name], plan["ports"]["size"], unbound)
            config = rewritten(config, plan["ports"]["slots"], block)
    config["inference"]["vllm"]["gpu_memory_utilization"] = served["vllm"]["gpu_memory_utilization"]
    if steps is not None:
        for part in (config, config["trainer"], config["orchestrator"]):
            part["max_steps"] = steps
    file = place.work / "by-hand" / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    # The resolved config names its run directory in every component's part.
    text = json.dumps(config, indent=2).replace(str(place.run_dir(like)), str(place.run_dir(name)))
    file.write_text(text.replace(f'"{like}"', f'"{name}"'), encoding="utf-8")
    command = [str(place.python.with_name("rl")), "@", str(file)]
    caches = place.work / "by-hand" / (f"caches-of-{name}" if cold else "caches")
    script = [
        "#!/bin/bash",
        f"#SBATCH --job-name={name}",
        "#SBATCH --gres=gpu:1 --cpus-per-task=8",
        f"cd {shlex.quote(str(place.work))}",
        f"export PATH={shlex.quote(str(place.python.parent))}:$PATH",
        "export HF_HUB_OFFLINE=1",
        *(f"export {name}={shlex.quote(str(caches / name.lower()))}" for name in COMPILE_CACHES),
        *(f"export {name}={shlex.quote(value)}" for name, value in (variables or {}).items()),
        "export CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES,$CUDA_VISIBLE_DEVICES",
        f"exec {shlex.join(command)}",
    ]
    return jobs.submit_by_hand(place, name, "".join(f"{line}\n" for line in script), name)


def compare_weights(place: Place) -> dict[str, Any]:
    """Exported weights in transformers and in vLLM, against the trainer's own."""
    run_dir = place.run_dir(ONE)
    exported = weights(run_dir)
    strings = place.work / "greedy.json"
    texts = rewards.held_out(place)[: rewards.GREEDY]
    strings.write_text(json.dumps([[rewards.SYSTEM, text] for text in texts]), encoding="utf-8")
    script = CHECKOUT / "scripts" / "gpu_proof" / "compare_weights.py"
    checkpoint = run_dir / "checkpoints" / exported.name / "trainer"
    command = [place.python, script, place.tiny / "model", checkpoint, exported, strings]
    # It needs no GPU; a thread on each CPU would keep the runs beside it from their answers.
    out = call(place, "weights", command, environment={"OMP_NUM_THREADS": "4"})
    found: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
    served = (place.found("eval-rl-one") or {}).get("greedy", [])
    own = [text.strip() for text in found["trainer"]]
    return {
        "tensors": found["tensors"],
        "equal_tensors": found["equal_tensors"],
        "not_in_the_checkpoint": found["not_in_the_checkpoint"],
        "not_in_the_model": found["not_in_the_model"],
        "strings": len(own),
        "same_in_transformers": sum(
            one == other.strip() for one, other in zip(own, found["exported"], strict=True)
        ),
        "same_in_vllm": sum(one == other.strip() for one, other in zip(own, served, strict=False)),
        "answers": {"trainer": own, "vllm": served},
    }


def base_model(place: Place) -> Path:
    """The model before any training."""
    return place.tiny / "model"


def weights_of(run: str) -> Callable[[Place], Path]:
    """Make a function that finds a run's exported weights."""
    return lambda place: weights(place.run_dir(run))


STAGES = (
    Stage("tiny", "model and data are made", make_tiny, seconds=30),
    Stage(SFT, "SFT on one GPU", train_sft, ("tiny",), gpus=1, seconds=150),
    # Before all that SLURM could put behind its job: that is submitted behind SFT, which alone it waits for.
    Stage(ONE, "RL on one GPU", rl_one, (SFT,), gpus=1, seconds=400),
    Stage("eval-base", "reward before training", evaluation("base", base_model), ("tiny",), 1, 120),
    Stage(REQUEUED, "RL with a requeue and a killed trainer", rl_requeued, (SFT,), gpus=1, seconds=700),
    Stage(TWO, "RL on two GPUs", rl_two, (SFT,), gpus=2, seconds=300),
    Stage(PACES[0], "the plugin's rl and prime-rl's own, side by side", pair(PACES[0]), (SFT,), 2, 200),
    Stage(f"eval-{ONE}", "reward after RL", evaluation(ONE, weights_of(ONE)), (ONE,), 1, 120),
    Stage("eval-sft", "reward after SFT", evaluation("sft", weights_of(SFT)), (SFT,), 1, 120),
    Stage(f"eval-{TWO}", "reward after RL on two GPUs", evaluation(TWO, weights_of(TWO)), (TWO,), 1, 120),
    Stage(BY_HAND, "prime-rl's own rl, same config", by_hand, (ONE,), gpus=1, seconds=180),
    Stage("weights", "the exported weights are the trainer's", compare_weights, (f"eval-{ONE}",), 0, 30),
    Stage(
        f"eval-{REQUEUED}",
        "reward after the interrupted RL",
        evaluation(REQUEUED, weights_of(REQUEUED)),
        (REQUEUED,),
        gpus=1,
        seconds=120,
    ),
    Stage(PACES[1], "the same pair once more", pair(PACES[1]), (SFT,), 2, 200),
    Stage(REHEARSAL, "a rehearsal finds that the run would start", rehearsal, (SFT,), gpus=1, seconds=60),
    Stage("fixed-ports", "two of prime-rl's own at once", fixed_ports, (ONE,), gpus=2, seconds=60),
)
"""In the order in which they are begun when time and GPUs allow."""


def begin(place: Place) -> None:
    """Make sure that no job of an earlier call is left; one that was killed leaves SLURM as it is."""
    cancel_all()
    while call(place, "begin", ["squeue", "--noheader", "--format=%A"]).strip():
        place.pause()


def drop(place: Place, stage: Stage) -> None:
    """Remember that a stage will not be begun, and end what was submitted for it."""
    place.dropped.add(stage.name)
    job = place.submitted.pop(stage.name, None)
    if job is not None:
        with contextlib.suppress(MedarcError):
            jobs.cancel(job)


def cancel_all() -> None:
    """End every job of the proof."""
    run(["scancel", "--me"], timeout=60)
