from django.urls import path

from papers import paths, views  # noqa: F401  (paths registers <day:…>)

urlpatterns = [
    path("", views.newest, name="newest"),
    path("papers/<day:day>", views.day, name="day"),
    path("paper/<uuid:uuid>", views.paper, name="paper"),
]
