"""The project's Celery app with a beat that ticks each second instead of each minute."""

from __future__ import annotations

from config.celery import EVERY_MINUTE, app

for name in EVERY_MINUTE:
    app.conf.beat_schedule[name]["schedule"] = 1.0
