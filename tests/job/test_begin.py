"""The launcher that imports ahead and waits for a sign."""

import subprocess
import sys
from pathlib import Path

import pytest

BEGIN = Path(__file__).resolve().parents[2] / "medarc_plugin" / "job" / "begin.py"
MODULE = """
import sys
print("imported", flush=True)
def main():
    import config
    print("began", sys.argv[1:], config.__file__, repr(sys.stdin.read()))
    return 7
"""


@pytest.fixture
def begin(tmp_path):
    """Starts it in a folder with a module `launcher`, and one named like one of the job's own."""
    (tmp_path / "launcher.py").write_text(MODULE)
    (tmp_path / "config.py").write_text("")

    def begin(sign):
        return subprocess.run(
            [sys.executable, str(BEGIN), "launcher", "@", "a b.json"],
            check=False,
            cwd=tmp_path,
            input=sign,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return begin


def test_it_becomes_the_launcher_at_the_sign(begin, tmp_path):
    done = begin("\n")

    assert done.returncode == 7, done.stderr
    assert done.stdout.splitlines() == [
        "imported",
        f"began ['@', 'a b.json'] {tmp_path / 'config.py'} ''",
    ]


def test_it_ends_when_nobody_is_there_to_give_the_sign(begin):
    done = begin("")

    assert (done.returncode, done.stdout) == (125, "imported\n")
