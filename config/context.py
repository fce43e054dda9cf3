"""What every template may say about the installation."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest


def site(request: HttpRequest) -> dict[str, object]:
    return {
        "SITE_NAME": settings.SITE_NAME,
        "SITE_URL": settings.SITE_URL,
        "CURATORS_LINE": settings.CURATORS_LINE,
        "POSTAL_ADDRESS": settings.POSTAL_ADDRESS,
        "CONTACT_ADDRESS": settings.CONTACT_ADDRESS,
        "DEBUG": settings.DEBUG,
    }
