"""From values to text: Jinja, strict about names, with a shell-quote filter; for pages, with escaping.

Everything is decided before; templates branch on prepared values and do no arithmetic.
"""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medarc_plugin.errors import RenderError
from medarc_plugin.process import NOT_FOUND, run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import jinja2

TEMPLATES = Path(__file__).parent / "templates"
"""The built-in templates."""

MAX_SCRIPT_BYTES = 4 * 1024 * 1024
"""slurmctld's default `max_script_size`."""


def render(name: str, context: Mapping[str, Any], directories: Sequence[Path]) -> str:
    """Render a template.

    Args:
        name: The template's name.
        context: Its values.
        directories: Where it and what it extends are looked for; the first match wins.

    Raises:
        RenderError: It is missing, broken, or uses a variable that is not there.
    """
    import jinja2

    environment = _environment(tuple(map(str, directories)))
    try:
        return environment.get_template(name).render(context)
    except jinja2.TemplateNotFound as error:
        places = ", ".join(map(str, directories))
        raise RenderError(
            f"template {error.name!r} is in none of {places}", hint="check --template-path"
        ) from None
    except jinja2.UndefinedError as error:
        raise RenderError(
            f"template {name}: {error.message}",
            hint=f"a template may use: {', '.join(sorted(context))}",
        ) from None
    except jinja2.TemplateSyntaxError as error:
        raise RenderError(f"template {error.name or name}, line {error.lineno}: {error.message}") from None
    except (UnicodeDecodeError, OSError) as error:
        raise RenderError(f"template {name} cannot be read: {error}") from None
    except Exception as error:  # a template may call anything
        raise RenderError(f"template {name}: {type(error).__name__}: {error}") from error


def render_page(name: str, context: Mapping[str, Any]) -> str:
    """Render one of the built-in templates of a page or a picture: every value is escaped.

    Args:
        name: The template's name.
        context: Its values.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(TEMPLATES)),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["short"] = lambda length: f"{length:.1f}".removesuffix(".0")
    return environment.get_template(name).render(context)


@cache
def _environment(directories: tuple[str, ...]) -> jinja2.Environment:
    """Make an environment, once: several runs in one call have the same templates."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(directories),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - shell text, quoted by the filter below
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quote"] = lambda value: shlex.quote(str(value))
    return environment


def check_script(name: str, text: str) -> None:
    """Hold a rendered script to what sbatch silently ignores or refuses.

    Raises:
        RenderError: A late or indented directive, no `#!`, a carriage return, or too long a script.
    """
    if not text.startswith("#!"):
        raise RenderError(f"template {name}: a batch script starts with #!, like #!/bin/bash")
    if "\r\n" in text:
        raise RenderError(f"template {name} has DOS line ends, which SLURM refuses")
    if len(text.encode()) > MAX_SCRIPT_BYTES:
        raise RenderError(f"template {name}: the script is over SLURM's 4 MiB")
    command_seen = False
    for number, line in enumerate(text.split("\n"), start=1):
        if re.match(r"\s*#SBATCH\b", line):
            if command_seen:
                raise RenderError(
                    f"template {name}, line {number} of the script: {line.strip()!r} stands after the "
                    "first command, where SLURM ignores it silently",
                    hint="move it up, before everything that is not a comment",
                )
            if line[0].isspace():
                raise RenderError(
                    f"template {name}, line {number} of the script: an indented #SBATCH line is ignored "
                    "silently by SLURM"
                )
        elif line.strip() and not line.lstrip().startswith("#"):
            command_seen = True


def check_syntax(name: str, text: str) -> None:
    """Let bash read a script whose words are not all ours.

    Raises:
        RenderError: It cannot.
    """
    done = run(["/bin/bash", "-n"], stdin=text, timeout=10)
    if not done.ok and done.returncode != NOT_FOUND:
        raise RenderError(
            f"template {name}: bash cannot read the script:\n{done.stderr.strip()}",
            hint="check --setup, pre_run_command and --template-path",
        )
