"""Resolve configs with prime-rl's own parser, in prime-rl's own interpreter.

Standard library only, and run as a file: `PYTHON resolver.py REQUESTS ANSWERS [apart]`. Each line of the
first is a request as JSON, with `entrypoint`, `arguments` (what is prime-rl's on the command line), `fields`
(path of the package `fields`) and `wishes`. For each a line is added to the other file, in the same order and
as soon as it is known: the answer as JSON. That is a file of its own since interpreters and libraries print
to standard output as they like. An exit code of 0 says that there is an answer to each, of whatever kind.

Before the first answer that prime-rl's classes are needed for stands one of the kind `ready`, with `imports`,
the files that these came from. What ends this process from there on is the doing of the config at hand. With
`apart` each config is resolved in a process of its own; where one ends its process, the answer says so, and
the next is resolved all the same.

An answer that is a config comes with `read`: what it came from, beside the request. See `Recorder`.
"""

import atexit
import contextlib
import functools
import importlib
import importlib.util
import json
import os
import signal
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

CLASSES = {
    "rl": ("prime_rl.configs.rl", "RLConfig"),
    "sft": ("prime_rl.configs.sft", "SFTConfig"),
    "inference": ("prime_rl.configs.inference", "InferenceConfig"),
}


FIELDS = "_medarc_fields"
"""What the package `fields` is called here."""

PATHS = (str, bytes, os.PathLike)

RESTLESS = frozenset(
    {
        "socket.connect",
        "socket.getaddrinfo",
        "subprocess.Popen",
        "os.posix_spawn",
        "os.system",
        "os.exec",
        "os.fork",
    }
)
"""What makes an answer good for once: it came from the network or from another program."""

MOST_WORDS = 20_000
"""Bytes of what a process printed before it ended, from its end."""

SECONDS_TO_LEAVE = 5
"""For what libraries do at an interpreter's end."""


def load(path: str) -> ModuleType:
    """Import a package by the path of its `__init__.py`, under a name that nothing else has."""
    name = FIELDS
    if name in sys.modules:
        return sys.modules[name]
    folder = [str(Path(path).parent)]
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=folder)
    assert spec is not None and spec.loader is not None  # noqa: PT018, S101 - a path always gives both
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def models_in(annotation: Any) -> Iterator[Any]:  # noqa: ANN401 - whatever pydantic was given
    """Yield the pydantic models that an annotation names, through unions and Annotated."""
    if hasattr(annotation, "model_fields"):
        yield annotation
        return
    for inner in getattr(annotation, "__args__", ()):
        yield from models_in(inner)


def has_path(model: Any, path: str) -> bool:  # noqa: ANN401 - a class of prime-rl's
    """Whether a model has a field at a dotted path, in any variant of a union on the way."""
    name, _, rest = path.partition(".")
    field = model.model_fields.get(name)
    if field is None:
        return False
    return not rest or any(has_path(inner, rest) for inner in models_in(field.annotation))


def table_on(model: Any, path: str) -> tuple[str, list[str]]:  # noqa: ANN401 - a class of prime-rl's
    """Find the innermost table on the way to a field that a model has.

    Returns:
        The table's path, empty for the top, and the names of its fields.
    """
    models, table = [model], ""
    for name in path.split(".")[:-1]:
        fields = [each.model_fields[name] for each in models if name in each.model_fields]
        inner = [other for field in fields for other in models_in(field.annotation)]
        if not inner:
            break
        models, table = inner, f"{table}.{name}".lstrip(".")
    return table, sorted({name for each in models for name in each.model_fields})


