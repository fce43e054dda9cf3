"""An abstract's sentences, and the one that tells what the paper does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papers.abstracts import LONGEST_KEY, MAX_SENTENCES, key_sentence, sentences


@pytest.mark.parametrize(
    "whole",
    [
        "We follow Vaswani et al. Their model is linear.",
        "Many models, e.g. Transformers, are slow.",
        "That is, i.e. Attention, is costly.",
        "See Fig. 2 for the results.",
        "By Eq. 3 the loss falls.",
        "Figs. 2 and 3 and Eqs. 4 show it.",
        "The gradient w.r.t. A is zero.",
        "As Sec. 3 and Dr. Who say.",
        "It takes approx. 3 hours, resp. 4 days.",
        "In Symphony No. 9 it is heard.",
        "Cats vs. Dogs is solved.",
        "It was proved by A. Turing in Cambridge.",
        "It is faster by 3.5 times than v2.0 of it.",
        "We ask: is it so?no space follows.",
        "Accuracy rises by 2.4. percent in all.",
        "no full stop at all",
        "我们研究图神经网络。它们很快。",
    ],
)
def test_a_full_stop_that_ends_nothing_splits_nothing(whole: str) -> None:
    assert sentences(whole) == [whole]


def test_sentences_end_at_their_marks_and_keep_them() -> None:
    text = 'Is it so? It is! "Yes." (Indeed.) Éclairs are sweet. 2 of 3 agree. "So do I."'
    assert sentences(text) == [
        "Is it so?",
        "It is!",
        '"Yes."',
        "(Indeed.)",
        "Éclairs are sweet.",
        "2 of 3 agree.",
        '"So do I."',
    ]


def test_an_answer_is_a_sentence() -> None:
    assert sentences("Is it so? No. It is not.") == ["Is it so?", "No.", "It is not."]


def test_lines_are_no_sentences() -> None:
    assert sentences("One sentence\nin two\n lines. Another.") == [
        "One sentence in two lines.",
        "Another.",
    ]


@pytest.mark.parametrize("text", ["", "  \n "])
def test_an_empty_abstract_has_none(text: str) -> None:
    assert sentences(text) == []


def test_of_too_many_the_last_one_holds_the_rest() -> None:
    found = sentences("It is so. " * 100)
    assert len(found) == MAX_SENTENCES
    assert found[0] == "It is so."
    assert found[-1].count("It is so.") == 100 - (MAX_SENTENCES - 1)


@given(st.text(alphabet=st.sampled_from('Aa.!? \n"(é论1'), max_size=200))
def test_no_word_of_an_abstract_is_lost(text: str) -> None:
    found = sentences(text)
    assert all(found)
    assert " ".join(found).split() == text.split()


BACKGROUND = "Attention is slow."
TELLING = "We propose a way to skip most of it."


@pytest.mark.parametrize(
    ("abstract", "key"),
    [
        (f"{BACKGROUND} {TELLING} It is fast.", TELLING),
        (f"{BACKGROUND} Our code is public. {TELLING}", TELLING),
        (f"{BACKGROUND} This paper then introduces a cure.", "This paper then introduces a cure."),
        (f"{BACKGROUND} It is fast on our data.", "It is fast on our data."),
        (f"{BACKGROUND} Nobody knows why.", BACKGROUND),
        ("", ""),
    ],
)
def test_the_key_sentence_is_what_the_authors_say_they_did(abstract: str, key: str) -> None:
    assert key_sentence(abstract) == key


@given(st.text(max_size=2000))
def test_a_key_sentence_is_never_longer_than_its_room(text: str) -> None:
    assert len(key_sentence(text)) <= LONGEST_KEY
