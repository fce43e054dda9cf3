"""Hugging Face's daily papers: the list of a day, as its server answers or as somebody saved it.

The list changes while its day lasts and its counters for days afterwards, so a day is asked for
again; each answer is one observation of the counters.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta

from papers.latex import to_text
from papers.sources import BadAnswer, BadRecord, Page, PaperRecord, Refused
from papers.sources.client import Answer, Client
from papers.sources.fields import (
    MAX_ABSTRACT,
    MAX_LIST,
    as_abstract,
    as_day,
    as_text,
    as_title,
    as_url,
    is_count,
)
from papers.sources.identifiers import normalise_arxiv_id

DAILY = "https://huggingface.co/api/daily_papers"

LIMIT = 100  # entries of a page; the server refuses to be asked for more
MAX_ENTRIES = 500  # of an answer, should it take no heed of that
MAX_ANSWER = 4_000_000  # bytes: an entry has some 6,000, and unpacks to 30 times as much at worst
FIRST_DAY = date(2023, 5, 1)  # of the first list
NEAR = timedelta(days=14)  # a weekend or a holiday answers with the list before it
MAX_PAGES = 20  # a day has some fifty papers
_GITHUB = re.compile(r"https?://(?:www\.)?github\.com/", re.I)


def daily(client: Client, base: str, day: date, cursor: str = "") -> Iterator[Page]:
    """The list of a day, page by page. `base` is the address of the list (`DAILY`).

    The server may answer with another day's list, as it does at weekends: its papers then have
    that day. Only a day that fits on one page is asked for conditionally, for an unchanged first
    page says nothing of the others.

    Raises:
        SourceError: this page cannot be had; those before it stand.
    """
    number = int(cursor or 0)
    seen: set[str] = set()
    while True:
        params = {"date": day.isoformat(), "limit": str(LIMIT), "p": str(number)}
        answer = client.get(
            base, params, conditional=number == 0, also=(400,), max_answer=MAX_ANSWER
        )
        if answer.unchanged:
            yield Page(unchanged=True, wait=answer.wait)
            return
        records = read(answer, day)
        new = {record.arxiv_id for record in records if isinstance(record, PaperRecord)} - seen
        seen |= new
        # A server that takes no heed of `p` would send the first page for ever.
        full = bool(new) and (len(records) >= LIMIT or bool(answer.next_url))
        more = full and number + 1 < MAX_PAGES
        yield Page(
            tuple(records),
            cursor=str(number + 1) if more else "",
            wait=answer.wait,
            validator=answer.validator if number == 0 and not full else None,
        )
        if not more:
            return
        number += 1


def read(answer: Answer, day: date) -> list[PaperRecord | BadRecord]:
    """The papers of one answer, observed when it was given."""
    place = f"Hugging Face, {day}"
    if answer.content.lstrip()[:1] == b"<":
        raise BadAnswer(f"{place}: a page in HTML instead of JSON")
    try:
        content = json.loads(answer.content)
    except (ValueError, RecursionError) as error:
        raise BadAnswer(f"{place}: not JSON: {to_text(str(error)[:300])}") from None
    try:
        listed = entries(content)
    except ValueError as error:
        raise Refused(f"{place}: {error}") from None
    if len(listed) > MAX_ENTRIES:
        raise BadAnswer(f"{place}: {len(listed)} entries, where {LIMIT} were asked for")
    stated = filter(None, map(_stated_day, listed))
    days = Counter(one for one in stated if abs(one - day) <= NEAR)  # at weekends, an earlier list
    usual = days.most_common(1)[0][0] if days else day
    records = []
    for number, entry in enumerate(listed, 1):
        record = _record(entry, f"{place}, entry {number}", usual, answer.at)
        if isinstance(record, PaperRecord) and abs((record.listed_on or day) - day) > NEAR:
            reason = f"a wrong date: it would be listed on {record.listed_on}"
            record = BadRecord(record.place, reason)
        records.append(record)
    return records


def entries(content: object) -> list[object]:
    """The entries of an answer, unless it is an error in words.

    Raises:
        ValueError: it is, and these are the words.
    """
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        content = content["data"]
    if isinstance(content, list):
        return content
    if isinstance(content, dict):
        content = content.get("error") or f"an object with {', '.join(content) or 'no fields'}"
    raise ValueError(f"not a list of papers but: {to_text(str(content)[:1000])[:300]}")


def saved(listed: list[object], place: str, day: date | None) -> Iterator[PaperRecord | BadRecord]:
    """The papers of a saved answer; `day` is its list's, if known.

    Nobody noted when it was saved: at the latest when its day was over.
    """
    for number, entry in enumerate(listed, 1):
        yield _record(entry, f"{place}, entry {number}", day, None)


def _stated_day(entry: object) -> date | None:
    paper = entry.get("paper") if isinstance(entry, dict) else None
    fields = {**entry, **paper} if isinstance(entry, dict) and isinstance(paper, dict) else {}
    return as_day(fields.get("submittedOnDailyAt"))


def _record(
    entry: object, place: str, day: date | None, observed_at: datetime | None
) -> PaperRecord | BadRecord:
    if not isinstance(entry, dict) or not isinstance(entry.get("paper"), dict):
        return BadRecord(place, "no object with a “paper”")
    fields = {**entry, **{k: v for k, v in entry["paper"].items() if v is not None}}
    # The outer publishedAt is neither the list's day nor arXiv's date.
    fields["publishedAt"] = entry["paper"].get("publishedAt")

    def name_of(*keys: str) -> str:
        for person in (fields.get(key) for key in keys):
            for field in ("fullname", "name", "user"):
                if isinstance(person, dict) and (name := as_text(person.get(field))):
                    return name
        return ""

    def names(value: object) -> tuple[str, ...]:
        values = value[:MAX_LIST] if isinstance(value, list) else []
        texts = (as_text(one.get("name") if isinstance(one, dict) else one) for one in values)
        return tuple(text for text in texts if text)

    listed_on = as_day(fields.get("submittedOnDailyAt")) or day
    seen_on = (observed_at or datetime.now(UTC)).date()
    if listed_on and not FIRST_DAY <= listed_on <= seen_on + timedelta(days=1):
        return BadRecord(place, f"a wrong date: it would be listed on {listed_on}")
    if observed_at is None and listed_on:
        observed_at = datetime.combine(listed_on + timedelta(days=1), time(), tzinfo=UTC)
    code, project = as_url(fields.get("githubRepo")), as_url(fields.get("projectPage"))
    if not code and _GITHUB.match(project):
        code = project
    try:
        return PaperRecord(
            source="huggingface",
            title=as_title(fields.get("title")),
            abstract=as_abstract(fields.get("summary") or ""),
            arxiv_id=normalise_arxiv_id(str(fields.get("id"))),
            authors=names(fields.get("authors")),
            published_on=as_day(fields.get("publishedAt")),
            listed_on=listed_on,
            code_url=code,
            project_url="" if project == code else project,
            thumbnail_url=as_url(fields.get("thumbnail")),
            keywords=names(fields.get("ai_keywords")),
            summary=as_text(fields.get("ai_summary"), MAX_ABSTRACT),
            organisation=name_of("organization", "submitterOrganization"),
            submitter=name_of("submittedOnDailyBy", "submittedBy"),
            counters={
                name: fields[key]
                for name, key in (
                    ("upvotes", "upvotes"), ("comments", "numComments"), ("stars", "githubStars")
                )
                if is_count(fields.get(key))
            },
            observed_at=observed_at,
            place=place,
        )  # fmt: skip
    except ValueError as error:
        return BadRecord(place, str(error))