class Recorder:
    """Notes what this process reads, so that an answer can be used again while all of that is the same.

    Attributes:
        importing: Whether prime-rl is being imported, and no config is resolved yet.
        hindrance: Why no answer may be used again; empty when nothing speaks against it.
    """

    def __init__(self) -> None:
        self.importing = True
        self.hindrance = ""
        self._state_of_chance: Callable[[], object] = list
        self._chance: object = None
        self._imports: frozenset[str] = frozenset()
        self._variables: set[str] = set()
        # Of this request, and of all: what one config made a library read, the next finds in memory.
        self._paths: set[str] = set()
        self._folders: set[str] = set()
        self._all_paths: set[str] = set()
        self._all_folders: set[str] = set()
        given = {sysconfig.get_path("stdlib"), _folder(os.__file__)}
        self._standard = tuple(
            f"{path}{os.sep}" for path in given | {os.path.realpath(path) for path in given}
        )

    def start(self) -> None:
        """Begin with the environment: imports read it too, while their files are told by the modules."""
        for environment in (os.environ, os.environb):
            environment.__class__ = watched(type(environment), self._variables.add, self._hinder)
        # Before anybody takes it by name, as the module `random` does.
        os.urandom = self._hindering(os.urandom, "resolving it draws random numbers")
        self._state_of_chance = importlib.import_module("random").getstate
        # It draws a key when it is imported, which is nobody's config.
        importlib.import_module("multiprocessing.process")

    def imported(self) -> None:
        """prime-rl is imported; what is read from here on is a config's doing."""
        if not self.importing:
            return
        self.importing = False
        # No sooner: a hook costs at each of the many events of an import.
        sys.addaudithook(self._audit)
        for name in ("stat", "lstat", "access", "readlink"):
            setattr(os, name, self._noting(getattr(os, name)))
        self._chance = self._state_of_chance()

    def report(self, arguments: list[str]) -> dict[str, Any]:
        """Say what an answer came from, beside the configs that it names.

        Args:
            arguments: The request's.

        Returns:
            `paths`, whose state matters; `folders`, whose names do; `variables`; and `hindrance`.
        """
        if self._state_of_chance() != self._chance:
            self._hinder("resolving it draws random numbers")
        pairs = zip(["", *arguments], arguments)  # noqa: B905 - the one is longer
        files = [
            token if before == "@" else token.rpartition("@")[2]
            for before, token in pairs
            if is_file(before, token)
        ]
        self._all_paths |= self._paths - {os.path.abspath(file) for file in files}  # noqa: PTH100 - as noted
        self._all_folders |= self._folders
        self._paths.clear()
        self._folders.clear()
        modules = self._modules() - self._imports
        folders = {_folder(path) for path in modules} | self._all_folders | set(sys.path)
        folders |= {_folder(path) for path in self._imports if not _is_installed(path)}
        return {
            "paths": sorted(modules | self._all_paths),
            "folders": sorted(path for path in folders if path and not self._is_standard(path)),
            "variables": sorted(self._variables),
            "hindrance": self.hindrance,
        }

    def imports(self) -> list[str]:
        """List the files of the modules that are imported for any config, when they are."""
        self._imports = frozenset(self._modules())
        return sorted(self._imports)

    def _modules(self) -> set[str]:
        """Files of the modules that are imported, but Python's own and ours."""
        files = {
            getattr(module, "__file__", None)
            for name, module in list(sys.modules.items())
            if not name.startswith(FIELDS)
        }
        return {
            os.path.abspath(path)  # noqa: PTH100 - a link may be turned elsewhere
            for path in files - {__file__}
            if isinstance(path, str) and not self._is_standard(path)
        }

    def _is_standard(self, path: str) -> bool:
        return f"{path}{os.sep}".startswith(self._standard) and not _is_installed(path)

    def _hinder(self, words: str) -> None:
        if not self.importing:
            self.hindrance = self.hindrance or words

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in RESTLESS:
            self._hinder(f"resolving it calls {event}")
        elif event == "open":
            self._note(self._paths, arguments[0])
        elif event in {"os.listdir", "os.scandir"}:
            self._note(self._folders, arguments[0] or ".")

    def _hindering(self, function: Any, words: str) -> Any:  # noqa: ANN401 - of the module `os`
        def hindering(*args: Any) -> Any:  # noqa: ANN401 - as given
            self._hinder(words)
            return function(*args)

        return hindering

    def _noting(self, function: Any) -> Any:  # noqa: ANN401 - of the module `os`
        def noting(path: Any, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as given
            self._note(self._paths, path)
            return function(path, *args, **options)

        return noting

    def _note(self, where: set[str], path: Any) -> None:  # noqa: ANN401 - a descriptor, or a path of any kind
        if self.importing or not isinstance(path, PATHS):
            return
        name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - pathlib would ask again
        if not self._is_standard(name) and not name.endswith(".pyc"):
            where.add(name)


def is_file(before: str, token: str) -> bool:
    """Whether a token may name a config file: `@ FILE`, `@FILE`, `--model=@FILE`."""
    return before == "@" or (token != "@" and "@" in token)


def watched(plain: Any, seen: Callable[[str], None], everything: Callable[[str], None]) -> Any:  # noqa: ANN401
    """Derive a class of environment that tells what is looked up.

    Args:
        plain: The class of `os.environ`.
        seen: Told each name, as text.
        everything: Told when all of it is read.
    """

    class Watched(plain):  # type: ignore[misc] # the class has no public name
        def __getitem__(self, name: Any) -> Any:  # noqa: ANN401 - text, or bytes
            seen(os.fsdecode(name))
            return super().__getitem__(name)

        def __contains__(self, name: Any) -> bool:  # noqa: ANN401 - likewise
            seen(os.fsdecode(name))
            return bool(super().__contains__(name))

        def __iter__(self) -> Iterator[Any]:
            everything("the whole environment is read")
            names: Iterator[Any] = super().__iter__()
            return names

    return Watched


def _is_installed(path: str) -> bool:
    """Whether a file lies in an environment's packages, where none is added but by an installer."""
    return "-packages" in path


def _folder(path: str) -> str:
    return os.path.dirname(path)  # noqa: PTH120 - thousands of them


def missing_module(error: Any) -> Any:  # noqa: ANN401 - an exception, and a name or none
    """Name the module that an import did not find.

    verifiers says in words which environment is missing, and raises that from the import's own error.
    """
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name:
            return error.name
        error = error.__cause__
    return None


@functools.cache
def broken(entrypoint: str) -> dict[str, Any] | None:
    """Import prime-rl's config classes; an answer where that fails."""
    try:
        config_class_of(entrypoint)
        from pydantic_config import ConfigFileError, cli  # noqa: F401 - that they are there
    except BaseException as error:
        # Where it was raised, unless that is what looks for modules, or this file.
        frames = traceback.extract_tb(error.__traceback__)
        others = [frame for frame in frames if frame.filename not in (__file__, importlib.__file__)]
        found = [frame for frame in others if not frame.filename.startswith("<")][-1:]
        where = "".join(f" ({frame.filename}, line {frame.lineno})" for frame in found)
        message = f"{type(error).__name__}: {error}{where}"
        return {"kind": "broken", "message": message, "missing": missing_module(error)}
    return None


def config_class_of(entrypoint: str) -> Any:  # noqa: ANN401 - a class of prime-rl's
    """Import the class of an entry point's config."""
    module, name = CLASSES[entrypoint]
    return getattr(importlib.import_module(module), name)


def resolve(request: dict[str, Any], recorder: Recorder) -> dict[str, Any]:  # noqa: PLR0911 - an outcome each
    """Answer a request when prime-rl is imported; every expected failure is an answer too."""
    from pydantic_config import ConfigFileError, cli

    fields = load(request["fields"])
    entrypoint = request["entrypoint"]
    config_class = config_class_of(entrypoint)
    recorder.imported()

    shape, lacking = fields.shape_of(entrypoint, lambda path: has_path(config_class, path))
    if shape is None:
        near = fields.nearest(entrypoint, lacking).name
        tables = dict(table_on(config_class, path) for path in lacking[near])
        return {"kind": "unknown-shape", "nearest": near, "lacking": lacking, "beside": tables}

    written: dict[str, Any] = {}
    validate = config_class.model_validate

    def validate_with_our_fields(merged: dict[str, Any]) -> Any:  # noqa: ANN401 - prime-rl's config
        for field in shape.launcher_fields:
            if field in merged:
                written[field] = merged.pop(field)
        written["names_share"] = fields.names_share(merged, shape)
        fields.apply(merged, entrypoint, request["wishes"], shape)
        return validate(merged)

    # `cli` merges files and overrides and hands the result to the class: the one place where [slurm]
    # can be taken out and our fields set by prime-rl's own rules of precedence.
    with warnings.catch_warnings(record=True) as caught, replaced(config_class, validate_with_our_fields):
        warnings.simplefilter("always")
        try:
            config = cli(config_class, args=fields.spelled(request["arguments"], entrypoint, shape))
        except ConfigFileError as error:
            return {"kind": "rejected", "shape": shape.name, "message": error.message}
        except fields.FieldError as error:
            return {"kind": "contradiction", "message": error.message, "hint": error.hint}
        except ModuleNotFoundError as error:
            return {"kind": "missing-module", "message": str(error), "missing": missing_module(error)}
        except SystemExit as error:
            return {"kind": "ended", "code": None, "words": f"SystemExit: {error}"}
        except BaseException as error:
            # Of whatever kind: libraries in Rust panic with one that is no Exception.
            return {"kind": "rejected", "shape": shape.name, "message": f"{type(error).__name__}: {error}"}

    return describe(fields, config, entrypoint, shape, written, caught)


@contextlib.contextmanager
def replaced(config_class: Any, validate: Callable[..., Any]) -> Iterator[None]:  # noqa: ANN401 - prime-rl's
    """Validate with a function of ours meanwhile; the next request finds the class as it was."""
    own = vars(config_class).get("model_validate")
    config_class.model_validate = validate
    try:
        yield
    finally:
        if own is None:
            del config_class.model_validate
        else:
            config_class.model_validate = own


def describe(
    fields: ModuleType,
    config: Any,  # noqa: ANN401 - prime-rl's
    entrypoint: str,
    shape: Any,  # noqa: ANN401 - of the package fields
    written: dict[str, Any],
    caught: list[warnings.WarningMessage],
) -> dict[str, Any]:
    """Answer with a config that prime-rl accepted."""
    document = config.model_dump(exclude=set(shape.launcher_fields), mode="json")
    try:
        facts = fields.facts(document, entrypoint, shape)
    except fields.FieldError as error:
        return {"kind": "contradiction", "message": error.message, "hint": error.hint}
    facts |= {
        name: str(written.get(field)).lower() == "true"
        for name, field in (("clean", shape.clean), ("dry_run", "dry_run"))
    }
    facts["names_share"] = written.get("names_share", False)
    facts["ports"] = fields.ports(document, entrypoint, shape)
    return {
        "kind": "resolved",
        "shape": shape.name,
        "document": document,
        "facts": facts,
        "warnings": [
            str(item.message) for item in caught if not issubclass(item.category, DeprecationWarning)
        ],
    }


def main() -> None:
    """Read the requests, write an answer to each."""
    requests_path, answers_path, *apart = sys.argv[1:]
    # prime-rl finds its modules as it does without us: none of those beside this file.
    sys.path[:] = [path for path in sys.path if path != _folder(__file__)]
    requests = Path(requests_path).read_text(encoding="utf-8").splitlines()
    recorder = Recorder()
    recorder.start()
    is_ready = False
    with open(answers_path, "w", encoding="utf-8") as answers:  # noqa: PTH123 - before anything is imported
        for line in requests:
            request = json.loads(line)
            answer = broken(request["entrypoint"])
            if answer is None and not is_ready:
                _say(answers, {"kind": "ready", "imports": recorder.imports()})
                is_ready = True
            if answer is None:
                answer = _answer_apart(request, recorder) if apart else _answer(request, recorder)
            _say(answers, answer)
    # All is said. Threads that a library has left would be waited for, and thousands of modules taken down.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(SECONDS_TO_LEAVE)
    atexit._run_exitfuncs()  # noqa: SLF001 - what libraries clean up
    os._exit(0)


def _say(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(_as_text(answer) + "\n")
    answers.flush()


def _as_text(answer: dict[str, Any]) -> str:
    try:
        return json.dumps(answer)
    except (ValueError, TypeError, RecursionError) as error:
        # A number of too many digits, for one.
        message = f"the resolved config cannot be written: {type(error).__name__}: {error}"
        return json.dumps({"kind": "rejected", "message": message})


def _answer(request: dict[str, Any], recorder: Recorder) -> dict[str, Any]:
    # What prime-rl sees is the command that the user typed, not this file.
    sys.argv = [request["entrypoint"], *request["arguments"]]
    answer = resolve(request, recorder)
    # Of a refusal too: what it read beside its own files may be remembered in this process.
    read = recorder.report(request["arguments"])
    if answer["kind"] == "resolved":
        answer["read"] = read
    return answer


def _answer_apart(request: dict[str, Any], recorder: Recorder) -> dict[str, Any]:
    """Answer in a copy of this process, which has imported prime-rl and nothing for a config."""
    import tempfile

    with tempfile.TemporaryFile("w+") as file, tempfile.TemporaryFile() as words:
        with warnings.catch_warnings():
            # Python warns of threads, which a copy does not have. Libraries keep some for later.
            warnings.simplefilter("ignore")
            child = os.fork()
        if child == 0:
            code = 1
            try:
                os.dup2(words.fileno(), 1)
                os.dup2(words.fileno(), 2)
                file.write(_as_text(_answer(request, recorder)))
                file.flush()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        file.seek(0)
        text = file.read() if code == 0 else ""
        if text:
            answer: dict[str, Any] = json.loads(text)
            return answer
        words.seek(max(0, words.seek(0, os.SEEK_END) - MOST_WORDS))
        return {"kind": "ended", "code": code, "words": words.read().decode(errors="replace")}


if __name__ == "__main__":
    main()
