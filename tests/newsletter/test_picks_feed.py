"""The private feed of a reader's picks: valid Atom, for who has its address."""

from __future__ import annotations

from datetime import date, timedelta
from urllib.parse import urlsplit
from xml.etree import ElementTree

import pytest
import time_machine
from defusedxml.ElementTree import fromstring
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from newsletter import links, subscriptions
from newsletter.links import Purpose
from newsletter.models import Delivery, Subscriber
from newsletter.picks_feed import MAILS
from papers.feeds import MOST_AUTHORS
from papers.models import EditionPaper, Paper
from tests.factories import (
    make_delivery,
    make_frozen_edition,
    make_interest,
    make_paper,
    make_subscriber,
)
from tests.newsletter.pages import signed_in

pytestmark = pytest.mark.django_db

ATOM = "{http://www.w3.org/2005/Atom}"


def path_of(reader: Subscriber) -> str:
    reader.refresh_from_db()
    return urlsplit(links.numbered_url(reader, Purpose.FEED)).path


def get(reader: Subscriber, **headers: str) -> HttpResponse:
    answer = Client().get(path_of(reader), headers=headers)
    assert isinstance(answer, HttpResponse)
    return answer


def feed_of(reader: Subscriber) -> ElementTree.Element:
    answer = get(reader)
    assert answer.status_code == 200
    root: ElementTree.Element = fromstring(answer.content, forbid_dtd=True)
    return root


def entries_of(reader: Subscriber) -> list[ElementTree.Element]:
    return feed_of(reader).findall(f"{ATOM}entry")


def text_in(element: ElementTree.Element, name: str) -> str:
    found = element.findtext(f"{ATOM}{name}")
    assert found is not None
    return found


def _delivery_of(reader: Subscriber, day: int, *papers: Paper) -> Delivery:
    edition = make_frozen_edition(*papers, day=date(2025, 1, 1) + timedelta(days=day))
    return make_delivery(reader, *papers, edition=edition)


def test_the_picks_of_a_reader_s_mails_with_their_reasons() -> None:
    alice = make_subscriber()
    interest = make_interest(alice, "graphs")
    paper = make_paper(
        "Graphs that forget",
        abstract="We forget graphs. It works.",
        authors=["Ada Alvarez", "Bo Berg"],
        categories=["cs.LG", "stat.ML"],
    )
    make_delivery(alice, paper, interest=interest, sentences=[1])
    [entry] = entries_of(alice)
    assert text_in(entry, "title") == "Graphs that forget"
    summary = text_in(entry, "summary")
    assert "Matches your interest: graphs." in summary
    assert "It works." in summary
    assert [one.findtext(f"{ATOM}name") for one in entry.findall(f"{ATOM}author")] == [
        "Ada Alvarez",
        "Bo Berg",
    ]
    assert [one.get("term") for one in entry.findall(f"{ATOM}category")] == ["cs.LG", "stat.ML"]
    links = {link.get("rel"): link.get("href") for link in entry.findall(f"{ATOM}link")}
    assert links["alternate"] == f"http://testserver/paper/{paper.uuid}"


def test_a_feed_has_what_atom_asks_for() -> None:
    alice = make_subscriber()
    for day in range(3):
        _delivery_of(alice, day, make_paper(f"Paper {day}", authors=[]))
    root = feed_of(alice)
    for element in (root, *root.findall(f"{ATOM}entry")):
        for name in ("id", "title", "updated"):
            assert text_in(element, name)
        assert text_in(element, "id").startswith("urn:uuid:")
        updated = parse_datetime(text_in(element, "updated"))
        assert updated is not None
        assert updated.tzinfo is not None
    assert root.find(f"{ATOM}author") is not None  # for entries that name none
    relations = {link.get("rel"): link.get("href") for link in root.findall(f"{ATOM}link")}
    assert str(relations["self"]).endswith(".atom")
    ids = [text_in(entry, "id") for entry in root.findall(f"{ATOM}entry")]
    assert len(set(ids)) == 3
    assert ids == [text_in(entry, "id") for entry in entries_of(alice)]


def test_nothing_in_it_names_the_reader() -> None:
    alice = make_subscriber("alice@example.org", name="Alice Example")
    make_delivery(alice, make_paper())
    text = get(alice).content.decode()
    assert "alice" not in text.lower()
    assert str(alice.uuid) not in text


def test_what_xml_cannot_hold_does_not_break_it() -> None:
    alice = make_subscriber()
    poison = "A\x0b\x1b\x01\ufffe\u2028 <b>&amp; ]]> title"
    paper = make_paper(
        poison, abstract=f"{poison}. More \x08.", authors=[poison], categories=["cs.\x02LG"]
    )
    make_delivery(alice, paper, sentences=[0])
    [entry] = entries_of(alice)
    assert text_in(entry, "title") == "A <b>&amp; ]]> title"
    assert "&lt;b&gt;" in text_in(entry, "summary")


def test_what_an_editor_hides_is_gone_from_it() -> None:
    alice, paper = make_subscriber(), make_paper()
    make_delivery(alice, paper)
    assert len(entries_of(alice)) == 1
    EditionPaper.objects.update(curation=EditionPaper.Curation.HIDDEN)
    assert entries_of(alice) == []


