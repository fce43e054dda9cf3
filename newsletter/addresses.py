"""What an e-mail address is here: its accepted form, and the keyed hashes kept of it."""

from __future__ import annotations

import hashlib
import hmac

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.validators import validate_email


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


def _keyed(text: str) -> str:
    key = settings.ADDRESS_HASH_KEY
    if not key:
        if not settings.DEBUG:
            raise ImproperlyConfigured("ADDRESS_HASH_KEY must be set; see README's settings.")
        key = "only-for-development"
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()
