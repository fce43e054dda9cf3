"""Files of every kind become records; what is wrong becomes a BadRecord and no exception."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from papers.sources import BadRecord, PaperRecord
from papers.sources.files import read
from papers.sources.identifiers import normalise_arxiv_id, normalise_doi, title_key
from tests.real_inputs import ABSENT, DATA

RECORDINGS = Path(__file__).parent / "recordings"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=ABSENT)


def sorted_out(*paths: Path) -> tuple[list[PaperRecord], list[BadRecord]]:
    records = list(read(paths))
    papers = [record for record in records if isinstance(record, PaperRecord)]
    return papers, [record for record in records if isinstance(record, BadRecord)]


def written(folder: Path, text: str | bytes, name: str = "file") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


PROSE = "We look at this with care. " * 8


# -- listings


def test_a_listing_with_blank_lines_gives_whole_titles_and_abstracts() -> None:
    papers, bad = sorted_out(RECORDINGS / "listing_with_blank_lines.txt")
    assert not bad
    assert [paper.title for paper in papers] == [
        "A New Date for March 11: Calendars Learned from Tides",
        "Kites That Listen",
        "Sorting Letters by Weight",
        "Bicycles on Stairs: A Study. Part Two",
    ]
    assert papers[1].abstract == "Kites hear the wind before they feel it."
    assert "over a new route through four towns, and describe" in papers[2].abstract
    assert papers[3].abstract.startswith("Riding down")
    assert papers[3].abstract.endswith("the abstract above it.")
    assert {paper.source for paper in papers} == {"listing"}
    assert papers[0].place.endswith("listing_with_blank_lines.txt:13")


def test_a_listing_without_blank_lines_gives_whole_titles_and_abstracts() -> None:
    papers, bad = sorted_out(RECORDINGS / "listing_without_blank_lines.txt")
    assert not bad
    assert [paper.title for paper in papers] == [
        "On Counting Doorbells",
        "What Is the Newspaper's Shortest Way Round a Village?",
    ]
    assert papers[1].abstract.endswith("A boy with a bicycle confirms both.")
    assert "bounds of O(n^(3/2)) for" in papers[1].abstract


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("name", ["listing_with_blank_lines", "listing_without_blank_lines"])
def test_line_ends_and_a_byte_order_mark_change_nothing(
    tmp_path: Path, newline: str, mark: str, name: str
) -> None:
    source = RECORDINGS / f"{name}.txt"
    papers, bad = sorted_out(written(tmp_path, mark + source.read_text().replace("\n", newline)))
    assert not bad
    expected = [(paper.title, paper.abstract) for paper in sorted_out(source)[0]]
    assert [(paper.title, paper.abstract) for paper in papers] == expected


def test_title_and_wrapped_abstract_may_share_a_block(tmp_path: Path) -> None:
    text = "One Title\nfirst words of it\nand its end.\n\nOther Title\nno more than this line.\n"
    papers, bad = sorted_out(written(tmp_path, text))
    assert not bad
    assert [(paper.title, paper.abstract) for paper in papers] == [
        ("One Title", "first words of it and its end."),
        ("Other Title", "no more than this line."),
    ]


def test_a_title_without_abstract_is_named_and_disturbs_no_other(tmp_path: Path) -> None:
    text = f"Lonely Title\n\nFirst Title\n\n{PROSE}\n\nSecond Title\n\n{PROSE}\n\nLast Line\n"
    papers, bad = sorted_out(path := written(tmp_path, text))
    assert [paper.title for paper in papers] == ["First Title", "Second Title"]
    assert [record.place for record in bad] == [f"{path}:1", f"{path}:11"]
    assert "no abstract after “Lonely Title”" in bad[0].reason


def test_an_overlong_title_and_an_abstract_without_title_are_named(tmp_path: Path) -> None:
    papers, bad = sorted_out(written(tmp_path, f"{PROSE}\n\nA Title\n\n{PROSE}\n"))
    assert len(papers) == 1
    assert "no title before" in bad[0].reason


# -- Hugging Face


def test_a_saved_day_of_hugging_face_is_read_with_all_its_fields() -> None:
    papers, bad = sorted_out(RECORDINGS / "hf_day.json")
    lanterns, soup = papers
    assert lanterns == PaperRecord(
        source="huggingface",
        title="Lanterns for Night Trains",
        abstract="Lamps along the line save S² watts.",
        arxiv_id="2506.00001",
        authors=("Ada Müller", "Bo Li"),
        published_on=date(2025, 5, 30),
        listed_on=date(2025, 6, 2),
        code_url="https://github.com/example/lanterns",
        project_url="https://lanterns.example.org",
        thumbnail_url="https://example.org/thumb.png",
        keywords=("lamps", "trains"),
        summary="Lamps save watts.",
        organisation="Rail Lab",
        submitter="Cy Berg",
        counters={"upvotes": 7, "comments": 1, "stars": 12},
        observed_at=datetime(2025, 6, 3, tzinfo=UTC),
        place=f"{RECORDINGS / 'hf_day.json'}, entry 1",
    )
    assert (soup.code_url, soup.project_url) == ("https://github.com/example/soup", "")
    assert (soup.organisation, soup.submitter) == ("kitchen", "dora")
    assert soup.counters == {"comments": 2}  # true and null are no numbers
    assert [record.place for record in bad] == [f"{RECORDINGS / 'hf_day.json'}, entry 3"]


def test_entries_kept_as_python_text_take_their_day_from_the_files_name() -> None:
    papers, bad = sorted_out(RECORDINGS / "hf_2025-01-10.json")
    assert [paper.title for paper in papers] == [
        'Pockets: A "Survey" of Coats',
        "Moths in the Archive",
    ]
    assert papers[0].abstract == "A coat has n pockets and one hole."
    assert papers[0].listed_on == date(2025, 1, 10)
    assert papers[1].project_url == ""  # no web address
    assert len(bad) == 1


@pytest.mark.parametrize("day", ["1926-06-02", "2023-04-30", "2199-01-01"])
def test_a_day_on_which_there_was_no_list_yet_is_a_wrong_date(tmp_path: Path, day: str) -> None:
    text = (RECORDINGS / "hf_day.json").read_text().replace("2025-06-02", day)
    papers, bad = sorted_out(written(tmp_path, text, "saved.json"))
    assert day not in {str(paper.listed_on) for paper in papers}
    assert f"a wrong date: it would be listed on {day}" in [record.reason for record in bad]


def test_without_a_day_nothing_is_guessed(tmp_path: Path) -> None:
    text = (RECORDINGS / "hf_2025-01-10.json").read_text()
    papers, _ = sorted_out(written(tmp_path, text, "saved.json"))
    assert {(paper.listed_on, paper.observed_at) for paper in papers} == {(None, None)}


@pytest.mark.parametrize("text", ['"date is not valid"', '{"error": "date is not valid"}'])
def test_an_error_of_the_api_is_one_bad_record_that_names_it(tmp_path: Path, text: str) -> None:
    papers, bad = sorted_out(written(tmp_path, text))
    assert not papers
    assert len(bad) == 1
    assert "date is not valid" in bad[0].reason
    assert "must not be in the future" in sorted_out(RECORDINGS / "hf_error.json")[1][0].reason


def test_an_empty_day_is_no_mistake(tmp_path: Path) -> None:
    assert sorted_out(written(tmp_path, "[]")) == ([], [])


# -- JSON Lines


def test_json_lines_load_around_their_bad_lines() -> None:
    path = RECORDINGS / "records.jsonl"
    papers, bad = sorted_out(path)
    assert papers[0] == PaperRecord(
        source="file",
        title="Ladders for Bees",
        abstract="Bees climb 10× faster.",
        arxiv_id="2505.24864",
        doi="10.1000/abc.1",
        authors=("Eva Schröder",),
        categories=("q-bio.PE", "math.CO"),
        published_on=date(2025, 5, 30),
        listed_on=date(2025, 6, 2),
        url="https://example.org/bees",
        counters={"upvotes": 3},
        observed_at=datetime(2025, 6, 2, 6, tzinfo=UTC),
        place=f"{path}:1",
    )
    assert papers[1].title == "Hats in the Wind"
    assert [record.place for record in bad] == [f"{path}:3", f"{path}:5"]
    assert bad[0].reason.startswith("invalid JSON")
    assert bad[1].reason.startswith("counters: expected an object of counts")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("authors", "Ada"),
        ("authors", [1]),
        ("arxiv_id", "25.1"),
        ("doi", "abc"),
        ("url", "javascript:alert(1)"),
        ("listed_on", "yesterday"),
        ("listed_on", 20250602),
        ("observed_at", "2025-06-02T06:00:00"),
        ("counters", {"upvotes": 1.5}),
        ("counters", {"upvotes": True}),
        ("counters", {"upvotes": 2**40}),
        ("abstract", 5),
        ("source", "Not A Name"),
        ("source", "a" * 17),
        ("source", "paperround"),
        ("source", "curator"),
        ("title", "t" * 1001),
        ("title", "  "),
    ],
)
def test_a_wrong_field_is_named_with_its_line(tmp_path: Path, field: str, value: object) -> None:
    lines = [{"title": "Good"}, {"title": "Odd", field: value}, {"title": "Also Good"}]
    path = written(tmp_path, "\n".join(map(json.dumps, lines)))
    papers, bad = sorted_out(path)
    assert [paper.title for paper in papers] == ["Good", "Also Good"]
    assert [record.place for record in bad] == [f"{path}:2"]
    assert field in bad[0].reason


def test_one_line_that_is_not_utf8_or_not_an_object_loses_only_itself(tmp_path: Path) -> None:
    path = written(tmp_path, b'{"title": "A"}\n{"title": "caf\xe9"}\n[1]\n{"title": "B"}')
    papers, bad = sorted_out(path)
    assert [paper.title for paper in papers] == ["A", "B"]
    assert [record.place for record in bad] == [f"{path}:2", f"{path}:3"]


def test_a_bad_first_line_does_not_hide_the_kind_of_the_file(tmp_path: Path) -> None:
    papers, bad = sorted_out(written(tmp_path, '{"title": "A"\n{"title": "B"}\n'))
    assert [paper.title for paper in papers] == ["B"]
    assert len(bad) == 1


# -- anything else


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "UTF-8"),
        (b"a\x00b", "binary"),
        (b"Caf\xe9 society\n", "UTF-8"),
        ("Title\n".encode("utf-16"), "UTF-8"),
        (b"<!DOCTYPE html><title>x</title>", "HTML"),
        (b'[{"paper": 1}', "invalid JSON"),
        (b"a,b\n1,2\n", "neither JSON nor a listing"),
    ],
)
def test_any_other_file_is_one_bad_record_with_its_reason(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    papers, bad = sorted_out(written(tmp_path, content))
    assert not papers
    assert len(bad) == 1
    assert reason in bad[0].reason


def test_a_missing_file_and_an_empty_directory_are_named(tmp_path: Path) -> None:
    _, bad = sorted_out(tmp_path, tmp_path / "missing", Path("/dev/null"))
    assert ["no files" in bad[0].reason, "No such file" in bad[1].reason] == [True, True]
    assert bad[2].reason == "not a regular file"


def test_a_directory_is_read_in_sorted_order_without_hidden_files(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    for name in ("z", "b/x", "a", ".hidden", ".git/config"):
        written(tmp_path, json.dumps({"title": name}), name)
    assert [paper.title for paper in sorted_out(tmp_path)[0]] == ["a", "z", "b/x"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["title", "paper", "data", "error", "id", "authors", "counters", "upvotes",
                 "publishedAt", "submittedOnDailyAt", "observed_at", "url", "arxiv_id", "source"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=15,
)  # fmt: skip


@given(content=st.binary() | st.text().map(lambda text: text.encode("utf-8", "replace")))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_garbage_never_raises(tmp_path: Path, content: bytes) -> None:
    assert all(
        isinstance(record, PaperRecord | BadRecord) for record in read([written(tmp_path, content)])
    )


@given(values=st.lists(JSON, min_size=1, max_size=4), as_list=st.booleans(), as_text=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_garbage_json_never_raises(
    tmp_path: Path, values: list[object], as_list: bool, as_text: bool
) -> None:
    entries = [repr(value) for value in values] if as_text else values
    content = json.dumps(entries) if as_list else "\n".join(map(json.dumps, entries))
    for record in read([written(tmp_path, content, "2025-06-02.json")]):
        assert isinstance(record, BadRecord) or record.title


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 100_000, "(" * 100_000])
def test_deep_nesting_and_huge_numbers_never_raise(tmp_path: Path, text: str) -> None:
    assert sorted_out(written(tmp_path, text), written(tmp_path, json.dumps([text]), "b"))[0] == []


# -- identifiers


@pytest.mark.parametrize(
    ("text", "identifier"),
    [
        ("2505.24864", "2505.24864"),
        (" arXiv:2505.24864v3 ", "2505.24864"),
        ("https://arxiv.org/abs/2505.24864v2", "2505.24864"),
        ("http://export.arxiv.org/pdf/0704.0001v1.pdf", "0704.0001"),
        ("https://huggingface.co/papers/2505.24864", "2505.24864"),
        ("https://doi.org/10.48550/arXiv.2505.24864", "2505.24864"),
        ("oai:arXiv.org:math/0211159", "math/0211159"),
        ("math.GT/0211159v1", "math/0211159"),
        ("arXiv:2505.24864 [cs.LG]", "2505.24864"),
        ("hep-th/9901001", "hep-th/9901001"),
    ],
)
def test_every_spelling_of_an_arxiv_id_is_one(text: str, identifier: str) -> None:
    assert normalise_arxiv_id(text) == identifier


@pytest.mark.parametrize(
    "text",
    ["", "2513.12345", "hello", "10.1000/182", "2505.24864x", "²505.24864", "abcdefghijk/9901001",
     f"{'a' * 40}/9901001", f"hep-{'a' * 40}/9901001"],
)  # fmt: skip
def test_what_is_no_arxiv_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not an arXiv id"):
        normalise_arxiv_id(text)


def test_identifiers_fit_their_columns() -> None:
    assert len(normalise_arxiv_id(f"{'A' * 10}-{'B' * 10}.{'c' * 99}/9901001v12")) <= 32
    assert len(normalise_doi("10.1000/" + "İ" * 123)) <= 255
    with pytest.raises(ValueError, match="is not a DOI"):
        normalise_doi("10.1000/" + "İ" * 247)  # in lower case, two characters each


def test_every_spelling_of_a_doi_is_one() -> None:
    for text in ("10.1000/ABC", "doi:10.1000/abc", "https://doi.org/10.1000%2Fabc", "10.1000/abc."):
        assert normalise_doi(text) == "10.1000/abc"
    with pytest.raises(ValueError, match="is not a DOI"):
        normalise_doi("10.1000")


def test_a_title_key_folds_case_accents_punctuation_and_spacing_only() -> None:
    assert title_key("Naïve  Multi-Agent: 'Bayes'") == title_key("naive multi agent bayes")
    assert title_key("S²FT") == title_key("s2ft")
    assert title_key("!!!") != title_key("???")
    assert title_key("हिन्दी") != title_key("हन्द")
    assert title_key("Straße") == title_key("STRASSE")


# -- the real inputs


@needs_data
def test_the_real_listings_hold_450_entries_of_405_papers() -> None:
    papers, bad = sorted_out(DATA / "listings")
    assert not bad
    assert len(papers) == 450
    assert len({title_key(paper.title) for paper in papers}) == 405
    assert papers[0].title.startswith("On Invariance")
    assert max(len(paper.title) for paper in papers) < 200
    assert min(len(paper.abstract) for paper in papers) > 250
    assert max(len(paper.abstract) for paper in papers) < 2000


@needs_data
def test_the_real_days_of_hugging_face_hold_1219_papers() -> None:
    papers, bad = sorted_out(DATA / "hf_daily", DATA / "hf_api")
    assert not bad
    daily = [paper for paper in papers if "hf_daily" in paper.place]
    assert len({paper.arxiv_id for paper in daily}) == 1219
    assert all(str(paper.listed_on) in paper.place for paper in papers)
    assert len(papers) - len(daily) == 30
    assert all({"upvotes", "comments"} <= paper.counters.keys() for paper in papers)
    assert all(paper.abstract and paper.authors and paper.published_on for paper in papers)


@needs_data
def test_other_real_files_are_refused_without_an_exception() -> None:
    papers, bad = sorted_out(DATA / "arxiv", DATA / "bounces", DATA / "README.md")
    assert len(bad) > 100
    assert [paper for paper in papers if "/arxiv/" in paper.place] == []
