"""From what was typed to a `Resolved` config: with prime-rl when it is there, merged when it is not."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medarc_plugin.errors import (
    ConfigRejectedError,
    HostBrokenError,
    UnknownShapeError,
    UsageError,
)
from medarc_plugin.host import fields, resolver
from medarc_plugin.host.locate import commit_of
from medarc_plugin.host.memory import with_memory
from medarc_plugin.host.merge import merge, read_files
from medarc_plugin.models import GpuNeeds, Host, Request, Resolved
from medarc_plugin.process import TIMED_OUT, run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from medarc_plugin.options import SlurmOptions

TIMEOUT = 300.0
"""Seconds that prime-rl's interpreter may take. Its imports take about 10 on a fast file system and
minutes on a cold network one."""


def resolve(request: Request, options: SlurmOptions, host: Host | None) -> Resolved:
    """Resolve a request's config.

    Args:
        request: What was typed.
        options: The settled options.
        host: prime-rl, or `None` for an unchecked merge.

    Returns:
        The config with the run directory, GPUs and facts that the plan needs.

    Raises:
        UsageError: A contradiction between flags and config.
        ConfigRejectedError: prime-rl's parser refused the config; its words, whole.
        HostBrokenError: prime-rl's interpreter does not work.
        UnknownShapeError: prime-rl's schema is not known here.
    """
    wishes = _wishes(request, options)
    if host is None:
        shape = fields.guess(read_files(request.arguments), request.entrypoint)
        return _unchecked(request, options, wishes, None, shape)
    commit, dirty = commit_of(host.directory)
    host = replace(host, commit=commit, dirty=dirty)
    try:
        answer = _ask(request, wishes, host)
    except UnknownShapeError as error:
        if request.check:
            raise
        return _unchecked(request, options, wishes, host, fields.SHAPES[error.nearest])
    return _resolved(request, options, answer, host)


def _wishes(request: Request, options: SlurmOptions) -> dict[str, Any]:
    """Say what the flags want of prime-rl's fields; checks the flags against each other."""
    gpus = request.gpus
    for name, value in (
        ("--gpus", gpus.gpus),
        ("--train-gpus", gpus.train),
        ("--infer-gpus", gpus.infer),
    ):
        if value is not None and value < 1:
            raise UsageError(f"{name} {value}: a run needs at least one GPU there")
    wishes: dict[str, Any] = {"single_gpu": options.single_gpu, "ckpt_interval": options.ckpt_interval}
    if request.run_dir is not None:
        wishes |= {"parent": str(request.run_dir.parent), "name": request.run_dir.name}
    if request.entrypoint == "rl":
        wishes |= _rl_wishes(request, options)
    elif request.entrypoint == "sft":
        if None not in (gpus.gpus, gpus.train) and gpus.gpus != gpus.train:
            raise UsageError(
                f"--gpus {gpus.gpus} and --train-gpus {gpus.train} contradict each other: for sft both "
                "are the trainer's GPUs"
            )
        wishes |= {"train": gpus.gpus or gpus.train, "infer": gpus.infer}
    else:
        if gpus.train is not None:
            raise UsageError("inference has no trainer: --train-gpus does not apply; use --gpus")
        if None not in (gpus.gpus, gpus.infer) and gpus.gpus != gpus.infer:
            raise UsageError(f"--gpus {gpus.gpus} and --infer-gpus {gpus.infer} contradict each other")
        if options.single_gpu:
            raise UsageError("inference has no trainer to share a GPU with: drop --single-gpu")
        wishes["gpus"] = gpus.gpus or gpus.infer
    _check_single(request, options)
    return wishes


def _rl_wishes(request: Request, options: SlurmOptions) -> dict[str, Any]:
    gpus = request.gpus
    if gpus.gpus is not None and not (options.single_gpu and gpus.gpus == 1):
        raise UsageError(
            f"--gpus {gpus.gpus}: rl has two kinds of GPUs",
            hint="use --train-gpus N and --infer-gpus M, or --single-gpu for both on one",
        )
    return {"train": gpus.train, "infer": gpus.infer}


