"""Subscribe, confirm, change, pause, unsubscribe, erase: what a person may do with an address.

Whoever asks on a web page learns nothing: new, pending, active and suppressed addresses get the
same page, after the same work; the difference is told by mail, to the address alone.
"""

from __future__ import annotations

import logging
import smtplib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.core.mail.backends.base import BaseEmailBackend
from django.db import connection, transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Lower
from django.utils import timezone

from newsletter import delivery, mail, schedule
from newsletter.addresses import address_hash, mailbox_key
from newsletter.delivery import is_suppressed
from newsletter.models import MAX_INTERESTS, ConsentRecord, Interest, Subscriber, Suppression
from papers.models import Edition

log = logging.getLogger(__name__)

ONE_ANSWER_IN = timedelta(days=1)
ANSWER_LEASE = timedelta(minutes=15)

State = Subscriber.State


@dataclass(frozen=True, slots=True)
class Subject:
    """An interest as it is stated: what a form or a file says before it is a row."""

    words: str = ""
    categories: tuple[str, ...] = ()
    name: str = ""

    @property
    def title(self) -> str:
        return (self.name or " ".join(self.words.split()) or ", ".join(self.categories))[:100]


def subscribe(
    address: str,
    subjects: Iterable[Subject],
    *,
    time_zone: str,
    send_hour: int,
    way: str = "web form",
) -> None:
    """Note that somebody asked to subscribe `address`; the answer goes there by mail.

    A subscribed address keeps its settings: only who reads its mail may change them.
    """
    now = timezone.now()
    with transaction.atomic():
        new = Subscriber(address=address, mailbox_key=mailbox_key(address))
        Subscriber.objects.bulk_create([new], ignore_conflicts=True)
        subscriber = _spelled(address).select_for_update().get()
        may_change = subscriber.state in (State.PENDING, State.UNSUBSCRIBED)
        if may_change:
            subscriber.state = State.PENDING
            subscriber.time_zone, subscriber.send_hour = time_zone, send_hour
        with transaction.atomic():
            _state_interests(subscriber, subjects)
            # The same work for everybody, so that its time tells nothing; here it is undone.
            transaction.set_rollback(not may_change)
        # One that a worker has in hand stays in its hands: who clicks twice gets one answer.
        subscriber.answer_due_at = subscriber.answer_due_at or now
        subscriber.save()
        _record(subscriber.address, ConsentRecord.Act.ASKED, way)


def send_answers() -> int:
    """Answer the sign-ups that wait for it, at most one a day to a mailbox; returns how many.

    An answer is claimed by a lease: one that a crash interrupts, or that the mail server refuses
    for now, is sent by a later tick. Twice is better here than never, but not twice a tick: one
    whose outcome is unknown counts as sent.
    """
    sent = 0
    server = get_connection()
    try:
        while subscriber := _claim_answer(timezone.now()):
            try:
                server.open()
            except (OSError, smtplib.SMTPException) as error:
                log.error(
                    "no connection to the mail server: answers wait (%s)", type(error).__name__
                )
                break
            sent += _send_answer(subscriber, server)
    finally:
        delivery.close(server)
    return sent


def _send_answer(subscriber: Subscriber, server: BaseEmailBackend) -> bool:
    """Send one answer and settle it; False if it waits for its next try, or there is none."""
    done = {"answer_due_at": None, "answered_at": timezone.now()}
    try:
        delivery.hand_over(_answer(subscriber), server)
    except delivery.OutcomeUnknown:
        log.warning("the answer to subscriber %s may have arrived", subscriber.uuid)
    except Exception as error:  # one that cannot be sent keeps no other waiting
        for_good = isinstance(error, delivery.Refused) and error.for_good
        if for_good or not _asked_since(subscriber.address, timezone.now() - ONE_ANSWER_IN):
            log.warning("the answer to subscriber %s is given up", subscriber.uuid)
            Subscriber.objects.filter(pk=subscriber.pk).update(**done)
        else:
            # Its class alone: what a mail server says names the address.
            kind = type(error).__name__
            log.warning("the answer to subscriber %s waits: %s", subscriber.uuid, kind)
        return False
    Subscriber.objects.filter(pk=subscriber.pk).update(**done)
    return True


