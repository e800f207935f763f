"""From the trainer's tensors to Hugging Face's: adapters merged, names and shapes turned back.

A model whose tensors are, by name and shape, those of the files that the run began with needs nothing
turned back. For any other (experts stacked by prime-rl, or by transformers itself) prime-rl builds
its own model class without memory, and turns the tensors back as it does for vLLM.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from .borrowed import LAYOUT, ExportError, borrow

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .safetensors_files import Tensor

_LAYER = re.compile(r"^(.*?\blayers\.\d+)\.")

# `X.lora_A.0` adapts `X.weight`; `X.w1_lora_A.0` adapts the stacked experts `X.w1`. prime-rl trains
# one adapter, number 0 (prime_rl/trainer/models/layers/lora).
_ADAPTER = re.compile(r"^(?P<module>.+)\.(?:(?P<part>\w+)_)?lora_(?P<side>[AB])\.(?P<number>\d+)$")

# gpt-oss keeps its experts' matrices the other way round, and names them in full.
_TRANSPOSED = {"gate_up": "gate_up_proj", "down": "down_proj"}

# As vLLM and PEFT name the projections of an expert.
_GATED = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
_NOT_GATED = {"w1": "up_proj", "w2": "down_proj"}


def units(names: Iterable[str]) -> list[list[str]]:
    """Part tensors into what must be turned back together: each layer, and all that is in none.

    prime-rl parts them the same way over its ranks (`partition_weights` in `prime_rl/utils/weights.py`).
    """
    parts: dict[str, list[str]] = {}
    for name in names:
        match = _LAYER.match(name)
        parts.setdefault(match.group(1) if match else "", []).append(name)
    return list(parts.values())


def is_adapter(name: str) -> bool:
    """Whether a tensor belongs to a LoRA adapter."""
    return _ADAPTER.match(name) is not None


def same_layout(tensors: Mapping[str, tuple[int, ...]], known: Mapping[str, Tensor] | None) -> bool:
    """Whether all tensors have name and shape of one in the model's own files.

    Args:
        tensors: Shapes of the trainer's tensors by name, adapters left out.
        known: Those of the model's own files; `None` where they are not at hand.
    """
    return known is not None and all(
        name in known and known[name].shape == shape
        for name, shape in tensors.items()
        # Files may leave it out where it is the embedding.
        if name != "lm_head.weight"
    )


def merge_adapters(tensors: dict[str, Any], rank: int, alpha: float) -> dict[str, Any]:
    """Add the adapters to the matrices that they adapt: W + alpha / rank * B A.

    Summed up in 32 bits, with the scale rounded to 16 as the trainer has it (`LoRAState` in
    `prime_rl/trainer/lora.py`).

    Args:
        tensors: A unit's tensors, adapters among them; changed in place.
        rank: The adapters' rank.
        alpha: Their scaling parameter.

    Returns:
        The adapters, taken out.

    Raises:
        ExportError: An adapter has no partner, or nothing to adapt.
    """
    torch = borrow("torch")
    scale = float(torch.tensor(alpha / rank, dtype=torch.bfloat16))
    adapters = {name: tensors.pop(name) for name in list(tensors) if is_adapter(name)}
    for name, down in adapters.items():
        match = _ADAPTER.match(name)
        if match is None or match["side"] != "A":
            continue
        part, module = match["part"], match["module"]
        target = f"{module}.{_TRANSPOSED.get(part, part)}" if part else f"{module}.weight"
        up = adapters.get(f"{module}.{part + '_' if part else ''}lora_B.{match['number']}")
        if up is None or target not in tensors or match["number"] != "0":
            raise ExportError(
                LAYOUT,
                f"the adapter {name} cannot be merged into {target}",
                "the checkpoint stays; prime-rl itself can resume from it",
            )
        change = scale * (up.float() @ down.float())
        if part in _TRANSPOSED:
            change = change.transpose(-2, -1)
        tensors[target] = (tensors[target].float() + change).to(tensors[target].dtype)
    return adapters


def adapter_files(adapters: Mapping[str, Any]) -> dict[str, Any]:
    """Name adapters as PEFT and vLLM do, each expert's by itself.

    Args:
        adapters: What `merge_adapters` took out.

    Returns:
        The tensors, without PEFT's prefix; those of gpt-oss's experts, which have no such names, are
        left out.
    """
    named = {}
    for name, tensor in adapters.items():
        match = _ADAPTER.match(name)
        if match is None or match["part"] in _TRANSPOSED:
            continue
        module, part, side = match["module"], match["part"], match["side"]
        if part is None:
            named[f"{module}.lora_{side}.weight"] = tensor
            continue
        gated = f"{module}.w3_lora_A.{match['number']}" in adapters
        projection = (_GATED if gated else _NOT_GATED)[part]
        for expert, matrix in enumerate(tensor):
            named[f"{module}.{expert}.{projection}.lora_{side}.weight"] = matrix
    return named


def adapted_modules(adapters: Iterable[str]) -> list[str]:
    """List the last words of the modules that adapters are of, as prime-rl lists them for vLLM."""
    matches = map(_ADAPTER.match, adapters)
    return sorted({match["module"].rpartition(".")[2] for match in matches if match})


class Converter:
    """Turns tensors back with prime-rl's own model class, which is built without memory.

    Args:
        settings: The trainer's `model` table of the config.
        folder: Where the model's config is.

    Raises:
        ExportError: prime-rl cannot build the model.
    """

    def __init__(self, settings: Mapping[str, Any], folder: str) -> None:
        torch = borrow("torch")
        trainer = borrow("prime_rl.trainer.model")
        convert = getattr(borrow("prime_rl.utils.weights"), "convert_state_dict_to_hf", None)
        if convert is None:
            raise _no_class(folder, "this prime-rl has no convert_state_dict_to_hf")
        self._convert: Any = convert
        problem: Exception | None = None
        # Its own classes know flash attention alone; for those of transformers it cannot be had
        # without a GPU. Neither is used.
        for attention in ("flash_attention_2", "eager"):
            try:
                given = {**settings, "name": folder, "attn": "flash_attention_2", "lora": None}
                table = borrow("prime_rl.configs.trainer").ModelConfig(**given)
                table = table.model_copy(update={"attn": attention})
                self._model = trainer.get_model(table, torch.device("meta"), torch.bfloat16)
            except ExportError:
                raise
            except Exception as error:
                problem = problem or error
            else:
                return
        raise _no_class(folder, f"{type(problem).__name__}: {problem}") from problem

    def tensors(self, tensors: dict[str, Any]) -> dict[str, Any]:
        """Turn a unit's tensors back.

        Raises:
            ExportError: prime-rl cannot.
        """
        try:
            return dict(self._convert(self._model, tensors))
        except Exception as error:
            raise _no_class(type(self._model).__name__, f"{type(error).__name__}: {error}") from error

    def adapters(self, tensors: dict[str, Any]) -> dict[str, Any]:
        """Turn the names of adapters back."""
        convert = getattr(type(self._model), "convert_adapter_to_hf", None)
        return dict(convert(tensors)) if convert else tensors


def _no_class(model: str, reason: str) -> ExportError:
    return ExportError(
        LAYOUT,
        f"prime-rl cannot turn the layout of {model} back: {reason}",
        "the checkpoint stays; export it with a prime-rl that knows the model, named with PRIME_RL_DIR",
    )
