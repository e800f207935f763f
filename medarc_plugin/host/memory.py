"""How much GPU memory trainer and vLLM need on a GPU that they share, worked out before submission.

Estimates, each with its source; docs/memory.md explains them to users. The share itself is worked out
from them by `job.memory`, here for the GPU that is asked for, and in the job for the one that it got.

The fields of prime-rl's config that are read here are read where they are; one that is missing has the
value that prime-rl main gives it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from medarc_plugin.host import fields
from medarc_plugin.host.architecture import Architecture, find_model, read_architecture
from medarc_plugin.models import MemoryNeeds
from medarc_plugin.options import megabytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from medarc_plugin.models import Resolved
    from medarc_plugin.options import SlurmOptions

MIB = 2**20
GIB = 2**30

GPU_MIB: dict[tuple[str, ...], int] = {
    ("h200",): 143_771,
    ("h100", "nvl"): 95_830,
    ("h100",): 81_559,
    ("b200",): 183_359,
    ("a100", "80gb"): 81_920,
    ("a100", "80"): 81_920,
    ("a100", "40gb"): 40_536,
    ("a100", "40"): 40_536,
    ("l40s",): 46_068,
    ("l40",): 46_068,
    ("l4",): 23_034,
    ("a40",): 46_068,
    ("a30",): 24_576,
    ("a6000",): 49_140,
    ("t4",): 15_360,
}
"""MiB that nvidia-smi reports, by the words of a GPU type; a little less than its name promises. A type
that comes in two sizes (a100, v100) needs the size in its name."""

MIB_PER_GB = 972
"""MiB for each `gb` in the name of a slice or of a GPU that is not in the table: an A100's 1g.10gb has
9728, everything larger a little more."""

RESERVE = 5 * GIB // 2
"""What both processes take beside what is worked out: CUDA contexts, libraries, NCCL. A run of a model of
4 M parameters with a share of 0.3 on an H200 was seen to take 44.8 GiB at its peak: 2.7 more than the
share. One process that trains took 0.8 there beside what PyTorch counts."""

RESERVE_SHARE = 0.1
"""And of the trainer's need, for what its allocator holds without using it: 4 to 9 % were measured."""


def gpu_memory(options: SlurmOptions) -> tuple[int | None, str]:
    """Say how much memory the GPU has that is asked for.

    Returns:
        MiB, `None` where the type does not tell; and where it is known from.
    """
    if options.gpu_memory:
        return megabytes(options.gpu_memory), f"--gpu-memory {options.gpu_memory}"
    if options.gpu_type is None:
        return None, ""
    found = memory_of_type(options.gpu_type)
    return found, f"--gpu-type {options.gpu_type}" if found else ""


def memory_of_type(name: str) -> int | None:
    """Say how much memory a GPU type has, in MiB: `h100`, `nvidia_a100-sxm4-80gb`, `1g.10gb`."""
    text = name.lower()
    part = re.search(r"\dg\.(\d+)gb", text)
    if part:
        return int(part.group(1)) * MIB_PER_GB
    words = set(re.split(r"[^a-z0-9]+", text))
    sizes = {word for word in words if re.fullmatch(r"\d+gb", word)}
    for kind, mib in GPU_MIB.items():
        # A size in the name that is not the table's is another product's.
        if set(kind) <= words and all(_fits(word, mib) for word in sizes):
            return mib
    return int(next(iter(sizes))[:-2]) * MIB_PER_GB if len(sizes) == 1 else None


def _fits(size: str, mib: int) -> bool:
    return abs(int(size[:-2]) * 1024 / mib - 1) < 0.05  # noqa: PLR2004 - names are rounded


