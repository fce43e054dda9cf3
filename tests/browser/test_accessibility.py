"""axe-core looks at every public page, by day on a desk and by night on a phone."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.utils import timezone
from playwright.sync_api import Browser
from pytest_django.live_server_helper import LiveServer

from tests.factories import make_paper, make_signal

DESK, PHONE = (1280, 900), (375, 720)


@pytest.mark.parametrize(
    ("size", "scheme"), [(DESK, "light"), (PHONE, "dark")], ids=["desk-light", "phone-dark"]
)
def test_axe_finds_nothing_on_any_page(
    browser: Browser,
    live_server: LiveServer,
    paths: dict[str, str],
    size: tuple[int, int],
    scheme: Literal["light", "dark"],
) -> None:
    page = browser.new_page(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,
    )
    found = {}
    for name, path in paths.items():
        page.goto(live_server.url + path)
        # What is folded away is looked at, too.
        page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
        results = Axe().run(page)
        assert results.response["passes"], f"it did not look at {name}"
        if results.violations_count:
            found[name] = results.generate_report()
    assert not found, "\n".join(f"{name}: {report}" for name, report in found.items())


def test_a_phones_first_screen_has_papers_and_the_header_keeps_its_height(
    browser: Browser, live_server: LiveServer, paths: dict[str, str]
) -> None:
    page = browser.new_page(viewport={"width": 375, "height": 800})
    page.goto(live_server.url)
    title = page.locator(".papers h2").first.bounding_box()
    assert title is not None
    assert title["y"] + title["height"] <= 480
    for width, most in ((375, 80), (640, 80), (800, 65), (900, 65), (960, 75), (1280, 75)):
        page.set_viewport_size({"width": width, "height": 800})
        heights = set()
        for name in ("the newest day", "the top", "a paper", "searching"):
            page.goto(live_server.url + paths[name])
            box = page.locator("header.site").bounding_box()
            assert box is not None
            heights.add(box["height"])
            shown = page.get_by_role("link", name="Search", exact=True).count()
            shown += page.get_by_role("button", name="Search", exact=True).count()
            assert shown >= 1, (width, name)
        assert len(heights) == 1, (width, heights)
        assert heights.pop() <= most, width


def test_no_number_of_a_plot_is_cut(browser: Browser, live_server: LiveServer) -> None:
    now = timezone.now()
    page = browser.new_page()
    for most in (153_482, 2**31 - 1):
        paper = make_paper(f"Counted {most}")
        make_signal(paper, 0, observed_at=now - timedelta(days=1))
        make_signal(paper, most, observed_at=now)
        page.goto(live_server.url + paper.get_absolute_url())
        numbers = page.locator(".growth text")
        assert numbers.first.text_content() == str(most)
        beginnings = numbers.evaluate_all("numbers => numbers.map(one => one.getBBox().x)")
        assert min(beginnings) >= 0, most


def test_nothing_is_wider_than_a_phone(
    browser: Browser, live_server: LiveServer, paths: dict[str, str]
) -> None:
    page = browser.new_page(viewport={"width": 320, "height": 640})
    widths = {}
    for name, path in paths.items():
        page.goto(live_server.url + path)
        widths[name] = page.evaluate("document.documentElement.scrollWidth")
    assert {name: width for name, width in widths.items() if width > 320} == {}
