"""Weights from checkpoints. What needs torch runs with the interpreter that MEDARC_TORCH_PYTHON names."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from standins.recorded import write_checkpoint

import medarc_plugin.job
from medarc_plugin.job import borrowed, layout, model_files, safetensors_files
from medarc_plugin.job.export import export_command
from medarc_plugin.job.safetensors_files import Tensor

JOB_CODE = Path(medarc_plugin.job.__file__).parent
TORCH_SIDE = Path(__file__).with_name("torch_side.py")
FAITHFUL = {"loading": {}, "logits": True, "answer": True, "names": [], "tensors": []}


def export(run: Path, *asked: str, python: str = sys.executable, **options: Any) -> Any:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(run.parent / "cache")}
    return subprocess.run(
        [python, str(JOB_CODE), "export", str(run), *asked],
        env={**environment, **options.pop("environment", {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        **options,
    )


def write_safetensors(path: Path, **shapes: tuple[int, ...]) -> None:
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2
        for length in shape:
            size *= length
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(end))


def write_config(run: Path, config: dict[str, Any], name: str = "sft") -> None:
    (run / "configs").mkdir(parents=True, exist_ok=True)
    (run / "configs" / f"{name}.json").write_text(json.dumps(config))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A run directory of an SFT run that has no checkpoint yet."""
    run = tmp_path / "a run"
    write_config(run, {"model": {"name": "somebody/something"}})
    return run


def test_the_command_is_that_of_the_running_job_code(run: Any) -> None:
    from medarc_plugin.job.launch import read_launch

    run.write()
    launch = read_launch(run.run_dir / "configs" / "launch" / "launch.json")

    command = [str(run.checkout / ".venv" / "bin" / "python"), str(JOB_CODE), "export", str(run.run_dir)]
    assert export_command(launch) == tuple(command)
    assert export_command(launch, 20) == (*command, "--step", "20")


def test_a_folder_that_is_no_run_is_said_to_be_none(tmp_path: Path) -> None:
    done = export(tmp_path)

    assert (done.returncode, done.stdout) == (borrowed.BAD_RUN, "")
    assert done.stderr.startswith(f"error: {tmp_path} is no run: ")
    assert "\nhint: " in done.stderr


def test_an_inference_run_has_no_weights(place: Path) -> None:
    (place / "configs" / "launch").mkdir()
    (place / "configs" / "launch" / "launch.json").write_text('{"entrypoint": "inference"}')

    done = export(place)

    assert done.returncode == borrowed.BAD_RUN
    assert "is an inference run" in done.stderr


@pytest.mark.parametrize("asked", [(), ("--step", "4")])
def test_a_run_without_a_checkpoint(place: Path, asked: tuple[str, ...]) -> None:
    done = export(place, *asked)

    assert (done.returncode, done.stdout) == (borrowed.NO_CHECKPOINT, "")
    assert str(place / "checkpoints") in done.stderr
    assert not (place / "weights").exists()


@pytest.mark.parametrize("lost", [".metadata", "__0_0.distcp"])
def test_a_half_written_checkpoint_is_torn_when_asked_for_and_else_passed_over(
    place: Path, lost: str
) -> None:
    (write_checkpoint(place, 4) / lost).write_bytes(b"")

    asked, unasked = export(place, "--step", "4"), export(place)

    assert asked.returncode == borrowed.TORN
    assert f"the checkpoint {place / 'checkpoints' / 'step_4'} is not whole" in asked.stderr
    assert unasked.returncode == borrowed.NO_CHECKPOINT
    assert "passing over the checkpoint of step 4" in unasked.stderr


def test_a_checkpoint_of_rl_is_whole_with_the_orchestrators_part(place: Path) -> None:
    (place / "configs" / "sft.json").rename(place / "configs" / "rl.json")
    write_checkpoint(place, 2)

    done = export(place)

    assert done.returncode == borrowed.NO_CHECKPOINT
    assert "passing over the checkpoint of step 2" in done.stderr


def test_an_interpreter_without_torch_is_named(place: Path, checkout: Path) -> None:
    write_checkpoint(place, 4)
    python = str(checkout / ".venv" / "bin" / "python")

    done = export(place, python=python)

    assert (done.returncode, done.stdout) == (borrowed.PACKAGES_MISSING, "")
    assert f"error: {python} cannot import torch" in done.stderr
    assert "\nhint: export with the interpreter of prime-rl's own environment" in done.stderr
    assert list(place.glob("weights/*")) == []


