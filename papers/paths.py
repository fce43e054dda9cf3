"""Dates in paths: /papers/2026-11-20."""

from __future__ import annotations

from datetime import date

from django.urls import register_converter


class DayConverter:
    regex = r"\d{4}-\d{2}-\d{2}"

    def to_python(self, value: str) -> date:
        return date.fromisoformat(value)  # a ValueError means "no such page"

    def to_url(self, value: date) -> str:
        return value.isoformat()


register_converter(DayConverter, "day")
