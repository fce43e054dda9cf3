"""Pages for subscribers: each parses, calls one function, renders.

No GET or HEAD ever writes: link scanners open every link of every mail. The pages behind a signed
link carry their proof in their address and not in a cookie, so they need no CSRF token (a mail
provider's one-click POST could not bring one), and they send no referrer.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from newsletter import feedback as judgements
from newsletter import links, sign_in, subscriptions
from newsletter import status as public_status
from newsletter.forms import PreferencesForm, SignUpForm, SubjectFormSet, WholeSubjectForm
from newsletter.links import Purpose
from newsletter.models import Feedback, Interest, Subscriber
from newsletter.tasks import plan_due, send_confirmations, soon
from papers.models import Paper, PaperAlias

Kind = Feedback.Kind

UNKNOWN_SHOWN = 20  # of the example papers that are not known here

# Why a link does not serve, as its page is told.
REFUSALS: dict[type[Exception], str] = {
    links.InvalidLink: "invalid",
    links.ExpiredLink: "expired",
    links.SpentLink: "spent",
    links.SubscriberGone: "gone",
    Subscriber.DoesNotExist: "gone",  # erased while the page was at work
    links.DeliveryGone: "old",
}

LinkView = Callable[[HttpRequest, str], HttpResponse]


def by_link(view: LinkView) -> LinkView:
    """Calls `view`, whose address holds a token; says why where that serves no more."""

    @functools.wraps(view)
    def guarded(request: HttpRequest, token: str) -> HttpResponse:
        try:
            return view(request, token)
        except tuple(REFUSALS) as error:
            return refusal(request, REFUSALS[type(error)])

    return guarded


@never_cache
def subscribe(request: HttpRequest) -> HttpResponse:
    """The sign-up form."""
    if request.method != "POST":
        return render(request, "newsletter/subscribe.html", {"form": SignUpForm()})
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


@never_cache
@csrf_exempt
def start(request: HttpRequest) -> HttpResponse:
    """The sign-up form, with the address from the box that stands on every page.

    That box has no CSRF token, and so its pages are the same for everybody and set no cookie; it
    changes nothing here. It is a POST that addresses stay out of logs and histories.
    """
    if request.method != "POST":
        return redirect("subscribe")
    form = SignUpForm(initial={"address": request.POST.get("address", "")})
    return render(request, "newsletter/subscribe.html", {"form": form})


@require_safe
def check_your_mail(request: HttpRequest) -> HttpResponse:
    days = settings.CONFIRMATION_DAYS
    return render(request, "newsletter/check_your_mail.html", {"days": days})


@require_safe
def privacy(request: HttpRequest) -> HttpResponse:
    return render(request, "newsletter/privacy.html")


@require_safe
def status(request: HttpRequest) -> HttpResponse:
    """Why there is mail or none."""
    found = public_status.status(timezone.now())
    return render(request, "newsletter/status.html", {"status": found})


@csrf_exempt
@by_link
def confirm(request: HttpRequest, token: str) -> HttpResponse:
    subscriber = links.subscriber_of(token, Purpose.CONFIRM)
    if request.method != "POST":
        return page(request, "confirm", subscriber)
    if not subscriptions.confirm(subscriber):
        return refusal(request, "gone")
    soon(plan_due)  # who confirms after today's slot gets today's mail at once
    subscriber.refresh_from_db()
    preferences = links.url(subscriber.uuid, Purpose.PREFERENCES)
    return page(request, "confirmed", subscriber, preferences_url=preferences)


@csrf_exempt
@by_link
def unsubscribe(request: HttpRequest, token: str) -> HttpResponse:
    """RFC 8058's one-click address, and the page a reader sees when opening it."""
    try:
        subscriber = links.subscriber_of(token, Purpose.UNSUBSCRIBE)
    except links.SubscriberGone:
        return page(request, "unsubscribed", None)
    if request.method != "POST":
        return page(request, "unsubscribe", subscriber)
    one_click = request.POST.get("List-Unsubscribe") == "One-Click"
    subscriptions.unsubscribe(subscriber, way="one click" if one_click else "web page")
    return page(request, "unsubscribed", subscriber)


