"""Harvests: page by page, never twice, never lost, whatever breaks where."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.cache import cache
from django.db import transaction
from pytest_django import Settings

from newsletter import health, status
from newsletter.models import Alert
from papers import checks, harvesting, ingest, politeness
from papers.harvesting import (
    FEED,
    AlreadyRunning,
    Window,
    begin,
    due,
    fetch_paper,
    harvest_due,
    pull,
)
from papers.locks import Lock, try_lock
from papers.models import Harvest, Paper, Signal, SourceAnswer, SourceHost, SourceRecord
from papers.sources import Refused
from papers.sources.recorded import Behaviour, Recorded, Saved
from tests.newsletter.test_sending import elsewhere

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)  # a Friday
S = Harvest.State


# -- what servers say


def oai(*records: str, token: str = "", total: int = 0) -> bytes:
    resume = f'<resumptionToken completeListSize="{total}">{token}</resumptionToken>'
    return (
        '<OAI-PMH xmlns="http://www.openarchives.org/OAI/2.0/"><ListRecords>'
        f"{''.join(records)}{resume if token or total else ''}</ListRecords></OAI-PMH>"
    ).encode()


def record(number: int, title: str = "", *, versions: int = 1, extra: str = "") -> str:
    arxiv_id = f"2611.{number:05}"
    dates = "".join(
        f'<version version="v{n}"><date>Thu, {18 + n} Nov 2026 10:00:00 GMT</date></version>'
        for n in range(1, versions + 1)
    )
    return (
        f"<record><header><identifier>oai:arXiv.org:{arxiv_id}</identifier></header><metadata>"
        f'<arXivRaw xmlns="http://arxiv.org/OAI/arXivRaw/"><id>{arxiv_id}</id>{dates}'
        f"<title>{title or f'Kites of kind {number}'}</title><authors>Ada Alvarez</authors>"
        f"<categories>cs.LG stat.ML</categories>{extra}<abstract>About kite {number}.</abstract>"
        "</arXivRaw></metadata></record>"
    )


def deleted(number: int) -> str:
    return (
        f'<record><header status="deleted"><identifier>oai:arXiv.org:2611.{number:05}</identifier>'
        "<datestamp>2026-11-20</datestamp></header></record>"
    )


EXPIRED = b'<OAI-PMH><error code="badResumptionToken">expired</error></OAI-PMH>'


def page(token: str, content: bytes | Behaviour, **options: Any) -> Saved:
    query = f"resumptionToken={token}" if token else "metadataPrefix=arXivRaw"
    return Saved(f"/oai?verb=ListRecords&{query}", content, **options)


def listed(day: str, *entries: dict[str, Any], **headers: str) -> Saved:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Saved(f"/hf?date={day}", json.dumps(entries).encode(), headers=names)


def entry(number: int, upvotes: int = 5, day: str = "2026-11-20", **fields: Any) -> dict[str, Any]:
    told = {"id": f"2611.{number:05}", "title": f"Kites of kind {number}", "upvotes": upvotes}
    return {"paper": {**told, "submittedOnDailyAt": f"{day}T06:00:00.000Z", **fields}}


@pytest.fixture
def sources(settings: Settings) -> Any:
    """The settings that ask a server on loopback for everything."""

    def ask(server: Recorded, *sources: str, categories: tuple[str, ...] = ("cs.LG",)) -> None:
        settings.HARVEST_SOURCES = list(sources)
        settings.ARXIV_CATEGORIES = list(categories)
        settings.ARXIV_OAI_URL = f"{server.url}/oai"
        settings.ARXIV_API_URL = f"{server.url}/api"
        settings.ARXIV_RSS_URL = f"{server.url}/rss"
        settings.HUGGINGFACE_URL = f"{server.url}/hf"

    return ask


CS = Window("arxiv", "cs.LG", date(2026, 11, 18))
TODAY = Window("huggingface", "", date(2026, 11, 20), date(2026, 11, 20))


def ids() -> list[str]:
    return sorted(filter(None, Paper.objects.values_list("arxiv_id", flat=True)))


# -- pages


def test_a_harvest_reads_every_page_and_says_how_it_went(sources: Any) -> None:
    pages = [
        page("", oai(record(1), record(2), token="two", total=3)),
        page("two", oai(record(3), "<record/>")),
    ]
    seen = []
    with Recorded(pages) as server:
        sources(server)
        row = pull(begin(CS, NOON), progress=lambda row, page: seen.append((row.read, page.total)))
        assert [asked.params.get("from") for asked in server.asked] == ["2026-11-18", None]
        agent = server.asked[0].headers["User-Agent"]
    assert agent == "Paperround/0.1.0 (+http://testserver; mailto:contact@papers.example)"
    row.refresh_from_db()
    assert (row.state, row.cursor, row.retry_at) == (S.DONE, "", None)
    assert (row.read, row.new, row.failed) == (3, 3, 1)
    assert "record 2" in row.errors[0]
    assert seen == [(2, 3), (3, None)]
    paper = Paper.objects.get(arxiv_id="2611.00001")
    assert (paper.sources, paper.categories, paper.versions) == (
        ["arxiv"],
        ["cs.LG", "stat.ML"],
        [{"number": 1, "on": "2026-11-19"}],
    )


def test_the_version_told_to_servers_is_the_projects() -> None:
    project = (django_settings.BASE_DIR / "pyproject.toml").read_text()
    assert f'version = "{harvesting.VERSION}"' in project


def test_a_broken_page_loses_nothing_and_the_next_try_goes_on_there(sources: Any) -> None:
    pages = [
        page("", oai(record(1), token="two")),
        page("two", b"<html>busy</html>"),
        page("two", oai(record(2))),
    ]
    with Recorded(pages) as server:
        sources(server)
        row = pull(begin(CS, NOON))
        assert (row.state, row.cursor, row.read, row.attempt) == (S.FAILED, "two", 1, 1)
        assert row.errors[-1].startswith("BadAnswer: ")
        assert ids() == ["2611.00001"]
        again = pull(begin(CS, NOON))
        assert len(server.asked) == 3  # the first page was not asked for again
    assert again.pk == row.pk
    assert (again.state, again.read, again.new) == (S.DONE, 2, 2)
    assert ids() == ["2611.00001", "2611.00002"]


@pytest.mark.django_db(transaction=True)
def test_a_harvest_whose_process_is_killed_is_taken_up_behind_its_last_whole_page(
    sources: Any, environment: dict[str, str]
) -> None:
    def hang(request: BaseHTTPRequestHandler) -> None:
        time.sleep(20)

    pages = [
        page("", oai(record(1), record(2), token="two")),
        page("two", oai(record(3), token="three")),
        page("three", hang),
        page("three", oai(record(4))),
    ]
    with Recorded(pages) as server:
        sources(server, "arxiv")
        environment["ARXIV_OAI_URL"] = f"{server.url}/oai"
        command = ["manage.py", "harvest", "arxiv", "--category=cs.LG"]
        child = subprocess.Popen(
            [sys.executable, *command],
            cwd=django_settings.BASE_DIR,
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        while len(server.asked) < 3:
            assert child.poll() is None
            time.sleep(0.02)
        os.kill(child.pid, signal.SIGKILL)
        child.wait(10)
        row = Harvest.objects.get()
        assert (row.state, row.read, row.cursor) == (S.RUNNING, 3, "three")
        now = datetime.now(UTC)
        with pytest.raises(AlreadyRunning, match="If it was killed, its harvest is free again at"):
            begin(CS, now)
        assert harvest_due(now) == []  # while they may be at it
        # Its leases run out: of the harvest, and of the host.
        SourceHost.objects.update(free_at=now)
        (taken,) = harvest_due(now + harvesting.LEASE + timedelta(minutes=1))[:1]
        assert len(server.asked) >= 4
    assert taken.pk == row.pk
    assert (taken.state, taken.read, taken.new) == (S.DONE, 4, 4)
    assert ids() == ["2611.00001", "2611.00002", "2611.00003", "2611.00004"]


def test_who_was_thought_dead_writes_nothing_more(sources: Any) -> None:
    with Recorded([page("", oai(record(1)))]) as server:
        sources(server)
        slow = begin(CS, NOON)
        later = NOON + harvesting.LEASE
        fast = begin(CS, later)
        assert pull(slow).state == S.RUNNING  # by the other
        assert ids() == []
        assert pull(fast).state == S.DONE
    assert ids() == ["2611.00001"]


def test_a_page_that_cannot_be_written_is_not_counted_either(
    sources: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*args: Any, **options: Any) -> None:
        raise OSError("the disk is full")

    with Recorded([page("", oai(record(1)))]) as server:
        sources(server)
        with monkeypatch.context() as patch:
            patch.setattr(Signal.objects, "bulk_create", breaks)
            row = pull(begin(CS, NOON))
            assert (row.state, row.read, row.errors) == (S.FAILED, 0, ["OSError: the disk is full"])
            assert not Paper.objects.exists()
        assert pull(begin(CS, NOON)).new == 1


def test_an_expired_cursor_restarts_the_window(sources: Any) -> None:
    pages = [
        page("", oai(record(1), token="old")),
        page("", oai(record(1), token="new")),
        page("old", EXPIRED),
        page("new", oai(record(2))),
    ]
    with Recorded(pages) as server:
        sources(server)
        row = pull(begin(CS, NOON))
        assert server.unused == []
    assert (row.state, row.new, row.updated) == (S.DONE, 2, 0)
    assert ids() == ["2611.00001", "2611.00002"]


def test_a_cursor_that_is_never_taken_does_not_restart_the_window_without_end(
    sources: Any,
) -> None:
    pages = [page("", oai(record(1), token="bad")), page("bad", EXPIRED)]
    attempts = []
    with Recorded(pages) as server:
        sources(server)
        for _ in range(2):
            row = pull(begin(CS, NOON))
            attempts.append((row.state, row.cursor, row.attempt))
        assert len(server.asked) == 8  # of each pull: the page, its cursor, and both once more
    assert attempts == [(S.FAILED, "", 2), (S.FAILED, "", 4)]  # so that somebody is told


def test_a_cursor_that_is_refused_in_other_words_is_given_up(sources: Any) -> None:
    pages = [page("", oai(record(1), token="old")), page("old", b"", status=400)]
    with Recorded(pages) as server:
        sources(server)
        row = pull(begin(CS, NOON))
    row.refresh_from_db()
    assert (row.state, row.cursor, row.read) == (S.FAILED, "", 1)


def test_what_is_not_kept_is_not_in_the_harvest_in_memory_either(
    sources: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*args: Any, **options: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(SourceAnswer.objects, "update_or_create", breaks)
    with Recorded([listed("2026-11-20", entry(1), ETag='"one"')]) as server:
        sources(server)
        row = pull(begin(TODAY, NOON))
    assert (row.state, row.read) == (S.FAILED, 0)
    row.refresh_from_db()
    assert (row.state, row.read, row.errors) == (S.FAILED, 0, ["OSError: the disk is full"])


def test_a_harvest_that_keeps_failing_keeps_its_last_errors(
    sources: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "ERRORS_KEPT", 2)
    with Recorded([page("", b"", status=code) for code in (500, 502, 403)]) as server:
        sources(server)
        for _ in range(3):
            row = pull(begin(CS, NOON))
    assert [error.partition(":")[0] for error in row.errors] == ["ServerFailed", "Refused"]


def test_a_record_with_characters_that_xml_forbids_loses_no_page(sources: Any) -> None:
    pages = [page("", oai(record(1), record(2, "Kites\x08 o\0f &#x1; height &#2; &amp; &#233;")))]
    with Recorded(pages) as server:
        sources(server)
        assert pull(begin(CS, NOON)).state == S.DONE
    assert Paper.objects.get(arxiv_id="2611.00002").title == "Kites of height & é"


def test_a_window_that_always_fails_can_be_given_up(sources: Any) -> None:
    with Recorded([page("", b"<html>never</html>")]) as server:
        sources(server)
        row = pull(begin(CS, NOON))
    later = NOON + timedelta(days=3)  # after the next announcement
    assert due("arxiv", "cs.LG", later) is None
    assert harvesting.give_up(Harvest.objects.all()) == 1
    window = due("arxiv", "cs.LG", later)
    assert window is not None
    assert begin(window, later).pk != row.pk


def test_after_a_window_is_given_up_the_next_one_leaves_out_what_cannot_be_read(
    sources: Any,
) -> None:
    done(Window("arxiv", "cs.LG", date(2026, 11, 9)), NOON - timedelta(days=10))
    pages = [page("", oai(record(1), token="two")), page("two", b"<OAI-PMH><broken")]
    with Recorded(pages) as server:
        sources(server)
        window = harvesting.next_window("arxiv", "cs.LG", NOON)
        assert window.since == date(2026, 11, 10)
        pull(begin(window, NOON))
        later = NOON + timedelta(days=3)
        assert due("arxiv", "cs.LG", later) is None
        harvesting.give_up(Harvest.objects.all())
        assert due("arxiv", "cs.LG", later) == Window("arxiv", "cs.LG", NOON.date())
        # What somebody asks for, and fails, is nobody's giving up.
        chosen = Window("arxiv", "cs.LG", date(2026, 11, 10), later.date())
        assert pull(begin(chosen, later), again=False).state == S.FAILED
    assert harvesting.next_window("arxiv", "cs.LG", later).since == NOON.date()


def test_a_window_that_is_refused_from_the_start_fails(sources: Any) -> None:
    with Recorded([page("", EXPIRED)]) as server:
        sources(server)
        row = pull(begin(CS, NOON))
    assert row.state == S.FAILED
    assert row.errors[0].startswith("CursorExpired: ")


def test_no_page_begins_after_the_seconds_and_the_next_tick_goes_on(sources: Any) -> None:
    pages = [page("", oai(record(1), token="two")), page("two", oai(record(2)))]
    with Recorded(pages) as server:
        sources(server)
        row = pull(begin(CS, NOON), seconds=0)
        assert (row.state, row.read, row.cursor) == (S.RUNNING, 1, "two")
        assert pull(begin(CS, datetime.now(UTC)), seconds=0).state == S.DONE


@pytest.mark.parametrize("state", [S.RUNNING, S.FAILED])
@pytest.mark.parametrize(("source", "part"), [("arxiv", "cs.LG"), ("huggingface", "")])
def test_the_days_that_somebody_chose_are_gone_on_with_after_midnight(
    source: str, part: str, state: str
) -> None:
    tomorrow = NOON + timedelta(days=1)
    row = begin(Window(source, part, CS.since, NOON.date()), NOON)
    begin(Window("huggingface", "", date(2026, 11, 1), date(2026, 11, 9)), NOON + harvesting.LEASE)
    Harvest.objects.filter(pk=row.pk).update(state=state, cursor="2026-11-19", read=7)
    again = begin(Window(source, part, CS.since, tomorrow.date()), tomorrow)
    assert (again.pk, again.cursor, again.read) == (row.pk, "2026-11-19", 7)
    again.refresh_from_db()
    assert (again.since, again.until) == (CS.since, tomorrow.date())


def test_other_days_are_another_harvest() -> None:
    first = begin(Window("huggingface", "", CS.since, date(2026, 11, 19)), NOON)
    for since, until in ((18, 21), (19, 19), (18, 18)):
        Harvest.objects.update(state=S.FAILED, retry_at=None)
        chosen = Window("huggingface", "", date(2026, 11, since), date(2026, 11, until))
        assert begin(chosen, NOON + timedelta(days=1)).pk != first.pk


# -- patience


def test_a_failure_is_tried_again_later_each_time_and_not_before(sources: Any) -> None:
    waits = []
    with Recorded([page("", b"", status=500)]) as server:
        sources(server, "arxiv")
        now = datetime.now(UTC)
        for _ in range(6):
            row = next(row for row in harvest_due(now) if row.part == "cs.LG")
            row.refresh_from_db()
            assert row.finished_at is not None
            assert row.retry_at is not None
            waits.append(round((row.retry_at - row.finished_at).total_seconds() / 60))
            now = row.retry_at
            asked = len(server.asked)
            assert "cs.LG" not in [row.part for row in harvest_due(now - timedelta(seconds=1))]
    assert asked
    assert waits == [1, 5, 15, 60, 180, 180]
    assert Harvest.objects.filter(part="cs.LG").count() == 1
    assert row.attempt == 6
    assert row.errors[-1] == f"ServerFailed: {server.url}/oai failed (500)"


def test_retry_after_is_honoured_by_the_harvest_and_by_the_host(sources: Any) -> None:
    busy = page("", b"", status=503, headers={"Retry-After": "7200"})
    with Recorded([busy]) as server:
        sources(server, "arxiv", categories=("cs.LG", "stat.ML"))
        now = datetime.now(UTC)
        (row, waits) = harvest_due(now)
        assert len(server.asked) == 1
    assert row.errors[-1].startswith("Busy: ")
    assert row.retry_at is not None
    assert row.retry_at >= now + timedelta(hours=2)
    # The other category was not asked for, and that is no failure of its own.
    assert (waits.part, waits.state, waits.errors) == ("stat.ML", S.RUNNING, [])


def test_one_broken_source_stops_no_other(sources: Any) -> None:
    day = datetime.now(UTC).date().isoformat()
    days = [Saved("/hf", b"[]"), listed(day, entry(1, day=day))]
    with Recorded([page("", b"", status=500), *days]) as server:
        sources(server, "arxiv", "huggingface")
        harvest_due(datetime.now(UTC))
    states = dict(Harvest.objects.values_list("source", "state"))
    assert states["arxiv"] == S.FAILED
    assert ids() == ["2611.00001"]


def test_a_refusal_is_not_tried_again_soon(sources: Any) -> None:
    with Recorded([page("", b"", status=403)]) as server:
        sources(server)
        row = pull(begin(CS, NOON))
    assert row.retry_at is not None
    assert row.finished_at is not None
    assert row.retry_at - row.finished_at == harvesting.REFUSED_DELAY


def test_one_process_at_a_time_pulls_a_source(sources: Any) -> None:
    begin(CS, NOON)
    with pytest.raises(AlreadyRunning, match="Another process is pulling arXiv"):
        begin(Window("arxiv", "stat.ML", CS.since), NOON)
    begin(TODAY, NOON)  # another source


@pytest.mark.django_db(transaction=True)
def test_who_comes_while_another_looks_is_sent_away_and_does_not_wait() -> None:
    found: list[Any] = []

    def comes() -> None:
        try:
            begin(CS, NOON)
        except AlreadyRunning as error:
            found.append(str(error))
        found.append(harvesting._claim_due("arxiv", NOON, set()))
        found.append(begin(TODAY, NOON).source)  # another source

    with transaction.atomic():
        harvesting._check_idle("arxiv", NOON)
        elsewhere(comes)
    assert found == ["Another process is just beginning to pull arXiv.", None, "huggingface"]


@pytest.mark.django_db(transaction=True)
def test_encoding_holds_no_harvest_up() -> None:
    found: list[str] = []
    with try_lock(Lock.ENCODE) as alone:
        assert alone
        elsewhere(lambda: found.append(begin(CS, NOON).source))
    assert found == ["arxiv"]


def test_a_harvest_is_taken_up_as_it_was_read_or_not_at_all() -> None:
    row = begin(CS, NOON)
    read = Harvest.objects.get()
    Harvest.objects.update(retry_at=NOON + timedelta(hours=1))  # its process lives
    with pytest.raises(AlreadyRunning):
        harvesting._take_up(read, NOON, None)
    row.refresh_from_db()
    assert row.retry_at == NOON + timedelta(hours=1)


# -- Hugging Face


def test_the_days_are_pulled_one_after_the_other_and_go_on_at_the_day_that_broke(
    sources: Any,
) -> None:
    days = [
        listed("2026-11-18", entry(1, day="2026-11-18")),
        Saved("/hf?date=2026-11-19", b"", 500),
        listed("2026-11-19", entry(2, day="2026-11-19")),
        listed("2026-11-20", entry(3)),
    ]
    window = Window("huggingface", "", date(2026, 11, 18), date(2026, 11, 20))
    with Recorded(days) as server:
        sources(server)
        row = pull(begin(window, NOON))
        assert (row.state, row.cursor, row.read) == (S.FAILED, "2026-11-19", 1)
        assert pull(begin(window, NOON)).read == 3
        assert [asked.params["date"][-2:] for asked in server.asked] == ["18", "19", "19", "20"]
    assert list(Paper.objects.order_by("arxiv_id").values_list("listing_day", flat=True)) == [
        date(2026, 11, 18), date(2026, 11, 19), date(2026, 11, 20),
    ]  # fmt: skip


def test_a_day_that_is_refused_is_told_and_stops_no_other(sources: Any) -> None:
    days = [
        Saved("/hf?date=2026-11-18", b"", 404),
        listed("2026-11-19", entry(2, day="2026-11-19")),
        Saved("/hf?date=2026-11-20", b'{"error": "no such day"}', 400),
    ]
    window = Window("huggingface", "", date(2026, 11, 18), date(2026, 11, 20))
    with Recorded(days) as server:
        sources(server)
        row = pull(begin(window, NOON))
    assert (row.state, row.read, row.failed) == (S.DONE, 1, 2)
    assert row.errors[0].startswith("Hugging Face, 2026-11-18: Refused: ")
    assert "no such day" in row.errors[1]


def test_days_that_are_all_refused_are_a_failure(sources: Any) -> None:
    window = Window("huggingface", "", date(2026, 11, 18), date(2026, 11, 20))
    with Recorded([Saved("/hf", b"", 403)]) as server:
        sources(server)
        row = pull(begin(window, NOON))
        assert len(server.asked) == 3
    assert (row.state, row.cursor, row.failed) == (S.FAILED, "", 0)


def test_counters_are_counted_again_and_nothing_else_changes(sources: Any) -> None:
    first = listed("2026-11-20", entry(1, 5), Date="Fri, 20 Nov 2026 12:00:00 GMT")
    second = listed("2026-11-20", entry(1, 8), Date="Fri, 20 Nov 2026 13:00:00 GMT")
    with Recorded([first, second]) as server:
        sources(server)
        pull(begin(TODAY, NOON))
        was = Paper.objects.values().get()
        row = pull(begin(TODAY, NOON))
    assert (row.new, row.updated) == (0, 1)
    assert Paper.objects.values().get() == was
    assert list(Signal.objects.order_by("value").values_list("value", flat=True)) == [5, 8]


def test_an_unchanged_day_is_known_by_its_name_once_its_papers_are_kept(
    sources: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*args: Any, **options: Any) -> None:
        raise OSError("the disk is full")

    with Recorded([listed("2026-11-20", entry(1), ETag='"one"')]) as server:
        sources(server)
        with monkeypatch.context() as patch:
            patch.setattr(Signal.objects, "bulk_create", breaks)
            pull(begin(TODAY, NOON))
        assert not SourceAnswer.objects.exists()  # else the papers would never come
        assert pull(begin(TODAY, NOON)).new == 1
        row = pull(begin(TODAY, NOON))
        assert [asked.headers.get("If-None-Match") for asked in server.asked] == [
            None, None, '"one"',
        ]  # fmt: skip
    assert (row.state, row.read) == (S.DONE, 0)


def test_an_allowance_that_is_used_up_is_told_to_everybody(sources: Any) -> None:
    with Recorded([listed("2026-11-20", entry(1), RateLimit='"api";r=0;t=250')]) as server:
        sources(server)
        pull(begin(TODAY, NOON))
        with pytest.raises(politeness.NotYet):
            pull(begin(TODAY, NOON))
        assert len(server.asked) == 1


def test_days_that_nobody_can_read_are_trouble_and_are_asked_for_until_somebody_can(
    sources: Any,
) -> None:
    cache.clear()
    now = datetime.now(UTC)
    day = now.date().isoformat()
    # A field has got another name, and then its old one again.
    renamed = [{"paper": {"arxivId": f"2611.{n:05}", "title": "Kites"}} for n in range(40)]
    answers = [listed(day, *renamed, ETag='"one"'), listed(day, entry(1, day=day), ETag='"one"')]
    today = Window("huggingface", "", now.date(), now.date())
    with Recorded(answers) as server:
        sources(server, "huggingface")
        row = pull(begin(today, now))
        assert (row.state, row.read, row.failed) == (S.DONE, 0, 40)
        (found,) = health.watch(now)
        assert "could not read 40 of 40 records" in found.found
        assert status._status(now).troubles == [
            "The last harvest failed: Hugging Face Daily Papers. Papers may be missing."
        ]
        assert pull(begin(today, now + timedelta(minutes=1))).new == 1
    assert health.watch(now) == []
    assert status._status(now).troubles == []


def test_a_page_with_one_bad_entry_is_no_trouble_and_is_read_again(sources: Any) -> None:
    with Recorded([listed("2026-11-20", entry(1), entry(2), {}, ETag='"one"')]) as server:
        sources(server)
        row = pull(begin(TODAY, NOON))
        assert (row.read, row.failed, health.trouble_of(row, NOON)) == (2, 1, "")
        pull(begin(TODAY, NOON))
        assert [asked.headers.get("If-None-Match") for asked in server.asked] == [None, None]


# -- what is due


def done(window: Window, at: datetime, **fields: Any) -> Harvest:
    return Harvest.objects.create(
        source=window.source, part=window.part, since=window.since, until=window.until,
        state=S.DONE, started_at=at, finished_at=at, **fields,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("now", "announced"),
    [
        ("2026-11-20T12:00Z", "2026-11-20T01:00Z"),  # winter: 20:00 in New York is 01:00 UTC
        ("2026-11-21T12:00Z", "2026-11-20T01:00Z"),  # none on Friday
        ("2026-11-23T00:59Z", "2026-11-20T01:00Z"),  # nor on Saturday
        ("2026-11-23T01:00Z", "2026-11-23T01:00Z"),  # Sunday
        ("2026-07-07T00:00Z", "2026-07-07T00:00Z"),  # summer
    ],
)
def test_arxiv_announces_from_sunday_to_thursday(now: str, announced: str) -> None:
    moment = harvesting.last_announcement(datetime.fromisoformat(now))
    assert moment == datetime.fromisoformat(announced)


def test_arxiv_is_asked_after_an_announcement_and_again_while_nothing_came() -> None:
    asked = []
    moment = datetime(2026, 11, 19, 23, 45, tzinfo=UTC)
    while moment < datetime(2026, 11, 21, tzinfo=UTC):
        if (window := due("arxiv", "cs.LG", moment)) is not None:
            asked.append(moment.strftime("%d %H:%M"))
            done(window, moment, new=3 if len(asked) == 3 else 0)
        moment += timedelta(minutes=15)
    # At once, for it was never asked; then 30 minutes and 2 hours after 20:00 in New York. What
    # came then was the announcement, so that nothing is asked at 07:00.
    assert asked == ["19 23:45", "20 01:30", "20 03:00"]


def test_the_announcement_itself_is_read_once_a_day_in_the_morning() -> None:
    done(Window("arxiv", FEED, date(2026, 11, 19)), NOON - timedelta(days=1))
    assert due("arxiv", FEED, datetime(2026, 11, 20, 5, 59, tzinfo=UTC)) is None
    window = due("arxiv", FEED, datetime(2026, 11, 20, 6, 0, tzinfo=UTC))
    assert window is not None
    done(window, datetime(2026, 11, 20, 6, 0, tzinfo=UTC))
    assert due("arxiv", FEED, datetime(2026, 11, 23, 5, 59, tzinfo=UTC)) is None


def test_the_next_window_begins_where_the_last_finished_one_began() -> None:
    assert harvesting.next_window("arxiv", "cs.LG", NOON).since == date(2026, 11, 13)
    # 02:00 UTC is still the day before in New York, by whose clock a datestamp may be.
    done(CS, datetime(2026, 11, 17, 2, tzinfo=UTC))
    # Neither a window somebody chose nor another part is of the chain.
    done(Window("arxiv", "cs.LG", CS.since, CS.since), NOON)
    done(Window("arxiv", "stat.ML", CS.since), NOON)
    assert harvesting.next_window("arxiv", "cs.LG", NOON) == Window(
        "arxiv", "cs.LG", date(2026, 11, 16)
    )


def test_a_window_of_which_nothing_could_be_read_is_asked_for_again() -> None:
    done(CS, NOON - timedelta(days=3), read=5)
    done(CS, NOON - timedelta(days=2), read=3, failed=900)
    assert harvesting.next_window("arxiv", "cs.LG", NOON).since == date(2026, 11, 17)
    today = NOON.date()
    done(Window("huggingface", "", *[today - timedelta(days=20)] * 2), NOON - timedelta(days=20))
    done(Window("huggingface", "", today, today), NOON, failed=40)
    since = harvesting.next_window("huggingface", "", NOON).since
    assert since == today - timedelta(days=20)


def test_hugging_face_is_asked_hourly_and_for_the_week_a_few_times_a_day() -> None:
    days = []
    for hour in range(13):
        now = NOON + timedelta(hours=hour, minutes=1)
        window = due("huggingface", "", now)
        assert window is not None
        assert window.until is not None
        days.append((window.until - window.since).days)
        done(window, now)
        assert due("huggingface", "", now + timedelta(minutes=59)) is None
    assert days == [7, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 7]


def test_after_a_long_silence_the_days_between_are_made_up_for() -> None:
    done(TODAY, NOON)
    assert harvesting.next_window("huggingface", "", NOON + timedelta(days=20)).since == TODAY.since
    since = harvesting.next_window("huggingface", "", NOON + timedelta(days=90)).since
    assert since == (NOON + timedelta(days=60)).date()


def test_what_waits_to_be_tried_again_is_not_begun_anew() -> None:
    Harvest.objects.create(
        source="huggingface", state=S.FAILED, since=NOON.date(), until=NOON.date(),
        started_at=NOON - timedelta(hours=5), retry_at=NOON + timedelta(hours=1),
    )  # fmt: skip
    assert due("huggingface", "", NOON) is None


def test_without_sources_nothing_is_asked(settings: Settings) -> None:
    assert settings.HARVEST_SOURCES == []
    assert harvest_due(NOON) == []


# -- one paper of several sources


def test_a_paper_of_arxiv_and_hugging_face_is_one_whoever_comes_first(sources: Any) -> None:
    old = entry(1, 7, title="Kites of kind one", ai_summary="It flies.", ai_keywords=["kites"])
    answers = [
        page("", oai(record(1, "Kites of Kind 1", extra="<doi>10.1000/kites</doi>"))),
        listed("2026-11-20", old),
    ]
    seen = []
    for windows in ((CS, TODAY), (TODAY, CS)):
        Paper.objects.all().delete()
        with Recorded(answers) as server:
            sources(server)
            for window in windows:
                pull(begin(window, NOON))
        paper = Paper.objects.get()
        said = {row.source: row.record["title"] for row in paper.source_records.all()}
        assert said == {"arxiv": "Kites of Kind 1", "huggingface": "Kites of kind one"}
        seen.append(
            (
                paper.title, paper.title_key, paper.abstract, paper.categories, paper.doi,
                paper.summary, paper.summary_source, paper.keywords, paper.listing_day,
                sorted(paper.sources),
            )
        )  # fmt: skip
    assert seen[0] == seen[1]
    assert seen[0][0] == "Kites of Kind 1"
    assert seen[0][5:7] == ("It flies.", "huggingface")


def test_deleted_records_withdraw_a_paper_and_a_living_one_brings_it_back(sources: Any) -> None:
    answers = [
        page("", oai(record(1), record(2))),
        page("", oai(deleted(1), deleted(3))),
        page("", oai(deleted(1))),
        page("", oai(record(1))),
    ]
    gone = []
    with Recorded(answers) as server:
        sources(server)
        for _ in answers:
            row = pull(begin(CS, NOON))
            gone.append(Paper.objects.get(arxiv_id="2611.00001").withdrawn_on)
    assert gone == [None, date(2026, 11, 20), date(2026, 11, 20), None]
    assert ids() == ["2611.00001", "2611.00002"]  # who was never here is not missed
    assert (row.read, row.updated) == (1, 1)


def test_versions_are_folded_and_the_newest_words_are_the_papers(sources: Any) -> None:
    revised = record(1, "Kites, revised", versions=2, extra="<comments>12 pages</comments>")
    answers = [page("", oai(record(1))), page("", oai(revised)), page("", oai(revised))]
    with Recorded(answers) as server:
        sources(server)
        counts = [(row.new, row.updated) for row in (pull(begin(CS, NOON)) for _ in answers)]
    paper = Paper.objects.get()
    assert (paper.title, paper.title_key, paper.comment) == (
        "Kites, revised",
        "kites revised",
        "12 pages",
    )
    assert [version["number"] for version in paper.versions] == [1, 2]
    assert counts == [(1, 0), (0, 1), (0, 0)]


FEED_ITEM = (
    b'<rss xmlns:arxiv="http://arxiv.org/schemas/atom"><channel><title>cs.LG</title><item>'
    b"<title>Kites of kind 1</title><guid>oai:arXiv.org:2611.00001v1</guid>"
    b"<description>arXiv:2611.00001v1 Announce Type: new \nAbstract: About kite 1.</description>"
    b"<pubDate>Fri, 20 Nov 2026 00:00:00 -0500</pubDate>"
    b"<arxiv:announce_type>new</arxiv:announce_type></item></channel></rss>"
)


def test_a_paper_that_was_held_is_listed_when_it_is_announced(sources: Any) -> None:
    held = record(1).replace("19 Nov", "02 Nov")
    answers = [page("", oai(held)), Saved("/rss/cs.LG", FEED_ITEM)]
    with Recorded(answers) as server:
        sources(server)
        pull(begin(CS, NOON))
        assert Paper.objects.get().listing_day == date(2026, 11, 3)
        pull(begin(Window("arxiv", FEED, NOON.date()), NOON))
        assert Paper.objects.get().listing_day == date(2026, 11, 20)
        pull(begin(CS, NOON))  # whose records do not know of it
    paper = Paper.objects.get()
    assert paper.listing_day == date(2026, 11, 20)
    assert [version["on"] for version in paper.versions] == ["2026-11-02"]


def test_a_cross_listing_lists_no_known_paper_again(sources: Any) -> None:
    crossed = FEED_ITEM.replace(b"Type: new", b"Type: cross").replace(b">new<", b">cross<")
    feed = Window("arxiv", FEED, NOON.date())
    answers = [page("", oai(record(1).replace("19 Nov", "02 Nov"))), Saved("/rss/cs.LG", crossed)]
    with Recorded(answers) as server:
        sources(server)
        pull(begin(CS, NOON))
        pull(begin(feed, NOON))
        assert Paper.objects.get().listing_day == date(2026, 11, 3)
        Paper.objects.all().delete()
        pull(begin(feed, NOON))
        assert Paper.objects.get().listing_day == date(2026, 11, 20)


# -- single papers


ATOM = (
    b'<feed xmlns="http://www.w3.org/2005/Atom"><entry><id>http://arxiv.org/abs/2611.00001v1</id>'
    b"<published>2026-11-19T10:00:00Z</published><title>Kites of kind 1</title>"
    b"<summary>About kite 1.</summary><author><name>Ada Alvarez</name></author></entry></feed>"
)


def test_a_paper_is_fetched_once_by_its_identifier(sources: Any) -> None:
    with Recorded([Saved("/api", ATOM)]) as server:
        sources(server)
        paper = fetch_paper("arXiv:2611.00001v1")
        assert fetch_paper("2611.00001") == paper
        assert len(server.asked) == 1
    assert (paper.title, paper.authors) == ("Kites of kind 1", ["Ada Alvarez"])
    assert SourceRecord.objects.get().source == "arxiv"


def test_who_waits_before_a_page_is_told_when_arxiv_is_busy(
    sources: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harvesting, "PAGE_PATIENCE", 0.2)
    with Recorded([Saved("/api", ATOM)]) as server:
        sources(server)
        with (
            politeness.turn("127.0.0.1", patience=0),
            pytest.raises(politeness.NotYet, match="busy"),
        ):
            fetch_paper("2611.00001")
        assert server.asked == []


def test_a_paper_that_arxiv_does_not_have_is_refused(sources: Any) -> None:
    with Recorded([Saved("/api", b'<feed xmlns="http://www.w3.org/2005/Atom"/>')]) as server:
        sources(server)
        with pytest.raises(Refused, match="no such paper"):
            fetch_paper("2611.00001")
    with pytest.raises(ValueError, match="not an arXiv id"):
        fetch_paper("kites")


# -- who is told of it


def test_what_keeps_failing_is_told_and_recovery_ends_it(sources: Any) -> None:
    now = datetime.now(UTC)
    day = now.date().isoformat()
    bad = [Saved("/hf", b"", 502)] * 3
    with Recorded([*bad, Saved("/hf", json.dumps([entry(1, day=day)]).encode())]) as server:
        sources(server, "huggingface")
        for attempt in range(1, 4):
            harvest_due(now)
            row = Harvest.objects.get()
            assert row.retry_at is not None
            now = row.retry_at
            told = [finding.found for finding in health.watch(now)]
            assert bool(told) == (attempt == 3)  # once or twice is nothing that somebody must mend
        assert "Hugging Face Daily Papers" in told[0]
        assert "ServerFailed" in told[0]
        health.alert_operators(now)
        assert Alert.objects.get().subject == health.SUBJECTS["harvest"]
        shown = status._status(now - timedelta(minutes=5)).sources[0]
        assert shown.trouble == "failed (ServerFailed), tried again in 5 minutes"
        harvest_due(now)
    assert Harvest.objects.get().state == S.DONE
    assert health.watch(now) == []
    assert status._status(now).sources[0].trouble == ""


def test_settings_by_which_nothing_would_be_harvested_are_found(settings: Settings) -> None:
    assert checks.sources() == []
    settings.HARVEST_SOURCES = ["arxiv", "medrxiv"]
    assert [found.id for found in checks.sources()] == ["papers.E001", "papers.E002"]
    settings.ARXIV_CATEGORIES = ["cs.LG", "cs.ZZ"]
    assert [found.id for found in checks.sources()] == ["papers.E001", "papers.E003"]


def test_a_source_whose_papers_have_no_categories_is_told(settings: Settings) -> None:
    settings.HARVEST_SOURCES = ["huggingface"]
    assert "papers.I002" in [found.id for found in checks.choices()]
    settings.HARVEST_SOURCES = ["arxiv", "huggingface"]
    assert "papers.I002" not in [found.id for found in checks.choices()]
