"""A delivery's states, against a real SMTP server."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from threading import Event, Thread
from typing import Any

import pytest
import time_machine
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, User
from django.db import IntegrityError, OperationalError, connection, transaction
from django.db.models import Max
from django.test import Client, RequestFactory
from django.utils import timezone
from pytest_django import Settings

from newsletter import delivery, events, picks, provider, sending, subscriptions
from newsletter.bounces import Class
from newsletter.delivery import MOVES, move, send_planned
from newsletter.models import Alert, Delivery, DeliveryEvent, Subscriber, Suppression
from newsletter.sending import Walk
from papers import editions
from papers.models import Edition, EditionPaper
from tests.factories import make_frozen_edition, make_paper, make_subscriber
from tests.newsletter.test_provider import Server, use
from tests.plans import analyse, rows_touched
from tests.smtp import SmtpServer

pytestmark = pytest.mark.django_db

State = Delivery.State


def planned_for(*addresses: str) -> Edition:
    edition = make_frozen_edition(make_paper("First of the day"), make_paper("Second of the day"))
    for address in addresses:
        make_subscriber(address)
    picks.plan_everybody(edition, timezone.now())
    return edition


class OnRecipient(dict[str, str]):
    """A mail server's reply to a recipient; before it is given, something happens elsewhere."""

    def __init__(self, reply: str, work: Callable[[], object]) -> None:
        self.reply, self.work = reply, work

    def get(self, address: str, default: str = "") -> str:  # type: ignore[override]
        def alone() -> None:
            try:
                self.work()
            finally:
                connection.close()

        thread = Thread(target=alone)
        thread.start()
        thread.join()
        return self.reply


@contextmanager
def provider_answering(status: int) -> Iterator[str]:
    """A provider's API on loopback that answers every request with `status`."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b'{"message": "no"}')

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v3"
    server.shutdown()
    thread.join()
    server.server_close()


def send_by_mailgun_at(url: str, settings: Settings) -> None:
    settings.EMAIL_BACKEND = "anymail.backends.mailgun.EmailBackend"
    settings.ANYMAIL = {
        "MAILGUN_API_KEY": "key", "MAILGUN_SENDER_DOMAIN": "x.example", "MAILGUN_API_URL": url,
    }  # fmt: skip


def the_delivery(address: str = "alice@example.org") -> Delivery:
    return Delivery.objects.get(subscriber__address=address)


def test_what_is_planned_is_sent_once(smtp: SmtpServer) -> None:
    planned_for("alice@example.org", "bob@example.org")
    tally = send_planned()
    assert (tally.sent, tally.failed, tally.unknown) == (2, 0, 0)
    assert send_planned().sent == 0
    assert smtp.count() == {"alice@example.org": 1, "bob@example.org": 1}
    assert the_delivery().state == State.SENT
    assert the_delivery().sent_at is not None


def test_a_refusal_for_good_fails_one_delivery_and_not_the_run(smtp: SmtpServer) -> None:
    planned_for("alice@example.org", "bob@example.org")
    smtp.replies["alice@example.org"] = "550 5.1.1 no such user"
    tally = send_planned()
    assert (tally.sent, tally.failed) == (1, 1)
    assert the_delivery().state == State.FAILED
    assert "no such user" in the_delivery().error


def test_a_refusal_for_now_is_tried_again_later_with_the_same_message_id(
    smtp: SmtpServer,
) -> None:
    planned_for("alice@example.org")
    smtp.replies["alice@example.org"] = "451 4.7.1 greylisted, come back"
    assert send_planned().later == 1
    waiting = the_delivery()
    assert waiting.state == State.PLANNED
    assert waiting.not_before is not None
    assert waiting.not_before > timezone.now()
    assert send_planned().sent == 0

    smtp.replies.clear()
    Delivery.objects.update(not_before=timezone.now())
    assert send_planned().sent == 1
    [message] = smtp.messages
    assert message["Message-ID"] == f"<{waiting.uuid}@testserver>"


def test_after_many_tries_it_fails(smtp: SmtpServer, settings: Settings) -> None:
    settings.SEND_MAX_ATTEMPTS = 2
    planned_for("alice@example.org")
    smtp.replies["alice@example.org"] = "451 4.7.1 come back"
    for _ in range(2):
        Delivery.objects.update(not_before=None)
        send_planned()
    assert the_delivery().state == State.FAILED


def test_a_connection_lost_after_the_final_dot_leaves_it_unknown_and_the_next_is_sent(
    smtp: SmtpServer,
) -> None:
    planned_for("alice@example.org", "bob@example.org")
    smtp.after_data["alice@example.org"] = "drop"
    tally = send_planned()
    assert (tally.unknown, tally.sent) == (1, 1)
    assert the_delivery().state == State.UNKNOWN
    assert send_planned().sent == 0
    assert smtp.count()["alice@example.org"] == 1


def test_a_server_that_hangs_up_after_each_mail_loses_none(smtp: SmtpServer) -> None:
    readers = [f"reader{n}@example.org" for n in range(6)]
    planned_for(*readers)
    smtp.hangs_up_after_each = True
    tally = send_planned()
    assert (tally.sent, tally.unknown) == (6, 0)
    assert smtp.count() == dict.fromkeys(readers, 1)


def test_an_address_that_no_header_can_hold_fails_alone(smtp: SmtpServer) -> None:
    """None gets in by the forms; one that did must not stop the others."""
    planned_for('"a\x0bBcc: eve@example.org"@example.org', "bob@example.org")
    tally = send_planned()
    assert tally.sent >= 1
    assert tally.sent + tally.failed == 2
    assert smtp.count()["bob@example.org"] == 1
    assert all("Bcc" not in message for message in smtp.messages)


class WorkerGone(BaseException):
    """What nobody catches: the worker's end."""


