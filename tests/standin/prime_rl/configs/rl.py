"""The config of `rl`: shared blocks that flow into trainer, orchestrator and inference."""

import uuid
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from prime_rl.configs.inference import (
    InferenceConfig,
    InferenceWeightBroadcastConfig,
    fill_replicas,
)
from prime_rl.configs.orchestrator import LoRAConfig, OrchestratorConfig
from prime_rl.configs.shared import (
    EnvVars,
    FileMonitorConfig,
    FileSystemWeightBroadcastConfig,
    NCCLWeightBroadcastConfig,
    NIXLWeightBroadcastConfig,
    PrimeMonitorConfig,
    ResumeConfig,
    RunConfig,
    SlurmConfig,
    TokenizerConfig,
    TransportConfig,
)
from prime_rl.configs.trainer import TrainerConfig
from prime_rl.utils.config import BaseConfig
from pydantic import Field, model_validator

# A shared field and the fields that it fills, unless they are set themselves.
FLOWS = {
    "model.name": ("trainer.model.name", "inference.vllm.model", "orchestrator.model.name"),
    "log.level": ("trainer.log.level", "orchestrator.log.level", "inference.log.level"),
    "log.json_logging": (
        "trainer.log.json_logging",
        "orchestrator.log.json_logging",
        "inference.log.json_logging",
    ),
    "ckpt.output_dir": ("trainer.ckpt.output_dir",),
    **{
        f"ckpt.{leaf}": (f"trainer.ckpt.{leaf}", f"orchestrator.ckpt.{leaf}")
        for leaf in ("interval", "keep_last", "keep_interval")
    },
    **{
        f"monitors.wandb.{leaf}": (
            f"trainer.monitors.wandb.{leaf}",
            f"orchestrator.monitors.wandb.{leaf}",
        )
        for leaf in ("project", "entity", "name", "group", "tags", "offline")
    },
    "monitors.file.path": ("trainer.monitors.file.path", "orchestrator.monitors.file.path"),
    "monitors.prime.name": ("orchestrator.monitors.prime.name",),
    "tokenizer.name": ("trainer.tokenizer.name", "orchestrator.tokenizer.name"),
    "tokenizer.trust_remote_code": (
        "trainer.tokenizer.trust_remote_code",
        "orchestrator.tokenizer.trust_remote_code",
    ),
    "tokenizer.chat_template": (
        "trainer.tokenizer.chat_template",
        "orchestrator.tokenizer.chat_template",
        "inference.vllm.chat_template",
    ),
    "rollout_transport": ("trainer.rollout_transport", "orchestrator.rollout_transport"),
    "max_steps": ("trainer.max_steps", "orchestrator.max_steps"),
    "seq_len": ("trainer.model.seq_len", "orchestrator.seq_len"),
    "slurm": ("inference.slurm",),
}

# Blocks whose mere presence switches the same block of a component on (or, as "None", off).
SWITCHES = {
    "ckpt": ("trainer", "orchestrator"),
    "monitors.wandb": ("trainer", "orchestrator"),
    "monitors.file": ("trainer", "orchestrator"),
    "monitors.prime": ("orchestrator",),
}


def look(data: Any, path: str) -> Any:
    for name in path.split("."):
        data = data.get(name) if isinstance(data, dict) else None
    return data


def fill(data: dict[str, Any], path: str, value: Any) -> None:
    first, *middle, last = path.split(".")
    node = data.get(first)
    for name in middle:
        node = node.setdefault(name, {}) if isinstance(node, dict) else None
    if isinstance(node, dict):
        node.setdefault(last, value)


