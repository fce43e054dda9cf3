"""Celery's doors to the activities of this app. Any of them may run twice or never."""

from __future__ import annotations

import logging

from celery import Task, shared_task
from django.conf import settings
from django.utils import timezone
from kombu.exceptions import OperationalError

from newsletter import (
    alerts,
    delivery,
    events,
    health,
    learning,
    picks,
    retention,
    sign_in,
    submissions,
    subscriptions,
)

log = logging.getLogger(__name__)


@shared_task
def send_confirmations() -> None:
    subscriptions.send_answers()
    subscriptions.forget_unconfirmed(timezone.now())


@shared_task
def send_sign_in_links() -> None:
    sign_in.send_links()
    sign_in.forget_requests(timezone.now())


@shared_task
def fit_ranking() -> None:
    learning.fit_due(timezone.now())


@shared_task
def plan_due() -> None:
    if picks.more_are_due(timezone.now()):
        soon(plan_due)  # a worker that has nothing to do takes a share: who is locked is skipped
    if picks.plan_due(timezone.now()):
        soon(send_planned)


@shared_task
def send_planned() -> None:
    with delivery.turn() as is_ours:
        if not is_ours:
            return
        if settings.SEND_PROCESSES > 1 and delivery.more_is_ready(timezone.now()):
            soon(send_planned)  # for another one's turn
        is_left = delivery.send_planned(seconds=delivery.RUN_SECONDS).is_left
    if is_left:
        soon(send_planned)  # behind whatever waits


@shared_task
def process_events() -> None:
    events.process_pending()


@shared_task
def watch() -> None:
    now = timezone.now()
    health.tick(now)
    health.alert_operators(now)


@shared_task
def answer(token: str) -> None:
    """What the doctor asks a worker, to see that it works."""
    health.answer(token)


@shared_task
def fetch_submitted() -> None:
    submissions.fetch_waiting(timezone.now())


@shared_task
def send_alerts() -> None:
    alerts.send_waiting(timezone.now())


@shared_task
def prune() -> None:
    retention.prune(timezone.now())


def soon(task: Task[[], None]) -> None:
    """Ask a worker to run `task` now; without a broker, the next tick of beat does."""
    try:
        task.delay()
    except OperationalError:
        log.warning("Redis is away: %s waits for the next tick", task.name)
