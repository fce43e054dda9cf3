"""The subscribe box that stands on every page."""

from __future__ import annotations

from django import template
from django.template import Context

from newsletter import sign_in

register = template.Library()


@register.inclusion_tag("newsletter/subscribe_box.html", takes_context=True)
def subscribe_box(context: Context) -> dict[str, object]:
    """Of no use to who is signed in: they are subscribed."""
    request = context.get("request")
    return {"reader": sign_in.reader_of(request) if request else None}
