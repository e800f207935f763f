"""The example plugin as a user has it: a distribution of its own, found by its entry point."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIG = '[inference]\n[trainer]\n[orchestrator]\n[model]\nname = "m"\n'


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Build and install the example into a folder, without a network."""
    if shutil.which("uv") is None:
        pytest.skip("uv is not installed")
    folder = tmp_path_factory.mktemp("site")
    source = shutil.copytree(ROOT / "examples" / "plugin", tmp_path_factory.mktemp("src") / "plugin")
    uv = ["uv", "pip", "install", "--quiet", "--offline", "--no-deps", "--no-build-isolation"]
    subprocess.run([*uv, "--python", sys.executable, "--target", folder, source], check=True)
    return folder


@pytest.fixture
def run(installed, tmp_path):
    """Run `rl` with the plugin installed, in an empty folder."""
    (tmp_path / "rl.toml").write_text(CONFIG)
    keep = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}

    def run(*argv, **environment):
        return subprocess.run(
            [Path(sys.executable).with_name("rl"), *argv],
            cwd=tmp_path,
            env={**keep, "HOME": str(tmp_path), "PYTHONPATH": str(installed), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_the_example_plugin_adds_its_backend_check_template_and_environment(run, tmp_path):
    done = run("--backend", "night", "@", "rl.toml", "--output-dir", "run", "--dry-run")

    script = (tmp_path / "run" / "rl.sbatch").read_text()

    assert done.returncode == 0, done.stderr
    assert "#SBATCH --begin=22:00" in script
    assert 'echo "tonight on $(hostname)"' in script
    assert "export NCCL_DEBUG=WARN" in script
    assert "lies in your home directory" in done.stderr


def test_a_begin_time_of_ones_own_wins_over_the_plugin(run, tmp_path):
    run("--backend", "night", "@", "rl.toml", "--output-dir", "run", "--dry-run", "--begin", "now+1hour")

    assert "#SBATCH --begin=now+1hour" in (tmp_path / "run" / "rl.sbatch").read_text()


def test_a_disabled_plugin_is_gone(run, tmp_path):
    done = run(
        *("--backend", "night", "@", "rl.toml", "--output-dir", "run", "--dry-run"),
        MEDARC_DISABLE_PLUGINS="night",
    )

    assert done.returncode == 2
    assert "unknown backend 'night'" in done.stderr
    assert not (tmp_path / "run").exists()
