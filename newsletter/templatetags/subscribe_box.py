"""The subscribe box that stands on every page."""

from __future__ import annotations

from django import template

register = template.Library()


@register.inclusion_tag("newsletter/subscribe_box.html")
def subscribe_box() -> dict[str, object]:
    return {}
