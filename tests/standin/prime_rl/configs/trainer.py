"""The trainer's config: the fields that a single-node launch reads or sets."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from prime_rl.configs.shared import (
    BaseModelConfig,
    EnvVars,
    FileSystemWeightBroadcastConfig,
    MonitorsConfig,
    ResumeConfig,
    TokenizerConfig,
    TrainerLogConfig,
    TransportConfig,
    WeightBroadcastConfig,
    ZMQTransportConfig,
)
from prime_rl.utils.config import BaseConfig
from pydantic import Field, model_validator


class LoRAConfig(BaseConfig):
    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, ge=0)
    dropout: float = Field(0.0, ge=0, le=1)


class ActivationCheckpointConfig(BaseConfig):
    mode: Literal["full", "selective"] = "full"
    freq: int = Field(1, ge=1)


class ActivationOffloadingConfig(BaseConfig):
    pin_memory: bool = True
    max_inflight_activations: int = Field(5, ge=1)


class CompileConfig(BaseConfig):
    fullgraph: bool = False


class DebugModelConfig(BaseConfig):
    num_layers: int | None = None
    random_init: bool = False


class ModelConfig(BaseModelConfig):
    seq_len: int = 2048
    attn: Literal["flash_attention_2", "flash_attention_3", "flash_attention_4", "auto"] = "auto"
    compile: CompileConfig | None = CompileConfig()
    ac: ActivationCheckpointConfig | None = ActivationCheckpointConfig()
    ac_offloading: ActivationOffloadingConfig | None = ActivationOffloadingConfig()
    fsdp_cpu_offload: bool = False
    optim_cpu_offload: bool = True
    reshard_after_forward: bool = True
    dp_replicate: int = 1
    ep: int | Literal["auto"] = "auto"
    cp: int = 1
    impl: Literal["hf", "custom", "auto"] = "auto"
    optimization_dtype: Literal["bfloat16", "float32"] = "float32"
    reduce_dtype: Literal["bfloat16", "float32"] = "float32"
    lora: LoRAConfig | None = None
    debug: DebugModelConfig = DebugModelConfig()

    @model_validator(mode="after")
    def offloading_checkpoints(self) -> Self:
        if self.ac_offloading is not None and self.ac is None:
            self.ac = ActivationCheckpointConfig()
        return self

    @model_validator(mode="after")
    def one_offload(self) -> Self:
        if self.fsdp_cpu_offload and self.optim_cpu_offload:
            raise ValueError("Cannot combine fsdp_cpu_offload with optimizer CPU offloading.")
        return self


class Optimizer(BaseConfig):
    lr: float = Field(1e-6, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    max_norm: float | None = Field(1.0, ge=0)


class SGDConfig(Optimizer):
    type: Literal["sgd"] = "sgd"
    nesterov: bool = True
    momentum: float = 0.9


class AdamWConfig(Optimizer):
    type: Literal["adamw"] = "adamw"
    betas1: float = Field(0.9, ge=0)
    betas2: float = Field(0.999, ge=0)


class MuonConfig(Optimizer):
    type: Literal["muon"] = "muon"
    mu: float = Field(0.95, ge=0)
    betas1: float = Field(0.9, ge=0)
    betas2: float = Field(0.95, ge=0)


class SignSGDConfig(Optimizer):
    type: Literal["sign_sgd"] = "sign_sgd"


OptimizerConfig = Annotated[SGDConfig | AdamWConfig | MuonConfig | SignSGDConfig, Field(discriminator="type")]


class ConstantSchedulerConfig(BaseConfig):
    type: Literal["constant"] = "constant"


class LinearSchedulerConfig(BaseConfig):
    type: Literal["linear"] = "linear"
    warmup_steps: int = Field(10, ge=0)
    decay_steps: int = Field(10, ge=0)
    min_lr: float = Field(0.0, ge=0)


class CosineSchedulerConfig(BaseConfig):
    type: Literal["cosine"] = "cosine"
    warmup_steps: int = Field(10, ge=0)
    min_lr: float = Field(0.0, ge=0)


SchedulerConfig = Annotated[
    ConstantSchedulerConfig | LinearSchedulerConfig | CosineSchedulerConfig,
    Field(discriminator="type"),
]


class CheckpointConfig(BaseConfig):
    output_dir: Path | None = None
    interval: int | None = Field(None, ge=1)
    keep_last: int | None = Field(None, ge=1)
    keep_interval: int | None = Field(None, ge=1)


class FakeDataLoaderConfig(BaseConfig):
    batch_size: int = Field(2, ge=1)


class DataLoaderConfig(BaseConfig):
    fake: FakeDataLoaderConfig | None = None


class MetricsServerConfig(BaseConfig):
    port: int = Field(8000, ge=1, le=65535)
    host: str = "0.0.0.0"


class TrainerConfig(BaseConfig):
    model: ModelConfig = ModelConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    data: DataLoaderConfig = DataLoaderConfig()
    optim: OptimizerConfig = AdamWConfig()
    scheduler: SchedulerConfig = ConstantSchedulerConfig()
    ckpt: CheckpointConfig | None = None
    resume: ResumeConfig | None = None
    weight_broadcast: WeightBroadcastConfig = FileSystemWeightBroadcastConfig()
    rollout_transport: TransportConfig = ZMQTransportConfig()
    log: TrainerLogConfig = TrainerLogConfig()
    monitors: MonitorsConfig = MonitorsConfig()
    output_dir: Path = Path("outputs")
    metrics_server: MetricsServerConfig | None = None
    max_steps: int | None = None
    dist_timeout_seconds: int = 3600
    env_vars: EnvVars = Field(default_factory=dict)

    @model_validator(mode="after")
    def lora_over_files(self) -> Self:
        if self.model.lora is not None and self.weight_broadcast.type != "filesystem":
            raise ValueError("In-memory weight broadcast does not support LoRA yet.")
        return self

    @model_validator(mode="after")
    def tokenizer_of_the_model(self) -> Self:
        inherit_tokenizer(self)
        return self


def inherit_tokenizer(config: Any) -> None:
    """A tokenizer that names nothing is the model's."""
    if config.tokenizer.name is None:
        config.tokenizer.name = config.model.name
    if config.tokenizer.trust_remote_code is None:
        config.tokenizer.trust_remote_code = config.model.trust_remote_code
