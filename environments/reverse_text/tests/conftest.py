"""Fixtures: no network, own caches, and a small OpenAI-compatible server.

The server's models reverse text well, badly or not at all, and it refuses what it does not know.
"""

import json
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import pytest

REQUEST_FIELDS = {
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "model",
    "n",
    "stream",
    "stream_options",
    "temperature",
    "tools",
    "top_p",
}


def tagged(text: str) -> str:
    return f"<reversed_text>{text}</reversed_text>"


MODELS: dict[str, Callable[[str], str]] = {
    "right": lambda prompt: f"Sure.\n{tagged(prompt[::-1])}",
    "untagged": lambda prompt: prompt[::-1],
    "half": lambda prompt: tagged(prompt[::-1][: len(prompt) // 2]),
    "even": lambda prompt: tagged(prompt[::-1]) if len(prompt) % 2 == 0 else "no idea",
}


class ModelServer(ThreadingHTTPServer):
    """Listens on a free port of the loopback and keeps every request that it answered."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, Any]] = []
        self.refusals: list[str] = []
        self.lock = Lock()
        self.models = MODELS

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Refusal(Exception):  # noqa: N818 - an HTTP status, not a failure of the tests
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    server: ModelServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer({"/v1/models": list_models})

    def do_POST(self) -> None:
        self.answer({"/v1/chat/completions": complete})

    def answer(self, routes: dict[str, Callable[[dict[str, Any]], dict[str, Any]]]) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            request = json.loads(body or b"{}")
            reply = routes.get(self.path, no_such_route)(request)
        except Refusal as refusal:
            with self.server.lock:
                self.server.refusals.append(f"{self.command} {self.path}: {refusal}")
            error = {"error": {"message": str(refusal), "type": "invalid_request_error"}}
            self.send(refusal.status, "application/json", json.dumps(error))
        else:
            with self.server.lock:
                self.server.requests.append(request)
            if request.get("stream"):
                self.send_events(reply)
            else:
                self.send(200, "application/json", json.dumps(reply))

    def send_events(self, completion: dict[str, Any]) -> None:
        (choice,) = completion.pop("choices")
        usage = completion.pop("usage")
        completion["object"] = "chat.completion.chunk"
        chunks = [
            {"choices": [{"index": 0, "delta": choice["message"], "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]},
            {"choices": [], "usage": usage},
        ]
        events = [json.dumps(completion | chunk) for chunk in chunks] + ["[DONE]"]
        self.send(200, "text/event-stream", "".join(f"data: {event}\n\n" for event in events))

    def send(self, status: int, content_type: str, body: str) -> None:
        payload = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_: Any) -> None:
        pass


def no_such_route(_: dict[str, Any]) -> dict[str, Any]:
    raise Refusal(404, "no such route")


def list_models(_: dict[str, Any]) -> dict[str, Any]:
    return {"object": "list", "data": [{"id": name, "object": "model"} for name in MODELS]}


def complete(request: dict[str, Any]) -> dict[str, Any]:
    if unknown := sorted(request.keys() - REQUEST_FIELDS):
        raise Refusal(400, f"unknown fields: {unknown}")
    if options := request.get("stream_options", {}).keys() - {"include_usage"}:
        raise Refusal(400, f"unknown stream options: {sorted(options)}")
    if (model := request.get("model")) not in MODELS:
        raise Refusal(404, f"no such model: {model!r}")
    messages = request["messages"]
    if [message["role"] for message in messages] != ["system", "user"]:
        raise Refusal(400, f"expected a system and a user message, got {messages!r}")
    prompt = text_of(messages[-1]["content"])
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": MODELS[model](prompt)},
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


def text_of(content: str | list[dict[str, str]]) -> str:
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content)


@pytest.fixture
def model_server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="session", autouse=True)
def hugging_face_offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Both libraries read the environment when they are imported, which may be long ago."""
    home = tmp_path_factory.mktemp("hugging-face")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_HOME", str(home))
        import datasets.config
        import huggingface_hub.constants

        patch.setattr(datasets.config, "HF_DATASETS_CACHE", home / "datasets")
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        yield


class Commands:
    """Runs an environment's console scripts in a folder and a home of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scripts = Path(sysconfig.get_path("scripts"))
        home = folder / "home"
        self.user_scripts = home / ".local" / "bin"
        self.user_scripts.mkdir(parents=True)
        kept = ("LANG", "LC_ALL", "PATH", "SSL_CERT_FILE", "TMPDIR")
        self.environment = {name: os.environ[name] for name in kept if name in os.environ} | {
            "HOME": str(home),
            "XDG_CACHE_HOME": str(home / "cache"),
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_DATA_HOME": str(home / "data"),
            "HF_HOME": str(home / "hugging-face"),
            "HF_HUB_OFFLINE": "1",
        }

    def has(self, name: str) -> bool:
        return (self.scripts / name).is_file()

    def run(self, name: str, *arguments: str, timeout: float = 240) -> subprocess.CompletedProcess:
        return subprocess.run(
            [self.scripts / name, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def add_user_script(self, name: str, text: str) -> None:
        """Put a program where verifiers looks first for `uv`: in `~/.local/bin`."""
        path = self.user_scripts / name
        path.write_text(text)
        path.chmod(0o755)

    def link_uv(self) -> None:
        """Give verifiers this machine's uv: it would install one for the user otherwise."""
        if (uv := shutil.which("uv")) is None:
            pytest.skip("uv is not on PATH")
        self.environment["UV_CACHE_DIR"] = subprocess.check_output([uv, "cache", "dir"], text=True).strip()
        self.add_user_script("uv", f'#!/bin/sh\nexec "{uv}" "$@"\n')
        self.link_pip()

    def link_pip(self) -> None:
        """Let verifiers' own `pip install --user uv` find nothing to do."""
        self.add_user_script("pip", PIP_WITH_UV)


PIP_WITH_UV = """#!/bin/sh
[ "$*" = "install -q -U --user uv" ] && exit 0
echo "unexpected: pip $*" >&2
exit 2
"""


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(tmp_path)
