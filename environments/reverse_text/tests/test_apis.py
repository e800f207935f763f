"""Both APIs in this process, and through the command lines that verifiers installs."""

import json
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from reverse_text import scoring
from reverse_text.dataset import load_prompts

# Importing verifiers imports half an ecosystem, whose deprecations are not ours to fix.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SAMPLE = json.dumps({"dataset_name": "sample"})
V1_ARGUMENTS = (
    *("--env.taskset.dataset-name", "sample"),
    *("--env.agent.harness.id", "null"),
    *("--env.agent.runtime.type", "subprocess"),
    *("--sampling.max-tokens", "1024"),
    *("--run.name", "run"),
    "--no-push",
    "--no-rich",
)
UV_STAND_IN = f"""#!/bin/sh
case "$1 $2 $3" in
    "sync --help " | "python find --help") echo "--script" ;;
    "sync --script "*) ;;
    "python find --script") echo "{sys.executable}" ;;
    *) echo "unexpected: uv $*" >&2; exit 2 ;;
esac
"""


def expected_rewards(model_server: Any, model: str, count: int) -> list[float]:
    answer = model_server.models[model]
    return [scoring.reward(answer(prompt), prompt[::-1]) for prompt in load_prompts("sample")[:count]]


def user_prompts(model_server: Any) -> set[str]:
    return {request["messages"][-1]["content"] for request in model_server.requests}


@pytest.fixture
def classic() -> Any:
    return pytest.importorskip(
        "verifiers.legacy", reason="this verifiers has the v1 API only", exc_type=ImportError
    )


def test_the_classic_environment(classic: Any) -> None:
    environment = classic.load_environment("reverse-text", dataset_name="sample")
    row = environment.get_dataset()[0]
    (prompt,) = load_prompts("sample", "train[:1]")

    assert isinstance(environment, classic.SingleTurnEnv)
    assert len(environment.get_dataset()) == 250
    assert row["answer"] == prompt[::-1]
    assert [message["content"] for message in row["prompt"]] == [scoring.SYSTEM_PROMPT, prompt]


def test_the_classic_environment_without_a_system_prompt(classic: Any) -> None:
    environment = classic.load_environment(
        "reverse-text", dataset_name="sample", dataset_split="test", system_prompt=None
    )

    assert [message["role"] for message in environment.get_dataset()[0]["prompt"]] == ["user"]


def test_the_classic_api_is_missed_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import reverse_text

    class Absent:
        @staticmethod
        def find_spec(name: str, *_: Any) -> None:
            if name == "verifiers.legacy":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    for name in [name for name in sys.modules if name.startswith("verifiers.legacy")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent, *sys.meta_path])

    with pytest.raises(ImportError, match=r"no longer has\nhint: use the taskset"):
        reverse_text.load_environment("sample")


def test_the_v1_taskset_is_found_by_its_id() -> None:
    from verifiers.v1.utils.loaders import taskset_class, taskset_config_type

    taskset = taskset_class("reverse-text")
    config_type = taskset_config_type("reverse-text")
    tasks = list(taskset(config_type(dataset_name="sample", dataset_split="test")))
    (prompt,) = load_prompts("sample", "test[3:4]")

    assert taskset.__name__ == "ReverseTextTaskset"
    assert config_type().dataset_name == "PrimeIntellect/Reverse-Text-RL"
    assert config_type().dataset_split == "train"
    assert len(tasks) == 50
    assert tasks[3].data.idx == 3
    assert tasks[3].data.prompt == prompt
    assert tasks[3].data.answer == prompt[::-1]
    assert tasks[3].data.system_prompt == scoring.SYSTEM_PROMPT


@pytest.mark.parametrize(
    ("model", "average"),
    [("right", "1.000"), ("untagged", "0.000"), ("half", None), ("even", None)],
)
def test_classic_vf_eval(
    classic: Any,  # noqa: ARG001 - skips without the classic API
    commands: Any,
    model_server: Any,
    model: str,
    average: str | None,
) -> None:
    arguments = ("-m", model, "-b", model_server.base_url, "-n", "20", "--max-tokens", "1024")
    result = commands.run("vf-eval", "reverse-text", *arguments, "-a", SAMPLE)
    rewards = expected_rewards(model_server, model, 20)
    expected = f"{sum(rewards) / len(rewards):.3f}"

    assert result.returncode == 0, result.stdout + result.stderr
    assert re.findall(r"reward: avg - ([\d.]+)", result.stdout) == [expected]
    assert average in (None, expected)
    assert model_server.refusals == []
    assert user_prompts(model_server) == set(load_prompts("sample")[:20])


@pytest.fixture
def held_out(tmp_path: Path) -> tuple[Path, list[str]]:
    """A folder with a split for training and one to evaluate on, and the latter's texts."""
    splits = {"train": ["one text", "another text"], "test": ["abc def", "ghi jkl", "mno pqr"]}
    folder = tmp_path / "texts"
    folder.mkdir()
    for split, texts in splits.items():
        lines = [json.dumps({"prompt": text}) + "\n" for text in texts]
        (folder / f"{split}.jsonl").write_text("".join(lines))
    return folder, splits["test"]


