"""A day of Hugging Face's daily papers, as its server answers."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papers.sources import BadAnswer, BadRecord, Page, PaperRecord, Refused, SourceError
from papers.sources.client import Answer
from papers.sources.huggingface import daily, read
from papers.sources.recorded import Saved
from tests.real_inputs import ABSENT, DATA
from tests.sources_server import Kept, asking, serving

DAY, JUNE = date(2025, 6, 2), date(2026, 6, 12)
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=ABSENT)


def entry(number: int = 1, **paper: object) -> dict[str, Any]:
    told = {"id": f"2506.{number:05}", "title": f"Kites, Part {number}", "upvotes": number}
    return {
        "paper": {**told, "submittedOnDailyAt": "2025-06-02T06:00:00.000Z", **paper},
        "publishedAt": "2025-05-29T20:00:00.000Z",
        "numComments": 2,
    }


def saved(content: object, query: str = "", status: int = 200, **headers: str) -> Saved:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Saved(f"/api/daily_papers?{query}", json.dumps(content).encode(), status, names)


def pages(*answers: Saved, day: date = DAY, kept: Kept | None = None) -> list[Page]:
    with serving(*answers) as server:
        return list(daily(asking(validators=kept), f"{server.url}/api/daily_papers", day))


def papers(found: list[Page]) -> list[PaperRecord]:
    records = [record for page in found for record in page.records]
    return [record for record in records if isinstance(record, PaperRecord)]


def test_a_day_is_asked_for_by_its_date_and_observed_when_it_was_answered() -> None:
    at = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5)
    given_at = format_datetime(at, usegmt=True)
    listed = [entry(upvotes=7, githubStars=3)]
    with serving(saved(listed, "date=2025-06-02&limit=100&p=0", Date=given_at)) as server:
        (page,) = daily(asking(), f"{server.url}/api/daily_papers", DAY)
    (paper,) = papers([page])
    assert paper.listed_on == DAY
    assert paper.counters == {"upvotes": 7, "comments": 2, "stars": 3}
    assert paper.observed_at == at
    assert paper.published_on is None  # the outer date is not arXiv's
    assert page.cursor == ""


def test_a_long_day_is_asked_for_page_by_page() -> None:
    first = [entry(number) for number in range(1, 101)]
    found = pages(
        saved(first, "p=0", ETag='"one"'), saved([entry(101)], "p=1", RateLimit='"api";r=0;t=9')
    )
    assert [page.cursor for page in found] == ["1", ""]
    assert len(papers(found)) == 101
    # an unchanged first page would say nothing of the second
    assert [page.validator for page in found] == [None, None]
    assert [page.wait for page in found] == [0, 9]


def test_a_short_page_is_followed_where_the_server_says_so() -> None:
    following = '<https://hub.example/api/daily_papers?p=1>; rel="next"'
    found = pages(saved([entry(1)], "p=0", Link=following), saved([entry(2)], "p=1"))
    assert [paper.arxiv_id for paper in papers(found)] == ["2506.00001", "2506.00002"]


def test_a_broken_day_goes_on_at_its_cursor() -> None:
    with serving(saved([entry(101)], "p=1")) as server:
        found = list(daily(asking(), f"{server.url}/api/daily_papers", DAY, cursor="1"))
    assert [paper.arxiv_id for paper in papers(found)] == ["2506.00101"]


def test_a_server_that_takes_no_heed_of_the_page_is_not_asked_for_ever() -> None:
    everything = [entry(number) for number in range(1, 121)]
    assert [page.cursor for page in pages(saved(everything))] == ["1", ""]


def test_a_day_that_has_not_changed_says_so() -> None:
    kept = Kept()
    with serving(saved([entry()], "p=0", ETag='"one"')) as server:
        base = f"{server.url}/api/daily_papers"
        (page,) = daily(asking(validators=kept), base, DAY)
        assert page.validator is not None
        kept.known[page.validator.url] = (page.validator.etag, page.validator.last_modified)
        (again,) = daily(asking(validators=kept), base, DAY)
    assert again.unchanged
    assert not again.records


def test_a_weekend_that_snaps_back_keeps_the_papers_on_their_own_day() -> None:
    sunday = date(2025, 6, 8)
    friday = {"submittedOnDailyAt": "2025-06-06T09:00:00.000Z"}
    found = papers(
        pages(saved([entry(1, **friday), entry(2, submittedOnDailyAt=None)]), day=sunday)
    )
    assert [paper.listed_on for paper in found] == [date(2025, 6, 6)] * 2
    assert pages(saved([]), day=sunday) == [Page()]


def test_without_any_day_the_papers_are_of_the_day_asked_for() -> None:
    (paper,) = papers(pages(saved([entry(submittedOnDailyAt=None)])))
    assert paper.listed_on == DAY


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        ({"error": "Invalid date: must not lie ahead"}, 400, "must not lie ahead"),
        ({"error": "Too many of them"}, 200, "Too many of them"),
        ("Internal words", 200, "Internal words"),
        ({}, 200, "an object with no fields"),
        (None, 200, "None"),
        (3, 200, "3"),
    ],
)
def test_an_error_in_words_is_refused_with_them(content: object, status: int, words: str) -> None:
    with pytest.raises(Refused, match=words):
        pages(saved(content, status=status))


@pytest.mark.parametrize(
    "content",
    [b"", b"<!DOCTYPE html><title>Log in</title>", b"[{", b"\xff\xfe\xff", b"[" * 100_000],
)
def test_what_is_not_json_is_a_bad_answer(content: bytes) -> None:
    with pytest.raises(BadAnswer, match="Hugging Face, 2025-06-02"):
        pages(Saved("/api/daily_papers", content))


def test_a_list_of_wrong_days_leaves_the_day_that_was_asked_for() -> None:
    wrong = [entry(number, submittedOnDailyAt="2025-01-01T06:00:00.000Z") for number in (1, 2)]
    (page,) = pages(saved([*wrong, entry(3, submittedOnDailyAt=None)]))
    (paper,) = papers([page])
    assert (paper.arxiv_id, paper.listed_on) == ("2506.00003", DAY)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"[" + b"{}," * 500 + b"{}]", "501 entries"), (b"[" + b" " * 4_000_000 + b"]", "4 MB")],
)
def test_a_list_that_is_too_long_is_a_bad_answer(content: bytes, words: str) -> None:
    with pytest.raises(BadAnswer, match=words):
        pages(Saved("/api/daily_papers", content))


def test_a_bad_entry_takes_no_other_with_it() -> None:
    bad: list[object] = [
        3, "{}", {"paper": 1}, entry(id="x"), entry(title=" "), entry(summary=[1]),
        entry(title="x" * 5000), entry(submittedOnDailyAt="2199-01-01T00:00:00Z"),
        entry(submittedOnDailyAt="1926-06-02T00:00:00Z"), entry(submittedOnDailyAt="2025-05-01"),
    ]  # fmt: skip
    (page,) = pages(saved([entry(1), *bad, entry(2)]))
    assert len(papers([page])) == 2
    reasons = [record.reason for record in page.records if isinstance(record, BadRecord)]
    assert len(reasons) == len(bad)
    assert isinstance(page.records[1], BadRecord)
    assert page.records[1].place == "Hugging Face, 2025-06-02, entry 2"


@needs_data
def test_the_real_days_are_read_as_their_files_are() -> None:
    count = 0
    for path in sorted((DATA / "hf_daily").glob("2025-0[678]-*.json")):
        day = date.fromisoformat(path.stem)
        answer = Answer(datetime(2025, 9, 1, tzinfo=UTC), path.read_bytes())
        records = read(answer, day)
        assert all(isinstance(record, PaperRecord) for record in records), path
        assert {record.listed_on for record in records if isinstance(record, PaperRecord)} == {day}
        count += len(records)
    assert count > 500
    for path in (DATA / "hf_api").glob("*.json"):
        records = read(Answer(datetime(2026, 6, 13, tzinfo=UTC), path.read_bytes()), JUNE)
        assert len(records) == 30
        assert all(isinstance(record, PaperRecord) for record in records)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["id", "title", "summary", "authors", "publishedAt", "submittedOnDailyAt", "upvotes",
     "githubStars", "githubRepo", "projectPage", "ai_keywords", "organization", "submittedBy"]
)  # fmt: skip
ENTRY = st.dictionaries(FIELDS, JSON).map(lambda told: {**told, **entry(**told)})


@given(st.lists(ENTRY | JSON, max_size=4) | JSON, st.binary(max_size=3), st.integers(0, 400))
def test_any_answer_is_read_or_refused(content: object, noise: bytes, at: int) -> None:
    told = json.dumps(content).encode()
    mutated = told[:at] + noise + told[at + len(noise) :] if noise else told
    try:
        records = read(Answer(datetime(2025, 6, 3, tzinfo=UTC), mutated), DAY)
    except SourceError:
        return
    for record in records:
        if isinstance(record, PaperRecord):
            assert 0 < len(record.title) <= 1000
            assert all(0 <= value < 2**31 for value in record.counters.values())
            assert record.listed_on
            assert record.arxiv_id
