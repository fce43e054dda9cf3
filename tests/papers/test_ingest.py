"""Records -> rows: what is one paper, what is kept of it, and that nothing is written twice."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import transaction

from papers import ingest as ingest_module
from papers.editions import newest_counts
from papers.ingest import BATCH, Summary, ingest, keep_word, write
from papers.models import Edition, EditionPaper, Harvest, Paper, Signal
from papers.sources import BadRecord, PaperRecord, Version, Withdrawn
from tests.factories import make_paper
from tests.newsletter.pages import in_thread

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)
LATER = NOW + timedelta(days=1)

LISTED = PaperRecord("listing", "Attention over Sparse Graphs", abstract="Short.", place="a.txt:3")
DAILY = PaperRecord(
    "huggingface",
    "Attention over sparse graphs",
    abstract="A longer abstract, told in full.",
    arxiv_id="2611.00001",
    authors=("Ada Alvarez", "Bo Berg"),
    keywords=("graphs",),
    summary="It attends.",
    organisation="Example Lab",
    listed_on=date(2026, 11, 18),
    counters={"upvotes": 12, "comments": 2},
    observed_at=datetime(2026, 11, 18, 12, tzinfo=UTC),
    place="2026-11-18.json, entry 1",
)
FILED = PaperRecord(
    "file",
    "Attention over Sparse Graphs.",
    doi="10.1000/graphs",
    authors=("Ada Alvarez",),
    categories=("cs.LG", "stat.ML"),
    published_on=date(2026, 11, 17),
    code_url="https://example.org/code",
    place="papers.jsonl:1",
)


def bring(*records: PaperRecord | BadRecord | Withdrawn, now: datetime = NOW) -> Summary:
    return ingest(records, source="test", now=now)


def rows() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Everything that an import may have written, timestamps of rows included."""
    papers, signals = Paper.objects.order_by("id"), Signal.objects.order_by("id")
    return [dict(row) for row in papers.values()], [dict(row) for row in signals.values()]


def titled(title: str, **facts: Any) -> PaperRecord:
    return PaperRecord("file", title, **facts)


# What is one paper


def test_importing_again_changes_nothing() -> None:
    first = bring(LISTED, DAILY, FILED, titled("Another paper", counters={"stars": 5}))
    before = rows()
    second = bring(LISTED, DAILY, FILED, titled("Another paper", counters={"stars": 5}), now=LATER)
    assert rows() == before
    assert (first.read, first.new, first.updated, first.skipped) == (4, 2, 0, 2)
    assert (second.read, second.new, second.updated, second.skipped) == (4, 0, 0, 4)


def test_the_order_of_records_does_not_matter() -> None:
    seen = []
    for order in itertools.permutations([LISTED, DAILY, FILED]):
        Paper.objects.all().delete()
        bring(*order)
        paper = Paper.objects.get()
        seen.append(
            (
                paper.title_key, paper.abstract, paper.arxiv_id, paper.doi, paper.listing_day,
                paper.authors[0], paper.categories, paper.keywords, paper.published_on,
                paper.code_url, paper.summary, paper.summary_source, paper.organisation,
                sorted(paper.sources), paper.signals.count(),
            )
        )  # fmt: skip
    assert len(seen) == 6
    assert all(facts == seen[0] for facts in seen)


def test_it_is_the_same_in_one_import_or_in_several() -> None:
    for record in (LISTED, DAILY, FILED):
        bring(record)
    paper = Paper.objects.get()
    assert (paper.arxiv_id, paper.doi) == ("2611.00001", "10.1000/graphs")
    assert paper.abstract == DAILY.abstract
    assert paper.sources == ["listing", "huggingface", "file"]


def test_one_identifier_is_one_paper_whatever_its_title() -> None:
    bring(titled("First version", arxiv_id="2611.00002"))
    summary = bring(titled("A new title", arxiv_id="2611.00002", abstract="Now with an abstract."))
    assert summary.updated == 1
    assert Paper.objects.get().abstract == "Now with an abstract."


def test_a_title_is_recognised_whatever_its_case_accents_and_punctuation() -> None:
    bring(titled("Schrödinger's  cat: a “review”"), titled("SCHRODINGERS CAT, A REVIEW"))
    assert Paper.objects.count() == 1


