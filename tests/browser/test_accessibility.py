"""axe-core looks at every public page, by day on a desk and by night on a phone."""

from __future__ import annotations

from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser
from pytest_django.live_server_helper import LiveServer

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


def test_nothing_is_wider_than_a_phone(
    browser: Browser, live_server: LiveServer, paths: dict[str, str]
) -> None:
    page = browser.new_page(viewport={"width": 320, "height": 640})
    widths = {}
    for name, path in paths.items():
        page.goto(live_server.url + path)
        widths[name] = page.evaluate("document.documentElement.scrollWidth")
    assert {name: width for name, width in widths.items() if width > 320} == {}
