"""What completion offers where the cursor is, and the file that keeps what there is."""

import pytest
from standins import recorded
from standins.findings import program

from medarc_plugin import index
from medarc_plugin.cli import completing, completion_table
from medarc_plugin.models import ENTRYPOINTS

PROFILE = '[slurm]\n[profile.day]\n[profile."de bug"]\n'


def values(*words, program="medarc_slurm"):
    *before, current = words
    return [answer.value for answer in completing.answers(program, before, current) if answer.kind == "plain"]


def kinds(*words, program="medarc_slurm"):
    *before, current = words
    return {answer.kind for answer in completing.answers(program, before, current)} - {"plain"}


@pytest.fixture(scope="module", autouse=True)
def _looked_up(tmp_path_factory):
    """Look the commands up once for all tests here."""
    commands = dict(completion_table.look_up())
    patch = pytest.MonkeyPatch()
    patch.setattr(completion_table, "table", lambda: commands)
    yield
    patch.undo()


def test_commands():
    found = values("")

    assert {*ENTRYPOINTS, "options", "init", "doctor", "completion", "sandbox", "export"} <= set(found)
    assert "_complete" not in found
    assert values("do") == ["doctor"]
    assert values("sandbox", "") == ["up", "down", "status", "env"]
    assert "--version" in values("--")


def test_every_answer_says_what_it_means():
    for words in ([""], ["rl", "--"], ["doctor", "--"], ["sandbox", ""]):
        *before, current = words
        answers = list(completing.answers("medarc_slurm", before, current))
        assert [answer.value for answer in answers if not answer.help] == []


def test_options_of_a_command():
    assert values("doctor", "--de") == ["--deep"]
    assert values("sandbox", "up", "--gpu") == ["--gpus", "--gpu-type"]
    assert {"--user", "--yes", "--output", "--force", "--help"} == set(values("init", "--"))


def test_options_of_a_launch():
    assert values("rl", "--gpu-f") == ["--gpu-flag"]
    assert values("rl", "x.toml", "--no-c") == ["--no-check", "--no-cache"]
    assert "--no-requeue" in values("sft", "--no-r")
    assert values("rl", "--slurm.gpu-f") == ["--slurm.gpu-flag"]
    assert values("options", "--part") == ["--partition"]
    assert values("options", "--js") == ["--json"]


def test_values():
    assert values("rl", "--gpu-flag", "g") == ["gres", "gpus-per-node", "gpus"]
    assert values("rl", "--gpu-flag=gpus-") == ["--gpu-flag=gpus-per-node"]
    assert values("rl", "--backend", "s") == ["slurm"]
    assert values("completion", "") == ["bash", "zsh", "fish"]
    assert values("rl", "--time", "") == []


def test_paths_are_the_shells_to_list():
    assert kinds("rl", "") == {"config"}
    assert kinds("rl", "a.toml", "") == {"config"}
    assert kinds("rl", "--output-dir", "") == {"dir"}
    assert kinds("rl", "--template-path=") == {"file"}
    assert kinds("rl", "a.toml", "@", "") == {"config"}
    assert kinds("rl", "a.toml", "--", "--x") == {"file"}
    assert kinds("rl", "--sandbox=") == {"dir"}
    assert kinds("doctor", "--config", "") == {"config"}
    assert kinds("init", "--output", "") == {"file"}


def test_a_switch_has_no_value():
    assert kinds("rl", "--dry-run", "") == {"file"}


def test_profiles(work):
    (work / "medarc.toml").write_text(PROFILE)
    assert values("rl", "--profile", "d") == ["day", "de bug"]

    (work / "medarc.toml").write_text("no TOML [")
    assert values("rl", "--profile", "") == []


def test_runs(work, monkeypatch, tmp_path):
    monkeypatch.setenv("MEDARC_STATE_DIR", str(tmp_path / "state"))
    for number, project in (("7", str(work)), ("8", "/elsewhere"), ("9", str(work))):
        index.add(
            index.Entry(
                *(f"{work}/runs/{number}", "rl", "n", "slurm", number, None, None, "t"),
                *("2026-01-01T00:00:00Z", project),
                gpus=1,
            )
        )

    assert values("export", "") == ["9", "runs/9", "7", "runs/7"]
    assert kinds("export", "") == {"dir"}
    assert values("export", "runs/7", "") == []


