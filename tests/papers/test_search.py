"""One box: words and meaning fused, filters, identifiers, and typos that still find."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from django.db import connection
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django import Settings

from papers import search as module
from papers import tasks
from papers.embeddings import encode_pending
from papers.models import Paper, SearchText, SearchWord
from papers.search import (
    MOST_SPELLINGS,
    MOST_WORDS,
    Asked,
    Candidate,
    Filters,
    count_words,
    order,
    search,
    similar,
    slips,
    understand,
)
from tests.factories import make_paper
from tests.papers.tiny_encoder import write_encoder

pytestmark = pytest.mark.django_db


def titles(query: str, filters: Filters | None = None, **options: int) -> list[str]:
    found = search(query, filters or Filters(), **options)
    return [paper.title for paper in found.papers]


# --- Words ----------------------------------------------------------------------------------------


def test_a_paper_is_found_by_any_word_of_its_title_authors_and_abstract() -> None:
    make_paper("Sparse graphs", abstract="We study magnets.", authors=["Ada Alvarez"])
    make_paper("Dense galaxies", abstract="Nothing about the other.", authors=["Bo Berg"])
    for query in ("graph", "magnet", "alvarez", "GRAPHS"):
        assert titles(query) == ["Sparse graphs"]
    assert set(titles("graphs galaxy")) == {"Sparse graphs", "Dense galaxies"}


def test_neither_keywords_nor_summaries_are_searched() -> None:
    make_paper("Sparse graphs", keywords=["quarks"], summary="All about quarks.")
    assert titles("quarks") == []


def test_a_rare_word_counts_more_than_a_frequent_one() -> None:
    make_paper("The quark", abstract="One.")
    for number in range(9):
        make_paper(f"The graph {number}", abstract="Graph after graph.")
    count_words()
    assert titles("graph quark")[0] == "The quark"


def test_words_that_stand_together_in_the_query_count_more_where_they_stand_together() -> None:
    make_paper("One", abstract="Learning of deep things. Reinforcement of concrete.")
    make_paper("Two", abstract="Reinforcement learning of things.")
    make_paper("Three", abstract="Learning of steel things. Reinforcement of concrete.")
    assert titles("reinforcement learning")[0] == "Two"


def test_an_exact_title_comes_first() -> None:
    make_paper("Attention", abstract="A thing.")
    make_paper("Attention, attention, attention", abstract="Attention! " * 9)
    assert titles("attention")[0] == "Attention"


@pytest.mark.parametrize(
    ("title", "query"),
    [
        ("On a conjecture of Erdős and Rényi", "erdos renyi"),
        ("Łódź at night", "lodz"),
        ("Lodz by day", "Łódź"),
        ("GPT-4 is here", "gpt 4"),
        ("GPT 4 is here", "GPT-4"),
        ("Low–rank adapters", "low-rank"),
        ("Fast/slow networks", "slow"),
        ("For p<0.05 and q>3 only", "only q"),
        ("β-VAE again", "β vae"),
        ("Ends here.Begins there", "begins"),
        ("Qwen2.5 reports", "qwen2.5"),
        ("The ﬁne structure", "fine"),
    ],
)
def test_accents_hyphens_signs_and_numbers_are_spelled_either_way(title: str, query: str) -> None:
    make_paper(title, abstract="")
    make_paper("Something else", abstract="")
    assert titles(query) == [title]


def test_a_phrase_must_be_there_and_an_excluded_word_must_not() -> None:
    make_paper("One", abstract="The chain of thought is long.")
    make_paper("Two", abstract="A thought about a chain of islands.")
    make_paper("Three", abstract="The chain of thought in mathematics.")
    assert set(titles('"chain of thought"')) == {"One", "Three"}
    assert set(titles("chain -mathematics")) == {"One", "Two"}
    assert titles('chain -"chain of thought"') == ["Two"]
    assert titles("“chain of thought” -mathematics") == ["One"]
    assert set(titles("-mathematics")) == {"One", "Two"}


def test_stop_words_and_signs_alone_find_nothing() -> None:
    make_paper("The graph")
    assert titles("the") == titles("?!") == titles("''") == titles("& | !") == []


@given(st.text(max_size=60) | st.text("ab \"'-&|!():*<>\\\0\ud800😀ő", max_size=30))
@hypothesis_settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_text_is_an_error(query: str) -> None:
    search(query)
    search("graph", Filters(category=query, author=query))


@pytest.mark.parametrize(
    "query", ["a" * 10_000, "graph " * 2_000, '"' * 5_000, "-a " * 3_000, "é" * 9_999]
)
def test_a_very_long_query_is_cut_and_answered(query: str) -> None:
    make_paper("A graph")
    search(query)


# --- What a query may cost ------------------------------------------------------------------------


def test_a_query_that_repeats_itself_costs_no_more_than_its_words() -> None:
    once, often = understand("ai ml ai"), understand("ai ml " * 170)
    assert len(often.words) == 2
    assert [pair.tsquery for pair in often.pairs] == ["'ai' <1> 'ml'", "'ml' <1> 'ai'"]
    assert module._said(often)[0].count("ts_rank") == module._said(once)[0].count("ts_rank")
    pasted = " ".join(f"w{a}x w{b}x" for a in range(12) for b in range(12))
    asked = understand(pasted)
    assert len(asked.words) == 12
    assert len(asked.pairs) == MOST_WORDS


def test_of_many_unknown_words_only_the_first_are_corrected() -> None:
    make_paper("Attention over graphs", abstract="")
    count_words()
    typed = "atention attenton attnetion attentin"
    assert search(typed).corrected == "attention attention attention attentin"


def test_an_authors_name_is_read_in_a_bounded_number_of_spellings() -> None:
    spellings = {
        "".join(letter.upper() if bits >> at & 1 else letter for at, letter in enumerate("alvarez"))
        for bits in range(128)
    }
    make_paper("Ours", authors=[f"Ada {name}" for name in sorted(spellings)])
    make_paper("Another", authors=["Ada Alvarez Junior", "Alvarez Ada"])
    found = module._spellings("ada álvarez")
    assert len(found) == MOST_SPELLINGS + 1
    assert {name.lower() for name in found} == {"ada alvarez", "ada álvarez"}


# --- The index ------------------------------------------------------------------------------------


def test_the_index_follows_every_way_of_writing() -> None:
    paper = make_paper("First", abstract="")
    Paper.objects.filter(pk=paper.pk).update(title="Second", title_key="second")
    assert titles("first") == []
    assert titles("second") == ["Second"]
    Paper.objects.bulk_update([Paper(pk=paper.pk, abstract="quark")], ["abstract"])
    assert titles("quark") == ["Second"]
    paper.delete()
    assert not SearchText.objects.exists()


def test_a_withdrawn_paper_is_not_found_in_any_way() -> None:
    paper = make_paper("Withdrawn graph", arxiv_id="2505.24864", categories=["cs.AI"])
    Paper.objects.filter(pk=paper.pk).update(withdrawn_on=date(2026, 1, 1))
    assert search("2505.24864").direct is None
    assert titles("graph") == titles("Withdrawn graph") == titles("") == []
    assert titles("", Filters(category="cs.AI")) == []
    Paper.objects.filter(pk=paper.pk).update(withdrawn_on=None)
    assert titles("graph") == ["Withdrawn graph"]


def test_an_enormous_paper_can_still_be_written_and_found() -> None:
    many = [f"Name{n} Surname{n}" for n in range(10_000)]
    make_paper("Collaboration", abstract="word " * 40_000 + "x" * 5_000, authors=many)
    assert titles("collaboration") == ["Collaboration"]


def test_words_are_counted_again_when_the_papers_have_changed() -> None:
    make_paper("Graphs", abstract="A graph.", authors=[])
    make_paper("Galaxies", abstract="A graph.", authors=[])
    tasks.count_words()
    assert SearchWord.objects.get(word="").papers == 2
    assert SearchWord.objects.get(word="graph").papers == 2
    assert SearchWord.objects.get(word="graphs").lexeme == "graph"
    assert not SearchWord.objects.filter(word="a").exists()
    make_paper("Quarks", abstract="", authors=[])
    tasks.count_words()
    assert SearchWord.objects.get(word="quarks").papers == 1


def test_frequent_words_bring_the_papers_that_have_them_in_the_title_or_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(8):
        make_paper(f"Graph {number}", abstract="")
        make_paper(f"Galaxy {number}", abstract="A graph." if number == 3 else "")
    make_paper("Elsewhere", abstract="A graph of a galaxy.")
    make_paper("Quark", abstract="")
    count_words()
    monkeypatch.setattr(module, "RANKED", 5)
    found = titles("graph galaxy quark", limit=100)
    assert found[0] == "Quark"
    assert {"Elsewhere", "Galaxy 3"} <= set(found)


# --- Slips of the pen -----------------------------------------------------------------------------


@pytest.mark.parametrize("typed", ["atention", "attenttion", "attemtion", "attnetion", "Atention"])
def test_a_typo_still_finds_and_says_how_it_was_understood(typed: str) -> None:
    make_paper("Attention over transformers")
    count_words()
    found = search(f"{typed} transformers")
    assert found.corrected == "attention transformers"
    assert [paper.title for paper in found.papers] == ["Attention over transformers"]


def test_of_two_words_as_close_the_more_frequent_one_was_meant() -> None:
    make_paper("Modes", abstract="Modes.", authors=[])
    make_paper("Models", abstract="", authors=[])
    make_paper("More models", abstract="", authors=[])
    count_words()
    assert search("modls").corrected == "models"


def test_words_that_are_known_short_far_or_newer_than_the_count_are_left_alone() -> None:
    make_paper("Attention over graphs")
    count_words()
    make_paper("Attentions", abstract="attentiom")
    assert search("attentiom").corrected == ""
    assert titles("attentiom") == ["Attentions"]
    assert search("grf").corrected == search("gr4ph").corrected == search("zebra").corrected == ""


def test_slips_are_counted_as_letters_left_out_put_in_exchanged_or_swapped() -> None:
    assert slips("graph", "graph") == 0
    assert slips("grph", "graph") == slips("graaph", "graph") == 1
    assert slips("grspg", "graph") == 2
    assert slips("garph", "graph") == 1
    assert slips("", "abc") == 3


# --- Straight to the paper ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "2505.24864",
        " arXiv:2505.24864v3 ",
        "https://arxiv.org/abs/2505.24864",
        "https://arxiv.org/pdf/2505.24864v1.pdf",
        "https://huggingface.co/papers/2505.24864",
        "10.1000/ABC",
        "https://doi.org/10.1000/abc",
        "doi:10.1000/abc",
    ],
)
def test_an_identifier_in_any_spelling_goes_straight_to_the_paper(query: str) -> None:
    paper = make_paper("Some graph", arxiv_id="2505.24864", doi="10.1000/abc")
    make_paper("Citing 2505.24864", abstract="10.1000/abc")
    assert search(query).direct == paper
    assert search(query).papers == [paper]


def test_so_does_the_address_of_its_page_here() -> None:
    paper = make_paper()
    assert search(f"https://papers.example{paper.get_absolute_url()}").direct == paper
    assert search(f"/paper/{uuid4()}").papers == []


def test_an_identifier_that_is_not_known_finds_nothing_else() -> None:
    make_paper("About 2505.24864")
    assert search("2505.24864").papers == []


# --- Filters and pages ----------------------------------------------------------------------------


def test_filters_hold_with_and_without_words_and_then_the_newest_come_first() -> None:
    today = timezone.now().date()
    for number, code in enumerate(["cs.AI", "cs.LG", "cs.AI"]):
        make_paper(f"Graph {number}", categories=[code], listing_day=today - timedelta(days=number))
    assert titles("") == ["Graph 0", "Graph 1", "Graph 2"]
    assert titles("", Filters(category="cs.AI")) == ["Graph 0", "Graph 2"]
    assert titles("graph", Filters(category="cs.LG")) == ["Graph 1"]
    yesterday = today - timedelta(days=1)
    assert titles("", Filters(since=yesterday)) == ["Graph 0", "Graph 1"]
    assert set(titles("graph", Filters(until=yesterday))) == {"Graph 1", "Graph 2"}
    assert titles("Graph 0", Filters(until=yesterday))[0] != "Graph 0"


@pytest.mark.parametrize(
    "typed", ["José Ångström", "jose angstrom", "JOSE ÅNGSTRÖM", "Jose  Angstrom,"]
)
def test_an_author_is_found_by_the_whole_name_whatever_its_case_and_accents(typed: str) -> None:
    make_paper("His", authors=["José Ångström"])
    make_paper("Another's", authors=["José Ångström Junior"])
    assert titles("", Filters(author=typed)) == ["His"]
    assert titles("His", Filters(author="Ångström")) == []


def test_pages_follow_one_another_without_gap_or_repetition() -> None:
    for number in range(25):
        make_paper(f"Graph {number}", abstract="")
    first, second, third = (search("graph", limit=10, offset=at) for at in (0, 10, 20))
    assert (first.more, second.more, third.more) == (True, True, False)
    shown = [paper.pk for found in (first, second, third) for paper in found.papers]
    assert len(set(shown)) == len(shown) == 25
    assert search("", limit=25).more is False
    assert search("", limit=24).more is True


# --- Meaning --------------------------------------------------------------------------------------


@pytest.fixture
def encoder(tmp_path: Path, settings: Settings) -> None:
    """One that knows that a kitten is a cat is not to be had: its words are by chance."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    settings.ENCODER_DIR = write_encoder(tmp_path / "encoder")


