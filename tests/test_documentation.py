"""What README and docs say about settings is what there is."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from django.conf import settings


def test_every_setting_is_documented_and_every_documented_one_exists() -> None:
    source = (settings.BASE_DIR / "config" / "settings.py").read_text()
    readme = (settings.BASE_DIR / "README.md").read_text()
    read = set(re.findall(r'env\.\w+\(\s*"([A-Z_]+)"', source)) | {"ANYMAIL_…"}
    documented = set(re.findall(r"(?m)^\| `([A-Z_]+…?)` \|", readme))
    assert documented == read


def test_the_documented_defaults_are_the_real_ones() -> None:
    source = (settings.BASE_DIR / "config" / "settings.py").read_text()
    readme = (settings.BASE_DIR / "README.md").read_text()
    numbers = dict(re.findall(r'env\.int\(\s*"([A-Z_]+)", default=(\d+)\)', source))
    assert numbers
    for name, default in numbers.items():
        assert f"| `{name}` | `{default}` |" in readme


def test_the_environment_of_the_production_guide_is_complete() -> None:
    """`check --deploy` misses nothing in it, and a shell reads it as systemd does."""
    guide = (settings.BASE_DIR / "docs" / "production.md").read_text()
    blocks = re.findall(r"(?s)```ini\n(.*?)```", guide)
    block = next(block for block in blocks if "DATABASE_URL" in block)
    secret = "kP4xWq7Zt2Lm9Vb5Rn8Hs3Jd6Gf1Yc0Ae-TuXoBiQlKwNzMyEr"
    command = f"{sys.executable} manage.py check --deploy --fail-level WARNING"
    done = subprocess.run(
        ["/bin/sh", "-ec", f"set -a\n{block.replace('…', secret)}set +a\n{command}"],
        cwd=settings.BASE_DIR,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "papers.I002" not in done.stderr
    readme = (settings.BASE_DIR / "README.md").read_text()
    documented = re.findall(r"(?m)^\| `([A-Z_]+…?)` \|", readme)
    assert set(re.findall(r"(?m)^([A-Z_]+)=", block)) <= set(documented)
