"""Environments that hold this project and a prime-rl, built offline by uv and by pip, in any order.

What both need is borrowed: linked from environments that have it, since nothing is downloaded.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRIPTS = ("rl", "sft", "inference")
BUILDS = ("hatchling", "editables")
"""What an editable install needs in its environment when it is built without a network."""

NEVER = "python_version < '3'"
"""A marker that leaves a dependency out of a lock."""

ENTRYPOINT = """
import json, sys

def main():
    ours = sorted(name for name in sys.modules if name.startswith("medarc"))
    json.dump({"argv": sys.argv, "module": __name__, "ours": ours}, sys.stdout)
    return 43

if __name__ == "__main__":
    sys.exit(main())
"""

PRIME_RL = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "prime-rl"
version = "0.8.0"
[project.scripts]
rl = "prime_rl.entrypoints.rl:main"
sft = "prime_rl.entrypoints.sft:main"
inference = "prime_rl.entrypoints.inference:main"
[tool.hatch.build.targets.wheel]
packages = ["src/prime_rl"]
"""

LAB = """
[project]
name = "lab"
version = "0"
requires-python = "=={python}.*"
dependencies = ["medarc-plugin", "prime-rl"]
[tool.uv]
override-dependencies = [{overrides}]
[tool.uv.sources]
medarc-plugin = {{ path = "{plugin}", editable = true }}
prime-rl = {{ path = "{host}", editable = true }}
"""


@dataclass(frozen=True)
class Package:
    """Something to install.

    Attributes:
        name: Its distribution.
        source: Its folder.
        wheel: Built from it.
    """

    name: str
    source: Path
    wheel: Path


def build(source: Path, out: Path) -> Package:
    """Build a wheel with the hatchling of this environment."""
    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out.absolute())]
    subprocess.run(argv, cwd=source, check=True, capture_output=True)
    (wheel,) = out.glob("*.whl")
    name = wheel.name.partition("-")[0].replace("_", "-")
    return Package(name, source, wheel)


def copy_plugin(folder: Path, version: str) -> Path:
    """Copy this project's source, as another version of it."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "medarc_plugin", folder / "medarc_plugin", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    module = folder / "medarc_plugin" / "__init__.py"
    text = re.sub(r'__version__ = ".*"', f'__version__ = "{version}"', module.read_text(encoding="utf-8"))
    module.write_text(text, encoding="utf-8")
    return folder


def write_prime_rl(folder: Path) -> Path:
    """Write a prime-rl whose three commands say what reached them, and end with 43."""
    entrypoints = folder / "src" / "prime_rl" / "entrypoints"
    entrypoints.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PRIME_RL)
    for name in SCRIPTS:
        (entrypoints / f"{name}.py").write_text(ENTRYPOINT)
    return folder


def borrow(folder: Path, site_packages: Path | None = None) -> Path:
    """Link what this project needs, after all that another environment has of its own.

    Args:
        folder: An empty folder for the links.
        site_packages: Of the environment to begin with.
    """
    mine = re.compile(r"(_?medarc|_editable|_?prime_rl|__pycache__)|.*\.pth$")
    entries = list(site_packages.iterdir()) if site_packages else []
    for entry in [*entries, *_needed_entries()]:
        if not mine.match(entry.name) and not (folder / entry.name).is_symlink():
            (folder / entry.name).symlink_to(entry)
    return folder


def _needed_entries() -> Iterable[Path]:
    """What the plugin's dependencies, and theirs, put into this environment's site-packages."""
    todo, seen = [*BUILDS, *_requirements("medarc-plugin")], set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform or Python
        todo += _requirements(name)
        tops = {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}
        yield from (Path(str(distribution.locate_file(top))) for top in tops)


def _requirements(name: str) -> list[str]:
    required = importlib.metadata.distribution(name).requires or []
    return [re.split(r"[^\w.-]", text)[0] for text in required if "extra ==" not in text]


@cache
def pip_in(folder: Path) -> Path:
    """Make an environment that has pip, from Python's own copy of it."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, capture_output=True)
    return folder / "bin" / "pip"


