"""A SLURM backend for prime-rl's own commands, on nodes shared with others."""

import pluggy

__version__ = "0.1.0"

hookimpl = pluggy.HookimplMarker("medarc")
"""Marks a function as an implementation of one of the hooks in `medarc_plugin.hookspecs`."""
