"""The fields of prime-rl's configs that the plugin sets or reads, for each shape of the schema.

The one place that knows them. Standard library only and free of imports from this package: the
resolver loads this very file in prime-rl's own interpreter, and the unchecked path uses it here.

A shape is recognised by its fields, not by a version number: prime-rl's `main` carries a number that
several schemas share.
"""

from __future__ import annotations

from typing import Any

Document = dict[str, Any]

_TRAINED = (
    *("output_dir", "run.name", "run.dir", "clean", "resume", "dry_run", "slurm", "max_steps"),
    *("deployment.type", "deployment.gpus_per_node", "deployment.num_train_gpus"),
    *("deployment.num_infer_gpus", "weight_broadcast.type", "weight_broadcast.port"),
    *("inference.server.port", "inference.backend_port", "inference.vllm.data_parallel_rpc_port"),
    "inference.vllm.gpu_memory_utilization",
)

SHAPES: dict[str, dict[str, tuple[str, ...]]] = {
    # prime-rl main since 2026-08: the run directory is output_dir / run.dir, resolved configs are JSON.
    "main": {
        "rl": (
            *_TRAINED,
            *("trainer.model.name", "trainer.max_steps", "trainer.ckpt.interval", "trainer.monitors.wandb"),
            *("trainer.weight_broadcast.port", "trainer.rollout_transport.port"),
            *("trainer.metrics_server.port", "rollout_transport.type", "rollout_transport.port"),
            *("orchestrator.train.source", "orchestrator.eval.source", "orchestrator.env_server_base_port"),
            *("orchestrator.weight_broadcast.port", "orchestrator.rollout_transport.port"),
            *("orchestrator.model.client.base_url", "orchestrator.model.client.admin_base_url"),
            *("inference.vllm.model", "inference.deployment.type"),
        ),
        "sft": (
            *_TRAINED,
            *("model.name", "ckpt.interval", "monitors.wandb", "eval.source", "eval.env_server_base_port"),
            *("eval.client.base_url", "eval.client.admin_base_url"),
        ),
        "inference": (
            *("output_dir", "dry_run", "slurm", "deployment.type", "deployment.gpus_per_node"),
            *("vllm.model", "vllm.tensor_parallel_size", "vllm.data_parallel_size"),
            "vllm.gpu_memory_utilization",
        ),
    },
}
"""Every field path that is set or read, by shape and entry point; `memory.py` reads more where they are."""

_SOURCES = {
    "rl": ("orchestrator.train.source", "orchestrator.eval.source"),
    "sft": ("eval.source",),
}
"""Where a config lists its environments, by entry point."""

LAUNCHER_FIELDS = ("slurm", "dry_run", "clean")
"""Fields that a resolved config leaves out, as prime-rl's own launcher does."""

DEFAULT_OUTPUT_DIR = "outputs"
"""prime-rl's own default for `output_dir`."""

SHARE_PATH = "inference.vllm.gpu_memory_utilization"
"""The field for vLLM's share of its GPU's memory."""

SHARED_GPU_MEMORY = 0.3
"""vLLM's share of a GPU that it shares with the trainer, until it is worked out, and where it cannot be.
Seen to work on an H200 with small models; prime-rl's own default of 0.9 leaves the trainer nothing."""


