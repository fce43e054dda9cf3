from django.urls import path

from papers import feeds, paths, views  # noqa: F401  (paths registers <day:…>)

urlpatterns = [
    path("", views.newest, name="newest"),
    path("papers/<day:day>", views.day, name="day"),
    path("paper/<uuid:uuid>", views.paper, name="paper"),
]

urlpatterns += [
    path("feeds/papers.atom", feeds.newest, name="feed"),
    path("feeds/papers/<day:day>.atom", feeds.day, name="day_feed"),
    path("feeds/categories/<str:code>.atom", feeds.category, name="category_feed"),
]