def share(data: dict[str, Any]) -> None:
    conflicts = []
    for shared, targets in FLOWS.items():
        value = look(data, shared)
        if value is None:
            continue
        clashing = [t for t in targets if look(data, t) not in (None, value)]
        conflicts += [f"  - [{shared!r}] is set, but [{t!r}] is also set" for t in clashing]
        for target in targets:
            fill(data, target, value)
    for block, components in SWITCHES.items():
        value = look(data, block)
        if isinstance(value, dict) or value == "None":
            for component in components:
                fill(data, f"{component}.{block}", {} if isinstance(value, dict) else value)
    if conflicts:
        head = (
            "Shared config conflicts with matching sub-config field(s). Pick one place to set each "
            "value — duplicating it is ambiguous and the sub-config would silently shadow any "
            "later shared-level override (e.g. on the CLI):"
        )
        raise ValueError("\n".join([head, *conflicts]))


class SharedLogConfig(BaseConfig):
    level: str | None = None
    json_logging: bool = False


class SharedWandbConfig(BaseConfig):
    project: str | None = "prime-rl"
    entity: str | None = None
    name: str | None = None
    group: str | None = None
    tags: list[str] | None = None
    offline: bool | None = False

    @model_validator(mode="after")
    def online(self) -> Self:
        if self.offline:
            raise ValueError(
                "W&B shared mode is always on for the rl entrypoint and requires server "
                "connectivity; monitors.wandb.offline = true is not supported. Use offline mode "
                "via the sub-config wandb blocks (trainer.monitors.wandb.offline, "
                "orchestrator.monitors.wandb.offline) if you really need it per-process."
            )
        return self


class SharedMonitorsConfig(BaseConfig):
    wandb: SharedWandbConfig | None = None
    file: FileMonitorConfig | None = None
    prime: PrimeMonitorConfig | None = None


class SharedCheckpointConfig(BaseConfig):
    output_dir: Path | None = None
    interval: int | None = None
    keep_last: int | None = Field(None, ge=1)
    keep_interval: int | None = Field(None, ge=1)


class SharedModelConfig(BaseConfig):
    name: str = "Qwen/Qwen3-0.6B"


class SharedFileSystemWeightBroadcastConfig(BaseConfig):
    type: Literal["filesystem"] = "filesystem"


class SharedNCCLWeightBroadcastConfig(BaseConfig):
    type: Literal["nccl"] = "nccl"
    host: str = "localhost"
    port: int = 29501
    timeout: int = 1200
    quantize_in_weight_transfer: bool = False


class SharedNIXLWeightBroadcastConfig(BaseConfig):
    type: Literal["nixl"] = "nixl"
    host: str = "localhost"
    port: int = 8001
    timeout: int = 1200
    session_id: str = "default"


SharedWeightBroadcastConfig = Annotated[
    SharedFileSystemWeightBroadcastConfig | SharedNCCLWeightBroadcastConfig | SharedNIXLWeightBroadcastConfig,
    Field(discriminator="type"),
]

BROADCASTS = {
    "filesystem": FileSystemWeightBroadcastConfig,
    "nccl": NCCLWeightBroadcastConfig,
    "nixl": NIXLWeightBroadcastConfig,
}


class SingleNodeDeploymentConfig(BaseConfig):
    type: Literal["single_node"] = "single_node"
    gpus_per_node: int = 8
    num_train_gpus: int = 1
    num_infer_gpus: int = 1

    @model_validator(mode="after")
    def fits_on_the_node(self) -> Self:
        total = self.num_train_gpus + self.num_infer_gpus
        if total > self.gpus_per_node:
            raise ValueError(
                f"Total GPU count ({total} = {self.num_train_gpus} train + {self.num_infer_gpus} "
                f"infer) exceeds gpus_per_node ({self.gpus_per_node})."
            )
        return self


class MultiNodeDeploymentConfig(BaseConfig):
    type: Literal["multi_node"] = "multi_node"
    gpus_per_node: int = 8
    num_train_nodes: int
    num_infer_nodes: int | None = Field(None, ge=0)
    num_infer_replicas: int = Field(1, ge=1)


DeploymentConfig = Annotated[
    SingleNodeDeploymentConfig | MultiNodeDeploymentConfig, Field(discriminator="type")
]


