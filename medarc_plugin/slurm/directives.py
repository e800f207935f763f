r"""How values are written into `#SBATCH` lines.

sbatch parses these lines itself, with rules that are not the shell's (seen on 22.05: a 600-string
round trip through `--job-name` and `--comment`, and 247 real log files). Inside double quotes only
`\` and `"` are special; single quotes are not the shell's, and a bare value ends at the first space
or `#`. A newline or NUL cannot be written at all.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from medarc_plugin.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from medarc_plugin.models import Directive

_PLAIN = re.compile(r"[A-Za-z0-9_.,:/=+@-]+")
"""Values that read the same without quotes."""


def quote(value: str) -> str:
    """Quote a value for an `#SBATCH` line, so that sbatch reads back exactly this text.

    Raises:
        UsageError: The value holds a line break or NUL, which no directive can carry.
    """
    for character, name in (("\n", "line break"), ("\r", "line break"), ("\0", "NUL character")):
        if character in value:
            raise UsageError(f"a SLURM directive cannot hold a {name}: {value!r}")
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def log_pattern(directory: Path, name: str) -> str:
    """Write a log's path for `--output`, in which SLURM expands `%` patterns.

    Args:
        directory: The folder, taken literally.
        name: The file's name with SLURM's patterns, `job_%j.log`.

    Raises:
        UsageError: The folder holds a backslash, which turns every pattern off.
    """
    text = str(directory)
    if "\\" in text:
        raise UsageError(
            f"SLURM cannot write a job's log into a path with a backslash: {text}",
            hint="choose an --output-dir without backslashes",
        )
    return text.replace("%", "%%") + "/" + name


def line(directive: Directive) -> str:
    """Write one whole `#SBATCH` line."""
    value = directive.pattern if directive.pattern is not None else directive.value
    if value is None:
        return f"#SBATCH --{directive.name}"
    return f"#SBATCH --{directive.name}={value if _PLAIN.fullmatch(value) else quote(value)}"
