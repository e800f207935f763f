"""What a config needs from elsewhere: models and data sets, and Weights & Biases. Nobody is asked here.

A rehearsal looks on the node, and the checks before a submission look on the submitting machine.
"""

from __future__ import annotations

import configparser
import contextlib
import netrc
import os
import urllib.parse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WANDB_OFF = frozenset({"offline", "disabled", "dryrun"})
WANDB_ADDRESS = "https://api.wandb.ai"


def files(config: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, list[str]]:
    """Name the models and data sets that the run reads.

    Args:
        config: The resolved config.
        fields: What `host.fields.rehearsal` says of it.

    Returns:
        `models`, `tokenizers` of others, `data` of the trainer and `environment_data`; nothing where there
        are none.
    """
    models = names(config, fields.get("models", ()))
    tokenizers = names(config, fields.get("tokenizers", ()))
    found = {
        "models": models,
        "tokenizers": [name for name in tokenizers if name not in models],
        "data": _data(config, fields),
        "environment_data": names(config, fields.get("environment_data", ())),
    }
    return found if any(found.values()) else {}


def _data(config: Mapping[str, Any], fields: Mapping[str, Any]) -> list[str]:
    """Names of the data sets that the trainer reads."""
    found = []
    for name, kind in fields.get("data", ()):
        if values(config, kind) in ([], [fields.get("data_kind")]):
            found += names(config, [name])
    return list(dict.fromkeys(found))


def names(config: Mapping[str, Any], paths: Sequence[str]) -> list[str]:
    """List the texts that a config has at some paths, each once."""
    found = [value for path in paths for value in values(config, path)]
    return list(dict.fromkeys(value for value in found if isinstance(value, str) and value))


def values(document: Any, path: str) -> list[Any]:  # noqa: ANN401 - a JSON value
    """List what a config has at a dotted path.

    Args:
        document: The config.
        path: The path, where `[*]` is every element of a list.
    """
    found = [document]
    for part in path.replace("[*]", ".*").split("."):
        below: list[Any] = []
        for value in found:
            if part == "*" and isinstance(value, list):
                below += value
            elif isinstance(value, dict) and value.get(part) is not None:
                below.append(value[part])
        found = below
    return [value for value in found if value != "None"]


def without_wandb(config: Mapping[str, Any], fields: Mapping[str, Any], variables: Mapping[str, str]) -> str:
    """Say why Weights & Biases is not used; empty when it is.

    Args:
        config: The resolved config.
        fields: What `host.fields.rehearsal` says of it.
        variables: prime-rl's environment.
    """
    tables = [table for path in fields.get("wandb", ()) for table in values(config, path)]
    tables = [table for table in tables if isinstance(table, dict)]
    if not tables:
        return "the config does not use it"
    mode = variables.get("WANDB_MODE", "").lower()
    if mode in WANDB_OFF:
        return f"WANDB_MODE={mode}"
    # https://docs.wandb.ai/guides/track/environment-variables
    if variables.get("WANDB_DISABLED", "").lower() in ("1", "true"):
        return "WANDB_DISABLED is set"
    if not mode and all(table.get(fields.get("wandb_offline")) is True for table in tables):
        return "the config keeps it offline"
    return ""


def wandb_address(variables: Mapping[str, str]) -> str:
    """The server that the run would log to."""
    return (variables.get("WANDB_BASE_URL") or WANDB_ADDRESS).rstrip("/")


def has_wandb_key(variables: Mapping[str, str]) -> bool:
    """Whether there is a key for that server, in a variable or where `wandb login` keeps it."""
    anonymous = variables.get("WANDB_ANONYMOUS", "").lower() in ("allow", "must")
    if variables.get("WANDB_API_KEY") or anonymous:
        return True
    address = wandb_address(variables)
    host = urllib.parse.urlsplit(address).hostname or address
    named = variables.get("NETRC")
    for path in [named] if named else ["~/.netrc", "~/_netrc"]:
        with contextlib.suppress(OSError, netrc.NetrcParseError, UnicodeDecodeError):
            if netrc.netrc(os.path.expanduser(path)).authenticators(host):  # noqa: PTH111
                return True
    return False


def wandb_settings(folder: str | os.PathLike[str], variables: Mapping[str, str]) -> dict[str, str]:
    """Read what `wandb offline` and `wandb login --host` keep in files, as the variables that say the same.

    Args:
        folder: Where the run is started.
        variables: prime-rl's environment; what it says wins over the files.

    Returns:
        `WANDB_MODE` and `WANDB_BASE_URL`, those that are kept.
    """
    home = variables.get("WANDB_CONFIG_DIR") or os.path.expanduser("~/.config/wandb")  # noqa: PTH111
    local = variables.get("WANDB_DIR") or str(folder)
    parser = configparser.ConfigParser(interpolation=None)
    with contextlib.suppress(configparser.Error, UnicodeDecodeError):
        parser.read([f"{home}/settings", f"{local}/wandb/settings"])
    kept = parser["default"] if parser.has_section("default") else {}
    known = (("mode", "WANDB_MODE"), ("base_url", "WANDB_BASE_URL"), ("disabled", "WANDB_DISABLED"))
    return {name: kept[key] for key, name in known if kept.get(key) and name not in variables}
