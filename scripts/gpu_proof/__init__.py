"""The proof on GPUs: base model, SFT, RL and their evaluations through a real SLURM, in one command.

`scripts/prove --help` says how to start it; docs/evidence.md what came of it.
"""