def test_commands_that_take_a_run_up_are_completed_as_a_launch(work, monkeypatch, tmp_path):
    monkeypatch.setenv("MEDARC_STATE_DIR", str(tmp_path / "state"))
    index.add(
        index.Entry(
            *(f"{work}/runs/done", "rl", "n", "slurm", "9", None, None, "t"),
            *("2026-01-01T00:00:00Z", str(work)),
            gpus=1,
        )
    )

    assert values("resume", "") == ["9", "runs/done"]
    assert values("rerun", "runs/do") == ["runs/done"]
    assert "--time" in values("resume", "runs/done", "--ti")
    assert values("resume", "--time", "5", "runs/d") == ["runs/done"]
    assert values("resume", "runs/done", "") == []
    assert values("rerun", "--gpu-flag", "g") == ["gres", "gpus-per-node", "gpus"]
    assert kinds("rerun", "runs/done", "--output-dir", "") == {"dir"}


def test_components_of_logs():
    assert values("logs", "-c", "") == ["trainer", "orchestrator", "inference", "evals", "env", "job"]
    assert values("logs", "runs/a", "--component", "tr") == ["trainer"]


def test_metrics_of_a_run(work, monkeypatch):
    run = recorded.make_run(work / "runs" / "a", "9", plan={"fields": {"shape": "main"}})
    (run.run_dir / "metrics.jsonl").write_text('{"step": 1, "reward/mean": 0.5, "loss/mean": 1.0}\n')
    run.files.config.write_text('{"monitors": {"file": {}}, "trainer": {"monitors": {"file": {}}}}')

    assert values("plot", "runs/a", "--metric", "") == ["loss/mean", "reward/mean"]
    assert values("plot", "runs/a", "--metric", "loss/mean", "--metric", "re") == ["reward/mean"]


def slurm(monkeypatch, folder, **programs):
    for name, text in programs.items():
        program(folder, name, f"#!/bin/sh\n{text}\n")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_names_that_slurm_knows(monkeypatch, tmp_path):
    gres = "printf 'gpu|gpu:h100:8(S:0-1)\\ngpu|gpu:a100:4\\ncpu|(null)\\n'"
    slurm(
        monkeypatch,
        tmp_path / "slurm",
        sinfo=f'case "$*" in *R*) {gres} ;; *) echo "gpu:h100:8(S:0-1),gpu:2" ;; esac',
        sacctmgr="printf 'normal\\nhigh,normal\\n'",
    )

    assert values("rl", "-p", "") == ["gpu", "cpu"]
    assert (
        next(iter(completing.answers("medarc_slurm", ["rl", "-p"], "g"))).help
        == "gpu:h100:8(S:0-1), gpu:a100:4"
    )
    assert values("rl", "--gpu-type", "") == ["h100"]
    assert values("rl", "--qos", "") == ["normal", "high"]


def test_a_cluster_that_does_not_answer_offers_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(completing, "SLURM_SECONDS", 0.05)
    slurm(monkeypatch, tmp_path / "slurm", sinfo="exec sleep 30", sacctmgr="exit 1")

    assert values("rl", "--partition", "") == []
    assert values("rl", "--account", "") == []


def test_a_script_without_a_backend_is_prime_rls(monkeypatch):
    assert values("--b", program="rl") == ["--backend"]
    assert values("--part", program="rl") == []
    assert kinds("@", "", program="rl") == {"config"}
    assert kinds("", program="rl") == {"file"}
    assert values("--backend=s", program="rl") == ["--backend=slurm"]


def test_a_script_with_a_backend_is_ours(monkeypatch):
    assert values("--backend", "slurm", "--part", program="/x/bin/rl") == ["--partition"]
    monkeypatch.setenv("MEDARC_BACKEND", "slurm")
    assert values("--part", program="rl") == ["--partition"]
    assert kinds("", program="rl") == {"file"}


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["bash", "medarc_slurm", "rl", "--gpu-flag", "=", "gpus-"], "plain\tgpus-per-node\t\n"),
        (
            ["bash", "medarc_slurm", "rl", "--gpu-flag", "=", ""],
            "plain\tgres\t\nplain\tgpus-per-node\t\nplain\tgpus\t\n",
        ),
        (["zsh", "medarc_slurm", "rl", "--gpu-flag=gpus-"], "plain\t--gpu-flag=gpus-per-node\t\n"),
        (["bash", "medarc_slurm", "rl", "--gpu-flag", "=", "gres", "--sing"], "plain\t--single-gpu\t"),
        (["bash"], ""),
        ([], ""),
        (["bash", "medarc_slurm", "nonsense", "x", ""], ""),
    ],
)
def test_what_is_printed(words, printed, capsys):
    assert completing.main(words) == 0

    out, err = capsys.readouterr()
    assert out.startswith(printed)
    assert (out == "") == (printed == "")
    assert err == ""


def test_what_no_line_can_hold_is_left_out(capsys):
    completing.print_answer(completing.Answer("a\nb"))
    completing.print_answer(completing.Answer("a", "x\ty"))

    assert capsys.readouterr().out == ""
