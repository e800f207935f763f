"""Whether models and data sets can be had: in a folder, in the cache, or from the hub. Nothing is fetched.

The variables and the layout of the cache are huggingface_hub's:
https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables and
https://huggingface.co/docs/huggingface_hub/guides/manage-cache.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ENDPOINT = "https://huggingface.co"
SECONDS = 10.0
"""How long a server may take to answer."""

UNAUTHORIZED, FORBIDDEN, NOT_FOUND, TOO_MANY = 401, 403, 404, 429
FIRST_ERROR = 400

_TRUE = frozenset({"1", "ON", "YES", "TRUE"})


@dataclass(frozen=True)
class Hub:
    """Where files come from.

    Attributes:
        endpoint: The hub's address.
        cache: Folder of the repositories that were fetched.
        datasets: Folder of data sets that were prepared.
        token: What opens private repositories; empty for none.
        offline: The hub is not to be asked.
        data_offline: Nor is it for data sets.
    """

    endpoint: str
    cache: Path
    datasets: Path
    token: str
    offline: bool
    data_offline: bool


@dataclass(frozen=True)
class Found:
    """Whether something can be had.

    Attributes:
        there: It can.
        text: From where, or why not.
        hint: The way out.
    """

    there: bool
    text: str
    hint: str = ""


def hub_of(variables: Mapping[str, str]) -> Hub:
    """Read where files come from, in the environment that prime-rl will have."""
    home = hub_home(variables)
    cache = variables.get("HF_HUB_CACHE") or variables.get("HUGGINGFACE_HUB_CACHE")
    datasets = variables.get("HF_DATASETS_CACHE")
    offline = any(_is_on(variables, name) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return Hub(
        endpoint=(variables.get("HF_ENDPOINT") or ENDPOINT).rstrip("/"),
        cache=_expanded(cache) if cache else home / "hub",
        datasets=_expanded(datasets) if datasets else home / "datasets",
        token=_token(variables, home),
        offline=offline,
        data_offline=offline or _is_on(variables, "HF_DATASETS_OFFLINE"),
    )


def hub_home(variables: Mapping[str, str]) -> Path:
    """The folder that huggingface_hub keeps its own in."""
    cache = variables.get("XDG_CACHE_HOME") or "~/.cache"
    return _expanded(variables.get("HF_HOME") or f"{cache}/huggingface")


def _expanded(path: str) -> Path:
    with contextlib.suppress(RuntimeError):
        return Path(path).expanduser()
    return Path(path)


def _is_on(variables: Mapping[str, str], name: str) -> bool:
    return variables.get(name, "").upper() in _TRUE


def _token(variables: Mapping[str, str], home: Path) -> str:
    given = variables.get("HF_TOKEN") or variables.get("HUGGING_FACE_HUB_TOKEN")
    if given:
        return given.strip()
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return _expanded(variables.get("HF_TOKEN_PATH") or str(home / "token")).read_text("ascii").strip()
    return ""


def find_model(hub: Hub, name: str, *, weights: bool = True) -> Found:
    """Look for a model.

    Args:
        hub: Where files come from.
        name: Path or repository, as the config has it.
        weights: Its weights are needed too, and not the tokenizer alone.
    """
    if _is_folder(name):
        missing = _missing(_expanded(name), weights=weights)
        if missing:
            return Found(False, f"{name} is a folder without {missing}", "name the folder of a whole model")
        return Found(True, f"{name}: a folder")
    if _is_path(name):
        return _no_path(name)
    snapshot = _snapshot(hub.cache / f"models--{name.replace('/', '--')}")
    missing = "a copy" if snapshot is None else _missing(snapshot, weights=weights)
    if not missing:
        return Found(True, f"{name}: in the cache, {hub.cache}")
    if hub.offline:
        return _not_cached(name, hub.cache, missing)
    return _on_the_hub(hub, name, f"{name}/resolve/main/config.json", needed="config.json")


def find_data(hub: Hub, name: str) -> Found:
    """Look for a data set.

    Args:
        hub: Where files come from.
        name: Path or repository, as the config has it.
    """
    if _expanded(name).exists():
        return Found(True, f"{name}: a local path")
    if _is_path(name):
        return _no_path(name)
    prepared = hub.datasets / name.replace("/", "___")
    # `datasets` writes names of its own in lower case.
    for folder in (prepared, hub.datasets / prepared.name.lower()):
        if any(folder.glob("*/*/*/*.arrow")):
            return Found(True, f"{name}: prepared in {hub.datasets}")
    if _snapshot(hub.cache / f"datasets--{name.replace('/', '--')}") is not None:
        return Found(True, f"{name}: in the cache, {hub.cache}")
    if hub.data_offline:
        return _not_cached(name, hub.cache, "a copy", DATA)
    return _on_the_hub(hub, name, f"datasets/{name}/resolve/main/.gitattributes")


def local_path(name: str) -> Path | None:
    """The path that a name stands for; `None` for that of a repository."""
    return _expanded(name) if _is_path(name) else None


def _is_folder(name: str) -> bool:
    return _expanded(name).is_dir()


def _is_path(name: str) -> bool:
    return name.startswith(("/", ".", "~")) or name.count("/") > 1


def _no_path(name: str) -> Found:
    hint = "give the path as the nodes see it, on a file system that they share"
    return Found(False, f"{name} is not there on this node", hint)


DATA = "--repo-type dataset "
"""What `hf download` needs to be told of a data set."""


def _fetch_before(name: str, kind: str) -> str:
    return f"fetch it where the hub can be reached: `hf download {kind}{name}`, with the same HF_HOME"


def _not_cached(name: str, cache: Path, missing: str, kind: str = "") -> Found:
    return Found(
        False,
        f"{name}: the cache {cache} lacks {missing}, and offline mode is set",
        _fetch_before(name, kind),
    )


def _snapshot(repository: Path) -> Path | None:
    """The files of a repository's main branch in the cache; of any, where that is not known."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        commit = (repository / "refs" / "main").read_text("ascii").strip()
        if (repository / "snapshots" / commit).is_dir():
            return repository / "snapshots" / commit
    with contextlib.suppress(OSError):
        return next((path for path in (repository / "snapshots").iterdir() if path.is_dir()), None)
    return None


