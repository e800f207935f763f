"""What a rehearsal says of the real prime-rl, or of the stand-in, which `test_standin.py` holds to it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from standin import make_checkout
from standins.real import Real, example, find_real

from medarc_plugin.host import fields, resolver

SCRIPTS = Path(sys.executable).parent

ASK = """
import json, sys
from importlib import import_module

sys.path.insert(0, sys.argv[1])
from resolver import has_path

for path, fields in json.loads(sys.argv[2]):
    module, _, name = path.partition(":")
    model = getattr(import_module(module), name)
    print(json.dumps([field for field in fields if not has_path(model, field)]))
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """The real prime-rl, or the stand-in."""
    real = find_real()
    if real is None:
        checkout = make_checkout(tmp_path_factory.mktemp("host") / "prime-rl")
        return Real(checkout, checkout / ".venv/bin/python", fields.MAIN)
    return real


def paths(entrypoint, shape):
    """Every field that a rehearsal looks at and prime-rl itself has."""
    found = fields.for_rehearsal(entrypoint, shape)
    named = [*found["models"], *found["tokenizers"], *(name for pair in found["data"] for name in pair)]
    named += [f"{table}.{found['wandb_offline']}" for table in found["wandb"]]
    return [*named, *filter(None, (found["attention"], found["server_port"]))]


def test_the_fields_of_a_rehearsal_are_prime_rls(host):
    asked = []
    for entrypoint, path in fields.for_rehearsal("rl", host.shape)["classes"].items():
        known = paths(entrypoint, host.shape)
        if entrypoint not in host.shape.infer_gpus:
            known = [field for field in known if not field.startswith("inference.")]
        asked.append((path, known))
    folder = str(Path(resolver.__file__).parent)

    done = subprocess.run(
        [host.python, "-c", ASK, folder, json.dumps(asked)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == [[], [], []]


def test_the_classes_are_those_that_resolve_a_config():
    assert fields.for_rehearsal("rl", fields.MAIN)["classes"] == {
        name: ":".join(path) for name, path in resolver.CLASSES.items()
    }


@pytest.mark.parametrize("entrypoint", ["rl", "sft", "inference"])
def test_prime_rl_takes_the_config_of_a_rehearsed_attempt(host, tmp_path, entrypoint):
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (model / name).write_text("{}")
    given = {
        "rl": ("@", example("rl", host.shape), "--model.name", model, "--train-gpus", 1, "--infer-gpus", 1),
        "sft": ("@", example("sft", host.shape), "--model.name", model, "--data.name", model, "--gpus", 1),
        "inference": ("--vllm.model", model, "--gpus", 1),
    }
    (tmp_path / "hub").mkdir()
    env = {
        **os.environ,
        "HF_HOME": str(tmp_path / "hub"),
        "PRIME_RL_DIR": str(host.checkout),
        "PRIME_RL_PYTHON": str(host.python),
        "HF_HUB_OFFLINE": "1",
        "MEDARC_STANDIN_GPUS": "1",
        "CUDA_VISIBLE_DEVICES": "0,1" if entrypoint == "rl" else "0",
    }
    dry = subprocess.run(
        [
            *(SCRIPTS / entrypoint, "--backend", "slurm", *map(str, given[entrypoint])),
            *("--output-dir", "runs/x", "--dry-run", "--rehearse"),
        ],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert dry.returncode == 0, dry.stderr

    folder = tmp_path / "runs/x/configs/launch"
    job = subprocess.run(
        [host.python, folder / "job", folder / "launch.json"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "[ ok ] config by prime-rl: " in job.stdout, job.stdout + job.stderr
    assert f"[ ok ] model and data: model {model}: a folder" in job.stdout
    # The light environment of these tests has no torch: that must be said, and be enough to fail.
    assert (job.returncode == 0) == ("[FAIL] " not in job.stdout)
    if "cannot import torch" in job.stdout:
        assert job.returncode == 3
        assert f"[FAIL] GPUs in torch: {host.python} cannot import torch" in job.stdout
        assert "missing: " in job.stdout
