"""A curator at work in the admin: read the list, pin, hide, order, note, add, freeze."""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
import time_machine
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, User
from django.http import HttpRequest
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from papers import editions
from papers.models import Edition, EditionPaper, Paper
from tests.factories import MORNING, TODAY, make_frozen_edition, make_paper, make_signal

pytestmark = pytest.mark.django_db

LIST = "/admin/papers/editionpaper/"
DAY = f"/admin/papers/edition/{TODAY}"


@pytest.fixture(autouse=True)
def _today() -> object:
    with time_machine.travel(MORNING):
        yield


@pytest.fixture
def curator(client: Client) -> Client:
    user = User.objects.create_user("carol", is_staff=True)
    user.groups.add(Group.objects.get(name="curators"))
    client.force_login(user)
    return client


def body(response: Any) -> str:
    return unescape(response.content.decode())


def the_list(curator: Client, edition: Edition) -> str:
    response = curator.get(LIST, {"edition__id__exact": edition.pk})
    assert response.status_code == 200
    return body(response)


def save(curator: Client, edition: Edition, changes: dict[EditionPaper, dict[str, object]]) -> Any:
    """What the browser posts when the list's "Save" is pressed."""
    rows = list(edition.candidates.all())
    form: dict[str, object] = {
        "form-TOTAL_FORMS": len(rows),
        "form-INITIAL_FORMS": len(rows),
        "_save": "Save",
    }
    for place, row in enumerate(rows):
        fields = {"id": row.pk, "curation": row.curation, "note": row.note}
        fields |= {"position": "" if row.position is None else row.position}
        for name, value in (fields | changes.get(row, {})).items():
            form[f"form-{place}-{name}"] = value
    return curator.post(f"{LIST}?edition__id__exact={edition.pk}", form)


def act(curator: Client, action: str, *rows: EditionPaper) -> str:
    chosen = {"action": action, "_selected_action": [row.pk for row in rows]}
    return body(curator.post(LIST, chosen, follow=True))


def candidate(edition: Edition, title: str) -> EditionPaper:
    return edition.candidates.get(paper__title=title)


def logged() -> list[str]:
    return [str(entry) for entry in LogEntry.objects.order_by("id")]


# Reading


def test_the_admin_leads_from_the_candidates_to_todays_list_and_collects_it(
    curator: Client,
) -> None:
    make_paper("In today's list")
    response = curator.get(LIST, follow=True)
    edition = Edition.objects.get()
    assert edition.day == TODAY
    assert response.redirect_chain[-1][0] == f"{LIST}?edition__id__exact={edition.pk}"
    assert "In today's list" in body(response)


def test_the_list_shows_title_source_counters_and_trend_with_its_terms(curator: Client) -> None:
    paper = make_paper("Attention & graphs", sources=["huggingface", "listing"])
    make_signal(paper, 42)
    make_signal(paper, 3, counter="comments")
    make_paper("Uncounted")
    shown = the_list(curator, editions.open_edition(TODAY))
    assert "Attention & graphs" in shown
    assert "huggingface, listing" in shown
    assert "0.50: upvotes 42 (50%), comments 3 (50%)" in shown
    assert "nothing counted, neutral" in shown
    assert "Open: pins, hides, order and notes count until it is frozen" in shown
    assert f"{DAY}/add/" in shown
    assert f"{DAY}/freeze/" in shown


def test_the_list_of_a_frozen_edition_offers_neither_adding_nor_freezing(curator: Client) -> None:
    shown = the_list(curator, make_frozen_edition(make_paper(), day=TODAY))
    assert "papers can still be hidden" in shown
    assert f"{DAY}/add/" not in shown
    assert f"{DAY}/freeze/" not in shown
    assert f'href="/papers/{TODAY}"' in shown


def test_a_hostile_title_is_text_in_the_admin_too(curator: Client) -> None:
    make_paper("<script>alert(1)</script>")
    edition = editions.open_edition(TODAY)
    response = curator.get(LIST, {"edition__id__exact": edition.pk})
    assert b"<script>alert(1)" not in response.content
    assert b"&lt;script&gt;alert(1)" in response.content


