"""From the sign-up form to an active subscriber: the double opt-in."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.db import IntegrityError, connection, transaction
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from config.celery import app
from newsletter import subscriptions
from newsletter.links import Purpose
from newsletter.models import ConsentRecord, Interest, Subscriber, Suppression
from newsletter.picks import plan_everybody
from newsletter.subscriptions import ANSWER_LEASE, ONE_ANSWER_IN, Subject, send_answers
from tests.factories import make_frozen_edition, make_paper, make_subscriber
from tests.newsletter.pages import link_in, page_of, text_of
from tests.smtp import SmtpServer

pytestmark = pytest.mark.django_db

State = Subscriber.State
ALICE = "alice@example.org"


FORM = {"address": ALICE, "words": "", "time_zone": "UTC", "send_hour": "7"}


def sign_up(
    address: str = ALICE, *, client: Client | None = None, **fields: object
) -> HttpResponse:
    form = FORM | {"address": address} | fields
    answer = (client or Client()).post("/subscribe/", form)
    assert isinstance(answer, HttpResponse)
    return answer


def the(address: str = ALICE) -> Subscriber:
    return Subscriber.objects.get(address=address)


def subjects_of(messages: list[EmailMessage]) -> list[str]:
    return [str(message.subject) for message in messages]


def no_mail_server(settings: Settings) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = probe.getsockname()[1]
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", closed


def after(pause: timedelta) -> time_machine.travel:
    return time_machine.travel(timezone.now() + pause, tick=False)


# --- The whole way --------------------------------------------------------------------------------


def test_a_reader_signs_up_confirms_and_is_active(smtp: SmtpServer, client: Client) -> None:
    answer = sign_up(
        client=client,
        words="video diffusion",
        categories=["cs.CV", "cs.LG"],
        time_zone="Asia/Kolkata",
        send_hour="9",
    )
    assert answer.status_code == 302
    assert client.get(answer["Location"]).status_code == 200
    assert (the().state, the().next_send_at) == (State.PENDING, None)
    assert (the().time_zone, the().send_hour) == ("Asia/Kolkata", 9)
    interest = Interest.objects.get()
    assert (interest.words, interest.categories) == ("video diffusion", ["cs.CV", "cs.LG"])

    assert send_answers() == 1
    assert send_answers() == 0
    [message] = smtp.to(ALICE)
    body = message.get_body(("plain",))
    assert body is not None
    page = link_in(body.get_content(), Purpose.CONFIRM)

    shown = client.get(page)
    assert shown.status_code == 200
    assert "video diffusion" in shown.content.decode()
    assert the().state == State.PENDING
    assert client.post(page).status_code == 200
    alice = the()
    assert alice.state == State.ACTIVE
    assert alice.confirmed_at is not None
    assert alice.next_send_at is not None
    acts = list(ConsentRecord.objects.order_by("id").values_list("act", flat=True))
    assert acts == [ConsentRecord.Act.ASKED, ConsentRecord.Act.CONFIRMED]


@pytest.mark.parametrize("method", ["get", "head", "options"])
def test_opening_the_link_confirms_nothing_whoever_does_it(client: Client, method: str) -> None:
    alice = make_subscriber(state=State.PENDING)
    page = page_of(alice, Purpose.CONFIRM)
    before = Subscriber.objects.values().get()
    for _ in range(3):
        assert getattr(client, method)(page).status_code == 200
    assert Subscriber.objects.values().get() == before
    assert not ConsentRecord.objects.exists()


def test_confirming_twice_is_as_good_as_once(client: Client) -> None:
    page = page_of(make_subscriber(state=State.PENDING), Purpose.CONFIRM)
    assert client.post(page).status_code == 200
    first = the().confirmed_at
    assert client.post(page).status_code == 200
    assert the().confirmed_at == first


def test_confirming_needs_no_cookie() -> None:
    client = Client(enforce_csrf_checks=True)
    page = page_of(make_subscriber(state=State.PENDING), Purpose.CONFIRM)
    assert client.post(page).status_code == 200
    assert the().state == State.ACTIVE


def test_the_form_itself_is_protected_against_forged_posts() -> None:
    client = Client(enforce_csrf_checks=True)
    assert sign_up(client=client).status_code == 403
    assert not Subscriber.objects.exists()


# --- The same page whoever asks -------------------------------------------------------------------


def prepare(kind: str) -> None:
    match kind:
        case "pending":
            make_subscriber(state=State.PENDING)
        case "active":
            make_subscriber()
        case "paused":
            make_subscriber(state=State.PAUSED)
        case "unsubscribed":
            subscriptions.unsubscribe(make_subscriber(), way="test")
        case "complained":
            make_subscriber()
            subscriptions.suppress(ALICE, Suppression.Reason.COMPLAINT)
        case "erased":
            subscriptions.erase(make_subscriber(), way="test")


KINDS = ["new", "pending", "active", "paused", "unsubscribed", "complained", "erased"]


def test_nobody_learns_from_the_page_whether_an_address_is_known(
    mailoutbox: list[EmailMessage],
) -> None:
    seen = set()
    for kind in KINDS:
        with transaction.atomic():
            prepare(kind)
            client = Client()
            answer = sign_up(client=client, words="robots")
            page = client.get(answer["Location"])
            seen.add((answer.status_code, answer["Location"], answer.content, page.content))
            assert not client.cookies, kind
            assert mailoutbox == [], "the page itself never waits for a mail server"
            transaction.set_rollback(True)
    [(status, location, _, _)] = seen
    assert (status, location) == (302, "/subscribe/check-your-mail/")


@pytest.mark.parametrize(
    ("kind", "subject"),
    [
        ("new", "Please confirm"),
        ("pending", "Please confirm"),
        ("active", "subscribed to Paperround already"),
        ("paused", "subscribed to Paperround already"),
        ("unsubscribed", "Please confirm"),
        ("complained", None),
        ("erased", None),
    ],
)
def test_the_difference_is_told_by_mail_to_the_address_alone(
    kind: str, subject: str | None, mailoutbox: list[EmailMessage]
) -> None:
    prepare(kind)
    sign_up(words="robots")
    send_answers()
    assert [message.to for message in mailoutbox] == ([[ALICE]] if subject else [])
    assert all(subject in text for text in subjects_of(mailoutbox) if subject)
    assert not Subscriber.objects.filter(answer_due_at__isnull=False).exists()


@pytest.mark.parametrize("state", [State.ACTIVE, State.PAUSED])
def test_a_subscribed_address_keeps_its_settings_whoever_signs_it_up(
    state: Subscriber.State, mailoutbox: list[EmailMessage]
) -> None:
    make_subscriber(interests=("galaxies",), state=state, time_zone="Asia/Tokyo", send_hour=5)
    before = Subscriber.objects.values("state", "time_zone", "send_hour", "next_send_at").get()
    sign_up(words="something else", time_zone="Europe/Berlin", send_hour="20")
    assert Subscriber.objects.values(*before).get() == before
    assert [interest.words for interest in the().interests.all()] == ["galaxies"]
    send_answers()
    [message] = mailoutbox
    assert link_in(text_of(message), Purpose.PREFERENCES)
    assert link_in(text_of(message), Purpose.UNSUBSCRIBE)


def test_who_was_erased_is_not_kept_again_because_somebody_types_the_address() -> None:
    prepare("erased")
    sign_up(words="robots")
    send_answers()
    assert not Subscriber.objects.exists()


# --- One answer a day -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spelling",
    [
        "alice@example.org",
        "ALICE@EXAMPLE.ORG",
        "alice+papers@example.org",
        "a.l.i.c.e@example.org",
        "A.Lice+x+y@Example.Org",
    ],
)
def test_a_mailbox_gets_one_answer_a_day_however_it_is_spelled(
    spelling: str, mailoutbox: list[EmailMessage]
) -> None:
    sign_up()
    send_answers()
    sign_up(spelling)
    send_answers()
    assert len(mailoutbox) == 1
    with after(ONE_ANSWER_IN + timedelta(minutes=1)):
        sign_up(spelling)
        send_answers()
    assert len(mailoutbox) == 2


def test_all_spellings_at_once_get_one_answer_together(mailoutbox: list[EmailMessage]) -> None:
    for spelling in (ALICE, "alice+1@example.org", "alice+2@example.org", "al.ice@example.org"):
        sign_up(spelling)
    assert send_answers() == 1
    assert len(mailoutbox) == 1


def test_another_mailbox_is_not_kept_waiting(mailoutbox: list[EmailMessage]) -> None:
    sign_up()
    sign_up("bob@example.org")
    sign_up("alice@example.com")
    assert send_answers() == 3


def test_one_kind_of_mail_keeps_a_worker_no_longer_than_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subscriptions, "TURN", 0.1)
    claimed: list[datetime] = []
    sent: list[int] = []

    def claim(now: datetime) -> list[int] | None:
        time.sleep(0.01)
        claimed.append(now)
        return [] if len(claimed) % 2 else [len(claimed)]

    def send(number: int, server: BaseEmailBackend) -> bool:
        assert len(sent) < 50, "it does not end"
        sent.append(number)
        return True

    assert subscriptions.send_each(claim, send, "mails") == len(sent) > 0
    assert len(sent) == len(claimed) // 2, "nothing that is claimed stays behind"


def test_who_clicks_twice_while_the_answer_is_on_its_way_gets_one() -> None:
    sign_up()
    assert subscriptions._claim_answer(timezone.now()) == [the()]
    sign_up()
    assert subscriptions._claim_answer(timezone.now()) is None


@pytest.mark.django_db(transaction=True)
def test_two_workers_never_answer_two_spellings_of_a_mailbox() -> None:
    sign_up("alice+1@example.org")
    sign_up("alice+2@example.org")
    claimed = []

    def work() -> None:
        claimed.append(subscriptions._claim_answer(timezone.now()))
        connection.close()

    other = threading.Thread(target=work)
    with transaction.atomic():  # a worker that has claimed, and not committed yet
        assert subscriptions._claim_answer(timezone.now())
        other.start()
        other.join(timeout=0.3)
        assert other.is_alive(), "it waits to see what the first has claimed"
    other.join()
    assert claimed == [[]]


# --- What goes wrong on the way -------------------------------------------------------------------


def test_an_answer_that_a_lost_task_left_behind_is_sent_by_the_next_tick(
    mailoutbox: list[EmailMessage],
) -> None:
    sign_up()
    assert the().answer_due_at is not None
    with after(timedelta(hours=5)):
        assert send_answers() == 1
    assert len(mailoutbox) == 1
    assert the().answer_due_at is None


def test_an_answer_that_a_crash_interrupted_is_sent_after_its_lease(
    mailoutbox: list[EmailMessage],
) -> None:
    sign_up()
    assert subscriptions._claim_answer(timezone.now())
    assert send_answers() == 0
    with after(ANSWER_LEASE + timedelta(minutes=1)):
        assert send_answers() == 1


def test_without_a_mail_server_the_answers_stay_due_and_are_sent_later(
    settings: Settings, mailoutbox: list[EmailMessage]
) -> None:
    locmem = settings.EMAIL_BACKEND
    sign_up()
    sign_up("bob@example.org")
    no_mail_server(settings)
    assert send_answers() == 0
    assert all(subscriber.answer_due_at for subscriber in Subscriber.objects.all())

    settings.EMAIL_BACKEND = locmem
    with after(ANSWER_LEASE + timedelta(minutes=1)):
        assert send_answers() == 2
    assert sorted(message.to[0] for message in mailoutbox) == [ALICE, "bob@example.org"]


def test_a_refusal_for_now_is_tried_again_but_not_for_ever(smtp: SmtpServer) -> None:
    smtp.replies[ALICE] = "451 4.7.1 greylisted, come back"
    sign_up()
    sign_up("bob@example.org")
    assert send_answers() == 1
    assert smtp.count() == {"bob@example.org": 1}
    assert the().answer_due_at is not None

    Subscriber.objects.update(answer_due_at=timezone.now())
    ConsentRecord.objects.update(at=timezone.now() - ONE_ANSWER_IN)
    assert send_answers() == 0
    assert the().answer_due_at is None


def test_an_address_that_does_not_exist_is_not_asked_again(smtp: SmtpServer) -> None:
    smtp.replies[ALICE] = "550 5.1.1 no such user"
    sign_up()
    assert send_answers() == 0
    assert the().answer_due_at is None
    assert the().state == State.PENDING


def test_an_answer_that_may_have_arrived_is_not_sent_again_and_again(smtp: SmtpServer) -> None:
    smtp.after_data[ALICE] = "drop"
    sign_up()
    sign_up("bob@example.org")
    send_answers()
    Subscriber.objects.filter(answer_due_at__isnull=False).update(answer_due_at=timezone.now())
    send_answers()
    assert smtp.count() == {ALICE: 1, "bob@example.org": 1}


@pytest.fixture
def no_redis() -> Iterator[None]:
    """A broker that is away: a port nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = probe.getsockname()[1]
    with broker_at(f"redis://127.0.0.1:{closed}/0"):
        yield


