"""Subscribe, confirm, change, pause, unsubscribe, export, erase: what may be done with an address.

Whoever asks on a web page learns nothing: new, pending, active and suppressed addresses get the
same page, after the same work; the difference is told by mail, to the address alone.
"""

from __future__ import annotations

import logging
import smtplib
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypedDict, TypeVar, Unpack
from uuid import uuid4

from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.db import connection, transaction
from django.db.models import OuterRef, Q, QuerySet
from django.db.models.functions import Lower
from django.utils import timezone

from newsletter import mail, provider, schedule, sending, submissions, votes
from newsletter.addresses import address_hash, mailbox_key
from newsletter.delivery import is_suppressed
from newsletter.models import (
    MAX_INTERESTS,
    ConsentRecord,
    Delivery,
    DeliveryEvent,
    Interest,
    SignInRequest,
    Subscriber,
    Suppression,
)
from papers.models import Edition, Paper

log = logging.getLogger(__name__)

ONE_ANSWER_IN = timedelta(days=1)
ANSWER_LEASE = timedelta(minutes=15)
TURN = 50.0  # seconds that one kind of mail keeps a worker; beat asks again each minute

State = Subscriber.State
Reason = Delivery.Reason

Claimed = TypeVar("Claimed")


@dataclass(frozen=True, slots=True)
class Subject:
    """An interest as it is stated: what a form or a file says before it is a row."""

    words: str = ""
    categories: tuple[str, ...] = ()
    name: str = ""
    authors: tuple[str, ...] = ()
    example_ids: tuple[int, ...] = ()
    interest_id: int | None = None  # the row it was read from, and that it will be again

    @property
    def title(self) -> str:
        stated = self.name or " ".join(self.words.split())
        listed = ", ".join(self.categories) or ", ".join(self.authors)
        return (stated or listed or ("Papers like your examples" if self.example_ids else ""))[:100]

    @property
    def states_something(self) -> bool:
        return bool(self.words.strip() or self.categories or self.authors or self.example_ids)


class Rules(TypedDict, total=False):
    """What a reader asks for beyond subjects; what is not named stays as it is."""

    send_minute: int
    send_days: str
    popularity: int
    muted_terms: list[str]
    muted_categories: list[str]
    muted_authors: list[str]
    must_phrases: list[str]
    must_authors: list[str]


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
        subscriber = spelled(address).select_for_update().get()
        may_change = subscriber.state in (State.PENDING, State.UNSUBSCRIBED)
        if may_change:
            subscriber.state = State.PENDING
            subscriber.time_zone, subscriber.send_hour = time_zone, send_hour
            # As the form promises: every day, at the full hour. The settings have the others.
            subscriber.send_minute, subscriber.send_days = 0, schedule.Days.DAILY
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
    return send_each(_claim_answer, _send_answer, "answers")


def send_each(
    claim: Callable[[datetime], list[Claimed] | None],
    send: Callable[[Claimed, BaseEmailBackend], bool],
    what: str,
) -> int:
    """Send what can be claimed, one after the other by one connection; returns how many left.

    What is not done after TURN waits for the next tick. Without a connection all of it waits: what
    is in hand for its lease.

    Args:
        claim: takes one that is due in hand; [] where it needs no mail, None where nothing is due.
    """
    sent = 0
    end = time.monotonic() + TURN
    server = provider.connection()
    try:
        while time.monotonic() < end and (found := claim(timezone.now())) is not None:
            if not found:
                continue
            try:
                server.open()
            except (OSError, smtplib.SMTPException) as error:
                kind = type(error).__name__
                log.error("no connection to the mail server: %s wait (%s)", what, kind)
                break
            sent += sum(send(claimed, server) for claimed in found)
    finally:
        provider.close(server)
    return sent


def _send_answer(subscriber: Subscriber, server: BaseEmailBackend) -> bool:
    """Send one answer and settle it; False if it waits for its next try, or there is none."""
    done = {"answer_due_at": None, "answered_at": timezone.now()}
    try:
        provider.hand_over(_answer(subscriber), server)
    except provider.OutcomeUnknown:
        log.warning("the answer to subscriber %s may have arrived", subscriber.uuid)
    except Exception as error:  # one that cannot be sent keeps no other waiting
        for_good = isinstance(error, provider.Refused) and error.for_good
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


