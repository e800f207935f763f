"""From what was typed to a `Resolved` config: with prime-rl when it is there, merged when it is not.

What prime-rl has answered before is taken from the cache, and several configs are resolved in one process.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medarc_plugin.errors import (
    ConfigRejectedError,
    HostBrokenError,
    MedarcError,
    UnknownShapeError,
    UsageError,
)
from medarc_plugin.host import diagnosis, fields, resolver
from medarc_plugin.host.cache import Cache, Imports, Surroundings, folder_for
from medarc_plugin.host.locate import commit_of
from medarc_plugin.host.memory import with_memory
from medarc_plugin.host.merge import merge, read_files
from medarc_plugin.models import GpuNeeds, Host, Request, Resolved
from medarc_plugin.process import TIMED_OUT, run_apart

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from medarc_plugin.options import SlurmOptions
    from medarc_plugin.process import Completed

TIMEOUT = 300.0
"""Seconds that prime-rl's interpreter may take to the first config, and from one to the next. Its imports
take about 10 on a fast file system and minutes on a cold network one."""


@dataclass
class Question:
    """One config to be resolved.

    Attributes:
        request: What was typed.
        options: The settled options.
        host: prime-rl; `None` for an unchecked merge.
    """

    request: Request
    options: SlurmOptions
    host: Host | None


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
    (outcome,) = resolve_all([Question(request, options, host)])
    if isinstance(outcome, MedarcError):
        raise outcome
    return outcome


def resolve_all(
    questions: Sequence[Question],
    progress: Callable[[int], None] | None = None,
    *,
    seconds: float | None = None,
) -> list[Resolved | MedarcError]:
    """Resolve several configs: those that prime-rl has not seen yet, in one process of its interpreter.

    Args:
        questions: The configs.
        progress: Told how many are done, now and then.
        seconds: How long prime-rl's interpreter may take for the first; `TIMEOUT` unless given.

    Returns:
        What `resolve` returns or raises, for each question.
    """
    outcomes: dict[int, Resolved | MedarcError] = {}
    asked: dict[Host, dict[int, dict[str, Any]]] = {}
    for index, question in enumerate(questions):
        try:
            wishes = _wishes(question.request, question.options)
            if question.host is None:
                outcomes[index] = _merged(question, wishes, None, None)
            else:
                asked.setdefault(question.host, {})[index] = wishes
        except MedarcError as error:
            outcomes[index] = error
    for host, wishes_by_index in asked.items():
        counted = _counted_from(len(outcomes), progress)
        outcomes |= _checked(questions, wishes_by_index, host, counted, seconds or TIMEOUT)
    return [outcomes[index] for index in range(len(questions))]


def _counted_from(done: int, progress: Callable[[int], None] | None) -> Callable[[int], None] | None:
    return None if progress is None else lambda more: progress(done + more)


def _checked(
    questions: Sequence[Question],
    wishes_by_index: Mapping[int, dict[str, Any]],
    host: Host,
    progress: Callable[[int], None] | None,
    seconds: float,
) -> dict[int, Resolved | MedarcError]:
    """Resolve configs for one prime-rl: from the cache, the rest by asking it."""
    commit, dirty = commit_of(host.directory)
    host = replace(host, commit=commit, dirty=dirty)
    requests = {
        index: {
            "entrypoint": questions[index].request.entrypoint,
            "arguments": list(questions[index].request.arguments),
            "fields": fields.__file__,
            "wishes": wishes,
        }
        for index, wishes in wishes_by_index.items()
    }
    memory = _Memory(host)
    known: dict[int, dict[str, Any]] = {}
    for index, request in requests.items():
        found = memory.recall(request) if questions[index].request.cache else None
        if found is not None:
            known[index] = found
    open_ones = {index: request for index, request in requests.items() if index not in known}
    began = time.time()
    try:
        asked = _ask_all(list(open_ones.values()), host, _counted_from(len(known), progress), seconds)
    except MedarcError as error:
        asked = [error] * len(open_ones)
    answers: dict[int, dict[str, Any] | MedarcError] = {**known, **dict(zip(open_ones, asked, strict=True))}
    memory = memory.renewed()
    outcomes: dict[int, Resolved | MedarcError] = {}
    for index, answer in answers.items():
        if index not in known and isinstance(answer, dict) and questions[index].request.cache:
            memory.keep(requests[index], answer, began)
        try:
            outcomes[index] = _outcome(
                questions[index], wishes_by_index[index], host, answer, cached=index in known
            )
        except MedarcError as error:
            outcomes[index] = error
    return outcomes


def _outcome(
    question: Question,
    wishes: dict[str, Any],
    host: Host,
    answer: dict[str, Any] | MedarcError,
    *,
    cached: bool,
) -> Resolved:
    """Turn what prime-rl answered into a `Resolved`, or raise what stands in the way."""
    if isinstance(answer, MedarcError):
        raise answer
    try:
        _raise_for(answer, host, question.request)
    except UnknownShapeError as error:
        if question.request.check:
            raise
        return _merged(question, wishes, host, fields.SHAPES[error.nearest])
    return _resolved(question.request, question.options, answer, host, cached=cached)


class _Memory:
    """The cache, as one prime-rl's configs use it.

    Args:
        host: prime-rl, with its commit.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._environment = environment_for(host)
        self._surroundings = Surroundings(host)
        self._cache = Cache(folder_for())
        self._keys: dict[str, str | None] = {}

    def renewed(self) -> _Memory:
        """Look everything up anew, but remember the keys of before."""
        memory = _Memory(self._host)
        memory._keys = self._keys
        return memory

    def recall(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """Return the answer to a request, if it still holds."""
        key = self._keys[json.dumps(request)] = self._key(request)
        answer = None if key is None else self._cache.get(key, self._environment)
        return answer if answer is not None and _is_whole(answer) else None

    def keep(self, request: dict[str, Any], answer: dict[str, Any], began: float) -> None:
        """Keep an answer, unless what it came from changed meanwhile."""
        key = self._key(request)
        imports = answer.get("imports")
        if imports is not None and key is not None and key == self._keys.get(json.dumps(request)):
            self._cache.put(key, answer, imports, self._environment, began)

    def _key(self, request: dict[str, Any]) -> str | None:
        return self._surroundings.key(
            request["entrypoint"], request["arguments"], request["wishes"], self._environment
        )


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


def _ask_all(
    requests: Sequence[dict[str, Any]], host: Host, progress: Callable[[int], None] | None, seconds: float
) -> list[dict[str, Any] | MedarcError]:
    """Ask prime-rl's interpreter: for all of them in one process, and where one ends it, each apart."""
    answers: list[dict[str, Any] | MedarcError] = []
    apart = False
    while len(answers) < len(requests):
        left = requests[len(answers) :]
        asked = _ask(left, host, _counted_from(len(answers), progress), seconds, apart=apart)
        answers += asked.answers
        at_hand = left[len(asked.answers) :]
        if not at_hand:
            break
        if not asked.ready:
            # It ends before it is at any config.
            answers += [diagnosis.of_failure(host, asked.done)] * len(at_hand)
        elif apart or len(left) == 1 or asked.done.returncode == TIMED_OUT:
            answers.append(_of_end(host, at_hand[0], asked.done))
        apart = True
    return answers


def _of_end(host: Host, request: Mapping[str, Any], done: Completed) -> MedarcError:
    entrypoint, arguments = request["entrypoint"], request["arguments"]
    if done.returncode == TIMED_OUT:
        during = f" while it resolved {diagnosis.configs_in(arguments)}"
        return diagnosis.of_patience(host, done, diagnosis.own_command(host, entrypoint, arguments), during)
    return diagnosis.of_end(host, entrypoint, arguments, done.returncode, done.stdout + done.stderr)


@dataclass(frozen=True)
class _Asked:
    """What a process of prime-rl's interpreter has said.

    Attributes:
        answers: In the order of the requests, as many as there are.
        ready: Whether prime-rl was imported.
        done: How it ended.
    """

    answers: list[dict[str, Any]]
    ready: bool
    done: Completed


def _ask(
    requests: Sequence[dict[str, Any]],
    host: Host,
    progress: Callable[[int], None] | None,
    seconds: float,
    *,
    apart: bool,
) -> _Asked:
    """Run the resolver in prime-rl's interpreter."""
    try:
        # Files without a name: nothing of them is left behind when this process is killed.
        with tempfile.TemporaryFile() as question, tempfile.TemporaryFile() as said:
            question.write("".join(json.dumps(request) + "\n" for request in requests).encode())
            question.flush()
            files = (question.fileno(), said.fileno())
            argv = [str(host.python), resolver.__file__, *(f"/proc/self/fd/{number}" for number in files)]
            done = run_apart(
                [*argv, "apart"] if apart else argv,
                env=environment_for(host),
                timeout=seconds,
                news=_counting(said.fileno(), progress),
                keep=files,
            )
            said.seek(0)
            written = said.read()
    except OSError as error:
        raise HostBrokenError(
            f"prime-rl cannot be asked: {error.filename or tempfile.gettempdir()}: {error.strerror}",
            hint="TMPDIR names another folder for temporary files",
        ) from None
    lines = written.splitlines(keepends=True)
    # An interpreter that was ended may have been writing a line.
    whole = lines if done.ok else [line for line in lines if line.endswith(b"\n")]
    answers = [_read_answer(line, host) for line in whole]
    ready = next((answer for answer in answers if answer["kind"] == "ready"), None)
    answers = [answer for answer in answers if answer["kind"] != "ready"]
    if ready is not None:
        imports = Imports(ready["imports"])
        for answer in answers:
            answer["imports"] = imports
    return _Asked(answers, ready is not None, done)


def _counting(answers: int, progress: Callable[[int], None] | None) -> Callable[[], int]:
    """Count the answers that are there, and tell how many there are."""
    read, lines = 0, 0

    def count() -> int:
        nonlocal read, lines
        with suppress(OSError):
            while more := os.pread(answers, 2**20, read):
                read += len(more)
                lines += more.count(b"\n")
        if progress is not None:
            progress(max(0, lines - 1))
        return lines

    return count


def _read_answer(line: bytes, host: Host) -> dict[str, Any]:
    """Read what the resolver wrote; whoever else answered is no prime-rl."""
    try:
        answer: dict[str, Any] = json.loads(line)
        if answer["kind"] == "resolved" and not _is_whole(answer):
            raise KeyError("document, facts or shape")  # noqa: TRY301 - caught below
    except (ValueError, TypeError, KeyError) as error:
        raise HostBrokenError(
            f"{host.interpreter} gave no answer that can be read: {type(error).__name__}: {error}",
            hint=diagnosis.is_it_one(host),
        ) from None
    return answer


def _is_whole(answer: Mapping[str, Any]) -> bool:
    """Whether an answer holds what only the resolver can say."""
    try:
        _ = answer["document"]["output_dir"], answer["facts"]["train"], answer["shape"], answer["warnings"]
    except (TypeError, KeyError):
        return False
    return True


def _raise_for(answer: dict[str, Any], host: Host, request: Request) -> None:
    kind = answer["kind"]
    if kind == "ended":
        raise diagnosis.of_end(host, request.entrypoint, request.arguments, answer["code"], answer["words"])
    if kind == "rejected":
        shape = fields.SHAPES[answer["shape"]]
        raise ConfigRejectedError(
            answer["message"], hint="these are prime-rl's own words" + _other_release(request, shape)
        )
    if kind == "contradiction":
        raise UsageError(answer["message"], hint=answer["hint"])
    if kind == "missing-module":
        raise diagnosis.of_environment(host, answer)
    if kind == "broken":
        raise diagnosis.of_import(host, answer)
    if kind == "unknown-shape":
        raise _unknown_shape(answer, host)


def _other_release(request: Request, shape: fields.Shape) -> str:
    """Say that a config was written for another release of prime-rl; nothing when none of its keys does."""
    try:
        document = merge(fields.spelled(request.arguments, request.entrypoint, shape))
    except MedarcError:
        return ""
    found = fields.foreign(document, request.entrypoint, shape)
    if found is None:
        return ""
    other, keys = found
    example = shape.examples.get(request.entrypoint)
    are = "is a key" if len(keys) == 1 else "are keys"
    see = f": this project's {example} shows how it spells things" if example else ""
    return f"; {_listed(keys)} {are} of prime-rl {other.name}, and this one is like {shape.name}{see}"


MOST_NAMED = 6
"""Fields that a sentence names."""


def _unknown_shape(answer: Mapping[str, Any], host: Host) -> UnknownShapeError:
    """Say which fields were looked for, and what is there."""
    where = f"{host.directory or host.python}, commit {(host.commit or 'unknown')[:9]}"
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


def _merged(
    question: Question, wishes: dict[str, Any], host: Host | None, shape: fields.Shape | None
) -> Resolved:
    """Merge a config that nobody checks."""
    request = question.request
    shape = shape or fields.guess(read_files(request.arguments), request.entrypoint)
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
    return _resolved(request, question.options, answer, host, checked=False)


def _resolved(
    request: Request,
    options: SlurmOptions,
    answer: dict[str, Any],
    host: Host | None,
    *,
    checked: bool = True,
    cached: bool = False,
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
        cached=cached,
    )
    return with_memory(resolved, options, fixed=found["names_share"])


def _nowhere() -> UsageError:
    return UsageError(
        "where should the run go? Neither the command line nor the config says so",
        hint="--output-dir DIR names the run directory",
    )
