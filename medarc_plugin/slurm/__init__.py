"""The gateway to SLURM: its commands as argument lists, its answers as records."""
