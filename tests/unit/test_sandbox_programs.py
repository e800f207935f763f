from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from medarc_plugin.errors import SandboxError
from medarc_plugin.sandbox import programs

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("slurm-wlm 22.05.8\n", (22, 5)),
        ("slurm 24.11.5", (24, 11)),
        ("slurm-wlm 20.11.4", (20, 11)),
        ("slurm 25.05.0-0rc1", (25, 5)),
    ],
)
def test_parse_version(text: str, version: tuple[int, int]) -> None:
    assert programs.parse_version(text) == version


def test_no_version_in_the_answer() -> None:
    with pytest.raises(SandboxError, match="'hello'"):
        programs.parse_version("hello\n")


@pytest.mark.parametrize(
    ("release", "words"),
    [
        ("ID=debian\n", "apt-get install slurm-wlm munge"),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\n', "apt-get install slurm-wlm munge"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "dnf install slurm"),
        ("ID=fedora\n", "dnf install slurm"),
        ("ID=arch\n", "(Debian, Ubuntu) or sudo dnf"),
    ],
)
def test_install_command(tmp_path: Path, release: str, words: str) -> None:
    (tmp_path / "os-release").write_text(release)

    assert words in programs.install_command(tmp_path / "os-release")


def test_install_command_of_an_unknown_machine(tmp_path: Path) -> None:
    assert "apt-get" in programs.install_command(tmp_path / "missing")


def test_missing_programs_are_all_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = {"slurmd", "sinfo"}
    monkeypatch.setattr(
        "shutil.which", lambda name, path: f"/usr/bin/{name}" if path and name in real else None
    )
    with pytest.raises(SandboxError) as caught:
        programs.locate()

    assert caught.value.message.endswith("missing: slurmctld, munged, squeue, scontrol, scancel, sbatch")
    assert (caught.value.hint or "").startswith("install them: ")


def test_daemons_are_looked_for_where_debian_puts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/home/ada/bin")

    assert programs.search_path().split(":")[:2] == ["/home/ada/bin", "/usr/sbin"]
