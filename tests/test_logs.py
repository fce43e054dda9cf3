"""Logs hold no key to anybody's settings."""

from __future__ import annotations

import logging

import pytest

from config.logs import WithoutTokens
from newsletter.links import Purpose


@pytest.mark.parametrize("page", list(Purpose))
def test_a_signed_address_is_logged_without_its_token(page: Purpose) -> None:
    record = logging.LogRecord(
        "django.request", logging.WARNING, "", 0, "Gone: %s", (f"/{page}/abc.def.ghi/",), None
    )
    assert WithoutTokens().filter(record)
    assert record.getMessage() == f"Gone: /{page}/…/"


def test_other_lines_stay_as_they_are() -> None:
    record = logging.LogRecord("a", logging.INFO, "", 0, "%d papers", (3,), None)
    assert WithoutTokens().filter(record)
    assert record.args == (3,)
