"""The public pages, as anybody sees them."""

from __future__ import annotations

import gzip
import random
import re
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import time_machine
from django.conf import settings
from django.core.cache import cache
from django.test import Client
from django.utils.html import escape
from pytest_django import DjangoAssertNumQueries

from newsletter.models import Subscriber
from papers.ingest import ingest
from papers.models import Edition, EditionPaper, Paper
from papers.sources import PaperRecord
from papers.templatetags.cards import short
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


@pytest.mark.parametrize(("hour", "said"), [(3, "today at 04:00"), (5, "tomorrow at 04:00")])
def test_before_the_first_edition_the_front_page_says_welcome_and_when_it_comes(
    client: Client, hour: int, said: str
) -> None:
    with time_machine.travel(datetime(2026, 11, 20, hour, tzinfo=UTC), tick=False):
        body = page(client, "/")
    assert "The first list of papers is not out yet" in body
    assert f"gathered here: next {said} UTC" in body


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
        f"/paper/{UUID(int=1)}",
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


def test_of_two_sources_of_a_counter_lists_show_the_larger_and_whose_it_is_a_paper_both(
    client: Client,
) -> None:
    paper = make_paper(arxiv_id="2611.00001")
    make_signal(paper, 6, observed_at=datetime(2026, 11, 18, tzinfo=UTC))
    make_signal(paper, 7, observed_at=datetime(2026, 11, 20, tzinfo=UTC))
    make_signal(paper, 2, counter="comments", observed_at=datetime(2026, 11, 20, tzinfo=UTC))
    for counter, value in (("upvotes", 40), ("stars", 5_965), ("comments", 1)):
        paper.signals.create(source="file", counter=counter, value=value, observed_at=MORNING)
    make_frozen_edition(paper, day=TODAY)
    card = page(client, "/")
    assert "<p>40 upvotes</p><p>2 comments</p><p>6.0k stars</p>" in card
    body = page(client, paper.get_absolute_url())
    where = "https://huggingface.co/papers/2611.00001"
    told = f'7 upvotes <b>+1</b>, <a href="{where}">2 comments</a> on Hugging Face'
    assert f"<span>{told}</span>" in body
    assert "<span>40 upvotes, 1 comment, 5965 stars</span>" in body


def test_whoever_counts_is_named_whatever_its_name(client: Client) -> None:
    papers = {name: make_paper(name) for name in ("biorxiv", "arxiv", "huggingface")}
    for value, (source, paper) in enumerate(papers.items(), 300):
        for age, counted in ((30, value - 9), (2, value)):
            paper.signals.create(
                source=source,
                counter="upvotes",
                value=counted,
                observed_at=MORNING - timedelta(hours=age),
            )
    papers["huggingface"].signals.create(
        source="zenodo", counter="stars", value=7, observed_at=MORNING
    )
    make_frozen_edition(*papers.values(), day=TODAY)
    for path in ("/", "/papers/top"):
        body = page(client, path)
        for said in (
            "300 upvotes on biorxiv",
            "301 upvotes on arXiv",
            "302 upvotes on Hugging Face",
        ):
            assert f"<p>{said} <b>+9</b></p>" in body
        assert "<p>7 stars</p>" in body
    assert headings(page(client, "/papers/top")) == ["huggingface", "arxiv", "biorxiv"]
    body = page(client, papers["biorxiv"].get_absolute_url())
    assert "<span>300 upvotes <b>+9</b> on biorxiv</span>" in body
    body = page(client, papers["huggingface"].get_absolute_url())
    assert (
        "<span>302 upvotes <b>+9</b> on Hugging Face</span><span>7 stars on zenodo</span>" in body
    )


def test_what_a_file_only_repeats_is_not_told_twice(client: Client) -> None:
    paper = make_paper()
    for counter, value in (("upvotes", 118), ("comments", 10)):
        for source in ("huggingface", "file", "biorxiv"):
            paper.signals.create(source=source, counter=counter, value=value, observed_at=MORNING)
    paper.signals.create(source="listing", counter="upvotes", value=117, observed_at=MORNING)
    body = page(client, paper.get_absolute_url())
    assert re.findall(r"<span>([^<]*upvotes[^<]*)</span>", body) == [
        "118 upvotes, 10 comments on Hugging Face",
        "118 upvotes, 10 comments on biorxiv",
        "117 upvotes",
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (999, "999"), (1_000, "1.0k"), (5_965, "6.0k"), (9_949, "9.9k"), (9_950, "10k"),
     (999_499, "999k"), (999_500, "1.0M"), (2**31 - 1, "2147.5M")],
)  # fmt: skip
def test_large_counters_are_short_on_cards(value: int, shown: str) -> None:
    assert short(value) == shown


