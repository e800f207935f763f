"""Lets prime-rl's own scripts take `--backend`, in an environment that holds prime-rl and this project.

Both packages install scripts named `rl`, `sft` and `inference`, and whichever was written last is there. Ours
knows both ways. For prime-rl's there is `importhook.pth`, which the wheel puts into site-packages: one line
that Python runs at every start. It looks at the program's name and for a backend, imports nothing, and comes
here only when both are there. `install` then has that script, and nobody else, find a small module in place
of `prime_rl.entrypoints.rl`, which takes seconds to import: it holds `main`, and that is our command.

Nothing of prime-rl is changed: without a backend this file is not even read, and once `main` runs, prime-rl's
module is what the import system finds. `MEDARC_IMPORT_HOOK=0` turns it off; the line itself does so when this
file cannot be used, whatever it raises: even an interruption would end the interpreter before it has started.
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import ModuleType

COMMANDS = "medarc_plugin.cli.entrypoints"
"""Where our scripts are: named as in an entry point, since nothing here may import what stands above it."""

SCRIPT_SIZE = 4096
"""Bytes of a script to look at. One that an installer wrote has about 350."""

BROKEN = 2
"""Exit code when our own packages cannot be imported."""


def install() -> None:
    """Put the finder in place when this process is prime-rl's script and is told a backend."""
    # In a virtual environment `site` may read the same line twice.
    if any(isinstance(finder, Finder) for finder in sys.meta_path):
        return
    script = sys.argv[0]
    name = os.path.basename(script)  # noqa: PTH119 - spares the script's start an import
    if backend_in(sys.argv[1:], os.environ) is not None and _is_prime_rls(script, name):
        sys.meta_path.insert(0, Finder(name))


def backend_in(arguments: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """Return the backend that a command line or `MEDARC_BACKEND` names; reads nothing else.

    Args:
        arguments: The command line without the program's name.
        environment: Where the variable is looked up.

    Returns:
        `None` when the command is prime-rl's own. What follows `--` is prime-rl's.
    """
    for index, token in enumerate(arguments):
        if token == "--":
            break
        if token == "--backend":
            return arguments[index + 1] if index + 1 < len(arguments) else ""
        if token.startswith("--backend="):
            return token.partition("=")[2]
    return environment.get("MEDARC_BACKEND") or None


class Finder(MetaPathFinder, Loader):
    """Finds one module of prime-rl's, once: for the script that asks for it first.

    Args:
        name: The script's name, which is also that of its module.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._module = f"prime_rl.entrypoints.{name}"

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Answer the import system."""
        del path, target
        if fullname != self._module:
            return None
        sys.meta_path.remove(self)
        return ModuleSpec(fullname, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Leave it to the import system to make an empty module."""

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module."""
        module.main = self.main  # type: ignore[attr-defined]

    def main(self) -> None:
        """Make room for prime-rl's module, and run our command; does not return."""
        del sys.modules[self._module]
        delattr(sys.modules["prime_rl.entrypoints"], self._name)
        _our_command(self._name)()


def _is_prime_rls(script: str, name: str) -> bool:
    """Whether an installer wrote this file for prime-rl: anybody may have a program named `rl`."""
    try:
        with open(script, "rb") as file:  # noqa: PTH123 - see `install`
            lines = file.read(SCRIPT_SIZE).splitlines()
    except OSError:
        return False
    return f"from prime_rl.entrypoints.{name} import main".encode() in lines


def _our_command(name: str) -> Callable[[], object]:
    try:
        command: Callable[[], object] = getattr(importlib.import_module(COMMANDS), name)
    except ImportError as error:
        sys.stderr.write(
            f"error: medarc_plugin is installed here and cannot be imported: {error}\n"
            f"hint: install it again, with its dependencies, for {sys.executable}\n"
        )
        sys.exit(BROKEN)
    return command
