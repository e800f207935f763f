"""What makes two runs different: their resolved configs, the options of their jobs, versions and commits."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medarc_plugin import json_text
from medarc_plugin.errors import RunDirectoryError
from medarc_plugin.host import fields
from medarc_plugin.records import is_there
from medarc_plugin.runs import read_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from medarc_plugin.runs import Run

HERE = "{run directory}"
"""Stands for a run's own directory, which no two runs share."""

PLANNED = (
    *("entrypoint", "backend", "gpus", "cpus", "memory_mib", "min_free_disk_mib", "idle_timeout", "caches"),
    *("expected_variables", "rehearse", "export", "survive", "working_directory"),
)
"""What of `launch.json` the user's options decide."""

VERSIONS = ("medarc_plugin", "python", "shape", "checked", "prime_rl")

NAMING = frozenset({"job-name", "output", "comment"})
"""Directives that say which run it is."""

_DIRECTIVE = re.compile(r"#SBATCH --([\w-]+)(?:=(.*))?")


@dataclass(frozen=True)
class Difference:
    """One thing that two runs have not in common.

    Attributes:
        section: `config`, `options`, `script` or `versions`.
        path: Where: a dotted path of the config, an option, a name.
        left: What the first run has, as a list of one; an empty one where it has nothing.
        right: The same for the second.
    """

    section: str
    path: str
    left: tuple[Any, ...]
    right: tuple[Any, ...]

    def document(self) -> dict[str, Any]:
        """The difference for `--json`: a side that has nothing is left out."""
        sides = {"left": self.left, "right": self.right}
        found = {name: side[0] for name, side in sides.items() if side}
        return {"section": self.section, "path": self.path, **found}


def compare(left: Run, right: Run) -> list[Difference]:
    """List what two runs have not in common, beside their names and places.

    Raises:
        RunDirectoryError: The config of one cannot be read.
    """
    parts: tuple[tuple[str, Callable[[Run], dict[str, Any]]], ...] = (
        ("config", _config),
        ("options", _options),
        ("versions", _versions),
    )
    found = [
        difference
        for section, facts in parts
        for difference in compare_tables(section, facts(left), facts(right))
    ]
    return found + _scripts(left, right)


def compare_tables(section: str, left: Mapping[str, Any], right: Mapping[str, Any]) -> list[Difference]:
    """Compare two tables path by path, in the first one's order.

    Args:
        section: What to call the differences' section.
        left: The first one.
        right: The second one.
    """
    first, second = dict(flat(left)), dict(flat(right))
    paths = dict.fromkeys([*first, *second])
    sides = [(path, _side(first, path), _side(second, path)) for path in paths]
    return [Difference(section, path, one, other) for path, one, other in sides if not _same(one, other)]


def _side(values: Mapping[str, Any], path: str) -> tuple[Any, ...]:
    """What is at a path: one value, or none."""
    return (values[path],) if path in values else ()


def _same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    # What is null is nothing to prime-rl either, whether it is written down or not.
    if one in ((), (None,)) and other in ((), (None,)):
        return True
    # 1 and True are the same to Python, and not to a config.
    return one == other and [type(each) is bool for each in one] == [type(each) is bool for each in other]


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - whatever JSON holds
    """List all values of a document with their dotted paths; those of a list by their numbers."""
    items: Iterator[tuple[str, Any]]
    if isinstance(value, dict) and value:
        items = iter(value.items())
    elif isinstance(value, list) and value:
        items = ((str(number), item) for number, item in enumerate(value))
    else:
        if path:
            yield path, value
        return
    for name, item in items:
        yield from flat(item, f"{path}.{name}" if path else name)


def resolved_config(run: Run) -> dict[str, Any]:
    """Read a run's config as it was resolved at submission.

    Raises:
        RunDirectoryError: It cannot be read.
    """
    # Runs of earlier versions have the one alone that prime-rl may have written over.
    path = run.files.resolved if is_there(run.files.resolved) else run.files.config
    try:
        document = json_text.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunDirectoryError(
            f"the config of {run.run_dir} cannot be read: {error}", hint="a launch writes it anew"
        ) from None
    if not isinstance(document, dict):
        raise RunDirectoryError(f"{path} is no config: it is no table")
    return document


def _config(run: Run) -> dict[str, Any]:
    document = resolved_config(run)
    planned = run.plan.get("fields")
    shape = fields.SHAPES.get(str(planned.get("shape")) if isinstance(planned, dict) else "", fields.MAIN)
    places = fields.place_fields(shape)
    return {path: _placeless(run, value) for path, value in flat(document) if path not in places}


def _placeless(run: Run, value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    return value.replace(str(run.run_dir), HERE) if isinstance(value, str) else value


def _options(run: Run) -> dict[str, Any]:
    planned = {name: run.plan[name] for name in PLANNED if name in run.plan}
    if isinstance(planned.get("caches"), dict):
        # Names of --env, whose values are lines of the script.
        planned["caches"] = {name: value for name, value in planned["caches"].items() if name != "kept"}
    directives = [match for line in _lines(run) if (match := _DIRECTIVE.fullmatch(line))]
    given = {f"--{match[1]}": match[2] or True for match in directives if match[1] not in NAMING}
    return {path: _placeless(run, value) for path, value in (*flat(planned), *given.items())}


def _versions(run: Run) -> dict[str, Any]:
    provenance = read_table(run.files.provenance)
    return {name: provenance[name] for name in VERSIONS if name in provenance}


def _lines(run: Run) -> list[str]:
    try:
        return run.files.script.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _scripts(left: Run, right: Run) -> list[Difference]:
    """The lines that one script has and the other has not: setup lines, variables, modules."""

    def body(run: Run) -> Counter[str]:
        lines = (line.strip() for line in _lines(run))
        return Counter(_placeless(run, line) for line in lines if line and not line.startswith("#"))

    one, other = body(left), body(right)
    return [
        *(Difference("script", "line", (line,), ()) for line in (one - other).elements()),
        *(Difference("script", "line", (), (line,)) for line in (other - one).elements()),
    ]
