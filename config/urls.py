"""Which app answers which address."""

from __future__ import annotations

from django.conf import settings
from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path
from django.views.generic import TemplateView

admin.site.site_header = admin.site.site_title = settings.SITE_NAME
admin.site.enable_nav_sidebar = False  # the edition's list needs the width
admin.site.index_title = "Curating and operating"

urlpatterns: list[URLPattern | URLResolver] = [
    path("admin/", admin.site.urls),
    path("robots.txt", TemplateView.as_view(template_name="robots.txt", content_type="text/plain")),
    path("", include("newsletter.urls")),
    path("", include("papers.urls")),
]
if settings.ANYMAIL.get("WEBHOOK_SECRET"):  # without one they would be anybody's
    urlpatterns.insert(0, path("webhooks/", include("anymail.urls")))
if settings.DEBUG:
    urlpatterns.insert(0, path("inbox/", include("newsletter.inbox_urls")))