def test_weights_that_prime_rl_wrote_are_left_as_they_are(place: Path) -> None:
    weights = place / "weights" / "step_20"
    write_safetensors(weights / "model.safetensors", a=(2, 3))
    (weights / "config.json").write_text("{}")

    done = export(place)

    assert (done.returncode, done.stdout) == (0, f"{weights}\n")
    assert "is there already; --force writes it anew" in done.stderr


def test_weights_that_are_not_whole_are_not_touched_without_force(place: Path) -> None:
    weights = place / "weights" / "step_4"
    write_checkpoint(place, 4)
    write_safetensors(weights / "model.safetensors", a=(2, 3))
    whole = (weights / "model.safetensors").read_bytes()
    (weights / "model.safetensors").write_bytes(whole[:-1])

    done = export(place)

    assert done.returncode == borrowed.IN_THE_WAY
    assert f"model.safetensors has {len(whole) - 1} of {len(whole)} bytes" in done.stderr
    assert (weights / "model.safetensors").stat().st_size == len(whole) - 1


def test_a_folder_of_shards_is_read_through_its_index(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model-00001-of-00002.safetensors", a=(2, 3))
    write_safetensors(tmp_path / "model-00002-of-00002.safetensors", b=(4,))
    # Of another format: it is not in the index.
    write_safetensors(tmp_path / "consolidated.safetensors", c=(1,))
    index = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (tmp_path / safetensors_files.INDEX).write_text(json.dumps({"weight_map": index}))

    assert safetensors_files.read_folder(tmp_path) == {"a": Tensor("BF16", (2, 3)), "b": Tensor("BF16", (4,))}

    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError):
        safetensors_files.read_folder(tmp_path)


@pytest.mark.parametrize("content", [b"", b"12345678", b"\xff" * 16, (4).to_bytes(8, "little") + b"nope"])
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)

    with pytest.raises(ValueError):  # noqa: PT011 - json's and ours
        safetensors_files.read_header(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"dtype": "float32"}, {"dtype": "bfloat16"}),
        ({"torch_dtype": "float16"}, {"torch_dtype": "bfloat16"}),
        ({}, {"torch_dtype": "bfloat16"}),
        ({"dtype": "bfloat16", "quantization_config": {"bits": 4}}, {"dtype": "bfloat16"}),
        (
            {"dtype": "float32", "text_config": {"dtype": "float32", "hidden_size": 8}},
            {"dtype": "bfloat16", "text_config": {"dtype": "bfloat16", "hidden_size": 8}},
        ),
    ],
)
def test_the_config_says_what_the_weights_are_in(config: dict[str, Any], expected: dict[str, Any]) -> None:
    before = json.dumps(config)

    assert model_files.exported_config(config, None) == expected
    assert json.dumps(config) == before


def test_the_config_of_a_run_with_fewer_layers_says_so() -> None:
    config = {"dtype": "bfloat16", "num_hidden_layers": 28}

    assert model_files.exported_config(config, 4)["num_hidden_layers"] == 4
    assert model_files.exported_config(config, 40)["num_hidden_layers"] == 28


def test_whether_the_output_layer_is_the_embedding() -> None:
    head, none = {"lm_head.weight": Tensor("BF16", (1,))}, {"a": Tensor("BF16", (1,))}

    assert model_files.is_tied({"tie_word_embeddings": True}, head)
    assert model_files.is_tied({"text_config": {"tie_word_embeddings": True}}, None)
    assert not model_files.is_tied({"tie_word_embeddings": False}, none)
    assert model_files.is_tied({}, none)
    assert not model_files.is_tied({}, head)
    assert not model_files.is_tied({}, None)


def test_tensors_are_parted_by_layer() -> None:
    names = ["model.embed.weight", "model.layers.0.a", "model.layers.10.a", "model.layers.1.a"]

    parts = layout.units([*names, "model.layers.0.b.c", "lm_head.weight", "vision.layers.0.a"])

    assert parts == [
        ["model.embed.weight", "lm_head.weight"],
        ["model.layers.0.a", "model.layers.0.b.c"],
        ["model.layers.10.a"],
        ["model.layers.1.a"],
        ["vision.layers.0.a"],
    ]


