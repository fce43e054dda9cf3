"""The mails that came to the bounce address, wherever they lie: standard input, a Maildir, IMAP.

Each is handed out once with what marks it as read, which is to be called when it is safe elsewhere.
"""

from __future__ import annotations

import imaplib
import ipaddress
import re
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from newsletter.bounces import LONGEST_MAIL
from newsletter.findings import several


class NoPostbox(Exception):
    """It cannot be read; the message says why and holds no password."""


@dataclass(frozen=True, slots=True)
class Letter:
    name: str
    content: bytes
    mark_read: Callable[[], None]


def _stays() -> None:
    pass


def from_standard_input() -> Iterator[Letter]:
    yield Letter("-", sys.stdin.buffer.read(LONGEST_MAIL), _stays)


def from_maildir(folder: Path) -> Iterator[Letter]:
    """Those of a Maildir that nobody has read; or all files of any other folder, which stay.

    Raises:
        NoPostbox
    """
    try:
        if (folder / "cur").is_dir() and (folder / "new").is_dir():
            yield from _unread_in(folder)
        else:
            unreadable = []
            for path in sorted(folder.rglob("*.eml")):
                name = str(path.relative_to(folder))
                try:
                    content = _beginning_of(path)
                except OSError:
                    unreadable.append(name)
                else:
                    yield Letter(name, content, _stays)
            _tell_of(unreadable)
            if not folder.is_dir():
                raise NoPostbox(f"{folder} is not a folder")
    except OSError as error:
        raise NoPostbox(f"{folder} cannot be read: {error.strerror}") from None


def _unread_in(folder: Path) -> Iterator[Letter]:
    unreadable = []
    for path in sorted([*(folder / "new").iterdir(), *(folder / "cur").iterdir()]):
        name, _, flags = path.name.partition(":2,")
        if path.name.startswith(".") or not path.is_file() or set(flags) & {"S", "T"}:
            continue
        read = folder / "cur" / f"{name}:2,{''.join(sorted({*flags, 'S'}))}"
        try:
            content = _beginning_of(path)
        except FileNotFoundError:
            continue  # another process was quicker
        except OSError:
            unreadable.append(name)
            continue
        yield Letter(name, content, lambda path=path, read=read: _rename(path, read))  # type: ignore[misc]
    _tell_of(unreadable)


def _tell_of(unreadable: list[str]) -> None:
    """Once all others were handed out: one mail that cannot be opened keeps none back."""
    if unreadable:
        number = several(len(unreadable), "mail", "mails")
        raise NoPostbox(f"{number} could not be read, the first is {unreadable[0]}")


def _rename(path: Path, target: Path) -> None:
    try:
        path.rename(target)
    except FileNotFoundError:
        return
    except OSError as error:
        raise NoPostbox(f"{path.name} cannot be marked as read: {error.strerror}") from None


def _beginning_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(LONGEST_MAIL)


def from_imap(url: str, *, timeout: float) -> Iterator[Letter]:
    """The unseen mails of imaps://user:password@host/folder (INBOX); imap:// asks for STARTTLS.

    Raises:
        NoPostbox
    """
    try:
        with _mailbox(url, timeout) as server:
            _, [found] = server.uid("SEARCH", "UNSEEN")
            for uid in (found or b"").decode("ascii").split():
                content = _fetch(server, uid)
                if content is not None:
                    yield Letter(uid, content, lambda uid=uid: _mark(server, uid))  # type: ignore[misc]
    except imaplib.IMAP4.error as error:
        raise NoPostbox(f"the IMAP server refused: {type(error).__name__}") from None
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise NoPostbox(f"no connection to the IMAP server: {why}") from None


@contextmanager
def _mailbox(url: str, timeout: float) -> Iterator[imaplib.IMAP4]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise NoPostbox("the IMAP address is not a URL") from None
    if parts.scheme not in ("imap", "imaps") or not host or parts.username is None:
        raise NoPostbox("write the IMAP address as imaps://user:password@host/folder")
    user, password = unquote(parts.username), unquote(parts.password or "")
    folder = unquote(parts.path.strip("/")) or "INBOX"
    if not f"{user}{password}{folder}".isascii():
        raise NoPostbox("IMAP takes a user, password and folder of plain ASCII letters alone")
    trusted = ssl.create_default_context()
    server: imaplib.IMAP4
    if parts.scheme == "imaps":
        server = imaplib.IMAP4_SSL(host, port or 993, ssl_context=trusted, timeout=timeout)
    else:
        server = imaplib.IMAP4(host, port or 143, timeout=timeout)
    try:
        if parts.scheme == "imap":
            if "STARTTLS" in server.capabilities:
                server.starttls(trusted)
            elif not _is_loopback(host):
                raise NoPostbox("the IMAP server offers no STARTTLS; use imaps://")
        server.login(user, password)
        quoted = re.sub(r'(["\\])', r"\\\1", folder)
        answer, _ = server.select(f'"{quoted}"')
        if answer != "OK":
            raise NoPostbox("the IMAP server has no such folder")
        yield server
    finally:
        try:
            server.logout()
        except (OSError, imaplib.IMAP4.error):
            server.shutdown()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _fetch(server: imaplib.IMAP4, uid: str) -> bytes | None:
    _, answer = server.uid("FETCH", uid, f"(BODY.PEEK[]<0.{LONGEST_MAIL}>)")
    return next((part[1] for part in answer or [] if isinstance(part, tuple)), None)


def _mark(server: imaplib.IMAP4, uid: str) -> None:
    server.uid("STORE", uid, "+FLAGS", r"(\Seen)")
