"""The day's page and a paper's own page, as anybody sees them."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import time_machine
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from newsletter.models import Subscriber
from papers.ingest import ingest
from papers.models import Edition, EditionPaper, Paper
from papers.sources import PaperRecord
from tests.factories import MORNING, TODAY, make_frozen_edition, make_paper, make_signal

pytestmark = pytest.mark.django_db

HOSTILE = "<script>alert(1)</script> & \"quoted\" 'x' {{ settings.SECRET_KEY }}"
ESCAPED = "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;quoted&quot;"


@pytest.fixture(autouse=True)
def _today() -> object:
    with time_machine.travel(MORNING, tick=False):
        yield


def page(client: Client, path: str) -> str:
    response = client.get(path)
    assert response.status_code == 200
    return response.content.decode()


def headings(body: str) -> list[str]:
    return re.findall(r"<h2><a [^>]*>([^<]*)</a></h2>", body)


def test_before_the_first_edition_the_front_page_says_welcome(client: Client) -> None:
    assert "The first list of papers is not out yet" in page(client, "/")


def test_the_front_page_is_the_newest_edition_that_is_settled(client: Client) -> None:
    make_frozen_edition(make_paper("Older"), day=TODAY - timedelta(days=1))
    make_frozen_edition(make_paper("Newest"), day=TODAY)
    Edition.objects.create(day=TODAY + timedelta(days=1))
    assert headings(page(client, "/")) == ["Newest"]


def test_an_open_edition_is_nobodys_to_see_yet(client: Client) -> None:
    EditionPaper.objects.create(edition=Edition.objects.create(day=TODAY), paper=make_paper())
    assert client.get(f"/papers/{TODAY}").status_code == 404
    assert headings(page(client, "/")) == []


def test_a_days_page_shows_its_papers_and_the_way_to_the_days_beside_it(client: Client) -> None:
    for back in range(3):
        make_frozen_edition(make_paper(f"{back} back"), day=TODAY - timedelta(days=back))
    body = page(client, "/papers/2026-11-19")
    assert headings(body) == ["1 back"]
    assert 'href="/papers/2026-11-18"' in body
    assert 'href="/papers/2026-11-20"' in body


@pytest.mark.parametrize(
    "path",
    [
        "/papers/2026-11-20",
        "/papers/2026-99-99",
        "/papers/2026-02-30",
        "/papers/0000-00-00",
        "/papers/٢٠٢٦-١١-٢٠",
        "/papers/yesterday",
        "/paper/x",
        f"/paper/{uuid4()}",
    ],
)
def test_an_unknown_day_or_paper_is_not_found(client: Client, path: str) -> None:
    assert client.get(path).status_code == 404


def test_pages_are_for_reading_only(client: Client) -> None:
    make_frozen_edition(make_paper(), day=TODAY)
    assert client.post("/").status_code == 405
    assert client.post(f"/papers/{TODAY}").status_code == 405
    assert client.post(Paper.objects.get().get_absolute_url()).status_code == 405
    assert client.head("/").status_code == 200


def test_a_hidden_paper_is_not_shown_and_pinned_ones_stand_first(client: Client) -> None:
    edition = make_frozen_edition(*(make_paper(title) for title in "ABCDEF"), day=TODAY)
    curated: dict[str, dict[str, Any]] = {
        "A": {"trend": 0.2},
        "B": {"trend": 0.9},
        "C": {"curation": "pinned", "position": 2},
        "D": {"curation": "hidden", "position": 1, "trend": 1.0},
        "E": {"curation": "pinned", "position": 1},
        "F": {"position": 1},
    }
    for title, fields in curated.items():
        edition.candidates.filter(paper__title=title).update(**fields)
    assert headings(page(client, "/")) == ["E", "C", "F", "B", "A"]


def test_a_papers_page_names_its_editions_but_not_one_that_hides_it(client: Client) -> None:
    paper = make_paper()
    make_frozen_edition(paper, day=date(2026, 11, 1))
    hiding = make_frozen_edition(paper, day=date(2026, 11, 2))
    hiding.candidates.update(curation="hidden")
    body = page(client, paper.get_absolute_url())
    assert "/papers/2026-11-01" in body
    assert "/papers/2026-11-02" not in body


def test_an_empty_edition_shows_its_reason(client: Client) -> None:
    Edition.objects.create(
        day=TODAY, state="empty", frozen_at=MORNING, reason="No new papers have arrived."
    )
    assert "No new papers have arrived." in page(client, f"/papers/{TODAY}")


def test_the_newest_counters_of_a_paper_are_shown(client: Client) -> None:
    paper = make_paper()
    make_signal(paper, 40, observed_at=datetime(2026, 11, 20, tzinfo=UTC))
    make_signal(paper, 7, observed_at=datetime(2026, 11, 19, tzinfo=UTC))
    make_signal(paper, 1, counter="stars", observed_at=datetime(2026, 11, 19, tzinfo=UTC))
    body = page(client, paper.get_absolute_url())
    assert "40 upvotes" in body
    assert "1 star" in body
    assert "7 upvotes" not in body


def test_of_two_sources_of_a_counter_the_larger_one_is_shown(client: Client) -> None:
    paper = make_paper()
    make_signal(paper, 40, observed_at=datetime(2026, 11, 19, tzinfo=UTC))
    later = datetime(2026, 11, 20, tzinfo=UTC)
    paper.signals.create(source="listing", counter="upvotes", value=7, observed_at=later)
    assert "40 upvotes" in page(client, paper.get_absolute_url())


def test_the_days_page_and_a_papers_page_hold_a_form_that_starts_a_sign_up() -> None:
    client = Client(enforce_csrf_checks=True)
    paper = make_paper()
    make_frozen_edition(paper, day=TODAY)
    for path in ("/", f"/papers/{TODAY}", paper.get_absolute_url()):
        body = page(client, path)
        [(url, inside)] = re.findall(
            r'<form [^>]*method="post" action="([^"]+)">(.*?)</form>', body, re.S
        )
        assert 'type="email" name="address"' in inside
        assert '<label for="subscribe-address">' in inside
        fields = dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]+)"', inside))
        assert fields["step"] == "start"
        answer = client.post(url, fields | {"address": "alice@example.org"})
        assert answer.status_code != 403
        form = answer.content.decode()
        assert 'value="alice@example.org"' in form
        assert 'name="time_zone"' in form
    assert not Subscriber.objects.exists()


def test_hostile_text_is_shown_as_text(client: Client) -> None:
    paper = make_paper(
        HOSTILE,
        abstract=HOSTILE,
        summary=HOSTILE,
        authors=[HOSTILE],
        keywords=[HOSTILE],
        categories=[HOSTILE],
        organisation=HOSTILE,
        submitter=HOSTILE,
        arxiv_id='"><script>',
        doi='10.1/"><script>',
    )
    edition = make_frozen_edition(paper, day=TODAY)
    edition.candidates.update(note=HOSTILE)
    for path, times in [("/", 4), (paper.get_absolute_url(), 9)]:
        body = page(client, path)
        assert body.count(ESCAPED) >= times
        assert "<script" not in body
        assert "{{ settings.SECRET_KEY }}" in body


def test_no_page_carries_a_javascript_link(client: Client) -> None:
    link = "javascript:alert(1)"
    record = PaperRecord("file", "Hostile", url=link, pdf_url=link, code_url=link, project_url=link)
    ingest([record], source="test", now=MORNING)
    paper = Paper.objects.get()
    make_frozen_edition(paper, day=TODAY)
    for path in ("/", paper.get_absolute_url()):
        assert "javascript:" not in page(client, path)


def test_a_paper_without_link_or_abstract_still_has_its_page(client: Client) -> None:
    paper = make_paper("Bare", abstract="", authors=[])
    assert "Bare" in page(client, paper.get_absolute_url())


def test_a_page_of_many_papers_asks_few_questions_of_the_database(
    client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    make_frozen_edition(make_paper("Yesterday's"), day=TODAY - timedelta(days=1))
    papers = [make_paper(f"Paper {n}", arxiv_id=f"2611.{n:05}") for n in range(60)]
    for paper in papers[:10]:
        make_signal(paper, 3)
    make_frozen_edition(*papers, day=TODAY)
    with django_assert_max_num_queries(5):
        assert len(headings(page(client, "/"))) == 60
    with django_assert_max_num_queries(15):
        page(client, papers[0].get_absolute_url())