def test_long_lists_ask_few_questions_of_the_database(
    curator: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for n in range(50):
        make_paper(f"Paper {n}")
        make_frozen_edition(day=TODAY - timedelta(days=n + 1))
    edition = editions.open_edition(TODAY)
    with django_assert_max_num_queries(12):
        the_list(curator, edition)
    with django_assert_max_num_queries(10):
        assert curator.get("/admin/papers/edition/").status_code == 200


@pytest.mark.parametrize("value", ["²", "x", "99999999999999999999", "-1", ""])
def test_an_odd_edition_in_the_address_is_no_error(curator: Client, value: str) -> None:
    response = curator.get(LIST, {"edition__id__exact": value}, follow=True)
    assert response.status_code == 200


# Pin, hide, order, note


def test_saving_the_list_pins_hides_orders_and_notes_and_leaves_a_trail(curator: Client) -> None:
    for title in "ABCD":
        make_paper(title)
    edition = editions.open_edition(TODAY)
    changes: dict[EditionPaper, dict[str, object]] = {
        candidate(edition, "A"): {"curation": "pinned", "position": 2},
        candidate(edition, "B"): {"curation": "pinned", "position": 1, "note": "Read this first."},
        candidate(edition, "C"): {"curation": "hidden"},
    }
    response = save(curator, edition, changes)
    assert response.status_code == 302
    frozen = editions.freeze(edition, MORNING)
    pool = editions.pool(frozen)
    titles = [Paper.objects.get(pk=pk).title for pk in pool.paper_ids]
    assert [titles[index] for index in pool.pinned] == ["B", "A"]
    assert set(titles) == {"A", "B", "D"}
    assert candidate(edition, "B").note == "Read this first."
    assert len(logged()) == 3
    assert {entry.user.username for entry in LogEntry.objects.select_related("user")} == {"carol"}


def test_the_list_of_a_frozen_edition_refuses_a_pin_and_saves_a_hide(curator: Client) -> None:
    edition = make_frozen_edition(make_paper("A"), make_paper("B"), day=TODAY)
    was = Edition.objects.get().changed_at
    response = save(curator, edition, {candidate(edition, "A"): {"curation": "pinned"}})
    assert response.status_code == 200
    assert "can still be hidden, but no longer pinned" in body(response)
    assert candidate(edition, "A").curation == ""
    response = save(curator, edition, {candidate(edition, "B"): {"curation": "hidden"}})
    assert response.status_code == 302
    assert candidate(edition, "B").curation == "hidden"
    assert Edition.objects.get().changed_at > was


def test_the_actions_pin_hide_and_restore_several_at_once(curator: Client) -> None:
    for title in "ABC":
        make_paper(title)
    edition = editions.open_edition(TODAY)
    a, b, c = (candidate(edition, title) for title in "ABC")
    act(curator, "pin", a, b)
    act(curator, "hide", c)
    assert dict(edition.candidates.values_list("paper__title", "curation")) == {
        "A": "pinned",
        "B": "pinned",
        "C": "hidden",
    }
    act(curator, "restore", a, c)
    assert list(edition.candidates.exclude(curation="")) == [b]
    assert len(logged()) == 5


def test_the_pin_action_says_why_it_cannot_pin_in_a_frozen_edition(curator: Client) -> None:
    edition = make_frozen_edition(make_paper("A"), day=TODAY)
    assert "no longer pinned" in act(curator, "pin", candidate(edition, "A"))
    assert candidate(edition, "A").curation == ""
    assert logged() == []


def four_papers() -> Edition:
    for title in "ABCD":
        make_paper(title)
    return editions.open_edition(TODAY)


def test_the_pin_action_refuses_the_fourth_pin(curator: Client) -> None:
    edition = four_papers()
    shown = act(curator, "pin", *edition.candidates.all())
    assert "At most 3 papers of an edition can be pinned" in shown
    assert edition.candidates.filter(curation="pinned").count() == 3
    assert len(logged()) == 3


def test_saving_the_list_refuses_a_fourth_pin_beside_its_paper(curator: Client) -> None:
    edition = four_papers()
    act(curator, "pin", *(candidate(edition, title) for title in "ABC"))
    response = save(curator, edition, {candidate(edition, "D"): {"curation": "pinned"}})
    assert response.status_code == 200
    assert "3 are pinned already; take a pin back" in body(response)
    assert candidate(edition, "D").curation == ""
    response = save(curator, edition, {candidate(edition, "A"): {"note": "Still pinned."}})
    assert response.status_code == 302


@pytest.mark.parametrize("pinned_before", ["", "A", "AB"])
def test_saving_the_list_refuses_four_pins_of_one_save_and_saves_none_of_them(
    curator: Client, pinned_before: str
) -> None:
    edition = four_papers()
    edition.candidates.filter(paper__title__in=list(pinned_before)).update(curation="pinned")
    changes: dict[EditionPaper, dict[str, object]] = {
        row: {"curation": "pinned"} for row in edition.candidates.all()
    }
    response = save(curator, edition, changes)
    assert response.status_code == 200
    assert f"{len(pinned_before)} are pinned already" in body(response)
    assert edition.candidates.filter(curation="pinned").count() == len(pinned_before)
    assert logged() == []


def test_the_form_of_one_candidate_refuses_a_fourth_pin(curator: Client) -> None:
    edition = four_papers()
    edition.candidates.exclude(paper__title="D").update(curation="pinned")
    url = f"{LIST}{candidate(edition, 'D').pk}/change/"
    response = curator.post(url, {"curation": "pinned", "position": "", "note": ""})
    assert "At most 3 papers of an edition can be pinned" in body(response)
    response = curator.post(url, {"curation": "hidden", "position": "", "note": ""})
    assert response.status_code == 302
    assert candidate(edition, "D").curation == "hidden"


# Adding


def add(curator: Client, **form: str) -> str:
    return body(curator.post(f"{DAY}/add/", form, follow=True))


def test_a_known_paper_is_added_by_its_identifier(curator: Client) -> None:
    make_paper("Old", arxiv_id="2505.24864", listing_day=TODAY - timedelta(days=300))
    edition = editions.open_edition(TODAY)
    assert curator.get(f"{DAY}/add/").status_code == 200
    assert "“Old” is on the list" in add(curator, identifier="https://arxiv.org/abs/2505.24864")
    assert candidate(edition, "Old")
    assert "Added “Old”" in logged()[0]


def test_a_new_paper_is_added_by_title_and_link(curator: Client) -> None:
    edition = editions.open_edition(TODAY)
    shown = add(curator, title="Brand new", link="example.org/new")
    assert "“Brand new” is on the list" in shown
    assert candidate(edition, "Brand new").paper.url == "https://example.org/new"


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"identifier": "2505.24864"}, "Or add the paper by its title and link instead."),
        ({"identifier": "10.1000/182"}, "No paper 10.1000/182 is known here"),
        ({"identifier": "hello"}, "“hello” is neither an arXiv id nor a DOI"),
        ({"title": "Only a title"}, "an identifier, or both a title and a link"),
        ({"title": "T", "link": "javascript:alert(1)"}, "Enter a valid URL"),
        ({"title": "T\0", "link": "https://example.org"}, "Null characters are not allowed"),
    ],
)
def test_what_cannot_be_added_is_told_on_the_form(
    curator: Client, form: dict[str, str], words: str
) -> None:
    editions.open_edition(TODAY)
    assert words in add(curator, **form)
    assert not Paper.objects.exists()
    assert logged() == []


