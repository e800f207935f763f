"""prime-rl main since 2026-08: the run directory is `output_dir` / `run.dir`, resolved configs are JSON."""

from __future__ import annotations

from .shape import Engine, Resume, Shape

_TRAINED = (
    *("output_dir", "run.name", "run.dir", "clean", "resume.step", "resume.dir", "dry_run", "slurm"),
    *("max_steps", "env_vars", "ckpt.output_dir"),
    *("deployment.type", "deployment.gpus_per_node", "deployment.num_train_gpus"),
    *("deployment.num_infer_gpus", "weight_broadcast.type", "weight_broadcast.port"),
    *("inference.server.port", "inference.backend_port", "inference.vllm.data_parallel_rpc_port"),
    "inference.vllm.gpu_memory_utilization",
)

MAIN = Shape(
    name="main",
    paths={
        "rl": (
            *_TRAINED,
            *("trainer.model.name", "trainer.max_steps", "trainer.ckpt.interval", "trainer.monitors.wandb"),
            *("monitors.wandb", "trainer.monitors.file", "orchestrator.monitors.file"),
            *("trainer.resume", "orchestrator.resume", "trainer.weight_broadcast.type"),
            *("trainer.weight_broadcast.port", "trainer.rollout_transport.port"),
            *("trainer.metrics_server.port", "rollout_transport.type", "rollout_transport.port"),
            *("orchestrator.train.source", "orchestrator.eval.source", "orchestrator.env_server_base_port"),
            *("orchestrator.train.source.env.taskset.id", "orchestrator.eval.source.env.taskset.id"),
            *("orchestrator.weight_broadcast.type", "orchestrator.weight_broadcast.port"),
            "orchestrator.rollout_transport.port",
            *("orchestrator.model.client.base_url", "orchestrator.model.client.admin_base_url"),
            *("inference.vllm.model", "inference.deployment.type", "ckpt.interval"),
        ),
        "sft": (
            *_TRAINED,
            *("model.name", "ckpt.interval", "monitors.wandb", "monitors.file"),
            *("eval.source", "eval.env_server_base_port"),
            *("eval.source.env.taskset.id", "eval.client.base_url", "eval.client.admin_base_url"),
        ),
        "inference": (
            *("output_dir", "dry_run", "slurm", "deployment.type", "deployment.gpus_per_node"),
            *("vllm.model", "vllm.tensor_parallel_size", "vllm.data_parallel_size"),
            *("vllm.gpu_memory_utilization", "server.port", "router"),
        ),
    },
    spellings={
        "rl": (
            *("inference.vllm", "monitors", "orchestrator.concurrency", "orchestrator.monitors"),
            *("orchestrator.pad_to_multiple_of", "orchestrator.train.filter_zero_advantages", "resume"),
            *("run", "trainer.model.full_offload", "trainer.model.moe_fused_kernel", "trainer.monitors"),
        ),
        "sft": (
            *("data.num_workers", "deployment.num_infer_nodes", "deployment.num_train_nodes", "eval"),
            *("inference", "model.full_offload", "model.moe_fused_kernel", "monitors", "resume", "run"),
            *("val.data.num_workers", "weight_broadcast"),
        ),
        "inference": ("vllm",),
    },
    examples={"rl": "examples/reverse_text/rl.toml", "sft": "examples/reverse_text/sft.toml"},
    run_dir="run.dir",
    clean="clean",
    train_gpus={"rl": "deployment.num_train_gpus", "sft": "deployment.num_train_gpus"},
    infer_gpus={"rl": "deployment.num_infer_gpus", "sft": "deployment.num_infer_gpus"},
    engine=Engine(
        model="vllm.model",
        tensor="vllm.tensor_parallel_size",
        data="vllm.data_parallel_size",
        share="vllm.gpu_memory_utilization",
        rpc_port="vllm.data_parallel_rpc_port",
        tables=("vllm",),
    ),
    wandb="monitors.wandb",
    sources={"rl": ("orchestrator.train.source", "orchestrator.eval.source"), "sft": ("eval.source",)},
    environments=("env.taskset.id",),
    client={"rl": "orchestrator.model.client", "sft": "eval.client"},
    base_url="base_url",
    transport_ports=2,  # rollouts, and the channel on which trainers say that they are ready
    resume=Resume("resume", ("trainer.resume", "orchestrator.resume"), by_step=False),
    orchestrator_folder="",
    run_id={"rl": {"PRL_RUN_ID": "{}"}, "sft": {"PRL_RUN_ID": "{}"}},
)
"""prime-rl main."""
