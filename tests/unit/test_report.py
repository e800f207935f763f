"""What a report shows of a run's history: charts, the page, the picture, the document."""

import json
import math
import re
import shutil
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from standins.trained import COMMIT, START, Recorded, full_run, real_rows

from medarc_plugin import rundir
from medarc_plugin.errors import UsageError
from medarc_plugin.redaction import Redaction
from medarc_plugin.report import charts, document, history, page, pictures, terminal
from medarc_plugin.report.pictures import Chart, Line, draw

SVG = "{http://www.w3.org/2000/svg}"
NOW = START + 100_000
DOCS = Path(page.__file__).parents[2] / "docs"


@pytest.fixture(autouse=True)
def _no_secrets(clean_environment):
    """An environment without any."""


@pytest.fixture
def made(tmp_path):
    return lambda *args, **config: Recorded(tmp_path / "run", *args, **config)


@pytest.fixture
def full(tmp_path):
    return read(full_run(tmp_path / "run"))


def read(recorded):
    return document.without_secrets(history.read(recorded.run, now=lambda: NOW))


def named(found):
    return {chart.name: chart for chart in charts.charts(found)}


# Charts


def test_an_rl_run_has_its_charts(full):
    found = named(full)

    assert list(found) == [
        *("reward", "loss", "throughput", "step-time", "rollout-time", "gpu-memory", "gpu-use")
    ]
    assert [line.label for line in found["reward"].lines] == [
        "mean of a step's rollouts",
        "evaluation of held-out",
    ]
    assert [label for label, _, _ in found["step-time"].areas] == [
        *(
            "forward and backward",
            "waiting for the batch",
            "loading",
            "sending weights",
            "checkpoint",
            "other",
        )
    ]
    assert found["reward"].rules == [(10.5, "attempt 2")]
    assert (found["gpu-memory"].high, found["gpu-use"].high) == (80, 100)


def test_an_sft_run_has_its_charts(made):
    recorded = made("sft", max_steps=400)
    recorded.add_rows(real_rows("tiny-sft", 30))
    recorded.add_rows([{"step": 30, "time": START, "val/loss": 0.75}])
    found = named(read(recorded))

    assert list(found) == ["loss", "throughput", "step-time", "gpu-memory"]
    assert [line.label for line in found["loss"].lines] == ["each step", "validation"]


def test_a_run_that_made_no_step_has_none(made):
    found = read(made())

    assert charts.charts(found) == []
    assert charts.timeline(found) is None


@pytest.mark.parametrize(
    ("resumed", "rules"),
    [
        ([None, 10, 20], [(2, 10), (3, 20)]),
        ([None, 10, 5], [(3, 5)]),
        ([None, 10, None], []),
    ],
)
def test_a_resume_is_marked_unless_what_followed_was_left_again(made, resumed, rules):
    recorded = made()
    for number, step in enumerate(resumed, start=1):
        recorded.add_attempt(number, START, 10, steps=3, resumed_from=step)
    recorded.add_attempt(9, START, 10, steps=0, resumed_from=99)

    assert charts.resumes(read(recorded).attempts) == rules


def test_a_loss_that_falls_far_has_a_logarithmic_axis(made):
    recorded = made("sft")
    recorded.add_rows({"step": step, "loss/mean": 100 / step**2} for step in range(1, 40))

    assert named(read(recorded))["loss"].logarithmic


def test_the_timeline_shows_every_attempt_and_phase(full):
    picture = charts.timeline(full)

    assert [word.text for word in picture.y_ticks] == ["1  time-limit", "2  finished"]
    assert [key.text for key in picture.keys] == [
        *("starting", "waiting for vLLM", "warming up", "training", "evaluating", "exporting")
    ]
    assert len(picture.boxes) == 9
    assert all(picture.left <= box.x <= picture.right for box in picture.boxes)
    assert "attempt 1: warming up" in picture.boxes[2].title


def test_a_phase_that_comes_thousands_of_times_is_not_drawn_thousands_of_times(made):
    recorded = made()
    phases = [
        (name, 10 * number) for number in range(3000) for name in (["training", "evaluating"][number % 2],)
    ]
    recorded.add_attempt(1, START, 30_000, phases)
    recorded.add_attempt(2, START + 3e6, 30, [("training", 0)])
    picture = charts.timeline(read(recorded))

    assert len(picture.boxes) < 100


# Pictures


