"""`medarc_slurm options` for people, for pipes and for programs."""

import json

import pytest
from standins.terminal import in_a_terminal

from medarc_plugin.options import knobs


def test_json(cli, work):
    (work / "medarc.toml").write_text('[slurm]\naccount = "lab"\nsetup = ["a", "b"]\n')

    done = cli("medarc_slurm", "options", "--json", "--partition", "gpu", "--exclusive")

    document = json.loads(done.out)
    assert (done.code, done.err, document["format"]) == (0, "", 1)
    rows = {row["name"]: row for row in document["options"]}
    assert list(rows) == list(knobs())
    assert rows["account"] == {
        "name": "account",
        "option": "--account",
        "value": "lab",
        "source": f"{work}/medarc.toml [slurm]",
        "default": None,
        "group": "Allocation",
        "help": "Account to charge. Unset: the cluster's default.",
    }
    assert (rows["partition"]["value"], rows["partition"]["source"]) == ("gpu", "command line")
    assert rows["exclusive"]["value"] is True
    assert rows["setup"]["value"] == ["a", "b"]
    assert (rows["cpus_per_gpu"]["value"], rows["cpus_per_gpu"]["source"]) == (8, "built-in")


def test_the_prime_rl_that_a_launch_takes_is_named(cli, work, checkout):
    (work / "medarc.toml").write_text('[slurm]\nprime_rl_dir = "p"\n')

    def named(*argv, **environment):
        rows = json.loads(cli("medarc_slurm", "options", "--json", *argv, **environment).out)["options"]
        return next((row["value"], row["source"]) for row in rows if row["name"] == "prime_rl_dir")

    assert named() == (f"{work}/p", f"{work}/medarc.toml [slurm]")
    assert named(PRIME_RL_DIR="/x") == ("/x", "PRIME_RL_DIR")
    assert named("--prime-rl-dir", "/y", PRIME_RL_DIR="/x") == ("/y", "command line")
    (work / "medarc.toml").unlink()
    assert named() == (None, "built-in")
    (work / "prime-rl").symlink_to(checkout)
    assert named() == (f"{work}/prime-rl", "./prime-rl")


def test_json_of_a_path(cli, work):
    done = cli("medarc_slurm", "options", "--json", "--project-dir", "/x")

    rows = {row["name"]: row["value"] for row in json.loads(done.out)["options"]}
    assert rows["project_dir"] == "/x"


def test_bad_input_prints_no_document(cli):
    done = cli("medarc_slurm", "options", "--json", "--time", "soon")

    assert (done.code, done.out) == (2, "")
    assert "error: --time: SLURM cannot read 'soon' as a time" in done.err


def test_a_pipe_gets_each_option_on_one_line(cli):
    long = "x" * 200

    done = cli("medarc_slurm", "options", "--comment", long, "--setup", "a\nb", COLUMNS="40")

    lines = {line.split()[0]: line for line in done.out.splitlines()}
    assert len(lines) == len(knobs()) + 1
    assert lines["--comment"].split()[1] == long
    assert "'a\\nb'" in lines["--setup"]


@pytest.mark.parametrize(("environment", "styled"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_terminal_gets_a_table(work, environment, styled):
    shown = in_a_terminal("options", **environment)

    assert "--partition" in shown
    assert ("\033[" in shown) is styled
