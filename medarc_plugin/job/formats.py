"""How each prime-rl words what it does: names of its files, metric keys and log lines, by shape.

Nothing else in this folder knows a metric's key or a log's wording. A prime-rl whose files differ gets
a `Format` of its own beside `MAIN`. `tests/job/test_formats.py` holds them to prime-rl's source.

Beside each name stands the file of prime-rl's `src/prime_rl` that writes it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    Pattern = re.Pattern[str]

VLLM = "inference (vLLM)"
ROLLOUTS = "rollouts of the environments' servers and of inference (vLLM)"
TRAINER, ORCHESTRATOR, INFERENCE, EVALS = "trainer", "orchestrator", "inference", "evals"
ENV_SERVER = "{split} env server {name}"
LAUNCHER = "prime-rl's launcher"


@dataclass(frozen=True)
class Metrics:
    """Keys of the rows of prime-rl's metrics file; each row has a `step` and a `time` too.

    Attributes:
        loss: Mean loss of a step.
        validation_loss: Mean loss over the validation set.
        throughput: Tokens a second of the trainer.
        peak_memory: GPU memory that the trainer reserved at most in a step, in GiB.
        step_seconds: How long a step took; the trainer's and the orchestrator's rows both have it.
        trainer_seconds: Parts of a trainer's step; the row with `forward_backward` is its last.
        rollout_seconds: Parts of an orchestrator's step; the row with `wait_for_policy` is its.
        train_reward: Matches the mean reward of the rollouts that a step trained on, by agent.
        eval_reward: Matches the mean reward of an evaluation; groups `name` and `agent`.
    """

    loss: str
    validation_loss: str
    throughput: str
    peak_memory: str
    step_seconds: str
    trainer_seconds: Mapping[str, str]
    rollout_seconds: Mapping[str, str]
    train_reward: Pattern
    eval_reward: Pattern


@dataclass(frozen=True)
class Mark:
    """A log line that tells what a component waits for.

    Attributes:
        component: Whose log it is.
        pattern: Found in the line's message.
        waits_for: Whom it waits for from then on; empty when it goes on.
        weak: Counts only where no other line tells: it is said again and again, whatever happens.
    """

    component: str
    pattern: Pattern
    waits_for: str
    weak: bool = False


@dataclass(frozen=True)
class Format:
    """One prime-rl's files and wordings.

    Attributes:
        shape: Name of the shape, as the config's.
        metrics_file: The metrics file below the run directory, where the config names no other.
        metrics_table: Where a config switches it on or off; its last part is the table.
        metrics_name: The file's name, in that table.
        metrics_by_default: Whether it is written by a config that says nothing of it.
        orchestrator_folder: Folder below the run directory with the orchestrator's metrics; empty where
            they are the trainer's.
        logs: The folder of the newest launch's logs.
        keeps_logs: Whether that is a link to a folder which each launch has for itself.
        log: Below it, the log of each component.
        env_log: Below it, an environment server's log.
        ranks: Below it, what each process of the trainer printed; the pattern of one process's folder.
        metrics: Keys of the metrics file.
        memory_measured: vLLM has measured the GPU's free memory.
        pool_ready: vLLM answers.
        resumed: The trainer goes on behind a checkpoint; group `step`.
        evals_start: Evaluations begin; group `names`, separated by commas.
        eval_ends: One ended, well or not; groups `name` and `skipped`, one of them.
        eval_result: What came of one, for runs without a metrics file; groups `name`, `step`, `reward`.
        trainer_ends: The trainer has made all its steps.
        trainer_step: A step in the trainer's log, for runs without a metrics file.
        rollout_step: A step in the orchestrator's log, likewise.
        failed: The launcher says which component failed; groups `component` and `code`.
        env_server: The same component as the two launchers name it; groups `split` and `name`.
        chatter: Lines that are said again and again while nothing happens.
        marks: What tells who waits for whom; the last one found in a log counts.
    """

    shape: str
    metrics_file: str
    metrics_table: tuple[str, ...]
    metrics_name: str
    metrics_by_default: bool
    orchestrator_folder: str
    logs: str
    keeps_logs: bool
    log: Mapping[str, str]
    env_log: str
    ranks: str
    metrics: Metrics
    memory_measured: Pattern
    pool_ready: Pattern
    resumed: Pattern
    evals_start: Pattern
    eval_ends: Pattern
    eval_result: Pattern
    trainer_ends: Pattern
    trainer_step: Pattern
    rollout_step: Pattern
    failed: Pattern
    env_server: Pattern
    chatter: Pattern
    marks: tuple[Mark, ...]

    def metrics_path(self, run_dir: Path, config: Mapping[str, Any]) -> Path | None:
        """Where a run's trainer writes its metrics; `None` for a config without."""
        # What an RL config says for all of its components is already in the trainer's part.
        own = config.get("trainer")
        return self._file(run_dir, own if isinstance(own, dict) else config)

    def metrics_paths(self, run_dir: Path, config: Mapping[str, Any]) -> tuple[Path, ...]:
        """Where all of a run's components write their metrics."""
        own = config.get("orchestrator")
        apart = self.orchestrator_folder and isinstance(own, dict)
        orchestrator = self._file(run_dir / self.orchestrator_folder, own) if apart and own else None
        found = (self.metrics_path(run_dir, config), orchestrator)
        return tuple(path for path in found if path is not None)

    def _file(self, folder: Path, config: Mapping[str, Any]) -> Path | None:
        *tables, name = self.metrics_table
        table: Any = config
        for key in tables:
            table = table.get(key) if isinstance(table, dict) else None
        if not isinstance(table, dict) or name not in table:
            return folder / self.metrics_file if self.metrics_by_default else None
        file = table[name]
        if not isinstance(file, dict):
            return None
        return folder / str(file.get(self.metrics_name) or self.metrics_file)


