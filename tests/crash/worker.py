"""A process of the project that is forked for each case, with a tracer below the project's code.

It has imported and computed what any worker has after a minute. A child does one piece of the
day's work as production does it, and is struck before or after its nth step, where a step is a
statement or commit that psycopg is told, or a command that Redis is. Orders come as JSON, a line
each, on standard input; answers go to standard output.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import wraps
from importlib import import_module
from typing import Any

import psycopg
import redis
import time_machine

DAY = "2026-11-20"
FROZEN_AT = f"{DAY}T05:00:00+00:00"
READERS = ("alice@example.org", "bob@example.org", "carol@example.org")
CALM = "dora@example.org"  # follows nothing of the day: planned as skipped


def prepare() -> None:
    """The tables, an edition and its readers."""
    from django.core.management import call_command
    from django.utils import timezone

    from newsletter import learning
    from tests.factories import make_frozen_edition, make_paper, make_subscriber

    call_command("migrate", verbosity=0)
    with time_machine.travel(datetime.fromisoformat(FROZEN_AT), tick=True):
        day = timezone.now().date()
        papers = [
            make_paper(f"{subject} of the day", categories=["cs.LG"])
            for subject in ("Graphs", "Robots", "Galaxies")
        ]
        make_frozen_edition(*papers, day=day)
        slot = timezone.now() + timedelta(minutes=30)
        for address in READERS:
            make_subscriber(address, interests=("graphs",), next_send_at=slot)
        make_subscriber(CALM, muted_categories=["cs.LG"], next_send_at=slot)
        learning.fit()


def warm_up() -> None:
    """Plan and compose once, and take it back: nothing is loaded anew in each child."""
    from django.db import connections, transaction
    from django.utils import timezone

    from config.celery import app
    from newsletter import mail, picks
    from newsletter.models import Delivery
    from papers.models import Edition

    app.loader.import_default_modules()
    app.finalize()
    import_module("kombu.transport.redis")
    with (
        time_machine.travel(datetime.fromisoformat(FROZEN_AT), tick=True),
        suppress(_TakeBack),
        transaction.atomic(),
    ):
        picks.plan_everybody(Edition.objects.get(), timezone.now())
        planned = Delivery.objects.select_related("subscriber", "edition").filter(
            state=Delivery.State.PLANNED
        )
        assert len(planned) == len(READERS), "the cast is not what the matrix is about"
        for delivery in planned:
            mail.compose(delivery).message().as_bytes()
        raise _TakeBack
    connections.close_all()


class _TakeBack(Exception):
    pass


def plan() -> None:
    from django.utils import timezone

    from newsletter import picks

    picks.plan_due(timezone.now())


def send() -> None:
    from newsletter import delivery

    delivery.send_planned()


def tick() -> None:
    """Two tasks of beat, one after the other, each of which may fail alone."""
    from newsletter import tasks

    for task in (tasks.plan_due, tasks.send_planned):
        try:
            task()
        except Exception as error:  # Celery would log it; the next tick comes
            tell_of(error)


def plan_task() -> None:
    from newsletter import tasks

    tasks.plan_due()


WORK: dict[str, Callable[[], None]] = {
    "plan": plan, "send": send, "tick": tick, "plan_task": plan_task,
}  # fmt: skip


class Tracer:
    """Counts the steps of one child, tells of each, and strikes at one."""

    def __init__(self, order: dict[str, Any], tell: int) -> None:
        self.order = order
        self.tell = tell
        self.count = 0
        self.is_on = False
        self.backend = 0

    @contextmanager
    def step(self, kind: str, text: str, *, commits: bool = False) -> Iterator[None]:
        if not self.is_on or kind not in self.order["traced"]:
            yield
            return
        self.count += 1
        if self.order.get("observes"):
            before = self.ledger()
            yield
            after = self.ledger()
            moves = {f"{before.get(pk, '')} {after[pk]}" for pk in after if after != before}
            self.say([text, commits, sorted(moves)])
            return
        here = self.count == self.order.get("at")
        self.say(self.count)
        if here and self.order["when"] == "before":
            self.strike()
        yield
        if here and self.order["when"] == "after":
            self.strike()

    def say(self, what: object) -> None:
        with os.fdopen(os.dup(self.tell), "w") as pipe:
            pipe.write(json.dumps(what) + "\n")

    def ledger(self) -> dict[int, str]:
        """What others see of it: what is committed."""
        self.is_on = False
        with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as other:
            rows = other.execute("SELECT id, state FROM newsletter_delivery").fetchall()
        self.is_on = True
        return dict(rows)

    def strike(self) -> None:
        self.is_on = False
        match self.order["fault"]:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "end":
                self.end_backend()
            case "lose the answer":
                self.end_backend()
                raise psycopg.OperationalError("server closed the connection unexpectedly")
            case "cancel":
                raise psycopg.errors.QueryCanceled("canceling statement due to user request")
            case "disconnect":
                with redis.Redis.from_url(os.environ["REDIS_URL"]) as other:
                    other.client_kill_filter(_type="normal", skipme=True)
            case "flush":
                with redis.Redis.from_url(os.environ["REDIS_URL"]) as other:
                    other.flushall()
        self.is_on = True

    def end_backend(self) -> None:
        with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 10000)", [self.backend])

    def install(self) -> None:
        tracer = self

        def text_of(query: object) -> str:
            return query if isinstance(query, str) else str(query)

        def executing(original: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(original)
            def execute(cursor: Any, query: Any, params: Any = None, **options: Any) -> Any:
                alone = cursor.connection.autocommit
                with tracer.step("database", text_of(query), commits=alone):
                    return original(cursor, query, params, **options)

            return execute

        def copying(original: Callable[..., Any]) -> Callable[..., Any]:
            @contextmanager
            @wraps(original)
            def copy(cursor: Any, statement: Any, *rest: Any, **options: Any) -> Iterator[Any]:
                with (
                    tracer.step("database", str(statement)),
                    original(cursor, statement, *rest, **options) as rows,
                ):
                    yield rows

            return copy

        def committing(original: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(original)
            def commit(connection: Any) -> None:
                with tracer.step("database", "COMMIT", commits=True):
                    original(connection)

            return commit

        def asking(original: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(original)
            def send(connection: Any, command: Any, *rest: Any, **options: Any) -> Any:
                with tracer.step("redis", "a command"):
                    return original(connection, command, *rest, **options)

            return send

        for cursor in (psycopg.Cursor, psycopg.ServerCursor):
            cursor.execute = executing(cursor.execute)  # type: ignore[method-assign]
        psycopg.Cursor.copy = copying(psycopg.Cursor.copy)  # type: ignore[method-assign]
        psycopg.Connection.commit = committing(psycopg.Connection.commit)  # type: ignore[method-assign]
        kind = redis.connection.AbstractConnection
        kind.send_packed_command = asking(kind.send_packed_command)  # type: ignore[method-assign]


def run(order: dict[str, Any], tell: int) -> None:
    """One child's life."""
    from django.conf import settings
    from django.db import connection

    for name, value in order.get("settings", {}).items():
        setattr(settings, name, value)
    tracer = Tracer(order, tell)
    for clock in order["clocks"]:
        with time_machine.travel(datetime.fromisoformat(clock), tick=True):
            if order["traced"] and not tracer.is_on:
                connection.ensure_connection()
                tracer.backend = connection.connection.info.backend_pid
                tracer.install()
                tracer.is_on = True
            WORK[order["work"]]()


