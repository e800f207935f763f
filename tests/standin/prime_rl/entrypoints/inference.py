"""`inference`: parses its config, and serves nothing but its health."""

import sys

from prime_rl.configs.inference import InferenceConfig
from prime_rl.standin import refuse_unknown_switches, report, say, serve
from prime_rl.utils.config import cli


def inference(config: InferenceConfig) -> None:
    refuse_unknown_switches()
    if config.slurm is not None:
        sys.exit("stand-in: prime-rl's own [slurm] backend is not played")
    if config.dry_run:
        say("Dry run complete.")
        return
    report([], {})
    serve(config)


def main() -> None:
    inference(cli(InferenceConfig))


if __name__ == "__main__":
    main()
