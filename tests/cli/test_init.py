"""`medarc_slurm init`: where the proposal goes, and what it never does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from standins.sites import install_site

from medarc_plugin import profile_files, project


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A captured cluster at hand: `site("no-gpus")`; shared nodes unless another is named."""
    refused = None

    def use(name="shared-h100"):
        nonlocal refused
        refused = install_site(name, tmp_path / "site")
        monkeypatch.setenv("PATH", str(tmp_path / "site"))

    use()
    yield use

    assert not refused.exists(), refused.read_text()


def test_without_a_terminal_the_proposal_is_printed_and_nothing_written(cli, site, work):
    done = cli("medarc_slurm", "init")

    assert done.code == 0
    assert done.out.startswith("# Proposed by `medarc_slurm init` for cluster shared-h100")
    assert 'gpu_type = "h100"' in done.out
    assert f"`--yes` writes it to {work}/medarc.toml" in done.err
    assert list(work.iterdir()) == []


def test_yes_writes_the_profile_that_then_holds(cli, site, work):
    done = cli("medarc_slurm", "init", "--yes")

    assert (done.code, done.out) == (0, f"{work}/medarc.toml\n")
    assert [path.name for path in work.iterdir()] == ["medarc.toml"]
    assert profile_files.read(work / "medarc.toml").default == "shared"
    shown = cli("medarc_slurm", "options", COLUMNS="200").out
    assert f"{work}/medarc.toml [profile.shared]" in shown


def test_the_users_own_goes_into_the_config_folder(cli, site, work):
    done = cli("medarc_slurm", "init", "--user", "--yes")

    assert done.out == f"{os.environ['HOME']}/.config/medarc/medarc.toml\n"
    assert project.user_profile().is_file()


def test_output_names_a_file_or_a_folder(cli, site, work):
    (work / "folder").mkdir()

    cli("medarc_slurm", "init", "--yes", "--output", "new/own.toml")
    cli("medarc_slurm", "init", "--yes", "-o", "folder")

    assert (work / "new" / "own.toml").is_file()
    assert (work / "folder" / "medarc.toml").is_file()
    assert cli("medarc_slurm", "init", "--yes", "-o", "-").out.startswith("# Proposed")


def test_a_file_that_is_there_is_kept(cli, site, work):
    path = work / "medarc.toml"
    path.write_text("[slurm]\n")

    done = cli("medarc_slurm", "init", "--yes")

    assert done.code == 2
    assert f"{path} is there already" in done.err
    assert "--force" in done.err
    assert path.read_text() == "[slurm]\n"


def test_force_replaces_it_and_follows_a_link(cli, site, work):
    real = work / "dotfiles" / "medarc.toml"
    real.parent.mkdir()
    real.write_text("old")
    (work / "medarc.toml").symlink_to(real)

    assert cli("medarc_slurm", "init", "--yes", "--force").code == 0

    assert (work / "medarc.toml").is_symlink()
    assert real.read_text().startswith("# Proposed")
    assert [path.name for path in real.parent.iterdir()] == ["medarc.toml"]


def test_a_file_that_is_there_is_no_way_out_by_yes_alone(cli, site, work):
    (work / "medarc.toml").write_text("")

    done = cli("medarc_slurm", "init")

    assert f"nothing is written: {work}/medarc.toml is there already, `--yes --force` replaces it" in done.err


def test_force_replaces_no_folder(cli, site, work):
    (work / "medarc.toml").mkdir()

    done = cli("medarc_slurm", "init", "--yes", "--force")

    assert done.code == 2
    assert f"{work / 'medarc.toml'} is not a regular file" in done.err
    assert "--force" not in done.err


def test_a_name_that_ends_like_a_folder_is_one(cli, site, work):
    assert cli("medarc_slurm", "init", "--yes", "-o", "new/place/").code == 0

    assert (work / "new" / "place" / "medarc.toml").is_file()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(cli, site, work):
    (work / "closed").mkdir(mode=0o500)

    done = cli("medarc_slurm", "init", "--yes", "-o", "closed/medarc.toml")

    assert (done.code, "Traceback" in done.err) == (2, False)
    assert "closed/medarc.toml cannot be written: Permission denied" in done.err


def test_a_path_through_a_file_is_named(cli, site, work):
    (work / "file").write_text("")

    done = cli("medarc_slurm", "init", "--yes", "-o", "file/medarc.toml")

    assert done.code == 2
    assert "file/medarc.toml cannot be written: " in done.err


def test_a_controller_that_does_not_answer_writes_nothing(cli, site, work):
    site("no-controller")

    done = cli("medarc_slurm", "init", "--yes")

    assert (done.code, done.out) == (2, "")
    assert "SLURM could not be asked: Unable to contact slurm controller" in done.err
    assert list(work.iterdir()) == []


def test_a_machine_without_slurm_prints_what_is_to_be_filled_in(cli, work):
    done = cli("medarc_slurm", "init")

    assert done.code == 2
    assert '# partition = "NAME"' in done.out
    assert "scontrol is not there" in done.err


def test_no_gpus_is_a_warning(cli, site, work):
    site("no-gpus")

    done = cli("medarc_slurm", "init", "--yes")

    assert done.code == 0
    assert "warning: no partition is good for a run: main has no GPUs" in done.err


def test_prime_rl_and_the_hub_that_are_found_stand_in_it(cli, site, work, checkout):
    (work / "prime-rl").symlink_to(checkout)

    done = cli("medarc_slurm", "init", HF_HOME="/shared/hub")

    assert 'prime_rl_dir = "./prime-rl" # from ./prime-rl\n' in done.out
    assert '# hf_cache_dir = "/shared/hub"' in done.out


def test_a_prime_rl_that_is_broken_is_named_and_not_proposed(cli, site, work):
    done = cli("medarc_slurm", "init", PRIME_RL_DIR="/nowhere")

    assert done.code == 0
    assert '# prime_rl_dir = "DIR" # PRIME_RL_DIR: /nowhere is not a folder\n' in done.out


def test_user_and_output_contradict_each_other(cli, site):
    assert cli("medarc_slurm", "init", "--user", "--output", "x").code == 2


@pytest.mark.parametrize(
    ("answer", "written"), [("y\n", True), ("\n", False), ("no\n", False), ("\x04", False)]
)
def test_in_a_terminal_it_asks(site, work, answer, written):
    leader, follower = os.openpty()
    child = subprocess.Popen(
        [Path(sys.executable).with_name("medarc_slurm"), "init"],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
    )
    os.close(follower)
    seen = b""
    while b"[y/N]" not in seen:
        seen += os.read(leader, 4096)
    os.write(leader, answer.encode())

    assert child.wait(timeout=30) == (0 if written else 2)
    os.close(leader)
    assert b"[profile.debug]" in seen
    assert (work / "medarc.toml").exists() is written
