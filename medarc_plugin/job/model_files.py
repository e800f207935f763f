"""What stands beside the weights: the model's config and its tokenizer, as they were trained with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .borrowed import MODEL_FILES, ExportError, borrow
from .safetensors_files import Tensor, read_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

OF_MODEL = (
    *("config.json", "generation_config.json", "preprocessor_config.json", "video_preprocessor_config.json"),
    *("processor_config.json", "*.py"),
)
"""Files that come from the model; `*.py` for one that brings its own code."""

OF_TOKENIZER = (
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt"),
    *("*.model", "*.tiktoken", "tekken.json", "chat_template*", "additional_chat_templates/*"),
)
"""Files that come from the tokenizer, which may be another repository's."""

DTYPE = "bfloat16"
"""What exported weights are in, as in prime-rl's own broadcasts to vLLM (`prime_rl/utils/weights.py`)."""


def find_folder(name: str, patterns: Sequence[str], needed: Sequence[str]) -> Path:
    """Find a model's or a tokenizer's files: in a folder, in the cache, or on the hub.

    Args:
        name: Path or repository, as the run's config has it.
        patterns: The files that matter, to fetch no others.
        needed: Patterns of which the cache must have at least one file, to be enough.

    Raises:
        ExportError: They are nowhere.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder.absolute()
    hub = borrow("huggingface_hub")
    cached = _snapshot(hub, name, patterns, local_files_only=True)
    if cached is not None and any(path for pattern in needed for path in cached.glob(pattern)):
        return cached
    if not hub.constants.HF_HUB_OFFLINE:
        fetched = _snapshot(hub, name, patterns, local_files_only=False)
        if fetched is not None:
            return fetched
    raise ExportError(
        MODEL_FILES,
        f"{name} is no folder, not in the cache {hub.constants.HF_HUB_CACHE}, and "
        + ("HF_HUB_OFFLINE is set" if hub.constants.HF_HUB_OFFLINE else "cannot be had from the hub"),
        "set HF_HOME to the cache that the run used, or export where the hub can be reached",
    )


def _snapshot(
    hub: Any,  # noqa: ANN401 - the package
    name: str,
    patterns: Sequence[str],
    *,
    local_files_only: bool,
) -> Path | None:
    try:
        return Path(
            hub.snapshot_download(name, allow_patterns=[*patterns], local_files_only=local_files_only)
        )
    except Exception:
        # Not cached, no such repository, no network: many kinds, and to the caller all the same.
        return None


def read_config(folder: Path) -> dict[str, Any]:
    """Read a model's `config.json`.

    Raises:
        ExportError: It is missing or torn.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExportError(
            MODEL_FILES, f"{path} cannot be read: {error}", "the model's folder must hold its config.json"
        ) from error
    return dict(config)


def known_tensors(folder: Path) -> dict[str, Tensor] | None:
    """Read the tensors of the model that the run began with; `None` where its weights are not at hand."""
    try:
        return read_folder(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_tied(config: Mapping[str, Any], known: Mapping[str, Tensor] | None) -> bool:
    """Whether the output layer is the embedding itself, and has no tensor of its own in files."""
    text = config.get("text_config")
    said = config.get("tie_word_embeddings")
    if said is None and isinstance(text, dict):
        said = text.get("tie_word_embeddings")
    # Without a word the default depends on the model's class; the model's own files show it.
    return bool(said) if said is not None else known is not None and "lm_head.weight" not in known


def own_dtype(config: Mapping[str, Any]) -> str:
    """Name the data type that the model's own config gives."""
    text = config.get("text_config")
    for table in (config, text if isinstance(text, dict) else {}):
        for key in ("dtype", "torch_dtype"):
            if isinstance(table.get(key), str):
                return str(table[key])
    return DTYPE


def exported_config(config: Mapping[str, Any], layers: int | None) -> dict[str, Any]:
    """Make the config of the exported weights.

    Args:
        config: The model's own.
        layers: How many layers the run kept of it, where it kept fewer.
    """
    made = dict(config)
    # They were trained unquantized, and are written so.
    made.pop("quantization_config", None)
    tables = [made]
    if isinstance(made.get("text_config"), dict):
        made["text_config"] = dict(made["text_config"])
        tables.append(made["text_config"])
    for table in tables:
        for key in ("dtype", "torch_dtype"):
            if key in table:
                table[key] = DTYPE
        if layers is not None and "num_hidden_layers" in table:
            table["num_hidden_layers"] = min(layers, table["num_hidden_layers"])
    if not {"dtype", "torch_dtype"} & set(made):
        # The older name, which every transformers reads.
        made["torch_dtype"] = DTYPE
    return made


def copy_files(source: Path, patterns: Iterable[str], target: Path) -> int:
    """Copy the files that match, with the folders that they are in, and return how many.

    Raises:
        OSError: One cannot be copied.
    """
    found = {path for pattern in patterns for path in source.glob(pattern) if path.is_file()}
    for path in sorted(found):
        copied = target / path.relative_to(source)
        copied.parent.mkdir(exist_ok=True)
        # The content: in the cache they are links.
        shutil.copyfile(path, copied)
    return len(found)


def set_chat_template(folder: Path, template: str) -> None:
    """Put a chat template in the place of the tokenizer's own.

    Raises:
        OSError: It cannot be written.
    """
    (folder / "chat_template.json").unlink(missing_ok=True)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    path = folder / "tokenizer_config.json"
    if path.is_file():
        settings = json.loads(path.read_text(encoding="utf-8"))
        if settings.pop("chat_template", None) is not None:
            path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
