"""What README says about settings is what there is."""

from __future__ import annotations

import re

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