def asked(model_server: Any) -> list[tuple[str, float]]:
    """Texts and temperatures of all requests."""
    requests = model_server.requests
    return sorted((each["messages"][-1]["content"], each["temperature"]) for each in requests if each)


def test_classic_vf_eval_of_a_folders_held_out_split(
    classic: Any,  # noqa: ARG001 - skips without the classic API
    commands: Any,
    model_server: Any,
    held_out: tuple[Path, list[str]],
) -> None:
    folder, texts = held_out
    arguments = ("-m", "right", "-b", model_server.base_url, "-n", "2", "-r", "3", "-T", "1.0")
    data = json.dumps({"dataset_name": str(folder), "dataset_split": "test"})
    result = commands.run("vf-eval", "reverse-text", *arguments, "--max-tokens", "64", "-a", data)

    assert result.returncode == 0, result.stdout + result.stderr
    assert re.findall(r"reward: avg - ([\d.]+)", result.stdout) == ["1.000"]
    assert asked(model_server) == sorted([(text, 1.0) for text in texts[:2]] * 3)


def test_classic_vf_eval_without_the_hub(
    classic: Any,  # noqa: ARG001 - skips without the classic API
    commands: Any,
    model_server: Any,
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        commands.environment["HF_ENDPOINT"] = f"http://127.0.0.1:{closed.getsockname()[1]}"
        del commands.environment["HF_HUB_OFFLINE"]
        arguments = ("-m", "right", "-b", model_server.base_url, "-n", "20")
        result = commands.run("vf-eval", "reverse-text", *arguments)
    problem, hint = result.stderr.splitlines()[-2:]

    assert result.returncode == 1
    assert "cannot reach the Hugging Face hub" in problem
    assert "'PrimeIntellect/Reverse-Text-RL'" in problem
    assert hint.startswith("hint: ")
    assert "Retrying" not in result.stdout + result.stderr
    assert model_server.requests == []


def v1_rewards(folder: Path) -> dict[int, float]:
    """Rewards by task, out of the traces that a v1 evaluation writes."""
    text = (folder / "outputs" / "run" / "traces.jsonl").read_text()
    rewards: dict[int, float] = {}
    for line in text.splitlines():
        document = json.loads(line)
        for trace in document.get("traces", [document]):
            rewards[trace["task"]["data"]["idx"]] = trace["rewards"]["lcs"]["score"]
    return rewards


@pytest.mark.parametrize("model", ["right", "untagged", "half"])
def test_v1_eval(commands: Any, model_server: Any, model: str) -> None:
    # The null harness would build an environment with uv: this one has what its script imports.
    commands.add_user_script("uv", UV_STAND_IN)
    commands.link_pip()
    command = "eval" if commands.has("eval") else "vf-eval"
    arguments = ("-m", model, "--client.base-url", model_server.base_url, "-n", "4")
    result = commands.run(command, "reverse-text", *arguments, *V1_ARGUMENTS)

    assert result.returncode == 0, result.stdout + result.stderr
    assert v1_rewards(commands.folder) == dict(enumerate(expected_rewards(model_server, model, 4)))
    assert model_server.refusals == []


def test_v1_eval_of_a_folders_held_out_split(
    commands: Any, model_server: Any, held_out: tuple[Path, list[str]]
) -> None:
    commands.add_user_script("uv", UV_STAND_IN)
    commands.link_pip()
    command = "eval" if commands.has("eval") else "vf-eval"
    folder, texts = held_out
    arguments = ("-m", "right", "--client.base-url", model_server.base_url, "-n", "2", "-r", "3")
    data = ("--env.taskset.dataset-name", str(folder), "--env.taskset.dataset-split", "test")
    temperature = ("--sampling.temperature", "1.0")
    result = commands.run(command, "reverse-text", *arguments, *V1_ARGUMENTS[2:], *data, *temperature)

    assert result.returncode == 0, result.stdout + result.stderr
    assert v1_rewards(commands.folder) == {0: 1.0, 1: 1.0}
    assert asked(model_server) == sorted([(text, 1.0) for text in texts[:2]] * 3)


@pytest.mark.network
def test_vf_eval_of_verifiers_0_4(commands: Any, model_server: Any) -> None:
    commands.link_uv()
    venv = commands.folder / "venv"
    package = Path(__file__).parents[1]
    commands.scripts = commands.user_scripts
    for arguments in (
        ("venv", "-q", "--python", sys.executable, str(venv)),
        ("pip", "install", "-q", "--python", str(venv), "verifiers==0.4.0", str(package)),
    ):
        built = commands.run("uv", *arguments)
        assert built.returncode == 0, built.stderr

    commands.scripts = venv / "bin"
    arguments = ("-m", "half", "--client.base-url", model_server.base_url, "-n", "20")
    result = commands.run("vf-eval", "reverse-text", *arguments, *V1_ARGUMENTS)

    assert result.returncode == 0, result.stdout + result.stderr
    assert v1_rewards(commands.folder) == dict(enumerate(expected_rewards(model_server, "half", 20)))
    assert model_server.refusals == []
