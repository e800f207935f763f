"""Where prime-rl is looked for, and what is said when it is broken."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from medarc_plugin.errors import HostBrokenError, HostNotFoundError
from medarc_plugin.host import locate as module
from medarc_plugin.host.locate import commit_of, locate, require
from medarc_plugin.host.passthrough import command
from medarc_plugin.host.resolve import environment_for
from medarc_plugin.host.spelling import respelled
from medarc_plugin.job import environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from medarc_plugin.models import Host


def checkout_at(folder: Path) -> Path:
    (folder / "src" / "prime_rl").mkdir(parents=True)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / "pyproject.toml").touch()
    (folder / ".venv" / "bin" / "python").symlink_to(sys.executable)
    return folder


@pytest.fixture
def places(tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Host | None]:
    """prime-rl at every place at once; each call takes some away."""
    option, variable, beside = (
        checkout_at(path) for path in (tmp_path / "o", tmp_path / "v", work / "prime-rl")
    )

    def look(*, without: str = "") -> Host | None:
        monkeypatch.setattr(module, "in_this_interpreter", lambda: "here" not in without)
        if "beside" in without:
            shutil.rmtree(beside)
        environment = {} if "variable" in without else {"PRIME_RL_DIR": str(variable)}
        return locate(None if "option" in without else option, environment)

    return look


@pytest.mark.parametrize(
    ("without", "source"),
    [
        ("", "--prime-rl-dir"),
        ("option", "PRIME_RL_DIR"),
        ("option variable", "./prime-rl"),
        ("option variable beside", "this environment"),
    ],
)
def test_the_places_are_tried_in_the_documented_order(
    places: Callable[..., Host | None], without: str, source: str
) -> None:
    found = places(without=without)

    assert found is not None
    assert source == found.source


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"dir_info": {"editable": True}}, True),
        ({"dir_info": {}}, False),
        ({"dir_info": {"editable": False}}, False),
        (["no table"], False),
        (None, False),
    ],
)
def test_the_checkout_of_an_editable_prime_rl_here_is_found(
    places: Callable[..., Host | None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: Any,
    found: bool,
) -> None:
    checkout = checkout_at(tmp_path / "my prime-rl")
    about = tmp_path / "packages" / "prime_rl-0.8.1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: prime-rl\nVersion: 0.8.1\n")
    if said is not None:
        said = {"url": checkout.as_uri(), **said} if isinstance(said, dict) else said
        (about / "direct_url.json").write_text(json.dumps(said))
    monkeypatch.syspath_prepend(about.parent)

    host = places(without="option variable beside")

    assert host is not None
    assert host.directory == (checkout if found else None)
    assert (host.python, host.source) == (Path(sys.executable), "this environment")


def test_nowhere_is_said_with_the_way_out(places: Callable[..., Host | None]) -> None:
    with pytest.raises(
        HostNotFoundError, match=r"looked at --prime-rl-dir, PRIME_RL_DIR, \./prime-rl"
    ) as caught:
        require(places(without="option variable beside here"))

    assert "git submodule update --init" in (caught.value.hint or "")


def test_the_interpreter_is_the_link_in_the_checkouts_own_environment(tmp_path: Path) -> None:
    folder = checkout_at(tmp_path / "p")

    found = require(locate(folder, {}))

    assert (found.python, found.directory) == (folder / ".venv/bin/python", folder)


def test_the_interpreter_of_a_checkout_without_one_can_be_named(tmp_path: Path) -> None:
    folder = checkout_at(tmp_path / "p")
    shutil.rmtree(folder / ".venv")

    found = require(locate(folder, {"PRIME_RL_PYTHON": sys.executable}))

    assert found.python == Path(sys.executable)


def test_a_place_is_absolute_though_named_relatively(work: Path) -> None:
    checkout_at(work / "p")

    assert require(locate(Path("p"), {})).directory == work / "p"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "is not a folder"),
        (lambda path: (path / "pyproject.toml").unlink(), "is not a prime-rl checkout"),
        (lambda path: shutil.rmtree(path / "src"), "is not a prime-rl checkout"),
        (lambda path: shutil.rmtree(path / ".venv"), "is missing or cannot be run"),
        (lambda path: (path / ".venv/bin/python").unlink(), "is missing or cannot be run"),
    ],
)
@pytest.mark.parametrize("by", ["--prime-rl-dir", "PRIME_RL_DIR"])
def test_a_place_named_on_purpose_must_hold_prime_rl(
    tmp_path: Path, damage: Callable[[Path], None], message: str, by: str
) -> None:
    folder = checkout_at(tmp_path / "p")
    damage(folder)

    with pytest.raises(HostBrokenError, match=rf"^{by}: .*{message}") as caught:
        locate(folder if by == "--prime-rl-dir" else None, {"PRIME_RL_DIR": str(folder)})

    assert caught.value.hint


def test_a_dangling_link_for_an_interpreter_is_broken(tmp_path: Path) -> None:
    folder = checkout_at(tmp_path / "p")
    (folder / ".venv/bin/python").unlink()
    (folder / ".venv/bin/python").symlink_to("/nowhere/python")

    with pytest.raises(HostBrokenError, match="is missing or cannot be run"):
        locate(folder, {})


def test_the_source_of_the_option_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostBrokenError, match=r"^prime_rl_dir in \[slurm\]: "):
        locate(tmp_path / "no", {}, source="[slurm]")


def test_outside_git_there_is_no_commit(tmp_path: Path) -> None:
    assert commit_of(tmp_path) == (None, False)
    assert commit_of(None) == (None, False)


def test_prime_rls_commands_find_their_own_programs_first(checkout: Path) -> None:
    host = require(locate(checkout, {}))
    base = {"PATH": "/bin", "VIRTUAL_ENV": "/ours", "PYTHONHOME": "/ours", "KEPT": "1"}

    assert environment_for(host, base) == {
        "PATH": f"{checkout}/.venv/bin:/bin",
        "VIRTUAL_ENV": str(checkout / ".venv"),
        "KEPT": "1",
    }


def test_a_command_of_prime_rl_is_its_module_with_the_arguments_as_typed(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDARC_BACKEND", "slurm")
    host = require(locate(checkout, {}))

    argv, environment = command(host, "rl", ["@", "x y", "--a=b", ""])

    assert argv == [str(host.python), "-m", "prime_rl.entrypoints.rl", "@", "x y", "--a=b", ""]
    assert "MEDARC_BACKEND" not in environment


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--model.name", "X"], ["--vllm.model", "X"]),
        (["--model.name=X"], ["--vllm.model=X"]),
        (["--model.names", "X", "model.name"], ["--model.names", "X", "model.name"]),
    ],
)
def test_the_models_old_name_is_spelled_anew(checkout: Path, argv: list[str], expected: list[str]) -> None:
    assert expected == respelled(require(locate(checkout, {})), argv)


def test_an_older_prime_rl_keeps_its_spelling(tmp_path: Path) -> None:
    folder = checkout_at(tmp_path / "p")
    source = folder / "src" / "prime_rl" / "configs" / "inference.py"
    source.parent.mkdir()
    source.write_text("class InferenceConfig:\n    model: Model\n")

    assert respelled(require(locate(folder, {})), ["--model.name", "X"]) == ["--model.name", "X"]


def test_what_puts_prime_rl_right_is_one_command_here_in_the_job_and_in_the_readme() -> None:
    readme = Path(__file__).parents[2] / "README.md"

    assert f"uv sync --project ../prime-rl {module.SYNC.removeprefix('uv sync ')}\n" in readme.read_text()
    assert module.MEND == f"{module.SYNC} --inexact" == environment.MEND
