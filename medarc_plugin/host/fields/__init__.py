"""The fields of prime-rl's configs that the plugin sets or reads, for each shape of the schema.

The one place that knows them: a module for each shape, and here what is done with them. Standard library
only, and free of imports from the rest of this project: the resolver loads this very package in prime-rl's
own interpreter, and the unchecked path uses it here.

A shape is recognised by its fields, not by a version number: prime-rl's `main` carries a number that
several schemas share. docs/prime-rl.md tells how to add one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .main import MAIN
from .rehearsal import for_rehearsal
from .shape import Engine, Resume, Shape
from .tables import (
    Document,
    FieldError,
    count,
    first,
    fraction,
    get,
    is_named,
    is_true,
    number,
    path_of,
    put,
)
from .v0_8_0 import V0_8_0

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "DEFAULT_OUTPUT_DIR",
    "MAIN",
    "ROUTER_METRICS",
    "SHAPES",
    "SHARED_GPU_MEMORY",
    "V0_8_0",
    "Document",
    "Engine",
    "FieldError",
    "Resume",
    "Shape",
    "apply",
    "engine_setting",
    "facts",
    "for_job",
    "for_rehearsal",
    "foreign",
    "get",
    "guess",
    "names_share",
    "nearest",
    "place_fields",
    "ports",
    "put",
    "shape_of",
    "spelled",
]

SHAPES: dict[str, Shape] = {shape.name: shape for shape in (MAIN, V0_8_0)}
"""Every shape by its name, the newest first."""

DEFAULT_OUTPUT_DIR = "outputs"
"""prime-rl's own default for `output_dir`."""

SHARED_GPU_MEMORY = 0.3
"""vLLM's share of a GPU that it shares with the trainer, until it is worked out, and where it cannot be.
Seen to work on an H200 with small models; prime-rl's own default of 0.9 leaves the trainer nothing."""

ROUTER_METRICS = 21_000
"""prime-rl's router puts its Prometheus port this far above the server's."""


def place_fields(shape: Shape) -> tuple[str, ...]:
    """Name the fields that say where a run lives and what it is called: they differ between any two runs."""
    return tuple(filter(None, ("output_dir", "run.name", shape.run_dir)))


def shape_of(entrypoint: str, has: Any) -> tuple[Shape | None, dict[str, list[str]]]:  # noqa: ANN401
    """Recognise the schema's shape.

    Args:
        entrypoint: `rl`, `sft` or `inference`.
        has: Called with a field path, says whether the schema has it.

    Returns:
        The shape, or `None` with the paths that each known shape has and this schema lacks.
    """
    lacking: dict[str, list[str]] = {}
    for name, shape in SHAPES.items():
        lacking[name] = [path for path in shape.paths[entrypoint] if not has(path)]
        if not lacking[name]:
            return shape, {}
    return None, lacking


def nearest(entrypoint: str, lacking: dict[str, list[str]]) -> Shape:
    """Choose the shape of which a schema has the largest part; the newest one of several."""
    return min(SHAPES.values(), key=lambda shape: len(lacking[shape.name]) / len(shape.paths[entrypoint]))


def guess(document: Document, entrypoint: str) -> Shape:
    """Say for which shape a config was written: the one with most of its fields that no other has.

    Args:
        document: What the user wrote.
        entrypoint: `rl`, `sft` or `inference`.

    Returns:
        The shape; the newest one where the config does not tell.
    """

    def votes(shape: Shape) -> int:
        others = [other for other in SHAPES.values() if other is not shape]
        return len(keys_of(shape, document, entrypoint, but=others))

    return max(SHAPES.values(), key=votes)


def keys_of(shape: Shape, document: Document, entrypoint: str, *, but: Sequence[Shape]) -> list[str]:
    """List the keys of a config that a shape has and others have not.

    Args:
        shape: The shape.
        document: What the user wrote.
        entrypoint: `rl`, `sft` or `inference`.
        but: The others.
    """
    own, *others = ({*each.paths[entrypoint], *each.spellings[entrypoint]} for each in (shape, *but))
    known = own.difference(*others)
    return sorted(path for path in known if is_named(document, path))


def foreign(document: Document, entrypoint: str, shape: Shape) -> tuple[Shape, list[str]] | None:
    """Find the shape for which a config was written, when that is another one than the prime-rl at hand has.

    Args:
        document: What the user wrote.
        entrypoint: `rl`, `sft` or `inference`.
        shape: The shape at hand.

    Returns:
        The other shape and the keys that tell, without those below one of them; `None` when none does.
    """
    found = {
        name: keys_of(other, document, entrypoint, but=[shape])
        for name, other in SHAPES.items()
        if other is not shape
    }
    name = max(found, key=lambda name: len(found[name]))
    keys = [key for key in found[name] if not any(key.startswith(f"{above}.") for above in found[name])]
    return (SHAPES[name], keys) if keys else None


