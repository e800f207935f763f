"""Makes checkpoints and compares weights, in an interpreter with torch: `PYTHON torch_side.py ACTION FOLDER`.

A run as prime-rl leaves it: FOLDER/base is the model that it began with, FOLDER/run/checkpoints/step_N
what it saved, FOLDER/trained what it shall be, FOLDER/said.pt what that model says.
"""

import importlib
import json
import os
import shutil
import sys
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.state_dict import get_state_dict
from transformers import (
    AutoModelForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

PROMPT = torch.tensor([[3, 14, 15, 9, 26, 5]])
SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
RANK, ALPHA = 4, 8.0


def make_base(folder, *, tied=False, moe=False):
    torch.manual_seed(1)
    if moe:
        config = Qwen3MoeConfig(
            **SIZES, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, tie_word_embeddings=tied
        )
        model = Qwen3MoeForCausalLM(config)
    else:
        model = Qwen3ForCausalLM(Qwen3Config(**SIZES, tie_word_embeddings=tied))
    model.to(torch.bfloat16).save_pretrained(folder / "base")
    return model.float()


def train(model):
    """One step of an optimizer, so that the checkpoint holds its state."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    model(PROMPT, labels=PROMPT).loss.backward()
    optimizer.step()
    return optimizer


def save(folder, step, model, optimizer):
    path = folder / "run" / "checkpoints" / f"step_{step}" / "trainer"
    path.mkdir(parents=True)
    dcp.save({"app": app_state(model, optimizer)}, checkpoint_id=path)


def app_state(model, optimizer):
    """prime-rl's own, where this interpreter has it; else the same state by hand."""
    try:
        ckpt = importlib.import_module("prime_rl.trainer.ckpt")
    except ImportError:
        tensors, states = get_state_dict(model, [optimizer])
        return {"model": tensors, "optimizers": states, "progress": {"step": 3, "total_tokens": 64}}
    return ckpt.AppState(model, [optimizer], None, ckpt.Progress(3))


def remember(folder, model):
    """Keep the trained model as transformers itself would write it, and what it says."""
    model.to(torch.bfloat16).save_pretrained(folder / "trained")
    torch.save(
        say(AutoModelForCausalLM.from_pretrained(folder / "trained", dtype="auto")), folder / "said.pt"
    )


def say(model):
    model.eval()
    with torch.no_grad():
        mask = torch.ones_like(PROMPT)
        answer = model.generate(
            PROMPT, attention_mask=mask, max_new_tokens=12, do_sample=False, pad_token_id=0
        )
        return {"logits": model(PROMPT).logits, "answer": answer}


def files(folder):
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def dense(folder, tied="no"):
    model = make_base(folder, tied=tied == "tied")
    for step in (2, 4):
        save(folder, step, model, train(model))
    remember(folder, model)


class Adapted(torch.nn.Module):
    """A linear layer with an adapter, named as prime-rl's MultiLoRALinear names its parts in files."""

    def __init__(self, layer):
        super().__init__()
        self.weight = layer.weight
        self.lora_A = torch.nn.ParameterList([torch.randn(RANK, layer.in_features)])
        self.lora_B = torch.nn.ParameterList([torch.randn(layer.out_features, RANK)])


def lora(folder):
    model = make_base(folder)
    torch.manual_seed(2)
    merged = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    for index, layer in enumerate(model.model.layers):
        for name in ("q_proj", "o_proj"):
            adapted = Adapted(getattr(layer.self_attn, name))
            setattr(layer.self_attn, name, adapted)
            change = ALPHA / RANK * adapted.lora_B[0].detach() @ adapted.lora_A[0].detach()
            merged[f"model.layers.{index}.self_attn.{name}.weight"] += change
    path = folder / "run" / "checkpoints" / "step_4" / "trainer"
    path.mkdir(parents=True)
    dcp.save({"app": {"model": model.state_dict(), "optimizers": {}}}, checkpoint_id=path)
    model = make_base(folder)
    model.load_state_dict(merged)
    remember(folder, model)


def custom(folder):
    """A mixture of experts in prime-rl's own model class, which stacks the experts."""
    from prime_rl.configs.trainer import ModelConfig
    from prime_rl.trainer.model import get_model

    model = make_base(folder, moe=True)
    train(model)
    remember(folder, model)
    settings = ModelConfig(name=str(folder / "base"), attn="flash_attention_2", impl="custom")
    theirs = get_model(settings, torch.device("meta"), torch.bfloat16)
    tensors = theirs.convert_to_prime(load_file(folder / "trained" / "model.safetensors"))
    theirs.to_empty(device="cpu")
    unexpected = theirs.load_state_dict(tensors, strict=False).unexpected_keys
    assert not unexpected, unexpected
    assert "model.layers.0.mlp.experts.w1" in tensors
    save(folder, 4, theirs, torch.optim.AdamW(theirs.parameters()))


def fused(folder):
    """A mixture of experts in transformers' own model class, which stacks the experts when it loads."""
    model = make_base(folder, moe=True)
    save(folder, 4, model, train(model))
    remember(folder, model)


def adapted_experts(folder):
    """Adapters of prime-rl's own on linear layers and on stacked experts."""
    from prime_rl.configs.trainer import ModelConfig
    from prime_rl.trainer.model import get_model
    from prime_rl.trainer.models.layers import lora
    from prime_rl.trainer.models.layers.lora.multi_moe import MultiLoRAGroupedExperts

    lora.set_lora_num_tokens(torch.zeros(1, dtype=torch.int32), reset_reference=True)
    lora.set_multilora_scaling(torch.full((1,), ALPHA / RANK, dtype=torch.bfloat16), reset_reference=True)
    model = make_base(folder, moe=True).to(torch.bfloat16)
    settings = ModelConfig(name=str(folder / "base"), attn="flash_attention_2", impl="custom")
    theirs = get_model(settings, torch.device("meta"), torch.bfloat16).to_empty(device="cpu")
    tensors = theirs.convert_to_prime(load_file(folder / "base" / "model.safetensors"))
    theirs.load_state_dict(tensors, strict=False)
    torch.manual_seed(3)
    adapters = {}
    for index, layer in enumerate(theirs.model.layers):
        prefix = f"model.layers.{index}"
        layer.mlp.experts = MultiLoRAGroupedExperts(layer.mlp.experts, RANK, 1, ALPHA)
        layer.self_attn.q_proj = lora.MultiLoRALinear(layer.self_attn.q_proj, RANK, 1, ALPHA)
        for module in (layer.mlp.experts, layer.self_attn.q_proj):
            for _, parameter in module.named_parameters_for_adapter(0):
                torch.nn.init.normal_(parameter)
        query, experts = layer.self_attn.q_proj, layer.mlp.experts
        for name, parameter in query.named_parameters_for_adapter(0):
            adapters[f"{prefix}.self_attn.q_proj.{name}.weight"] = parameter.detach().clone()
        for name, tensor in experts.state_dict_for_adapter(0).items():
            adapters[f"{prefix}.mlp.experts.{name}"] = tensor
        tensors[f"{prefix}.self_attn.q_proj.weight"] = merged(query.base_layer.weight, query, "")
        for part in ("w1", "w2", "w3"):
            weight = getattr(experts.base_layer, part)
            tensors[f"{prefix}.mlp.experts.{part}"] = merged(weight, experts, f"{part}_")
    save(folder, 4, theirs, torch.optim.AdamW(theirs.parameters()))
    save_file(adapters, folder / "adapters.safetensors")
    (folder / "merged").mkdir()
    save_file(theirs.convert_to_hf(tensors), folder / "merged" / "model.safetensors", {"format": "pt"})
    shutil.copyfile(folder / "base" / "config.json", folder / "merged" / "config.json")
    model = type(model).from_pretrained(folder / "merged", dtype="auto")
    remember(folder, model)


def merged(weight, module, part):
    down, up = (getattr(module, f"{part}lora_{side}")[0].float() for side in "AB")
    return (weight.float() + ALPHA / RANK * up @ down).detach().to(weight.dtype)


def compare(folder, step):
    weights = folder / "run" / "weights" / f"step_{step}"
    model, loading = AutoModelForCausalLM.from_pretrained(weights, dtype="auto", output_loading_info=True)
    said, expected = say(model), torch.load(folder / "said.pt")
    tensors, trained = files(weights), files(folder / "trained")
    return {
        "dtype": str(model.dtype),
        "loading": {name: sorted(map(str, found)) for name, found in loading.items() if found},
        "logits": torch.equal(said["logits"], expected["logits"]),
        "answer": torch.equal(said["answer"], expected["answer"]),
        "names": sorted(tensors.keys() ^ trained.keys()),
        "tensors": sorted(n for n in tensors if n in trained and not torch.equal(tensors[n], trained[n])),
        "adapters": adapters(folder, weights),
        "dtypes": sorted({str(tensor.dtype) for tensor in tensors.values()}),
    }


def adapters(folder, weights):
    """How many adapters there are, and which of them are not those that prime-rl would write."""
    path = weights / "lora_adapters" / "adapter_model.safetensors"
    written = load_file(path) if path.is_file() else {}
    known = folder / "adapters.safetensors"
    expected = load_file(known) if known.is_file() else {}
    wrong = [
        name for name in expected if not torch.equal(written[f"base_model.model.{name}"], expected[name])
    ]
    return len(written), wrong


def main(action, folder, *rest):
    folder = Path(folder)
    return ACTIONS[action](folder, *rest)


ACTIONS = {
    "dense": dense,
    "lora": lora,
    "custom": custom,
    "fused": fused,
    "adapted-experts": adapted_experts,
    "compare": compare,
}
os.environ["CUDA_VISIBLE_DEVICES"] = ""
sys.stdout.write(json.dumps(main(*sys.argv[1:])) + "\n")
