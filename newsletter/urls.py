from django.urls import path

from newsletter import reader_views, views

# The names of the signed pages are the values of links.Purpose.
urlpatterns = [
    path("subscribe/", views.subscribe, name="subscribe"),
    path("subscribe/start/", views.start, name="start"),
    path("subscribe/check-your-mail/", views.check_your_mail, name="check_your_mail"),
    path("status/", views.status, name="status"),
    path("privacy/", views.privacy, name="privacy"),
    path("confirm/<str:token>/", views.confirm, name="confirm"),
    path("preferences/<str:token>/", views.preferences, name="preferences"),
    path("unsubscribe/<str:token>/", views.unsubscribe, name="unsubscribe"),
    path("feedback/<str:token>/", views.feedback, name="feedback"),
    # Signing in, and what is for who is signed in.
    path(
        "preferences/<str:token>/sign-in/",
        reader_views.ask_from_settings,
        name="sign_in_from_settings",
    ),
    path("sign-in/", reader_views.ask, name="sign_in"),
    path("sign-in/check-your-mail/", reader_views.sent, name="sign_in_sent"),
    path("sign-in/<str:token>/", reader_views.follow, name="sign_in_link"),
    path("sign-out/", reader_views.leave, name="sign_out"),
    path("reader/", reader_views.reader_page, name="reader"),
    path("reader/export/", reader_views.export, name="export"),
    path("reader/erase/", reader_views.erase, name="erase"),
    path("votes/<uuid:uuid>/", reader_views.vote, name="vote"),
    path("submit/", reader_views.submit, name="submit"),
    path("feeds/picks/<str:token>.atom", reader_views.feed, name="picks_feed"),
]
