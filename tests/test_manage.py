"""manage.py says in a sentence which setting is wrong."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from django.conf import settings


@pytest.mark.parametrize("command", ["check", "doctor"])  # one of Django's, one of ours
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("SECRET_KEY", "", "SECRET_KEY must be set"), ("UNKNOWN_OUTCOME", "x", "hold, resend or")],
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
