"""Where operators look after subscribers and their deliveries."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.helpers import ActionForm
from django.contrib.admin.widgets import AdminTextareaWidget
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import ImproperlyConfigured, PermissionDenied, ValidationError
from django.db.models import F, QuerySet, TextField
from django.forms import BaseInlineFormSet, CharField, ModelForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html

from newsletter import addresses, explaining, sending, submissions, subscriptions
from newsletter.delivery import TooLate, settle_unknown
from newsletter.models import (
    Alert,
    ConsentRecord,
    Delivery,
    DeliveryEvent,
    Feedback,
    Interest,
    RankingModel,
    SendingPause,
    Submission,
    Subscriber,
    Suppression,
)
from papers.admin import NoHandWriting
from papers.editions import CurationError
from papers.meanwhile import MeanwhileForm

SHOWN = 20  # of the subscribers that an action is asked about


class InterestFormSet(BaseInlineFormSet[Interest, Subscriber, ModelForm[Interest]]):
    def clean(self) -> None:
        super().clean()
        if any(form.instance.pk is None for form in self.initial_forms):
            raise ValidationError(
                "The reader has taken a subject of these away meanwhile. Nothing is saved: open "
                "this page anew."
            )


class InterestInline(admin.StackedInline[Interest, Subscriber]):
    model = Interest
    form = MeanwhileForm[Interest]
    formset = InterestFormSet
    fields = ("name", "words", "categories", "authors", "example_ids")
    extra = 0
    formfield_overrides = {TextField: {"widget": AdminTextareaWidget(attrs={"rows": 3})}}


@admin.register(Subscriber)
class SubscriberAdmin(admin.ModelAdmin[Subscriber]):
    """Settings may be mended by hand; consent may not: it comes by the double opt-in alone."""

    form = MeanwhileForm[Subscriber]
    list_display = ("address", "state", "when", "next_send_at", "created_at")
    list_filter = ("state",)
    search_fields = ("address__iexact", "name")
    search_help_text = "The whole address, or part of a name"
    fields = (
        "address", "name", "state", "time_zone", "send_hour", "send_minute", "send_days",
        "papers_per_mail",
        "popularity", "must_phrases", "must_authors",
        "muted_terms", "muted_categories", "muted_authors",
        "next_send_at", "created_at", "confirmed_at", "unsubscribed_at",
    )  # fmt: skip
    readonly_fields = (
        "address", "state", "next_send_at", "created_at", "confirmed_at", "unsubscribed_at",
    )  # fmt: skip
    inlines = (InterestInline,)
    actions = ("unsubscribe", "suppress", "erase")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Subscriber | None = None) -> bool:
        return False  # "erase" does it, and remembers not to mail the address again

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Subscriber | None = None,
    ) -> HttpResponse:
        if obj is not None:
            context["subtitle"] = obj.address  # for a person; the trail keeps the UUID
        return super().render_change_form(request, context, add, change, form_url, obj)

    def save_model(
        self, request: HttpRequest, obj: Subscriber, form: ModelForm[Subscriber], change: bool
    ) -> None:
        subscriptions.reschedule(obj)
        # Only what the form changes: the state may have moved since the page was opened.
        obj.save(update_fields=[*form.changed_data, "next_send_at"])

    @admin.action(description="Unsubscribe", permissions=["change"])
    def unsubscribe(self, request: HttpRequest, rows: QuerySet[Subscriber]) -> HttpResponse | None:
        if "sure" not in request.POST:
            means = "No more mail to them, not even what is planned. Only they can subscribe again."
            return self._ask(request, rows, "unsubscribe", "Unsubscribe them", means)
        for subscriber in rows:
            subscriptions.unsubscribe(subscriber, way="operator")
            self.log_change(request, subscriber, "Unsubscribed.")
        return None

    @admin.action(description="Suppress: never mail this address again", permissions=["change"])
    def suppress(self, request: HttpRequest, rows: QuerySet[Subscriber]) -> HttpResponse | None:
        if "sure" not in request.POST:
            means = "No more mail to these addresses, whoever subscribes them, until you lift it."
            return self._ask(request, rows, "suppress", "Suppress them", means)
        for subscriber in rows:
            subscriptions.suppress(subscriber.address, Suppression.Reason.OPERATOR)
            subscriptions.unsubscribe(subscriber, way="operator")
            self.log_change(request, subscriber, "Suppressed.")
        return None

    @admin.action(description="Erase everything about them", permissions=["change"])
    def erase(self, request: HttpRequest, rows: QuerySet[Subscriber]) -> HttpResponse | None:
        if "sure" not in request.POST:
            means = (
                "Their settings, subjects, votes and mails are forgotten, and their addresses never"
                " mailed again: a keyed hash of each stays for that. This cannot be undone."
            )
            return self._ask(request, rows, "erase", "Erase them", means)
        for subscriber in rows:
            uuid = subscriber.uuid
            self.log_deletions(request, Subscriber.objects.filter(pk=subscriber.pk))
            subscriptions.erase(subscriber, way="operator")
            messages.success(request, f"Subscriber {uuid} is erased.")
        return None

    def _ask(
        self,
        request: HttpRequest,
        rows: QuerySet[Subscriber],
        action: str,
        button: str,
        means: str,
    ) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": f"{button}?",
            "button": button,
            "action": action,
            "means": means,
            "shown": rows[:SHOWN],
            "more": max(0, rows.count() - SHOWN),
            "chosen": request.POST.getlist("_selected_action"),
            "across": request.POST.get("select_across", "0"),
        }
        return render(request, "admin/newsletter/subscriber/are_you_sure.html", context)


@admin.register(Delivery)
class DeliveryAdmin(NoHandWriting, admin.ModelAdmin[Delivery]):
    list_display = ("subscriber__address", "edition__day", "state", "sent_at", "error")
    list_filter = ("state", "edition")
    list_select_related = ("edition", "subscriber")
    search_fields = ("uuid__iexact", "subscriber__address__iexact")
    search_help_text = "A whole UUID or an address"
    show_full_result_count = False
    # Not the arrays of its picks: the ledger is what they say.
    fields = (
        "address", "edition", "editions_from", "state", "skip_reason", "waits_for", "error",
        "attempts", "planned_at", "not_before", "lease_until", "handed_over_at", "sent_at",
        "provider_id", "ranking_model", "ledger",
    )  # fmt: skip
    readonly_fields = ("address", "waits_for", "ledger")
    actions = ("it_arrived", "send_again", "give_up")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Delivery], search_term: str
    ) -> tuple[QuerySet[Delivery], bool]:
        """Each by its own index: for either of two, in two tables, all deliveries would be read."""
        if not (term := search_term.strip()):
            return queryset, False
        if uuid := _uuid(term):
            return queryset.filter(uuid=uuid), False
        return queryset.filter(subscriber__in=subscriptions.spelled(term)), False

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        @cache  # one question a domain, not one a row
        def why_waiting(domain: str) -> str:
            return sending.why_waiting(domain, now)

        @admin.display(description="Why it waits")
        def waits_for(delivery: Delivery) -> str:
            return _waits_for(delivery, now, why_waiting)

        now = timezone.now()
        *others, error = self.list_display
        return [*others, waits_for, error]

    def has_settle_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("newsletter.settle_delivery")

    @admin.action(description="Unknown outcome: it arrived", permissions=["settle"])
    def it_arrived(self, request: HttpRequest, rows: QuerySet[Delivery]) -> None:
        self._settle(request, rows, Delivery.State.SENT)

    @admin.action(description="Unknown outcome: send again", permissions=["settle"])
    def send_again(self, request: HttpRequest, rows: QuerySet[Delivery]) -> None:
        self._settle(request, rows, Delivery.State.PLANNED)

    @admin.action(description="Unknown outcome: give up", permissions=["settle"])
    def give_up(self, request: HttpRequest, rows: QuerySet[Delivery]) -> None:
        self._settle(request, rows, Delivery.State.FAILED)

    def _settle(
        self, request: HttpRequest, rows: QuerySet[Delivery], target: Delivery.State
    ) -> None:
        settled, too_late = 0, []
        for delivery in rows:
            try:
                if settle_unknown(delivery, target):
                    settled += 1
                    self.log_change(request, delivery, f"Settled as {target.label}.")
            except TooLate as error:
                too_late.append(str(error))
        for words in sorted({*too_late}):
            messages.error(request, words)
        left = len(rows) - settled - len(too_late)
        word = f" {left} had no unknown outcome and stay as they are." if left else ""
        messages.info(request, f"{settled} settled as {target.label}.{word}")

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Delivery | None = None,
    ) -> HttpResponse:
        asked = request.GET.get("paper", "")
        if asked and obj is not None:
            try:
                answer = list(explaining.why_not(obj, explaining.find_paper(asked)).lines())
            except explaining.NotFound as error:
                answer = [str(error)]
            context |= {"asked": asked, "answer": answer}
        return super().render_change_form(request, context, add, change, form_url, obj)

    @admin.display(description="Address", ordering="subscriber__address")
    def address(self, delivery: Delivery) -> str:
        url = reverse("admin:newsletter_subscriber_change", args=[delivery.subscriber_id])
        return format_html('<a href="{}">{}</a>', url, delivery.subscriber.address)

    @admin.display(description="Why it waits")
    def waits_for(self, delivery: Delivery) -> str:
        now = timezone.now()
        return _waits_for(delivery, now, lambda domain: sending.why_waiting(domain, now))

    @admin.display(description="Picks")
    def ledger(self, delivery: Delivery) -> str:
        text = "\n".join(explaining.explain(delivery).lines())
        return format_html('<pre class="said">{}</pre>', text)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _waits_for(delivery: Delivery, now: datetime, why_waiting: Callable[[str], str]) -> str:
    """What holds it back, for nobody writes that on a million rows."""
    if delivery.state != Delivery.State.PLANNED:
        return "-"
    if delivery.not_before is not None and delivery.not_before > now:
        return f"Its next try, at {delivery.not_before:%Y-%m-%d %H:%M} UTC."
    try:
        return why_waiting(sending.domain_of(delivery.subscriber.address)) or "A worker."
    except ImproperlyConfigured as error:
        return str(error)


@admin.register(Feedback)
class FeedbackAdmin(NoHandWriting, admin.ModelAdmin[Feedback]):
    list_display = ("paper", "kind", "subscriber__address", "interest", "at")
    list_filter = ("kind",)
    ordering = ("-id",)
    list_select_related = ("paper", "subscriber", "interest")
    search_fields = ("subscriber__uuid__iexact", "subscriber__address__iexact")
    search_help_text = "A subscriber's whole address or UUID"
    show_full_result_count = False


class DecisionForm(ActionForm):
    """An action, and what is said with it."""

    reason = CharField(required=False, max_length=255, label="Reason, to decline:", empty_value="")


@admin.register(Submission)
class SubmissionAdmin(NoHandWriting, admin.ModelAdmin[Submission]):
    """What readers propose; who they are is not for the editors, but for the name they gave."""

    list_display = ("arxiv_id", "title", "state", "shown_name", "reason", "created_at")
    list_filter = ("state",)
    list_select_related = ("paper",)
    ordering = (F("decided_at").desc(nulls_first=True), "-created_at")
    search_fields = ("arxiv_id", "paper__title")
    fields = (
        "arxiv_id", "title", "abstract", "shown_name", "state", "reason", "problem",
        "created_at", "decided_at",
    )  # fmt: skip
    readonly_fields = ("title", "abstract")
    action_form = DecisionForm
    actions = ("accept", "decline", "fetch_again")

    def has_decide_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("newsletter.decide_submission")

    @admin.display(description="Paper")
    def title(self, row: Submission) -> str:
        if row.paper is None:
            return row.problem or ("is being fetched" if row.fetch_at else "not known here")
        return format_html('<a href="{}">{}</a>', row.paper.get_absolute_url(), row.paper)

    @admin.display(description="Abstract")
    def abstract(self, row: Submission) -> str:
        return row.paper.abstract if row.paper else "–"

    @admin.action(description="Accept: onto the next list", permissions=["decide"])
    def accept(self, request: HttpRequest, rows: QuerySet[Submission]) -> None:
        for row in rows:
            try:
                by = request.user.get_username()
                day = submissions.accept(row, timezone.now(), by=by)
            except (submissions.SubmissionError, CurationError) as error:
                messages.error(request, str(error))
            else:
                self.log_change(request, row, f"Accepted for {day}.")
                messages.success(request, f"{row} comes onto the list of {day}.")

    @admin.action(description="Decline, with the reason", permissions=["decide"])
    def decline(self, request: HttpRequest, rows: QuerySet[Submission]) -> None:
        for row in rows:
            try:
                submissions.decline(row, request.POST.get("reason", ""), timezone.now())
            except submissions.SubmissionError as error:
                messages.error(request, str(error))
            else:
                self.log_change(request, row, "Declined.")
                messages.success(request, f"{row} is declined.")

    @admin.action(description="Fetch from arXiv again", permissions=["decide"])
    def fetch_again(self, request: HttpRequest, rows: QuerySet[Submission]) -> None:
        for row in rows:
            submissions.fetch_again(row, timezone.now())
        messages.info(request, "A worker tries again within a minute.")


@admin.register(RankingModel)
class RankingModelAdmin(NoHandWriting, admin.ModelAdmin[RankingModel]):
    list_display = ("name", "fitted_at", "papers")


@admin.register(Suppression)
class SuppressionAdmin(admin.ModelAdmin[Suppression]):
    """Lifting one is deleting it; adding one goes by the subscriber's page."""

    list_display = ("address_hash", "reason", "note", "created_at")
    list_filter = ("reason",)
    search_fields = ("address_hash",)
    search_help_text = "An address (it is hashed first)"

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Suppression], search_term: str
    ) -> tuple[QuerySet[Suppression], bool]:
        if "@" in search_term:
            search_term = addresses.address_hash(search_term.strip())
        return super().get_search_results(request, queryset, search_term)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(ConsentRecord)
