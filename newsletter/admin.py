"""Where operators look after subscribers and their deliveries."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest

from newsletter import addresses, subscriptions
from newsletter.delivery import settle_unknown
from newsletter.mail import picks_of
from newsletter.models import ConsentRecord, Delivery, Interest, Subscriber, Suppression
from papers.admin import NoHandWriting


class InterestInline(admin.TabularInline[Interest, Subscriber]):
    model = Interest
    extra = 0


@admin.register(Subscriber)
class SubscriberAdmin(admin.ModelAdmin[Subscriber]):
    """Settings may be mended by hand; consent may not: it comes by the double opt-in alone."""

    list_display = ("address", "state", "time_zone", "send_hour", "next_send_at", "created_at")
    list_filter = ("state",)
    search_fields = ("address__iexact", "name")
    search_help_text = "The whole address, or part of a name"
    fields = (
        "address", "name", "state", "time_zone", "send_hour", "papers_per_mail",
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

    def save_model(
        self, request: HttpRequest, obj: Subscriber, form: ModelForm[Subscriber], change: bool
    ) -> None:
        subscriptions.reschedule(obj)
        # Only what the form changes: the state may have moved since the page was opened.
        obj.save(update_fields=[*form.changed_data, "next_send_at"])

    @admin.action(description="Unsubscribe", permissions=["change"])
    def unsubscribe(self, request: HttpRequest, rows: QuerySet[Subscriber]) -> None:
        for subscriber in rows:
            subscriptions.unsubscribe(subscriber, way="operator")
            self.log_change(request, subscriber, "Unsubscribed.")

    @admin.action(description="Suppress: never mail this address again", permissions=["change"])
    def suppress(self, request: HttpRequest, rows: QuerySet[Subscriber]) -> None:
        for subscriber in rows:
            subscriptions.suppress(subscriber.address, Suppression.Reason.OPERATOR)
            subscriptions.unsubscribe(subscriber, way="operator")
            self.log_change(request, subscriber, "Suppressed.")

    @admin.action(description="Erase everything about them", permissions=["change"])
    def erase(self, request: HttpRequest, rows: QuerySet[Subscriber]) -> None:
        for subscriber in rows:
            uuid = subscriber.uuid
            self.log_deletions(request, Subscriber.objects.filter(pk=subscriber.pk))
            subscriptions.erase(subscriber, way="operator")
            messages.success(request, f"Subscriber {uuid} is erased.")


@admin.register(Delivery)
class DeliveryAdmin(NoHandWriting, admin.ModelAdmin[Delivery]):
    list_display = (
        "uuid",
        "edition",
        "subscriber__address",
        "state",
        "sent_at",
        "attempts",
        "error",
    )
    list_filter = ("state", "edition")
    list_select_related = ("edition", "subscriber")
    search_fields = ("uuid__iexact", "subscriber__address__iexact")
    show_full_result_count = False
    readonly_fields = ("ledger",)
    actions = ("it_arrived", "send_again", "give_up")

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
        settled = 0
        for delivery in rows:
            if settle_unknown(delivery, target):
                settled += 1
                self.log_change(request, delivery, f"Settled as {target.label}.")
        left = len(rows) - settled
        word = f" {left} had no unknown outcome and stay as they are." if left else ""
        messages.info(request, f"{settled} settled as {target.label}.{word}")

    @admin.display(description="Picks")
    def ledger(self, delivery: Delivery) -> str:
        lines = []
        for place, pick in enumerate(picks_of(delivery), start=1):
            terms = ", ".join(f"{name} {value:.2f}" for name, value in pick.terms.items())
            lines.append(f"{place}. {pick.paper.title} [{pick.section}] {pick.reason} ({terms})")
        return "\n".join(lines)


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