def test_nothing_is_added_to_a_frozen_edition(curator: Client) -> None:
    make_paper("Old", arxiv_id="2505.24864", listing_day=TODAY - timedelta(days=300))
    edition = make_frozen_edition(make_paper("A"), day=TODAY)
    assert "This edition is frozen" in add(curator, identifier="2505.24864")
    assert edition.candidates.count() == 1


def test_an_edition_that_does_not_exist_has_no_pages(curator: Client) -> None:
    assert curator.get("/admin/papers/edition/2026-01-01/add/").status_code == 404
    assert curator.get("/admin/papers/edition/2026-01-01/freeze/").status_code == 404
    assert curator.get("/admin/papers/edition/2026-99-99/curate/").status_code == 302  # unknown
    assert not Edition.objects.exists()


@pytest.mark.parametrize("day", ["0001-01-01", "1989-12-31", "2026-11-21", "9999-12-31"])
@pytest.mark.parametrize("page", ["curate", "add", "freeze"])
def test_a_day_that_can_have_no_edition_has_no_pages(
    curator: Client, admin_client: Client, day: str, page: str
) -> None:
    for client in (curator, admin_client):
        url = f"/admin/papers/edition/{day}/{page}/"
        assert client.get(url).status_code == client.post(url).status_code == 404
    assert not Edition.objects.exists()


@pytest.mark.parametrize("day", ["2026-11-21", "9999-12-31"])
def test_an_edition_made_too_early_is_said_not_to_have_come(curator: Client, day: str) -> None:
    edition = Edition.objects.create(day=day)
    url = f"/admin/papers/edition/{day}"
    words = f"{day} has not come yet"
    assert words in body(curator.get(f"{url}/curate/", follow=True))
    assert words in body(curator.post(f"{url}/freeze/", follow=True))
    new = {"title": "New", "link": "https://example.org/new"}
    assert words in body(curator.post(f"{url}/add/", new, follow=True))
    edition.refresh_from_db()
    assert edition.is_open
    assert logged() == []


