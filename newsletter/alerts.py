"""Tell the operators by mail what they must know, each thing at most once an hour.

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

from newsletter.models import Alert

log = logging.getLogger(__name__)

ONCE_IN = timedelta(hours=1)
RETRY_AFTER = timedelta(minutes=10)


def alert(subject: str, text: str) -> None:
    """Tell the operators; never raises. Within a transaction, the mail leaves once it commits.

    Args:
        subject: the same for the same trouble: it is what is counted, and mailed once an hour.
        text: what is wrong and what to do, with ids and no readers' addresses.
    """
    try:
        subject = " ".join(subject.split())[:200]
        log.error("alert: %s", subject)
        with transaction.atomic():
            _note(subject, text, timezone.now())
        transaction.on_commit(_send, robust=True)
    except Exception:  # whoever tells of one trouble must not get a second one
        log.exception("an alert could not be noted")


def _note(subject: str, text: str, now: datetime) -> None:
    known, is_new = Alert.objects.select_for_update().get_or_create(
        subject=subject, defaults={"text": text, "raised_at": now}
    )
    if is_new:
        return
    known.text, known.raised_at, known.times = text, now, known.times + 1
    if not known.waits and (known.tried_at is None or known.tried_at <= now - ONCE_IN):
        known.waits, known.tried_at = True, None
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
        Alert.objects.filter(pk=known.pk).update(waits=False, mailed_at=mailed_at)
        sent += told
    return sent


def _mail(known: Alert) -> bool:
    """False if there is nobody to be told."""
    if not settings.OPERATOR_ADDRESSES:
        log.error("OPERATOR_ADDRESSES is not set: an alert is told to nobody but the admin")
        return False
    often = f"\n\nRaised {known.times} times." if known.times > 1 else ""
    EmailMessage(
        f"[{settings.SITE_NAME}] {known.subject}",
        f"{known.text}{often}\n\n{settings.SITE_URL}/admin/\n",
        settings.SERVER_EMAIL,
        settings.OPERATOR_ADDRESSES,
        headers={"Auto-Submitted": "auto-generated"},
    ).send()
    return True
