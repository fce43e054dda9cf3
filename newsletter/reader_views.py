"""Pages for who signs in and is signed in: each parses, calls one function, renders.

No GET or HEAD writes anything of a reader's. All but the feed and the button of the settings'
page, which carry their proof in their address, need a CSRF token.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.cache import patch_cache_control
from django.utils.crypto import salted_hmac
from django.utils.http import http_date, quote_etag
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST, require_safe

from newsletter import links, picks_feed, sign_in, submissions, subscriptions, votes
from newsletter.forms import SignInForm, SubmissionForm
from newsletter.links import Purpose
from newsletter.models import Feedback, Subscriber
from newsletter.sign_in import own_path, reader_of
from newsletter.tasks import fetch_submitted, send_sign_in_links, soon
from newsletter.views import by_link, private, refusal
from papers.conditional import known_or
from papers.models import Paper

ON_PAGE = 100  # of a reader's saved papers, votes and submissions, the newest
NEXT = "next"  # a cookie of the asking browser: where to go once signed in
BUTTON, HINT = "vote", "up"  # with a paper's uuid, their ids: see templatetags/readers.py

ReaderView = Callable[..., HttpResponse]


def for_readers(view: ReaderView) -> Callable[..., HttpResponse]:
    """Calls `view` with the signed-in reader; everybody else is led to sign in, and back."""

    @functools.wraps(view)
    def guarded(request: HttpRequest, *args: Any, **options: Any) -> HttpResponse:
        reader = reader_of(request)
        if reader is None:
            posted = request.method == "POST"
            back = request.POST.get(NEXT) if posted else request.get_full_path()
            page = own_path(back, reverse("reader"))
            return redirect(sign_in_page(page, upvoting=options.get("uuid")))
        try:
            response = view(request, reader, *args, **options)
        except Subscriber.DoesNotExist:  # erased meanwhile, in another tab
            response = redirect(sign_in_page(reverse("reader")))
        return private(response, referrer="same-origin")

    return guarded


def sign_in_page(back: str, *, upvoting: UUID | None = None) -> str:
    query = {NEXT: back} | ({"vote": str(upvoting)} if upvoting else {})
    return f"{reverse('sign_in')}?{urlencode(query)}"


@never_cache
def ask(request: HttpRequest) -> HttpResponse:
    """The form that asks for a link."""
    response = _ask(request)
    response["X-Robots-Tag"] = "noindex"  # every card leads here, each with another address
    return response


def _ask(request: HttpRequest) -> HttpResponse:
    back = own_path(request.POST.get(NEXT) or request.GET.get(NEXT), "")
    vote = request.GET.get("vote", "")
    if re.fullmatch("[0-9a-f-]{36}", vote):  # by a paper's button, and back to it
        back = own_path(_at(HINT, vote, back or "/"), "")
    if reader_of(request) is not None:
        return redirect(back or "reader")
    context = {"form": SignInForm(), "next": back, "upvoting": f"#{HINT}-" in back}
    if request.method != "POST":
        return render(request, "newsletter/sign_in.html", context)
    form = SignInForm(request.POST)
    if not form.is_valid():
        context["form"] = form
        return render(request, "newsletter/sign_in.html", context, status=400)
    sign_in.ask(form.cleaned_data["address"])
    soon(send_sign_in_links)
    response = redirect("sign_in_sent")
    if back:
        response.set_cookie(
            NEXT,
            back,
            max_age=60 * links.SIGN_IN_MINUTES,
            path=reverse("sign_in"),
            secure=request.is_secure(),
            httponly=True,
            samesite="Lax",
        )
    return response


@csrf_exempt
@require_POST
@by_link
def ask_from_settings(request: HttpRequest, token: str) -> HttpResponse:
    """The button of the settings' page that asks for a link, to the reader's own address."""
    reader = links.subscriber_of(token, Purpose.PREFERENCES)
    sign_in.ask(reader.address, proved=True)
    soon(send_sign_in_links)
    return private(redirect("sign_in_sent"))


@require_safe
def sent(request: HttpRequest) -> HttpResponse:
    return render(request, "newsletter/sign_in_sent.html", {"minutes": links.SIGN_IN_MINUTES})


@by_link
def follow(request: HttpRequest, token: str) -> HttpResponse:
    """The page of a link to sign in: its button signs in.

    With a CSRF token, or another site could sign somebody in as somebody else. The page sends its
    referrer to this site, for without it a browser sends no Origin that Django could check.
    """
    reader = links.subscriber_of(token, Purpose.SIGN_IN)
    if reader.state not in sign_in.MAY_SIGN_IN:
        return refusal(request, "gone")
    if request.method != "POST":
        response = render(request, "newsletter/sign_in_link.html")
        return private(response, referrer="same-origin")
    if not sign_in.sign_in(request, reader):
        return refusal(request, "spent")
    back = own_path(request.COOKIES.get(NEXT), reverse("reader"))
    response = private(redirect(back))
    response.delete_cookie(NEXT, path=reverse("sign_in"), samesite="Lax")
    return response


@require_POST
def leave(request: HttpRequest) -> HttpResponse:
    reader = reader_of(request)
    if reader is not None and request.POST.get("where") == "everywhere":
        sign_in.sign_out_everywhere(reader)
    sign_in.sign_out(request)
    return redirect("newest")


@for_readers
def reader_page(request: HttpRequest, reader: Subscriber) -> HttpResponse:
    """A reader's own page."""
    if request.method == "POST" and request.POST.get("renew") == "feed":
        sign_in.renew_feed(reader)
        messages.success(request, "Your feed has a new address. The old one works no more.")
        return redirect("reader")
    upvoted = reader.votes.select_related("paper").order_by("-created_at", "-id")[:ON_PAGE]
    saved = reader.feedback.filter(kind=Feedback.Kind.SAVE).select_related("paper")
    context = {
        "reader": reader,
        "saved": saved.order_by("-at", "-id")[:ON_PAGE],
        "preferences_url": links.url(reader.uuid, Purpose.PREFERENCES),
        "feed_url": links.numbered_url(reader, Purpose.FEED),
        "upvoted": upvoted,
        "papers": [vote.paper for vote in upvoted],
        "submitted": reader.submissions.count(),
    }
    return render(request, "newsletter/reader.html", context)


