"""The stand-in is held to the real prime-rl: same answers, same refusals, same guard."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from standin import make_checkout
from standins.real import find_real

from medarc_plugin.host.fields import MAIN

pytestmark = pytest.mark.host

Answers = tuple[dict[str, list[Any]], dict[str, list[Any]]]

RL_TOML = "examples/basic/reverse-text/rl.toml"
SFT_TOML = "examples/basic/reverse-text/sft.toml"

ACCEPTED = [
    "rl @ {rl}",
    "rl @ {rl} --output-dir runs --run.dir a --run.name a",
    "rl @ {rl} --max-steps 5 --trainer.optim.lr 1e-6 --seq-len 1024",
    "rl @ {rl} --model.name PrimeIntellect/Qwen3-0.6B",
    "rl @ {rl} --deployment.num-train-gpus 2 --deployment.num-infer-gpus 4",
    "rl @ {rl} --deployment.num-infer-gpus 4 --inference.vllm.tensor-parallel-size 2",
    "rl @ {rl} --weight-broadcast.type filesystem",
    "rl @ {rl} --weight-broadcast.type nccl --weight-broadcast.port 29777",
    "rl @ {rl} --weight-broadcast.type nixl",
    "rl @ {rl} --inference.server.port 9000",
    "rl @ {rl} --inference.router None",
    "rl @ {rl} --inference.vllm.gpu-memory-utilization 0.4 --inference.vllm.max-num-seqs 4",
    "rl @ {rl} --inference.vllm.model PrimeIntellect/Qwen3-0.6B-Reverse-Text-SFT",
    "rl @ {rl} --rollout-transport.type filesystem",
    "rl @ {rl} --rollout-transport.port 6000 --orchestrator.env-server-base-port 7000",
    "rl @ {rl} --ckpt.interval 5 --ckpt.output-dir elsewhere",
    "rl @ {rl} --no-ckpt --no-monitors.wandb",
    "rl @ {rl} --no-monitors.file",
    "rl @ {rl} --monitors.prime",
    "rl @ {rl} --no-inference",
    "rl @ {rl} --resume",
    "rl @ {rl} --resume.step 3",
    "rl @ {rl} --clean --dry-run",
    "rl @ {rl} --trainer.model.lora.rank 8",
    "rl @ {rl} --deployment.num-infer-gpus 0",
    "rl @ {rl} --deployment.num-train-gpus 0",
    "rl @ {rl} --slurm.partition gpu --slurm.project-dir /project --slurm.template-path x.j2",
    "sft",
    "sft @ {sft}",
    "sft @ {sft} --output-dir runs --run.dir b --run.name b --max-steps 3",
    "sft @ {sft} --no-eval --no-inference",
    "sft @ {sft} --no-eval --no-inference --deployment.num-train-gpus 4",
    "sft @ {sft} --deployment.num-infer-gpus 2",
    "sft @ {sft} --deployment.num-eval-gpus 2",
    "sft @ {sft} --weight-broadcast.type filesystem",
    "sft @ {sft} --data.batch-size 16 --optim.lr 1e-5 --optim.type muon",
    "sft @ {sft} --inference.server.port 9000",
    "sft @ {sft} --no-inference",
    "sft @ {sft} --resume --ckpt.interval 10 --monitors.wandb",
    "inference --vllm.model X",
    "inference --vllm.model X --server.port 9001 --vllm.max-num-seqs 4",
]

REFUSED = [
    "rl",
    "rl @ missing.toml",
    "rl @ {broken}",
    "rl @ {rl} --bogus 1",
    "rl @ {rl} --backend slurm",
    "rl @ {rl} --trainer.bogus 1",
    "rl @ {rl} --max-steps many",
    "rl @ {rl} --resume 3",
    "rl @ {rl} --resume.step 0",
    "rl @ {rl} --resume.step 1 --resume.dir x/step_1",
    "rl @ {rl} --deployment.num-train-gpus 9",
    "rl @ {rl} --deployment.num-train-gpus 4 --deployment.num-infer-gpus 5",
    "rl @ {rl} --deployment.gpus-per-node 1",
    "rl @ {rl} --deployment.num-infer-gpus 3 --inference.vllm.tensor-parallel-size 2",
    "rl @ {rl} --deployment.type multi_node",
    "rl @ {rl} --deployment.type multi_node --deployment.num-train-nodes 1",
    "rl @ {rl} --deployment.num-infer-gpus 0 --trainer.weight-broadcast.type nccl",
    "rl @ {rl} --trainer.model.name A/B",
    "rl @ {rl} --trainer.max-steps 3",
    "rl @ {rl} --orchestrator.group-size 7",
    "rl @ {rl} --orchestrator.renderer.name auto",
    "rl @ {rl} --orchestrator.token-batch-size 100",
    "rl @ {rl} --inference.vllm.model A/B",
    "rl @ {rl} --trainer.model.lora.rank 8 --weight-broadcast.type nccl",
    "rl @ {rl} --monitors.wandb.offline true",
    "rl @ {rl} --run.name a --trainer.output-dir elsewhere",
    "rl @ {rl} --trainer.env-vars.CUDA_VISIBLE_DEVICES 0",
    "rl @ {taskset}",
    "rl @ {nothing}",
    "sft --deployment.num-gpus 2",
    "sft @ {sft} --bogus 1",
    "sft @ {sft} --no-eval",
    "sft @ {sft} --deployment.num-train-gpus 9",
    "sft @ {sft} --deployment.num-infer-gpus 8",
    "sft @ {sft} --data.micro-batch-size 3",
    "sft @ {sft} --model.name A/B",
    "sft @ {sft} --inference.vllm.model A/B",
    "sft @ {sft} --weight-broadcast.type nixl",
    "sft @ {sft} --deployment.type multi_node",
    "inference --model.name X",
    "inference --deployment.type multi_node",
]

# Fields that decide a launch: the stand-in must not lose them.
SHARED_PATHS = {
    "rl @ {rl}": {
        "run.name",
        "run.dir",
        "output_dir",
        "max_steps",
        "resume",
        "clean",
        "ckpt.interval",
        "deployment.type",
        "deployment.gpus_per_node",
        "deployment.num_train_gpus",
        "deployment.num_infer_gpus",
        "inference.server.port",
        "inference.backend_port",
        "inference.vllm.model",
        "inference.vllm.gpu_memory_utilization",
        "inference.vllm.data_parallel_rpc_port",
        "orchestrator.model.client.base_url",
        "orchestrator.model.client.admin_base_url[0]",
        "orchestrator.env_server_base_port",
        "orchestrator.train.source[0].env.taskset.id",
        "weight_broadcast.type",
        "weight_broadcast.port",
        "trainer.weight_broadcast.port",
        "orchestrator.weight_broadcast.port",
        "rollout_transport.port",
        "trainer.rollout_transport.port",
        "orchestrator.rollout_transport.port",
    },
    "sft @ {sft}": {
        "run.name",
        "run.dir",
        "output_dir",
        "deployment.num_train_gpus",
        "deployment.num_infer_gpus",
        "inference.server.port",
        "eval.client.base_url",
        "eval.env_server_base_port",
        "eval.source[0].env.taskset.id",
        "weight_broadcast.port",
    },
}

# What lies in the run directory, and whether it is resumed or cleaned.
DIRECTORIES = [
    ([], "fresh"),
    (["configs/rl.json", "configs/launch/launch.json"], "fresh"),
    (["rl.sbatch", "sft.sbatch", "job_17.log", "job_.log"], "fresh"),
    (["rl.sbatch", "logs/latest"], "fresh"),
    (["inference.sbatch"], "fresh"),
    (["job_17.out"], "fresh"),
    (["myjob_17.log"], "fresh"),
    ([".hidden"], "fresh"),
    (["checkpoints/step_1/x"], "fresh"),
    (["checkpoints/step_1/x"], "resume"),
    (["checkpoints/step_1/x"], "clean"),
    ([], "elsewhere"),
    (["configs/a"], "elsewhere-empty"),
]

# Handed to either interpreter: all cases in one process, because importing the real one is slow.
QUESTIONS = r"""
import json, os, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
os.environ.pop("CUDA_VISIBLE_DEVICES", None)
from prime_rl.configs.inference import InferenceConfig
from prime_rl.configs.rl import RLConfig
from prime_rl.configs.sft import SFTConfig
from prime_rl.utils.config import cli, dump_resolved_config
from prime_rl.utils.pathing import validate_run_dir

