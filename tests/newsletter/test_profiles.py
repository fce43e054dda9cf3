"""What a text says: terms and names, whatever it is made of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsletter.recommender.profiles import (
    SparseView,
    author_key,
    spelled,
    terms,
)
from papers.abstracts import LONGEST_TEXT

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

# --- Terms ----------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("text", "term", "spelling"),
    [
        ("Graph Neural Networks", "network", "Networks"),
        ("Graph Neural Networks", "neural network", "Neural Networks"),
        ("robots that grasp", "robot grasp", "robots that grasp"),
        ("the self-attention of\n a model", "self-attention model", "self-attention of a model"),
        ("LLMs and llms", "llm", "LLMs"),
    ],
)
def test_a_term_is_spelled_as_the_text_has_it(text: str, term: str, spelling: str) -> None:
    assert spelled(text)[term] == spelling


@given(st.text())
def test_every_term_of_a_text_has_its_spelling(text: str) -> None:
    assert set(terms(text)) == set(spelled(text))


# --- Names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Alan Turing", "alan TURING"),
        ("Turing, Alan", "Alan Turing"),
        ("José Núñez", "Jose Nunez"),
        ("Jean-Luc Picard", "Jean Luc Picard"),
        ("A. M. Turing", "A M Turing"),
        ("Alan  Turing ", " Alan Turing"),
        ("Straße, Anna", "Anna Strasse"),
    ],
)
def test_spellings_of_one_name_are_one(one: str, other: str) -> None:
    assert author_key(one) == author_key(other)


@pytest.mark.parametrize("other", ["A. Turing", "Turing", "Alan Turing Smith", "", "Alan, Turing,"])
def test_another_name_is_another_author(other: str) -> None:
    assert author_key(other) != author_key("Alan Turing")


def test_a_name_of_another_script_stays_itself() -> None:
    assert author_key("王小明") == "王小明"
    assert author_key("Иван Петров") == "иван петров"


# --- The sparse view ------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS.keys())
def test_an_odd_text_is_a_unit_row_or_zeros(text: str) -> None:
    row = SparseView().fit(PAPERS).transform([text]).toarray()[0]
    assert np.isfinite(row).all()
    assert np.linalg.norm(row) == pytest.approx(1) or not row.any()


@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS.keys())
def test_an_archive_of_odd_texts_is_fitted_all_the_same(text: str) -> None:
    rows = SparseView().fit([text]).transform(["robot", text])
    assert rows.dtype == np.float32
    assert np.isfinite(rows.toarray()).all()


def test_without_texts_there_are_no_rows() -> None:
    view = SparseView().fit([])
    assert not view.transform(["robot"]).toarray().any()
    assert view.transform([]).shape == (0, len(view.terms_))


def test_a_second_fit_forgets_the_first() -> None:
    view = SparseView().fit(PAPERS).fit(["Galaxies and stars"])
    assert not view.transform(["robot manipulation"]).toarray().any()


def test_the_vocabulary_has_a_limit() -> None:
    assert len(SparseView(max_terms=5).fit(PAPERS).terms_) == 5


def test_a_text_is_nearest_to_the_paper_it_describes() -> None:
    view = SparseView().fit(PAPERS)
    wishes = ["long video diffusion", "robots that manipulate", "molecule graphs", "attention"]
    cosines = (view.transform(wishes) @ view.transform(PAPERS).T).toarray()
    assert cosines.argmax(axis=1).tolist() == [0, 1, 2, 3]


def test_a_restored_view_sees_the_same() -> None:
    view = SparseView().fit(PAPERS)
    again = SparseView().restore(view.terms_.tolist(), view.weights_)
    texts = [*PAPERS, "robots in a graph", ""]
    assert again.terms_.tolist() == view.terms_.tolist()
    assert np.array_equal(again.transform(texts).toarray(), view.transform(texts).toarray())
    assert np.array_equal(again.weights_, view.weights_)


def test_unordered_words_make_no_pairs() -> None:
    view = SparseView(pairs=False).fit(PAPERS)
    assert not [term for term in view.terms_ if " " in term]
    one, other = view.transform(["graph neural network", "network graph neural"]).toarray()
    assert np.array_equal(one, other)


def test_shared_terms_are_the_weightiest_without_the_parts_of_pairs() -> None:
    view = SparseView().fit(PAPERS)
    [shared] = view.shared_terms(
        view.transform(["graph neural networks, robots"]), view.transform([PAPERS[2]])
    )
    assert 1 <= len(shared) <= 3
    assert " " in shared[0]
    words = " ".join(shared).split()
    assert set(words) == {"graph", "neural", "network"}
    assert len(words) == len(set(words))


def test_shared_terms_are_of_each_pair_by_itself() -> None:
    view = SparseView().fit(PAPERS)
    shared = view.shared_terms(
        view.transform(["robot", "video", "🤖"]), view.transform([PAPERS[0], PAPERS[0], PAPERS[1]])
    )
    assert shared == [[], ["video"], []]
    assert view.shared_terms(view.transform([]), view.transform([])) == []
