"""Which papers make a mail: each rule on a few papers, and what must hold for any."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from newsletter.recommender.selection import (
    DUPLICATE,
    Papers,
    Readers,
    Section,
    Selections,
    select,
    trend_weight,
)

THRESHOLD = 0.5
Pairs = Sequence[tuple[int, int]]


def floats(values: object) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def pairs(values: Pairs) -> NDArray[np.intp]:
    return np.array(values, dtype=np.intp).reshape(-1, 2)


def flags(values: Sequence[Sequence[bool]] | None, rows: int) -> NDArray[np.bool_]:
    return np.zeros((rows, 0), dtype=bool) if values is None else np.array(values, dtype=bool)


def make_papers(
    trend: Sequence[float],
    pinned: Sequence[int] = (),
    alike: Sequence[tuple[int, int, float]] = (),
    fields: Sequence[Sequence[bool]] | None = None,
) -> Papers:
    """Papers as unlike as can be, but for the pairs (one, other, cosine) in `alike`."""
    similarity = np.eye(len(trend), dtype=np.float32)
    for one, other, cosine in alike:
        similarity[one, other] = similarity[other, one] = cosine
    return Papers(
        trend=floats(trend),
        pinned=np.array(pinned, dtype=np.intp),
        similarity=similarity,
        fields=flags(fields, len(trend)),
    )


def make_readers(
    owners: Sequence[int] = (0,),
    counts: Sequence[int] = (8,),
    popularity: Sequence[float] | None = None,
    seeds: Sequence[int] | None = None,
    excluded: Pairs = (),
    must: Pairs = (),
    fields: Sequence[Sequence[bool]] | None = None,
) -> Readers:
    r = len(counts)
    return Readers(
        owners=np.array(owners, dtype=np.intp),
        counts=np.array(counts, dtype=np.intp),
        popularity=floats([0.2] * r if popularity is None else popularity),
        seeds=np.array([7] * r if seeds is None else seeds, dtype=np.uint64),
        excluded=pairs(excluded),
        must=pairs(must),
        fields=flags(fields, r),
    )


def choose(relevance: Sequence[Sequence[float]], readers: Readers, papers: Papers) -> Selections:
    rows = floats(relevance).reshape(len(readers.owners), len(papers.trend))
    return select(rows, readers, papers, threshold=THRESHOLD)


def in_section(selections: Selections, section: Section) -> list[int]:
    return [int(paper) for paper in selections.paper[selections.section == section]]


def descending(n: int, top: float = 0.45) -> list[float]:
    """Trends below the neutral, so that nothing is trending unless a test says so."""
    return [top - 0.01 * i for i in range(n)]


NOBODY: list[list[float]] = []

# --- The score -----------------------------------------------------------------------------------


def test_popularity_turns_the_score_from_relevance_to_trend() -> None:
    weights = trend_weight(floats([0, 0.2, 1]))
    assert weights == pytest.approx(floats([0.05, 0.22, 0.9]))
    assert weights.dtype == np.float32


def test_a_pick_says_its_interest_its_relevance_its_trend_and_their_blend() -> None:
    answer = choose(
        [[0.6, 0], [0.8, 0.1]], make_readers(owners=[0, 0], popularity=[0]), make_papers([0.4, 0.3])
    )
    assert answer.paper.tolist() == [0]
    assert answer.interest.tolist() == [1]
    assert answer.relevance == pytest.approx([0.8])
    assert answer.trend == pytest.approx([0.4])
    assert answer.score == pytest.approx([0.95 * 0.8 + 0.05 * 0.4])
    assert answer.relevance.dtype == answer.score.dtype == answer.trend.dtype == np.float32


def test_a_relevance_that_is_not_a_number_is_none() -> None:
    answer = choose([[np.nan, 0.9]], make_readers(), make_papers([0.4, 0.3]))
    assert answer.paper.tolist() == [1]


def test_of_equal_scores_the_paper_with_more_trend_comes_first() -> None:
    answer = choose([[0.9] * 5], make_readers(counts=[3]), make_papers([0.4] * 5))
    assert answer.paper.tolist() == [0, 1, 2]


def test_of_equal_scores_for_two_interests_the_paper_with_more_trend_comes_first_too() -> None:
    relevance = [[0, 0.9], [0.9, 0]]
    answer = choose(relevance, make_readers(owners=[0, 0]), make_papers([0.4] * 2))
    assert answer.paper.tolist() == [0, 1]


# --- The threshold, and weak days ----------------------------------------------------------------


def test_the_threshold_itself_is_relevant() -> None:
    answer = choose([[0.5, 0.499]], make_readers(), make_papers([0.4, 0.3]))
    assert answer.paper.tolist() == [0]


def test_a_weak_day_brings_a_short_mail() -> None:
    trend = [0.99, 0.98, 0.97, 0.96, 0.95, *descending(5)]
    answer = choose([[0] * 5 + [0.9] + [0] * 4], make_readers(), make_papers(trend))
    assert in_section(answer, Section.LEAD) == [5]
    assert in_section(answer, Section.FOR_YOU) == []
    assert in_section(answer, Section.TRENDING) == [0, 1]  # their places, and not one more


def test_a_day_with_nothing_relevant_brings_no_mail_whatever_is_trending() -> None:
    answer = choose([[0.4] * 3], make_readers(), make_papers([1, 0.9, 0.8]))
    assert answer.paper.tolist() == []


def test_who_asked_for_popular_papers_gets_them_on_a_weak_day_too() -> None:
    readers = make_readers(popularity=[0.5])
    answer = choose([[0.4] * 5], readers, make_papers([1, 0.9, 0.8, 0.7, 0.4]))
    assert in_section(answer, Section.LEAD) == [0]
    assert in_section(answer, Section.TRENDING) == [1, 2]


def test_pins_and_exploration_make_no_mail() -> None:
    papers = make_papers([1, 0.9, 0.8, 0.7], pinned=[3])
    assert choose([[0.1] * 4], make_readers(), papers).paper.tolist() == []


def test_pins_alone_make_no_mail_for_a_reader_without_interests_either() -> None:
    for count in (3, 8):
        papers = make_papers([0.9, 0.8, 0.7], pinned=[0, 1, 2])
        readers = make_readers(owners=[], counts=[count])
        assert choose(NOBODY, readers, papers).paper.tolist() == []


def test_a_pin_that_is_relevant_or_a_must_read_takes_nobody_s_mail_away() -> None:
    papers = make_papers(descending(2), pinned=[1])
    answer = choose([[0, 0.9]], make_readers(), papers)
    assert answer.paper.tolist() == [1]
    assert in_section(answer, Section.PINNED) == [1]
    answer = choose([[0, 0]], make_readers(must=[(0, 1)]), papers)
    assert in_section(answer, Section.PINNED) == [1]


# --- Precedence ----------------------------------------------------------------------------------


def test_an_excluded_paper_never_comes_though_pinned_and_a_must_read() -> None:
    readers = make_readers(excluded=[(0, 0)], must=[(0, 0)])
    answer = choose([[0.9, 0.8]], readers, make_papers([0.9, 0.4], pinned=[0]))
    assert answer.paper.tolist() == [1]


def test_an_exclusion_is_one_reader_s_own() -> None:
    readers = make_readers(owners=[0, 1], counts=[8, 8], excluded=[(0, 0)])
    answer = choose([[0.9, 0.8]] * 2, readers, make_papers([0.4, 0.3]))
    assert answer.reader.tolist() == [0, 1, 1]
    assert answer.paper.tolist() == [1, 0, 1]


def test_many_exclusions_do_not_run_a_shortlist_dry() -> None:
    n = 100
    readers = make_readers(counts=[3], excluded=[(0, paper) for paper in range(n - 3)])
    relevance = np.linspace(1, 0.6, n).tolist()
    answer = choose([relevance], readers, make_papers([0.4] * n))
    assert answer.paper.tolist() == [97, 98, 99]


def test_pins_follow_the_lead_in_the_curators_order_and_take_places() -> None:
    papers = make_papers(descending(6), pinned=[5, 4])
    answer = choose([[0.9, 0.8, 0.7, 0.6, 0, 0]], make_readers(counts=[4]), papers)
    assert answer.paper.tolist() == [0, 5, 4, 1]
    assert answer.section.tolist() == [4, 1, 1, 2]


def test_pins_leave_the_last_place_to_the_reader() -> None:
    papers = make_papers(descending(5), pinned=[4, 3, 2])
    answer = choose([[0.9, 0.8, 0, 0, 0]], make_readers(counts=[3]), papers)
    assert answer.paper.tolist() == [0, 4, 3]


def test_a_relevant_pin_without_a_place_may_be_the_lead() -> None:
    papers = make_papers(descending(5), pinned=[4, 3, 2])
    answer = choose([[0.8, 0, 0.9, 0, 0]], make_readers(counts=[3]), papers)
    assert answer.paper.tolist() == [2, 4, 3]


def test_must_reads_make_a_mail_whatever_the_threshold() -> None:
    readers = make_readers(must=[(0, 1), (0, 2)])
    answer = choose([[0, 0.1, 0.3]], readers, make_papers(descending(3)))
    assert answer.paper.tolist() == [2, 1]
    assert set(answer.section) == {Section.MUST_READ}


def test_a_must_read_said_twice_comes_once() -> None:
    readers = make_readers(must=[(0, 1), (0, 1)])
    answer = choose([[0, 0.9]], readers, make_papers(descending(2)))
    assert answer.paper.tolist() == [1]


def test_pins_go_before_must_reads_and_must_reads_before_what_is_relevant() -> None:
    readers = make_readers(counts=[3], must=[(0, 1), (0, 2), (0, 3)])
    papers = make_papers(descending(5), pinned=[4])
    answer = choose([[1, 0.3, 0.2, 0.1, 0]], readers, papers)
    assert answer.paper.tolist() == [4, 1, 2]
    assert answer.section.tolist() == [1, 5, 5]


def test_a_relevant_pin_or_must_read_appears_once_in_its_own_section() -> None:
    readers = make_readers(must=[(0, 1)])
    papers = make_papers(descending(3), pinned=[0])
    answer = choose([[0.9, 0.8, 0.7]], readers, papers)
    assert answer.paper.tolist() == [2, 0, 1]
    assert answer.section.tolist() == [4, 1, 5]
    assert answer.interest.tolist() == [0, 0, 0]


# --- For the reader ------------------------------------------------------------------------------


def test_the_lead_is_the_best_score() -> None:
    answer = choose([[0.6, 0.9, 0.7]], make_readers(), make_papers(descending(3)))
    assert in_section(answer, Section.LEAD) == [1]
    assert answer.paper.tolist() == [1, 2, 0]


def test_the_lead_goes_by_its_score_though_it_is_like_a_pin() -> None:
    papers = make_papers(descending(3), pinned=[2], alike=[(0, 2, 0.8)])
    answer = choose([[0.8, 0.75, 0]], make_readers(), papers)
    assert in_section(answer, Section.LEAD) == [0]


def test_papers_of_one_interest_stand_together_the_lead_s_first() -> None:
    relevance = [[0, 0.8, 0, 0.7], [0.9, 0, 0.75, 0]]
    answer = choose(relevance, make_readers(owners=[0, 0]), make_papers([0.4] * 4))
    assert answer.paper.tolist() == [0, 2, 1, 3]
    assert answer.interest.tolist() == [1, 1, 0, 0]


def test_a_broad_interest_does_not_take_the_places_of_a_narrow_one() -> None:
    broad = [0.9] * 10 + [0] * 2
    narrow = [0.0] * 10 + [0.6] * 2
    readers = make_readers(owners=[0, 0], counts=[4], popularity=[0])
    answer = choose([broad, narrow], readers, make_papers([0.4] * 12))
    assert sorted(answer.paper.tolist()) == [0, 1, 10, 11]


def test_what_an_interest_leaves_of_its_share_goes_to_the_best_scores() -> None:
    broad = [0.9] * 10 + [0]
    narrow = [0.0] * 10 + [0.6]
    readers = make_readers(owners=[0, 0], counts=[4], popularity=[0])
    answer = choose([broad, narrow], readers, make_papers([0.4] * 11))
    assert sorted(answer.paper.tolist()) == [0, 1, 2, 10]


def test_an_interest_without_papers_has_no_share() -> None:
    readers = make_readers(owners=[0, 0], counts=[4], popularity=[0])
    answer = choose([[0.9] * 5, [0.0] * 5], readers, make_papers([0.4] * 5))
    assert len(answer.paper) == 4


def test_with_more_interests_than_places_none_gets_a_second_place() -> None:
    relevance = np.zeros((5, 10))
    for interest in range(5):
        relevance[interest, 2 * interest : 2 * interest + 2] = 0.95 - 0.08 * interest
    readers = make_readers(owners=[0] * 5, counts=[3], popularity=[0])
    answer = choose(relevance.tolist(), readers, make_papers([0.4] * 10))
    assert answer.interest.tolist() == [0, 1, 2]


def test_an_interest_stated_twice_is_the_first_of_the_two() -> None:
    answer = choose([[0.9] * 4] * 2, make_readers(owners=[0, 0]), make_papers(descending(4)))
    assert answer.paper.tolist() == [0, 1, 2, 3]
    assert answer.interest.tolist() == [0, 0, 0, 0]


def test_an_interest_stated_twice_has_one_share() -> None:
    broad, narrow = [0.9] * 10 + [0] * 3, [0.0] * 10 + [0.6] * 3
    readers = make_readers(owners=[0] * 3, counts=[4], popularity=[0])
    answer = choose([broad, broad, narrow], readers, make_papers([0.4] * 13))
    assert sorted(answer.paper.tolist()) == [0, 1, 10, 11]


def test_a_paper_without_a_text_is_like_nothing_and_comes_once_all_the_same() -> None:
    papers = make_papers([0.9, 0.8, 0.4], alike=[(0, 0, 0), (1, 1, 0), (2, 2, 0)])
    answer = choose([[0.6, 0, 0.9]], make_readers(), papers)
    assert sorted(answer.paper.tolist()) == [0, 1, 2]


def test_of_papers_nearly_as_good_the_one_unlike_the_lead_comes_second() -> None:
    papers = make_papers([0.4] * 3, alike=[(0, 1, 0.8)])
    answer = choose([[0.9, 0.85, 0.8]], make_readers(), papers)
    assert answer.paper.tolist() == [0, 2, 1]


def test_a_near_duplicate_of_a_better_paper_is_folded_away() -> None:
    papers = make_papers([0.4] * 3, alike=[(0, 1, DUPLICATE)])
    assert choose([[0.9, 0.85, 0.8]], make_readers(), papers).paper.tolist() == [0, 2]


def test_pins_stay_though_alike_and_what_is_like_them_is_folded_away() -> None:
    alike = [(0, 1, 0.95), (0, 2, 0.95), (1, 3, 0.95)]
    papers = make_papers(descending(5), pinned=[0, 1], alike=alike)
    answer = choose([[0, 0, 0.9, 0, 0.8]], make_readers(must=[(0, 3)]), papers)
    assert answer.paper.tolist() == [4, 0, 1]


def test_a_must_read_stays_and_its_duplicate_goes_though_more_relevant() -> None:
    papers = make_papers(descending(2), alike=[(0, 1, 0.95)])
    answer = choose([[0.9, 0.1]], make_readers(must=[(0, 1)]), papers)
    assert answer.paper.tolist() == [1]


# --- Trending ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("popularity", "places"), [(0, 1), (0.2, 2), (0.5, 3), (1, 6)])
def test_popularity_gives_places_to_what_is_trending(popularity: float, places: int) -> None:
    relevance = [[0.0] * 10 + [0.9] * 10]
    trend = np.linspace(1, 0.6, 20).tolist()
    answer = choose(relevance, make_readers(popularity=[popularity]), make_papers(trend))
    assert in_section(answer, Section.TRENDING) == list(range(places))
    assert len(answer.paper) == 8


def test_what_is_trending_comes_from_the_reader_s_fields() -> None:
    papers = make_papers(
        [0.9, 0.8, 0.7, 0.4], fields=[[True, False], [False, True], [True, True], [False, False]]
    )
    readers = make_readers(counts=[4], fields=[[False, True]])
    assert in_section(choose([[0, 0, 0, 0.9]], readers, papers), Section.TRENDING) == [1]
    readers = make_readers(counts=[4], fields=[[False, False]])
    assert in_section(choose([[0, 0, 0, 0.9]], readers, papers), Section.TRENDING) == [0]


def test_a_neutral_trend_is_not_trending_for_a_reader_with_interests() -> None:
    papers = make_papers([0.51, 0.5, 0.4])
    assert in_section(choose([[0, 0, 0.9]], make_readers(), papers), Section.TRENDING) == [0]


def test_places_that_trending_leaves_empty_are_for_the_reader() -> None:
    answer = choose([[0.9] * 10], make_readers(), make_papers(descending(10)))
    assert len(in_section(answer, Section.FOR_YOU)) == 7


def test_a_reader_without_interests_gets_the_trending_order_without_a_threshold() -> None:
    answer = choose(NOBODY, make_readers(owners=[], counts=[3]), make_papers(descending(5)))
    assert answer.paper.tolist() == [0, 1, 2]
    assert answer.section.tolist() == [Section.LEAD, Section.TRENDING, Section.TRENDING]
    assert answer.interest.tolist() == [-1, -1, -1]
    assert answer.relevance.tolist() == [0, 0, 0]


def test_a_reader_without_interests_gets_no_two_papers_of_one_piece_of_news() -> None:
    papers = make_papers([0.9, 0.8, 0.79, 0.3], alike=[(0, 3, 0.95), (0, 1, 0.8)])
    answer = choose(NOBODY, make_readers(owners=[]), papers)
    assert answer.paper.tolist() == [0, 2, 1]


# --- Exploring -----------------------------------------------------------------------------------

STRONG = np.linspace(1, 0.6, 40).tolist()
ONE_RELEVANT = [[0.0] * 39 + [0.9]]


def test_one_strong_paper_that_fits_no_interest_is_explored() -> None:
    answer = choose(ONE_RELEVANT, make_readers(), make_papers(STRONG))
    [explored] = in_section(answer, Section.EXPLORE)
    assert 2 <= explored < 10  # of the first quarter, after the two that are trending
    assert answer.section[-1] == Section.EXPLORE
    assert answer.interest[-1] == -1


def test_the_seed_decides_what_is_explored() -> None:
    def explored(seed: int) -> int:
        answer = choose(ONE_RELEVANT, make_readers(seeds=[seed]), make_papers(STRONG))
        [paper] = in_section(answer, Section.EXPLORE)
        return paper

    assert {explored(seed) for seed in range(8)} == set(range(2, 10))
    assert explored(2**64 - 1) == explored(2**64 - 1)


def test_a_short_mail_has_no_room_to_explore() -> None:
    answer = choose(ONE_RELEVANT, make_readers(counts=[4]), make_papers(STRONG))
    assert in_section(answer, Section.EXPLORE) == []


def test_neither_a_relevant_paper_nor_a_near_duplicate_is_explored() -> None:
    # Of the first quarter, 0 and 1 are trending; what is left is relevant, or like the lead.
    relevance = [[0.0] * 2 + [0.6] * 4 + [0.0] * 4 + [0.0] * 29 + [0.9]]
    papers = make_papers(STRONG, alike=[(paper, 39, 0.95) for paper in range(6, 10)])
    for seed in range(5):
        answer = choose(relevance, make_readers(seeds=[seed]), papers)
        assert in_section(answer, Section.EXPLORE) == []


# --- Blocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("r", "n"), [(0, 0), (0, 3), (1, 0)])
def test_without_readers_or_papers_nothing_is_chosen(r: int, n: int) -> None:
    answer = choose(NOBODY, make_readers(owners=[], counts=[8] * r), make_papers([0.4] * n))
    for name in Selections.__slots__:
        assert getattr(answer, name).shape == (0,)


def test_one_paper_is_a_mail_for_one_reader() -> None:
    answer = choose(NOBODY, make_readers(owners=[]), make_papers([0.1]))
    assert answer.section.tolist() == [Section.LEAD]


class Day:
    """A random block: few distinct numbers, so that ties, duplicates and gaps are common."""

    def __init__(self, seed: int, r: int, n: int, f: int) -> None:
        rng = np.random.default_rng(seed)
        owners = np.sort(rng.integers(0, max(r, 1), rng.integers(0, 3 * r + 1)))
        self.relevance = rng.choice(
            floats([0, 0.3, 0.5, 0.7, 0.71, 1, np.nan]), size=(len(owners), n)
        )
        similarity = rng.choice(floats([-0.2, 0, 0.5, 0.89, 0.95]), size=(n, n))
        similarity = np.triu(similarity, 1) + np.triu(similarity, 1).T
        np.fill_diagonal(similarity, 1)
        self.readers = Readers(
            owners=owners.astype(np.intp),
            counts=rng.integers(3, 21, r),
            popularity=rng.choice(floats([0, 0.2, 0.5, 1]), r),
            seeds=rng.integers(0, 2**64 - 1, r, dtype=np.uint64, endpoint=True),
            excluded=self.some_pairs(rng, r, n),
            must=self.some_pairs(rng, r, n),
            fields=rng.random((r, f)) < 0.3,
        )
        self.papers = Papers(
            trend=np.sort(rng.choice(floats([0, 0.3, 0.5, 0.6, 0.9, 1]), n))[::-1],
            pinned=rng.permutation(n)[: rng.integers(0, 4)],
            similarity=similarity.astype(np.float32),
            fields=rng.random((n, f)) < 0.5,
        )

    @staticmethod
    def some_pairs(rng: np.random.Generator, r: int, n: int) -> NDArray[np.intp]:
        size = int(rng.integers(0, 2 * r + 1)) if n else 0
        return np.stack(
            [rng.integers(0, max(r, 1), size), rng.integers(0, max(n, 1), size)], axis=1
        )

    def select(self) -> Selections:
        return select(self.relevance, self.readers, self.papers, threshold=THRESHOLD)

    def select_alone(self, reader: int) -> Selections:
        """The same reader in a block of one."""
        everybody = self.readers
        own = everybody.owners == reader

        def own_pairs(both: NDArray[np.intp]) -> NDArray[np.intp]:
            return pairs([(0, int(paper)) for paper in both[both[:, 0] == reader, 1]])

        alone = Readers(
            owners=np.zeros(own.sum(), dtype=np.intp),
            counts=everybody.counts[[reader]],
            popularity=everybody.popularity[[reader]],
            seeds=everybody.seeds[[reader]],
            excluded=own_pairs(everybody.excluded),
            must=own_pairs(everybody.must),
            fields=everybody.fields[[reader]],
        )
        return select(self.relevance[own], alone, self.papers, threshold=THRESHOLD)


days = st.builds(
    Day, st.integers(0, 2**32), st.integers(0, 8), st.integers(0, 60), st.integers(0, 3)
)


@settings(deadline=None)
@given(days)
def test_any_mail_keeps_the_rules(day: Day) -> None:
    answer = day.select()
    excluded = {tuple(pair) for pair in day.readers.excluded.tolist()}
    assert answer.reader.tolist() == sorted(answer.reader.tolist())
    assert excluded.isdisjoint(zip(answer.reader.tolist(), answer.paper.tolist(), strict=True))
    assert np.isfinite(answer.score).all()
    for reader in set(answer.reader.tolist()):
        mine = answer.reader == reader
        papers, sections = answer.paper[mine], answer.section[mine].tolist()
        assert len(papers) <= day.readers.counts[reader]
        assert len(set(papers.tolist())) == len(papers)
        assert sections.count(Section.LEAD) <= 1
        assert sections.count(Section.EXPLORE) <= 1
        assert Section.LEAD not in sections[1:]
        for_you = answer.section[mine] == Section.FOR_YOU
        assert (answer.relevance[mine][for_you] >= THRESHOLD).all()
        assert (answer.interest[mine][for_you] >= 0).all()
        alike = day.papers.similarity[np.ix_(papers, papers)] >= DUPLICATE
        pins = answer.section[mine] == Section.PINNED
        alike[np.ix_(pins, pins)] = False
        np.fill_diagonal(alike, False)
        assert not alike.any()


@settings(deadline=None)
@given(days)
def test_a_selection_is_the_same_every_time(day: Day) -> None:
    one, other = day.select(), day.select()
    for name in Selections.__slots__:
        assert np.array_equal(getattr(one, name), getattr(other, name))


@settings(deadline=None)
@given(days)
def test_a_reader_gets_in_a_block_what_they_would_get_alone(day: Day) -> None:
    block = day.select()
    for reader in range(len(day.readers.counts)):
        alone, mine = day.select_alone(reader), block.reader == reader
        assert block.paper[mine].tolist() == alone.paper.tolist()
        assert block.section[mine].tolist() == alone.section.tolist()
        assert block.score[mine].tolist() == alone.score.tolist()
        first = int(np.searchsorted(day.readers.owners, reader))
        rows = np.where(block.interest[mine] >= 0, block.interest[mine] - first, -1)
        assert rows.tolist() == alone.interest.tolist()


@settings(deadline=None)
@given(days)
def test_choosing_changes_nothing_it_was_given(day: Day) -> None:
    before = day.relevance.copy()
    alike = day.papers.similarity.copy()
    day.select()
    assert np.array_equal(before, day.relevance, equal_nan=True)
    assert np.array_equal(alike, day.papers.similarity)
