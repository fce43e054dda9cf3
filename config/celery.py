"""The Celery app and its beat.

Beat ticks in UTC and only asks; the database decides what is due. Each tick expires before the
next one is due, so a worker that was away finds no pile of them.
"""

from __future__ import annotations

import os

from celery import Celery
from celery.schedules import crontab

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("paperround")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

EVERY_MINUTE = [
    "papers.tasks.harvest_due",
    "papers.tasks.freeze_due",
    "papers.tasks.encode_pending",
    "newsletter.tasks.send_confirmations",
    "newsletter.tasks.fit_ranking",
    "newsletter.tasks.plan_due",
    "newsletter.tasks.send_planned",
    "newsletter.tasks.process_events",
    "newsletter.tasks.send_alerts",
    "newsletter.tasks.watch",
]
app.conf.beat_schedule = {
    name: {"task": name, "schedule": 60.0, "options": {"expires": 55}} for name in EVERY_MINUTE
} | {
    # In UTC, like everything here: before the usual freeze, when the last edition has reached
    # nearly everybody. A day that is missed costs nothing: the next run does more.
    "newsletter.tasks.prune": {
        "task": "newsletter.tasks.prune",
        "schedule": crontab(hour="2", minute="20"),
        "options": {"expires": 3600},
    }
}
