"""A paper that turned out to be another one: what readers said and were sent is of the one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import transaction
from django.test import Client
from django.utils import timezone

from newsletter import candidates, feedback, links, mail, picks_feed, subscriptions, votes
from newsletter.batch import Batch
from newsletter.explaining import explain, find_paper, why_not
from newsletter.models import Delivery, Feedback, Subscriber
from newsletter.references import look_up, read
from papers.joining import absorb
from papers.models import Paper, Signal
from tests.factories import (
    make_delivery,
    make_frozen_edition,
    make_interest,
    make_paper,
    make_subscriber,
)
from tests.newsletter.pages import signed_in

pytestmark = pytest.mark.django_db

Kind = Feedback.Kind


@pytest.fixture
def alice() -> Subscriber:
    return make_subscriber()


@pytest.fixture
def kept() -> Paper:
    return make_paper("Kites in the wind")


@pytest.fixture
def gone() -> Paper:
    return make_paper("Kites in the wind: the journal version")


def join(kept: Paper, gone: Paper) -> None:
    with transaction.atomic():
        absorb(kept, gone)


def test_each_reader_s_vote_is_counted_once(alice: Subscriber, kept: Paper, gone: Paper) -> None:
    votes.give(alice, kept)
    for reader in (alice, make_subscriber("bob@example.org")):
        votes.give(reader, gone)
    join(kept, gone)
    assert votes.of_papers([kept.pk]) == {kept.pk: 2}
    assert Signal.objects.get(paper=kept, source="paperround").value == 2
    votes.take_back(alice, kept)
    assert Signal.objects.get(paper=kept, source="paperround").value == 1


def test_judgements_are_kept_and_the_newer_of_more_and_less(
    alice: Subscriber, kept: Paper, gone: Paper
) -> None:
    bob, now = make_subscriber("bob@example.org"), timezone.now()
    feedback.give(alice, gone, Kind.SAVE)
    feedback.give(alice, kept, Kind.LESS, now=now - timedelta(days=1))
    feedback.give(alice, gone, Kind.MORE, now=now)
    feedback.give(bob, kept, Kind.LESS, now=now)
    feedback.give(bob, gone, Kind.MORE, now=now - timedelta(days=1))
    join(kept, gone)
    said = set(Feedback.objects.values_list("subscriber", "paper", "kind"))
    assert said == {
        (alice.pk, kept.pk, "save"), (alice.pk, kept.pk, "more"), (bob.pk, kept.pk, "less"),
    }  # fmt: skip


def test_submissions_and_examples_name_the_paper_that_stays(
    alice: Subscriber, kept: Paper, gone: Paper
) -> None:
    other = make_paper("Something else")
    own = alice.submissions.create(arxiv_id="2611.00001", paper=gone)
    interest = make_interest(alice, example_ids=[gone.pk, other.pk, kept.pk])
    join(kept, gone)
    own.refresh_from_db()
    interest.refresh_from_db()
    assert own.paper == kept
    assert interest.example_ids == [kept.pk, other.pk]


def test_a_link_in_an_old_mail_judges_the_paper_that_stays(
    alice: Subscriber, kept: Paper, gone: Paper
) -> None:
    interest = make_interest(alice)
    delivery = make_delivery(alice, gone, interest=interest)
    path = urlsplit(links.pick_url(delivery.uuid, gone.pk)).path
    join(kept, gone)
    answer = Client().post(path, {"kind": "more"})
    assert answer.status_code == 200
    given = Feedback.objects.get()
    assert (given.paper, given.interest) == (kept, interest)


def test_an_old_page_s_button_votes_for_the_paper_that_stays(
    alice: Subscriber, kept: Paper, gone: Paper, client: Client
) -> None:
    interest = make_interest(alice)
    make_delivery(alice, gone, interest=interest)
    join(kept, gone)
    signed_in(client, alice)
    assert client.post(f"/votes/{gone.uuid}/").status_code == 302
    assert client.post("/votes/00000000-0000-4000-8000-000000000000/").status_code == 404
    assert alice.votes.get().paper == kept
    assert alice.feedback.get().interest == interest  # its mail was for it


def test_a_mail_that_is_planned_holds_the_paper_once(
    alice: Subscriber, kept: Paper, gone: Paper
) -> None:
    edition = make_frozen_edition(kept, gone)
    both = make_delivery(alice, gone, kept, edition=edition)
    one = make_delivery(make_subscriber("bob@example.org"), gone, edition=edition)
    join(kept, gone)
    for delivery in (both, one):
        delivery.refresh_from_db()
        assert [pick.paper for pick in mail.picks_of(delivery)] == [kept]
    assert str(mail.compose(one).body).count(kept.title) == 1
    one.refresh_from_db()
    assert one.paper_ids == [gone.pk]  # as it was planned


def test_what_was_sent_is_told_by_the_paper_that_stays(
    alice: Subscriber, kept: Paper, gone: Paper
) -> None:
    other = make_paper("Something else")
    reasons: dict[str, Any] = {
        "reasons": [Delivery.Reason.NEW, Delivery.Reason.LIKED],
        "reason_details": ["", str(gone.pk)],
    }
    delivery = make_delivery(alice, gone, other, **reasons)
    join(kept, gone)
    picks = subscriptions.export(alice)["mails"][0]["picks"]
    assert [pick["paper"] for pick in picks] == [kept.title, other.title]
    assert kept.title in picks[1]["reason"]
    assert kept.title in picks_feed.feed_of(alice)[0].content.decode()
    found = Delivery.objects.get(pk=delivery.pk)
    assert [pick.title for pick in explain(found).picks] == [kept.title, other.title]
    assert why_not(Delivery.objects.get(pk=delivery.pk), kept).verdict == "picked"
    assert find_paper(str(gone.pk)) == find_paper(str(gone.uuid)) == kept
    assert look_up(read(f"https://example.org/paper/{gone.uuid}")) == ([kept.pk], [])


def test_what_a_reader_was_shown_by_its_old_name_is_not_shown_again(
    alice: Subscriber, kept: Paper, gone: Paper
) -> None:
    earlier = make_frozen_edition(gone, day=timezone.now().date() - timedelta(days=1))
    make_delivery(alice, gone, edition=earlier, state="sent", sent_at=timezone.now())
    edition = make_frozen_edition(kept, make_paper("Something else"))
    join(kept, gone)
    edition.refresh_from_db()
    batch = Batch(candidates.today(edition), edition, [alice], timezone.now())
    place = batch.today.pool.paper_ids.tolist().index(kept.pk)
    assert batch.known == {(0, place): "shown before"}
    answer = why_not(make_delivery(alice, edition=edition), kept)
    assert answer.verdict == "shown"
