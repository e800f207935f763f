"""The inference server's config, as far as a launch touches it."""

from pathlib import Path
from typing import Any, Literal, Self

from prime_rl.configs.shared import EnvVars, SlurmConfig
from prime_rl.utils.config import BaseConfig
from pydantic import Field, model_validator


class ServerConfig(BaseConfig):
    host: str | None = None
    port: int = 8000
    liveness_timeout_seconds: float = Field(30.0, gt=0)


class ParallelConfig(BaseConfig):
    tp: int = 1
    dp: int = Field(1, ge=1)


class ModelConfig(BaseConfig):
    name: str = "Qwen/Qwen3-0.6B"
    dtype: Literal["auto", "float16", "bfloat16", "float32"] = "auto"
    max_model_len: int | None = None
    enforce_eager: bool = False


class RouterConfig(BaseConfig):
    type: Literal["vllm-router"] = "vllm-router"
    policy: str = "consistent_hash"


class WeightBroadcastConfig(BaseConfig):
    type: Literal["nccl", "filesystem", "nixl"] = "filesystem"


class DeploymentConfig(BaseConfig):
    type: Literal["single_node"] = "single_node"
    gpus_per_node: int = 8


class InferenceConfig(BaseConfig):
    server: ServerConfig = ServerConfig()
    router: RouterConfig | None = Field(default_factory=RouterConfig)
    backend_port: int = 8100
    model: ModelConfig = Field(default_factory=ModelConfig)
    parallel: ParallelConfig = ParallelConfig()
    env_vars: EnvVars = Field(default_factory=dict)
    gpu_memory_utilization: float = 0.9
    api_server_count: int = Field(1, ge=0)
    data_parallel_rpc_port: int = Field(13345, ge=1, le=65535)
    weight_broadcast: WeightBroadcastConfig = WeightBroadcastConfig()
    vllm_extra: dict[str, Any] = Field(default_factory=dict)
    deployment: DeploymentConfig = DeploymentConfig()
    slurm: SlurmConfig | None = None
    output_dir: Path = Path("outputs")
    dry_run: bool = False

    @model_validator(mode="after")
    def settle(self) -> Self:
        if self.router is not None and "backend_port" not in self.model_fields_set:
            self.backend_port = self.server.port + 100
        if "api_server_count" not in self.model_fields_set:
            self.api_server_count = max(self.api_server_count, self.parallel.dp)
        return self