def chart_of(ys, **values):
    chart = Chart("x", "X", "s", "step", **values)
    chart.lines.append(Line("x", [float(place) for place in range(len(ys))], ys, "c1", smooth=True))
    return chart


def test_the_values_and_their_mean_are_drawn():
    picture = draw(chart_of([math.sin(place) for place in range(500)]))

    assert [path.css for path in picture.paths] == ["line c1 raw", "line c1 mean"]
    assert [key.text for key in picture.keys] == ["x", "mean of 25 steps"]
    assert picture.paths[0].d.count("L") == 499


def test_a_hundred_thousand_values_are_few_points_and_keep_their_extremes():
    values = [0.0] * 100_000
    values[77_777] = 5.0
    picture = draw(chart_of(values))

    assert picture.paths[0].d.count("L") <= pictures.MOST_POINTS + 2
    heights = [float(each) for each in re.findall(r" ([\d.]+)", picture.paths[0].d)]
    assert min(heights) < picture.top + 20
    assert len(picture.stretches) <= pictures.MOST_STRETCHES


def test_a_pointer_is_told_what_is_under_it():
    chart = chart_of([float(place) for place in range(1000)])
    stretches = draw(chart).stretches

    assert stretches[0].title == "steps 0 to 11\nx: 0 to 11, mean 5"
    assert stretches[0].x + stretches[0].width == pytest.approx(stretches[1].x)
    assert stretches[-1].title.startswith("steps 988 to 999")


def test_gaps_are_not_drawn_over():
    picture = draw(chart_of([1.0, 2.0, math.nan, 3.0, 4.0]))

    assert picture.paths[0].d.count("M") == 2


def test_the_first_step_does_not_flatten_the_others():
    picture = draw(chart_of([60.0, *[2.0, 3.0] * 10], leaves_out=1))

    assert picture.y_ticks[-1].text == "3.0"
    assert picture.notes == ("Above the axis: 60 at step 0.",)
    assert [box.css for box in picture.boxes] == ["above"]


@pytest.mark.parametrize(
    "values",
    [
        *([1.0], [0.0, 0.0], [-5.0] * 30, [1e-12, 2e-12], [math.nan, 1.0]),
        *([1e300, -1e300], [1.7e308] * 9, [-1.7e308, 1.7e308], [5e-324], [9.54e68], [1e-310, 1e-305]),
    ],
)
def test_any_values_make_a_picture(values):
    picture = draw(chart_of(values))
    lines = terminal.draw(chart_of(values), terminal.Style(60, braille=True, colour=False))

    assert "nan" not in str(picture)
    assert "inf" not in str(picture.paths)
    assert max(map(len, lines)) <= 60


def test_parts_are_stacked_up_to_the_whole(full):
    picture = draw(named(full)["step-time"])
    areas = [path for path in picture.paths if path.css.startswith("area")]

    assert len(areas) == 6
    assert not [path for path in picture.paths if "whole" in path.css]


# The page


