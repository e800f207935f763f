"""What trainer and vLLM need of a GPU that they share, and where a model's architecture is found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from standins import make_plan, make_resolved

from medarc_plugin.backends.planning import launch_document
from medarc_plugin.host import memory
from medarc_plugin.host.architecture import (
    Architecture,
    architecture_from,
    count_parameters,
    find_model,
    read_architecture,
)
from medarc_plugin.host.fields import MAIN, V0_8_0
from medarc_plugin.host.memory import (
    gpu_memory,
    inference_needs,
    memory_of_type,
    read_trainer,
    trainer_needs,
    with_memory,
)
from medarc_plugin.models import GpuNeeds, JobPlan, Resolved
from medarc_plugin.options import SlurmOptions
from medarc_plugin.preflight import medarc_preflight

GIB = 2**30

# Numbers from the models' own config.json.
QWEN3_SMALL = {
    "model_type": "qwen3",
    "head_dim": 128,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "vocab_size": 151936,
}
LLAMA_LARGE = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
    "vocab_size": 128256,
}
QWEN3_EXPERTS = {
    "model_type": "qwen3_moe",
    "decoder_sparse_step": 1,
    "head_dim": 128,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "max_position_embeddings": 40960,
    "mlp_only_layers": [],
    "moe_intermediate_size": 768,
    "num_attention_heads": 32,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
    "vocab_size": 151936,
}
SMALL = architecture_from(QWEN3_SMALL)


# Architectures


@pytest.mark.parametrize(
    ("config", "parameters", "tolerance"),
    [
        (QWEN3_SMALL, 596_049_920, 0),
        # The two norms of a head are Qwen3's: elsewhere they are a few values too many.
        (LLAMA_LARGE, 8_030_261_248, 1e-5),
        (QWEN3_EXPERTS, 30_532_122_624, 1e-5),
    ],
)
def test_parameters_follow_from_the_architecture(
    config: dict[str, Any], parameters: int, tolerance: float
) -> None:
    assert architecture_from(config).parameters == pytest.approx(parameters, rel=tolerance)


def test_a_token_goes_through_few_of_the_experts() -> None:
    model = architecture_from(QWEN3_EXPERTS)

    assert model.active_intermediate == 8 * 768


def test_layers_without_experts_and_shared_experts_are_counted() -> None:
    experts = architecture_from({**QWEN3_EXPERTS, "mlp_only_layers": [0, 1], "n_shared_experts": 2})
    every_second = architecture_from({**QWEN3_EXPERTS, "decoder_sparse_step": 2})

    assert (experts.dense_layers, experts.shared_intermediate) == (2, 2 * 768)
    assert every_second.dense_layers == 24
    assert experts.parameters != every_second.parameters


def test_what_vllm_keeps_of_a_token() -> None:
    assert SMALL.cached == 28 * 2 * 8 * 128
    assert architecture_from({**QWEN3_SMALL, "kv_lora_rank": 512, "qk_rope_head_dim": 64}).cached == 28 * 576


def test_the_text_of_a_model_that_also_sees() -> None:
    assert architecture_from({"text_config": QWEN3_SMALL, "vision_config": {}}) == SMALL


def save_model(folder: Path, config: object = QWEN3_SMALL) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def save_weights(path: Path, tensors: dict[str, tuple[str, list[int]]]) -> None:
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            **{
                name: {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]}
                for name, (dtype, shape) in tensors.items()
            },
        }
    ).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)


def test_the_files_know_better_than_the_architecture(work: Path) -> None:
    folder = save_model(work / "model")
    save_weights(
        folder / "model.safetensors",
        {"model.embed_tokens.weight": ("BF16", [10, 4]), "lm_head.weight": ("BF16", [10, 4])},
    )

    model = read_architecture(folder)

    assert model is not None
    # The copy of a tied embedding does not count.
    assert model.parameters == 40
    assert count_parameters(folder, tied=False) == 80


def test_files_in_parts_are_counted_together(work: Path) -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (work / "model.safetensors.index.json").write_text(json.dumps(index))
    save_weights(work / "model-1.safetensors", {"a": ("F32", [3, 5])})
    partly = count_parameters(work, tied=True)
    save_weights(work / "model-2.safetensors", {"b": ("F16", [7])})

    assert (partly, count_parameters(work, tied=True)) == (None, 22)


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\2\0\0\0\0\0\0\0{]", b"\2\0\0\0\0\0\0\0[]"])
def test_files_that_are_no_weights_are_not_counted(work: Path, content: bytes) -> None:
    (work / "model.safetensors").write_bytes(content)

    assert count_parameters(work, tied=True) is None


def test_packed_values_are_not_counted(work: Path) -> None:
    save_weights(work / "model.safetensors", {"a": ("U8", [8])})

    assert count_parameters(work, tied=True) is None


@pytest.mark.parametrize("config", [{}, [], "x", {**QWEN3_SMALL, "hidden_size": "wide"}, {"n_embd": 768}])
def test_another_familys_architecture_is_unknown(work: Path, config: object) -> None:
    assert read_architecture(save_model(work / "model", config)) is None


def test_a_torn_config_is_unknown(work: Path) -> None:
    (work / "config.json").write_text("{")

    assert read_architecture(work) is None


# Where models are

ORGANISATION_MODEL = "Qwen/Qwen3-0.6B"


def save_in_hub(hub: Path, commit: str = "c1", main: str | None = "c1") -> Path:
    repository = hub / "models--Qwen--Qwen3-0.6B"
    folder = save_model(repository / "snapshots" / commit)
    if main is not None:
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / "main").write_text(main + "\n")
    return folder


def options(**values: Any) -> SlurmOptions:
    return SlurmOptions.model_validate(values)


def test_a_local_folder_is_a_model(work: Path) -> None:
    folder = save_model(work / "project" / "mine")

    assert find_model(str(folder), options(), {}) == folder
    assert find_model("mine", options(project_dir=work / "project"), {}) == folder
    assert find_model("mine", options(), {}) is None


@pytest.mark.parametrize(
    ("hub", "values", "environment"),
    [
        ("a/hub", {"hf_cache_dir": "a"}, {}),
        ("b", {}, {"HF_HUB_CACHE": "b"}),
        ("c/hub", {}, {"HF_HOME": "c"}),
        ("d/hub", {"env": ["HF_HOME=d"]}, {"HF_HOME": "c"}),
        ("e/huggingface/hub", {}, {"XDG_CACHE_HOME": "e"}),
    ],
)
def test_the_cache_is_where_the_hub_would_look(
    work: Path, hub: str, values: dict[str, Any], environment: dict[str, str]
) -> None:
    folder = save_in_hub(work / hub)

    found = find_model(ORGANISATION_MODEL, options(**values), environment)

    assert found is not None
    assert found.resolve() == folder


def test_the_cache_of_the_home_folder_is_the_last(work: Path) -> None:
    folder = save_in_hub(Path("~/.cache/huggingface/hub").expanduser())

    assert find_model(ORGANISATION_MODEL, options(), {}) == folder


def test_the_main_branch_is_taken_before_others(work: Path) -> None:
    save_in_hub(work, "c1", main=None)
    folder = save_in_hub(work, "c2", main="c2")

    assert find_model(ORGANISATION_MODEL, options(), {"HF_HUB_CACHE": str(work)}) == folder


def test_a_snapshot_without_a_branch_will_do(work: Path) -> None:
    folder = save_in_hub(work, main=None)

    assert find_model(ORGANISATION_MODEL, options(), {"HF_HUB_CACHE": str(work)}) == folder


def test_names_that_are_no_paths_are_not_found() -> None:
    assert [find_model(name, options(), {}) for name in ("a\0b", "x" * 5000, "..")] == [None] * 3


def test_the_model_of_a_run_stands_for_the_weights_that_it_will_leave(work: Path) -> None:
    folder = save_model(work / "model")

    def make_run(name: str, entrypoint: str, config: dict[str, Any]) -> str:
        configs = work / name / "configs"
        configs.mkdir(parents=True)
        (configs / f"{entrypoint}.json").write_text(json.dumps(config))
        return str(work / name / "weights" / "step_9")

    sft = make_run("sft", "sft", {"model": {"name": str(folder)}})
    rl = make_run("rl", "rl", {"trainer": {"model": {"name": sft}}})
    loop = make_run("loop", "rl", {"model": {"name": str(work / "loop" / "weights" / "step_1")}})

    assert find_model(sft, options(), {}) == folder
    assert find_model(rl, options(), {}) == folder
    assert find_model(loop, options(), {}) is None
    assert find_model(str(work / "sft" / "weights"), options(), {}) is None


# GPU types


@pytest.mark.parametrize(
    ("name", "mib"),
    [
        ("h100", 81559),
        ("H200", 143771),
        ("nvidia_h100_80gb_hbm3", 81559),
        ("nvidia_h100_nvl", 95830),
        ("h100_94gb", 94 * 972),
        ("a100", None),
        ("a100-80gb", 81920),
        ("a100_80", 81920),
        ("nvidia_a100-sxm4-40gb", 40536),
        ("l40s", 46068),
        ("b200", 183359),
        ("gh200", None),
        ("v100", None),
        ("v100-32gb", 32 * 972),
        ("1g.10gb", 9720),
        ("nvidia_h100_80gb_hbm3_4g.40gb", 40 * 972),
        ("gpu", None),
    ],
)
def test_a_gpu_types_memory(name: str, mib: int | None) -> None:
    assert memory_of_type(name) == mib


def test_what_is_said_about_the_gpu_wins_over_its_type() -> None:
    assert gpu_memory(options(gpu_memory="40g", gpu_type="h100")) == (40960, "--gpu-memory 40G")
    assert gpu_memory(options(gpu_type="h100")) == (81559, "--gpu-type h100")
    assert gpu_memory(options(gpu_type="a100")) == (None, "")
    assert gpu_memory(options()) == (None, "")


# The trainer


def needs(model: Architecture = SMALL, **changes: Any) -> dict[str, float]:
    """The trainer's needs in GiB with some settings of `trainer.model`, and `optim`."""
    optim = changes.pop("optim", {})
    document = {"trainer": {"model": {"seq_len": 2048, **changes}, "optim": optim}}
    parts, peak = trainer_needs(model, read_trainer(document, "rl"))
    return {name: size / GIB for name, size in {**parts, "peak": peak}.items()}


