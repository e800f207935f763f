"""The arithmetic of charts."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medarc_plugin.report.scales import (
    buckets,
    figure,
    log_ticks,
    mean_width,
    moment,
    running_mean,
    steps_in_words,
    thin,
    tick_texts,
    ticks,
    time_unit,
)

FIGURES = st.floats(-1e6, 1e6)


def test_a_running_mean_is_of_the_values_around_and_keeps_the_ends():
    assert running_mean([0, 3, 0, 3, 0, 9], 3) == [0, 1, 2, 1, 4, 9]
    assert running_mean([1, 2, 6, 2, 1], 5) == [1, 3, pytest.approx(2.4), 3, 1]
    assert running_mean([], 5) == []


@given(st.lists(FIGURES, min_size=1, max_size=80), st.integers(0, 20))
def test_a_running_mean_stays_within_the_values(values, half):
    means = running_mean(values, 2 * half + 1)

    assert len(means) == len(values)
    assert min(values) - 1e-3 <= min(means)
    assert max(means) <= max(values) + 1e-3


@pytest.mark.parametrize("count", [1, 8, 25, 400, 100_000])
def test_the_width_of_a_mean_is_odd_and_a_twentieth(count):
    width = mean_width(count)

    assert width % 2 == 1
    assert width == pytest.approx(max(5, count / 20), abs=1.1)


@given(st.lists(FIGURES, min_size=1, max_size=3000), st.integers(20, 200))
def test_thinning_keeps_extremes_ends_and_order(values, most):
    xs, ys = thin(range(len(values)), values, most)

    assert len(xs) <= max(most + 2, min(len(values), most))
    assert xs == sorted(set(xs))
    assert (min(ys), max(ys)) == (min(values), max(values))
    assert (xs[0], xs[-1]) == (0, len(values) - 1)
    assert [values[int(x)] for x in xs] == ys


def test_thinning_keeps_gaps():
    values = [1.0] * 500 + [math.nan] + [2.0] * 500
    _, ys = thin(range(len(values)), values, 20)

    assert sum(map(math.isnan, ys)) == 1


def test_places_that_are_bunched_together_are_divided_by_length():
    assert buckets([0, 1, 2, 3, 100], 2) == [(0, 4), (4, 5)]
    assert buckets([5], 10) == [(0, 1)]
    assert buckets([], 10) == []


@pytest.mark.parametrize(
    ("low", "high", "count", "texts"),
    [
        (0, 1, 5, ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (-0.0031, 0.0024, 5, ["-0.002", "0", "0.002"]),
        (0, 149, 6, ["0", "25", "50", "75", "100", "125"]),
        (0, 172_000, 4, ["0", "50k", "100k", "150k"]),
        (1, 25, 5, ["5", "10", "15", "20", "25"]),
        (1e-7, 9e-7, 4, ["2e-07", "4e-07", "6e-07", "8e-07"]),
        (5, 5, 4, ["5"]),
    ],
)
def test_ticks_are_round_and_short(low, high, count, texts):
    assert tick_texts(ticks(low, high, count)) == texts


def test_ticks_of_steps_are_whole():
    assert ticks(1, 3, 10, smallest=1.0) == [1, 2, 3]


@given(FIGURES, st.floats(1e-6, 1e6), st.integers(1, 20))
def test_ticks_lie_within_their_bounds(low, span, count):
    found = ticks(low, low + span, count)

    # As near as two figures of that size can be told apart.
    near = max(span * 1e-6, 4 * math.ulp(abs(low) + span))
    assert len(found) <= 2.5 * count + 2
    assert all(low - near <= value <= low + span + near for value in found)


def test_a_logarithmic_axis_has_powers_of_ten():
    assert log_ticks(0.5, 2000) == [1, 10, 100, 1000]
    assert log_ticks(0.9, 12) == [1, 2, 5, 10]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.65137, "", "0.6514"),
        (25, "steps", "25 steps"),
        (18_123.4, "tokens/s", "18\u202f123 tokens/s"),
        (1234.5, "s", "1234 s"),
        (-0.0000123, "", "-1.23e-05"),
        (0.0, "", "0"),
        (None, "s", "-"),
        (math.nan, "s", "-"),
        (math.inf, "", "inf"),
    ],
)
def test_figures_are_short(value, unit, text):
    assert figure(value, unit) == text


def test_a_moment_is_in_utc():
    assert moment(1_795_000_000) == "2026-11-18 11:06:40"
    assert moment(None) == moment(math.nan) == moment(1e300) == "-"


def test_steps_in_words():
    assert steps_in_words([3]) == "step 3"
    assert steps_in_words([3, 4, 9]) == "steps 3, 4 and 9"
    assert steps_in_words(range(20)) == "steps 0, 1, 2, 3, 4 and 15 more"


@pytest.mark.parametrize(
    ("span", "unit"), [(1, "seconds"), (200, "minutes"), (20_000, "hours"), (1e6, "days")]
)
def test_a_stretch_of_time_has_a_fitting_unit(span, unit):
    assert time_unit(span)[1] == unit
