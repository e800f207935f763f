"""Profiles as a user meets them: in a launch, and in `medarc_slurm options`."""

import pytest


@pytest.fixture
def profile(work, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "site"))
    path = work / "medarc.toml"
    path.write_text(
        '[slurm]\npartition = "shared"\naccount = "lab"\n[profile.long]\ntime = "1-00:00:00"\nqos = "long"\n'
    )
    return path


@pytest.fixture
def config(work):
    path = work / "rl.toml"
    path.write_text("[deployment]\nnum_train_gpus = 1\nnum_infer_gpus = 1\n")
    return path


def test_a_launch_takes_its_options_from_the_profile(here, profile, config, work):
    done = here(
        *("rl", "--backend", "slurm", "@", str(config), "--output-dir", "runs/a"),
        *("--profile", "long", "--account", "mine", "--dry-run"),
    )

    assert done.code == 0, done.err
    script = (work / "runs" / "a" / "rl.sbatch").read_text()
    assert "#SBATCH --partition=shared\n" in script
    assert "#SBATCH --account=mine\n" in script
    assert "#SBATCH --qos=long\n" in script
    assert f"shared ({profile} [slurm])" in done.err


def test_a_run_config_wins_over_the_profile(here, profile, config, work):
    config.write_text(config.read_text() + '[slurm]\npartition = "own"\n')

    assert here("rl", "--backend", "slurm", "@", str(config), "--output-dir", "runs/a", "--dry-run").code == 0
    assert "--partition=own\n" in (work / "runs" / "a" / "rl.sbatch").read_text()


def test_a_wrong_profile_leaves_nothing_behind(here, profile, config, work):
    profile.write_text("[slurm]\npartitoin = 'x'\n")

    done = here("rl", "--backend", "slurm", "@", str(config), "--output-dir", "runs/a", "--dry-run")

    assert done.code == 2
    assert "medarc.toml:2: [slurm] has an unknown key: partitoin" in done.err
    assert not (work / "runs").exists()


def test_prime_rl_dir_of_this_shell_is_nearer_than_the_profile(here, profile, config, checkout, monkeypatch):
    profile.write_text('[slurm]\nprime_rl_dir = "/nowhere"\n')
    monkeypatch.setenv("PRIME_RL_DIR", str(checkout))

    done = here("rl", "--backend", "slurm", "@", str(config), "--output-dir", "runs/a", "--dry-run")

    assert "these are prime-rl's own words" in done.err


def test_options_shows_where_each_value_is_from(cli, profile):
    done = cli("medarc_slurm", "options", "--profile", "long", COLUMNS="200")

    rows = {line.split()[0]: line for line in done.out.splitlines() if line.startswith("--")}
    assert f"{profile} [profile.long]" in rows["--time"]
    assert f"{profile} [slurm]" in rows["--partition"]
    assert "built-in" in rows["--mem"]