def _missing(folder: Path, *, weights: bool) -> str:
    """What a model's folder lacks; empty when it is whole."""
    if not weights:
        names = ("tokenizer*", "vocab*", "*.model", "tekken.json")
        return "" if any(any(folder.glob(name)) for name in names) else "a tokenizer"
    if not (folder / "config.json").exists():
        return "config.json"
    for index in folder.glob("*.index.json"):
        with contextlib.suppress(OSError, ValueError, AttributeError, KeyError):
            shards = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
            lacking = sorted(name for name in shards if not (folder / name).exists())
            return lacking[0] if lacking else ""
    return "" if any(any(folder.glob(name)) for name in ("*.safetensors", "*.bin")) else "weights"


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follow nothing: that there is somewhere to go on is the answer, and a token stays here."""

    def redirect_request(self, *_: object) -> None:
        """Do not."""


def head(address: str, token: str = "", seconds: float = SECONDS) -> tuple[int, Mapping[str, str]]:
    """Ask a server for an answer without a body.

    Args:
        address: What to ask for.
        token: What to show; empty for nothing.
        seconds: How long at most for each step.

    Returns:
        The answer's status and headers, by their names in small letters, whatever they say.

    Raises:
        OSError: There was none.
        ValueError: The address is none.
        HTTPException: It is none, or what answered speaks no HTTP.
    """
    request = urllib.request.Request(address, method="HEAD")  # noqa: S310 - the user's own endpoint
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    opener = urllib.request.build_opener(_Stay, urllib.request.HTTPSHandler(context=_certificates()))
    try:
        with opener.open(request, timeout=seconds) as answer:
            return answer.status, _lower(answer.headers.items())
    except urllib.error.HTTPError as error:
        return error.code, _lower(error.headers.items())


def _lower(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers}


def _certificates() -> ssl.SSLContext:
    """Trust whom the libraries of prime-rl's environment trust."""
    with contextlib.suppress(ImportError, OSError, AttributeError):
        return ssl.create_default_context(cafile=import_module("certifi").where())
    return ssl.create_default_context()


def _on_the_hub(hub: Hub, name: str, path: str, needed: str = "") -> Found:
    host = hub.endpoint.rpartition("//")[2]
    try:
        status, headers = head(f"{hub.endpoint}/{path}", hub.token)
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        return Found(
            False,
            f"{name}: not in the cache {hub.cache}, and {host} cannot be reached: {reason}",
            _fetch_before(name, "" if needed else DATA),
        )
    if status < FIRST_ERROR or status == TOO_MANY:
        return Found(True, f"{name}: {host} has it; it is fetched when the run starts")
    if status in (UNAUTHORIZED, FORBIDDEN):
        # So it answers for what does not exist, too, to whom it does not know.
        return Found(
            False,
            f"{name}: {host} has no such repository, or does not give it to "
            + ("this token" if hub.token else "a job without a token"),
            "see the name; for a private or gated one accept its terms, and pass HF_TOKEN with --auto-auth",
        )
    entry_missing = headers.get("x-error-code") == "EntryNotFound"
    if entry_missing and not needed:
        return Found(True, f"{name}: {host} has it; it is fetched when the run starts")
    what = f"{needed} of {name}" if entry_missing else name
    if status == NOT_FOUND:
        return Found(False, f"{what} is neither in the cache {hub.cache} nor on {host}", "see the name")
    return Found(False, f"{name}: {host} answers with status {status}", "try again, or fetch it before")
