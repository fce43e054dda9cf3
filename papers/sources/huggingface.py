from __future__ import annotations
from collections.abc import Iterator
from datetime import date
from papers.sources import Page
from papers.sources.client import Client

DAILY = "https://huggingface.co/api/daily_papers"

def daily(client: Client, base: str, day: date, cursor: str = "") -> Iterator[Page]:
    raise NotImplementedError