def test_papers_of_one_title_with_other_identifiers_are_two() -> None:
    bring(titled("Introduction", arxiv_id="2611.1"), titled("Introduction", arxiv_id="2611.2"))
    bring(titled("Conclusion", doi="10.1000/1"), titled("Conclusion", doi="10.1000/2"))
    assert Paper.objects.count() == 4


def test_papers_of_one_title_by_other_authors_are_two() -> None:
    bring(titled("Introduction", authors=("Ada",)), titled("Introduction", authors=("Bo",)))
    assert Paper.objects.count() == 2


def test_papers_of_one_title_are_one_when_one_side_names_no_authors() -> None:
    bring(titled("Introduction"), titled("Introduction", authors=("Bo",)))
    assert Paper.objects.get().authors == ["Bo"]


@pytest.mark.parametrize(
    ("one", "two", "why"),
    [
        ({}, {"arxiv_id": "2611.00002"}, "arXiv:2611.00002 has it already"),
        ({"doi": "10.1000/1"}, {}, "arXiv:2611.00001 is known by doi:10.1000/1"),
        (
            {"authors": ("Ada Alvarez",)},
            {"authors": ("Bo Berg",)},
            "it is known as “Two”, by others",
        ),
    ],
)
def test_two_papers_that_something_keeps_apart_stay_two_and_it_is_told(
    one: dict[str, Any], two: dict[str, Any], why: str
) -> None:
    first = titled("One", arxiv_id="2611.00001", **one)
    bring(first, titled("Two", doi="10.1000/2", **two))
    before = list(Paper.objects.order_by("id").values_list("arxiv_id", "doi"))
    both = replace(first, source="arxiv", doi="10.1000/2", abstract="Of it.", place="page 7")
    assert (bring(both).updated, bring(both).skipped) == (1, 1)
    assert list(Paper.objects.order_by("id").values_list("arxiv_id", "doi")) == before
    assert list(Paper.objects.order_by("id").values_list("abstract", flat=True)) == ["Of it.", ""]
    harvest = Harvest.objects.latest("id")
    told = f"page 7: arXiv:2611.00001 is not joined by doi:10.1000/2: {why}"
    assert (harvest.errors, harvest.failed, harvest.joined) == ([told], 0, 0)


def test_no_record_is_lost_between_two_batches() -> None:
    summary = ingest(
        (titled(f"Paper number {n}") for n in range(2 * BATCH + 3)), source="", now=NOW
    )
    assert summary.read == summary.new == Paper.objects.count() == 2 * BATCH + 3


def test_duplicates_are_folded_across_batches_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_module, "BATCH", 1)
    bring(LISTED, DAILY, FILED)
    assert Paper.objects.get().sources == ["listing", "huggingface", "file"]


# What is kept


def test_of_two_abstracts_the_longer_is_kept() -> None:
    bring(titled("T", abstract="The longer one."))
    bring(titled("T", abstract="Short."))
    assert Paper.objects.get().abstract == "The longer one."


def test_a_paper_is_listed_on_its_sources_day_else_on_the_day_of_the_import() -> None:
    bring(titled("Dated", listed_on=date(2026, 11, 2)), titled("Undated"))
    bring(titled("Dated"), titled("Undated"), now=LATER)
    days = dict(Paper.objects.values_list("title", "listing_day"))
    assert days == {"Dated": date(2026, 11, 2), "Undated": NOW.date()}


def test_a_source_that_listed_it_earlier_moves_the_listing_day_back() -> None:
    bring(LISTED)
    bring(DAILY)
    assert Paper.objects.get().listing_day == DAILY.listed_on


def test_updated_at_moves_with_a_change_only() -> None:
    bring(LISTED, titled("Another paper"))
    was = dict(Paper.objects.values_list("title_key", "updated_at"))
    bring(LISTED, DAILY, titled("Another paper"), now=LATER)
    now = dict(Paper.objects.values_list("title_key", "updated_at"))
    assert now["attention over sparse graphs"] > was["attention over sparse graphs"]
    assert now["another paper"] == was["another paper"]


# Counters


