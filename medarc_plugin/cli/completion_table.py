"""The commands and options as shell completion needs them: looked up once, then read from a file.

Looking them up imports typer and every option, which takes a third of a second; reading takes a millisecond.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FORMAT = 1
MOST_BYTES = 4 * 2**20

KINDS = {
    "--partition": "partition",
    "--account": "account",
    "--qos": "qos",
    "--gpu-type": "gpu_type",
    "--profile": "profile",
    "--backend": "=slurm,local",
    "--component": "=trainer,orchestrator,inference,evals,env,job",
    "--metric": "metric",
}
"""What a value is, by the name of its option."""

TAKEN_UP = frozenset({"resume", "rerun"})
"""Commands that take a run, and then what a launch takes."""

METAVARS = {"DIR": "dir", "FILE": "file", "CONFIG": "config", "RUN": "run", "PATH": "file", "FOLDER": "dir"}
"""The same, by what stands for it in the help."""


def table() -> dict[str, Any]:
    """Return the commands by their words, `sandbox up`; the empty one is the program itself.

    Each has `commands`, the words that may follow with their help; `options`, with `names`, `further` names,
    `help`, `value` (the kind of its value; nothing for a switch) and `attached` (that of a value that may
    follow behind `=`); `arguments`, with `value` and whether it may be repeated, `many`; and whether it is a
    `launch`.
    """
    key = _key()
    kept = _read(path(), key)
    if kept is not None:
        return kept
    commands = dict(look_up())
    _write(path(), {"key": key, "commands": commands})
    return commands


def _key() -> str:
    """Changes when the commands may have."""
    package = Path(__file__).parents[1]
    files = sorted([*package.glob("cli/*.py"), package / "options.py", package / "__init__.py"])
    state = [(str(file), *_state(file)) for file in files]
    return hashlib.sha256(json.dumps([FORMAT, state]).encode()).hexdigest()


def _state(file: Path) -> tuple[int, int]:
    about = file.stat()
    return about.st_mtime_ns, about.st_size


def path() -> Path:
    """Where it is kept: a file for each place that this package is installed in."""
    name = hashlib.sha256(__file__.encode()).hexdigest()[:12]
    place = os.environ.get("MEDARC_CACHE_DIR")
    if place:
        return Path(os.path.expanduser(place), f"completion-{os.geteuid()}", f"{name}.json")  # noqa: PTH111
    home = os.environ.get("XDG_CACHE_HOME") or ""
    cache = Path(home) if home.startswith("/") else Path(os.path.expanduser("~"), ".cache")  # noqa: PTH111
    return cache / "medarc" / "completion" / f"{name}.json"


def _read(file: Path, key: str) -> dict[str, Any] | None:
    """Read what was kept, if it is this user's and of this key."""
    try:
        about = file.stat()
        if about.st_uid != os.geteuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return None
        if about.st_size > MOST_BYTES:
            return None
        kept = json.loads(file.read_bytes())
        commands: dict[str, Any] = kept["commands"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return commands if kept.get("key") == key else None


def _write(file: Path, document: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".new-", dir=file.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as draft:
            json.dump(document, draft)
        Path(name).replace(file)


def look_up() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the commands: those of typer, and the launches, which are parsed by themselves."""
    import typer

    from medarc_plugin.cli.app import app
    from medarc_plugin.models import ENTRYPOINTS

    for words, command in _walk(typer.main.get_command(app), ()):
        if words == ("options",):
            launch, own = _launch(), _typed(command)["options"]
            names = {name for one in launch["options"] for name in one["names"]}
            further = [one for one in own if not names.intersection(one["names"])]
            yield "options", {**launch, "options": [*further, *launch["options"]]}
        elif words[-1:] and words[-1] in ENTRYPOINTS:
            yield words[-1], _launch()
        elif words[-1:] and words[-1] in TAKEN_UP:
            yield words[-1], {**_launch(), "arguments": [{"value": "run", "many": False}], "launch": False}
        else:
            yield " ".join(words), _typed(command)


def _walk(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:  # noqa: ANN401 - typer's
    yield words, command
    for name, below in getattr(command, "commands", {}).items():
        if not below.hidden:
            yield from _walk(below, (*words, name))


def _typed(command: Any) -> dict[str, Any]:  # noqa: ANN401 - of typer, whose own classes differ by version
    options, arguments = [], []
    for parameter in command.params:
        if getattr(parameter, "hidden", False):
            continue
        if parameter.param_type_name == "argument":
            many = parameter.nargs == -1
            arguments.append({"value": _kind("", parameter), "many": many})
        else:
            options.append(_typed_option(parameter))
    options.append(_option(["--help"], "Show this and exit."))
    below = {
        name: _first_line(one.help)
        for name, one in getattr(command, "commands", {}).items()
        if not one.hidden
    }
    return {"commands": below, "options": options, "arguments": arguments, "launch": False}


def _typed_option(parameter: Any) -> dict[str, Any]:  # noqa: ANN401 - typer's
    names = [*parameter.opts, *parameter.secondary_opts]
    long = next((name for name in names if name.startswith("--")), names[0])
    value = "" if parameter.is_flag else _kind(long, parameter) or "any"
    return _option(sorted(names, key=len), _first_line(parameter.help), value)


def _kind(name: str, parameter: Any) -> str:  # noqa: ANN401 - typer's
    """Say what a parameter's value is, by its name and by what stands for it in the help."""
    if name in KINDS:
        return KINDS[name]
    metavar = (parameter.metavar or "").strip("[].")
    if metavar in METAVARS:
        return METAVARS[metavar]
    words = [word for word in metavar.strip("{}").replace("|", ",").split(",") if word]
    if len(words) > 1 and all(word.islower() for word in words):
        return "=" + ",".join(words)
    choices = getattr(getattr(parameter, "type", None), "choices", None)
    return "=" + ",".join(map(str, choices)) if choices else ""


def _option(
    names: list[str], words: str, value: str = "", *, further: list[str] | None = None, attached: str = ""
) -> dict[str, Any]:
    return {"names": names, "help": words, "value": value, "further": further or [], "attached": attached}


def _launch() -> dict[str, Any]:
    from medarc_plugin.cli.arguments import PRIME_RL_FLAGS, SWITCHES, VALUE_FLAGS

    options = [
        _option([name], _first_line(words), _launch_kind(name, metavar))
        for name, (metavar, words) in VALUE_FLAGS.items()
    ]
    options += [
        _option([name], _first_line(words), attached="dir" if name == "--sandbox" else "")
        for name, words in {**SWITCHES, **PRIME_RL_FLAGS}.items()
    ]
    return {"commands": {}, "options": [*options, *_knobs()], "arguments": [], "launch": True}


def _launch_kind(name: str, metavar: str) -> str:
    return KINDS.get(name) or METAVARS.get(metavar) or "any"


def _knobs() -> Iterator[dict[str, Any]]:
    """The options of a job."""
    from medarc_plugin.options import SlurmOptions, choices, flag, knobs

    for name, knob in knobs().items():
        info = SlurmOptions.model_fields[name]
        long = flag(name)
        words = _first_line(info.description)
        further = [f"--slurm.{long[2:]}"]
        if knob.metavar is None:
            # Of a switch that is on, people type the other form.
            names = [long] if info.default is not True else [long, f"--no-{long[2:]}"]
            yield _option(names, words, further=further)
            continue
        listed = choices(name)
        value = "=" + ",".join(listed) if listed else _launch_kind(long, knob.metavar)
        yield _option([*knob.flags, long], words, value, further=further)


def _first_line(text: str | None) -> str:
    """The first sentence of a help."""
    words = " ".join((text or "").split("\n\n")[0].split())
    return re.split(r"(?<=[^.])\. (?=[A-Z])", words)[0].rstrip(".")
