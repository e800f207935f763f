"""Configs that prime-rl has resolved before: when they are used again, and when not."""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from medarc_plugin.host import cache as module
from medarc_plugin.host.cache import Cache, Imports, Surroundings, folder_for
from medarc_plugin.models import Host
from medarc_plugin.options import holds_secret

if TYPE_CHECKING:
    from pathlib import Path

KEY = "0" * 64
LONG_AGO = 1_700_000_000


@pytest.fixture
def source(work: Path) -> Path:
    """A file that an answer came from, and that was last changed long ago."""
    path = work / "environment" / "taskset.py"
    path.parent.mkdir()
    path.write_text("a")
    os.utime(path, (LONG_AGO, LONG_AGO))
    return path


@pytest.fixture
def answer(source: Path) -> dict[str, Any]:
    """An answer of the resolver's."""
    read = {
        "paths": [str(source), str(source.parent / "absent")],
        "folders": [str(source.parent)],
        "variables": ["PRIME_LOG_LEVEL", "HF_TOKEN"],
        "hindrance": "",
    }
    return {"kind": "resolved", "document": {"max_steps": 5}, "facts": {}, "shape": "main", "read": read}


@pytest.fixture
def entries(tmp_path: Path) -> Path:
    """The cache's folder, which is not there yet."""
    return tmp_path / "cache" / "configs"


NOTHING = Imports([])


def kept(entries: Path, answer: dict[str, Any], *, imports: Imports = NOTHING, **environment: str) -> bool:
    return Cache(entries).put(KEY, answer, imports, environment, time.time())


def test_an_answer_is_found_again_as_it_was(entries: Path, answer: dict[str, Any]) -> None:
    assert kept(entries, answer)
    assert Cache(entries).get(KEY, {}) == {name: answer[name] for name in answer if name != "read"}
    assert Cache(entries).get("1" * 64, {}) is None


def test_entries_are_their_users_alone(entries: Path, answer: dict[str, Any]) -> None:
    previous = os.umask(0)
    try:
        kept(entries, answer)
    finally:
        os.umask(previous)

    assert entries.stat().st_mode & 0o777 == 0o700
    assert (entries / KEY).stat().st_mode & 0o777 == 0o600


def change_text(source: Path) -> None:
    source.write_text("other")


def change_and_set_the_time_back(source: Path) -> None:
    new = source.with_suffix(".new")
    new.write_text("b")
    os.utime(new, (LONG_AGO, LONG_AGO))
    source.unlink()
    (source.parent / "fills the inode").touch()
    new.rename(source)
    (source.parent / "fills the inode").unlink()


def remove(source: Path) -> None:
    source.unlink()


def add_what_was_asked_for(source: Path) -> None:
    (source.parent / "absent").touch()


def add_beside(source: Path) -> None:
    (source.parent / "new.py").touch()


@pytest.mark.parametrize(
    "change", [change_text, change_and_set_the_time_back, remove, add_what_was_asked_for, add_beside]
)
def test_an_answer_does_not_outlive_what_it_came_from(
    entries: Path, answer: dict[str, Any], source: Path, change: Any
) -> None:
    kept(entries, answer)

    change(source)

    assert Cache(entries).get(KEY, {}) is None


@pytest.mark.parametrize("change", [change_text, change_and_set_the_time_back, remove])
def test_an_answer_does_not_outlive_what_prime_rl_imports(
    entries: Path, answer: dict[str, Any], work: Path, change: Any
) -> None:
    module = work / "renderers.py"
    module.write_text("a")
    os.utime(module, (LONG_AGO, LONG_AGO))
    imports = Imports([str(module)])
    kept(entries, answer, imports=imports)
    before = Cache(entries).get(KEY, {})

    change(module)

    assert before is not None
    assert Cache(entries).get(KEY, {}) is None


def test_imports_are_kept_once_for_all_configs(entries: Path, answer: dict[str, Any], source: Path) -> None:
    imports = Imports([str(source)])
    for key in ("a", "b"):
        Cache(entries).put(key, answer, imports, {}, time.time())

    assert {path.name for path in entries.iterdir()} == {"a", "b", imports.key}


@pytest.mark.parametrize("damage", ["gone", "rubbish", "another's"])
def test_without_its_imports_an_entry_is_none_and_is_replaced(
    entries: Path, answer: dict[str, Any], source: Path, damage: str
) -> None:
    imports = Imports([str(source)])
    kept(entries, answer, imports=imports)
    path = entries / imports.key
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(b"rubbish" if damage == "rubbish" else module.packed({"paths": []}))

    assert Cache(entries).get(KEY, {}) is None
    assert kept(entries, answer, imports=imports)
    assert Cache(entries).get(KEY, {}) is not None