@csrf_exempt
@by_link
def preferences(request: HttpRequest, token: str) -> HttpResponse:
    subscriber = links.subscriber_of(token, Purpose.PREFERENCES)
    if subscriber.state in (Subscriber.State.PENDING, Subscriber.State.UNSUBSCRIBED):
        return refusal(request, "gone")
    saved, done = False, ""
    unknown: list[str] = []
    if request.method == "POST" and request.POST.keys() & {"undo", "forget"}:
        done = _unlearn(subscriber, request.POST)
    elif request.method == "POST":
        form, subjects = PreferencesForm(request.POST), SubjectFormSet(request.POST)
        if form.is_valid() and subjects.is_valid():
            stated, seen = subjects.subjects(), subjects.seen()
            subscriptions.change(subscriber, stated, seen=seen, **form.cleaned_data)
            saved, unknown = True, subjects.unknown()
            subscriber.refresh_from_db()
    if request.method != "POST" or saved or done:
        form = PreferencesForm(initial=PreferencesForm.initial_of(subscriber))
        subjects = SubjectFormSet(initial=WholeSubjectForm.initial_of(subscriber))
    context = {
        "form": form,
        "subjects": subjects,
        "saved": saved,
        "done": done,
        "unknown": unknown[:UNKNOWN_SHOWN],
        "more_unknown": len(unknown[UNKNOWN_SHOWN:]),
        "learned": _learned(subscriber),
        "unsubscribe_url": links.url(subscriber.uuid, Purpose.UNSUBSCRIBE),
        # Not for who was forwarded a mail: this address stays good.
        "feed_url": (
            links.numbered_url(subscriber, Purpose.FEED)
            if sign_in.reader_of(request) == subscriber
            else ""
        ),
    }
    return page(request, "preferences", subscriber, **context)


def _unlearn(subscriber: Subscriber, posted: QueryDict) -> str:
    """Take one judgement back, or all of one subject's; the words for what was done."""
    if row := subscriber.feedback.filter(pk=_number(posted.get("undo"))).first():
        judgements.undo(subscriber, row.paper, Kind(row.kind))
    elif posted.get("forget") == "general":
        judgements.reset_general(subscriber)
    elif interest := subscriber.interests.filter(pk=_number(posted.get("forget"))).first():
        judgements.reset(interest)
        return f"What was learned for “{interest.name}” is forgotten."
    return "It is taken back."


def _number(text: str | None) -> int:
    """A row's id, 0 for what cannot be one."""
    return int(text) if text and re.fullmatch("[0-9]{1,18}", text) else 0


def _learned(subscriber: Subscriber) -> list[tuple[Interest | None, list[Feedback]]]:
    """A reader's judgements by the subject they count for, each list the newest first."""
    rows: dict[int | None, list[Feedback]] = {}
    for row in subscriber.feedback.select_related("paper"):
        rows.setdefault(row.interest_id, []).append(row)
    subjects = [(interest.pk, interest) for interest in subscriber.interests.all()]
    return [(subject, rows[pk]) for pk, subject in [*subjects, (None, None)] if pk in rows]


@csrf_exempt
@by_link
def feedback(request: HttpRequest, token: str) -> HttpResponse:
    """What a reader says of one paper of a mail.

    The page names neither the reader nor leads to their settings: who is forwarded a mail can
    judge its papers in the reader's stead, and undo that, and no more.
    """
    delivery, paper_id = links.pick_of(token)
    subscriber = delivery.subscriber
    if subscriber.state in (Subscriber.State.PENDING, Subscriber.State.UNSUBSCRIBED):
        return refusal(request, "gone")
    paper = Paper.objects.filter(pk=PaperAlias.present([paper_id])[paper_id]).first()
    if paper is None:
        return refusal(request, "old")
    given = undone = None
    if request.method == "POST":
        if kind := _asked(request.POST.get("kind")):
            interest = judgements.interest_of(delivery, paper_id)
            given = judgements.give(subscriber, paper, kind, interest)
        elif kind := _asked(request.POST.get("undo")):
            judgements.undo(subscriber, paper, kind)
            undone = kind
    kind = undone or _asked(request.GET.get("kind")) or Kind.MORE
    said = subscriber.feedback.filter(paper=paper, kind__in=judgements.ASKED)
    context = {
        "paper": paper,
        "given": given,
        "undone": undone,
        "kind": kind,
        "others": [other for other in judgements.ASKED if other != (given.kind if given else kind)],
        "said": sorted(Kind(row.kind) for row in said),
    }
    return page(request, "feedback", None, **context)


def _asked(text: str | None) -> Feedback.Kind | None:
    return Kind(text) if text in judgements.ASKED else None


def refusal(request: HttpRequest, why: str) -> HttpResponse:
    return private(
        render(
            request,
            "newsletter/bad_link.html",
            {"why": why},
            status=404 if why == "invalid" else 410,
        )
    )


def page(
    request: HttpRequest, name: str, subscriber: Subscriber | None, **context: object
) -> HttpResponse:
    context["subscriber"] = subscriber
    return private(render(request, f"newsletter/{name}.html", context))


def private(response: HttpResponse, *, referrer: str = "no-referrer") -> HttpResponse:
    response["Referrer-Policy"] = referrer
    response["Cache-Control"] = "no-store"
    response["X-Robots-Tag"] = "noindex"
    return response
