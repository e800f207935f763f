"""Where the texts come from: the hub, a local folder or file, or the bundled sample."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from datasets import Dataset

DEFAULT_DATASET = "PrimeIntellect/Reverse-Text-RL"
DEFAULT_SPLIT = "train"
SAMPLE = "sample"
"""The name that stands for the bundled texts; a folder of that name is `./sample`."""

PROMPT_COLUMN = "prompt"
FILE_FORMATS = {".json": "json", ".jsonl": "json", ".parquet": "parquet", ".csv": "csv"}
"""File name endings, and the `datasets` builder that reads each."""

_SAVED = ("dataset_dict.json", "state.json")  # what `save_to_disk` leaves in a folder
_SAMPLE_SPLITS = ("train", "test")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_SHOWN = 100  # characters of a path that is too long to be one
_PROBE_ATTEMPTS = 2
_PROBE_TIMEOUT = 5.0  # seconds
_OFFLINE_WAY_OUT = f"pass a local folder or file as dataset_name, or `{SAMPLE}` (bundled texts)"
_FILES_WAY_OUT = (
    "expected a folder from `save_to_disk`, or files (.json, .jsonl, .parquet, .csv) "
    f"with a column {PROMPT_COLUMN!r}"
)


class DatasetError(ValueError):
    """A data set that cannot be had or read. The message ends in a hint."""

    def __init__(self, problem: str, hint: str) -> None:
        super().__init__(f"{problem}\nhint: {hint}")


def load_prompts(dataset_name: str = DEFAULT_DATASET, dataset_split: str = DEFAULT_SPLIT) -> list[str]:
    """Return the texts of one split, in the data set's order.

    Args:
        dataset_name: One of, in this order:

            - `sample`: texts that come with this package, splits `train` (250) and `test` (50).
            - An existing file that ends in .json, .jsonl, .parquet or .csv: one split, `train`.
            - An existing folder written by `datasets` (`save_to_disk`): its splits; one that
              holds a single data set has the split it was saved from, or else `train`.
            - Any other existing folder: whatever `datasets.load_dataset` makes of it. Files
              named for a split (`test.jsonl`, `data/train-0.parquet`) are that split; when
              none is, all of them are `train`.
            - Anything else: a data set's id on the Hugging Face hub.
        dataset_split: The name of a split, or the slices that `datasets` knows:
            `train[:100]`, `train[10%:]`, `train+test`.

    Raises:
        DatasetError: The path or data set does not exist, the hub does not answer, there is no
            such split or no `prompt` column, a prompt is not text, or there are no rows.
    """
    if not isinstance(dataset_name, str):
        raise DatasetError(
            f"dataset_name is not a text: {dataset_name!r:.100}",
            f"pass `{SAMPLE}`, a path, or a hub id such as {DEFAULT_DATASET!r}",
        )
    if dataset_name == SAMPLE:
        rows = _select(_sample(), dataset_name, dataset_split)
    elif (path := _existing(dataset_name)) is not None:
        rows = _select(_local(path), dataset_name, dataset_split)
    else:
        rows = _hub(dataset_name, dataset_split)
    return _prompts(rows, dataset_name, dataset_split)


def _existing(name: str) -> Path | None:
    try:
        path = Path(name).expanduser()
        return path if name and path.exists() else None
    except (OSError, RuntimeError) as error:  # RuntimeError: `~user` of nobody
        raise DatasetError(
            f"data set path {_short(name)} cannot be looked up: {getattr(error, 'strerror', None) or error}",
            f"check the path, or use `{SAMPLE}`, or a hub id such as {DEFAULT_DATASET!r}",
        ) from error


def _sample() -> dict[str, Dataset]:
    from datasets import Dataset

    folder = files("reverse_text") / "sample"
    return {
        split: Dataset.from_list(
            [json.loads(line) for line in (folder / f"{split}.jsonl").read_text("utf-8").splitlines()]
        )
        for split in _SAMPLE_SPLITS
    }


def _local(path: Path) -> dict[str, Dataset]:
    from datasets import Dataset, load_dataset, load_from_disk

    if path.is_file() and path.suffix.lower() not in FILE_FORMATS:
        raise DatasetError(
            f"cannot tell the format of the data file {str(path)!r}",
            f"supported are {', '.join(FILE_FORMATS)}",
        )
    if path.is_file() and not path.stat().st_size:
        raise DatasetError(f"the data file {str(path)!r} is empty", _FILES_WAY_OUT)
    try:
        if path.is_file():
            builder = FILE_FORMATS[path.suffix.lower()]
            found = load_dataset(builder, data_files={"train": _literal(path)})
        elif any((path / name).is_file() for name in _SAVED):
            found = load_from_disk(path)
        else:
            found = load_dataset(str(path.resolve()))
    # The library raises a dozen unrelated types for a broken or empty file.
    except Exception as error:
        raise DatasetError(
            f"cannot read the data set {str(path)!r}: {_innermost(error)}",
            _FILES_WAY_OUT,
        ) from error
    return {str(found.split or "train"): found} if isinstance(found, Dataset) else dict(found)


def _hub(name: str, split: str) -> Dataset:
    if not _HUB_ID.fullmatch(name) or Path(name).suffix.lower() in FILE_FORMATS:
        raise DatasetError(
            f"data set path {name!r} does not exist (looked in {str(Path.cwd())!r})",
            f"check the path, or use `{SAMPLE}`, or a hub id such as {DEFAULT_DATASET!r}",
        )
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    try:
        with _cache_only(unless=_hub_answers(name)):
            return load_dataset(name, split=split)
    except DatasetNotFoundError:
        raise DatasetError(
            f"data set {name!r} is neither a local path nor a data set on the hub that this machine may read",
            f"check the name (a private one needs HF_TOKEN), or {_OFFLINE_WAY_OUT}",
        ) from None
    except OSError:
        raise DatasetError(
            f"cannot reach the Hugging Face hub for the data set {name!r}, and it is not in the local cache",
            _OFFLINE_WAY_OUT,
        ) from None
    except ValueError as error:
        raise DatasetError(
            f"cannot load split {split!r} of the data set {name!r}: {_innermost(error)}",
            "pass one of its splits as dataset_split",
        ) from error


def _hub_answers(name: str) -> bool:
    """Whether the hub says anything at all, asked twice with a short timeout.

    Without asking first, `load_dataset` retries for 23 s where the name does not resolve, and
    for minutes where packets vanish, before it looks into its cache.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    for _ in range(_PROBE_ATTEMPTS):
        try:
            HfApi().dataset_info(name, timeout=_PROBE_TIMEOUT)
        except HfHubHTTPError:
            return True  # a refusal is an answer, and load_dataset words it better
        except OfflineModeIsEnabled:
            return False
        except Exception:  # noqa: S112 - the HTTP library differs between releases
            continue
        else:
            return True
    return False