def counted(value: int, at: datetime | None = None, *, source: str = "file") -> PaperRecord:
    return PaperRecord(source, "T", counters={"upvotes": value}, observed_at=at)


def signals() -> list[tuple[int, datetime]]:
    return list(Signal.objects.order_by("observed_at").values_list("value", "observed_at"))


def test_each_dated_snapshot_is_kept_once() -> None:
    noon = NOW + timedelta(hours=6)
    bring(counted(1, NOW), counted(3, noon), counted(3, noon))
    assert bring(counted(1, NOW)).updated == 0
    assert bring(counted(3, LATER)).updated == 1  # the same number at another time is news
    assert signals() == [(1, NOW), (3, noon), (3, LATER)]


def test_a_number_that_stays_is_noted_once_more_and_then_seldom() -> None:
    for _ in range(2):  # importing again changes nothing
        for hours in range(40):
            bring(counted(5 if hours < 30 else 6, NOW + timedelta(hours=hours)))
    noted = [(value, (at - NOW) // timedelta(hours=1)) for value, at in signals()]
    assert noted == [(5, 0), (5, 1), (5, 13), (5, 25), (6, 30)]
    paper = Paper.objects.get()
    for hours in range(13, 40):  # what is not noted is missed by nobody
        moment = NOW + timedelta(hours=hours)
        counts, gained = newest_counts([paper.pk], "upvotes", moment)
        assert (counts[0], gained[0]) == ((5, 0) if hours < 30 else (6, 1))


def test_an_undated_counter_is_kept_where_it_has_grown() -> None:
    bring(counted(5))
    assert bring(counted(5), now=LATER).updated == 0
    assert bring(counted(8), now=LATER).updated == 1
    assert signals() == [(5, NOW), (8, LATER)]


def test_two_sources_count_apart() -> None:
    bring(counted(5, NOW), counted(7, NOW, source="huggingface"))
    assert Signal.objects.count() == 2


@pytest.mark.parametrize("batch", [1, 2, 500])
def test_undated_counters_that_disagree_do_not_outdo_each_other_at_every_import(
    monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(ingest_module, "BATCH", batch)
    bring(counted(5), counted(9), counted(7))
    assert signals() == [(9, NOW)]
    assert bring(counted(5), counted(9), counted(7), now=LATER).updated == 0
    assert signals() == [(9, NOW)]


# Bad and odd records


def test_bad_records_are_counted_with_their_place_and_lose_nothing_else() -> None:
    summary = bring(
        titled("Good"),
        BadRecord("a.jsonl:2", "it is no JSON"),
        titled("Negative", counters={"upvotes": -1}, place="a.jsonl:3"),
        titled("Too many", counters={"upvotes": 2**31}, place="a.jsonl:4"),
        titled("Odd", counters={"likes": 1}, place="a.jsonl:5"),
        PaperRecord("a name of seventeen", "Long source", place="a.jsonl:6"),
        PaperRecord("", "No source", place="a.jsonl:7"),
        titled(" \n", place="a.jsonl:8"),
        titled("Naive", observed_at=datetime(2026, 1, 1), place="a.jsonl:9"),
        titled("Good, too", counters={"upvotes": 2**31 - 1}),
    )
    assert (summary.read, summary.new, summary.failed) == (2, 2, 8)
    assert [error.split(": ")[0] for error in summary.errors] == [
        f"a.jsonl:{line}" for line in range(2, 10)
    ]
    assert list(Paper.objects.order_by("id").values_list("title", flat=True)) == [
        "Good",
        "Good, too",
    ]


def test_only_the_first_thousand_errors_are_told_but_all_are_counted() -> None:
    summary = bring(*(BadRecord(f"line {n}", "bad") for n in range(1100)))
    assert (summary.failed, len(summary.errors)) == (1100, 1000)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("before\0after", "beforeafter"),
        ("half \ud83d a pair", "half \ufffd a pair"),
        ("\ud83d\ude00 in two halves", "😀 in two halves"),
        ("😀 emoji, 中文, \u202e, \u0000", "😀 emoji, 中文, \u202e, "),
    ],
)
def test_text_that_the_database_cannot_hold_is_mended(given: str, kept: str) -> None:
    record = PaperRecord(
        "file", given, abstract=given, authors=(given,), categories=(given,), keywords=(given,),
        summary=given, organisation=given, submitter=given, url=f"https://example.org/{given}",
        arxiv_id=given[:20], doi=given,
    )  # fmt: skip
    assert bring(record, BadRecord(given, given)).new == 1
    assert bring(record, now=LATER).skipped == 1
    paper = Paper.objects.get()
    assert (paper.title, paper.abstract, paper.authors, paper.keywords) == (
        kept,
        kept,
        [kept],
        [kept],
    )
    assert Harvest.objects.latest("id").state == Harvest.State.DONE
    assert Harvest.objects.earliest("id").errors == [f"{kept}: {kept}"]


def test_what_is_too_long_for_its_column_never_stops_a_batch() -> None:
    long = "x" * 3000
    record = PaperRecord(
        "file", "T", arxiv_id=long, doi=long, url=f"https://example.org/{long}",
        pdf_url=f"https://example.org/{long}", organisation=long, submitter=long,
        authors=(long,), keywords=(long,), categories=(long,), summary=long * 10,
    )  # fmt: skip
    assert bring(titled("Before"), record, titled("After")).new == 3
    assert bring(record).skipped == 1
    paper = Paper.objects.get(title="T")
    assert (paper.arxiv_id, paper.doi, paper.url, paper.pdf_url) == (None, None, "", "")
    assert paper.organisation == paper.submitter == long[:255]
    assert paper.authors == [long]


def test_a_title_of_any_length_can_be_stored_and_found() -> None:
    long = " ".join(chr(0x4E00 + n % 20_000) for n in range(9000))
    assert bring(titled(long)).new == 1
    assert bring(titled(long)).skipped == 1


@pytest.mark.parametrize(
    "link", ["javascript:alert(1)", "JavaScript:alert(1)", "data:text/html,x", "//example.org", "x"]
)
def test_a_link_that_is_not_of_the_web_is_left_out(link: str) -> None:
    links = dict.fromkeys(("url", "pdf_url", "code_url", "project_url", "thumbnail_url"), link)
    bring(titled("T", **links))
    paper = Paper.objects.get()
    assert [getattr(paper, name) for name in links] == [""] * 5


# What is told about it


def test_each_import_leaves_a_harvest_that_says_how_it_went() -> None:
    bring(LISTED, DAILY, BadRecord("a.txt:9", "odd"))
    harvest = Harvest.objects.get()
    assert harvest.state == Harvest.State.DONE
    assert (harvest.read, harvest.new, harvest.skipped, harvest.failed) == (2, 1, 1, 1)
    assert harvest.errors == ["a.txt:9: odd"]
    assert harvest.started_at == NOW
    assert harvest.finished_at is not None


def test_an_import_that_breaks_off_says_so_and_keeps_what_was_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ingest_module, "BATCH", 1)

    def records() -> Any:
        yield titled("Whole")
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        ingest(records(), source="x" * 300, now=NOW)
    assert Paper.objects.get().title == "Whole"
    harvest = Harvest.objects.get()
    assert (harvest.state, harvest.read, harvest.source) == (Harvest.State.FAILED, 1, "x" * 255)


