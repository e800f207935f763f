"""Batch scripts as whole texts, and what bash, shellcheck and sbatch demand of every one.

`pytest tests/golden --renew-golden` writes the texts anew; look at the difference before committing it.
"""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standins import make_plan

import medarc_plugin
from medarc_plugin import plugins
from medarc_plugin.backends import planning
from medarc_plugin.backends.slurm import SlurmBackend
from medarc_plugin.models import GpuNeeds, Host, JobPlan
from medarc_plugin.options import knobs
from medarc_plugin.render import TEMPLATES

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
RUNS = Path("/scratch/ada/runs")
PROJECT = {"project_dir": Path("/home/ada/project")}
AWKWARD = """-a "b" 'c' $(id) `id` $HOME 100%j {{ d }} {% e %} #f; & | é 漢"""
BASH = shutil.which("bash")
SHELLCHECK = shutil.which("shellcheck")

EVERYTHING: dict[str, Any] = {
    "partition": "gpu",
    "account": "lab",
    "qos": "high",
    "time": "1-12:00:00",
    "cpus_per_gpu": 12,
    "mem_per_gpu": "96G",
    "gpu_type": "h100",
    "gpu_memory": "80G",
    "gpu_flag": "gpus-per-node",
    "constraint": "ib&nvme",
    "reservation": "class",
    "nodelist": "node[1-4]",
    "exclude": "node3",
    "exclusive": True,
    "min_free_disk": "50G",
    "job_name": "reverse",
    "comment": "the second try",
    "nice": 100,
    "begin": "now+2hours",
    "dependency": "afterok:123",
    "mail_user": "ada@example.org",
    "mail_type": "END,FAIL",
    "idle_timeout": "30",
    "requeue": True,
    "max_requeues": 3,
    "signal_time": 300,
    "ckpt_interval": 50,
    "export": False,
    "sbatch_arg": ["licenses=matlab", "hold"],
    "setup": ["source /opt/tools/env.sh", "ulimit -n 65536"],
    "module": ["cuda/12.8", "gcc"],
    "env": ["NCCL_DEBUG=WARN", "GREETING=it's $HOME", "HF_TOKEN"],
    "project_dir": "/home/ada/project",
    "hf_cache_dir": "/scratch/ada/hf",
    "hf_hub_offline": True,
    "warm_cache": False,
    "warm_cache_size": "512M",
    "auto_auth": True,
    "pre_run_command": "nvidia-smi",
}

CASES: dict[str, dict[str, Any]] = {
    "rl-two-gpus": {"run_dir": RUNS / "reverse-rl", "options": PROJECT},
    "rl-single-gpu": {
        "run_dir": RUNS / "reverse-rl",
        "options": {**PROJECT, "single_gpu": True, "mem": "64G"},
        "gpus": GpuNeeds(1, 1, shared=True),
    },
    "sft": {
        "run_dir": RUNS / "reverse-sft",
        "options": {**PROJECT, "time": "30", "requeue": False},
        "entrypoint": "sft",
        "gpus": GpuNeeds(4, 0),
    },
    "inference": {
        "run_dir": RUNS / "serve",
        "options": {**PROJECT, "gpu_flag": "gpus", "gpu_type": "h200"},
        "entrypoint": "inference",
        "gpus": GpuNeeds(0, 2),
    },
    "everything": {"run_dir": RUNS / "reverse-rl", "options": EVERYTHING, "gpus": GpuNeeds(2, 6)},
    "awkward": {
        "run_dir": RUNS / AWKWARD,
        "options": {
            "job_name": AWKWARD + " \\",
            "comment": AWKWARD + " \\",
            "project_dir": Path("/home/ada") / AWKWARD,
            "hf_cache_dir": Path("/scratch") / AWKWARD,
            "env": [f"GREETING={AWKWARD}"],
            "module": [AWKWARD],
            "constraint": AWKWARD,
        },
        "host": Host(Path("/opt") / AWKWARD / ".venv/bin/python", Path("/opt") / AWKWARD, "PRIME_RL_DIR"),
    },
}


@pytest.fixture(autouse=True)
def _always_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "new_token", lambda: "0123456789ab")
    monkeypatch.setattr(medarc_plugin, "__version__", "1.2.3")


def plan_of(run_dir: Path, options: dict[str, Any], **resolved: Any) -> JobPlan:
    """Plan as a launch does, with the variables that the plugins set."""
    plan = make_plan(run_dir, options, **resolved)
    environment = plugins.load({}).job_environment(plan)
    return replace(plan, launch=replace(plan.launch, environment=environment))


