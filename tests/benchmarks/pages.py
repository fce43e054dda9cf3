"""What a page costs: the server's time and the bytes, beside a page that does nothing.

Each is asked through the WSGI application, as a web server asks it, with a database of 20,000
papers; the day has 100 papers, each counted 40 times.
"""

from __future__ import annotations

import gzip
import random
import re
import statistics
import time
from datetime import timedelta
from io import BytesIO
from typing import Any
from urllib.parse import quote, unquote

from django.conf import settings
from django.db import connection
from django.test.utils import override_settings, setup_databases, teardown_databases
from django.utils import timezone

RUNS = 60
ARCHIVE, DAYS, A_DAY, COUNTED = 20_000, 40, 100, 40
CODES = ("cs.LG", "cs.CL", "cs.CV", "stat.ML", "math.PR", "quant-ph")
SENTENCES, WORDS, TITLE_WORDS = 7, 22, 10  # of an abstract; about as long as they are
AUTHORS = ["Ada Alvarez", "Bo Berg", "Chinua Adeyemi", "Dana Dvořák", "Emre Eren", "Fei Feng"]


def main() -> None:
    connection.settings_dict["TEST"]["NAME"] = "bench_paperround_pages"
    databases = setup_databases(verbosity=0, interactive=False, serialized_aliases=[])
    plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}  # none collected
    try:
        with override_settings(STORAGES={**settings.STORAGES, "staticfiles": plain}):
            report(fill())
    finally:
        connection.close()
        teardown_databases(databases, verbosity=0)


def report(paths: dict[str, str]) -> None:
    from config.wsgi import application

    print(  # noqa: T201
        f"Pages: {A_DAY} papers a day of {ARCHIVE:,}; medians of {RUNS}; "
        "bytes of a page and, in brackets, with the styles and the icon that it loads"
    )
    bare = 0.0
    for name, path in paths.items():
        milliseconds, body, packed = measure(application, path)
        bare = bare or milliseconds
        rest = loaded(body)
        print(  # noqa: T201
            f"  {name:22} {milliseconds:6.1f} ms {milliseconds / bare:6.1f} of the first   "
            f"{kilobytes([body])} ({kilobytes([body, *rest])}) plain, "
            f"{kilobytes([packed])} ({kilobytes([packed, *map(gzip.compress, rest)])}) sent"
        )


def loaded(body: bytes) -> list[bytes]:
    static = settings.BASE_DIR / "config" / "static"
    names = re.findall(r'(?:href|src)="/static/([^"]+)"', body.decode())
    return [(static / name).read_bytes() for name in sorted(set(names))]


def kilobytes(parts: Any) -> str:
    return f"{sum(map(len, parts)) / 1000:.1f} kB"


def measure(application: Any, path: str) -> tuple[float, bytes, bytes]:
    """Median milliseconds, the page, and what is sent of it to a browser that takes gzip."""
    plain, packed = ask(application, path, ""), b""
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        packed = ask(application, path, "gzip")
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds), plain, packed


def ask(application: Any, path: str, encoding: str) -> bytes:
    status: list[str] = []
    path, _, query = path.partition("?")
    environ = {
        "REQUEST_METHOD": "GET", "PATH_INFO": unquote(path), "QUERY_STRING": query,
        "SCRIPT_NAME": "",
        "SERVER_NAME": "testserver", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "testserver", "HTTP_ACCEPT_ENCODING": encoding, "REMOTE_ADDR": "127.0.0.1",
        "wsgi.input": BytesIO(), "wsgi.url_scheme": "http", "wsgi.errors": BytesIO(),
    }  # fmt: skip
    answer = application(environ, lambda line, headers, error=None: status.append(line))
    body = b"".join(answer)
    answer.close()
    assert status[0].startswith("200"), f"{path}: {status}"
    return body


def text(rng: random.Random, words: int) -> str:
    """Made-up words: a text that repeats itself would be packed smaller than a real one."""
    return " ".join(
        "".join(rng.choice("bdfgklmnprst") + rng.choice("aeiou") for _ in range(rng.randint(1, 5)))
        for _ in range(words)
    ).capitalize()


def abstract(rng: random.Random) -> str:
    """Its third sentence is the key one, as in many an abstract."""
    said = [text(rng, WORDS) for _ in range(SENTENCES)]
    return ". ".join([*said[:2], f"We propose {said[2].lower()}", *said[3:], ""]).strip()


def fill() -> dict[str, str]:
    from papers.models import Edition, EditionPaper, Paper, Signal

    rng = random.Random(0)
    now = timezone.now()
    today = now.date()
    papers = Paper.objects.bulk_create(
        [
            Paper(
                title=f"{text(rng, TITLE_WORDS)} {n}",
                title_key=f"reading {n}",
                abstract=abstract(rng),
                authors=[f"{name} {rng.randrange(9_999)}" for name in AUTHORS],
                categories=[CODES[n % 6], CODES[(n + 1) % 6]],
                arxiv_id=f"{2500 + n // 10_000}.{n % 10_000:05}",
                code_url=f"https://code.example/{n}" if n % 3 == 0 else "",
                listing_day=today - timedelta(days=n // A_DAY),
                sources=["arxiv"],
            )
            for n in range(ARCHIVE)
        ],
        batch_size=2_000,
    )
    for back in range(DAYS):
        edition = Edition.objects.create(
            day=today - timedelta(days=back), state="frozen", frozen_at=now, changed_at=now
        )
        listed = papers[back * A_DAY : (back + 1) * A_DAY]
        EditionPaper.objects.bulk_create(
            EditionPaper(edition=edition, paper=paper, trend=1 - place / A_DAY)
            for place, paper in enumerate(listed)
        )
        Signal.objects.bulk_create(
            [
                Signal(
                    paper=paper,
                    source="huggingface",
                    counter=counter,
                    value=time * (place % 17),
                    observed_at=now - timedelta(hours=2 * (COUNTED - time)),
                )
                for place, paper in enumerate(listed)
                for counter in Signal.Counter.values
                for time in range(COUNTED)
            ],
            batch_size=5_000,
        )
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE papers_paper, papers_signal, papers_editionpaper")
    return {
        "a page that does nothing": "/robots.txt",
        "the day": "/",
        "its week": f"/papers/week/{today:%G-W%V}",
        "the top": "/papers/top",
        "a paper": papers[0].get_absolute_url(),
        "an author": f"/authors/{quote(papers[0].authors[0])}",
        "a category": "/categories/cs.LG",
        "all categories": "/categories/",
    }
