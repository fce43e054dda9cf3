"""Settings with which mail would go wrong are found before the first one leaves."""

from __future__ import annotations

import pytest
from django.core.checks import run_checks
from pytest_django import Settings


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