class FieldError(Exception):
    """A wish that the config cannot meet: what happened, and the way out.

    Args:
        message: What happened.
        hint: The way out.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def shape_of(entrypoint: str, has: Any) -> tuple[str | None, list[str]]:  # noqa: ANN401
    """Recognise the schema's shape.

    Args:
        entrypoint: `rl`, `sft` or `inference`.
        has: Called with a field path, says whether the schema has it.

    Returns:
        The shape's name, or `None` with the missing paths of the nearest shape.
    """
    nearest: list[str] | None = None
    for name, paths in SHAPES.items():
        missing = [path for path in paths[entrypoint] if not has(path)]
        if not missing:
            return name, []
        if nearest is None or len(missing) < len(nearest):
            nearest = missing
    return None, nearest or []


def get(document: Any, path: str) -> Any:  # noqa: ANN401
    """Return the value at a dotted path, or `None` where a part of the path is missing."""
    for part in path.split("."):
        if not isinstance(document, dict):
            return None
        document = document.get(part)
    return None if document == "None" else document


def put(document: Document, path: str, value: Any) -> None:  # noqa: ANN401
    """Set the value at a dotted path, making tables on the way."""
    *tables, leaf = path.split(".")
    for part in tables:
        below = document.get(part)
        if not isinstance(below, dict):
            below = document[part] = {}
        document = below
    document[leaf] = value


def apply(document: Document, entrypoint: str, wishes: Document) -> None:
    """Set our few fields in what the user wrote, before prime-rl validates it.

    Args:
        document: Files and overrides, merged; changed in place.
        entrypoint: `rl`, `sft` or `inference`.
        wishes: `parent` and `name` of the run directory, `train` and `infer` GPUs, `gpus` of an
            inference server, `single_gpu`, `ckpt_interval`; each may be missing.

    Raises:
        FieldError: The wishes contradict the config.
    """
    _refuse_multi_node(document, entrypoint)
    if entrypoint == "inference":
        _apply_inference(document, wishes)
        return
    if wishes.get("name"):
        if get(document, "run.dir") not in (None, wishes["name"]):
            raise FieldError(
                f"run.dir = {get(document, 'run.dir')!r} and --output-dir contradict each other: "
                "--output-dir names the run directory itself",
                "leave run.dir out, or leave --output-dir out and set output_dir",
            )
        put(document, "output_dir", wishes["parent"])
        put(document, "run.dir", wishes["name"])
        if get(document, "run.name") is None:
            put(document, "run.name", wishes["name"])
    if wishes.get("train") is not None:
        put(document, "deployment.num_train_gpus", wishes["train"])
    if wishes.get("infer") is not None:
        if not isinstance(document.get("inference"), dict):
            raise FieldError(
                f"--infer-gpus {wishes['infer']}: the config has no [inference] block, so the run "
                "starts no inference server and would leave the GPUs idle",
                "add [inference] to the config (an empty one is enough), or leave --infer-gpus out",
            )
        put(document, "deployment.num_infer_gpus", wishes["infer"])
    if wishes.get("single_gpu"):
        _share_one_gpu(document, entrypoint)
    if wishes.get("ckpt_interval") is not None:
        put(document, "ckpt.interval", wishes["ckpt_interval"])


def _refuse_multi_node(document: Document, entrypoint: str) -> None:
    for path in ("deployment.type", "inference.deployment.type"):
        kind = get(document, path)
        if kind in ("multi_node", "disaggregated"):
            raise FieldError(
                f"{path} = {kind!r}: this backend places runs on one node",
                f"submit multi-node runs with prime-rl's own [slurm]: leave --backend out of `{entrypoint}`",
            )


def _apply_inference(document: Document, wishes: Document) -> None:
    if wishes.get("name"):
        put(document, "output_dir", wishes["parent"].rstrip("/") + "/" + wishes["name"])
    gpus = wishes.get("gpus")
    if gpus is not None:
        tensor = _count(document, "vllm.tensor_parallel_size", 1)
        if tensor < 1 or gpus % tensor:
            raise FieldError(
                f"--gpus {gpus} cannot be split into engines of vllm.tensor_parallel_size = {tensor}",
                f"ask for a multiple of {tensor}" if tensor > 0 else None,
            )
        put(document, "vllm.data_parallel_size", gpus // tensor)


def _share_one_gpu(document: Document, entrypoint: str) -> None:
    if not isinstance(document.get("inference"), dict):
        if entrypoint == "sft":
            return  # nothing to share: the trainer has the GPU to itself
        raise FieldError(
            "--single-gpu: the config has no [inference] block, so there is nothing to share a GPU with",
            "add [inference] to the config, or leave --single-gpu out",
        )
    for path in ("deployment.num_train_gpus", "deployment.num_infer_gpus"):
        count = get(document, path)
        if count is not None and _number(path, count) != 1:
            raise FieldError(
                f"--single-gpu and {path} = {count} contradict each other",
                "one shared GPU is one for the trainer and the same one for vLLM",
            )
        put(document, path, 1)
    for path in (
        "weight_broadcast.type",
        "trainer.weight_broadcast.type",
        "orchestrator.weight_broadcast.type",
    ):
        kind = get(document, path)
        if kind not in (None, "filesystem"):
            raise FieldError(
                f"--single-gpu and {path} = {kind!r} contradict each other: two processes on one GPU "
                "cannot form the group that this broadcast needs",
                "leave weight_broadcast out; the weights then go over the file system",
            )
    if entrypoint == "rl" or isinstance(document.get("eval"), dict):
        put(document, "weight_broadcast.type", "filesystem")
    if not names_share(document):
        put(document, SHARE_PATH, SHARED_GPU_MEMORY)


def names_share(document: Document) -> bool:
    """Whether the config names vLLM's share of the memory; to be asked before `apply` fills it in."""
    return get(document, SHARE_PATH) is not None