@contextmanager
def broker_at(url: str) -> Iterator[None]:
    """Celery's producers connect to `url`, and to the tests' Redis again afterwards."""
    usual = app.conf.broker_url
    app.conf.update(broker_url=url)
    app._after_fork()  # type: ignore[attr-defined]  # it forgets its pools of connections
    yield
    app.conf.update(broker_url=usual)
    app._after_fork()  # type: ignore[attr-defined]


def test_the_page_works_while_redis_is_away(
    no_redis: None, client: Client, mailoutbox: list[EmailMessage]
) -> None:
    assert sign_up(client=client).status_code == 302
    assert send_answers() == 1
    page = link_in(text_of(mailoutbox[0]), Purpose.CONFIRM)
    assert client.post(page).status_code == 200
    assert the().state == State.ACTIVE


# --- Which addresses, zones and hours are taken ---------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("address", "", "required"),
        ("address", "alice", "valid e-?mail address"),
        ("address", "alice@", "valid e-?mail address|not a domain"),
        ("address", "@example.org", "valid e-?mail address"),
        ("address", "alice@example..org", "not a domain"),
        ("address", "alice@example.org, bob@example.org", "valid e-?mail address"),
        ("address", "alice@example.org\r\nBcc: eve@example.org", "valid e-?mail address|domain"),
        ("address", "al\x00ice@example.org", "Null characters"),
        ("address", "jürgen@example.org", "plain Latin letters"),
        ("address", "a" * 250 + "@example.org", "254"),
        ("time_zone", "Mars/Olympus", "valid choice"),
        ("time_zone", "", "required"),
        ("send_hour", "24", "valid choice"),
        ("send_hour", "-1", "valid choice"),
        ("send_hour", "noon", "valid choice"),
        ("categories", ["cs.NO"], "valid choice"),
        ("words", "x" * 10_001, "at most 10000"),
        ("words", "nul \x00 nul", "Null characters"),
    ],
)
def test_what_cannot_be_taken_is_refused_with_words(field: str, value: object, words: str) -> None:
    answer = Client().post("/subscribe/", FORM | {field: value})
    assert answer.status_code == 400
    assert re.search(words, answer.content.decode())
    assert not Subscriber.objects.exists()


