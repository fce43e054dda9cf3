"""Settings with which mail would go wrong, found before the first one leaves."""

from __future__ import annotations

import os
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage
from django.core.exceptions import ValidationError

from newsletter import addresses, sending


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


@checks.register()
def webhook_secret(**options: Any) -> list[CheckMessage]:
    by_provider = settings.EMAIL_BACKEND.startswith("anymail.")
    if not by_provider or settings.ANYMAIL.get("WEBHOOK_SECRET"):
        return []
    return [
        checks.Error(
            "ANYMAIL_WEBHOOK_SECRET is not set.",
            hint="Anybody could tell of bounces and complaints, and so stop the mail of whom they "
            "please. Set it to random:random, and give the provider the webhook's address as "
            "https://random:random@your.host/webhooks/….",
            id="newsletter.E002",
        )
    ]


@checks.register()
def limits(**options: Any) -> list[CheckMessage]:
    """Settings that nothing could be sent by."""
    found: list[CheckMessage] = []
    for name, number, parse in (
        ("SEND_DOMAIN_RATES", 2, lambda: sending.parse_domain_rates(settings.SEND_DOMAIN_RATES)),
        (
            "SEND_WARMUP_START or SEND_WARMUP_PLAN",
            3,
            lambda: sending.parse_warm_up(settings.SEND_WARMUP_START, settings.SEND_WARMUP_PLAN),
        ),
    ):
        try:
            parse()
        except ValueError as error:
            hint = f"{error} Until then nothing is sent; see README's settings."
            found.append(
                checks.Error(f"{name} cannot be read.", hint=hint, id=f"newsletter.E{number:03}")
            )
    if settings.SEND_RATE_PER_HOUR < 0:
        found.append(
            checks.Error(
                "SEND_RATE_PER_HOUR is less than 0.",
                hint="Set it to mails an hour, or to 0 for no limit.",
                id="newsletter.E004",
            )
        )
    return found


@checks.register()
def retention_days(**options: Any) -> list[CheckMessage]:
    if not 0 < settings.RETAIN_DELIVERIES_DAYS < settings.PREFERENCES_LINK_DAYS:
        return []
    return [
        checks.Warning(
            "RETAIN_DELIVERIES_DAYS is less than PREFERENCES_LINK_DAYS.",
            hint="The links for feedback in a mail stop working once its delivery is deleted.",
            id="newsletter.W010",
        )
    ]


@checks.register()
def bounce_address(**options: Any) -> list[CheckMessage]:
    try:
        if settings.BOUNCE_ADDRESS:
            addresses.accept(settings.BOUNCE_ADDRESS)
    except ValidationError:
        return [
            checks.Error(
                "BOUNCE_ADDRESS is not an address.",
                hint="Write it without a name, as bounces@news.example.org.",
                id="newsletter.E003",
            )
        ]
    return []


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
        (
            settings.EMAIL_BACKEND == "newsletter.smtp.SmtpBackend"
            and "EMAIL_URL" not in os.environ,
            f"EMAIL_URL is not set: mail goes to {settings.EMAIL_HOST}:{settings.EMAIL_PORT}.",
            "Name your mail server, as smtp+tls://user:password@host:587, though it be this one.",
        ),
    ]
    return [
        checks.Warning(message, hint=hint, id=f"newsletter.W{number:03}")
        for number, (wanted, message, hint) in enumerate(wanting, start=1)
        if wanted
    ]
