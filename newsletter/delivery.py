"""The state machine of a delivery: claim, hand over, settle, recover.

One table says which moves there are, and one function makes a move, by an UPDATE that only
succeeds from the state it leaves. "Handed over" is committed before the network is touched: after
a crash at any point it is known whether a mail may have left.
"""

from __future__ import annotations

import logging
import smtplib
from dataclasses import dataclass
from datetime import datetime, timedelta

from anymail.exceptions import AnymailError, AnymailRequestsAPIError
from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.core.mail.backends.base import BaseEmailBackend
from django.db import transaction
from django.db.models import Count, Q, QuerySet
from django.utils import timezone

from newsletter import mail
from newsletter.addresses import address_hash
from newsletter.models import Delivery, Subscriber, Suppression
from papers.models import Edition

log = logging.getLogger(__name__)

S = Delivery.State

MOVES: frozenset[tuple[str, str]] = frozenset(
    {
        (S.PLANNED, S.CLAIMED),
        (S.PLANNED, S.SUPPRESSED),
        (S.PLANNED, S.EXPIRED),
        (S.CLAIMED, S.PLANNED),  # the lease ran out, or no connection: nothing has left
        (S.CLAIMED, S.HANDED_OVER),
        (S.CLAIMED, S.SUPPRESSED),
        (S.CLAIMED, S.EXPIRED),
        (S.CLAIMED, S.SKIPPED),  # every pick was hidden since it was planned
        (S.CLAIMED, S.FAILED),  # its mail could not be composed
        (S.HANDED_OVER, S.SENT),
        (S.HANDED_OVER, S.PLANNED),  # definitely refused for now
        (S.HANDED_OVER, S.FAILED),  # definitely refused for good
        (S.HANDED_OVER, S.UNKNOWN),  # the connection died, or the lease ran out: held
        (S.UNKNOWN, S.SENT),
        (S.UNKNOWN, S.PLANNED),
        (S.UNKNOWN, S.FAILED),
    }
)

FIRST_DELAY = timedelta(minutes=5)


class Refused(Exception):
    """The mail server said no. `for_good`: asking again would not help."""

    def __init__(self, message: str, *, for_good: bool) -> None:
        super().__init__(message)
        self.for_good = for_good


class OutcomeUnknown(Exception):
    """The mail may or may not have been accepted."""


@dataclass(slots=True)
class Tally:
    """What one call of `send_planned` did."""

    sent: int = 0
    failed: int = 0
    later: int = 0
    unknown: int = 0
    dropped: int = 0

    def __str__(self) -> str:
        return (
            f"{self.sent} sent, {self.failed} failed, {self.later} to be tried again, "
            f"{self.unknown} unknown, {self.dropped} dropped"
        )


def move(delivery: Delivery, source: str, target: str, **values: object) -> bool:
    """Move one delivery; False if it was not in `source` any more."""
    moved = move_all(Delivery.objects.filter(pk=delivery.pk), source, target, **values)
    if moved:
        for name, value in {"state": target, **values}.items():
            setattr(delivery, name, value)
    return bool(moved)


def move_all(deliveries: QuerySet[Delivery], source: str, target: str, **values: object) -> int:
    """Move those of `deliveries` that are in `source`; returns how many.

    Raises:
        ValueError: there is no such move.
    """
    if (source, target) not in MOVES:
        raise ValueError(f"no move from {source} to {target}")
    return deliveries.filter(state=source).update(state=target, **values)


def recover(now: datetime) -> int:
    """Take back what a dead worker held: claimed ones are planned again, handed-over ones are
    unknown, since their mail may have left."""
    ran_out = Delivery.objects.filter(lease_until__lte=now)
    count = move_all(ran_out, S.CLAIMED, S.PLANNED, lease_until=None)
    held = "The worker that handed it over did not come back."
    count += move_all(ran_out, S.HANDED_OVER, S.UNKNOWN, lease_until=None, error=held)
    if count:
        log.warning("recovered %d deliveries of lost workers", count)
    return count


def send_planned(*, edition: Edition | None = None) -> Tally:
    """Send what is planned and may be sent now, until nothing is left.

    Args:
        edition: only this one's deliveries.
    """
    recover(timezone.now())
    tally = Tally()
    connection = get_connection()
    try:
        while batch := _claim(timezone.now(), edition):
            for delivery in batch:
                _deliver(delivery, connection, tally)
    finally:
        close(connection)
    log.info("send_planned: %s", tally)
    return tally


def _claim(now: datetime, edition: Edition | None) -> list[Delivery]:
    """Take a batch for this worker, with a lease; others skip what is being taken."""
    ready = Delivery.objects.filter(Q(not_before=None) | Q(not_before__lte=now), state=S.PLANNED)
    if edition is not None:
        ready = ready.filter(edition=edition)
    with transaction.atomic():
        ids = list(
            ready.order_by("id")
            .select_for_update(skip_locked=True)
            .values_list("pk", flat=True)[: settings.SEND_BATCH_SIZE]
        )
        lease = now + timedelta(seconds=settings.SEND_LEASE_SECONDS)
        move_all(Delivery.objects.filter(pk__in=ids), S.PLANNED, S.CLAIMED, lease_until=lease)
    return list(
        Delivery.objects.filter(pk__in=ids, state=S.CLAIMED, lease_until=lease)
        .select_related("subscriber", "edition")
        .order_by("pk")
    )