class RLConfig(BaseConfig):
    trainer: TrainerConfig
    orchestrator: OrchestratorConfig
    inference: InferenceConfig | None = None
    env_vars: EnvVars = Field(default_factory=dict)
    run: RunConfig = Field(default_factory=RunConfig)
    output_dir: Path = Path("outputs")
    clean: bool = False
    log: SharedLogConfig = SharedLogConfig()
    ckpt: SharedCheckpointConfig | None = None
    resume: ResumeConfig | None = None
    monitors: SharedMonitorsConfig = SharedMonitorsConfig()
    model: SharedModelConfig | None = None
    tokenizer: TokenizerConfig | None = None
    max_steps: int | None = None
    seq_len: int | None = None
    weight_broadcast: SharedWeightBroadcastConfig | None = None
    rollout_transport: TransportConfig | None = None
    deployment: DeploymentConfig = SingleNodeDeploymentConfig()
    slurm: SlurmConfig | None = None
    dry_run: bool = False

    @property
    def run_dir(self) -> Path:
        return self.output_dir / str(self.run.dir)

    @model_validator(mode="before")
    @classmethod
    def share_fields(cls, data: Any) -> Any:
        if isinstance(data, dict):
            share(data)
        return data

    @model_validator(mode="after")
    def nodes_need_slurm(self) -> Self:
        if self.deployment.type == "multi_node" and self.slurm is None:
            raise ValueError("Must use SLURM for multi-node deployment.")
        return self

    # As in prime-rl, this comes before the broadcast is settled: it sees NCCL only where the
    # trainer's own block says so, which a resolved config does and a user's seldom.
    @model_validator(mode="after")
    def nccl_needs_two(self) -> Self:
        alone = (
            self.deployment.type == "single_node"
            and self.deployment.num_train_gpus + self.deployment.num_infer_gpus < 2
        )
        if alone and self.trainer.weight_broadcast.type == "nccl":
            raise ValueError(
                "NCCL weight broadcast requires at least 2 GPUs to build the broadcast process group."
            )
        return self

    @model_validator(mode="after")
    def settle_run(self) -> Self:
        if self.run.name is None:
            environments = dict.fromkeys(s.resolved_name for s in self.orchestrator.train.source)
            model = self.trainer.model.name.split("/")[-1]
            label = "+".join(environments) or "no-env"
            self.run.name = f"{label}--{model}--{uuid.uuid4().hex[:8]}".lower()
        self.run.dir = self.run.dir or self.run.name
        for component in (self.trainer, self.orchestrator):
            if "output_dir" in component.model_fields_set and component.output_dir != self.run_dir:
                raise ValueError(
                    f"{type(component).__name__}.output_dir ({component.output_dir}) conflicts "
                    f"with the run directory ({self.run_dir}). Under the rl entrypoint, sub-config "
                    "output directories are derived from output_dir / run.name — set those instead."
                )
            component.output_dir = self.run_dir
            if self.resume is not None:
                component.resume = self.resume.model_copy()
        for holder in (self.monitors, self.trainer.monitors, self.orchestrator.monitors):
            for monitor in (holder.wandb, getattr(holder, "prime", None)):
                if monitor is not None and monitor.name is None:
                    monitor.name = self.run.name
        return self

    @model_validator(mode="after")
    def components_agree(self) -> Self:
        trainer, orchestrator = self.trainer, self.orchestrator
        if self.inference is not None and self.inference.vllm.model != orchestrator.model.name:
            raise ValueError(
                f"Inference model name ({self.inference.vllm.model}) and orchestrator model name "
                f"({orchestrator.model.name}) are not the same. The orchestrator queries the "
                "inference server and must use the same model name."
            )
        if self.inference is None and trainer.model.name != orchestrator.model.name:
            raise ValueError(
                f"Trainer model name ({trainer.model.name}) and orchestrator model name "
                f"({orchestrator.model.name}) are not the same. Please specify the same model name "
                "for both."
            )
        if trainer.max_steps != orchestrator.max_steps:
            raise ValueError(
                f"Trainer max steps ({trainer.max_steps}) and orchestrator max steps "
                f"({orchestrator.max_steps}) are not the same. Please specify the same max steps "
                "for both."
            )
        if trainer.model.seq_len < orchestrator.seq_len:
            raise ValueError(
                f"Trainer model seq_len ({trainer.model.seq_len}) must be >= orchestrator seq_len "
                f"({orchestrator.seq_len}). The trainer needs to be able to handle sequences at "
                "least as long as those produced by the orchestrator."
            )
        return self

    @model_validator(mode="after")
    def settle_broadcast(self) -> Self:
        lora = self.trainer.model.lora is not None
        if self.weight_broadcast is None:
            over_files = lora or self.inference is None
            self.weight_broadcast = (
                SharedFileSystemWeightBroadcastConfig() if over_files else SharedNCCLWeightBroadcastConfig()
            )
        if self.weight_broadcast.type != "filesystem" and lora:
            raise ValueError(
                "LoRA training is not yet supported with in-memory weight broadcast. "
                "Set weight_broadcast.type = 'filesystem'."
            )
        values = self.weight_broadcast.model_dump()
        if self.weight_broadcast.type != "filesystem":
            vllm = self.inference.vllm if self.inference else None
            values["inference_world_size"] = (
                vllm.data_parallel_size * vllm.tensor_parallel_size if vllm else 1
            )
        for component in (self.trainer, self.orchestrator):
            component.weight_broadcast = BROADCASTS[self.weight_broadcast.type](**values)
        if self.inference is not None:
            self.inference.weight_broadcast = InferenceWeightBroadcastConfig(type=self.weight_broadcast.type)
        return self

    @model_validator(mode="after")
    def settle_rollouts(self) -> Self:
        ours, theirs = self.trainer.rollout_transport, self.orchestrator.rollout_transport
        if ours.type != theirs.type:
            raise ValueError(
                f"trainer.rollout_transport.type ({ours.type!r}) != "
                f"orchestrator.rollout_transport.type ({theirs.type!r}); set the shared "
                "[rollout_transport] block or make both sub-configs the same type."
            )
        if self.rollout_transport is None:
            self.rollout_transport = ours
        return self

    @model_validator(mode="after")
    def settle_lora(self) -> Self:
        lora = self.trainer.model.lora
        if lora is not None:
            policy = self.orchestrator.model.lora or LoRAConfig()
            self.orchestrator.model.lora = policy
            policy.rank = policy.rank or lora.rank
            policy.alpha = lora.alpha if policy.alpha is None else policy.alpha
            policy.name = policy.name or f"r{policy.rank}-a{policy.alpha}"
            if self.inference is not None:
                self.inference.vllm.enable_lora = True
                self.inference.vllm.max_lora_rank = lora.rank
        return self

    @model_validator(mode="after")
    def settle_deployment(self) -> Self:
        if self.deployment.type != "single_node":
            return self
        if self.deployment.num_train_gpus > 1:
            self.orchestrator.num_train_workers = self.deployment.num_train_gpus // self.trainer.model.cp
        if self.inference is None:
            return self
        gpus, vllm = self.deployment.num_infer_gpus, self.inference.vllm
        if gpus % vllm.tensor_parallel_size != 0:
            raise AssertionError("Number of inference GPUs must be divisible by the tensor parallel size")
        fill_replicas(vllm, gpus)
        client = self.orchestrator.model.client
        host = self.inference.server.host or "localhost"
        if not self.orchestrator.train.source and "base_url" not in client.model_fields_set:
            client.base_url = f"http://{host}:{self.inference.server.port}/v1"
        if self.inference.router is not None and "admin_base_url" not in client.model_fields_set:
            client.admin_base_url = [f"http://{host}:{self.inference.backend_port}/v1"]
        return self
