"""Split a command line into what is ours and what is prime-rl's.

A parser library would refuse, reorder or reinterpret arguments that it does not know; prime-rl's have
to arrive as they were typed. So this is a single pass over the tokens: a token that is one of our
flags is taken, with the next token as its value whatever that looks like (`--job-name -x` is a job
named `-x`), everything else is prime-rl's, and so is all that follows `--`.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medarc_plugin.errors import UsageError
from medarc_plugin.models import Entrypoint, GpuRequest, Request
from medarc_plugin.options import flag, is_switch, knobs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VALUE_FLAGS = {
    "--backend": ("NAME", "Where the run goes: slurm, local, or what a plugin offers."),
    "--output-dir": (
        "DIR",
        "The run directory. Unset: output_dir and run.name of the config. {stem}: the name of CONFIG.",
    ),
    "--profile": ("NAME", "Section of medarc.toml to take options from. Unset: MEDARC_PROFILE."),
    "--gpus": ("N", "GPUs of an SFT or inference run."),
    "--train-gpus": ("N", "GPUs of the trainer."),
    "--infer-gpus": ("N", "GPUs of vLLM."),
}
"""Flags of a launch that take a value, with what stands for it and their help."""

PRIME_RL_FLAGS = {
    "--resume": "Go on with the run that the directory holds; --resume.step N from that checkpoint.",
}
"""prime-rl's own flags that say something to the plugin too, for the help."""

SWITCHES = {
    "--dry-run": "Write script and configs, show the plan and the sbatch command, submit nothing.",
    "--clean": "Delete what an earlier run left in the run directory.",
    "--rehearse": "Submit a job of 5 minutes that runs every check and launches nothing.",
    "--no-check": "Submit although prime-rl is not here to check the config.",
    "--no-cache": "Ask prime-rl, although it has resolved the very same config before.",
    "--sandbox": "Use the private SLURM in .slurm-sandbox (--sandbox=DIR: another), started when down.",
    "--help": "Show this and exit.",
}
"""Flags of a launch that take none."""

SHORT = {"-h": "--help"}

PASSED_ON = "--resume"
"""prime-rl's flag, which the plugin reads as well: the run directory may then hold a run."""

_SHARED = frozenset({"--clean", "--dry-run"})
"""Switches that are fields of prime-rl's config too: turned off, they also overrule the config file."""

_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}


@dataclass
class Parsed:
    """A command line, split.

    Attributes:
        launch: Our launch flags that take a value.
        switches: Our launch flags that take none.
        denied: Those that were turned off.
        sandbox: Folder given with `--sandbox=DIR`.
        options: Values for `SlurmOptions`.
        passed: What is prime-rl's.
        positional: Tokens before the first of prime-rl's that belong to no flag.
    """

    launch: dict[str, str] = field(default_factory=dict)
    switches: set[str] = field(default_factory=set)
    denied: set[str] = field(default_factory=set)
    sandbox: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    passed: list[str] = field(default_factory=list)
    positional: list[str] = field(default_factory=list)


def option_flags() -> dict[str, str]:
    """Map every spelling of every option to its field."""
    spellings: dict[str, str] = {}
    for name, knob in knobs().items():
        dashed = name.replace("_", "-")
        for spelling in (f"--{dashed}", f"--slurm.{dashed}", f"--slurm.{name}", *knob.flags):
            spellings[spelling] = name
    return spellings


def parse(arguments: Sequence[str]) -> Parsed:
    """Split a command line.

    Raises:
        UsageError: One of our flags lacks its value, or has one that it does not take.
    """
    parsed = Parsed()
    spellings = option_flags()
    tokens = list(arguments)
    while tokens:
        token = tokens.pop(0)
        if token == "--":
            _refuse_ours(tokens)
            parsed.passed += tokens
            break
        name, attached = _flag_in(token, spellings)
        if name in VALUE_FLAGS:
            parsed.launch[name] = _value(name, attached, tokens)
        elif name in SWITCHES:
            _take_switch(parsed, name, attached, tokens)
        elif name in spellings:
            _take_option(parsed, spellings[name], name, attached, tokens)
        elif name.startswith("--slurm."):
            raise _unknown_option(name, spellings)
        elif token.startswith("-") or parsed.passed or token == "@":
            parsed.passed.append(token)
            if token == "@" and tokens:
                parsed.passed.append(tokens.pop(0))
        else:
            parsed.positional.append(token)
    parsed.passed += [f"--no-{name[2:]}" for name in sorted(_SHARED & parsed.denied)]
    return parsed