def test_pages_set_no_cookie_and_hold_a_form_that_starts_a_sign_up() -> None:
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
        assert not client.cookies
        answer = Client(enforce_csrf_checks=True).post(url, {"address": "alice@example.org"})
        assert answer.status_code == 200
        form = answer.content.decode()
        assert 'value="alice@example.org"' in form
        assert 'name="time_zone"' in form
        assert '<form method="post" action="/subscribe/">' in form
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
    for path, times in [("/", 3), (paper.get_absolute_url(), 9)]:
        body = page(client, path)
        assert body.count(ESCAPED) >= times
        assert "<script" not in body
        assert "{{ settings.SECRET_KEY }}" in body
    assert "<b>Editors:</b> &lt;script&gt;alert(1)&lt;/script&gt;" in page(client, "/")


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
    with django_assert_max_num_queries(3):  # the edition, its papers, what they count
        assert len(headings(page(client, "/"))) == 60
    with django_assert_max_num_queries(15):
        page(client, papers[0].get_absolute_url())


def test_a_day_of_a_hundred_papers_is_small(client: Client) -> None:
    rng = random.Random(0)
    edition = make_frozen_edition(day=TODAY)
    for n in range(100):
        paper = make_paper(
            made_up(rng, 10),
            abstract=f"{made_up(rng, 20)}. We show {made_up(rng, 25).lower()}. It costs little.",
            authors=[made_up(rng, 2) for _ in range(8)],
            arxiv_id=f"2611.{n:05}",
            categories=["cs.LG", "stat.ML"],
        )
        edition.candidates.create(paper=paper)
        make_signal(paper, n + 10)
    # What a browser gets that takes nothing packed, with all that the page asks for.
    body = page(client, "/")
    loaded = set(re.findall(r'(?:href|src)="/static/([^"]+)"', body))
    assert loaded == {"paperround.css", "favicon.svg"}
    rest = [(settings.BASE_DIR / "config" / "static" / name).read_bytes() for name in loaded]
    assert len(body.encode()) + sum(map(len, rest)) <= 100_000
    sent = client.get("/", headers={"Accept-Encoding": "gzip"})
    assert sent["Content-Encoding"] == "gzip"
    assert len(sent.content) + sum(len(gzip.compress(file)) for file in rest) <= 30_000


def made_up(rng: random.Random, words: int) -> str:
    """A text that repeats itself would be packed smaller than a real one."""
    return " ".join(
        "".join(rng.choice("bdfgklmnprst") + rng.choice("aeiou") for _ in range(rng.randint(1, 5)))
        for _ in range(words)
    ).capitalize()


# --- Days, weeks, months --------------------------------------------------------------------------


def test_a_day_without_a_list_leads_to_those_beside_it(client: Client) -> None:
    make_frozen_edition(make_paper("Before"), day=TODAY - timedelta(days=4))
    make_frozen_edition(make_paper("After"), day=TODAY - timedelta(days=1))
    answer = client.get(f"/papers/{TODAY - timedelta(days=2)}")
    assert answer.status_code == 404
    body = answer.content.decode()
    assert "There is no list for this day." in body
    assert 'href="/papers/2026-11-16"' in body
    assert 'href="/papers/2026-11-19"' in body


def test_a_days_page_leads_to_submitting_a_paper(client: Client) -> None:
    make_frozen_edition(make_paper(), day=TODAY)
    assert '<a href="/submit/">Submit a paper</a>' in page(client, "/")


def test_todays_page_says_when_its_list_comes(client: Client) -> None:
    make_frozen_edition(make_paper(), day=TODAY - timedelta(days=1))
    answer = client.get(f"/papers/{TODAY}")
    assert answer.status_code == 404
    assert "it is made up at 04:00 UTC" in answer.content.decode()