@contextmanager
def killing(address: str) -> Iterator[None]:
    """Whoever reads the interests of this reader, which composing does, dies of it."""
    reader = Subscriber.objects.get(address=address).pk

    def die(execute: Callable[..., object], sql: str, params: Any, *rest: Any) -> object:
        if 'FROM "newsletter_interest"' in sql and reader in params:
            raise WorkerGone
        return execute(sql, params, *rest)

    with connection.execute_wrapper(die):
        yield


def test_what_kills_each_worker_that_composes_it_ends_as_failed_and_holds_up_nobody(
    smtp: SmtpServer, settings: Settings
) -> None:
    settings.SEND_MAX_ATTEMPTS = 3
    planned_for("alice@example.org", "bob@example.org", "carol@example.org")
    lives = 0
    with killing("bob@example.org"):
        while Delivery.objects.filter(state__in=[State.PLANNED, State.CLAIMED]).exists():
            with suppress(WorkerGone):
                send_planned()
            lives += 1
            assert lives < 10
            Delivery.objects.filter(state=State.CLAIMED).update(lease_until=timezone.now())
    assert smtp.count() == {"alice@example.org": 1, "carol@example.org": 1}
    assert the_delivery("bob@example.org").state == State.FAILED
    assert "was lost" in the_delivery("bob@example.org").error
    assert lives == 1 + 3 + 1  # with all of them, with it alone, and the one that gives it up
    assert the_delivery("alice@example.org").attempts == 1


def test_what_was_only_claimed_by_workers_that_were_lost_is_not_tried(smtp: SmtpServer) -> None:
    planned_for("alice@example.org", "bob@example.org")
    for _ in range(12):
        Delivery.objects.update(state=State.CLAIMED, lease_until=timezone.now())
        delivery.recover(timezone.now())
    assert set(Delivery.objects.values_list("state", "attempts")) == {(State.PLANNED, 0)}
    assert send_planned().sent == 2
    assert set(Delivery.objects.values_list("attempts", "error")) == {(1, "")}


def test_a_late_success_settles_what_was_taken_for_unknown(smtp: SmtpServer) -> None:
    planned_for("alice@example.org")
    lease = timezone.now()
    one = the_delivery()
    Delivery.objects.update(state=State.HANDED_OVER, handed_over_at=lease, lease_until=lease)
    delivery.recover(timezone.now())
    assert move(one, State.UNKNOWN, State.SENT, sent_at=timezone.now())


@pytest.mark.parametrize(
    ("reply", "state"),
    [
        ("250 2.0.0 kept", State.SENT),
        ("252 kept", State.SENT),
        ("2.0.0 Ok queued", State.UNKNOWN),
        ("354 go on", State.UNKNOWN),
        ("600 kept", State.UNKNOWN),
        ("250 " + "long " * 4000, State.UNKNOWN),
        ("451 4.3.0 come back", State.PLANNED),
        ("421 4.3.2 come back", State.PLANNED),
        ("554 5.7.1 no", State.FAILED),
    ],
)
def test_only_what_says_no_after_the_final_dot_is_a_refusal(
    smtp: SmtpServer, reply: str, state: str
) -> None:
    planned_for("alice@example.org", "bob@example.org")
    smtp.after_data["alice@example.org"] = reply
    tally = send_planned()
    assert the_delivery().state == state
    assert the_delivery("bob@example.org").state == State.SENT
    assert tally.sent + tally.failed + tally.later + tally.unknown == 2


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("reply", "state"), [("451 greylisted", State.PLANNED), ("550 5.1.1 no", State.FAILED)]
)
def test_a_late_refusal_settles_what_was_taken_for_unknown(
    smtp: SmtpServer, reply: str, state: str
) -> None:
    planned_for("alice@example.org")
    smtp.replies = OnRecipient(reply, lambda: delivery.recover(later))
    later = timezone.now() + timedelta(hours=1)
    tally = send_planned()
    assert (the_delivery().state, the_delivery().lease_until) == (state, None)
    assert (tally.later, tally.failed) == (state == State.PLANNED, state == State.FAILED)
    assert reply.partition(" ")[2] in the_delivery().error


@pytest.mark.django_db(transaction=True)
def test_a_late_refusal_says_nothing_of_a_later_hand_over(smtp: SmtpServer) -> None:
    planned_for("alice@example.org")
    others = timezone.now() + timedelta(hours=1)
    smtp.replies = OnRecipient(
        "451 come back",
        lambda: Delivery.objects.update(
            state=State.UNKNOWN, handed_over_at=others, lease_until=None
        ),
    )
    tally = send_planned()
    assert the_delivery().state == State.UNKNOWN
    assert tally == delivery.Tally()


@pytest.mark.parametrize(
    ("status", "state"),
    [(401, State.PLANNED), (429, State.PLANNED), (400, State.FAILED), (500, State.UNKNOWN)],
)
def test_a_providers_answer_is_told_apart(settings: Settings, status: int, state: str) -> None:
    with provider_answering(status) as url:
        send_by_mailgun_at(url, settings)
        planned_for("alice@example.org")
        send_planned()
    assert the_delivery().state == state


