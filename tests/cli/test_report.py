"""`medarc_slurm report` and `plot`, as they are typed."""

import json
import os
import subprocess
import sys
import threading

import pytest
from standins.trained import Recorded, full_run

from medarc_plugin.cli import medarc_slurm


@pytest.fixture
def type_in(work, monkeypatch, capfd):
    """Type a command: `type_in("report", "run")` gives code, standard output and error stream."""

    def run(*argv, columns=80, **environment):
        for name, value in {"COLUMNS": str(columns), **environment}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["medarc_slurm", *argv])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            medarc_slurm.main()
        return (ended.value.code or 0, *capfd.readouterr())

    return run


@pytest.fixture
def full(work):
    return full_run(work / "run")


def test_a_report_is_written_and_its_path_printed(type_in, full, work):
    code, out, err = type_in("report", "run")

    path = full.launch / "report.html"
    assert (code, out, err) == (0, f"report  {path}\n", "")
    assert path.read_text().startswith("<!DOCTYPE html>")


def test_page_and_picture_go_where_they_are_told_to(type_in, full, work):
    code, out, _ = type_in("report", "run", "--output", "page.html", "--png", "curves.png")

    assert code == 0
    assert out == f"report  {work / 'page.html'}\npng     {work / 'curves.png'}\n"
    assert (work / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not (full.launch / "report.html").exists()


def test_a_picture_of_nothing_is_not_written(type_in, work):
    Recorded(work / "run")
    code, out, err = type_in("report", "run", "--png", "curves.png")

    assert code == 0
    assert "png" not in out
    assert err == "there are no curves yet: no picture is written\n"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("report", "nowhere"), "there is no run nowhere"),
        (("report", "run", "--json", "--png", "x.png"), "--json writes no page"),
        (("report", "run", "--output", "/dev/null/x.html"), "/dev/null/x.html cannot be written"),
        (("plot", "run", "--metric", "los/mean"), "near it: loss/m"),
        (("plot", "nowhere"), "there is no run nowhere"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(type_in, full, argv, words):
    code, out, err = type_in(*argv)

    assert (code, out) == (2, "")
    assert words in err
    assert "Traceback" not in err
    assert "hint:" in err or "--json" in err


def test_without_a_run_the_newest_of_the_project_is_meant(type_in):
    code, _, err = type_in("report")

    assert code == 2
    assert "no run was submitted" in err


def test_trouble_is_told_and_the_page_is_written_all_the_same(type_in, full):
    full.write("configs/launch/state.json", "{")
    code, out, err = type_in("report", "run")

    assert (code, out[:6]) == (0, "report")
    assert err.startswith("warning:")
    assert "state.json" in err


def test_json_is_one_document_and_writes_nothing(type_in, full):
    code, out, err = type_in("report", "run", "--json")

    assert (code, err) == (0, "")
    assert json.loads(out)["step"] == 25
    assert not (full.launch / "report.html").exists()


# Opening


@pytest.fixture
def opened(monkeypatch):
    """What a browser was asked to open."""
    import webbrowser

    asked = []
    monkeypatch.setattr(webbrowser, "open", lambda address: asked.append(address) or True)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    return asked


def test_with_a_display_the_page_is_opened(type_in, full, opened):
    _, _, err = type_in("report", "run", "--open", DISPLAY=":0")

    assert (opened, err) == ([(full.launch / "report.html").as_uri()], "")


def test_without_a_display_that_is_said(type_in, full, opened):
    code, _, err = type_in("report", "run", "--open")

    assert (code, opened) == (0, [])
    assert err == "there is no browser here that could open it: copy the file to your own machine\n"


# Plots


def test_reward_and_loss_are_drawn(type_in, full):
    code, out, err = type_in("plot", "run")

    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert [line for line in lines if line in {"Reward", "Loss"}] == ["Reward", "Loss"]
    assert max(map(len, lines)) <= 80
    assert "mean of 5" in out
    assert "o evaluation of held-out" in out
    assert "\033" not in out


@pytest.mark.parametrize("columns", [20, 40, 100, 500])
def test_a_plot_is_as_wide_as_the_terminal(type_in, full, columns):
    _, out, _ = type_in("plot", "run", columns=columns)

    axis = max(len(line) for line in out.splitlines() if "┬" in line)
    assert axis == pytest.approx(min(160, columns), abs=2)


def test_a_plot_of_plain_letters_where_nothing_else_can_be_printed(cli, full):
    done = cli("medarc_slurm", "plot", "run", PYTHONIOENCODING="ascii", COLUMNS="60")

    assert done.code == 0, done.err
    assert done.out.isascii()
    assert "*" in done.out
    assert "\\u" not in done.out


def test_any_figure_is_drawn(type_in, full):
    code, out, _ = type_in("plot", "run", "--metric", "optim/lr", "--metric", "time/step")

    assert code == 0
    assert out.startswith("optim/lr\n")
    assert "\ntime/step\n" in out


def test_the_figures_are_listed(type_in, full):
    code, out, _ = type_in("plot", "run", "--list")

    assert code == 0
    assert "optim/grad_norm" in out.splitlines()


def test_a_plot_as_json(type_in, full):
    _, out, _ = type_in("plot", "run", "--metric", "optim/lr", "--json")

    found = json.loads(out)
    assert found["format"] == 1
    assert found["series"]["optim/lr"]["steps"] == list(range(1, 26))


@pytest.mark.parametrize("argv", [(), ("--list",)])
def test_a_run_without_steps_says_so(type_in, work, argv):
    Recorded(work / "run")
    code, out, err = type_in("plot", "run", *argv)

    assert (code, out) == (0, "")
    assert err.startswith("reverse-rl has")


def test_a_figure_that_is_never_a_number_is_told(type_in, work):
    Recorded(work / "run").write("metrics.jsonl", '{"step": 3, "loss/mean": NaN}\n')
    code, out, err = type_in("plot", "run", "--metric", "loss/mean")

    assert (code, out) == (0, "")
    assert err == "loss/mean: not a number at step 3.\n"


def test_colours_only_where_they_are_wanted(full):
    from medarc_plugin.report import charts, history, terminal

    (chart, *_) = charts.charts(history.read(full.run))
    coloured, plain = (
        terminal.draw(chart, terminal.Style(80, braille=True, colour=wanted)) for wanted in (True, False)
    )

    assert "\033[1;36m" in "".join(coloured)
    assert "\033" not in "".join(plain)
    assert len(coloured) == len(plain)


def test_a_launch_loads_nothing_of_a_report():
    code = (
        "import sys, medarc_plugin.cli.medarc_slurm, medarc_plugin.cli.entrypoints;"
        "print([name for name in sys.modules if 'report' in name])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("option", [("--list",), ("--metric", "loss/mean"), ("--list", "--json")])
def test_metrics_that_cannot_be_read_are_an_error_of_their_own(type_in, full, option):
    path = full.run_dir / "metrics.jsonl"
    path.unlink()
    path.mkdir()

    code, out, err = type_in("plot", "run", *option)

    assert (code, out) == (2, "")
    assert err.startswith(f"error: {path} cannot be read: Is a directory\nhint: ")


@pytest.mark.parametrize(
    "line",
    [
        "Step 2 | 1m 2s | Loss 1.2.3 | Throughput 10 tokens/s | Peak Mem. 3.1 GiB",
        "Step 2 | 1m 2s | Loss . | Throughput 10 tokens/s | Peak Mem. 3.1 GiB",
        "Step 2 | ..s | Loss 0.5 | Throughput 10 tokens/s | Peak Mem. .. GiB",
        f"Step {'9' * 400} | 1s | Loss 0.5 | Throughput 10 tokens/s | Peak Mem. 3.1 GiB",
        f"Step {'9' * 5000} | 1s | Loss 0.5 | Throughput 10 tokens/s | Peak Mem. 3.1 GiB",
    ],
)
def test_a_line_of_a_log_that_is_nearly_a_steps_costs_no_other(type_in, full, line):
    (full.run_dir / "metrics.jsonl").unlink()
    whole = "Step 1 | 1m 2s | Loss 0.5 | Throughput 10 tokens/s | Peak Mem. 3.1 GiB"
    full.write("logs/attempt_1/trainer.log", f"{line}\n{whole}\n")

    code, out, _ = type_in("plot", "run", "--json")

    assert code == 0
    assert json.loads(out)["series"]["loss"]["steps"][0] == 1


def test_a_device_or_a_pipe_is_written_to_and_not_replaced(type_in, full, work):
    pipe = work / "pipe"
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()

    code, out, _ = type_in("report", "run", "--output", "pipe")

    reader.join(30)
    assert (code, out) == (0, f"report  {pipe}\n")
    assert read[0].startswith("<!DOCTYPE html>")
    assert pipe.is_fifo()


def test_a_link_is_followed(type_in, full, work):
    (work / "page.html").symlink_to("there.html")

    assert type_in("report", "run", "--output", "page.html")[0] == 0
    assert (work / "page.html").is_symlink()
    assert (work / "there.html").read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("place", ["run", "no/where.png"])
def test_a_picture_that_cannot_be_written_is_refused_before_the_page_is(type_in, full, work, place):
    code, out, err = type_in("report", "run", "--output", "page.html", "--png", place)

    assert (code, out) == (2, "")
    assert err.startswith(f"error: {work / place} cannot be written: ")
    assert not (work / "page.html").exists()


def test_page_and_picture_are_not_one_file(type_in, full, work):
    code, _, err = type_in("report", "run", "--output", "x", "--png", "./x")

    assert code == 2
    assert err == "error: page and picture would both be x\nhint: give --png another file\n"
    assert not (work / "x").exists()