def encode() -> None:
    encode_pending()
    module.forget_encoder()


@pytest.mark.usefixtures("encoder")
def test_meaning_brings_papers_that_have_none_of_the_words() -> None:
    make_paper("Dark matter", abstract="dark matter")
    make_paper("Galaxy", abstract="galaxy")
    encode()
    assert titles("dark") == ["Dark matter", "Galaxy"]
    assert titles("dark", Filters(category="cs.AI")) == []
    assert titles("zebra") == []  # something is always the closest


@pytest.mark.usefixtures("encoder")
def test_exclusions_phrases_and_filters_hold_for_meaning_too() -> None:
    make_paper("Dark matter", abstract="")
    make_paper("Galaxy", abstract="", categories=["astro-ph"])
    encode()
    assert titles("dark -galaxy") == ["Dark matter"]
    assert titles('"dark matter"') == ["Dark matter"]
    make_paper("Dark galaxy", abstract="", categories=["astro-ph"])
    make_paper("Dark cat", abstract="")
    encode()
    assert titles("dark", Filters(category="astro-ph")) == ["Dark galaxy", "Galaxy"]


@pytest.mark.usefixtures("encoder")
def test_withdrawn_papers_are_not_found_by_meaning() -> None:
    paper = make_paper("Dark matter")
    other = make_paper("Galaxy")
    encode()
    Paper.objects.filter(pk=other.pk).update(withdrawn_on=date(2026, 1, 1))
    assert titles("dark") == ["Dark matter"]
    assert similar(paper) == []


