"""What the resolver makes of configs, held against prime-rl's own dry run.

With the real prime-rl when PRIME_RL_DIR names one, else with the stand-in, which `test_standin.py` holds to
the real one.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tomli
from gpu_proof import stages
from gpu_proof.place import Place
from standin import make_checkout
from standins.real import EXAMPLES, Real, example, find_real

from medarc_plugin.cli import arguments
from medarc_plugin.host import fields, resolver
from medarc_plugin.job.config import asked_to_resume, attempt_config, split_server
from medarc_plugin.job.launch import read_launch
from medarc_plugin.job.ports import Lease

SCRIPTS = Path(sys.executable).parent
IS_REAL = find_real() is not None


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """The real prime-rl, or the stand-in."""
    real = find_real()
    if real is None:
        checkout = make_checkout(tmp_path_factory.mktemp("host") / "prime-rl")
        return Real(checkout, checkout / ".venv/bin/python", fields.MAIN)
    return real


@pytest.fixture(autouse=True)
def prime_rl(host, monkeypatch, tmp_path):
    """The host's interpreter, with the environment set for it, and nothing resolved before."""
    monkeypatch.setenv("MEDARC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PRIME_RL_DIR", str(host.checkout))
    monkeypatch.setenv("PRIME_RL_PYTHON", str(host.python))
    monkeypatch.delenv("MEDARC_BACKEND", raising=False)
    return str(host.python)


@pytest.fixture
def shape(host):
    """The shape of the host's schema."""
    return host.shape


@pytest.fixture
def rl_toml(shape):
    """The RL example that the host takes."""
    return example("rl", shape)


def place(shape):
    """Arguments that make `o/y` the run directory."""
    return ["--output-dir", "o/y"] if shape.run_dir is None else ["--output-dir", "o", "--run.name", "y"]


def written(folder, name):
    """Read a config that prime-rl itself wrote, as JSON or TOML."""
    path = folder / "configs" / f"{name}.json"
    return (
        json.loads(path.read_text()) if path.exists() else tomli.loads(path.with_suffix(".toml").read_text())
    )


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
    elif isinstance(value, list):
        yield path, [dict(leaves(item)) if isinstance(item, dict) else item for item in value]
    elif value not in (None, "None"):
        # TOML has no null, and leaves it out or says it in a word.
        yield path, value


def test_the_resolved_rl_config_is_prime_rls_own(prime_rl, shape, rl_toml, tmp_path):
    ours = plan(tmp_path, "rl", "@", rl_toml, "--train-gpus", "1", "--infer-gpus", "1", "--max-steps", "5")
    assert ours.returncode == 0, ours.stderr
    own(tmp_path, prime_rl, "rl", "@", rl_toml, "--max-steps", "5", *place(shape))

    resolved = json.loads((tmp_path / "runs/x/configs/rl.json").read_text())
    again = own(tmp_path, prime_rl, "rl", "@", "runs/x/configs/rl.json")

    assert again.returncode == 0, again.stderr
    for part in ("trainer", "orchestrator", "inference"):
        theirs = dict(leaves(written(tmp_path / "o/y", part)))
        mine = dict(leaves(resolved[part]))
        differing = {path for path in theirs if path in mine and mine[path] != theirs[path]}
        assert differing <= {"output_dir"}, part
        assert theirs.keys() <= mine.keys(), part


def test_the_resolved_sft_config_is_accepted_again(prime_rl, shape, tmp_path):
    ours = plan(tmp_path, "sft", "@", example("sft", shape), "--gpus", "1")
    again = own(tmp_path, prime_rl, "sft", "@", "runs/x/configs/sft.json")

    assert (ours.returncode, again.returncode) == (0, 0), ours.stderr + again.stderr


@pytest.mark.parametrize("flag", ["--model.name", "--vllm.model"])
def test_a_server_is_planned_by_either_name_of_its_model_and_accepted_again(prime_rl, shape, tmp_path, flag):
    ours = plan(tmp_path, "inference", flag, "PrimeIntellect/Qwen3-0.6B", "--gpus", "2")
    again = own(tmp_path, prime_rl, "inference", "@", "runs/x/configs/inference.json")

    resolved = json.loads((tmp_path / "runs/x/configs/inference.json").read_text())
    assert (ours.returncode, again.returncode) == (0, 0), ours.stderr + again.stderr
    assert fields.get(resolved, shape.engine.model) == "PrimeIntellect/Qwen3-0.6B"
    assert fields.get(resolved, shape.engine.data) == 2


