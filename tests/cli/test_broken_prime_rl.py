"""A prime-rl that is not whole, or whose interpreter is odd: one error with the way out, and no files."""

from __future__ import annotations

import errno
import shutil
import sys
import tempfile
import textwrap
from typing import TYPE_CHECKING, Any

import pytest
from standin import make_checkout

from medarc_plugin import launch
from medarc_plugin.host import resolve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SFT = "max_steps = 3\n[data]\nbatch_size = 4\n"
RL = """
[trainer]
[orchestrator.renderer]
name = "prime-qwen3"
[[orchestrator.train.source]]
[orchestrator.train.source.env.taskset]
id = "word-ladder"
[inference]
"""
SUBMODULES = """
[submodule "verifiers"]
\tpath = deps/verifiers
[submodule "prime-envs"]
\tpath = deps/prime-envs
"""
LAUNCH = ("--backend", "slurm", "@", "run.toml", "--output-dir", "run", "--dry-run")


@pytest.fixture
def prime_rl(tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A whole checkout, which a test then breaks."""
    checkout = make_checkout(tmp_path / "prime-rl")
    monkeypatch.setenv("PRIME_RL_DIR", str(checkout))
    (work / "run.toml").write_text(SFT)
    return checkout


@pytest.fixture
def refused(here: Callable[..., Any], work: Path, prime_rl: Path) -> Callable[..., str]:
    """Run a command that must be refused with nothing written; return what it said, in one line."""

    def run(program: str = "sft") -> str:
        before = sorted(work.rglob("*"))
        result = here(program, *LAUNCH)

        assert (result.code, result.out) == (2, "")
        assert result.err.count("error: ") == 1
        assert "\nhint: " in result.err
        assert "Traceback" not in result.err
        assert sorted(work.rglob("*")) == before
        return " ".join(result.err.split())

    return run


def be_python(checkout: Path, lines: str) -> None:
    """Put a shell script in place of the interpreter; `$PYTHON` is the real one."""
    python = checkout / ".venv" / "bin" / "python"
    real = python.with_name("real-python")
    python.rename(real)
    python.write_text(f'#!/bin/sh\nPYTHON="{real}"\n{textwrap.dedent(lines)}\n')
    python.chmod(0o755)


def want_python(checkout: Path, wanted: str) -> None:
    project = checkout / "pyproject.toml"
    project.write_text(f'{project.read_text()}requires-python = "{wanted}"\n')


def empty_the_submodules(checkout: Path) -> None:
    (checkout / ".gitmodules").write_text(SUBMODULES)
    for name in ("verifiers", "prime-envs"):
        (checkout / "deps" / name).mkdir(parents=True)


def test_a_start_that_prints_and_warns_is_none_of_our_business(
    here: Callable[..., Any], work: Path, prime_rl: Path
) -> None:
    be_python(
        prime_rl,
        """
        echo '{"kind": "rejected"}'
        echo 'sitecustomize: DeprecationWarning' >&2
        exec "$PYTHON" -W always -c 'import runpy, sys, warnings
        print("welcome", flush=True)
        warnings.warn("old")
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name="__main__")' "$@"
        """.replace("        ", ""),
    )

    result = here("sft", *LAUNCH)

    assert result.code == 0, result.err
    assert "welcome" not in result.printed
    assert (work / "run" / "configs" / "sft.json").exists()


def test_one_that_hangs_is_ended_and_what_it_printed_is_shown(
    refused: Callable[..., str], prime_rl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "TIMEOUT", 1.0)
    be_python(
        prime_rl,
        """
        echo mounting the scratch
        echo lock is held >&2
        exec "$PYTHON" -c 'import signal; signal.pause()'
        """,
    )

    said = refused()

    assert "gave no answer within 1 s; it printed: mounting the scratch lock is held" in said
    assert "-c 'import prime_rl.configs.rl'` should come back" in said


def test_a_machine_without_room_for_the_question(
    refused: Callable[..., str], prime_rl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/scratch/medarc-1")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)

    said = refused()

    assert "prime-rl cannot be asked: /scratch/medarc-1: No space left on device" in said
    assert "TMPDIR names another folder" in said


def test_a_launch_that_is_killed_meanwhile_would_leave_no_file(
    refused: Callable[..., str], prime_rl: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (scratch := tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    be_python(prime_rl, f"echo {scratch}/* >>{tmp_path}/seen; exit 1")

    refused()

    assert set((tmp_path / "seen").read_text().split()) == {f"{scratch}/*"}


def test_one_that_does_nothing_is_no_prime_rl(refused: Callable[..., str], prime_rl: Path) -> None:
    be_python(prime_rl, "exit 0")

    said = refused()

    assert "gave no answer: " in said
    assert "is it a Python for this machine? PRIME_RL_PYTHON names another" in said


def test_one_that_fails_is_shown_without_its_traceback(refused: Callable[..., str], prime_rl: Path) -> None:
    be_python(
        prime_rl,
        """exec "$PYTHON" -c 'import sys
raise SystemError("no codec")' """,
    )

    assert "failed: " in (said := refused())
    assert "SystemError: no codec" in said


@pytest.mark.parametrize("lines", ["kill -9 $$", "echo loading >&2; exit 137"])
def test_one_that_is_killed_is_not_called_broken(
    refused: Callable[..., str], prime_rl: Path, lines: str
) -> None:
    be_python(prime_rl, lines)

    said = refused()

    assert "was killed by SIGKILL (out of memory?): " in said
    assert f"it printed: {'loading' if 'echo' in lines else '(nothing)'} hint: try again" in said
    assert "uv sync" not in said


