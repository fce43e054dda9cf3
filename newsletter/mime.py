"""Mail that is assembled instead of encoded: its parts are pieces of text whose form on the wire is
known already."""

from __future__ import annotations

import re
from binascii import b2a_qp
from collections.abc import Iterable, Sequence
from email.utils import formatdate
from functools import lru_cache
from typing import Any, NamedTuple

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.core.mail.message import forbid_multi_line_headers

DOTS = re.compile(rb"^\.+", re.MULTILINE)
BOUNDARY = "=_paperround"  # "=_" is in no quoted-printable text
_PART = (
    f"--{BOUNDARY}\r\n"
    'Content-Type: text/{}; charset="utf-8"\r\n'
    "MIME-Version: 1.0\r\n"
    "Content-Transfer-Encoding: quoted-printable\r\n"
    "\r\n"
)
_WHOLE = (
    f'Content-Type: multipart/alternative; boundary="{BOUNDARY}"\r\n'
    "MIME-Version: 1.0\r\n"
    "\r\n"
)  # fmt: skip
BEFORE_TEXT = (_WHOLE + _PART.format("plain")).encode()
BEFORE_HTML = f"\r\n{_PART.format('html')}".encode()
END = f"\r\n--{BOUNDARY}--\r\n".encode()


class Piece(NamedTuple):
    """Some text, and the same in quoted-printable: lines of at most 76 characters that end in CRLF,
    the last one of at most 75, so that a soft line break can follow. No line begins with a dot, so
    that SMTP need not double it."""

    text: str
    encoded: bytes


def piece(text: str) -> Piece:
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    # The letter behind it is encoded along, for the room of the soft line break, and since a blank
    # would be written as =20 before the end.
    encoded = b2a_qp(f"{text}x".encode(), istext=True)[:-1]
    if encoded.startswith(b".") or b"\n." in encoded:
        encoded = DOTS.sub(lambda dots: b"=2E=\n" * len(dots[0]), encoded)
    return Piece(text, encoded.replace(b"\n", b"\r\n"))


def joined(pieces: Iterable[Piece]) -> Piece:
    """All of them as one: each begins on a line of its own in the encoded form, and the soft line
    breaks between are none in the text."""
    pieces = list(pieces)
    return Piece(
        "".join([one.text for one in pieces]), b"=\r\n".join([one.encoded for one in pieces])
    )


class PreparedMessage(EmailMultiAlternatives):
    """A message of a text and an HTML part, written from their pieces.

    To a backend it is like any other: `body` and `alternatives` hold the parts, once they are asked
    for, and what is changed after it was made is honoured, by Django's slower way where it has to
    be.
    """

    def __init__(
        self,
        text: Sequence[Piece],
        html: Sequence[Piece],
        *,
        subject: str,
        from_email: str,
        to: str,
        headers: dict[str, str],
    ) -> None:
        super().__init__(subject=subject, from_email=from_email, to=[to], headers=headers)
        self._text, self._html = text, html
        self._body: Any = None
        self._alternatives: Any = None
        self._written: tuple[dict[str, str], bytes] | None = None

    @property
    def body(self) -> Any:
        if self._body is None:
            self._body = joined(self._text).text
        return self._body

    @body.setter
    def body(self, text: Any) -> None:
        self._body = text

    @property
    def alternatives(self) -> Any:
        if self._alternatives is None:
            self._alternatives = []
            self.attach_alternative(joined(self._html).text, "text/html")
        return self._alternatives

    @alternatives.setter
    def alternatives(self, parts: Any) -> None:
        self._alternatives = parts

    def written(self) -> bytes:
        """The whole mail as it goes over the wire, but for the doubling of dots.

        Raises:
            BadHeaderError: a header would be several lines.
        """
        if not self._is_as_prepared():
            return bytes(self.message().as_bytes(linesep="\r\n"))  # type: ignore[call-arg]
        headers = {
            "Subject": str(self.subject),
            "From": str(self.from_email),
            "To": ", ".join(map(str, self.to)),
            **self.extra_headers,
        }
        if self._written is None or self._written[0] != headers:
            lines = [_line(name, value) for name, value in headers.items()]
            date = formatdate(localtime=settings.EMAIL_USE_LOCALTIME)
            whole = b"".join(
                (
                    "".join([*lines, f"Date: {date}\r\n"]).encode("ascii"),
                    BEFORE_TEXT,
                    b"=\r\n".join([one.encoded for one in self._text]),
                    BEFORE_HTML,
                    b"=\r\n".join([one.encoded for one in self._html]),
                    END,
                )
            )
            self._written = (headers, whole)
        return self._written[1]

    def _is_as_prepared(self) -> bool:
        if self._body is not None and self._body != joined(self._text).text:
            return False
        if self._alternatives is not None:
            parts = [(content, kind) for content, kind in self._alternatives]
            if parts != [(joined(self._html).text, "text/html")]:
                return False
        named = {name.lower() for name in self.extra_headers}
        return (
            not (self.attachments or self.cc or self.reply_to)
            and named.isdisjoint(("from", "to", "cc", "reply-to", "date"))
            and self.encoding in (None, "utf-8")
            and "message-id" in named
        )


def _line(name: str, value: str) -> str:
    """A header as Django writes it; most are what they are."""
    if value.isascii() and value.isprintable() and name != "Subject":
        return f"{name}: {value}\r\n"
    return _encoded_line(name, value)


@lru_cache(maxsize=1_024)
def _encoded_line(name: str, value: str) -> str:
    # Django's own: refuses line breaks, encodes what is not ASCII, folds.
    _, value = forbid_multi_line_headers(name, value, "utf-8")
    return "\r\n".join([*f"{name}: {value}".split("\n"), ""])
