"""Signing in by a link in a mail: ask, answer, follow the link, leave.

Whoever asks learns nothing: every address gets the same page after the same work, one row of keyed
hashes. A worker sees whose it is, and mails a link to a subscriber's address alone. The link works
once, for some minutes, and only by its page's button.

A reader's session is a part of Django's, which the admin may have begun: signing in as a reader
changes the session's key and keeps what else it holds, signing out takes the reader's part alone.
Nobody without a session costs a query or gets a cookie.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth import SESSION_KEY as ADMIN
from django.core.mail.backends.base import BaseEmailBackend
from django.db import transaction
from django.db.models import F
from django.http import HttpRequest
from django.middleware.csrf import rotate_token
from django.utils import timezone
from django.utils.encoding import iri_to_uri
from django.utils.http import url_has_allowed_host_and_scheme

from newsletter import delivery, mail, provider, sending, votes
from newsletter.addresses import address_hash, mailbox_key
from newsletter.links import SIGN_IN_MINUTES
from newsletter.models import SignInRequest, Subscriber
from newsletter.subscriptions import lock_mailbox, send_each

log = logging.getLogger(__name__)

READER = "reader"  # the part of a session that is a reader's
LASTS = timedelta(days=30)
# To a mailbox, however its address is spelled. Those that its own mails led to count apart: nobody
# who only knows the address can use them up.
LINKS_A_DAY = 5
AT_ONCE = timedelta(minutes=1)  # asked again so soon is asked once
LEASE = timedelta(minutes=5)
OF_USE = timedelta(minutes=SIGN_IN_MINUTES)  # who has waited longer has given up, or asked again
KEPT = timedelta(days=1)
AT_A_TIME = 5_000  # requests

MAY_SIGN_IN = (Subscriber.State.ACTIVE, Subscriber.State.PAUSED)


def ask(address: str, *, proved: bool = False) -> None:
    """Note that somebody wants to sign in with `address`; the answer goes there by mail, if any.

    Args:
        proved: who asks came by a mail to this address.
    """
    now = timezone.now()
    SignInRequest.objects.create(
        mailbox_key=mailbox_key(address),
        address_hash=address_hash(address),
        proved=proved,
        asked_at=now,
        due_at=now,
    )


def send_links() -> int:
    """Mail a link to those who asked and are subscribed; returns how many.

    As with `subscriptions.send_answers`: a lease, so that a crash or a refusal for now costs but
    time, and one whose outcome is unknown counts as sent.
    """
    _drop_idle(timezone.now())
    return send_each(_claim, _send, "links to sign in")


def _drop_idle(now: datetime) -> None:
    """Drop, many at a time, what is due and leads to no mail: of nobody here, asked again at once,
    or too long ago. So nobody who asks in masses keeps a reader waiting."""
    last = 0
    while True:
        with transaction.atomic():
            # What another worker has in hand is its own affair.
            batch = list(
                SignInRequest.objects.filter(due_at__lte=now, pk__gt=last)
                .order_by("pk")
                .select_for_update(skip_locked=True)[:AT_A_TIME]
            )
            readers = Subscriber.objects.filter(
                mailbox_key__in={request.mailbox_key for request in batch}, state__in=MAY_SIGN_IN
            )
            known = {address_hash(address) for address in readers.values_list("address", flat=True)}
            stays: dict[tuple[str, bool], datetime] = {}  # when one that stays was asked for
            idle = []
            for request in batch:
                who = (request.address_hash, request.proved)
                repeated = who in stays and request.asked_at - stays[who] <= AT_ONCE
                if who[0] not in known or repeated or request.asked_at < now - OF_USE:
                    idle.append(request.pk)
                else:
                    stays[who] = request.asked_at
            SignInRequest.objects.filter(pk__in=idle).delete()
        if len(batch) < AT_A_TIME:
            return
        last = batch[-1].pk


def _claim(now: datetime) -> list[tuple[SignInRequest, Subscriber]] | None:
    with transaction.atomic():
        request = (
            SignInRequest.objects.filter(due_at__lte=now)
            .order_by("due_at")
            .select_for_update(skip_locked=True)
            .first()
        )
        if request is None:
            return None
        lock_mailbox(request.mailbox_key)
        if _is_repeat(request):
            request.delete()
            return []
        subscriber = _whose(request)
        if subscriber is None or request.asked_at < now - OF_USE or _is_answered(request, now):
            request.due_at = subscriber = None
        else:
            request.due_at = now + LEASE
            if sending.is_paused(sending.domain_of(subscriber.address)):
                subscriber = None
        request.save(update_fields=["due_at"])
    return [] if subscriber is None else [(request, subscriber)]


def _whose(request: SignInRequest) -> Subscriber | None:
    readers = Subscriber.objects.filter(mailbox_key=request.mailbox_key, state__in=MAY_SIGN_IN)
    for reader in readers:
        if address_hash(reader.address) == request.address_hash:
            return None if delivery.is_suppressed(reader.address) else reader
    return None


def _is_repeat(request: SignInRequest) -> bool:
    """Of one that stays: so nobody's clicks, or machine, leave more than a row a minute."""
    earlier = SignInRequest.objects.filter(
        address_hash=request.address_hash,
        proved=request.proved,
        asked_at__range=(request.asked_at - AT_ONCE, request.asked_at),
        pk__lt=request.pk,
    )
    return earlier.exists()


