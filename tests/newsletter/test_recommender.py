"""The recommender: arrays in, arrays out, whatever texts they came from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from newsletter.models import Delivery
from newsletter.recommender.profiles import LONGEST_TEXT, SparseView, terms
from newsletter.recommender.ranking import CATEGORY_SHARE, best_of, category_bonus, relevance
from newsletter.recommender.selection import RELEVANT, TRENDING_PLACES, Section, Selection, select

PAPERS = [
    "Video diffusion transformers for long clips",
    "Robot manipulation learned from few demonstrations",
    "Graph neural networks for molecules",
    "Linear attention in near-linear time",
]
ODD_TEXTS = {
    "empty": "",
    "blank": " \n\t ",
    "emoji": "🤖🔥👩‍🔬",
    "stop words only": "and or the of with",
    "ten thousand words": "robot diffusion " * 5_000,
    "one endless word": "x" * 100_000,
    "another language": "Сверточные нейронные сети для обработки изображений",
    "without spaces": "机器人操作与视频扩散模型",
    "right to left": "تعلم الآلة والروبوتات",
    "controls": "robot\x00\x0b\u2028diffusion",
    "punctuation": "--- ___ ... -a- _b_",
}


def floats(*values: float) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def indices(*values: int) -> NDArray[np.intp]:
    return np.array(values, dtype=np.intp)


# --- Texts ----------------------------------------------------------------------------------------


def test_terms_are_words_and_pairs_in_lower_case_and_singular() -> None:
    assert terms("Graph Neural Networks") == [
        "graph",
        "neural",
        "network",
        "graph neural",
        "neural network",
    ]


@pytest.mark.parametrize("word", ["bias", "analysis", "loss", "corpus", "gas", "has"])
def test_a_word_that_only_looks_like_a_plural_stays_itself(word: str) -> None:
    assert terms(word)[:1] in ([word], [])


def test_hyphenated_words_stay_whole_and_stop_words_go() -> None:
    assert terms("the self-attention of a model") == [
        "self-attention",
        "model",
        "self-attention model",
    ]


def test_one_reader_s_endless_text_cannot_stall_a_run() -> None:
    assert terms("a" * (3 * LONGEST_TEXT)) == ["a" * LONGEST_TEXT]


@given(st.text())
def test_any_text_has_terms_or_none_but_no_error(text: str) -> None:
    assert all(term == term.strip() and term for term in terms(text))


@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS.keys())
def test_an_odd_interest_is_a_unit_row_or_zeros(text: str) -> None:
    view = SparseView().fit(PAPERS)
    row = view.transform([text]).toarray()[0]
    assert np.isfinite(row).all()
    assert np.linalg.norm(row) == pytest.approx(1) or not row.any()
    assert np.isfinite(relevance(view.transform([text]), view.transform(PAPERS))).all()


@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS.keys())
def test_a_pool_of_odd_texts_is_fitted_all_the_same(text: str) -> None:
    view = SparseView().fit([text])
    scores = relevance(view.transform(["robot", text]), view.transform([text]))
    assert scores.shape == (2, 1)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()


def test_a_pool_without_texts_is_fitted_too() -> None:
    view = SparseView().fit([])
    assert view.transform(["robot"]).toarray().any() is np.False_
    assert relevance(view.transform(["robot"]), view.transform([])).shape == (1, 0)


def test_a_second_fit_forgets_the_first() -> None:
    view = SparseView().fit(PAPERS).fit(["Galaxies and stars"])
    assert not view.transform(["robot manipulation"]).toarray().any()


def test_the_vocabulary_has_a_limit() -> None:
    assert len(SparseView(max_terms=5).fit(PAPERS).terms_) == 5


def test_an_interest_is_nearest_to_the_paper_it_describes() -> None:
    view = SparseView().fit(PAPERS)
    wishes = ["long video diffusion", "robots that manipulate", "molecule graphs", "attention"]
    scores = relevance(view.transform(wishes), view.transform(PAPERS))
    assert scores.argmax(axis=1).tolist() == [0, 1, 2, 3]
    assert scores.min() >= 0
    assert scores.max() <= 1 + 1e-6


def test_shared_terms_are_the_weightiest_without_the_parts_of_pairs() -> None:
    view = SparseView().fit(PAPERS)
    [wish, paper] = view.transform(["graph neural networks, robots", PAPERS[2]])
    shared = view.shared_terms(wish, paper)
    assert 1 <= len(shared) <= 3
    words = " ".join(shared).split()
    assert set(words) == {"graph", "neural", "network"}
    assert len(words) == len(set(words))


def test_texts_with_nothing_in_common_share_no_terms() -> None:
    view = SparseView().fit(PAPERS)
    [wish, paper] = view.transform(["robot", PAPERS[0]])
    assert view.shared_terms(wish, paper) == []


# --- Scores ---------------------------------------------------------------------------------------


def test_a_shared_category_adds_its_share_once() -> None:
    bonus = category_bonus(
        [["cs.CL"], ["cs.CL", "cs.LG"], [], ["no.such"]], [["cs.CL", "cs.LG"], ["math.ST"], []]
    )
    share = pytest.approx(CATEGORY_SHARE)
    assert bonus.tolist() == [[share, 0, 0], [share, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_without_interests_or_papers_there_is_an_empty_bonus() -> None:
    assert category_bonus([], [["cs.CL"]]).shape == (0, 1)
    assert category_bonus([["cs.CL"]], []).shape == (1, 0)


def test_a_reader_s_relevance_is_that_of_the_best_interest() -> None:
    scores = np.array([[0.1, 0.5], [0.3, 0.2], [0.4, 0.0]], dtype=np.float32)
    best, winner = best_of(scores, indices(0, 0, 2), 3)
    assert best == pytest.approx(np.array([[0.3, 0.5], [0, 0], [0.4, 0]]))
    assert winner.tolist() == [[1, 0], [-1, -1], [2, -1]]


# --- Selection ------------------------------------------------------------------------------------


def select_from(
    relevance: NDArray[np.float32], trend: NDArray[np.float32], count: int, *pinned: int
) -> Selection:
    return select(relevance, trend, indices(*pinned), count)


def in_section(choice: Selection, section: Section) -> list[int]:
    return [int(p) for p in choice.papers[choice.sections == section]]


def test_a_reader_without_interests_gets_the_trending_order() -> None:
    choice = select_from(floats(0, 0, 0, 0), floats(0.2, 0.9, 0.5, 0.1), 3)
    assert choice.papers.tolist() == [1, 2, 0]
    assert set(choice.sections) == {Section.TRENDING}


def test_pinned_papers_come_first_in_the_curators_order_and_take_places() -> None:
    choice = select_from(floats(0.9, 0.8, 0.7, 0.6, 0), floats(1, 0.8, 0.6, 0.4, 0.2), 4, 4, 2)
    assert choice.papers[:2].tolist() == [4, 2]
    assert in_section(choice, Section.PINNED) == [4, 2]
    assert len(choice.papers) == 4


def test_more_pins_than_places_fill_the_mail() -> None:
    choice = select_from(floats(*[0] * 6), floats(*[0.5] * 6), 3, 5, 4, 3, 2, 1)
    assert choice.papers.tolist() == [5, 4, 3]


def test_places_are_kept_for_what_is_trending() -> None:
    choice = select_from(floats(*[0.9] * 9, 0), floats(*[0.1] * 9, 1), 5)
    assert len(in_section(choice, Section.FOR_YOU)) == 5 - TRENDING_PLACES
    assert 9 in in_section(choice, Section.TRENDING)


def test_where_little_is_relevant_trending_fills_the_mail() -> None:
    choice = select_from(floats(0, 0, 0.9, 0, 0), floats(0.9, 0.8, 0.1, 0.7, 0.6), 4)
    assert choice.papers.tolist() == [2, 0, 1, 3]


def test_words_in_common_by_chance_are_not_relevance() -> None:
    choice = select_from(floats(RELEVANT * 0.9, 0, 0), floats(0.1, 0.5, 0.4), 3)
    assert in_section(choice, Section.FOR_YOU) == []


def test_of_two_papers_as_relevant_the_one_with_more_trend_comes_first() -> None:
    choice = select_from(floats(0.5, 0.5, 0), floats(0.1, 0.9, 0), 3)
    assert choice.papers[0] == 1


def test_an_empty_pool_gives_an_empty_selection() -> None:
    choice = select_from(floats(), floats(), 8)
    assert choice.papers.shape == (0,)
    assert choice.sections.shape == (0,)
    assert choice.terms.shape == (0, 3)


unit = st.floats(0, 1, width=32)


@settings(deadline=None)
@given(st.data(), st.integers(0, 30), st.integers(3, 20))
def test_a_selection_is_full_without_repeats_and_says_its_terms(
    data: st.DataObject, n: int, count: int
) -> None:
    relevant = data.draw(arrays.arrays(np.float32, n, elements=unit))
    trend = data.draw(arrays.arrays(np.float32, n, elements=unit))
    pins = data.draw(st.permutations(range(n)))[: data.draw(st.integers(0, n))]
    choice = select(relevant, trend, indices(*pins), count)
    assert len(choice.papers) == min(n, count)
    assert len(set(choice.papers.tolist())) == len(choice.papers)
    assert choice.papers[: len(pins)].tolist() == pins[:count]
    assert choice.sections.tolist() == sorted(choice.sections.tolist())
    assert choice.terms.shape == (len(choice.papers), 3)
    assert np.isfinite(choice.terms).all()
    assert choice.terms[:, 0] == pytest.approx(relevant[choice.papers])
    assert choice.terms[:, 1] == pytest.approx(trend[choice.papers])


def test_the_recommenders_sections_are_those_of_the_ledger() -> None:
    assert {section.value: section.name for section in Section} == {
        section.value: section.name for section in Delivery.Section
    }