def test_a_provider_that_cannot_be_reached_is_tried_again(settings: Settings) -> None:
    with provider_answering(200) as url:
        send_by_mailgun_at(url, settings)
    planned_for("alice@example.org")
    send_planned()
    assert the_delivery().state == State.PLANNED


def test_with_no_mail_server_everything_stays_planned(settings: Settings) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = probe.getsockname()[1]
    settings.EMAIL_BACKEND = "newsletter.smtp.SmtpBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", closed
    planned_for("alice@example.org", "bob@example.org")
    assert send_planned().later == 2
    assert {d.state for d in Delivery.objects.all()} == {State.PLANNED}
    assert {d.attempts for d in Delivery.objects.all()} == {0}
    assert "no connection to the mail server" in the_delivery().error
    assert send_planned().later == 2  # asked again by the next run, and at no later time


def test_a_worker_that_died_before_handing_over_costs_nothing(smtp: SmtpServer) -> None:
    planned_for("alice@example.org")
    Delivery.objects.update(state=State.CLAIMED, lease_until=timezone.now())
    assert send_planned().sent == 1


def test_a_worker_that_died_while_handing_over_leaves_it_unknown(smtp: SmtpServer) -> None:
    planned_for("alice@example.org")
    now = timezone.now()
    Delivery.objects.update(state=State.HANDED_OVER, handed_over_at=now, lease_until=now)
    assert send_planned().sent == 0
    assert the_delivery().state == State.UNKNOWN


def test_a_paper_that_cannot_be_composed_fails_its_deliveries_only(smtp: SmtpServer) -> None:
    planned_for("alice@example.org", "bob@example.org")
    Delivery.objects.filter(subscriber__address="alice@example.org").update(sections=[99, 99])
    tally = send_planned()
    assert (tally.failed, tally.sent) == (1, 1)
    assert "99" in the_delivery().error


@pytest.mark.parametrize(
    "leave",
    [
        lambda reader: subscriptions.unsubscribe(reader, way="test"),
        lambda reader: subscriptions.suppress(reader.address, Suppression.Reason.OPERATOR),
    ],
)
def test_who_left_since_the_planning_gets_nothing(
    smtp: SmtpServer, leave: Callable[[Subscriber], None]
) -> None:
    planned_for("alice@example.org")
    leave(Subscriber.objects.get())
    assert send_planned().dropped == 1
    assert the_delivery().state == State.SUPPRESSED
    assert smtp.messages == []


def test_yesterdays_edition_is_not_mailed_today(smtp: SmtpServer) -> None:
    edition = planned_for("alice@example.org")
    yesterday = timezone.now() - timedelta(hours=25)
    Edition.objects.filter(pk=edition.pk).update(frozen_at=yesterday)
    assert send_planned().dropped == 1
    assert the_delivery().state == State.EXPIRED
    assert smtp.messages == []


def test_a_paper_hidden_after_the_freeze_is_in_no_mail_any_more(smtp: SmtpServer) -> None:
    edition = planned_for("alice@example.org")
    for candidate in edition.candidates.filter(paper__title="First of the day"):
        editions.curate(candidate, EditionPaper.Curation.HIDDEN)
    send_planned()
    [message] = smtp.messages
    assert "First of the day" not in message.as_string()
    assert message["Subject"] == "Second of the day"


def test_when_all_its_papers_were_hidden_no_empty_mail_is_sent(smtp: SmtpServer) -> None:
    edition = planned_for("alice@example.org")
    for candidate in edition.candidates.all():
        editions.curate(candidate, EditionPaper.Curation.HIDDEN)
    send_planned()
    assert smtp.messages == []
    assert the_delivery().state == State.SKIPPED
    assert "hidden" in the_delivery().skip_reason


def test_only_the_moves_of_the_table_are_made() -> None:
    planned_for("alice@example.org")
    for source in State.values:
        for target in set(State.values):
            if (source, target) not in MOVES:
                with pytest.raises(ValueError, match="no move"):
                    move(the_delivery(), source, target)


def test_a_move_is_made_by_one_of_two_who_try() -> None:
    planned_for("alice@example.org")
    lease = timezone.now() + timedelta(minutes=1)
    one, other = the_delivery(), the_delivery()
    assert move(one, State.PLANNED, State.CLAIMED, lease_until=lease)
    assert not move(other, State.PLANNED, State.CLAIMED, lease_until=lease)


def test_a_subscriber_cannot_have_two_deliveries_of_an_edition() -> None:
    edition = planned_for("alice@example.org")
    with pytest.raises(IntegrityError), transaction.atomic():
        Delivery.objects.create(edition=edition, subscriber=Subscriber.objects.get())


def waits(cause: Class, hours: float = 0) -> list[timedelta]:
    """Between the tries of one that is refused each time, its edition so many hours old."""
    one = planned_for("alice@example.org").deliveries.get()
    first = timezone.now()
    one.edition.frozen_at = first - timedelta(hours=hours)
    moments = [first]
    for attempts in range(1, 8):
        one.attempts = attempts
        with time_machine.travel(moments[-1], tick=False):
            moment = delivery._later(one, "later", cause)["not_before"]
        assert isinstance(moment, datetime)
        moments.append(moment)
    return [later - earlier for earlier, later in pairwise(moments)]


