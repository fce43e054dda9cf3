"""What readers say of papers: by the links of a mail, and what it counts for."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.conf import settings as django_settings
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone

from newsletter import feedback, links, mail, subscriptions, votes
from newsletter.feedback import LIKED
from newsletter.links import InvalidLink, Purpose
from newsletter.models import MAX_INTERESTS, Feedback, Interest, Subscriber
from papers.models import Paper
from tests.factories import make_delivery, make_interest, make_paper, make_subscriber
from tests.newsletter.pages import feedback_page, page_of

pytestmark = pytest.mark.django_db

Kind = Feedback.Kind
KINDS = [Kind.MORE, Kind.LESS, Kind.SAVE]


def given_by(subscriber: Subscriber) -> list[tuple[str, str, str | None]]:
    rows = subscriber.feedback.order_by("id").values_list("kind", "paper__title", "interest__name")
    return list(rows)


def press(path: str, **button: str) -> HttpResponse:
    """Press a button of the page, as somebody who has no cookie of ours."""
    answer = Client(enforce_csrf_checks=True).post(path, button)
    assert isinstance(answer, HttpResponse)
    return answer


def text(answer: Any) -> str:
    return str(answer.content.decode())


def everything() -> list[object]:
    models = (Subscriber, Interest, Feedback)
    return [list(model.objects.order_by("pk").values()) for model in models]


@pytest.fixture
def alice() -> Subscriber:
    return make_subscriber("alice@example.org")


@pytest.fixture
def paper() -> Paper:
    return make_paper("Sparse graphs")


# --- The links of a mail --------------------------------------------------------------------------


def test_every_pick_of_a_mail_can_be_judged_by_its_links(alice: Subscriber) -> None:
    papers = [make_paper("One"), make_paper("Two")]
    delivery = make_delivery(alice, *papers)
    message = mail.compose(delivery)
    html = str(message.alternatives[0][0])
    pages = re.findall(r'href="http://testserver(/feedback/[^"?]+)\?kind=(more|less|save)"', html)
    assert len(pages) == 6
    for shown, titles in (("More like this", 2), ("Not interested", 2), ("Save", 2)):
        assert html.count(f">{shown}<") == titles
        assert str(message.body).count(shown) == titles
    for path, kind in pages:
        assert press(path, kind=kind).status_code == 200
    assert [kind for kind, _, _ in given_by(alice)] == ["less", "save"] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_asks_for_what_its_link_said(
    client: Client, alice: Subscriber, paper: Paper, kind: Kind
) -> None:
    page = text(client.get(feedback_page(make_delivery(alice, paper), paper) + f"?kind={kind}"))
    assert f'<button class="large" name="kind" value="{kind}">' in page
    for other in set(KINDS) - {kind}:
        assert f'<button class="plain small" name="kind" value="{other}">' in page
    assert "Sparse graphs" in page


@pytest.mark.parametrize("query", ["", "?kind=", "?kind=click", "?kind=<script>", "?kind=a&kind=b"])
def test_a_link_that_says_nothing_known_still_asks(
    client: Client, alice: Subscriber, paper: Paper, query: str
) -> None:
    answer = client.get(feedback_page(make_delivery(alice, paper), paper) + query)
    assert answer.status_code == 200
    assert "<script>" not in text(answer)


@pytest.mark.parametrize("method", ["get", "head", "options"])
@pytest.mark.parametrize(
    "query", ["?kind=more", "?kind=less", "?undo=more", "?kind=save&undo=less"]
)
def test_opening_the_link_writes_nothing(
    client: Client, alice: Subscriber, paper: Paper, method: str, query: str
) -> None:
    delivery = make_delivery(alice, paper)
    feedback.give(alice, paper, Kind.MORE)
    before = everything()
    assert getattr(client, method)(feedback_page(delivery, paper) + query).status_code == 200
    assert everything() == before


def test_the_page_is_kept_and_passed_on_by_nobody(
    client: Client, alice: Subscriber, paper: Paper
) -> None:
    answer = client.get(feedback_page(make_delivery(alice, paper), paper))
    assert answer["Referrer-Policy"] == "no-referrer"
    assert answer["Cache-Control"] == "no-store"
    assert not answer.cookies


def test_who_is_forwarded_a_mail_learns_no_address_and_no_settings(
    client: Client, alice: Subscriber, paper: Paper
) -> None:
    path = feedback_page(make_delivery(alice, paper), paper)
    for answer in (client.get(path), press(path, kind="more"), press(path, undo="more")):
        page = text(answer)
        assert "alice@example.org" not in page
        assert "/preferences/" not in page
        assert "/unsubscribe/" not in page
        assert str(alice.uuid) not in page


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Kind.MORE, "You want more like “Sparse graphs” for your subject “graph learning”."),
        (Kind.LESS, "You want fewer like “Sparse graphs” for your subject “graph learning”."),
        (Kind.SAVE, "“Sparse graphs” is saved for your subject “graph learning”."),
    ],
)
def test_a_button_notes_it_and_says_what_changed(
    alice: Subscriber, paper: Paper, kind: Kind, words: str
) -> None:
    delivery = make_delivery(alice, paper, interest=make_interest(alice, "graph learning"))
    page = text(press(feedback_page(delivery, paper), kind=kind))
    assert f"{words} It counts from your next mail on." in page
    assert f'name="undo" value="{kind}"' in page
    assert given_by(alice) == [(kind, "Sparse graphs", "graph learning")]


def test_it_can_be_undone_on_the_same_page(alice: Subscriber, paper: Paper) -> None:
    delivery = make_delivery(alice, paper, interest=make_interest(alice))
    path = feedback_page(delivery, paper)
    press(path, kind="less")
    for _ in range(2):  # twice is as good as once
        page = text(press(path, undo="less"))
        assert "Taken back" in page
        assert given_by(alice) == []


@pytest.mark.parametrize("button", [{}, {"kind": "click"}, {"kind": "drop"}, {"undo": "x\x00"}])
def test_a_button_that_is_none_of_the_page_s_notes_nothing(
    alice: Subscriber, paper: Paper, button: dict[str, str]
) -> None:
    delivery = make_delivery(alice, paper)
    before = everything()
    assert press(feedback_page(delivery, paper), **button).status_code == 200
    assert everything() == before


def test_names_are_shown_as_text(alice: Subscriber) -> None:
    evil = "<script>alert(1)</script>"
    paper = make_paper(evil, authors=[evil])
    delivery = make_delivery(alice, paper, interest=make_interest(alice, evil))
    path = feedback_page(delivery, paper)
    for page in (
        text(press(path, undo="more")),
        text(press(path, kind="more")),
        text(Client().get(page_of(alice, Purpose.PREFERENCES))),
    ):
        assert "<script>alert" not in page
        assert "&lt;script&gt;" in page


# --- Whose, and until when ------------------------------------------------------------------------


def test_a_link_for_feedback_opens_nothing_else(
    client: Client, alice: Subscriber, paper: Paper
) -> None:
    token = links.pick_token(make_delivery(alice, paper).uuid, paper.pk)
    for purpose in set(Purpose) - {Purpose.FEEDBACK}:
        with pytest.raises(InvalidLink):
            links.subscriber_of(token, purpose)
        assert client.post(f"/{purpose}/{token}/").status_code == 404


@pytest.mark.parametrize("purpose", Purpose)
def test_no_link_of_another_kind_is_one_for_feedback(
    client: Client, alice: Subscriber, paper: Paper, purpose: Purpose
) -> None:
    make_delivery(alice, paper)
    token = links.token(alice.uuid, purpose)
    assert client.post(f"/feedback/{token}/", {"kind": "more"}).status_code == 404
    assert not Feedback.objects.exists()


def test_alices_link_says_nothing_in_bobs_name(alice: Subscriber, paper: Paper) -> None:
    bob = make_subscriber("bob@example.org")
    of_alice = make_delivery(alice, paper)
    of_bob = make_delivery(bob, paper, edition=of_alice.edition)
    tokens = [links.pick_token(delivery.uuid, paper.pk) for delivery in (of_alice, of_bob)]
    forged = ".".join([tokens[1].split(".", 1)[0], tokens[0].split(".", 1)[1]])
    assert press(f"/feedback/{forged}/", kind="more").status_code == 404
    press(f"/feedback/{tokens[0]}/", kind="more")
    assert (alice.feedback.count(), bob.feedback.count()) == (1, 0)


def test_a_change_of_any_one_character_breaks_a_link(alice: Subscriber, paper: Paper) -> None:
    token = links.pick_token(make_delivery(alice, paper).uuid, paper.pk)
    for place, character in enumerate(token):
        tampered = token[:place] + ("A" if character != "A" else "B") + token[place + 1 :]
        with pytest.raises(InvalidLink):
            links.pick_of(tampered)


def test_a_link_works_to_its_last_day_and_then_says_that_it_expired(
    client: Client, alice: Subscriber, paper: Paper
) -> None:
    path = feedback_page(make_delivery(alice, paper), paper)
    now, days = timezone.now(), django_settings.PREFERENCES_LINK_DAYS
    with time_machine.travel(now + timedelta(days=days - 0.01), tick=False):
        assert client.get(path).status_code == 200
    with time_machine.travel(now + timedelta(days=days + 0.01), tick=False):
        answer = press(path, kind="more")
        assert answer.status_code == 410
        assert "expired" in text(answer)
    assert not Feedback.objects.exists()


def test_a_paper_that_was_not_in_the_mail_cannot_be_judged_by_it(
    alice: Subscriber, paper: Paper
) -> None:
    delivery = make_delivery(alice, paper)
    other = make_paper("Another")
    assert press(feedback_page(delivery, other), kind="more").status_code == 404


def test_whose_reader_was_erased_gets_a_friendly_page(alice: Subscriber, paper: Paper) -> None:
    path = feedback_page(make_delivery(alice, paper), paper)
    press(path, kind="more")
    subscriptions.erase(alice, way="test")
    assert not Feedback.objects.exists()
    answer = press(path, kind="more")
    assert answer.status_code == 410
    assert "no longer kept" in text(answer)
    assert not Feedback.objects.exists()


def test_a_paper_that_is_gone_gets_a_friendly_page(alice: Subscriber, paper: Paper) -> None:
    delivery = make_delivery(alice, paper)
    path = feedback_page(delivery, paper)
    paper.delete()
    answer = press(path, kind="more")
    assert answer.status_code == 410
    assert "no longer kept" in text(answer)


@pytest.mark.parametrize("state", [Subscriber.State.UNSUBSCRIBED, Subscriber.State.PENDING])
def test_who_has_left_teaches_no_more(
    alice: Subscriber, paper: Paper, state: Subscriber.State
) -> None:
    path = feedback_page(make_delivery(alice, paper), paper)
    Subscriber.objects.update(state=state, next_send_at=None)
    assert press(path, kind="more").status_code == 410
    assert not Feedback.objects.exists()


# --- What it counts for ---------------------------------------------------------------------------


def test_it_counts_for_the_interest_that_chose_the_paper(alice: Subscriber) -> None:
    papers = [make_paper("One"), make_paper("Two")]
    first, second = make_interest(alice, "first"), make_interest(alice, "second")
    delivery = make_delivery(alice, *papers, interest_ids=[second.pk, first.pk])
    for paper in papers:
        press(feedback_page(delivery, paper), kind="more")
    assert given_by(alice) == [("more", "One", "second"), ("more", "Two", "first")]


def test_liking_what_no_interest_chose_makes_a_subject_of_it_once(alice: Subscriber) -> None:
    make_interest(alice, "graphs")
    papers = [make_paper("One"), make_paper("Two")]
    delivery = make_delivery(alice, *papers)
    press(feedback_page(delivery, papers[0]), kind="more")
    press(feedback_page(delivery, papers[1]), kind="save")
    assert given_by(alice) == [("more", "One", LIKED), ("save", "Two", LIKED)]
    assert alice.interests.count() == 2


def test_disliking_what_no_interest_chose_counts_for_all(alice: Subscriber, paper: Paper) -> None:
    page = text(press(feedback_page(make_delivery(alice, paper), paper), kind="less"))
    assert "whatever the subject" in page
    assert given_by(alice) == [("less", "Sparse graphs", None)]
    assert not alice.interests.exists()


def test_with_all_the_subjects_there_can_be_the_first_learns(
    alice: Subscriber, paper: Paper
) -> None:
    for n in range(MAX_INTERESTS):
        make_interest(alice, f"subject {n}")
    press(feedback_page(make_delivery(alice, paper), paper), kind="more")
    assert given_by(alice) == [("more", "Sparse graphs", "subject 0")]
    assert alice.interests.count() == MAX_INTERESTS


@pytest.mark.parametrize("of", ["nobody", "bob"])
def test_an_interest_that_is_gone_or_not_hers_is_none(
    alice: Subscriber, paper: Paper, of: str
) -> None:
    interest = make_interest(make_subscriber("bob@example.org"), "of bob")
    delivery = make_delivery(alice, paper, interest=interest)
    if of == "nobody":
        interest.delete()
    press(feedback_page(delivery, paper), kind="more")
    assert given_by(alice) == [("more", "Sparse graphs", LIKED)]


def test_an_interest_of_another_reader_is_refused(alice: Subscriber, paper: Paper) -> None:
    interest = make_interest(make_subscriber("bob@example.org"))
    with pytest.raises(ValueError, match="another"):
        feedback.give(alice, paper, Kind.MORE, interest)
    assert not Feedback.objects.exists()


def test_more_and_less_take_each_other_back_and_saving_stands_beside(
    alice: Subscriber, paper: Paper
) -> None:
    interest = make_interest(alice)
    for kind in (Kind.SAVE, Kind.MORE, Kind.LESS, Kind.LESS):
        feedback.give(alice, paper, kind, interest)
    assert {kind for kind, _, _ in given_by(alice)} == {"save", "less"}
    feedback.give(alice, paper, Kind.MORE, interest)
    assert {kind for kind, _, _ in given_by(alice)} == {"save", "more"}


def test_who_thinks_better_of_it_keeps_no_empty_subject(alice: Subscriber, paper: Paper) -> None:
    feedback.give(alice, paper, Kind.MORE)
    feedback.give(alice, paper, Kind.LESS)
    assert given_by(alice) == [("less", "Sparse graphs", None)]
    assert not alice.interests.exists()


def test_an_interest_that_was_removed_meanwhile_is_none(alice: Subscriber, paper: Paper) -> None:
    interest = make_interest(alice)
    Interest.objects.all().delete()
    assert feedback.give(alice, paper, Kind.LESS, interest).interest is None


def test_the_moment_can_be_told(alice: Subscriber, paper: Paper) -> None:
    then = timezone.now() - timedelta(days=3)
    given = feedback.give(alice, paper, Kind.CLICK, now=then)
    assert (given.at, given.interest) == (then, None)


def test_undo_takes_the_subject_with_it_that_it_had_made(alice: Subscriber, paper: Paper) -> None:
    make_interest(alice, "graphs")
    feedback.give(alice, paper, Kind.MORE)
    assert feedback.undo(alice, paper, Kind.MORE)
    assert not feedback.undo(alice, paper, Kind.MORE)
    assert [interest.name for interest in alice.interests.all()] == ["graphs"]


def test_reset_forgets_one_interest_and_no_other(alice: Subscriber) -> None:
    first, second = make_interest(alice, "first"), make_interest(alice, "second")
    for interest in (first, second):
        for n in range(3):
            feedback.give(alice, make_paper(f"{interest} {n}"), Kind.MORE, interest)
    assert feedback.reset(first) == 3
    assert (first.feedback.count(), second.feedback.count()) == (0, 3)
    assert feedback.reset(first) == 0
    assert alice.interests.count() == 2


def test_removing_an_interest_removes_what_it_learned(alice: Subscriber, paper: Paper) -> None:
    interest = make_interest(alice)
    feedback.give(alice, paper, Kind.MORE, interest)
    interest.delete()
    assert not Feedback.objects.exists()


# --- On the page of the settings ------------------------------------------------------------------


def test_the_settings_show_what_was_learned_for_each_subject(
    client: Client, alice: Subscriber
) -> None:
    feedback.give(alice, make_paper("Liked"), Kind.MORE, make_interest(alice, "graphs"))
    feedback.give(alice, make_paper("Disliked"), Kind.LESS)
    bob = make_subscriber("bob@example.org")
    feedback.give(bob, make_paper("Of Bob"), Kind.SAVE)
    page = text(client.get(page_of(alice, Purpose.PREFERENCES)))
    learned = page[page.index('id="learned"') :]
    for expected in ("graphs", "Liked", "All subjects", "Disliked"):
        assert expected in learned
    assert "Of Bob" not in page


def test_a_subject_that_an_upvote_made_says_what_it_is(client: Client, alice: Subscriber) -> None:
    make_interest(alice, "graphs")
    address = page_of(alice, Purpose.PREFERENCES)
    assert "Made from your upvotes" not in text(client.get(address))
    votes.give(alice, make_paper())
    page = text(client.get(address))
    assert page.count("Made from your upvotes") == 1
    assert page.index("Subject 2: Papers you liked") < page.index("Made from your upvotes")


def test_a_judgement_is_undone_there(alice: Subscriber, paper: Paper) -> None:
    row = feedback.give(alice, paper, Kind.MORE, make_interest(alice))
    kept = feedback.give(alice, make_paper("Kept"), Kind.SAVE, row.interest)
    for _ in range(2):
        answer = press(page_of(alice, Purpose.PREFERENCES), undo=str(row.pk))
        assert answer.status_code == 200
        assert list(alice.feedback.all()) == [kept]
    assert alice.interests.count() == 1


def test_all_that_was_learned_for_a_subject_is_forgotten_there(alice: Subscriber) -> None:
    interest = make_interest(alice, "graphs")
    feedback.give(alice, make_paper("One"), Kind.MORE, interest)
    feedback.give(alice, make_paper("Two"), Kind.LESS)
    path = page_of(alice, Purpose.PREFERENCES)
    page = text(press(path, forget=str(interest.pk)))
    assert "What was learned for “graphs” is forgotten." in page
    assert given_by(alice) == [("less", "Two", None)]
    press(path, forget="general")
    assert given_by(alice) == []
    assert alice.interests.get().words == "graphs"


@pytest.mark.parametrize("button", ["undo", "forget"])
@pytest.mark.parametrize("number", ["{}", "{}\n", "-1", "0", "9" * 30, "x", "\x00", "١"])
def test_nobody_forgets_for_another_reader(
    alice: Subscriber, paper: Paper, button: str, number: str
) -> None:
    bob = make_subscriber("bob@example.org")
    row = feedback.give(bob, paper, Kind.MORE, make_interest(bob))
    before = everything()
    chosen = row.pk if button == "undo" else row.interest_id
    answer = press(page_of(alice, Purpose.PREFERENCES), **{button: number.format(chosen)})
    assert answer.status_code == 200
    assert everything() == before


def test_the_settings_ask_the_database_no_more_for_more_feedback(
    client: Client, alice: Subscriber, django_assert_max_num_queries: object
) -> None:
    interest = make_interest(alice)
    for n in range(30):
        feedback.give(alice, make_paper(f"Paper {n}"), Kind.MORE, interest)
    with django_assert_max_num_queries(12):  # type: ignore[operator]
        client.get(page_of(alice, Purpose.PREFERENCES))
