"""The page /search, as anybody sees it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from urllib.parse import quote

import psycopg
import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from papers import search
from papers.search import count_words
from tests.factories import make_paper, make_signal

pytestmark = pytest.mark.django_db

HOSTILE = "<script>alert(1)</script>"


def page(client: Client, query: str = "") -> str:
    response = client.get(f"/search{query}")
    assert response.status_code == 200
    return response.content.decode()


def headings(body: str) -> list[str]:
    return re.findall(r"<article>.*?<h2><a [^>]*>([^<]*)</a></h2>", body, re.S)


def test_before_anything_is_asked_there_is_only_the_box(client: Client) -> None:
    make_paper("A graph")
    body = page(client)
    assert 'name="q"' in body
    assert headings(body) == []
    assert "No paper here fits" not in body


def test_what_was_asked_stays_in_the_box_beside_what_was_found(client: Client) -> None:
    make_paper("A graph")
    make_paper("A galaxy", abstract="")
    body = page(client, "?q=graph")
    assert headings(body) == ["A graph"]
    assert 'value="graph"' in body
    assert "<details open" not in body


def test_filters_are_kept_and_shown(client: Client) -> None:
    today = timezone.now().date()
    make_paper("New graph", categories=["cs.AI"])
    make_paper("Old graph", categories=["cs.AI"], listing_day=today - timedelta(days=9))
    body = page(client, f"?q=graph&category=cs.AI&since={today - timedelta(days=1)}")
    assert headings(body) == ["New graph"]
    assert re.search(r"<details[^>]* open", body)
    assert 'value="cs.AI"' in body
    assert headings(page(client, "?author=ada+alvarez")) == ["New graph", "Old graph"]


def test_a_date_that_is_none_is_told_and_nothing_is_searched(client: Client) -> None:
    make_paper("A graph")
    body = page(client, "?q=graph&since=yesterday")
    assert "Enter a valid date" in body
    assert headings(body) == []


def test_nothing_found_is_said_and_so_is_a_correction(client: Client) -> None:
    make_paper("Attention", abstract="")
    count_words()
    assert "No paper here fits that. Other words" in page(client, "?q=zebra")
    assert "With fewer of the filters" in page(client, "?q=attention&category=cs.AI")
    body = page(client, "?q=atention")
    assert "Showing results for <b>attention</b>" in body
    assert headings(body) == ["Attention"]


def test_an_identifier_leads_to_the_papers_page(client: Client) -> None:
    paper = make_paper("A graph", arxiv_id="2505.24864")
    response = client.get("/search?q=arXiv:2505.24864v2")
    assert response.status_code == 302
    assert response["Location"] == paper.get_absolute_url()


def test_the_identifier_of_a_withdrawn_paper_leads_to_what_is_known_of_it(client: Client) -> None:
    today = timezone.now().date()
    paper = make_paper("Kites fly", arxiv_id="2611.00001", doi="10.1000/182", withdrawn_on=today)
    for query in ("2611.00001", "10.1000/182", paper.get_absolute_url()):
        body = page(client, f"?q={query}")
        assert "Its source withdrew this paper on" in body
        assert f'<a href="{paper.get_absolute_url()}">Kites fly</a>' in body
        assert "may not be known here" not in body
        assert headings(body) == []


def test_pages_lead_to_one_another_with_the_question(client: Client) -> None:
    for number in range(45):
        make_paper(f"Graph {number}", abstract="")
    first = page(client, "?q=graph&author=Ada+Alvarez")
    assert len(headings(first)) == 20
    assert 'rel="prev"' not in first
    after = re.search(r'rel="next" href="(\?[^"]*)"', first)
    assert after is not None
    second = page(client, after[1].replace("&amp;", "&"))
    assert 'rel="prev"' in second
    assert not set(headings(first)) & set(headings(second))
    last = page(client, "?q=graph&page=3")
    assert len(headings(last)) == 5
    assert 'rel="next"' not in last
    assert "no further results" in page(client, "?q=graph&page=9")
    assert headings(page(client, "?q=graph&page=x")) == headings(page(client, "?q=graph"))


@contextmanager
def slow_database(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No question about the words of papers is answered in the time it has."""
    monkeypatch.setattr(search, "LONGEST_QUESTION", 100)
    reach = connection.get_connection_params()
    wanted = {"host", "port", "user", "password", "dbname"}
    with psycopg.connect(**{name: reach[name] for name in wanted & reach.keys()}) as other:
        other.execute("LOCK TABLE papers_searchtext")
        yield


@pytest.mark.parametrize("path", ["/search?q=graph+nets", "/search?author=Ada+Alvarez"])
@pytest.mark.django_db(transaction=True)
def test_what_takes_too_long_is_given_up_and_said(
    client: Client, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    make_paper("Graph nets")
    with slow_database(monkeypatch):
        response = client.get(path)
    assert response.status_code == 503
    assert "took too long" in response.content.decode()
    assert "No paper here fits" not in response.content.decode()
    assert response["Retry-After"] == "60"
    assert client.get(path).status_code == 200


@pytest.mark.django_db(transaction=True)
def test_a_paper_is_shown_though_those_like_it_take_too_long_to_find(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    paper, other = make_paper("Graph nets"), make_paper("Graph networks")
    with slow_database(monkeypatch):
        alone = client.get(paper.get_absolute_url())
        asked = client.get(f"/api/v1/papers/{paper.uuid}/similar")
    assert alone.status_code == 200
    assert other.title not in alone.content.decode()
    assert asked.status_code == 503
    assert other.title in client.get(paper.get_absolute_url()).content.decode()


def test_what_is_typed_is_never_markup(client: Client) -> None:
    body = page(client, f"?q={quote(HOSTILE)}&author={quote(HOSTILE)}&category={quote(HOSTILE)}")
    assert HOSTILE not in body
    assert "&lt;script&gt;" in body


@pytest.mark.parametrize(
    "query", ["9" * 5_000, "%00", "%ff%fe", "a" * 9_000, "%ed%a0%80", "'--", "page=-1"]
)
def test_nothing_typed_breaks_the_page(client: Client, query: str) -> None:
    page(client, f"?q={query}&author={query}&category={query}&page={query}")


def test_it_is_read_only_and_not_for_search_engines(client: Client) -> None:
    assert client.post("/search", {"q": "graph"}).status_code == 405
    response = client.get("/search?q=graph")
    assert response["X-Robots-Tag"] == "noindex"
    assert '<meta name="robots" content="noindex">' in response.content.decode()


def test_the_number_of_queries_does_not_depend_on_what_is_found(
    client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(20):
        make_signal(make_paper(f"Graph {number}", authors=[f"Name {number}"]), number)
    count_words()
    client.get("/search?q=graph")  # asks which encoder serves, once a minute
    # A savepoint and its end, the time limit, the query's lexemes, their counts, a title like that,
    # candidates, papers, counters.
    with django_assert_max_num_queries(10):
        page(client, "?q=graph")