def test_prime_rls_defaults_keep_four_bytes_a_value() -> None:
    found = needs()

    values = SMALL.parameters * 4 / GIB
    assert found["parameters"] == found["gradients"] == values
    assert found["optimizer"] == 2 * values
    # Optimizer state is there when the activations are not, with two copies of the largest tensor.
    assert found["peak"] == 4 * values + 2 * SMALL.embedding * 4 / GIB


def test_without_offload_optimizer_and_activations_are_there_together() -> None:
    found = needs(optim_cpu_offload=False)

    assert found["peak"] == pytest.approx(sum(found.values()) - found["peak"])


def test_sixteen_bits_halve_what_is_kept() -> None:
    full, half = needs(), needs(optimization_dtype="bfloat16")

    assert [half[name] * 2 for name in ("parameters", "gradients", "optimizer")] == [
        full[name] for name in ("parameters", "gradients", "optimizer")
    ]


@pytest.mark.parametrize(("kind", "values"), [("adamw", 2), ("sgd", 1), ("sign_sgd", 0)])
def test_each_optimizer_keeps_its_own_state(kind: str, values: int) -> None:
    assert needs(optim={"type": kind})["optimizer"] == values * needs()["parameters"]


def test_muon_keeps_a_second_value_for_the_embedding_alone() -> None:
    outer = SMALL.embedding * 4 / GIB

    assert needs(optim={"type": "muon"})["optimizer"] == pytest.approx(needs()["parameters"] + outer)


