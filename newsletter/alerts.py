"""Tell the operators by mail what they must know, each trouble at most once an hour.

What is to be told is a row first, so that it outlives a mail server that is away: a tick tries
again, and the admin lists it in any case.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from django.conf import settings
from django.core.mail import EmailMessage
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from newsletter import provider
from newsletter.models import Alert

log = logging.getLogger(__name__)

ONCE_IN = timedelta(hours=1)
RETRY_AFTER = timedelta(minutes=10)


def alert(subject: str, text: str, *, is_new: bool = False) -> None:
    """Tell the operators; never raises. Within a transaction, the mail leaves once it commits.

    Args:
        subject: the same for the same trouble: it is what is counted, and mailed once an hour.
        text: what is wrong and what to do, with ids and no readers' addresses.
        is_new: it is no trouble that lasts, but has come again after its end: it is mailed whatever
            the hour. Only for what a person has to end, so that it is no flood.
    """
    try:
        subject = _as_kept(subject)
        log.error("alert: %s", subject)
        with transaction.atomic():
            _note(subject, text, timezone.now(), is_new)
        transaction.on_commit(_send, robust=True)
    except Exception:  # whoever tells of one trouble must not get a second one
        log.exception("an alert could not be noted")


def is_told(subject: str, now: datetime, since: datetime) -> bool:
    """Whether it needs not be told again: its mail waits or has left since then, or it was raised
    within the hour."""
    known = Alert.objects.filter(subject=_as_kept(subject))
    raised = Q(raised_at__gt=now - ONCE_IN)
    return known.filter(raised | Q(waits=True) | Q(mailed_at__gt=since)).exists()


def _as_kept(subject: str) -> str:
    return " ".join(subject.split())[:200]


def _note(subject: str, text: str, now: datetime, is_new: bool) -> None:
    known, is_first = Alert.objects.select_for_update().get_or_create(
        subject=subject, defaults={"text": text, "raised_at": now}
    )
    if is_first:
        return
    known.text, known.raised_at, known.times = text, now, known.times + 1
    is_due = not known.waits and (known.tried_at is None or known.tried_at <= now - ONCE_IN)
    if is_due or is_new:
        known.waits, known.tried_at = True, None
    if is_new:
        known.mailed_at = None
    known.save()


def _send() -> None:
    send_waiting(timezone.now())


def send_waiting(now: datetime) -> int:
    """Mail the alerts that wait for it; returns how many. Where it fails, a later call tries."""
    sent = 0
    due = Alert.objects.filter(Q(tried_at=None) | Q(tried_at__lte=now - RETRY_AFTER), waits=True)
    for known in due.order_by("raised_at"):
        # Whoever notes the try makes it.
        if not due.filter(pk=known.pk).update(tried_at=now):
            continue
        try:
            told = _mail(known)
        except Exception as error:  # its class alone: what a mail server says names addresses
            log.error("an alert could not be mailed: %s", type(error).__name__)
            break  # the others would fare no better
        mailed_at = now if told else known.mailed_at
        # Not if it came anew meanwhile: this mail does not tell of that.
        tried = Alert.objects.filter(pk=known.pk, tried_at=now)
        tried.update(waits=False, mailed_at=mailed_at)
        sent += told
    return sent


def _mail(known: Alert) -> bool:
    """False if there is nobody to be told, or it may not have arrived: then it is not repeated,
    for a server that never answers takes each copy."""
    if not settings.OPERATOR_ADDRESSES:
        log.error("OPERATOR_ADDRESSES is not set: an alert is told to nobody but the admin")
        return False
    often = f"\n\nRaised {known.times} times." if known.times > 1 else ""
    message = EmailMessage(
        f"[{settings.SITE_NAME}] {known.subject}",
        f"{known.text}{often}\n\n{settings.SITE_URL}/admin/\n",
        settings.SERVER_EMAIL,
        settings.OPERATOR_ADDRESSES,
        headers={"Auto-Submitted": "auto-generated"},
    )
    server = provider.connection()
    try:
        server.open()
        provider.hand_over(message, server)
    except provider.OutcomeUnknown:
        log.warning("an alert may have arrived")
        return False
    finally:
        provider.close(server)
    return True
