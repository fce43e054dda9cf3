"""What a browser may do with our pages: load what is ours, run our files, send forms to us.

No script or style stands within a page, so text that slipped through every other guard could still
not run. Nothing is asked of anybody else.
"""

from __future__ import annotations

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse

Respond = Callable[[HttpRequest], HttpResponse]

SOURCES = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}
# The development inbox shows each mail in a frame, which brings a policy of its own.
if settings.DEBUG:
    SOURCES["frame-src"] = "'self'"
POLICY = "; ".join(f"{name} {value}" for name, value in SOURCES.items())
UNUSED = ("camera", "display-capture", "geolocation", "microphone", "midi", "payment", "usb")
FEATURES = ", ".join(f"{name}=()" for name in UNUSED)


def restrict(get_response: Respond) -> Respond:
    """The middleware. A page that has a policy already keeps it."""

    def respond(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        # Django's own pages about an error, for developers, are styled within the page.
        if not (settings.DEBUG and response.status_code in (404, 500)):
            response.headers.setdefault("Content-Security-Policy", POLICY)
        response.headers.setdefault("Permissions-Policy", FEATURES)
        return response

    return respond
