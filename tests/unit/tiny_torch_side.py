"""Makes tiny models and loads one, in an interpreter with torch.

`PYTHON tiny_torch_side.py PROGRAM FOLDER OPTIONS`; PROGRAM is `make_tiny.py`, with its options.
"""

import json
import runpy
import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

AWKWARD = " two  spaces\n\ttab é 😀 <reversed_text half </think>"


def rendered(tokenizer, messages):
    """What prime-rl's renderer makes of a conversation, and the part that is learned."""
    try:
        from renderers.base import build_training_sample, create_renderer
        from renderers.configs import PrimeQwen3RendererConfig
    except ImportError:
        return None, None
    renderer = create_renderer(tokenizer, PrimeQwen3RendererConfig())
    sample = build_training_sample(renderer, messages, role_to_mask=None, tools=[], ensure_final_stop=True)
    learned = [token for token, counts in zip(sample.token_ids, sample.loss_mask, strict=True) if counts]
    asked = renderer.render_ids(messages[:-1], add_generation_prompt=True)
    return [renderer.render_ids(messages), asked], tokenizer.decode(learned)


def main(program, folder, *options):
    made = runpy.run_path(program)
    for name in ("one", "two"):
        assert made["main"]([str(folder / name), *options]) == 0
    return load(folder / "one", made["SYSTEM_PROMPT"])


def load(folder, system):
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype="auto")
    answer = "<reversed_text>fed cba</reversed_text>"
    messages = [
        {"role": "system", "content": system},
        {"role": "user", "content": "abc def"},
        {"role": "assistant", "content": answer},
    ]
    lengths = {"opening": "<reversed_text>", "closing": "</reversed_text>", "system": system}
    templated = [
        tokenizer.apply_chat_template(messages, return_dict=False),
        tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False),
    ]
    by_renderer, learned = rendered(tokenizer, messages)
    stop = model.generation_config.eos_token_id
    return {
        "architecture": type(model).__name__,
        "dtype": str(model.dtype),
        "parameters": model.num_parameters(),
        "vocabulary": model.config.vocab_size,
        "tokens": len(tokenizer),
        "stop": stop if isinstance(stop, list) else [stop],
        "end of turn": tokenizer.convert_tokens_to_ids("<|im_end|>"),
        "lengths": {name: len(tokenizer.encode(text)) for name, text in lengths.items()},
        "round trip": tokenizer.decode(tokenizer.encode(AWKWARD)) == AWKWARD,
        "answer": tokenizer.decode(tokenizer.encode(answer + "<|im_end|>"), skip_special_tokens=True),
        "templated": templated,
        "rendered": by_renderer,
        "learned": learned,
    }


sys.stdout.write(json.dumps(main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])) + "\n")
