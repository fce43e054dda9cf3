from django.urls import path, re_path

from papers import api, feeds, paths, search_views, views  # noqa: F401  (paths registers <day:…>, …)

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

urlpatterns += [
    path("feeds/papers.atom", feeds.newest, name="feed"),
    path("feeds/papers/<day:day>.atom", feeds.day, name="day_feed"),
    path("feeds/categories/<path:code>.atom", feeds.category, name="category_feed"),
]

urlpatterns += [
    path("api/", api.documentation, name="api"),
    path("api/v1/", api.index, name="api_index"),
    path("api/v1/openapi.json", api.description, name="api_description"),
    path("api/v1/days", api.days, name="api_days"),
    path("api/v1/days/<str:day>", api.day, name="api_day"),
    path("api/v1/papers", api.papers, name="api_papers"),
    path("api/v1/papers/<uuid:uuid>", api.paper, name="api_paper"),
    path("api/v1/papers/<uuid:uuid>/similar", api.similar, name="api_similar"),
    path("api/v1/papers/<uuid:uuid>/signals", api.signals, name="api_signals"),
    path("api/v1/search", api.search, name="api_search"),
    path("api/v1/categories", api.categories, name="api_categories"),
    re_path("^api/v1/", api.unknown),  # <path:…> would not take a line's end
]
