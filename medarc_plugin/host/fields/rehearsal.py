"""What a rehearsal looks at beyond the fields that a launch needs: read where they are, never set."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .shape import Shape
    from .tables import Document

CLASSES = {
    "rl": "prime_rl.configs.rl:RLConfig",
    "sft": "prime_rl.configs.sft:SFTConfig",
    "inference": "prime_rl.configs.inference:InferenceConfig",
}
"""The classes of an entry point's config, as `module:name`."""

DATA_OF_ENVIRONMENT = "env.taskset.dataset_name"
"""Where tasksets name their data set by convention; the field is each taskset's own."""


def for_rehearsal(entrypoint: str, shape: Shape) -> Document:
    """Say what of a config a rehearsal looks at.

    Args:
        entrypoint: `rl`, `sft` or `inference`.
        shape: The schema's shape.

    Returns:
        `classes` by entry point. Field paths: `models` whose weights are loaded, `tokenizers`, `data` sets
        as pairs of the field with the name and the one with the kind (`data_kind` is the kind that has a
        name), `environment_data`, where `[*]` is every element of a list, `attention` of the trainer,
        `wandb`'s tables, with the switch `wandb_offline` in them, and `server_port`, which a person
        addresses. `None` or nothing where an entry point has no such field.
    """
    trainer = "trainer." if entrypoint == "rl" else ""
    found: Document = {
        "classes": dict(CLASSES),
        "models": [shape.engine.model],
        "tokenizers": [],
        "data": [],
        "data_kind": "sft",
        "environment_data": [],
        "attention": None,
        "wandb": [],
        "wandb_offline": "offline",
        "server_port": "server.port",
    }
    if entrypoint == "inference":
        return found
    return {
        **found,
        # The one for all components is what a config says that nobody has resolved.
        "models": list(
            dict.fromkeys([f"{trainer}model.name", "model.name", f"inference.{shape.engine.model}"])
        ),
        "tokenizers": [f"{trainer}tokenizer.name"],
        "data": [["data.name", "data.type"], ["val.data.name", "val.data.type"]]
        if entrypoint == "sft"
        else [],
        "environment_data": [f"{source}[*].{DATA_OF_ENVIRONMENT}" for source in shape.sources[entrypoint]],
        "attention": f"{trainer}model.attn",
        "wandb": list(dict.fromkeys([f"{trainer}{shape.wandb}", shape.wandb])),
        "server_port": None,
    }
