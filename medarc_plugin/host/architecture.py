"""A model's architecture: found on this machine, without the network, and without loading anything.

A model's `config.json` says how its layers are built; the headers of its safetensors files, where they
are here, say how many values it really has.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medarc_plugin.host.fields import get

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from medarc_plugin.options import SlurmOptions


@dataclass(frozen=True)
class Architecture:
    """A decoder of the Llama family: attention with shared keys, a gated MLP, dense or of experts.

    Attributes:
        hidden: Width of the residual stream.
        layers: Number of layers.
        heads: Attention heads.
        key_heads: Heads of keys and values.
        head_size: Width of a head.
        intermediate: Width of a dense MLP.
        vocabulary: Number of tokens.
        tied: The embedding is the output layer too.
        context: Longest sequence that the model knows.
        experts: Routed experts of a layer; 0 for a dense model.
        expert_intermediate: Width of an expert.
        experts_used: Routed experts that a token goes through.
        shared_intermediate: Width of what every token goes through beside them.
        dense_layers: Layers without experts, in a model of experts.
        latent: Values of a token's compressed keys and values in a layer (multi-head latent attention);
            0 where keys and values are kept whole.
        counted: Parameters as the files have them; `None` where they are not here.
    """

    hidden: int
    layers: int
    heads: int
    key_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    tied: bool
    context: int
    experts: int = 0
    expert_intermediate: int = 0
    experts_used: int = 0
    shared_intermediate: int = 0
    dense_layers: int = 0
    latent: int = 0
    counted: int | None = None

    @property
    def queries(self) -> int:
        """Width of all queries of a token."""
        return self.heads * self.head_size

    @property
    def keys(self) -> int:
        """Width of all keys of a token, and of all values."""
        return self.key_heads * self.head_size

    @property
    def embedding(self) -> int:
        """Parameters of the embedding, and of an output layer of its own."""
        return self.vocabulary * self.hidden

    @property
    def attention(self) -> int:
        """Parameters of a layer's attention and norms, without biases."""
        return self.hidden * (2 * self.queries + 2 * self.keys) + 2 * self.hidden + 2 * self.head_size

    @property
    def layer(self) -> int:
        """Parameters of the largest layer."""
        dense = 3 * self.hidden * self.intermediate
        routed = self.experts * (3 * self.hidden * self.expert_intermediate + self.hidden)
        shared = 3 * self.hidden * self.shared_intermediate
        return self.attention + (routed + shared if self.experts else dense)

    @property
    def parameters(self) -> int:
        """All parameters: as the files have them, else as the architecture makes them."""
        if self.counted is not None:
            return self.counted
        dense = self.attention + 3 * self.hidden * self.intermediate
        plain = self.dense_layers if self.experts else self.layers
        outer = self.embedding * (1 if self.tied else 2) + self.hidden
        return outer + plain * dense + (self.layers - plain) * self.layer

    @property
    def active_intermediate(self) -> int:
        """Width of all MLPs that a token goes through in a layer."""
        if not self.experts:
            return self.intermediate
        return max(self.experts_used * self.expert_intermediate + self.shared_intermediate, 1)

    @property
    def cached(self) -> int:
        """Values that vLLM keeps of a token, in all layers."""
        return self.layers * (self.latent or 2 * self.keys)


MOST_RUNS = 8
"""Runs that begin with one another's weights, at most."""


def find_model(
    name: str, options: SlurmOptions, environment: Mapping[str, str] = os.environ, _links: int = 0
) -> Path | None:
    """Find a model's folder: the name as a path, or in the Hugging Face cache.

    The weights of a run that is not over yet (`RUN/weights/step_N`) will have the architecture of the model
    that it began with, so that stands for them.

    Args:
        name: Path of a folder, or `ORGANISATION/NAME` on the hub.
        options: Where the job runs, and where its cache is.
        environment: The variables that move the cache:
            https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables

    Returns:
        A folder with a `config.json`; `None` where there is none on this machine.
    """
    places = [(options.project_dir or Path()) / os.path.expanduser(name)]  # noqa: PTH111 - the other raises
    for hub in _hubs(options, environment):
        # The layout is documented: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
        repository = hub / ("models--" + name.replace("/", "--"))
        places += [repository / "snapshots" / commit for commit in _commits(repository)]
    found = next((place for place in places if _is_file(place / "config.json")), None)
    if found is not None:
        return found
    begun_with = _model_of_run(places[0])
    if begun_with is None or _links > MOST_RUNS:
        return None
    return find_model(begun_with, options, environment, _links + 1)


def is_of_a_run(weights: Path) -> bool:
    """Whether a folder is one in which a run of ours will leave its weights."""
    return _model_of_run(weights) is not None


