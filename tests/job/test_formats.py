"""prime-rl's wordings: taken apart, and held to its own source."""

# ruff: noqa: E501 - lines of logs

import re
from pathlib import Path
from typing import Any

import pytest
from standins.real import find_real

from medarc_plugin.host.fields import SHAPES
from medarc_plugin.job.formats import FORMATS, MAIN, V0_8_0, Line, form_of, read_line, seconds

# For each file of prime-rl's source, what `MAIN` relies on it to write.
MAINS = {
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
        '            "torchrun",\n            "--role=trainer",\n',  # by its name: the job holds it
    ),
    "entrypoints/inference.py": (
        'cmd = [\n        "vllm-router",\n',
        "subprocess.Popen(cmd)",
    ),  # by its name too
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


_TRAINERS = (
    '"perf/throughput"',
    '"perf/peak_memory"',
    '"loss/mean"',
    '"time/step"',
    '"time/save_ckpt"',
    '"time/forward_backward"',
    "Step {progress.step} | {format_time(step_time):>7} | Loss ",
    "| Throughput {throughput:.0f} tokens/s",
    "| Peak Mem. {peak_memory:.1f}",
    "Resuming training from checkpoint step {checkpoint_step}",
    "Saving checkpoint at step",
    "Writing final checkpoint",
)

# Likewise for `V0_8_0`.
V0_8_0S = {
    "utils/monitor/file.py": (
        'row = {"step": step, "time": time.time(),',
        "output_dir / config.filename",
        "open(self._path, ",
    ),
    "utils/pathing.py": ('return output_dir / "logs"', 'output_dir / "run_default"'),
    "utils/process.py": MAINS["utils/process.py"],
    "utils/logger.py": MAINS["utils/logger.py"],
    "entrypoints/rl.py": MAINS["entrypoints/rl.py"],
    "entrypoints/inference.py": MAINS["entrypoints/inference.py"],
    "entrypoints/sft.py": (
        '"trainer.log"',
        "Trainer failed with exit code",
        "'trainer' / 'torchrun'",
        "--redirect=3",
        "--tee=3",
        "--role=trainer",
    ),
    "trainer/rl/train.py": (
        *_TRAINERS,
        '"time/wait_for_batch"',
        '"time/load_data"',
        '"time/broadcast_weights"',
        "| Entropy ",
        "Broadcasting startup policy weights",
        "Waiting for training batch",
        "Loading batch",
        "RL trainer finished!",
    ),
    "trainer/sft/train.py": (*_TRAINERS, '"val/loss"', "SFT trainer finished!"),
    "orchestrator/metrics.py": ('p = f"{prefix}/{subset}"', 'f"{p}/{agent}"', "reward"),
    "orchestrator/orchestrator.py": (
        '"train/agg"',
        '"effective"',
        'prefix=f"eval/{batch.env_name}"',
        '"time/step"',
        '"time/save_ckpt"',
        '"time/wait_for_policy"',
        "Loading training environments",
        "Train environment(s) ready",
        "Loading eval environment(s)",
        "Eval environment(s) ready",
        "Waiting for policy inference pool",
        "Policy inference pool ready",
        "Initializing weight broadcast",
        "Initializing training batch sender",
        "Starting orchestrator loop",
        "Holding batch {step} until the trainer",
        "Pausing dispatcher",
        "Resuming dispatcher",
        "Step {step} | {format_time(step_time):>7} | Reward ",
        "inflight rollouts (train=",
        "Starting evals in {', '.join(fired)} ({total_rollouts} total rollouts)",
        "Evaluated {batch.env_name} (Step {batch.step}) | ",
        "{format_time(elapsed):>7} | Reward {eff.reward.mean():.4f} | ",
        "Eval @ step={batch.step} env={batch.env_name}: no rollouts returned",
    ),
    "orchestrator/watcher.py": MAINS["orchestrator/watcher.py"],
    "orchestrator/inference_metrics.py": MAINS["orchestrator/inference_metrics.py"],
    "utils/client.py": MAINS["utils/client.py"],
}