def _check_single(request: Request, options: SlurmOptions) -> None:
    if not options.single_gpu:
        return
    for name, value in (
        ("--gpus", request.gpus.gpus),
        ("--train-gpus", request.gpus.train),
        ("--infer-gpus", request.gpus.infer),
    ):
        if value not in (None, 1):
            raise UsageError(
                f"--single-gpu and {name} {value} contradict each other",
                hint=f"drop {name}, or drop --single-gpu",
            )


def _ask(request: Request, wishes: dict[str, Any], host: Host) -> dict[str, Any]:
    """Run the resolver in prime-rl's interpreter and sort out what it answers."""
    with tempfile.TemporaryDirectory(prefix="medarc-") as folder:
        question, answer_file = Path(folder, "request.json"), Path(folder, "answer.json")
        question.write_text(
            json.dumps(
                {
                    "entrypoint": request.entrypoint,
                    "arguments": list(request.arguments),
                    "fields": fields.__file__,
                    "wishes": wishes,
                }
            ),
            encoding="utf-8",
        )
        argv = [str(host.python), resolver.__file__, str(question), str(answer_file)]
        done = run(argv, env=environment_for(host), timeout=TIMEOUT)
        if not (done.ok and answer_file.exists()):
            what = "did not answer" if done.returncode == TIMED_OUT else "failed"
            raise HostBrokenError(
                f"prime-rl's interpreter {host.python} ({host.source}) {what}:\n{done.describe()}",
                hint="`uv sync --all-extras` in prime-rl's checkout repairs its environment",
            )
        answer = _read_answer(answer_file, host)
    _raise_for(answer, host)
    return answer


def _read_answer(path: Path, host: Host) -> dict[str, Any]:
    """Read what the resolver wrote; whoever else answered is no prime-rl."""
    try:
        answer: dict[str, Any] = json.loads(path.read_bytes())
        if answer["kind"] == "resolved":
            # Whoever can say these is the resolver.
            _ = answer["document"]["output_dir"], answer["facts"]["train"], answer["shape"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise HostBrokenError(
            f"prime-rl's interpreter {host.python} ({host.source}) gave no answer that can be read: "
            f"{type(error).__name__}: {error}",
            hint="is it a Python? PRIME_RL_PYTHON, or .venv/bin/python in the checkout, names it",
        ) from None
    return answer


def _raise_for(answer: dict[str, Any], host: Host) -> None:
    kind = answer["kind"]
    if kind == "rejected":
        raise ConfigRejectedError(answer["message"], hint="these are prime-rl's own words")
    if kind == "contradiction":
        raise UsageError(answer["message"], hint=answer["hint"])
    if kind == "missing-module":
        raise HostBrokenError(
            f"prime-rl's environment lacks the module {answer['missing']!r}: {answer['message']}",
            hint="`uv sync --all-extras --all-packages` in prime-rl's checkout installs the environments "
            f"that it ships; another one: `uv pip install --no-deps --python {host.python} FOLDER`",
        )
    if kind == "broken":
        missing = answer.get("missing")
        raise HostBrokenError(
            f"prime-rl ({host.source}, {host.python}) cannot be imported:\n{answer['message'].strip()}",
            hint=(f"its environment lacks {missing!r}: " if missing else "")
            + "`uv sync --all-extras` in prime-rl's checkout repairs it",
        )
    if kind == "unknown-shape":
        raise _unknown_shape(answer, host)


MOST_NAMED = 6
"""Fields that a sentence names."""


def _unknown_shape(answer: Mapping[str, Any], host: Host) -> UnknownShapeError:
    """Say which fields were looked for, and what is there."""
    where = f"{host.directory or host.python}, commit {host.commit or 'unknown'}"
    lines = [f"this prime-rl ({where}) has a config schema that this plugin does not know"]
    lines += [f"  to be {name} it lacks {_listed(paths)}" for name, paths in answer["lacking"].items()]
    for table, names in answer["beside"].items():
        lines.append(f"  it has {f'in [{table}]' if table else 'at the top'}: {_listed(names)}")
    return UnknownShapeError(
        "\n".join(lines),
        nearest=answer["nearest"],
        hint="use a prime-rl that the README names, or a newer medarc_plugin; --no-check goes on with an "
        f"unchecked config, as for {answer['nearest']}",
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MOST_NAMED])
    return shown if len(names) <= MOST_NAMED else f"{shown} and {len(names) - MOST_NAMED} more"