@dataclass(frozen=True)
class Trainer:
    """What of prime-rl's trainer decides about its memory.

    Attributes:
        tokens: Tokens of a micro batch: packed, so that it is always full.
        value_bytes: Bytes of a parameter and of a gradient: `optimization_dtype`.
        optimizer: `adamw`, `sgd`, `muon` or `sign_sgd`.
        optimizer_offload: Its state is on the GPU during its step alone.
        full_offload: Parameters to be updated, gradients and state are in CPU memory.
        everything_offload: FSDP keeps parameters in CPU memory too.
        checkpointed: Of how many layers one is recomputed; 0 when all activations are kept.
        inflight: Layers whose kept activations may be on the GPU; `None` when all are.
        compiled: Layers are compiled, and keep less.
        reshard: A layer's whole parameters are dropped after its forward pass.
        chunk: Tokens whose logits are made at once; `None` for all of them.
        adapter_rank: Rank of LoRA; `None` trains all parameters.
        adapter_targets: Names of the modules that get adapters.
    """

    tokens: int
    value_bytes: int
    optimizer: str
    optimizer_offload: bool
    full_offload: bool
    everything_offload: bool
    checkpointed: int
    inflight: int | None
    compiled: bool
    reshard: bool
    chunk: int | None
    adapter_rank: int | None
    adapter_targets: tuple[str, ...]


def read_trainer(document: Mapping[str, Any], entrypoint: str) -> Trainer:
    """Read the trainer's settings; defaults are prime-rl main's (`configs/trainer.py`, `configs/sft.py`).

    Raises:
        ValueError: A number is none.
        TypeError: Likewise.
    """
    prefix = "trainer." if entrypoint == "rl" else ""

    def say(path: str, default: Any) -> Any:  # noqa: ANN401 - what a config may hold
        value = fields.get(document, prefix + path)
        return default if value is None else value

    if entrypoint == "rl":
        shared = fields.get(document, "seq_len")
        tokens = int(say("model.seq_len", 2048 if shared is None else shared))
    else:
        tokens = int(say("data.seq_len", 128)) * int(say("data.micro_batch_size", 1))
    recompute, offload = (_block(document, f"{prefix}model.{name}") for name in ("ac", "ac_offloading"))
    if offload is not None:
        # prime-rl switches checkpointing on with it.
        recompute = recompute or {}
    full = recompute is not None and recompute.get("mode", "full") == "full"
    chunk = say("model.fused_lm_head_token_chunk_size", 8192)
    adapter = fields.get(document, f"{prefix}model.lora")
    return Trainer(
        tokens=tokens // max(1, int(say("model.cp", 1))),
        value_bytes=2 if say("model.optimization_dtype", "float32") == "bfloat16" else 4,
        optimizer=str(say("optim.type", "adamw")),
        optimizer_offload=_yes(say("model.optim_cpu_offload", True)),
        full_offload=say("model.full_offload", None) not in (None, False),
        everything_offload=_yes(say("model.fsdp_cpu_offload", False)),
        checkpointed=int((recompute or {}).get("freq", 1)) if full else 0,
        inflight=None if offload is None else int(offload.get("max_inflight_activations", 5)),
        compiled=_block(document, f"{prefix}model.compile") is not None,
        reshard=_yes(say("model.reshard_after_forward", True)),
        chunk=None if chunk == "disabled" else int(chunk),
        adapter_rank=int(adapter.get("rank", 16)) if isinstance(adapter, dict) else None,
        adapter_targets=tuple(adapter.get("target_modules") or _TARGETS) if isinstance(adapter, dict) else (),
    )


_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "experts")


def _block(document: Mapping[str, Any], path: str) -> dict[str, Any] | None:
    """A table that is there by default, and that "None" (or null, in a whole config) takes away."""
    table, _, name = path.rpartition(".")
    held = fields.get(document, table)
    value = held.get(name, {}) if isinstance(held, dict) else {}
    return value if isinstance(value, dict) else None


def _yes(value: object) -> bool:
    return str(value).lower() == "true"