@pytest.mark.usefixtures("encoder")
def test_while_another_encoders_vectors_serve_words_alone_answer(settings: Settings) -> None:
    make_paper("Dark matter")
    make_paper("Galaxy")
    encode()
    write_encoder(settings.ENCODER_DIR, seed=1, dimension=12)
    module.forget_encoder()
    assert titles("dark") == ["Dark matter"]


@pytest.mark.usefixtures("encoder")
def test_a_broken_encoder_leaves_the_words(settings: Settings) -> None:
    make_paper("Dark matter")
    make_paper("Galaxy")
    encode()
    (settings.ENCODER_DIR / "tokenizer.json").write_text("[]")
    module.forget_encoder()
    assert titles("dark") == ["Dark matter"]


def test_meaning_counts_the_more_the_less_the_words_tell() -> None:
    rare, common = Asked(share=0.01), Asked(share=0.5)
    said_better, closer = Candidate(1, 1.2, 0.1), Candidate(2, 1.1985, 0.9)
    assert order([said_better, closer], rare) == [2, 1]
    assert order([said_better, replace(closer, words=1.198)], rare) == [1, 2]
    # 60 / 60 less 60 / 61 of the weight is what the first rank is ahead of the second.
    assert order([said_better, replace(closer, words=1.1936)], common) == [2, 1]
    assert order([said_better, replace(closer, words=1.1934)], common) == [1, 2]
    # A paper that has no vector counts by its words alone.
    assert order([Candidate(1, 0.5, None), Candidate(2, 0.4, 0.9)], rare) == [2, 1]
    assert order([Candidate(1, 0.5, None), Candidate(2, 0.1, 0.9)], rare) == [1, 2]


@pytest.mark.usefixtures("encoder")
def test_similar_papers_are_the_closest_in_meaning_without_itself() -> None:
    paper = make_paper("Dark matter", abstract="dark matter")
    make_paper("Cat", abstract="the cat sat on the paper")
    close = make_paper("Of dark matter", abstract="dark matter")
    encode()
    assert similar(paper, 1) == [close]
    assert len(similar(paper)) == 2


def test_without_vectors_papers_with_a_similar_title_are_similar() -> None:
    paper = make_paper("Sparse graph attention", abstract="")
    other = make_paper("Graph attention again", abstract="")
    make_paper("Quarks", abstract="")
    assert similar(paper) == [other]