def import_papers(*paths: Path) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    call_command("import_papers", *map(str, paths), stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def test_the_command_sums_up_and_names_what_failed(tmp_path: Path) -> None:
    file = tmp_path / "papers.jsonl"
    lines = [json.dumps({"title": "Good", "abstract": "Read."}), json.dumps({"title": 7}), "{"]
    file.write_text("\n".join(lines))
    out, err = import_papers(file)
    assert "1 read, 1 new, 0 updated, 0 skipped, 2 failed" in out
    assert "papers.jsonl:2" in err
    assert "papers.jsonl:3" in err


def test_the_command_refuses_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="No such file or folder"):
        import_papers(tmp_path / "absent")
    assert not Harvest.objects.exists()


# The real inputs


def test_the_listings_are_450_entries_and_405_papers(data: Path) -> None:
    out, err = import_papers(data / "listings")
    assert "450 read, 405 new, 0 updated, 45 skipped, 0 failed" in out
    assert err == ""
    assert Paper.objects.count() == 405
    assert not Paper.objects.filter(abstract="").exists()


def test_listings_and_daily_papers_are_1623_papers_and_a_second_import_changes_nothing(
    data: Path,
) -> None:
    import_papers(data / "listings", data / "hf_daily")
    assert Paper.objects.count() == 1623
    assert Paper.objects.filter(arxiv_id__isnull=False).count() == 1219
    before = rows()
    out, _ = import_papers(data / "listings", data / "hf_daily")
    assert " 0 new, 0 updated, " in out
    assert rows() == before


