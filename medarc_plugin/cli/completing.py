"""Shell completion: says what may stand where the cursor is, quickly.

The scripts in `shells` call `medarc_slurm _complete SHELL PROGRAM WORDS... CURRENT` at each press of the tab
key. What commands and options there are is looked up once and kept in a file (`completion_table`), so that no
press imports what the commands need: this module imports next to nothing. Each answer is a line of a kind, a
value and a help, with tabs between them; kinds beside `plain` leave it to the shell to list files.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

COMMAND = "_complete"
SHELLS = ("bash", "zsh", "fish")
LAUNCHES = ("rl", "sft", "inference")
OURS = "medarc_slurm"

BACKEND = "--backend"
BACKEND_VARIABLE = "MEDARC_BACKEND"

MOST_RUNS = 30
SLURM_SECONDS = 2.0
"""For a question to SLURM while somebody waits for a list of names."""


class Answer(NamedTuple):
    """A way to go on.

    Attributes:
        value: The word; empty for a kind that the shell lists.
        help: What it means.
        kind: `plain`, or what the shell is to list: `file`, `dir`, `config`.
    """

    value: str
    help: str = ""
    kind: str = "plain"


def main(arguments: Sequence[str]) -> int:
    """Print the answers to a press of the tab key; whatever goes wrong, nothing is better than noise."""
    with contextlib.suppress(Exception):
        shell, program, *words = arguments
        *before, current = words or [""]
        if shell == "bash":
            before, current, head = _joined(before, current)
        else:
            head = ""
        for answer in answers(program, before, current):
            print_answer(answer, head)
    return 0


def _joined(before: Sequence[str], current: str) -> tuple[list[str], str, str]:
    """Put `--a = b` together, as bash takes it apart; an answer is then without the part before the `=`.

    Returns:
        The words, the one at the cursor, and what bash has not asked for of it.
    """
    words: list[str] = []
    for word in before:
        if word == "=" and words and words[-1].startswith("--"):
            words[-1] += "="
        elif words and words[-1].startswith("--") and words[-1].endswith("="):
            words[-1] += word
        else:
            words.append(word)
    if words and words[-1].startswith("--") and words[-1].endswith("="):
        head = words.pop()
        return words, head + current, head
    return words, current, ""


def print_answer(answer: Answer, head: str = "") -> None:
    """Print a line; what no line can hold is left out."""
    value = answer.value.removeprefix(head)
    if value.isprintable() and answer.help.isprintable():
        sys.stdout.write(f"{answer.kind}\t{value}\t{answer.help}\n")


def answers(program: str, before: Sequence[str], current: str) -> Iterator[Answer]:
    """Say how a command line goes on.

    Args:
        program: The command's name, `medarc_slurm` or one of the launches.
        before: The words before the cursor, without the command.
        current: The beginning of the word at the cursor.
    """
    from medarc_plugin.cli.completion_table import table

    commands = table()
    name = os.path.basename(program)  # noqa: PTH119 - spares an import
    if name in LAUNCHES:
        if not _has_backend(before):
            yield from _script_without_backend(commands[name], before, current)
            return
        path, before = [name], list(before)
    else:
        path, before = _command_of(commands, before)
        if " ".join(path) not in commands:
            return
    command = commands[" ".join(path)]
    if command["commands"]:
        yield from _matching(command["commands"].items(), current)
        if not current.startswith("-"):
            return
    yield from _of_command(command, before, current, config_first=name not in LAUNCHES)


def _has_backend(words: Sequence[str]) -> bool:
    named = any(word == BACKEND or word.startswith(f"{BACKEND}=") for word in words)
    return named or bool(os.environ.get(BACKEND_VARIABLE))


def _script_without_backend(
    command: Mapping[str, Any], before: Sequence[str], current: str
) -> Iterator[Answer]:
    """Without a backend the command is prime-rl's own, whose options only prime-rl knows."""
    if current.startswith("-"):
        backend = next(one for one in command["options"] if BACKEND in one["names"])
        yield from _matching([(BACKEND, backend["help"])], current)
        yield from _attached(command, current)
    elif before and before[-1] == "@":
        yield Answer("", kind="config")
    else:
        yield Answer("", kind="file")