def test_what_python_compiles_changes_nothing(entries: Path, answer: dict[str, Any], source: Path) -> None:
    kept(entries, answer)

    (source.parent / "__pycache__").mkdir()

    assert Cache(entries).get(KEY, {}) is not None


@pytest.mark.parametrize("now", [{}, {"PRIME_LOG_LEVEL": "info"}])
def test_a_variable_that_was_looked_up_counts(
    entries: Path, answer: dict[str, Any], now: dict[str, str]
) -> None:
    kept(entries, answer, PRIME_LOG_LEVEL="debug")

    assert Cache(entries).get(KEY, now) is None
    assert Cache(entries).get(KEY, {"PRIME_LOG_LEVEL": "debug", "OTHER": "1"}) is not None


def test_what_changed_while_prime_rl_read_is_not_kept(
    entries: Path, answer: dict[str, Any], source: Path
) -> None:
    os.utime(source)

    assert not kept(entries, answer)
    assert not entries.exists()


@pytest.mark.parametrize(
    "other",
    [{"kind": "rejected", "message": "no"}, {"read": {"hindrance": "resolving it calls socket.connect"}}],
)
def test_refusals_and_what_came_from_elsewhere_are_not_kept(
    entries: Path, answer: dict[str, Any], other: dict[str, Any]
) -> None:
    assert not kept(entries, {**answer, **other})
    assert not entries.exists()


SECRETS = {
    "by its name": ({"env_vars": {"MY_API_KEY": "abcdefgh"}}, True),
    "in a list": ({"clients": [{"password": "abcdefgh"}]}, True),
    "in an address": ({"base_url": "https://me:secret@host/v1"}, True),
    "a variable's value": ({"name": "x-very-hidden-x"}, True),
    "a variable's name": ({"api_key_var": "VLLM_API_KEY", "headers": {"Authorization": "MY_KEY"}}, False),
    "tokens of a model": ({"max_completion_tokens": 5, "tokenizer": {"name": "Qwen/Qwen3"}}, False),
}


@pytest.mark.parametrize(("document", "secret"), SECRETS.values(), ids=SECRETS)
def test_a_config_with_a_secret_is_told(document: dict[str, Any], secret: bool) -> None:
    assert holds_secret(document, {"WANDB_API_KEY": "very-hidden"}) is secret


def test_no_secret_is_kept(entries: Path, answer: dict[str, Any]) -> None:
    assert not kept(entries, {**answer, "document": {"name": "x-very-hidden-x"}}, HF_TOKEN="very-hidden")
    assert not entries.exists()


