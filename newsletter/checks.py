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
    found: list[CheckMessage] = []
    if not settings.POSTAL_ADDRESS:
        found.append(
            checks.Warning(
                "POSTAL_ADDRESS is not set.",
                hint="The law of many countries asks for the sender's postal address in each mail.",
                id="newsletter.W001",
            )
        )
    if not settings.CONTACT_ADDRESS:
        found.append(
            checks.Warning(
                "CONTACT_ADDRESS is not set.",
                hint="Readers need an address to write to; it stands in each mail and page.",
                id="newsletter.W002",
            )
        )
    if "@localhost" in settings.DEFAULT_FROM_EMAIL:
        found.append(
            checks.Warning(
                "DEFAULT_FROM_EMAIL is not set.",
                hint="Set it to an address of the domain that SPF, DKIM and DMARC speak for.",
                id="newsletter.W003",
            )
        )
    if not settings.SITE_URL.startswith("https://"):
        found.append(
            checks.Warning(
                "SITE_URL is not an https address.",
                hint="RFC 8058's one-click unsubscription needs https; Gmail and Yahoo ask for it.",
                id="newsletter.W004",
            )
        )
    return found
