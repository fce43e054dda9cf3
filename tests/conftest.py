"""What every test may use: real servers, all on loopback."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection
from pytest_django import Settings

from newsletter import candidates, learning
from papers import search
from tests.real_inputs import ABSENT, DATA
from tests.smtp import SmtpServer


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> None:
    """Each run has a database of its own, so that two runs at once do not meet."""
    connection.settings_dict["TEST"]["NAME"] = f"test_paperround_{os.getpid()}"


@pytest.fixture
def data() -> Path:
    """The folder of real inputs; it stays outside the repository."""
    if not DATA.is_dir():
        pytest.skip(ABSENT)
    return DATA


@pytest.fixture
def smtp(settings: Settings) -> Iterator[SmtpServer]:
    """A real SMTP server, and the settings that send there."""
    server = SmtpServer()
    server.start()
    settings.EMAIL_BACKEND = "newsletter.smtp.SmtpBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", server.port
    settings.EMAIL_TIMEOUT = 10
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def _unhashed_static_files(settings: Settings) -> None:
    """Production names static files by their content once they are collected."""
    plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": plain}


@pytest.fixture(autouse=True)
def _no_cached_editions() -> None:
    """Ids begin anew with each test's database; what was computed for one is no other's."""
    candidates._today.cache_clear()
    candidates._joined.cache_clear()
    learning.load.cache_clear()
    search._serving.cache_clear()
    search._serving_encoder.cache_clear()
