"""prime-rl's own scripts take `--backend`, however both packages came into one environment.

Environments are built by uv and pip, offline, with a prime-rl that says what reached it; where PRIME_RL_DIR
names the real one, with that too.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import installs
import pytest
from installs import ORDERS, ROOT, SCRIPTS, Environment
from standins.real import example, find_real

from medarc_plugin.host import fields

pytestmark = pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed")

OURS = "Usage: {} --backend slurm @ CONFIG"
ARGV = ("@", "a b.toml", "--max-steps", "5", "", "--", "--backend", "slurm")
PLAIN = ("-c", "print('started')")


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    return installs.build(ROOT, tmp_path_factory.mktemp("plugin"))


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    source = installs.copy_plugin(tmp_path_factory.mktemp("source") / "older", "0.0.9")
    return installs.build(source, tmp_path_factory.mktemp("older"))


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """A prime-rl that is played."""
    source = installs.write_prime_rl(tmp_path_factory.mktemp("source") / "prime-rl")
    return installs.build(source, tmp_path_factory.mktemp("played"))


@pytest.fixture(scope="module")
def borrowed(tmp_path_factory):
    return installs.borrow(tmp_path_factory.mktemp("borrowed"))


@pytest.fixture(scope="module")
def make(tmp_path_factory, borrowed):
    """Make an empty environment: `make("uv")`, `make("pip")`."""

    def make(installer):
        if installer == "pip":
            installer = installs.pip_in(tmp_path_factory.getbasetemp() / "pip")
        return Environment(
            tmp_path_factory.mktemp("lab") / ".venv", installer, Path(sys.executable), borrowed
        )

    return make


@pytest.fixture(scope="module")
def shared(make, plugin, played):
    """prime-rl's scripts won; no test changes what is installed."""
    environment = make("uv")
    environment.install(plugin)
    environment.install(played)
    return environment


@pytest.fixture
def broken(make, plugin, played):
    """Like `shared`, to be changed."""
    environment = make("uv")
    environment.install(plugin)
    environment.install(played)
    return environment


def told(environment, *argv, program="rl", **variables):
    """What reached prime-rl."""
    done = environment.run(program, *argv, **variables)

    assert (done.returncode, done.stderr) == (43, "")
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("installer", "order"), [("uv", name) for name in ORDERS] + [("pip", name) for name in list(ORDERS)[:-1]]
)
def test_both_ways_work_in_every_order_of_installs(make, plugin, older, played, installer, order):
    environment = make(installer)
    ORDERS[order](environment, plugin, older, played)

    for name in SCRIPTS:
        done = environment.run(name, "--backend=slurm", "--help")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(OURS.format(name))
        reached = told(environment, *ARGV, program=name)
        assert reached["argv"] == [str(environment.folder / "bin" / name), *ARGV]
        assert reached["module"] == f"prime_rl.entrypoints.{name}"


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_without_the_plugin_prime_rl_is_as_before_once_its_scripts_are_back(make, plugin, played, installer):
    environment = make(installer)
    environment.install(played)
    environment.install(plugin)
    environment.uninstall(plugin)

    assert not environment.hook.exists()
    assert not (environment.folder / "bin" / "rl").exists()
    module = environment.run("python", "-m", "prime_rl.entrypoints.rl", *ARGV)
    assert (module.returncode, json.loads(module.stdout)["argv"][1:]) == (43, list(ARGV))
    environment.uninstall(played)
    environment.install(played)
    assert told(environment, "--backend", "slurm")["argv"][1:] == ["--backend", "slurm"]


def test_the_scripts_come_back_with_the_plugin_alone(broken, plugin):
    broken.uninstall(plugin)
    gone = not (broken.folder / "bin" / "rl").exists()
    broken.install(plugin)

    assert gone
    assert broken.run("rl", "--backend", "slurm", "--help").stdout.startswith(OURS.format("rl"))
    assert told(broken, *ARGV)["argv"][1:] == list(ARGV)


def test_without_prime_rl_its_scripts_are_gone_and_medarc_slurm_is_not(broken, played):
    broken.uninstall(played)
    done = broken.run("medarc_slurm", "rl", "--help")

    assert not (broken.folder / "bin" / "rl").exists()
    assert (done.returncode, done.stdout.startswith("Usage: medarc_slurm rl")) == (0, True)


def test_without_a_backend_nothing_of_ours_is_loaded(shared):
    assert told(shared, *ARGV[:5])["ours"] == []


def test_the_variable_asks_for_a_backend_too(shared):
    done = shared.run("rl", "--help", MEDARC_BACKEND="slurm")

    assert (done.returncode, done.stdout.startswith(OURS.format("rl"))) == (0, True)


def test_the_hook_can_be_turned_off(shared):
    argv = ("--backend", "slurm")

    assert told(shared, *argv, MEDARC_IMPORT_HOOK="0")["argv"][1:] == list(argv)


def test_a_module_that_is_run_is_prime_rls_own(shared):
    done = shared.run("python", "-m", "prime_rl.entrypoints.rl", "--backend", "slurm")

    assert (done.returncode, json.loads(done.stdout)["module"]) == (43, "__main__")


@pytest.mark.parametrize(
    "text",
    [
        "import sys\nfrom prime_rl.entrypoints.rl import main as prime_rl_main\nsys.exit(prime_rl_main())\n",
        "import sys\nimport prime_rl.entrypoints.rl\nsys.exit(prime_rl.entrypoints.rl.main())\n",
    ],
)
def test_somebodys_own_program_of_the_name_gets_prime_rls_module(shared, tmp_path, text):
    (tmp_path / "rl").write_text(text)
    done = shared.run("python", tmp_path / "rl", "--backend", "slurm")

    reached = json.loads(done.stdout)
    assert (done.returncode, reached["argv"][1:]) == (43, ["--backend", "slurm"])


