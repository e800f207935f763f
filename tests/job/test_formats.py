"""prime-rl's wordings: taken apart, and held to its own source."""

# ruff: noqa: E501 - lines of logs

import os
import re
from pathlib import Path

import pytest

from medarc_plugin.job.formats import FORMATS, MAIN, Line, read_line, seconds

# For each file of prime-rl's source, what `MAIN` relies on it to write.
SOURCES = {
    "monitors/file.py": ('row = {"step": step, "time": time.time(),', "self.config.path", "open(self.path, "),
    "utils/pathing.py": ('"logs"', '"latest"', "attempt_", "os.symlink("),
    "utils/process.py": ("process_name.capitalize()", "failed with exit code {process.returncode}"),
    "utils/logger.py": ("{time:HH:mm:ss}", "{level: >7}", '"message"', '"exception"', "[{file}::{line}]"),
    "entrypoints/rl.py": (
        '"trainer.log"',
        '"orchestrator.log"',
        '"inference.log"',
        'ENVS_DIR = "envs"',
        'f"{split} env server {name}"',
        "Error: {error}",
        "Orchestrator failed with exit code",
        "Trainer failed with exit code",
        "'trainer' / 'torchrun'",
        "--redirect=3",
        "--tee=3",
        "--role=trainer",
    ),
    "entrypoints/sft.py": (
        '"trainer.log"',
        '"inference.log"',
        '"evals.log"',
        'f"env/eval/{name}"',
        "Error: {error_queue[0]}",
        "'trainer' / 'torchrun'",
    ),
    "trainer/rl/train.py": (
        '"perf/throughput"',
        '"perf/peak_memory"',
        '"loss/mean"',
        '"time/step"',
        '"time/wait_for_batch"',
        '"time/load_data"',
        '"time/broadcast_weights"',
        '"time/save_ckpt"',
        '"time/forward_backward"',
        "Step {progress.step} | {format_time(step_time):>7} | Loss ",
        "| Entropy ",
        "| Throughput {throughput:.0f} tokens/s",
        "| Peak Mem. {peak_memory:.1f}",
        "Resuming training from checkpoint step {checkpoint_step}",
        "Broadcasting startup policy weights",
        "Waiting for training batch",
        "Loading batch",
        "Saving checkpoint at step",
        "Writing final checkpoint",
        "RL trainer finished!",
    ),
    "trainer/sft/train.py": (
        '"perf/throughput"',
        '"perf/peak_memory"',
        '"loss/mean"',
        '"val/loss"',
        '"time/step"',
        '"time/broadcast_weights"',
        '"time/save_ckpt"',
        '"time/forward_backward"',
        "Step {progress.step} | {format_time(step_time):>7} | Loss ",
        "| Throughput {throughput:.0f} tokens/s",
        "| Peak Mem. {peak_memory:.1f}",
        "Resuming training from checkpoint step {checkpoint_step}",
        "Broadcasting weights at step",
        "Broadcasting final weights",
        "SFT trainer finished!",
    ),
    "orchestrator/metrics.py": ('metric_prefix = f"{prefix}/{subset}"', '"reward",', 'f"{prefix}/mean"'),
    "orchestrator/orchestrator.py": (
        '"train/agg"',
        '"effective"',
        'f"eval/{batch.env_name}"',
        '"time/step"',
        '"time/pack"',
        '"time/save_ckpt"',
        '"time/wait_for_policy"',
        "Loading training environments",
        "Train environment(s) ready",
        "Loading eval environment(s)",
        "Eval environment(s) ready",
        "Waiting for policy inference pool",
        "Policy inference pool ready",
        "Initializing weight broadcast",
        "Initializing micro batch sender",
        "Starting orchestrator loop",
        "Holding batch {step} until the trainer",
        "Pausing dispatcher",
        "Resuming dispatcher",
        "Waiting for the trainer's final broadcast",
        "Step {step} | {format_time(step_time):>7} | Reward ",
        "inflight episodes (train=",
        "Starting evals in {', '.join(fired)} ({sum(census.values())} total rollouts)",
        "Evaluated {batch.env_name} (Step {batch.step}) | ",
        "Eval @ step={batch.step} env={batch.env_name}: no episodes returned",
    ),
    "orchestrator/watcher.py": ("waiting for trainer to broadcast",),
    "orchestrator/inference_metrics.py": ("Inference metrics poll failed",),
    "utils/client.py": ("Inference server was not reached after", "Updating policy in-flight to v"),
    "evals/evals.py": (
        "Loading eval environment(s)",
        "Waiting for inference pool",
        '"Inference pool ready"',
        "Watching {online.broadcasts_dir} for new weight broadcasts",
        "Updating inference weights to broadcast",
        "Starting evals in {', '.join(fired)} at step {step} ({total_rollouts} total rollouts)",
        "Evaluated {batch.env_name} (Step {batch.step}) | ",
        "Eval @ step={batch.step} env={batch.env_name}: no episodes returned",
        "Evals finished!",
    ),
}


