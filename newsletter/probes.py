"""/healthz and /readyz, for whatever watches the processes.

A middleware before all others, because a load balancer asks by plain http and names any host or
none: neither ALLOWED_HOSTS nor the redirect to https stands in its way. That is safe here: the
answers hold no link, no secret and nothing of the request.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import psycopg
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, JsonResponse
from redis import RedisError

from newsletter.health import redis

PROBE_SECONDS = 2
PROBES_AT_ONCE = 8  # of one process; more would only wait behind the same silence

Respond = Callable[[HttpRequest], HttpResponse]


def answer_probes(get_response: Respond) -> Respond:
    """The middleware."""
    answers = {"/healthz": healthz, "/readyz": readyz}

    def respond(request: HttpRequest) -> HttpResponse:
        answer = answers.get(request.path_info)
        if answer is None:
            return get_response(request)
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        response = answer()
        response["Cache-Control"] = "no-store"
        return response

    return respond


def healthz() -> HttpResponse:
    """The process answers. Nothing else is asked: a lost database is no reason to restart it."""
    return JsonResponse({"status": "ok"})


def readyz() -> HttpResponse:
    """Whether a request that needs the database and Redis would be served."""
    checks = readiness()
    ready = all(said == "ok" for said in checks.values())
    body = {"status": "ok" if ready else "unavailable", "checks": checks}
    return JsonResponse(body, status=200 if ready else 503)


# --- Probes ---------------------------------------------------------------------------------------

_probing = threading.BoundedSemaphore(PROBES_AT_ONCE)


def readiness() -> dict[str, str]:
    """The checks of /readyz: "ok", or in a word why not. Never slower than PROBE_SECONDS."""
    parameters = connection.get_connection_params()
    return within({"database": lambda: _probe_database(parameters), "redis": _probe_redis})


def within(probes: dict[str, Callable[[], str]]) -> dict[str, str]:
    """What each probe says, all asked at once.

    A server that accepts and then is silent is not waited for. No setting of libpq's bounds that,
    so the question is left behind in a thread of its own.
    """
    said = dict.fromkeys(probes, "no answer in time")

    def ask(name: str) -> None:
        try:
            said[name] = probes[name]()
        finally:
            _probing.release()

    threads = []
    for name in probes:
        if _probing.acquire(blocking=False):
            threads.append(threading.Thread(target=ask, args=[name], daemon=True))
        else:
            said[name] = "no answer to earlier questions"
    for thread in threads:
        thread.start()
    end = time.monotonic() + PROBE_SECONDS + 0.5  # what waits by itself may say so first
    for thread in threads:
        thread.join(max(end - time.monotonic(), 0))
    return dict(said)


def _probe_database(parameters: dict[str, Any]) -> str:
    """By a connection of its own: the one in hand may be a broken one."""
    wanted = {
        "host", "port", "user", "password", "dbname", "service", "passfile", "sslmode",
        "sslrootcert", "sslcert", "sslkey",
    }  # fmt: skip
    reach = {name: value for name, value in parameters.items() if name in wanted}
    try:
        with psycopg.connect(**reach, connect_timeout=PROBE_SECONDS) as database:
            rows = database.execute("SELECT app, name FROM django_migrations").fetchall()
    except psycopg.errors.UndefinedTable:
        return "not migrated"
    except psycopg.Error:
        return "unreachable"  # its own words name hosts and users
    return "ok" if newest_migrations() <= set(rows) else "not migrated"


@lru_cache(maxsize=1)
def newest_migrations() -> frozenset[tuple[str, str]]:
    """The last migration of each app, as far as this code goes."""
    return frozenset(MigrationLoader(None).graph.leaf_nodes())


def _probe_redis() -> str:
    try:
        with redis() as server:
            server.ping()
    except RedisError:
        return "unreachable"
    return "ok"
