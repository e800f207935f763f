"""The same config once more: planned from the cache, unless something that it came from has changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from standin import make_checkout

from medarc_plugin.host import resolve

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    Run = Callable[..., Result]

CONFIG = 'max_steps = 5\n\n[model]\nname = "m"\n\n[data]\ntype = "fake"\n'
LONG_AGO = 1_700_000_000
DRY_RUN = ("sft", "@", "a.toml", "--backend", "slurm", "--output-dir", "runs/a", "--gpus", "1", "--dry-run")


@pytest.fixture
def prime_rl(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slurm: object) -> Path:
    """A prime-rl of this test's own, nothing of it new, and a config."""
    checkout = make_checkout(tmp_path / "prime-rl")
    source = checkout / "src"
    played = (source / "prime_rl").resolve()
    (source / "prime_rl").unlink()
    shutil.copytree(played, source / "prime_rl", ignore=shutil.ignore_patterns("__pycache__"))
    (packages,) = checkout.glob(".venv/lib/python3*/site-packages")
    (packages / "renderers").mkdir()
    (packages / "renderers/configs.py").write_text("NAME = 'one'\n")
    sft = source / "prime_rl/configs/sft.py"
    sft.write_text(f"import renderers.configs\n{sft.read_text()}")
    for path in [*source.rglob("*.py"), *packages.rglob("*.py")]:
        os.utime(path, (LONG_AGO, LONG_AGO))
    monkeypatch.setenv("PRIME_RL_DIR", str(checkout))
    (work / "a.toml").write_text(CONFIG)
    return checkout


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is run: a line each time that prime-rl's interpreter is."""
    found: list[str] = []
    run = resolve.run_apart

    def count(argv: list[str], **options: object) -> object:
        found.append(argv[0])
        return run(argv, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(resolve, "run_apart", count)
    return found


def test_the_same_config_is_planned_without_prime_rl(here: Run, prime_rl: Path, asked: list[str]) -> None:
    first, second = here(*DRY_RUN), here(*DRY_RUN)

    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert asked == [str(prime_rl / ".venv/bin/python")]
    assert "from the cache" not in first.err
    (words,) = [line for line in second.err.splitlines() if line.startswith("config")]
    assert words.endswith(f"checked by prime-rl at {prime_rl} (PRIME_RL_DIR), from the cache")
    assert second.err.replace(", from the cache", "") == first.err


def test_a_submission_takes_it_from_the_cache_too(here: Run, prime_rl: Path, asked: list[str]) -> None:
    here(*DRY_RUN)

    done = here(*DRY_RUN[:-1])

    assert done.code == 0, done.err
    assert len(asked) == 1


def change_config(prime_rl: Path, work: Path) -> None:
    (work / "a.toml").write_text(CONFIG.replace("5", "6"))


def change_prime_rl(prime_rl: Path, work: Path) -> None:
    path = prime_rl / "src/prime_rl/configs/sft.py"
    path.write_text(path.read_text() + "\n")
    os.utime(path, (LONG_AGO + 1, LONG_AGO + 1))


def install(prime_rl: Path, work: Path) -> None:
    (folder,) = prime_rl.glob(".venv/lib/python3*/site-packages")
    (folder / "another_environment").mkdir()


def patch_a_package(prime_rl: Path, work: Path) -> None:
    """As by hand: nothing of its name, its version or the files beside it changes."""
    (path,) = prime_rl.glob(".venv/lib/python3*/site-packages/renderers/configs.py")
    path.write_text("NAME = 'other'\n")
    os.utime(path, (LONG_AGO, LONG_AGO))


def say_nothing(prime_rl: Path, work: Path) -> None:
    """The bytes count, and not when they were written."""
    os.utime(work / "a.toml")


CHANGES = {
    "config": (change_config, 2),
    "prime-rl": (change_prime_rl, 2),
    "a package": (install, 2),
    "the text of a package": (patch_a_package, 2),
}


@pytest.mark.parametrize(
    ("change", "times"), [*CHANGES.values(), (say_nothing, 1)], ids=[*CHANGES, "nothing"]
)
def test_prime_rl_is_asked_again_when_something_changed(
    here: Run, prime_rl: Path, work: Path, asked: list[str], change: Callable[[Path, Path], None], times: int
) -> None:
    here(*DRY_RUN)
    change(prime_rl, work)

    again = here(*DRY_RUN)

    assert again.code == 0, again.err
    assert len(asked) == times


def test_local_changes_of_a_checkout_count(here: Run, prime_rl: Path, asked: list[str]) -> None:
    os.environ["PATH"] += f"{os.pathsep}/usr/bin:/bin"
    git = ["git", "-C", prime_rl, "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "pyproject.toml"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    first, same = here(*DRY_RUN), here(*DRY_RUN)

    (prime_rl / "pyproject.toml").write_text("[project]\n")
    changed, changed_same = here(*DRY_RUN), here(*DRY_RUN)

    assert ["from the cache" in done.err for done in (first, same, changed, changed_same)] == [0, 1, 0, 1]
    assert "with local changes" in changed_same.err


def test_no_cache_asks_prime_rl_and_keeps_nothing(
    here: Run, prime_rl: Path, asked: list[str], tmp_path: Path
) -> None:
    first, second = here(*DRY_RUN, "--no-cache"), here(*DRY_RUN, "--no-cache")

    assert (first.code, second.code) == (0, 0)
    assert len(asked) == 2
    assert not (tmp_path / "home/.cache/medarc/configs").exists()


def test_a_refusal_is_prime_rls_each_time(here: Run, prime_rl: Path, asked: list[str]) -> None:
    first, second = here(*DRY_RUN, "--no-such-key", "1"), here(*DRY_RUN, "--no-such-key", "1")

    assert (first.code, second.code) == (2, 2)
    assert first.err == second.err
    assert len(asked) == 2


@pytest.mark.parametrize("kind", ["a file", "a folder without rights", "rubbish"])
def test_a_cache_that_cannot_be_used_stops_nothing(
    here: Run, prime_rl: Path, tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / "home/.cache/medarc/configs"
    folder.parent.mkdir(parents=True)
    if kind == "a file":
        folder.touch()
    elif kind == "rubbish":
        here(*DRY_RUN)
        for path in folder.iterdir():
            path.write_bytes(b"rubbish")
    else:
        folder.mkdir()
        folder.chmod(0o555)

    done = here(*DRY_RUN)

    assert done.code == 0, done.err
    assert "from the cache" not in done.err


def test_a_config_that_changes_while_it_is_read_is_not_kept(
    here: Run, prime_rl: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = resolve.run_apart

    def change_and_run(*args: object, **options: object) -> object:
        done = run(*args, **options)  # type: ignore[arg-type]
        (work / "a.toml").write_text(CONFIG.replace("5", "7"))
        return done

    with monkeypatch.context() as context:
        context.setattr(resolve, "run_apart", change_and_run)
        first = here(*DRY_RUN)
    (work / "a.toml").write_text(CONFIG)
    second = here(*DRY_RUN)

    assert "a.toml changed while it was read" in first.err
    assert (first.code, second.code) == (2, 0)
    assert "from the cache" not in second.err


def test_a_config_with_a_secret_is_resolved_each_time(
    here: Run, prime_rl: Path, work: Path, asked: list[str], tmp_path: Path
) -> None:
    (work / "a.toml").write_text(CONFIG + '\n[env_vars]\nMY_SERVICE_TOKEN = "abcdefgh1234"\n')

    first, second = here(*DRY_RUN), here(*DRY_RUN)

    assert (first.code, second.code) == (0, 0), first.err
    assert len(asked) == 2
    assert not (tmp_path / "home/.cache/medarc/configs").exists()


@pytest.mark.parametrize("place", [(), ("--run.dir", "fx")], ids=["no place", "a place"])
def test_a_name_that_prime_rl_draws_is_another_each_time(
    here: Run, prime_rl: Path, asked: list[str], place: tuple[str, ...]
) -> None:
    def name() -> object:
        done = here("sft", "@", "a.toml", "--backend", "slurm", "--gpus", "1", "--dry-run", *place)
        script = Path(done.out.split()[-1])
        return json.loads((script.parent / "configs/sft.json").read_text())["run"]["name"]

    assert name() != name()
    assert len(asked) == 2


CHANCES = {
    "secrets": "secrets.token_hex(2)",
    "os.urandom": "os.urandom(2).hex()",
    "a uuid": "str(uuid.uuid4())",
    "random": "str(random.random())",
    "a name of random's": "str(choice([1, 2]))",
}


@pytest.mark.parametrize("chance", CHANCES.values(), ids=CHANCES)
def test_what_an_environment_draws_is_drawn_each_time(
    here: Run, prime_rl: Path, asked: list[str], chance: str
) -> None:
    add_to_configs(prime_rl, "import os, random, secrets, uuid\nfrom random import choice", chance)

    first, second = here(*DRY_RUN), here(*DRY_RUN)

    assert (first.code, second.code) == (0, 0), first.err
    assert len(asked) == 2


def turn_link(folder: Path) -> None:
    (folder / "link").unlink()
    (folder / "link").symlink_to("two")


def copy_in_place(folder: Path) -> None:
    """As `cp -p` does, where size and time happen to be the same."""
    (folder / "data.txt").write_text("b")
    os.utime(folder / "data.txt", (LONG_AGO, LONG_AGO))


READ = {
    "a link's target": ("os.readlink({folder} + '/link')", turn_link),
    "where a link leads": ("Path({folder} + '/link').resolve()", turn_link),
    "a variable in bytes": ("os.environb.get(b'MY_SETTING')", lambda _: os.environ.update(MY_SETTING="2")),
    "the time zone": ("time.localtime()", lambda _: os.environ.update(TZ="Asia/Tokyo")),
    "a folder's mode": ("os.stat({folder} + '/one').st_mode", lambda folder: (folder / "one").chmod(0o700)),
    "a copy in place": ("open({folder} + '/data.txt').read()", copy_in_place),
}


@pytest.mark.parametrize(("statement", "change"), READ.values(), ids=READ)
def test_what_an_environment_reads_counts(
    here: Run,
    prime_rl: Path,
    tmp_path: Path,
    asked: list[str],
    monkeypatch: pytest.MonkeyPatch,
    statement: str,
    change: Callable[[Path], None],
) -> None:
    for name, value in (("MY_SETTING", "1"), ("TZ", "Europe/Berlin")):
        monkeypatch.setenv(name, value)
    for name in ("one", "two"):
        (tmp_path / name).mkdir(mode=0o755)
    (tmp_path / "link").symlink_to("one")
    (tmp_path / "data.txt").write_text("a")
    os.utime(tmp_path / "data.txt", (LONG_AGO, LONG_AGO))
    imports = "import os, time\nfrom pathlib import Path"
    add_to_configs(prime_rl, imports, statement.format(folder=repr(str(tmp_path))))

    first, same = here(*DRY_RUN), here(*DRY_RUN)
    change(tmp_path)
    changed = here(*DRY_RUN)

    assert (first.code, changed.code) == (0, 0), first.err
    assert ["from the cache" in done.err for done in (first, same, changed)] == [False, True, False]


def add_to_configs(prime_rl: Path, imports: str, statement: str) -> None:
    """Have prime-rl do something each time that it resolves a config, as an environment may."""
    path = prime_rl / "src/prime_rl/configs/sft.py"
    head = '    @model_validator(mode="after")\n'
    text = path.read_text()
    assert head in text
    more = f"{head}    def also(self):\n        {statement}\n        return self\n\n"
    path.write_text(f"{imports}\n{text.replace(head, more + head)}")
    os.utime(path, (LONG_AGO, LONG_AGO))
