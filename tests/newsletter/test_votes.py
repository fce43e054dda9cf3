"""Readers' upvotes: one each, told to the trend as a Signal, and a lesson for their own mail."""

from __future__ import annotations

import threading
from datetime import UTC, date, datetime, timedelta
from functools import partial
from urllib.parse import urlencode

import numpy as np
import pytest
import time_machine
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from newsletter import feedback, subscriptions, votes
from newsletter.links import Purpose
from newsletter.models import Feedback, Subscriber, Vote
from papers import editions
from papers.about import about
from papers.editions import newest_counts, readers_votes
from papers.models import EditionPaper, Paper, Signal
from papers.trending import MOST_LIFT, VOTES_TO_HALF, lifted
from tests.factories import (
    make_delivery,
    make_frozen_edition,
    make_interest,
    make_paper,
    make_signal,
    make_subscriber,
)
from tests.newsletter.pages import in_thread, page_of, signed_in, until_blocked

pytestmark = pytest.mark.django_db

MORE = Feedback.Kind.MORE
NOON = datetime(2026, 11, 20, 12, 10, tzinfo=UTC)


def readers(count: int) -> list[Subscriber]:
    return [make_subscriber(f"reader{n}@example.org") for n in range(count)]


def told(paper: Paper) -> list[tuple[datetime, int]]:
    rows = Signal.objects.filter(paper=paper, source="paperround").order_by("observed_at")
    return list(rows.values_list("observed_at", "value"))


# --- By the page ----------------------------------------------------------------------------------


def test_a_reader_upvotes_and_takes_it_back(client: Client) -> None:
    paper = make_paper()
    signed_in(client, make_subscriber())
    where = paper.get_absolute_url()
    assert 'aria-pressed="false"' in client.get(where).content.decode()
    answer = client.post(f"/votes/{paper.uuid}/", {"vote": "1", "next": where})
    assert answer["Location"] == f"{where}#vote-{paper.uuid}"
    assert 'aria-pressed="true"' in client.get(where).content.decode()
    assert Vote.objects.count() == 1
    client.post(f"/votes/{paper.uuid}/", {"vote": "0", "next": where})
    assert 'aria-pressed="false"' in client.get(where).content.decode()
    assert not Vote.objects.exists()


def test_pressing_twice_is_as_good_as_once(client: Client) -> None:
    paper = make_paper()
    signed_in(client, make_subscriber())
    for _ in range(2):
        assert client.post(f"/votes/{paper.uuid}/", {"vote": "1"}).status_code == 302
    assert Vote.objects.count() == 1
    for _ in range(2):
        assert client.post(f"/votes/{paper.uuid}/", {"vote": "0"}).status_code == 302
    assert not Vote.objects.exists()


def test_no_get_votes(client: Client) -> None:
    paper = make_paper()
    signed_in(client, make_subscriber())
    for ask in (client.get, client.head):
        assert ask(f"/votes/{paper.uuid}/?vote=1").status_code == 405
    assert not Vote.objects.exists()


def test_a_vote_is_protected_against_forged_posts() -> None:
    client = signed_in(Client(enforce_csrf_checks=True), make_subscriber())
    assert client.post(f"/votes/{make_paper().uuid}/").status_code == 403
    assert not Vote.objects.exists()


def test_who_is_not_signed_in_is_led_there_and_votes_nothing(client: Client) -> None:
    paper = make_paper()
    answer = client.post(f"/votes/{paper.uuid}/", {"next": "/papers/2026-11-20"})
    assert answer["Location"] == f"/sign-in/?next=%2Fpapers%2F2026-11-20&vote={paper.uuid}"
    form = client.get(answer["Location"]).content.decode()
    assert "<h1>Sign in to upvote</h1>" in form
    assert f'name="next" value="/papers/2026-11-20#up-{paper.uuid}"' in form
    assert not Vote.objects.exists()


def test_a_paper_that_is_not_there_is_not_found(client: Client) -> None:
    signed_in(client, make_subscriber())
    answer = client.post("/votes/00000000-0000-0000-0000-000000000000/")
    assert answer.status_code == 404


def test_a_visitor_sees_the_number_and_the_way_to_sign_in(client: Client) -> None:
    paper = make_paper()
    for reader in readers(3):
        votes.give(reader, paper)
    page = client.get(paper.get_absolute_url()).content.decode()
    assert '<form id="votes" action="/sign-in/" hidden>' in page
    assert f'name="next" value="{paper.get_absolute_url()}"' in page
    assert f'<button form="votes" name="vote" value="{paper.uuid}">3</button>' in page
    assert "aria-pressed" not in page


