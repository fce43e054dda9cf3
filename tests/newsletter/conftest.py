"""What several tests of the newsletter use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import pytest
from django.conf import settings as django_settings
from django.db import connection

from config.celery import app
from tests.smtp import SmtpServer


@pytest.fixture
def worker(smtp: SmtpServer) -> Iterator[subprocess.Popen[bytes]]:
    """A Celery worker process on the tests' database and mail server."""
    with worker_at(smtp.port) as process:
        yield process


@contextmanager
def worker_at(
    port: int, *, concurrency: int = 1, **settings: str
) -> Iterator[subprocess.Popen[bytes]]:
    """The same with the mail server at `port`, so many processes, and settings."""
    url = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}")
    environment = os.environ | {
        "DATABASE_URL": urlunsplit(url),
        "EMAIL_URL": f"smtp://127.0.0.1:{port}",
        **settings,
    }
    command = [sys.executable, "-m", "celery", "-A", "config", "worker", "--pool=prefork"]
    process = subprocess.Popen(
        [*command, f"--concurrency={concurrency}", "--loglevel=WARNING"],
        cwd=django_settings.BASE_DIR,
        env=environment,
    )
    app.control.purge()
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:  # told as an error; and nothing is left behind
            process.kill()
            process.wait()
            raise