def _command_of(commands: Mapping[str, Any], words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Find the command that some words name, and the words behind its name."""
    path: list[str] = []
    left = list(words)
    while left:
        command = commands[" ".join(path)]
        if not command["commands"]:
            break
        word = left.pop(0)
        if not word.startswith("-"):
            path.append(word)
            if word not in command["commands"]:
                break
    return path, left


def _of_command(
    command: Mapping[str, Any], before: Sequence[str], current: str, *, config_first: bool
) -> Iterator[Answer]:
    """Go on with a command's options and arguments."""
    if "--" in before:
        yield Answer("", kind="file")
        return
    option = _option_of(command, before[-1]) if before else None
    if option is not None and option["value"]:
        if option["value"] == "metric":
            yield from _metrics(command, before[:-1], current)
        else:
            yield from _values(option["value"], current)
    elif current.startswith("-") and "=" in current:
        yield from _attached(command, current)
    elif current.startswith("-"):
        yield from _options(command, current)
    elif before and before[-1] == "@":
        yield Answer("", kind="config")
    elif command["launch"]:
        yield Answer("", kind="config" if config_first and not _has_flags(before) else "file")
    else:
        yield from _argument(command, before, current)


def _has_flags(words: Sequence[str]) -> bool:
    return any(word.startswith("-") for word in words)


def _option_of(command: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    for option in command["options"]:
        if name in option["names"] or name in option["further"]:
            return dict(option)
    return None


def _options(command: Mapping[str, Any], current: str) -> Iterator[Answer]:
    further = current.startswith("--slurm.")
    for option in command["options"]:
        names = option["further"] if further else option["names"]
        # Of short and long names the long one says more.
        shown = [name for name in names if name.startswith("--")] if current != "-" else names[-1:]
        yield from _matching([(name, option["help"]) for name in shown], current)


def _attached(command: Mapping[str, Any], current: str) -> Iterator[Answer]:
    """Go on behind `--name=`."""
    name, equals, rest = current.partition("=")
    option = _option_of(command, name)
    if equals and option is not None and (option["value"] or option["attached"]):
        for answer in _values(option["value"] or option["attached"], rest):
            yield answer if answer.kind != "plain" else answer._replace(value=f"{name}={answer.value}")


def _argument(command: Mapping[str, Any], before: Sequence[str], current: str) -> Iterator[Answer]:
    kinds = command["arguments"]
    if not kinds:
        return
    given = len(list(_given(command, before)))
    number = min(given, len(kinds) - 1)
    if given < len(kinds) or kinds[number]["many"]:
        yield from _values(kinds[number]["value"], current)


def _given(command: Mapping[str, Any], before: Sequence[str]) -> Iterator[str]:
    """The arguments among some words: neither options nor their values."""
    words = iter(before)
    for word in words:
        option = _option_of(command, word)
        if (option is not None and option["value"]) or word == "@":
            next(words, None)
        elif not word.startswith("-"):
            yield word


def _metrics(command: Mapping[str, Any], before: Sequence[str], current: str) -> Iterator[Answer]:
    """List what prime-rl has measured in the run that is named, or in the newest."""
    from medarc_plugin import runs as found
    from medarc_plugin.report.history import metric_keys

    keys = metric_keys(found.find(next(_given(command, before), None)))
    yield from _matching([(key, "") for key in keys], current)


def _matching(pairs: Any, current: str) -> Iterator[Answer]:  # noqa: ANN401 - pairs of words and their help
    for value, words in pairs:
        if value.startswith(current):
            yield Answer(value, words)


def _values(kind: str, current: str) -> Iterator[Answer]:
    """List what a value may be.

    Args:
        kind: What it is: `file`, `dir`, `config`, `=A,B` for one of some words, or a name in `NAMES`.
        current: Its beginning.
    """
    if kind in {"file", "dir", "config"}:
        yield Answer("", kind=kind)
    elif kind.startswith("="):
        yield from _matching([(value, "") for value in kind[1:].split(",")], current)
    elif kind in NAMES:
        yield from _matching(NAMES[kind](), current)
        if kind == "run":
            yield Answer("", kind="dir")


def profiles() -> Iterator[tuple[str, str]]:
    """Names of profiles, of every file that can be read."""
    import tomllib

    from medarc_plugin import project

    seen = set()
    for path in project.profile_places():
        with contextlib.suppress(OSError, ValueError):
            for name in tomllib.loads(path.read_text(encoding="utf-8-sig")).get("profile", {}):
                if name not in seen:
                    seen.add(name)
                    yield name, str(path)


def runs() -> Iterator[tuple[str, str]]:
    """The newest runs of the project, else of the user: job ids, and directories below this one."""
    from pathlib import Path

    from medarc_plugin import index, project

    known = list(reversed(index.entries()))
    here = str(project.root())
    mine = [entry for entry in known if entry.project == here] or known
    newest = {entry.run_dir: entry for entry in reversed(mine)}
    for entry in list(reversed(newest.values()))[:MOST_RUNS]:
        folder = Path(entry.run_dir)
        with contextlib.suppress(ValueError):
            folder = folder.relative_to(Path.cwd())
        what = f"rehearsal of {entry.entrypoint}" if entry.rehearsal else entry.entrypoint
        yield entry.job_id, f"{what} in {folder}"
        yield str(folder), f"{what}, job {entry.job_id}"


def _asked(*argv: str) -> list[list[str]]:
    """What one of SLURM's commands prints, a row a line; none when it does not answer soon."""
    from medarc_plugin.process import run
    from medarc_plugin.slurm.gateway import HERE

    done = run(argv, env=HERE.environment, timeout=SLURM_SECONDS)
    rows = [line.split("|") for line in done.stdout.splitlines() if line] if done.ok else []
    return list(map(list, dict.fromkeys(map(tuple, rows))))


def partitions() -> Iterator[tuple[str, str]]:
    """Partitions, with the GPUs of their nodes."""
    found: dict[str, list[str]] = {}
    for name, gres in _asked("sinfo", "-h", "-a", "-o", "%R|%G"):
        found.setdefault(name, []).extend([] if gres == "(null)" else [gres])
    for name, kinds in found.items():
        yield name, ", ".join(kinds)


def gpu_types() -> Iterator[tuple[str, str]]:
    """Types of GPUs."""
    seen = set()
    for (text,) in _asked("sinfo", "-h", "-a", "-o", "%G"):
        for part in text.split(","):
            words = part.partition("(")[0].split(":")
            if words[0] == "gpu" and len(words) > 2 and words[1] not in seen:  # noqa: PLR2004 - gpu:TYPE:COUNT
                seen.add(words[1])
                yield words[1], ""


def accounts() -> Iterator[tuple[str, str]]:
    """The user's accounts."""
    yield from _associated("account")


def qos() -> Iterator[tuple[str, str]]:
    """The QoS that go with them."""
    yield from _associated("qos")


def _associated(column: str) -> Iterator[tuple[str, str]]:
    import getpass

    rows = _asked("sacctmgr", "-n", "-P", "show", "assoc", f"user={getpass.getuser()}", f"format={column}")
    for name in dict.fromkeys(name for row in rows for cell in row for name in cell.split(",") if name):
        yield name, ""


NAMES = {
    "profile": profiles,
    "run": runs,
    "partition": partitions,
    "gpu_type": gpu_types,
    "account": accounts,
    "qos": qos,
}
"""Kinds of values whose names are looked up when somebody asks."""


def script(shell: str, program: str, names: Sequence[str]) -> str:
    """Write the script for a shell.

    Args:
        shell: One of `SHELLS`.
        program: Where `medarc_slurm` is, for names that are not its own.
        names: The commands that it completes.
    """
    import shlex
    from pathlib import Path

    text = Path(__file__).with_name("shells").joinpath(f"{OURS}.{shell}").read_text(encoding="utf-8")
    quoted = shlex.quote(program)
    if shell == "fish":
        quoted = "'" + program.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return text.replace("@PROGRAM@", quoted).replace("@NAMES@", " ".join(names))
