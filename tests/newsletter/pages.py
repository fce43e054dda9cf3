"""The pages behind signed links, as a reader's browser finds them."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from django.core.mail import EmailMessage

from newsletter import links
from newsletter.links import Purpose
from newsletter.models import Subscriber


def page_of(subscriber: Subscriber, purpose: Purpose) -> str:
    """The path of a subscriber's signed page."""
    return urlsplit(links.url(subscriber.uuid, purpose)).path


def link_in(text: str, purpose: Purpose) -> str:
    """The path of the one link for `purpose` that stands in the text of a mail."""
    [path] = set(re.findall(rf"http://testserver(/{purpose}/[^\s]+)", text))
    return str(path)


def text_of(message: EmailMessage) -> str:
    return str(message.body)
