"""What a browser posts of the admin's pages."""

from __future__ import annotations

import re
from html import unescape


def form_of(page: str) -> dict[str, str]:
    """The fields of the admin's form for one row, as a browser would post them unchanged."""
    inputs = r'<input type="(?!submit|checkbox)\w+" name="([^"]+)"(?: value="([^"]*)")?'
    fields = dict(re.findall(inputs, page))
    fields |= {
        name: value.removeprefix("\n")
        for name, value in re.findall(r'<textarea name="([^"]+)".*?>(.*?)</textarea>', page, re.S)
    }
    chosen = re.findall(r'<select name="([^"]+)".*?<option value="([^"]*)" selected>', page, re.S)
    return {name: unescape(value) for name, value in (fields | dict(chosen)).items()}
