"""The real prime-rl that PRIME_RL_DIR names: where it is, and which release it is like."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from medarc_plugin.host.fields import MAIN, V0_8_0, Shape

EXAMPLES = Path(__file__).parents[2] / "examples" / "reverse_text"

CONFIGS = "packages/prime-rl-configs/src/prime_rl/configs"


@dataclass(frozen=True)
class Real:
    """A prime-rl with its interpreter.

    Attributes:
        checkout: Its folder.
        python: Its interpreter.
        shape: The shape of its schema.
    """

    checkout: Path
    python: Path
    shape: Shape


def find_real() -> Real | None:
    """Find the real prime-rl, if there is one."""
    directory = os.environ.get("PRIME_RL_DIR")
    if not directory:
        return None
    checkout = Path(directory)
    python = Path(os.environ.get("PRIME_RL_PYTHON") or checkout / ".venv/bin/python")
    return Real(checkout, python, shape_in(checkout))


def shape_in(checkout: Path) -> Shape:
    """Tell the shape of a checkout by what its source says of an SFT run's GPUs."""
    source = (checkout / CONFIGS / "sft.py").read_text()
    return V0_8_0 if re.search(r"^    num_gpus\s*:", source, re.MULTILINE) else MAIN


def example(name: str, shape: Shape) -> Path:
    """The example of an entry point that a shape takes."""
    special = EXAMPLES / f"{name}-{shape.name}.toml"
    return special if special.exists() else EXAMPLES / f"{name}.toml"