def spelled(arguments: Sequence[str], entrypoint: str, shape: Shape) -> list[str]:
    """Spell a command line's overrides as a shape does, where another one spells them otherwise.

    The model of a server (`--model.name X`, `--vllm.model X`), and what the plugin's own help says of every
    prime-rl: `--resume`, `--resume.step N`, `--no-clean`.

    Args:
        arguments: What is prime-rl's, as typed.
        entrypoint: `rl`, `sft` or `inference`.
        shape: The schema's shape.
    """
    if entrypoint == "inference":
        names = {f"--{other.engine.model}": f"--{shape.engine.model}" for other in SHAPES.values()}
    else:
        names = {"--no-clean": f"--no-{_dashed(shape.clean)}"}
        if shape.resume.by_step:
            names["--resume.step"] = f"--{_dashed(shape.resume.path)}"
    told: list[str] = []
    for token in arguments:
        name, equals, value = token.partition("=")
        if token == "--resume" and shape.resume.by_step and entrypoint != "inference":
            told += [f"--{_dashed(shape.resume.path)}", "-1"]
        else:
            told.append(names.get(name, name) + equals + value)
    return told


def _dashed(path: str) -> str:
    """A field as it stands on a command line."""
    return path.replace("_", "-")


def apply(document: Document, entrypoint: str, wishes: Document, shape: Shape) -> None:
    """Set our few fields in what the user wrote, before prime-rl validates it.

    Args:
        document: Files and overrides, merged; changed in place.
        entrypoint: `rl`, `sft` or `inference`.
        wishes: `parent` and `name` of the run directory, `train` and `infer` GPUs, `gpus` of an
            inference server, `single_gpu`, `ckpt_interval`; each may be missing.
        shape: The schema's shape.

    Raises:
        FieldError: The wishes contradict the config.
    """
    _refuse_multi_node(document, entrypoint)
    if wishes.get("name"):
        _set_run_dir(document, entrypoint, wishes, shape)
    if entrypoint == "inference":
        _split_engines(document, wishes.get("gpus"), shape)
        return
    if wishes.get("train") is not None:
        put(document, shape.train_gpus[entrypoint], wishes["train"])
    if wishes.get("infer") is not None:
        _set_infer_gpus(document, entrypoint, wishes["infer"], shape)
    if wishes.get("single_gpu"):
        _share_one_gpu(document, entrypoint, shape)
    if wishes.get("ckpt_interval") is not None:
        put(document, "ckpt.interval", wishes["ckpt_interval"])


def _refuse_multi_node(document: Document, entrypoint: str) -> None:
    for path in ("deployment.type", "inference.deployment.type"):
        kind = get(document, path)
        if kind in ("multi_node", "disaggregated"):
            raise FieldError(
                f"{path} = {kind!r}: this backend places runs on one node",
                f"prime-rl's own [slurm] submits multi-node runs: `{entrypoint} @ CONFIG`, without --backend",
            )


def _set_run_dir(document: Document, entrypoint: str, wishes: Document, shape: Shape) -> None:
    """Make `--output-dir` the run directory itself."""
    if shape.run_dir is None or entrypoint == "inference":
        put(document, "output_dir", wishes["parent"].rstrip("/") + "/" + wishes["name"])
        return
    if get(document, shape.run_dir) not in (None, wishes["name"]):
        raise FieldError(
            f"{shape.run_dir} = {get(document, shape.run_dir)!r} and --output-dir contradict each other: "
            "--output-dir names the run directory itself",
            f"leave {shape.run_dir} out, or leave --output-dir out and set output_dir",
        )
    put(document, "output_dir", wishes["parent"])
    put(document, shape.run_dir, wishes["name"])
    if get(document, "run.name") is None:
        put(document, "run.name", wishes["name"])


def _set_infer_gpus(document: Document, entrypoint: str, gpus: int, shape: Shape) -> None:
    path = shape.infer_gpus.get(entrypoint)
    if path is None:
        raise FieldError(
            f"--infer-gpus {gpus}: `{entrypoint}` of this prime-rl (shape {shape.name}) starts no inference "
            "server",
            "leave --infer-gpus out",
        )
    if not isinstance(document.get("inference"), dict):
        raise FieldError(
            f"--infer-gpus {gpus}: the config has no [inference] block, so the run "
            "starts no inference server and would leave the GPUs idle",
            "add [inference] to the config (an empty one is enough), or leave --infer-gpus out",
        )
    put(document, path, gpus)