def test_activations_grow_with_the_sequence_and_shrink_with_checkpoints() -> None:
    kept = {"ac": None, "ac_offloading": None}
    held = [needs(**kept, seq_len=length)["activations"] for length in (2048, 4096, 8192)]
    fixed = 2 * held[0] - held[1]
    # One layer's width in values, of 2 bytes: see layer_activations.
    layer = 2 * (4 * 1024 + 3 * 2048 + 3 * 1024 + 4 * 3072)

    # Logits beside it: a block of tokens and entries, and the gradient of the hidden states.
    assert held[1] - held[0] == pytest.approx(2048 * (28 * layer + 20 * 8192 + 4 * 1024) / GIB)
    assert held[2] - fixed == pytest.approx(4 * (held[0] - fixed))
    assert needs(seq_len=8192)["activations"] < held[2] / 3
    assert needs(ac_offloading=None, seq_len=8192)["activations"] > needs(seq_len=8192)["activations"]
    assert needs(ac={"freq": 2}, ac_offloading=None)["activations"] < held[0]
    assert needs(ac={"mode": "selective"}, ac_offloading=None)["activations"] == held[0]


def test_layers_that_are_not_compiled_keep_more() -> None:
    kept = {"ac": None, "ac_offloading": None}

    assert needs(**kept, compile=None)["activations"] > 1.3 * needs(**kept)["activations"]


