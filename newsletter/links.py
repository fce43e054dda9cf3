"""Signed, purpose-bound URLs: what one link may do, no other can.

A token names one subscriber and when it was made; the purpose is part of the signature's salt.
Old SECRET_KEYs in SECRET_KEY_FALLBACKS are still honoured.
"""

from __future__ import annotations

import base64
import uuid
from datetime import timedelta
from enum import StrEnum

from django.conf import settings
from django.core import signing
from django.urls import reverse

from newsletter.models import Subscriber


class Purpose(StrEnum):
    CONFIRM = "confirm"
    PREFERENCES = "preferences"
    UNSUBSCRIBE = "unsubscribe"


class InvalidLink(Exception):
    """The token was not made here, or for something else, or its subscriber is gone."""


class SubscriberGone(InvalidLink):
    """The token is good, and its subscriber was erased."""


class ExpiredLink(InvalidLink):
    """The token was good once."""


def _lifetime(purpose: Purpose) -> timedelta | None:
    match purpose:
        case Purpose.CONFIRM:
            return timedelta(days=settings.CONFIRMATION_DAYS)
        case Purpose.PREFERENCES:
            return timedelta(days=settings.PREFERENCES_LINK_DAYS)
        case Purpose.UNSUBSCRIBE:
            return None  # an old mail must always let its reader go


def _signer(purpose: Purpose) -> signing.TimestampSigner:
    return signing.TimestampSigner(salt=f"paperround.{purpose}", sep=".")


def token(subscriber: uuid.UUID, purpose: Purpose) -> str:
    name = base64.urlsafe_b64encode(subscriber.bytes).rstrip(b"=").decode()
    return _signer(purpose).sign(name)


def url(subscriber: uuid.UUID, purpose: Purpose) -> str:
    """The absolute address of the page that does `purpose`."""
    return f"{settings.SITE_URL}{reverse(purpose.value, args=[token(subscriber, purpose)])}"


def subscriber_of(text: str, purpose: Purpose) -> Subscriber:
    """The subscriber a token stands for.

    Raises:
        ExpiredLink: it was good once.
        SubscriberGone: nobody is there any more.
        InvalidLink: anything else.
    """
    try:
        name = _signer(purpose).unsign(text, max_age=_lifetime(purpose))
        found = uuid.UUID(bytes=base64.urlsafe_b64decode(name + "=="))
    except signing.SignatureExpired:
        raise ExpiredLink from None
    except (signing.BadSignature, ValueError):
        raise InvalidLink from None
    try:
        return Subscriber.objects.get(uuid=found)
    except Subscriber.DoesNotExist:
        raise SubscriberGone from None
