"""Make a small model and data for the reverse-text example, on a machine that has no model hub.

    PYTHON examples/reverse_text/tiny/make_tiny.py DIR

PYTHON is prime-rl's interpreter. DIR gets a model of the Qwen3 architecture with random weights and a
tokenizer (`model`), demonstrations for SFT (`sft`), and texts for RL with held-out ones (`rl`), all of
them folders that transformers, vLLM and datasets load. The same options give the same files.

A text is two made-up words. Its reversal has the words in reverse order and the letters of each word in
reverse order. The demonstrations are half-hearted: they always reverse the order of the words, but the
letters of a word only now and then. What is left is for RL to learn.

The data is made with the standard library alone; `--data-only` makes nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SYSTEM_PROMPT = "Reverse the text character-by-character. Put your answer in <reversed_text> tags."
"""What the environment `reverse-text` says to a model, to the letter."""

OPENING, CLOSING = "<reversed_text>", "</reversed_text>"
"""The tags that the environment reads the answer from."""

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
"""What words are made of. No letter comes twice in a text, so that "the letter before the one that I wrote
last" is one letter, which is how a small model learns to write backwards."""

HELD_OUT_SHARE = 10
"""One word in so many is kept for the held-out texts."""

ATTEMPTS = 50
"""Drawings for each text wanted, and for each of its words, before there are said to be no more."""

END_OF_TURN, END_OF_TEXT = "<|im_end|>", "<|endoftext|>"
SPECIAL_TOKENS = ("<|im_start|>", END_OF_TURN, END_OF_TEXT)
"""Tokens that structure a conversation, and that decoding leaves out."""