def test_one_gpu_for_both_is_what_prime_rl_accepts(prime_rl, shape, rl_toml, tmp_path):
    ours = plan(tmp_path, "rl", "@", rl_toml, "--single-gpu")
    again = own(tmp_path, prime_rl, "rl", "@", "runs/x/configs/rl.json")

    resolved = json.loads((tmp_path / "runs/x/configs/rl.json").read_text())
    assert (ours.returncode, again.returncode) == (0, 0), ours.stderr + again.stderr
    assert fields.get(resolved, "trainer.weight_broadcast.type") == "filesystem"
    assert fields.get(resolved, shape.share_path) == fields.SHARED_GPU_MEMORY


TINY = {
    "sft": ("sft", "--gpus", "1"),
    "rl on one GPU": ("rl", "--single-gpu"),
    "rl on two GPUs": ("rl", "--train-gpus", "1", "--infer-gpus", "1"),
}


@pytest.mark.parametrize(("entrypoint", "argv"), [(name, argv) for name, *argv in TINY.values()], ids=TINY)
def test_the_tiny_example_is_accepted_before_anything_of_it_is_made(
    prime_rl, shape, tmp_path, entrypoint, argv
):
    if shape is not fields.MAIN:
        pytest.skip("the tiny example has the keys of prime-rl main")
    ours = plan(tmp_path, entrypoint, "@", EXAMPLES / "tiny" / f"{entrypoint}.toml", *argv)
    again = own(tmp_path, prime_rl, entrypoint, "@", f"runs/x/configs/{entrypoint}.json")

    assert (ours.returncode, again.returncode) == (0, 0), ours.stderr + again.stderr


def test_the_harness_of_the_pairs_is_one_for_prime_rl(shape, tmp_path, monkeypatch):
    if not IS_REAL:
        pytest.skip("the stand-in knows verifiers' own harnesses alone")
    if shape is not fields.MAIN:
        pytest.skip("the tiny example has the keys of prime-rl main")
    config = stages.paced_config(Place(tmp_path, tmp_path, tmp_path, gpus=2, ends=0.0))
    monkeypatch.setenv("PYTHONPATH", str(stages.HARNESS))

    done = plan(tmp_path, "rl", "@", config, "--single-gpu")

    assert done.returncode == 0, done.stderr
    resolved = json.loads((tmp_path / "runs/x/configs/rl.json").read_text())
    (source,) = resolved["orchestrator"]["train"]["source"]
    assert source["env"]["agent"]["harness"]["id"] == "in-process-chat"


@pytest.mark.parametrize(("typed", "step"), [(["--resume"], None), (["--resume.step", "40"], 40)])
def test_a_run_goes_on_by_the_words_of_the_plugins_help(shape, rl_toml, tmp_path, typed, step):
    ours = plan(tmp_path, "rl", "@", rl_toml, *typed)

    resolved = json.loads((tmp_path / "runs/x/configs/rl.json").read_text())
    launch = read_launch(tmp_path / "runs/x/configs/launch/launch.json")
    asked = asked_to_resume(resolved, launch.fields)
    assert ours.returncode == 0, ours.stderr
    assert asked is not None
    assert asked.get("step") == step


