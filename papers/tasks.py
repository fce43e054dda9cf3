"""Celery's doors to the activities of this app. Any of them may run twice or never."""

from __future__ import annotations

import logging

from celery import shared_task
from django.utils import timezone

from papers import editions, embeddings, harvesting
from papers.encoders import EncoderError, EncoderMissing

log = logging.getLogger(__name__)

# Of each minute: the rest is for the last batch, and for whatever else waits for this worker.
ENCODE_SECONDS = 50.0


@shared_task
def harvest_due() -> None:
    harvesting.harvest_due(timezone.now())


@shared_task
def freeze_due() -> None:
    editions.freeze_due(timezone.now())


@shared_task
def encode_pending() -> None:
    try:
        embeddings.encode_pending(seconds=ENCODE_SECONDS)
    except EncoderMissing:
        return  # a choice; `manage.py check` tells of it, not the log of each minute
    except EncoderError as error:
        log.error("no paper can be encoded: %s", error)
