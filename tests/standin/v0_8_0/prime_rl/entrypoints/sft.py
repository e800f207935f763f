"""`sft`: guard, configs, GPUs, run."""

from prime_rl.configs.sft import SFTConfig
from prime_rl.standin import find_commands, prepare, say, train, visible_gpus, write_configs
from prime_rl.utils.config import cli


def sft(config: SFTConfig) -> None:
    prepare(config)
    write_configs(config, (), own="sft")
    if config.dry_run:
        say("Dry run complete.")
        return
    train(config, visible_gpus(), find_commands(("torchrun",)))


def main() -> None:
    sft(cli(SFTConfig))


if __name__ == "__main__":
    main()
