"""Plugins: who is to blame, who is left out, and that nothing is written when one fails."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from standins import make_plan

from medarc_plugin import hookimpl, launch, plugins
from medarc_plugin.backends.local import LocalBackend
from medarc_plugin.errors import PluginError, RunDirectoryError, UsageError
from medarc_plugin.models import JobState, Problem, Request, Submission

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Entry:
    """What importlib.metadata says of an installed plugin."""

    def __init__(self, name: str, plugin: object) -> None:
        self.name = name
        self.dist = SimpleNamespace(name=f"{name}-dist")
        self._plugin = plugin

    def load(self) -> object:
        if isinstance(self._plugin, Exception):
            raise self._plugin
        return self._plugin


class Night(LocalBackend):
    name = "night"


def plugin(**functions: Callable[..., object]) -> SimpleNamespace:
    return SimpleNamespace(**{name: hookimpl(function) for name, function in functions.items()})


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[..., plugins.Plugins]:
    def run(_disabled: str = "", **installed: object) -> plugins.Plugins:
        entries = [Entry(name, item) for name, item in installed.items()]
        monkeypatch.setattr(
            "importlib.metadata.entry_points", lambda group: entries if group == plugins.GROUP else []
        )
        monkeypatch.setenv("MEDARC_DISABLE_PLUGINS", _disabled)
        return plugins.load(os.environ)

    return run


def test_the_built_ins_are_plugins(load: Callable[..., plugins.Plugins]) -> None:
    assert sorted(load().backends) == ["local", "slurm"]


def test_a_plugin_offers_a_backend(load: Callable[..., plugins.Plugins]) -> None:
    loaded = load(mine=plugin(medarc_register_backends=lambda: [Night()]))

    assert loaded.backend("night").name == "night"


def test_an_unknown_backend_is_answered_with_the_known_ones(load: Callable[..., plugins.Plugins]) -> None:
    with pytest.raises(UsageError, match="unknown backend 'slrm'") as caught:
        load().backend("slrm")

    assert caught.value.hint == "the known backends are: local, slurm"


@pytest.mark.parametrize("name", ["night", "slurm"])
def test_two_plugins_with_one_backend_name_are_both_named(
    load: Callable[..., plugins.Plugins], name: str
) -> None:
    backend = type("Other", (Night,), {"name": name})
    offer = plugin(medarc_register_backends=lambda: [backend()])
    first = {"slurm": "slurm", "night": "aaa"}[name]

    with pytest.raises(
        PluginError, match=f"plugin 'zzz': offers a backend '{name}', which plugin '{first}' has"
    ):
        load(aaa=plugin(medarc_register_backends=lambda: [Night()]), zzz=offer)


def test_a_backend_that_lacks_something_is_refused(load: Callable[..., plugins.Plugins]) -> None:
    with pytest.raises(
        PluginError, match=r"plugin 'mine': its backend .* lacks plan, render, command, submit, query"
    ):
        load(mine=plugin(medarc_register_backends=lambda: [SimpleNamespace(name="x", cancel=1)]))


def test_a_plugin_that_cannot_be_imported_is_named_with_its_distribution(
    load: Callable[..., plugins.Plugins],
) -> None:
    with pytest.raises(
        PluginError, match="plugin 'mine': of distribution 'mine-dist' cannot be loaded"
    ) as caught:
        load(mine=ModuleNotFoundError("No module named 'torch'"))

    assert caught.value.hint == "MEDARC_DISABLE_PLUGINS=mine leaves it out"


@pytest.mark.parametrize("disabled", ["mine", "mine,other", " other , mine "])
def test_a_plugin_can_be_left_out(load: Callable[..., plugins.Plugins], disabled: str) -> None:
    assert "night" not in load(disabled, mine=RuntimeError("broken")).backends


def test_a_built_in_can_be_left_out(load: Callable[..., plugins.Plugins]) -> None:
    assert sorted(load("slurm").backends) == ["local"]


def test_the_name_of_a_built_in_is_taken(load: Callable[..., plugins.Plugins]) -> None:
    with pytest.raises(
        PluginError, match="plugin 'slurm': the name is taken, and distribution 'slurm-dist' claims it"
    ):
        load(slurm=plugin())


def test_an_unknown_hook_is_refused(load: Callable[..., plugins.Plugins]) -> None:
    with pytest.raises(PluginError, match=r"plugin 'mine': .*medarc_prefligth"):
        load(mine=plugin(medarc_prefligth=lambda: [1]))


def test_a_hook_with_an_argument_that_there_is_not_is_refused(load: Callable[..., plugins.Plugins]) -> None:
    with pytest.raises(PluginError, match="plugin 'mine': of distribution 'mine-dist' cannot be loaded"):
        load(mine=plugin(medarc_preflight=lambda paln: []))  # noqa: ARG005


HOOKS: dict[str, Callable[[plugins.Plugins, Any], object]] = {
    "medarc_template_dirs": lambda loaded, _: loaded.template_dirs(),
    "medarc_preflight": lambda loaded, plan: loaded.problems(plan),
    "medarc_job_environment": lambda loaded, plan: loaded.job_environment(plan),
}


def boom() -> Any:
    raise ZeroDivisionError("by zero")


@pytest.mark.parametrize("hook", HOOKS)
def test_a_plugin_that_raises_is_named(load: Callable[..., plugins.Plugins], work: Path, hook: str) -> None:
    loaded = load(mine=plugin(**{hook: boom}))

    with pytest.raises(PluginError, match=f"plugin 'mine': {hook} raised ZeroDivisionError: by zero"):
        HOOKS[hook](loaded, make_plan(work / "a"))


def test_a_plugin_that_raises_when_asked_for_backends_is_named(load: Callable[..., plugins.Plugins]) -> None:
    with pytest.raises(PluginError, match="plugin 'mine': medarc_register_backends raised ZeroDivisionError"):
        load(mine=plugin(medarc_register_backends=boom))


@pytest.mark.parametrize("hook", HOOKS)
def test_an_error_in_our_own_words_names_the_plugin_too(
    load: Callable[..., plugins.Plugins], work: Path, hook: str
) -> None:
    def refuse() -> object:
        raise RunDirectoryError("no room", hint="buy disks")

    loaded = load(mine=plugin(**{hook: refuse}))

    with pytest.raises(PluginError, match="plugin 'mine': no room") as caught:
        HOOKS[hook](loaded, make_plan(work / "a"))

    assert caught.value.hint == "buy disks"


@pytest.mark.parametrize(
    ("hook", "value", "message"),
    [
        (
            "medarc_template_dirs",
            ["/nowhere/templates"],
            "its template folder /nowhere/templates does not exist",
        ),
        ("medarc_template_dirs", "/tmp", "must return a list, not '/tmp'"),
        ("medarc_preflight", ["a problem"], "medarc_preflight must return Problem objects"),
        ("medarc_preflight", 5, "must return a list, not 5"),
        ("medarc_job_environment", [("A", "1")], "medarc_job_environment must return a mapping"),
        ("medarc_job_environment", {"A B": "1"}, "'A B'='1' cannot be an environment variable"),
        ("medarc_job_environment", {"A;rm x": "1"}, "cannot be an environment variable"),
        ("medarc_job_environment", {"A": "1\0"}, "cannot be an environment variable"),
    ],
)
def test_what_a_hook_may_not_return_names_the_plugin(
    load: Callable[..., plugins.Plugins], work: Path, hook: str, value: object, message: str
) -> None:
    loaded = load(mine=plugin(**{hook: lambda: value}))

    with pytest.raises(PluginError, match=f"plugin 'mine': .*{message}"):
        HOOKS[hook](loaded, make_plan(work / "a"))


def test_a_generator_is_as_good_as_a_list(load: Callable[..., plugins.Plugins], work: Path) -> None:
    def check(plan: object) -> Any:
        yield Problem("mild", str(plan is not None), fatal=False)
        yield Problem("grave", "x")

    found = load(mine=plugin(medarc_preflight=check)).problems(make_plan(work / "a"))

    assert [problem.check for problem in found] == ["grave", "mild"]


def test_a_generator_that_raises_on_the_way_names_the_plugin(
    load: Callable[..., plugins.Plugins], work: Path
) -> None:
    def check() -> Any:
        yield Problem("a", "b")
        raise ZeroDivisionError

    with pytest.raises(PluginError, match="plugin 'mine': medarc_preflight raised"):
        load(mine=plugin(medarc_preflight=check)).problems(make_plan(work / "a"))


def test_two_values_for_one_variable_name_both_plugins(
    load: Callable[..., plugins.Plugins], work: Path
) -> None:
    loaded = load(
        a=plugin(medarc_job_environment=lambda: {"NCCL_DEBUG": "WARN"}),
        b=plugin(medarc_job_environment=lambda: {"NCCL_DEBUG": "INFO"}),
    )

    with pytest.raises(PluginError, match="plugin 'b': sets NCCL_DEBUG='INFO', and plugin 'a' sets 'WARN'"):
        loaded.job_environment(make_plan(work / "a"))


def test_a_users_own_variable_decides_between_plugins(
    load: Callable[..., plugins.Plugins], work: Path
) -> None:
    loaded = load(
        a=plugin(medarc_job_environment=lambda: {"NCCL_DEBUG": "WARN"}),
        b=plugin(medarc_job_environment=lambda: {"NCCL_DEBUG": "INFO", "N": 1}),
        c=plugin(medarc_job_environment=lambda: {"N": 1}),
        d=plugin(medarc_job_environment=lambda: None),
    )
    loaded_without_d = load("d", **{name: loaded.manager.get_plugin(name) for name in ("a", "b", "c")})

    found = loaded_without_d.job_environment(make_plan(work / "a", {"env": ["NCCL_DEBUG=TRACE"]}))

    assert found == {"NCCL_DEBUG": "TRACE", "N": "1"}


def test_template_folders_come_in_the_order_of_the_plugins_names(
    load: Callable[..., plugins.Plugins], work: Path
) -> None:
    for name in "ab":
        (work / name).mkdir()

    loaded = load(
        b=plugin(medarc_template_dirs=lambda: [work / "b"]),
        a=plugin(medarc_template_dirs=lambda: [work / "a"]),
    )

    assert loaded.template_dirs() == (work / "a", work / "b")


def test_what_goes_wrong_after_a_submission_is_told_and_no_error(
    load: Callable[..., plugins.Plugins], work: Path
) -> None:
    told = []
    loaded = load(
        a=plugin(medarc_submitted=boom),
        b=plugin(medarc_submitted=lambda submission: told.append(submission.job_id)),
    )
    plan = make_plan(work / "a")
    submission = Submission("17", None, plan.files.script, plan.files.log, "", plan.token, "slurm")

    assert loaded.submitted(submission, plan) == ("plugin 'a': ZeroDivisionError: by zero",)
    assert told == ["17"]


@pytest.mark.parametrize("method", ["plan", "render"])
def test_a_backend_of_a_plugin_that_raises_is_named_and_nothing_is_written(
    load: Callable[..., plugins.Plugins], work: Path, method: str
) -> None:
    backend = Night()
    setattr(backend, method, lambda *_: boom())
    load(mine=plugin(medarc_register_backends=lambda: [backend]))

    with pytest.raises(
        PluginError, match=f"plugin 'mine': {method} of its backend 'night' raised ZeroDivisionError"
    ):
        launch.prepare(Request("sft", "night", ("--max-steps", "5"), run_dir=work / "a", dry_run=True))

    assert not (work / "a").exists()


@pytest.mark.parametrize("hook", HOOKS)
def test_nothing_is_written_when_a_hook_raises(
    load: Callable[..., plugins.Plugins], work: Path, hook: str
) -> None:
    load(mine=plugin(**{hook: boom}))

    with pytest.raises(PluginError, match="plugin 'mine'"):
        launch.prepare(Request("sft", "slurm", ("--max-steps", "5"), run_dir=work / "a", dry_run=True))

    assert not (work / "a").exists()


def test_a_run_is_asked_after_at_the_backend_that_took_it(
    load: Callable[..., plugins.Plugins], work: Path
) -> None:
    backend = Night()
    backend.query = lambda _: JobState("RUNNING")  # type: ignore[method-assign]
    loaded = load(mine=plugin(medarc_register_backends=lambda: [backend]))

    def state(name: str, code: int | None = None) -> str:
        return loaded.query(Submission("1", None, work, work, "", "", name, code)).state

    assert [state("night"), state("local", 0), state("local", 1), state("no-more")] == [
        *("RUNNING", "COMPLETED", "FAILED", "UNKNOWN"),
    ]