def _deliver(delivery: Delivery, connection: BaseEmailBackend, tally: Tally) -> None:
    """Bring one claimed delivery to its end. Whatever happens to it happens to no other."""
    now = timezone.now()
    try:
        if stopped := _must_not_leave(delivery, now):
            move(delivery, S.CLAIMED, stopped, lease_until=None)
            tally.dropped += 1
            return
        message = mail.compose(delivery)
    except mail.NothingToSend as nothing:
        move(delivery, S.CLAIMED, S.SKIPPED, lease_until=None, skip_reason=str(nothing))
        tally.dropped += 1
        return
    except Exception as error:  # one poisoned paper fails one delivery, not the run
        log.exception("delivery %s could not be composed", delivery.uuid)
        move(delivery, S.CLAIMED, S.FAILED, lease_until=None, error=repr(error))
        tally.failed += 1
        return
    try:
        connection.open()  # again after a lost one; does nothing while it stands
    except (OSError, smtplib.SMTPException) as error:
        # Nothing has left, and the next delivery would not fare better: none waits for its lease.
        _later(delivery, S.CLAIMED, f"no connection to the mail server: {error}")
        tally.later += 1
        log.error("no connection to the mail server: %s", error)
        return
    handed_over = move(
        delivery,
        S.CLAIMED,
        S.HANDED_OVER,
        handed_over_at=now,
        lease_until=now + timedelta(seconds=settings.SEND_LEASE_SECONDS),
        attempts=delivery.attempts + 1,
    )
    if not handed_over:
        return  # the lease ran out, and somebody else has it
    try:
        provider_id = hand_over(message, connection)
    except Refused as refused:
        if refused.for_good or delivery.attempts >= settings.SEND_MAX_ATTEMPTS:
            move(delivery, S.HANDED_OVER, S.FAILED, lease_until=None, error=str(refused))
            tally.failed += 1
        else:
            _later(delivery, S.HANDED_OVER, str(refused))
            tally.later += 1
        log.warning("delivery %s refused: %s", delivery.uuid, refused)
    except OutcomeUnknown as unknown:
        move(delivery, S.HANDED_OVER, S.UNKNOWN, lease_until=None, error=str(unknown))
        tally.unknown += 1
        log.warning("delivery %s has an unknown outcome: %s", delivery.uuid, unknown)
    else:
        move(
            delivery,
            S.HANDED_OVER,
            S.SENT,
            sent_at=timezone.now(),
            provider_id=provider_id,
            lease_until=None,
            error="",
        )
        tally.sent += 1


def _must_not_leave(delivery: Delivery, now: datetime) -> str:
    """The state a delivery ends in instead of leaving, "" if it may leave."""
    subscriber = Subscriber.objects.only("state", "address").get(pk=delivery.subscriber_id)
    if subscriber.state != Subscriber.State.ACTIVE or is_suppressed(subscriber.address):
        return S.SUPPRESSED
    return "" if delivery.edition.may_be_mailed(now) else S.EXPIRED


def is_suppressed(address: str) -> bool:
    return Suppression.objects.filter(address_hash=address_hash(address)).exists()


def _later(delivery: Delivery, source: str, why: str) -> None:
    delay = FIRST_DELAY * 2 ** max(delivery.attempts - 1, 0)
    move(
        delivery, source, S.PLANNED, lease_until=None, not_before=timezone.now() + delay, error=why
    )


def hand_over(message: EmailMessage, connection: BaseEmailBackend) -> str:
    """Give one message to the provider; returns the provider's id for it, "" if it names none.

    Raises:
        Refused: it was definitely not accepted.
        OutcomeUnknown: it may have been.
    """
    message.connection = connection
    try:
        accepted = connection.send_messages([message])
    except smtplib.SMTPRecipientsRefused as error:
        codes = [code for code, _ in error.recipients.values()]
        close(connection)
        raise Refused(str(error), for_good=all(code >= 500 for code in codes)) from error
    except smtplib.SMTPResponseException as error:
        close(connection)
        raise Refused(str(error), for_good=error.smtp_code >= 500) from error
    except AnymailRequestsAPIError as error:
        status = error.status_code
        if status == 429:
            raise Refused(str(error), for_good=False) from error
        if status is not None and 400 <= status < 500:
            raise Refused(str(error), for_good=True) from error
        raise OutcomeUnknown(str(error)) from error
    except AnymailError as error:
        # Unsupported feature, bad configuration, every recipient refused: nothing was accepted.
        raise Refused(str(error), for_good=True) from error
    except (smtplib.SMTPException, OSError) as error:
        close(connection)
        raise OutcomeUnknown(f"the connection was lost: {error!r}") from error
    if not accepted:
        raise OutcomeUnknown("the mail backend did not say that it accepted the message")
    status = getattr(message, "anymail_status", None)
    return str(getattr(status, "message_id", "") or "")


def close(connection: BaseEmailBackend) -> None:
    """Leave no half-spoken conversation to the next message: it opens a connection of its own."""
    try:
        connection.close()
    except (OSError, smtplib.SMTPException):
        log.debug("closing a broken connection failed", exc_info=True)


def counts_by_state(edition: Edition) -> dict[str, int]:
    """How many deliveries of an edition stand in each state."""
    states = Delivery.objects.filter(edition=edition).order_by("state").values_list("state")
    return dict(states.annotate(Count("id")))
