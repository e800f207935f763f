"""`rl`: guard, configs, GPUs, run."""

import subprocess
import sys
import time
from urllib.error import URLError
from urllib.parse import urlparse
from urllib.request import urlopen

from prime_rl.configs.rl import RLConfig
from prime_rl.standin import Signals, claim_gpus, find_commands, prepare, say, train, write_configs
from prime_rl.utils.config import cli


def rl(config: RLConfig) -> None:
    prepare(config)
    write_configs(config, ("trainer", "orchestrator", "inference"))
    if config.dry_run:
        say("Dry run complete.")
        return
    inference = config.inference
    gpus = claim_gpus(
        config.deployment.num_train_gpus + (config.deployment.num_infer_gpus if inference else 0)
    )
    if inference is not None:
        client_port = urlparse(address_of(config)).port
        if client_port != inference.server.port:
            raise ValueError(
                f"orchestrator.model.client.base_url port ({client_port}) does not match "
                f"inference.server.port ({inference.server.port}). Update the base_url to use port "
                f"{inference.server.port} to match the inference server."
            )
    started = ("inference",) if inference is not None else ()
    commands = find_commands((*started, "env-server", "orchestrator", "torchrun"))
    Signals()
    trainer = subprocess.Popen([commands["torchrun"], "--role=trainer", "-m", "prime_rl.trainer.rl.train"])
    broadcast = config.weight_broadcast
    if inference is None and (broadcast is None or broadcast.type == "filesystem"):
        find_server(address_of(config))
    if trainer.wait() != 0:
        say(f"torchrun ended with exit code {trainer.returncode}")
        sys.exit(1)
    train(config, gpus, commands)


def address_of(config: RLConfig) -> str:
    """The server's address, of which some releases take several."""
    address = config.orchestrator.model.client.base_url
    return address if isinstance(address, str) else address[0]


def find_server(base_url: str) -> None:
    """Wait for the server that somebody else started, as prime-rl's orchestrator does."""
    address = urlparse(base_url)
    while True:
        say(f"asking the server at {base_url}")
        try:
            with urlopen(f"http://{address.hostname}:{address.port}/health", timeout=10) as answer:
                say(f"the server at {base_url} is healthy: {answer.status}")
                return
        except URLError:  # it refuses, or is not ready
            time.sleep(0.1)


def main() -> None:
    rl(cli(RLConfig))


if __name__ == "__main__":
    main()