def test_a_list_says_once_what_pressing_is_for_to_who_is_not_signed_in(client: Client) -> None:
    for day in (1, 2):
        make_paper(f"Paper {day}", categories=["cs.LG"], listing_day=date(2026, 11, day))
    make_frozen_edition(*Paper.objects.all())
    how = "press one to sign in and add yours."
    for path in ("/", "/papers/top", "/categories/cs.LG", "/search?q=paper"):
        assert client.get(path).content.decode().count(how) == 1
    signed_in(client, make_subscriber())
    assert how not in client.get("/").content.decode()


def test_signing_in_for_an_upvote_leads_back_to_the_papers_place(client: Client) -> None:
    paper, alice = make_paper(), make_subscriber()
    there = {"next": "/papers/top?page=2", "vote": str(paper.uuid)}
    form = client.get("/sign-in/", there).content.decode()
    assert "<h1>Sign in to upvote</h1>" in form
    place = f"/papers/top?page=2#up-{paper.uuid}"
    assert f'name="next" value="{place}"' in form
    client.post(f"/sign-in/?{urlencode(there)}", {"next": place, "address": alice.address})
    answer = client.post(page_of(alice, Purpose.SIGN_IN))
    assert answer["Location"] == place
    assert client.get("/sign-in/", there)["Location"] == place
    assert not Vote.objects.exists()
    hint = f'<i id="up-{paper.uuid}">Press ▲ to upvote.</i>'
    where = paper.get_absolute_url()
    assert hint in client.get(where).content.decode()
    votes.give(alice, paper)
    assert hint not in client.get(where).content.decode()


@pytest.mark.parametrize("vote", ["", "x", "\r\nSet-Cookie: a=b", "//evil.example", "٣" * 36])
def test_what_is_no_papers_name_leads_to_no_place(client: Client, vote: str) -> None:
    form = client.get("/sign-in/", {"next": "/papers/top", "vote": vote}).content.decode()
    assert "<h1>Sign in</h1>" in form
    assert 'name="next" value="/papers/top"' in form


def test_a_page_asks_no_more_for_many_papers_than_for_one(client: Client) -> None:
    papers = [make_paper(f"Paper {n}", categories=["cs.LG"]) for n in range(12)]
    edition = make_frozen_edition(*papers)
    alice, bob = readers(2)
    for paper in papers[:5]:
        votes.give(alice, paper)
    votes.give(bob, papers[0])
    paths = [edition.get_absolute_url(), "/papers/top", "/categories/cs.LG"]
    anonymous = [queries_of(client, path)[0] for path in paths]
    signed_in(client, alice)
    for path, before in zip(paths, anonymous, strict=True):
        queries, page = queries_of(client, path)
        assert queries == before + 2  # the session, and its reader with what they upvoted
        assert page.count('aria-pressed="true"') == 5
        assert page.count('aria-pressed="false"') == 7
        assert page.count('aria-label="2 upvotes: ') == 1
        assert page.count('id="votes"') == 1
    assert anonymous[0] + 2 <= 5


def queries_of(client: Client, path: str) -> tuple[int, str]:
    with CaptureQueriesContext(connection) as queries:
        page = client.get(path).content.decode()
        return len(queries), page


# --- One each -------------------------------------------------------------------------------------


def test_the_database_itself_takes_one_vote_of_a_reader() -> None:
    alice, paper = make_subscriber(), make_paper()
    Vote.objects.create(subscriber=alice, paper=paper)
    with pytest.raises(IntegrityError), transaction.atomic():
        Vote.objects.create(subscriber=alice, paper=paper)