asked = json.load(sys.stdin)
classes = {"rl": RLConfig, "sft": SFTConfig, "inference": InferenceConfig}



def again(cls, document):
    # The document, and what comes of reading it back, as a job does with a resolved config.
    resolved = Path("resolved.json")
    resolved.write_text(json.dumps(document))
    try:
        config = cli(cls, args=["@", str(resolved)])
    except (Exception, SystemExit) as error:
        return {"first": document, "second": f"{type(error).__name__}: {error}"}
    return {"first": document, "second": dump_resolved_config(config) == document}


answers = []
for argv in asked["argv"]:
    try:
        config = cli(classes[argv[0]], args=argv[1:])
    except (Exception, SystemExit) as error:
        answers.append(f"{type(error).__name__}: {error}")
    else:
        answers.append(again(classes[argv[0]], dump_resolved_config(config)))
guards = []
for index, (entries, mode) in enumerate(asked["directories"]):
    run_dir = Path("guarded") / str(index)
    for entry in entries:
        (run_dir / entry).parent.mkdir(parents=True, exist_ok=True)
        (run_dir / entry).touch()
    elsewhere = Path("elsewhere") / str(index) if mode.startswith("elsewhere") else None
    if mode == "elsewhere":
        (elsewhere / "checkpoints" / "step_1").mkdir(parents=True)
    try:
        validate_run_dir(
            run_dir,
            output_dir=Path("guarded"),
            resuming=mode == "resume",
            clean=mode == "clean",
            ckpt_output_dir=elsewhere,
        )
    except Exception as error:
        guards.append(f"{type(error).__name__}: {error}")
    else:
        guards.append(sorted(p.as_posix() for p in run_dir.rglob("*")))
