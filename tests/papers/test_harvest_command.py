"""manage.py harvest, and the harvests in the admin."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from io import StringIO
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.test import Client
from pytest_django import Settings

from papers.harvesting import Window, begin, harvest_due
from papers.models import Harvest, Paper
from papers.sources.recorded import Recorded, Saved
from tests.admin_forms import form_of
from tests.papers.test_harvesting import (
    FEED_ITEM,
    S,
    entry,
    listed,
    oai,
    page,
    record,
    sources,
)

__all__ = ["sources"]  # a fixture

pytestmark = pytest.mark.django_db


def harvest(*arguments: str) -> str:
    out = StringIO()
    call_command("harvest", *arguments, stdout=out, stderr=out)
    return out.getvalue()


def test_the_command_shows_its_progress(sources: Any) -> None:
    pages = [page("", oai(record(1), token="two", total=2)), page("two", oai(record(2)))]
    with Recorded(pages) as server:
        sources(server)
        lines = harvest("arxiv", "--since", "2026-11-18").splitlines()
    assert lines == [
        "arXiv, cs.LG from 2026-11-18 to " + datetime.now(UTC).date().isoformat(),
        "  1 of 2 read, 1 new …",
        "arXiv, cs.LG: 2 read, 2 new, 0 updated, 0 skipped, 0 failed",
    ]


def test_each_category_is_harvested_and_one_that_fails_stops_no_other(sources: Any) -> None:
    with Recorded(
        [
            Saved("/oai?set=cs:cs:LG", b"", 500),
            Saved("/oai?set=stat:stat:ML", oai(record(1))),
        ]
    ) as server:
        sources(server, categories=("cs.LG", "stat.ML"))
        with pytest.raises(CommandError, match="1 of 2 failed"):
            harvest("arxiv")
    states = dict(Harvest.objects.values_list("part", "state"))
    assert states == {"cs.LG": S.FAILED, "stat.ML": S.DONE}
    failed = Harvest.objects.get(part="cs.LG")
    assert failed.retry_at is not None  # of the chain: a worker tries again


def test_days_that_somebody_chose_are_not_tried_again_by_themselves(sources: Any) -> None:
    chosen = ["huggingface", "--since", "2026-11-18", "--until", "2026-11-19"]
    days = [listed("2026-11-18", entry(1)), Saved("/hf?date=2026-11-19", b"", 500)]
    with Recorded([*days, listed("2026-11-19", entry(2))]) as server:
        sources(server, "huggingface")
        with pytest.raises(CommandError):
            harvest(*chosen)
        row = Harvest.objects.get()
        assert (row.state, row.retry_at, row.cursor) == (S.FAILED, None, "2026-11-19")
        assert "going on after 1 records" in harvest(*chosen)
    assert Harvest.objects.get().state == S.DONE
    assert Paper.objects.count() == 2


def test_the_help_says_where_it_begins_by_itself(
    sources: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        harvest("huggingface", "--help")
    told = " ".join(capsys.readouterr().out.split())
    assert "of Hugging Face a week ago" in told
    assert "with --until alone, its day" in told
    with Recorded(
        [listed("2026-11-18", entry(1, day="2026-11-18")), Saved("/hf", b"[]")]
    ) as server:
        sources(server)
        harvest("huggingface", "--until", "2026-11-18")
        assert [asked.params["date"] for asked in server.asked] == ["2026-11-18"]
        Harvest.objects.all().delete()
        harvest("huggingface")
        today = datetime.now(UTC).date()
        assert server.asked[1].params["date"] == (today - timedelta(days=7)).isoformat()


def test_the_announcement_alone_is_read_for_its_listing_days(sources: Any) -> None:
    with Recorded([Saved("/rss/cs.LG", FEED_ITEM)]) as server:
        sources(server)
        assert "1 read, 1 new" in harvest("arxiv", "--feed")
    assert Paper.objects.get().listing_day == date(2026, 11, 20)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["arxiv"], "Name a --category such as cs.LG, or set ARXIV_CATEGORIES"),
        (["arxiv", "--category", "cs.ZZ"], "“cs.ZZ” is no category of arXiv"),
        (["arxiv", "--category", "cs.LG", "--until", "2026-11-01"], "Leave --until out"),
        (["arxiv", "--category", "cs.LG", "--since", "2100-01-01"], "has not come yet"),
        (["huggingface", "--category", "cs.LG"], "of arXiv alone"),
        (["huggingface", "--since", "2026-11-02", "--until", "2026-11-01"], "no day to pull"),
        (["huggingface", "--since", "yesterday"], "“yesterday” is no day such as"),
        (["medrxiv"], "invalid choice"),
    ],
)
def test_what_cannot_be_asked_is_told(arguments: list[str], words: str) -> None:
    with pytest.raises(CommandError, match=words):
        harvest(*arguments)
    assert not Harvest.objects.exists()


def test_it_says_when_another_process_is_at_it(sources: Any) -> None:
    begin(Window("arxiv", "stat.ML", date(2026, 11, 18)), datetime.now(UTC))
    with pytest.raises(CommandError, match="Another process is pulling arXiv"):
        harvest("arxiv", "--category", "cs.LG")


def test_it_says_when_nobody_listens(settings: Settings) -> None:
    out = StringIO()
    with pytest.raises(CommandError, match="1 of 1 failed"):
        call_command("harvest", "huggingface", stdout=out, stderr=out)
    assert "Unreachable: http://127.0.0.1:9/daily_papers cannot be reached" in out.getvalue()
    assert "(a worker tries again in 1 min)" in out.getvalue()


@pytest.mark.django_db(transaction=True)
def test_it_can_be_interrupted_and_goes_on_where_it_stopped(
    sources: Any, environment: dict[str, str]
) -> None:
    def hang(request: BaseHTTPRequestHandler) -> None:
        time.sleep(20)

    pages = [
        page("", oai(record(1), token="two")),
        page("two", hang),
        page("two", oai(record(2))),
    ]
    with Recorded(pages) as server:
        sources(server)
        environment["ARXIV_OAI_URL"] = f"{server.url}/oai"
        child = subprocess.Popen(
            [sys.executable, "manage.py", "harvest", "arxiv", "--category=cs.LG"],
            cwd=django_settings.BASE_DIR,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell's job in the background, such as these tests may be, is born deaf to it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        while len(server.asked) < 2:
            assert child.poll() is None
            time.sleep(0.02)
        os.kill(child.pid, signal.SIGINT)
        out, err = child.communicate(timeout=10)
        assert child.returncode == 130
        assert "Interrupted. The same command goes on where it stopped." in err
        assert "1 read, 1 new" in out
        # At once: neither the harvest nor the host is held.
        assert "going on after 1 records" in harvest("arxiv")
    assert Harvest.objects.get().state == S.DONE
    assert Paper.objects.count() == 2


# -- the admin


@pytest.fixture
def staff() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


def test_the_list_of_harvests_names_files_without_their_folders(staff: Client) -> None:
    Harvest.objects.create(
        source="/srv/in/cs_LG.html /srv/in/hf.json", state="done", read=5, new=3, skipped=2
    )
    Harvest.objects.create(source="arxiv", part="cs.LG", state="done", started_at=datetime.now(UTC))
    listed = staff.get("/admin/papers/harvest/").content.decode()
    sources = re.findall(r'class="field-where_from">([^<]*)<', listed)
    assert sources == ["arXiv cs.LG", "cs_LG.html hf.json"]
    assert "5 read, 3 new, 2 skipped<" in listed
    assert listed.index("column-last_error") < listed.index("column-where_from")


def test_the_admin_shows_a_failing_harvest_and_has_it_tried_again(
    staff: Client, sources: Any
) -> None:
    with Recorded([Saved("/hf", b"", 503, {"Retry-After": "60"}), Saved("/hf", b"[]")]) as server:
        sources(server, "huggingface")
        (row,) = harvest_due(datetime.now(UTC))
        for address in ("", f"{row.pk}/change/"):
            shown = staff.get(f"/admin/papers/harvest/{address}").content.decode()
            assert "Busy: " in shown
            assert "asks for patience (503)" in shown
        form = {"action": "try_again", "_selected_action": [row.pk]}
        answer = staff.post("/admin/papers/harvest/", form, follow=True)
        assert "Tried again within a minute" in answer.content.decode()
        row.refresh_from_db()
        assert row.retry_at is not None
        assert row.retry_at <= datetime.now(UTC)
        form["action"] = "give_up"
        answer = staff.post("/admin/papers/harvest/", form, follow=True)
        assert "Hugging Face&#x27;s last days are asked for again" in answer.content.decode()
        assert "1 given up" in answer.content.decode()
        row.refresh_from_db()
        assert row.retry_at is None


def test_who_may_only_look_gives_no_harvest_up(client: Client, sources: Any) -> None:
    looker = User.objects.create_user("looker", is_staff=True)
    looker.user_permissions.add(Permission.objects.get(codename="view_harvest"))
    client.force_login(looker)
    with Recorded([Saved("/hf", b"", 503)]) as server:
        sources(server, "huggingface")
        (row,) = harvest_due(datetime.now(UTC))
    for action in ("give_up", "try_again"):
        form = {"action": action, "_selected_action": [row.pk]}
        client.post("/admin/papers/harvest/", form, follow=True)
        was, row = row.retry_at, Harvest.objects.get()
        assert (row.retry_at == was) == (action == "give_up")


def test_what_each_source_said_stands_with_the_paper(staff: Client, sources: Any) -> None:
    with Recorded([page("", oai(record(1)))]) as server:
        sources(server)
        harvest("arxiv")
    paper = Paper.objects.get()
    shown = staff.get(f"/admin/papers/paper/{paper.pk}/change/").content.decode()
    assert "About kite 1." in shown
    assert "source_records" in shown


def test_a_title_that_is_changed_in_the_admin_outlives_the_next_harvest(
    staff: Client, sources: Any
) -> None:
    with Recorded([page("", oai(record(1)))]) as server:
        sources(server)
        harvest("arxiv")
        paper = Paper.objects.get()
        address = f"/admin/papers/paper/{paper.pk}/change/"
        form = form_of(staff.get(address).content.decode())
        answer = staff.post(address, form | {"title": "By hand"})
        assert answer.status_code == 302, answer.context["errors"]
        harvest("arxiv", "--since", "2026-11-01")
    paper.refresh_from_db()
    assert (paper.title, paper.abstract) == ("By hand", "About kite 1.")
    assert paper.source_records.get(source="curator").record == {"title": "By hand"}
