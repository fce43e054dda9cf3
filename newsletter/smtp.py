"""Django's SMTP backend, which also tells how far a conversation came before it broke, and gives
each mail the return path that its bounce will name."""

from __future__ import annotations

import re
import smtplib
import uuid
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.smtp import EmailBackend
from django.core.mail.message import sanitize_address

from newsletter import addresses
from newsletter.mime import PreparedMessage

# An address that Django's sanitize_address leaves as it is.
PLAIN = re.compile(r"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")


class _Telling:
    """Notes when the content of a message may be on its way.

    smtplib raises the same error for a drop at MAIL FROM and for one after the final dot. From the
    DATA command on the server may have the message.
    """

    content_may_have_left = False
    return_path = ""

    def mail(self, sender: str, *args: Any, **options: Any) -> Any:
        self.content_may_have_left = False
        return super().mail(self.return_path or sender, *args, **options)  # type: ignore[misc]

    def data(self, *args: Any, **options: Any) -> Any:
        self.content_may_have_left = True
        return super().data(*args, **options)  # type: ignore[misc]


class TellingSMTP(_Telling, smtplib.SMTP):
    pass


class TellingSMTPOverTLS(_Telling, smtplib.SMTP_SSL):
    pass


class SmtpBackend(EmailBackend):
    @property
    def connection_class(self) -> type[smtplib.SMTP]:
        return TellingSMTPOverTLS if self.use_ssl else TellingSMTP

    def _send(self, email_message: EmailMessage) -> bool:
        if isinstance(self.connection, _Telling):
            self.connection.return_path = return_path_of(email_message)
        if not email_message.recipients():
            return False
        # As Django's own, except that it parses each address anew: that took as long as the rest.
        encoding = email_message.encoding or settings.DEFAULT_CHARSET
        sender, *recipients = (
            address if PLAIN.fullmatch(address) else _sanitized(address, encoding)
            for address in (email_message.from_email, *email_message.recipients())
        )
        self.connection.sendmail(sender, recipients, written(email_message))  # type: ignore[union-attr]
        return True


def written(message: EmailMessage) -> bytes:
    """A message as it goes over the wire, but for the stuffing of dots."""
    if isinstance(message, PreparedMessage):
        return message.written()
    return bytes(message.message().as_bytes(linesep="\r\n"))  # type: ignore[call-arg]


@lru_cache(maxsize=64)
def _sanitized(address: str, encoding: str) -> str:
    return str(sanitize_address(address, encoding))


def return_path_of(message: EmailMessage) -> str:
    """The envelope sender of a message; "": its From, as there is no address for bounces."""
    if not settings.BOUNCE_ADDRESS:
        return ""
    named = (getattr(message, "metadata", None) or {}).get("delivery")
    return addresses.return_path(uuid.UUID(named)) if named else str(settings.BOUNCE_ADDRESS)


def may_have_left(server: BaseEmailBackend) -> bool:
    """Whether the message in hand may have reached the server when its connection broke."""
    return bool(getattr(getattr(server, "connection", None), "content_may_have_left", True))
