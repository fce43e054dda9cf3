"""Django's SMTP backend, which also tells how far a conversation came before it broke."""

from __future__ import annotations

import smtplib
from typing import Any

from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.smtp import EmailBackend


class _Telling:
    """Notes when the content of a message may be on its way.

    smtplib raises the same error for a drop at MAIL FROM and for one after the final dot. From the
    DATA command on the server may have the message.
    """

    content_may_have_left = False

    def mail(self, *args: Any, **options: Any) -> Any:
        self.content_may_have_left = False
        return super().mail(*args, **options)  # type: ignore[misc]

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


def may_have_left(server: BaseEmailBackend) -> bool:
    """Whether the message in hand may have reached the server when its connection broke."""
    return bool(getattr(getattr(server, "connection", None), "content_may_have_left", True))