@pytest.mark.parametrize(
    ("cause", "minutes"),
    [(Class.POLICY, 5), (Class.SOFT, 5), (Class.MAILBOX, 60), (Class.NONE, 2)],
)
def test_the_delays_between_tries_grow_and_begin_by_what_was_said(
    cause: Class, minutes: int
) -> None:
    found = waits(cause)
    assert found[0] == timedelta(minutes=minutes)
    assert found[1] == 2 * found[0]
    assert found == sorted(found)


@pytest.mark.parametrize("cause", [Class.POLICY, Class.MAILBOX])
@pytest.mark.parametrize("hours", [0, 12, 23])
def test_the_last_try_comes_within_the_editions_day(cause: Class, hours: int) -> None:
    assert sum(waits(cause, hours), timedelta(hours=hours)) < Edition.LIFETIME


def test_a_refusal_for_now_waits_by_what_was_said(smtp: SmtpServer) -> None:
    planned_for("alice@example.org", "bob@example.org")
    smtp.replies["alice@example.org"] = "452 4.2.2 mailbox full"
    smtp.replies["bob@example.org"] = "451 4.7.1 greylisted"
    send_planned()
    full, grey = the_delivery().not_before, the_delivery("bob@example.org").not_before
    assert full is not None
    assert grey is not None
    assert full - grey > timedelta(minutes=50)


@pytest.mark.parametrize(
    ("action", "state"),
    [("it_arrived", State.SENT), ("send_again", State.PLANNED), ("give_up", State.FAILED)],
)
def test_an_operator_settles_what_is_unknown_and_nothing_else(
    client: Client, smtp: SmtpServer, action: str, state: str
) -> None:
    operator = User.objects.create_user("olga", is_staff=True)
    operator.groups.add(Group.objects.get(name="operators"))
    client.force_login(operator)
    planned_for("alice@example.org", "bob@example.org")
    smtp.after_data["alice@example.org"] = "drop"
    send_planned()
    chosen = list(Delivery.objects.values_list("pk", flat=True))
    client.post("/admin/newsletter/delivery/", {"action": action, "_selected_action": chosen})
    assert the_delivery().state == state
    assert the_delivery("bob@example.org").state == State.SENT
    assert LogEntry.objects.count() == 1


def test_sent_again_it_bears_the_same_message_id(smtp: SmtpServer) -> None:
    planned_for("alice@example.org")
    smtp.after_data["alice@example.org"] = "drop"
    send_planned()
    assert delivery.settle_unknown(the_delivery(), State.PLANNED)
    smtp.after_data.clear()
    send_planned()
    first, second = smtp.to("alice@example.org")
    assert first["Message-ID"] == second["Message-ID"]
    assert the_delivery().state == State.SENT


def test_what_is_over_is_not_sent_again_and_the_operator_is_told_why(
    client: Client, smtp: SmtpServer
) -> None:
    client.force_login(User.objects.create_superuser("olga"))
    planned_for("alice@example.org", "bob@example.org")
    smtp.after_data |= {"alice@example.org": "drop", "bob@example.org": "drop"}
    send_planned()
    Edition.objects.update(frozen_at=timezone.now() - timedelta(hours=25))
    chosen = list(Delivery.objects.values_list("pk", flat=True))
    words = {"action": "send_again", "_selected_action": chosen}
    text = client.post("/admin/newsletter/delivery/", words, follow=True).content.decode()
    assert text.count("is over and no longer mailed") == 1
    assert the_delivery().state == State.UNKNOWN
    client.post("/admin/newsletter/delivery/", words | {"action": "it_arrived"})
    assert the_delivery().state == State.SENT


@contextmanager
def composed_for(*addresses: str) -> Iterator[tuple[Edition, delivery._Round, delivery.Tally]]:
    """A claimed batch whose mails are composed, and nothing of it handed over."""
    edition = planned_for(*addresses)
    batch = delivery._claim(timezone.now(), None, Walk())
    assert batch is not None
    tally = delivery.Tally()
    with provider.sessions(1) as sessions:
        sender = delivery._Round(batch, sessions, tally, delivery._BadRow())
        sender._compose(batch)
        sender._batch = []
        yield edition, sender, tally


def test_a_paper_hidden_while_its_mail_was_composed_is_in_no_mail(smtp: SmtpServer) -> None:
    with composed_for("alice@example.org", "bob@example.org") as (edition, sender, tally):
        for candidate in edition.candidates.filter(paper__title="First of the day"):
            editions.curate(candidate, EditionPaper.Curation.HIDDEN)
        assert sender.run()
        assert tally.sent == 2
        assert [message["Subject"] for message in smtp.messages] == ["Second of the day"] * 2


def test_who_left_while_the_mail_was_composed_gets_nothing(smtp: SmtpServer) -> None:
    with composed_for("alice@example.org", "bob@example.org", "carol@example.org") as (
        _,
        sender,
        tally,
    ):
        subscriptions.unsubscribe(Subscriber.objects.get(address="alice@example.org"), way="test")
        subscriptions.suppress("bob@example.org", Suppression.Reason.OPERATOR)
        assert sender.run()
        assert (tally.sent, tally.dropped) == (1, 2)
        assert smtp.count() == {"carol@example.org": 1}


