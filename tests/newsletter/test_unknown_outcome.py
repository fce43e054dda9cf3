"""What UNKNOWN_OUTCOME does by itself, and when; the crash matrix counts what readers get of it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from pytest_django import Settings

from newsletter.delivery import S, settle_due_unknown
from newsletter.models import Delivery
from papers.models import Edition
from tests.factories import make_delivery, make_paper, make_subscriber

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _hours(settings: Settings) -> None:
    settings.UNKNOWN_SETTLE_HOURS = 4
    settings.SEND_MAX_ATTEMPTS = 8


def unknown(*, hours: float, attempts: int = 1) -> Delivery:
    handed_over_at = timezone.now() - timedelta(hours=hours)
    return make_delivery(
        make_subscriber(),
        make_paper(),
        state=S.UNKNOWN,
        handed_over_at=handed_over_at,
        attempts=attempts,
    )


def state_of(delivery: Delivery) -> str:
    delivery.refresh_from_db()
    return delivery.state


@pytest.mark.parametrize(
    ("outcome", "state"), [("hold", S.UNKNOWN), ("resend", S.PLANNED), ("give_up", S.FAILED)]
)
def test_what_is_unknown_for_long_is_settled_as_the_setting_says(
    settings: Settings, outcome: str, state: str
) -> None:
    one = unknown(hours=4.1)
    settings.UNKNOWN_OUTCOME = outcome
    assert settle_due_unknown(timezone.now()) == (outcome != "hold")
    assert state_of(one) == state


@pytest.mark.parametrize("outcome", ["resend", "give_up"])
def test_before_its_time_it_waits(settings: Settings, outcome: str) -> None:
    one = unknown(hours=3.9)
    settings.UNKNOWN_OUTCOME = outcome
    settle_due_unknown(timezone.now())
    assert state_of(one) == S.UNKNOWN


def test_each_repeat_waits_longer_than_the_one_before(settings: Settings) -> None:
    one = unknown(hours=4.1, attempts=2)
    settings.UNKNOWN_OUTCOME = "resend"
    settle_due_unknown(timezone.now())
    assert state_of(one) == S.UNKNOWN
    settle_due_unknown(timezone.now() + timedelta(hours=4))
    assert state_of(one) == S.PLANNED


def test_after_the_last_try_it_is_held(settings: Settings) -> None:
    one = unknown(hours=100, attempts=8)
    settings.UNKNOWN_OUTCOME = "resend"
    settle_due_unknown(timezone.now())
    assert state_of(one) == S.UNKNOWN


def test_what_is_no_news_any_more_is_held_and_not_resent(settings: Settings) -> None:
    one = unknown(hours=30)
    Edition.objects.update(frozen_at=timezone.now() - timedelta(hours=31))
    settings.UNKNOWN_OUTCOME = "resend"
    settle_due_unknown(timezone.now())
    assert state_of(one) == S.UNKNOWN
