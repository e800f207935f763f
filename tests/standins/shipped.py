"""Every config that a prime-rl ships, resolved by the plugin and by prime-rl itself, and compared.

Both sides are the commands that a user types, `rl --backend slurm @ X --dry-run` and `rl @ X --dry-run`, with
prime-rl's interpreter kept warm (`warm.py`). prime-rl writes the parts of a config, and with its own
`[slurm]` the whole of it: the plugin's is held against both, and given to prime-rl again, as the job does.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import tomli

from medarc_plugin.host.fields import Shape, get
from standins.real import Real
from standins.warm import Warm

SCRIPTS = Path(sys.executable).parent
FOLDERS = ("configs", "examples")
MODULES = tuple(f"prime_rl.configs.{name}" for name in ("rl", "sft", "inference"))

EQUAL, REFUSED, MULTI_NODE, OTHER = "equal", "refused alike", "multi-node", "another command's"
ENDINGS = (EQUAL, REFUSED, MULTI_NODE, OTHER)
"""How a config may end; whatever else is said of one is a fault of the plugin's."""

READ_AGAIN = "prime-rl makes something else of a resolved config that it reads again, of its own too"
"""Said of a config that is equal, and of which the job's prime-rl will make another."""

TASKSET = '''"""A stand-in for an environment's package: takes any field, and has no tasks."""

import verifiers.v1 as vf
from pydantic import ConfigDict
from verifiers.v1.configs.task import TaskConfig


class AnyTask(TaskConfig):
    model_config = ConfigDict(extra="allow")


class AnyConfig(vf.TasksetConfig):
    model_config = ConfigDict(extra="allow")
    task: AnyTask = AnyTask()


class AnyTaskset(vf.Taskset[vf.Task, AnyConfig]):
    pass


__all__ = ["AnyTaskset"]
'''

ROLES = """
class AnyRoles(vf.EnvConfig):
    {roles}


class AnyEnv(vf.Env[AnyRoles]):
    pass


__all__ += ["AnyEnv"]
"""
"""For an environment that several models play in."""


@dataclass(frozen=True)
class Outcome:
    """What came of a config.

    Attributes:
        config: Its path in the checkout.
        entrypoint: The command that it is for; empty for one that none of ours takes.
        ending: One of `ENDINGS`, or what went wrong.
        detail: More of it, for a reader.
        ours: Seconds of the plugin's dry run.
        theirs: Seconds of prime-rl's own.
    """

    config: str
    entrypoint: str
    ending: str
    detail: str = ""
    ours: float = 0.0
    theirs: float = 0.0


def find_configs(checkout: Path) -> list[str]:
    """List every TOML below a checkout's folders of configs."""
    found = (path for folder in FOLDERS for path in (checkout / folder).rglob("*.toml"))
    return sorted(str(path.relative_to(checkout)) for path in found)


def entrypoint_of(path: Path) -> str:
    """Tell the command that a config is for by its tables, as a reader would; empty where it is another's.

    `trainer` and `orchestrator` below one roof are `rl`'s. A trainer or orchestrator alone has its own fields
    at the top, as has a set of evals or an environment: `data.fake` with no type, `train.source`, `eval` with
    the name of a model, `env`. A server has vLLM's fields or none of training's; the rest, which is `data`
    or names the command, is `sft`'s.
    """
    document = tomli.loads(path.read_text())
    if {"trainer", "orchestrator"} & document.keys():
        return "rl"
    if {"train", "env", "max_concurrent_runs"} & document.keys() or isinstance(document.get("model"), str):
        return ""
    if "fake" in document.get("data", {}):
        return ""
    if "vllm" in document or "inference" in path.stem or "infer" in path.parent.name:
        return "inference"
    return "sft" if "data" in document or "sft" in path.stem else ""


def environments_in(document: Any) -> Iterator[tuple[str, set[str]]]:
    """Yield the environments that a config names: their ids, and roles other than the only one."""
    if isinstance(document, dict):
        if isinstance(name := get(document, "taskset.id"), str):
            tables = {key: value for key, value in document.items() if isinstance(value, dict)}
            yield name, {key for key, value in tables.items() if "harness" in value} - {"agent"}
        for below in document.values():
            yield from environments_in(below)
    elif isinstance(document, list):
        for below in document:
            yield from environments_in(below)