class Environment:
    """A virtual environment.

    Args:
        folder: Where to make it.
        installer: The beginning of a command that installs into it: uv's or pip's.
        python: Its interpreter.
        borrowed: A folder of `borrow`.
    """

    def __init__(self, folder: Path, installer: str | Path, python: Path, borrowed: Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        self._installer = installer
        uv("venv", "--quiet", "--python", python, folder)
        (self.site_packages,) = folder.glob("lib/python*/site-packages")
        (self.site_packages / "borrowed.pth").write_text(f"{borrowed}\n")

    @property
    def hook(self) -> Path:
        """The line that Python runs at its start."""
        return self.site_packages / "medarc_importhook.pth"

    def install(self, *packages: Package, editable: bool = False) -> None:
        """Install with one command, over what is there of the same name."""
        wanted: list[str | Path] = ["--no-deps", "--no-index", "--no-build-isolation", "--quiet"]
        for package in packages:
            wanted += ["--editable", package.source] if editable else [package.wheel]
        self._run("install", *wanted)

    def uninstall(self, package: Package) -> None:
        """Take one away."""
        self._run("uninstall", "--quiet", *([] if self._installer == "uv" else ["--yes"]), package.name)

    def _run(self, verb: str, *arguments: str | Path) -> None:
        if self._installer == "uv":
            uv("pip", verb, "--python", self.python, "--offline", *arguments)
        else:
            argv = [self._installer, "--isolated", "--python", self.python, verb, *arguments]
            check(argv)

    def sync(self, *packages: Package, overrides: Iterable[str]) -> None:
        """Make it the environment of a uv project that depends on all packages by their folders."""
        plugin, host = packages
        lab = self.folder.parent
        text = LAB.format(
            plugin=plugin.source,
            host=host.source,
            overrides=", ".join(f'"{name}"' for name in overrides),
            python=self.site_packages.parent.name.removeprefix("python"),
        )
        (lab / "pyproject.toml").write_text(text)
        # Without --inexact it would take away prime-rl's config package, which is a dependency like others.
        arguments = ["--project", lab, "--offline", "--no-build-isolation", "--inexact", "--quiet"]
        uv("sync", *arguments, UV_PROJECT_ENVIRONMENT=str(self.folder))

    def run(
        self, program: str | Path, *argv: str | Path, cwd: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one of its programs, in an environment that says nothing."""
        kept = {name: os.environ[name] for name in ("LANG", "HOME") if name in os.environ}
        kept["PATH"] = f"{self.folder}/bin{os.pathsep}{os.defpath}"
        return subprocess.run(
            [self.folder / "bin" / program, *argv],
            env={**kept, **variables},
            cwd=cwd or self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )


def uv(*arguments: str | Path, **variables: str) -> None:
    """Run uv, which must succeed. Files are not linked to its cache: tests write into them."""
    check(["uv", *arguments], UV_LINK_MODE="copy", **variables)


def check(argv: list[str | Path], **variables: str) -> None:
    """Run a command; its failure is shown whole."""
    foreign = ("UV_", "PIP_", "VIRTUAL_ENV", "PYTHON", "MEDARC_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    done = subprocess.run(
        argv, env={**kept, **variables}, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, f"{argv}\n{done.stdout}{done.stderr}"


@dataclass(frozen=True)
class Real:
    """The real prime-rl.

    Attributes:
        prime_rl: The package.
        configs: Its own package of config classes.
        python: An interpreter of the version that its packages are for.
        borrowed: What it needs.
    """

    prime_rl: Package
    configs: Package
    python: Path
    borrowed: Path

    def environment(self, folder: Path, installer: str | Path = "uv") -> Environment:
        """Make an environment with all that prime-rl needs, and without itself."""
        environment = Environment(folder, installer, self.python, self.borrowed)
        environment.install(self.configs)
        return environment


def real_prime_rl(directory: Path, python: Path, folder: Path) -> Real:
    """Build the real prime-rl from its checkout.

    Args:
        directory: The checkout.
        python: An interpreter that has what prime-rl needs.
        folder: Where to build.
    """
    asked = "import sysconfig; print(sysconfig.get_path('purelib'))"
    done = subprocess.run([python, "-c", asked], check=True, capture_output=True, text=True)
    for name in ("prime-rl", "configs", "borrowed"):
        (folder / name).mkdir()
    return Real(
        build(directory, folder / "prime-rl"),
        build(directory / "packages" / "prime-rl-configs", folder / "configs"),
        python,
        borrow(folder / "borrowed", Path(done.stdout.strip())),
    )


def dependencies_of(package: Package) -> list[str]:
    """Name all that a package's metadata asks for, extras included, as overrides that leave it out."""
    with zipfile.ZipFile(package.wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        text = archive.read(name).decode()
    required = re.findall(r"^Requires-Dist: ([\w.-]+)", text, re.MULTILINE)
    return sorted({f"{name} ; {NEVER}" for name in required})


Order = Callable[[Environment, Package, Package, Package], None]


def plugin_first(environment: Environment, plugin: Package, older: Package, host: Package) -> None:
    environment.install(plugin)
    environment.install(host)


def prime_rl_first(environment: Environment, plugin: Package, older: Package, host: Package) -> None:
    environment.install(host)
    environment.install(plugin)


def both_editable(environment: Environment, plugin: Package, older: Package, host: Package) -> None:
    environment.install(plugin, host, editable=True)


def plugin_upgraded(environment: Environment, plugin: Package, older: Package, host: Package) -> None:
    environment.install(older)
    environment.install(host)
    environment.install(plugin)


def prime_rl_anew(environment: Environment, plugin: Package, older: Package, host: Package) -> None:
    environment.install(host)
    environment.install(plugin)
    environment.uninstall(host)
    environment.install(host)


def synced(environment: Environment, plugin: Package, older: Package, host: Package) -> None:
    environment.sync(plugin, host, overrides=[*dependencies_of(plugin), *dependencies_of(host)])


ORDERS: dict[str, Order] = {
    "plugin first": plugin_first,
    "prime-rl first": prime_rl_first,
    "both editable": both_editable,
    "plugin upgraded": plugin_upgraded,
    "prime-rl uninstalled, installed": prime_rl_anew,
    "one lock that names both": synced,
}
"""The ways in which both packages come into one environment; the last, `uv sync`, is uv's alone."""
