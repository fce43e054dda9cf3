"""The read-only JSON API: what it tells, what it refuses, and what it costs."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import psycopg
import pytest
import time_machine
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from papers import editions, openapi, search
from papers.models import Edition, EditionPaper
from tests.factories import MORNING, TODAY, make_frozen_edition, make_paper, make_signal

pytestmark = pytest.mark.django_db

YESTERDAY = TODAY - timedelta(days=1)
V1 = "/api/v1"
Json = dict[str, Any]


@pytest.fixture(autouse=True)
def _today() -> object:
    with time_machine.travel(MORNING, tick=False):
        yield


def ask(client: Client, path: str, **headers: str) -> HttpResponse:
    path = path.removeprefix("http://testserver")
    return cast(HttpResponse, client.get(path, headers=headers))


def told(client: Client, path: str) -> Json:
    response = ask(client, path)
    assert response.status_code == 200, response.content
    assert response["Content-Type"] == "application/json"
    return cast(Json, json.loads(response.content))


def problem(client: Client, path: str, status: int) -> Json:
    response = ask(client, path)
    assert response.status_code == status
    assert response["Content-Type"] == "application/problem+json"
    body: Json = json.loads(response.content)
    assert body["status"] == status
    assert body["detail"]
    return body


def titles(body: Json) -> list[str]:
    return [paper["title"] for paper in body["papers"]]


def walk(client: Client, path: str, members: str) -> list[list[Json]]:
    """Every page of a list, by its own links."""
    pages = []
    while path:
        body = told(client, path)
        assert body["links"]["self"].endswith(path.removeprefix("http://testserver"))
        pages.append(body[members])
        path = body["links"]["next"]
    return pages


# --- What it tells --------------------------------------------------------------------------------


def test_every_address_that_an_answer_names_is_there(client: Client) -> None:
    paper = make_paper(categories=["cs.LG"])
    make_frozen_edition(paper, day=TODAY)
    seen: set[str] = set()
    waiting = ["http://testserver/api/v1/"]
    while waiting:
        address = waiting.pop()
        response = ask(client, address)
        assert response.status_code == 200, address
        seen.add(address)
        if response["Content-Type"] == "application/json" and "openapi" not in address:
            found = re.findall(r'"(http://testserver/[^"]+)"', response.content.decode())
            few = [each for each in found if "/categories/" not in each and "?" not in each]
            waiting += set(few) - seen - set(waiting)
    assert f"http://testserver/api/v1/papers/{paper.uuid}/signals" in seen
    assert f"http://testserver/feeds/papers/{TODAY}.atom" in seen


def test_the_days_are_told_the_newest_first_without_the_open_one(client: Client) -> None:
    make_frozen_edition(make_paper("A"), make_paper("B"), make_paper("C"), day=YESTERDAY)
    EditionPaper.objects.filter(paper__title="B").update(curation="hidden")
    day_before = YESTERDAY - timedelta(days=1)
    Edition.objects.create(day=day_before, state="empty", frozen_at=MORNING, reason="Nothing came.")
    EditionPaper.objects.create(edition=Edition.objects.create(day=TODAY), paper=make_paper("Open"))
    days = told(client, f"{V1}/days")["days"]
    assert [(day["day"], day["state"], day["reason"], day["papers"]) for day in days] == [
        ("2026-11-19", "frozen", None, 2),
        ("2026-11-18", "empty", "Nothing came.", 0),
    ]
    problem(client, f"{V1}/days/{TODAY}", 404)
    assert told(client, f"{V1}/days/{day_before}")["places"] == []


def test_a_day_tells_its_papers_in_the_order_of_its_page(client: Client) -> None:
    edition = make_frozen_edition(*(make_paper(title) for title in "ABCD"), day=TODAY)
    terms = {"upvotes": {"count": 5, "gained": 2, "level": 1.0, "growth": None}}
    curated: dict[str, dict[str, Any]] = {
        "A": {"trend": 0.2},
        "B": {"trend": 0.9, "trend_terms": terms},
        "C": {"curation": "pinned", "note": "Read it."},
        "D": {"curation": "hidden", "trend": 1.0},
    }
    for title, fields in curated.items():
        edition.candidates.filter(paper__title=title).update(**fields)
    places = told(client, f"{V1}/days/{TODAY}")["places"]
    assert [(each["place"], each["paper"]["title"], each["pinned"]) for each in places] == [
        (1, "C", True),
        (2, "B", False),
        (3, "A", False),
    ]
    assert places[0]["note"] == "Read it."
    assert (places[1]["trend"], places[1]["trend_terms"]) == (0.9, terms)
    pages = walk(client, f"{V1}/days/{TODAY}?limit=2", "places")
    assert [[each["place"] for each in page] for page in pages] == [[1, 2], [3]]


def test_a_paper_is_told_with_its_newest_counters_and_its_days(client: Client) -> None:
    paper = make_paper("Known", arxiv_id="2611.00001", published_on=TODAY, summary="")
    make_signal(paper, 7, observed_at=datetime(2026, 11, 18, tzinfo=UTC))
    make_signal(paper, 40, observed_at=datetime(2026, 11, 19, 3, tzinfo=UTC))
    paper.signals.create(
        source="listing", counter="upvotes", value=3, observed_at=datetime(2026, 11, 1, tzinfo=UTC)
    )
    make_frozen_edition(paper, day=YESTERDAY)
    hiding = make_frozen_edition(paper, day=TODAY)
    hiding.candidates.update(curation="hidden")
    body = told(client, f"{V1}/papers/{paper.uuid}")
    assert [each["day"] for each in body["appearances"]] == ["2026-11-19"]
    assert body["paper"]["title"] == "Known"
    assert body["paper"]["summary"] is None
    assert body["paper"]["published_on"] == "2026-11-20"
    assert body["paper"]["url"] == "https://arxiv.org/abs/2611.00001"
    assert body["paper"]["counters"] == [
        {
            "counter": "upvotes",
            "source": "huggingface",
            "value": 40,
            "observed_at": "2026-11-19T03:00:00Z",
        },
        {
            "counter": "upvotes",
            "source": "listing",
            "value": 3,
            "observed_at": "2026-11-01T00:00:00Z",
        },
    ]
    signals = told(client, body["paper"]["links"]["signals"])["signals"]
    assert [each["value"] for each in signals] == [40, 7, 3]


def test_papers_are_found_by_identifier_and_by_filters(client: Client) -> None:
    make_paper("One", arxiv_id="2611.00001", listing_day=TODAY, categories=["cs.LG"])
    make_paper("Two", doi="10.1000/a?b#c", listing_day=YESTERDAY, authors=["Zoë Ångström"])
    for query, expected in [
        ("", ["One", "Two"]),
        ("arxiv_id=2611.00001v2", ["One"]),
        ("arxiv_id=2611.99999", []),
        ("doi=10.1000%2FA%3Fb%23c", ["Two"]),
        ("since=2026-11-20", ["One"]),
        ("until=2026-11-19", ["Two"]),
        ("since=2026-11-20&until=2026-11-19", []),
        ("category=cs.LG", ["One"]),
        ("author=Zo%C3%AB+%C3%85ngstr%C3%B6m", ["Two"]),
        ("author=Zo%C3%AB+%C3%85ngstr%C3%B6m&category=cs.LG", []),
    ]:
        assert titles(told(client, f"{V1}/papers?{query}")) == expected


def test_pages_of_papers_lose_and_repeat_none_while_new_ones_arrive(client: Client) -> None:
    for number in range(7):
        make_paper(f"{number}", listing_day=TODAY - timedelta(days=number // 3))
    first = told(client, f"{V1}/papers?limit=3&since=2026-01-01")
    make_paper("New", listing_day=TODAY)
    rest = walk(client, first["links"]["next"], "papers")
    got = [*titles(first), *(paper["title"] for page in rest for paper in page)]
    assert got == ["2", "1", "0", "5", "4", "3", "6"]
    assert "since=2026-01-01" in first["links"]["next"]


def test_days_are_paged(client: Client) -> None:
    for back in range(5):
        make_frozen_edition(day=TODAY - timedelta(days=back))
    pages = walk(client, f"{V1}/days?limit=2", "days")
    assert [len(page) for page in pages] == [2, 2, 1]
    assert len({day["day"] for page in pages for day in page}) == 5


def test_search_and_similar_papers(client: Client) -> None:
    sparse = make_paper("Sparse graph attention", arxiv_id="2611.00001", categories=["cs.LG"])
    make_paper("Dense graph attention")
    make_paper("Protein folding", abstract="Nothing of the kind.")
    found = titles(told(client, f"{V1}/search?q=graph+attention"))
    assert sorted(found) == ["Dense graph attention", "Sparse graph attention"]
    only = told(client, f"{V1}/search?q=graph&category=cs.LG")
    assert titles(only) == ["Sparse graph attention"]
    assert only["direct"] is False
    direct = told(client, f"{V1}/search?q=arXiv:2611.00001")
    assert (titles(direct), direct["direct"]) == (["Sparse graph attention"], True)
    pages = walk(client, f"{V1}/search?q=graph&limit=1", "papers")
    assert [len(page) for page in pages] == [1, 1]
    near = titles(told(client, f"{V1}/papers/{sparse.uuid}/similar?limit=1"))
    assert near == ["Dense graph attention"]


def test_the_categories_have_names_and_links(client: Client) -> None:
    named = {each["code"]: each for each in told(client, f"{V1}/categories")["categories"]}
    assert named["cs.LG"]["name"] == "Machine Learning"
    assert told(client, named["cs.LG"]["links"]["papers"])["papers"] == []
    assert ask(client, named["cs.LG"]["links"]["feed"]).status_code == 200


def test_text_is_utf8_as_it_is(client: Client) -> None:
    make_paper("Ångström “graphs”\u2028\x01</script>")
    response = ask(client, f"{V1}/papers")
    assert "Ångström “graphs”\u2028\\u0001</script>" in response.content.decode()
    assert response["X-Content-Type-Options"] == "nosniff"


# --- What it refuses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "parameter", "detail"),
    [
        ("papers?sinse=2026-11-20", "sinse", "no such parameter. There are arxiv_id, doi, since"),
        ("categories?q=x", "q", "There are none here"),
        ("papers?limit=1&limit=2", "limit", "Name it once"),
        ("papers?limit=0", "limit", "a whole number from 1 to 100"),
        ("papers?limit=101", "limit", "a whole number from 1 to 100"),
        ("papers?limit=+5", "limit", "a whole number"),
        ("papers?limit=٥", "limit", "a whole number"),
        ("papers?limit=1e1", "limit", "a whole number"),
        ("papers?since=20261120", "since", "a day such as 2026-11-20"),
        ("papers?since=2026-02-30", "since", "a day such as 2026-11-20"),
        ("papers?category=", "category", "must not be empty"),
        ("papers?category=a%00b", "category", "control characters"),
        ("papers?category=cs.LG%0A", "category", "control characters"),
        (f"papers?author={'x' * 201}", "author", "at most 200 characters"),
        ("papers?arxiv_id=nonsense", "arxiv_id", "It must look like 2505.24864 or math/0211159."),
        ("papers?doi=10.1", "doi", "It must look like 10.1000/182."),
        ("papers?cursor=x", "cursor", "It must look like"),
        ("papers?cursor=1.1%0A", "cursor", "It must look like"),
        ("search", "q", "It is needed"),
        ("search?q=", "q", "must not be empty"),
        ("search?q=x&page=101", "page", "from 1 to 100"),
    ],
)
def test_a_wrong_parameter_is_named(
    client: Client, query: str, parameter: str, detail: str
) -> None:
    body = problem(client, f"{V1}/{query}", 400)
    [error] = body["errors"]
    assert error["parameter"] == parameter
    assert detail in error["detail"]
    assert detail in body["detail"]


def test_a_thousand_parameters_are_a_problem_too(client: Client) -> None:
    problem(client, f"{V1}/papers?" + "&".join(f"p{n}=" for n in range(1001)), 400)


@pytest.mark.parametrize("cursor", ["0.0", "9999999.1", "1.999999999999999999", "740000.0"])
def test_a_cursor_beyond_all_rows_is_a_place_too(client: Client, cursor: str) -> None:
    assert told(client, f"{V1}/papers?cursor={cursor}")["papers"] == []
    assert told(client, f"{V1}/days?cursor={cursor}")["days"] == []


@pytest.mark.parametrize(
    "path",
    [
        "nothing",
        "days/",
        "days/yesterday",
        "days/2026-02-30",
        "days/0000-00-00",
        "papers/x",
        "papers/x\ny",
        f"papers/{UUID(int=1)}",
        f"papers/{UUID(int=1)}/similar",
        f"papers/{UUID(int=1)}/signals",
    ],
)
def test_an_unknown_address_is_a_problem_too(client: Client, path: str) -> None:
    problem(client, f"{V1}/{path}", 404)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"])
def test_only_reading_is_allowed(method: str) -> None:
    client = Client(enforce_csrf_checks=True)
    for path in ("/", "/days", "/openapi.json"):
        response = client.generic(method, f"{V1}{path}")
        assert response.status_code == 405
        assert response["Allow"] == "GET, HEAD"
        assert response["Content-Type"] == "application/problem+json"


def test_head_answers_like_get_without_the_content(client: Client) -> None:
    make_paper()
    got, head = client.get(f"{V1}/papers"), client.head(f"{V1}/papers")
    assert (head.status_code, head.content) == (200, b"")
    assert (head["ETag"], head["Content-Type"]) == (got["ETag"], got["Content-Type"])


def test_every_site_may_ask_and_no_cookie_is_read(client: Client) -> None:
    for path in ("/papers", "/papers?x=1", "/nothing", "/openapi.json"):
        response = ask(
            client, V1 + path, Origin="https://elsewhere.example", Cookie="sessionid=" + "x" * 32
        )
        assert response["Access-Control-Allow-Origin"] == "*"
        assert "Access-Control-Allow-Credentials" not in response
        assert "Cookie" not in response.get("Vary", "")
        assert not response.cookies


# --- What it costs --------------------------------------------------------------------------------


def test_a_page_of_many_papers_asks_few_questions_of_the_database(
    client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    papers = [make_paper(f"Graph {n}", arxiv_id=f"2611.{n:05}") for n in range(30)]
    for paper in papers:
        make_signal(paper, 3)
    edition = make_frozen_edition(*papers, day=TODAY)
    make_frozen_edition(*papers[:3], day=YESTERDAY)
    # Each begins with SAVEPOINT and SET and ends with RELEASE.
    for path, queries in [
        ("/papers", 5),
        (f"/days/{edition.day}", 7),
        ("/days", 5),
        (f"/papers/{papers[0].uuid}", 6),
        (f"/papers/{papers[0].uuid}/signals", 5),
    ]:
        with django_assert_max_num_queries(queries):
            told(client, V1 + path)
    with django_assert_max_num_queries(0):
        told(client, f"{V1}/openapi.json")


def test_what_has_not_changed_is_not_sent_again(client: Client) -> None:
    edition = make_frozen_edition(make_paper("A"), make_paper("B"), day=TODAY)
    for path in (f"/days/{TODAY}", "/days", "/papers", "/openapi.json", "/categories", "/"):
        first = ask(client, V1 + path)
        again = ask(client, V1 + path, **{"If-None-Match": first["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert again["ETag"] == first["ETag"]
        assert again["Cache-Control"] == first["Cache-Control"]
        assert again["Access-Control-Allow-Origin"] == "*"
    known = ask(client, f"{V1}/days/{TODAY}")["ETag"]
    editions.curate(edition.candidates.get(paper__title="A"), EditionPaper.Curation.HIDDEN)
    changed = ask(client, f"{V1}/days/{TODAY}", **{"If-None-Match": known})
    assert changed.status_code == 200
    [place] = json.loads(changed.content)["places"]
    assert place["paper"]["title"] == "B"


def test_conditions_for_writing_are_not_those_of_a_reader(client: Client) -> None:
    make_paper()
    for path in ("/papers", "/openapi.json", "/papers?x=1"):
        plain = ask(client, V1 + path)
        for headers in (
            {"If-Match": '"x"'},
            {"If-Unmodified-Since": "Mon, 01 Jan 2001 00:00:00 GMT"},
            {"If-Match": '"x"', "If-None-Match": '"x"'},
        ):
            answer = ask(client, V1 + path, **headers)
            assert (answer.status_code, answer.content) == (plain.status_code, plain.content)
            assert answer.headers == plain.headers
    known = {"If-Match": '"x"', "If-None-Match": ask(client, f"{V1}/papers")["ETag"]}
    assert ask(client, f"{V1}/papers", **known).status_code == 304


def test_a_day_that_is_over_may_be_kept_longer(client: Client) -> None:
    for back, age in [(0, 300), (1, 300), (2, 3600)]:
        day = TODAY - timedelta(days=back)
        make_frozen_edition(make_paper(), day=day)
        assert ask(client, f"{V1}/days/{day}")["Cache-Control"] == f"public, max-age={age}"


def test_a_problem_is_kept_by_no_cache(client: Client) -> None:
    for path in ("/papers?x=1", "/nothing"):
        response = ask(client, V1 + path)
        assert "ETag" not in response
        assert "max-age" not in response.get("Cache-Control", "")


@pytest.mark.django_db(transaction=True)
def test_a_question_that_takes_too_long_is_given_up(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "LONGEST_QUESTION", 100)
    reach = connection.get_connection_params()
    wanted = {"host", "port", "user", "password", "dbname"}
    with psycopg.connect(**{name: reach[name] for name in wanted & reach.keys()}) as other:
        other.execute("LOCK TABLE papers_paper")
        response = ask(client, f"{V1}/papers")
    assert response.status_code == 503
    assert response["Retry-After"] == "60"
    assert response["Content-Type"] == "application/problem+json"
    assert told(client, f"{V1}/papers")["papers"] == []


# --- The description ------------------------------------------------------------------------------


def test_the_description_is_served_and_every_operation_is_there(client: Client) -> None:
    served = told(client, f"{V1}/openapi.json")
    assert served == openapi.description("Paperround", "http://testserver")
    paper = make_paper()
    make_frozen_edition(paper, day=TODAY)
    for path in served["paths"]:
        filled = path.format(uuid=paper.uuid, day=TODAY)
        told(client, filled + ("?q=x" if path.endswith("/search") else ""))


def test_the_page_for_people_names_every_operation_and_member(client: Client) -> None:
    response = client.get("/api/")
    body = response.content.decode()
    assert response.status_code == 200
    assert client.post("/api/").status_code == 405
    assert "<script" not in body
    for path, item in openapi.PATHS.items():
        assert f"GET {path}" in body
        for parameter in item["get"]["parameters"]:
            assert f"<code>{parameter['name']}</code>" in body
    ids = re.findall(r' id="([^"]+)"', body)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', body)) <= set(ids)
    assert body.count("<th ") == body.count("<th scope=")