@contextmanager
def _cache_only(*, unless: bool) -> Iterator[None]:
    """Let `datasets` read from its cache only."""
    from datasets import config

    before = config.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = before or not unless
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before


def _select(splits: Mapping[str, Dataset], name: str, spec: str) -> Dataset:
    """Return the rows that a split specification names, as `load_dataset(split=...)` would."""
    from datasets import ReadInstruction, concatenate_datasets

    spec = "+".join(splits) if spec == "all" else spec
    try:
        parts = ReadInstruction.from_spec(spec).to_absolute(
            {split: len(rows) for split, rows in splits.items()}
        )
    except (AssertionError, ValueError) as error:
        raise DatasetError(
            f"data set {name!r} has no split {spec!r}",
            f"its splits are {', '.join(splits)}; slices such as {next(iter(splits))}[:100] work",
        ) from error
    return concatenate_datasets([splits[part.splitname].select(range(part.from_, part.to)) for part in parts])


def _prompts(rows: Dataset, name: str, split: str) -> list[str]:
    if not len(rows):
        raise DatasetError(
            f"split {split!r} of the data set {name!r} is empty",
            "choose another split or data set",
        )
    if PROMPT_COLUMN not in rows.column_names:
        raise DatasetError(
            f"data set {name!r} has no column {PROMPT_COLUMN!r}; it has "
            f"{', '.join(map(repr, rows.column_names))}",
            f"rename the column that holds the texts to {PROMPT_COLUMN!r}",
        )
    try:
        prompts: list[str] = list(rows[PROMPT_COLUMN])
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"a text in {PROMPT_COLUMN!r} of the data set {name!r} is not UTF-8: {error.object!r:.100}",
            "save the file as UTF-8",
        ) from error
    for index, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            raise DatasetError(
                f"{PROMPT_COLUMN!r} of row {index} of the data set {name!r} is not a text: {prompt!r:.100}",
                "each prompt is one string, the text to reverse",
            )
    return prompts


def _literal(path: Path) -> str:
    """Return a path in which `datasets` finds no wildcard."""
    return re.sub(r"([*?\[\]])", r"[\1]", str(path.resolve()))


def _short(name: str) -> str:
    return repr(name if len(name) <= _SHOWN else f"{name[:_SHOWN]}...")


def _innermost(error: BaseException) -> str:
    """Return the first line of the error that all the others were raised from."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return (str(error).strip() or type(error).__name__).splitlines()[0]