@pytest.mark.parametrize(
    "path",
    ["/papers/2026-11-21", "/papers/week/2026-W48", "/papers/month/2026-12", "/papers/9999-12-31",
     "/papers/month/9999-12", "/papers/week/9999-W52", "/papers/week/2026-W54",
     "/papers/week/2026-W00", "/papers/month/2026-13", "/papers/month/0000-01",
     "/papers/top?page=2", "/papers/top?page=0", "/papers/top?page=-1", "/papers/top?page=x",
     "/papers/top?page=11", "/papers/top?page=999999999999999999999", "/papers/top?page=²",
     "/papers/top?page=00000199999999999999999999", f"/papers/top?page=000001{'0' * 4_300}",
     "/papers/0999-12-31", "/papers/0001-01-01", "/papers/week/0999-W05", "/papers/week/0001-W01",
     "/papers/month/0999-01", "/papers/month/0001-01", "/papers/week/٢٠٢٦-W46"],
)  # fmt: skip
def test_what_has_not_come_or_cannot_be_is_not_found(client: Client, path: str) -> None:
    make_frozen_edition(make_paper(), day=TODAY)
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    ("asked", "answered"),
    [("2026-11-18", "/papers/2026-11-18"), ("", "/"), ("yesterday", "/"), ("//evil.example", "/")],
)
def test_the_date_picker_leads_to_the_day(client: Client, asked: str, answered: str) -> None:
    assert client.get("/papers/", {"day": asked}).headers["Location"] == answered


def test_a_week_is_its_seven_days_and_knows_the_weeks_beside_it(client: Client) -> None:
    for day in ("2026-11-01", "2026-11-08", "2026-11-09", "2026-11-15", "2026-11-16"):
        make_frozen_edition(make_paper(f"Of {day}"), day=date.fromisoformat(day))
    body = page(client, "/papers/week/2026-W46")
    assert sorted(headings(body)) == ["Of 2026-11-09", "Of 2026-11-15"]
    assert 'rel="prev" href="/papers/week/2026-W45"' in body
    assert 'rel="next" href="/papers/week/2026-W47"' in body
    month = page(client, "/papers/month/2026-11")
    assert len(headings(month)) == 5
    assert 'rel="prev"' not in month


def test_the_first_years_and_their_neighbours_have_addresses(client: Client) -> None:
    for day in (date.min, date(999, 2, 1), TODAY):
        make_frozen_edition(make_paper(f"Of {day}"), day=day)
    for path, before, after in [
        ("/papers/0999-02-01", "/papers/0001-01-01", "/papers/2026-11-20"),
        ("/papers/week/0999-W05", "/papers/week/0001-W01", "/papers/week/2026-W47"),
        ("/papers/month/0999-02", "/papers/month/0001-01", "/papers/month/2026-11"),
    ]:
        body = page(client, path)
        assert headings(body) == ["Of 0999-02-01"]
        assert f'rel="prev" href="{before}"' in body
        assert f'rel="next" href="{after}"' in body
        assert page(client, before)


def test_a_week_without_a_list_leads_to_those_beside_it(client: Client) -> None:
    make_frozen_edition(make_paper(), day=date(2026, 10, 1))
    make_frozen_edition(make_paper(), day=TODAY)
    answer = client.get("/papers/week/2026-W45")
    assert answer.status_code == 404
    assert 'href="/papers/week/2026-W40"' in answer.content.decode()
    assert 'href="/papers/week/2026-W47"' in answer.content.decode()


def test_the_first_week_of_a_year_may_begin_in_the_year_before(client: Client) -> None:
    make_frozen_edition(make_paper("New year"), day=date(2025, 12, 30))
    assert headings(page(client, "/papers/week/2026-W01")) == ["New year"]


def test_a_board_has_each_paper_once_most_upvotes_first(client: Client) -> None:
    few, many, more, none = (make_paper(name) for name in ("Few", "Many", "More", "None"))
    make_signal(few, 3)
    make_signal(many, 40, observed_at=MORNING - timedelta(days=2))
    make_signal(many, 50)
    make_signal(more, 45)
    more.signals.create(source="paperround", counter="upvotes", value=9, observed_at=MORNING)
    make_frozen_edition(few, many, day=TODAY - timedelta(days=1))
    make_frozen_edition(many, more, none, day=TODAY)
    for path in ("/papers/top", "/papers/week/2026-W47", "/papers/month/2026-11"):
        assert headings(page(client, path)) == ["More", "Many", "Few", "None"]