def test_a_refused_form_keeps_what_was_typed() -> None:
    page = sign_up("alice", words="video diffusion", time_zone="Asia/Tokyo").content.decode()
    assert "video diffusion" in page
    assert re.search(r'value="Asia/Tokyo"\s+selected', page)


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("  alice@example.org  ", "alice@example.org"),
        ("alice@EXAMPLE.org", "alice@example.org"),
        ("Alice@example.org", "Alice@example.org"),
        ("alice@bücher.example", "alice@xn--bcher-kva.example"),
        ("o'brien+x@sub.example.co.uk", "o'brien+x@sub.example.co.uk"),
    ],
)
def test_an_address_is_kept_as_mail_servers_read_it(typed: str, kept: str) -> None:
    assert sign_up(typed).status_code == 302
    assert Subscriber.objects.get().address == kept


def test_addresses_are_unique_whatever_their_case() -> None:
    sign_up("Alice@Example.org")
    sign_up("aLICE@example.ORG")
    assert Subscriber.objects.count() == 1
    with pytest.raises(IntegrityError), transaction.atomic():
        make_subscriber("ALICE@EXAMPLE.ORG")


def test_a_second_sign_up_before_the_confirmation_replaces_the_first() -> None:
    sign_up(words="robots", time_zone="Asia/Tokyo")
    sign_up(words="galaxies", time_zone="Europe/Berlin", send_hour="6")
    assert [interest.words for interest in the().interests.all()] == ["galaxies"]
    assert (the().time_zone, the().send_hour) == ("Europe/Berlin", 6)