def test_every_field_that_is_touched_is_in_the_schema(host, prime_rl, shape):
    question = (
        "import importlib, json, sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import resolver\n"
        "fields = resolver.load(sys.argv[2])\n"
        "answers = {}\n"
        "for entrypoint, (module, name) in resolver.CLASSES.items():\n"
        "    model = getattr(importlib.import_module(module), name)\n"
        "    _, lacking = fields.shape_of(entrypoint, lambda path: resolver.has_path(model, path))\n"
        "    answers[entrypoint] = lacking\n"
        "print(json.dumps(answers))"
    )
    folder = Path(resolver.__file__).parent
    done = subprocess.run(
        [prime_rl, "-c", question, folder, fields.__file__], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    # Lacking nothing of one shape, none is asked for what it lacks.
    assert json.loads(done.stdout.splitlines()[-1]) == {"rl": {}, "sft": {}, "inference": {}}


@pytest.mark.skipif(
    find_real() is None, reason="PRIME_RL_DIR is not set: the stand-in has a part of the schema"
)
def test_what_tells_a_release_is_in_its_schema_and_in_no_other(prime_rl, shape):
    question = (
        "import importlib, json, sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import resolver\n"
        "fields = resolver.load(sys.argv[2])\n"
        "for entrypoint, (module, name) in resolver.CLASSES.items():\n"
        "    model = getattr(importlib.import_module(module), name)\n"
        "    for shape in fields.SHAPES.values():\n"
        "        for key in shape.spellings[entrypoint]:\n"
        "            if resolver.has_path(model, key) != (shape.name == sys.argv[3]):\n"
        "                print(entrypoint, shape.name, key)\n"
    )
    folder = Path(resolver.__file__).parent
    command = [prime_rl, "-c", question, folder, fields.__file__, shape.name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_slurm_of_the_toml_is_read_here_and_does_not_reach_the_job(rl_toml, tmp_path):
    config = tmp_path / "rl.toml"
    table = '[slurm]\npartition = "gpu"\nqos = "high"\nproject_dir = "."\nshared_fs = true\n'
    config.write_text(rl_toml.read_text() + table)

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
def test_refusals_are_prime_rls_own_words_and_leave_nothing(rl_toml, tmp_path, argv, words):
    done = plan(tmp_path, "rl", "@", rl_toml, *argv)

    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_without_a_backend_the_command_is_prime_rls_own(shape, rl_toml, tmp_path):
    done = subprocess.run(
        [SCRIPTS / "rl", "@", rl_toml, *place(shape), "--dry-run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert written(tmp_path / "o/y", "trainer")["max_steps"] == 20


def test_no_flag_of_ours_is_a_field_of_prime_rls(prime_rl, shape):
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

    shared = {"--output-dir", "--dry-run"} | ({"--clean"} if shape.clean == "clean" else set())
    assert {name for name in ours & theirs if not name.startswith("--slurm.")} == shared


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
def test_what_an_attempt_on_one_gpu_starts_is_accepted(prime_rl, shape, tmp_path, entrypoint, more):
    if entrypoint not in shape.infer_gpus:
        pytest.skip(f"{entrypoint} of prime-rl {shape.name} starts no server")
    toml = tmp_path / f"{entrypoint}.toml"
    toml.write_text(example(entrypoint, shape).read_text() + more)
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
    assert fields.get(server, shape.engine.share) == 0.25
    address = fields.get(rest, f"{shape.client[entrypoint]}.base_url")
    (address,) = [address] if isinstance(address, str) else address
    assert address.endswith(f":{server['server']['port']}/v1")
    if entrypoint == "rl":
        trainer = written(tmp_path / "runs/x", "trainer")
        assert (trainer["ckpt"] if shape.resume.by_step else trainer["resume"])[
            "resume_step" if shape.resume.by_step else "step"
        ] == 4
        assert trainer["ckpt"]["interval"] == 2


def test_a_config_that_prime_rl_knows_is_planned_without_it(host, prime_rl, shape, rl_toml, tmp_path):
    first = plan(tmp_path, "rl", "@", rl_toml, "--train-gpus", "1", "--infer-gpus", "1")
    before = (tmp_path / "runs/x/configs/rl.json").read_bytes()

    second = plan(tmp_path, "rl", "@", rl_toml, "--train-gpus", "1", "--infer-gpus", "1")

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "from the cache" not in first.stderr
    assert "from the cache" in second.stderr
    assert (tmp_path / "runs/x/configs/rl.json").read_bytes() == before


def test_each_of_several_configs_is_what_it_is_alone(host, shape, tmp_path):
    requests = {
        "a": ["@", str(example("rl", shape)), "--max-steps", "5"],
        "refused": ["@", str(example("rl", shape)), "--no-such-key", "1"],
        "b": ["@", str(example("rl", shape))],
    }

    def answers(named):
        lines = [
            json.dumps(
                {
                    "entrypoint": "rl",
                    "arguments": argv,
                    "fields": fields.__file__,
                    "wishes": {"parent": "runs", "name": name},
                }
            )
            for name, argv in named.items()
        ]
        (tmp_path / "requests").write_text("\n".join(lines))
        argv = [host.python, resolver.__file__, tmp_path / "requests", tmp_path / "answers"]
        subprocess.run(argv, check=True, capture_output=True)
        ready, *found = [json.loads(line) for line in (tmp_path / "answers").read_text().splitlines()]
        assert ready["kind"] == "ready"
        for answer in found:
            answer.pop("read", None)
        return found

    together = answers(requests)

    assert [answer["kind"] for answer in together] == ["resolved", "rejected", "resolved"]
    assert together == [answer for name, argv in requests.items() for answer in answers({name: argv})]
