"""SLURM's and munge's programs on this machine: where they are, which version, how to get them."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from medarc_plugin.errors import SandboxError
from medarc_plugin.process import run

REQUIRED = ("slurmctld", "slurmd", "munged", "sinfo", "squeue", "scontrol", "scancel", "sbatch")

# Debian puts daemons where an ordinary user's PATH does not look.
_SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/sbin", "/usr/bin", "/usr/local/bin", "/bin")
_INSTALL = {
    "debian": "sudo apt-get install slurm-wlm munge",
    "fedora": "sudo dnf install slurm slurm-slurmctld slurm-slurmd munge",
}
_EITHER = f"{_INSTALL['debian']}  (Debian, Ubuntu) or {_INSTALL['fedora']}  (Fedora, RHEL with EPEL)"


@dataclass(frozen=True)
class Programs:
    """The programs that a sandbox runs.

    Attributes:
        paths: Absolute path of each program in `REQUIRED`, by name.
        version: SLURM's version as a pair, `(22, 5)`.
    """

    paths: dict[str, str]
    version: tuple[int, int]

    def __getitem__(self, name: str) -> str:
        return self.paths[name]


def locate() -> Programs:
    """Find every program and ask SLURM for its version.

    Returns:
        Absolute paths and the version.

    Raises:
        SandboxError: Programs are missing, or slurmctld does not tell its version.
    """
    found = {name: shutil.which(name, path=search_path()) for name in REQUIRED}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise SandboxError(
            f"the sandbox needs SLURM and munge, and these programs are missing: {', '.join(missing)}",
            hint=f"install them: {install_command()}",
        )
    paths = {name: path for name, path in found.items() if path is not None}
    answer = run([paths["slurmctld"], "-V"], timeout=20)
    if not answer.ok:
        raise SandboxError(f"slurmctld does not run: {answer.describe()}", hint=install_command())
    return Programs(paths, parse_version(answer.stdout))


def search_path() -> str:
    """Give this process's PATH with the folders for daemons added to its end."""
    own = os.environ.get("PATH", "").split(os.pathsep)
    return os.pathsep.join([*filter(None, own), *_SYSTEM_FOLDERS])


def parse_version(text: str) -> tuple[int, int]:
    """Read what `slurmctld -V` printed.

    Args:
        text: `slurm-wlm 22.05.8` on Debian, `slurm 24.11.5` elsewhere.

    Returns:
        Year and month of the release, `(22, 5)`.

    Raises:
        SandboxError: There is no version in the text.
    """
    match = re.search(r"(\d+)\.(\d+)", text)
    if match is None:
        raise SandboxError(
            f"slurmctld -V printed {text.strip()!r}, in which there is no version",
            hint="check that the slurmctld on PATH is SLURM's own",
        )
    return int(match[1]), int(match[2])


def install_command(release: Path = Path("/etc/os-release")) -> str:
    """Give the one command that installs SLURM and munge on this distribution.

    Args:
        release: The file that names the distribution.

    Returns:
        A shell command; two with their distributions where it is not known which fits.
    """
    try:
        lines = release.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return _EITHER
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    family = f"{values.get('ID', '')} {values.get('ID_LIKE', '')}".replace('"', "").split()
    for name, command in (("ubuntu", "debian"), ("debian", "debian"), ("rhel", "fedora")):
        if name in family:
            return _INSTALL[command]
    return _INSTALL["fedora"] if "fedora" in family else _EITHER