def _flag_in(token: str, spellings: Mapping[str, str]) -> tuple[str, str | None]:
    """Take a token apart into a flag, in the one spelling that `parse` knows, and its value.

    prime-rl takes `--dry_run` for `--dry-run`, so both are ours; `--no-clean` is `--clean=false`.
    """
    name, equals, value = token.partition("=")
    name, attached = SHORT.get(name, name), value if equals else None
    if not name.startswith("--"):
        return name, attached
    dashed = name.replace("_", "-")
    if dashed in VALUE_FLAGS or dashed in SWITCHES or dashed in spellings:
        return dashed, attached
    positive = f"--{dashed.removeprefix('--no-')}"
    off = positive in _SHARED or (positive in spellings and is_switch(spellings[positive]))
    if dashed != positive and off and attached is None:
        return positive, "false"
    return name, attached


def requests_from(
    entrypoint: Entrypoint, arguments: Sequence[str], *, default_backend: str, config_first: bool
) -> tuple[Request, ...]:
    """Turn a command line into requests: one for each bare config file, or one.

    Args:
        entrypoint: Which prime-rl command.
        arguments: The command line without the program's name.
        default_backend: Backend when `--backend` is not given.
        config_first: Whether bare first tokens are config files, as for `medarc_slurm rl CONFIG`: each is a
            run of its own, and what else is prime-rl's is for all of them.

    Raises:
        UsageError: The command line cannot be used.
    """
    for token in arguments:
        if not token.isprintable() and any("\ud800" <= character <= "\udfff" for character in token):
            raise UsageError(f"an argument is not UTF-8 text: {token!a}")
    parsed = parse(arguments)
    place = parsed.launch.get("--output-dir")
    if not config_first:
        if parsed.positional:
            first = parsed.positional[0]
            raise UsageError(
                f"{first!r} is neither an option nor an override",
                hint=f"a config file is given as `@ {first.lstrip('@')}`, with a space",
            )
        return (_request(entrypoint, parsed, parsed.passed, default_backend, place),)
    if not parsed.passed and not parsed.positional:
        raise UsageError(
            "which config? None is given",
            hint=f"medarc_slurm {entrypoint} CONFIG --output-dir DIR [OPTIONS] [OVERRIDES]",
        )
    _check_places(parsed.positional, place)
    return tuple(
        _request(entrypoint, parsed, ["@", config, *parsed.passed], default_backend, _place_of(config, place))
        for config in parsed.positional
    ) or (_request(entrypoint, parsed, parsed.passed, default_backend, place),)


STEM = "{stem}"
"""In `--output-dir`: the config's name without its suffix."""


def _place_of(config: str, place: str | None) -> str | None:
    return None if place is None else place.replace(STEM, Path(config).stem)


def _check_places(configs: Sequence[str], place: str | None) -> None:
    """Several runs need a directory each."""
    if len(configs) > 1 and STEM not in (place or ""):
        raise UsageError(
            f"{len(configs)} configs are as many runs, and each needs a directory of its own"
            + (f": --output-dir {place} is one" if place else ""),
            hint=f"--output-dir runs/{STEM}, where {STEM} is a config's name without its suffix; to merge "
            f"files into one run: {configs[0]} @ {configs[1]}",
        )
    seen: dict[Path | None, str] = {}
    for config in configs if len(configs) > 1 else ():
        folder = _run_dir(_place_of(config, place))
        if folder in seen:
            raise UsageError(
                f"{seen[folder]} and {config} would both run in {folder}",
                hint="give the files different names, or launch them one by one",
            )
        seen[folder] = config


def _request(
    entrypoint: Entrypoint, parsed: Parsed, passed: Sequence[str], default_backend: str, place: str | None
) -> Request:
    resume = _resumes(passed)
    if resume and "--clean" in parsed.switches:
        raise UsageError(
            "--resume and --clean contradict each other: one goes on with what the other deletes"
        )
    return Request(
        entrypoint=entrypoint,
        backend=parsed.launch.get("--backend", default_backend),
        arguments=tuple(passed),
        options=parsed.options,
        gpus=GpuRequest(*(_count(parsed, name) for name in ("--gpus", "--train-gpus", "--infer-gpus"))),
        run_dir=_run_dir(place),
        dry_run="--dry-run" in parsed.switches,
        clean="--clean" in parsed.switches,
        resume=resume,
        check="--no-check" not in parsed.switches,
        rehearse="--rehearse" in parsed.switches,
        cache="--no-cache" not in parsed.switches,
        profile=parsed.launch.get("--profile"),
        sandbox=Path(parsed.sandbox) if parsed.sandbox is not None else None,
    )


def _resumes(passed: Sequence[str]) -> bool:
    """Whether the last word on resuming is that the run does; `--no-resume` takes it back."""
    resume = False
    for token in passed:
        name = token.partition("=")[0]
        if name == PASSED_ON or name.startswith(f"{PASSED_ON}."):
            resume = True
        elif name == f"--no-{PASSED_ON[2:]}":
            resume = False
    return resume