@pytest.fixture
def source() -> Path:
    checkout = os.environ.get("PRIME_RL_DIR")
    if not checkout:
        pytest.skip("PRIME_RL_DIR is not set: there is no prime-rl to read")
    return Path(checkout, "src", "prime_rl")


@pytest.mark.host
@pytest.mark.parametrize("name", SOURCES)
def test_prime_rl_still_writes_what_is_relied_on(name: str, source: Path) -> None:
    text = (source / name).read_text()

    assert [literal for literal in SOURCES[name] if literal not in text] == []


def test_every_key_and_wording_is_held_to_the_source() -> None:
    held = "\n".join(literal for literals in SOURCES.values() for literal in literals)
    keys = MAIN.metrics
    names = {keys.loss, keys.validation_loss, keys.throughput, keys.peak_memory, keys.step_seconds}
    names |= {*keys.trainer_seconds.values(), *keys.rollout_seconds.values()}

    assert [name for name in names if f'"{name}"' not in held] == []
    assert [
        mark.pattern.pattern
        for mark in MAIN.marks
        if not any(mark.pattern.search(_filled(literal)) for literal in held.splitlines())
    ] == [r"Step \d+ \|.*\| Entropy"]


def _filled(literal: str) -> str:
    """A wording with a figure in place of each of its fields."""
    return re.sub(r"\{[^{}]*\}", "7", literal).replace(
        "inflight episodes (train=", "7; 7 inflight episodes (train="
    )


def test_shapes_are_found_by_their_name() -> None:
    assert {name: form.shape for name, form in FORMATS.items()} == {"main": "main"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "\x1b[2m19:04:32\x1b[0m \x1b[32m\x1b[1mSUCCESS\x1b[0m \x1b[32m\x1b[1m\x1b[22mStep 1 | x\x1b[0m\x1b[0m\n",
            Line("SUCCESS", "Step 1 | x"),
        ),
        ("[trainer0]:10:11:12   DEBUG Loading batch [train.py::288]", Line("DEBUG", "Loading batch")),
        ('[trainer0]:[rank0]:   File "x.py"', Line("", '  File "x.py"')),
        (
            "(APIServer pid=42) INFO 08-21 10:00:00 [loggers.py:259] Engine 000: up",
            Line("INFO", "Engine 000: up"),
        ),
        ("(EngineCore_DP0 pid=43) Process died", Line("", "Process died")),
        (
            '{"timestamp": "t", "level": "ERROR", "message": "a", "exception": "Traceback\\n"}',
            Line("ERROR", "a", "Traceback\n"),
        ),
        (
            '{"timestamp": "t", "type": "progress", "desc": "x"}',
            Line("", '{"timestamp": "t", "type": "progress", "desc": "x"}'),
        ),
        ("{torn", Line("", "{torn")),
        ("\r 10%|#   | 1/10\r 20%|##  | 2/10\r\n", Line("", " 20%|##  | 2/10")),
        ("", Line("", "")),
    ],
)
def test_lines_of_every_program_are_taken_apart(text: str, line: Line) -> None:
    assert read_line(text) == line


@pytest.mark.parametrize(
    ("text", "length"),
    [("250ms", 0.25), ("8.3s", 8.3), ("1m 5s", 65), ("2h 3m", 7380), ("1d 2h", 93600), ("", 0)],
)
def test_times_in_logs(text: str, length: float) -> None:
    assert seconds(text) == pytest.approx(length)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({}, "metrics.jsonl"),
        ({"monitors": None}, "metrics.jsonl"),
        ({"monitors": {"wandb": None}}, "metrics.jsonl"),
        ({"monitors": {"file": {"path": "m/x.jsonl"}}}, "m/x.jsonl"),
        ({"monitors": {"file": {}}}, "metrics.jsonl"),
        ({"monitors": {"file": None}}, None),
    ],
)
def test_where_the_metrics_are(config: dict[str, object], name: str | None) -> None:
    expected = None if name is None else Path("/run") / name

    assert MAIN.metrics_path(Path("/run"), config) == expected


def test_an_absolute_path_of_the_metrics_is_taken_as_it_is() -> None:
    config = {"monitors": {"file": {"path": "/scratch/m.jsonl"}}}

    assert MAIN.metrics_path(Path("/run"), config) == Path("/scratch/m.jsonl")


def test_an_rl_configs_metrics_are_its_trainers(tmp_path: Path) -> None:
    # As prime-rl resolves it: the shared block stays empty, and the trainer's is filled.
    config = {"monitors": {"file": None}, "trainer": {"monitors": {"file": {"path": "m.jsonl"}}}}

    assert MAIN.metrics_path(tmp_path, config) == tmp_path / "m.jsonl"
    assert MAIN.metrics_path(tmp_path, {**config, "trainer": {"monitors": {"file": None}}}) is None