def _asked_since(address: str, moment: datetime) -> bool:
    asked = ConsentRecord.objects.filter(act=ConsentRecord.Act.ASKED, at__gt=moment)
    return asked.filter(address_hash=address_hash(address)).exists()


def _claim_answer(now: datetime) -> Subscriber | None:
    while True:
        with transaction.atomic():
            subscriber = (
                Subscriber.objects.awaiting_answer(now)
                .order_by("answer_due_at")
                .select_for_update(skip_locked=True)
                .first()
            )
            if subscriber is None:
                return None
            _lock_mailbox(subscriber.mailbox_key)
            suppressed = is_suppressed(subscriber.address)
            if suppressed and subscriber.confirmed_at is None:
                subscriber.delete()  # nobody who may be mailed: no reason to keep the address
                continue
            same_mailbox = Subscriber.objects.filter(mailbox_key=subscriber.mailbox_key)
            answered = same_mailbox.filter(answered_at__gt=now - ONE_ANSWER_IN).exists()
            in_hand = same_mailbox.filter(answer_due_at__gt=now).exists()
            silent = answered or in_hand or suppressed
            subscriber.answer_due_at = None if silent else now + ANSWER_LEASE
            subscriber.save(update_fields=["answer_due_at"])
        if not silent:
            return subscriber


def _lock_mailbox(mailbox: str) -> None:
    """Until the transaction ends, one worker alone decides about a mailbox: two may hold two
    spellings of it, and the second must see what the first has claimed."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [mailbox])


def _answer(subscriber: Subscriber) -> EmailMessage:
    if subscriber.state == State.PENDING:
        return mail.compose_confirmation(subscriber)
    return mail.compose_already_subscribed(subscriber)


def forget_unconfirmed(now: datetime) -> int:
    """Drop the sign-ups that nobody confirmed in time; returns how many.

    Who was subscribed once, and whom somebody signed up again, is unsubscribed as before.
    """
    too_late = now - timedelta(days=settings.CONFIRMATION_DAYS) - ONE_ANSWER_IN
    stale = Subscriber.objects.filter(
        Q(answered_at__lt=too_late) | Q(answered_at=None, created_at__lt=too_late),
        state=State.PENDING,
        answer_due_at=None,
    )
    stale.filter(unsubscribed_at__isnull=False).update(state=State.UNSUBSCRIBED)
    return stale.delete()[0]


def confirm(subscriber: Subscriber) -> bool:
    """The second half of the double opt-in; False where there is nothing to confirm any more.

    Who confirms after today's slot gets today's edition at once.
    """
    now = timezone.now()
    with transaction.atomic():
        subscriber = Subscriber.objects.select_for_update().get(pk=subscriber.pk)
        if subscriber.state != State.PENDING or is_suppressed(subscriber.address):
            return subscriber.state in (State.ACTIVE, State.PAUSED)
        _activate(subscriber, now)
        subscriber.confirmed_at = now
        subscriber.save()
        _record(subscriber.address, ConsentRecord.Act.CONFIRMED, "link in mail")
    return True


def _activate(subscriber: Subscriber, now: datetime) -> None:
    subscriber.state = State.ACTIVE
    slot = schedule.last_slot(now, subscriber.time_zone, subscriber.send_hour)
    edition = Edition.objects.current(now)
    missed_today = (
        edition is not None
        and schedule.same_local_day(slot, now, subscriber.time_zone)
        and not subscriber.deliveries.filter(edition=edition).exists()
    )
    subscriber.next_send_at = now if missed_today else _next_slot(subscriber, now)


def reschedule(subscriber: Subscriber) -> None:
    """Let the next mail follow the subscriber's settings as they now are; saves nothing.

    An edition that these settings would have brought already, and that has not come, is due now:
    no change of hour or zone loses one.
    """
    if subscriber.state != State.ACTIVE:
        subscriber.next_send_at = None
        return
    now = timezone.now()
    if subscriber.next_send_at is not None and subscriber.next_send_at <= now:
        return  # overdue, perhaps for a freeze that is late: the next plan serves it
    edition = Edition.objects.current(now)
    slot = schedule.last_slot(now, subscriber.time_zone, subscriber.send_hour)
    owed = (
        edition is not None
        and edition.frozen_at is not None
        and edition.frozen_at <= slot
        and not subscriber.deliveries.filter(edition=edition).exists()
    )
    subscriber.next_send_at = now if owed else _next_slot(subscriber, now)


def _next_slot(subscriber: Subscriber, now: datetime) -> datetime:
    return schedule.next_slot(now, subscriber.time_zone, subscriber.send_hour)


def change(
    subscriber: Subscriber,
    subjects: Iterable[Subject],
    *,
    time_zone: str,
    send_hour: int,
    papers_per_mail: int,
    paused: bool,
) -> None:
    """Replace a subscriber's settings and interests by those stated."""
    with transaction.atomic():
        subscriber = Subscriber.objects.select_for_update().get(pk=subscriber.pk)
        subscriber.time_zone, subscriber.send_hour = time_zone, send_hour
        subscriber.papers_per_mail = papers_per_mail
        if subscriber.state in (State.ACTIVE, State.PAUSED):
            subscriber.state = State.PAUSED if paused else State.ACTIVE
            reschedule(subscriber)
        _state_interests(subscriber, subjects)
        subscriber.save()


