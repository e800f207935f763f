"""The stand-in for prime-rl v0.8.0 is held to the real one: same fields, same refusals, same guard."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from standin import make_checkout
from standins.real import EXAMPLES, find_real

from medarc_plugin.host.fields import V0_8_0

pytestmark = pytest.mark.host

ACCEPTED = [
    "rl @ {rl}",
    "rl @ {rl} --output-dir runs/a --max-steps 5 --seq-len 1024",
    "rl @ {rl} --deployment.num-train-gpus 2 --deployment.num-infer-gpus 4",
    "rl @ {rl} --deployment.num-infer-gpus 4 --inference.parallel.tp 2",
    "rl @ {rl} --weight-broadcast.type filesystem",
    "rl @ {rl} --weight-broadcast.type nccl --weight-broadcast.port 29777",
    "rl @ {rl} --inference.server.port 9000 --inference.gpu-memory-utilization 0.4",
    "rl @ {rl} --inference.router None",
    "rl @ {rl} --inference.model.max-model-len 4096 --inference.model.enforce-eager",
    "rl @ {rl} --rollout-transport.type filesystem",
    "rl @ {rl} --orchestrator.env-server-base-port 7000 --trainer.metrics-server.port 9100",
    "rl @ {rl} --ckpt.interval 5 --ckpt.output-dir elsewhere",
    "rl @ {rl} --ckpt.resume-step -1",
    "rl @ {rl} --ckpt.resume-step 4",
    "rl @ {rl} --no-ckpt",
    "rl @ {rl} --no-inference",
    "rl @ {rl} --file-monitor",
    "rl @ {rl} --clean-output-dir --dry-run",
    "sft @ {sft} --output-dir runs/b --max-steps 3",
    "sft @ {sft} --deployment.num-gpus 4 --ckpt.resume-step 10 --file-monitor",
    "inference --model.name X --parallel.dp 2",
    "inference --model.name X --server.port 9001",
]

REFUSED = [
    "rl @ {rl} --bogus 1",
    "rl @ {rl} --run.name a",
    "rl @ {rl} --resume",
    "rl @ {rl} --ckpt.resume-step -2",
    "rl @ {rl} --inference.vllm.model X",
    "rl @ {rl} --deployment.num-train-gpus 9",
    "rl @ {rl} --max-steps many",
    "rl @ {rl} --env-vars.CUDA_VISIBLE_DEVICES 0",
    "sft @ {sft} --deployment.num-train-gpus 1",
    "sft @ {sft} --deployment.num-gpus 9",
    "inference --vllm.model X",
]

# What lies in the run directory, and whether it is resumed or cleaned.
DIRECTORIES = [
    ([], "fresh"),
    (["logs/trainer.log", "rl.sbatch", "run_default/rollouts/x"], "fresh"),
    (["checkpoints/step_1/x"], "fresh"),
    (["checkpoints/torn_step_1/x"], "fresh"),
    (["run_default/checkpoints/step_1/x"], "fresh"),
    (["checkpoints/step_1/x"], "resume"),
    (["checkpoints/step_1/x"], "clean"),
]

# Handed to either interpreter: all cases in one process, because importing the real one is slow.
QUESTIONS = r"""
import json, os, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
from prime_rl.configs.inference import InferenceConfig
from prime_rl.configs.rl import RLConfig
from prime_rl.configs.sft import SFTConfig
from prime_rl.utils.config import cli
from prime_rl.utils.pathing import validate_output_dir

asked = json.load(sys.stdin)
classes = {"rl": RLConfig, "sft": SFTConfig, "inference": InferenceConfig}
resolved = Path("resolved.json")
answers, guards = [], []
for argv in asked["argv"]:
    try:
        document = cli(classes[argv[0]], args=argv[1:]).model_dump(mode="json")
        resolved.write_text(json.dumps(document))
        again = cli(classes[argv[0]], args=["@", str(resolved)]).model_dump(mode="json")
        answers.append({"document": document, "again": again == document})
    except (Exception, SystemExit) as error:
        answers.append(f"{type(error).__name__}: {error}")
for index, (entries, mode) in enumerate(asked["directories"]):
    run_dir = Path("guarded") / str(index)
    for entry in entries:
        (run_dir / entry).parent.mkdir(parents=True, exist_ok=True)
        (run_dir / entry).touch()
    try:
        validate_output_dir(run_dir, resuming=mode == "resume", clean=mode == "clean")
    except Exception as error:
        guards.append(f"{type(error).__name__}: {error}")
    else:
        guards.append(sorted(path.as_posix() for path in run_dir.rglob("*")))
Path("answers.json").write_text(json.dumps({"configs": answers, "guards": guards}))
"""

Answers = tuple[dict[str, list[Any]], dict[str, list[Any]]]


def ask(python: Path, folder: Path, argv: list[list[str]]) -> dict[str, list[Any]]:
    folder.mkdir()
    subprocess.run(
        [str(python), "-c", QUESTIONS],
        input=json.dumps({"argv": argv, "directories": DIRECTORIES}),
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1", "PYTHONSAFEPATH": "1"},
        text=True,
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=240,
    )
    answers: dict[str, list[Any]] = json.loads((folder / "answers.json").read_text())
    return answers


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    real = find_real()
    if real is None:
        pytest.skip("PRIME_RL_DIR is not set: there is no prime-rl to compare with")
    if real.shape is not V0_8_0:
        pytest.skip(f"PRIME_RL_DIR is a prime-rl of shape {real.shape.name}: its stand-in is another")
    files = {"rl": EXAMPLES / "rl-v0.8.0.toml", "sft": EXAMPLES / "sft.toml"}
    argv = [[word.format(**files) for word in line.split()] for line in ACCEPTED + REFUSED]
    folder = tmp_path_factory.mktemp("answers")
    standin = make_checkout(folder / "standin", shape="v0.8.0")
    return (
        ask(real.python, folder / "by-real", argv),
        ask(standin / ".venv/bin/python", folder / "by-standin", argv),
    )


def leaves(document: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(document, dict) and document:
        for name, value in document.items():
            yield from leaves(value, f"{path}.{name}" if path else name)
    elif isinstance(document, list) and document:
        for index, value in enumerate(document):
            yield from leaves(value, f"{path}[{index}]")
    else:
        yield path, document


@pytest.mark.parametrize("line", ACCEPTED)
def test_every_field_that_the_standin_has_holds_what_prime_rl_holds(line: str, answers: Answers) -> None:
    real, standin = (answer["configs"][ACCEPTED.index(line)] for answer in answers)

    assert isinstance(real, dict), real
    assert isinstance(standin, dict), standin
    theirs = dict(leaves(real["document"]))
    # A table that is empty here may have fields there.
    ours = {path: value for path, value in leaves(standin["document"]) if value != {}}
    assert {path: theirs.get(path, "<no such field>") for path in ours} == ours
    assert real["again"] == standin["again"]


@pytest.mark.parametrize("line", REFUSED)
def test_both_refuse_in_the_same_words(line: str, answers: Answers) -> None:
    real, standin = (answer["configs"][len(ACCEPTED) + REFUSED.index(line)] for answer in answers)

    assert isinstance(real, str)
    assert real == standin


@pytest.mark.parametrize("index", range(len(DIRECTORIES)))
def test_both_guard_the_run_directory_alike(index: int, answers: Answers) -> None:
    real, standin = (answer["guards"][index] for answer in answers)

    assert real == standin