def start(order: dict[str, Any]) -> tuple[int, int]:
    """Fork a child for an order; returns its pid, and where it tells of its steps."""
    ear, mouth = os.pipe()
    pid = os.fork()
    if pid:
        os.close(mouth)
        return pid, ear
    ending = 1
    try:
        os.close(ear)
        os.dup2(2, 1)
        run(order, mouth)
        ending = 0
    except BaseException as error:
        tell_of(order, error)
    finally:
        os._exit(ending)  # neither the parent's handlers nor its buffers are a child's


def wait(pid: int, ear: int) -> dict[str, Any]:
    with os.fdopen(ear) as pipe:
        steps = [json.loads(line) for line in pipe]
    _, status = os.waitpid(pid, 0)
    return {"ending": os.waitstatus_to_exitcode(status), "steps": steps}


def answer(what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def tell_of(*what: object) -> None:
    """For whoever looks for why: most of it is as it should be."""
    sys.stderr.write(" ".join(map(repr, what)) + "\n")
    sys.stderr.flush()


def main() -> None:
    import django

    django.setup()
    prepare()
    warm_up()
    answer("ready")
    gc.collect()
    gc.freeze()  # a child that collects would copy every page it looks at
    children: dict[int, int] = {}
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            answer(wait(order["wait"], children.pop(order["wait"])))
        else:
            pid, ear = start(order)
            children[pid] = ear
            answer(pid)


if __name__ == "__main__":
    main()
