"""prime-rl: where it is, what its environment has, and what it makes of a config."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import medarc_plugin
from medarc_plugin.doctor.findings import Finding, failed, of_error, ok, skipped, warning
from medarc_plugin.doctor.machine import hooks_in
from medarc_plugin.errors import ConfigRejectedError, HostError, MedarcError, UsageError
from medarc_plugin.host import diagnosis, locate
from medarc_plugin.host.resolve import environment_for
from medarc_plugin.models import Resolved
from medarc_plugin.process import TIMED_OUT, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from medarc_plugin.doctor.subject import Subject
    from medarc_plugin.models import Entrypoint, Host

PACKAGES = ("torch", "vllm", "transformers", "verifiers")
"""What a run needs beside prime-rl's own code."""

NONE = "there is no prime-rl"

DEEP_SECONDS = 200.0
"""For torch and vLLM to be imported, from a cold network file system."""


def place(subject: Subject) -> Iterator[Finding]:
    """Where prime-rl is, and which."""
    host = subject.host.or_say_why()
    if host is None:
        yield failed(
            "not found: neither --prime-rl-dir, PRIME_RL_DIR, ./prime-rl nor this environment has it",
            locate.GET_PRIME_RL,
        )
        return
    commit, dirty = locate.commit_of(host.directory)
    version = _installed(host).get("prime-rl")
    words = f", version {version}" if version else ""
    words += f", commit {commit[:9]}" if commit else ""
    words += " with local changes" if dirty else ""
    yield ok(f"{host.directory or host.python}{words} ({host.source})")
    empty = diagnosis.empty_submodules(host)
    if empty:
        words = "one of its submodules is" if len(empty) == 1 else f"{len(empty)} of its submodules are"
        yield warning(f"{words} empty", diagnosis.fill(host, empty))


def interpreter(subject: Subject) -> Iterator[Finding]:
    """prime-rl's Python starts, and is one that it can use."""
    host = subject.host()
    if host is None:
        yield skipped(NONE)
        return
    version = subject.version()
    wrong = diagnosis.wrong_version(host, version)
    if version is None:
        yield failed(f"{host.python} does not start, or is no Python", diagnosis.REPAIR)
    elif wrong:
        yield failed(f"{host.python} is {wrong}", diagnosis.REPAIR)
    else:
        yield ok(f"{version} at {host.python}")


def packages(subject: Subject) -> Iterator[Finding]:
    """Packages of prime-rl's environment, by their names alone: nothing is imported."""
    host = subject.host()
    if host is None:
        yield skipped(NONE)
        return
    found = _installed(host)
    there = [f"{name} {found[name]}" for name in PACKAGES if name in found]
    missing = [name for name in PACKAGES if name not in found]
    if missing:
        words = f"; it has {', '.join(there)}" if there else ""
        yield failed(
            f"its environment lacks {', '.join(missing)}, without which no run starts{words}",
            diagnosis.REPAIR,
        )
    else:
        yield ok(", ".join(there))
    if hooks_in(host.python.parent.parent):
        yield ok("this package is installed there too, and its import hook")


def _installed(host: Host) -> dict[str, str]:
    """Versions of the packages in an environment, as the names in its site-packages tell them."""
    found: dict[str, str] = {}
    for folder in host.python.parent.parent.glob("lib*/python3*/site-packages"):
        for name in os.listdir(folder):  # noqa: PTH208 - names alone, hundreds of them
            if match := re.fullmatch(r"(.+?)-([^-]+)\.dist-info", name):
                found[match[1].replace("_", "-").lower()] = match[2]
    return found


def schema(subject: Subject) -> Iterator[Finding]:
    """prime-rl resolves a config, and its schema is one that this version knows."""
    if subject.host() is None:
        yield skipped(NONE)
        return
    answers = subject.answers()
    good = [answer for answer in answers.values() if isinstance(answer, Resolved)]
    if good:
        cached = " (as it said before; nothing has changed since)" if good[0].cached else ""
        yield ok(f"{good[0].shape}{cached}")
        return
    error = _most_telling(answers)
    if isinstance(error, ConfigRejectedError | UsageError):
        # A config that it refuses, it has at least understood: `config` says so.
        yield ok("known") if subject.config else of_error(error)
    else:
        yield of_error(error)