@pytest.mark.parametrize(
    ("path", "tab", "menu"),
    [
        ("/", "Day", 'aria-current="page">Papers<'),
        ("/papers/2026-11-20", "Day", 'aria-current="true">Papers<'),
        ("/papers/week/2026-W47", "Week", 'aria-current="true">Papers<'),
        ("/papers/month/2026-11", "Month", 'aria-current="true">Papers<'),
        ("/papers/top", "30 days", 'aria-current="page">Top<'),
    ],
)
def test_one_line_leads_from_each_period_to_the_others(
    client: Client, path: str, tab: str, menu: str
) -> None:
    make_frozen_edition(make_paper(), day=TODAY)
    body = page(client, path)
    [tabs] = re.findall(r'<nav class="tabs".*?</nav>', body, re.S)
    assert re.findall(r'href="([^"]+)"', tabs) == [
        "/" if tab == "30 days" else "/papers/2026-11-20",
        "/papers/week/2026-W47", "/papers/month/2026-11", "/papers/top",
    ]  # fmt: skip
    assert re.findall(r">([^<>\n]+)</a>", tabs) == ["Day", "Week", "Month", "30 days"]
    assert re.findall(r'aria-current="true">([^<]+)<', tabs) == [tab]
    assert menu in body


def test_no_line_of_periods_is_empty_or_loses_the_place(client: Client) -> None:
    make_frozen_edition(make_paper(), day=date(2026, 10, 7))
    old = "/papers/2026-10-07", "/papers/week/2026-W41", "/papers/month/2026-10", "/papers/top"
    for path in old[:3]:
        body = page(client, path)
        assert "Other periods" not in body  # there are none
        [tabs] = re.findall(r'<nav class="tabs".*?</nav>', body, re.S)
        assert re.findall(r'href="([^"]+)"', tabs) == list(old)
    make_frozen_edition(make_paper("Newer"), day=TODAY)
    assert 'aria-label="Other periods"' in page(client, "/papers/week/2026-W41")


def test_the_top_are_the_last_thirty_days(client: Client) -> None:
    make_frozen_edition(make_paper("In time"), day=TODAY - timedelta(days=29))
    make_frozen_edition(make_paper("Too old"), day=TODAY - timedelta(days=30))
    assert headings(page(client, "/papers/top")) == ["In time"]


def test_a_board_leaves_out_what_is_hidden_withdrawn_or_still_open(client: Client) -> None:
    hidden, gone, shown = make_paper("Hidden"), make_paper("Gone", withdrawn_on=TODAY), make_paper()
    make_frozen_edition(hidden, gone, shown, day=TODAY - timedelta(days=1))
    make_frozen_edition(hidden, day=TODAY).candidates.update(curation="hidden")
    opened = Edition.objects.create(day=TODAY - timedelta(days=2))
    opened.candidates.create(paper=make_paper("Not yet"))
    assert headings(page(client, "/papers/top")) == [shown.title]


def test_long_boards_come_in_pages(client: Client) -> None:
    make_frozen_edition(*(make_paper(f"Paper {n}") for n in range(60)), day=TODAY)
    first, second = page(client, "/papers/top"), page(client, "/papers/top?page=2")
    assert len(headings(first)) == 50
    assert len(headings(second)) == 10
    assert not set(headings(first)) & set(headings(second))
    assert 'rel="next" href="?page=2"' in first
    assert 'rel="next"' not in second


def test_counters_are_the_newest_and_say_what_a_day_brought(client: Client) -> None:
    paper = make_paper()
    make_signal(paper, 10, observed_at=MORNING - timedelta(hours=50))
    make_signal(paper, 12, observed_at=MORNING - timedelta(hours=26))
    make_signal(paper, 41, observed_at=MORNING - timedelta(hours=1))
    make_signal(paper, 1, counter="comments", observed_at=MORNING - timedelta(hours=1))
    make_frozen_edition(paper, day=TODAY)
    body = page(client, "/")
    assert "<p>41 upvotes on Hugging Face <b>+29</b></p><p>1 comment</p>" in body


def test_a_paper_is_new_for_a_day(client: Client) -> None:
    for back in range(3):
        make_paper(f"{back} back", listing_day=TODAY - timedelta(days=back))
    body = page(client, "/authors/Ada Alvarez")
    for title, is_new in zip(headings(body), (True, True, False), strict=True):
        [card] = re.findall(rf"<article>(?:(?!<article>).)*>{title}<.*?</article>", body, re.S)
        assert ('class="mark">New<' in card) is is_new


def test_what_is_new_is_not_said_where_every_paper_is(client: Client) -> None:
    make_paper("Today's")
    assert 'class="mark">New<' in page(client, "/authors/Ada Alvarez").split("</ol>")[0]
    make_paper("Another of today's")
    assert 'class="mark">New<' not in page(client, "/authors/Ada Alvarez").split("</ol>")[0]


