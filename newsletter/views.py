"""Pages for subscribers: each parses, calls one function, renders.

No GET or HEAD ever writes: link scanners open every link of every mail. The pages behind a signed
link carry their proof in their address and not in a cookie, so they need no CSRF token (a mail
provider's one-click POST could not bring one), and they send no referrer.
"""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from newsletter import links, subscriptions
from newsletter.forms import PreferencesForm, SignUpForm, SubjectFormSet
from newsletter.links import Purpose
from newsletter.models import Subscriber
from newsletter.tasks import plan_due, send_confirmations, soon


@never_cache
def subscribe(request: HttpRequest) -> HttpResponse:
    """The sign-up form."""
    if request.method != "POST":
        return render(request, "newsletter/subscribe.html", {"form": SignUpForm()})
    if request.POST.get("step") == "start":  # the box on every page, which asks for no more
        form = SignUpForm(initial={"address": request.POST.get("address", "")})
        return render(request, "newsletter/subscribe.html", {"form": form})
    form = SignUpForm(request.POST)
    if not form.is_valid():
        return render(request, "newsletter/subscribe.html", {"form": form}, status=400)
    data = form.cleaned_data
    subscriptions.subscribe(
        data["address"],
        [form.subject()],
        time_zone=data["time_zone"],
        send_hour=data["send_hour"],
    )
    soon(send_confirmations)
    return redirect("check_your_mail")


@require_safe
def check_your_mail(request: HttpRequest) -> HttpResponse:
    days = settings.CONFIRMATION_DAYS
    return render(request, "newsletter/check_your_mail.html", {"days": days})


@require_safe
def privacy(request: HttpRequest) -> HttpResponse:
    return render(request, "newsletter/privacy.html")


@csrf_exempt
def confirm(request: HttpRequest, token: str) -> HttpResponse:
    subscriber = _subscriber(request, token, Purpose.CONFIRM)
    if isinstance(subscriber, HttpResponse):
        return subscriber
    if request.method != "POST":
        return _page(request, "confirm", subscriber)
    if not subscriptions.confirm(subscriber):
        return _refusal(request, "gone")
    soon(plan_due)  # who confirms after today's slot gets today's mail at once
    subscriber.refresh_from_db()
    preferences = links.url(subscriber.uuid, Purpose.PREFERENCES)
    return _page(request, "confirmed", subscriber, preferences_url=preferences)


@csrf_exempt
def unsubscribe(request: HttpRequest, token: str) -> HttpResponse:
    """RFC 8058's one-click address, and the page a reader sees when opening it."""
    try:
        subscriber = links.subscriber_of(token, Purpose.UNSUBSCRIBE)
    except links.SubscriberGone:
        return _page(request, "unsubscribed", None)
    except links.InvalidLink:
        return _refusal(request, "invalid")
    if request.method != "POST":
        return _page(request, "unsubscribe", subscriber)
    one_click = request.POST.get("List-Unsubscribe") == "One-Click"
    subscriptions.unsubscribe(subscriber, way="one click" if one_click else "web page")
    return _page(request, "unsubscribed", subscriber)


@csrf_exempt
def preferences(request: HttpRequest, token: str) -> HttpResponse:
    subscriber = _subscriber(request, token, Purpose.PREFERENCES)
    if isinstance(subscriber, HttpResponse):
        return subscriber
    if subscriber.state in (Subscriber.State.PENDING, Subscriber.State.UNSUBSCRIBED):
        return _refusal(request, "gone")
    saved = False
    if request.method == "POST":
        form, subjects = PreferencesForm(request.POST), SubjectFormSet(request.POST)
        if form.is_valid() and subjects.is_valid():
            stated = [subject.subject() for subject in subjects]
            subscriptions.change(subscriber, stated, **form.cleaned_data)
            saved = True
            subscriber.refresh_from_db()
    if request.method != "POST" or saved:
        form = PreferencesForm(initial=PreferencesForm.initial_of(subscriber))
        subjects = SubjectFormSet(initial=list(subscriber.interests.values("words", "categories")))
    context = {
        "form": form,
        "subjects": subjects,
        "saved": saved,
        "unsubscribe_url": links.url(subscriber.uuid, Purpose.UNSUBSCRIBE),
    }
    return _page(request, "preferences", subscriber, **context)


def _subscriber(request: HttpRequest, token: str, purpose: Purpose) -> Subscriber | HttpResponse:
    """Whom the token stands for, or the page that says why nobody."""
    try:
        return links.subscriber_of(token, purpose)
    except links.ExpiredLink:
        return _refusal(request, "expired")
    except links.InvalidLink:
        return _refusal(request, "invalid")


def _refusal(request: HttpRequest, why: str) -> HttpResponse:
    return _private(
        render(
            request,
            "newsletter/bad_link.html",
            {"why": why},
            status=404 if why == "invalid" else 410,
        )
    )


def _page(
    request: HttpRequest, name: str, subscriber: Subscriber | None, **context: object
) -> HttpResponse:
    context["subscriber"] = subscriber
    return _private(render(request, f"newsletter/{name}.html", context))


def _private(response: HttpResponse) -> HttpResponse:
    response["Referrer-Policy"] = "no-referrer"
    response["Cache-Control"] = "no-store"
    response["X-Robots-Tag"] = "noindex"
    return response