def test_daily_papers_before_the_listings_are_the_same_papers(data: Path) -> None:
    import_papers(data / "hf_daily")
    assert Paper.objects.count() == 1219
    import_papers(data / "listings")
    assert Paper.objects.count() == 1623


# What each source said


def said(paper: Paper) -> dict[str, dict[str, Any]]:
    return {row.source: row.record for row in paper.source_records.all()}


ARXIV = PaperRecord(
    "arxiv",
    "Attention over sparse graphs",
    abstract="As arXiv has it.",
    arxiv_id="2611.00001",
    authors=("Ada Alvarez", "Bo Berg"),
    categories=("cs.LG",),
    listed_on=date(2026, 11, 17),
    versions=(Version(1, date(2026, 11, 16)),),
    licence="http://creativecommons.org/licenses/by/4.0/",
    comment="9 pages",
)


def test_what_each_source_said_is_kept_beside_the_paper() -> None:
    bring(LISTED, DAILY, FILED, ARXIV)
    paper = Paper.objects.get()
    assert {source: record["title"] for source, record in said(paper).items()} == {
        "listing": LISTED.title, "huggingface": DAILY.title, "file": FILED.title,
        "arxiv": ARXIV.title,
    }  # fmt: skip
    assert said(paper)["file"]["published_on"] == "2026-11-17"
    assert "counters" not in said(paper)["huggingface"]  # they are signals
    assert (paper.licence, paper.comment) == (ARXIV.licence, "9 pages")


def test_the_word_of_arxiv_comes_first_in_any_order() -> None:
    seen = []
    for order in itertools.permutations([LISTED, DAILY, FILED, ARXIV]):
        Paper.objects.all().delete()
        for record in order:
            bring(record)
        row = Paper.objects.values().get()
        own = {"id", "uuid", "created_at", "updated_at", "sources"}
        facts: dict[str, Any] = {name: value for name, value in row.items() if name not in own}
        seen.append({**facts, "sources": sorted(row["sources"])})
    assert all(row == seen[0] for row in seen)
    assert (seen[0]["abstract"], seen[0]["categories"]) == ("As arXiv has it.", ["cs.LG"])


def test_a_source_corrects_itself_field_by_field() -> None:
    bring(ARXIV, DAILY)
    corrected = replace(
        ARXIV,
        title="Attention over dense graphs",
        abstract="Shorter.",
        comment="",
        versions=(Version(2, date(2026, 11, 19)),),
    )
    assert bring(corrected, now=LATER).updated == 1
    paper = Paper.objects.get()
    assert (paper.title, paper.title_key) == (corrected.title, "attention over dense graphs")
    assert (paper.abstract, paper.comment) == ("Shorter.", "9 pages")
    assert [version["number"] for version in paper.versions] == [1, 2]
    assert bring(corrected, now=LATER + timedelta(hours=1)).updated == 0


def test_a_saved_answer_does_not_undo_what_was_said_later() -> None:
    newer = replace(DAILY, summary="Newer.", observed_at=LATER)
    for order in ((DAILY, newer), (newer, DAILY)):
        Paper.objects.all().delete()
        bring(*order)
        assert Paper.objects.get().summary == "Newer."
        assert bring(*order, now=LATER + timedelta(days=1)).updated == 0


def test_a_word_that_is_repeated_is_not_undone_by_an_older_one() -> None:
    said_at = [NOW + timedelta(hours=hours) for hours in (0, 2, 1)]
    for summary, at in zip(("New.", "New.", "Saved."), said_at, strict=True):
        bring(replace(DAILY, summary=summary, observed_at=at))
    assert Paper.objects.get().summary == "New."


