"""Fills a folder with a checkpoint's weights, a layer at a time, and the files that go with them."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .borrowed import BAD_RUN, ExportError, borrow
from .layout import Converter, adapted_modules, adapter_files, is_adapter, merge_adapters, same_layout, units
from .model_files import (
    DTYPE,
    OF_MODEL,
    OF_TOKENIZER,
    copy_files,
    exported_config,
    find_folder,
    is_tied,
    known_tensors,
    own_dtype,
    read_config,
    set_chat_template,
)
from .safetensors_files import SHARD_BYTES, ShardWriter, cannot_write, write_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .dcp import Checkpoint
    from .safetensors_files import Tensor
    from .trained import Run

ADAPTER_FOLDER = "lora_adapters"
"""Where the adapters of a LoRA run lie beside the merged weights; prime-rl v0.8.0's name for it."""

SHARD_BYTES_VARIABLE = "MEDARC_EXPORT_SHARD_BYTES"
"""Sets the size of a shard, in bytes, for tests."""

MOST_NAMED = 3
"""Tensors that a sentence names."""


def say(text: str) -> None:
    """Print narration."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def write_weights(run: Run, checkpoint: Checkpoint, draft: Path) -> None:
    """Fill a folder with weights, config and tokenizer.

    Args:
        run: The run.
        checkpoint: Its checkpoint.
        draft: The folder; it exists.

    Raises:
        ExportError: One of them cannot be had or written.
        OSError: A file cannot be written.
    """
    name = run.value("model", "name")
    if not isinstance(name, str):
        raise ExportError(
            BAD_RUN, f"the config of {run.folder} names no model", "it must be a run of rl or sft"
        )
    source = find_folder(name, OF_MODEL, ("config.json",))
    tokenizer = find_folder(str(run.value("tokenizer", "name") or name), OF_TOKENIZER, OF_TOKENIZER)
    config, known = read_config(source), known_tensors(source)
    _check_space(draft, checkpoint)

    adapters = _write_tensors(run, checkpoint, draft, source, config, known)
    if adapters:
        modules = adapted_modules(checkpoint.tensors)
        _write_adapters(run, draft / ADAPTER_FOLDER, name, modules, adapters)
    layers = run.value("model", "debug", "num_layers")
    copy_files(source, OF_MODEL, draft)
    if "quantization_config" in config:
        say("the model's own files are quantized; these weights are not")
    text = json.dumps(exported_config(config, layers), indent=2, ensure_ascii=False)
    (draft / "config.json").write_text(text + "\n", encoding="utf-8")
    _write_tokenizer(run, draft, tokenizer)


def _check_space(draft: Path, checkpoint: Checkpoint) -> None:
    """Refuse what the disk cannot hold, before anything is written."""
    wanted = 2 * sum(math.prod(shape) for shape, _ in checkpoint.tensors.values())
    free = shutil.disk_usage(draft).free
    if free < wanted:
        raise cannot_write(
            draft, OSError(f"it needs {wanted / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free")
        )


def _write_tensors(
    run: Run,
    checkpoint: Checkpoint,
    draft: Path,
    source: Path,
    config: Mapping[str, Any],
    known: Mapping[str, Tensor] | None,
) -> dict[str, Any]:
    """Write the weights, a layer at a time, and return the adapters as files have them."""
    base = {name: shape for name, (shape, _) in checkpoint.tensors.items() if not is_adapter(name)}
    converter = None
    if not same_layout(base, known):
        say("the trainer's layout is not that of the model's files: prime-rl's model class turns it back")
        converter = Converter(dict(run.value("model") or {}), str(source))
    tied = is_tied(config, known)
    writer = ShardWriter(draft, int(os.environ.get(SHARD_BYTES_VARIABLE) or SHARD_BYTES))
    adapters: dict[str, Any] = {}
    for names in units(checkpoint.tensors):
        tensors = checkpoint.read(names)
        if any(map(is_adapter, names)):
            adapters.update(merge_adapters(tensors, *_scaling(run)))
        if converter is not None:
            tensors = converter.tensors(tensors)
        if tied:
            _drop_tied(tensors)
        for name in list(tensors):
            # Each is let go as it is taken, so that a layer is not held twice.
            writer.add(name, _cast(tensors.pop(name), name, config, known))
    shards = writer.finish()
    _compare(writer.names, known, tied=tied)
    say(f"{len(writer.names)} tensors in {DTYPE}, {writer.size / 1e9:.2f} GB in {shards} file(s)")
    named = adapter_files(adapters)
    return converter.adapters(named) if converter is not None else named


def _scaling(run: Run) -> tuple[int, float]:
    """The rank and the scaling parameter of the run's adapters."""
    rank, alpha = (run.value("model", "lora", name) for name in ("rank", "alpha"))
    if not isinstance(rank, int) or not isinstance(alpha, (int, float)):
        raise ExportError(
            BAD_RUN,
            "the checkpoint holds adapters, and the config has no model.lora with rank and alpha",
            "the run's config must be as it was launched",
        )
    return rank, float(alpha)


