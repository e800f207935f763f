"""Secrets are blanked out of what is shown, and nothing else is."""

import pytest

from medarc_plugin.redaction import Redaction, known_secrets

HF = "hf_" + "a1B2" * 8


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["rl", "--env", "WANDB_API_KEY=abc123def"], ["rl", "--env", "WANDB_API_KEY=***"]),
        (["rl", "--env=MY_SECRET=a=b"], ["rl", "--env=MY_SECRET=***"]),
        (["rl", "--client.api-key", "abc", "--gpus", "1"], ["rl", "--client.api-key", "***", "--gpus", "1"]),
        (["rl", "--client.api_key=abc"], ["rl", "--client.api_key=***"]),
        (["rl", "--max-tokens", "64", "--auto-auth"], ["rl", "--max-tokens", "64", "--auto-auth"]),
        (["rl", "--env", "MAX_TOKENS", "--env", "OMP_NUM_THREADS=1"],) * 2,
        (["rl", f"--x={HF}"], ["rl", "--x=***"]),
    ],
)
def test_a_command_shows_no_secret(command, shown):
    assert Redaction([]).command(command) == shown


def test_a_document_shows_no_secret():
    document = {
        "env_vars": {"HF_TOKEN": "short", "NCCL_DEBUG": "INFO", "TOKENIZERS_PARALLELISM": "false"},
        "client": {"api_key_var": "OPENAI_API_KEY", "api_key": "EMPTY-1", "base_url": "http://u:pw@host/v1"},
        "model": {"pad_token": "<pad>", "seq_len": 2048, "note": "the word swordfish stands here"},
        "swordfish": [1, ["x", None], {"headers": {"Authorization": "Bearer x"}}],
    }

    assert Redaction(["swordfish", ""]).document(document) == {
        "env_vars": {"HF_TOKEN": "***", "NCCL_DEBUG": "INFO", "TOKENIZERS_PARALLELISM": "false"},
        "client": {"api_key_var": "OPENAI_API_KEY", "api_key": "***", "base_url": "http://***@host/v1"},
        "model": {"pad_token": "<pad>", "seq_len": 2048, "note": "the word *** stands here"},
        "***": [1, ["x", None], {"headers": {"Authorization": "***"}}],
    }


def test_a_secret_that_holds_another_is_blanked_whole():
    assert Redaction(["abc", "abcdef"]).text("abcdef abc") == "*** ***"


def test_the_environment_and_the_hub_name_what_is_secret(clean_environment, monkeypatch):
    home = clean_environment.parent / "home"
    (home / ".cache" / "huggingface").mkdir(parents=True)
    (home / ".cache" / "huggingface" / "token").write_text(HF + "\n")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    monkeypatch.setenv("TOKENIZER", "something long")
    monkeypatch.setenv("SECRET_FILE", "/home/ada/secret")

    assert known_secrets() == {"WANDB_API_KEY": "0123456789abcdef", "HF_TOKEN": HF}
