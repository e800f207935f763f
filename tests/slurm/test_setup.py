"""A user who comes to a new cluster: `init`, `doctor` and the tab key, with a real SLURM."""

import json
from pathlib import Path

import pytest
from standins.cluster import EXAMPLES, SCRIPTS, log_in

from medarc_plugin import profile_files
from medarc_plugin.sandbox import Sandbox

pytestmark = pytest.mark.slurm

MEDARC = SCRIPTS / "medarc_slurm"


@pytest.fixture
def shell(tmp_path, slurm_env):
    return log_in(tmp_path, slurm_env)


def test_what_init_proposes_is_what_a_run_is_accepted_with(shell):
    done = shell.run(MEDARC, "init", "--yes")

    assert done.returncode == 0, done.stderr
    path = shell.folder / "medarc.toml"
    proposed = profile_files.read(path).every_run
    assert proposed["partition"] == "debug"
    assert proposed["gpu_type"] == "h100"
    assert proposed["cpus_per_gpu"] == 8
    assert f'prime_rl_dir = "{shell.env["PRIME_RL_DIR"]}" # from PRIME_RL_DIR\n' in path.read_text()
    submitted = shell.submit(
        "rl", "--output-dir", "runs/a", "--train-gpus", "1", "--infer-gpus", "1", "--rehearse"
    )
    try:
        assert shell.squeue(submitted.job, "%P") in {"debug", ""}
        script = submitted.script.read_text()
        assert "#SBATCH --gres=gpu:h100:2\n" in script
        assert "#SBATCH --partition=debug\n" in script
    finally:
        shell.run("scancel", submitted.job)


def test_doctor_finds_nothing_wrong_with_the_cluster(shell):
    done = shell.run(MEDARC, "doctor", "--json", "--config", EXAMPLES / "rl.toml")

    document = json.loads(done.stdout)
    # The stand-in's environment has neither torch nor vLLM.
    assert [row["check"] for row in document["checks"] if row["status"] == "failed"] == ["packages"]
    assert done.returncode == 1
    cluster = {row["check"]: row["status"] for row in document["checks"] if row["group"] == "cluster"}
    assert {cluster[name] for name in ("commands", "controller", "SLURM", "clock", "your partition")} == {
        "ok"
    }


def test_a_controller_that_is_gone_is_found_and_keeps_init_from_writing(tmp_path, slurm_env):
    # The same SLURM, asked where nobody listens.
    conf = tmp_path / "slurm.conf"
    text = Path(slurm_env["SLURM_CONF"]).read_text(encoding="utf-8")
    conf.write_text(text.replace("SlurmctldPort=", "SlurmctldPort=1#") + "\nMessageTimeout=2\n")
    shell = log_in(tmp_path, {**slurm_env, "SLURM_CONF": str(conf)})

    doctor, init = shell.run(MEDARC, "doctor"), shell.run(MEDARC, "init", "--yes")

    assert doctor.returncode == 1
    assert "failed   controller" in doctor.stdout
    assert init.returncode == 2
    assert "SLURM could not be asked" in init.stderr
    assert not (shell.folder / "medarc.toml").exists()


def test_the_tab_key_knows_partitions_and_gpu_types(shell):
    def offered(option):
        return shell.run(MEDARC, "_complete", "zsh", "medarc_slurm", "rl", option, "").stdout

    assert offered("--partition") == "plain\tdebug\tgpu:h100:8\n"
    assert offered("--gpu-type") == "plain\th100\t\n"


def test_the_status_of_a_sandbox_as_json(sandbox: Sandbox, shell):
    done = shell.run(MEDARC, "sandbox", "status", "--json", "--dir", sandbox.directory)

    document = json.loads(done.stdout)
    assert (done.returncode, document["format"], document["state"]) == (0, 1, "up")
    assert document["nodes"][0]["gres"].startswith("gpu:h100:8")
