"""Which app answers which address."""

from __future__ import annotations

from django.conf import settings
from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

urlpatterns: list[URLPattern | URLResolver] = [
    path("admin/", admin.site.urls),
    path("", include("newsletter.urls")),
    path("", include("papers.urls")),
]
if settings.DEBUG:
    urlpatterns.insert(0, path("inbox/", include("newsletter.inbox_urls")))