Path("answers.json").write_text(json.dumps({"configs": answers, "guards": guards}))
"""


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
    return json.loads((folder / "answers.json").read_text())


@pytest.fixture(scope="module")
def real() -> tuple[Path, Path]:
    found = find_real()
    if found is None:
        pytest.skip("PRIME_RL_DIR is not set: there is no prime-rl to compare with")
    if found.shape is not MAIN:
        pytest.skip(f"PRIME_RL_DIR is a prime-rl of shape {found.shape.name}: its stand-in is another")
    return found.checkout, found.python


@pytest.fixture(scope="module")
def files(real: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    shipped = {"rl": real[0] / RL_TOML, "sft": real[0] / SFT_TOML}
    text = shipped["rl"].read_text()
    changed = {
        "broken": text + "\n[model\n",
        "taskset": text.replace('id = "reverse-text"', 'id = "reverse-text"\nbogus = 1'),
        "nothing": re.sub(r'\[[^\n]*taskset\]\nid = "reverse-text"', "", text),
    }
    for name, content in changed.items():
        assert content != text
        shipped[name] = folder / f"{name}.toml"
        shipped[name].write_text(content)
    return shipped


@pytest.fixture(scope="module")
def answers(
    real: tuple[Path, Path], files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Answers:
    folder = tmp_path_factory.mktemp("answers")
    standin = make_checkout(folder / "standin")
    argv = [[word.format(**files) for word in line.split()] for line in ACCEPTED + REFUSED]
    return (
        ask(real[1], folder / "by-real", argv),
        ask(standin / ".venv" / "bin" / "python", folder / "by-standin", argv),
    )


def leaves(document: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(document, dict) and document:
        for name, value in document.items():
            yield from leaves(value, f"{path}.{name}" if path else name)
    elif isinstance(document, list) and document:
        for index, value in enumerate(document):
            yield from leaves(value, f"{path}[{index}]")
    else:
        # Generated names end in random digits.
        yield (
            path,
            re.sub(r"--[0-9a-f]{8}$", "--<id>", document) if isinstance(document, str) else document,
        )


@pytest.mark.parametrize("line", ACCEPTED)
def test_every_field_that_the_standin_has_holds_what_prime_rl_holds(line: str, answers: Answers) -> None:
    real, standin = (answer["configs"][ACCEPTED.index(line)] for answer in answers)

    assert isinstance(real, dict), real
    assert isinstance(standin, dict), standin
    theirs = dict(leaves(real["first"]))
    ours = dict(leaves(standin["first"]))

    assert {path: theirs.get(path, "<no such field>") for path in ours} == ours


@pytest.mark.parametrize("line", ACCEPTED)
def test_a_resolved_config_read_again_comes_to_the_same(line: str, answers: Answers) -> None:
    real, standin = (answer["configs"][ACCEPTED.index(line)]["second"] for answer in answers)

    assert real == standin


@pytest.mark.parametrize(("line", "paths"), SHARED_PATHS.items())
def test_the_standin_has_what_a_launch_reads(line: str, paths: set[str], answers: Answers) -> None:
    standin = answers[1]["configs"][ACCEPTED.index(line)]["first"]

    assert paths - dict(leaves(standin)).keys() == set()


@pytest.mark.parametrize("line", REFUSED)
def test_both_refuse_in_the_same_words(line: str, answers: Answers) -> None:
    real, standin = (answer["configs"][len(ACCEPTED) + REFUSED.index(line)] for answer in answers)

    assert isinstance(real, str)
    assert real == standin


@pytest.mark.parametrize("index", range(len(DIRECTORIES)))
def test_both_guard_the_run_directory_alike(index: int, answers: Answers) -> None:
    real, standin = (answer["guards"][index] for answer in answers)

    assert real == standin
