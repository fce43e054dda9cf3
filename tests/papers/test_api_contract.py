"""The API against its own description, by schemathesis: what it takes, and what it answers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from hypothesis import HealthCheck, Phase, settings
from schemathesis import Case
from schemathesis.config import SchemathesisConfig

from config.wsgi import application
from papers import openapi
from papers.models import Edition, Paper, Signal
from tests.factories import make_frozen_edition, make_paper, make_signal

BASE_URL = "http://testserver"  # a host that the settings allow


def make_odd_rows() -> None:
    """Every shape that a row may have, and what no row should have but one day has."""
    plain = make_paper("Plain", listing_day=date(2026, 11, 20), categories=["cs.LG"])
    bare = make_paper(
        "Bare", abstract="", authors=[], sources=[], listing_day=date(1, 1, 1), published_on=None
    )
    full = make_paper(
        "Full \x01 \ufffe “\u2028” \U0001f600",
        arxiv_id="2611.00001",
        doi="10.1234/äß?#",
        authors=[f"Author {n}" for n in range(700)],
        categories=["cs.LG", "Immunology & more", ""],
        keywords=["graphs"],
        published_on=date(9999, 12, 31),
        withdrawn_on=date(2026, 11, 19),
        url="https://x.example/ä b",
        code_url="https://code.example/",
        summary="Short.",
        summary_source="huggingface",
        versions=[{"number": 1, "on": "2026-11-01"}, {"number": 2, "on": None}, {"number": 3}],
        licence="http://creativecommons.org/licenses/by/4.0/",
        sources=["arxiv", "huggingface"],
    )
    for counter in Signal.Counter.values:
        make_signal(full, 2**31 - 1, counter=counter)
    make_signal(full, 0, observed_at=datetime(2026, 11, 19, tzinfo=UTC))
    edition = make_frozen_edition(plain, bare, full, day=date(2026, 11, 20))
    edition.candidates.filter(paper=full).update(
        curation="pinned",
        position=1,
        note="Read it.",
        trend=1.0,
        trend_terms={"upvotes": {"count": 3, "gained": None, "level": 0.5}},
    )
    edition.candidates.filter(paper=bare).update(curation="hidden")
    Edition.objects.create(
        day=date(2026, 11, 19),
        state="empty",
        reason="Nothing came.",
        frozen_at=datetime(2026, 11, 19, 4, tzinfo=UTC),
    )
    make_frozen_edition(day=date(2026, 11, 18))
    Edition.objects.create(day=date(2026, 11, 21))


@pytest.fixture
def _odd_rows(db: None) -> Iterator[None]:
    make_odd_rows()
    # As in Django's own test client: a request must not close the test's transaction.
    ends = [request_started, request_finished]
    for end in ends:
        end.disconnect(close_old_connections)
    yield
    for end in ends:
        end.connect(close_old_connections)


# The very description that is served, see test_api.py; a schema from a fixture fails with pytest 9.
api = schemathesis.openapi.from_dict(
    openapi.description("Paperround", BASE_URL), config=SchemathesisConfig()
)
api.app = application


@pytest.mark.usefixtures("_odd_rows")
@api.parametrize()
@settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_whatever_is_asked_is_answered_as_described(case: Case[Any]) -> None:
    case.call_and_validate(base_url=BASE_URL)


@pytest.mark.usefixtures("_odd_rows")
def test_every_row_is_told_as_described() -> None:
    for paper in Paper.objects.all():
        for path in ("", "/similar", "/signals"):
            case = api[f"/api/v1/papers/{{uuid}}{path}"]["GET"].Case(
                path_parameters={"uuid": str(paper.uuid)}
            )
            assert case.call_and_validate(base_url=BASE_URL).status_code == 200
    for day, status in [(18, 200), (19, 200), (20, 200), (21, 404)]:
        case = api["/api/v1/days/{day}"]["GET"].Case(path_parameters={"day": f"2026-11-{day}"})
        assert case.call_and_validate(base_url=BASE_URL).status_code == status
    lists: list[tuple[str, dict[str, str], int]] = [
        ("/api/v1/papers", {}, 3),
        ("/api/v1/papers", {"limit": "1"}, 1),
        ("/api/v1/papers", {"doi": "10.1234/abc"}, 0),
        ("/api/v1/papers", {"arxiv_id": "2611.00001v3"}, 1),
        ("/api/v1/days", {}, 3),
        ("/api/v1/search", {"q": "plain"}, 1),
    ]
    for path, query, count in lists:
        response = api[path]["GET"].Case(query=query).call_and_validate(base_url=BASE_URL)
        assert len(next(iter(response.json().values()))) == count
