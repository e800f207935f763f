"""prime-rl's fields: what is set, what is read, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from medarc_plugin.host.fields import (
    SHAPES,
    SHARED_GPU_MEMORY,
    FieldError,
    apply,
    facts,
    get,
    put,
    shape_of,
)


def applied(entrypoint: str = "rl", document: dict[str, Any] | None = None, **wishes: Any) -> dict[str, Any]:
    document = {"inference": {}} if document is None else document
    apply(document, entrypoint, wishes)
    return document


def test_get_and_put_follow_dots() -> None:
    document: dict[str, Any] = {"a": {"b": 1}, "n": "None", "s": "text"}
    put(document, "a.c.d", 2)
    put(document, "s.t", 3)

    assert (get(document, "a.b"), get(document, "a.c.d"), get(document, "s.t")) == (1, 2, 3)
    assert [get(document, path) for path in ("x", "a.x.y", "a.b.c", "n")] == [None] * 4


@pytest.mark.parametrize("entrypoint", ["rl", "sft", "inference"])
def test_a_schema_with_all_fields_is_known(entrypoint: str) -> None:
    assert shape_of(entrypoint, lambda _: True) == ("main", [])


def test_a_schema_that_lacks_fields_is_unknown_and_they_are_named() -> None:
    lacking = {"run.dir", "run.name"}

    assert shape_of("rl", lambda path: path not in lacking) == (None, ["run.name", "run.dir"])


def test_every_shape_describes_every_entry_point() -> None:
    assert {frozenset(shape) for shape in SHAPES.values()} == {frozenset({"rl", "sft", "inference"})}


def test_the_run_directory_becomes_output_dir_and_run_dir() -> None:
    document = applied(parent="/runs", name="a")

    assert document["output_dir"] == "/runs"
    assert document["run"] == {"dir": "a", "name": "a"}


def test_a_name_of_ones_own_is_kept() -> None:
    assert applied(document={"run": {"name": "mine"}}, parent="/runs", name="a")["run"] == {
        "name": "mine",
        "dir": "a",
    }


def test_another_run_dir_in_the_config_contradicts() -> None:
    with pytest.raises(FieldError, match="contradict each other"):
        applied(document={"run": {"dir": "b"}}, parent="/runs", name="a")


def test_an_inference_server_has_no_run_and_the_directory_is_its_own() -> None:
    assert applied("inference", {}, parent="/", name="a") == {"output_dir": "/a"}


def test_gpu_flags_set_prime_rls_fields() -> None:
    assert applied(train=2, infer=6)["deployment"] == {"num_train_gpus": 2, "num_infer_gpus": 6}
    assert applied("sft", {}, train=4)["deployment"] == {"num_train_gpus": 4}


@pytest.mark.parametrize("document", [{}, {"inference": None}, {"inference": "None"}])
def test_gpus_for_an_inference_that_is_not_there_are_refused(document: dict[str, Any]) -> None:
    with pytest.raises(FieldError, match=r"no \[inference\] block"):
        applied(document=document, infer=1)


@pytest.mark.parametrize("path", ["deployment.type", "inference.deployment.type"])
@pytest.mark.parametrize("kind", ["multi_node", "disaggregated"])
@pytest.mark.parametrize("entrypoint", ["rl", "sft", "inference"])
def test_runs_of_several_nodes_are_refused(entrypoint: str, path: str, kind: str) -> None:
    document: dict[str, Any] = {}
    put(document, path, kind)

    with pytest.raises(FieldError, match="places runs on one node") as caught:
        applied(entrypoint, document)

    assert f"leave --backend out of `{entrypoint}`" in (caught.value.hint or "")


def test_gpus_of_a_server_become_engines() -> None:
    assert applied("inference", {}, gpus=4)["vllm"] == {"data_parallel_size": 4}
    assert (
        applied("inference", {"vllm": {"tensor_parallel_size": "2"}}, gpus=4)["vllm"]["data_parallel_size"]
        == 2
    )


@pytest.mark.parametrize("tensor", [3, 0, -1, "x", 1.5])
def test_gpus_that_do_not_make_whole_engines_are_refused(tensor: object) -> None:
    with pytest.raises(FieldError, match="tensor_parallel_size"):
        applied("inference", {"vllm": {"tensor_parallel_size": tensor}}, gpus=4)


def test_one_shared_gpu_sends_weights_over_the_file_system_and_leaves_the_trainer_room() -> None:
    document = applied(single_gpu=True)

    assert document["deployment"] == {"num_train_gpus": 1, "num_infer_gpus": 1}
    assert document["weight_broadcast"] == {"type": "filesystem"}
    assert document["inference"]["vllm"] == {"gpu_memory_utilization": SHARED_GPU_MEMORY}


def test_a_memory_share_of_ones_own_is_kept() -> None:
    document = applied(document={"inference": {"vllm": {"gpu_memory_utilization": 0.5}}}, single_gpu=True)

    assert document["inference"]["vllm"]["gpu_memory_utilization"] == 0.5


@pytest.mark.parametrize("path", ["deployment.num_train_gpus", "deployment.num_infer_gpus"])
@pytest.mark.parametrize("count", [2, "2", 0])
def test_one_shared_gpu_contradicts_a_config_with_more(path: str, count: object) -> None:
    document: dict[str, Any] = {"inference": {}}
    put(document, path, count)

    with pytest.raises(FieldError, match=f"--single-gpu and {path} = {count} contradict"):
        applied(document=document, single_gpu=True)


def test_one_shared_gpu_and_a_number_that_is_none() -> None:
    with pytest.raises(FieldError, match="'x' is not a whole number"):
        applied(document={"inference": {}, "deployment": {"num_train_gpus": "x"}}, single_gpu=True)


@pytest.mark.parametrize(
    "path", ["weight_broadcast.type", "trainer.weight_broadcast.type", "orchestrator.weight_broadcast.type"]
)
@pytest.mark.parametrize("kind", ["nccl", "nixl"])
def test_one_shared_gpu_contradicts_a_broadcast_between_gpus(path: str, kind: str) -> None:
    document: dict[str, Any] = {"inference": {}}
    put(document, path, kind)

    with pytest.raises(FieldError, match=f"--single-gpu and {path} = '{kind}' contradict"):
        applied(document=document, single_gpu=True)


def test_nothing_to_share_a_gpu_with() -> None:
    with pytest.raises(FieldError, match="nothing to share a GPU with"):
        applied(document={}, single_gpu=True)

    assert applied("sft", {}, single_gpu=True) == {}


def test_the_gpus_of_a_run_with_and_without_a_server() -> None:
    deployment = {"deployment": {"num_train_gpus": 2, "num_infer_gpus": 3}}

    found = facts({**deployment, "inference": {}}, "rl")
    alone = facts(deployment, "sft")

    assert (found["train"], found["infer"]) == (2, 3)
    assert (alone["train"], alone["infer"]) == (2, 0)


def test_the_gpus_of_a_server() -> None:
    found = facts({"vllm": {"tensor_parallel_size": 2, "data_parallel_size": "3", "model": "m"}}, "inference")

    assert (found["train"], found["infer"], found["model"]) == (0, 6, "m")


@pytest.mark.parametrize(
    ("entrypoint", "path", "value", "message"),
    [
        ("rl", "deployment.num_train_gpus", 0, "num_train_gpus = 0: a run needs at least one"),
        ("rl", "deployment.num_infer_gpus", 0, "num_infer_gpus = 0: a run needs at least one"),
        ("rl", "deployment.num_train_gpus", -1, "num_train_gpus = -1"),
        ("rl", "deployment.num_train_gpus", "two", "'two' is not a whole number"),
        ("rl", "deployment.gpus_per_node", 1.5, "1.5 is not a whole number"),
        ("rl", "max_steps", "many", "'many' is not a whole number"),
        ("rl", "inference.vllm.gpu_memory_utilization", "half", "'half' is not a number"),
        ("inference", "vllm.data_parallel_size", 0, "0 GPUs: an inference server needs at least one"),
        ("inference", "vllm.data_parallel_size", -2, "-2 GPUs"),
    ],
)
def test_a_number_that_no_run_can_have_is_refused(
    entrypoint: str, path: str, value: object, message: str
) -> None:
    document: dict[str, Any] = {"inference": {}} if entrypoint == "rl" else {}
    put(document, path, value)

    with pytest.raises(FieldError, match=message):
        facts(document, entrypoint)


def test_the_rest_of_what_a_plan_needs() -> None:
    document = {
        "output_dir": "outputs",
        "run": {"name": "a", "dir": None},
        "clean": "true",
        "resume": {"step": None},
        "max_steps": 9,
        "deployment": {"gpus_per_node": 4},
        "inference": {"vllm": {"gpu_memory_utilization": "0.5"}},
        "trainer": {
            "model": {"name": "m"},
            "ckpt": {"interval": 3},
            "monitors": {"wandb": {}},
            "max_steps": 7,
        },
        "orchestrator": {
            "train": {"source": [{"env": {"taskset": {"id": "reverse-text"}}}, {"env": {}}, "x"]},
            "eval": {
                "source": [{"env": {"taskset": {"id": "reverse-text"}}}, {"env": {"taskset": {"id": "b"}}}]
            },
        },
    }

    assert facts(document, "rl") == {
        "output_dir": "outputs",
        "run_dir_name": "a",
        "gpus_per_node": 4,
        "clean": True,
        "dry_run": False,
        "resume": True,
        "max_steps": 7,
        "checkpoint_interval": 3,
        "saves": True,
        "wandb": True,
        "environments": ["reverse-text", "b"],
        "train": 1,
        "infer": 1,
        "model": "m",
        "memory_share": 0.5,
    }


@pytest.mark.parametrize("value", [None, False, "None"])
def test_no_resume_is_none(value: object) -> None:
    assert facts({"resume": value}, "sft")["resume"] is False