def _claim_answer(now: datetime) -> list[Subscriber] | None:
    with transaction.atomic():
        subscriber = (
            Subscriber.objects.awaiting_answer(now)
            .filter(sending.not_paused(sending.domain_expression(OuterRef("address"))))
            .order_by("answer_due_at")
            .select_for_update(skip_locked=True)
            .first()
        )
        if subscriber is None:
            return None
        lock_mailbox(subscriber.mailbox_key)
        suppressed = is_suppressed(subscriber.address)
        if suppressed and subscriber.confirmed_at is None:
            subscriber.delete()  # nobody who may be mailed: no reason to keep the address
            return []
        same_mailbox = Subscriber.objects.filter(mailbox_key=subscriber.mailbox_key)
        answered = same_mailbox.filter(answered_at__gt=now - ONE_ANSWER_IN).exists()
        in_hand = same_mailbox.filter(answer_due_at__gt=now).exists()
        silent = answered or in_hand or suppressed
        subscriber.answer_due_at = None if silent else now + ANSWER_LEASE
        subscriber.save(update_fields=["answer_due_at"])
    return [] if silent else [subscriber]


def lock_mailbox(mailbox: str) -> None:
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
    slot = schedule.last_slot(now, *subscriber.slots)
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
    slot = schedule.last_slot(now, *subscriber.slots)
    owed = (
        edition is not None
        and edition.frozen_at is not None
        and edition.frozen_at <= slot
        and not subscriber.deliveries.filter(edition=edition).exists()
    )
    subscriber.next_send_at = now if owed else _next_slot(subscriber, now)


def _next_slot(subscriber: Subscriber, now: datetime) -> datetime:
    return schedule.next_slot(now, *subscriber.slots)


def change(
    subscriber: Subscriber,
    subjects: Iterable[Subject],
    *,
    time_zone: str,
    send_hour: int,
    papers_per_mail: int,
    paused: bool,
    seen: Collection[int] | None = None,
    **rules: Unpack[Rules],
) -> None:
    """Replace a subscriber's settings and interests by those stated.

    `seen` are the interests of which the reader knew when stating: another one, which feedback
    may have made meanwhile, stays. None: all of them.
    """
    with transaction.atomic():
        subscriber = Subscriber.objects.select_for_update().get(pk=subscriber.pk)
        subscriber.time_zone, subscriber.send_hour = time_zone, send_hour
        subscriber.papers_per_mail = papers_per_mail
        for name, value in rules.items():
            setattr(subscriber, name, value)
        if subscriber.state in (State.ACTIVE, State.PAUSED):
            subscriber.state = State.PAUSED if paused else State.ACTIVE
            reschedule(subscriber)
        _state_interests(subscriber, subjects, seen)
        subscriber.save()


def unsubscribe(subscriber: Subscriber, *, way: str) -> None:
    """No more mail, from now on; what is planned is not sent. Twice is as good as once."""
    with transaction.atomic():
        found = Subscriber.objects.select_for_update().filter(pk=subscriber.pk).first()
        if found is None or found.state == State.UNSUBSCRIBED:
            return  # or erased meanwhile, which is more
        subscriber = found
        subscriber.state = State.UNSUBSCRIBED
        subscriber.next_send_at = subscriber.answer_due_at = None
        subscriber.unsubscribed_at = timezone.now()
        subscriber.sign_ins += 1  # no link and no session of theirs outlives it
        subscriber.sign_outs += 1
        subscriber.save()
        _record(subscriber.address, ConsentRecord.Act.UNSUBSCRIBED, way)


def erase(subscriber: Subscriber, *, way: str) -> None:
    """Forget the subscriber; a keyed hash stays, so that the address is never mailed again.

    Twice is as good as once.
    """
    with transaction.atomic():
        _lock_papers(subscriber)
        found = Subscriber.objects.select_for_update().filter(pk=subscriber.pk).first()
        if found is None:
            return
        subscriber = found
        suppress(subscriber.address, Suppression.Reason.ERASURE)
        _record(subscriber.address, ConsentRecord.Act.ERASED, way)
        voted = list(subscriber.votes.values_list("paper", flat=True))
        SignInRequest.objects.filter(address_hash=address_hash(subscriber.address)).delete()
        submissions.take_names_back(subscriber)
        subscriber.delete()
        votes.tell(voted)


