"""What the resolver makes of configs, held against prime-rl's own dry run.

With the real prime-rl when PRIME_RL_DIR names one, else with the stand-in, which `test_standin.py` holds to
the real one.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from standin import make_checkout

from medarc_plugin.cli import arguments
from medarc_plugin.host import fields
from medarc_plugin.job.config import attempt_config, split_server
from medarc_plugin.job.launch import read_launch
from medarc_plugin.job.ports import Lease

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "reverse_text"
SCRIPTS = Path(sys.executable).parent
RENAMED = ("run", "output_dir")
"""What our mapping of --output-dir sets: it differs from prime-rl's own dry run by design."""


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """The real prime-rl's folder and interpreter, or the stand-in's."""
    directory = os.environ.get("PRIME_RL_DIR")
    if not directory:
        checkout = make_checkout(tmp_path_factory.mktemp("host") / "prime-rl")
        return checkout, checkout / ".venv/bin/python"
    return Path(directory), Path(os.environ.get("PRIME_RL_PYTHON") or Path(directory, ".venv/bin/python"))


@pytest.fixture(autouse=True)
def prime_rl(host, monkeypatch):
    """The host's interpreter, with the environment set for it."""
    monkeypatch.setenv("PRIME_RL_DIR", str(host[0]))
    monkeypatch.setenv("PRIME_RL_PYTHON", str(host[1]))
    monkeypatch.delenv("MEDARC_BACKEND", raising=False)
    return str(host[1])


def plan(tmp_path, entrypoint, *argv):
    command = [SCRIPTS / entrypoint, "--backend", "slurm", *argv, "--output-dir", "runs/x", "--dry-run"]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)


def own(tmp_path, prime_rl, entrypoint, *argv):
    command = [prime_rl, "-m", f"prime_rl.entrypoints.{entrypoint}", *argv, "--dry-run"]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)


def leaves(value, path=""):
    """Flatten a document to field paths and values."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from leaves(below, f"{path}.{key}" if path else key)
    else:
        yield path, value


def test_the_resolved_rl_config_is_prime_rls_own(prime_rl, tmp_path):
    config = EXAMPLES / "rl.toml"
    ours = plan(tmp_path, "rl", "@", config, "--train-gpus", "1", "--infer-gpus", "1", "--max-steps", "5")
    assert ours.returncode == 0, ours.stderr
    own(tmp_path, prime_rl, "rl", "@", config, "--max-steps", "5", "--output-dir", "o", "--run.name", "y")

    resolved = json.loads((tmp_path / "runs/x/configs/rl.json").read_text())
    again = own(tmp_path, prime_rl, "rl", "@", "runs/x/configs/rl.json")

    assert again.returncode == 0, again.stderr
    for part in ("trainer", "orchestrator", "inference"):
        theirs = dict(leaves(json.loads((tmp_path / f"o/y/configs/{part}.json").read_text())))
        mine = dict(leaves(resolved[part]))
        differing = {path for path in theirs if path in mine and mine[path] != theirs[path]}
        assert differing <= {"output_dir"}, part
        assert theirs.keys() <= mine.keys(), part


def test_the_resolved_sft_config_is_accepted_again(prime_rl, tmp_path):
    ours = plan(tmp_path, "sft", "@", EXAMPLES / "sft.toml", "--gpus", "1")
    again = own(tmp_path, prime_rl, "sft", "@", "runs/x/configs/sft.json")

    assert (ours.returncode, again.returncode) == (0, 0), ours.stderr + again.stderr


def test_one_gpu_for_both_is_what_prime_rl_accepts(prime_rl, tmp_path):
    ours = plan(tmp_path, "rl", "@", EXAMPLES / "rl.toml", "--single-gpu")
    again = own(tmp_path, prime_rl, "rl", "@", "runs/x/configs/rl.json")

    resolved = json.loads((tmp_path / "runs/x/configs/rl.json").read_text())
    assert (ours.returncode, again.returncode) == (0, 0), ours.stderr + again.stderr
    assert fields.get(resolved, "trainer.weight_broadcast.type") == "filesystem"
    assert fields.get(resolved, "inference.vllm.gpu_memory_utilization") == fields.SHARED_GPU_MEMORY


TINY = {
    "sft": ("sft", "--gpus", "1"),
    "rl on one GPU": ("rl", "--single-gpu"),
    "rl on two GPUs": ("rl", "--train-gpus", "1", "--infer-gpus", "1"),
}


@pytest.mark.parametrize(("entrypoint", "argv"), [(name, argv) for name, *argv in TINY.values()], ids=TINY)
def test_the_tiny_example_is_accepted_before_anything_of_it_is_made(prime_rl, tmp_path, entrypoint, argv):
    ours = plan(tmp_path, entrypoint, "@", EXAMPLES / "tiny" / f"{entrypoint}.toml", *argv)
    again = own(tmp_path, prime_rl, entrypoint, "@", f"runs/x/configs/{entrypoint}.json")

    assert (ours.returncode, again.returncode) == (0, 0), ours.stderr + again.stderr


def test_slurm_of_the_toml_is_read_here_and_does_not_reach_the_job(prime_rl, tmp_path):
    config = tmp_path / "rl.toml"
    table = '[slurm]\npartition = "gpu"\nqos = "high"\nproject_dir = "."\nshared_fs = true\n'
    config.write_text((EXAMPLES / "rl.toml").read_text() + table)

    ours = plan(tmp_path, "rl", "@", config)

    script = (tmp_path / "runs/x/rl.sbatch").read_text()
    assert ours.returncode == 0, ours.stderr
    assert "#SBATCH --partition=gpu\n" in script
    assert "#SBATCH --qos=high\n" in script
    assert "slurm" not in json.loads((tmp_path / "runs/x/configs/rl.json").read_text())


REFUSED = {
    "an unknown key": (["--no-such-key", "1"], "--no-such-key\n  Extra inputs are not permitted"),
    "a wrong type": (["--max-steps", "many"], "Input should be a valid integer"),
    "too many GPUs": (["--train-gpus", "20"], "exceeds gpus_per_node"),
    "several nodes": (["--deployment.type", "multi_node"], "places runs on one node"),
    "NCCL on one GPU": (["--single-gpu", "--weight-broadcast.type", "nccl"], "contradict each other"),
}


@pytest.mark.parametrize(("argv", "words"), REFUSED.values(), ids=REFUSED)
def test_refusals_are_prime_rls_own_words_and_leave_nothing(prime_rl, tmp_path, argv, words):
    done = plan(tmp_path, "rl", "@", EXAMPLES / "rl.toml", *argv)

    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_without_a_backend_the_command_is_prime_rls_own(prime_rl, tmp_path):
    done = subprocess.run(
        [SCRIPTS / "rl", "@", EXAMPLES / "rl.toml", "--output-dir", "o", "--run.name", "y", "--dry-run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o/y/configs/trainer.json").exists()


def test_no_flag_of_ours_is_a_field_of_prime_rls(prime_rl):
    question = (
        "import json\n"
        "from pydantic_config.cli import _build_field_meta_map as fields\n"
        "from prime_rl.configs.rl import RLConfig\n"
        "from prime_rl.configs.sft import SFTConfig\n"
        "from prime_rl.configs.inference import InferenceConfig\n"
        "print(json.dumps([n for c in (RLConfig, SFTConfig, InferenceConfig) for n in fields(c)[0]]))"
    )
    done = subprocess.run([prime_rl, "-c", question], capture_output=True, text=True, check=True)
    theirs = {f"--{name}" for name in json.loads(done.stdout.splitlines()[-1])}
    ours = {*arguments.option_flags(), *arguments.VALUE_FLAGS, *arguments.SWITCHES}

    assert {name for name in ours & theirs if not name.startswith("--slurm.")} == {
        "--output-dir",
        "--dry-run",
        "--clean",
    }


EVALS = """
[inference]

