"""The report of a run in a real browser: it is drawn, asks nobody for anything, and complains of nothing."""

import json

import pytest
from standins.trained import START, Recorded, full_run, real_rows

from medarc_plugin.report import document, history, page

pytestmark = pytest.mark.browser

HOSTILE = "<script>alert(1)</script><img src=http://127.0.0.1:9/x onerror=alert(1)>\"'&"
SHOWN = """[...document.querySelectorAll('figure svg[role=img] path.line')]
    .filter(path => path.getBoundingClientRect().width > 50).length"""


@pytest.fixture
def written(tmp_path):
    """Write the page of a run, and return its path."""

    def write(recorded):
        path = tmp_path / "report.html"
        page.write(path, page.page(document.without_secrets(history.read(recorded.run))))
        return path

    return write


def hostile_run(run_dir):
    made = Recorded(run_dir, name=HOSTILE, note=HOSTILE)
    made.add_rows(real_rows("rl-one", 3))
    made.add_rows([{"step": 3, "time": START, f"eval/{HOSTILE}/effective/{HOSTILE}/reward/mean": 0.5}])
    made.add_rows([{"step": 3, "time": START, "eval/x/effective/a/reward/mean": 0.5}])
    made.add_attempt(
        1,
        START,
        50,
        [(HOSTILE, 1)],
        reason=HOSTILE,
        failure=HOSTILE,
        host=HOSTILE,
        failed=[HOSTILE],
        signals=[HOSTILE],
    )
    made.write(
        "configs/launch/provenance.json", {"command": [HOSTILE], "warnings": [HOSTILE], "shape": HOSTILE}
    )
    return made


def long_run(run_dir):
    made = Recorded(run_dir, "sft", max_steps=100_000)
    rows = real_rows("tiny-sft", 400)
    made.add_rows({**row, "step": row["step"] + 400 * again} for again in range(10) for row in rows)
    for number in range(1, 90):
        made.add_attempt(number, START + 7200 * number, 3600, reason="preempted", requeued=True)
    return made


def empty_run(run_dir):
    return Recorded(run_dir)


RUNS = {"full": (full_run, 10), "hostile": (hostile_run, 3), "long": (long_run, 4), "empty": (empty_run, 0)}


@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_page_is_drawn_asks_for_nothing_and_complains_of_nothing(browser, written, tmp_path, kind, dark):
    make, curves = RUNS[kind]
    path = written(make(tmp_path / "run"))

    seen = browser.open(path, SHOWN, "document.scripts.length", "document.title", dark=dark)

    drawn, scripts, title = seen.values
    assert [address for address in seen.requests if not address.startswith("data:")] == [path.as_uri()]
    assert seen.complaints == []
    assert drawn >= curves
    assert scripts == 0
    assert title.endswith(": a run's report")
    assert seen.picture.startswith(b"\x89PNG")


def test_what_asks_or_complains_is_noticed(browser, tmp_path):
    path = tmp_path / "page.html"
    path.write_text("<img src='http://127.0.0.1:9/x.png'><script>console.error('oh'); nothing.there</script>")

    seen = browser.open(path)

    assert "http://127.0.0.1:9/x.png" in seen.requests
    assert any("oh" in words for words in seen.complaints)
    assert any("Uncaught" in words for words in seen.complaints)


def test_the_page_forbids_what_would_leave_it(browser, written, tmp_path):
    path = written(empty_run(tmp_path / "run"))
    text = path.read_text().replace(
        "</main>", "<img src='http://127.0.0.1:9/x.png'><script>1</script></main>"
    )
    path.write_text(text)

    seen = browser.open(path)

    assert len([words for words in seen.complaints if "Content Security Policy" in words]) == 2


def test_names_are_shown_as_they_are(browser, written, tmp_path):
    path = written(hostile_run(tmp_path / "run"))

    seen = browser.open(path, "document.querySelector('h1').textContent", "document.body.textContent")

    heading, text = seen.values
    assert heading == HOSTILE
    assert text.count(HOSTILE) >= 6
    assert json.dumps(HOSTILE) in text


@pytest.mark.parametrize("width", [1600, 1280, 700, 360])
def test_nothing_is_wider_than_the_window(browser, written, tmp_path, width):
    path = written(full_run(tmp_path / "run", name="a-name-that-is-long-" * 8))

    seen = browser.open(
        path, "document.documentElement.scrollWidth", "document.documentElement.clientWidth", width=width
    )

    wide, window = seen.values
    assert wide <= window


def test_words_of_a_chart_do_not_run_into_each_other(browser, written, tmp_path):
    path = written(full_run(tmp_path / "run"))

    seen = browser.open(path, OVERLAPS)

    assert seen.values == [[]]


OVERLAPS = """[...document.querySelectorAll('figure > svg')].flatMap(svg => {
    const box = text => text.getBoundingClientRect();
    const meet = (a, b) => a.left < b.right && b.left < a.right && a.top + 2 < b.bottom - 2 && b.top + 2 < a.bottom - 2;
    const texts = [...svg.querySelectorAll('text')];
    return texts.flatMap((one, place) => texts.slice(place + 1)
        .filter(other => meet(box(one), box(other)))
        .map(other => `${one.textContent} / ${other.textContent}`));
})"""  # noqa: E501


def test_the_links_lead_within_the_page(browser, written, tmp_path):
    path = written(full_run(tmp_path / "run"))

    seen = browser.open(
        path,
        "[...document.links].map(link => link.getAttribute('href'))",
        "[...document.links].every(link => document.getElementById(link.hash.slice(1)))",
        touch="nav a:last-child",
    )

    links, all_there = seen.values
    assert len(links) == 5
    assert all(link.startswith("#") for link in links)
    assert all_there
