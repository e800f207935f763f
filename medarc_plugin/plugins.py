"""The plugin manager: built-ins, entry points, clashes, and whose fault a failure is.

pluggy passes an exception of a plugin on as it is, so implementations are walked one by one wherever
blame matters.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pluggy

from medarc_plugin import hookspecs, index, preflight
from medarc_plugin.backends import environment, local, slurm
from medarc_plugin.errors import MedarcError, PluginError, UsageError
from medarc_plugin.models import JobState, Problem
from medarc_plugin.options import is_variable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from medarc_plugin.models import Backend, JobPlan, Submission

GROUP = "medarc_plugin"
"""The entry-point group of third-party plugins."""

FAILURES = (Exception, SystemExit)
"""What a plugin may raise: one that exits must not end the launch as if all were well."""

BUILT_IN = {
    "slurm": slurm,
    "local": local,
    "environment": environment,
    "preflight": preflight,
    "index": index,
}
"""Name and module of what ships with the package."""


@dataclass(frozen=True)
class Plugins:
    """All loaded plugins, and the questions that a launch asks them.

    Attributes:
        manager: pluggy's manager.
        backends: Backends by name.
        owners: The plugin that each backend is from.
    """

    manager: pluggy.PluginManager
    backends: Mapping[str, Backend]
    owners: Mapping[str, str]

    def backend(self, name: str) -> Backend:
        """Return a backend.

        Raises:
            UsageError: Nobody registered it; lists those that are known.
        """
        try:
            backend = self.backends[name]
        except KeyError:
            known = ", ".join(sorted(self.backends))
            raise UsageError(f"unknown backend {name!r}", hint=f"the known backends are: {known}") from None
        # A failure of a built-in one is a bug here, and keeps its traceback.
        return backend if self.owners[name] in BUILT_IN else _Blamed(backend, self.owners[name])

    def query(self, submission: Submission) -> JobState:
        """Ask the backend that took a run how it is; `UNKNOWN` when that backend is not here."""
        if submission.backend not in self.backends:
            return JobState("UNKNOWN")
        return self.backend(submission.backend).query(submission)

    def template_dirs(self) -> tuple[Path, ...]:
        """Folders of templates, in the order of the plugins' names."""
        found = []
        for plugin, result in sorted(_calls(self.manager, "medarc_template_dirs")):
            for path in _items(plugin, "medarc_template_dirs", result):
                if not os.path.isdir(path):  # noqa: PTH112 - a plugin may give a string
                    raise PluginError(plugin, f"its template folder {path} does not exist")
                found.append(path)
        return tuple(found)

    def problems(self, plan: JobPlan) -> tuple[Problem, ...]:
        """Run every check; fatal problems come first."""
        found: list[Problem] = []
        for plugin, result in _calls(self.manager, "medarc_preflight", plan=plan):
            items = _items(plugin, "medarc_preflight", result)
            if not all(isinstance(item, Problem) for item in items):
                raise PluginError(plugin, "medarc_preflight must return Problem objects")
            found += items
        return tuple(sorted(found, key=lambda problem: not problem.fatal))

    def job_environment(self, plan: JobPlan) -> dict[str, str]:
        """Gather the variables that plugins set; the user's own `--env` wins over all of them."""
        values: dict[str, str] = {}
        owners: dict[str, str] = {}
        for plugin, result in _calls(self.manager, "medarc_job_environment", plan=plan):
            if not isinstance(result, Mapping):
                raise PluginError(plugin, "medarc_job_environment must return a mapping")
            for name, value in ((name, str(value)) for name, value in result.items()):
                if not (is_variable(name) and "\0" not in value):
                    raise PluginError(plugin, f"{name!r}={value!r} cannot be an environment variable")
                decided = name in plan.launch.environment
                if not decided and values.get(name, value) != value:
                    raise PluginError(
                        plugin,
                        f"sets {name}={value!r}, and plugin {owners[name]!r} sets {values[name]!r}",
                        hint=f"MEDARC_DISABLE_PLUGINS leaves one out; --env {name}=VALUE decides",
                    )
                values[name], owners[name] = value, plugin
        return values | dict(plan.launch.environment)

    def submitted(self, submission: Submission, plan: JobPlan) -> tuple[str, ...]:
        """Tell every plugin about an accepted run; returns what failed, in words."""
        failures = []
        for name, implementation in _implementations(self.manager, "medarc_submitted"):
            try:
                implementation(submission=submission, plan=plan)
            except FAILURES as error:
                failures.append(f"plugin {name!r}: {type(error).__name__}: {error}")
        return tuple(failures)


