"""Settings with which mail would go wrong, found before the first one leaves."""

from __future__ import annotations

import os
import uuid
from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage
from django.core.exceptions import ValidationError

from newsletter import addresses, sending
from papers.checks import too_small

LONGEST_LOCAL_PART = 64  # RFC 5321, 4.5.3.1.1

# The least that each may be: with less nothing is sent, or all of it is lost, and nothing says why.
LEAST = {
    "CONFIRMATION_DAYS": 1,
    "EMAIL_TIMEOUT": 1,
    "PLAN_BATCH_SIZE": 1,
    "POLICY_BOUNCE_PERCENT": 1,
    "PREFERENCES_LINK_DAYS": 1,
    "RANKING_REFIT_HOURS": 1,
    "RETAIN_DELIVERIES_DAYS": 0,
    "RETAIN_EVENTS_DAYS": 0,
    "SEND_BATCH_SIZE": 1,
    "SEND_CONNECTIONS": 1,
    "SEND_LEASE_SECONDS": 1,
    "SEND_MAX_ATTEMPTS": 1,
    "SEND_PROCESSES": 1,
    "SEND_RATE_PER_HOUR": 0,
    "SOFT_BOUNCE_DAYS": 0,
    "SOFT_BOUNCE_LIMIT": 1,
    "SUBMISSIONS_PER_DAY": 0,
    "UNKNOWN_SETTLE_HOURS": 1,
}


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
    return [*found, *too_small(LEAST, "newsletter.E004"), *_defaults(), *_times()]


def _defaults() -> list[CheckMessage]:
    """Of readers who choose nothing."""
    found: list[CheckMessage] = []
    if not 0 <= settings.DEFAULT_SEND_HOUR <= 23:
        hint = "Set it to an hour of the day, from 0 to 23."
        found.append(checks.Error("DEFAULT_SEND_HOUR is no hour.", hint=hint, id="newsletter.E006"))
    try:
        ZoneInfo(settings.DEFAULT_TIME_ZONE)
    except (OSError, LookupError, ValueError):
        hint = "Set it to a zone of IANA's list, such as Europe/Berlin."
        found.append(checks.Error("DEFAULT_TIME_ZONE is no zone.", hint=hint, id="newsletter.E007"))
    return found


def _times() -> list[CheckMessage]:
    found: list[CheckMessage] = []
    timeout = settings.ANYMAIL.get("REQUESTS_TIMEOUT", 1)
    if isinstance(timeout, int | float) and timeout <= 0:
        hint = "Set it to seconds, or leave it out: no request can be made in no time."
        found.append(
            checks.Error(
                "ANYMAIL_REQUESTS_TIMEOUT is not above 0.", hint=hint, id="newsletter.E008"
            )
        )
    if settings.SEND_LEASE_SECONDS <= settings.EMAIL_TIMEOUT:
        found.append(
            checks.Warning(
                "SEND_LEASE_SECONDS is not above EMAIL_TIMEOUT.",
                hint="A mail is taken for unknown while its worker still waits for the server. "
                "Set it to several times as long.",
                id="newsletter.W011",
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
    if not settings.BOUNCE_ADDRESS:
        return []
    try:
        addresses.accept(settings.BOUNCE_ADDRESS)
    except ValidationError:
        return [
            checks.Error(
                "BOUNCE_ADDRESS is not an address.",
                hint="Write it without a name, as bounces@news.example.org.",
                id="newsletter.E003",
            )
        ]
    local = settings.BOUNCE_ADDRESS.rpartition("@")[0]
    too_many = len(addresses.return_path(uuid.UUID(int=0)).rpartition("@")[0]) - LONGEST_LOCAL_PART
    if too_many > 0:
        return [
            checks.Error(
                "BOUNCE_ADDRESS is too long before its @.",
                hint="A delivery's name is put behind it, and mail servers refuse more than "
                f"{LONGEST_LOCAL_PART} characters there. Give it at most {len(local) - too_many}, "
                "as in bounces@news.example.org.",
                id="newsletter.E005",
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