def trainer_needs(model: Architecture, trainer: Trainer) -> tuple[dict[str, int], int]:
    """Work out what the trainer needs on one GPU.

    Parameters, gradients and optimizer state as in ZeRO, section 3.1 (https://arxiv.org/abs/1910.02054),
    with prime-rl's precision: FSDP2 keeps parameters and gradients in `optimization_dtype` (4 bytes a
    value by default) and computes with 16-bit copies of the layers at work, which on one GPU are
    additional. AdamW keeps two more values for each that is trained.

    With `optim_cpu_offload` the state comes to the GPU for the optimizer's step alone, when the
    activations are gone.

    Returns:
        The parts in bytes, and the most that is needed at once.
    """
    trained = _adapter(model, trainer.adapter_rank, trainer.adapter_targets)
    all_values = model.parameters + (trained or 0)
    trained = model.parameters if trained is None else trained
    parts = {
        "parameters": all_values * trainer.value_bytes,
        "gradients": trained * trainer.value_bytes,
        "optimizer": _optimizer(model, trainer, trained),
        "activations": _working(model, trainer),
    }
    if trainer.everything_offload:
        return parts, parts["activations"]
    if trainer.full_offload:
        # Loaded in full precision, then kept in 16 bits.
        return parts, max(parts["parameters"], 2 * all_values + parts["activations"])
    held, step = parts["parameters"] + parts["gradients"], _step(model, trainer)
    if trainer.optimizer_offload:
        return parts, held + max(parts["activations"], parts["optimizer"] + step)
    return parts, held + parts["optimizer"] + max(parts["activations"], step)


def _working(model: Architecture, trainer: Trainer) -> int:
    """What is there during a forward and backward pass, beside what is kept between steps.

    The most of two moments: at the start of the backward pass all activations and logits, with 16-bit
    copies of two layers and of the outer ones; at its end the outer layers alone, in 16 bits with
    gradients, and as the copy in 4 bytes that is reduced.
    """
    outer = _outer(model)
    copies = 2 * (outer + (2 * model.layer if trainer.reshard else model.parameters - outer))
    start = activations(model, trainer) + logits(model, trainer) + copies
    return start if trainer.adapter_rank is not None else max(start, 8 * max(outer, model.layer))


def _step(model: Architecture, trainer: Trainer) -> int:
    """What the optimizer's step takes: PyTorch updates one tensor after another, with two like it beside it.

    The fused AdamW, which prime-rl takes where it keeps the state on the GPU, takes nothing.
    """
    if trainer.adapter_rank is not None or (trainer.optimizer == "adamw" and not trainer.optimizer_offload):
        return 0
    width = max(model.experts, 1) * (model.expert_intermediate if model.experts else model.intermediate)
    return 2 * trainer.value_bytes * max(model.embedding, model.hidden * width)


def _outer(model: Architecture) -> int:
    return model.embedding * (1 if model.tied else 2)


def _optimizer(model: Architecture, trainer: Trainer, trained: int) -> int:
    """State of the optimizer: values for each that is trained, in the parameters' precision."""
    size = trainer.value_bytes
    if trainer.optimizer == "muon":
        # Momentum alone for matrices; AdamW for embedding and output layer.
        outer = min(trained, _outer(model))
        return size * (trained + outer)
    return size * trained * {"adamw": 2, "sgd": 1, "sign_sgd": 0}.get(trainer.optimizer, 2)


def _adapter(model: Architecture, rank: int | None, targets: tuple[str, ...]) -> int | None:
    """Parameters of LoRA: `rank * (inputs + outputs)` for each matrix (https://arxiv.org/abs/2106.09685)."""
    if rank is None:
        return None
    hidden, queries, keys = model.hidden, model.queries, model.keys
    sizes = {
        "q_proj": hidden + queries,
        "k_proj": hidden + keys,
        "v_proj": hidden + keys,
        "o_proj": hidden + queries,
    }
    if model.experts:
        sizes["experts"] = 3 * model.experts * (hidden + model.expert_intermediate)
    else:
        sizes |= dict.fromkeys(("gate_proj", "up_proj", "down_proj"), hidden + model.intermediate)
    # A pattern is taken for all modules that it may mean.
    wanted = [size for name, size in sizes.items() if any(name in target for target in targets)]
    return rank * model.layers * (sum(wanted) or sum(sizes.values()))


