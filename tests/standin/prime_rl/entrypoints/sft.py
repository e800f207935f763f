"""`sft`: guard, configs, GPUs, run."""

from prime_rl.configs.sft import SFTConfig
from prime_rl.standin import (
    claim_gpus,
    find_commands,
    prepare,
    say,
    train,
    visible_gpus,
    write_configs,
)
from prime_rl.utils.config import cli


def sft(config: SFTConfig) -> None:
    broadcast = config.weight_broadcast
    if broadcast is not None and broadcast.type == "nccl" and config.inference is None:
        raise ValueError(
            "NCCL weight broadcast requires launcher-managed inference. Add an [inference] block "
            "or set weight_broadcast.type = 'filesystem'."
        )
    prepare(config)
    write_configs(config, ("inference",), own="sft")
    if config.dry_run:
        say("Dry run complete.")
        return
    if config.inference is None:
        gpus = visible_gpus()
        commands = find_commands(("torchrun",))
    else:
        gpus = claim_gpus(config.deployment.num_train_gpus + config.deployment.num_infer_gpus)
        commands = find_commands(("inference", "env-server", "evals", "torchrun"))
    train(config, gpus, commands)


def main() -> None:
    sft(cli(SFTConfig))


if __name__ == "__main__":
    main()