# --- Authors and categories -----------------------------------------------------------------------

NAMES = [
    "Ada Alvarez",
    "O’Neil / Zed",
    'Ann "Q" O\'Hara',
    "李 明",
    "A?b#c&d%20",
    "<b>Bo</b>",
    "a;b+c@d",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_card_links_to_all_papers_of_an_author(client: Client, name: str) -> None:
    paper = make_paper("Theirs", authors=[name, "Bo Berg"])
    make_paper("Another's", authors=[f"{name} Jr."])
    make_frozen_edition(paper, day=TODAY)
    for path in ("/", paper.get_absolute_url()):
        [address] = re.findall(
            rf'<a href="(/authors/[^"]+)">{re.escape(escape(name))}</a>', page(client, path)
        )
        assert headings(page(client, address.replace("&amp;", "&"))) == ["Theirs"]


def test_names_that_no_address_can_hold_break_no_page(client: Client) -> None:
    paper = make_paper(authors=["", "Two\nlines", "."], categories=["", "x/y", "two\nlines"])
    make_frozen_edition(paper, day=TODAY)
    for path in ("/", paper.get_absolute_url(), "/categories/", "/categories/x/y"):
        assert "Two" in page(client, path) or path == "/categories/"


def test_an_unknown_author_is_not_found(client: Client) -> None:
    assert client.get("/authors/Nobody").status_code == 404
    assert client.get("/authors/a\x00b").status_code == 404


def test_of_many_authors_the_first_and_the_last_are_named(client: Client) -> None:
    make_frozen_edition(make_paper(authors=["Ada", "Bo", "Cy", "Di", "Ed"]), day=TODAY)
    body = page(client, "/")
    assert ">Ada</a>, 3 others and <a" in body
    assert ">Ed</a></p>" in body
    assert "Cy" not in body


def test_a_category_has_its_papers_by_day(client: Client) -> None:
    for back, codes in [(0, ["cs.LG"]), (1, ["stat.ML", "cs.LG"]), (1, ["cs.LGX"])]:
        make_paper(f"{back} {codes[0]}", categories=codes, listing_day=TODAY - timedelta(days=back))
    body = page(client, "/categories/cs.LG")
    assert headings(body) == ["0 cs.LG", "1 stat.ML"]
    assert "Machine Learning" in body
    assert body.index("Friday 20 November") < body.index("Thursday 19 November")


def test_a_known_category_without_papers_says_so_and_an_unknown_one_is_not_found(
    client: Client,
) -> None:
    assert "No paper of this category is known here yet." in page(client, "/categories/cs.LG")
    assert client.get("/categories/cs.XX").status_code == 404


def test_all_categories_are_named_with_their_sizes(client: Client) -> None:
    cache.clear()
    make_paper(categories=["cs.LG", "zoo"])
    make_paper(categories=["cs.LG"])
    body = page(client, "/categories/")
    assert re.search(r"<li><a [^>]*>cs.LG Machine Learning</a>&nbsp;<span[^>]*>2<", body)
    assert re.search(r">zoo</a>", body)
    assert re.search(r'<li class="none"><a [^>]*>quant-ph Quantum Physics</a></li>', body)


# --- A paper --------------------------------------------------------------------------------------


def test_a_papers_page_says_who_said_what(client: Client) -> None:
    paper = make_paper(
        arxiv_id="2611.00001",
        sources=["arxiv", "huggingface", "file"],
        summary="Short.",
        summary_source="huggingface",
        licence="http://creativecommons.org/licenses/by-sa/4.0/",
        versions=[{"number": 1, "on": "2026-11-02"}, {"number": 2, "on": None}],
    )
    paper.source_records.create(
        source="arxiv", record={"title": "T", "abstract": "A", "doi": ""}, seen_at=MORNING
    )
    make_signal(paper, 3)
    body = page(client, paper.get_absolute_url())
    assert 'href="https://arxiv.org/abs/2611.00001">arXiv</a>: title, abstract (metadata' in body
    assert 'href="https://huggingface.co/papers/2611.00001"' in body
    assert "Hugging Face Daily Papers</a>: summary, upvotes" in body
    assert "A file" in body
    assert ">CC BY-SA 4.0</a>" in body
    assert 'href="https://arxiv.org/abs/2611.00001v2">v2</a>' in body
    assert '<meta name="citation_author" content="Bo Berg">' in body


def test_of_thousands_of_authors_the_first_stand_above_the_abstract_and_all_below(
    client: Client,
) -> None:
    names = [f"Author {n} Longname" for n in range(3_000)]
    body = page(client, make_paper(authors=names).get_absolute_url())
    assert len(body) < 130_000
    above, below = body.split("<h2>Abstract</h2>")
    assert '>Author 19 Longname</a> and <a href="#authors">2980 others</a>' in above
    assert len(above) < 30_000
    assert "<summary>All 3000</summary>" in below
    assert all(f"{name}," in below for name in names[:-1])
    few = page(client, make_paper("Few", authors=names[:20]).get_absolute_url())
    assert few.count(names[19]) == 2  # for reading and for programs that cite
    assert "<summary>All" not in few


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("", "View on arXiv"),
        ("http://www.arxiv.org/abs/2611.00001", "View on arXiv"),
        ("https://openreview.net/forum?id=x", "View on OpenReview"),
        ("https://arxiv.org.example/x", "Source"),
        ("https://[", "Source"),
    ],
)
def test_the_link_to_a_papers_own_page_names_its_site(
    client: Client, address: str, said: str
) -> None:
    paper = make_paper(arxiv_id="2611.00001", url=address)
    assert f">{said}</a>" in page(client, paper.get_absolute_url())