def _lock_papers(subscriber: Subscriber) -> None:
    """Those of which the reader said anything, and what an editor may be accepting just now: before
    the reader, and in the order in which a harvest locks them."""
    named = {*subscriber.votes.values_list("paper", flat=True)}
    named |= {*subscriber.feedback.values_list("paper", flat=True)}
    proposed = dict(subscriber.submissions.values_list("arxiv_id", "paper"))
    said_of = Q(pk__in=named | {*proposed.values()} - {None}) | Q(arxiv_id__in=list(proposed))
    papers = Paper.objects.filter(said_of).order_by("id")
    list(papers.select_for_update(no_key=True).values_list("pk"))


def export(subscriber: Subscriber) -> dict[str, Any]:
    """All that is kept of a subscriber, as JSON can hold it, in words where there are some."""
    deliveries = list(subscriber.deliveries.select_related("edition").order_by("id"))
    feedback = list(subscriber.feedback.select_related("paper", "interest").order_by("id"))
    Delivery.follow(deliveries)
    known = Paper.objects.in_bulk({pk for one in deliveries for pk in one.paper_ids})
    titles = mail.titles_named_by(*deliveries)
    hashed = address_hash(subscriber.address)
    return {
        "address": subscriber.address,
        "name": subscriber.name,
        "state": subscriber.state,
        "settings": {
            name: getattr(subscriber, name)
            for name in (
                "time_zone", "send_hour", "send_minute", "send_days", "papers_per_mail",
                "popularity", "muted_terms", "muted_categories", "muted_authors", "must_phrases",
                "must_authors",
            )
        },
        "next_send_at": subscriber.next_send_at,
        "signed_up_at": subscriber.created_at,
        "confirmed_at": subscriber.confirmed_at,
        "unsubscribed_at": subscriber.unsubscribed_at,
        "answered_at": subscriber.answered_at,
        "sign_ins": subscriber.sign_ins,
        "interests": [
            {
                "name": interest.name,
                "words": interest.words,
                "categories": interest.categories,
                "authors": interest.authors,
                "examples": [
                    _named(paper) for paper in Paper.objects.filter(pk__in=interest.example_ids)
                ],
            }
            for interest in subscriber.interests.all()
        ],
        "feedback": [
            _named(row.paper)
            | {"kind": row.kind, "at": row.at, "interest": row.interest and row.interest.name}
            for row in feedback
        ],
        "upvotes": [
            _named(vote.paper) | {"at": vote.created_at}
            for vote in subscriber.votes.select_related("paper").order_by("id")
        ],
        "submissions": [
            {
                "arxiv_id": row.arxiv_id,
                "shown_name": row.shown_name,
                "state": row.state,
                "reason": row.reason,
                "at": row.created_at,
                "decided_at": row.decided_at,
            }
            for row in subscriber.submissions.order_by("id")
        ],
        "mails": [
            {
                "day": one.edition.day,
                "state": one.state,
                "why_skipped": one.skip_reason,
                "planned_at": one.planned_at,
                "sent_at": one.sent_at,
                "error": one.error,
                "picks": [
                    _named(known[pk]) | {"reason": mail.reason_text(Reason(code), detail, titles)}
                    for pk, code, detail in zip(
                        one.paper_ids, one.reasons, one.reason_details, strict=True
                    )
                    if pk in known
                ],
            }
            for one in deliveries
        ],
        "mail_events": list(
            DeliveryEvent.objects.filter(pk__in=_told_of(subscriber, hashed))
            .order_by("id")
            .values("kind", "cause", "source", "detail", "occurred_at")
        ),
        "consent": list(
            ConsentRecord.objects.filter(address_hash=hashed).order_by("id").values(
                "act", "way", "at"
            )
        ),
        "suppressed": list(
            Suppression.objects.filter(address_hash=hashed).values("reason", "created_at")
        ),
    }  # fmt: skip