def unsubscribe(subscriber: Subscriber, *, way: str) -> None:
    """No more mail, from now on; what is planned is not sent. Twice is as good as once."""
    with transaction.atomic():
        subscriber = Subscriber.objects.select_for_update().get(pk=subscriber.pk)
        if subscriber.state == State.UNSUBSCRIBED:
            return
        subscriber.state = State.UNSUBSCRIBED
        subscriber.next_send_at = subscriber.answer_due_at = None
        subscriber.unsubscribed_at = timezone.now()
        subscriber.save()
        _record(subscriber.address, ConsentRecord.Act.UNSUBSCRIBED, way)


def erase(subscriber: Subscriber, *, way: str) -> None:
    """Forget the subscriber; a keyed hash stays, so that the address is never mailed again."""
    with transaction.atomic():
        suppress(subscriber.address, Suppression.Reason.ERASURE)
        _record(subscriber.address, ConsentRecord.Act.ERASED, way)
        subscriber.delete()


def suppress(address: str, reason: Suppression.Reason, note: str = "") -> None:
    """Never mail `address` again, whoever may subscribe it."""
    Suppression.objects.get_or_create(
        address_hash=address_hash(address), defaults={"reason": reason, "note": note}
    )


def bring_in(
    address: str,
    subjects: Iterable[Subject],
    *,
    name: str,
    time_zone: str,
    send_hour: int,
    way: str,
) -> bool:
    """Add a subscriber of an existing, consented list, active at once.

    Returns False, and changes nothing, where the address is known here already: who has
    unsubscribed stays so, and who is subscribed keeps their settings.

    Raises:
        ValueError: the address is suppressed.
    """
    if is_suppressed(address):
        raise ValueError("is suppressed and must not be mailed")
    now = timezone.now()
    with transaction.atomic():
        if _spelled(address).exists():
            return False
        subscriber = Subscriber(
            address=address,
            mailbox_key=mailbox_key(address),
            name=name,
            state=State.ACTIVE,
            time_zone=time_zone,
            send_hour=send_hour,
            confirmed_at=now,
        )
        subscriber.next_send_at = _next_slot(subscriber, now)
        subscriber.save()
        _state_interests(subscriber, subjects)
        _record(address, ConsentRecord.Act.IMPORTED, way)
    return True


def _spelled(address: str) -> QuerySet[Subscriber]:
    """Who has this address, whatever its case, found by the index that keeps it unique."""
    folded = Subscriber.objects.alias(folded=Lower("address"))
    return folded.filter(folded=address.lower())


def _state_interests(subscriber: Subscriber, subjects: Iterable[Subject]) -> None:
    stated = {
        subject.title: Interest(
            subscriber=subscriber,
            name=subject.title,
            words=subject.words,
            categories=list(subject.categories),
        )
        for subject in subjects
        if subject.words.strip() or subject.categories
    }
    subscriber.interests.exclude(name__in=stated).delete()
    Interest.objects.bulk_create(
        list(stated.values())[:MAX_INTERESTS],
        update_conflicts=True,
        unique_fields=["subscriber", "name"],
        update_fields=["words", "categories"],
    )


def _record(address: str, act: ConsentRecord.Act, way: str) -> None:
    ConsentRecord.objects.create(address_hash=address_hash(address), act=act, way=way[:64])