WHOLE_TOKENS = (
    *("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
    *(OPENING, CLOSING, SYSTEM_PROMPT),
)
"""Texts that are one token. prime-rl's renderer for Qwen3 looks the first six up; the tags keep answers
short, the system prompt keeps prompts short."""

VOCABULARY_STEP = 64
"""The vocabulary is filled up to a multiple of this, so that matrices have even shapes and each id has a
token."""

CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
"""How Qwen3 turns a conversation into text, without tools and thoughts; prime-rl's renderer
`prime-qwen3` makes the same tokens of it."""

CONTEXT = 512
"""Tokens that the model can attend to; a conversation of this example has at most a hundred or so."""

ROPE_BASE = 10_000.0
"""Base of the rotary embedding; that of the published Qwen3 models is made for long texts."""

HEAD_SIZE = 64
"""Width of an attention head: one that the kernels of training and serving know."""

INITIAL_SPREAD = 0.05
"""Standard deviation of the random weights: near 1 / sqrt(hidden), for a model that is this narrow; with the
0.02 of the published ones it learns more slowly."""


class TinyError(Exception):
    """What cannot be made, and the way out.

    Attributes:
        hint: The way out.
    """

    def __init__(self, problem: str, hint: str) -> None:
        super().__init__(problem)
        self.hint = hint


@dataclass(frozen=True)
class Texts:
    """What the texts look like.

    Attributes:
        words: Words of a text.
        letters: Fewest and most letters of a word.
    """

    words: int = 2
    letters: tuple[int, int] = (4, 7)


@dataclass(frozen=True)
class Data:
    """How much data there is, and how good the demonstrations are.

    Attributes:
        sft_rows: Demonstrations.
        rl_rows: Texts for RL, none of them among the demonstrations.
        held_out_rows: Texts for evaluation, of words that are in none of the others.
        reversed_share: Share of the words whose letters a demonstration reverses, 0 to 1.
        texts: What the texts look like.
        seed: What everything is drawn from.
    """

    sft_rows: int = 100_000
    rl_rows: int = 5_000
    held_out_rows: int = 500
    reversed_share: float = 0.3
    texts: Texts = Texts()
    seed: int = 0


@dataclass(frozen=True)
class Sizes:
    """The size of the model.

    Attributes:
        hidden: Width of the residual stream.
        intermediate: Width of the MLP.
        layers: Number of layers.
        heads: Attention heads, each of 64.
        key_heads: Heads of keys and values.
    """

    hidden: int = 256
    intermediate: int = 1024
    layers: int = 4
    heads: int = 4
    key_heads: int = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Make what the arguments ask for; return the exit code."""
    arguments = parser().parse_args(argv)
    try:
        sizes = None if arguments.data_only else sizes_of(arguments)
        made = make(arguments.folder, data_of(arguments), sizes)
    except TinyError as error:
        sys.stderr.write(f"error: {error}\nhint: {error.hint}\n")
        return 1
    try:
        sys.stdout.write("".join(f"{path}\n" for path in made))
        sys.stdout.flush()
    except OSError as error:
        sys.stderr.write(f"error: all is made, and its folders cannot be printed: {error.strerror}\n")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more to fail at the exit
        return 1
    return 0


def stop(number: int, _frame: object) -> None:
    """End in order for a signal that ends this process."""
    sys.exit(128 + number)


def make(folder: Path, data: Data, sizes: Sizes | None) -> tuple[Path, ...]:
    """Make the data and, with sizes, the model; all of it, or nothing.

    Args:
        folder: Where to, a folder that is not there yet, or empty.
        data: How much data, and of which kind.
        sizes: The size of the model; `None` makes no model.

    Returns:
        The folders that were made.

    Raises:
        TinyError: The folder has something in it or cannot be written, the packages for the model are
            missing, or there are not enough texts of the wanted kind.
    """
    check_free(folder)
    # Beside its place, so that the last step is a rename.
    place = folder.resolve()
    unfinished = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        unfinished.mkdir(parents=True)
        if sizes is not None:
            write_model(unfinished / "model", sizes, data.seed)
        write_data(unfinished, data)
        unfinished.replace(place)
    except OSError as error:
        raise TinyError(
            f"{folder} cannot be made: {error.strerror or error}",
            "name a folder that is not there yet, in one that can be written and has some space",
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return tuple(sorted(folder / path.name for path in place.iterdir()))


def check_free(folder: Path) -> None:
    """Refuse a folder that holds something.

    Raises:
        TinyError: It does, or is no folder, or is the one that this process is in.
    """
    if folder.resolve() == Path.cwd():
        raise TinyError(
            "the folder to make is the one that you are in, which would be replaced", "name one within"
        )
    try:
        taken = folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir())))
    except OSError as error:
        raise TinyError(f"{folder} cannot be read: {error.strerror}", "name another folder") from error
    if taken:
        raise TinyError(f"{folder} is there already", "name another folder, or remove this one")


# --- Texts and demonstrations


def write_data(folder: Path, data: Data) -> None:
    """Write `sft/train.jsonl`, `rl/train.jsonl` and `rl/test.jsonl`.

    Raises:
        TinyError: There are not enough texts of the wanted kind.
    """
    rng = random.Random(data.seed)  # noqa: S311 - nothing secret
    training = distinct_texts(rng, data.texts, data.sft_rows + data.rl_rows, held_out=False)
    held_out = distinct_texts(rng, data.texts, data.held_out_rows, held_out=True)
    demonstrated, explored = training[: data.sft_rows], training[data.sft_rows :]
    write_rows(
        folder / "sft" / "train.jsonl",
        (sft_row(text, demonstration(rng, text, data.reversed_share)) for text in demonstrated),
    )
    write_rows(folder / "rl" / "train.jsonl", ({"prompt": text} for text in explored))
    write_rows(folder / "rl" / "test.jsonl", ({"prompt": text} for text in held_out))


def distinct_texts(rng: random.Random, texts: Texts, amount: int, *, held_out: bool) -> list[str]:
    """Draw different texts, of held-out words alone or of the others alone.

    Raises:
        TinyError: There are not enough.
    """
    found: dict[str, None] = {}
    for _ in range(ATTEMPTS * amount):
        if len(found) == amount:
            break
        text = draw_text(rng, texts, held_out=held_out)
        if text is not None:
            found[text] = None
    if len(found) < amount:
        raise TinyError(
            f"only {len(found)} of {amount} {'held-out ' if held_out else ''}texts were found that differ",
            "ask for fewer rows, more words or longer ones",
        )
    return list(found)


def draw_text(rng: random.Random, texts: Texts, *, held_out: bool) -> str | None:
    """Draw one text; `None` when the letters that are left give no word of the wanted side."""
    left, words = list(ALPHABET), []
    for _ in range(texts.words):
        word = draw_word(rng, left, rng.randint(*texts.letters), held_out=held_out)
        if word is None:
            return None
        words.append(word)
        left = [letter for letter in left if letter not in word]
    return " ".join(words)


def draw_word(rng: random.Random, letters: Sequence[str], length: int, *, held_out: bool) -> str | None:
    """Draw one word of the letters; `None` when none of the wanted side is found."""
    for _ in range(ATTEMPTS):
        word = "".join(rng.sample(letters, length))
        if is_held_out(word) == held_out:
            return word
    return None


def is_held_out(word: str) -> bool:
    """Whether a word belongs to the held-out texts; the same for every seed."""
    return zlib.crc32(word.encode()) % HELD_OUT_SHARE == 0


def reversal(text: str) -> str:
    """Return the right answer."""
    return text[::-1]


def demonstration(rng: random.Random, text: str, reversed_share: float) -> str:
    """Return an answer as SFT shows it: words in reverse order, the letters of some of them too."""
    words = reversed(text.split(" "))
    return " ".join(reversal(word) if rng.random() < reversed_share else word for word in words)


def sft_row(text: str, answer: str) -> dict[str, Any]:
    """Return a demonstration as prime-rl's SFT reads it."""
    asked = [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": text}]
    answered = [{"role": "assistant", "content": f"{OPENING}{answer}{CLOSING}"}]
    return {"prompt": asked, "completion": answered}


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a file of one JSON object a line, and its folder."""
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows)


# --- Model and tokenizer


def write_model(folder: Path, sizes: Sizes, seed: int) -> None:
    """Write a model with random weights and its tokenizer, as transformers and vLLM load them.

    Raises:
        TinyError: This interpreter lacks torch, transformers or tokenizers.
        OSError: The folder cannot be written.
    """
    try:
        import torch
        from safetensors import SafetensorError
        from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM
        from transformers.utils import logging
    except ImportError as error:
        raise TinyError(
            f"{sys.executable} has no {error.name}, which the model is made with",
            "run this with prime-rl's interpreter (its .venv/bin/python), or give --data-only",
        ) from error
    logging.disable_progress_bar()
    tokenizer = make_tokenizer()
    tokens = {
        "eos_token_id": tokenizer.convert_tokens_to_ids(END_OF_TURN),
        "pad_token_id": tokenizer.convert_tokens_to_ids(END_OF_TEXT),
    }
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=sizes.hidden,
        intermediate_size=sizes.intermediate,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.key_heads,
        head_dim=HEAD_SIZE,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_BASE},
        initializer_range=INITIAL_SPREAD,
        tie_word_embeddings=True,
        bos_token_id=None,
        **tokens,
    )
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(config).to(torch.bfloat16)
    model.generation_config = GenerationConfig(do_sample=True, temperature=1.0, **tokens)
    try:
        model.save_pretrained(folder)
    except SafetensorError as error:
        raise OSError(f"model.safetensors: {error}") from error
    tokenizer.save_pretrained(folder)


def make_tokenizer() -> Any:  # noqa: ANN401 - transformers is not there when this is checked
    """Make a tokenizer of bytes, with a few texts that are one token."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(letters)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL_TOKENS])
    made.add_tokens([AddedToken(text, normalized=False) for text in WHOLE_TOKENS])
    spare = -made.get_vocab_size() % VOCABULARY_STEP
    made.add_tokens([AddedToken(f"<|spare_{place}|>", normalized=False) for place in range(spare)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token=END_OF_TURN,
        pad_token=END_OF_TEXT,
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


# --- Arguments


def parser() -> argparse.ArgumentParser:
    """Say which arguments there are."""
    data, sizes = Data(), Sizes()
    found = argparse.ArgumentParser(
        description="Make a small model and data for the reverse-text example.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    found.add_argument("folder", metavar="DIR", type=Path, help="the folder to make")
    found.add_argument("--data-only", action="store_true", help="make no model, which needs torch")
    found.add_argument("--seed", type=natural, default=data.seed, metavar="N", help="what all is drawn from")
    found.add_argument(
        "--reversed-share",
        type=share,
        default=data.reversed_share,
        metavar="SHARE",
        help="share of the words whose letters a demonstration reverses",
    )
    found.add_argument(
        "--letters",
        type=positive,
        nargs=2,
        default=data.texts.letters,
        metavar=("MIN", "MAX"),
        help="fewest and most letters of a word",
    )
    for name, number, text in (
        ("--words", data.texts.words, "words of a text"),
        ("--sft-rows", data.sft_rows, "demonstrations"),
        ("--rl-rows", data.rl_rows, "texts for RL"),
        ("--held-out-rows", data.held_out_rows, "texts to evaluate on"),
        ("--hidden", sizes.hidden, "width of the model"),
        ("--intermediate", sizes.intermediate, "width of its MLP"),
        ("--layers", sizes.layers, "its layers"),
        ("--heads", sizes.heads, f"its attention heads, each of {HEAD_SIZE}"),
        ("--key-heads", sizes.key_heads, "its heads of keys and values"),
    ):
        found.add_argument(name, type=positive, default=number, metavar="N", help=text)
    return found


def positive(text: str) -> int:
    """Read a number of at least 1."""
    return at_least(1, text)


def natural(text: str) -> int:
    """Read a number of at least 0: of a number below, Python's generator drops the sign."""
    return at_least(0, text)


def at_least(least: int, text: str) -> int:
    """Read a number that is not below another one."""
    number = int(text)
    if number < least:
        raise argparse.ArgumentTypeError(f"{text} is less than {least}")
    return number


def share(text: str) -> float:
    """Read a number from 0 to 1."""
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return number


def data_of(arguments: argparse.Namespace) -> Data:
    """Return the data that the arguments ask for.

    Raises:
        TinyError: There is no such data.
    """
    texts = Texts(arguments.words, tuple(arguments.letters))
    fewest, most = texts.letters
    if fewest > most:
        raise TinyError(f"--letters {fewest} {most}: the most is less than the fewest", "turn them around")
    if texts.words * most > len(ALPHABET):
        raise TinyError(
            f"{texts.words} words of {most} letters need more letters than the alphabet's {len(ALPHABET)}, "
            "as none comes twice",
            "ask for fewer words or shorter ones",
        )
    return Data(
        sft_rows=arguments.sft_rows,
        rl_rows=arguments.rl_rows,
        held_out_rows=arguments.held_out_rows,
        reversed_share=arguments.reversed_share,
        texts=texts,
        seed=arguments.seed,
    )


def sizes_of(arguments: argparse.Namespace) -> Sizes:
    """Return the size of the model that the arguments ask for.

    Raises:
        TinyError: There is no such model.
    """
    if arguments.heads % arguments.key_heads:
        raise TinyError(
            f"--heads {arguments.heads} cannot share --key-heads {arguments.key_heads}",
            "the second must divide the first",
        )
    return Sizes(
        arguments.hidden, arguments.intermediate, arguments.layers, arguments.heads, arguments.key_heads
    )


if __name__ == "__main__":
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, stop)  # so that what is unfinished is removed
    sys.exit(main())
