"""The inference server's config: vLLM's arguments pass through, the launcher's are typed."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from prime_rl.configs.shared import EnvVars, LogConfig, SlurmConfig
from prime_rl.utils.config import BaseConfig
from pydantic import ConfigDict, Field, model_validator

LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


class ServerConfig(BaseConfig):
    host: str | None = None
    port: int = 8000
    liveness_timeout_seconds: float = Field(30.0, gt=0)


class VllmConfig(BaseConfig):
    model_config = ConfigDict(extra="allow")

    model: str = "Qwen/Qwen3-0.6B"
    dtype: Literal["auto", "float16", "bfloat16", "float32"] = "auto"
    max_model_len: int | None = None
    enforce_eager: bool = False
    trust_remote_code: bool = False
    chat_template: str | None = None
    tensor_parallel_size: int = 1
    data_parallel_size: int = Field(1, ge=1)
    data_parallel_size_local: int | None = Field(None, ge=1)
    data_parallel_rpc_port: int = Field(13345, ge=1, le=65535)
    api_server_count: int = Field(1, ge=0)
    seed: int = 0
    gpu_memory_utilization: float = 0.9
    enable_prefix_caching: bool | None = None
    quantization: str | None = None
    enable_lora: bool = False
    max_lora_rank: int | None = None
    enable_expert_parallel: bool = False

    @model_validator(mode="before")
    @classmethod
    def parse_passed_through(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        for key in [key for key in data if key not in cls.model_fields]:
            data[key.replace("-", "_")] = parsed(data.pop(key))
        return data

    @model_validator(mode="after")
    def next_lora_rank(self) -> Self:
        if self.max_lora_rank is not None:
            ranks = [rank for rank in LORA_RANKS if rank >= self.max_lora_rank]
            if not ranks:
                raise ValueError(
                    f"max_lora_rank={self.max_lora_rank} exceeds vLLM maximum of {LORA_RANKS[-1]}"
                )
            self.max_lora_rank = ranks[0]
        return self

    @model_validator(mode="after")
    def a_server_for_each_replica(self) -> Self:
        if "api_server_count" not in self.model_fields_set:
            wanted = self.data_parallel_size_local or self.data_parallel_size
            self.api_server_count = max(self.api_server_count, wanted)
        if self.enable_lora:
            self.api_server_count = 1
        return self


def parsed(value: Any) -> Any:
    """A value from the command line as the JSON that it may be."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError:
        return value


class VllmRouterConfig(BaseConfig):
    type: Literal["vllm-router"] = "vllm-router"
    policy: str = "consistent_hash"


class InferenceWeightBroadcastConfig(BaseConfig):
    type: Literal["nccl", "filesystem", "nixl"] = "filesystem"


class SingleNodeInferenceDeploymentConfig(BaseConfig):
    type: Literal["single_node"] = "single_node"
    gpus_per_node: int = 8


class MultiNodeInferenceDeploymentConfig(BaseConfig):
    type: Literal["multi_node"] = "multi_node"
    gpus_per_node: int = 8
    num_nodes: int = Field(2, ge=1)


InferenceDeploymentConfig = Annotated[
    SingleNodeInferenceDeploymentConfig | MultiNodeInferenceDeploymentConfig,
    Field(discriminator="type"),
]


class InferenceConfig(BaseConfig):
    server: ServerConfig = ServerConfig()
    router: VllmRouterConfig | None = Field(default_factory=VllmRouterConfig)
    backend_port: int = 8100
    vllm: VllmConfig = Field(default_factory=VllmConfig)
    log: LogConfig = LogConfig()
    env_vars: EnvVars = Field(default_factory=dict)
    weight_broadcast: InferenceWeightBroadcastConfig = InferenceWeightBroadcastConfig()
    deployment: InferenceDeploymentConfig = SingleNodeInferenceDeploymentConfig()
    slurm: SlurmConfig | None = None
    output_dir: Path = Path("outputs")
    dry_run: bool = False

    @model_validator(mode="after")
    def nodes_need_slurm(self) -> Self:
        if self.deployment.type != "single_node" and self.slurm is None:
            raise ValueError("Must use SLURM for multi-node / disaggregated deployment.")
        return self

    @model_validator(mode="after")
    def engine_behind_router(self) -> Self:
        if self.router is not None and "backend_port" not in self.model_fields_set:
            self.backend_port = self.server.port + 100
        return self


def fill_replicas(vllm: VllmConfig, gpus: int) -> None:
    """Spread the inference GPUs over data-parallel replicas, one API server each."""
    if gpus != vllm.data_parallel_size * vllm.tensor_parallel_size:
        vllm.data_parallel_size = gpus // vllm.tensor_parallel_size
    if vllm.api_server_count < vllm.data_parallel_size and not vllm.enable_lora:
        vllm.api_server_count = vllm.data_parallel_size