def test_a_mail_that_was_not_made_is_not_in_it() -> None:
    alice, paper = make_subscriber(), make_paper()
    make_delivery(alice, paper, state=Delivery.State.SUPPRESSED)
    assert entries_of(alice) == []


def test_a_long_history_costs_as_many_queries_as_a_short_one() -> None:
    alice = make_subscriber()

    def add(day: int) -> None:
        _delivery_of(alice, day, make_paper(f"Paper {day}"), make_paper(f"More {day}"))

    add(0)
    with CaptureQueriesContext(connection) as short:
        get(alice)
        few = len(short)
    for day in range(1, MAILS + 5):
        add(day)
    with CaptureQueriesContext(connection) as long:
        assert get(alice).content.count(b"<entry>") == 2 * MAILS
        assert len(long) == few


# --- Who reads it ---------------------------------------------------------------------------------


def test_an_address_is_stable_and_needs_no_cookie() -> None:
    alice = make_subscriber()
    path = path_of(alice)
    with time_machine.travel(timezone.now() + timedelta(days=400)):
        assert path_of(alice) == path
    answer = get(alice)
    assert answer.status_code == 200
    assert not answer.cookies


def test_it_is_for_one_reader_and_no_index_and_no_shared_cache() -> None:
    alice = make_subscriber()
    make_delivery(alice, make_paper())
    etag = get(alice)["ETag"]
    for answer in (get(alice), get(alice, **{"If-None-Match": etag})):
        assert answer["X-Robots-Tag"] == "noindex"
        assert answer["Referrer-Policy"] == "no-referrer"
        assert "private" in answer["Cache-Control"]
    assert get(alice)["Content-Type"] == "application/atom+xml; charset=utf-8"


def test_who_has_the_newest_gets_it_not_again() -> None:
    alice = make_subscriber()
    make_delivery(alice, make_paper())
    first = get(alice)
    again = get(alice, **{"If-None-Match": first["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert get(alice, **{"If-Modified-Since": first["Last-Modified"]}).status_code == 304
    make_paper("Something else")
    delivery = Delivery.objects.get()
    delivery.reason_details = ["other"]
    delivery.reasons = [Delivery.Reason.WORDS]
    delivery.save()
    changed = get(alice, **{"If-None-Match": first["ETag"]})
    assert changed.status_code == 200


def test_conditions_for_writing_are_not_those_of_a_reader() -> None:
    alice = make_subscriber()
    make_delivery(alice, make_paper())
    old = "Mon, 01 Jan 2001 00:00:00 GMT"
    for headers in ({"If-Match": '"x"'}, {"If-Unmodified-Since": old}):
        assert get(alice, **headers).status_code == 200


def test_a_new_address_ends_the_old_one(client: Client) -> None:
    alice = make_subscriber()
    old = path_of(alice)
    signed_in(client, alice)
    page = client.post("/reader/", {"renew": "feed"}, follow=True).content.decode()
    assert path_of(alice) in page
    assert old not in page
    assert Client().get(old).status_code == 410
    assert get(alice).status_code == 200


def test_garbage_is_not_found() -> None:
    answer = Client().get("/feeds/picks/garbage.atom")
    assert answer.status_code == 404
    assert answer["Referrer-Policy"] == "no-referrer"


def test_a_paused_reader_is_told_so_in_an_entry() -> None:
    alice = make_subscriber(state=Subscriber.State.PAUSED)
    make_delivery(alice, make_paper("Earlier"))
    assert [text_in(entry, "title") for entry in entries_of(alice)] == [
        "Your mail is paused",
        "Earlier",
    ]


def test_the_entry_of_a_pause_stays_the_same_one() -> None:
    alice = make_subscriber(state=Subscriber.State.PAUSED)
    make_delivery(alice, make_paper())
    before = text_in(entries_of(alice)[0], "id")
    Delivery.objects.update(planned_at=timezone.now() + timedelta(hours=1))
    assert text_in(entries_of(alice)[0], "id") == before


def test_of_a_thousand_authors_the_first_are_named() -> None:
    alice = make_subscriber()
    make_delivery(alice, make_paper(authors=[f"Author {n}" for n in range(1000)]))
    [entry] = entries_of(alice)
    names = [one.findtext(f"{ATOM}name") for one in entry.findall(f"{ATOM}author")]
    assert len(names) == MOST_AUTHORS + 1
    assert names[-1] == f"and {1000 - MOST_AUTHORS} others"


def test_no_entry_is_newer_than_its_feed() -> None:
    alice, paper = make_subscriber(), make_paper()
    make_delivery(alice, paper)
    Paper.objects.update(updated_at=timezone.now() + timedelta(hours=1))
    root = feed_of(alice)
    [entry] = root.findall(f"{ATOM}entry")
    assert text_in(entry, "updated") <= text_in(root, "updated")


@pytest.mark.parametrize("left", ["unsubscribed", "erased"])
def test_who_left_has_no_feed_any_more(left: str) -> None:
    alice = make_subscriber()
    path = path_of(alice)
    if left == "erased":
        subscriptions.erase(alice, way="test")
    else:
        subscriptions.unsubscribe(alice, way="test")
    assert Client().get(path).status_code == 410