@pytest.mark.django_db(transaction=True)
def test_votes_at_once_are_all_counted_and_a_reader_s_once() -> None:
    paper, other = make_paper(), make_paper("Another")
    alice, *others = readers(6)
    start = threading.Barrier(9)
    failed: list[BaseException] = []

    def work(reader: Subscriber, papers: list[Paper]) -> None:
        try:
            start.wait()
            for one in papers:
                votes.give(reader, one)
        except BaseException as error:
            failed.append(error)
        finally:
            connection.close()

    jobs = [(reader, [paper, other]) for reader in others] + [(alice, [paper, other])] * 2
    jobs += [(alice, [other, paper])] * 2
    threads = [threading.Thread(target=work, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    for one in (paper, other):
        assert Vote.objects.filter(paper=one).count() == 6
        assert told(one)[-1][1] == 6


# --- As a Signal ----------------------------------------------------------------------------------


def test_the_votes_of_an_hour_are_one_signal_that_is_true_at_its_end() -> None:
    paper = make_paper()
    alice, bob, carol = readers(3)
    with time_machine.travel(NOON, tick=False):
        votes.give(alice, paper)
        votes.give(bob, paper)
        votes.take_back(alice, paper)
    with time_machine.travel(NOON + timedelta(hours=2), tick=False):
        votes.give(carol, paper)
    one, three = NOON.replace(hour=13, minute=0), NOON.replace(hour=15, minute=0)
    assert told(paper) == [(one, 1), (three, 2)]
    assert readers_votes([paper.pk], NOON).tolist() == [0]
    assert readers_votes([paper.pk], one).tolist() == [1]
    assert readers_votes([paper.pk], three).tolist() == [2]


def test_erasing_a_reader_takes_their_votes_out_of_the_count() -> None:
    papers = [make_paper(f"Paper {n}") for n in range(3)]
    alice, bob = readers(2)
    for paper in papers:
        votes.give(alice, paper)
    votes.give(bob, papers[0])
    subscriptions.erase(alice, way="test")
    assert [told(paper)[-1][1] for paper in papers] == [1, 0, 0]


def test_unsubscribing_leaves_the_votes() -> None:
    alice, paper = make_subscriber(), make_paper()
    votes.give(alice, paper)
    subscriptions.unsubscribe(alice, way="test")
    assert told(paper)[-1][1] == 1


# --- In the trend ---------------------------------------------------------------------------------


def trends(edition_day: datetime) -> dict[str, float]:
    edition = editions.open_edition(edition_day.date())
    editions.freeze(edition, timezone.now())
    rows = EditionPaper.objects.select_related("paper")
    return {row.paper.title: row.trend for row in rows}


def test_a_handful_of_votes_here_orders_the_uncounted_and_overtakes_no_leader() -> None:
    with time_machine.travel(NOON, tick=False):
        for n in range(20):
            make_signal(make_paper(f"Counted {n}", categories=["cs.LG"]), 5 * n)
        make_paper("Never", categories=["cs.LG"])
        once, often = (make_paper(name, categories=["cs.LG"]) for name in ("Once", "Often"))
        cast = readers(4)
        votes.give(cast[0], once)
        for reader in cast:
            votes.give(reader, often)
    with time_machine.travel(NOON + timedelta(hours=1), tick=False):
        found = trends(NOON)
    assert found["Never"] == 0.5
    assert found["Never"] < found["Once"] < found["Often"] < found["Counted 19"]
    row = EditionPaper.objects.get(paper=often)
    assert row.trend_terms["votes"]["count"] == 4
    assert row.trend_terms["votes"]["lift"] == pytest.approx(row.trend - 0.5, abs=1e-3)


def test_votes_here_are_no_part_of_the_counters_of_other_sources() -> None:
    with time_machine.travel(NOON, tick=False):
        paper, uncounted = make_paper(), make_paper("Uncounted")
        make_signal(paper, 3)
        for reader in readers(5):
            votes.give(reader, paper)
            votes.give(reader, uncounted)
    counts, _ = newest_counts([paper.pk, uncounted.pk], "upvotes", NOON + timedelta(hours=3))
    assert counts[0] == 3
    assert np.isnan(counts[1])


def test_more_votes_never_lower_a_score_and_none_change_nothing() -> None:
    score = np.array([0.0, 0.2, 0.5, 0.9, 1.0])
    assert lifted(score, np.zeros(5)).tolist() == score.tolist()
    previous = score
    for count in (1, 2, 10, 1000, 10**9):
        now = lifted(score, np.full(5, float(count)))
        assert (now >= previous).all()
        assert (now <= score + MOST_LIFT * (1 - score) + 1e-12).all()
        previous = now
    half = lifted(score, np.full(5, float(VOTES_TO_HALF)))
    assert half == pytest.approx(score + MOST_LIFT / 2 * (1 - score))


# --- As a judgement -------------------------------------------------------------------------------


def test_an_upvote_also_asks_for_more_and_taking_it_back_takes_that_back() -> None:
    alice, paper = make_subscriber(), make_paper()
    votes.give(alice, paper)
    assert alice.feedback.get().kind == MORE
    votes.take_back(alice, paper)
    assert not alice.feedback.exists()
    assert not alice.interests.exists()


def test_an_upvote_counts_for_the_subject_that_brought_the_paper() -> None:
    alice, paper = make_subscriber(), make_paper()
    make_interest(alice, "galaxies")
    graphs = make_interest(alice, "graphs")
    make_delivery(alice, paper, interest=graphs)
    votes.give(alice, paper)
    assert alice.feedback.get().interest == graphs


def test_an_upvote_takes_back_what_was_said_against_the_paper() -> None:
    alice, paper = make_subscriber(), make_paper()
    feedback.give(alice, paper, Feedback.Kind.LESS)
    votes.give(alice, paper)
    assert [row.kind for row in alice.feedback.all()] == [MORE]


def test_an_upvote_taken_back_leaves_what_was_said_in_a_mail() -> None:
    alice, paper = make_subscriber(), make_paper()
    galaxies, graphs = make_interest(alice, "galaxies"), make_interest(alice, "graphs")
    feedback.give(alice, paper, MORE, galaxies)
    make_delivery(alice, paper, interest=graphs)
    votes.give(alice, paper)
    assert alice.feedback.get().interest == galaxies
    votes.take_back(alice, paper)
    assert alice.feedback.get().interest == galaxies


def test_what_is_said_in_a_mail_after_an_upvote_stays_when_that_is_taken_back() -> None:
    alice, paper = make_subscriber(), make_paper()
    graphs = make_interest(alice, "graphs")
    votes.give(alice, paper)
    feedback.give(alice, paper, MORE, graphs)
    votes.take_back(alice, paper)
    assert alice.feedback.get().interest == graphs


# --- One number -----------------------------------------------------------------------------------


def test_every_page_says_the_same_number_of_upvotes(client: Client) -> None:
    paper = make_paper("Graphs", categories=["cs.LG"], authors=["Ada Alvarez"])
    edition = make_frozen_edition(paper)
    alice, bob = readers(2)
    votes.give(alice, paper)
    votes.give(bob, paper)
    # What pages read, whatever else there is: nothing may come between two of them.
    Signal.objects.filter(source="paperround").update(value=7)
    paths = [
        edition.get_absolute_url(), "/papers/top", "/categories/cs.LG", "/authors/Ada%20Alvarez",
        "/search?q=graphs", paper.get_absolute_url(),
    ]  # fmt: skip
    for path in paths:
        assert ">7</button>" in client.get(path).content.decode(), path
    assert 'aria-label="7 upvotes: ' in signed_in(client, alice).get("/reader/").content.decode()


def test_a_list_of_papers_asks_for_their_votes_once(client: Client) -> None:
    paper = make_paper("Graphs", categories=["cs.LG"])
    make_frozen_edition(paper)
    for path in ("/papers/top", "/categories/cs.LG"):
        with CaptureQueriesContext(connection) as queries:
            client.get(path)
        asked = [query["sql"] for query in queries if "newest.value" in query["sql"]]
        assert len(asked) == 1, path
        assert not any("newsletter_vote" in query["sql"] for query in queries)


@pytest.mark.django_db(transaction=True)
def test_who_waited_over_the_hour_writes_no_hour_that_is_over() -> None:
    paper = make_paper()
    alice, bob = readers(2)
    with time_machine.travel(NOON.replace(minute=59), tick=False) as clock:
        with transaction.atomic():
            votes.give(alice, paper)
            waiting = in_thread(lambda: votes.give(bob, paper))
            until_blocked(waiting)
            clock.shift(timedelta(minutes=2))
        waiting.join()
    assert told(paper) == [
        (NOON.replace(hour=13, minute=0), 1),
        (NOON.replace(hour=14, minute=0), 2),
    ]


@pytest.mark.django_db(transaction=True)
def test_a_vote_waits_for_no_harvest_that_writes_the_paper() -> None:
    alice, paper = make_subscriber(), make_paper()
    with transaction.atomic():
        Paper.objects.select_for_update(no_key=True).get()
        for vote in (votes.give, votes.take_back):
            voting = in_thread(partial(vote, alice, paper))
            voting.join(5)
            assert not voting.is_alive()
    assert [count for _, count in told(paper)] == [0]


def test_no_count_of_the_future_is_shown(client: Client) -> None:
    paper = make_paper()
    alice, bob = readers(2)
    with time_machine.travel(NOON - timedelta(hours=5), tick=False):
        votes.give(alice, paper)
    with time_machine.travel(NOON, tick=False):
        votes.give(bob, paper)
        told_by_api = client.get(f"/api/v1/papers/{paper.uuid}/signals").json()["signals"]
        [drawn] = about(paper).plots
    assert told_by_api[0]["observed_at"] == "2026-11-20T12:10:00Z"
    assert told_by_api[1]["observed_at"] == "2026-11-20T08:00:00Z"
    assert drawn.until == NOON