def test_no_stated_interest_is_fine() -> None:
    sign_up(words="   ")
    assert the().interests.count() == 0


def test_an_interest_of_categories_alone_is_named_by_them() -> None:
    sign_up(categories=["cs.CV", "math.ST"])
    assert Interest.objects.get().name == "cs.CV, math.ST"


def test_what_a_stranger_typed_is_not_in_the_mail_to_the_address(
    mailoutbox: list[EmailMessage],
) -> None:
    sign_up(words="Buy now at evil.example")
    send_answers()
    assert "evil.example" not in mailoutbox[0].message().as_string()


# --- Coming back ----------------------------------------------------------------------------------


def test_coming_back_after_unsubscribing_needs_a_new_double_opt_in(
    client: Client, mailoutbox: list[EmailMessage]
) -> None:
    alice = make_subscriber(interests=("galaxies",))
    old_link = page_of(alice, Purpose.CONFIRM)
    subscriptions.unsubscribe(alice, way="test")
    assert client.post(old_link).status_code == 410
    assert the().state == State.UNSUBSCRIBED

    sign_up(words="robots")
    assert (the().state, the().next_send_at) == (State.PENDING, None)
    send_answers()
    [message] = mailoutbox
    client.post(link_in(text_of(message), Purpose.CONFIRM))
    assert the().state == State.ACTIVE
    assert [interest.words for interest in the().interests.all()] == ["robots"]


