"""The RL config, as far as a launch touches it: what is shared, and how it comes to the components."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from prime_rl.configs.inference import InferenceConfig
from prime_rl.configs.sft import CheckpointConfig, FileMonitorConfig, Loose, ModelConfig, table
from prime_rl.configs.shared import EnvVars, SlurmConfig
from prime_rl.utils.config import BaseConfig
from pydantic import Field, model_validator


class FileBroadcastConfig(BaseConfig):
    type: Literal["filesystem"] = "filesystem"


class SharedNCCLConfig(BaseConfig):
    type: Literal["nccl"] = "nccl"
    host: str = "localhost"
    port: int = 29501
    timeout: int = 1200


class NCCLConfig(SharedNCCLConfig):
    inference_world_size: int = 1


SharedBroadcastConfig = Annotated[FileBroadcastConfig | SharedNCCLConfig, Field(discriminator="type")]
BroadcastConfig = Annotated[FileBroadcastConfig | NCCLConfig, Field(discriminator="type")]


class FileTransportConfig(BaseConfig):
    type: Literal["filesystem"] = "filesystem"


class ZMQTransportConfig(BaseConfig):
    type: Literal["zmq"] = "zmq"
    host: str = "localhost"
    port: int = 5555
    hwm: int = 10


TransportConfig = Annotated[FileTransportConfig | ZMQTransportConfig, Field(discriminator="type")]


class SharedCheckpointConfig(BaseConfig):
    output_dir: Path | None = None
    interval: int | None = None
    resume_step: int | None = None
    keep_last: int | None = Field(None, ge=1)
    keep_interval: int | None = Field(None, ge=1)


class MetricsServerConfig(BaseConfig):
    port: int = Field(8000, ge=1, le=65535)
    host: str = "0.0.0.0"


class TrainerConfig(BaseConfig):
    model: ModelConfig = ModelConfig()
    optim: Loose = Loose()
    ckpt: CheckpointConfig | None = None
    weight_broadcast: BroadcastConfig = FileBroadcastConfig()
    rollout_transport: TransportConfig = ZMQTransportConfig()
    wandb: Loose | None = None
    file_monitor: FileMonitorConfig | None = None
    output_dir: Path = Path("outputs")
    max_steps: int | None = None
    metrics_server: MetricsServerConfig | None = None
    env_vars: EnvVars = Field(default_factory=dict)


class ClientConfig(BaseConfig):
    base_url: list[str] = Field(default_factory=lambda: ["http://localhost:8000/v1"])
    admin_base_url: list[str] | None = None


class PolicyConfig(BaseConfig):
    name: str = "Qwen/Qwen3-0.6B"
    client: ClientConfig = Field(default_factory=ClientConfig)


class TasksetConfig(Loose):
    id: str | None = None


class EnvConfig(Loose):
    taskset: TasksetConfig = TasksetConfig()


class LegacyConfig(Loose):
    id: str | None = None


class SourceConfig(Loose):
    name: str | None = None
    env: EnvConfig = EnvConfig()
    legacy: LegacyConfig = LegacyConfig()


class SourcesConfig(Loose):
    source: list[SourceConfig] = Field(default_factory=list)


class OrchestratorCheckpointConfig(BaseConfig):
    interval: int | None = Field(None, ge=1)
    resume_step: int | None = Field(None, ge=-1)
    keep_last: int | None = Field(None, ge=1)
    keep_interval: int | None = Field(None, ge=1)


class OrchestratorConfig(BaseConfig):
    model: PolicyConfig = Field(default_factory=PolicyConfig)
    train: SourcesConfig = Field(default_factory=SourcesConfig)
    eval: SourcesConfig | None = None
    renderer: Loose = Loose()
    ckpt: OrchestratorCheckpointConfig | None = None
    weight_broadcast: BroadcastConfig = FileBroadcastConfig()
    rollout_transport: TransportConfig = ZMQTransportConfig()
    wandb: Loose | None = None
    file_monitor: FileMonitorConfig | None = None
    output_dir: Path = Path("outputs/run_default")
    env_server_base_port: int = Field(5000, ge=1, le=65535)
    batch_size: int | None = Field(None, ge=1)
    group_size: int = Field(1, ge=1)
    max_inflight_episodes: int | None = Field(None, ge=1)
    seq_len: int = 2048
    max_steps: int | None = None
    env_vars: EnvVars = Field(default_factory=dict)


class SingleNodeConfig(BaseConfig):
    type: Literal["single_node"] = "single_node"
    gpus_per_node: int = 8
    num_train_gpus: int = 1
    num_infer_gpus: int = 1

    @model_validator(mode="after")
    def fits(self) -> Self:
        total = self.num_train_gpus + self.num_infer_gpus
        if total > self.gpus_per_node:
            raise ValueError(
                f"Total GPU count ({total} = {self.num_train_gpus} train + {self.num_infer_gpus} infer)"
                f" exceeds gpus_per_node ({self.gpus_per_node})."
            )
        return self


class MultiNodeConfig(BaseConfig):
    type: Literal["multi_node"] = "multi_node"
    gpus_per_node: int = 8
    num_train_nodes: int


DeploymentConfig = Annotated[SingleNodeConfig | MultiNodeConfig, Field(discriminator="type")]


# What is said at the top, and where it goes unless a component says it itself.
SHARED = {
    "model.name": ("trainer.model.name", "orchestrator.model.name", "inference.model.name"),
    "ckpt.output_dir": ("trainer.ckpt.output_dir",),
    **{
        f"ckpt.{name}": (f"trainer.ckpt.{name}", f"orchestrator.ckpt.{name}")
        for name in ("interval", "resume_step", "keep_last", "keep_interval")
    },
    "file_monitor.filename": ("trainer.file_monitor.filename", "orchestrator.file_monitor.filename"),
    "rollout_transport": ("trainer.rollout_transport", "orchestrator.rollout_transport"),
    "max_steps": ("trainer.max_steps", "orchestrator.max_steps"),
    "seq_len": ("trainer.model.seq_len", "orchestrator.seq_len"),
}


class RLConfig(BaseConfig):
    trainer: TrainerConfig
    orchestrator: OrchestratorConfig
    inference: InferenceConfig | None = None
    env_vars: EnvVars = Field(default_factory=dict)
    output_dir: Path = Path("outputs")
    clean_output_dir: bool = False
    ckpt: SharedCheckpointConfig | None = None
    wandb: Loose | None = None
    file_monitor: FileMonitorConfig | None = None
    model: Loose | None = None
    max_steps: int | None = None
    seq_len: int | None = None
    weight_broadcast: SharedBroadcastConfig | None = None
    rollout_transport: TransportConfig | None = None
    deployment: DeploymentConfig = SingleNodeConfig()
    slurm: SlurmConfig | None = None
    dry_run: bool = False

    @model_validator(mode="before")
    @classmethod
    def share(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        output_dir = data.get("output_dir")
        if output_dir is not None:
            fill(data, "trainer.output_dir", output_dir)
            fill(data, "orchestrator.output_dir", f"{output_dir}/run_default")
        for path, targets in SHARED.items():
            value = table(data, path)
            for target in targets if value is not None else ():
                fill(data, target, value)
        for name in ("ckpt", "wandb", "file_monitor"):
            if isinstance(data.get(name), dict):
                fill(data, f"trainer.{name}", {})
                fill(data, f"orchestrator.{name}", {})
        return data

    @model_validator(mode="after")
    def settle(self) -> Self:
        server = self.inference
        broadcast = self.weight_broadcast
        if broadcast is None:
            broadcast = FileBroadcastConfig() if server is None else SharedNCCLConfig()
        self.weight_broadcast = broadcast
        for component in (self.trainer, self.orchestrator):
            component.weight_broadcast = FileBroadcastConfig()
            if isinstance(broadcast, SharedNCCLConfig):
                # As in prime-rl, before the engines are settled: right once the config is read again.
                size = server.parallel.dp * server.parallel.tp if server else 1
                component.weight_broadcast = NCCLConfig(**broadcast.model_dump(), inference_world_size=size)
        self.rollout_transport = self.rollout_transport or self.trainer.rollout_transport
        if self.inference is not None:
            self.settle_server(self.inference)
            self.inference.weight_broadcast.type = broadcast.type
        return self

    def settle_server(self, server: InferenceConfig) -> None:
        gpus, parallel = getattr(self.deployment, "num_infer_gpus", 1), server.parallel
        if gpus != parallel.dp * parallel.tp:
            parallel.dp = gpus // parallel.tp
        server.api_server_count = max(server.api_server_count, parallel.dp)
        client = self.orchestrator.model.client
        if server.router is not None and "admin_base_url" not in client.model_fields_set:
            host = server.server.host or "localhost"
            client.admin_base_url = [f"http://{host}:{server.backend_port}/v1"]


def fill(data: dict[str, Any], path: str, value: Any) -> None:
    """Set a field that is not there, in a component that is."""
    *tables, name = path.split(".")
    if not isinstance(data.get(tables[0]), dict):
        return
    below: Any = data
    for part in tables:
        below = below.setdefault(part, {})
        if not isinstance(below, dict):
            return
    below.setdefault(name, value)
