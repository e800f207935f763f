"""What `doctor` finds of settings, caches and credentials."""

import os
import stat
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from standins.findings import found, statuses
from standins.sites import install_site

from medarc_plugin import doctor
from medarc_plugin.doctor import Subject, examine, settings


def test_profiles(work):
    assert statuses(settings.profiles_in_force) == ["skipped"]
    path = work / "medarc.toml"
    path.write_text('default_profile = "a"\n[profile.a]\n')
    assert found(settings.profiles_in_force) == [("ok", f"{path}; in force: [profile.a]")]


def test_a_broken_profile_is_told_once(work):
    (work / "medarc.toml").write_text("[slurm]\npartitoin = 1\n")
    checks = tuple(
        check for check in doctor.CHECKS if check.name in {"profiles", "models", "HF token", "place"}
    )

    done = {one.check.name: one.findings[0] for one in examine(Subject(), checks)}

    assert done["profiles"].status == "failed"
    assert "medarc.toml:2: [slurm] has an unknown key: partitoin" in done["profiles"].text
    assert {done[name].status for name in ("models", "HF token", "place")} == {"skipped"}


def test_variables(monkeypatch):
    assert statuses(settings.variables) == ["skipped"]
    monkeypatch.setenv("SBATCH_PARTITION", "gpu")
    monkeypatch.setenv("SBATCH_OUTPUT", "x")
    assert found(settings.variables) == [
        ("ok", "SBATCH_PARTITION: taken as options"),
        ("warning", "SBATCH_OUTPUT: set, but the run decides this; ignored"),
    ]


def test_runs(monkeypatch, tmp_path, work):
    monkeypatch.setenv("MEDARC_STATE_DIR", str(tmp_path / "state"))
    assert found(settings.list_of_runs)[0][1].startswith("none yet; ")
    entry = settings.index.Entry(
        *(str(work), "rl", "a", "slurm", "1", None, None, "t", "2026-01-01T00:00:00Z", str(work)), gpus=1
    )
    settings.index.add(entry)
    settings.index.add(settings.index.Entry(**{**vars(entry), "run_dir": "/gone"}))
    assert found(settings.list_of_runs)[0][1].startswith("2 in ")
    assert found(settings.list_of_runs)[0][1].endswith(", 1 of them deleted or moved since")


@pytest.mark.parametrize("look", [settings.resolved_configs, settings.compiled_code])
def test_caches(look, monkeypatch, tmp_path):
    monkeypatch.setenv("MEDARC_CACHE_DIR", str(tmp_path / "cache"))
    assert found(look)[0][1].startswith("empty; ")
    name = "configs" if look is settings.resolved_configs else "compile"
    folder = tmp_path / "cache" / f"{name}-{os.geteuid()}"
    folder.mkdir(parents=True, mode=0o700)
    (folder / "entry").write_bytes(b"x" * 2048)
    assert found(look)[0][1].startswith(f"1 entry, 2 KiB, in {folder}")
    folder.chmod(0o777)
    assert statuses(look) == ["warning"]


def test_warm_copies_that_are_turned_off(work):
    (work / "medarc.toml").write_text("[slurm]\nwarm_cache = false\n")

    assert statuses(settings.compiled_code) == ["skipped"]


def test_the_hubs_cache(monkeypatch, work):
    assert found(settings.hub_cache)[0][1].startswith("empty; ")
    (work / "hub" / "hub" / "models--a--b").mkdir(parents=True)
    (work / "medarc.toml").write_text('[slurm]\nhf_cache_dir = "hub"\nhf_hub_offline = true\n')
    assert found(settings.hub_cache) == [("ok", f"1 model in {work}/hub/hub; offline: nothing is fetched")]
    (work / "medarc.toml").write_text('[slurm]\nhf_cache_dir = "nowhere"\nhf_hub_offline = true\n')
    assert statuses(settings.hub_cache) == ["warning"]


def test_a_token_that_others_can_read(monkeypatch, work):
    assert statuses(settings.hub_token) == ["skipped"]
    path = Path(os.environ["HOME"]) / ".cache" / "huggingface" / "token"
    path.parent.mkdir(parents=True)
    path.write_text("hf_secret")
    path.chmod(0o600)
    assert found(settings.hub_token) == [("ok", f"kept in {path}")]
    path.chmod(0o644)
    assert found(settings.hub_token) == [("warning", f"{path} can be read by others")]
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert statuses(settings.hub_token) == ["ok"]


def test_a_key_for_wandb(monkeypatch, work):
    assert statuses(settings.wandb_key) == ["skipped"]
    netrc = Path(os.environ["HOME"]) / ".netrc"
    netrc.write_text("machine api.wandb.ai login user password secret\n")
    netrc.chmod(stat.S_IRUSR)
    assert found(settings.wandb_key) == [("ok", "kept by `wandb login`, for https://api.wandb.ai")]
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert found(settings.wandb_key)[0][1].startswith("set in this shell")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert found(settings.wandb_key) == [("skipped", "not needed: WANDB_MODE=offline")]


NFS = "36 35 0:30 / / rw,relatime shared:1 - nfs4 server:/home rw\n"
DISK = "36 35 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"


@pytest.mark.parametrize(("mounts", "status"), [(NFS, "ok"), (DISK, "warning")])
def test_folders_that_nodes_can_share(mounts, status, monkeypatch, tmp_path, checkout):
    install_site("shared-h100", tmp_path / "site")
    monkeypatch.setenv("PATH", str(tmp_path / "site"))
    monkeypatch.setenv("PRIME_RL_DIR", str(checkout))
    assert statuses(settings.shared_folders) == ["skipped"]  # the captured nodes were all on one machine
    monkeypatch.setattr(settings.socket, "gethostname", lambda: "login")
    nodes = [replace(node, host="node1") for node in Subject().facts().nodes]
    subject = Subject()
    monkeypatch.setattr(subject, "facts", lambda: SimpleNamespace(nodes=nodes))
    mount_of = settings.surroundings.mount_of
    monkeypatch.setattr(settings.surroundings, "mount_of", lambda path, _: mount_of(path, mounts))

    assert statuses(settings.shared_folders, subject) == [status, status]
