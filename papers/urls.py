from django.urls import path, re_path

from papers import api, feeds, paths, views  # noqa: F401  (paths registers <day:…>)

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
