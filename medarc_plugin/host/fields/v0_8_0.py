"""prime-rl v0.8.0: `output_dir` is the run directory, resolved configs are TOML.

Its parser reads JSON as well, which is what is written for it too. The orchestrator has a folder of its
own, `run_default`, with its checkpoints and metrics. SFT starts no server.
"""

from __future__ import annotations

from .shape import Engine, Resume, Shape

_TRAINED = (
    *("output_dir", "clean_output_dir", "dry_run", "slurm", "max_steps", "env_vars"),
    *("ckpt.interval", "ckpt.resume_step", "ckpt.output_dir"),
    *("deployment.type", "deployment.gpus_per_node"),
)

_SERVED = (
    *("all2all_backend", "api_server_count", "data_parallel_size_local", "enable_dbo", "enable_eplb"),
    *("enable_expert_parallel", "enable_lora", "enable_prefix_caching", "enable_return_routed_experts"),
    *("lora_target_modules", "max_cpu_loras", "max_lora_rank", "max_loras", "model", "parallel"),
    *("quantization", "seed", "vllm_extra"),
)
"""Keys of a server that are vLLM's own."""

V0_8_0 = Shape(
    name="v0.8.0",
    paths={
        "rl": (
            *_TRAINED,
            *("deployment.num_train_gpus", "deployment.num_infer_gpus"),
            *("weight_broadcast.type", "weight_broadcast.port"),
            *("trainer.model.name", "trainer.max_steps", "trainer.wandb", "wandb"),
            *("trainer.file_monitor", "orchestrator.file_monitor", "trainer.weight_broadcast.type"),
            *("trainer.ckpt.interval", "trainer.ckpt.resume_step", "orchestrator.ckpt.resume_step"),
            *("trainer.weight_broadcast.port", "trainer.rollout_transport.port"),
            *("trainer.metrics_server.port", "rollout_transport.type", "rollout_transport.port"),
            *("orchestrator.train.source", "orchestrator.eval.source", "orchestrator.env_server_base_port"),
            *("orchestrator.train.source.env.taskset.id", "orchestrator.eval.source.env.taskset.id"),
            *("orchestrator.train.source.legacy.id", "orchestrator.eval.source.legacy.id"),
            *("orchestrator.weight_broadcast.type", "orchestrator.weight_broadcast.port"),
            *("orchestrator.rollout_transport.port", "orchestrator.output_dir"),
            *("orchestrator.model.client.base_url", "orchestrator.model.client.admin_base_url"),
            *("inference.model.name", "inference.deployment.type", "inference.server.port"),
            *("inference.backend_port", "inference.data_parallel_rpc_port"),
            "inference.gpu_memory_utilization",
        ),
        "sft": (*_TRAINED, *("deployment.num_gpus", "model.name", "wandb", "file_monitor")),
        "inference": (
            *("output_dir", "dry_run", "slurm", "deployment.type", "deployment.gpus_per_node"),
            *("model.name", "parallel.tp", "parallel.dp", "gpu_memory_utilization"),
            *("server.port", "router"),
        ),
    },
    spellings={
        "rl": (
            *(f"inference.{name}" for name in _SERVED),
            *("bench", "file_monitor", "orchestrator.bench", "orchestrator.max_inflight_episodes"),
            *("orchestrator.model.client.elastic", "orchestrator.model.client.router_url"),
            *("orchestrator.optim", "orchestrator.oversampling_factor", "orchestrator.post_batch_filters"),
            *("orchestrator.pre_batch_filters", "orchestrator.prime_monitor", "orchestrator.wandb"),
            *("trainer.bench", "trainer.ckpt.skip_gather_master_weights", "trainer.ckpt.weights"),
            *("trainer.ckpt.weights_only", "trainer.max_concurrent_runs"),
            *("trainer.weight_broadcast.save_format", "trainer.weight_broadcast.save_sharded"),
        ),
        "sft": (
            *("bench", "ckpt.skip_gather_master_weights", "ckpt.weights", "ckpt.weights_only"),
            "deployment.num_nodes",
        ),
        "inference": _SERVED,
    },
    examples={"rl": "examples/reverse_text/rl-v0.8.0.toml", "sft": "examples/reverse_text/sft.toml"},
    run_dir=None,
    clean="clean_output_dir",
    train_gpus={"rl": "deployment.num_train_gpus", "sft": "deployment.num_gpus"},
    infer_gpus={"rl": "deployment.num_infer_gpus"},
    engine=Engine(
        model="model.name",
        tensor="parallel.tp",
        data="parallel.dp",
        share="gpu_memory_utilization",
        rpc_port="data_parallel_rpc_port",
        tables=("vllm_extra", "model", ""),
    ),
    wandb="wandb",
    sources={"rl": ("orchestrator.train.source", "orchestrator.eval.source"), "sft": ()},
    environments=("env.taskset.id", "legacy.id"),
    client={"rl": "orchestrator.model.client"},
    base_url="base_url[*]",
    transport_ports=3,  # rollouts, batches, and the channel on which trainers say that they are ready
    resume=Resume(
        "ckpt.resume_step", ("trainer.ckpt.resume_step", "orchestrator.ckpt.resume_step"), by_step=True
    ),
    orchestrator_folder="run_default",
    run_id={
        "rl": {"WANDB_SHARED_RUN_ID": "{}"},
        # Its trainer leaves these to wandb itself (https://docs.wandb.ai/guides/track/environment-variables/).
        "sft": {"WANDB_RUN_ID": "{}", "WANDB_RESUME": "allow"},
    },
)
"""prime-rl v0.8.0."""