SOURCES = {"main": MAINS, "v0.8.0": V0_8_0S}


@pytest.mark.host
@pytest.mark.parametrize(("shape", "name"), [(shape, name) for shape in SOURCES for name in SOURCES[shape]])
def test_prime_rl_still_writes_what_is_relied_on(shape: str, name: str) -> None:
    real = find_real()
    if real is None:
        pytest.skip("PRIME_RL_DIR is not set: there is no prime-rl to read")
    if real.shape.name != shape:
        pytest.skip(f"PRIME_RL_DIR is a prime-rl of shape {real.shape.name}")
    text = (real.checkout / "src" / "prime_rl" / name).read_text()

    assert [literal for literal in SOURCES[shape][name] if literal not in text] == []


@pytest.mark.host
def test_what_prime_rls_launcher_starts_has_its_standard_input() -> None:
    """By it the job tells a trainer that it has held when it may begin."""
    real = find_real()
    if real is None:
        pytest.skip("PRIME_RL_DIR is not set: there is no prime-rl to read")
    text = (real.checkout / "src" / "prime_rl" / "entrypoints" / "rl.py").read_text()

    assert "stdin" not in text


@pytest.mark.parametrize("shape", SOURCES)
def test_every_key_and_wording_is_held_to_the_source(shape: str) -> None:
    held = "\n".join(literal for literals in SOURCES[shape].values() for literal in literals)
    form = form_of(shape)
    keys = form.metrics
    names = {keys.loss, keys.validation_loss, keys.throughput, keys.peak_memory, keys.step_seconds}
    names |= {*keys.trainer_seconds.values(), *keys.rollout_seconds.values()}

    assert [name for name in names if f'"{name}"' not in held] == []
    assert [
        mark.pattern.pattern
        for mark in form.marks
        if not any(mark.pattern.search(_filled(literal)) for literal in held.splitlines())
    ] == [r"Step \d+ \|.*\| Entropy"]


def _filled(literal: str) -> str:
    """A wording with a figure in place of each of its fields."""
    text = re.sub(r"\{[^{}]*\}", "7", literal)
    for what in ("episodes", "rollouts"):
        text = text.replace(f"inflight {what} (train=", f"7; 7 inflight {what} (train=")
    return text


def test_shapes_are_found_by_their_name() -> None:
    assert {name: form.shape for name, form in FORMATS.items()} == {name: name for name in SHAPES}
    assert [form_of(shape) for shape in ("main", "v0.8.0", "of tomorrow")] == [MAIN, V0_8_0, MAIN]


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


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"trainer": {"file_monitor": None}, "orchestrator": {"file_monitor": None}}, ()),
        ({}, ()),
        ({"file_monitor": {"filename": "m.jsonl"}}, ("m.jsonl",)),
        (
            {"trainer": {"file_monitor": {}}, "orchestrator": {"file_monitor": {"filename": "o.jsonl"}}},
            ("metrics.jsonl", "run_default/o.jsonl"),
        ),
    ],
)
def test_where_the_metrics_of_v0_8_0_are(config: dict[str, object], names: tuple[str, ...]) -> None:
    assert V0_8_0.metrics_paths(Path("/run"), config) == tuple(Path("/run") / name for name in names)


def test_the_metrics_of_all_components_are_one_file_on_main() -> None:
    config = {"trainer": {"monitors": {"file": {}}}, "orchestrator": {"monitors": {"file": {}}}}

    assert MAIN.metrics_paths(Path("/run"), config) == (Path("/run/metrics.jsonl"),)


@pytest.mark.parametrize("form", [MAIN, V0_8_0], ids=lambda form: form.shape)
def test_the_result_of_an_evaluation_in_a_log(form: Any) -> None:
    line = (
        "Evaluated reverse-text (Step 20) | Policy v20 |    8.3s | Reward 0.4312 | Turns 1.0 | Branches 1.0"
    )

    found = form.eval_result.match(line)

    assert found is not None
    assert (found["name"], found["step"], found["reward"]) == ("reverse-text", "20", "0.4312")
