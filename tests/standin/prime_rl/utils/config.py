"""What prime-rl's entry points share about configs, by the same names."""

from typing import Any

from pydantic import BaseModel
from pydantic_config import BaseConfig, cli

__all__ = ["BaseConfig", "cli", "dump_resolved_config"]


def dump_resolved_config(config: BaseModel, exclude: set[str] | None = None) -> dict[str, Any]:
    return config.model_dump(exclude=exclude, mode="json")
