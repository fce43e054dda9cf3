"""Anymail's backends that ask a provider's HTTP API, which also tell how far a request came before
it broke, and give a delivery's mail the key by which the provider knows a repeat of it.
"""

from __future__ import annotations

from typing import Any

import requests
from anymail.backends.base_requests import AnymailRequestsBackend, RequestsPayload
from django.core.mail import EmailMessage
from requests.adapters import HTTPAdapter

from newsletter.smtp import delivery_of

# Of the providers that take a key; of the others none is known to.
IDEMPOTENCY_HEADERS = {"Resend": "Idempotency-Key"}


class _Telling(AnymailRequestsBackend):  # type: ignore[misc]
    """Notes whether a request may have left: the same error is raised for a TLS handshake that
    fails and for an answer that breaks off."""

    content_may_have_left = False

    def create_session(self) -> requests.Session:
        session: requests.Session = super().create_session()
        adapter = _TellingAdapter(self)
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        return session

    def _send(self, message: EmailMessage) -> Any:
        self.content_may_have_left = False
        return super()._send(message)

    def post_to_esp(self, payload: RequestsPayload, message: EmailMessage) -> Any:
        name = IDEMPOTENCY_HEADERS.get(self.esp_name)
        if name and (key := delivery_of(message)):
            payload.headers[name] = key
        return super().post_to_esp(payload, message)


def telling(backend: type[AnymailRequestsBackend]) -> type[_Telling]:
    """One of Anymail's backends, as one that tells."""
    return type(backend.__name__, (_Telling, backend), {})


class _TellingAdapter(HTTPAdapter):
    """Its connections note when a request leaves."""

    def __init__(self, backend: _Telling) -> None:
        self._backend = backend
        super().__init__()

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool = super().get_connection_with_tls_context(*args, **kwargs)
        if not issubclass(pool.ConnectionCls, _Noting):
            kind = type("Connection", (_Noting, pool.ConnectionCls), {"backend": self._backend})
            pool.ConnectionCls = kind
        return pool


class _Noting:
    """One of urllib3's connections. Where it was not opened, over TLS or to a proxy, before it is
    asked, it says itself that it could not be."""

    backend: _Telling

    def request(self, *args: Any, **kwargs: Any) -> None:
        self.backend.content_may_have_left = True
        super().request(*args, **kwargs)  # type: ignore[misc]
