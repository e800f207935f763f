import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict
from datasets.exceptions import DatasetNotFoundError
from reverse_text.dataset import DatasetError, load_prompts

PROMPTS = ["first text", "second text", "third text"]


def rows(prompts: list[str], column: str = "prompt") -> list[dict[str, str]]:
    return [{column: prompt} for prompt in prompts]


def write_lines(path: Path, prompts: list[str], column: str = "prompt") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(prompts, column)))
    return path


def test_the_sample_has_two_disjoint_splits_of_distinct_texts() -> None:
    train, test = load_prompts("sample", "train"), load_prompts("sample", "test")

    assert (len(train), len(test)) == (250, 50)
    assert len({*train, *test}) == 300
    assert all(text == text.strip() and text.isascii() and text for text in train + test)


def test_the_sample_keeps_its_order() -> None:
    assert load_prompts("sample")[:2] == load_prompts("sample", "train[:2]")
    assert load_prompts("sample", "all") == load_prompts("sample", "train+test")


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet", ".JSONL"])
def test_a_file_is_the_train_split(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a [b] c*{suffix}"
    data = Dataset.from_list(rows(PROMPTS))
    if suffix == ".json":
        path.write_text(json.dumps(rows(PROMPTS)))
    else:
        getattr(data, {".csv": "to_csv", ".parquet": "to_parquet"}.get(suffix, "to_json"))(path)

    assert load_prompts(str(path)) == PROMPTS


def test_a_path_may_be_relative_or_start_with_a_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lines(tmp_path / "texts.jsonl", PROMPTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))

    assert load_prompts("texts.jsonl") == PROMPTS
    assert load_prompts("~/texts.jsonl") == PROMPTS


def test_files_in_a_folder_are_splits_by_name(tmp_path: Path) -> None:
    write_lines(tmp_path / "train.jsonl", PROMPTS[:2])
    write_lines(tmp_path / "test.jsonl", PROMPTS[2:])

    assert load_prompts(str(tmp_path), "train") == PROMPTS[:2]
    assert load_prompts(str(tmp_path), "test") == PROMPTS[2:]


def test_a_saved_data_set_is_the_train_split(tmp_path: Path) -> None:
    Dataset.from_list(rows(PROMPTS)).save_to_disk(tmp_path / "saved")

    assert load_prompts(str(tmp_path / "saved"), "train[1:]") == PROMPTS[1:]


def test_saved_splits_keep_their_names(tmp_path: Path) -> None:
    splits = {"train": PROMPTS[:1], "held_out": PROMPTS[1:]}
    DatasetDict({name: Dataset.from_list(rows(prompts)) for name, prompts in splits.items()}).save_to_disk(
        tmp_path
    )

    assert load_prompts(str(tmp_path), "held_out") == PROMPTS[1:]


def assert_error(error: DatasetError, *parts: str) -> None:
    problem, hint = str(error).splitlines()
    assert hint.startswith("hint: ")
    assert [part for part in parts if part not in problem] == []


@pytest.mark.parametrize(
    "name", ["/no/such/folder", "./nothing", "texts.jsonl", "a/b/c", "", "two words", "~/nothing"]
)
def test_a_missing_path(name: str) -> None:
    with pytest.raises(DatasetError) as caught:
        load_prompts(name)

    assert_error(caught.value, repr(name), "does not exist")


@pytest.mark.parametrize("split", ["validation", "", "train[", "train[:x]", "Train"])
def test_an_unknown_split(split: str) -> None:
    with pytest.raises(DatasetError, match=r"its splits are train, test") as caught:
        load_prompts("sample", split)

    assert_error(caught.value, repr(split), "'sample'")


def test_a_file_without_the_column(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "texts.jsonl", PROMPTS, column="question")

    with pytest.raises(DatasetError) as caught:
        load_prompts(str(path))

    assert_error(caught.value, repr(str(path)), "no column 'prompt'", "'question'")


def test_a_prompt_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"prompt": "text"}\n{"prompt": null}\n')

    with pytest.raises(DatasetError) as caught:
        load_prompts(str(path))

    assert_error(caught.value, "row 1", "None")


def test_an_empty_slice() -> None:
    with pytest.raises(DatasetError) as caught:
        load_prompts("sample", "train[:0]")

    assert_error(caught.value, "'train[:0]'", "is empty")


@pytest.mark.parametrize("content", ["", "{not json"])
def test_a_file_that_cannot_be_read(tmp_path: Path, content: str) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text(content)

    with pytest.raises(DatasetError) as caught:
        load_prompts(str(path))

    assert_error(caught.value, repr(str(path)))


def test_an_empty_file_is_said_to_be_empty(tmp_path: Path) -> None:
    path = tmp_path / "texts.json"
    path.touch()

    with pytest.raises(DatasetError) as caught:
        load_prompts(str(path))

    assert_error(caught.value, repr(str(path)), "is empty")


def test_a_text_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_bytes(b'{"prompt": "text"}\n{"prompt": "a\xff"}\n')

    with pytest.raises(DatasetError, match="save the file as UTF-8") as caught:
        load_prompts(str(path))

    assert_error(caught.value, repr(str(path)), r"b'a\xff'", "not UTF-8")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("x" * 5000, "File name too long"), ("~nobody-of-that-name/x", "home directory")],
)
def test_a_path_that_cannot_be_looked_up(name: str, reason: str) -> None:
    with pytest.raises(DatasetError) as caught:
        load_prompts(name)

    assert_error(caught.value, repr(name[:22])[:-1], reason)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", [None, 5, ["sample"]])
def test_a_name_that_is_not_text(name: Any) -> None:
    with pytest.raises(DatasetError) as caught:
        load_prompts(name)

    assert_error(caught.value, "dataset_name", repr(name))


def test_a_folder_without_data(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        load_prompts(str(tmp_path))

    assert_error(caught.value, repr(str(tmp_path)), "cannot read")


def test_a_file_of_another_format(tmp_path: Path) -> None:
    path = tmp_path / "texts.xml"
    path.touch()

    with pytest.raises(DatasetError) as caught:
        load_prompts(str(path))

    assert_error(caught.value, repr(str(path)), "format")


def test_the_hub_out_of_reach() -> None:
    with pytest.raises(DatasetError, match="`sample`") as caught:
        load_prompts()

    assert_error(caught.value, "'PrimeIntellect/Reverse-Text-RL'", "cannot reach")


def test_a_hub_that_answers_without_being_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load_dataset(name: str, **_: str) -> None:
        raise FileNotFoundError(f"Couldn't find {name!r} on the Hugging Face Hub either")

    monkeypatch.setattr("datasets.load_dataset", load_dataset)

    with pytest.raises(DatasetError) as caught:
        load_prompts("someone/texts")

    assert_error(caught.value, "'someone/texts'", "cannot reach")


def test_a_data_set_that_the_hub_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(name: str, **_: str) -> None:
        raise DatasetNotFoundError(f"Dataset {name!r} doesn't exist on the Hub")

    monkeypatch.setattr("datasets.load_dataset", load_dataset)

    with pytest.raises(DatasetError) as caught:
        load_prompts("someone/texts")

    assert_error(caught.value, "'someone/texts'", "neither a local path nor")


def test_a_split_that_the_hub_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(_: str, split: str) -> None:
        raise ValueError(f"Unknown split {split!r}. Should be one of ['train'].")

    monkeypatch.setattr("datasets.load_dataset", load_dataset)

    with pytest.raises(DatasetError) as caught:
        load_prompts("someone/texts", "nope")

    assert_error(caught.value, "'someone/texts'", "'nope'", "['train']")
