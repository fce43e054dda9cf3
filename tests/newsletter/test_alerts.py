"""What the operators are told by mail."""

from __future__ import annotations

from collections.abc import Iterator
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