def _told_of(subscriber: Subscriber, hashed: str) -> QuerySet[DeliveryEvent, Any]:
    """The events of a reader's mails, and those that name the address alone. Each by its own way:
    with an OR over two tables, PostgreSQL reads both from end to end."""
    told = DeliveryEvent.objects.order_by().values("pk")
    of_mails = told.filter(delivery__in=subscriber.deliveries.values("pk"))
    return of_mails.union(told.filter(address_hash=hashed))


def _named(paper: Paper) -> dict[str, Any]:
    return {"paper": paper.title, "page": settings.SITE_URL + paper.get_absolute_url()}


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
    send_minute: int = 0,
    send_days: str = schedule.Days.DAILY,
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
        if spelled(address).exists():
            return False
        subscriber = Subscriber(
            address=address,
            mailbox_key=mailbox_key(address),
            name=name,
            state=State.ACTIVE,
            time_zone=time_zone,
            send_hour=send_hour,
            send_minute=send_minute,
            send_days=send_days,
            confirmed_at=now,
        )
        subscriber.next_send_at = _next_slot(subscriber, now)
        subscriber.save()
        _state_interests(subscriber, subjects)
        _record(address, ConsentRecord.Act.IMPORTED, way)
    return True


def spelled(address: str) -> QuerySet[Subscriber]:
    """Who has this address, whatever its case, found by the index that keeps it unique."""
    folded = Subscriber.objects.alias(folded=Lower("address"))
    return folded.filter(folded=address.lower())


def _state_interests(
    subscriber: Subscriber, subjects: Iterable[Subject], seen: Collection[int] | None = None
) -> None:
    """Make the interests those stated, and those not `seen`; None: all were.

    An interest keeps its row, and so what was learned for it: the one a subject says it was, else
    the one of its name. One that states nothing any more stays only if something was learned.
    """
    rows = {row.pk: row for row in subscriber.interests.all()}
    was = {pk: row.name for pk, row in rows.items()}
    learned = set(subscriber.feedback.values_list("interest_id", flat=True))
    subjects = list(subjects)
    kept = {pk: row for pk, row in rows.items() if seen is not None and pk not in seen}
    named = {row.name for row in kept.values()}
    claimed = {subject.interest_id for subject in subjects}
    free = {row.name: row for row in rows.values() if row.pk not in claimed}
    done: set[int] = set()
    new: dict[str, Interest] = {}
    for subject in subjects:
        # What another reader's id, or a removed one, says is a new subject.
        row = None if subject.interest_id in done else rows.get(subject.interest_id or 0)
        if not subject.states_something and (row is None or row.pk not in learned):
            continue
        name = subject.title or (row.name if row else "")
        if row is None and (row := free.pop(name, None)):
            named.discard(name)
            subject = replace(
                subject,
                authors=subject.authors or tuple(row.authors),
                example_ids=subject.example_ids or tuple(row.example_ids),
            )
        if row is None and (name in new or len(kept) + len(new) >= MAX_INTERESTS):
            continue
        name = _unlike(named, name)
        named.add(name)
        if row is None:
            row = new[name] = Interest(subscriber=subscriber)
        else:
            kept[row.pk] = row
            done.add(row.pk)
        row.name, row.words, row.categories = name, subject.words, list(subject.categories)
        row.authors, row.example_ids = list(subject.authors), list(subject.example_ids)
    subscriber.interests.exclude(pk__in=kept).delete()
    for pk in [pk for pk, row in kept.items() if row.name != was[pk]]:
        # Two may exchange their names: meanwhile each has one that nobody else wants.
        Interest.objects.filter(pk=pk).update(name=uuid4().hex)
    stated = ["name", "words", "categories", "authors", "example_ids"]
    Interest.objects.bulk_update(kept.values(), stated)
    Interest.objects.bulk_create(new.values())


def _unlike(names: Collection[str], name: str) -> str:
    """`name`, or where it is taken the next "name (2)"."""
    tries = (f"{name[:94]} ({n})" for n in range(2, len(names) + 3))
    return next((tried for tried in (name, *tries) if tried not in names), name)


def _record(address: str, act: ConsentRecord.Act, way: str) -> None:
    ConsentRecord.objects.create(address_hash=address_hash(address), act=act, way=way[:64])