def script_of(plan: JobPlan) -> str:
    return SlurmBackend().render(plan, (TEMPLATES,))[0].text


def bash_reads(script: str) -> str:
    """What `bash -n` has to say; nothing is the good case."""
    done = subprocess.run([BASH or "bash", "-n"], input=script, capture_output=True, text=True, check=False)
    return done.stderr


def shellcheck_reads(paths: Iterator[Path]) -> str:
    if SHELLCHECK is None:
        pytest.skip("shellcheck is not installed (Debian: shellcheck)")
    done = subprocess.run([SHELLCHECK, *paths], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", CASES)
def test_a_script_is_the_golden_one(name: str, request: pytest.FixtureRequest) -> None:
    path = HERE / f"{name}.sbatch"
    script = script_of(plan_of(**CASES[name]))
    if request.config.getoption("--renew-golden"):
        path.write_text(script, encoding="utf-8")

    assert path.is_file(), f"{path.name} is missing: pytest tests/golden --renew-golden writes it"
    assert path.read_text(encoding="utf-8") == script


def test_every_golden_file_belongs_to_a_case() -> None:
    assert {path.stem for path in HERE.glob("*.sbatch")} == set(CASES)


def test_every_option_is_set_in_the_case_that_sets_everything() -> None:
    left_out = {"mem", "single_gpu", "template_path", "prime_rl_dir", "cleanup_grace_period", "shared_fs"}

    assert set(knobs()) - left_out == set(EVERYTHING)


@pytest.mark.parametrize("name", CASES)
def test_bash_can_read_it(name: str) -> None:
    assert bash_reads((HERE / f"{name}.sbatch").read_text(encoding="utf-8")) == ""


def test_shellcheck_finds_nothing() -> None:
    assert shellcheck_reads(HERE.glob("*.sbatch")) == ""


@pytest.mark.parametrize("name", CASES)
def test_all_directives_stand_before_the_first_command(name: str) -> None:
    lines = (HERE / f"{name}.sbatch").read_text(encoding="utf-8").split("\n")
    directives = [number for number, line in enumerate(lines) if line.startswith("#SBATCH ")]
    commands = [number for number, line in enumerate(lines) if line and not line.startswith("#")]

    assert lines[0] == "#!/bin/bash"
    assert directives == list(range(1, len(directives) + 1))
    assert commands[0] > directives[-1]
    assert "#SBATCH" not in "".join(lines[commands[0] :])


@pytest.mark.parametrize("name", CASES)
def test_no_option_stands_twice_and_the_log_is_appended(name: str) -> None:
    lines = (HERE / f"{name}.sbatch").read_text(encoding="utf-8").splitlines()
    options = [line.split("=")[0] for line in lines if line.startswith("#SBATCH ")]

    assert len(set(options)) == len(options)
    assert "#SBATCH --open-mode=append" in lines


@pytest.mark.parametrize(
    ("name", "has"), [("everything", True), *((name, False) for name in CASES if name != "everything")]
)
def test_the_whole_node_is_taken_only_when_asked_for(name: str, has: bool) -> None:
    assert has is ("--exclusive" in (HERE / f"{name}.sbatch").read_text(encoding="utf-8"))


# What changes the shell's part of a script, and what changes the directives.
BODY: dict[str, tuple[Any, ...]] = {
    "project_dir": ("/home/ada/project", f"/home/{AWKWARD}"),
    "setup": ((), ("echo ready", 'if [ "$HOME" = / ]; then\n    exit 1\nfi', "source ~/env.sh")),
    "module": ((), ("cuda/12.8", AWKWARD)),
    "env": ((), ("A=it's", "B=", f"C={AWKWARD}")),
    "pre_run_command": (None, "true"),
}
HEAD: dict[str, tuple[Any, ...]] = {
    "gpu_flag": ("gres", "gpus-per-node", "gpus"),
    "gpu_type": (None, "h100"),
    "mem": (None, "64G"),
    "exclusive": (False, True),
    "comment": (None, AWKWARD),
    "dependency": (None, "afterok:1"),
}
RUN = {"rl": GpuNeeds(1, 1), "sft": GpuNeeds(1, 0), "inference": GpuNeeds(0, 1)}


def combinations(values: dict[str, tuple[Any, ...]]) -> Iterator[str]:
    for chosen in itertools.product(*values.values()):
        options = dict(zip(values, chosen, strict=True))
        for entrypoint, gpus in RUN.items() if values is BODY else [("rl", RUN["rl"])]:
            yield script_of(make_plan(RUNS / "it's", options, entrypoint=entrypoint, gpus=gpus))


@pytest.mark.parametrize(("values", "count"), [(BODY, 3 * 2**5), (HEAD, 3 * 2**5)], ids=["body", "head"])
def test_bash_and_shellcheck_accept_every_combination_of_options(
    tmp_path: Path, values: dict[str, tuple[Any, ...]], count: int
) -> None:
    scripts = list(combinations(values))
    sample = []
    for number, script in enumerate(scripts[:: 7 if values is BODY else 31]):
        sample.append(tmp_path / f"{number}.sbatch")
        sample[-1].write_text(script, encoding="utf-8")

    assert len(set(scripts)) == count
    assert {bash_reads(script) for script in scripts} == {""}
    assert shellcheck_reads(iter(sample)) == ""


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\0"), max_size=20)


@settings(max_examples=50, deadline=None)
@given(name=TEXT.filter(str.strip), folder=TEXT, value=TEXT, module=TEXT.filter(str.strip))
def test_bash_can_read_whatever_the_values_are(name: str, folder: str, value: str, module: str) -> None:
    options = {"job_name": name, "project_dir": f"/p{folder}", "env": [f"A={value}"], "module": [module]}

    assert bash_reads(script_of(make_plan(RUNS / "a", options))) == ""


PYTHON = """#!{python}
import json, os, sys
names = ("GREETING", "FROM_DOTENV", "HOOK")
print(json.dumps([sys.argv[1:], os.getcwd(), *(os.environ[name] for name in names)]))
"""


def test_awkward_values_are_literal_when_the_script_runs(tmp_path: Path) -> None:
    folder = tmp_path / AWKWARD.replace("/", "")
    folder.mkdir()
    (folder / ".env").write_text("FROM_DOTENV=$UNSET_VARIABLE.\n")
    python = folder / "python"
    python.write_text(PYTHON.format(python=sys.executable))
    python.chmod(0o755)
    plan = plan_of(
        folder / "run",
        {
            "project_dir": folder,
            "env": [f"GREETING={AWKWARD}"],
            "setup": ["HOOK=$UNSET_VARIABLE-", "export HOOK"],
        },
        host=Host(python, None, "this environment"),
    )

    done = subprocess.run(
        [BASH or "bash"],
        input=script_of(plan),
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin"},
    )

    assert json.loads(done.stdout) == [
        [str(plan.files.job), str(plan.files.plan)],
        str(folder),
        AWKWARD,
        ".",
        "-",
    ]
    assert done.stderr == ""


def test_a_setup_line_that_fails_ends_the_job(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "run", {"project_dir": tmp_path, "setup": ["false"]})

    done = subprocess.run(
        [BASH or "bash"], input=script_of(plan), capture_output=True, text=True, check=False
    )

    assert done.returncode == 1


@pytest.mark.parametrize("entrypoint", RUN)
def test_a_template_of_ones_own_can_fill_single_blocks(tmp_path: Path, entrypoint: Any) -> None:
    (tmp_path / "mine.j2").write_text(
        f'{{% extends "{entrypoint}.sbatch.j2" %}}\n'
        "{% block launch %}\necho {{ run_dir | quote }}\n{% endblock %}\n"
    )
    plan = make_plan(RUNS / "a b", {"template_path": tmp_path / "mine.j2"}, entrypoint=entrypoint)

    script = SlurmBackend().render(plan, (tmp_path, TEMPLATES))[0].text

    assert script.endswith("\necho '/scratch/ada/runs/a b'\n")
    assert script.startswith("#!/bin/bash\n#SBATCH ")


def test_a_template_as_prime_rl_has_them_works_too(tmp_path: Path) -> None:
    """prime-rl's single-node templates use these names."""
    (tmp_path / "rl.j2").write_text(
        "#!/bin/bash\n#SBATCH --job-name={{ job_name }}\n"
        "{% if partition %}#SBATCH -p {{ partition }}\n{% endif %}"
        "{% if nodelist or exclude or account or time %}#{% endif %}\n"
        "{% if pre_run_command %}{{ pre_run_command }}{% endif %}\n"
        "cd {{ project_dir }}\nrl @ {{ config_path }} # {{ output_dir }} {{ gpus_per_node }}\n"
    )
    plan = make_plan(RUNS / "a", {**PROJECT, "template_path": tmp_path / "rl.j2", "partition": "gpu"})

    script = SlurmBackend().render(plan, (tmp_path, TEMPLATES))[0].text

    assert "#SBATCH -p gpu\n" in script
    assert "rl @ /scratch/ada/runs/a/configs/rl.json # /scratch/ada/runs/a 8\n" in script