def _drop_tied(tensors: dict[str, Any]) -> None:
    """Leave out the output layer where it is the embedding."""
    head = tensors.pop("lm_head.weight", None)
    embedding = next((t for name, t in tensors.items() if name.endswith("embed_tokens.weight")), None)
    if head is not None and embedding is not None and not head.equal(embedding):
        say("warning: lm_head.weight was trained apart from the embedding that it is tied to; it is left out")


def _cast(tensor: Any, name: str, config: Mapping[str, Any], known: Mapping[str, Tensor] | None) -> Any:  # noqa: ANN401
    """Round a tensor to the data type of exported weights, in memory of its own.

    One that the model's own files keep in 32 bits beside others in 16 (a router's bias, say) stays so.
    """
    torch = borrow("torch")
    if not tensor.is_floating_point():
        return tensor.clone()
    original = known.get(name) if known else None
    precise = original is not None and original.dtype == "F32" and own_dtype(config) != "float32"
    # A view would keep the whole of what it is a part of.
    return tensor.to(torch.float32 if precise else torch.bfloat16, copy=True).contiguous()


def _compare(written: set[str], known: Mapping[str, Tensor] | None, *, tied: bool) -> None:
    """Say where the weights differ, by name, from the model's own files."""
    if known is None:
        return
    lost = sorted(set(known) - written - ({"lm_head.weight"} if tied else set()))
    new = sorted(written - set(known))
    for names, text in ((lost, "are in the model's own files and not trained"), (new, "are in none of them")):
        if names:
            shown = ", ".join(names[:MOST_NAMED]) + (", ..." if len(names) > MOST_NAMED else "")
            say(f"{len(names)} tensor(s) {text}: {shown}")


def _write_adapters(
    run: Run, folder: Path, model: str, modules: Sequence[str], adapters: Mapping[str, Any]
) -> None:
    """Write the adapters by themselves, as PEFT and vLLM read them."""
    torch = borrow("torch")
    folder.mkdir()
    write_tensors(
        folder / "adapter_model.safetensors",
        {
            f"base_model.model.{name}": tensor.to(torch.bfloat16, copy=True).contiguous()
            for name, tensor in adapters.items()
        },
    )
    rank, alpha = _scaling(run)
    document = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": model,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": run.value("model", "lora", "dropout") or 0.0,
        "bias": "none",
        "target_modules": list(modules),
    }
    text = json.dumps(document, indent=2) + "\n"
    (folder / "adapter_config.json").write_text(text, encoding="utf-8")
    say(f"the adapters are merged into the weights, and by themselves in {ADAPTER_FOLDER}")
    if run.value("model", "lora", "modules_to_save"):
        say(
            "warning: model.lora.modules_to_save was trained too: the adapters alone are not all of the model"
        )


def _write_tokenizer(run: Run, draft: Path, source: Path) -> None:
    """Copy the tokenizer that the run used, with its chat template."""
    if not copy_files(source, OF_TOKENIZER, draft):
        say(f"warning: {source} holds no tokenizer")
    template = run.value("tokenizer", "chat_template")
    if isinstance(template, str):
        path = Path(template)
        # Either the template or the path of one, as prime-rl has it; a long text is no path.
        with contextlib.suppress(OSError):
            template = path.read_text(encoding="utf-8") if path.is_file() else template
        set_chat_template(draft, template)