def _split_engines(document: Document, gpus: int | None, shape: Shape) -> None:
    """Divide a server's GPUs into engines."""
    if gpus is None:
        return
    path = shape.engine.tensor
    tensor = count(document, path, 1)
    if tensor < 1 or gpus % tensor:
        raise FieldError(
            f"--gpus {gpus} cannot be split into engines of {path} = {tensor}",
            f"ask for a multiple of {tensor}" if tensor > 0 else None,
        )
    put(document, shape.engine.data, gpus // tensor)


def _share_one_gpu(document: Document, entrypoint: str, shape: Shape) -> None:
    if not isinstance(document.get("inference"), dict):
        if entrypoint == "sft":
            return  # nothing to share: the trainer has the GPU to itself
        raise FieldError(
            "--single-gpu: the config has no [inference] block, so there is nothing to share a GPU with",
            "add [inference] to the config, or leave --single-gpu out",
        )
    if entrypoint not in shape.infer_gpus:
        return  # prime-rl says itself that it knows no such block
    for path in (shape.train_gpus[entrypoint], shape.infer_gpus[entrypoint]):
        value = get(document, path)
        if value is not None and number(path, value) != 1:
            raise FieldError(
                f"--single-gpu and {path} = {value} contradict each other",
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
    if not names_share(document, shape):
        put(document, shape.share_path, SHARED_GPU_MEMORY)


def names_share(document: Document, shape: Shape) -> bool:
    """Whether the config names vLLM's share of the memory; to be asked before `apply` fills it in."""
    return get(document, shape.share_path) is not None


def engine_setting(document: Document, name: str, shape: Shape) -> Any:  # noqa: ANN401
    """Return a setting of vLLM in a run that starts its own server; `None` where there is none."""
    for table in shape.engine.tables:
        value = get(document, f"inference.{table}.{name}" if table else f"inference.{name}")
        if value is not None:
            return value
    return None


def facts(document: Document, entrypoint: str, shape: Shape) -> Document:
    """Read what the plan needs from a resolved (or merely merged) config.

    Returns:
        `output_dir`, `run_dir_name`, `train`, `infer`, `gpus_per_node`, `model`, `environments`,
        `max_steps`, `checkpoint_interval`, `saves`, `wandb`, `memory_share`, `clean`, `dry_run`, `resume`.

    Raises:
        FieldError: A number is none.
    """
    output_dir = path_of(document, "output_dir")
    found: Document = {
        "output_dir": output_dir or DEFAULT_OUTPUT_DIR,
        "run_dir_name": _run_dir_name(document, shape),
        "gpus_per_node": count(document, "deployment.gpus_per_node", 8),
        "clean": is_true(document, shape.clean),
        "dry_run": is_true(document, "dry_run"),
        "resume": _resumes(document, shape),
        "max_steps": None,
        "checkpoint_interval": None,
        "saves": False,
        "wandb": False,
        "environments": [],
    }
    if entrypoint == "inference":
        found["train"] = 0
        found["infer"] = count(document, shape.engine.tensor, 1) * count(document, shape.engine.data, 1)
        if found["infer"] < 1:
            raise FieldError(f"{found['infer']} GPUs: an inference server needs at least one")
        found["model"] = get(document, shape.engine.model)
        found["memory_share"] = fraction(document, shape.engine.share)
        _refuse_high_port(document)
        return found
    found["train"], found["infer"] = _gpus(document, entrypoint, shape)
    trainer = "trainer." if entrypoint == "rl" else ""
    found["model"] = get(document, f"{trainer}model.name") or get(document, "model.name")
    found["max_steps"] = first(document, f"{trainer}max_steps", "max_steps")
    found["saves"] = any(isinstance(get(document, path), dict) for path in (f"{trainer}ckpt", "ckpt"))
    found["checkpoint_interval"] = first(document, f"{trainer}ckpt.interval", "ckpt.interval")
    found["wandb"] = any(
        isinstance(get(document, path), dict) for path in (f"{trainer}{shape.wandb}", shape.wandb)
    )
    found["memory_share"] = fraction(document, shape.share_path)
    found["environments"] = _environments(document, entrypoint, shape)
    return found


def _refuse_high_port(document: Document) -> None:
    """Refuse a server's port that leaves none for the router's metrics: the router would end at once."""
    port, last = count(document, "server.port", 8000), 65_535
    if document.get("router", {}) is not None and port + ROUTER_METRICS > last:
        raise FieldError(
            f"server.port = {port}: vLLM's router puts its metrics on a port {ROUTER_METRICS} above, and "
            f"{last} is the last one",
            f"choose a port up to {last - ROUTER_METRICS} (`--server.port 8123`)",
        )


def _resumes(document: Document, shape: Shape) -> bool:
    value = get(document, shape.resume.path)
    return value is not None and value is not False


def _run_dir_name(document: Document, shape: Shape) -> str | None:
    """The run directory's name below `output_dir`; empty where that is the run directory."""
    if shape.run_dir is None:
        return "" if path_of(document, "output_dir") not in (None, DEFAULT_OUTPUT_DIR) else None
    for path in (shape.run_dir, "run.name"):
        value = path_of(document, path)
        if value is not None and ".." in value.split("/"):
            raise FieldError(f"{path} = {value!r} leads out of output_dir")
        if value:
            return value
    return None


def _gpus(document: Document, entrypoint: str, shape: Shape) -> tuple[int, int]:
    """GPUs of the trainer and of vLLM."""
    serves = entrypoint in shape.infer_gpus and isinstance(document.get("inference"), dict)
    path = shape.train_gpus[entrypoint]
    train, infer = count(document, path, 1), 0
    counts = {path: train}
    if serves:
        infer = counts[shape.infer_gpus[entrypoint]] = count(document, shape.infer_gpus[entrypoint], 1)
    for name, value in counts.items():
        if value < 1:
            raise FieldError(
                f"{name} = {value}: a run needs at least one GPU there",
                "--single-gpu puts trainer and vLLM on one GPU" if serves else None,
            )
    return train, infer


def _environments(document: Document, entrypoint: str, shape: Shape) -> list[str]:
    names: list[str] = []
    for path in shape.sources[entrypoint]:
        sources = get(document, path)
        for source in sources if isinstance(sources, list) else []:
            for field in shape.environments:
                name = get(source, field)
                if isinstance(name, str) and name and name not in names:
                    names.append(name)
    return names


def ports(document: Document, entrypoint: str, shape: Shape) -> Document | None:
    """List the services of a run that listen on ports, and every field that holds one of them.

    The resolved config pins each port in several places, so that changing one leaves the rest stale.
    A server that a person addresses, `inference`, keeps the port that its config names.

    Args:
        document: A resolved config.
        entrypoint: `rl`, `sft` or `inference`.
        shape: The schema's shape.

    Returns:
        `size`, the ports of a block; `above`, distances above the server's port that must be free as
        well; `slots`, with the `offset` of a service in the block and the `paths` of its fields, where
        `[*]` is every element of a list. `None` when nothing is to be changed.
    """
    client = shape.client.get(entrypoint)
    if client is None:
        return None
    base = "orchestrator" if entrypoint == "rl" else "eval"
    slots: list[Document] = []

    def add(*paths: str, count: int = 1) -> None:
        offset = 1 + sum(slot["count"] for slot in slots)
        slots.append({"offset": offset, "count": count, "paths": list(paths)})

    serves = isinstance(document.get("inference"), dict)
    if serves:
        # First, so that the router's metrics lie a fixed distance above the block's second port.
        add("inference.server.port", f"{client}.{shape.base_url}")
        add("inference.backend_port", f"{client}.admin_base_url[*]")
        add(f"inference.{shape.engine.rpc_port}")
    owners = ("", "trainer.", "orchestrator.") if entrypoint == "rl" else ("",)
    if get(document, "weight_broadcast.type") not in (None, "filesystem"):
        add(*(f"{owner}weight_broadcast.port" for owner in owners))
    if get(document, "rollout_transport.type") == "zmq":
        add(*(f"{owner}rollout_transport.port" for owner in owners), count=shape.transport_ports)
    if get(document, "trainer.metrics_server.port") is not None:
        add("trainer.metrics_server.port")
    servers = sum(len(get(document, path) or []) for path in shape.sources[entrypoint])
    if servers:
        add(f"{base}.env_server_base_port", count=servers)
    if not slots:
        return None
    return {
        "size": 1 + sum(slot["count"] for slot in slots),
        "above": [ROUTER_METRICS] if serves else [],
        "slots": [{"offset": slot["offset"], "paths": slot["paths"]} for slot in slots],
    }


def for_job(entrypoint: str, shape: Shape) -> Document:
    """Say what the job must know of prime-rl's fields, which it knows none of itself.

    Args:
        entrypoint: `rl`, `sft` or `inference`.
        shape: The schema's shape.

    Returns:
        `shape`, the shape's name; `clean`, the switch that deletes a run directory; `resume`, the `paths`
        that say where a run goes on, the first of them for its launcher, and whether they hold a step
        (`by_step`); `orchestrator_folder`; `run_id`, variables that carry the run's id; `rehearsal`, as
        `for_rehearsal` gives it.
    """
    return {
        "shape": shape.name,
        "clean": shape.clean,
        "resume": {"paths": [shape.resume.path, *shape.resume.copies], "by_step": shape.resume.by_step},
        "orchestrator_folder": shape.orchestrator_folder if entrypoint == "rl" else "",
        "run_id": dict(shape.run_id.get(entrypoint, {})),
        "rehearsal": for_rehearsal(entrypoint, shape),
    }