MAIN = Format(
    shape="main",
    metrics_file="metrics.jsonl",  # monitors/file.py, and FileMonitorConfig.path
    metrics_table=("monitors", "file"),
    metrics_name="path",
    metrics_by_default=True,
    orchestrator_folder="",
    logs="logs/latest",  # utils/pathing.py
    keeps_logs=True,
    # entrypoints/rl.py and entrypoints/sft.py
    log={
        TRAINER: "trainer.log",
        ORCHESTRATOR: "orchestrator.log",
        INFERENCE: "inference.log",
        EVALS: "evals.log",
    },
    env_log="envs/{split}/{name}.log",
    # torchrun: --log-dir, the rendezvous id with a suffix, the attempt, the local rank
    ranks="trainer/torchrun/*/attempt_*/{rank}",
    metrics=Metrics(
        loss="loss/mean",  # trainer/rl/train.py, trainer/sft/train.py
        validation_loss="val/loss",  # trainer/sft/train.py
        throughput="perf/throughput",  # both trainers
        peak_memory="perf/peak_memory",  # both trainers
        step_seconds="time/step",  # both trainers, orchestrator/orchestrator.py
        trainer_seconds={
            "wait_for_batch": "time/wait_for_batch",  # trainer/rl/train.py
            "load_data": "time/load_data",  # trainer/rl/train.py
            "forward_backward": "time/forward_backward",  # both trainers
            "broadcast_weights": "time/broadcast_weights",  # both trainers
            "save_ckpt": "time/save_ckpt",  # both trainers
        },
        rollout_seconds={
            "wait_for_policy": "time/wait_for_policy",  # orchestrator/orchestrator.py
            "pack": "time/pack",  # orchestrator/orchestrator.py
            "save_ckpt": "time/save_ckpt",  # orchestrator/orchestrator.py
        },
        # orchestrator/orchestrator.py: PREFIX/SUBSET; orchestrator/metrics.py: AGENT/reward/mean
        train_reward=re.compile(r"train/agg/effective/(?P<agent>[^/]+)/reward/mean"),
        # likewise; evals/evals.py
        eval_reward=re.compile(r"eval/(?P<name>.+)/effective/(?P<agent>[^/]+)/reward/mean"),
    ),
    memory_measured=re.compile(r"GPU KV cache size: "),  # vLLM 0.26, v1/core/kv_cache_utils.py
    # orchestrator/orchestrator.py: "Policy inference pool ready"; evals/evals.py: "Inference pool ready"
    pool_ready=re.compile(r"[Ii]nference pool ready"),
    # both trainers
    resumed=re.compile(r"Resuming training from checkpoint step (?P<step>\d+)"),
    # orchestrator/orchestrator.py, and evals/evals.py with "at step N" before the bracket
    evals_start=re.compile(r"Starting evals in (?P<names>.+?)(?: at step \d+)? \(\d+ total rollouts\)"),
    # both
    eval_ends=re.compile(
        r"Evaluated (?P<name>.+) \(Step \d+\) \||Eval @ step=\d+ env=(?P<skipped>.+): no episodes returned"
    ),
    eval_result=re.compile(
        r"Evaluated (?P<name>.+) \(Step (?P<step>\d+)\) \|.*?\| Reward (?P<reward>-?\d+(?:\.\d+)?)"
    ),
    # both trainers
    trainer_ends=re.compile(r"(?:RL|SFT) trainer finished!"),
    trainer_step=re.compile(
        r"Step (?P<step>\d+) \| +(?P<seconds>[\d.dhms ]+?) \| Loss (?P<loss>-?\d+(?:\.\d+)?)"
        r".*?\| Throughput (?P<throughput>\d+) tokens/s.*?\| Peak Mem\. (?P<peak_memory>\d+(?:\.\d+)?)"
    ),
    # orchestrator/orchestrator.py
    rollout_step=re.compile(
        r"Step (?P<step>\d+) \| +(?P<seconds>[\d.dhms ]+?) \| Reward (?P<reward>-?\d+(?:\.\d+)?)"
    ),
    # utils/process.py, which writes the name in lower case; entrypoints/rl.py and entrypoints/sft.py
    failed=re.compile(
        r"(?:Error: )?(?P<component>trainer|orchestrator|inference|evals|(?:train|eval) env server .+"
        r"|env/(?:train|eval)/.+) failed with exit code (?P<code>-?\d+)",
        re.IGNORECASE,
    ),
    env_server=re.compile(r"(?P<split>train|eval) env server (?P<name>.+)|env/(?P<s>[^/]+)/(?P<n>.+)"),
    chatter=re.compile(
        # utils/client.py; utils/pathing.py; orchestrator/inference_metrics.py
        r"Inference server was not reached after|Waiting for path `|Inference metrics poll failed"
        # vLLM: uvicorn's lines for who asks whether it lives, and its figures while it has no work
        r'|"GET /(?:health|metrics|ping|v1/models|liveness|readiness)\b'
        r"|prompt throughput: 0\.0 tokens/s, Avg generation throughput: 0\.0 tokens/s"
        r"|No available shared memory broadcast block found"
    ),
    marks=(
        # orchestrator/orchestrator.py
        Mark(ORCHESTRATOR, re.compile(r"Loading training environments"), "the environments' servers"),
        Mark(ORCHESTRATOR, re.compile(r"Train environment\(s\) ready"), ""),
        Mark(ORCHESTRATOR, re.compile(r"Loading eval environment\(s\)"), "the environments' servers"),
        Mark(ORCHESTRATOR, re.compile(r"Eval environment\(s\) ready"), ""),
        Mark(ORCHESTRATOR, re.compile(r"Waiting for policy inference pool"), VLLM),
        Mark(ORCHESTRATOR, re.compile(r"Inference server was not reached after"), VLLM),
        Mark(ORCHESTRATOR, re.compile(r"Policy inference pool ready"), ""),
        Mark(ORCHESTRATOR, re.compile(r"Initializing weight broadcast"), f"{VLLM} and the trainer"),
        Mark(ORCHESTRATOR, re.compile(r"Initializing micro batch sender"), "the trainer's first weights"),
        Mark(ORCHESTRATOR, re.compile(r"Starting orchestrator loop"), ""),
        Mark(ORCHESTRATOR, re.compile(r"Holding batch \d+ until the trainer"), "the trainer's weights"),
        Mark(ORCHESTRATOR, re.compile(r"Pausing dispatcher"), "the trainer's weights"),
        Mark(ORCHESTRATOR, re.compile(r"Resuming dispatcher"), ""),
        Mark(ORCHESTRATOR, re.compile(r"Waiting for the trainer's final broadcast"), "the trainer's weights"),
        Mark(ORCHESTRATOR, re.compile(r"Step \d+ \|"), ""),
        # orchestrator/watcher.py
        Mark(ORCHESTRATOR, re.compile(r"waiting for trainer to broadcast"), "the trainer's weights"),
        # utils/client.py: said before the engines are paused, and nothing at this level after
        Mark(ORCHESTRATOR, re.compile(r"Updating policy in-flight to v"), VLLM, weak=True),
        # orchestrator/orchestrator.py, every ten seconds
        Mark(
            ORCHESTRATOR,
            re.compile(r"; [1-9]\d* inflight episodes"),
            ROLLOUTS,
            weak=True,
        ),
        # trainer/rl/train.py: after these, the next batch is waited for; said only at the level debug
        Mark(TRAINER, re.compile(r"Broadcasting startup policy weights"), f"{VLLM} or the first batch"),
        Mark(TRAINER, re.compile(r"Waiting for training batch"), "a batch of the orchestrator"),
        Mark(TRAINER, re.compile(r"Loading batch"), ""),
        Mark(TRAINER, re.compile(r"Step \d+ \|.*\| Entropy"), "a batch of the orchestrator"),
        Mark(TRAINER, re.compile(r"Saving checkpoint at step|Writing final checkpoint"), "the file system"),
        # trainer/sft/train.py
        Mark(TRAINER, re.compile(r"Broadcasting (?:final )?weights"), f"{VLLM} to take its weights"),
        Mark(TRAINER, re.compile(r"Step \d+ \|(?!.*\| Entropy)"), ""),
        Mark(TRAINER, re.compile(r"trainer finished!"), ""),
        # evals/evals.py
        Mark(EVALS, re.compile(r"Loading eval environment\(s\)"), "the environments' servers"),
        Mark(EVALS, re.compile(r"Waiting for inference pool"), VLLM),
        Mark(EVALS, re.compile(r"Inference server was not reached after"), VLLM),
        Mark(EVALS, re.compile(r"[Ii]nference pool ready"), ""),
        Mark(EVALS, re.compile(r"Watching .+ for new weight broadcasts"), "the trainer's weights"),
        Mark(EVALS, re.compile(r"Updating inference weights to broadcast"), VLLM),
        Mark(
            EVALS,
            re.compile(r"Starting evals in"),
            ROLLOUTS,
        ),
        Mark(EVALS, re.compile(r"Evaluated .+ \(Step \d+\)"), "the trainer's weights"),
        Mark(EVALS, re.compile(r"Evals finished!"), ""),
    ),
)

