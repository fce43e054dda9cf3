"""Dates in paths: /papers/2026-11-20, /papers/week/2026-W47, /papers/month/2026-11."""

from __future__ import annotations

from datetime import date

from django.urls import register_converter


class DayConverter:
    regex = "[0-9]{4}-[0-9]{2}-[0-9]{2}"

    def to_python(self, value: str) -> date:
        return date.fromisoformat(value)  # a ValueError means "no such page"

    def to_url(self, value: date) -> str:
        return value.isoformat()


class WeekConverter:
    """A week by ISO 8601, as its Monday."""

    regex = "[0-9]{4}-W[0-9]{2}"

    def to_python(self, value: str) -> date:
        return date.fromisocalendar(int(value[:4]), int(value[6:]), 1)

    def to_url(self, value: date) -> str:
        year, week, _ = value.isocalendar()
        return f"{year:04}-W{week:02}"


class MonthConverter:
    """A month, as its first day."""

    regex = "[0-9]{4}-[0-9]{2}"

    def to_python(self, value: str) -> date:
        return date(int(value[:4]), int(value[5:]), 1)

    def to_url(self, value: date) -> str:
        return value.isoformat()[:7]  # %Y has no leading zeros


register_converter(DayConverter, "day")
register_converter(WeekConverter, "week")
register_converter(MonthConverter, "month")
