"""prime-rl's fields: what is set, what is read, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medarc_plugin.host import fields
from medarc_plugin.host.fields import (
    MAIN,
    SHAPES,
    SHARED_GPU_MEMORY,
    V0_8_0,
    FieldError,
    Shape,
    engine_setting,
    for_job,
    foreign,
    get,
    guess,
    nearest,
    ports,
    put,
    shape_of,
    spelled,
)
from medarc_plugin.job.formats import FORMATS


def applied(
    entrypoint: str = "rl",
    document: dict[str, Any] | None = None,
    *,
    shape: Shape = MAIN,
    **wishes: Any,
) -> dict[str, Any]:
    document = {"inference": {}} if document is None else document
    fields.apply(document, entrypoint, wishes, shape)
    return document


def apply(document: dict[str, Any], entrypoint: str, wishes: dict[str, Any], shape: Shape = MAIN) -> None:
    fields.apply(document, entrypoint, wishes, shape)


def facts(document: dict[str, Any], entrypoint: str, shape: Shape = MAIN) -> dict[str, Any]:
    return fields.facts(document, entrypoint, shape)


def without_lists(path: str) -> str:
    """A field's path as a schema has it: elements of lists have none of their own."""
    return path.replace("[*]", "")


def test_get_and_put_follow_dots() -> None:
    document: dict[str, Any] = {"a": {"b": 1}, "n": "None", "s": "text"}
    put(document, "a.c.d", 2)
    put(document, "s.t", 3)

    assert (get(document, "a.b"), get(document, "a.c.d"), get(document, "s.t")) == (1, 2, 3)
    assert [get(document, path) for path in ("x", "a.x.y", "a.b.c", "n")] == [None] * 4


ENTRYPOINTS = ("rl", "sft", "inference")
EVERYWHERE = [(shape, entrypoint) for shape in SHAPES.values() for entrypoint in ENTRYPOINTS]


def names(value: Any) -> str:
    return value.name if isinstance(value, Shape) else str(value)


@pytest.mark.parametrize(("shape", "entrypoint"), EVERYWHERE, ids=names)
def test_a_schema_is_known_by_its_fields(shape: Shape, entrypoint: str) -> None:
    has = {*shape.paths[entrypoint], "something.new"}

    assert shape_of(entrypoint, has.__contains__) == (shape, {})


@pytest.mark.parametrize(("shape", "entrypoint"), EVERYWHERE, ids=names)
def test_a_schema_that_lacks_a_field_is_unknown_and_nearest_to_its_own(shape: Shape, entrypoint: str) -> None:
    lost = shape.paths[entrypoint][0]
    found, lacking = shape_of(entrypoint, lambda path: path in shape.paths[entrypoint] and path != lost)

    assert found is None
    assert lacking[shape.name] == [lost]
    assert nearest(entrypoint, lacking) is shape


@pytest.mark.parametrize(("entrypoint", "lost"), [("sft", "file_monitor"), ("inference", "router")])
def test_v0_7_0_is_not_taken_for_v0_8_0(entrypoint: str, lost: str) -> None:
    """It has the rest: `rl` alone differs in more."""
    found, lacking = shape_of(entrypoint, lambda path: path in V0_8_0.paths[entrypoint] and path != lost)

    assert found is None
    assert lacking["v0.8.0"] == [lost]


@pytest.mark.parametrize("entrypoint", ENTRYPOINTS)
def test_no_shape_is_a_part_of_another(entrypoint: str) -> None:
    sets = {name: set(shape.paths[entrypoint]) for name, shape in SHAPES.items()}

    assert [(a, b) for a in sets for b in sets if a != b and sets[a] <= sets[b]] == []


def test_every_shape_describes_every_entry_point() -> None:
    assert {frozenset(shape.paths) for shape in SHAPES.values()} == {frozenset(ENTRYPOINTS)}
    assert {shape.name: shape for shape in SHAPES.values()} == SHAPES


SERVICES: dict[str, dict[str, Any]] = {
    "rl": {
        "inference": {},
        "weight_broadcast": {"type": "nccl"},
        "rollout_transport": {"type": "zmq"},
        "trainer": {"metrics_server": {"port": 9000}},
        "orchestrator": {"train": {"source": [{}, {}]}, "eval": {"source": [{}]}},
    },
    "sft": {"inference": {}, "weight_broadcast": {"type": "nccl"}, "eval": {"source": [{}]}},
    "inference": {},
}
"""A config of each entry point with all that listens on ports."""


