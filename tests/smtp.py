"""A real SMTP server on loopback that keeps what it accepts and can be told to misbehave."""

from __future__ import annotations

import asyncio
from collections import Counter
from email import message_from_bytes, policy
from email.message import EmailMessage
from multiprocessing.connection import Connection
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session


class _AnyPort(Controller):
    """aiosmtpd's controller greets the port it was told, which is 0 for "any free one"."""

    def _trigger_server(self) -> None:
        assert isinstance(self.server, asyncio.Server)
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()  # type: ignore[no-untyped-call]


class SmtpServer:
    """An aiosmtpd server. `replies` maps a recipient to what it is told at RCPT TO;
    `after_data` to what is said after the final dot, or to "drop"."""

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.replies: dict[str, str] = {}
        self.after_data: dict[str, str] = {}
        self.hangs_up_after_each = False
        self._served: set[int] = set()
        self._controller = _AnyPort(self, hostname="127.0.0.1", port=0)

    def start(self) -> None:
        self._controller.start()
        self.port = self._controller.port

    def stop(self) -> None:
        self._controller.stop()

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: Any
    ) -> str:
        envelope.mail_from = address
        if self.hangs_up_after_each and id(session) in self._served:
            assert isinstance(server.transport, asyncio.Transport)
            server.transport.abort()
        return "250 OK"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: Any
    ) -> str:
        reply = self.replies.get(address, "250 OK")
        if reply.startswith("250"):
            envelope.rcpt_tos.append(address)
        return reply

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        recipient = envelope.rcpt_tos[0]
        reply = self.after_data.get(recipient, "250 OK")
        if reply in ("drop", "250 OK"):
            assert isinstance(envelope.content, bytes)
            parsed = message_from_bytes(envelope.content, policy=policy.default)
            assert isinstance(parsed, EmailMessage)
            self.messages.append(parsed)
            self.recipients.append(recipient)
        self._served.add(id(session))
        if reply == "drop":
            assert isinstance(server.transport, asyncio.Transport)
            server.transport.abort()
        return reply

    def count(self) -> Counter[str]:
        """How many messages each recipient was given."""
        return Counter(self.recipients)

    def to(self, address: str) -> list[EmailMessage]:
        pairs = zip(self.recipients, self.messages, strict=True)
        return [message for recipient, message in pairs if recipient == address]


def serve(pipe: Connection) -> None:
    """Run a server in a process of its own: says its port, ends when it is told anything."""
    server = SmtpServer()
    server.start()
    pipe.send(server.port)
    pipe.recv()
    server.stop()
