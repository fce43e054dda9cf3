"""Two papers that turn out to be one: what is kept of them, and where their names lead."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.test import Client
from django.utils import timezone

from papers import editions
from papers import ingest as ingest_module
from papers.ingest import Summary, ingest, keep_word, write
from papers.joining import absorb
from papers.models import (
    CurationRecord,
    Edition,
    EditionPaper,
    Embedding,
    Harvest,
    Paper,
    PaperAlias,
    Signal,
)
from papers.search import search
from papers.sources import PaperRecord
from tests.factories import make_frozen_edition, make_paper

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
Curation = EditionPaper.Curation

DAILY = PaperRecord(
    "huggingface",
    "Kites in the wind",
    abstract="As the daily list has it, and longer.",
    arxiv_id="2611.00001",
    authors=("Ada Alvarez",),
    summary="They fly.",
    listed_on=date(2026, 11, 19),
    counters={"upvotes": 12},
    observed_at=NOW,
)
JOURNAL = PaperRecord(
    "file",
    "Kites in the wind: the journal version",
    doi="10.1000/kite",
    authors=("Alvarez, Ada",),
    url="https://example.org/kite",
    published_on=date(2026, 11, 18),
    counters={"stars": 3},
)
ARXIV = PaperRecord(
    "arxiv",
    "Kites in the wind",
    abstract="As arXiv has it.",
    arxiv_id="2611.00001",
    doi="10.1000/kite",
    authors=("Ada Alvarez", "Bo Berg"),
    listed_on=date(2026, 11, 17),
)


def bring(*records: PaperRecord, now: datetime = NOW) -> Summary:
    return ingest(records, source="test", now=now)


def two() -> tuple[Paper, Paper]:
    """By the DOI, and by the arXiv id."""
    bring(JOURNAL)
    bring(DAILY)
    return Paper.objects.get(doi=JOURNAL.doi), Paper.objects.get(arxiv_id=DAILY.arxiv_id)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("batch", [1, 500])
def test_three_sources_are_one_paper_of_the_same_words_in_any_order(
    monkeypatch: pytest.MonkeyPatch, batch: int, apart: bool
) -> None:
    monkeypatch.setattr(ingest_module, "BATCH", batch)
    seen: list[Any] = []
    for order in itertools.permutations([DAILY, JOURNAL, ARXIV]):
        Paper.objects.all().delete()
        for records in [[record] for record in order] if apart else [order]:
            bring(*records)
        row = Paper.objects.values().get()
        own = {"id", "uuid", "created_at", "updated_at", "sources"}
        facts: dict[str, Any] = {name: value for name, value in row.items() if name not in own}
        paper = Paper.objects.get()
        said = {one.source: one.record["title"] for one in paper.source_records.all()}
        counted = sorted(paper.signals.values_list("source", "counter", "value"))
        seen.append((facts, sorted(row["sources"]), said, counted))
        assert bring(*order).updated == 0
    assert all(facts == seen[0] for facts in seen)
    facts, sources, said, counted = seen[0]
    assert (facts["arxiv_id"], facts["doi"]) == ("2611.00001", "10.1000/kite")
    assert (facts["abstract"], facts["url"]) == ("As arXiv has it.", "https://example.org/kite")
    assert facts["listing_day"] == ARXIV.listed_on
    assert sources == ["arxiv", "file", "huggingface"] == sorted(said)
    assert counted == [("file", "stars", 3), ("huggingface", "upvotes", 12)]


def test_the_older_paper_stays_and_the_harvest_says_so() -> None:
    older, newer = two()
    summary = bring(ARXIV)
    assert str(summary).endswith("1 updated, 0 skipped, 0 failed, 1 joined with another")
    assert Harvest.objects.latest("id").joined == 1
    assert Paper.objects.get() == older
    alias = PaperAlias.objects.get()
    assert (alias.old_id, alias.uuid, alias.paper) == (newer.pk, newer.uuid, older)
    assert (bring(ARXIV).joined, PaperAlias.objects.count()) == (0, 1)


def test_a_doi_that_its_source_corrects_joins_too() -> None:
    bring(replace(ARXIV, doi="10.1000/slip"), JOURNAL)
    assert Paper.objects.count() == 2
    bring(replace(ARXIV, observed_at=NOW - timedelta(days=1)), now=LATER)
    assert Paper.objects.count() == 2  # an older word corrects nothing
    bring(ARXIV, now=LATER)
    assert Paper.objects.get().doi == JOURNAL.doi


def test_a_doi_that_another_source_stands_by_is_no_slip() -> None:
    bring(ARXIV, replace(JOURNAL, doi="10.1000/other"))
    bring(replace(JOURNAL, title=ARXIV.title))
    bring(replace(ARXIV, doi="10.1000/other"), now=LATER)
    assert Paper.objects.count() == 2


def test_what_one_source_said_of_both_is_added_up() -> None:
    preprint = replace(
        JOURNAL,
        title="Preprint",
        doi="",
        arxiv_id="2611.00001",
        abstract="A longer one.",
        published_on=date(2026, 11, 2),
    )
    bring(JOURNAL, now=NOW)
    bring(preprint, now=LATER)
    bring(ARXIV)
    said = {one.source: one.record for one in Paper.objects.get().source_records.all()}
    assert sorted(said) == ["arxiv", "file"]
    assert (said["file"]["title"], said["file"]["arxiv_id"]) == (JOURNAL.title, "2611.00001")
    assert (said["file"]["abstract"], said["file"]["doi"]) == ("A longer one.", JOURNAL.doi)
    assert said["file"]["published_on"] == "2026-11-18"


@pytest.mark.parametrize("which", [0, 1])
def test_the_word_of_the_curators_stays(which: int) -> None:
    paper = two()[which]
    paper.title, paper.comment = "By hand", "Look."
    paper.save()
    keep_word(paper, ["title", "comment"], NOW)
    bring(ARXIV)
    joined = Paper.objects.get()
    assert (joined.title, joined.comment) == ("By hand", "Look.")


@pytest.mark.parametrize("which", [0, 1])
def test_what_a_curator_took_off_either_paper_joins_them_no_more(which: int) -> None:
    name, paper = ("arxiv_id", "doi")[which], two()[which]
    # As a source's slip had given it, until the curator came.
    keep_word(paper, [name], NOW)
    for now in (LATER, LATER + timedelta(days=1)):
        summary = bring(ARXIV, now=now)
        assert summary.joined == 0
        assert summary.errors == [
            ": arXiv:2611.00001 is not joined by doi:10.1000/kite: "
            f"a curator said otherwise of “{paper.title}”"
        ]
    known = Paper.objects.order_by("id").values_list("arxiv_id", "doi")
    assert list(known) == [(None, "10.1000/kite"), ("2611.00001", None)]


def test_a_doi_that_a_curator_took_off_goes_to_its_owner_and_joins_nothing() -> None:
    bring(ARXIV)
    paper = Paper.objects.get()
    paper.doi = None
    paper.save()
    keep_word(paper, ["doi"], NOW)
    owner = replace(JOURNAL, title="Kites: the long article")
    for number in range(2):
        bring(owner, replace(ARXIV, comment=f"{number} pages"), now=LATER + timedelta(days=number))
    known = Paper.objects.order_by("id").values_list("title", "arxiv_id", "doi")
    assert list(known) == [(ARXIV.title, "2611.00001", None), (owner.title, None, JOURNAL.doi)]


def test_signals_are_moved_and_what_is_computed_goes() -> None:
    older, newer = two()
    for paper in (older, newer):
        Embedding.objects.create(paper=paper, encoder="0" * 64, text_digest="0" * 32)
        Signal.objects.create(
            paper=paper, source="file", counter="stars", value=paper.pk, observed_at=LATER
        )
    bring(ARXIV)
    assert older.signals.count() == 3
    assert older.signals.get(observed_at=LATER).value == older.pk
    assert list(Embedding.objects.values_list("paper", flat=True)) == [older.pk]
    with connection.cursor() as cursor:
        cursor.execute("SELECT paper_id FROM papers_searchtext")
        assert cursor.fetchall() == [(older.pk,)]


# Editions


@pytest.mark.parametrize("state", ["open", "frozen"])
def test_on_one_list_the_pin_stays_and_both_notes(state: str) -> None:
    older, newer = two()
    edition = make_frozen_edition(older, newer)
    if state == "open":
        Edition.objects.update(state="open", frozen_at=None)
    edition.candidates.filter(paper=older).update(note="Of the journal.", trend=0.9)
    pinned = edition.candidates.filter(paper=newer)
    pinned.update(curation=Curation.PINNED, position=2, note="Of the daily list.", trend=0.1)
    bring(ARXIV)
    row = EditionPaper.objects.get()
    assert (row.paper, row.curation, row.position) == (older, Curation.PINNED, 2)
    assert row.note == "Of the daily list.\n\nOf the journal."
    assert Edition.objects.get().changed_at > edition.changed_at
    assert CurationRecord.objects.get().what == (
        "Joined “Kites in the wind” with “Kites in the wind: the journal version”: one paper."
    )


def test_a_frozen_list_shows_what_it_showed_each_paper_once() -> None:
    older, newer = two()
    edition = make_frozen_edition(older, newer)
    edition.candidates.filter(paper=older).update(curation=Curation.HIDDEN)
    elsewhere = make_frozen_edition(newer, day=edition.day - timedelta(days=1))
    bring(ARXIV)
    assert [row.edition for row in editions.shown()] == [edition, elsewhere]
    assert {row.paper for row in editions.shown()} == {older}


def test_an_open_list_does_not_carry_what_another_one_has_carried() -> None:
    older, newer = two()
    make_frozen_edition(older, day=timezone.now().date() - timedelta(days=1))
    edition = Edition.objects.create(day=timezone.now().date())
    edition.candidates.create(paper=newer)
    bring(ARXIV)
    editions.open_edition(edition.day)
    assert not edition.candidates.exists()


@pytest.mark.django_db(transaction=True)
def test_a_curator_who_writes_a_paper_at_the_same_time_and_a_join_wait_in_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ingest_module, "BATCH", 1)
    older, newer = two()
    Edition.objects.create(day=timezone.now().date()).candidates.create(paper=newer)
    held = threading.Event()
    failed: list[Exception] = []

    def page_of_records() -> None:
        """The first one writes a paper, and only the second one shows that there is but one."""
        held.wait(10)
        try:
            with transaction.atomic():
                write([replace(JOURNAL, comment="9 pages"), ARXIV], NOW, Summary())
        except OperationalError as error:
            failed.append(error)
        connection.close()

    thread = threading.Thread(target=page_of_records)
    thread.start()
    with editions.alone():
        held.set()
        with connection.cursor() as cursor:
            for _ in range(500):  # until the other one waits for us
                cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
                if cursor.fetchone()[0]:
                    break
                time.sleep(0.01)
        Paper.objects.filter(pk=older.pk).update(submitter="a reader")
    thread.join(20)
    assert failed == []
    paper = Paper.objects.get()
    assert (paper.arxiv_id, paper.doi) == (DAILY.arxiv_id, JOURNAL.doi)
    assert paper.comment == "9 pages"
    assert EditionPaper.objects.get().paper == older


# Old names


def test_old_addresses_lead_to_the_paper(client: Client) -> None:
    older, newer = two()
    bring(ARXIV)
    response = client.get(f"/paper/{newer.uuid}")
    assert (response.status_code, response["Location"]) == (301, f"/paper/{older.uuid}")
    for part in ("", "/similar", "/signals?limit=5"):
        response = client.get(f"/api/v1/papers/{newer.uuid}{part}")
        there = f"/api/v1/papers/{older.uuid}{part}"
        assert (response.status_code, response["Location"]) == (301, there)
        assert client.get(there).status_code == 200
    assert search(f"https://example.org/paper/{newer.uuid}").direct == older
    assert client.get("/paper/00000000-0000-4000-8000-000000000000").status_code == 404


def test_old_names_lead_on_when_the_paper_is_joined_once_more(client: Client) -> None:
    first, second, third = (make_paper(f"Version {number}") for number in range(3))
    absorb(second, third)
    absorb(first, second)
    assert set(first.ids) == {first.pk, second.pk, third.pk}
    assert client.get(f"/paper/{third.uuid}")["Location"] == f"/paper/{first.uuid}"