@pytest.mark.parametrize(("shape", "entrypoint"), EVERYWHERE, ids=names)
def test_every_field_that_is_touched_is_listed(shape: Shape, entrypoint: str) -> None:
    slots = (ports(SERVICES[entrypoint], entrypoint, shape) or {"slots": []})["slots"]
    touched = {path for slot in slots for path in slot["paths"]} | {*shape.launcher_fields}
    touched |= {shape.train_gpus.get(entrypoint), shape.infer_gpus.get(entrypoint)} - {None}
    engine = shape.engine
    if entrypoint == "inference":
        touched |= {engine.model, engine.tensor, engine.data, engine.share, "server.port", "router"}
        touched -= {shape.clean}  # a server has no run to delete
    else:
        resume = for_job(entrypoint, shape)["resume"]["paths"]
        touched |= set(resume[:1] if entrypoint == "sft" else resume)
        # The job reads it to find what prime-rl writes.
        parts = ("trainer.", "orchestrator.") if entrypoint == "rl" else ("",)
        touched |= {part + ".".join(FORMATS[shape.name].metrics_table) for part in parts}
        touched |= {shape.wandb, "max_steps", "env_vars", "ckpt.interval", "ckpt.output_dir"}
        touched |= {shape.run_dir, "output_dir"} - {None}
        sources = shape.sources[entrypoint]
        touched |= {f"{source}.{field}" for source in sources for field in shape.environments}
    if entrypoint in shape.infer_gpus:
        touched |= {shape.share_path, "weight_broadcast.type"}

    listed = shape.paths[entrypoint]
    assert (
        sorted(
            path
            for path in map(without_lists, touched)
            if path not in listed and not any(other.startswith(f"{path}.") for other in listed)
        )
        == []
    )


@pytest.mark.parametrize("shape", SHAPES.values(), ids=names)
def test_no_field_is_listed_twice(shape: Shape) -> None:
    assert [paths for paths in shape.paths.values() if len(set(paths)) != len(paths)] == []


WRITTEN = [
    ("rl", {}, MAIN),
    ("rl", {"model": {"name": "m"}, "inference": {}, "ckpt": {"interval": 1}}, MAIN),
    ("rl", {"monitors": {"wandb": {}}}, MAIN),
    ("rl", {"inference": {"vllm": {"gpu_memory_utilization": 0.5}}}, MAIN),
    ("rl", {"wandb": {}}, V0_8_0),
    ("rl", {"inference": {"gpu_memory_utilization": 0.5}}, V0_8_0),
    ("rl", {"clean_output_dir": True}, V0_8_0),
    ("sft", {"deployment": {"num_gpus": 2}}, V0_8_0),
    ("sft", {"deployment": {"num_train_gpus": 2}}, MAIN),
    ("inference", {"model": {"name": "m"}}, V0_8_0),
    ("inference", {"vllm": {"model": "m"}}, MAIN),
]


@pytest.mark.parametrize(("entrypoint", "document", "shape"), WRITTEN)
def test_what_nobody_checked_is_taken_for_what_it_looks_like(
    entrypoint: str, document: dict[str, Any], shape: Shape
) -> None:
    assert guess(document, entrypoint) is shape


@pytest.mark.parametrize(
    ("entrypoint", "document", "shape", "other", "keys"),
    [
        (
            "rl",
            {"orchestrator": {"max_inflight_episodes": 1}},
            MAIN,
            V0_8_0,
            "orchestrator.max_inflight_episodes",
        ),
        (
            "rl",
            {"orchestrator": {"concurrency": {"max_inflight": 1}}},
            V0_8_0,
            MAIN,
            "orchestrator.concurrency",
        ),
        ("rl", {"wandb": {"project": "p"}, "bench": True}, MAIN, V0_8_0, "bench wandb"),
        ("sft", {"run": {"name": "a"}, "resume": {"step": 1}}, V0_8_0, MAIN, "resume run"),
        ("inference", {"vllm": {"model": "m"}}, V0_8_0, MAIN, "vllm"),
    ],
)
def test_keys_of_another_release_are_found(
    entrypoint: str, document: dict[str, Any], shape: Shape, other: Shape, keys: str
) -> None:
    assert foreign(document, entrypoint, shape) == (other, keys.split())
    assert foreign(document, entrypoint, other) is None


def test_a_mistyped_key_is_of_no_release() -> None:
    assert foreign({"max_stepps": 3, "trainer": {}}, "rl", MAIN) is None


@pytest.mark.parametrize(("shape", "entrypoint"), EVERYWHERE, ids=names)
def test_what_tells_a_release_is_no_field_of_another(shape: Shape, entrypoint: str) -> None:
    others = [path for other in SHAPES.values() if other is not shape for path in other.paths[entrypoint]]

    assert [
        key
        for key in shape.spellings[entrypoint]
        if any(path == key or path.startswith(f"{key}.") for path in others)
    ] == []
    example = shape.examples.get(entrypoint)
    assert example is None or (Path(__file__).parents[2] / example).is_file()


SPELLINGS = [
    ("inference", "--model.name X --server.port 1", MAIN, "--vllm.model X --server.port 1"),
    ("inference", "--vllm.model=X", V0_8_0, "--model.name=X"),
    ("inference", "--model.name X", V0_8_0, "--model.name X"),
    ("rl", "--model.name X", MAIN, "--model.name X"),
    ("rl", "--resume --no-clean", MAIN, "--resume --no-clean"),
    ("rl", "--resume", V0_8_0, "--ckpt.resume-step -1"),
    ("sft", "--resume.step 40", V0_8_0, "--ckpt.resume-step 40"),
    ("sft", "--resume.step=40", V0_8_0, "--ckpt.resume-step=40"),
    ("rl", "--no-clean", V0_8_0, "--no-clean-output-dir"),
]


