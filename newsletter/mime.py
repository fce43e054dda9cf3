"""Mail that is assembled instead of encoded: its parts are pieces of text whose quoted-printable
form is known already."""

from __future__ import annotations

import secrets
from binascii import b2a_qp
from collections.abc import Iterable
from email.message import Message
from email.utils import formatdate
from typing import NamedTuple

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.core.mail.message import SafeMIMEMultipart


class Piece(NamedTuple):
    """Some text, and the same in quoted-printable: lines of at most 76 characters, the last one of
    at most 75, so that a soft line break can follow."""

    text: str
    encoded: str


def piece(text: str) -> Piece:
    # The letter behind it is encoded along, for the room of the soft line break, and since a blank
    # would be written as =20 before the end.
    encoded = b2a_qp(f"{text}x".encode(), istext=True)[:-1]
    return Piece(text, encoded.decode("ascii"))


def joined(pieces: Iterable[Piece]) -> str:
    """The quoted-printable form of all of them: each begins on a line of its own there, and the
    soft line breaks between are none in the text."""
    return "=\n".join([one.encoded for one in pieces])


class PreparedMessage(EmailMultiAlternatives):
    """A message of a text and an HTML part, written from their pieces.

    To a backend it is like any other: `body` and `alternatives` hold the parts, and what is changed
    after it was made is honoured, by Django's slower way where it has to be.
    """

    def __init__(
        self,
        text: list[Piece],
        html: list[Piece],
        *,
        subject: str,
        from_email: str,
        to: str,
        headers: dict[str, str],
    ) -> None:
        super().__init__(
            subject=subject,
            body="".join([one.text for one in text]),
            from_email=from_email,
            to=[to],
            headers=headers,
        )
        self.attach_alternative("".join([one.text for one in html]), "text/html")
        self._parts = (self.body, self.alternatives[0][0])
        self._encoded = (joined(text), joined(html))
        self._written: tuple[object, EncodedParts] | None = None

    def message(self) -> SafeMIMEMultipart:  # type: ignore[override]
        if not self._is_as_prepared():
            return super().message()  # type: ignore[return-value]
        headers = {
            "Subject": str(self.subject),
            "From": str(self.from_email),
            "To": ", ".join(map(str, self.to)),
            **self.extra_headers,
        }
        if self._written and self._written[0] == headers:
            return self._written[1]
        message = EncodedParts(*self._encoded)
        for name, value in headers.items():
            message[name] = value  # Django's own: refuses line breaks, encodes what is not ASCII
        message["Date"] = formatdate(localtime=settings.EMAIL_USE_LOCALTIME)
        self._written = (headers, message)
        return message

    def _is_as_prepared(self) -> bool:
        named = {name.lower() for name in self.extra_headers}
        unusual = {"from", "to", "cc", "reply-to", "date"} & named
        return (
            (self.body, *(content for content, _ in self.alternatives)) == self._parts
            and not (self.attachments or self.cc or self.reply_to or unusual)
            and self.encoding in (None, "utf-8")
            and "Message-ID" in self.extra_headers
        )


class EncodedParts(SafeMIMEMultipart):
    """multipart/alternative of two parts that are quoted-printable already."""

    def __init__(self, text: str, html: str) -> None:
        # "=_" is in no quoted-printable text.
        super().__init__("alternative", boundary=f"=_{secrets.token_hex(12)}", encoding="utf-8")
        self._encoded: list[Message[str, str]] = []
        for subtype, encoded in (("plain", text), ("html", html)):
            part: Message[str, str] = Message()
            part["Content-Type"] = f'text/{subtype}; charset="utf-8"'
            part["MIME-Version"] = "1.0"
            part["Content-Transfer-Encoding"] = "quoted-printable"
            part.set_payload(encoded)
            self.attach(part)
            self._encoded.append(part)

    def as_bytes(  # type: ignore[override]  # as Django's
        self, unixfrom: bool = False, linesep: str = "\n"
    ) -> bytes:
        """What the generator of the standard library writes, without asking what it must fold."""
        if unixfrom:
            return bytes(super().as_bytes(unixfrom, linesep))
        boundary = self.get_boundary()
        written = [_head(self)]
        for part in self._encoded:
            written += f"\n--{boundary}\n", _head(part), "\n", str(part.get_payload())
        written.append(f"\n--{boundary}--\n")
        whole = "".join(written).encode("ascii")
        return whole if linesep == "\n" else whole.replace(b"\n", linesep.encode("ascii"))


def _head(message: Message[str, str]) -> str:
    return "".join([f"{name}: {value}\n" for name, value in message.raw_items()])
