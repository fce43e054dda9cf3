"""Answers that a program need not fetch twice: ETag, Last-Modified, Cache-Control, 304.

They are the same for everybody and no cookie is read for them, so any cache may keep them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from http import HTTPStatus
from pathlib import Path

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.cache import get_conditional_response
from django.utils.http import http_date

# Of a list that may still change, and of one whose day is over: an editor may hide a paper even
# then, and nobody should be shown it for long.
SHORT, LONG = 5 * 60, 60 * 60


def max_age_of(day: date) -> int:
    """For how long an answer about the list of a day may be kept."""
    over = day < datetime.now(UTC).date() - timedelta(days=1)
    return LONG if over else SHORT


# An answer also depends on what writes it: with a new release, no old answer is called unchanged.
_CODE = hashlib.sha256(
    b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
).hexdigest()


def known_or(
    request: HttpRequest, etag: str, stamp: int | None, response: HttpResponse | None
) -> HttpResponse | None:
    """304 where the asker has it already, else `response`.

    If-Match and If-Unmodified-Since are of no concern to what is only read: the answer to them
    would be an error, 412, with which nobody is served.
    """
    for name in ("HTTP_IF_MATCH", "HTTP_IF_UNMODIFIED_SINCE"):
        request.META.pop(name, None)
    found: HttpResponse | None = get_conditional_response(request, etag, stamp, response)
    return found


def answer(
    request: HttpRequest,
    render: Callable[[], HttpResponse],
    *,
    max_age: int,
    state: Iterable[object] | None = None,
    changed: datetime | None = None,
) -> HttpResponse:
    """The answer, or 304 where the asker has it already.

    Args:
        state: all that the answer depends on besides its address; with it, `render` is called only
            if it is needed. None: the content itself is compared.
        changed: when that state last changed, for those who ask by date.
    """
    response = render() if state is None else None
    parts = [_CODE, settings.SITE_URL, settings.SITE_NAME, request.get_full_path()]
    told = repr([*parts, *(state or [])]).encode()
    digest = hashlib.blake2b(told, digest_size=16)
    if response is not None:
        digest.update(response.content)
    # Weak: a proxy may compress it.
    etag = f'W/"{digest.hexdigest()}"'
    stamp = int(changed.timestamp()) if changed else None
    response = known_or(request, etag, stamp, response) or render()
    if response.status_code not in (HTTPStatus.OK, HTTPStatus.NOT_MODIFIED):
        return response
    response["ETag"] = etag
    if stamp:
        response["Last-Modified"] = http_date(stamp)
    response["Cache-Control"] = f"public, max-age={max_age}"
    return response