def test_a_withdrawn_papers_page_says_so(client: Client) -> None:
    paper = make_paper(withdrawn_on=date(2026, 11, 3))
    assert "Its source withdrew this paper on" in page(client, paper.get_absolute_url())


def test_every_list_says_of_a_paper_that_it_was_withdrawn(client: Client) -> None:
    there = make_paper("There", categories=["cs.LG"])
    gone = make_paper("Gone", categories=["cs.LG"], withdrawn_on=TODAY)
    make_frozen_edition(there, gone, day=TODAY)
    for path in ("/", "/categories/cs.LG", "/authors/Ada%20Alvarez"):
        said = re.findall(
            r'<article>(<p class="mark bad">Withdrawn</p>)?<h2>.*?>(\w+)</a>', page(client, path)
        )
        assert {title: bool(mark) for mark, title in said} == {"There": False, "Gone": True}


def test_a_licence_that_is_no_address_of_the_web_is_no_link(client: Client) -> None:
    for licence in ("javascript:alert(1)", "creativecommons.org/licenses/by/4.0/"):
        paper = make_paper(licence=licence)
        assert f'href="{licence}"' not in page(client, paper.get_absolute_url())


def test_growth_is_plotted_once_a_counter_was_seen_twice(client: Client) -> None:
    paper = make_paper()
    make_signal(paper, 3, observed_at=MORNING - timedelta(days=2))
    assert "<svg" not in page(client, paper.get_absolute_url())
    make_signal(paper, 9, observed_at=MORNING - timedelta(days=1))
    make_signal(paper, 5, counter="stars", observed_at=MORNING)
    body = page(client, paper.get_absolute_url())
    assert body.count("<svg") == 1
    assert "Hugging Face Daily Papers: from 3 to 9." in body
    assert re.search(r'<th scope="row">19 Nov 2026</th><td>9</td>', body)


# --- Of every page --------------------------------------------------------------------------------


def test_no_page_has_a_style_or_a_script_of_its_own(client: Client) -> None:
    paper = make_paper(categories=["cs.LG"])
    for back in range(3):
        make_signal(paper, back, observed_at=MORNING - timedelta(days=3 - back))
    make_frozen_edition(paper, day=TODAY)
    for path in ("/", "/papers/top", paper.get_absolute_url(), "/authors/Bo Berg", "/categories/",
                 "/categories/cs.LG", "/subscribe/", "/status/", "/privacy/"):  # fmt: skip
        answer = client.get(path)
        body = answer.content.decode()
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert " style=" not in body
        assert "<style" not in body
        assert not re.search(r"<script(?! src=)| on\w+=", body)
        assert "Thank you to arXiv for use of its open access interoperability." in body


def test_an_error_page_keeps_to_the_policy_too() -> None:
    body = (settings.BASE_DIR / "config" / "templates" / "500.html").read_text()
    assert "<style" not in body


def test_robots_are_told_what_is_not_for_them(client: Client) -> None:
    answer = client.get("/robots.txt")
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert "Disallow: /admin/" in answer.content.decode()
