"""The same functions under a real Celery worker and a real Redis."""

from __future__ import annotations

import subprocess
import time
from contextlib import closing
from threading import Barrier, Thread

import pytest
from django.db import connection
from django.test import Client
from pytest_django import Settings

from config.celery import EVERY_MINUTE, app
from newsletter import delivery, doctor
from newsletter.findings import Level
from newsletter.models import Delivery, Subscriber
from newsletter.tasks import answer, plan_due, send_planned, soon
from tests.factories import make_delivery, make_frozen_edition, make_paper, make_subscriber
from tests.newsletter.conftest import worker_at
from tests.newsletter.test_provider import Server
from tests.smtp import SmtpServer

pytestmark = pytest.mark.django_db(transaction=True)


def wait_until(condition: object, seconds: float = 30) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the worker did not do it in time"
        time.sleep(0.1)


def test_a_worker_plans_and_sends_what_is_due(
    worker: subprocess.Popen[bytes], smtp: SmtpServer
) -> None:
    make_frozen_edition(make_paper("Linear attention"))
    make_subscriber("alice@example.org")
    make_subscriber("bob@example.org")
    soon(plan_due)
    soon(plan_due)
    wait_until(lambda: Delivery.objects.filter(state=Delivery.State.SENT).count() == 2)
    assert smtp.count() == {"alice@example.org": 1, "bob@example.org": 1}


def test_a_sign_up_is_answered_by_the_worker(
    worker: subprocess.Popen[bytes], smtp: SmtpServer, client: Client
) -> None:
    form = {"address": "carol@example.org", "words": "graphs", "time_zone": "UTC", "send_hour": "7"}
    assert client.post("/subscribe/", form).status_code == 302
    wait_until(lambda: smtp.to("carol@example.org"))
    assert Subscriber.objects.get().state == Subscriber.State.PENDING


def test_while_one_process_sends_slowly_the_other_does_everything_else() -> None:
    addresses = [f"reader{n}@example.org" for n in range(40)]
    paper = make_paper("Linear attention")
    edition = make_frozen_edition(paper)
    for address in addresses:
        make_delivery(make_subscriber(address), paper, edition=edition)
    sent = Delivery.objects.filter(state=Delivery.State.SENT)
    with (
        closing(Server()) as server,
        worker_at(server.port, concurrency=2, SEND_BATCH_SIZE="5"),
    ):
        server.delays = dict.fromkeys(addresses, 0.3)
        for _ in range(3):  # as many ticks of beat
            send_planned.delay()
        wait_until(sent.exists)
        for _ in range(2):
            answered = doctor.round_trip(answer.delay, seconds=4)
            assert answered.level == Level.OK
        assert sent.count() < 40
        wait_until(lambda: sent.count() == 40)
    assert len(server.contents) == 40


def test_a_run_that_ends_in_its_time_asks_for_the_next(
    smtp: SmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    paper = make_paper("Linear attention")
    make_delivery(make_subscriber(), paper, edition=make_frozen_edition(paper))
    app.control.purge()
    with monkeypatch.context() as patch:
        patch.setattr(delivery, "RUN_SECONDS", 0)
        send_planned()
    assert smtp.messages == []
    assert app.control.purge() == 1
    send_planned()
    assert len(smtp.messages) == 1
    assert app.control.purge() == 0


@pytest.mark.parametrize(("processes", "expected"), [(1, 1), (2, 2)])
def test_as_many_send_at_once_as_are_set(settings: Settings, processes: int, expected: int) -> None:
    settings.SEND_PROCESSES = processes
    at_once = []

    def take(wait: Barrier) -> None:
        try:
            with delivery.turn() as is_ours:
                at_once.append(is_ours)
                wait.wait(20)
        finally:
            connection.close()

    barrier = Barrier(3)
    threads = [Thread(target=take, args=[barrier]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(at_once) == expected
    with delivery.turn() as is_ours:  # each was given back
        assert is_ours


@pytest.mark.parametrize("name", EVERY_MINUTE)
def test_every_tick_of_beat_names_a_task_that_exists(name: str) -> None:
    app.loader.import_default_modules()
    assert name in app.tasks
    assert app.conf.beat_schedule[name]["options"]["expires"] < 60