def test_a_suppressed_address_cannot_be_confirmed(client: Client) -> None:
    page = page_of(make_subscriber(state=State.PENDING), Purpose.CONFIRM)
    subscriptions.suppress(ALICE, Suppression.Reason.OPERATOR)
    assert client.post(page).status_code == 410
    assert the().state == State.PENDING


# --- The first mail -------------------------------------------------------------------------------

NOON_IN_BERLIN = datetime(2026, 11, 20, 11, 0, tzinfo=UTC)


def confirm_at(moment: datetime, *, zone: str, hour: int) -> datetime | None:
    with time_machine.travel(moment, tick=False):
        pending = make_subscriber(state=State.PENDING, time_zone=zone, send_hour=hour)
        assert subscriptions.confirm(pending)
    return the().next_send_at


def test_who_confirms_after_today_s_slot_gets_today_s_edition_at_once() -> None:
    with time_machine.travel(NOON_IN_BERLIN - timedelta(hours=7), tick=False):
        make_frozen_edition(make_paper())
    assert confirm_at(NOON_IN_BERLIN, zone="Europe/Berlin", hour=7) == NOON_IN_BERLIN


def test_who_confirms_before_today_s_slot_waits_for_it() -> None:
    with time_machine.travel(NOON_IN_BERLIN - timedelta(hours=7), tick=False):
        make_frozen_edition(make_paper())
    slot = confirm_at(NOON_IN_BERLIN, zone="Europe/Berlin", hour=18)
    assert slot == NOON_IN_BERLIN + timedelta(hours=6)


def test_who_confirms_without_a_current_edition_waits_for_the_next_slot() -> None:
    with time_machine.travel(NOON_IN_BERLIN - timedelta(hours=25), tick=False):
        make_frozen_edition(make_paper())
    slot = confirm_at(NOON_IN_BERLIN, zone="Europe/Berlin", hour=7)
    assert slot == NOON_IN_BERLIN + timedelta(hours=19)


def test_two_sign_ups_of_a_new_address_at_once_make_one_subscriber() -> None:
    for words in ("robots", "galaxies"):
        subscriptions.subscribe(ALICE, [Subject(words=words)], time_zone="UTC", send_hour=7)
    assert Subscriber.objects.count() == 1


def test_who_leaves_and_comes_back_the_same_day_gets_no_second_edition() -> None:
    edition = make_frozen_edition(make_paper())
    alice = make_subscriber(send_hour=timezone.now().hour)
    plan_everybody(edition, timezone.now())
    subscriptions.unsubscribe(alice, way="test")
    Subscriber.objects.update(state=Subscriber.State.PENDING)
    assert subscriptions.confirm(Subscriber.objects.get())
    due = Subscriber.objects.get().next_send_at
    assert due is not None
    assert due > timezone.now()


def test_the_box_on_each_page_leads_to_the_whole_form(client: Client) -> None:
    assert client.get("/subscribe/start/")["Location"] == "/subscribe/"
    page = client.post("/subscribe/start/", {"address": "alice@example.org"})
    assert page.status_code == 200
    assert 'value="alice@example.org"' in page.content.decode()
    assert "What interests you" in page.content.decode()
    assert not Subscriber.objects.exists()


def test_a_sign_up_that_nobody_confirms_is_forgotten(settings: Settings) -> None:
    past = timezone.now() - timedelta(days=settings.CONFIRMATION_DAYS + 2)
    make_subscriber("new@example.org", state=Subscriber.State.PENDING, answered_at=past)
    make_subscriber("fresh@example.org", state=Subscriber.State.PENDING, answered_at=timezone.now())
    make_subscriber(
        "gone@example.org",
        state=Subscriber.State.PENDING,
        answered_at=past,
        unsubscribed_at=past,
    )
    subscriptions.forget_unconfirmed(timezone.now())
    assert dict(Subscriber.objects.values_list("address", "state")) == {
        "fresh@example.org": "pending",
        "gone@example.org": "unsubscribed",
    }