class ConsentRecordAdmin(NoHandWriting, admin.ModelAdmin[ConsentRecord]):
    list_display = ("address_hash", "act", "way", "at")
    list_filter = ("act",)


@admin.register(DeliveryEvent)
class DeliveryEventAdmin(NoHandWriting, admin.ModelAdmin[DeliveryEvent]):
    list_display = ("received_at", "source", "kind", "cause", "delivery", "outcome")
    list_filter = ("kind", "cause", "source")
    list_select_related = ("delivery",)
    search_fields = ("delivery__uuid__iexact",)
    search_help_text = "The UUID of a delivery"
    show_full_result_count = False

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[DeliveryEvent], search_term: str
    ) -> tuple[QuerySet[DeliveryEvent], bool]:
        """By the index: compared as text, the UUIDs of all deliveries would be read."""
        if not (term := search_term.strip()):
            return queryset, False
        uuid = _uuid(term)
        return (queryset.filter(delivery__uuid=uuid) if uuid else queryset.none()), False


class DomainPauseForm(ModelForm[SendingPause]):
    """One domain; all sending is paused by the switch above the list."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if "domain" in self.fields:
            self.fields["domain"].required = True
            self.fields["domain"].help_text = "Of the recipients, like example.org."

    def clean_domain(self) -> str:
        try:
            domain = sending.known_domain(self.cleaned_data["domain"])
        except ValueError as error:
            raise ValidationError(str(error)) from None
        if SendingPause.objects.in_force().filter(domain=domain).exists():
            raise ValidationError(f"Mail to {domain} is paused already.")
        return domain

    def clean_why(self) -> str:
        why = " ".join(str(self.cleaned_data["why"]).split())
        if not why:
            raise ValidationError("Please say why: it is what others will read.")
        return why

    def clean_until(self) -> datetime | None:
        until: datetime | None = self.cleaned_data["until"]
        if until is not None and until <= timezone.now():
            raise ValidationError("This time is past; leave it empty to pause until you resume.")
        return until

    def validate_constraints(self) -> None:
        """Not here: one that ran out by itself still stands, and sending.pause_domain ends it."""


@admin.register(SendingPause)
class SendingPauseAdmin(admin.ModelAdmin[SendingPause]):
    """The switch of all sending, its limits, and what was paused when, by whom and why."""

    form = DomainPauseForm
    list_display = ("__str__", "why", "since", "until", "ended_at", "by")
    list_display_links = ("__str__",)
    list_select_related = ("by",)
    fields = ("domain", "why", "until")
    actions = ("resume",)
    change_list_template = "admin/newsletter/sendingpause/change_list.html"

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # what ended is kept

    def has_resume_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("newsletter.resume_sendingpause")

    def get_fields(self, request: HttpRequest, obj: SendingPause | None = None) -> Any:
        return self.fields if obj is None else (*self.fields, "since", "ended_at", "by")

    def get_urls(self) -> list[URLPattern]:
        switch = self.admin_site.admin_view(self.switch)
        return [
            path("switch/", switch, name="newsletter_sendingpause_switch"),
            *super().get_urls(),
        ]

    def add_view(
        self,
        request: HttpRequest,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        title = {"title": "Pause the mail to one domain"}
        return super().add_view(request, form_url, {**title, **(extra_context or {})})

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        state: Any
        try:
            state = sending.overview(timezone.now())
        except ImproperlyConfigured as error:
            state = {"error": str(error)}
        context = {**(extra_context or {}), "sending": state, "title": "Sending"}
        context["may_resume"] = self.has_resume_permission(request)
        return super().changelist_view(request, context)

    def switch(self, request: HttpRequest) -> HttpResponse:
        """Pause or resume all sending."""
        pauses = request.POST.get("do") == "pause"
        allowed = self.has_add_permission if pauses else self.has_resume_permission
        if not allowed(request):
            raise PermissionDenied
        if request.method == "POST":
            if pauses:
                self._pause(request, request.POST.get("why", ""))
            else:
                self._say_resumed(request, sending.resume())
        return redirect("admin:newsletter_sendingpause_changelist")

    def _pause(self, request: HttpRequest, why: str) -> None:
        try:
            standing = sending.pause(why, by=_user(request))
        except ValueError as error:
            messages.error(request, str(error))
            return
        if standing is None:
            messages.info(request, "All sending is paused already.")
            return
        self.log_addition(request, standing, f"Paused {standing}: {standing.why}")
        messages.warning(request, "All sending is paused.")

    def save_model(self, request: HttpRequest, obj: SendingPause, form: Any, change: bool) -> None:
        sending.pause_domain(obj.domain, obj.why, until=obj.until, by=_user(request))
        # The admin logs and shows the row: the one that stands, should another have been faster.
        obj.pk = SendingPause.objects.get(domain=obj.domain, ended_at=None).pk

    @admin.action(description="Resume sending", permissions=["resume"])
    def resume(self, request: HttpRequest, rows: QuerySet[SendingPause]) -> None:
        for row in rows.filter(ended_at=None):
            domain = row.domain
            ended = sending.resume_domain(domain) if domain else sending.resume()
            self._say_resumed(request, ended)

    def _say_resumed(self, request: HttpRequest, ended: SendingPause | None) -> None:
        if ended is None:
            messages.info(request, "It was not paused.")
            return
        self.log_change(request, ended, f"Resumed {ended}.")
        messages.success(request, f"{ended.words} is resumed.")


def _user(request: HttpRequest) -> AbstractBaseUser:
    assert isinstance(request.user, AbstractBaseUser)  # noqa: S101  (admin_view lets no other in)
    return request.user


@admin.register(Alert)
class AlertAdmin(NoHandWriting, admin.ModelAdmin[Alert]):
    list_display = ("subject", "raised_at", "times", "waits", "mailed_at")
