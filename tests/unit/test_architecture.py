"""Imports go down, never up or sideways; every hook is documented, and used."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import medarc_plugin
from medarc_plugin import errors, hookspecs, preflight
from medarc_plugin.plugins import BUILT_IN
from medarc_plugin.preflight import cluster, names, partitions

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(medarc_plugin.__file__).parent

LAYERS = (
    {"cli"},
    {"steering", "doctor", "why", "report"},
    {"logs"},
    {"watching"},
    {"standing", "difference"},
    {"records", "export"},
    {"launch", "runs", "proposal"},
    {"plugins"},
    {"backends", "preflight", "sandbox", "profile_files"},
    {"flight"},
    {"host", "slurm", "render", "profiles", "rundir", "index"},
    {"options", "hookspecs", "process", "project", "tails", "failures", "redaction", "lock", "lifesigns"},
    {"models", "errors", "signals", "json_text"},
)
"""From the top down; a module may import what stands below it, and its own package."""

KNOW_THE_JOB = (
    "backends/planning.py",  # freezes its code
    "preflight/surroundings.py",  # looks here for what a job looks for on its node
    "doctor/settings.py",  # likewise
    "report/history.py",  # reads what jobs wrote
)

FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def height(part: str) -> int:
    return next(index for index, layer in enumerate(LAYERS) if part in layer)


class Imports(ast.NodeVisitor):
    """Collects what a module imports when it runs: not under TYPE_CHECKING."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def visit_If(self, node: ast.If) -> None:
        if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.names |= {alias.name for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert node.level < 2, "no import goes up by dots"
        if node.level == 0:
            self.names |= {f"{node.module}.{alias.name}" for alias in node.names}


def imports(path: Path) -> set[str]:
    visitor = Imports()
    visitor.visit(ast.parse(path.read_text(encoding="utf-8")))
    return visitor.names


def ours(path: Path) -> Iterator[str]:
    """The parts of this package that a module imports; the bare package holds no part."""
    for name in imports(path):
        package, _, rest = name.partition(".")
        part = rest.partition(".")[0]
        if package == "medarc_plugin" and part not in {"", "hookimpl", "__version__"}:
            yield part


def test_every_module_has_a_layer() -> None:
    assert {part_of(path) for path in FILES} - {"job"} == set.union(*LAYERS)


@pytest.mark.parametrize(
    "path", [path for path in FILES if part_of(path) != "job"], ids=lambda path: path.stem
)
def test_imports_go_down(path: Path) -> None:
    part = part_of(path)
    knows_the_job = path in {ROOT / place for place in KNOW_THE_JOB}

    wrong = {
        other
        for other in ours(path)
        if other != part
        and not (other == "job" and knows_the_job)
        and (other == "job" or height(other) <= height(part))
    }

    assert wrong == set()


@pytest.mark.parametrize(
    "path", [path for path in FILES if part_of(path) == "job"], ids=lambda path: path.stem
)
def test_the_job_code_needs_the_standard_library_alone(path: Path) -> None:
    import sys

    beside = {other.stem for other in path.parent.glob("*.py")}
    foreign = {name.partition(".")[0] for name in imports(path)} - set(sys.stdlib_module_names) - beside

    assert foreign == set()


def borrowed(path: Path) -> Iterator[str]:
    """The packages that a module of the job code borrows from prime-rl's environment."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "borrow":
            (name,) = node.args
            assert isinstance(name, ast.Constant), "a borrowed package is named where it is borrowed"
            yield str(name.value).partition(".")[0]


def test_the_job_code_borrows_packages_for_an_export_alone() -> None:
    from medarc_plugin.job.borrowed import PACKAGES

    borrowers = {path.stem: set(borrowed(path)) for path in FILES if part_of(path) == "job"}
    importers = {
        path.stem for path in FILES if part_of(path) == "job" and "import_module" in path.read_text()
    }

    assert {name for name, packages in borrowers.items() if packages} == {
        *("dcp", "layout", "model_files", "safetensors_files", "weights"),
    }
    assert set.union(*borrowers.values()) == PACKAGES
    # Those of a rehearsal import what a run would.
    assert importers == {"__main__", "begin", "borrowed", "hub", "probe"}


def test_a_run_loads_nothing_of_an_export_until_it_exports() -> None:
    job = ROOT / "job"
    exporting = {
        "export",
        "borrowed",
        "dcp",
        "layout",
        "model_files",
        "safetensors_files",
        "trained",
        "weights",
    }
    loaded = {found for path in job.glob("*.py") if path.stem not in exporting for found in top_level(path)}

    assert loaded & exporting == set()


def top_level(path: Path) -> Iterator[str]:
    """The modules beside it that a module loads with itself."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            yield node.module or ""
            yield from (alias.name for alias in node.names if not node.module)


def test_the_package_itself_imports_none_of_its_parts() -> None:
    assert list(ours(ROOT / "__init__.py")) == []


@pytest.mark.parametrize(
    "path",
    [ROOT / "host" / "resolver.py", *sorted((ROOT / "host" / "fields").glob("*.py"))],
    ids=lambda path: path.stem,
)
def test_what_runs_in_prime_rls_interpreter_needs_the_standard_library_alone(path: Path) -> None:
    import sys

    foreign = {found.partition(".")[0] for found in imports(path)}

    assert foreign - set(sys.stdlib_module_names) - {"pydantic_config"} == set()


def test_only_one_module_starts_processes_on_the_submit_side() -> None:
    starters = {
        path.relative_to(ROOT).as_posix()
        for path in FILES
        if part_of(path) not in {"job", "sandbox"}
        and {"subprocess"} & {name.partition(".")[0] for name in imports(path)}
    }

    assert starters == {"process.py"}


@pytest.mark.parametrize("hook", hookspecs.HOOKS, ids=lambda hook: hook.__name__)
def test_every_hook_documents_its_arguments_and_what_it_returns(hook: object) -> None:
    text = inspect.getdoc(hook) or ""
    signature = inspect.signature(hook)  # type: ignore[arg-type]

    for name in signature.parameters:
        assert f"\n    {name}: " in text.partition("Args:")[2]
    assert (signature.return_annotation == "None") or "Returns:" in text


def test_every_hook_is_listed() -> None:
    specified = {name for name in vars(hookspecs) if name.startswith("medarc_")}

    assert specified == {hook.__name__ for hook in hookspecs.HOOKS}


@pytest.mark.parametrize("hook", [hook.__name__ for hook in hookspecs.HOOKS])
def test_every_hook_is_implemented_by_something_that_ships(hook: str) -> None:
    example = ROOT.parent / "examples" / "plugin"
    sources = [*(Path(inspect.getfile(module)) for module in BUILT_IN.values()), *example.rglob("*.py")]

    assert any(f"@hookimpl\ndef {hook}(" in path.read_text(encoding="utf-8") for path in sources)


def test_every_check_is_called_and_explained() -> None:
    checks = {
        *(*preflight.CHECKS, *preflight.SUBMISSION_CHECKS),
        *(*cluster.PARTITION_CHECKS, *names.CHECKS, partitions.partitions_are_there),
    }
    parts = {inspect.getmodule(check) for check in checks}
    functions = {
        function
        for part in parts
        for name, function in vars(part).items()
        if inspect.isfunction(function)
        and inspect.getmodule(function) is part
        and not name.startswith("_")
        and function.__annotations__["return"] == "Iterator[Problem]"
    }

    assert functions == checks
    assert all(check.__doc__ for check in checks)


def test_every_error_is_drawn_in_the_tree() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]

    for kind in kinds:
        assert f" {kind.__name__} " in (errors.__doc__ or "")
        assert issubclass(kind, errors.MedarcError)
        assert kind.exit_code == 2