# Measured on an H200 with PyTorch 2.11: a decoder of Qwen3-0.6B's shape without an output layer under
# FSDP2, its optimizer's state on the GPU; peaks of what PyTorch allocated, in GiB.
@pytest.mark.parametrize(
    ("tokens", "checkpoints", "compiled", "measured"),
    [
        (2048, False, True, 11.73),
        (8192, False, True, 19.10),
        (2048, False, False, 13.13),
        (2048, True, True, 10.10),
        (8192, True, True, 10.22),
    ],
)
def test_the_formula_is_near_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, tokens: int, checkpoints: bool, compiled: bool, measured: float
) -> None:
    monkeypatch.setattr(memory, "logits", lambda *_: 0)
    settings = {"ac": {} if checkpoints else None, "compile": {} if compiled else None}

    found = needs(seq_len=tokens, **settings, ac_offloading=None, optim_cpu_offload=False)["peak"]

    assert measured * 0.98 < found < measured * 1.07


def test_offloaded_activations_bring_checkpoints_with_them() -> None:
    assert needs(ac=None) == needs()
    assert needs(ac="None", ac_offloading="None") == needs(ac=None, ac_offloading=None)


def test_logits_without_the_fused_head_stand_for_every_token() -> None:
    more = needs(fused_lm_head_token_chunk_size="disabled")["activations"] - needs()["activations"]

    assert 5 < more < 20 * 2048 * 151936 / GIB


def test_adapters_train_few_values() -> None:
    found = needs(lora={"rank": 16, "target_modules": ["q_proj", "down_proj"]})

    trained = 16 * 28 * ((1024 + 2048) + (1024 + 3072))
    assert found["gradients"] == trained * 4 / GIB
    assert found["parameters"] == (SMALL.parameters + trained) * 4 / GIB
    assert found["peak"] < needs()["peak"] / 2


def test_offloading_more_needs_less() -> None:
    optimizer = needs()
    everything = needs(fsdp_cpu_offload=True, optim_cpu_offload=False)
    full = needs(full_offload={"numa_bind": True}, optim_cpu_offload=False)

    assert everything["peak"] < full["peak"] < optimizer["peak"]


def test_the_trainer_of_sft_is_read_from_the_top() -> None:
    trainer = read_trainer(
        {
            "model": {"lora": "None"},
            "data": {"seq_len": 512, "micro_batch_size": 4},
            "optim": {"type": "muon"},
        },
        "sft",
    )

    assert (trainer.tokens, trainer.optimizer, trainer.adapter_rank) == (2048, "muon", None)


def test_a_shared_sequence_length_holds_where_the_trainer_has_none() -> None:
    assert read_trainer({"seq_len": 4096}, "rl").tokens == 4096
    assert read_trainer({}, "rl").tokens == 2048


# vLLM


def least(gpu_mib: int | None = None, **vllm: Any) -> dict[str, int]:
    return inference_needs(SMALL, {"inference": {"vllm": vllm}}, 2048, gpu_mib, MAIN)


def test_vllm_needs_weights_and_room_for_its_longest_sequence() -> None:
    found = least()

    assert found["weights"] == 596_049_920 * 2
    assert found["cache"] == 40960 * 28 * 2 * 8 * 128 * 2
    assert least(max_model_len=2048)["cache"] == 16 * 2048 * 28 * 2 * 8 * 128 * 2
    assert least(max_model_len=2048, max_num_seqs=4)["cache"] == 4 * 2048 * 28 * 2 * 8 * 128 * 2
    assert least(kv_cache_dtype="fp8")["cache"] * 2 == found["cache"]


