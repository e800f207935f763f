"""Whether exported weights are the trainer's own; runs in prime-rl's interpreter, on CPUs.

    python compare_weights.py MODEL CHECKPOINT EXPORTED STRINGS_JSON

MODEL has the architecture, CHECKPOINT is what the trainer saved, EXPORTED what was made of it,
STRINGS_JSON a file with a list of `[system, user]`. Prints a JSON document.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PREFIX = "app.model."
MAX_TOKENS = 64


def main() -> None:
    """Compare tensors and greedy answers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, checkpoint, exported, strings = map(Path, sys.argv[1:])
    loaded = AutoModelForCausalLM.from_pretrained(exported, dtype=torch.bfloat16)
    trainer = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
    own = trainers_own(checkpoint)
    missing, unexpected = trainer.load_state_dict(own, strict=False)
    tokenizer = AutoTokenizer.from_pretrained(exported)
    prompts = json.loads(strings.read_text(encoding="utf-8"))
    mine = [answer(trainer, tokenizer, *prompt) for prompt in prompts]
    theirs = [answer(loaded, tokenizer, *prompt) for prompt in prompts]
    state = loaded.state_dict()
    document = {
        "tensors": len(own),
        "equal_tensors": sum(
            name in state and torch.equal(state[name], value) for name, value in own.items()
        ),
        "not_in_the_checkpoint": sorted(missing),
        "not_in_the_model": sorted(unexpected),
        "trainer": mine,
        "exported": theirs,
    }
    print(json.dumps(document))


def trainers_own(checkpoint: Path) -> dict[str, Any]:
    """Read the model out of a distributed checkpoint, in the precision that vLLM gets it."""
    import torch
    from torch.distributed.checkpoint import FileSystemReader, load

    reader = FileSystemReader(checkpoint)
    entries = reader.read_metadata().state_dict_metadata
    tensors: dict[str, Any] = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in entries.items()
        if name.startswith(PREFIX) and hasattr(entry, "size")
    }
    load(tensors, storage_reader=reader, no_dist=True)
    return {name.removeprefix(PREFIX): tensor.to(torch.bfloat16) for name, tensor in tensors.items()}


def answer(model: Any, tokenizer: Any, system: str, user: str) -> str:  # noqa: ANN401 - transformers' classes
    """Answer without chance."""
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    tokens = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    made = model.generate(**tokens, max_new_tokens=MAX_TOKENS, do_sample=False)
    return str(tokenizer.decode(made[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True))


if __name__ == "__main__":
    main()
