"""Stand-ins for tests: SLURM's commands, which refuse what they do not know, and plans."""

from standins.plans import make_plan, make_resolved
from standins.slurm import Slurm, install

__all__ = ["Slurm", "install", "make_plan", "make_resolved"]