def _refuse_ours(tokens: Sequence[str]) -> None:
    """`[slurm]` is ours in files too, so prime-rl would never see these."""
    for token in tokens:
        if token.startswith("--slurm."):
            raise UsageError(
                f"{token} stands after `--`, where everything is prime-rl's", hint="move it before"
            )


def _value(name: str, attached: str | None, tokens: list[str]) -> str:
    if attached is not None:
        return attached
    if not tokens:
        raise UsageError(f"{name} needs a value")
    return tokens.pop(0)


def _take_switch(parsed: Parsed, name: str, attached: str | None, tokens: list[str]) -> None:
    if name == "--sandbox":
        parsed.sandbox = ".slurm-sandbox" if attached is None else attached
        return
    # prime-rl's own language allows `--clean true`; so do we where it is the same flag.
    if attached is None and tokens and tokens[0].lower() in _BOOLEANS:
        attached = tokens.pop(0)
    if attached is not None and attached.lower() not in _BOOLEANS:
        raise UsageError(f"{name} takes no value, but got {attached!r}")
    if attached is None or _BOOLEANS[attached.lower()]:
        parsed.switches.add(name)
        parsed.denied.discard(name)
    else:
        parsed.switches.discard(name)
        parsed.denied.add(name)


def _take_option(parsed: Parsed, name: str, spelling: str, attached: str | None, tokens: list[str]) -> None:
    if is_switch(name):
        if attached is not None and attached.lower() not in _BOOLEANS:
            raise UsageError(f"{spelling} takes no value, but got {attached!r}")
        parsed.options[name] = attached is None or _BOOLEANS[attached.lower()]
        return
    value = _value(spelling, attached, tokens)
    if knobs()[name].repeatable:
        parsed.options[name] = (*parsed.options.get(name, ()), value)
    else:
        parsed.options[name] = value


def _unknown_option(name: str, spellings: dict[str, str]) -> UsageError:
    near = difflib.get_close_matches(name, spellings, n=1)
    hint = f"did you mean {near[0]}?" if near else "`medarc_slurm options` lists all options"
    return UsageError(f"unknown option {name}", hint=hint)


def _count(parsed: Parsed, name: str) -> int | None:
    text = parsed.launch.get(name)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{name} {text!r} is not a whole number") from None


def _run_dir(text: str | None) -> Path | None:
    if text is None:
        return None
    if "\0" in text or "\n" in text or "\r" in text:
        raise UsageError(f"--output-dir cannot hold a line break or NUL character: {text!r}")
    path = Path(os.path.abspath(os.path.expanduser(text)))  # noqa: PTH100, PTH111 - see `..` and `~nobody`
    if not text.strip() or not path.name:
        raise UsageError(f"--output-dir {text!r} is not a folder that a run can have to itself")
    return path


def help_text(usage: str, summary: str) -> str:
    """Write the help of a launch command.

    Args:
        usage: The line after `Usage:`.
        summary: What the command does.
    """
    from medarc_plugin.options import GROUPS, SlurmOptions, choices

    rows = [("Launch", f"{name} {metavar}", text) for name, (metavar, text) in VALUE_FLAGS.items()]
    rows += [("Launch", name, text) for name, text in (SWITCHES | PRIME_RL_FLAGS).items()]
    for name, knob in knobs().items():
        metavar = "" if knob.metavar is None else f" {knob.metavar}"
        info = SlurmOptions.model_fields[name]
        # Of a switch that is on, people type the other form.
        denied = [f"--no-{flag(name)[2:]}"] if info.default is True else []
        spelling = ", ".join([*knob.flags, flag(name), *denied])
        text = " ".join((info.description or "").split())
        if info.default not in (None, (), False) and not choices(name):
            text += f" Default: {'on' if info.default is True else info.default}."
        if knob.repeatable:
            text += " Repeatable."
        rows.append((knob.group, spelling + metavar, text))
    lines = [f"Usage: {usage}", "", summary]
    for group in ("Launch", *GROUPS):
        lines += ["", f"{group}:"]
        lines += [line for title, left, text in rows if title == group for line in _row(left, text)]
    lines += [
        "",
        "Every option of the last four groups is also --slurm.NAME, and a key of [slurm] in the config",
        "and in medarc.toml.",
        "Anything else is prime-rl's and reaches it as typed: @ FILE, --max-steps 5,",
        "--trainer.optim.lr 1e-6, and all that follows `--`.",
    ]
    return "\n".join(lines)


def _row(left: str, text: str) -> list[str]:
    import shutil
    import textwrap

    margin = 32
    width = max(60, min(shutil.get_terminal_size((100, 24)).columns, 110))
    body = textwrap.wrap(text, width - margin)
    if len(left) + 4 > margin:
        return [f"  {left}", *(" " * margin + line for line in body)]
    first = f"  {left}".ljust(margin) + (body[0] if body else "")
    return [first, *(" " * margin + line for line in body[1:])]
