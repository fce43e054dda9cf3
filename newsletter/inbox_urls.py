from django.urls import path

from newsletter import inbox

urlpatterns = [
    path("", inbox.inbox, name="inbox"),
    path("<str:key>/", inbox.letter, name="inbox_letter"),
    path("<str:key>/html/", inbox.letter_html, name="inbox_letter_html"),
]
