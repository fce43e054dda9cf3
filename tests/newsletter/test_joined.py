"""A paper that turned out to be another one: what readers said and were sent is of the one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import transaction
from django.test import Client
from django.utils import timezone

from newsletter import (
    candidates,
    feedback,
    links,
    mail,
    picks_feed,
    submissions,
    subscriptions,
    votes,
)
from newsletter.batch import Batch
from newsletter.explaining import explain, find_paper, why_not
from newsletter.models import Delivery, Feedback, Subscriber, Vote
from newsletter.references import look_up, read
from papers import editions
from papers.joining import absorb, lock_editions
from papers.models import Paper, Signal
from tests.factories import (
    make_delivery,
    make_frozen_edition,
    make_interest,
    make_paper,
    make_subscriber,
)
from tests.newsletter.pages import in_thread, signed_in, until_blocked

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


@pytest.mark.parametrize(("of_kept", "of_gone"), [(3, 1), (1, 3), (2, 2), (0, 2), (2, 0)])
def test_the_plot_of_votes_does_not_fall_by_a_join(
    kept: Paper, gone: Paper, of_kept: int, of_gone: int
) -> None:
    now = timezone.now()
    for paper, count, hours in ((kept, of_kept, 50), (gone, of_gone, 40)):
        for number in range(count):
            reader = make_subscriber(f"{paper.pk}-{number}@example.org")
            Vote.objects.create(subscriber=reader, paper=paper)
        if count:
            votes.tell([paper.pk], now - timedelta(hours=hours))
    join(kept, gone)
    told = kept.signals.filter(source="paperround").order_by("observed_at")
    values = list(told.values_list("value", flat=True))
    assert values == [max(of_kept, of_gone), of_kept + of_gone]
    assert Signal.objects.count() == 2


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


# --- At the same moment ---------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("say", "said"),
    [
        (votes.give, {"click", "more", "vote"}),
        (votes.take_back, {"click"}),
        (lambda alice, gone: feedback.give(alice, gone, Kind.SAVE), {"click", "save"}),
        (lambda alice, gone: feedback.undo(alice, gone, Kind.CLICK), set()),
        (lambda alice, gone: submissions.submit(alice, gone.arxiv_id), {"click", "submission"}),
    ],
)
def test_what_a_reader_says_of_a_paper_that_just_goes_is_said_of_the_other(
    alice: Subscriber, kept: Paper, say: Callable[[Subscriber, Paper], object], said: set[str]
) -> None:
    gone = make_paper("Kites: the preprint", arxiv_id="2611.00001")
    feedback.give(alice, gone, Kind.CLICK)
    if say == votes.take_back:
        votes.give(alice, gone)
    with transaction.atomic():
        absorb(kept, gone)
        saying = in_thread(lambda: say(alice, gone))
        until_blocked(saying)
    saying.join()
    kinds = set(alice.feedback.filter(paper=kept).values_list("kind", flat=True))
    kinds |= {"vote"} if alice.votes.filter(paper=kept).exists() else set()
    kinds |= {"submission"} if alice.submissions.filter(paper=kept).exists() else set()
    assert kinds == said


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "say", [votes.give, lambda alice, kept: feedback.give(alice, kept, Kind.SAVE)]
)
def test_a_join_waits_for_a_reader_who_just_says_something(
    alice: Subscriber, kept: Paper, gone: Paper, say: Callable[[Subscriber, Paper], object]
) -> None:
    for reader in (alice, make_subscriber("bob@example.org")):
        votes.give(reader, gone)
        feedback.give(reader, gone, Kind.SAVE)
    with transaction.atomic():
        say(alice, kept)
        joining = in_thread(lambda: join(kept, gone))
        until_blocked(joining)
    joining.join()
    assert Paper.objects.get() == kept
    assert votes.of_papers([kept.pk]) == {kept.pk: 2}
    assert alice.feedback.filter(kind=Kind.SAVE).count() == 1


def lock_as_a_harvest(*papers: Paper) -> None:
    """As a page of records does that may show them to be one."""
    ids = [paper.pk for paper in papers]
    lock_editions(ids)
    list(Paper.objects.filter(pk__in=ids).order_by("pk").select_for_update(no_key=True))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("opened", [True, False])
def test_an_editor_who_accepts_what_is_just_joined_waits(
    alice: Subscriber, kept: Paper, *, opened: bool
) -> None:
    gone = make_paper("Kites: the preprint", arxiv_id="2611.00001")
    if opened:
        editions.open_edition(timezone.now().date())
    row = submissions.submit(alice, "2611.00001")
    with transaction.atomic():
        lock_as_a_harvest(kept, gone)
        accepting = in_thread(lambda: submissions.accept(row, timezone.now()))
        until_blocked(accepting)
        absorb(kept, gone)
    accepting.join()
    row.refresh_from_db()
    assert (row.paper, row.state) == (kept, "accepted")
    assert kept.candidacies.get().edition.is_open


@pytest.mark.django_db(transaction=True)
def test_a_reader_who_is_erased_while_their_papers_are_joined_waits(
    alice: Subscriber, kept: Paper
) -> None:
    gone = make_paper("Kites: the preprint", arxiv_id="2611.00001")
    submissions.accept(submissions.submit(alice, "2611.00001", shown_name="Al"), timezone.now())
    for paper in (kept, gone):
        votes.give(alice, paper)
    with transaction.atomic():
        lock_as_a_harvest(kept, gone)
        erasing = in_thread(lambda: subscriptions.erase(alice, way="test"))
        until_blocked(erasing)
        absorb(kept, gone)
    erasing.join()
    assert not Subscriber.objects.exists()
    assert Signal.objects.filter(source="paperround").latest("observed_at").value == 0


@pytest.mark.django_db(transaction=True)
def test_a_reader_who_changes_subjects_and_a_join_wait_in_turn(
    alice: Subscriber, kept: Paper, gone: Paper
) -> None:
    removed, changed = make_interest(alice, "kites"), make_interest(alice, example_ids=[gone.pk])
    feedback.give(alice, kept, Kind.LESS, removed)
    feedback.give(alice, gone, Kind.MORE, changed)
    with transaction.atomic():  # as subscriptions.change does
        removed.delete()
        joining = in_thread(lambda: join(kept, gone))
        until_blocked(joining)
        alice.interests.update(words="wind")
    joining.join()
    assert alice.interests.get().example_ids == [kept.pk]
    assert alice.feedback.get().paper == kept