def facts(document: Document, entrypoint: str) -> Document:
    """Read what the plan needs from a resolved (or merely merged) config.

    Returns:
        `output_dir`, `run_dir_name`, `train`, `infer`, `gpus_per_node`, `model`, `environments`,
        `max_steps`, `checkpoint_interval`, `saves`, `wandb`, `memory_share`, `clean`, `dry_run`, `resume`.

    Raises:
        FieldError: A number is none.
    """
    per_node = _count(document, "deployment.gpus_per_node", 8)
    found: Document = {
        "output_dir": _path(document, "output_dir") or DEFAULT_OUTPUT_DIR,
        "run_dir_name": _path(document, "run.dir") or _path(document, "run.name"),
        "gpus_per_node": per_node,
        "clean": _true(document, "clean"),
        "dry_run": _true(document, "dry_run"),
        "resume": get(document, "resume") not in (None, False),
        "max_steps": None,
        "checkpoint_interval": None,
        "saves": False,
        "wandb": False,
        "environments": [],
    }
    if entrypoint == "inference":
        tensor = _count(document, "vllm.tensor_parallel_size", 1)
        found["train"] = 0
        found["infer"] = tensor * _count(document, "vllm.data_parallel_size", 1)
        if found["infer"] < 1:
            raise FieldError(f"{found['infer']} GPUs: an inference server needs at least one")
        found["model"] = get(document, "vllm.model")
        found["memory_share"] = _share(document, "vllm.gpu_memory_utilization")
    else:
        serves = isinstance(document.get("inference"), dict)
        found["train"] = _count(document, "deployment.num_train_gpus", 1)
        found["infer"] = _count(document, "deployment.num_infer_gpus", 1) if serves else 0
        for path, count in (("num_train_gpus", found["train"]), ("num_infer_gpus", found["infer"])):
            if count < 1 and (serves or path == "num_train_gpus"):
                raise FieldError(
                    f"deployment.{path} = {count}: a run needs at least one GPU there",
                    "--single-gpu puts trainer and vLLM on one GPU" if serves else None,
                )
        trainer = "trainer." if entrypoint == "rl" else ""
        found["model"] = get(document, f"{trainer}model.name") or get(document, "model.name")
        found["max_steps"] = _first(document, f"{trainer}max_steps", "max_steps")
        found["saves"] = any(isinstance(get(document, path), dict) for path in (f"{trainer}ckpt", "ckpt"))
        found["checkpoint_interval"] = _first(document, f"{trainer}ckpt.interval", "ckpt.interval")
        found["wandb"] = any(
            isinstance(get(document, path), dict) for path in (f"{trainer}monitors.wandb", "monitors.wandb")
        )
        found["memory_share"] = _share(document, SHARE_PATH)
        found["environments"] = _environments(document, entrypoint)
    return found


