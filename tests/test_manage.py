"""manage.py says in a sentence which setting is wrong."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from django.conf import settings


@pytest.mark.parametrize(
    ("command", "name", "value", "said"),
    [
        ("check", "SECRET_KEY", "", "SECRET_KEY must be set"),
        ("doctor", "UNKNOWN_OUTCOME", "x", "hold, resend or"),  # a command of ours
        ("check", "SEND_BATCH_SIZE", "many", "SEND_BATCH_SIZE cannot be read"),
        ("check", "EDITION_FREEZE_AT", "25:00", "EDITION_FREEZE_AT cannot be read"),
        ("check", "BEHIND_TLS_PROXY", "enabled", "BEHIND_TLS_PROXY must be on or off"),
        ("check", "DATABASE_URL", "postgres://a:hunter2@b:c/d", "DATABASE_URL cannot be read"),
        ("check", "DATABASE_URL", "papers", "DATABASE_URL must be postgres://"),
        ("check", "REDIS_URL", "localhost:6379", "REDIS_URL must be redis://"),
        ("check", "EMAIL_URL", "smtp://a:hunter2@b:c", "EMAIL_URL cannot be read"),
        ("check", "LOG_LEVEL", "loud", "LOG_LEVEL must be one of"),
    ],
)
def test_a_wrong_setting_is_told_without_a_traceback(
    command: str, name: str, value: str, said: str
) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", command],
        cwd=settings.BASE_DIR,
        env=os.environ | {"DEBUG": "0", name: value},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr
