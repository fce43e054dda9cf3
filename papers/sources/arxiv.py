from __future__ import annotations
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from papers.sources import Page
from papers.sources.client import Client

OAI = "https://oaipmh.arxiv.org/oai"
QUERY = "https://export.arxiv.org/api/query"
FEED = "https://rss.arxiv.org/rss"

def set_of(category: str) -> str:
    raise NotImplementedError
def announced_on(submitted: datetime) -> date:
    raise NotImplementedError
def harvest(client: Client, base: str, set_: str, since: date, cursor: str = "") -> Iterator[Page]:
    """The records of a set changed since a day, page by page; `cursor` goes on where a pull broke."""
    raise NotImplementedError
def by_identifiers(client: Client, base: str, ids: Iterable[str]) -> Iterator[Page]:
    raise NotImplementedError
def announced(client: Client, base: str, categories: Iterable[str]) -> Iterator[Page]:
    raise NotImplementedError