def _environments(document: Document, entrypoint: str) -> list[str]:
    names: list[str] = []
    for path in _SOURCES[entrypoint]:
        sources = get(document, path)
        for source in sources if isinstance(sources, list) else []:
            name = get(source, "env.taskset.id")
            if isinstance(name, str) and name not in names:
                names.append(name)
    return names


def _path(document: Document, path: str) -> str | None:
    value = get(document, path)
    if value is not None and not isinstance(value, str):
        raise FieldError(f"{path} = {value!r} is not a path")
    if value is not None and ".." in value.split("/") and path != "output_dir":
        raise FieldError(f"{path} = {value!r} leads out of output_dir")
    return value


def _first(document: Document, *paths: str) -> int | None:
    for path in paths:
        value = get(document, path)
        if value is not None:
            return _number(path, value)
    return None


def _count(document: Document, path: str, default: int) -> int:
    value = get(document, path)
    return default if value is None else _number(path, value)


def _number(path: str, value: Any) -> int:  # noqa: ANN401
    try:
        return int(str(value))
    except ValueError:
        raise FieldError(f"{path} = {value!r} is not a whole number") from None


def _share(document: Document, path: str) -> float | None:
    value = get(document, path)
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        raise FieldError(f"{path} = {value!r} is not a number") from None


def _true(document: Document, path: str) -> bool:
    return str(get(document, path)).lower() == "true"


ROUTER_METRICS = 21_000
"""prime-rl's router puts its Prometheus port this far above the server's."""


def ports(document: Document, entrypoint: str) -> Document | None:
    """List the services of a run that listen on ports, and every field that holds one of them.

    The resolved config pins each port in several places, so that changing one leaves the rest stale.
    A server that a person addresses, `inference`, keeps the port that its config names.

    Args:
        document: A resolved config of shape `main`.
        entrypoint: `rl`, `sft` or `inference`.

    Returns:
        `size`, the ports of a block; `above`, distances above the server's port that must be free as
        well; `slots`, with the `offset` of a service in the block and the `paths` of its fields, where
        `[*]` is every element of a list. `None` when nothing is to be changed.
    """
    if entrypoint == "inference":
        return None
    client = "orchestrator.model.client" if entrypoint == "rl" else "eval.client"
    base = "orchestrator" if entrypoint == "rl" else "eval"
    slots: list[Document] = []

    def add(*paths: str, count: int = 1) -> None:
        offset = 1 + sum(slot["count"] for slot in slots)
        slots.append({"offset": offset, "count": count, "paths": list(paths)})

    serves = isinstance(document.get("inference"), dict)
    if serves:
        # First, so that the router's metrics lie a fixed distance above the block's second port.
        add("inference.server.port", f"{client}.base_url")
        add("inference.backend_port", f"{client}.admin_base_url[*]")
        add("inference.vllm.data_parallel_rpc_port")
    owners = ("", "trainer.", "orchestrator.") if entrypoint == "rl" else ("",)
    if get(document, "weight_broadcast.type") not in (None, "filesystem"):
        add(*(f"{owner}weight_broadcast.port" for owner in owners))
    if get(document, "rollout_transport.type") == "zmq":
        # The next port is the channel on which trainers report that they are ready.
        add(*(f"{owner}rollout_transport.port" for owner in owners), count=2)
    if get(document, "trainer.metrics_server.port") is not None:
        add("trainer.metrics_server.port")
    servers = sum(len(get(document, path) or []) for path in _SOURCES[entrypoint])
    if servers:
        add(f"{base}.env_server_base_port", count=servers)
    if not slots:
        return None
    return {
        "size": 1 + sum(slot["count"] for slot in slots),
        "above": [ROUTER_METRICS] if serves else [],
        "slots": [{"offset": slot["offset"], "paths": slot["paths"]} for slot in slots],
    }
