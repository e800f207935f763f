"""Completion in the shells themselves. Those that are not installed are skipped."""

import os
import pty
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
PROGRAMS = "/usr/bin:/bin"


@pytest.fixture
def project(work):
    """A folder with what can be completed, and medarc_slurm on PATH."""
    (work / "medarc.toml").write_text("[profile.day]\n[profile.debug]\n")
    for name in ("a.toml", "sp ace.toml", "b.txt"):
        (work / name).write_text("")
    (work / "my dir").mkdir()
    return work


def script_of(shell, *further):
    return subprocess.run(
        [BIN / "medarc_slurm", "completion", shell, *further], capture_output=True, text=True, check=True
    ).stdout


def run(argv, text=None):
    environment = {**os.environ, "PATH": f"{BIN}:{PROGRAMS}"}
    done = subprocess.run(
        argv, input=text, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr == ""
    return done.stdout


def in_a_shell(argv, text, lines):
    """Run some lines in one shell and return what each printed."""
    text += "".join(f"echo '== {number}'\n{line}\n" for number, line in enumerate(lines))
    printed = run(argv, text).split("== ")[1:]
    return {line: part.splitlines()[1:] for line, part in zip(lines, printed, strict=True)}


def need(shell):
    if shutil.which(shell, path=PROGRAMS) is None:
        pytest.skip(f"{shell} is not installed")


# What readline does before it calls the function: bash(1), Programmable Completion.
BASH = """
compopt() { printf 'compopt %s\\n' "$*"; }
try() {
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
    local current="${COMP_WORDS[COMP_CWORD]}"
    [[ $current == = ]] && current=
    _medarc_slurm "$1" "$current" "${COMP_WORDS[COMP_CWORD - 1]}"
    ((${#COMPREPLY[@]} == 0)) || printf '%s\\n' "${COMPREPLY[@]}"
}
"""


def test_bash(project):
    expected = {
        "try medarc_slurm do": ["doctor"],
        "try medarc_slurm rl --gpu-f": ["--gpu-flag"],
        "try medarc_slurm rl --profile ''": ["day", "debug"],
        "try medarc_slurm rl --profile =": ["day", "debug"],
        "try medarc_slurm rl --profile = de": ["debug"],
        "try medarc_slurm rl sp": ["compopt -o filenames -o plusdirs -o default", "sp ace.toml"],
        "try medarc_slurm rl --output-dir m": ["compopt -o dirnames -o filenames"],
        "try medarc_slurm rl -- ''": ["compopt -o default"],
        f"try {BIN}/medarc_slurm do": ["doctor"],
        "try ./elsewhere/medarc_slurm do": ["doctor"],
        "try rl --backend slurm --gpu-f": ["--gpu-flag"],
        "complete -p rl": ["complete -F _medarc_slurm rl"],
    }
    script = script_of("bash", "--scripts")

    assert in_a_shell(["bash", "--norc"], script + BASH, list(expected)) == expected


def test_prime_rls_names_are_left_alone_unless_asked_for(project):
    known = run(["bash", "--norc"], script_of("bash") + "complete -p\n")

    assert known == "complete -F _medarc_slurm medarc_slurm\n"


def test_a_press_of_the_tab_key_in_bash(project):
    (project / "script.bash").write_text(script_of("bash"))
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(PATH=f"{BIN}:{PROGRAMS}", TERM="dumb", INPUTRC="/dev/null", PS1="$ ")
        os.execvp("bash", ["bash", "--norc", "-i"])

    def type_in(keys, until):
        os.write(terminal, keys)
        seen = b""
        while until not in seen:
            seen += os.read(terminal, 4096)

    type_in(b"source script.bash; echo rea''dy\n", until=b"ready\r\n")
    type_in(b"medarc_slurm rl --profile=de\t", until=b"--profile=debug")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(terminal)


# The functions of zsh's completion system that the script calls: zshcompsys(1).
ZSH = """
compdef() { print -r -- "compdef $*" }
_describe() { print -rl -- "${(@P)3%%:*}" }
_files() { print -r -- "_files $*" }
compset() { print -r -- "compset $*" }
try() {
    local -a words=("$@")
    local CURRENT=$# PREFIX="${@[-1]}"
    _medarc_slurm
}
"""


def test_zsh(project):
    need("zsh")
    expected = {
        "try medarc_slurm do": ["doctor"],
        "try medarc_slurm rl --profile de": ["debug"],
        "try medarc_slurm rl --profile=de": ["--profile=debug"],
        "try medarc_slurm rl s": ["_files -g *.toml"],
        "try medarc_slurm rl --output-dir ''": ["_files -/"],
        "try medarc_slurm rl --output-dir=": ["compset -P *=", "_files -/"],
    }

    found = in_a_shell(["zsh", "-f"], ZSH + script_of("zsh"), list(expected))

    assert {line: [word.partition(":")[0] for word in words] for line, words in found.items()} == expected


def test_fish(project):
    need("fish")
    expected = {
        "complete -C 'medarc_slurm do'": ["doctor"],
        "complete -C 'medarc_slurm rl --profile '": ["day", "debug"],
        "complete -C 'medarc_slurm rl --profile=de'": ["--profile=debug"],
        "complete -C 'medarc_slurm rl sp'": ["sp ace.toml"],
        "complete -C 'medarc_slurm rl --output-dir m'": ["my dir/"],
        "complete -C 'medarc_slurm rl --output-dir=m'": ["--output-dir=my dir/"],
    }

    found = in_a_shell(["fish", "--no-config"], script_of("fish"), list(expected))

    assert {line: [word.partition("\t")[0] for word in words] for line, words in found.items()} == expected


def test_the_shell_that_is_used_is_the_default(cli, project):
    assert "compdef" in cli("medarc_slurm", "completion", SHELL="/usr/bin/zsh").out
    done = cli("medarc_slurm", "completion", SHELL="/bin/tcsh")
    assert (done.code, done.out) == (2, "")
    assert "hint: name one: bash, zsh, fish" in done.err
    assert cli("medarc_slurm", "completion", "ksh").code == 2


def test_a_path_with_a_quote_and_a_space_stays_whole(project, monkeypatch):
    from medarc_plugin.cli import completing

    for shell in completing.SHELLS:
        text = completing.script(shell, "/a b/it's/medarc_slurm", ["medarc_slurm"])
        assert "@PROGRAM@" not in text
        if shutil.which(shell, path=PROGRAMS):
            run([shell, "-n"], text)


def test_completing_imports_neither_options_nor_typer(project):
    code = (
        "import sys; from medarc_plugin.cli import completing;"
        "list(completing.answers('medarc_slurm', ['rl'], '--'));"
        "print(*{'typer', 'pydantic', 'rich', 'medarc_plugin.options'} & sys.modules.keys())"
    )
    run([sys.executable, "-c", code])

    assert run([sys.executable, "-c", code]) == "\n"
