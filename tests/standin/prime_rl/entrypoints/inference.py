"""`inference`: parses its config, and serves nothing but its health."""

import json

from prime_rl import release
from prime_rl.configs.inference import InferenceConfig
from prime_rl.standin import refuse_slurm, refuse_unknown_switches, report, say, serve
from prime_rl.utils.config import cli, dump_resolved_config
from prime_rl.utils.pathing import get_config_dir


def inference(config: InferenceConfig) -> None:
    refuse_unknown_switches()
    refuse_slurm(config)
    if config.slurm is not None:
        folder = get_config_dir(config.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(dump_resolved_config(config), indent=2)
        (folder / f"inference{release.CONFIG_SUFFIX}").write_text(text)
    if config.dry_run:
        say("Dry run complete.")
        return
    report([], {})
    serve(config)


def main() -> None:
    inference(cli(InferenceConfig))


if __name__ == "__main__":
    main()
