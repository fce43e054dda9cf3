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

from anymail.exceptions import (
    AnymailAPIError,
    AnymailInvalidAddress,
    AnymailRecipientsRefused,
    AnymailSerializationError,
    AnymailUnsupportedFeature,
)
from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.core.mail.backends.base import BaseEmailBackend
from django.db import transaction
from django.db.models import Count, F, Q, QuerySet
from django.utils import timezone
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from newsletter import mail
from newsletter.addresses import address_hash
from newsletter.models import Delivery, Subscriber, Suppression
from newsletter.smtp import may_have_left
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
        (S.CLAIMED, S.FAILED),  # its mail could not be composed, or every try killed its worker
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

NEVER_ACCEPTED = (
    AnymailInvalidAddress,
    AnymailRecipientsRefused,
    AnymailSerializationError,
    AnymailUnsupportedFeature,
)
NO_CONNECTION = (NewConnectionError, ConnectTimeoutError)


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


def settle_unknown(delivery: Delivery, target: str) -> bool:
    """What an operator found out of a delivery of unknown outcome: it is sent, to be planned again
    (under the same Message-ID), or failed. False if it was settled meanwhile."""
    values: dict[str, object] = {}
    if target == S.SENT:
        values["sent_at"] = delivery.handed_over_at
    return move(delivery, S.UNKNOWN, target, **values)


def recover(now: datetime) -> int:
    """Take back what a dead worker held: claimed ones are planned again, handed-over ones are
    unknown, since their mail may have left."""
    ran_out = Delivery.objects.filter(lease_until__lte=now)
    gone = "The worker that held it did not come back."
    # What kills every worker that claims it must not do so for ever.
    last_try = ran_out.filter(attempts__gte=settings.SEND_MAX_ATTEMPTS - 1)
    count = move_all(last_try, S.CLAIMED, S.FAILED, lease_until=None, error=gone)
    tried = F("attempts") + 1
    count += move_all(ran_out, S.CLAIMED, S.PLANNED, lease_until=None, attempts=tried, error=gone)
    count += move_all(ran_out, S.HANDED_OVER, S.UNKNOWN, lease_until=None, error=gone)
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
    server = get_connection()
    try:
        while batch := _claim(timezone.now(), edition):
            if not _send_batch(batch, server, tally):
                break
    finally:
        close(server)
    log.info("send_planned: %s", tally)
    return tally


def _send_batch(batch: list[Delivery], server: BaseEmailBackend, tally: Tally) -> bool:
    """Bring each of a claimed batch to its end; False if there is no mail server to talk to."""
    now = timezone.now()
    editions = {one.edition_id: one.edition for one in batch}
    news = {pk for pk, edition in editions.items() if edition.may_be_mailed(now)}
    for place, delivery in enumerate(batch):
        try:
            server.open()  # again after a lost one; does nothing while it stands
        except (OSError, smtplib.SMTPException) as error:
            # Nothing has left, and no other of them would fare better: none waits for its lease,
            # and the server is asked once and not once for each.
            log.error("no connection to the mail server: %s", type(error).__name__)
            for waiting in batch[place:]:
                _later(waiting, S.CLAIMED, f"no connection to the mail server: {error}")
                tally.later += 1
            return False
        _deliver(delivery, server, tally, is_news=delivery.edition_id in news)
    return True


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


def _deliver(delivery: Delivery, server: BaseEmailBackend, tally: Tally, *, is_news: bool) -> None:
    """Bring one claimed delivery to its end. Whatever happens to it happens to no other."""
    try:
        if stopped := _must_not_leave(delivery, is_news=is_news):
            move(delivery, S.CLAIMED, stopped, lease_until=None)
            tally.dropped += 1
            return
        message = mail.compose(delivery)
        message.message()  # what cannot be written as a mail shows here, before it is handed over
    except mail.NothingToSend as nothing:
        move(delivery, S.CLAIMED, S.SKIPPED, lease_until=None, skip_reason=str(nothing))
        tally.dropped += 1
        return
    except Exception as error:  # one poisoned paper fails one delivery, not the run
        log.exception("delivery %s could not be composed", delivery.uuid)
        move(delivery, S.CLAIMED, S.FAILED, lease_until=None, error=repr(error))
        tally.failed += 1
        return
    now = timezone.now()
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
        provider_id = hand_over(message, server)
    except Refused as refused:
        for_good = refused.for_good or delivery.attempts >= settings.SEND_MAX_ATTEMPTS
        log.warning("delivery %s refused for %s", delivery.uuid, "good" if for_good else "now")
        if for_good:
            move(delivery, S.HANDED_OVER, S.FAILED, lease_until=None, error=str(refused))
            tally.failed += 1
        else:
            _later(delivery, S.HANDED_OVER, str(refused))
            tally.later += 1
    except Exception as error:  # OutcomeUnknown, and whatever a provider's code may raise
        log.warning("delivery %s: unknown outcome, %s", delivery.uuid, type(error).__name__)
        move(delivery, S.HANDED_OVER, S.UNKNOWN, lease_until=None, error=str(error))
        tally.unknown += 1
    else:
        sent = {"sent_at": timezone.now(), "provider_id": provider_id, "error": ""}
        # Over a slow hand-over the lease may have run out, and it was taken for unknown.
        if move(delivery, S.HANDED_OVER, S.SENT, lease_until=None, **sent) or move(
            delivery, S.UNKNOWN, S.SENT, **sent
        ):
            tally.sent += 1


