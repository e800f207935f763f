"""The import hook by itself: which programs it serves, and that it leaves nothing behind."""

from __future__ import annotations

import ast
import importlib
import inspect
import pickle
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from medarc_plugin.host import importhook
from medarc_plugin.host.importhook import Finder, backend_in, install

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "prime_rl.entrypoints.rl"
LINE = Path(importhook.__file__).with_suffix(".pth").read_text(encoding="ascii")
SCRIPT = """#!/bin/sh
'''exec' "/a folder/with a long name/bin/python" "$0" "$@"
' '''
# -*- coding: utf-8 -*-
import sys
from prime_rl.entrypoints.rl import main
if __name__ == "__main__":
    sys.exit(main())
"""
MODULE = """
class RLConfig:
    pass

def main():
    return 43
"""


@pytest.fixture
def prime_rl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """prime-rl's script and module, in a process that is that script with a backend; all undone."""
    (tmp_path / "prime_rl" / "entrypoints").mkdir(parents=True)
    (tmp_path / "prime_rl" / "entrypoints" / "rl.py").write_text(MODULE)
    script = tmp_path / "rl"
    script.write_text(SCRIPT)
    monkeypatch.delenv("MEDARC_BACKEND", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "argv", [str(script), "--backend", "slurm"])
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield script
    for name in [name for name in sys.modules if name.partition(".")[0] == "prime_rl"]:
        del sys.modules[name]


def is_in_force() -> bool:
    return any(isinstance(finder, Finder) for finder in sys.meta_path)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], None),
        (["@", "x"], None),
        (["--backend", "slurm"], "slurm"),
        (["@", "x", "--backend=local"], "local"),
        (["--backend"], ""),
        (["--backends", "slurm"], None),
        (["--", "--backend", "slurm"], None),
    ],
)
def test_the_backend_is_found_without_reading_the_rest(argv: list[str], expected: str | None) -> None:
    assert expected == backend_in(argv, {"MEDARC_BACKEND": ""})


def test_the_variable_counts_where_the_command_line_names_none() -> None:
    environment = {"MEDARC_BACKEND": "local"}

    assert [backend_in([], environment), backend_in(["--backend", "slurm"], environment)] == [
        "local",
        "slurm",
    ]


def test_prime_rls_script_gets_our_command_and_everybody_after_it_prime_rls_module(
    prime_rl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    monkeypatch.setattr(importhook, "_our_command", lambda name: lambda: called.append(name))
    install()
    install()
    light = importlib.import_module(NAME)
    light.main()
    module = importlib.import_module(NAME)

    assert called == ["rl"]
    assert not is_in_force()
    assert module is not light
    assert (module.main(), module.__spec__.origin) == (
        43,
        str(prime_rl.parent / "prime_rl/entrypoints/rl.py"),
    )
    assert module is sys.modules["prime_rl.entrypoints"].rl
    assert inspect.getsource(module) == MODULE
    assert pickle.loads(pickle.dumps(module.RLConfig)) is module.RLConfig
    assert importlib.reload(module) is module


@pytest.mark.parametrize(
    "argv",
    [
        ["{script}"],
        ["{script}", "--", "--backend", "slurm"],
        ["{script}", "--job-name", "my--backend"],
        ["{folder}/missing/rl", "--backend", "slurm"],
        ["{folder}/prime_rl", "--backend", "slurm"],
        ["{folder}/other/rl", "--backend", "slurm"],
        ["{folder}/sft", "--backend", "slurm"],
    ],
)
def test_other_programs_are_left_alone(
    prime_rl: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str]
) -> None:
    """No backend, no such file, a folder, somebody's own `rl`, and a script of another command."""
    folder = prime_rl.parent
    (folder / "other").mkdir()
    (folder / "other" / "rl").write_text("from prime_rl.entrypoints.rl import main as theirs\n")
    (folder / "sft").write_text(SCRIPT)
    monkeypatch.setattr(sys, "argv", [part.format(script=prime_rl, folder=folder) for part in argv])
    install()

    assert not is_in_force()
    assert importlib.import_module(NAME).main() == 43


def test_the_line_is_one_and_no_python_3_stumbles_over_it() -> None:
    tree = ast.parse(LINE, feature_version=(3, 4))

    assert (LINE.count("\n"), len(tree.body)) == (1, 2)
    assert LINE.startswith("import ")


@pytest.mark.parametrize(
    "state",
    [
        "del sys.argv",
        "sys.argv = None",
        "sys.argv = []",
        "sys.argv = ['']",
        "sys.argv = ['rl']",
        "sys.argv = ['/bin/rl', '@', 'x']",
        "sys.argv = ['/bin/trainer', '--backend', 'slurm']",
        "sys.stdout = sys.stderr = None; sys.argv = ['rl', '--backend']; sys.modules['medarc_plugin'] = None",
    ],
)
def test_the_line_does_nothing_for_interpreters_of_other_programs(state: str) -> None:
    """Those that have no arguments too, as one within another program, and those that cannot print."""
    code = f"import sys; real = sys.stdout; before = {{*sys.modules}}; {state}\n{LINE}\n"
    code += "print(sorted({*sys.modules} - before - {'medarc_plugin'}), file=real)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={"PATH": "/bin"}
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