DAMAGE = {
    "empty": lambda _: b"",
    "cut": lambda data: data[: len(data) // 2],
    "a bit": lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
    "other text": lambda _: b"{}",
    "endless": lambda _: b"\0" * (module.MOST_ENTRY_BYTES + 10),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_entry_is_no_entry_and_is_replaced(
    entries: Path, answer: dict[str, Any], damage: Any
) -> None:
    kept(entries, answer)
    (entries / KEY).write_bytes(damage((entries / KEY).read_bytes()))

    assert Cache(entries).get(KEY, {}) is None
    assert kept(entries, answer)
    assert Cache(entries).get(KEY, {}) is not None


@pytest.mark.parametrize("kind", ["folder", "link to a folder", "link to nothing"])
def test_what_lies_in_an_entrys_place_is_replaced(
    entries: Path, answer: dict[str, Any], source: Path, kind: str
) -> None:
    entries.mkdir(mode=0o700, parents=True)
    if kind == "folder":
        (entries / KEY / "below").mkdir(parents=True)
    else:
        (entries / KEY).symlink_to(source.parent if kind == "link to a folder" else "nothing")

    assert Cache(entries).get(KEY, {}) is None
    assert kept(entries, answer)
    assert Cache(entries).get(KEY, {}) is not None
    assert source.exists()


def test_an_entry_from_the_future_holds_like_any_other(entries: Path, answer: dict[str, Any]) -> None:
    kept(entries, answer)
    os.utime(entries / KEY, (time.time() + 10**6,) * 2)

    assert Cache(entries).get(KEY, {}) is not None
    assert kept(entries, answer)


def test_another_format_is_no_entry(entries: Path) -> None:
    entries.mkdir(mode=0o700, parents=True)

    for entry in ([], {}, {"read": 5, "state": ""}, {"read": {"paths": [1]}, "state": "x", "answer": {}}):
        (entries / KEY).write_bytes(module.packed(entry))  # type: ignore[arg-type]

        assert Cache(entries).get(KEY, {}) is None


def test_an_entry_that_is_something_else_is_passed_over(entries: Path, answer: dict[str, Any]) -> None:
    entries.mkdir(mode=0o700, parents=True)
    os.mkfifo(entries / KEY)

    assert Cache(entries).get(KEY, {}) is None
    assert kept(entries, answer)


def test_a_folder_that_others_may_write_is_not_used(entries: Path, answer: dict[str, Any]) -> None:
    kept(entries, answer)

    entries.chmod(0o777)

    assert Cache(entries).get(KEY, {}) is None
    assert not kept(entries, answer)


def test_a_link_is_not_followed_to_another_folder(entries: Path, answer: dict[str, Any]) -> None:
    kept(entries, answer)
    elsewhere = entries.rename(entries.with_name("elsewhere"))
    entries.symlink_to(elsewhere)

    assert Cache(entries).get(KEY, {}) is None


@pytest.mark.parametrize("failing", ["mkstemp", "replace"])
def test_a_full_disk_leaves_nothing(
    entries: Path, answer: dict[str, Any], failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    where = {"mkstemp": module.tempfile, "replace": module.Path}[failing]
    with monkeypatch.context() as context:
        context.setattr(where, failing, fail)
        done = kept(entries, answer)

    assert not done
    assert list(entries.iterdir()) == []


def test_a_file_where_the_folder_should_be(entries: Path, answer: dict[str, Any]) -> None:
    entries.parent.parent.mkdir(exist_ok=True)
    entries.parent.touch()

    assert not kept(entries, answer)
    assert Cache(entries).get(KEY, {}) is None


def test_the_oldest_entries_go_first_and_what_was_used_is_not_old(
    entries: Path, answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_ENTRIES", 3)
    cache = Cache(entries)
    for name in "ab":
        cache.put(name, answer, NOTHING, {}, time.time())
        os.utime(entries / name, (LONG_AGO, LONG_AGO))
    cache.get("a", {})

    cache.put("c", answer, NOTHING, {}, time.time())

    assert {path.name for path in entries.iterdir()} == {"a", "c", NOTHING.key}


def test_all_entries_together_are_bounded(
    entries: Path, answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(entries)
    cache.put("a", answer, NOTHING, {}, time.time())
    os.utime(entries / "a", (LONG_AGO, LONG_AGO))
    sizes = [(entries / name).stat().st_size for name in ("a", NOTHING.key)]
    monkeypatch.setattr(module, "MOST_BYTES", int(sizes[0] * 1.5) + sizes[1])
    (entries / ".new-left").touch()
    os.utime(entries / ".new-left", (LONG_AGO, LONG_AGO))

    cache.put("b", answer, NOTHING, {}, time.time())

    assert {path.name for path in entries.iterdir()} == {"b", NOTHING.key}


def test_several_at_once_find_a_whole_entry_or_none(entries: Path, answer: dict[str, Any]) -> None:
    found: list[object] = []
    whole = {name: answer[name] for name in answer if name != "read"}

    def keep_and_find() -> None:
        for _ in range(30):
            kept(entries, answer)
            found.append(Cache(entries).get(KEY, {}))

    threads = [threading.Thread(target=keep_and_find) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [whole] * 120
    assert {path.name for path in entries.iterdir()} == {KEY, NOTHING.key}


@pytest.fixture
def host(work: Path) -> Host:
    """A prime-rl with an environment."""
    packages = work / "prime-rl/.venv/lib/python3.12/site-packages"
    (packages / "verifiers-0.3.1.dist-info").mkdir(parents=True)
    (packages / "verifiers-0.3.1.dist-info/RECORD").write_text("verifiers/__init__.py,,\n")
    (packages / "editable.pth").write_text("/source\n")
    python = work / "prime-rl/.venv/bin/python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    (work / "prime-rl/.venv/pyvenv.cfg").write_text("version = 3.12.1\n")
    return Host(python, work / "prime-rl", "PRIME_RL_DIR", commit="abc")


def key(
    host: Host, *arguments: str, wishes: dict[str, Any] | None = None, entrypoint: str = "rl", **more: str
) -> str | None:
    return Surroundings(host).key(entrypoint, arguments, wishes or {}, more)


def test_the_same_request_has_the_same_key(host: Host, work: Path) -> None:
    (work / "a.toml").write_text("max_steps = 5")

    assert key(host, "@", "a.toml") == key(host, "@", "a.toml", HOSTNAME="x")


def other_text(host: Host, work: Path) -> str | None:
    (work / "a.toml").write_text("max_steps = 6")
    return key(host, "@", "a.toml")


def other_package(host: Host, work: Path) -> str | None:
    folder = work / "prime-rl/.venv/lib/python3.12/site-packages"
    (folder / "verifiers-0.3.1.dist-info").rename(folder / "verifiers-0.3.2.dist-info")
    return key(host, "@", "a.toml")


def same_package_again(host: Host, work: Path) -> str | None:
    record = work / "prime-rl/.venv/lib/python3.12/site-packages/verifiers-0.3.1.dist-info/RECORD"
    record.write_text(record.read_text())
    os.utime(record, (LONG_AGO + 1, LONG_AGO + 1))
    return key(host, "@", "a.toml")


def other_source_folder(host: Host, work: Path) -> str | None:
    (work / "prime-rl/.venv/lib/python3.12/site-packages/editable.pth").write_text("/elsewhere/source\n")
    return key(host, "@", "a.toml")


def other_environment(host: Host, work: Path) -> str | None:
    (work / "prime-rl/.venv/pyvenv.cfg").write_text("version = 3.13.0\n")
    return key(host, "@", "a.toml")


def other_interpreter(host: Host, work: Path) -> str | None:
    host.python.unlink()
    host.python.write_text("")
    return key(host, "@", "a.toml")


def other_folder(host: Host, work: Path) -> str | None:
    (work / "b").mkdir()
    (work / "b/a.toml").write_text("max_steps = 5")
    os.chdir(work / "b")
    return key(host, "@", "a.toml")


DIFFERENT = {
    "the config's text": other_text,
    "a package": other_package,
    "the same package, installed again": same_package_again,
    "where a package is edited": other_source_folder,
    "the environment's Python": other_environment,
    "the interpreter": other_interpreter,
    "the folder": other_folder,
    "the commit": lambda host, _: key(replace(host, commit="def"), "@", "a.toml"),
    "the overrides": lambda host, _: key(host, "@", "a.toml", "--max-steps", "5"),
    "what is set": lambda host, _: key(host, "@", "a.toml", wishes={"name": "x"}),
    "the entry point": lambda host, _: key(host, "@", "a.toml", entrypoint="sft"),
    "Python's own variables": lambda host, _: key(host, "@", "a.toml", PYTHONPATH="/x"),
}


@pytest.mark.parametrize("change", DIFFERENT.values(), ids=DIFFERENT)
def test_whatever_is_different_has_another_key(host: Host, work: Path, change: Any) -> None:
    (work / "a.toml").write_text("max_steps = 5")
    before = key(host, "@", "a.toml")

    after = change(host, work)

    assert after is not None
    assert after != before


@pytest.mark.parametrize("token", ["--model=@part.toml", "@part.toml"])
def test_every_file_that_a_token_names_counts(host: Host, work: Path, token: str) -> None:
    (work / "part.toml").write_text("a = 1")
    before = key(host, "--model", token)

    (work / "part.toml").write_text("a = 2")

    assert key(host, "--model", token) != before


def test_our_own_code_counts(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(host)
    other = tmp_path / "resolver.py"
    other.write_text("# another version")
    monkeypatch.setattr(module.resolver, "__file__", str(other))

    assert key(host) != before


def test_a_config_that_cannot_be_read_whole_has_no_key(
    host: Host, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(work / "pipe.toml")
    (work / "large.toml").write_text("# large")
    monkeypatch.setattr(module, "MOST_CONFIG_BYTES", 3)

    assert key(host, "@", "pipe.toml") is None
    assert key(host, "@", "large.toml") is None


def test_where_it_is(tmp_path: Path) -> None:
    assert folder_for({}) == tmp_path / "home/.cache/medarc/configs"
    assert folder_for({"MEDARC_CACHE_DIR": "/m"}) == module.Path(f"/m/configs-{os.geteuid()}")


@pytest.mark.parametrize("variable", ["MEDARC_CACHE_DIR", "XDG_CACHE_HOME"])
def test_a_relative_cache_is_none(work: module.Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "here")

    assert folder_for() == module.Path.home() / ".cache" / "medarc" / "configs"