class Parts(HTMLParser):
    """Collects what a page is made of."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.ids, self.text = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in {"href", "src", "xlink:href", "action", "srcset", "data"}:
                self.addresses.append(value)
            if name == "id":
                self.ids.append(value)

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_names_no_address_outside_it(full):
    text = page.page(full)
    parts = Parts(text)

    assert set(parts.addresses) == {"data:,", "#curves", "#attempts", "#evaluations", "#what-ran", "#config"}
    assert "url(" not in text
    assert "@import" not in text
    assert "http" not in re.sub(r"http-equiv", "", text)
    assert not {"script", "iframe", "object", "embed", "form"} & set(parts.tags)
    assert len(parts.ids) == len(set(parts.ids))
    assert "default-src 'none'" in text


def test_the_page_says_what_ran_and_how_it_went(full):
    text = " ".join(Parts(page.page(full)).text)

    for words in (
        "step 25 of 25",
        "rl --backend slurm @ rl.toml --output-dir 'runs/a b'",
        f"{COMMIT}, with local changes",
        "/opt/prime-rl/.venv/bin/python -m prime_rl.entrypoints.rl",
        "CUDA_VISIBLE_DEVICES=0,1",
        "its time limit came",
        "signals: SIGUSR2",
        "the job went back into the queue",
        f"{full.gpu_hours:.2f}",
        '"max_steps": 25',
        "0.628 (step 20)",
    ):
        assert words in text


def test_every_chart_says_in_words_what_it_shows(full):
    text = page.page(full)
    labels = re.findall(r'role="img" aria-label="([^"]*)"', text)

    assert len(labels) == 8
    assert labels[0].startswith("Reward. mean of a step&#39;s rollouts: 25 values, from 0.4655 to 0.6514")


def test_a_page_of_nothing(made):
    text = " ".join(Parts(page.page(read(made()))).text)

    assert "The run has not begun." in text
    assert "planned; no submission was recorded" in text


@pytest.mark.parametrize(
    ("over", "record", "seen", "words"),
    [
        (True, {"reason": "finished"}, 0, "finished"),
        (True, {"reason": "preempted", "requeued": True}, 0, "preempted; it went back into the queue"),
        (False, {}, NOW - 20 - START, "training"),
        (False, {}, 60, "no sign of life since 2026-11-18 11:07:40 UTC"),
        (True, {"reason": "rehearsed"}, 0, "rehearsed, which starts nothing"),
        (True, {"reason": "checks-failed"}, 0, "a check refused the start"),
    ],
)
def test_a_run_is_as_its_records_say(made, over, record, seen, words):
    recorded = made()
    recorded.set_state(phase="training")
    recorded.add_attempt(1, START, seen, over=over, **record)

    assert document.state_in_words(read(recorded)) == words


def test_every_reason_of_an_attempt_is_explained():
    text = (DOCS / "job-anatomy.md").read_text()
    table = text[text.index("| reason | what happened |") :].split("\n\n")[0]

    assert set(page.REASONS) == set(re.findall(r"`([a-z-]+)`", table)) - {"--max-requeues"}


def test_no_secret_is_on_the_page(made, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "swordfish-of-the-seas")
    recorded = made(env_vars={"HF_TOKEN": "hunter2"}, note="a swordfish-of-the-seas here")
    recorded.add_attempt(1, START, 10, failure="401 for swordfish-of-the-seas", host="swordfish-of-the-seas")
    recorded.add_rows([{"step": 1, "eval/swordfish-of-the-seas/effective/a/reward/mean": 1.0}])
    command = ["rl", "--env", "MY_TOKEN=hunter2", "swordfish-of-the-seas"]
    recorded.write("configs/launch/provenance.json", {"command": command})
    found = read(recorded)

    for text in (page.page(found), page.picture(found), json.dumps(document.document(found))):
        assert "swordfish" not in text
        assert "hunter2" not in text
    assert "MY_TOKEN=***" in page.page(found)


def test_a_redaction_may_be_brought_along(full):
    found = document.without_secrets(full, Redaction(["time-limit"]))

    assert found.attempts[0].reason == "***"


# Files


def test_the_page_lies_where_prime_rls_guard_and_clean_allow_it(full):
    path = page.default_path(full)
    before = rundir.artifacts(full.run.run_dir, "rl.sbatch")
    page.write(path, page.page(full))

    assert path == full.run.run_dir / "configs" / "launch" / "report.html"
    assert rundir.artifacts(full.run.run_dir, "rl.sbatch") == before


def test_a_page_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(UsageError, match="cannot be written: No space left on device"):
        page.write(path, "new")

    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.glob("*report*")] == ["report.html"]


def test_the_picture_is_svg_with_every_chart(full):
    root = ET.fromstring(page.picture(full))
    titles = [text.text for text in root.iter(f"{SVG}text") if text.get("class") == "title"]

    assert titles[:2] == ["Reward", "Loss"]
    assert len(titles) == 7
    assert page.picture(full).count("href") == 0


def test_the_picture_becomes_a_png_without_any_font_of_the_machine(full):
    resvg_py = pytest.importorskip("resvg_py")
    drawn = page.png(page.picture(full))

    assert drawn.startswith(b"\x89PNG")
    width, height = (int.from_bytes(drawn[place : place + 4], "big") for place in (16, 20))
    assert (width, height) == (2360, pytest.approx(2500, abs=200))
    alone = '<svg xmlns="http://www.w3.org/2000/svg" width="90" height="20"><text y="15">Reward</text></svg>'
    asked = {"svg_string": alone, "skip_system_fonts": True, "font_family": page.FONT_NAME}
    with_font = resvg_py.svg_to_bytes(**asked, font_files=[str(page.FONT)])
    assert with_font != resvg_py.svg_to_bytes(**asked)


def test_without_what_draws_a_png_the_way_out_is_said(full, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "resvg_py", None)

    with pytest.raises(UsageError, match="not installed") as caught:
        page.png("<svg/>")
    assert "--extra png" in caught.value.hint


def test_a_run_without_curves_has_no_picture(made):
    assert page.picture(read(made())) is None


def test_what_is_no_text_is_shown_as_a_question_mark(made, tmp_path):
    pytest.importorskip("resvg_py")
    recorded = made(name="a\0b", note="\ud800")
    recorded.add_rows(real_rows("rl-one", 2))
    recorded.add_rows([{"step": 1, "eval/x\udcff\x01/effective/a/reward/mean": 1.0}])
    found = read(recorded)
    page.write(tmp_path / "x.html", page.page(found))

    assert "evaluation of x?" in (tmp_path / "x.html").read_text()
    assert page.png(page.picture(found)).startswith(b"\x89PNG")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)
FILES = {
    "configs/rl.json": ("max_steps", "trainer", "monitors", "orchestrator"),
    "configs/launch/launch.json": ("name", "gpus", "fields", "token"),
    "configs/launch/provenance.json": (
        "command",
        "typed",
        "typed_in",
        "prime_rl",
        "warnings",
        "shape",
        "checked",
        "python",
    ),
    "configs/launch/state.json": ("attempt", "phase", "step", "resumed_from", "steps_this_attempt"),
    "configs/launch/attempts.jsonl": (
        *("job_id", "host", "gpus", "started", "ended", "exit_code", "reason", "signals", "failed"),
        *("failure", "resumed_from", "checkpoint", "steps", "step", "requeued", "unexported", "hints"),
    ),
    "configs/launch/gpus.jsonl": ("time", "attempt", "gpus"),
    "configs/attempts/1/launched.json": ("command", "server_command", "environment", "working_directory"),
    "configs/attempts/1/phases.jsonl": ("phase", "time"),
    "configs/attempts/1/started.json": ("started", "gpus", "host"),
    "metrics.jsonl": (
        *("time", "loss/mean", "val/loss", "perf/throughput", "perf/peak_memory", "time/step"),
        *("time/forward_backward", "time/wait_for_policy", "train/agg/effective/a/reward/mean"),
    ),
}
FIXED = {"configs/launch/launch.json": {"entrypoint": "rl"}, "metrics.jsonl": {"step": 3}}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_the_records_hold_there_is_a_page(tmp_path, data):
    run_dir = tmp_path / "run"
    shutil.rmtree(run_dir, ignore_errors=True)
    made = full_run(run_dir) if data.draw(st.booleans()) else Recorded(run_dir)
    for name in data.draw(st.lists(st.sampled_from(sorted(FILES)), unique=True, max_size=4)):
        values = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(FILES[name], JSON)))
        with made.write(name, "").open("w") as file:
            file.write(json.dumps({"attempt": 1, **FIXED.get(name, {}), **values}) + "\n")
    found = read(made)

    assert page.page(found).lstrip().startswith("<!DOCTYPE html>")
    json.dumps(document.document(found), allow_nan=False)
    for chart in charts.charts(found):
        terminal.draw(chart, terminal.Style(60, braille=True, colour=False))


# The document


def test_the_document_has_all_points_and_is_plain_json(tmp_path):
    recorded = full_run(tmp_path / "run")
    recorded.add_steps(20, 21)
    recorded.write(
        "configs/launch/gpus.jsonl",
        '{"time": 5, "attempt": 1, "gpus": [{"index": 0, "use_percent": null}]}\n',
    )
    found = document.document(read(recorded))

    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["format"] == 1
    loss = found["series"]["loss"]
    assert loss["steps"] == list(range(1, 22))
    assert loss["abandoned"]["steps"] == [20, 21, 22, 23, 24, 25]
    assert found["evals"]["held-out"]["steps"] == [1, 10, 20]
    assert found["gpus"][0]["use_percent"] == [None]
    assert found["attempts"][0]["reason"] == "time-limit"
    assert found["attempts"][0]["phases"][1]["phase"] == "waiting for vLLM"
    assert found["config"]["max_steps"] == 25


def test_the_document_is_described(full):
    found = document.document(full)
    words = set(re.findall(r"`([a-z_]+)`", (DOCS / "report.md").read_text()))

    for table in (found, found["attempts"][0], found["series"]["loss"], found["gpus"][0]):
        assert set(table) <= words
    assert {name for name in found["series"] if "/" not in name} <= words