def _must_not_leave(delivery: Delivery, *, is_news: bool) -> str:
    """The state a delivery ends in instead of leaving, "" if it may leave."""
    subscriber = Subscriber.objects.filter(pk=delivery.subscriber_id).first()
    if subscriber is None or subscriber.state != Subscriber.State.ACTIVE:
        return S.SUPPRESSED
    if is_suppressed(subscriber.address):
        return S.SUPPRESSED
    return "" if is_news else S.EXPIRED


def is_suppressed(address: str) -> bool:
    return Suppression.objects.filter(address_hash=address_hash(address)).exists()


def _later(delivery: Delivery, source: str, why: str) -> None:
    delay = FIRST_DELAY * 2 ** max(delivery.attempts - 1, 0)
    move(
        delivery, source, S.PLANNED, lease_until=None, not_before=timezone.now() + delay, error=why
    )


def hand_over(message: EmailMessage, server: BaseEmailBackend) -> str:
    """Give one message to the provider; returns the provider's id for it, "" if it names none.

    Raises:
        Refused: it was definitely not accepted.
        OutcomeUnknown: it may have been.
    """
    message.connection = server
    try:
        accepted = _send(message, server)
    except smtplib.SMTPSenderRefused as error:
        # The sender's fault and not the reader's: a later try may find it mended.
        close(server)
        raise Refused(str(error), for_good=False) from error
    except smtplib.SMTPRecipientsRefused as error:
        codes = [code for code, _ in error.recipients.values()]
        close(server)
        raise Refused(str(error), for_good=all(code >= 500 for code in codes)) from error
    except smtplib.SMTPResponseException as error:
        close(server)
        raise Refused(str(error), for_good=error.smtp_code >= 500) from error
    except AnymailAPIError as error:
        raise _outcome(error) from error
    except NEVER_ACCEPTED as error:
        raise Refused(str(error), for_good=True) from error
    except (smtplib.SMTPException, OSError) as error:
        unknown = may_have_left(server)
        close(server)
        lost = f"the connection was lost: {error!r}"
        raise (OutcomeUnknown(lost) if unknown else Refused(lost, for_good=False)) from error
    if not accepted:
        raise OutcomeUnknown("the mail backend did not say that it accepted the message")
    status = getattr(message, "anymail_status", None)
    return str(getattr(status, "message_id", "") or "")


def _send(message: EmailMessage, server: BaseEmailBackend) -> int | None:
    """Send, and where the server hung up before it was told the message, once more.

    Many servers take so many messages on a connection and then close it.
    """
    try:
        return server.send_messages([message])
    except smtplib.SMTPServerDisconnected as error:
        if may_have_left(server):
            raise
        close(server)
        try:
            server.open()
        except (OSError, smtplib.SMTPException) as failed:
            raise Refused(f"the server hung up: {failed}", for_good=False) from error
        return server.send_messages([message])


def _outcome(error: AnymailAPIError) -> Refused | OutcomeUnknown:
    """What a provider's API error says about the message."""
    status = getattr(error, "status_code", None)
    if status in (401, 403, 429) or _never_connected(error):
        return Refused(str(error), for_good=False)  # our key or quota, or their door
    if status is not None and 400 <= status < 500:
        return Refused(str(error), for_good=True)
    return OutcomeUnknown(str(error))


def _never_connected(error: BaseException | None) -> bool:
    """Whether a request failed before it had a connection to send anything over."""
    while error is not None:
        reason = getattr(error.args[0], "reason", None) if error.args else None
        if isinstance(error, NO_CONNECTION) or isinstance(reason, NO_CONNECTION):
            return True
        error = error.__cause__ or error.__context__
    return False


def close(server: BaseEmailBackend) -> None:
    """Leave no half-spoken conversation to the next message: it opens a connection of its own."""
    try:
        server.close()
    except (OSError, smtplib.SMTPException):
        log.debug("closing a broken connection failed", exc_info=True)


def counts_by_state(edition: Edition) -> dict[str, int]:
    """How many deliveries of an edition stand in each state."""
    states = Delivery.objects.filter(edition=edition).order_by("state").values_list("state")
    return dict(states.annotate(Count("id")))
