"""Start the proof on GPUs; `gpu_proof` is what it does."""

import sys

from gpu_proof.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
