"""arXiv's three ways of telling what there is, and everything else that may come instead."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from itertools import islice
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from papers.categories import CATEGORY_NAMES
from papers.sources import (
    BadAnswer,
    BadRecord,
    Busy,
    CursorExpired,
    Page,
    PaperRecord,
    Refused,
    SourceError,
    Version,
    Withdrawn,
)
from papers.sources.arxiv import (
    EASTERN,
    MAX_AUTHORS,
    Records,
    announced,
    announced_on,
    by_identifiers,
    harvest,
    names_in,
    read_atom,
    read_feed,
    read_oai,
    set_of,
)
from papers.sources.recorded import Saved
from tests.real_inputs import ABSENT, DATA
from tests.sources_server import Kept, asking, serving

ARXIV = DATA / "arxiv"
SINCE = date(2026, 11, 20)
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=ABSENT)


def papers(records: Records | tuple[object, ...]) -> list[PaperRecord]:
    return [record for record in records if isinstance(record, PaperRecord)]


def bad(records: Records | tuple[object, ...]) -> list[BadRecord]:
    return [record for record in records if isinstance(record, BadRecord)]


# -- sets and days


def test_a_category_names_its_set() -> None:
    assert set_of("math.AG") == "math:math:AG"
    assert set_of("q-bio.NC") == "q-bio:q-bio:NC"
    assert set_of("quant-ph") == "physics:quant-ph"
    assert set_of("astro-ph.CO") == "physics:astro-ph:CO"
    assert set_of("cs") == "cs:cs"
    for wrong in ("", "cs.ZZ", "nope", "cs.LG&verb=Identify", "CS.LG"):
        with pytest.raises(ValueError, match="no category of arXiv"):
            set_of(wrong)


@needs_data
def test_every_category_has_a_set_at_arxiv() -> None:
    told = ElementTree.parse(ARXIV / "oai" / "ListSets.xml").getroot()
    sets = {element.text for element in told.iter() if element.tag.endswith("setSpec")}
    archives = {code.partition(".")[0] for code in CATEGORY_NAMES}
    assert {set_of(code) for code in [*CATEGORY_NAMES, *archives]} <= sets


@pytest.mark.parametrize(
    ("submitted", "listed"),
    [
        # winter: 14:00 Eastern is 19:00 UTC
        ("2026-01-05T18:59:59Z", "2026-01-06"),  # Monday before the cut-off
        ("2026-01-05T19:00:00Z", "2026-01-07"),
        ("2026-01-07T12:00:00Z", "2026-01-08"),
        ("2026-01-08T18:59:00Z", "2026-01-09"),
        ("2026-01-08T19:01:00Z", "2026-01-12"),  # Thursday afternoon: announced on Sunday
        ("2026-01-09T18:59:00Z", "2026-01-12"),
        ("2026-01-09T19:01:00Z", "2026-01-13"),  # Friday afternoon to Monday: announced on Monday
        ("2026-01-10T12:00:00Z", "2026-01-13"),
        ("2026-01-11T23:00:00Z", "2026-01-13"),
        ("2026-01-12T18:59:00Z", "2026-01-13"),
        # summer: 14:00 Eastern is 18:00 UTC
        ("2026-07-06T17:59:59Z", "2026-07-07"),
        ("2026-07-06T18:00:00Z", "2026-07-08"),
        ("2026-07-10T17:59:00Z", "2026-07-13"),
        ("2026-07-10T18:01:00Z", "2026-07-14"),
        # the clocks change on Sunday, 8 March and 1 November
        ("2026-03-06T18:59:00Z", "2026-03-09"),
        ("2026-03-09T17:59:00Z", "2026-03-10"),
        ("2026-03-09T18:30:00Z", "2026-03-11"),
        ("2026-10-30T18:30:00Z", "2026-11-03"),
        ("2026-11-02T18:59:00Z", "2026-11-03"),
        ("2026-11-02T19:00:00Z", "2026-11-04"),
    ],
)
def test_a_paper_is_listed_when_arxivs_schedule_says(submitted: str, listed: str) -> None:
    moment = datetime.fromisoformat(submitted)
    assert announced_on(moment) == date.fromisoformat(listed)
    assert announced_on(moment.replace(tzinfo=None)) == date.fromisoformat(listed)


@given(
    st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1)).map(lambda m: m.replace(tzinfo=UTC))
)
def test_a_list_is_of_a_weekday_and_soon_after(submitted: datetime) -> None:
    listed = announced_on(submitted)
    assert listed.weekday() < 5
    assert timedelta(0) <= listed - submitted.date() <= timedelta(days=4)
    assert announced_on(submitted + timedelta(hours=1)) >= listed


@needs_data
def test_new_papers_of_real_answers_were_stamped_on_the_day_computed() -> None:
    right = total = 0
    for path in sorted((ARXIV / "oai").glob("ListRecords_arXivRaw_p*.xml")):
        for record in ElementTree.fromstring(path.read_bytes()).findall(".//{*}record"):
            told = [version.text or "" for version in record.findall(".//{*}version/{*}date")]
            dates = [parsedate_to_datetime(text) for text in told]
            stamp = date.fromisoformat(record.findtext("{*}header/{*}datestamp", ""))
            # These papers are of 2011, when submissions closed at 16:00.
            doubtful = 14 <= dates[0].astimezone(EASTERN).hour < 16
            if len(dates) == 1 and stamp - dates[0].date() < timedelta(days=5) and not doubtful:
                total += 1
                right += announced_on(dates[0]) == stamp
                assert announced_on(dates[0]) <= stamp  # a moderator may have held it
    print(f"listed on the day of the stamp: {right} of {total}")  # noqa: T201
    assert total >= 40
    assert right >= 0.9 * total


# -- OAI-PMH

V1 = '<version version="v1"><date>Thu, 19 Nov 2026 06:14:47 GMT</date></version>'


def raw(
    number: int = 1, *, body: str = "", versions: str = V1, status: str = "", id_: str = ""
) -> str:
    arxiv_id = id_ or f"2611.{number:05}"
    header = (
        f"<header{status}><identifier>oai:arXiv.org:{arxiv_id}</identifier>"
        "<datestamp>2026-11-20</datestamp></header>"
    )
    if status:
        return f"<record>{header}</record>"
    body = body or f"<title>Kites, Part {number}</title><abstract>They fly.</abstract>"
    return (
        f'<record>{header}<metadata><arXivRaw xmlns="http://arxiv.org/OAI/arXivRaw/">'
        f"<id>{arxiv_id}</id>{versions}<authors>A. One and B. Two</authors>"
        f"<categories>cs.LG stat.ML</categories>{body}</arXivRaw></metadata></record>"
    )


def oai(*records: str, token: str | None = "", error: str = "") -> bytes:
    tail = "" if token is None else f"<resumptionToken>{token}</resumptionToken>"
    listed = error or f"<ListRecords>{''.join(records)}{tail}</ListRecords>"
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<OAI-PMH xmlns="http://www.openarchives.org/OAI/2.0/">'
        f"<responseDate>2026-11-21T02:45:17Z</responseDate>{listed}</OAI-PMH>"
    ).encode()


def oai_error(code: str, words: str = "") -> bytes:
    return oai(error=f'<error code="{code}">{words}</error>')


FIRST = "/oai?verb=ListRecords&metadataPrefix=arXivRaw&set=cs:cs:LG&from=2026-11-20"
NEXT = "/oai?verb=ListRecords&resumptionToken="


def harvested(*answers: Saved, cursor: str = "") -> list[Page]:
    with serving(*answers) as server:
        return list(harvest(asking(), f"{server.url}/oai", "cs:cs:LG", SINCE, cursor))


def test_a_harvest_goes_from_page_to_page() -> None:
    found = harvested(
        Saved(FIRST, oai(raw(1), raw(2), token="a%26b")),
        Saved(NEXT + "a%2526b", oai(raw(3), token="c"), headers={"RateLimit": '"x";r=0;t=9'}),
        Saved(NEXT + "c", oai(raw(4), token=None)),
    )
    assert [page.cursor for page in found] == ["a%26b", "c", ""]
    assert [len(page.records) for page in found] == [2, 1, 1]
    assert [page.wait for page in found] == [0, 9, 0]
    assert [page.validator for page in found] == [None] * 3


def test_a_record_is_read_with_all_its_fields() -> None:
    body = """<title>Schr\\"odinger's
        Kites</title><abstract>  They use $\\ell_p$.</abstract>
        <doi>10.1000/ABC 10.1000/other</doi><journal-ref>J. Kites 1 (2026)</journal-ref>
        <license>http://creativecommons.org/licenses/by/4.0/</license>
        <comments>12 pages</comments>"""
    versions = V1 + '<version version="v2"><date>Fri, 20 Nov 2026 01:00:00 GMT</date></version>'
    (page,) = harvested(Saved(FIRST, oai(raw(body=body, versions=versions))))
    assert page.records == (
        PaperRecord(
            source="arxiv",
            title="Schrödinger's Kites",
            abstract="They use ℓₚ.",
            arxiv_id="2611.00001",
            doi="10.1000/abc",
            authors=("A. One", "B. Two"),
            categories=("cs.LG", "stat.ML"),
            published_on=date(2026, 11, 19),
            listed_on=date(2026, 11, 20),
            versions=(Version(1, date(2026, 11, 19)), Version(2, date(2026, 11, 20))),
            licence="http://creativecommons.org/licenses/by/4.0/",
            comment="12 pages",
            journal_ref="J. Kites 1 (2026)",
            place="arXiv, cs:cs:LG, record 1 (oai:arXiv.org:2611.00001)",
        ),
    )


def test_a_new_version_of_an_old_paper_is_listed_on_its_old_day() -> None:
    old = (
        '<version version="v2"><date>Thu, 19 Nov 2026 06:14:47 GMT</date></version>'
        '<version version="v1"><date>Tue, 25 Jan 2000 16:09:37 GMT</date></version>'
    )
    (page,) = harvested(Saved(FIRST, oai(raw(versions=old, id_="math.GT/0001024"))))
    (paper,) = papers(page.records)
    assert (paper.arxiv_id, paper.listed_on) == ("math/0001024", date(2000, 1, 26))
    assert [version.number for version in paper.versions] == [1, 2]


def test_deleted_records_and_papers_taken_back_are_withdrawn() -> None:
    empty = (
        '<version version="v2"><date>Fri, 20 Nov 2026 01:00:00 GMT</date><size>0kb</size>'
        "<source_type>I</source_type></version>"
    )
    (page,) = harvested(
        Saved(FIRST, oai(raw(1, status=' status="deleted"'), raw(2, versions=V1 + empty)))
    )
    deleted, paper, taken_back = page.records
    assert isinstance(deleted, Withdrawn)
    assert (deleted.arxiv_id, deleted.on) == ("2611.00001", date(2026, 11, 20))
    assert isinstance(paper, PaperRecord)
    assert isinstance(taken_back, Withdrawn)
    assert (taken_back.arxiv_id, taken_back.on) == ("2611.00002", date(2026, 11, 20))


def test_a_broken_harvest_goes_on_at_the_same_place() -> None:
    with serving(
        Saved(FIRST, oai(raw(1), token="a")),
        Saved(NEXT + "a", b"", 503, {"Retry-After": "7"}),
        Saved(NEXT + "a", oai(raw(2))),
    ) as server:
        pull = partial(harvest, asking(), f"{server.url}/oai", "cs:cs:LG", SINCE)
        pages = pull()
        kept = [next(pages)]
        with pytest.raises(Busy) as busy:
            next(pages)
        assert busy.value.retry_after == 7
        kept += pull(kept[-1].cursor)
    assert [paper.arxiv_id for page in kept for paper in papers(page.records)] == [
        "2611.00001",
        "2611.00002",
    ]
    assert [asked.params.get("from") for asked in server.asked] == ["2026-11-20", None, None]


def test_an_expired_cursor_is_told_from_every_other_refusal() -> None:
    expired = oai_error("badResumptionToken", "it is of yesterday")
    with pytest.raises(CursorExpired, match="it is of yesterday"):
        harvested(Saved(NEXT + "old", expired), cursor="old")
    with pytest.raises(Refused, match="badArgument: Set does not exist") as refused:
        harvested(Saved(FIRST, oai_error("badArgument", "Set does not exist")))
    assert type(refused.value) is Refused


def test_no_records_is_an_empty_page() -> None:
    assert harvested(Saved(FIRST, oai_error("noRecordsMatch"))) == [Page()]
    assert harvested(Saved(FIRST, oai())) == [Page()]


@pytest.mark.parametrize(
    "answers",
    [
        [Saved(FIRST, oai(raw(1), token="a")), Saved(NEXT + "a", oai(raw(2), token="a"))],
        [
            Saved(FIRST, oai(raw(1), token="a")),
            Saved(NEXT + "a", oai(raw(2), token="b")),
            Saved(NEXT + "b", oai(raw(3), token="a")),
        ],
        [Saved(FIRST, oai(token="a"))],
        [Saved(FIRST, oai(raw(1), token="x" * 3000))],
    ],
)
def test_a_harvest_without_end_ends(answers: list[Saved]) -> None:
    with pytest.raises(BadAnswer):
        harvested(*answers)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (raw(versions=""), "no first version"),
        (raw(versions=V1.replace("19 Nov 2026", "42 Nov 2026")), "wrong date"),
        (raw(versions=V1.replace("2026", "2926")), "wrong date"),
        (raw(versions=V1.replace("2026", "1926")), "wrong date"),
        (raw(versions=V1.replace("GMT", "+9999")), "wrong date"),
        (raw(versions=V1 + V1.replace("v1", "v2").replace("Nov", "Not")), "wrong date"),
        (raw(versions=V1 + V1), "wrong version"),
        (raw(versions=V1.replace("v1", "first")), "wrong version"),
        (raw(id_="everything"), "not an arXiv id"),
        (raw().replace("<id>2611.00001", "<id>2611.00009"), "of two papers"),
        (raw(body="<abstract>They fly.</abstract>"), "no title"),
        (raw(body=f"<title>{'x' * 5000}</title>"), "a title of more than"),
        (raw().replace("A. One and B. Two", "A B, " * 100_001), "500004 characters"),
        (raw().replace("cs.LG stat.ML", "! " * 9_000), "at most 5000"),
        (raw().replace("arXivRaw", "oai_dc"), "no metadata in the format"),
        (raw().replace("metadata", "about"), "no metadata in the format"),
        (raw(status=' status="deleted"').replace("2026-11-20", "soon"), "wrong date"),
        ("<record/>", "not an arXiv id"),
    ],
)
def test_a_bad_record_is_named_and_takes_no_other_with_it(record: str, reason: str) -> None:
    (page,) = harvested(Saved(FIRST, oai(raw(7), record, raw(8))))
    before, wrong, after = page.records
    assert isinstance(before, PaperRecord)
    assert isinstance(after, PaperRecord)
    assert isinstance(wrong, BadRecord)
    assert reason in wrong.reason
    assert wrong.place.startswith("arXiv, cs:cs:LG, record 2")


ENTITIES = '<!DOCTYPE a [<!ENTITY b "{}">]>'
BOMB = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "lol"}">' for n in range(10))
PAGE = oai(raw(1)).decode()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"Rate exceeded.", "not whole, well-formed XML"),
        (oai(raw(1))[:-20], "not whole, well-formed XML"),
        (oai(raw(1)) + b"<more/>", "not whole, well-formed XML"),
        (b"<!DOCTYPE html><html><title>Prove that\n you are human</title>", "“Prove that you are"),
        (b"<html><body>Sorry</body></html>", "a page in HTML"),
        (b'<?xml version="1.0"?><!-- x --><HTML>', "a page in HTML"),
        (b"<!-- <html> -->" * 60 + b"<a", "not whole, well-formed XML"),
        (f"<!DOCTYPE a [{BOMB}]><a>&e9;</a>".encode(), "refused"),
        (b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>', "refused"),
        (b'<!DOCTYPE a SYSTEM "http://evil.example/a.dtd"><a/>', "refused"),
        (PAGE.replace("?>", "?><!DOCTYPE OAI-PMH>", 1).encode(), "refused"),
        (b"<a>" * 60 + b"</a>" * 60, "nested too deep"),
        (b"<a>" + b"<b/>" * 1_000_001 + b"</a>", "too many elements"),
        (b"<feed/>", "no answer of OAI-PMH but <feed>"),
        (b"<OAI-PMH/>", "without a list of records"),
        (PAGE.replace("UTF-8", "nothing").encode(), "cannot be read|not whole"),
        (PAGE.encode("utf-16"), "not whole, well-formed XML|cannot be read"),
        (PAGE.encode().replace(b"They fly", b"They \xff fly"), "not whole, well-formed XML"),
    ],
)  # fmt: skip
def test_what_is_no_page_is_a_clear_error_and_yields_nothing(answer: bytes, words: str) -> None:
    with pytest.raises(BadAnswer, match=words):
        harvested(Saved(FIRST, answer))


@needs_data
def test_a_real_harvest_brings_every_paper_in_both_formats_with_the_same_authors() -> None:
    pages = {path.stem: path.read_bytes() for path in (ARXIV / "oai").glob("ListRecords_*_p?.xml")}
    found: dict[str, dict[str, PaperRecord]] = {}
    for kind in ("arXivRaw", "arXiv"):
        answers = []
        token = ""
        for number in range(1, 7):
            content = pages[f"ListRecords_{kind}_p{number}"]
            answers.append(Saved(NEXT + token.replace("%", "%25") if token else FIRST, content))
            said = re.search(rb"<resumptionToken[^>]*>([^<]+)", content)
            token = said[1].decode() if said else ""
        records = [record for page in harvested(*answers) for record in page.records]
        assert not bad(tuple(records))
        found[kind] = {paper.arxiv_id: paper for paper in papers(tuple(records))}
    assert found["arXivRaw"].keys() == found["arXiv"].keys()
    both = [(paper, found["arXiv"][key]) for key, paper in found["arXivRaw"].items()]
    agreeing = sum(one.authors == other.authors for one, other in both)
    print(f"authors agree: {agreeing} of {len(both)}")  # noqa: T201
    assert len(both) > 500
    assert agreeing >= 0.99 * len(both)
    for one, other in both:
        assert one.categories == other.categories
        assert one.doi == other.doi
        assert one.licence == other.licence
        assert one.published_on
        assert not one.only_updates
        assert other.only_updates  # that format does not tell the first version's day


@needs_data
@pytest.mark.parametrize("folder", ["oai", "oai_generic", "feed", "atom", "small"])
@pytest.mark.parametrize("read", [read_atom, read_feed, lambda c, p: read_oai(c, p)[0]])
def test_every_real_answer_is_read_or_refused(
    folder: str, read: Callable[[bytes, str], Records]
) -> None:
    paths = sorted((ARXIV / folder).iterdir())
    assert paths
    for path in paths:
        with suppress(SourceError):
            check(read(path.read_bytes(), path.name))


@needs_data
@pytest.mark.parametrize(
    "name",
    sorted(path.name for path in (ARXIV / "oai").glob("err_*.xml")) if ARXIV.is_dir() else [],
)
def test_every_error_of_arxiv_is_refused_in_its_words(name: str) -> None:
    content = (ARXIV / "oai" / name).read_bytes()
    code = re.search(rb"code='(\w+)'", content)
    assert code
    with pytest.raises(Refused, match=code[1].decode()) as refused:
        read_oai(content, "")
    assert isinstance(refused.value, CursorExpired) == (code[1] == b"badResumptionToken")


# -- authors of one line


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("A. One, B. Two, and C. Three", ["A. One", "B. Two", "C. Three"]),
        ("A. One and B. Two & C. Three", ["A. One", "B. Two", "C. Three"]),
        ("A.B. One,C. Two", ["A. B. One", "C. Two"]),
        ("A.-B. One", ["A.-B. One"]),
        ("Ada One (1 and 2), Bo Two (2) ((1) Here, (2) There (far))", ["Ada One", "Bo Two"]),
        ("Ada One (Here) and Bo Two (for the Kite Collaboration)", ["Ada One", "Bo Two"]),
        ("Kite Collaboration: A. One, B. Two", ["Kite Collaboration", "A. One", "B. Two"]),
        ("A. One, Jr., B. Two III and C. Three, et al.",
         ["A. One Jr.", "B. Two III", "C. Three"]),
        (r"J\"org M\"uller, {\O}. Zo\'e", ["Jörg Müller", "Ø. Zoé"]),
        (r"J\\\"org N\\'un", ["Jörg Nún"]),
        ("Alexander Anderson, Sandra Land", ["Alexander Anderson", "Sandra Land"]),
        ("A. One (unclosed, B. Two", ["A. One"]),
        ("A. One) and B. Two", ["A. One", "B. Two"]),
        (", , 1, *,", []),
        ("", []),
    ],
)  # fmt: skip
def test_the_authors_of_a_line_are_told_apart(line: str, names: list[str]) -> None:
    assert list(names_in(line)) == names


@pytest.mark.parametrize("piece", [" ", "(", ")", "a,", " and ", "a.", "\\\\", "{", "et al "])
def test_a_hostile_line_of_authors_is_read_to_its_end(piece: str) -> None:
    """What looks back for each of these characters would not come there for hours."""
    assert len(names_in(piece * (MAX_AUTHORS // len(piece)))) <= 10_000


@given(st.text(alphabet="ab. ,()&\\'\"{}and:é1\n") | st.text())
def test_any_line_has_authors_or_none(line: str) -> None:
    for name in names_in(line):
        assert name == " ".join(name.split())
        assert len(name) <= 310


# -- single papers


def atom(*entries: str, total: int | None = None) -> bytes:
    count = len(entries) if total is None else total
    return (
        '<feed xmlns="http://www.w3.org/2005/Atom" xmlns:arxiv="http://arxiv.org/schemas/atom" '
        'xmlns:o="http://a9.com/-/spec/opensearch/1.1/">'
        f"<o:itemsPerPage>100</o:itemsPerPage><o:totalResults>{count}</o:totalResults>"
        f"<o:startIndex>0</o:startIndex>{''.join(entries)}</feed>"
    ).encode()


def atom_entry(id_: str = "2611.00001v3", **told: str) -> str:
    fields = {"title": "Kites", "summary": "They fly.", "published": "2026-11-19T06:14:47Z",
              "updated": "2026-11-20T00:00:00Z", **told}  # fmt: skip
    return (
        f"<entry><id>http://arxiv.org/abs/{id_}</id>"
        + "".join(f"<{name}>{value}</{name}>" for name, value in fields.items())
        + '<arxiv:primary_category term="cs.LG"/><category term="stat.ML"/><category term="cs.LG"/>'
        "<author><name>A. B. One</name><arxiv:affiliation>Here</arxiv:affiliation></author>"
        "<arxiv:doi>10.1000/x</arxiv:doi></entry>"
    )


def refusal(words: str) -> str:
    return (
        f"<entry><id>https://arxiv.org/api/errors#{words.replace(' ', '_')}</id>"
        f"<title>Error</title><summary>{words}</summary></entry>"
    )


def test_single_papers_are_asked_for_in_slices() -> None:
    ids = [f"2611.{number:05}" for number in range(1, 151)]
    first, second = ids[:100], ids[100:]
    with serving(
        Saved(f"/q?id_list={','.join(first)}", atom(*map(atom_entry, first))),
        Saved(f"/q?id_list={','.join(second)}", atom(*map(atom_entry, second))),
    ) as server:
        pages = list(by_identifiers(asking(), f"{server.url}/q", [*ids, "arXiv:2611.00001v2"]))
    assert [len(papers(page.records)) for page in pages] == [100, 50]
    assert len(server.asked) == 2


def test_a_single_paper_is_read_with_its_versions() -> None:
    with serving(Saved("/q?id_list=2611.00001", atom(atom_entry()))) as server:
        (page,) = by_identifiers(asking(), f"{server.url}/q", ["2611.00001"])
    (paper,) = papers(page.records)
    assert paper.arxiv_id == "2611.00001"
    assert paper.versions == (Version(1, date(2026, 11, 19)), Version(3, date(2026, 11, 20)))
    assert (paper.published_on, paper.listed_on) == (date(2026, 11, 19), date(2026, 11, 20))
    assert (paper.categories, paper.authors) == (("cs.LG", "stat.ML"), ("A. B. One",))
    assert paper.doi == "10.1000/x"


def test_an_identifier_that_is_none_or_unknown_is_named() -> None:
    with serving(
        Saved("/q?id_list=2611.00001,foo/9901001,2611.00002",
              atom(refusal("incorrect id format for foo/9901001")), 400),
        Saved("/q?id_list=2611.00001,2611.00002", atom(atom_entry("2611.00001v1"))),
    ) as server:  # fmt: skip
        wanted = ["2611.00001", "nonsense", "foo/9901001", "2611.00002"]
        (page,) = by_identifiers(asking(), f"{server.url}/q", wanted)
    assert [paper.arxiv_id for paper in papers(page.records)] == ["2611.00001"]
    reasons = [record.reason for record in bad(page.records)]
    assert len(reasons) == 3
    assert "not an arXiv id" in reasons[0]
    assert {"arXiv has no such paper"} < set(reasons)
    assert any("incorrect id format" in reason for reason in reasons)


def test_nothing_wanted_is_nothing_asked() -> None:
    assert list(by_identifiers(asking(), "http://127.0.0.1:1/q", [])) == []
    (page,) = by_identifiers(asking(), "http://127.0.0.1:1/q", ["nonsense"])
    assert len(bad(page.records)) == 1


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        (atom(refusal("start must not be negative")), 400, Refused),
        (atom(refusal("start must not be negative")), 200, Refused),
        (atom(total=1), 200, BadAnswer),  # arXiv is known to answer with an empty page at times
        (atom(), 400, BadAnswer),
        (b"<html></html>", 200, BadAnswer),
        (b"<rss/>", 200, BadAnswer),
        (atom(atom_entry("2611.00002v1")), 200, BadAnswer),  # of another paper
    ],
)
def test_an_error_of_the_query_api_is_an_error(
    answer: bytes, status: int, error: type[SourceError]
) -> None:
    with serving(Saved("/q", answer, status)) as server, pytest.raises(error):
        list(by_identifiers(asking(), f"{server.url}/q", ["2611.00001"]))


def test_a_bad_entry_is_named_beside_the_good_ones() -> None:
    wrong = atom_entry("2611.00002v2", updated="never")
    with serving(Saved("/q", atom(wrong, atom_entry("2611.00001v1")))) as server:
        wanted = ["2611.00001", "2611.00002"]
        (page,) = by_identifiers(asking(), f"{server.url}/q", wanted)
    assert len(papers(page.records)) == 1
    (named,) = bad(page.records)
    assert "wrong date “never”" in named.reason


@needs_data
def test_the_recorded_answers_of_the_query_api_are_read() -> None:
    answers, wanted = [], []
    for path in sorted((ARXIV / "atom").glob("id_*.json")):
        told = json.loads(path.read_text())
        (one,) = re.findall(r"id_list=([^&]*)", told["url"])
        bare = re.sub(r"v\d+$", "", one).replace("%2F", "/")
        answers.append(Saved(f"/q?id_list={bare}", told["body"].encode(), told["status_code"]))
        wanted.append(bare)
    found: Records = []
    served = [saved for saved in answers if re.search(r"\d{4}\.\d{5}|/", saved.url[11:])]
    with serving(*[saved for saved in served if "0000.0000" not in saved.url]) as server:
        for one in wanted:
            for page in by_identifiers(asking(), f"{server.url}/q", [one]):
                found += page.records
    assert len(found) == len(wanted)
    assert {paper.arxiv_id for paper in papers(found)} >= {"1605.08386", "astro-ph/0601001"}
    check(found)
    for path in sorted((ARXIV / "atom").glob("q_*.json")):
        told = json.loads(path.read_text())
        records = read_atom(told["body"].encode(), path.name)
        assert papers(records)
        assert not bad(records)


# -- the day's announcement


def item(number: int = 1, kind: str = "new", version: int = 1, **told: str) -> str:
    fields = {
        "title": f"Kites, Part {number}",
        "description": f"arXiv:2611.{number:05}v{version} Announce Type: {kind} \n"
        "Abstract: They fly.",
        "guid": f"oai:arXiv.org:2611.{number:05}v{version}",
        "pubDate": "Fri, 20 Nov 2026 00:00:00 -0500",
        "announce_type": kind,
        "creator": "A. One, B. Two",
        "rights": "http://creativecommons.org/licenses/by/4.0/",
        **told,
    }
    body = "".join(f"<{name}>{value}</{name}>" for name, value in fields.items() if value)
    return f"<item>{body}<category>cs.LG</category><category>cs.AI</category></item>"


def rss(*items: str, title: str = "cs.LG updates on arXiv.org", description: str = "") -> bytes:
    return (
        f"<rss version='2.0'><channel><title>{title}</title><description>{description}"
        f"</description>{''.join(items)}</channel></rss>"
    ).encode()


def test_an_announcement_lists_what_is_new_and_updates_the_rest() -> None:
    kinds = ["new", "cross", "replace", "replace-cross", "absonly"]
    items = [item(number, kind) for number, kind in enumerate(kinds, 1)]
    with serving(Saved("/rss/cs.LG+hep-th", rss(*items))) as server:
        (page,) = announced(asking(), f"{server.url}/rss", ["cs.LG", "hep-th", "cs.LG"])
    found = papers(page.records)
    assert [paper.listed_on for paper in found] == [SINCE, SINCE, None, None, None]
    assert [paper.only_updates for paper in found] == [False, False, True, True, True]
    first = found[0]
    assert (first.abstract, first.authors) == ("They fly.", ("A. One", "B. Two"))
    assert first.categories == ("cs.LG", "cs.AI")
    assert first.licence == "http://creativecommons.org/licenses/by/4.0/"
    assert first.published_on is None  # a feed does not tell


def test_a_weekends_empty_announcement_is_an_empty_page() -> None:
    with serving(Saved("/rss/cs.LG", rss())) as server:
        assert list(announced(asking(), f"{server.url}/rss/", ["cs.LG"])) == [Page()]


def test_an_announcement_that_has_not_changed_says_so() -> None:
    kept = Kept()
    headers = {"ETag": '"friday"'}
    with serving(Saved("/rss/cs.LG", rss(item()), headers=headers)) as server:
        base = f"{server.url}/rss"
        (page,) = announced(asking(validators=kept), base, ["cs.LG"])
        assert page.validator is not None
        kept.known[page.validator.url] = (page.validator.etag, page.validator.last_modified)
        (again,) = announced(asking(validators=kept), base, ["cs.LG"])
    assert again.unchanged


def test_an_error_feed_is_refused_in_its_words_whatever_its_status() -> None:
    wrong = rss(title="Feed error for query: x", description="Bad subject class 'ZZ'.")
    for status in (200, 400):
        with (
            serving(Saved("/rss/cs.LG", wrong, status)) as server,
            pytest.raises(Refused, match="Bad subject class 'ZZ'"),
        ):
            list(announced(asking(), f"{server.url}/rss", ["cs.LG"]))


def test_a_category_that_is_none_is_not_asked_for() -> None:
    with pytest.raises(ValueError, match="no category"):
        list(announced(asking(), "http://127.0.0.1:1/rss", ["../oai?verb=Identify"]))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (item(2, pubDate="Friday"), "wrong date"),
        (item(2, pubDate=""), "wrong date"),
        (item(2, guid="oai:arXiv.org:kites"), "not an arXiv id"),
        (item(2, title=""), "no title"),
        (item(2, announce_type="", description="They fly."), "no announce type"),
    ],
)
def test_a_bad_item_is_named_beside_the_good_ones(wrong: str, reason: str) -> None:
    records = read_feed(rss(item(1), wrong, item(3)), "feed")
    assert len(papers(records)) == 2
    (named,) = bad(records)
    assert reason in named.reason
    assert named.place.startswith("feed, item 2")


@needs_data
def test_the_real_announcements_are_read_alike_in_both_formats() -> None:
    for subject, count in (("cs", 39), ("math", 60)):
        both = []
        for kind in ("rss", "atom"):
            content = (ARXIV / "feed" / f"{kind}_{subject}.xml").read_bytes()
            said = [found.decode() for found in re.findall(rb"announce_type>([a-z-]+)<", content)]
            records = read_feed(content, kind)
            assert not bad(records)
            found = papers(records)
            assert len(found) == count
            for paper, announce in zip(found, said, strict=True):
                is_new = announce in ("new", "cross")
                assert paper.only_updates != is_new
                assert paper.listed_on == (date(2026, 11, 20) if is_new else None)
                assert paper.authors
                assert paper.abstract
                assert not paper.abstract.startswith("arXiv:")
            both.append([(paper.arxiv_id, paper.title, paper.authors) for paper in found])
        assert both[0] == both[1]
    for name in ("rss_empty.xml", "atom_empty.xml"):
        assert read_feed((ARXIV / "feed" / name).read_bytes(), name) == []
    for path in (ARXIV / "feed").glob("err_*.xml"):
        with pytest.raises(Refused, match=r"Bad|Unsupported"):
            read_feed(path.read_bytes(), path.name)
    with pytest.raises(BadAnswer, match="HTML"):
        read_feed((ARXIV / "feed" / "err_500_internal.html").read_bytes(), "500")


# -- garbage


def check(records: Records | tuple[object, ...]) -> None:
    for record in records:
        if isinstance(record, PaperRecord):
            assert 0 < len(record.title) <= 1000
            assert record.arxiv_id
            assert record.only_updates or record.listed_on
            assert all(0 < len(author) <= 310 for author in record.authors)
            assert len(record.comment) <= 5000
            for text in (record.title, record.abstract, record.comment, *record.authors):
                assert text == " ".join(text.split())
        else:
            assert isinstance(record, BadRecord | Withdrawn)


def sources() -> Iterator[bytes]:
    yield oai(raw(1), raw(2, status=' status="deleted"'), raw(3), token="next")
    yield oai_error("badArgument", "words")
    yield atom(atom_entry(), atom_entry("hep-th/9901001v1"))
    yield atom(refusal("words"), total=1)
    yield rss(item(1), item(2, "replace", 2))
    if ARXIV.is_dir():
        for path in ("oai/GetRecord_arXivRaw.xml", "oai_generic/ListRecords.xml",
                     "feed/arxiv_rss_example.xml", "small/quxnb__arxiv_atom.xml",
                     "oai/GetRecord_arXiv.xml"):  # fmt: skip
            yield (ARXIV / path).read_bytes()


PIECES = st.sampled_from(
    [b"<", b">", b"&", b"]]>", b"<![CDATA[", b"&#0;", b"&#xD800;", b"\xff", b"\x00", b"</record>",
     b"<record>", b"<id>", b"\xed\xa0\x80", b"&lt;", b"2611", b"v0", b'"', b"<!--", b"<?x ?>", b""]
)  # fmt: skip


@given(
    st.sampled_from(list(islice(sources(), 20))),
    st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 30), PIECES | st.binary(max_size=8)), max_size=4
    ),
)
@settings(deadline=None, max_examples=300)
def test_whatever_is_done_to_an_answer_it_is_read_or_refused(
    content: bytes, changes: list[tuple[float, int, bytes]]
) -> None:
    for where, length, piece in changes:
        at = int(where * len(content))
        content = content[:at] + piece + content[at + length :]
    for read in (read_atom, read_feed, lambda told, place: read_oai(told, place)[0]):
        with suppress(SourceError):
            check(read(content, "place"))


@given(st.text(), st.text(), st.text())
@settings(deadline=None)
def test_whatever_stands_in_a_record_its_neighbours_are_read(
    date_: str, title: str, authors: str
) -> None:
    def escaped(text: str) -> str:
        element = ElementTree.Element("x")
        element.text = re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd]", "", text)
        return ElementTree.tostring(element, encoding="unicode")[3:-4] if element.text else ""

    body = f"<title>{escaped(title)}</title><abstract>{escaped(authors)}</abstract>"
    versions = f'<version version="v1"><date>{escaped(date_)}</date></version>'
    wrong = raw(2, body=body, versions=versions).replace("A. One and B. Two", escaped(authors))
    records = read_oai(oai(raw(1), wrong, raw(3)), "")[0]
    assert [paper.arxiv_id for paper in papers(records)][:: len(papers(records)) - 1] == [
        "2611.00001",
        "2611.00003",
    ]
    check(records)
