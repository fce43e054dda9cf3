from django.urls import path

from papers import paths, search_views, views  # noqa: F401  (paths registers <day:…>, <week:…>, <month:…>)

urlpatterns = [
    path("", views.newest, name="newest"),
    path("papers/", views.pick_day, name="pick_day"),
    path("papers/top", views.top, name="top"),
    path("papers/<day:day>", views.day, name="day"),
    path("papers/week/<week:week>", views.week, name="week"),
    path("papers/month/<month:month>", views.month, name="month"),
    path("paper/<uuid:uuid>", views.paper, name="paper"),
    path("authors/<path:name>", views.author, name="author"),
    path("categories/", views.categories, name="categories"),
    path("categories/<path:code>", views.category, name="category"),
    path("search", search_views.search, name="search"),
]