@pytest.mark.parametrize(
    ("day", "words"),
    [
        ("2026-11-21", "has not come yet"),
        ("9999-12-31", "has not come yet"),
        ("0001-01-01", "out of range"),
    ],
)
def test_the_form_of_a_new_edition_refuses_such_days_too(
    curator: Client, day: str, words: str
) -> None:
    assert words in body(curator.post("/admin/papers/edition/add/", {"day": day}))
    assert not Edition.objects.exists()
    assert curator.post("/admin/papers/edition/add/", {"day": str(TODAY)}).status_code == 302
    assert Edition.objects.get().day == TODAY


# Freezing


def test_opening_the_freeze_page_freezes_nothing_and_its_button_does(curator: Client) -> None:
    make_paper()
    edition = editions.open_edition(TODAY)
    response = curator.get(f"{DAY}/freeze/")
    assert "This cannot be undone" in body(response)
    edition.refresh_from_db()
    assert edition.is_open
    response = curator.post(f"{DAY}/freeze/", follow=True)
    assert f"Edition of {TODAY} is Frozen" in body(response)
    edition.refresh_from_db()
    assert edition.state == Edition.State.FROZEN
    assert len(logged()) == 1


def test_freezing_twice_is_said_and_leaves_one_entry(curator: Client) -> None:
    make_paper()
    editions.open_edition(TODAY)
    curator.post(f"{DAY}/freeze/")
    was = Edition.objects.values().get()
    response = curator.post(f"{DAY}/freeze/")
    assert "It is Frozen already" in body(response)
    assert Edition.objects.values().get() == was
    assert len(logged()) == 1


def test_the_freeze_button_is_safe_from_other_sites() -> None:
    user = User.objects.create_superuser("root")
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    make_paper()
    editions.open_edition(TODAY)
    assert client.post(f"{DAY}/freeze/").status_code == 403
    assert Edition.objects.get().is_open


def test_a_held_edition_waits_for_its_curator(curator: Client) -> None:
    make_paper()
    edition = editions.open_edition(TODAY)
    form = {
        "form-TOTAL_FORMS": 1, "form-INITIAL_FORMS": 1, "form-0-id": edition.pk,
        "form-0-held": "on", "_save": "Save",
    }  # fmt: skip
    assert curator.post("/admin/papers/edition/", form).status_code == 302
    assert editions.freeze_due(MORNING) is None
    assert "held: by hand only" in the_list(curator, edition)


def test_holding_an_edition_that_has_been_frozen_meanwhile_does_not_open_it_again() -> None:
    make_paper()
    stale = editions.open_edition(TODAY)
    editions.freeze(stale, MORNING)
    was = Edition.objects.values().get()
    stale.held = True
    admin.site.get_model_admin(Edition).save_model(HttpRequest(), stale, None, change=True)
    assert Edition.objects.values().get() == was | {"held": True}


# Papers


def form_of(page: str) -> dict[str, str]:
    """The fields of the admin's form for one row, as a browser would post them unchanged."""
    fields = dict(re.findall(r'<input [^>]*?name="([^"]+)" value="([^"]*)"', page))
    fields |= {
        name: value.removeprefix("\n")
        for name, value in re.findall(r'<textarea name="([^"]+)".*?>(.*?)</textarea>', page, re.S)
    }
    chosen = re.findall(r'<select name="([^"]+)".*?<option value="([^"]*)" selected>', page, re.S)
    fields = {name: unescape(value) for name, value in (fields | dict(chosen)).items()}
    return {name: value for name, value in fields.items() if name not in ("_addanother",)}


def test_saving_a_paper_unchanged_changes_none_of_its_facts(curator: Client) -> None:
    paper = make_paper(
        authors=["Sammy Davis, Jr.", "Bo Berg"],
        keywords=["attention, sparse", "graphs"],
        categories=["cs.LG"],
        url="https://example.org/a?b=1&c=2",
        sources=["huggingface", "listing"],
    )
    edition = editions.open_edition(TODAY)
    was = Paper.objects.values().get()
    changed_at = edition.changed_at
    url = f"/admin/papers/paper/{paper.pk}/change/"
    form = form_of(curator.get(url).content.decode())
    assert curator.post(url, form | {"_save": "Save"}).status_code == 302
    now = Paper.objects.values().get()
    assert now | {"updated_at": was["updated_at"]} == was
    assert Edition.objects.get().changed_at >= changed_at


def test_a_mended_title_is_recognised_under_its_new_spelling(curator: Client) -> None:
    paper = make_paper("Atention")
    url = f"/admin/papers/paper/{paper.pk}/change/"
    form = form_of(curator.get(url).content.decode()) | {"title": "Attention", "_save": "Save"}
    assert curator.post(url, form).status_code == 302
    assert Paper.objects.get().title_key == "attention"
