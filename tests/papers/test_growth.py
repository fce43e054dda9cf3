"""A counter's growth as the numbers of a plot."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papers.growth import DIGIT, HEIGHT, MOST_POINTS, MOST_ROWS, WIDTH, Observation, plot

START = datetime(2026, 11, 1, tzinfo=UTC)


def hourly(*values: int) -> list[Observation]:
    return [(START + timedelta(hours=hour), value) for hour, value in enumerate(values)]


def test_one_look_is_no_growth() -> None:
    assert plot("stars", {"a": hourly(3)}) is None
    assert plot("stars", {"a": [(START, 3), (START, 4)]}) is None
    assert plot("stars", {}) is None


def test_a_line_goes_from_the_lower_left_to_the_upper_right() -> None:
    drawn = plot("stars", {"a": hourly(0, 5, 10)})
    assert drawn is not None
    assert (drawn.low, drawn.high) == (0, 10)
    assert drawn.lines[0].points == "46.0,106.0 188.0,58.0 330.0,10.0"


def test_small_growth_of_a_large_number_is_seen() -> None:
    drawn = plot("stars", {"a": hourly(1000, 1004)})
    assert drawn is not None
    assert (drawn.low, drawn.high) == (1000, 1004)


@pytest.mark.parametrize("most", [10, 153_482, 2**31 - 1])
def test_the_numbers_of_the_axis_have_room(most: int) -> None:
    drawn = plot("stars", {"a": hourly(0, most)})
    assert drawn is not None
    assert drawn.numbers_end >= DIGIT * len(str(most))
    assert drawn.numbers_end < drawn.left < WIDTH / 3
    assert drawn.lines[0].points == f"{drawn.left}.0,106.0 330.0,10.0"


def test_the_lines_of_a_plot_can_be_told_apart() -> None:
    drawn = plot("stars", {name: hourly(0, 1) for name in "abcdef"})
    assert drawn is not None
    assert (
        len({line.dashes for line in drawn.lines}) == len({line.style for line in drawn.lines}) == 6
    )


def test_the_table_has_the_last_number_of_each_day_newest_first() -> None:
    a = [(START, 1), (START + timedelta(hours=5), 2), (START + timedelta(days=1), 3)]
    b = [(START, 7), (START + timedelta(hours=1), 8)]
    drawn = plot("stars", {"a": a, "b": b})
    assert drawn is not None
    assert drawn.rows == [(date(2026, 11, 2), [3, None]), (date(2026, 11, 1), [2, 8])]


def test_years_of_hours_stay_a_small_picture() -> None:
    drawn = plot("stars", {"a": hourly(*(n * n for n in range(9_000)))})
    assert drawn is not None
    assert len(drawn.lines[0].points.split()) <= MOST_POINTS + 1
    assert drawn.lines[0].points.endswith("330.0,10.0")
    assert len(drawn.rows) == MOST_ROWS


@given(st.lists(st.integers(0, 2**31 - 1), min_size=2, max_size=50))
def test_nothing_is_drawn_outside_the_picture(values: list[int]) -> None:
    drawn = plot("stars", {"a": hourly(*values)})
    assert drawn is not None
    for point in drawn.lines[0].points.split():
        x, y = map(float, point.split(","))
        assert 0 <= x <= WIDTH
        assert 0 <= y <= HEIGHT
