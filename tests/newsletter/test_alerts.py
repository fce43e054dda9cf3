"""What the operators are told by mail."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import pytest
import time_machine
from django.core import mail
from django.db import DatabaseError, connection, transaction
from django.utils import timezone
from pytest_django import Settings

from newsletter.alerts import alert, send_waiting
from newsletter.models import Alert
from tests.factories import MORNING
from tests.newsletter.test_delivery import OnRecipient
from tests.smtp import SmtpServer

pytestmark = pytest.mark.django_db(transaction=True)

AWAY = "newsletter.inbox.NoSuchBackend"


@pytest.fixture(autouse=True)
def clock(settings: Settings) -> Iterator[time_machine.Traveller]:
    settings.OPERATOR_ADDRESSES = ["olga@papers.example", "otto@papers.example"]
    with time_machine.travel(MORNING, tick=False) as traveller:
        yield traveller


def test_an_alert_is_mailed_to_every_operator() -> None:
    alert("The source is down", "arXiv answers nothing. See the harvests.")
    [sent] = mail.outbox
    assert sent.subject == "[Paperround] The source is down"
    assert sent.to == ["olga@papers.example", "otto@papers.example"]
    assert "See the harvests." in sent.body
    assert sent.extra_headers["Auto-Submitted"] == "auto-generated"


def test_the_same_subject_is_mailed_once_an_hour(clock: time_machine.Traveller) -> None:
    for _ in range(3):
        alert("Down", "first")
    alert("Another", "at the same time")
    assert len(mail.outbox) == 2
    clock.shift(timedelta(minutes=59))
    alert("Down", "still")
    assert len(mail.outbox) == 2
    clock.shift(timedelta(minutes=1))
    alert("Down", "and still")
    assert len(mail.outbox) == 3
    assert "and still" in mail.outbox[-1].body
    assert "Raised 5 times." in mail.outbox[-1].body


def test_a_mail_server_that_is_away_breaks_nobody_and_a_later_tick_tries_again(
    settings: Settings, clock: time_machine.Traveller
) -> None:
    there, settings.EMAIL_BACKEND = settings.EMAIL_BACKEND, AWAY
    alert("Down", "text")
    alert("Down", "text")
    assert Alert.objects.get().waits
    settings.EMAIL_BACKEND = there
    assert send_waiting(timezone.now()) == 0  # not at each tick
    clock.shift(timedelta(minutes=10))
    assert send_waiting(timezone.now()) == 1
    assert not Alert.objects.get().waits
    assert send_waiting(timezone.now()) == 0
    assert len(mail.outbox) == 1


def test_one_that_comes_anew_is_mailed_whatever_the_hour(clock: time_machine.Traveller) -> None:
    alert("Paused", "first")
    clock.shift(timedelta(minutes=20))
    alert("Paused", "resumed, and paused again", is_new=True)
    assert len(mail.outbox) == 2
    assert "paused again" in mail.outbox[-1].body
    clock.shift(timedelta(minutes=20))
    alert("Paused", "still")
    assert len(mail.outbox) == 2


def test_one_that_comes_anew_while_its_mail_leaves_is_mailed_again(
    smtp: SmtpServer, settings: Settings, clock: time_machine.Traveller
) -> None:
    settings.OPERATOR_ADDRESSES = ["olga@papers.example"]
    there = settings.EMAIL_BACKEND

    def again() -> None:
        clock.shift(timedelta(seconds=1))
        settings.EMAIL_BACKEND = AWAY
        alert("Paused", "resumed, and paused again", is_new=True)
        settings.EMAIL_BACKEND = there

    smtp.replies = OnRecipient("250 OK", again)
    alert("Paused", "first")
    assert "first" in smtp.messages[0].get_content()
    smtp.replies = {}
    clock.shift(timedelta(minutes=10))
    assert send_waiting(timezone.now()) == 1
    assert "paused again" in smtp.messages[1].get_content()


def test_a_mail_server_that_cannot_be_reached_is_tried_again(
    smtp: SmtpServer, settings: Settings, clock: time_machine.Traveller
) -> None:
    there = settings.EMAIL_PORT
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        settings.EMAIL_PORT = server.getsockname()[1]
    alert("Down", "text")
    clock.shift(timedelta(minutes=10))
    settings.EMAIL_PORT = there
    assert send_waiting(timezone.now()) == 1
    assert len(smtp.messages) == 1


@pytest.mark.parametrize(
    "operators", [["olga@papers.example"], ["olga@p.example", "otto@p.example"]]
)
def test_one_that_may_have_arrived_is_not_repeated_and_not_called_mailed(
    smtp: SmtpServer,
    settings: Settings,
    clock: time_machine.Traveller,
    operators: list[str],
) -> None:
    settings.OPERATOR_ADDRESSES = operators
    smtp.after_data[operators[0]] = "drop"
    alert("Down", "text")
    for _ in range(6):
        clock.shift(timedelta(minutes=10))
        send_waiting(timezone.now())
    assert len(smtp.messages) == 1
    known = Alert.objects.get()
    assert (known.waits, known.mailed_at) == (False, None)


def test_within_a_transaction_it_leaves_when_that_commits() -> None:
    with transaction.atomic():
        alert("Down", "text")
        assert mail.outbox == []
    assert len(mail.outbox) == 1


def test_in_a_broken_transaction_it_is_lost_and_breaks_nothing_more() -> None:
    with transaction.atomic():
        with pytest.raises(DatabaseError), connection.cursor() as cursor:
            cursor.execute("SELECT 1/0")
        alert("Down", "text")
        transaction.set_rollback(True)
    assert mail.outbox == []


@pytest.mark.parametrize("subject", ["two\nlines: x\r\nBcc: eve@example.org", "x" * 400])
def test_any_subject_makes_one_header(subject: str) -> None:
    alert(subject, "text")
    [sent] = mail.outbox
    assert "\n" not in sent.subject
    assert "Bcc" not in sent.message()


def test_without_operators_it_is_in_the_admin_alone_and_not_called_mailed(
    settings: Settings, clock: time_machine.Traveller
) -> None:
    operators, settings.OPERATOR_ADDRESSES = settings.OPERATOR_ADDRESSES, []
    alert("Down", "text")
    assert mail.outbox == []
    known = Alert.objects.get()
    assert (known.subject, known.mailed_at, known.waits) == ("Down", None, False)
    clock.shift(timedelta(hours=1))
    settings.OPERATOR_ADDRESSES = operators
    alert("Down", "text")
    assert len(mail.outbox) == 1
    assert Alert.objects.get().mailed_at == timezone.now()
