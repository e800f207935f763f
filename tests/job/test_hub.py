"""Where models and data sets come from, as a rehearsal finds out: folder, cache, or a hub that answers."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from medarc_plugin.job.hub import Hub, find_data, find_model, head, hub_of

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@dataclass
class Server:
    """A hub on this machine: what it answers by path, and what it was asked."""

    address: str
    answers: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            told.asked.append((self.command, self.path, self.headers["Authorization"]))
            status, headers = told.answers.get(self.path, (404, {"X-Error-Code": "RepoNotFound"}))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        told = Server(f"http://127.0.0.1:{made.server_address[1]}")
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield told
        made.shutdown()
        thread.join()


@pytest.fixture
def hub(tmp_path: Path, server: Server) -> Hub:
    return Hub(server.address, tmp_path / "hub", tmp_path / "datasets", "", offline=False, data_offline=False)


def make_model(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in ("config.json", *names):
        (folder / name).write_text("{}")
    return folder


def cached(hub: Hub, repository: str, *names: str) -> Path:
    root = hub.cache / repository
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("0a1b")
    return make_model(root / "snapshots" / "0a1b", *names)


# Models


def test_a_model_in_a_folder_is_there(hub: Hub, tmp_path: Path, server: Server) -> None:
    folder = make_model(tmp_path / "m", "model.safetensors")

    assert find_model(hub, str(folder)).there
    assert server.asked == []


@pytest.mark.parametrize("names", [[], ["config.json"]])
def test_a_folder_that_is_no_model(hub: Hub, tmp_path: Path, names: list[str]) -> None:
    (tmp_path / "m").mkdir()
    for name in names:
        (tmp_path / "m" / name).write_text("{}")

    found = find_model(hub, str(tmp_path / "m"))

    assert not found.there
    assert f"without {'weights' if names else 'config.json'}" in found.text


def test_a_path_that_is_not_there_is_not_looked_for_on_the_hub(hub: Hub, server: Server) -> None:
    found = find_model(hub, "/nowhere/m")

    assert not found.there
    assert "not there on this node" in found.text
    assert found.hint
    assert server.asked == []


def test_a_model_in_the_cache_is_there(hub: Hub, server: Server) -> None:
    folder = cached(hub, "models--org--m", *SHARDS)
    index = {"weight_map": dict(zip("ab", SHARDS, strict=True))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    assert find_model(hub, "org/m").there
    assert server.asked == []


def test_a_model_of_which_the_cache_has_a_part_offline(hub: Hub) -> None:
    folder = cached(hub, "models--org--m", SHARDS[0])
    index = {"weight_map": dict(zip("ab", SHARDS, strict=True))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    found = find_model(replace(hub, offline=True), "org/m")

    assert not found.there
    assert SHARDS[1] in found.text
    assert "hf download org/m" in found.hint


def test_a_tokenizer_needs_no_weights(hub: Hub) -> None:
    cached(hub, "models--org--t", "tokenizer.json")

    assert find_model(hub, "org/t", weights=False).there


def test_a_model_on_the_hub_is_asked_for_and_not_fetched(hub: Hub, server: Server) -> None:
    path = "/org/m/resolve/main/config.json"
    server.answers[path] = (307, {"Location": "/api/elsewhere"})

    found = find_model(replace(hub, token="t0ken"), "org/m")

    assert found.there
    assert server.asked == [("HEAD", path, "Bearer t0ken")]
    assert not hub.cache.exists()


@pytest.mark.parametrize(
    ("status", "headers", "text"),
    [
        (401, {}, "without a token"),
        (403, {}, "without a token"),
        (404, {"X-Error-Code": "EntryNotFound"}, "config.json of org/m is neither in the cache"),
        (404, {}, "org/m is neither in the cache"),
        (503, {}, "status 503"),
    ],
)
def test_a_model_that_the_hub_does_not_give(
    hub: Hub, server: Server, status: int, headers: dict[str, str], text: str
) -> None:
    server.answers["/org/m/resolve/main/config.json"] = (status, headers)

    found = find_model(hub, "org/m")

    assert not found.there
    assert text in found.text
    assert found.hint


def test_a_hub_that_cannot_be_reached(hub: Hub) -> None:
    found = find_model(replace(hub, endpoint="http://127.0.0.1:1"), "org/m")

    assert not found.there
    assert "cannot be reached" in found.text


@pytest.mark.parametrize("address", ["nonsense", "http://[::1", "http://127.0.0.1:port"])
def test_an_address_that_is_none(hub: Hub, address: str) -> None:
    assert not find_model(replace(hub, endpoint=address), "org/m").there


def test_a_hub_with_too_many_questions_is_there(hub: Hub, server: Server) -> None:
    server.answers["/org/m/resolve/main/config.json"] = (429, {})

    assert find_model(hub, "org/m").there


# Data sets


def test_a_data_set_at_a_path_is_there(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("")

    assert find_data(hub, str(tmp_path / "rows.jsonl")).there


def test_a_data_set_that_was_prepared_is_there_offline(hub: Hub) -> None:
    folder = hub.datasets / "org___rows" / "default" / "0.0.0" / "0a1b"
    folder.mkdir(parents=True)
    (folder / "rows-train.arrow").touch()

    assert find_data(replace(hub, data_offline=True), "org/Rows").there


def test_a_data_set_in_the_cache_is_there(hub: Hub, server: Server) -> None:
    cached(hub, "datasets--org--rows")

    assert find_data(hub, "org/rows").there
    assert server.asked == []


def test_a_data_set_that_is_nowhere_offline(hub: Hub, server: Server) -> None:
    found = find_data(replace(hub, data_offline=True), "org/rows")

    assert not found.there
    assert "hf download --repo-type dataset org/rows" in found.hint
    assert server.asked == []


@pytest.mark.parametrize(("code", "there"), [("EntryNotFound", True), ("RepoNotFound", False)])
def test_a_data_set_on_the_hub(hub: Hub, server: Server, code: str, there: bool) -> None:
    server.answers["/datasets/org/rows/resolve/main/.gitattributes"] = (404, {"X-Error-Code": code})

    assert find_data(hub, "org/rows").there is there


# Where things are


def test_a_token_does_not_follow_to_another_server(server: Server) -> None:
    server.answers["/a"] = (302, {"Location": f"{server.address}/b"})

    status, headers = head(f"{server.address}/a", "t0ken")

    assert (status, headers["location"]) == (302, f"{server.address}/b")
    assert [path for _, path, _ in server.asked] == ["/a"]


def test_places_follow_the_hubs_own_variables(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("kept\n")

    found = hub_of({"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "yes", "HF_ENDPOINT": "https://mirror/"})

    assert found == Hub(
        "https://mirror", tmp_path / "hub", tmp_path / "datasets", "kept", offline=True, data_offline=True
    )


def test_places_may_be_named_one_by_one() -> None:
    found = hub_of(
        {"HF_HUB_CACHE": "/c", "HF_DATASETS_CACHE": "/d", "HF_TOKEN": "t", "HF_DATASETS_OFFLINE": "1"}
    )

    assert found == Hub(
        "https://huggingface.co", Path("/c"), Path("/d"), "t", offline=False, data_offline=True
    )