def test_what_another_worker_took_is_left_to_it(smtp: SmtpServer) -> None:
    with composed_for("alice@example.org") as (_, sender, tally):
        Delivery.objects.update(state=State.PLANNED, lease_until=None)
        assert sender.run()
        assert (tally, smtp.messages) == (delivery.Tally(), [])


@pytest.mark.parametrize("connections", [1, 3])
def test_each_ends_as_the_server_says_over_one_connection_or_several(
    smtp: SmtpServer, settings: Settings, connections: int
) -> None:
    settings.SEND_CONNECTIONS = connections
    readers = [f"reader{n}@example.org" for n in range(12)]
    planned_for(*readers)
    smtp.replies["reader3@example.org"] = "550 5.1.1 no such user"
    smtp.replies["reader5@example.org"] = "451 4.7.1 come back"
    smtp.after_data["reader7@example.org"] = "drop"
    tally = send_planned()
    assert (tally.sent, tally.failed, tally.later, tally.unknown) == (9, 1, 1, 1)
    accepted = set(readers) - {"reader3@example.org", "reader5@example.org"}
    assert smtp.count() == dict.fromkeys(accepted, 1)
    states = dict(Delivery.objects.values_list("subscriber__address", "state"))
    assert states.pop("reader3@example.org") == State.FAILED
    assert states.pop("reader5@example.org") == State.PLANNED
    assert states.pop("reader7@example.org") == State.UNKNOWN
    assert set(states.values()) == {State.SENT}


def test_with_no_mail_server_nobody_waits_for_a_lease_over_several_connections_either(
    settings: Settings,
) -> None:
    settings.SEND_CONNECTIONS = 3
    test_with_no_mail_server_everything_stays_planned(settings)


@pytest.mark.parametrize(("connections", "statements"), [(1, 40), (10, 20)])
def test_a_mail_costs_one_statement_and_those_of_several_sessions_share_it(
    smtp: SmtpServer,
    settings: Settings,
    django_assert_max_num_queries: Callable[..., AbstractContextManager[object]],
    connections: int,
    statements: int,
) -> None:
    settings.SEND_CONNECTIONS = connections
    planned_for(*(f"reader{n}@example.org" for n in range(40)))
    with django_assert_max_num_queries(statements + 30):
        assert send_planned().sent == 40


def test_what_is_in_another_workers_hand_is_not_moved(smtp: SmtpServer) -> None:
    """By clocks that are wrong a lease runs out under its holder, and the next one holds it."""
    planned_for("alice@example.org")
    [ours] = delivery._claim(timezone.now(), None, Walk()) or []
    theirs = timezone.now() + timedelta(hours=1)
    Delivery.objects.update(state=State.HANDED_OVER, handed_over_at=theirs, lease_until=theirs)
    for target in (State.PLANNED, State.FAILED, State.UNKNOWN):
        assert not move(ours, State.HANDED_OVER, target, lease_until=None)
    letter = delivery._Letter(ours, None, sent_at=timezone.now())
    assert delivery._settle_and_hand_over([letter], []) == (set(), set())
    Delivery.objects.update(state=State.CLAIMED)
    assert delivery._settle_and_hand_over([], [letter]) == (set(), set())
    assert the_delivery().lease_until == theirs


# A run's time, and its lease


@pytest.fixture
def slow(settings: Settings) -> Iterator[Server]:
    """A mail server that takes a third of a second for each of twelve readers."""
    with closing(Server()) as server:
        server.delays = dict.fromkeys((f"reader{n}@example.org" for n in range(12)), 0.33)
        use(server, settings)
        yield server


def test_a_run_ends_in_its_time_and_gives_back_what_it_has_not_begun(slow: Server) -> None:
    planned_for(*slow.delays)
    tally = send_planned(seconds=1)
    assert tally.is_left
    assert 1 <= tally.sent == len(slow.contents) <= 5
    assert tally.sent + tally.later == 12
    left = Delivery.objects.filter(state=State.PLANNED)
    assert set(left.values_list("attempts", "not_before", "lease_until")) == {(0, None, None)}
    rest = tally.later
    tally = send_planned(seconds=60)
    assert (tally.sent, tally.is_left) == (rest, False)
    assert set(Delivery.objects.values_list("state", "attempts")) == {(State.SENT, 1)}


@pytest.mark.django_db(transaction=True)
def test_over_slow_hand_overs_nobody_takes_what_waits(slow: Server, settings: Settings) -> None:
    settings.SEND_LEASE_SECONDS = 2
    planned_for(*slow.delays)
    over = Event()

    def others() -> None:
        try:
            while not over.wait(0.1):
                delivery.recover(timezone.now())
        finally:
            connection.close()

    thread = Thread(target=others)
    thread.start()
    try:
        assert send_planned().sent == 12
    finally:
        over.set()
        thread.join()
    assert set(Delivery.objects.values_list("state", "attempts")) == {(State.SENT, 1)}


# What goes on though something fails


def test_what_was_accepted_is_settled_though_a_refusal_cannot_be_kept(
    smtp: SmtpServer, settings: Settings
) -> None:
    settings.SEND_CONNECTIONS = 4
    planned_for(*(f"reader{n}@example.org" for n in range(12)))
    smtp.replies["reader1@example.org"] = "550 5.7.1 blocked"

    def fail(execute: Callable[..., object], sql: str, *rest: Any) -> object:
        if sql.startswith('INSERT INTO "newsletter_deliveryevent"'):
            raise IntegrityError("its reader was erased")
        return execute(sql, *rest)

    with connection.execute_wrapper(fail):
        tally = send_planned()
    assert (tally.sent, tally.failed) == (11, 1)
    assert len(smtp.recipients) == 11
    assert not DeliveryEvent.objects.exists()


