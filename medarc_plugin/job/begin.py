"""Import prime-rl's launcher ahead of its start, and start it at a sign on standard input.

    PYTHON begin.py MODULE ARGUMENT...

Its imports take some fifteen seconds, in which a vLLM that shares the GPU can start already. The sign is a
line; the end of the input without one means that whoever was to give it is gone.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

GONE = 125
"""Exit code when the sign will not come."""


def main() -> int:
    """Become `python -m MODULE ARGUMENT...` once the sign has come."""
    # This folder's modules have names of their own, `config` or `slurm`, that nobody is to find by accident.
    sys.path[0] = str(Path.cwd())  # as `-m` has it
    module = importlib.import_module(sys.argv[1])
    if not sys.stdin.readline():
        return GONE
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.dup2(descriptor, 0)
    os.close(descriptor)
    sys.argv = [str(module.__file__), *sys.argv[2:]]
    code = module.main()
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    sys.exit(main())