def test_our_script_hands_over_to_the_prime_rl_beside_it(make, plugin, played, tmp_path, checkout):
    environment = make("uv")
    environment.install(played)
    environment.install(plugin)
    (tmp_path / "prime-rl").symlink_to(checkout)

    assert told(environment, *ARGV, cwd=tmp_path, PRIME_RL_DIR=str(checkout))["argv"][1:] == list(ARGV)


def test_a_run_is_planned_with_the_prime_rl_of_the_environment(shared, tmp_path):
    """The one that is played has no configs, and is asked for them."""
    done = shared.run("rl", "--backend", "slurm", "@", ROOT / "examples/reverse_text/rl.toml", cwd=tmp_path)

    assert done.returncode == 2
    assert f"prime-rl (this environment, {shared.python}) cannot be imported" in done.stderr


@pytest.mark.parametrize("flags", [(), ("-I",), ("-E",), ("-s",), ("-S",), ("-W", "error"), ("-X", "dev")])
def test_python_starts_with_all_its_flags(shared, flags):
    done = shared.run("python", *flags, *PLAIN)

    assert (done.returncode, done.stdout, done.stderr) == (0, "started\n", "")


def half_uninstalled(site_packages):
    shutil.rmtree(site_packages / "medarc_plugin")


def without_a_dependency(site_packages):
    (site_packages / "pluggy.py").write_text("raise ModuleNotFoundError(\"No module named 'pluggy'\")\n")


def of_another_python(site_packages):
    (site_packages / "medarc_plugin" / "__init__.py").write_text("match = type = print 'hello'\n")


def that_exits(site_packages):
    hook = site_packages / "medarc_plugin" / "host" / "importhook.py"
    hook.write_text("raise SystemExit('not today')\n")


def that_is_interrupted(site_packages):
    (site_packages / "medarc_plugin" / "host" / "importhook.py").write_text("raise KeyboardInterrupt\n")


def without_its_commands(site_packages):
    (site_packages / "medarc_plugin" / "cli" / "entrypoints.py").unlink()


@pytest.mark.parametrize(
    "harm", [half_uninstalled, without_a_dependency, of_another_python, that_exits, that_is_interrupted]
)
def test_a_broken_plugin_stops_neither_python_nor_prime_rl(broken, harm):
    harm(broken.site_packages)
    plain, asked = broken.run("python", *PLAIN), broken.run("rl", "--backend", "slurm")

    assert (plain.returncode, plain.stdout, plain.stderr) == (0, "started\n", "")
    assert told(broken, *ARGV[:5])["ours"] == []
    assert (asked.returncode, json.loads(asked.stdout)["argv"][1:]) == (43, ["--backend", "slurm"])
    (words,) = asked.stderr.splitlines()
    assert words.startswith("medarc_plugin: its import hook failed: ")


def test_a_plugin_that_cannot_take_the_command_says_so(broken):
    without_its_commands(broken.site_packages)
    done = broken.run("rl", "--backend", "slurm")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: medarc_plugin is installed here and cannot be imported: ")
    assert done.stderr.splitlines()[1] == (
        f"hint: install it again, with its dependencies, for {broken.folder}/bin/python"
    )


@pytest.mark.network
@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_both_ways_work_with_dependencies_from_the_index(tmp_path, plugin, played, installer):
    environment = Environment(tmp_path / ".venv", installer, Path(sys.executable), tmp_path)
    target = ["--python", environment.python, "--quiet", plugin.wheel, played.wheel]
    if installer == "uv":
        command = ["uv", "pip", "install", *target]
    else:
        command = [installs.pip_in(tmp_path / "pip"), *target[:2], "install", *target[2:]]
    subprocess.run(command, check=True)
    done = environment.run("rl", "--backend", "slurm", "--help")

    assert (done.returncode, done.stdout.startswith(OURS.format("rl"))) == (0, True)
    assert told(environment, *ARGV)["argv"][1:] == list(ARGV)


# The real prime-rl.


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """prime-rl, its config package, and its interpreter's own packages."""
    directory = os.environ.get("PRIME_RL_DIR")
    if not directory:
        pytest.skip("PRIME_RL_DIR names no prime-rl")
    return installs.real_prime_rl(
        Path(directory),
        Path(os.environ.get("PRIME_RL_PYTHON") or Path(directory, ".venv/bin/python")),
        tmp_path_factory.mktemp("real"),
    )


@pytest.mark.host
@pytest.mark.timeout(600)
@pytest.mark.parametrize("order", ORDERS)
def test_the_real_prime_rl_in_every_order(real, plugin, older, tmp_path, order):
    environment = real.environment(tmp_path / ".venv")
    ORDERS[order](environment, plugin, older, real.prime_rl)
    shape = find_real().shape
    where = ("runs", "--run.name", "own") if shape is fields.MAIN else ("runs/own",)
    for name in SCRIPTS:
        done = environment.run(name, "--backend", "slurm", "--help")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(OURS.format(name))
    own = environment.run(
        *("rl", "@", example("rl", shape), "--output-dir", *where, "--max-steps", "7", "--dry-run"),
        cwd=tmp_path,
    )

    assert own.returncode == 0, own.stdout + own.stderr
    (trainer,) = (tmp_path / "runs/own/configs").glob("trainer.*")
    assert re.search(r"^\W*max_steps\W+7\b", trainer.read_text(), re.MULTILINE)
