"""The example that needs no model hub: what `make_tiny.py` makes, and that its configs fit together."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st
from reverse_text import scoring
from reverse_text.dataset import load_prompts

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "reverse_text" / "tiny"
FEW = ("--sft-rows", "30", "--rl-rows", "20", "--held-out-rows", "10")
TORCH_SIDE = Path(__file__).with_name("tiny_torch_side.py")


@pytest.fixture(scope="module")
def tiny():
    """The program as a module."""
    spec = importlib.util.spec_from_file_location("make_tiny", EXAMPLE / "make_tiny.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def made(tiny, tmp_path):
    """A folder with a little data."""
    assert tiny.main([str(tmp_path / "tiny"), "--data-only", *FEW]) == 0
    return tmp_path / "tiny"


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def demonstrated(folder):
    """Pair each demonstrated text with the reply."""
    return [
        (row["prompt"][1]["content"], row["completion"][0]["content"])
        for row in rows(folder / "sft" / "train.jsonl")
    ]


def test_as_many_rows_as_asked_for_all_of_them_different(made):
    demonstrations = [text for text, _ in demonstrated(made)]
    train, test = (load_prompts(str(made / "rl"), split) for split in ("train", "test"))

    assert (len(demonstrations), len(train), len(test)) == (30, 20, 10)
    assert len({*demonstrations, *train, *test}) == 60


def test_no_word_of_a_held_out_text_is_in_another(made):
    seen = {word for text, _ in demonstrated(made) for word in text.split()}
    seen |= {word for text in load_prompts(str(made / "rl"), "train") for word in text.split()}
    held_out = {word for text in load_prompts(str(made / "rl"), "test[:20]") for word in text.split()}

    assert seen & held_out == set()


def test_a_demonstration_is_a_conversation_of_the_environment(made):
    row = rows(made / "sft" / "train.jsonl")[0]

    assert [message["role"] for message in row["prompt"] + row["completion"]] == [
        "system",
        "user",
        "assistant",
    ]
    assert row["prompt"][0]["content"] == scoring.SYSTEM_PROMPT
    assert scoring.extract_answer(row["completion"][0]["content"])


@pytest.mark.parametrize("folder", ["sft", "rl"])
def test_datasets_loads_a_folder(made, folder, monkeypatch, tmp_path):
    from datasets import load_dataset

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    loaded = load_dataset(str(made / folder), None, split="train", cache_dir=str(tmp_path / "cache"))

    assert len(loaded) == {"sft": 30, "rl": 20}[folder]
    assert loaded.column_names == {"sft": ["prompt", "completion"], "rl": ["prompt"]}[folder]


@given(seed=st.integers(), share=st.sampled_from([0.0, 0.5, 1.0]))
def test_the_order_of_the_words_is_always_reversed_and_their_letters_by_share(tiny, seed, share):
    rng = tiny.random.Random(seed)
    text = tiny.draw_text(rng, tiny.Texts(3), held_out=False)
    shown = tiny.demonstration(rng, text, share).split(" ")
    whole, kept = text[::-1].split(" "), text.split(" ")[::-1]

    assert all(word in pair for word, pair in zip(shown, zip(whole, kept, strict=True), strict=True))
    if share in (0.0, 1.0):
        assert shown == (whole if share else kept)
    assert scoring.reward(f"{tiny.OPENING}{' '.join(whole)}{tiny.CLOSING}", scoring.reverse(text)) == 1.0


@given(seed=st.integers(), words=st.integers(1, 3), held_out=st.booleans())
def test_no_letter_comes_twice_in_a_text(tiny, seed, words, held_out):
    text = tiny.draw_text(tiny.random.Random(seed), tiny.Texts(words, (3, 5)), held_out=held_out)
    letters = (text or "").replace(" ", "")

    assert len(set(letters)) == len(letters)
    assert text is None or [3 <= len(word) <= 5 for word in text.split()] == [True] * words


def test_the_same_options_make_the_same_files(tiny, made, tmp_path):
    tiny.main([str(tmp_path / "again"), "--data-only", *FEW])
    tiny.main([str(tmp_path / "other"), "--data-only", *FEW, "--seed", "1"])

    names = ("sft/train.jsonl", "rl/train.jsonl", "rl/test.jsonl")
    for name in names:
        assert (tmp_path / "again" / name).read_text() == (made / name).read_text()
        assert (tmp_path / "other" / name).read_text() != (made / name).read_text()


def test_an_empty_folder_is_taken_and_a_full_one_is_not(tiny, made, tmp_path, capsys):
    (tmp_path / "empty").mkdir()

    assert tiny.main([str(tmp_path / "empty"), "--data-only", *FEW]) == 0
    before = (made / "rl" / "test.jsonl").read_text()
    capsys.readouterr()
    assert tiny.main([str(made), "--data-only", *FEW, "--seed", "1"]) == 1

    assert f"error: {made} is there already\nhint: " in capsys.readouterr().err
    assert (made / "rl" / "test.jsonl").read_text() == before


IMPOSSIBLE = {
    "too few texts": (["--letters", "1", "1"], "of 10 held-out texts were found that differ"),
    "too many letters": (["--letters", "4", "14"], "2 words of 14 letters need more letters"),
    "turned around": (["--letters", "3", "2"], "--letters 3 2: the most is less"),
    "heads": (["--key-heads", "3"], "--heads 4 cannot share --key-heads 3"),
}


@pytest.mark.parametrize(("options", "words"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_what_cannot_be_made_is_said_and_leaves_nothing(tiny, tmp_path, capsys, options, words):
    data_only = [] if "--key-heads" in options else ["--data-only"]

    assert tiny.main([str(tmp_path / "place" / "tiny"), *FEW, *data_only, *options]) == 1
    printed = capsys.readouterr().err
    assert words in printed
    assert "\nhint: " in printed
    assert not [*tmp_path.glob("place/*"), *tmp_path.glob("place/.*")]


@pytest.mark.parametrize(
    "options", [["--sft-rows", "0"], ["--reversed-share", "1.5"], ["--seed", "x"], ["--seed", "-1"]]
)
def test_a_number_that_makes_no_sense_is_refused(tiny, tmp_path, capsys, options):
    with pytest.raises(SystemExit, match="2"):
        tiny.main([str(tmp_path / "tiny"), *options])

    assert f"argument {options[0]}: " in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_said(tiny, tmp_path, capsys):
    (tmp_path / "file").touch()

    assert tiny.main([str(tmp_path / "file" / "tiny"), "--data-only", *FEW]) == 1
    assert "error: " in capsys.readouterr().err


def test_the_folder_that_one_is_in_is_not_replaced(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    assert tiny.main([".", "--data-only", *FEW]) == 1
    assert "the one that you are in" in capsys.readouterr().err


def test_a_kill_leaves_nothing_unfinished(tmp_path):
    place = tmp_path / "place"
    program = [sys.executable, EXAMPLE / "make_tiny.py", place / "tiny", "--data-only"]
    process = subprocess.Popen([*program, "--sft-rows", "1000000"], stdout=subprocess.DEVNULL)
    while not list(place.glob("*")):
        assert process.poll() is None
        time.sleep(0.01)

    process.terminate()

    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert list(place.glob("*")) == []


def test_without_torch_the_way_out_is_named(tmp_path):
    """In an interpreter that finds no packages."""
    place = tmp_path / "place"
    argv = [sys.executable, "-I", "-S", EXAMPLE / "make_tiny.py", place / "tiny", *FEW]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (1, "")
    assert "error: " in done.stderr
    assert "has no torch, which the model is made with\nhint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert list(place.iterdir()) == []


def config(name):
    return tomli.loads((EXAMPLE / f"{name}.toml").read_text(encoding="utf-8"))


def test_the_configs_name_what_is_made(made):
    sft, rl = config("sft"), config("rl")
    sources = rl["orchestrator"]["train"]["source"] + rl["orchestrator"]["eval"]["source"]
    texts = [source["env"]["taskset"] for source in sources]

    assert {path.name for path in made.iterdir()} == {"sft", "rl"}
    assert (sft["model"]["name"], sft["data"]["name"]) == ("runs/tiny/model", "runs/tiny/sft")
    assert {text["dataset_name"] for text in texts} == {"runs/tiny/rl"}
    assert len(load_prompts(str(made / "rl"), texts[1]["dataset_split"].replace("20", "5"))) == 5


def test_rl_begins_with_what_sft_leaves():
    assert config("rl")["model"]["name"] == f"runs/tiny-sft/weights/step_{config('sft')['max_steps']}"


def test_an_answer_is_shorter_than_it_may_be(tiny):
    texts = tiny.Texts()
    letters = texts.words * (texts.letters[1] + 1) - 1
    sampling = config("rl")["orchestrator"]["train"]["sampling"]

    assert letters + len(("opening", "closing", "end of turn")) <= sampling["max_completion_tokens"] / 2


@pytest.fixture(scope="module")
def torch_python():
    """An interpreter with torch, transformers and tokenizers."""
    python = os.environ.get("MEDARC_TORCH_PYTHON")
    if not python:
        pytest.skip("MEDARC_TORCH_PYTHON is not set: there is no torch to make a model with")
    return python


@pytest.fixture(scope="module")
def loaded(torch_python, tmp_path_factory):
    """Two models made alike, and what transformers says of the first."""
    folder = tmp_path_factory.mktemp("tiny")
    done = subprocess.run(
        [torch_python, TORCH_SIDE, EXAMPLE / "make_tiny.py", folder, *FEW],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout.splitlines()[-1])


def test_transformers_loads_the_model(loaded):
    _, found = loaded

    assert found["architecture"] == "Qwen3ForCausalLM"
    assert found["dtype"] == "torch.bfloat16"
    assert 3_500_000 < found["parameters"] < 4_500_000
    assert found["vocabulary"] == found["tokens"]
    assert found["stop"] == [found["end of turn"]]


def test_the_same_options_make_the_same_model(loaded):
    folder, _ = loaded

    for path in (folder / "one" / "model").iterdir():
        assert path.read_bytes() == (folder / "two" / "model" / path.name).read_bytes()


def test_tags_and_system_prompt_are_one_token_and_text_comes_back(loaded):
    _, found = loaded

    assert found["lengths"] == {"opening": 1, "closing": 1, "system": 1}
    assert found["round trip"] is True
    assert "<reversed_text>fed cba</reversed_text>" in found["answer"]


def test_the_template_makes_what_prime_rls_renderer_makes(loaded):
    _, found = loaded
    if found["rendered"] is None:
        pytest.skip("the interpreter of MEDARC_TORCH_PYTHON has no renderers")

    assert found["rendered"] == found["templated"]
    assert found["learned"] == "<reversed_text>fed cba</reversed_text><|im_end|>"