def activations(model: Architecture, trainer: Trainer) -> int:
    """Work out the activations that wait for the backward pass.

    Counted as in Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models",
    section 4 (https://arxiv.org/abs/2205.05198), whose `34 s b h` bytes are those of a 16-bit layer with a
    plain MLP and dropout; `5 a s / h` more is the score matrix, which flash attention never keeps. With a
    checkpoint of every layer, `2 s b h` a layer remain (section 5), and one layer in full, recomputed.
    """
    # Measured: 46 kB a token and layer for Qwen3-0.6B's shape when compiled, where this says 51; 73 when not.
    whole = layer_activations(model) * (2 if trainer.compiled else 3) // 2
    kept = 2 * model.hidden
    if trainer.checkpointed:
        recomputed = math.ceil(model.layers / trainer.checkpointed)
        on_gpu = recomputed if trainer.inflight is None else min(recomputed, trainer.inflight)
        per_token = kept * on_gpu + whole * (model.layers - recomputed) + whole
    else:
        per_token = whole * model.layers
    return trainer.tokens * per_token


def layer_activations(model: Architecture) -> int:
    """Work out the bytes that one token leaves in one layer.

    Two norms with their inputs; queries, keys and values before and after rotation, and what attention
    returns; and four values for each of a gated MLP.
    """
    attention = 3 * model.queries + 3 * model.keys
    routed = 2 * model.experts_used * model.hidden if model.experts else 0
    return 2 * (4 * model.hidden + attention + 4 * model.active_intermediate + routed)


def logits(model: Architecture, trainer: Trainer) -> int:
    """Work out the logits and what stands beside them.

    prime-rl's fused head makes them in blocks of `chunk` tokens and 8192 entries of the vocabulary, with
    five values of 4 bytes for each at its peak, and gradients of the hidden states and of its weight
    (`models/layers/lm_head.py`). Without it the same five stand for every token and entry.
    """
    if trainer.chunk is None:
        return 20 * trainer.tokens * model.vocabulary
    block = 20 * min(trainer.chunk, trainer.tokens) * min(8192, model.vocabulary)
    head = 2 * model.embedding if trainer.adapter_rank is None else 0
    return block + head + 4 * trainer.tokens * model.hidden


MANY_SEQUENCES, FEW_SEQUENCES = 1024, 256
LARGE_GPU = 70 * 1024
BATCHED_TOKENS = 8192
"""vLLM's defaults for its server: sequences at once on GPUs of 70 GiB and more and on smaller ones, and
tokens of a step (`vllm/engine/arg_utils.py`)."""

USEFUL_SEQUENCES = 16
"""Sequences of the run's length for which vLLM's cache should have room at least."""


def inference_needs(
    model: Architecture, document: dict[str, Any], tokens: int, gpu_mib: int | None, shape: fields.Shape
) -> dict[str, int]:
    """Work out the least that vLLM needs.

    `gpu_memory_utilization` is a share of the GPU's whole memory, which must be free when vLLM starts.
    Weights, the peak of a trial step and CUDA graphs are taken out of it, and the rest becomes cache
    (https://docs.vllm.ai/en/latest/configuration/conserving_memory.html); vLLM refuses to start when that
    does not hold one sequence of `max_model_len`.

    Args:
        model: The architecture.
        document: The config.
        tokens: Tokens of the run's longest sequence.
        gpu_mib: The GPU's memory in MiB, where it is known.
        shape: The schema's shape, which says where vLLM's own settings stand.

    Returns:
        The parts in bytes.

    Raises:
        ValueError: A number is none.
        TypeError: Likewise.
    """

    def say(name: str, default: Any) -> Any:  # noqa: ANN401 - what a config may hold
        value = fields.engine_setting(document, name, shape)
        return default if value is None else value

    size = 4 if say("dtype", "auto") == "float32" else 2
    large = gpu_mib is not None and gpu_mib >= LARGE_GPU
    sequences = int(say("max_num_seqs", MANY_SEQUENCES if large else FEW_SEQUENCES))
    batched = int(say("max_num_batched_tokens", BATCHED_TOKENS))
    longest = int(say("max_model_len", model.context))
    cached = model.cached * (1 if "fp8" in str(say("kv_cache_dtype", "auto")) else size)
    weights = model.parameters * (1 if "fp8" in str(say("quantization", "")) else size)
    if _yes(say("enable_lora", False)):
        adapter = _adapter(model, int(say("max_lora_rank", 16)), _TARGETS) or 0
        weights += size * adapter * int(say("max_loras", 8))
    return {
        "weights": weights,
        "cache": cached * max(longest, min(sequences, USEFUL_SEQUENCES) * min(tokens, longest)),
        # A step keeps nothing: about half of what a layer in training would. Sampling sorts
        # probabilities of 4 bytes, with their indices of 8.
        "activations": batched * layer_activations(model) // 2 + 20 * sequences * model.vocabulary,
        "graphs": 0 if _yes(say("enforce_eager", False)) else GIB,
    }


