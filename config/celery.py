"""The Celery app and its beat.

Beat ticks in UTC and only asks; the database decides what is due. Each tick expires before the
next one is due, so a worker that was away finds no pile of them.
"""

from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("paperround")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

EVERY_MINUTE = [
    "papers.tasks.freeze_due",
    "papers.tasks.encode_pending",
    "newsletter.tasks.send_confirmations",
    "newsletter.tasks.plan_due",
    "newsletter.tasks.send_planned",
]
app.conf.beat_schedule = {
    name: {"task": name, "schedule": 60.0, "options": {"expires": 55}} for name in EVERY_MINUTE
}
