"""Resolve one config with prime-rl's own parser, in prime-rl's own interpreter.

Standard library only, and run as a file: `PYTHON resolver.py REQUEST ANSWER`. The request is JSON with
`entrypoint`, `arguments` (what is prime-rl's on the command line), `fields` (path of the package `fields`)
and `wishes`. The answer is written as JSON to a file of its own, since interpreters and libraries print to
standard output as they like. An exit code of 0 says that there is an answer, of whatever kind.
"""

import importlib
import importlib.util
import json
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

CLASSES = {
    "rl": ("prime_rl.configs.rl", "RLConfig"),
    "sft": ("prime_rl.configs.sft", "SFTConfig"),
    "inference": ("prime_rl.configs.inference", "InferenceConfig"),
}


def load(path: str) -> ModuleType:
    """Import a package by the path of its `__init__.py`, under a name that nothing else has."""
    name = "_medarc_fields"
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


def names_beside(model: Any, path: str) -> list[str]:  # noqa: ANN401 - a class of prime-rl's
    """List the fields of the innermost table on a path that a model has."""
    name, _, rest = path.partition(".")
    field = model.model_fields.get(name)
    inner = [names_beside(other, rest) for other in models_in(field.annotation)] if field and rest else []
    found = sorted({name for names in inner for name in names})
    return found or sorted(model.model_fields)


def resolve(request: dict[str, Any]) -> dict[str, Any]:  # noqa: PLR0911 - one return an outcome
    """Answer a request; every expected failure is an answer too."""
    fields = load(request["fields"])
    entrypoint = request["entrypoint"]
    module, name = CLASSES[entrypoint]
    try:
        config_class = getattr(importlib.import_module(module), name)
        from pydantic_config import ConfigFileError, cli
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{type(error).__name__}: {error} ({frame.filename}, line {frame.lineno})"
        return {"kind": "broken", "message": message, "missing": getattr(error, "name", None)}

    shape, lacking = fields.shape_of(entrypoint, lambda path: has_path(config_class, path))
    if shape is None:
        near = fields.nearest(entrypoint, lacking).name
        tables = {path.rpartition(".")[0]: names_beside(config_class, path) for path in lacking[near]}
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
    config_class.model_validate = validate_with_our_fields
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            config = cli(config_class, args=fields.spelled(request["arguments"], entrypoint, shape))
        except ConfigFileError as error:
            return {"kind": "rejected", "message": error.message}
        except fields.FieldError as error:
            return {"kind": "contradiction", "message": error.message, "hint": error.hint}
        except ModuleNotFoundError as error:
            return {"kind": "missing-module", "message": str(error), "missing": error.name}
        except Exception as error:
            return {"kind": "rejected", "message": f"{type(error).__name__}: {error}"}

    return describe(fields, config, entrypoint, shape, written, caught)


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
    """Read the request, write the answer."""
    request_path, answer_path = sys.argv[1:]
    # What prime-rl sees is the command that the user typed, not this file.
    request = json.loads(Path(request_path).read_text(encoding="utf-8"))
    sys.argv = [request["entrypoint"], *request["arguments"]]
    answer = resolve(request)
    Path(answer_path).write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
