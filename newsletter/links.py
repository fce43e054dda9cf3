"""Signed, purpose-bound URLs: what one link may do, no other can.

A token names one subscriber, or for feedback one paper of one delivery, and when it was made; the
purpose is part of the signature's salt. One for signing in, or for a reader's feed, also names a
number of the subscriber's, and is spent when that moves on. Old SECRET_KEYs in SECRET_KEY_FALLBACKS
are still honoured.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
import time
import uuid
from datetime import timedelta
from enum import StrEnum
from functools import lru_cache

from django.conf import settings
from django.core import signing
from django.urls import reverse
from django.utils.encoding import force_bytes

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
    """The token was used, or taken back by its subscriber; or, for signing in, is too old."""


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


class _Signer(signing.TimestampSigner):
    """Django's, with what does not differ from one token to the next computed once: a mail has as
    many tokens as papers."""

    def timestamp(self) -> str:
        return _b62(int(time.time()))

    def signature(self, value: str | bytes, key: str | bytes | None = None) -> str:
        derived = _derived(force_bytes(self.salt) + b"signer", key or self.key)
        return signing.b64_encode(hmac.digest(derived, force_bytes(value), "sha256")).decode()


_b62 = lru_cache(maxsize=4)(signing.b62_encode)


@lru_cache(maxsize=64)
def _derived(salt: bytes, key: str | bytes) -> bytes:
    """The key that django.utils.crypto.salted_hmac makes of a salt and a secret."""
    return hashlib.sha256(salt + force_bytes(key)).digest()


def _signer(purpose: Purpose) -> signing.Signer:
    if purpose == Purpose.FEED:  # one address, whenever it is shown
        return signing.Signer(salt=f"paperround.{purpose}", sep=".")
    return _signer_by(purpose, settings.SECRET_KEY, tuple(settings.SECRET_KEY_FALLBACKS))


@lru_cache(maxsize=16)
def _signer_by(purpose: Purpose, key: str, fallbacks: tuple[str, ...]) -> _Signer:
    return _Signer(key=key, fallback_keys=list(fallbacks), salt=f"paperround.{purpose}", sep=".")


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
        SpentLink: it was used, or taken back, or its minutes for signing in are over.
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
        raise (SpentLink if purpose == Purpose.SIGN_IN else ExpiredLink) from None
    except (signing.BadSignature, ValueError):
        raise InvalidLink from None