@pytest.mark.parametrize(
    ("known", "same"),
    [
        ({"a": Tensor("BF16", (2, 3)), "mtp.b": Tensor("BF16", (1,))}, True),
        ({"a": Tensor("F32", (2, 3))}, True),
        ({"a": Tensor("BF16", (3, 2))}, False),
        ({"b": Tensor("BF16", (2, 3))}, False),
        (None, False),
    ],
)
def test_a_layout_is_the_same_by_name_and_shape(known: dict[str, Tensor] | None, same: bool) -> None:
    tensors = {"a": (2, 3), "lm_head.weight": (5, 3)}

    assert layout.same_layout(tensors, known) is same


@pytest.mark.parametrize(
    ("name", "adapter"),
    [
        ("model.layers.0.self_attn.q_proj.lora_A.0", True),
        ("model.layers.0.mlp.experts.w1_lora_B.0", True),
        ("model.layers.0.mlp.experts.gate_up_lora_A.0", True),
        ("model.layers.0.self_attn.q_proj.weight", False),
        ("model.lora_A.weight", False),
    ],
)
def test_adapters_are_known_by_their_names(name: str, adapter: bool) -> None:
    assert layout.is_adapter(name) is adapter


def test_a_chat_template_of_the_run_takes_the_place_of_all_others(tmp_path: Path) -> None:
    settings = {"chat_template": "old", "eos_token": "é"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (tmp_path / "chat_template.json").write_text('{"chat_template": "older"}')

    model_files.set_chat_template(tmp_path, "{{ new }}")

    assert (tmp_path / "chat_template.jinja").read_text() == "{{ new }}"
    assert json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8")) == {"eos_token": "é"}
    assert not (tmp_path / "chat_template.json").exists()


# What follows needs torch.


@pytest.fixture(scope="session")
def torch_python() -> str:
    python = os.environ.get("MEDARC_TORCH_PYTHON")
    if not python:
        pytest.skip("MEDARC_TORCH_PYTHON is not set: there is no torch to export with")
    return python


@pytest.fixture(scope="session")
def trainer_python(torch_python: str) -> str:
    probe = [torch_python, "-c", "import prime_rl.trainer.model"]
    if subprocess.run(probe, check=False, capture_output=True, timeout=240).returncode:
        pytest.skip("the interpreter of MEDARC_TORCH_PYTHON has no prime-rl with a trainer")
    return torch_python


def torch_side(python: str, action: str, folder: Path, *rest: str) -> Any:
    done = subprocess.run(
        [python, str(TORCH_SIDE), action, str(folder), *rest],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def made(torch_python: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make a run's checkpoints once."""
    cached: dict[tuple[str, ...], Path] = {}

    def make(*what: str) -> Path:
        if what not in cached:
            folder = tmp_path_factory.mktemp("-".join(what))
            torch_side(torch_python, what[0], folder, *what[1:])
            cached[what] = folder
        return cached[what]

    return make


@pytest.fixture
def trained(made: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """A copy of a made run, with a config."""

    def copy(*what: str, **model: Any) -> Path:
        folder = tmp_path / "trained run"
        shutil.copytree(made(*what), folder)
        write_config(folder / "run", {"model": {"name": str(folder / "base"), **model}})
        return folder

    return copy


@pytest.mark.parametrize("tied", ["tied", "untied"])
def test_exported_weights_are_the_trained_ones(
    tied: str, trained: Callable[..., Path], torch_python: str
) -> None:
    folder = trained("dense", tied)

    done = export(folder / "run", python=torch_python)

    assert (done.returncode, done.stdout) == (0, f"{folder}/run/weights/step_4\n"), done.stderr
    assert sorted(path.name for path in (folder / "run" / "weights" / "step_4").iterdir()) == [
        *("config.json", "export.json", "generation_config.json", "model.safetensors"),
    ]
    found = torch_side(torch_python, "compare", folder, "4")
    assert found == {**FAITHFUL, "dtype": "torch.bfloat16", "dtypes": ["torch.bfloat16"], "adapters": [0, []]}


def test_shards_hold_all_of_it(trained: Callable[..., Path], torch_python: str) -> None:
    folder = trained("dense", "tied")

    done = export(folder / "run", python=torch_python, environment={"MEDARC_EXPORT_SHARD_BYTES": "20000"})

    weights = folder / "run" / "weights" / "step_4"
    index = json.loads((weights / "model.safetensors.index.json").read_text())
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in weights.glob("*.safetensors")) == sorted(
        set(index["weight_map"].values())
    )
    assert all(path.stat().st_size < 25000 for path in weights.glob("*.safetensors"))
    assert torch_side(torch_python, "compare", folder, "4").items() >= FAITHFUL.items()


def test_adapters_are_merged_and_written_by_themselves(
    trained: Callable[..., Path], torch_python: str
) -> None:
    folder = trained("lora", lora={"rank": 4, "alpha": 8.0, "dropout": 0.1, "modules_to_save": ["norm"]})

    done = export(folder / "run", python=torch_python)

    assert done.returncode == 0, done.stderr
    assert "model.lora.modules_to_save was trained too" in done.stderr
    found = torch_side(torch_python, "compare", folder, "4")
    assert found.items() >= FAITHFUL.items()
    assert found["adapters"] == [12, []]
    adapter = json.loads(
        (folder / "run" / "weights" / "step_4" / "lora_adapters" / "adapter_config.json").read_text()
    )
    assert adapter["target_modules"] == ["o_proj", "q_proj"]
    assert (adapter["r"], adapter["lora_alpha"], adapter["lora_dropout"]) == (4, 8.0, 0.1)


def test_the_tokenizer_and_its_template_come_along(trained: Callable[..., Path], torch_python: str) -> None:
    folder = trained("dense", "tied")
    for name in (
        "tokenizer.json",
        "tokenizer_config.json",
        "merges.txt",
        "additional_chat_templates/tool.jinja",
    ):
        (folder / "base" / name).parent.mkdir(exist_ok=True)
        (folder / "base" / name).write_text("{}")
    (folder / "template.jinja").write_text("{{ messages }}")
    config = {
        "trainer": {
            "model": {"name": "../base"},
            "tokenizer": {"name": None, "chat_template": "../template.jinja"},
        }
    }
    (folder / "run" / "configs" / "sft.json").unlink()
    write_config(folder / "run", config, "rl")
    (folder / "run" / "configs" / "launch").mkdir()
    launch = {"entrypoint": "rl", "working_directory": str(folder / "run")}
    (folder / "run" / "configs" / "launch" / "launch.json").write_text(json.dumps(launch))
    orchestrator = folder / "run" / "checkpoints" / "step_2" / "orchestrator"
    orchestrator.mkdir()
    (orchestrator / "progress.pt").write_bytes(b"x")

    done = export(folder / "run", python=torch_python)

    weights = folder / "run" / "weights" / "step_2"
    assert (done.returncode, done.stdout) == (0, f"{weights}\n"), done.stderr
    assert (weights / "chat_template.jinja").read_text() == "{{ messages }}"
    assert (weights / "additional_chat_templates" / "tool.jinja").read_text() == "{}"
    assert {"tokenizer.json", "tokenizer_config.json", "merges.txt"} <= {p.name for p in weights.iterdir()}


def test_a_model_of_the_hub_is_found_in_the_cache(trained: Callable[..., Path], torch_python: str) -> None:
    folder = trained("dense", "untied")
    cached = folder / "cache" / "hub" / "models--somebody--tiny"
    shutil.copytree(folder / "base", cached / "snapshots" / ("0" * 40))
    (cached / "snapshots" / ("0" * 40) / "tokenizer.json").write_text("{}")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0" * 40)
    write_config(folder / "run", {"model": {"name": "somebody/tiny"}})

    done = export(folder / "run", python=torch_python)

    assert done.returncode == 0, done.stderr
    assert torch_side(torch_python, "compare", folder, "4").items() >= FAITHFUL.items()
    assert (folder / "run" / "weights" / "step_4" / "tokenizer.json").read_text() == "{}"


def test_a_model_that_is_nowhere_is_named(trained: Callable[..., Path], torch_python: str) -> None:
    folder = trained("dense", "tied")
    write_config(folder / "run", {"model": {"name": "nobody/nothing"}})

    done = export(folder / "run", python=torch_python)

    assert done.returncode == borrowed.MODEL_FILES
    assert "error: nobody/nothing is no folder, not in the cache" in done.stderr
    assert "HF_HUB_OFFLINE is set" in done.stderr
    assert [path.name for path in (folder / "run" / "weights").iterdir()] == [".export.lock"]


def test_the_newest_whole_checkpoint_is_taken(trained: Callable[..., Path], torch_python: str) -> None:
    folder = trained("dense", "tied")
    data = folder / "run" / "checkpoints" / "step_4" / "trainer" / "__0_0.distcp"
    data.write_bytes(data.read_bytes()[:-100])

    newest = export(folder / "run", python=torch_python)
    asked = export(folder / "run", "--step", "4", python=torch_python)

    assert (newest.returncode, newest.stdout) == (0, f"{folder}/run/weights/step_2\n"), newest.stderr
    assert "passing over the checkpoint of step 4" in newest.stderr
    assert asked.returncode == borrowed.TORN
    assert "__0_0.distcp has " in asked.stderr


def test_metadata_that_is_cut_off_is_torn(trained: Callable[..., Path], torch_python: str) -> None:
    folder = trained("dense", "tied")
    metadata = folder / "run" / "checkpoints" / "step_4" / "trainer" / ".metadata"
    metadata.write_bytes(metadata.read_bytes()[:200])

    done = export(folder / "run", "--step", "4", python=torch_python)

    assert done.returncode == borrowed.TORN
    assert ".metadata cannot be read" in done.stderr


def test_weights_are_written_anew_when_asked_or_when_the_checkpoint_is_another(
    trained: Callable[..., Path], torch_python: str
) -> None:
    folder = trained("dense", "tied")
    weights = folder / "run" / "weights" / "step_4"

    first = export(folder / "run", python=torch_python)
    again = export(folder / "run", python=torch_python)
    forced = export(folder / "run", "--force", python=torch_python)
    # As a run does that went on from an earlier step.
    os.utime(folder / "run" / "checkpoints" / "step_4" / "trainer" / ".metadata", (1, 1))
    saved_again = export(folder / "run", python=torch_python)

    runs = (first, again, forced, saved_again)
    assert [done.returncode for done in runs] == [0, 0, 0, 0]
    assert ["35 tensors in bfloat16" in done.stderr for done in runs] == [True, False, True, True]
    assert "is there already" in again.stderr
    assert sorted(path.name for path in weights.parent.iterdir()) == [".export.lock", "step_4"]


def test_a_full_disk_leaves_nothing_half(trained: Callable[..., Path], torch_python: str) -> None:
    folder = trained("dense", "tied")
    left = folder / "run" / "weights" / ".step_2.tmpold"
    left.mkdir(parents=True)

    done = export(
        folder / "run",
        python=torch_python,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)),
    )

    assert done.returncode == borrowed.CANNOT_WRITE
    assert "cannot be written: " in done.stderr
    assert "\nhint: free some space" in done.stderr
    assert [path.name for path in (folder / "run" / "weights").iterdir()] == [".export.lock"]


def test_a_layout_that_needs_prime_rl_is_not_guessed(trained: Callable[..., Path], torch_python: str) -> None:
    folder = trained("fused")
    config = json.loads((folder / "base" / "config.json").read_text())
    (folder / "base" / "config.json").write_text(json.dumps({**config, "model_type": "unheard-of"}))

    done = export(folder / "run", python=torch_python)

    assert done.returncode in (borrowed.PACKAGES_MISSING, borrowed.LAYOUT)
    assert "cannot import prime_rl" in done.stderr or "cannot turn the layout" in done.stderr
    assert [path.name for path in (folder / "run" / "weights").iterdir()] == [".export.lock"]


@pytest.mark.host
@pytest.mark.parametrize(
    ("kind", "implementation", "adapters"),
    [("custom", "auto", 0), ("fused", "hf", 0), ("adapted-experts", "custom", 78)],
)
def test_prime_rls_own_classes_turn_stacked_experts_back(
    kind: str, implementation: str, adapters: int, trained: Callable[..., Path], trainer_python: str
) -> None:
    folder = trained(kind, impl=implementation, lora={"rank": 4, "alpha": 8.0})

    done = export(folder / "run", python=trainer_python)

    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{folder}/run/weights/step_4\n"
    found = torch_side(trainer_python, "compare", folder, "4")
    assert found.items() >= FAITHFUL.items()
    assert found["adapters"] == [adapters, []]