class Comparison:
    """A prime-rl, kept warm, and the plugin beside it.

    Args:
        host: The prime-rl.
        folder: An empty folder for all that is written.
        tasksets: Whether environments that are not installed get a stand-in.
    """

    def __init__(self, host: Real, folder: Path, *, tasksets: bool = True) -> None:
        self.host = host
        self.folder = folder
        environments = folder / "environments"
        environments.mkdir(parents=True)
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(
                ("SLURM_", "SBATCH_", "MEDARC_", "PRIME_RL_", "PRL_", "WANDB_", "HF_", "XDG_")
            )
        }
        kept |= {"PYTHONPATH": str(environments), "NO_COLOR": "1", "COLUMNS": "200", "HOME": str(folder)}
        self._warm = Warm(folder / "warm", host.python, MODULES, kept)
        self._environment = {
            **kept,
            "PRIME_RL_DIR": str(host.checkout),
            "PRIME_RL_PYTHON": str(self._warm.python),
        }
        if tasksets:
            self._add_tasksets(environments)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._warm.__exit__(kind, error, trace)

    def _add_tasksets(self, folder: Path) -> None:
        """Write a module for each environment that is named and not there."""
        documents = [tomli.loads((self.host.checkout / path).read_text()) for path in self.configs()]
        modules: dict[str, set[str]] = {}
        for name, roles in environments_in(documents):
            modules.setdefault(name.replace("-", "_").lower(), set()).update(roles)
        question = (
            "import importlib.util, json, sys\n"
            "import verifiers.v1.tasksets\n"
            "names = ((m, 'verifiers.v1.tasksets.' + m) for m in sys.argv[1:])\n"
            "print(json.dumps([m for m, n in names if not (importlib.util.find_spec(m)"
            " or importlib.util.find_spec(n))]))"
        )
        done = self._run([self._warm.python, "-c", question, *sorted(modules)], self.folder)
        if done.returncode:
            raise RuntimeError(done.stderr)
        for name in json.loads(done.stdout.splitlines()[-1]):
            roles = "\n    ".join(f"{role}: vf.AgentConfig = vf.AgentConfig()" for role in modules[name])
            (folder / f"{name}.py").write_text(TASKSET + (ROLES.format(roles=roles) if roles else ""))

    def configs(self) -> list[str]:
        """List the configs of this prime-rl."""
        return find_configs(self.host.checkout)

    def compare(self, config: str) -> Outcome:
        """Resolve a config on both sides."""
        path = self.host.checkout / config
        work = self.folder / config.replace("/", "-")
        work.mkdir()
        entrypoint = entrypoint_of(path)
        if not entrypoint:
            return self._other(config, path, work)
        began = time.perf_counter()
        theirs = self._own(entrypoint, path, work, "theirs")
        between = time.perf_counter()
        command = [SCRIPTS / entrypoint, "--backend", "slurm", "@", path, "--output-dir", work / "ours/x"]
        ours = self._run([*command, "--dry-run"], work)
        seconds = {"theirs": between - began, "ours": time.perf_counter() - between}
        ending, detail = self._judge(entrypoint, path, work, theirs, ours)
        return Outcome(config, entrypoint, ending, detail, **seconds)

    def _other(self, config: str, path: Path, work: Path) -> Outcome:
        """Make sure that none of our commands would have taken it."""
        takers = [
            name for name in ("rl", "sft", "inference") if self._own(name, path, work, name).returncode == 0
        ]
        if takers:
            return Outcome(config, "", "not tried", f"{', '.join(takers)} of prime-rl takes it")
        return Outcome(config, "", OTHER, "rl, sft and inference of prime-rl refuse it")

    def _own(
        self, entrypoint: str, path: Path, work: Path, name: str, *more: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run prime-rl's own dry run, with `NAME/x` as the run directory."""
        command = [self._warm.python, "-m", f"prime_rl.entrypoints.{entrypoint}", "@", path]
        named = get(tomli.loads(path.read_text()), "run.name") is not None
        if self.host.shape.run_dir is None or entrypoint == "inference":
            place = ["--output-dir", work / name / "x"]
        else:
            place = ["--output-dir", work / name, "--run.dir", "x", *([] if named else ["--run.name", "x"])]
        return self._run([*command, *place, *more, "--dry-run"], work)

    def _run(self, command: list[Any], folder: Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command, cwd=folder, env=self._environment, capture_output=True, text=True, check=False
        )

    def _judge(
        self,
        entrypoint: str,
        path: Path,
        work: Path,
        theirs: "subprocess.CompletedProcess[str]",
        ours: "subprocess.CompletedProcess[str]",
    ) -> tuple[str, str]:
        nodes = kind_of_nodes(tomli.loads(path.read_text()))
        if ours.returncode:
            said = " ".join(ours.stderr.split())
            if nodes and f"{nodes!r}: this backend places runs on one node" in said:
                return MULTI_NODE, nodes
            if theirs.returncode and reason_of(theirs.stderr) in said:
                return REFUSED, reason_of(theirs.stderr)
            return "refused by the plugin alone", f"{said}\nprime-rl: {theirs.stderr[-2000:]}"
        if theirs.returncode:
            return "taken by the plugin alone", theirs.stderr[-2000:]
        return self._compare_written(entrypoint, path, work)

    def _compare_written(self, entrypoint: str, path: Path, work: Path) -> tuple[str, str]:
        """Compare what both wrote, and let prime-rl read the plugin's."""
        mine = work / "ours/x/configs" / f"{entrypoint}.json"
        resolved = json.loads(mine.read_text())
        whole = self._own(entrypoint, path, work, "whole", "--slurm.job-name", "x")
        if whole.returncode:
            return "not compared", whole.stderr[-2000:]
        wanted = {**written(work / "theirs"), **written(work / "whole")}
        if entrypoint not in wanted:
            return "not compared", f"prime-rl wrote {', '.join(wanted) or 'nothing'}"
        made = {**{part: resolved[part] for part in wanted if part in resolved}, entrypoint: resolved}
        differing = list(differences(wanted, made, self.host.shape))
        if differing:
            return "different", "; ".join(differing)
        again = self._run(
            [self._warm.python, "-m", f"prime_rl.entrypoints.{entrypoint}", "@", mine, "--dry-run"], work
        )
        if again.returncode:
            return "refused in the job", again.stderr[-2000:]
        names = ("at first", "read again")
        changed = list(differences(written(work / "theirs"), written(work / "ours"), self.host.shape, names))
        if changed and list(self._differences_again(entrypoint, work)):
            return "different when read again", "; ".join(changed)
        return EQUAL, f"{READ_AGAIN}: {'; '.join(changed)}" if changed else ""

    def _differences_again(self, entrypoint: str, work: Path) -> Iterator[str]:
        """Let prime-rl read what it wrote itself, and compare that: not all comes to the same once more."""
        (whole,) = (work / "whole/x/configs").glob(f"{entrypoint}.*")
        command = [self._warm.python, "-m", f"prime_rl.entrypoints.{entrypoint}", "@", whole, "--dry-run"]
        done = self._run(command, work)
        if done.returncode:
            yield done.stderr[-2000:]
        yield from differences(written(work / "whole"), written(work / "ours"), self.host.shape)


def kind_of_nodes(document: dict[str, Any]) -> str | None:
    """What a config says of several nodes; `None` for one."""
    kinds = (get(document, f"{table}deployment.type") for table in ("", "inference."))
    return next((kind for kind in kinds if kind not in (None, "single_node")), None)


def reason_of(printed: str) -> str:
    """The reason in what prime-rl printed, in one line: the text of its panel, or of the last exception."""
    lines = printed.strip().splitlines()
    panel = [line.strip("│ ") for line in lines if line.startswith("│")]
    if panel:
        return " ".join(" ".join(line for line in panel if line.strip("─")).split())
    last = max((index for index, line in enumerate(lines) if line.startswith(" ")), default=-1)
    words = " ".join(" ".join(lines[last + 1 :]).split())
    # An import that fails has words of the plugin's around it, instead of the exception's name.
    return words.removeprefix("ModuleNotFoundError: ")


def written(root: Path) -> dict[str, Any]:
    """Read the configs below a folder, by their path without its ending, as if it had been the plugin's."""
    found = {}
    base = root / "x/configs"
    for path in sorted(base.rglob("*.*")):
        part = path.relative_to(base).with_suffix("").as_posix()
        if path.suffix not in (".json", ".toml") or part.startswith("launch/"):
            continue
        text = path.read_text().replace(f"{root}/", f"{root.with_name('ours')}/")
        text = text.replace(f'"{root}"', f'"{root.with_name("ours")}"')
        found[part] = json.loads(text) if path.suffix == ".json" else tomli.loads(text)
    return found


LAUNCHERS = ("deployment", "slurm", "dry_run", "output_dir")
"""Fields of a server that its own launcher reads: prime-rl leaves them out of a run's part for it."""


def differences(
    wanted: dict[str, Any],
    made: dict[str, Any],
    shape: Shape,
    names: tuple[str, str] = ("prime-rl", "the plugin"),
) -> Iterator[str]:
    """Say where configs differ, but for launchers' own fields and what prime-rl derives from the whole."""
    for part, theirs in wanted.items():
        if part not in made:
            # The job's prime-rl makes it of the rest: what it makes is compared when it has.
            continue
        aside = LAUNCHERS if part == "inference" and len(wanted) > 1 else shape.launcher_fields
        left, right = (
            {path: value for path, value in leaves(document) if not is_aside(path, aside)}
            for document in (theirs, made[part])
        )
        for path in sorted(left.keys() | right.keys()):
            if left.get(path) != right.get(path):
                values = (left.get(path), right.get(path))
                said = ", ".join(f"{name} {value!r}" for name, value in zip(names, values, strict=True))
                yield f"{part}: {path}: {said}"


def is_aside(path: str, names: Collection[str]) -> bool:
    """Whether a field is a launcher's own; prime-rl hands a run's `[slurm]` to its server."""
    first, *rest = path.split(".")
    return first in names or rest[:1] == ["slurm"]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten a document to field paths and values; nothing is as good as missing, as in TOML."""
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from leaves(below, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value:
        for index, below in enumerate(value):
            yield from leaves(below, f"{path}[{index}]")
    elif value not in (None, "None", {}):
        yield path, value
