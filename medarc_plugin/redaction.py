"""Secrets, and keeping them out of what is written: how they are known, and how a text is rid of them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

BLANK = "***"
"""What stands where a secret was."""

_SECRET = re.compile(r"TOKEN(?!IZER)|SECRET|PASSWORD|CREDENTIAL|API_?KEY", re.IGNORECASE)
_SHORTEST_SECRET = 8

# A word of the command line that is followed by a secret, or holds one; `--max-tokens 64` is none.
_SECRET_FLAG = re.compile(r"--[\w.-]*(?:token|secret|password|credential|api[-_]?key)", re.IGNORECASE)
_ASSIGNMENT = re.compile(r"(?P<name>[A-Za-z_-][\w.-]*)=(?P<value>.+)", re.DOTALL)
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
# `pad_token` and `api_key_var` of a config are no secrets.
_SECRET_FIELD = re.compile(
    r"(?:.*[_-])?(?:api[_-]?key|secret|password|authorization|(?:auth|access|bearer|hf|hub)[_-]token)",
    re.IGNORECASE,
)
# Hugging Face, OpenAI and its like, GitHub, AWS; and a password in an address.
_SHAPES = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|sk-[\w-]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|AKIA[A-Z0-9]{16})\b"
)
_IN_ADDRESS = re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")


def known_secrets() -> dict[str, str]:
    """Find the secrets of this process's environment, and the hub's token, by the name of their variable."""
    found = {
        name: value
        for name, value in os.environ.items()
        if _SECRET.search(name) and len(value) >= _SHORTEST_SECRET and "/" not in value
    }
    if token := stored_token():
        found.setdefault("HF_TOKEN", token)
    return found


def stored_token() -> str | None:
    """Find the token that `hf auth login` keeps.

    https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables#hftokenpath
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = Path(os.environ.get("HF_HOME") or cache / "huggingface")
    path = Path(os.environ.get("HF_TOKEN_PATH") or home / "token")
    try:
        token = path.expanduser().read_text(encoding="ascii").strip()
    except (OSError, RuntimeError, UnicodeDecodeError):
        return None
    # No header and no environment could carry it.
    return token if token.isprintable() else None


class Redaction:
    """Blanks secrets out of a document that is about to be shown.

    Args:
        secrets: Values that are secret wherever they stand.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        # The longest first: one may be part of another.
        self._secrets = sorted({secret for secret in secrets if secret}, key=len, reverse=True)

    def text(self, text: str) -> str:
        """Blank out known secrets, and what looks like one."""
        for secret in self._secrets:
            text = text.replace(secret, BLANK)
        return _IN_ADDRESS.sub(BLANK, _SHAPES.sub(BLANK, text))

    def document(self, value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
        """The same for all texts of a document, and for variables whose name says that they are secret."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(name)): self._named(str(name), each) for name, each in value.items()}
        if isinstance(value, (list, tuple)):
            words = all(isinstance(each, str) for each in value)
            return self.command(value) if words else [self.document(each) for each in value]
        return value

    def command(self, argv: Iterable[str]) -> list[str]:
        """The same for the words of a command: what follows `--api-key`, and `--env WANDB_API_KEY=...`."""
        shown: list[str] = []
        secret = False
        for word in argv:
            shown.append(BLANK if secret else self._word(word))
            secret = bool(_SECRET_FLAG.fullmatch(word))
        return shown

    def _word(self, word: str) -> str:
        flag, equals, value = word.partition("=")
        if equals and _SECRET_FLAG.fullmatch(flag):
            return f"{flag}={BLANK}"
        assigned = _ASSIGNMENT.fullmatch(value if flag == "--env" else word)
        if assigned and _is_secret(assigned["name"]):
            return f"{word[: -len(assigned['value'])]}{BLANK}"
        return self.text(word)

    def _named(self, name: str, value: Any) -> Any:  # noqa: ANN401 - likewise
        if isinstance(value, str) and value and not value.isdigit() and _is_secret(name):
            return BLANK
        return self.document(value)


def _is_secret(name: str) -> bool:
    """Whether the name of a variable or a field says so; `max_tokens` does not."""
    variable = _VARIABLE.fullmatch(name) and _SECRET.search(name)
    return bool(variable or _SECRET_FIELD.fullmatch(name))
