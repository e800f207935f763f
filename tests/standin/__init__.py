"""A stand-in for a prime-rl checkout: its command line, schema and guards, no training."""

from .checkout import STANDIN, install_gpu_packages, make_checkout

__all__ = ["STANDIN", "install_gpu_packages", "make_checkout"]
