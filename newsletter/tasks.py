"""Celery's doors to the activities of this app. Any of them may run twice or never."""

from __future__ import annotations

import logging

from celery import Task, shared_task
from django.utils import timezone
from kombu.exceptions import OperationalError

from newsletter import delivery, picks, subscriptions

log = logging.getLogger(__name__)


@shared_task
def send_confirmations() -> None:
    subscriptions.send_answers()
    subscriptions.forget_unconfirmed(timezone.now())


@shared_task
def plan_due() -> None:
    if picks.plan_due(timezone.now()):
        soon(send_planned)


@shared_task
def send_planned() -> None:
    delivery.send_planned()


def soon(task: Task[[], None]) -> None:
    """Ask a worker to run `task` now; without a broker, the next tick of beat does."""
    try:
        task.delay()
    except OperationalError:
        log.warning("Redis is away: %s waits for the next tick", task.name)
