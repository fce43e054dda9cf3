"""The same functions under a real Celery worker and a real Redis."""

from __future__ import annotations

import subprocess
import time

import pytest
from django.test import Client

from config.celery import EVERY_MINUTE, app
from newsletter.models import Delivery, Subscriber
from newsletter.tasks import plan_due, soon
from tests.factories import make_frozen_edition, make_paper, make_subscriber
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


@pytest.mark.parametrize("name", EVERY_MINUTE)
def test_every_tick_of_beat_names_a_task_that_exists(name: str) -> None:
    app.loader.import_default_modules()
    assert name in app.tasks
    assert app.conf.beat_schedule[name]["options"]["expires"] < 60
