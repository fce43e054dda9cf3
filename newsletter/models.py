"""Who reads, what they get, and whether it arrived."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import ClassVar, Self

from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower, Now

from newsletter.schedule import zone_names
from papers.models import Edition, text_list

MAX_INTERESTS = 10
LONGEST_INTEREST = 10_000  # characters; a pasted abstract fits, a pasted thesis does not


def known_zone(name: str) -> None:
    if name not in zone_names():
        raise ValidationError(f"“{name}” is not a time zone; write one like Europe/Berlin.")


class SubscriberQuerySet(models.QuerySet["Subscriber"]):
    def active(self) -> Self:
        return self.filter(state=Subscriber.State.ACTIVE)

    def due(self, now: datetime) -> Self:
        return self.active().filter(next_send_at__lte=now)

    def awaiting_answer(self, now: datetime) -> Self:
        """Those who asked on the web page and have not had their answer by mail yet."""
        return self.filter(answer_due_at__lte=now)


class Subscriber(models.Model):
    """An address with consent and settings."""

    class State(models.TextChoices):
        PENDING = "pending", "waiting for confirmation"
        ACTIVE = "active"
        PAUSED = "paused"
        UNSUBSCRIBED = "unsubscribed"

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    address = models.EmailField(max_length=254)
    # Keyed hash of the address without its plus part, dots and case: one person's mailbox gets one
    # confirmation a day, however it is spelled.
    mailbox_key = models.CharField(max_length=64, db_index=True, editable=False)
    name = models.CharField(max_length=100, blank=True)
    state = models.CharField(max_length=12, choices=State, default=State.PENDING)
    time_zone = models.CharField(max_length=64, default="UTC", validators=[known_zone])
    send_hour = models.PositiveSmallIntegerField(
        default=7, validators=[MaxValueValidator(23)], help_text="Local hour, 0 to 23."
    )
    papers_per_mail = models.PositiveSmallIntegerField(
        default=8, validators=[MinValueValidator(3), MaxValueValidator(20)]
    )
    next_send_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    confirmed_at = models.DateTimeField(null=True, blank=True, editable=False)
    unsubscribed_at = models.DateTimeField(null=True, blank=True, editable=False)
    # An answer to a sign-up is due: the database remembers, so that a lost task loses nothing.
    answer_due_at = models.DateTimeField(null=True, blank=True, editable=False)
    answered_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects: ClassVar[SubscriberQuerySet] = SubscriberQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        constraints = [
            models.UniqueConstraint(Lower("address"), name="subscriber_address_once"),
            models.CheckConstraint(
                condition=Q(state__in=["pending", "active", "paused", "unsubscribed"]),
                name="subscriber_state_known",
            ),
            models.CheckConstraint(
                condition=Q(state="active", next_send_at__isnull=False)
                | (~Q(state="active") & Q(next_send_at=None)),
                name="subscriber_active_has_next_slot",
            ),
            models.CheckConstraint(
                condition=~Q(state__in=["active", "paused"]) | Q(confirmed_at__isnull=False),
                name="subscriber_active_is_confirmed",
            ),
            models.CheckConstraint(
                condition=Q(send_hour__lte=23, papers_per_mail__gte=3, papers_per_mail__lte=20),
                name="subscriber_settings_in_range",
            ),
        ]
        indexes = [
            models.Index(
                fields=["next_send_at"], condition=Q(state="active"), name="subscriber_due"
            ),
            models.Index(
                fields=["answer_due_at"],
                condition=Q(answer_due_at__isnull=False),
                name="subscriber_answer_due",
            ),
        ]

    def __str__(self) -> str:
        return str(self.uuid)  # what logs and the admin's trail keep; erasing leaves no address


class Interest(models.Model):
    """One named subject of a subscriber."""

    subscriber = models.ForeignKey(Subscriber, models.CASCADE, related_name="interests")
    name = models.CharField(max_length=100)
    words = models.TextField(blank=True, max_length=LONGEST_INTEREST)
    categories = text_list()

    class Meta:
        ordering = ("id",)
        constraints = [
            models.UniqueConstraint(fields=["subscriber", "name"], name="interest_name_once"),
            models.CheckConstraint(
                condition=~Q(words="", categories=[]), name="interest_says_something"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Delivery(models.Model):
    """One edition for one subscriber: its picks and its state of sending.

    Picks are parallel arrays, one entry a pick, in the order of the mail; `terms` holds
    len(TERMS) numbers a pick.
    """

    class State(models.TextChoices):
        PLANNED = "planned"
        CLAIMED = "claimed"
        HANDED_OVER = "handed_over", "handed over"
        SENT = "sent"
        DELIVERED = "delivered"
        BOUNCED = "bounced"
        COMPLAINED = "complained"
        FAILED = "failed"
        UNKNOWN = "unknown"
        SUPPRESSED = "suppressed"
        EXPIRED = "expired"
        SKIPPED = "skipped"

    class Section(models.IntegerChoices):
        PINNED = 1, "From the editors"
        FOR_YOU = 2, "For you"
        TRENDING = 3, "Trending"

    class Reason(models.IntegerChoices):
        """Their words for a reader: mail.reason_text."""

        PINNED = 1
        WORDS = 2
        CATEGORY = 3
        UPVOTES = 4
        NEW = 5

    TERMS = ("relevance", "trend", "score")

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    edition = models.ForeignKey(Edition, models.PROTECT, related_name="deliveries")
    subscriber = models.ForeignKey(Subscriber, models.CASCADE, related_name="deliveries")
    state = models.CharField(max_length=12, choices=State, default=State.PLANNED)
    skip_reason = models.CharField(max_length=255, blank=True)
    paper_ids = ArrayField(models.BigIntegerField(), default=list)
    sections = ArrayField(models.SmallIntegerField(), default=list)
    terms = ArrayField(models.FloatField(), default=list)
    reasons = ArrayField(models.SmallIntegerField(), default=list)
    reason_details = ArrayField(models.TextField(blank=True), default=list)

    planned_at = models.DateTimeField(db_default=Now())
    not_before = models.DateTimeField(null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    handed_over_at = models.DateTimeField(null=True, blank=True)
    sent_at = models.DateTimeField(null=True, blank=True)
    provider_id = models.CharField(max_length=255, blank=True)
    error = models.TextField(blank=True)

    class Meta:
        verbose_name_plural = "deliveries"
        ordering = ("-id",)
        permissions = [("settle_delivery", "Can settle a delivery of unknown outcome")]
        constraints = [
            models.UniqueConstraint(fields=["edition", "subscriber"], name="delivery_once"),
            models.CheckConstraint(
                condition=~Q(state="skipped") | ~Q(skip_reason=""), name="delivery_skip_has_reason"
            ),
            models.CheckConstraint(
                condition=~Q(state__in=["sent", "delivered"]) | Q(sent_at__isnull=False),
                name="delivery_sent_has_time",
            ),
            models.CheckConstraint(
                condition=~Q(state="handed_over") | Q(handed_over_at__isnull=False),
                name="delivery_handed_over_has_time",
            ),
            models.CheckConstraint(
                condition=~Q(state__in=["claimed", "handed_over"]) | Q(lease_until__isnull=False),
                name="delivery_in_hand_has_lease",
            ),
            models.CheckConstraint(
                condition=Q(
                    state__in=[
                        "planned", "claimed", "handed_over", "sent", "delivered", "bounced",
                        "complained", "failed", "unknown", "suppressed", "expired", "skipped",
                    ]
                ),
                name="delivery_state_known",
            ),
        ]  # fmt: skip
        indexes = [
            models.Index(
                fields=["not_before", "id"], condition=Q(state="planned"), name="delivery_planned"
            ),
            models.Index(
                fields=["lease_until"],
                condition=Q(state__in=["claimed", "handed_over"]),
                name="delivery_in_hand",
            ),
        ]

    def __str__(self) -> str:
        return str(self.uuid)

    def clean(self) -> None:
        lengths = {len(self.paper_ids), len(self.sections), len(self.reasons)}
        if len(lengths) > 1:
            raise ValidationError("The arrays of picks differ in length.")


class Suppression(models.Model):
    """An address never to be mailed again, as a keyed hash, so that it outlives erasure."""

    class Reason(models.TextChoices):
        INVALID = "invalid", "the address does not exist"
        COMPLAINT = "complaint", "its owner complained"
        OPERATOR = "operator", "an operator decided"
        ERASURE = "erasure", "its owner had everything erased"

    address_hash = models.CharField(max_length=64, unique=True)
    reason = models.CharField(max_length=12, choices=Reason)
    note = models.CharField(max_length=255, blank=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ("-created_at",)
        constraints = [
            models.CheckConstraint(
                condition=Q(reason__in=["invalid", "complaint", "operator", "erasure"]),
                name="suppression_reason_known",
            )
        ]

    def __str__(self) -> str:
        return f"{self.address_hash[:12]}… ({self.reason})"


class ConsentRecord(models.Model):
    """One act of consent or its withdrawal: what was done, when and by which way. Append-only."""

    class Act(models.TextChoices):
        ASKED = "asked"
        CONFIRMED = "confirmed"
        IMPORTED = "imported"
        UNSUBSCRIBED = "unsubscribed"
        ERASED = "erased"

    address_hash = models.CharField(max_length=64, db_index=True)
    act = models.CharField(max_length=12, choices=Act)
    way = models.CharField(max_length=64)
    at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ("-at",)
        constraints = [
            models.CheckConstraint(
                condition=Q(act__in=["asked", "confirmed", "imported", "unsubscribed", "erased"]),
                name="consent_act_known",
            )
        ]

    def __str__(self) -> str:
        return f"{self.act} by {self.way}"
