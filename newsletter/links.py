"""Signed, purpose-bound URLs: what one link may do, no other can.

A token names one subscriber, or for feedback one paper of one delivery, and when it was made; the
purpose is part of the signature's salt. One for signing in, or for a reader's feed, also names a
number of the subscriber's, and is spent when that moves on. Old SECRET_KEYs in SECRET_KEY_FALLBACKS
are still honoured.
"""

from __future__ import annotations

import base64
import struct
import uuid
from datetime import timedelta
from enum import StrEnum

from django.conf import settings
from django.core import signing
from django.urls import reverse

from newsletter.models import Delivery, Subscriber


class Purpose(StrEnum):
    CONFIRM = "confirm"
    PREFERENCES = "preferences"
    UNSUBSCRIBE = "unsubscribe"
    FEEDBACK = "feedback"
    SIGN_IN = "sign_in_link"
    FEED = "picks_feed"


SIGN_IN_MINUTES = 20
# The number that a token names beside its subscriber.
NUMBERS = {Purpose.SIGN_IN: "sign_ins", Purpose.FEED: "feed_number"}

_READER = struct.Struct(">16sI")  # a subscriber and a number

_PICK = struct.Struct(">16sQ")  # a delivery and a paper: 24 bytes, 32 characters without padding


class InvalidLink(Exception):
    """The token was not made here, or for something else, or its subscriber is gone."""


class SubscriberGone(InvalidLink):
    """The token is good, and its subscriber was erased."""


class DeliveryGone(InvalidLink):
    """The token is good, and its delivery was deleted: by age, or with its erased subscriber."""


class ExpiredLink(InvalidLink):
    """The token was good once."""


class SpentLink(InvalidLink):
    """The token was used, or taken back by its subscriber."""


def _lifetime(purpose: Purpose) -> timedelta | None:
    match purpose:
        case Purpose.CONFIRM:
            return timedelta(days=settings.CONFIRMATION_DAYS)
        case Purpose.PREFERENCES | Purpose.FEEDBACK:
            return timedelta(days=settings.PREFERENCES_LINK_DAYS)
        case Purpose.SIGN_IN:
            return timedelta(minutes=SIGN_IN_MINUTES)
        case Purpose.UNSUBSCRIBE:
            return None  # an old mail must always let its reader go
        case Purpose.FEED:
            return None  # until its reader asks for another address


def _signer(purpose: Purpose) -> signing.Signer:
    salt = f"paperround.{purpose}"
    if purpose == Purpose.FEED:  # one address, whenever it is shown
        return signing.Signer(salt=salt, sep=".")
    return signing.TimestampSigner(salt=salt, sep=".")


def token(subscriber: uuid.UUID, purpose: Purpose, number: int = 0) -> str:
    """`number` is the subscriber's own, for a purpose that has one."""
    named = _READER.pack(subscriber.bytes, number) if purpose in NUMBERS else subscriber.bytes
    name = base64.urlsafe_b64encode(named).rstrip(b"=").decode()
    return _signer(purpose).sign(name)


def url(subscriber: uuid.UUID, purpose: Purpose) -> str:
    """The absolute address of the page that does `purpose`."""
    return page(purpose, token(subscriber, purpose))


def numbered_url(subscriber: Subscriber, purpose: Purpose) -> str:
    """The same, for a purpose that has a number."""
    return page(purpose, token(subscriber.uuid, purpose, getattr(subscriber, NUMBERS[purpose])))


def page(purpose: Purpose, token: str) -> str:
    """The same, of a token that was made before."""
    return f"{settings.SITE_URL}{reverse(purpose.value, args=[token])}"


def subscriber_of(text: str, purpose: Purpose) -> Subscriber:
    """The subscriber a token stands for.

    Raises:
        ExpiredLink: it was good once.
        SubscriberGone: nobody is there any more.
        SpentLink: it was used, or taken back.
        InvalidLink: anything else.
    """
    named, number = _named_by(text, purpose), 0
    try:
        if purpose in NUMBERS:
            named, number = _READER.unpack(named)
        found = uuid.UUID(bytes=named)
    except (ValueError, struct.error):
        raise InvalidLink from None
    try:
        subscriber = Subscriber.objects.get(uuid=found)
    except Subscriber.DoesNotExist:
        raise SubscriberGone from None
    if purpose in NUMBERS and getattr(subscriber, NUMBERS[purpose]) != number:
        raise SpentLink
    return subscriber


def pick_token(delivery: uuid.UUID, paper_id: int) -> str:
    """For the feedback on one paper of one mail."""
    name = base64.urlsafe_b64encode(_PICK.pack(delivery.bytes, paper_id)).decode()
    return _signer(Purpose.FEEDBACK).sign(name)


def pick_url(delivery: uuid.UUID, paper_id: int) -> str:
    """The absolute address of the page that asks for feedback on a paper; `?kind=` presets it."""
    return page(Purpose.FEEDBACK, pick_token(delivery, paper_id))


def pick_of(text: str) -> tuple[Delivery, int]:
    """The delivery, with its subscriber, and the id of the paper that a token stands for.

    Raises:
        ExpiredLink: it was good once.
        DeliveryGone: the mail is no longer kept.
        InvalidLink: anything else.
    """
    try:
        found, paper_id = _PICK.unpack(_named_by(text, Purpose.FEEDBACK))
    except struct.error:
        raise InvalidLink from None
    try:
        delivery = Delivery.objects.select_related("subscriber").get(uuid=uuid.UUID(bytes=found))
    except Delivery.DoesNotExist:
        raise DeliveryGone from None
    if paper_id not in delivery.paper_ids:
        raise InvalidLink
    return delivery, paper_id


def _named_by(text: str, purpose: Purpose) -> bytes:
    try:
        signer = _signer(purpose)
        if isinstance(signer, signing.TimestampSigner):
            name = signer.unsign(text, max_age=_lifetime(purpose))
        else:
            name = signer.unsign(text)
        return base64.urlsafe_b64decode(name + "=" * (-len(name) % 4))
    except signing.SignatureExpired:
        raise ExpiredLink from None
    except (signing.BadSignature, ValueError):
        raise InvalidLink from None
