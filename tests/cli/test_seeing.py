"""`status` and `list`, as they are typed."""

import io
import json
from pathlib import Path

from standins.recorded import MARK, ago, end, write_state

from medarc_plugin import index
from medarc_plugin.index import Entry


def facts(text):
    """The rows of a run's block."""
    rows = [line.split(maxsplit=1) for line in text.splitlines() if not line.startswith(" ")]
    return {row[0]: row[1] for row in rows if len(row) > 1}


def test_the_newest_run_is_shown_as_a_block(here, running, slurm):

    done = here("medarc_slurm", "status")

    shown = facts(done.out)
    assert (done.code, done.err) == (0, "")
    assert (shown["run"], shown["state"], shown["phase"]) == ("reverse (rl)", "RUNNING", "training")
    assert shown["job"] == "17, partition gpu, attempt 1"
    assert shown["node"] == "node1, GPUs 2,3"
    assert shown["step"].startswith("12 of 40 ")
    assert "30 %" in shown["step"]
    assert shown["figures"] == "reward 0.5000, loss 0.1000"
    assert "\x1b" not in done.out
    assert all(line == line.rstrip() for line in done.out.splitlines())


def test_several_runs_are_shown_as_a_table(here, running, make_run, slurm):
    failed = make_run("b", "18", token="t18")
    end(failed, reason="failed", exit_code=1, token="t18", failure="trainer failed with exit code 1")

    done = here("medarc_slurm", "status", "runs/a", "runs/b")

    head, first, second = done.out.splitlines()
    assert head.split()[:3] == ["run", "job", "state"]
    assert first.split()[:3] == ["runs/a", "17", "RUNNING"]
    assert second.split()[:3] == ["runs/b", "18", "FAILED"]
    assert "trainer failed with exit code 1" in second


def test_one_question_for_a_whole_project(here, make_run, slurm):
    for number in range(30):
        make_run(f"r{number}", str(number), token=f"t{number}")
    slurm.set(accounting=[])

    done = here("medarc_slurm", "status", *(f"runs/r{number}" for number in range(30)), "--json")

    assert len(json.loads(done.out)["runs"]) == 30
    assert (len(slurm.calls("squeue")), len(slurm.calls("sacct"))) == (1, 1)
    assert [call["argv"] for call in slurm.calls("scontrol")] == [["show", "config"]]


FIELDS = {
    *("run_dir", "name", "entrypoint", "backend", "job_id", "cluster", "state", "reason", "note", "node"),
    *("partition", "gpus", "gpu_ids", "attempt", "phase", "step", "max_steps", "reward", "loss"),
    *("seconds_left", "eta", "exit_code", "submitted", "estimated_start", "started", "limit", "ended"),
    *("updated", "gpu_hours", "gpu_use", "over", "sources", "trouble", "rehearsal"),
}


def test_json_has_the_documented_fields_whatever_is_known(here, running, make_run, slurm):
    make_run("dry", None, token="x")

    done = here("medarc_slurm", "status", "runs/a", "runs/dry", "--json")

    document = json.loads(done.out)
    assert document["format"] == 1
    assert [set(run) for run in document["runs"]] == [FIELDS, FIELDS]
    assert (document["runs"][0]["state"], document["runs"][1]["state"]) == ("RUNNING", "UNSUBMITTED")
    text = (Path(__file__).parents[2] / "docs" / "runs.md").read_text()
    assert [name for name in FIELDS if f"`{name}`" not in text] == []


def test_what_is_known_is_shown_though_one_name_is_wrong(here, running, slurm):

    done = here("medarc_slurm", "status", "runs/a", "nowhere", "--json")

    assert done.code == 2
    assert [run["state"] for run in json.loads(done.out)["runs"]] == ["RUNNING"]
    assert "there is no run nowhere" in done.err


def test_the_silence_of_slurm_is_marked(here, running, slurm):
    slurm.set(up=False)

    done = here("medarc_slurm", "status")

    shown = facts(done.out)
    assert shown["state"] == "RUNNING"
    assert shown["note"].startswith("from the run's records, SLURM did not answer")