def environment_for(host: Host, base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Build the environment for prime-rl's commands on this machine.

    Its `bin` comes first on PATH, since its launcher starts further commands by name; what belongs to
    this project's own environment is taken out.
    """
    environment = {
        name: value
        for name, value in base.items()
        if name not in {"PYTHONHOME", "VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "UV_RUN_RECURSION_DEPTH"}
    }
    folder = host.python.parent
    environment["PATH"] = f"{folder}{os.pathsep}{base.get('PATH', os.defpath)}"
    if (folder.parent / "pyvenv.cfg").exists():
        environment["VIRTUAL_ENV"] = str(folder.parent)
    return environment


def _unchecked(
    request: Request, options: SlurmOptions, wishes: dict[str, Any], host: Host | None, shape: fields.Shape
) -> Resolved:
    document = merge(fields.spelled(request.arguments, request.entrypoint, shape))
    written = {name: document.pop(name, None) for name in shape.launcher_fields}
    names_share = fields.names_share(document, shape)
    try:
        fields.apply(document, request.entrypoint, wishes, shape)
        found = fields.facts(document, request.entrypoint, shape)
    except fields.FieldError as error:
        raise UsageError(error.message, hint=error.hint) from None
    found |= {
        name: str(written[field]).lower() == "true"
        for name, field in (("clean", shape.clean), ("dry_run", "dry_run"))
    }
    found["names_share"] = names_share
    answer = {"document": document, "facts": found, "shape": shape.name, "warnings": []}
    return _resolved(request, options, answer, host, checked=False)


def _resolved(
    request: Request,
    options: SlurmOptions,
    answer: dict[str, Any],
    host: Host | None,
    *,
    checked: bool = True,
) -> Resolved:
    found = answer["facts"]
    shared = options.single_gpu and found["infer"] > 0
    gpus = GpuNeeds(found["train"], found["infer"], shared)
    if not shared and gpus.allocated > found["gpus_per_node"]:
        raise UsageError(
            f"{gpus.allocated} GPUs ({gpus.train} train + {gpus.infer} inference) are more than the "
            f"{found['gpus_per_node']} of a node",
            hint="ask for fewer, or set deployment.gpus_per_node when the nodes have more",
        )
    if request.run_dir is not None:
        run_dir = request.run_dir
    elif request.entrypoint == "inference":
        # prime-rl's default is the folder above everybody's runs, not one to lay a run in.
        if found["output_dir"] == fields.DEFAULT_OUTPUT_DIR:
            raise _nowhere()
        run_dir = Path(found["output_dir"])
    elif found["run_dir_name"] is not None:
        run_dir = Path(found["output_dir"]) / found["run_dir_name"]
    else:
        raise _nowhere()
    resolved = Resolved(
        entrypoint=request.entrypoint,
        # A relative output_dir is one of the config's paths, which mean what they mean in the job.
        run_dir=Path(os.path.abspath((options.project_dir or Path()) / run_dir)),  # noqa: PTH100
        gpus=gpus,
        gpus_per_node=found["gpus_per_node"],
        model=found["model"],
        environments=tuple(found["environments"]),
        max_steps=found["max_steps"],
        checkpoint_interval=found["checkpoint_interval"],
        saves=found["saves"],
        wandb=found["wandb"],
        memory_share=found["memory_share"],
        clean=found["clean"],
        resume=found["resume"],
        dry_run=found["dry_run"],
        document=answer["document"],
        shape=answer["shape"],
        checked=checked,
        warnings=tuple(answer["warnings"]),
        host=host,
        ports=found.get("ports"),
    )
    return with_memory(resolved, options, fixed=found["names_share"])


def _nowhere() -> UsageError:
    return UsageError(
        "where should the run go? Neither the command line nor the config says so",
        hint="--output-dir DIR names the run directory",
    )