def test_vllms_settings_are_found_where_v0_8_0_has_them() -> None:
    server = {
        "model": {"max_model_len": 2048, "dtype": "float32", "enforce_eager": True},
        "vllm_extra": {"max_num_seqs": 4},
        "quantization": None,
        "enable_lora": False,
    }

    there = inference_needs(SMALL, {"inference": server}, 2048, None, V0_8_0)

    assert there == least(max_model_len=2048, dtype="float32", enforce_eager=True, max_num_seqs=4)


def test_vllm_does_more_at_once_on_a_large_gpu() -> None:
    assert least(143771)["activations"] - least(46068)["activations"] == 20 * (1024 - 256) * 151936
    assert least(143771, max_num_seqs=256) == least(46068)


def test_vllm_without_graphs_needs_none() -> None:
    assert (least()["graphs"], least(enforce_eager=True)["graphs"]) == (GIB, 0)


def test_vllm_holds_adapters_too() -> None:
    more = least(enable_lora=True, max_lora_rank=16, max_loras=2)["weights"] - least()["weights"]

    assert more == 2 * 2 * 16 * 28 * (2 * (1024 + 2048) + 2 * (1024 + 1024) + 3 * (1024 + 3072))


# The whole


SHARED = GpuNeeds(1, 1, shared=True)


def shared(
    work: Path,
    values: dict[str, Any] | None = None,
    *,
    fixed: bool = False,
    config: object = QWEN3_SMALL,
    **changes: Any,
) -> Resolved:
    folder = work / "model"
    if not folder.exists():
        save_model(folder, config)
    changes = {"gpus": SHARED, "model": str(folder), "memory_share": 0.3, **changes}
    share = {"gpu_memory_utilization": changes["memory_share"]}
    changes.setdefault("document", {"inference": {"vllm": share}})
    return with_memory(make_resolved(work / "run", **changes), options(**(values or {})), fixed=fixed)


def planned(resolved: Resolved, values: dict[str, Any] | None = None) -> JobPlan:
    fields = {
        name: getattr(resolved, name) for name in ("gpus", "model", "memory_share", "document", "memory")
    }
    return replace(make_plan(resolved.run_dir, values, **fields), preflight=False)


def test_a_run_that_shares_no_gpu_has_no_memory_plan(work: Path) -> None:
    resolved = shared(work, gpus=GpuNeeds(1, 1))

    assert resolved.memory is None
    assert launch_document(planned(resolved))["memory"] is None


def test_a_known_gpu_gets_its_share_at_submission(work: Path) -> None:
    plan = planned(shared(work, {"gpu_type": "h100"}))

    needs = plan.resolved.memory
    share = plan.resolved.memory_share
    assert needs is not None
    assert share is not None
    assert 0.3 < share < 0.7
    assert plan.resolved.document == {"inference": {"vllm": {"gpu_memory_utilization": share}}}
    assert launch_document(plan)["memory"] == {
        "trainer_bytes": needs.trainer_bytes,
        "inference_bytes": needs.inference_bytes,
        "reserve_bytes": needs.reserve_bytes,
        "share": share,
        "share_path": "inference.vllm.gpu_memory_utilization",
        "fixed": False,
    }
    assert list(medarc_preflight(plan)) == []


def test_an_unknown_gpu_is_left_to_the_job(work: Path) -> None:
    plan = planned(shared(work, {"gpu_type": "a100"}))

    document = launch_document(plan)["memory"]
    assert (document["share"], document["fixed"]) == (None, False)
    assert document["trainer_bytes"] > document["reserve_bytes"] > 2 * GIB
    # Until then, and for whoever starts the config by hand.
    assert plan.resolved.document["inference"]["vllm"]["gpu_memory_utilization"] == 0.3
    assert list(medarc_preflight(plan)) == []


def test_both_that_do_not_fit_are_refused_before_submission(work: Path) -> None:
    plan = planned(shared(work, {"gpu_type": "h100"}, config=LLAMA_LARGE))

    (found,) = medarc_preflight(plan)

    assert found.fatal
    assert found.message.startswith(
        "trainer and vLLM do not fit on one GPU: the trainer needs about 123.6 GiB"
    )
    assert found.message.endswith("on a GPU of 79.6 GiB")
    assert "LoRA" in (found.hint or "")