# What prime-rl has said since v0.8.0.
_LATER = (
    r"Initializing micro batch sender",
    r"Waiting for the trainer's final broadcast",
    r"; [1-9]\d* inflight episodes",
    r"Broadcasting (?:final )?weights",
)

V0_8_0 = replace(
    MAIN,
    shape="v0.8.0",
    # utils/monitor/file.py, FileMonitorConfig.filename: off unless the config has a table for it
    metrics_table=("file_monitor",),
    metrics_name="filename",
    metrics_by_default=False,
    orchestrator_folder="run_default",  # prime_rl/utils/validation.py of its config package
    logs="logs",  # utils/pathing.py
    keeps_logs=False,  # entrypoints/rl.py opens them to be written over
    log={TRAINER: "trainer.log", ORCHESTRATOR: "orchestrator.log", INFERENCE: "inference.log"},
    metrics=replace(
        MAIN.metrics,
        rollout_seconds={
            "wait_for_policy": "time/wait_for_policy",  # orchestrator/orchestrator.py
            "save_ckpt": "time/save_ckpt",  # orchestrator/orchestrator.py
        },
    ),
    # orchestrator/orchestrator.py
    eval_ends=re.compile(
        r"Evaluated (?P<name>.+) \(Step \d+\) \||Eval @ step=\d+ env=(?P<skipped>.+): no rollouts returned"
    ),
    marks=(
        *(mark for mark in MAIN.marks if mark.component != EVALS and mark.pattern.pattern not in _LATER),
        # orchestrator/orchestrator.py
        Mark(ORCHESTRATOR, re.compile(r"Initializing training batch sender"), "the trainer's first weights"),
        Mark(ORCHESTRATOR, re.compile(r"; [1-9]\d* inflight rollouts"), ROLLOUTS, weak=True),
    ),
)