def _model_of_run(weights: Path) -> str | None:
    """The model that a run began with, by the folder where its weights will be."""
    run_dir = weights.parent.parent
    if weights.parent.name != "weights" or not weights.name.startswith("step_"):
        return None
    for name, paths in (("sft", ("model.name",)), ("rl", ("trainer.model.name", "model.name"))):
        try:
            config = json.loads((run_dir / "configs" / f"{name}.json").read_bytes())
        except (OSError, ValueError):
            continue
        for path in paths:
            found = get(config, path)
            if isinstance(found, str):
                return found
    return None


def _hubs(options: SlurmOptions, environment: Mapping[str, str]) -> Iterator[Path]:
    given = dict(text.split("=", 1) for text in options.env if "=" in text)
    variables = {**environment, **given}
    if options.hf_cache_dir:
        yield options.hf_cache_dir / "hub"
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if variables.get(name):
            yield Path(variables[name])
    if variables.get("HF_HOME"):
        yield Path(variables["HF_HOME"]) / "hub"
    cache = variables.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    yield Path(cache) / "huggingface" / "hub"


def _commits(repository: Path) -> list[str]:
    """The commits that are in the cache: the branch `main` first."""
    try:
        main = (repository / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        main = ""
    try:
        snapshots = sorted(path.name for path in (repository / "snapshots").iterdir())
    except (OSError, ValueError):
        snapshots = []
    return [name for name in snapshots if name == main] + [name for name in snapshots if name != main]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def read_architecture(folder: Path) -> Architecture | None:
    """Read `config.json`, and the headers of the weights where they are beside it.

    Returns:
        The architecture; `None` for a model of another family, or a file that cannot be read.
    """
    try:
        document = json.loads((folder / "config.json").read_bytes())
        found = architecture_from(document)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError):
        return None
    return replace(found, counted=count_parameters(folder, tied=found.tied))


def architecture_from(document: Mapping[str, Any]) -> Architecture:
    """Make an architecture of what `config.json` says.

    Args:
        document: The file; of a model that also sees, the part about text is taken.

    Raises:
        KeyError: A field is missing that every model of the family has.
        TypeError: A field is no number.
    """
    text = document.get("text_config") or document

    def number(*names: str, default: int = 0) -> int:
        """The first of some fields that is set; experts have several spellings."""
        return next((int(text[name]) for name in names if text.get(name) is not None), default)

    layers, heads, hidden = (
        int(text[name]) for name in ("num_hidden_layers", "num_attention_heads", "hidden_size")
    )
    intermediate = int(text["intermediate_size"])
    experts = number("num_experts", "num_local_experts", "n_routed_experts")
    width = number("moe_intermediate_size", default=intermediate)
    plain = len(text.get("mlp_only_layers") or ()) or number("first_k_dense_replace")
    step = number("decoder_sparse_step", default=1)
    return Architecture(
        hidden=hidden,
        layers=layers,
        heads=heads,
        key_heads=number("num_key_value_heads", default=heads),
        head_size=number("head_dim", default=hidden // heads),
        intermediate=intermediate,
        vocabulary=int(text["vocab_size"]),
        tied=bool(text.get("tie_word_embeddings", document.get("tie_word_embeddings", False))),
        context=number("max_position_embeddings", default=4096),
        experts=experts,
        expert_intermediate=width,
        experts_used=number("num_experts_per_tok", "moe_topk", default=1),
        shared_intermediate=number("shared_expert_intermediate_size") or number("n_shared_experts") * width,
        dense_layers=plain if step == 1 else layers - layers // step,
        latent=number("kv_lora_rank") + number("qk_rope_head_dim") if text.get("kv_lora_rank") else 0,
    )


_FLOATS = {"F32", "F16", "BF16"}
_LONGEST_HEADER = 100_000_000
"""Bytes; the format's own limit."""


def count_parameters(folder: Path, *, tied: bool) -> int | None:
    """Count the values in a model's safetensors files, from their headers alone.

    The headers are JSON behind a length of eight bytes: https://huggingface.co/docs/safetensors#format

    Args:
        folder: The model's folder.
        tied: The output layer is the embedding: a copy of it in the files does not count.

    Returns:
        The number; `None` where files are missing, or hold packed values.
    """
    try:
        index = json.loads((folder / "model.safetensors.index.json").read_bytes())
        names = set(index["weight_map"].values())
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        names = {"model.safetensors"}
    total = 0
    try:
        for name in names:
            for tensor, facts in _header(folder / name).items():
                if tensor == "__metadata__" or (tied and tensor == "lm_head.weight"):
                    continue
                if facts["dtype"] not in _FLOATS:
                    return None
                total += math.prod(facts["shape"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return total or None


def _header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _LONGEST_HEADER:
            raise ValueError(f"{path} is no safetensors file")
        header: dict[str, Any] = json.loads(file.read(length))
    return header
