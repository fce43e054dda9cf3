"""The development inbox: a mail backend that delivers into a Maildir, and pages to read it.

Its pages are only routed with DEBUG on.
"""

from __future__ import annotations

import mailbox
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email import message_from_bytes, policy
from email.message import EmailMessage as ParsedMessage
from email.utils import parsedate_to_datetime

from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.clickjacking import xframe_options_sameorigin
from django.views.decorators.http import require_safe


class MaildirBackend(BaseEmailBackend):
    """Delivers into settings.DEV_INBOX, each mail in one atomic step, as a mail server would."""

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        maildir = box()
        for message in email_messages:
            maildir.add(message.message().as_bytes())
        return len(email_messages)


@dataclass(frozen=True, slots=True)
class Letter:
    """One mail of the inbox, as its pages show it."""

    key: str
    subject: str
    recipient: str
    date: datetime | None
    headers: list[tuple[str, str]]
    text: str
    html: str


def box() -> mailbox.Maildir:
    """The folder of the inbox, made when it is not there yet."""
    settings.DEV_INBOX.parent.mkdir(parents=True, exist_ok=True)
    return mailbox.Maildir(settings.DEV_INBOX, create=True)


def _letter(key: str, raw: bytes) -> Letter:
    parsed = message_from_bytes(raw, policy=policy.default)
    return Letter(
        key=key,
        subject=str(parsed["Subject"] or ""),
        recipient=str(parsed["To"] or ""),
        date=parsedate_to_datetime(parsed["Date"]) if parsed["Date"] else None,
        headers=[(name, str(value)) for name, value in parsed.items()],
        text=_part(parsed, "plain"),
        html=_part(parsed, "html"),
    )


def _part(parsed: ParsedMessage, kind: str) -> str:
    part = parsed.get_body(preferencelist=(kind,))
    return str(part.get_content()) if part is not None else ""


def letters() -> list[Letter]:
    """All mails, the newest first."""
    maildir = box()
    keys = list(maildir.keys())
    # Keys begin with the second and then name the microsecond: "1763700000.M12345P…".
    keys.sort(key=lambda key: (key.split(".")[0], _microsecond(key)), reverse=True)
    return [_letter(key, maildir.get_bytes(key)) for key in keys]


def _microsecond(key: str) -> int:
    digits = key.split(".")[1].removeprefix("M").split("P")[0]
    return int(digits) if digits.isdigit() else 0


def _find(key: str) -> Letter:
    try:
        return _letter(key, box().get_bytes(key))
    except KeyError:
        raise Http404("This mail is not in the inbox any more.") from None


@require_safe
def inbox(request: HttpRequest) -> HttpResponse:
    return render(request, "newsletter/inbox.html", {"letters": letters()})


@require_safe
def letter(request: HttpRequest, key: str) -> HttpResponse:
    return render(request, "newsletter/inbox_letter.html", {"letter": _find(key)})


@require_safe
@xframe_options_sameorigin
def letter_html(request: HttpRequest, key: str) -> HttpResponse:
    """The HTML part by itself, for a frame: it may style itself and do nothing else."""
    # A link followed inside the frame would open there, where our pages refuse to be framed.
    html = _find(key).html.replace("<head>", '<head><base target="_top">', 1)
    response = HttpResponse(html)
    response["Content-Security-Policy"] = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        "sandbox allow-popups allow-top-navigation-by-user-activation"
    )
    return response