def _is_answered(request: SignInRequest, now: datetime) -> bool:
    """By a link that left since, or that is on its way; or there were enough today."""
    others = SignInRequest.objects.filter(mailbox_key=request.mailbox_key).exclude(pk=request.pk)
    mailed = others.filter(mailed_at__gt=now - KEPT)
    return (
        others.filter(address_hash=request.address_hash, due_at__gt=now).exists()
        or mailed.filter(address_hash=request.address_hash, mailed_at__gt=request.asked_at).exists()
        or mailed.filter(proved=request.proved).count() >= LINKS_A_DAY
    )


def _send(claimed: tuple[SignInRequest, Subscriber], server: BaseEmailBackend) -> bool:
    request, reader = claimed
    try:
        provider.hand_over(mail.compose_sign_in(reader), server)
    except provider.OutcomeUnknown:
        log.warning("the link to sign in for subscriber %s may have arrived", reader.uuid)
    except Exception as error:  # one that cannot be sent keeps no other waiting
        # Its class alone: what a mail server says names the address.
        kind = type(error).__name__
        log.warning("the link to sign in for subscriber %s waits: %s", reader.uuid, kind)
        if isinstance(error, provider.Refused) and error.for_good:
            SignInRequest.objects.filter(pk=request.pk).update(due_at=None)
        return False
    SignInRequest.objects.filter(pk=request.pk).update(due_at=None, mailed_at=timezone.now())
    return True


def forget_requests(now: datetime) -> int:
    """Drop those that count for no limit any more; returns how many."""
    return SignInRequest.objects.filter(asked_at__lt=now - KEPT).delete()[0]


def sign_in(request: HttpRequest, reader: Subscriber) -> bool:
    """Begin the session of whom a link stands for; False if the link was used meanwhile."""
    spent = Subscriber.objects.filter(
        pk=reader.pk, sign_ins=reader.sign_ins, state__in=MAY_SIGN_IN
    ).update(sign_ins=F("sign_ins") + 1)
    if not spent:
        return False
    session = request.session
    session.cycle_key()  # a session that somebody else prepared is not the one that goes on
    rotate_token(request)
    session[READER] = {
        "uuid": str(reader.uuid),
        "address": address_hash(reader.address),
        "sign_outs": reader.sign_outs,
        "until": (timezone.now() + LASTS).timestamp(),
    }
    if ADMIN not in session:
        session.set_expiry(LASTS)
    _remember(request, reader)
    return True


def reader_of(request: HttpRequest) -> Subscriber | None:
    """The signed-in reader, looked up once for a request."""
    if not hasattr(request, "_reader"):
        _remember(request, _reader(request))
    found: Subscriber | None = request._reader  # type: ignore[attr-defined]
    return found


def _remember(request: HttpRequest, reader: Subscriber | None) -> None:
    request._reader = reader  # type: ignore[attr-defined]


def _reader(request: HttpRequest) -> Subscriber | None:
    if not hasattr(request, "session"):
        return None
    kept: dict[str, Any] | None = request.session.get(READER)
    if kept is None or kept["until"] < timezone.now().timestamp():
        return None
    found = Subscriber.objects.filter(
        uuid=kept["uuid"], sign_outs=kept["sign_outs"], state__in=MAY_SIGN_IN
    )
    reader = votes.with_voted(found).first()
    if reader is None or address_hash(reader.address) != kept["address"]:
        return None  # signed out elsewhere, gone, or of another address since
    return reader


def sign_out(request: HttpRequest) -> None:
    """End this session's part of the reader; an admin's stays."""
    _remember(request, None)
    request.session.pop(READER, None)
    if ADMIN in request.session:
        request.session.cycle_key()
    else:
        request.session.flush()


def sign_out_everywhere(reader: Subscriber) -> None:
    """End all sessions of a reader, and make links worthless that are on their way."""
    Subscriber.objects.filter(pk=reader.pk).update(
        sign_outs=F("sign_outs") + 1, sign_ins=F("sign_ins") + 1
    )


def renew_feed(reader: Subscriber) -> None:
    """Give a reader's feed another address; the old one is gone."""
    Subscriber.objects.filter(pk=reader.pk).update(feed_number=F("feed_number") + 1)


def as_long_as_ever(*, request: HttpRequest, **_: object) -> None:
    """An admin who signs in where a reader is signed in gets no longer session for that."""
    if READER in request.session:
        request.session.set_expiry(None)


def own_path(text: str | None, default: str) -> str:
    """`text` if it is an address on this site, without any host; else `default`.

    In ASCII, as a header can hold it.
    """
    if not text or not text.startswith("/"):
        return default
    if not url_has_allowed_host_and_scheme(text, allowed_hosts=None):
        return default
    path = iri_to_uri(text)
    return path if len(path) <= 1000 else default