FORMATS = {form.shape: form for form in (MAIN, V0_8_0)}
"""Every format, by the shape's name."""


def form_of(shape: str) -> Format:
    """The format of a shape; `main` of one that has none of its own."""
    return FORMATS.get(shape, MAIN)


@dataclass(frozen=True)
class Line:
    """A line of a log.

    Attributes:
        level: `INFO`, `ERROR` and so on; empty for a line that no logger wrote.
        message: What it says, without time, level, colours and the process's name.
        trace: The traceback that came with it, where lines are JSON.
    """

    level: str
    message: str
    trace: str = ""


_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# torchrun and torch mark the lines of each process; vLLM those of each of its own; both logging libraries put
# time and level before the message, and prime-rl's at its level debug the place in the source behind.
_RANK = re.compile(r"(?:\[[a-z]+\d+\]: ?)+")
_PROCESS = re.compile(r"\([A-Za-z]\w*(?: pid=\d+)?\) ")
_LOGURU = re.compile(r"\d\d:\d\d:\d\d +(?P<level>[A-Z]+) (?P<message>.*)", re.DOTALL)
_SOURCE = re.compile(r" \[[\w.]+::\d+\]$")
_VLLM = re.compile(
    r"(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\] ?(?P<message>.*)",
    re.DOTALL,
)


def read_line(text: str) -> Line:
    """Take a log's line apart, whichever of prime-rl's programs and settings wrote it."""
    # A progress bar writes over itself: its last state counts.
    text = text.rstrip("\r\n")
    text = _COLOURS.sub("", text[text.rfind("\r") + 1 :])
    for prefix in (_RANK, _PROCESS):
        found = prefix.match(text)
        text = text[found.end() :] if found else text
    if text.startswith("{"):
        return _json_line(text)
    for form in (_LOGURU, _VLLM):
        found = form.fullmatch(text)
        if found:
            return Line(found["level"], _SOURCE.sub("", found["message"]))
    return Line("", text)


def _json_line(text: str) -> Line:
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        return Line("", text)
    if not isinstance(entry, dict) or not isinstance(entry.get("message"), str):
        return Line("", text)
    return Line(str(entry.get("level", "")), entry["message"], str(entry.get("exception") or ""))


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(text: str) -> float:
    """Read a time as prime-rl's logs have it (`250ms`, `8.3s`, `1m 5s`, `1h 2m`), in seconds."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
