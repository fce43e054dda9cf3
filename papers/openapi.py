"""What the API offers, as an OpenAPI 3.1 description.

The one source: papers/api.py reads from it what each operation takes, the page /api/ shows it, and
/api/v1/openapi.json serves it. No Django.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

TEXT = "^[^\\x00-\\x1f\\x7f]+$"  # one line, without control characters
ARXIV_ID = (
    "^([0-9]{2}(0[1-9]|1[0-2])\\.[0-9]{4,5}"
    "|[a-z]+(-[a-z]+)?(\\.[A-Za-z-]+)?/[0-9]{2}(0[1-9]|1[0-2])[0-9]{3})(v[1-9][0-9]{0,2})?$"
)
DOI = "^10\\.[0-9]{4,9}(\\.[0-9]+)*/[!-~]+$"
# A day's ordinal and a row: whatever fits the pattern is a place in the list.
CURSOR = "^[0-9]{1,7}\\.[0-9]{1,18}$"
MOST_PAGES = 100


def _number(least: int, most: int, default: int) -> Json:
    return {"type": "integer", "minimum": least, "maximum": most, "default": default}


def _text(most: int) -> Json:
    return {"type": "string", "minLength": 1, "maxLength": most, "pattern": TEXT}


def _parameter(name: str, description: str, schema: Json, *, required: bool = False) -> Json:
    return {
        "name": name,
        "in": "query",
        "description": description,
        "required": required,
        "schema": schema,
    }


def _in_path(name: str, description: str, format: str) -> Json:
    schema = {"type": "string", "format": format}
    return {
        "name": name, "in": "path", "description": description, "required": True, "schema": schema
    }  # fmt: skip


SINCE = _parameter("since", "Listed on this day or later.", {"type": "string", "format": "date"})
UNTIL = _parameter("until", "Listed on this day or earlier.", {"type": "string", "format": "date"})
CATEGORY = _parameter("category", "A category's code, such as cs.LG.", _text(64))
AUTHOR = _parameter("author", "An author's full name.", _text(200))
CURSOR_OF_LIST = _parameter(
    "cursor",
    "Where the list goes on. Not to be made by hand: take links.next of the page before.",
    {"type": "string", "pattern": CURSOR, "examples": ["739940.1"]},
)
PAGE = _parameter("page", "Which page, from 1.", _number(1, MOST_PAGES, 1))
DAY = _in_path("day", "A day, such as 2026-11-20.", "date")
UUID = _in_path("uuid", "A paper's uuid.", "uuid")


def _limit(most: int, default: int) -> Json:
    return _parameter("limit", "How many at most.", _number(1, most, default))


# --- Schemas --------------------------------------------------------------------------------------


def _string(description: str = "", format: str = "", *, null: bool = False) -> Json:
    schema: Json = {"type": ["string", "null"] if null else "string"}
    return {
        **schema,
        **({"format": format} if format else {}),
        **({"description": description} if description else {}),
    }


def _list(of: Json, description: str = "") -> Json:
    return {"type": "array", "items": of} | ({"description": description} if description else {})


def _object(description: str, properties: Json) -> Json:
    """All of its properties are always there, and no others."""
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _links(**links: str) -> Json:
    """Addresses; null where there is no such page."""
    return _object(
        "Addresses.",
        {name: _string(description, null=name == "next") for name, description in links.items()},
    )


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


COUNT = {"type": "integer", "minimum": 0}
SHARE = {"type": "number", "minimum": 0, "maximum": 1}
NEXT = "The next page; null on the last one."

SCHEMAS: Json = {
    "Counter": _object(
        "A counter of a paper as one source told it at one time.",
        {
            "counter": {"type": "string", "enum": ["upvotes", "comments", "stars"]},
            "source": _string("Such as huggingface; paperround: the readers here."),
            "value": COUNT,
            "observed_at": _string(format="date-time"),
        },
    ),
    "Paper": _object(
        "One scholarly work; its versions are the same paper. What is not known is null.",
        {
            "uuid": _string("Its name here, for ever.", "uuid"),
            "arxiv_id": _string("Without version.", null=True),
            "doi": _string(null=True),
            "title": _string(),
            "abstract": _string(null=True),
            "authors": _list(_string()),
            "categories": _list(_string(), "The primary one first."),
            "keywords": _list(_string()),
            "published_on": _string(format="date", null=True),
            "listing_day": _string(
                "The day its source listed it, else of its import here.", "date"
            ),
            "withdrawn_on": _string("Since when its source has it no more.", "date", null=True),
            "versions": _list(
                _object(
                    "One version.",
                    {"number": {"type": "integer"}, "on": _string(format="date", null=True)},
                ),
                "The first one first.",
            ),
            "url": _string("Where its abstract stands at the source.", null=True),
            "pdf_url": _string(null=True),
            "code_url": _string(null=True),
            "project_url": _string(null=True),
            "thumbnail_url": _string(null=True),
            "summary": _string("One that summary_source wrote; not the abstract.", null=True),
            "summary_source": _string(null=True),
            "organisation": _string(null=True),
            "submitter": _string("Who named it to its source.", null=True),
            "comment": _string("The authors' own, as at arXiv.", null=True),
            "journal_ref": _string(null=True),
            "licence": _string("The address of its text.", null=True),
            "sources": _list(_string(), "All that named this paper."),
            "counters": _list(_ref("Counter"), "The newest of each counter and source."),
            "updated_at": _string("When this description last changed.", "date-time"),
            "links": _links(
                self="This paper here.",
                page="Its page for people.",
                similar="Papers close in meaning.",
                signals="How its counters grew.",
            ),
        },
    ),
    "Appearance": _object(
        "A paper on the list of one day.",
        {
            "day": _string(format="date"),
            "pinned": {"type": "boolean"},
            "note": _string("The editors' word.", null=True),
            "trend": SHARE,
            "links": _links(day="The list of that day."),
        },
    ),
    "PaperInFull": _object(
        "A paper and the lists that had it.",
        {"paper": _ref("Paper"), "appearances": _list(_ref("Appearance"))},
    ),
    "Day": _object(
        "The list of one day. It does not change any more, except by an editor's hand.",
        {
            "day": _string(format="date"),
            "state": {"type": "string", "enum": ["frozen", "empty"]},
            "reason": _string("Why there is nothing.", null=True),
            "papers": {**COUNT, "description": "How many there are."},
            "frozen_at": _string(format="date-time"),
            "changed_at": _string(format="date-time"),
            "links": _links(
                self="This day here.", page="Its page for people.", feed="Its Atom feed."
            ),
        },
    ),
    "Place": _object(
        "A paper's place on the list of a day.",
        {
            "place": {"type": "integer", "minimum": 1},
            "pinned": {"type": "boolean", "description": "The editors put it first."},
            "note": _string("The editors' word.", null=True),
            "trend": {**SHARE, "description": "Within this day."},
            "trend_terms": {
                "type": "object",
                "description": "Of each counter: its count, gain, and percentiles, as known when "
                "the list was made.",
                "additionalProperties": {
                    "type": "object", "additionalProperties": {"type": ["number", "null"]}
                },
            },
            "paper": _ref("Paper"),
        },
    ),
    "DayInFull": _object(
        "The list of one day, a page of it.",
        {
            "day": _ref("Day"),
            "places": _list(_ref("Place")),
            "links": _links(self="This page.", next=NEXT),
        },
    ),
    "Days": _object(
        "Days, the newest first.",
        {"days": _list(_ref("Day")), "links": _links(self="This page.", next=NEXT)},
    ),
    "Papers": _object(
        "Papers, a page of them.",
        {"papers": _list(_ref("Paper")), "links": _links(self="This page.", next=NEXT)},
    ),
    "Found": _object(
        "Papers for a query, the best first.",
        {
            "papers": _list(_ref("Paper")),
            "direct": {
                "type": "boolean", "description": "The query was the identifier of this paper."
            },
            "corrected": _string("The query as it was understood, if not as typed.", null=True),
            "links": _links(self="This page.", next=NEXT),
        },
    ),
    "Similar": _object("Papers close in meaning, the closest first.", {
        "papers": _list(_ref("Paper")), "links": _links(self="This list.")}),
    "Signals": _object(
        "What was counted, the newest first.",
        {"signals": _list(_ref("Counter")), "links": _links(self="This list.")},
    ),
    "Category": _object(
        "A category of arXiv.",
        {
            "code": _string(),
            "name": _string(),
            "links": _links(papers="Its papers.", feed="Its Atom feed."),
        },
    ),
    "Categories": _object(
        "The categories of arXiv.",
        {"categories": _list(_ref("Category")), "links": _links(self="This list.")},
    ),
    "Index": _object(
        "Where to begin.",
        {
            "links": _links(
                days="The lists.", papers="All papers.", categories="The categories.",
                description="This API, for programs.", documentation="This API, for people.",
            )
        },
    ),
    "Problem": {
        "type": "object",
        "description": "What is wrong, as in RFC 9457.",
        "properties": {
            "type": {"type": "string", "const": "about:blank"},
            "title": _string(),
            "status": {"type": "integer"},
            "detail": _string("What is wrong, and what to do."),
            "errors": _list(
                _object("One parameter.", {"parameter": _string(), "detail": _string()})
            ),
        },
        "required": ["type", "title", "status", "detail"],
        "additionalProperties": False,
    },
}  # fmt: skip


# --- Operations -----------------------------------------------------------------------------------

PROBLEMS = {
    "400": "A parameter is unknown, named twice, or out of range.",
    "404": "There is no such thing.",
    "503": "The question took too long to answer.",
}


def _get(
    operation: str,
    summary: str,
    schema: str,
    *parameters: Json,
    description: str = "",
) -> Json:
    def problem(text: str) -> Json:
        return {
            "description": text,
            "content": {"application/problem+json": {"schema": _ref("Problem")}},
        }

    missing = any(parameter["in"] == "path" for parameter in parameters)
    return {
        "get": {
            "operationId": operation,
            "summary": summary,
            **({"description": description} if description else {}),
            "parameters": list(parameters),
            "responses": {
                "200": {
                    "description": SCHEMAS[schema]["description"],
                    "headers": {
                        "ETag": {"schema": {"type": "string"}, "description": "For If-None-Match."},
                        "Cache-Control": {"schema": {"type": "string"}},
                    },
                    "content": {"application/json": {"schema": _ref(schema)}},
                },
                **(
                    {"301": {"description": "It turned out to be another paper, which is there."}}
                    if UUID in parameters
                    else {}
                ),
                "304": {"description": "What you have is what there is."},
                **{
                    code: problem(text)
                    for code, text in PROBLEMS.items()
                    if code != "404" or missing
                },
            },
        }
    }


PATHS: Json = {
    "/api/v1/": _get("index", "Where to begin", "Index"),
    "/api/v1/days": _get(
        "days", "The days that have a list", "Days", CURSOR_OF_LIST, _limit(100, 30),
        description="The newest first. A day that had no papers says why.",
    ),
    "/api/v1/days/{day}": _get(
        "day", "The list of a day", "DayInFull", DAY, PAGE, _limit(200, 100),
        description="In the order of its page: what the editors pinned, then the trend.",
    ),
    "/api/v1/papers": _get(
        "papers", "All papers, or those that pass the filters", "Papers",
        _parameter(
            "arxiv_id", "An arXiv id; a version is ignored.",
            {
                "type": "string", "maxLength": 40, "pattern": ARXIV_ID,
                "examples": ["2505.24864", "math/0211159"],
            },
        ),
        _parameter("doi", "A DOI.", {
            "type": "string", "maxLength": 255, "pattern": DOI, "examples": ["10.1000/182"]
        }),
        SINCE, UNTIL, CATEGORY, AUTHOR, CURSOR_OF_LIST, _limit(100, 50),
        description="By listing day, the newest first. Withdrawn papers are among them.",
    ),
    "/api/v1/papers/{uuid}": _get("paper", "A paper", "PaperInFull", UUID),
    "/api/v1/papers/{uuid}/similar": _get(
        "similar", "Papers close in meaning", "Similar", UUID, _limit(50, 10)
    ),
    "/api/v1/papers/{uuid}/signals": _get(
        "signals", "How a paper's counters grew", "Signals", UUID, _limit(1000, 200)
    ),
    "/api/v1/search": _get(
        "search", "Papers for a query", "Found",
        _parameter(
            "q", "Words, a \"phrase\", a -word to leave out, or an arXiv id or DOI.", _text(500),
            required=True,
        ),
        SINCE, UNTIL, CATEGORY, AUTHOR, PAGE, _limit(50, 20),
    ),
    "/api/v1/categories": _get("categories", "The categories", "Categories"),
}  # fmt: skip

DESCRIPTION = """\
What this site shows, for programs. Only GET and HEAD; no key is needed. All text is UTF-8, days \
and times are ISO 8601 in UTC. Every answer has an ETag: send it back as If-None-Match, and what \
has not changed is not sent again. An unknown parameter is an error, so that a slip of the pen is \
no empty filter. Lists go on at links.next. Please ask one question at a time, and keep answers \
as long as Cache-Control says."""


def description(site_name: str, site_url: str) -> Json:
    """The whole description, as this site serves it."""
    return {
        "openapi": "3.1.0",
        "info": {"title": f"{site_name} API", "version": "1", "description": DESCRIPTION},
        "servers": [{"url": site_url}],
        "paths": PATHS,
        "components": {"schemas": SCHEMAS},
    }


def parameters_of(operation: str) -> dict[str, Json]:
    """By name, what an operation takes in the query."""
    for path in PATHS.values():
        if path["get"]["operationId"] == operation:
            taken = path["get"]["parameters"]
            return {each["name"]: each for each in taken if each["in"] == "query"}
    raise KeyError(operation)


# --- The same in words, for the page --------------------------------------------------------------


def questions() -> list[Json]:
    told = []
    for path, item in PATHS.items():
        asked = item["get"]
        [content] = asked["responses"]["200"]["content"].values()
        told.append(
            {
                **asked,
                "path": path,
                "answer": kind(content["schema"]),
                "parameters": [
                    {**parameter, "kind": kind(parameter["schema"])}
                    for parameter in asked["parameters"]
                ],
            }
        )
    return told


def answers() -> list[Json]:
    return [
        {
            "name": name,
            "description": schema["description"],
            "members": [
                {"name": name, "kind": kind(of), "description": of.get("description", "")}
                for name, of in schema["properties"].items()
            ],
        }
        for name, schema in SCHEMAS.items()
    ]


def kind(schema: Json) -> str:
    """What a value is, in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema:
        return " or ".join(schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    plain = "whole number" if types[0] == "integer" else str(types[0])
    words = [str(schema.get("format", plain))]
    if words == ["array"]:
        words = [f"list of {kind(schema['items'])}"]
    if words == ["object"] and "properties" in schema:
        words = ["object of " + ", ".join(schema["properties"])]
    if "maximum" in schema:
        words.append(f"from {schema['minimum']} to {schema['maximum']}")
    if "maxLength" in schema:
        words.append(f"of at most {schema['maxLength']} characters")
    if "default" in schema:
        words.append(f"({schema['default']} if not named)")
    return " ".join(words) + (" or null" if "null" in types else "")
