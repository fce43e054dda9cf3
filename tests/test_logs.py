"""Logs hold no key to anybody's settings."""

from __future__ import annotations

import logging

import pytest
from django.urls import reverse

from config.logs import WithoutTokens
from newsletter.links import Purpose


@pytest.mark.parametrize("page", list(Purpose))
def test_a_signed_address_is_logged_without_its_token(page: Purpose) -> None:
    path = reverse(page, args=["abc.def.ghi"])
    record = logging.LogRecord("django.request", logging.WARNING, "", 0, "Gone: %s", (path,), None)
    assert WithoutTokens().filter(record)
    assert record.getMessage() in (f"Gone: {path.partition('abc')[0]}{end}" for end in ("…/", "…"))


def test_other_lines_stay_as_they_are() -> None:
    record = logging.LogRecord("a", logging.INFO, "", 0, "%d papers", (3,), None)
    assert WithoutTokens().filter(record)
    assert record.args == (3,)
