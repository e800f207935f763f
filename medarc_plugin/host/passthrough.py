"""prime-rl's own commands, as prime-rl's own scripts would run them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medarc_plugin.host.resolve import environment_for
from medarc_plugin.host.spelling import respelled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medarc_plugin.models import Host


def command(host: Host, entrypoint: str, argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the argument list and environment of one of prime-rl's commands.

    Arguments go on as typed, with one courtesy: `inference --model.name X` and `inference --vllm.model X`
    are spelled as this prime-rl does.
    """
    arguments = respelled(host, argv) if entrypoint == "inference" else list(argv)
    environment = environment_for(host)
    # prime-rl's launcher starts `inference` by name; with both packages in one environment that
    # script may be ours, and must not be sent to a backend once more.
    environment.pop("MEDARC_BACKEND", None)
    return [str(host.python), "-m", f"prime_rl.entrypoints.{entrypoint}", *arguments], environment