[eval]
interval = 10

[[eval.source]]
name = "reverse-text"

[eval.source.env.taskset]
id = "reverse-text"

[eval.source.env.agent.harness]
id = "null"
"""


@pytest.mark.parametrize(("entrypoint", "more"), [("rl", ""), ("sft", EVALS)])
def test_what_an_attempt_on_one_gpu_starts_is_accepted(prime_rl, tmp_path, entrypoint, more):
    toml = tmp_path / f"{entrypoint}.toml"
    toml.write_text((EXAMPLES / f"{entrypoint}.toml").read_text() + more)
    ours = plan(tmp_path, entrypoint, "@", toml, "--single-gpu", "--ckpt-interval", "2")
    assert ours.returncode == 0, ours.stderr
    launch = read_launch(tmp_path / "runs/x/configs/launch/launch.json")
    resolved = json.loads((tmp_path / f"runs/x/configs/{entrypoint}.json").read_text())
    lease = Lease(12000, 64, None)

    folders = {"TMPDIR": "/tmp/medarc-0123abcd/tmp"}
    config = attempt_config(launch, resolved, lease, {"step": 4, "dir": None}, 0.25, folders)
    server, rest = split_server(config)

    for name, document in (("inference", server), (entrypoint, rest)):
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
        done = own(tmp_path, prime_rl, name, "@", f"{name}.json")
        assert done.returncode == 0, done.stdout + done.stderr
    assert server["vllm"]["gpu_memory_utilization"] == 0.25
    client = "orchestrator.model.client" if entrypoint == "rl" else "eval.client"
    assert fields.get(rest, f"{client}.base_url").endswith(f":{server['server']['port']}/v1")
    if entrypoint == "rl":
        written = json.loads((tmp_path / "runs/x/configs/trainer.json").read_text())
        assert written["resume"]["step"] == 4
        assert written["ckpt"]["interval"] == 2
