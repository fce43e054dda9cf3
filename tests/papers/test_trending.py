"""Trend scores: properties that hold whatever the counters are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from papers.trending import GROWTH, NEUTRAL, SMALL_COHORT, WEIGHTS, Floats, trend_scores

NAN = float("nan")
counts = st.one_of(st.just(NAN), st.integers(0, 2**31 - 1).map(float))


def column(*values: float) -> Floats:
    return np.array(values, dtype=np.float64)


@st.composite
def days(draw: st.DrawFn) -> tuple[dict[str, Floats], dict[str, Floats], list[str]]:
    n = draw(st.integers(0, 30))
    columns = st.lists(counts, min_size=n, max_size=n).map(lambda values: column(*values))
    now = {name: draw(columns) for name in WEIGHTS}
    before = {name: draw(columns) for name in WEIGHTS}
    cohorts = draw(st.lists(st.sampled_from(["cs.CL", "cs.CV", ""]), min_size=n, max_size=n))
    return now, before, cohorts


@given(days())
def test_a_score_is_a_number_from_0_to_1_whatever_is_missing(
    day: tuple[dict[str, Floats], dict[str, Floats], list[str]],
) -> None:
    trend = trend_scores(*day)
    assert trend.score.shape == (len(day[2]),)
    assert np.all((trend.score >= 0) & (trend.score <= 1))
    for name in WEIGHTS:
        counted = ~np.isnan(day[0][name])
        grown = counted & ~np.isnan(day[1][name])
        for terms, seen in (
            (trend.levels[name], counted),
            (trend.growths[name], grown),
            (trend.percentiles[name], counted),
        ):
            assert np.array_equal(~np.isnan(terms), seen)
            assert np.all((terms[seen] >= 0) & (terms[seen] <= 1))


@given(days(), st.data())
def test_more_upvotes_never_lower_a_score(
    day: tuple[dict[str, Floats], dict[str, Floats], list[str]], data: st.DataObject
) -> None:
    now, before, cohorts = day
    voted = np.flatnonzero(~np.isnan(now["upvotes"]))
    assume(len(voted))
    lucky = data.draw(st.sampled_from(voted.tolist()))
    better = now["upvotes"].copy()
    better[lucky] += data.draw(st.integers(1, 10_000))
    score = trend_scores(now, before, cohorts).score
    raised = trend_scores({**now, "upvotes": better}, before, cohorts).score
    assert raised[lucky] >= score[lucky]
    others = np.arange(len(cohorts)) != lucky
    assert np.all(raised[others] <= score[others])


@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=30))
def test_within_a_cohort_papers_stand_in_the_order_of_their_upvotes(upvotes: list[int]) -> None:
    votes = column(*upvotes)
    score = trend_scores({"upvotes": votes}, {}, ["cs.CL"] * len(votes)).score
    for left in range(len(votes)):
        for right in range(len(votes)):
            if votes[left] > votes[right]:
                assert score[left] > score[right]


@given(st.lists(counts, min_size=5, max_size=12), st.lists(counts, min_size=5, max_size=12))
def test_large_cohorts_do_not_touch_each_other(small: list[float], large: list[float]) -> None:
    alone = trend_scores({"upvotes": column(*small)}, {}, ["math.NT"] * len(small)).score
    cohorts = ["math.NT"] * len(small) + ["cs.LG"] * len(large)
    together = trend_scores({"upvotes": column(*small, *large)}, {}, cohorts).score
    assert np.array_equal(together[: len(small)], alone)


def test_the_best_of_a_small_field_stands_level_with_the_best_of_a_large_one() -> None:
    votes = column(0, 1, 2, 3, 4, 0, 100, 200, 300, 400)
    score = trend_scores({"upvotes": votes}, {}, ["math.NT"] * 5 + ["cs.LG"] * 5).score
    assert score[4] == score[9] == score.max()


def test_cohorts_of_a_few_papers_are_counted_as_one() -> None:
    cohorts = [f"category {n}" for n in range(SMALL_COHORT)]
    score = trend_scores({"upvotes": column(1, 2, 3, 4, 5)}, {}, cohorts).score
    assert list(np.argsort(score)) == [0, 1, 2, 3, 4]


def test_a_paper_that_nobody_counted_is_neutral_and_stands_in_the_middle() -> None:
    votes = column(0, 10, NAN, 20, 30)
    trend = trend_scores({"upvotes": votes}, {}, ["cs.CL"] * 5)
    assert trend.score[2] == NEUTRAL
    assert np.isnan(trend.percentiles["upvotes"][2])
    assert trend.score[0] < NEUTRAL < trend.score[4]
    assert np.all(trend_scores({}, {}, ["cs.CL"] * 5).score == NEUTRAL)


def test_growth_counts_beside_the_level() -> None:
    now = column(50, 50, 50, 50, 50)
    before = column(50, 40, 30, 60, 10)
    score = trend_scores({"upvotes": now}, {"upvotes": before}, ["cs.CL"] * 5).score
    assert score[4] > score[2] > score[1] > score[0]
    assert score[3] == score[0]  # votes taken back are no growth


def test_unknown_growth_is_neutral() -> None:
    now = column(50, 50, 50, 50, 50)
    before = column(50, 45, NAN, 40, 10)
    score = trend_scores({"upvotes": now}, {"upvotes": before}, ["cs.CL"] * 5).score
    assert list(np.argsort(score)) == [0, 1, 2, 3, 4]
    assert score[2] == NEUTRAL


def test_a_percentile_is_the_weighted_mean_of_those_of_level_and_growth() -> None:
    now = {"upvotes": column(10, 20, 30, 40, 50)}
    before = {"upvotes": column(10, 11, 28, 37, 46)}  # growth: 0, 9, 2, 3, 4
    trend = trend_scores(now, before, ["cs.CL"] * 5)
    level, growth = column(0.1, 0.3, 0.5, 0.7, 0.9), column(0.1, 0.9, 0.3, 0.5, 0.7)
    blend = (level + GROWTH * growth) / (1 + GROWTH)
    assert trend.levels["upvotes"] == pytest.approx(level)
    assert trend.growths["upvotes"] == pytest.approx(growth)
    assert trend.percentiles["upvotes"] == pytest.approx(blend)
    share = WEIGHTS["upvotes"] / sum(WEIGHTS.values())
    assert trend.score == pytest.approx(share * blend + (1 - share) * NEUTRAL)


@given(days(), st.data())
def test_papers_of_equal_counts_share_their_score(
    day: tuple[dict[str, Floats], dict[str, Floats], list[str]], data: st.DataObject
) -> None:
    now, before, cohorts = day
    assume(cohorts)
    twin = data.draw(st.integers(0, len(cohorts) - 1))

    def with_twin(columns: dict[str, Floats]) -> dict[str, Floats]:
        return {name: np.append(values, values[twin]) for name, values in columns.items()}

    score = trend_scores(with_twin(now), with_twin(before), [*cohorts, cohorts[twin]]).score
    assert score[twin] == score[-1]


@pytest.mark.parametrize("counter", ["comments", "stars"])
def test_comments_and_stars_order_papers_of_equal_upvotes(counter: str) -> None:
    votes = column(7, 7, 7, 7, 7)
    now = {"upvotes": votes, counter: column(0, NAN, 1, 20, 300)}
    score = trend_scores(now, {}, ["cs.CL"] * 5).score
    assert score[0] < score[1] < score[3] < score[4]
    assert score[0] < score[2] < score[3]


def test_a_day_without_papers_has_no_scores() -> None:
    assert trend_scores({}, {}, []).score.shape == (0,)
