"""Settings with which mail would go wrong are found before the first one leaves."""

from __future__ import annotations

import re
import uuid

import pytest
from django.core.checks import Error, run_checks
from django.core.exceptions import ImproperlyConfigured
from pytest_django import Settings

from config.settings import anymail_setting
from newsletter import addresses
from newsletter import checks as newsletter_checks
from papers import checks as papers_checks


def found(*, deploy: bool = True) -> set[str]:
    return {
        str(message.id)
        for message in run_checks(include_deployment_checks=deploy)
        if str(message.id).startswith("newsletter.")
    }


@pytest.fixture
def production(settings: Settings) -> Settings:
    """Settings that leave nothing to say."""
    settings.DEBUG = False
    settings.ADDRESS_HASH_KEY = "set-once-and-kept-with-the-backups"
    settings.POSTAL_ADDRESS = "1 Example Street"
    settings.CONTACT_ADDRESS = "contact@papers.example"
    settings.DEFAULT_FROM_EMAIL = "Paperround <daily@papers.example>"
    settings.SITE_URL = "https://papers.example"
    return settings


def test_right_settings_are_met_with_silence(production: Settings) -> None:
    assert found() == set()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("ADDRESS_HASH_KEY", "", "newsletter.E001"),
        ("EMAIL_BACKEND", "anymail.backends.mailgun.EmailBackend", "newsletter.E002"),
        ("BOUNCE_ADDRESS", "Bounces <bounces@papers.example>", "newsletter.E003"),
        ("BOUNCE_ADDRESS", f"{'b' * 25}@papers.example", "newsletter.E005"),
        ("DEFAULT_SEND_HOUR", 24, "newsletter.E006"),
        ("DEFAULT_TIME_ZONE", "Mars/Olympus", "newsletter.E007"),
        ("DEFAULT_TIME_ZONE", "", "newsletter.E007"),
        ("ANYMAIL", {"REQUESTS_TIMEOUT": 0.0}, "newsletter.E008"),
        ("SEND_LEASE_SECONDS", 30, "newsletter.W011"),
        ("POSTAL_ADDRESS", "", "newsletter.W001"),
        ("CONTACT_ADDRESS", "", "newsletter.W002"),
        ("DEFAULT_FROM_EMAIL", "Paperround <daily@localhost>", "newsletter.W003"),
        ("SITE_URL", "http://papers.example", "newsletter.W004"),
    ],
)
def test_each_wrong_setting_is_named_by_one_check(
    production: Settings, name: str, value: str, expected: str
) -> None:
    setattr(production, name, value)
    assert found() == {expected}


def test_a_mail_server_that_nobody_named_is_told(
    production: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    production.EMAIL_BACKEND = "newsletter.smtp.SmtpBackend"
    monkeypatch.setenv("EMAIL_URL", "smtp://localhost:25")
    assert found() == set()
    monkeypatch.delenv("EMAIL_URL")
    assert found() == {"newsletter.W005"}


def test_in_production_the_key_of_the_hashes_is_missed_by_every_command(
    production: Settings,
) -> None:
    production.ADDRESS_HASH_KEY = ""
    assert found(deploy=False) == {"newsletter.E001"}


def test_a_development_machine_needs_none_of_them(production: Settings) -> None:
    production.DEBUG = True
    for name in ("ADDRESS_HASH_KEY", "POSTAL_ADDRESS", "CONTACT_ADDRESS"):
        setattr(production, name, "")
    assert found(deploy=False) == set()


def test_every_check_says_what_to_do(production: Settings) -> None:
    production.ADDRESS_HASH_KEY = production.POSTAL_ADDRESS = production.CONTACT_ADDRESS = ""
    messages = run_checks(include_deployment_checks=True)
    ours = [message for message in messages if str(message.id).startswith("newsletter.")]
    assert len(ours) == 3
    assert all(message.hint for message in ours)


@pytest.mark.parametrize(
    ("name", "least"), [*newsletter_checks.LEAST.items(), *papers_checks.LEAST.items()]
)
def test_a_number_by_which_nothing_would_happen_is_named(
    production: Settings, name: str, least: int
) -> None:
    setattr(production, name, least - 1)
    [message] = [one for one in run_checks() if name in one.msg and isinstance(one, Error)]
    assert f"{name} is less than {least}." == message.msg
    assert message.hint


def test_each_number_among_the_settings_has_a_least(settings: Settings) -> None:
    source = (settings.BASE_DIR / "config" / "settings.py").read_text()
    numbers = set(re.findall(r'env\.int\("([A-Z_]+)"', source))
    checked = {*newsletter_checks.LEAST, *papers_checks.LEAST, "DEFAULT_SEND_HOUR"}
    assert numbers - checked == {"SECURE_HSTS_SECONDS"}


def test_a_return_path_that_is_as_long_as_may_be_is_met_with_silence(production: Settings) -> None:
    production.BOUNCE_ADDRESS = f"{'b' * 24}@papers.example"
    assert found() == set()
    local = addresses.return_path(uuid.uuid4()).rpartition("@")[0]
    assert len(local) == newsletter_checks.LONGEST_LOCAL_PART


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("ANYMAIL_REQUESTS_TIMEOUT", "10", 10.0),
        ("ANYMAIL_REQUESTS_TIMEOUT", "2.5", 2.5),
        ("ANYMAIL_IGNORE_RECIPIENT_STATUS", "False", False),
        ("ANYMAIL_IGNORE_UNSUPPORTED_FEATURES", "0", False),
        ("ANYMAIL_IGNORE_UNSUPPORTED_FEATURES", "True", True),
        ("ANYMAIL_SENDGRID_GENERATE_MESSAGE_ID", "off", False),
        ("ANYMAIL_SEND_DEFAULTS", '{"tags": ["daily"]}', {"tags": ["daily"]}),
        ("ANYMAIL_MAILJET_API_KEY", "0123456789", "0123456789"),
        ("ANYMAIL_SPARKPOST_SUBACCOUNT", "123", "123"),
        ("ANYMAIL_WEBHOOK_SECRET", "1:{true}", "1:{true}"),
    ],
)
def test_what_reaches_anymail_is_of_the_kind_it_takes(name: str, text: str, value: object) -> None:
    found = anymail_setting(name, text)
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize("name", ["ANYMAIL_REQUESTS_TIMEOUT", "ANYMAIL_SEND_DEFAULTS"])
def test_what_anymail_could_not_take_is_said_at_once(name: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=name):
        anymail_setting(name, "ten")
