"""Settings with which mail would go wrong, found before the first one leaves."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage


@checks.register()
def address_hash_key(**options: Any) -> list[CheckMessage]:
    if settings.DEBUG or settings.ADDRESS_HASH_KEY:
        return []
    return [
        checks.Error(
            "ADDRESS_HASH_KEY is not set.",
            hint="It keeps the addresses that must never be mailed again, as keyed hashes. Set it "
            "once to a long random value, keep it with your backups and never change it.",
            id="newsletter.E001",
        )
    ]


@checks.register(deploy=True)
def sender(**options: Any) -> list[CheckMessage]:
    wanting = [
        (
            not settings.POSTAL_ADDRESS,
            "POSTAL_ADDRESS is not set.",
            "The law of many countries asks for the sender's postal address in each mail.",
        ),
        (
            not settings.CONTACT_ADDRESS,
            "CONTACT_ADDRESS is not set.",
            "Readers need an address to write to; it stands in each mail and page.",
        ),
        (
            "@localhost" in settings.DEFAULT_FROM_EMAIL,
            "DEFAULT_FROM_EMAIL is not set.",
            "Set it to an address of the domain that SPF, DKIM and DMARC speak for.",
        ),
        (
            not settings.SITE_URL.startswith("https://"),
            "SITE_URL is not an https address.",
            "RFC 8058's one-click unsubscription needs https; Gmail and Yahoo ask for it.",
        ),
    ]
    return [
        checks.Warning(message, hint=hint, id=f"newsletter.W{number:03}")
        for number, (wanted, message, hint) in enumerate(wanting, start=1)
        if wanted
    ]
