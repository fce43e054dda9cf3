"""Celery's doors to the activities of this app. Any of them may run twice or never."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from papers import editions


@shared_task
def freeze_due() -> None:
    editions.freeze_due(timezone.now())