def with_memory(resolved: Resolved, options: SlurmOptions, *, fixed: bool) -> Resolved:
    """Add to a run on one shared GPU what trainer and vLLM need of it.

    Args:
        resolved: The run.
        options: What is asked for, and where models are.
        fixed: The config itself names vLLM's share.
    """
    if not resolved.gpus.shared:
        return resolved
    shape = fields.SHAPES[resolved.shape]
    gpu_mib, source = gpu_memory(options)
    share = resolved.memory_share
    blank = MemoryNeeds(
        gpu_mib=gpu_mib, gpu_source=source, share=share, share_path=shape.share_path, fixed=fixed
    )
    name = resolved.model or ""
    folder = find_model(name, options) if name else None
    model = read_architecture(folder) if folder else None
    if model is None:
        why = f"nothing is known of the architecture in {folder}" if folder else "it is not on this machine"
        return replace(resolved, memory=replace(blank, unknown=f"{name or 'no model is named'}: {why}"))
    try:
        trainer = read_trainer(resolved.document, resolved.entrypoint)
        parts, peak = trainer_needs(_truncated(model, resolved), trainer)
        inference = inference_needs(model, dict(resolved.document), trainer.tokens, gpu_mib, shape)
    except (TypeError, ValueError, AttributeError) as error:
        return replace(resolved, memory=replace(blank, unknown=f"the config cannot be read: {error}"))
    needs = replace(
        blank,
        # One that the config does not name is worked out, for the GPU that the job gets.
        share=share if fixed else None,
        trainer=parts,
        trainer_bytes=peak,
        inference=inference,
        inference_bytes=sum(inference.values()),
        reserve_bytes=RESERVE + int(RESERVE_SHARE * peak),
        offloaded=trainer.optimizer_offload or trainer.full_offload or trainer.everything_offload,
    )
    return replace(resolved, memory=needs)


def checkpoint_bytes(resolved: Resolved, options: SlurmOptions) -> int | None:
    """Work out the size of a checkpoint: parameters and optimizer state, as the trainer holds them.

    Args:
        resolved: The run.
        options: Where models are.

    Returns:
        Bytes; `None` where the model is not on this machine, or the config is not understood.
    """
    folder = find_model(resolved.model, options) if resolved.model else None
    model = read_architecture(folder) if folder else None
    if model is None or resolved.entrypoint == "inference":
        return None
    try:
        trainer = read_trainer(resolved.document, resolved.entrypoint)
        parts, _ = trainer_needs(_truncated(model, resolved), trainer)
    except (TypeError, ValueError, AttributeError):
        return None
    return parts["parameters"] + parts["optimizer"]


def _truncated(model: Architecture, resolved: Resolved) -> Architecture:
    """The trainer's model, of which `debug.num_layers` may keep the first layers alone."""
    prefix = "trainer." if resolved.entrypoint == "rl" else ""
    layers = fields.get(resolved.document, f"{prefix}model.debug.num_layers")
    if layers is None or int(layers) >= model.layers:
        return model
    return replace(model, layers=int(layers), counted=None)