@require_safe
@for_readers
def export(request: HttpRequest, reader: Subscriber) -> HttpResponse:
    """All that is kept of a reader, as a file."""
    response = JsonResponse(
        subscriptions.export(reader), json_dumps_params={"indent": 1, "ensure_ascii": False}
    )
    response["Content-Disposition"] = 'attachment; filename="paperround.json"'
    return response


@for_readers
def erase(request: HttpRequest, reader: Subscriber) -> HttpResponse:
    """Have everything erased, after a page that says what that means."""
    if request.method != "POST":
        return render(request, "newsletter/erase.html", {"reader": reader})
    subscriptions.erase(reader, way="own page")
    sign_in.sign_out(request)
    return render(request, "newsletter/erased.html")


@require_POST
@for_readers
def vote(request: HttpRequest, reader: Subscriber, uuid: UUID) -> HttpResponse:
    """Give or take back an upvote, then back to where the button stood."""
    paper = Paper.named(uuid)
    if paper is None:
        raise Http404("There is no such paper.")
    if request.POST.get("vote") == "0":
        votes.take_back(reader, paper)
    else:
        votes.give(reader, paper)
    back = own_path(request.POST.get(NEXT), paper.get_absolute_url())
    return redirect(_at(BUTTON, paper.uuid, back))


def _at(what: str, uuid: UUID | str, page: str) -> str:
    """Where on a page the button of a paper stands, or what says to press it."""
    return f"{page.partition('#')[0]}#{what}-{uuid}"


@for_readers
def submit(request: HttpRequest, reader: Subscriber) -> HttpResponse:
    """Propose a paper; what became of earlier ones."""
    form = SubmissionForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            submission = submissions.submit(reader, **form.cleaned_data)
        except submissions.SubmissionError as error:
            form.add_error("arxiv_id", str(error))
        else:
            if submission.paper_id is None:
                soon(fetch_submitted)
            messages.success(request, "Thank you. The editors will look at it.")
            return redirect("submit")
    context = {
        "form": form,
        "rows": reader.submissions.select_related("paper")[:ON_PAGE],
    }
    status = 400 if request.method == "POST" else 200
    return render(request, "newsletter/submit.html", context, status=status)


@require_safe
def feed(request: HttpRequest, token: str) -> HttpResponse:
    """A reader's picks as Atom, for who has its address."""
    try:
        reader = links.subscriber_of(token, Purpose.FEED)
    except (links.SpentLink, links.SubscriberGone):
        return _no_feed(410)
    except links.InvalidLink:
        return _no_feed(404)
    if reader.state not in sign_in.MAY_SIGN_IN:
        return _no_feed(410)
    response, newest = picks_feed.feed_of(reader)
    etag = quote_etag(salted_hmac("paperround.picks_feed", response.content).hexdigest())
    response["ETag"], response["Last-Modified"] = etag, http_date(newest.timestamp())
    answer = known_or(request, etag, int(newest.timestamp()), response)
    assert answer is not None  # noqa: S101  (with a response it gives one)
    private(answer)
    del answer["Cache-Control"]
    patch_cache_control(answer, private=True, no_cache=True)
    return answer


def _no_feed(status: int) -> HttpResponse:
    said = "This feed is no more." if status == 410 else "There is no such feed."
    return private(HttpResponse(f"{said}\n", status=status, content_type="text/plain"))
