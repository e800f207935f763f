"""A stand-in for a prime-rl checkout: its command line, schema and guards, no training."""

from .checkout import STANDIN, make_checkout

__all__ = ["STANDIN", "make_checkout"]
