"""A curator puts the day's papers in order in a real browser: by dragging, by keys, by numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth.models import Group, User
from django.utils import timezone
from playwright.sync_api import Browser, Page, expect
from pytest_django.live_server_helper import LiveServer

from papers import editions
from papers.models import Edition
from tests.factories import make_paper, make_signal

pytestmark = pytest.mark.django_db(transaction=True)

Open = Callable[..., Page]


@pytest.fixture
def edition() -> Edition:
    """Five papers, A to E by their trend."""
    for place, title in enumerate("ABCDE"):
        make_signal(make_paper(title), 100 - place)
    return editions.open_edition(timezone.now().date())


@pytest.fixture
def the_list(browser: Browser, live_server: LiveServer) -> Iterator[Open]:
    """Opens the list as a curator; what the browser complains of fails the test."""
    user = User.objects.create_user("carol", password="pw", is_staff=True)
    user.groups.add(Group.objects.get(name="curators"))
    complaints: list[str] = []

    def opened(**options: object) -> Page:
        page = browser.new_context(**options).new_page()  # type: ignore[arg-type]
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{live_server.url}/admin/")
        page.get_by_label("Username").fill("carol")
        page.get_by_label("Password").fill("pw")
        page.get_by_role("button", name="Log in").click()
        page.goto(f"{live_server.url}/admin/papers/edition/next/")
        return page

    yield opened
    assert complaints == []


def titles(page: Page) -> str:
    return "".join(page.locator("#result_list .field-paper_title > a").all_inner_texts())


def numbers(page: Page) -> str:
    fields = page.locator("#result_list input.place").all()
    return " ".join(field.input_value() or "-" for field in fields)


def save(page: Page) -> None:
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text(re.compile("changed successfully"))).to_be_visible()


def of_page(edition: Edition) -> str:
    rows = edition.candidates.select_related("paper")
    return "".join(row.paper.title for row in rows)


@pytest.mark.parametrize("phone", [False, True])
def test_a_paper_is_dragged_to_its_place(the_list: Open, edition: Edition, phone: bool) -> None:
    page = the_list(viewport={"width": 390, "height": 1600} if phone else None)
    assert (titles(page), numbers(page)) == ("ABCDE", "- - - - -")
    rows = page.locator("#result_list tbody tr")
    handle, target = rows.nth(3).locator(".handle").bounding_box(), rows.nth(0).bounding_box()
    assert handle is not None
    assert target is not None
    page.mouse.move(handle["x"] + 5, handle["y"] + 5)
    page.mouse.down()
    page.mouse.move(target["x"] + 50, target["y"] + 5, steps=8)
    page.mouse.up()
    assert (titles(page), numbers(page)) == ("DABCE", "1 - - - -")
    assert of_page(edition) == "ABCDE"
    save(page)
    assert titles(page) == of_page(edition) == "DABCE"


def test_a_paper_is_moved_with_the_arrow_keys_and_its_place_is_told(
    the_list: Open, edition: Edition
) -> None:
    page = the_list()
    handle = page.locator("#result_list tbody tr").nth(0).locator(".handle")
    handle.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#order-said")).to_have_text("Place 3 of 5. Not saved yet.")
    assert (titles(page), numbers(page)) == ("BCADE", "1 2 3 - -")
    page.keyboard.press("ArrowUp")
    assert (titles(page), numbers(page)) == ("BACDE", "1 2 3 - -")
    for _ in range(3):  # the first one is the first one
        page.keyboard.press("ArrowUp")
    assert (titles(page), numbers(page)) == ("ABCDE", "1 2 3 - -")
    page.keyboard.press("ArrowDown")
    save(page)
    assert titles(page) == of_page(edition) == "BACDE"


def test_a_paper_stays_among_the_pinned_or_among_the_others(
    the_list: Open, edition: Edition
) -> None:
    editions.curate(edition.candidates.get(paper__title="C"), "pinned")  # type: ignore[arg-type]
    editions.curate(edition.candidates.get(paper__title="B"), "hidden")  # type: ignore[arg-type]
    page = the_list()
    assert titles(page) == "CADEB"
    assert page.locator(".handle").count() == 4  # none for the hidden
    page.locator("#result_list tbody tr").nth(1).locator(".handle").focus()
    page.keyboard.press("ArrowUp")
    assert (titles(page), numbers(page)) == ("CADEB", "- - - - -")
    page.keyboard.press("ArrowDown")
    assert (titles(page), numbers(page)) == ("CDAEB", "1 2 3 - -")


def test_without_scripts_the_numbers_do_the_same(the_list: Open, edition: Edition) -> None:
    page = the_list(java_script_enabled=False)
    assert page.locator(".handle").count() == 0
    expect(page.locator("#order")).to_be_hidden()
    row = page.locator("#result_list tbody tr").nth(4)
    row.locator("input.place").fill("1")
    row.locator("textarea").fill("Read *this* first.")
    save(page)
    assert titles(page) == of_page(edition) == "EABCD"
    page.get_by_role("link", name="Preview").click()
    expect(page.get_by_text("Preview: not public.")).to_be_visible()
    expect(page.locator(".note em")).to_have_text("this")


@pytest.mark.parametrize("script", [True, False], ids=["with script", "without"])
def test_a_list_that_was_opened_before_undoes_nothing_and_tells_of_it(
    the_list: Open, edition: Edition, script: bool
) -> None:
    a, b, e = (edition.candidates.get(paper__title=title) for title in "ABE")
    edition.candidates.filter(pk=b.pk).update(note="Two\nlines,\nand three.")
    page = the_list(java_script_enabled=script)
    page.locator("#result_list tbody tr").nth(4).locator("textarea").fill("Hers.\nTwice.")
    if script:
        handle = page.locator("#result_list tbody tr").nth(3).locator(".handle")
        handle.focus()
        page.keyboard.press("ArrowUp")
    else:
        for row, place in ((0, "1"), (1, "2"), (3, "3")):
            page.locator("input.place").nth(row).fill(place)
    editions.curate(a, a.Curation.PINNED, by="ben")
    e.note = "Ben's."
    editions.revise(e, ["note"], by="ben")
    page.get_by_role("button", name="Save").click()
    told = page.locator("#result_list tbody tr").nth(4)
    expect(told).to_contain_text("Changed meanwhile by ben: it is “Ben's.” now.")
    assert told.locator("textarea").input_value() == "Hers.\nTwice."
    assert page.locator("select[name$='-curation']").nth(0).input_value() == "pinned"
    save(page)
    rows = {row.paper.title: row for row in edition.candidates.select_related("paper")}
    assert [rows[title].position for title in "ABDCE"] == [1, 2, 3, None, None]
    assert (rows["A"].curation, rows["B"].note) == ("pinned", "Two\nlines,\nand three.")
    assert rows["E"].note == "Hers.\r\nTwice."
    assert not edition.curation_records.filter(by="carol", what__contains="“A”: ").exists()


def test_another_order_of_the_list_offers_no_dragging(the_list: Open, edition: Edition) -> None:
    page = the_list()
    page.get_by_role("link", name="Upvotes").click()
    page.wait_for_url(re.compile("o=3"))
    assert titles(page) == "EDCBA"
    assert page.locator(".handle").count() == 0


def test_nothing_of_the_list_is_cut_off_at_the_side(the_list: Open, edition: Edition) -> None:
    page = the_list(viewport={"width": 1280, "height": 900})
    box = page.locator("#changelist-form .results")
    assert page.locator("#changelist-filter").is_visible()
    assert box.evaluate("box => box.scrollWidth - box.clientWidth") == 0


def test_a_frozen_list_has_no_handles_and_saves_what_is_hidden(
    the_list: Open, edition: Edition, live_server: LiveServer
) -> None:
    edition.candidates.filter(paper__title="C").update(position=1, note="Read *this*.")
    editions.freeze(edition, timezone.now())
    page = the_list()
    page.goto(f"{live_server.url}/admin/papers/editionpaper/?edition__id__exact={edition.pk}")
    assert titles(page) == "CABDE"
    assert page.locator(".handle, input.place, #result_list textarea, #order").count() == 0
    page.locator("#result_list tbody tr").nth(1).locator("select").select_option("hidden")
    save(page)
    assert titles(page) == "CBDEA"
    page.get_by_role("link", name="Next edition").click()
    page.wait_for_url(re.compile("edition__id__exact"))
    expect(page.get_by_role("link", name="Add papers")).to_be_visible()


def test_on_a_phone_the_box_stands_before_its_label(
    the_list: Open, edition: Edition, live_server: LiveServer
) -> None:
    page = the_list(viewport={"width": 375, "height": 800})
    page.goto(f"{live_server.url}/admin/papers/edition/{edition.day}/add/")
    expect(page.get_by_label("Ask arXiv for those that are not known here")).to_be_checked()
    tick = page.get_by_role("checkbox").bounding_box()
    label = page.locator("label[for=id_ask]").bounding_box()
    assert tick is not None
    assert label is not None
    assert tick["x"] < label["x"] < tick["x"] + 40
    assert label["y"] <= tick["y"] + tick["height"] / 2 <= label["y"] + label["height"]


def test_the_list_has_no_faults_that_axe_finds_in_what_is_ours(
    the_list: Open, edition: Edition
) -> None:
    page = the_list()
    page.set_viewport_size({"width": 390, "height": 844})
    found = Axe().run(page, context=".outlook, #order, #result_list tbody").response
    assert [fault["id"] for fault in found["violations"]] == []