def test_a_refusal_is_kept_though_its_consequence_cannot_be_drawn_at_once(
    smtp: SmtpServer,
) -> None:
    planned_for("alice@example.org")
    smtp.replies["alice@example.org"] = "550 5.1.1 no such user"

    def fail(execute: Callable[..., object], sql: str, *rest: Any) -> object:
        if sql.startswith('INSERT INTO "newsletter_suppression"'):
            raise OperationalError("deadlock detected")
        return execute(sql, *rest)

    with connection.execute_wrapper(fail):
        assert send_planned().failed == 1
    assert not Suppression.objects.exists()
    with time_machine.travel(timezone.now() + timedelta(minutes=2)):
        events.process_pending()
    assert Suppression.objects.exists()


# Many in a row


TWENTY = [f"reader{n}@{domain}" for n in range(10) for domain in ("example.org", "example.com")]


OF_ONE_DOMAIN = [f"reader{n}@example.org" for n in range(20)]


def states() -> Counter[str]:
    return Counter(Delivery.objects.values_list("state", flat=True))


@pytest.mark.parametrize("connections", [1, 10])
def test_an_outage_stops_all_sending_after_ten_in_a_row(
    settings: Settings, connections: int
) -> None:
    settings.SEND_CONNECTIONS = connections
    with provider_answering(503) as url:
        send_by_mailgun_at(url, settings)
        planned_for(*TWENTY)
        tally = send_planned()
    assert (tally.unknown, tally.later) == (10, 10)
    assert states() == {State.UNKNOWN: 10, State.PLANNED: 10}
    assert sending.is_paused()
    assert "503" in Alert.objects.get(subject="All sending is paused").text


def test_an_outage_stops_it_though_all_readers_are_of_one_domain(settings: Settings) -> None:
    with provider_answering(503) as url:
        send_by_mailgun_at(url, settings)
        planned_for("bob@example.com", *OF_ONE_DOMAIN)
        Delivery.objects.filter(subscriber__address="bob@example.com").update(
            state=State.SENT, sent_at=timezone.now(), handed_over_at=timezone.now(), attempts=1
        )
        send_planned()
    assert states() == {State.SENT: 1, State.UNKNOWN: 10, State.PLANNED: 10}
    assert sending.is_paused()


def test_an_outage_stops_what_was_refused_for_now_too(smtp: SmtpServer) -> None:
    planned_for("bob@example.net", *TWENTY)
    smtp.replies = dict.fromkeys(TWENTY, "451 4.7.1 Greylisted, please come back in 5 minutes")
    assert send_planned().later == 20
    Delivery.objects.update(not_before=None)
    smtp.replies, smtp.after_data = {}, dict.fromkeys(TWENTY, "drop")
    send_planned()
    assert states() == {State.SENT: 1, State.UNKNOWN: 10, State.PLANNED: 10}
    assert sending.is_paused()


def test_refusals_whatever_their_words_stop_it_too(smtp: SmtpServer) -> None:
    planned_for(*TWENTY)
    smtp.replies = dict.fromkeys(TWENTY, "550 you, <reader1@example.org>, know why")
    assert send_planned().failed == 10
    assert states() == {State.FAILED: 10, State.PLANNED: 10}
    told = Alert.objects.get(subject="All sending is paused").text
    assert "know why" in told
    assert "reader1@" not in told


def test_a_relay_that_takes_nothing_of_us_stops_it_and_costs_nobody_their_mail(
    smtp: SmtpServer,
) -> None:
    planned_for(*TWENTY)
    smtp.replies = dict.fromkeys(TWENTY, "554 5.7.1 Relay access denied")
    assert send_planned().failed == 0
    assert states() == {State.PLANNED: 20}
    assert sending.is_paused()
    assert "Relay access denied" in Alert.objects.get(subject="All sending is paused").text


def test_a_relay_that_knows_no_reader_stops_it_though_all_are_of_one_domain(
    smtp: SmtpServer,
) -> None:
    planned_for(*OF_ONE_DOMAIN)
    smtp.replies = dict.fromkeys(OF_ONE_DOMAIN, "550 5.1.1 User unknown in local recipient table")
    send_planned()
    assert states() == {State.FAILED: 10, State.PLANNED: 10}
    assert Suppression.objects.count() == 10
    assert sending.is_paused()


def test_greylisting_is_nothing_of_the_kind(smtp: SmtpServer) -> None:
    planned_for(*TWENTY)
    smtp.replies = dict.fromkeys(TWENTY, "451 4.7.1 Greylisted, please come back in 5 minutes")
    assert send_planned().later == 20
    assert not sending.is_paused()


def test_nor_is_it_once_the_tries_are_over(smtp: SmtpServer, settings: Settings) -> None:
    settings.SEND_MAX_ATTEMPTS = 2
    planned_for(*TWENTY, "carol@example.net")
    smtp.replies = dict.fromkeys(TWENTY, "451 4.7.1 Greylisted, please come back in 5 minutes")
    smtp.replies["carol@example.net"] = "550 no"
    assert send_planned().failed == 1
    Delivery.objects.update(not_before=None)
    assert send_planned().failed == 20
    Delivery.objects.filter(subscriber__address="carol@example.net").update(state=State.PLANNED)
    assert send_planned().failed == 1
    assert not sending.is_paused()