@pytest.mark.parametrize(("entrypoint", "typed", "shape", "expected"), SPELLINGS, ids=names)
def test_what_the_help_says_of_every_prime_rl_is_spelled_as_each_does(
    entrypoint: str, typed: str, shape: Shape, expected: str
) -> None:
    assert " ".join(spelled(typed.split(), entrypoint, shape)) == expected


def test_where_output_dir_is_the_run_directory_nothing_else_is_set() -> None:
    assert applied(document={}, shape=V0_8_0, parent="/runs", name="a") == {"output_dir": "/runs/a"}


@pytest.mark.parametrize(
    ("document", "name"),
    [({}, None), ({"output_dir": "outputs"}, None), ({"output_dir": "runs/a"}, "")],
)
def test_where_output_dir_is_the_run_directory_it_has_no_name_below(
    document: dict[str, Any], name: str | None
) -> None:
    assert facts(document, "rl", V0_8_0)["run_dir_name"] == name


def test_the_gpus_of_v0_8_0() -> None:
    assert applied("sft", {}, shape=V0_8_0, train=4) == {"deployment": {"num_gpus": 4}}
    assert applied("inference", {"parallel": {"tp": 2}}, shape=V0_8_0, gpus=4)["parallel"]["dp"] == 2
    assert facts({"deployment": {"num_gpus": 3}, "inference": {}}, "sft", V0_8_0)["train"] == 3
    assert facts({"parallel": {"tp": 2, "dp": 3}, "model": {"name": "m"}}, "inference", V0_8_0) | {
        "infer": 6,
        "model": "m",
    } == facts({"parallel": {"tp": 2, "dp": 3}, "model": {"name": "m"}}, "inference", V0_8_0)


def test_sft_of_v0_8_0_starts_no_server() -> None:
    with pytest.raises(FieldError, match=r"`sft` of this prime-rl \(shape v0.8.0\) starts no inference"):
        applied("sft", {"inference": {}}, shape=V0_8_0, infer=1)

    assert facts({"inference": {}}, "sft", V0_8_0)["infer"] == 0
    assert ports({"inference": {}}, "sft", V0_8_0) is None


def test_one_shared_gpu_of_v0_8_0() -> None:
    document = applied(shape=V0_8_0, single_gpu=True)

    assert document["deployment"] == {"num_train_gpus": 1, "num_infer_gpus": 1}
    assert document["weight_broadcast"] == {"type": "filesystem"}
    assert document["inference"] == {"gpu_memory_utilization": SHARED_GPU_MEMORY}


def test_the_rest_of_what_a_plan_needs_of_v0_8_0() -> None:
    found = facts(
        {
            "output_dir": "runs/a",
            "clean_output_dir": True,
            "ckpt": {"resume_step": 0, "interval": 5},
            "wandb": {},
            "inference": {"gpu_memory_utilization": 0.4},
            "orchestrator": {
                "train": {"source": [{"env": {"taskset": {"id": ""}}, "legacy": {"id": "old-env"}}]}
            },
        },
        "rl",
        V0_8_0,
    )

    wanted = {"clean": True, "resume": True, "checkpoint_interval": 5, "saves": True, "wandb": True}
    assert found | wanted == found
    assert (found["memory_share"], found["environments"]) == (0.4, ["old-env"])


def test_the_ports_of_v0_8_0() -> None:
    found = ports(SERVICES["rl"], "rl", V0_8_0)

    assert found is not None
    assert found["size"] == 1 + 3 + 1 + 3 + 1 + 3
    assert found["slots"][0]["paths"] == [
        "inference.server.port",
        "orchestrator.model.client.base_url[*]",
    ]
    assert found["slots"][2]["paths"] == ["inference.data_parallel_rpc_port"]


def test_a_setting_of_vllm_is_found_where_the_shape_has_it() -> None:
    ours = {"vllm_extra": {"max_num_seqs": 4}, "model": {"dtype": "float32"}, "enable_lora": True}
    found = [
        engine_setting({"inference": ours}, name, V0_8_0)
        for name in ("max_num_seqs", "dtype", "enable_lora", "x")
    ]

    assert found == [4, "float32", True, None]
    assert engine_setting({"inference": {"vllm": {"dtype": "float32"}}}, "dtype", MAIN) == "float32"


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

    assert f"`{entrypoint} @ CONFIG`, without --backend" in (caught.value.hint or "")


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


@pytest.mark.parametrize("shape", fields.SHAPES.values(), ids=list(fields.SHAPES))
def test_a_servers_port_leaves_one_for_the_routers_metrics(shape: Shape) -> None:
    last = {"server": {"port": 44_535}}
    behind = {"server": {"port": 44_536}}

    assert facts(last, "inference", shape)["infer"] == 1
    assert facts(behind | {"router": None}, "inference", shape)["infer"] == 1
    with pytest.raises(FieldError, match=r"server\.port = 44536: vLLM's router puts its metrics"):
        facts(behind, "inference", shape)
