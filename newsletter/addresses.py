"""What an e-mail address is here: its accepted form, the keyed hashes kept of it, and the return
paths of our own mails."""

from __future__ import annotations

import base64
import hmac
import uuid

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.validators import validate_email
from django.utils.crypto import constant_time_compare, salted_hmac

SIGNATURE = 8  # bytes: nobody can try 2**64 mails


def accept(text: str) -> str:
    """The address in the form it is kept: trimmed, its domain in lower case and ASCII.

    Raises:
        ValidationError: with a sentence for the person who typed it.
    """
    address = text.strip()
    local, at, domain = address.rpartition("@")
    if '"' in local:
        # Legal, and used by nobody but those who try what a header makes of a control character.
        raise ValidationError("Please use an address without quotation marks.")
    if not local.isascii():
        # Most servers lack SMTPUTF8, and Django would encode such a name into a wrong address.
        raise ValidationError(
            "The part before the @ holds a letter that mail servers do not carry. "
            "Please use an address written in plain Latin letters."
        )
    try:
        address = f"{local}{at}{domain.encode('idna').decode().lower() if domain else ''}"
    except UnicodeError:
        raise ValidationError("The part after the @ is not a domain. Please check it.") from None
    if len(address) > 254:
        raise ValidationError("This address is longer than the 254 characters mail allows.")
    validate_email(address)
    return address


def address_hash(address: str) -> str:
    """Keyed hash of an address, whatever its case; the same for ever under ADDRESS_HASH_KEY."""
    return _keyed(address.lower())


def mailbox_key(address: str) -> str:
    """Keyed hash of the mailbox behind an address: no plus part, no dots, no case."""
    local, _, domain = address.lower().rpartition("@")
    return _keyed(f"{local.partition('+')[0].replace('.', '')}@{domain}")


def return_path(delivery: uuid.UUID) -> str:
    """The envelope sender of one delivery's mail, to which its bounce comes back (VERP).

    It names the delivery and is signed, so that a forged bounce suppresses nobody. Mail servers
    may fold its case: base32 does not mind.
    """
    local, _, domain = settings.BOUNCE_ADDRESS.rpartition("@")
    named = delivery.bytes + _signature(delivery, settings.SECRET_KEY)
    token = base64.b32encode(named).decode().rstrip("=").lower()
    return f"{local}+{token}@{domain}"


def delivery_of_return_path(address: str) -> uuid.UUID | None:
    """The delivery that a return path of ours names; None for every other address."""
    token = address.rpartition("@")[0].rpartition("+")[2].upper()
    try:
        named = base64.b32decode(token + "=" * (-len(token) % 8))
    except ValueError:
        return None
    if len(named) != 16 + SIGNATURE:
        return None
    delivery = uuid.UUID(bytes=named[:16])
    keys = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    good = any(constant_time_compare(named[16:], _signature(delivery, key)) for key in keys)
    return delivery if good else None


def _signature(delivery: uuid.UUID, key: str) -> bytes:
    mac = salted_hmac("newsletter.return_path", delivery.bytes, secret=key, algorithm="sha256")
    return mac.digest()[:SIGNATURE]


def _keyed(text: str) -> str:
    key = settings.ADDRESS_HASH_KEY
    if not key:
        if not settings.DEBUG:
            raise ImproperlyConfigured("ADDRESS_HASH_KEY must be set; see README's settings.")
        key = "only-for-development"
    return hmac.digest(key.encode(), text.encode(), "sha256").hex()