def test_a_watch_without_a_terminal_prints_what_changes_and_ends_with_the_runs(
    here, running, slurm, monkeypatch
):
    monkeypatch.setattr("medarc_plugin.watching.FIRST", 0.0)
    monkeypatch.setattr("medarc_plugin.watching.MOST", 0.0)
    happens = [
        lambda: None,
        lambda: write_state(running, step=13),
        lambda: (end(running), slurm.set(jobs={"17": {"state": "COMPLETED", "comment": MARK}})),
    ]

    def pause(_seconds):
        if happens:
            happens.pop(0)()

    monkeypatch.setattr("medarc_plugin.cli.seeing.time.sleep", pause)

    done = here("medarc_slurm", "status", "--watch")

    lines = done.out.splitlines()
    assert lines[0] == "runs/a: RUNNING, training, step 12 of 40, reward 0.5000, loss 0.1000, attempt 1"
    assert "step 13 of 40" in lines[1]
    assert lines[-1].startswith("runs/a: COMPLETED")
    assert len(lines) == len(set(lines))


def test_the_projects_runs_are_listed(here, running, make_run, slurm, work):
    make_run("b", "18", token="t18")
    index.add(Entry(*("/gone/c", "rl", "c", "slurm", "19", None, None, "t19", ago(hours=1), "/elsewhere", 4)))

    own = here("medarc_slurm", "list").out.splitlines()
    mine = here("medarc_slurm", "list", "--mine", "--json")
    last = here("medarc_slurm", "list", "--last", "1")

    assert [line.split()[0] for line in own] == ["run", "runs/b", "runs/a"]
    found = json.loads(mine.out)["runs"]
    assert found[0]["run_dir"] == "/gone/c"
    assert "moved or deleted" in found[0]["trouble"][0]
    assert len(last.out.splitlines()) == 2
    assert "1 older ones are not shown" in last.err


def test_a_rehearsal_is_listed_and_marked(here, slurm, work, checkout, monkeypatch):
    monkeypatch.setenv("PRIME_RL_DIR", str(checkout))
    (work / "a.toml").write_text('[model]\nname = "m"\n\n[data]\ntype = "fake"\n')
    launched = here("medarc_slurm", "sft", "a.toml", "--output-dir", "runs/r", "--gpus", "1", "--rehearse")
    assert launched.code == 0, launched.err

    listed = here("medarc_slurm", "list")
    shown = here("medarc_slurm", "status")

    assert listed.out.splitlines()[1].startswith("runs/r (rehearsal)  17 ")
    assert shown.out.startswith("run        r (sft, a rehearsal)\n")
    assert json.loads(here("medarc_slurm", "list", "--json").out)["runs"][0]["rehearsal"] is True


def test_an_empty_project_has_an_empty_list(here, slurm, work):
    done = here("medarc_slurm", "list")

    assert (done.code, done.out) == (0, "")
    assert "no run was submitted from" in done.err
    assert json.loads(here("medarc_slurm", "list", "--json").out) == {"format": 1, "runs": []}


def test_a_long_reason_is_shortened_and_drops_no_column(make_run, slurm):
    from rich.console import Console

    from medarc_plugin import standing
    from medarc_plugin.cli import board

    runs = [make_run("a"), make_run("b", "18", token="t18")]
    for run in runs:
        write_state(run, step=12, max_steps=40)
        end(run, token=run.token, reason="failed", exit_code=1, failure="trainer ended with " + "x" * 300)
    found = standing.look(runs)

    def lines(width):
        console = Console(width=width)
        with console.capture() as captured:
            console.print(board.table(found, width))
        return captured.get().splitlines()

    for width in (80, 140):
        heading, first = lines(width)[:2]
        assert {"run", "job", "state", "step", "reward", "why"} <= set(heading.split())
        assert first.rstrip().endswith("…")
        assert "trainer ended with" in first
        assert max(map(len, lines(width))) <= width
    assert "x" * 300 in lines(1000)[1]


def test_a_table_fits_a_narrow_terminal(running, make_run, slurm):
    from rich.console import Console

    from medarc_plugin import standing
    from medarc_plugin.cli import board

    found = standing.look([running, make_run("b", "18", token="t18")])

    for width in (30, 60, 80, 120, 300):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(board.table(found, width))
        lines = console.export_text().splitlines()
        assert max(map(len, lines)) <= width
        assert "state" in lines[0]
    assert "why" in lines[0]
