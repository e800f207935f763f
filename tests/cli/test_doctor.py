"""`medarc_slurm doctor` as it is typed: what it prints, and its exit codes."""

import json

import pytest
from standin.checkout import make_checkout
from standins.sites import install_site
from standins.terminal import in_a_terminal


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A prime-rl with the names of all its packages."""
    checkout = make_checkout(tmp_path_factory.mktemp("whole") / "prime-rl")
    (packages,) = checkout.glob(".venv/lib/*/site-packages")
    for name in ("torch-2.11.0", "vllm-0.26.0", "transformers-5.6.2", "verifiers-0.3.1"):
        (packages / f"{name}.dist-info").mkdir()
    return checkout


@pytest.fixture
def well(work, tmp_path, monkeypatch, whole):
    """A machine where nothing is missing."""
    checkout = whole
    refused = install_site("shared-h100", tmp_path / "site")
    monkeypatch.setenv("PATH", str(tmp_path / "site"))
    monkeypatch.setenv("PRIME_RL_DIR", str(checkout))
    yield

    assert not refused.exists(), refused.read_text()


def test_a_machine_where_nothing_failed(cli, well):
    done = cli("medarc_slurm", "doctor")

    assert done.code == 0
    lines = done.out.splitlines()
    assert [line for line in lines if line and not line.startswith(" ")] == [
        *("this machine", "settings", "cluster", "prime-rl"),
    ]
    assert "  ok       controller        Slurmctld(primary) at vm is UP" in lines
    assert "  ok       schema            main" in lines
    assert "\033" not in done.printed
    assert "failed" not in done.printed


def test_a_machine_without_anything(cli, work):
    done = cli("medarc_slurm", "doctor")

    assert done.code == 1
    assert "  failed   commands          sbatch and the others are not on PATH\n" in done.out
    assert "hint: submit from a login node" in done.out
    assert "2 failed" in done.err


def test_a_prime_rl_that_can_start_no_run_has_failed(cli, well, checkout):
    done = cli("medarc_slurm", "doctor", PRIME_RL_DIR=str(checkout))

    assert done.code == 1
    assert "  failed   packages          its environment lacks torch, vllm, " in done.out


def test_json(cli, well):
    done = cli("medarc_slurm", "doctor", "--json")

    document = json.loads(done.out)
    assert (done.code, done.err) == (0, "")
    assert (document["format"], document["ok"]) == (1, True)
    assert document["counts"]["failed"] == 0
    assert sum(document["counts"].values()) == len(document["checks"])
    first = document["checks"][0]
    assert first.keys() == {"group", "check", "status", "text", "hint", "seconds"}
    assert (first["group"], first["check"], first["status"]) == ("this machine", "Python", "ok")


def test_json_of_a_failure(cli, work):
    done = cli("medarc_slurm", "doctor", "--json")

    document = json.loads(done.out)
    assert (done.code, document["ok"]) == (1, False)
    failed = [row["check"] for row in document["checks"] if row["status"] == "failed"]
    assert failed == ["commands", "place"]


@pytest.mark.parametrize("further", [(), ("--json",)])
def test_no_secret_is_printed(cli, well, further):
    secrets = {"HF_TOKEN": "hf_abcdefgh", "WANDB_API_KEY": "0123456789abcdef"}

    done = cli("medarc_slurm", "doctor", *further, **secrets)

    assert "--auto-auth passes" in done.out
    assert not any(value in done.printed for value in secrets.values())


def test_bad_input(cli, well):
    assert cli("medarc_slurm", "doctor", "--config", "nope.toml").code == 2
    done = cli("medarc_slurm", "doctor", "--prime-rl-dir", "/nowhere")
    assert done.code == 1
    assert "failed   place             --prime-rl-dir: /nowhere is not a folder" in done.out


def test_colours_and_folded_lines_are_for_a_terminal(well):
    shown = in_a_terminal("doctor")

    assert "\033[32mok" in shown
    words = "only gated and private models need one"
    assert words in " ".join(shown.split())
    assert words not in shown
    assert "\033" not in in_a_terminal("doctor", NO_COLOR="1")