class _Blamed:
    """A plugin's backend whose failures name the plugin."""

    def __init__(self, backend: Backend, plugin: str) -> None:
        self._backend = backend
        self._plugin = plugin

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any part of a backend
        part = getattr(self._backend, name)
        if not callable(part):
            return part

        def call(*arguments: object, **named: object) -> object:
            try:
                return part(*arguments, **named)
            except MedarcError:
                raise
            except FAILURES as error:
                raise PluginError(
                    self._plugin,
                    f"{name} of its backend {self._backend.name!r} raised {type(error).__name__}: {error}",
                ) from error

        return call


def load(environment: Mapping[str, str] = os.environ) -> Plugins:
    """Load the built-ins and every installed plugin.

    Args:
        environment: Where `MEDARC_DISABLE_PLUGINS=name,...` is looked up.

    Raises:
        PluginError: A plugin cannot be imported, implements a hook that does not exist, or offers a
            backend name that another has.
    """
    manager = pluggy.PluginManager("medarc")
    manager.add_hookspecs(hookspecs)
    blocked = {name.strip() for name in environment.get("MEDARC_DISABLE_PLUGINS", "").split(",")}
    for name in blocked - {""}:
        manager.set_blocked(name)
    for name, module in BUILT_IN.items():
        if name not in blocked:
            manager.register(module, name)
    _load_entry_points(manager, blocked)
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(manager.get_name(error.plugin) or repr(error.plugin), str(error)) from None
    return Plugins(manager, *_backends(manager))


def _load_entry_points(manager: pluggy.PluginManager, blocked: set[str]) -> None:
    from importlib.metadata import entry_points

    for entry in sorted(entry_points(group=GROUP), key=lambda item: item.name):
        if entry.name in blocked:
            continue
        distribution = entry.dist.name if entry.dist else "unknown distribution"
        if manager.has_plugin(entry.name):
            raise PluginError(
                entry.name, f"the name is taken, and distribution {distribution!r} claims it too"
            )
        try:
            manager.register(entry.load(), entry.name)
        except FAILURES as error:
            raise PluginError(
                entry.name,
                f"of distribution {distribution!r} cannot be loaded: {type(error).__name__}: {error}",
            ) from error


def _backends(manager: pluggy.PluginManager) -> tuple[dict[str, Backend], dict[str, str]]:
    found: dict[str, Backend] = {}
    owners: dict[str, str] = {}
    for plugin, result in _calls(manager, "medarc_register_backends"):
        for backend in _items(plugin, "medarc_register_backends", result):
            missing = [
                name
                for name in ("name", "plan", "render", "command", "submit", "query", "cancel")
                if not hasattr(backend, name)
            ]
            if missing:
                raise PluginError(plugin, f"its backend {backend!r} lacks {', '.join(missing)}")
            if backend.name in found:
                raise PluginError(
                    plugin,
                    f"offers a backend {backend.name!r}, which plugin {owners[backend.name]!r} has",
                )
            found[backend.name], owners[backend.name] = backend, plugin
    return found, owners


def _implementations(manager: pluggy.PluginManager, hook: str) -> list[tuple[str, Any]]:
    """List a hook's implementations with their plugins' names, in the order of registration."""
    caller = getattr(manager.hook, hook)
    return [(item.plugin_name, _bound(item)) for item in caller.get_hookimpls()]


def _bound(implementation: pluggy.HookImpl) -> Any:  # noqa: ANN401 - a function of any signature
    def call(**arguments: object) -> object:
        wanted = {name: arguments[name] for name in implementation.argnames}
        return implementation.function(**wanted)

    return call


def _calls(manager: pluggy.PluginManager, hook: str, **arguments: object) -> Iterator[tuple[str, Any]]:
    """Call each implementation of a hook by itself; a failure names its plugin."""
    for name, implementation in _implementations(manager, hook):
        try:
            result = implementation(**arguments)
            yield name, list(result) if hasattr(result, "__next__") else result
        except MedarcError as error:
            raise PluginError(name, error.message, hint=error.hint) from error
        except FAILURES as error:
            raise PluginError(name, f"{hook} raised {type(error).__name__}: {error}") from error


def _items(plugin: str, hook: str, result: object) -> list[Any]:
    if result is None:
        return []
    if isinstance(result, str) or not hasattr(result, "__iter__"):
        raise PluginError(plugin, f"{hook} must return a list, not {result!r}")
    try:
        return list(result)
    except FAILURES as error:
        raise PluginError(plugin, f"{hook} raised {type(error).__name__}: {error}") from error
