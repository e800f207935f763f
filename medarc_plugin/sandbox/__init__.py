"""A real SLURM in a folder, for trying a job out and for tests.

It is built from the distribution's own packages, needs no root, listens on loopback where SLURM
allows that, and leaves nothing behind.
"""

from medarc_plugin.sandbox.service import Sandbox, default_directory
from medarc_plugin.sandbox.spec import DaemonStatus, NodeStatus, SandboxSpec, SandboxStatus

__all__ = [
    "DaemonStatus",
    "NodeStatus",
    "Sandbox",
    "SandboxSpec",
    "SandboxStatus",
    "default_directory",
]