def test_one_that_crashes_has_a_package_that_does_not_fit(
    refused: Callable[..., str], prime_rl: Path
) -> None:
    be_python(prime_rl, "kill -SEGV $$")

    said = refused()

    assert "was killed by SIGSEGV: " in said
    assert "hint: a compiled package of its environment does not fit this machine: `uv sync" in said


@pytest.mark.parametrize("wanted", ["~=3.2.0", ">=3.99,<3.100", "<3.3", "==3.2.*"])
def test_one_of_another_python_version(refused: Callable[..., str], prime_rl: Path, wanted: str) -> None:
    want_python(prime_rl, wanted)
    shutil.rmtree(prime_rl / ".venv" / "lib")

    said = refused()

    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"which is Python {version}, and prime-rl asks for {wanted}) cannot be imported" in said
    assert "makes one that fits; PRIME_RL_PYTHON names another" in said


@pytest.mark.parametrize("wanted", ["~=3.2", ">=3.2,<4.0", "no version", "!=3.2"])
def test_a_version_that_fits_is_not_blamed(refused: Callable[..., str], prime_rl: Path, wanted: str) -> None:
    want_python(prime_rl, wanted)
    shutil.rmtree(prime_rl / ".venv" / "lib")

    assert "asks for" not in refused()


@pytest.mark.parametrize("named", [True, False])
def test_one_that_is_no_program_of_this_machine(
    refused: Callable[..., str], prime_rl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    python = tmp_path / "python" if named else prime_rl / ".venv/bin/python"
    python.unlink(missing_ok=True)
    python.write_bytes(b"\x7fELF")
    python.chmod(0o755)
    if named:
        monkeypatch.setenv("PRIME_RL_PYTHON", str(python))

    said = refused()

    whose = "PRIME_RL_PYTHON" if named else "PRIME_RL_DIR"
    assert f"prime-rl's interpreter {python} ({whose}) cannot be started: Exec format error" in said
    assert f"PRIME_RL_PYTHON names {'it' if named else 'another'}" in said
    assert "uv sync" not in said


@pytest.mark.parametrize("fault", ["fails", "without prime-rl", "another version", "not there"])
def test_one_that_is_named_by_itself_is_blamed_by_that_name(
    refused: Callable[..., str], prime_rl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    python = tmp_path / "python"
    if fault == "fails":
        python.write_text("#!/bin/sh\necho sick >&2\nexit 4\n")
    elif fault != "not there":
        python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    if fault == "another version":
        want_python(prime_rl, "~=3.2.0")
    if python.exists():
        python.chmod(0o755)
    monkeypatch.setenv("PRIME_RL_PYTHON", str(python))

    said = refused()

    assert "PRIME_RL_PYTHON" in said.partition("hint: ")[0]
    assert "uv sync" not in said
    assert "PRIME_RL_DIR)" not in said


def test_one_so_old_that_it_cannot_read_the_resolver(refused: Callable[..., str], prime_rl: Path) -> None:
    want_python(prime_rl, "~=3.99.0")
    be_python(
        prime_rl,
        """
        case "$1" in
        -*) exec "$PYTHON" "$@";;
        esac
        printf 'Traceback (most recent call last):\\n  File "x", line 1\\nSyntaxError: invalid syntax\\n' >&2
        exit 1
        """,
    )

    said = refused()

    assert "and prime-rl asks for ~=3.99.0: " in said
    assert "SyntaxError: invalid syntax" in said


def test_a_prime_rl_that_is_half_installed(refused: Callable[..., str], prime_rl: Path) -> None:
    (package,) = prime_rl.glob(".venv/lib/python3*/site-packages/pydantic_config")
    package.unlink()

    said = refused()

    assert "ModuleNotFoundError: No module named 'pydantic_config'" in said
    assert "its environment lacks 'pydantic_config': `uv sync --all-extras --all-packages --inexact`" in said


def test_a_prime_rl_without_its_submodules(refused: Callable[..., str], prime_rl: Path) -> None:
    empty_the_submodules(prime_rl)
    shutil.rmtree(prime_rl / ".venv" / "lib")

    assert f"deps/verifiers, deps/prime-envs in {prime_rl} are empty: `git submodule update" in refused()


def test_submodules_that_are_there_are_not_blamed(refused: Callable[..., str], prime_rl: Path) -> None:
    empty_the_submodules(prime_rl)
    for name in ("verifiers", "prime-envs"):
        (prime_rl / "deps" / name / "README.md").touch()
    shutil.rmtree(prime_rl / ".venv" / "lib")

    assert "empty" not in refused()


@pytest.mark.parametrize(
    ("there", "hint"),
    [
        ("nothing", "`uv sync --all-extras --all-packages --inexact` in prime-rl's checkout installs"),
        ("submodules", "are empty: `git submodule update --init`"),
        ("package", "/deps/verifiers/environments/word-ladder` installs it there"),
    ],
)
def test_an_environment_that_is_not_installed(
    refused: Callable[..., str], prime_rl: Path, work: Path, there: str, hint: str
) -> None:
    (work / "run.toml").write_text(RL)
    if there == "submodules":
        empty_the_submodules(prime_rl)
    if there == "package":
        package = prime_rl / "deps/verifiers/environments/word-ladder"
        package.mkdir(parents=True)
        (package / "pyproject.toml").touch()

    said = refused("rl")

    assert "prime-rl's environment lacks the module 'word_ladder': taskset 'word-ladder' not found" in said
    assert hint in said
    assert f"--python {prime_rl}/.venv/bin/python" in said


def test_a_config_that_changes_while_it_is_read(
    refused: Callable[..., str], prime_rl: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve_and_change(*arguments: Any) -> Any:
        found = resolve.resolve_all(*arguments)
        (work / "run.toml").write_text(RL)
        return found

    monkeypatch.setattr(launch, "resolve_all", resolve_and_change)

    assert "run.toml changed while it was read" in refused()
