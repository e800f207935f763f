"""Where option values come from, and which wins.

Command line > the run's `[slurm]` table > profiles (`profile_files`: of the project, the user, the site) >
SLURM's own `SBATCH_*` variables > built-in. A layer is a named mapping; the one that comes first wins, value
by value.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from medarc_plugin.errors import OptionError, UsageError
from medarc_plugin.options import SlurmOptions, flag, is_switch, knobs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from pydantic_core import ErrorDetails

COMMAND_LINE = "command line"
TABLE = "[slurm]"
BUILT_IN = "built-in"

EXCLUSIVE = (frozenset({"mem", "mem_per_gpu"}),)
"""Options of which only one can hold: one from a higher layer drops its rivals in lower ones."""

SBATCH_VARIABLES = {
    "SBATCH_ACCTG_FREQ": "acctg-freq",
    "SBATCH_CLUSTERS": "clusters",
    "SLURM_CLUSTERS": "clusters",
    "SBATCH_CONTAINER": "container",
    "SBATCH_CORE_SPEC": "core-spec",
    "SBATCH_DELAY_BOOT": "delay-boot",
    "SBATCH_DISTRIBUTION": "distribution",
    "SBATCH_GPU_BIND": "gpu-bind",
    "SBATCH_GPU_FREQ": "gpu-freq",
    "SBATCH_GRES_FLAGS": "gres-flags",
    "SBATCH_HINT": "hint",
    "SLURM_HINT": "hint",
    "SBATCH_MEM_BIND": "mem-bind",
    "SBATCH_NETWORK": "network",
    "SBATCH_POWER": "power",
    "SBATCH_PROFILE": "profile",
    "SBATCH_REQ_SWITCH": "switches",
    "SBATCH_THREAD_SPEC": "thread-spec",
    "SBATCH_THREADS_PER_CORE": "threads-per-core",
    "SBATCH_WCKEY": "wckey",
}
"""Input variables of sbatch(1) that have no field of their own; taken as `--sbatch-arg`."""

NO_REQUEUE = "SBATCH_NO_REQUEUE"
"""Turns a switch off that `SBATCH_REQUEUE` turns on."""

SBATCH_SWITCHES = {
    "SBATCH_OVERCOMMIT": "overcommit",
}
"""The same for those that are switches: any value turns them on."""


@dataclass(frozen=True)
class Layer:
    """Values from one place.

    Attributes:
        source: The place, as it is shown to a user.
        values: Raw values by field name of `SlurmOptions`.
        sources: For single fields a more exact place, `SBATCH_PARTITION`.
    """

    source: str
    values: Mapping[str, Any]
    sources: Mapping[str, str] | None = None

    def source_of(self, name: str) -> str:
        """Say where a field's value came from."""
        return (self.sources or {}).get(name, self.source)


@dataclass(frozen=True)
class Replaced:
    """A list of values in place of which another one holds: lists are not added to each other.

    Attributes:
        name: The field of `SlurmOptions`.
        values: What does not hold.
        source: Where it stands.
    """

    name: str
    values: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class Settled:
    """The values that hold, and the place that each came from.

    Attributes:
        options: The validated values.
        sources: For each field of `SlurmOptions`, its place.
        replaced: Lists that do not hold.
    """

    options: SlurmOptions
    sources: Mapping[str, str]
    replaced: tuple[Replaced, ...] = ()


def table_layer(table: object) -> Layer:
    """Read the `[slurm]` table of a run's config.

    Args:
        table: What stands under `slurm`; `None` when nothing does.

    Raises:
        UsageError: It is not a table, or has a key that nobody knows.
    """
    if table is None:
        return Layer(TABLE, {})
    if not isinstance(table, dict):
        raise UsageError(f"[slurm] must be a table, not {table!r}")
    names = spelled(table, lambda _: "[slurm]")
    unknown = {name: key for name, key in names.items() if name not in knobs()}
    if unknown:
        hint = meant(next(iter(unknown)), knobs()) or "`medarc_slurm options` lists all keys"
        raise UsageError(unknown_keys("[slurm]", unknown, knobs()), hint=hint)
    # prime-rl's config language writes "None" for null, in TOML and on the command line.
    return Layer(TABLE, {name: table[key] for name, key in names.items() if table[key] not in (None, "None")})


def spelled(table: Mapping[Any, object], where: Callable[[str], str]) -> dict[str, str]:
    """Find how each key of a table of options is written there: `gpu_type` may be `gpu-type`.

    Args:
        table: The table, as it was read: YAML has keys that are no text.
        where: Says where a key stands.

    Returns:
        The keys as they are written, by their names with underscores.

    Raises:
        UsageError: A key is there in both spellings, or no text.
    """
    found: dict[str, str] = {}
    for key in table:
        if not isinstance(key, str):
            message = f"{where(str(key))} has a key that is no text: {key!r}"
            raise UsageError(message, hint="`medarc_slurm options` lists all keys")
        name = key.replace("-", "_")
        if name in found:
            message = f"{where(key)} has {name} twice: {found[name]} and {key}"
            raise UsageError(message, hint="keep one of them")
        found[name] = key
    return found


def unknown_keys(where: str, unknown: Mapping[str, str], known: Iterable[str]) -> str:
    """Say which keys of a table nobody knows: some dozen of them, those after the first with what was meant.

    Args:
        where: The table.
        unknown: The keys, and how each of them is written there.
        known: The keys that there are.
    """
    known = list(known)
    (_, first), *more = unknown.items()
    others = [
        f"{_plain(written)} ({near})" if (near := meant(name, known)) else _plain(written)
        for name, written in more[:MOST_NAMED]
    ]
    if len(more) > MOST_NAMED:
        others.append(f"and {len(more) - MOST_NAMED} more")
    message = f"{where} has an unknown key: {_plain(first)}"
    return f"{message}; and others: {', '.join(others)}" if others else message