@pytest.mark.django_db(transaction=True)
def test_what_only_points_at_a_paper_waits_for_no_harvest() -> None:
    bring(ARXIV)
    paper = Paper.objects.get()
    edition = Edition.objects.create(day=date(2026, 11, 20))
    with transaction.atomic():
        write([replace(ARXIV, abstract="New.")], LATER, Summary())
        listing = in_thread(lambda: EditionPaper.objects.create(edition=edition, paper=paper))
        listing.join(5)
        assert not listing.is_alive()
    assert Paper.objects.get().abstract == "New."


def test_a_row_from_before_there_were_records_is_what_its_source_said() -> None:
    paper = make_paper("Attention over sparse graphs", url="https://example.org/a", listing_day=NOW)
    bring(ARXIV)
    paper.refresh_from_db()
    assert said(paper)["file"]["url"] == paper.url == "https://example.org/a"
    assert paper.abstract == "As arXiv has it."


def test_what_a_curator_changed_stays() -> None:
    bring(ARXIV)
    paper = Paper.objects.get()
    paper.title, paper.comment, paper.listing_day = "By hand", "", date(2026, 11, 20)
    paper.save()
    keep_word(paper, ["title", "comment", "listing_day"], LATER)
    bring(replace(ARXIV, comment="10 pages", abstract="New."), now=LATER)
    paper.refresh_from_db()
    assert (paper.title, paper.comment, paper.abstract) == ("By hand", "", "New.")
    assert paper.listing_day == date(2026, 11, 20)


@pytest.mark.parametrize("name", ["arxiv_id", "doi"])
@pytest.mark.parametrize("value", [None, "10.1000/9"])
def test_an_identifier_that_a_curator_took_off_or_changed_stays_so(
    name: str, value: str | None
) -> None:
    wrong = replace(ARXIV, doi="10.1000/graphs")
    bring(wrong)
    paper = Paper.objects.get()
    setattr(paper, name, value)
    paper.save()
    keep_word(paper, [name], LATER)
    left = {"arxiv_id": "", "doi": ""} | {name: getattr(wrong, name)}
    repeated = [wrong, replace(wrong, source="file", **left)]  # by the other one, and by the title
    for day in range(1, 3):
        bring(*repeated, now=NOW + timedelta(days=day))
        paper = Paper.objects.get()
        assert getattr(paper, name) == value


def test_one_doi_on_two_eprints_is_a_slip_of_one_of_them() -> None:
    other = replace(ARXIV, title="Another", arxiv_id="2611.00002", doi="10.1000/graphs")
    bring(replace(ARXIV, doi="10.1000/graphs"), other)
    assert list(Paper.objects.order_by("id").values_list("arxiv_id", "doi")) == [
        ("2611.00001", "10.1000/graphs"),
        ("2611.00002", None),
    ]
    assert bring(replace(other, doi="", title="Another one"), now=LATER).updated == 1


@pytest.mark.parametrize("name", ["A. Alvarez", "Alvarez, Ada", "ADA ÁLVAREZ"])
def test_an_author_is_the_same_however_the_name_is_written(name: str) -> None:
    bring(titled("Introduction", authors=("Ada Alvarez",)), titled("Introduction", authors=(name,)))
    assert Paper.objects.count() == 1


def test_a_record_that_only_updates_makes_no_paper() -> None:
    revision = replace(ARXIV, only_updates=True, listed_on=None, comment="Revised.")
    assert (bring(revision).skipped, Paper.objects.count()) == (1, 0)
    bring(ARXIV)
    assert bring(revision, now=LATER).updated == 1
    assert Paper.objects.get().listing_day == ARXIV.listed_on


def test_a_paper_that_was_taken_back_stays_so_until_its_source_has_it_again() -> None:
    gone = Withdrawn("arxiv", "2611.00001")
    bring(ARXIV, DAILY)
    assert bring(ARXIV, gone).updated == 1
    assert bring(ARXIV, gone, now=LATER).updated == 0
    bring(replace(DAILY, summary="Still listed."), now=LATER)
    assert Paper.objects.get().withdrawn_on == NOW.date()
    bring(ARXIV, now=LATER + timedelta(hours=1))
    assert Paper.objects.get().withdrawn_on is None