def environments(subject: Subject) -> Iterator[Finding]:
    """The environments that the config names can be imported; those of the example without one."""
    if subject.host() is None:
        yield skipped(NONE)
        return
    answers = subject.answers()
    good = {name: answer for name, answer in answers.items() if isinstance(answer, Resolved)}
    if subject.config is None:
        yield _of_the_example(answers["rl"])
        return
    if not good:
        yield of_error(_most_telling(answers))
        return
    for name, answer in list(good.items())[:1]:
        named = ", ".join(answer.environments)
        words = f"{subject.config} is a config for {name}"
        yield ok(f"{words}; importable: {named}" if named else f"{words}, and names no environment")


def _of_the_example(answer: Resolved | MedarcError) -> Finding:
    if isinstance(answer, Resolved):
        return ok(f"importable: {', '.join(answer.environments)}")
    if isinstance(answer, HostError) and "lacks" in answer.message:
        return warning(f"{answer.message} (the example's)", answer.hint or "")
    return skipped("prime-rl resolves no config")


def _most_telling(answers: dict[Entrypoint, Resolved | MedarcError]) -> MedarcError:
    """Of several refusals the one that got furthest: an environment, then a value, then an unknown field."""
    errors = [answer for answer in answers.values() if isinstance(answer, MedarcError)]

    def how_far(error: MedarcError) -> tuple[bool, bool, int]:
        # A field that is not known tells that the config is another command's.
        strange = "Extra inputs are not permitted" in error.message
        return isinstance(error, ConfigRejectedError), strange, len(error.message)

    return min(errors, key=how_far)


def imports(subject: Subject) -> Iterator[Finding]:
    """prime-rl's interpreter imports what a run imports, with `--deep`."""
    host = subject.host()
    if host is None:
        yield skipped(NONE)
        return
    if not subject.deep:
        yield skipped("torch and vLLM are not imported; --deep does")
        return
    good = [answer for answer in subject.answers().values() if isinstance(answer, Resolved)]
    named = sorted({name.replace("-", "_") for answer in good for name in answer.environments})
    parts = [*(["imports"] if named else []), "vLLM"]
    count = _gpus_here()
    question = {"mark": f"medarc-{os.urandom(8).hex()}", "environments": named, "gpus": count}
    question["parts"] = [*(["GPUs in torch"] if count else []), *parts]
    folder = Path(medarc_plugin.__file__).parent / "job"
    argv = [str(host.python), str(folder), "probe", json.dumps(question)]
    done = run(argv, env=environment_for(host), timeout=DEEP_SECONDS)
    yield from _read(question["parts"], str(question["mark"]), done.stdout, done.returncode)


def _gpus_here() -> int:
    done = run(["nvidia-smi", "-L"], timeout=8)
    return sum(line.startswith("GPU ") for line in done.stdout.splitlines())


def _read(parts: object, mark: str, output: str, code: int) -> Iterator[Finding]:
    """Turn what `job.probe` printed into findings."""
    statuses = {"ok": ok, "FAIL": failed, "warn": warning, "skip": skipped}
    done: list[str] = []
    for line in output.splitlines():
        if not line.startswith(f"{mark} "):
            continue
        said = json.loads(line[len(mark) + 1 :])
        if said["kind"] == "found":
            done.append(said["part"])
            for status, text, *hint in said["findings"]:
                yield statuses[status](text, *hint)
    left = [part for part in parts if part not in done] if isinstance(parts, list) else []
    if left:
        how = (
            f"gave no answer within {DEEP_SECONDS:g} s"
            if code == TIMED_OUT
            else f"ended with exit code {code}"
        )
        yield failed(f"prime-rl's interpreter {how} at: {', '.join(left)}")