MOST_NAMED = 12
"""Unknown keys that a message names beside the first."""


def _plain(key: str) -> str:
    """A key as a message shows it: quoted where it would not be seen, or taken for something else."""
    return key if key and key.isprintable() else json.dumps(key)


def meant(name: str, known: Iterable[str]) -> str | None:
    """Ask whether a known name was meant, when one is like it."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]}?" if near else None


def environment_layer(environment: Mapping[str, str]) -> Layer:
    """Read SLURM's own `SBATCH_*` variables."""
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name, knob in knobs().items():
        if knob.variable is None or knob.variable not in environment:
            continue
        value: Any = environment[knob.variable]
        if is_switch(name):
            value = value.lower() not in {"0", "no", "false"}
        elif not value:
            continue
        values[name], sources[name] = value, knob.variable
    if NO_REQUEUE in environment:
        values["requeue"], sources["requeue"] = False, NO_REQUEUE
    extra = {
        variable: f"{option}={environment[variable]}"
        for variable, option in SBATCH_VARIABLES.items()
        if environment.get(variable)
    }
    extra |= {variable: option for variable, option in SBATCH_SWITCHES.items() if variable in environment}
    if extra:
        values["sbatch_arg"] = tuple(dict.fromkeys(extra.values()))
        sources["sbatch_arg"] = ", ".join(extra)
    return Layer("SBATCH_*", values, sources)


def ignored_variables(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Name the `SBATCH_*` variables that are set but say what the run itself decides."""
    known = {knob.variable for knob in knobs().values()} | set(SBATCH_VARIABLES)
    known |= {*SBATCH_SWITCHES, NO_REQUEUE}
    return tuple(sorted(name for name in environment if name.startswith("SBATCH_") and name not in known))


def settle(layers: Sequence[Layer]) -> Settled:
    """Lay the layers over each other and validate the result.

    Args:
        layers: Highest first.

    Returns:
        The options and their sources. `sbatch_arg` is gathered from all layers, key by key.

    Raises:
        UsageError: Values cannot be used; names each option and its place.
    """
    values: dict[str, Any] = {}
    sources = dict.fromkeys(knobs(), BUILT_IN)
    for layer in layers:
        taken = set(values)
        for name, value in layer.values.items():
            rivals = {rival for group in EXCLUSIVE if name in group for rival in group - {name}}
            if name in taken or rivals & taken:
                continue
            values[name], sources[name] = value, layer.source_of(name)
    replaced = tuple(_replaced(layers, values, sources))
    values, sources = _gather_sbatch_args(layers, values, sources)
    try:
        return Settled(SlurmOptions.model_validate(values), sources, replaced)
    except ValidationError as error:
        raise _explain(error, sources) from None


def _replaced(
    layers: Sequence[Layer], values: Mapping[str, Any], sources: Mapping[str, str]
) -> Iterator[Replaced]:
    """Name the lists of which something is lost."""
    for layer in layers:
        for name, found in layer.values.items():
            if not knobs()[name].repeatable or name == "sbatch_arg" or layer.source_of(name) == sources[name]:
                continue
            held = _items(values[name])
            lost = tuple(item for item in _items(found) if item not in held)
            if lost:
                yield Replaced(name, lost, layer.source_of(name))


def _items(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list | tuple) else (str(value),)


def _gather_sbatch_args(
    layers: Sequence[Layer], values: dict[str, Any], sources: dict[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Let `--sbatch-arg qos-of-one-kind` add to what `[slurm]` and `SBATCH_*` say of other keys."""
    gathered: dict[str, str] = {}
    places: list[str] = []
    for layer in layers:
        found = layer.values.get("sbatch_arg", ())
        items = [found] if isinstance(found, str) else found
        if not isinstance(items, list | tuple):
            return values, sources
        fresh = [item for item in items if str(item).partition("=")[0] not in gathered]
        gathered |= {str(item).partition("=")[0]: item for item in fresh}
        places += [layer.source_of("sbatch_arg")] if fresh else []
    if gathered:
        values = {**values, "sbatch_arg": tuple(gathered.values())}
        sources = {**sources, "sbatch_arg": ", ".join(places)}
    return values, sources


def _explain(error: ValidationError, sources: Mapping[str, str]) -> UsageError:
    """Turn what pydantic found into one error in the user's words."""
    # Of a value that may be of several types each type has a finding.
    findings = {finding["loc"][:1]: finding for finding in reversed(error.errors(include_url=False))}
    first, *others = (_problem(finding, sources) for finding in reversed(findings.values()))
    if not others:
        return first
    lines = "".join(f"\n  {problem.message}" for problem in (first, *others))
    return UsageError(f"{len(others) + 1} options cannot be used:{lines}")


def _problem(finding: ErrorDetails, sources: Mapping[str, str]) -> UsageError:
    """Turn one of pydantic's findings into an error."""
    message = finding["msg"].removeprefix("Value error, ")
    if not finding["loc"]:
        return UsageError(message)
    name = str(finding["loc"][0])
    if finding["type"] != "value_error":
        # What stands under these may be a secret: `[slurm.env]` with a token is an easy mistake.
        got = "" if name in {"env", "sbatch_arg", "setup"} else f" (got {finding['input']!r})"
        message = f"{message[0].lower()}{message[1:]}{got}"
    return OptionError(flag(name), message, source=sources.get(name))