def test_a_share_of_the_configs_own_is_kept_and_checked(work: Path) -> None:
    kept = planned(shared(work, {"gpu_memory": "40G"}, fixed=True, memory_share=0.5))
    high = planned(shared(work, {"gpu_memory": "40G"}, fixed=True, memory_share=0.8))
    low = planned(shared(work, {"gpu_memory": "40G"}, fixed=True, memory_share=0.1))

    (refused,) = medarc_preflight(high)
    (warned,) = medarc_preflight(low)
    assert list(medarc_preflight(kept)) == []
    assert launch_document(kept)["memory"]["share"] == 0.5
    assert refused.fatal
    assert refused.message.startswith("vLLM's share of 0.8 leaves the trainer too little")
    assert not warned.fatal
    assert warned.message.startswith("vLLM may not start: its share of 0.1 is 4.0 GiB, and it needs about ")


def test_a_share_of_the_configs_own_waits_for_the_job_on_an_unknown_gpu(work: Path) -> None:
    plan = planned(shared(work, fixed=True, memory_share=0.8))

    (found,) = medarc_preflight(plan)

    assert not found.fatal
    assert found.message == "vLLM takes 80% of the GPU that it shares, which leaves the trainer little"
    assert launch_document(plan)["memory"]["share"] == 0.8


def test_an_unknown_model_gets_what_was_seen_to_work(work: Path) -> None:
    plan = planned(shared(work, {"gpu_type": "h100"}, model="nobody/nothing"))

    (found,) = medarc_preflight(plan)

    assert not found.fatal
    assert found.message.startswith(
        "the model's size is unknown (nobody/nothing: it is not on this machine): vLLM gets a share of 0.3"
    )
    assert launch_document(plan)["memory"] == {
        "trainer_bytes": None,
        "inference_bytes": None,
        "reserve_bytes": None,
        "share": 0.3,
        "share_path": "inference.vllm.gpu_memory_utilization",
        "fixed": False,
    }


def test_an_unknown_model_with_a_share_of_its_own_needs_no_words(work: Path) -> None:
    assert list(medarc_preflight(planned(shared(work, model="nobody/nothing", fixed=True)))) == []


def test_a_number_that_is_none_is_unknown(work: Path) -> None:
    document = {"trainer": {"model": {"seq_len": "long"}}, "inference": {}}

    resolved = shared(work, document=document)

    assert resolved.memory is not None
    assert "the config cannot be read" in resolved.memory.unknown


def test_a_model_that_is_cut_short_is_the_trainers_alone(work: Path) -> None:
    document = {"trainer": {"model": {"debug": {"num_layers": 2}}}, "inference": {}}

    cut, whole = shared(work, document=document).memory, shared(work).memory

    assert cut is not None
    assert whole is not None
    assert (cut.trainer_bytes or 0) < (whole.trainer_bytes or 0)
    assert cut.inference_bytes == whole.inference_bytes


def test_the_free_disk_goes_to_the_job(work: Path) -> None:
    asked = launch_document(make_plan(work / "a", {"min_free_disk": "50G"}))
    unasked = launch_document(make_plan(work / "a"))

    assert (asked["min_free_disk_mib"], unasked["min_free_disk_mib"]) == (51200, None)


@pytest.mark.parametrize("name", ["gpu_memory", "min_free_disk"])
@pytest.mark.parametrize("value", ["much", "0", "-1G", True, "1.5G"])
def test_a_size_that_is_none_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"is not a size|is no size"):
        options(**{name: value})


def test_what_a_model_of_four_million_takes_beside_vllm() -> None:
    """A run with a share of 0.3 on an H200 was seen to peak at 44.8 GiB: 2.7 more than the share."""
    tiny = replace(
        SMALL, hidden=256, layers=4, heads=4, key_heads=4, head_size=64, intermediate=768, vocabulary=600
    )
    parts, peak = trainer_needs(tiny, read_trainer({}, "rl"))

    assert sum(parts.values()) > peak
    assert 2.5 < 2.5 + 1.1 * peak / GIB < 2.9