def test_a_full_mailbox_is_noted_though_it_is_tried_again(smtp: SmtpServer) -> None:
    planned_for("alice@example.org")
    smtp.replies["alice@example.org"] = "452 4.2.2 Mailbox full"
    assert send_planned().later == 1
    event = DeliveryEvent.objects.get()
    assert (event.kind, event.cause) == ("deferred", "mailbox")


def test_one_that_is_accepted_between_them_makes_it_no_row(smtp: SmtpServer) -> None:
    planned_for(*TWENTY)
    smtp.replies = dict.fromkeys({*TWENTY} - {TWENTY[9], TWENTY[19]}, "550 no")
    tally = send_planned()
    assert (tally.failed, tally.sent) == (18, 2)
    assert not sending.is_paused()


@pytest.mark.django_db(transaction=True)
def test_one_that_another_process_had_accepted_makes_it_no_row_either(
    smtp: SmtpServer, settings: Settings
) -> None:
    settings.SEND_CONNECTIONS = 1
    planned_for("bob@example.net", *TWENTY)
    bob = Delivery.objects.filter(subscriber__address="bob@example.net")
    bob.update(not_before=timezone.now() + timedelta(hours=1))

    def take_another() -> None:
        if states()[State.FAILED] == 4:
            now = timezone.now()
            bob.update(state=State.SENT, handed_over_at=now, sent_at=now)

    smtp.replies = OnRecipient("550 no", take_another)
    assert send_planned().failed == 15
    assert sending.is_paused()


def test_what_one_domain_refuses_stops_no_other(smtp: SmtpServer) -> None:
    refused = [f"reader{n}@example.org" for n in range(12)]
    planned_for("bob@example.com", *refused)
    smtp.replies = dict.fromkeys(refused, "550 no")
    tally = send_planned()
    assert (tally.failed, tally.sent) == (12, 1)
    assert not sending.is_paused()


@pytest.mark.parametrize(("minutes", "stops"), [(50, False), (70, True)])
def test_what_one_domain_refuses_stops_all_once_nothing_else_was_accepted_for_long(
    smtp: SmtpServer, minutes: int, stops: bool
) -> None:
    planned_for("bob@example.com", *OF_ONE_DOMAIN[:12])
    smtp.replies = dict.fromkeys(OF_ONE_DOMAIN, "550 no")
    waiting = Delivery.objects.exclude(subscriber__address="bob@example.com")
    waiting.update(not_before=timezone.now() + timedelta(minutes=minutes))
    assert send_planned().sent == 1
    with time_machine.travel(timezone.now() + timedelta(minutes=minutes)):
        assert send_planned().failed == (10 if stops else 12)
    assert sending.is_paused() == stops


@pytest.mark.parametrize(
    "reply", ["452 4.2.2 Mailbox full", "550 5.7.1 Sender rejected", "451 4.7.1 Greylisted"]
)
def test_what_was_refused_while_others_were_accepted_stops_nothing_at_its_later_tries(
    smtp: SmtpServer, settings: Settings, reply: str
) -> None:
    refused = TWENTY[:12]
    now = timezone.now().replace(hour=4)
    with time_machine.travel(now, tick=False) as clock:
        planned_for(*(f"{n}@example.net" for n in range(20)), *refused)
        Delivery.objects.update(planned_at=now)
        smtp.replies = dict.fromkeys(refused, reply)
        for _ in range(settings.SEND_MAX_ATTEMPTS):
            send_planned()
            assert not sending.is_paused()
            if due := Delivery.objects.aggregate(due=Max("not_before"))["due"]:
                clock.move_to(due)
    assert states() == {State.SENT: 20, State.FAILED: 12}


@pytest.mark.parametrize("reply", ["550 no", "554 5.7.1 Relay access denied"])
def test_a_later_try_counts_where_nothing_was_accepted_at_all(smtp: SmtpServer, reply: str) -> None:
    planned_for(*TWENTY)
    smtp.replies = dict.fromkeys(TWENTY, "451 4.7.1 Greylisted, please come back in 5 minutes")
    assert send_planned().later == 20
    Delivery.objects.update(not_before=None)
    smtp.replies = dict.fromkeys(TWENTY, reply)
    send_planned()
    assert Delivery.objects.filter(attempts=2).count() == 10
    assert sending.is_paused()


@pytest.mark.parametrize("reply", ["550 no", "554 5.7.1 Relay access denied"])
def test_a_row_goes_on_from_run_to_run_and_ends_where_sending_is_resumed(
    smtp: SmtpServer, reply: str
) -> None:
    planned_for(*TWENTY)
    smtp.replies = dict.fromkeys(TWENTY, reply)
    later = timezone.now() + timedelta(hours=1)
    waiting = Delivery.objects.filter(subscriber__address__in=TWENTY[6:])
    tried = Delivery.objects.filter(attempts=1)
    waiting.update(not_before=later)
    send_planned()
    assert tried.count() == 6
    assert not sending.is_paused()
    waiting.update(not_before=None)
    send_planned()
    assert tried.count() == 10
    assert sending.is_paused()

    sending.resume()
    one = waiting.filter(attempts=0).first()
    assert one is not None
    waiting.exclude(pk=one.pk).filter(state=State.PLANNED).update(not_before=later)
    send_planned()
    assert tried.count() == 11
    assert not sending.is_paused()


def test_a_server_that_does_not_let_us_in_pauses_all_sending_and_takes_nothing(
    slow: Server, settings: Settings
) -> None:
    slow.at_login = "535 5.7.8 Username and Password not accepted"
    settings.EMAIL_HOST_USER, settings.EMAIL_HOST_PASSWORD = "papers", "wrong"
    planned_for("alice@example.org", "bob@example.org")
    assert send_planned().later == 2
    assert sending.is_paused()
    assert "not accepted" in Alert.objects.get(subject="All sending is paused").text
    assert set(Delivery.objects.values_list("state", "attempts", "not_before")) == {
        (State.PLANNED, 0, None)
    }
    send_planned()
    assert slow.connections == 1


def test_what_is_said_of_the_sender_is_nobodys_try_and_pauses_each_time(
    smtp: SmtpServer, settings: Settings
) -> None:
    settings.SEND_MAX_ATTEMPTS = 2
    planned_for("alice@example.org")
    smtp.replies["alice@example.org"] = "535 5.7.8 Authentication credentials invalid"
    for _ in range(3):
        assert send_planned().later == 1
        assert sending.is_paused()
        assert the_delivery().attempts == 0
        sending.resume()
        Delivery.objects.update(not_before=None)
    smtp.replies["alice@example.org"] = "451 4.7.1 greylisted"
    assert send_planned().later == 1


# --- After years ----------------------------------------------------------------------------------


def many_deliveries(count: int) -> None:
    """Delivered ones of one day, by the fewest statements."""
    edition = make_frozen_edition(make_paper(), day=timezone.now().date() - timedelta(days=30))
    now = timezone.now()
    readers = Subscriber.objects.bulk_create(
        Subscriber(address=f"r{n}@example.org", state="unsubscribed") for n in range(count)
    )
    Delivery.objects.bulk_create(
        Delivery(edition=edition, subscriber=reader, state=State.DELIVERED, sent_at=now)
        for reader in readers
    )


def test_an_empty_queue_is_found_empty_whatever_was_sent_and_whenever_that_was_counted() -> None:
    many_deliveries(1500)
    wave = Delivery.objects.filter(pk__in=Delivery.objects.order_by("-pk").values("pk")[:150])
    wave.update(state=State.PLANNED)
    analyse(Delivery, Edition)  # PostgreSQL counts in the middle of the wave
    Delivery.objects.update(state=State.DELIVERED)
    now = timezone.now()
    head = delivery._ready(now).select_related("edition")[:1]
    assert rows_touched(head) <= 150
    assert rows_touched(delivery._ready(now)[:250]) <= 150


def test_the_few_that_are_in_trouble_are_found_without_all_the_others() -> None:
    many_deliveries(1500)
    trouble = [State.UNKNOWN, State.FAILED, State.BOUNCED, State.COMPLAINED, State.EXPIRED]
    ids = Delivery.objects.order_by("pk").values_list("pk", flat=True)
    for place, state in enumerate(trouble):
        Delivery.objects.filter(pk__in=list(ids[10 * place : 10 * place + 10])).update(state=state)
    analyse(Delivery)
    for state in trouble:
        rows = Delivery.objects.filter(state=state)
        assert rows_touched(rows.order_by("-id")[:100]) <= 100
        assert rows_touched(rows.filter(handed_over_at__lte=timezone.now())) <= 100


def test_operators_find_a_delivery_by_its_uuid_and_by_the_whole_address(client: Client) -> None:
    many_deliveries(1500)
    analyse(Delivery, Subscriber)
    wanted = Delivery.objects.select_related("subscriber").order_by("pk")[1000]
    client.force_login(User.objects.create_superuser("olga"))
    model_admin = admin.site.get_model_admin(Delivery)
    request = RequestFactory().get("/")
    address = wanted.subscriber.address
    for words in (str(wanted.uuid), wanted.uuid.hex.upper(), address.upper(), f" {address} "):
        rows, _ = model_admin.get_search_results(request, Delivery.objects.order_by("-id"), words)
        assert list(rows) == [wanted]
        assert rows_touched(rows) <= 50
    for words in ("r1000", "%", "'", "r1000@example.org r1001@example.org"):
        shown = client.get("/admin/newsletter/delivery/", {"q": words}).content.decode()
        assert "0 deliveries" in shown


def test_operators_find_the_events_of_a_delivery_by_its_uuid(client: Client) -> None:
    many_deliveries(1000)
    now = timezone.now()
    DeliveryEvent.objects.bulk_create(
        DeliveryEvent(kind="delivered", delivery=one, content_digest=str(one.uuid), occurred_at=now)
        for one in Delivery.objects.all()
    )
    analyse(Delivery, DeliveryEvent)
    client.force_login(User.objects.create_superuser("olga"))
    wanted = DeliveryEvent.objects.earliest("pk")
    model_admin = admin.site.get_model_admin(DeliveryEvent)
    request, events = RequestFactory().get("/"), DeliveryEvent.objects.order_by("-id")
    rows, _ = model_admin.get_search_results(request, events, f" {wanted.content_digest.upper()}")
    assert list(rows) == [wanted]
    assert rows_touched(rows) <= 10
    shown = client.get("/admin/newsletter/deliveryevent/", {"q": "delivered"}).content.decode()
    assert "0 delivery events" in shown
