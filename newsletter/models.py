"""Who reads, what they get, and whether it arrived."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime
from typing import ClassVar, Self

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import BrinIndex
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import F, Q
from django.db.models.expressions import Combinable
from django.db.models.functions import Lower, Now

from newsletter.schedule import QUARTERS, Days, in_words, zone_names
from papers.models import Edition, EditionPaper, Paper, PaperAlias, text_list

MAX_INTERESTS = 10
MAX_EXAMPLES = 500
LONGEST_INTEREST = 10_000  # characters; a pasted abstract fits, a pasted thesis does not


def known_zone(name: str) -> None:
    if name not in zone_names():
        raise ValidationError(f"“{name}” is not a time zone; write one like Europe/Berlin.")


class RealField(models.FloatField[float, float]):
    """Four bytes a number, in the arrays that a million deliveries a day hold."""

    def db_type(self, connection: BaseDatabaseWrapper) -> str:
        return "real"


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
        PENDING = "pending", "Waiting for confirmation"
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
    send_minute = models.PositiveSmallIntegerField(
        default=0, choices=[(minute, f"{minute:02}") for minute in QUARTERS]
    )
    send_days = models.CharField(max_length=9, choices=Days, default=Days.DAILY)
    papers_per_mail = models.PositiveSmallIntegerField(
        default=8, validators=[MinValueValidator(3), MaxValueValidator(20)]
    )
    popularity = models.PositiveSmallIntegerField(
        default=20,
        validators=[MaxValueValidator(100)],
        help_text="0: by the reader's own interests alone; 100: by what everybody reads.",
    )
    muted_terms = text_list()
    muted_categories = text_list()
    muted_authors = text_list()
    must_phrases = text_list(help_text="A paper that says one of these is in the mail, always.")
    must_authors = text_list(help_text="A paper by one of these is in the mail, always.")
    next_send_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    confirmed_at = models.DateTimeField(null=True, blank=True, editable=False)
    unsubscribed_at = models.DateTimeField(null=True, blank=True, editable=False)
    # An answer to a sign-up is due: the database remembers, so that a lost task loses nothing.
    answer_due_at = models.DateTimeField(null=True, blank=True, editable=False)
    answered_at = models.DateTimeField(null=True, blank=True, editable=False)
    # A link names one of these numbers, a session the second; it ends when the number moves on.
    sign_ins = models.PositiveIntegerField(default=0, db_default=0, editable=False)
    sign_outs = models.PositiveIntegerField(default=0, db_default=0, editable=False)  # everywhere
    feed_number = models.PositiveIntegerField(default=0, db_default=0, editable=False)

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
            models.CheckConstraint(
                condition=Q(popularity__lte=100), name="subscriber_popularity_in_range"
            ),
            models.CheckConstraint(
                condition=Q(send_minute__in=[0, 15, 30, 45]), name="subscriber_minute_is_quarter"
            ),
            models.CheckConstraint(
                condition=Q(
                    send_days__in=[
                        "daily", "weekdays", "monday", "tuesday", "wednesday", "thursday",
                        "friday", "saturday", "sunday",
                    ]
                ),
                name="subscriber_days_known",
            ),
        ]  # fmt: skip
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

    @property
    def slots(self) -> tuple[str, int, int, str]:
        """When mail is wanted, as the functions of `schedule` take it."""
        return self.time_zone, self.send_hour, self.send_minute, self.send_days

    @property
    def when(self) -> str:
        """The same in words."""
        return in_words(*self.slots)


class SignInRequest(models.Model):
    """Somebody asked to sign in with an address, known here or not: its keyed hashes alone.

    One row for everybody who asks is the same work for everybody, so that its time tells nothing.
    """

    mailbox_key = models.CharField(max_length=64, db_index=True)
    address_hash = models.CharField(max_length=64)
    proved = models.BooleanField(default=False)  # asked for on a page that a mail alone leads to
    asked_at = models.DateTimeField(db_default=Now(), db_index=True)
    # None: nothing is to be done any more.
    due_at = models.DateTimeField(null=True, blank=True)
    mailed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [
            models.Index(
                fields=["due_at"], condition=Q(due_at__isnull=False), name="sign_in_request_due"
            )
        ]

    def __str__(self) -> str:
        return f"{self.address_hash[:12]}…"


class Interest(models.Model):
    """One named subject of a subscriber: what is stated, and by `feedback` what was learned.

    One that states nothing lives by its feedback alone.
    """

    subscriber = models.ForeignKey(Subscriber, models.CASCADE, related_name="interests")
    name = models.CharField(max_length=100)
    words = models.TextField(blank=True, max_length=LONGEST_INTEREST)
    categories = text_list()
    authors = text_list(help_text="Followed authors.")
    # Ids of papers, the oldest example first. No foreign keys: one that vanished is ignored.
    example_ids = ArrayField(models.BigIntegerField(), default=list, blank=True)

    class Meta:
        ordering = ("id",)
        constraints = [
            models.UniqueConstraint(fields=["subscriber", "name"], name="interest_name_once"),
            models.CheckConstraint(condition=~Q(name=""), name="interest_has_name"),
            models.CheckConstraint(
                condition=Q(example_ids__len__lte=MAX_EXAMPLES), name="interest_examples_in_range"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def states_something(self) -> bool:
        return bool(self.words.strip() or self.categories or self.authors or self.example_ids)


class Feedback(models.Model):
    """A reader's judgement of a paper."""

    class Kind(models.TextChoices):
        MORE = "more", "More like this"
        LESS = "less", "Not interested"
        SAVE = "save", "Save"
        CLICK = "click", "Opened"

    subscriber = models.ForeignKey(
        Subscriber, models.CASCADE, related_name="feedback", db_index=False
    )
    interest = models.ForeignKey(
        Interest,
        models.CASCADE,
        related_name="feedback",
        null=True,
        blank=True,
        help_text="The subject it counts for; none: it counts for all of them.",
    )
    paper = models.ForeignKey(Paper, models.CASCADE, related_name="feedback")
    kind = models.CharField(max_length=5, choices=Kind)
    at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name_plural = "feedback"
        ordering = ("-at", "-id")
        constraints = [
            models.UniqueConstraint(fields=["subscriber", "paper", "kind"], name="feedback_once"),
            models.CheckConstraint(
                condition=Q(kind__in=["more", "less", "save", "click"]), name="feedback_kind_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.paper_id}"


class Vote(models.Model):
    """A reader's upvote of a paper; their number is a Signal of the source `paperround`."""

    subscriber = models.ForeignKey(Subscriber, models.CASCADE, related_name="votes", db_index=False)
    paper = models.ForeignKey(Paper, models.CASCADE, related_name="votes")
    # The judgement "more" is this vote's, and goes with it; one said in a mail is not.
    judged = models.BooleanField(default=False)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["subscriber", "paper"], name="vote_once")]

    def __str__(self) -> str:
        return f"{self.subscriber} for {self.paper_id}"


class Submission(models.Model):
    """A paper that a reader proposes by its arXiv id; an editor accepts or declines it."""

    class State(models.TextChoices):
        PENDING = "pending"
        ACCEPTED = "accepted"
        DECLINED = "declined"

    subscriber = models.ForeignKey(Subscriber, models.CASCADE, related_name="submissions")
    arxiv_id = models.CharField("arXiv id", max_length=32)
    state = models.CharField(max_length=8, choices=State, default=State.PENDING)
    shown_name = models.CharField(
        max_length=100, blank=True, help_text="Who submitted it, if they want to be named."
    )
    paper = models.ForeignKey(
        Paper, models.SET_NULL, null=True, blank=True, related_name="submissions"
    )
    # A paper that is not known here is fetched from arXiv by a worker, some times over.
    fetch_at = models.DateTimeField(null=True, blank=True, editable=False)
    fetches = models.PositiveSmallIntegerField(default=0, editable=False)
    problem = models.CharField(
        max_length=255, blank=True, editable=False, help_text="Why its paper is not known here."
    )
    reason = models.CharField(
        max_length=255, blank=True, help_text="Told to who submitted it, where it is declined."
    )
    created_at = models.DateTimeField(db_default=Now())
    decided_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-created_at", "-id")
        permissions = [("decide_submission", "Can accept or decline a submission")]
        constraints = [
            models.UniqueConstraint(fields=["subscriber", "arxiv_id"], name="submission_once"),
            models.UniqueConstraint(
                fields=["arxiv_id"], condition=~Q(state="declined"), name="submission_by_one_reader"
            ),
            models.CheckConstraint(
                condition=Q(state="pending", decided_at=None)
                | Q(state__in=["accepted", "declined"], decided_at__isnull=False),
                name="submission_state_complete",
            ),
            models.CheckConstraint(
                condition=~Q(state="declined") | ~Q(reason=""), name="submission_decline_has_reason"
            ),
        ]
        indexes = [
            models.Index(
                fields=["fetch_at"],
                condition=Q(fetch_at__isnull=False),
                name="submission_fetch",
            )
        ]

    def __str__(self) -> str:
        return self.arxiv_id


class RankingModel(models.Model):
    """One version of what was fitted for ranking: its parameters, and its arrays as npz bytes.

    Arrays, never pickle. Old versions lose their arrays and stay as the record of what deliveries
    were made by.
    """

    name = models.CharField(max_length=64, unique=True)
    fitted_at = models.DateTimeField(db_default=Now())
    parameters = models.JSONField(default=dict)
    arrays = models.BinaryField(default=bytes)
    papers = models.PositiveIntegerField(default=0, help_text="How many papers it was fitted on.")

    class Meta:
        ordering = ("-fitted_at", "-id")

    def __str__(self) -> str:
        return self.name


class Delivery(models.Model):
    """One edition for one subscriber: its picks and its state of sending.

    Picks are parallel arrays, one entry a pick, in the order of the mail; `terms` holds
    len(TERMS) numbers a pick, `interest_ids` 0 where no interest chose it, `sentences` the index
    of its abstract's key sentence, -1 for none.
    """

    class State(models.TextChoices):
        PLANNED = "planned"
        CLAIMED = "claimed"
        HANDED_OVER = "handed_over", "Handed over"
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
        TRENDING = 3, "Trending in your fields"
        LEAD = 4, "Today’s paper for you"
        MUST_READ = 5, "You asked never to miss"
        EXPLORE = 6, "Something different"

    class Reason(models.IntegerChoices):
        """Their words for a reader: mail.reason_text. The detail of AUTHOR is the name, that of
        EXAMPLE, SAVED and LIKED the id of the close paper, that of MUST_READ phrase or author, that
        of NEW the day of an older edition than the mail's."""

        PINNED = 1
        WORDS = 2
        CATEGORY = 3
        UPVOTES = 4
        NEW = 5
        AUTHOR = 6
        EXAMPLE = 7
        SAVED = 8
        LIKED = 9
        MUST_READ = 10
        EXPLORATION = 11

    TERMS = ("words", "categories", "authors", "examples", "relevance", "trend", "score")

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    # The unique constraint finds it, and nobody looks for the deliveries of a model: each index is
    # written with every move of every delivery.
    edition = models.ForeignKey(Edition, models.PROTECT, related_name="deliveries", db_index=False)
    subscriber = models.ForeignKey(Subscriber, models.CASCADE, related_name="deliveries")
    editions_from = models.DateField(
        null=True,
        blank=True,
        help_text="It was chosen from all editions since this day; empty: from its own alone.",
    )
    state = models.CharField(max_length=12, choices=State, default=State.PLANNED)
    skip_reason = models.CharField(max_length=255, blank=True)
    paper_ids = ArrayField(models.BigIntegerField(), default=list)
    sections = ArrayField(models.SmallIntegerField(), default=list)
    terms = ArrayField(RealField(), default=list)
    reasons = ArrayField(models.SmallIntegerField(), default=list)
    reason_details = ArrayField(models.TextField(blank=True), default=list)
    interest_ids = ArrayField(models.BigIntegerField(), default=list)
    sentences = ArrayField(models.SmallIntegerField(), default=list)
    ranking_model = models.ForeignKey(
        RankingModel,
        models.SET_NULL,
        related_name="deliveries",
        null=True,
        blank=True,
        db_index=False,
    )

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
            # In the order of the queue. By another one PostgreSQL would rather walk all that ever
            # was sent, where it has counted the rows while many were planned.
            models.Index(
                fields=["id"],
                include=["not_before"],
                condition=Q(state="planned"),
                name="delivery_queue",
            ),
            # What needs a person, or UNKNOWN_OUTCOME: few among all.
            models.Index(
                fields=["state", "id"],
                condition=Q(
                    state__in=[
                        "unknown", "failed", "bounced", "complained", "expired", "suppressed",
                    ]
                ),
                name="delivery_trouble",
            ),
            models.Index(
                fields=["lease_until"],
                condition=Q(state__in=["claimed", "handed_over"]),
                name="delivery_in_hand",
            ),
            # For the count of a day in the warm-up: next to nothing to keep, unlike a B-tree.
            BrinIndex(
                fields=["handed_over_at"],
                pages_per_range=16,
                autosummarize=True,
                name="delivery_handed_over",
            ),
            models.Index(
                fields=["provider_id"], condition=~Q(provider_id=""), name="delivery_provider_id"
            ),
        ]  # fmt: skip

    def __str__(self) -> str:
        return str(self.uuid)

    @staticmethod
    def follow(deliveries: Iterable[Delivery]) -> None:
        """Let them name papers that were joined since by the present ids, here alone: a row stays
        as its mail was.

        Of two picks that became one paper, the second keeps an id that is no more.
        """
        deliveries = list(deliveries)
        present = PaperAlias.present({pk for one in deliveries for pk in one.paper_ids})
        for one in deliveries:
            held, ids = set(one.paper_ids), list[int]()
            for pk in one.paper_ids:
                ids.append(pk if present[pk] in held else present[pk])
                held.add(ids[-1])
            one.paper_ids = ids

    def editions(self) -> models.QuerySet[Edition]:
        """Those whose papers it was chosen from."""
        return Edition.objects.joined(self.edition, self.editions_from)

    def candidates(self) -> dict[int, EditionPaper]:
        """What its editions say now of the papers that were picked: each paper by the newest one
        that carries it, except where another one hides it."""
        rows = EditionPaper.objects.filter(edition__in=self.editions(), paper__in=self.paper_ids)
        hidden = EditionPaper.Curation.HIDDEN
        ordered = sorted(rows.order_by("edition__day"), key=lambda row: row.curation == hidden)
        return {row.paper_id: row for row in ordered}

    def clean(self) -> None:
        arrays = (
            self.sections,
            self.reasons,
            self.reason_details,
            self.interest_ids,
            self.sentences,
        )
        picks = len(self.paper_ids)
        whole = len(self.terms) == picks * len(self.TERMS)
        if not whole or any(len(array) != picks for array in arrays):
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


class SendingPauseQuerySet(models.QuerySet["SendingPause"]):
    def in_force(self) -> Self:
        """Those that hold mail back now, by the database's clock."""
        return self.filter(Q(until=None) | Q(until__gt=Now()), ended_at=None)

    def holding(self, domain: str | Combinable) -> Self:
        """Those in force that hold back the mail to `domain`: its own, and that of all sending."""
        return self.in_force().filter(Q(domain=SendingPause.ALL) | Q(domain=domain))


class SendingPause(models.Model):
    """A time in which no mail leaves: to one domain of recipients, or to nobody at all.

    What ended stays, so that it can be told why a mail was late or never came.
    """

    ALL = ""

    domain = models.CharField(
        max_length=253, blank=True, default=ALL, help_text="Of the recipients; empty: all sending."
    )
    why = models.CharField(max_length=500)
    since = models.DateTimeField(db_default=Now())
    until = models.DateTimeField(
        null=True, blank=True, help_text="Ends by itself then (UTC); empty: when somebody resumes."
    )
    ended_at = models.DateTimeField(null=True, blank=True)
    # None: the service did it itself. Who ended it stands in the admin's history.
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, related_name="+", null=True, blank=True
    )

    objects: ClassVar[SendingPauseQuerySet] = SendingPauseQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        verbose_name = "pause"
        verbose_name_plural = "sending"
        ordering = (F("ended_at").desc(nulls_first=True), "-since")
        permissions = [("resume_sendingpause", "Can resume sending")]
        constraints = [
            models.UniqueConstraint(
                fields=["domain"], condition=Q(ended_at=None), name="sending_pause_once"
            ),
            models.CheckConstraint(condition=~Q(why=""), name="sending_pause_has_reason"),
            models.CheckConstraint(
                condition=Q(domain=Lower("domain")), name="sending_pause_domain_lower"
            ),
        ]

    def __str__(self) -> str:
        return f"mail to {self.domain}" if self.domain else "all sending"

    @property
    def words(self) -> str:
        """The same at the head of a sentence."""
        return f"Mail to {self.domain}" if self.domain else "All sending"


class TokenBucket(models.Model):
    """How many mails may leave at this moment under one limit: a domain's, or a `LIMIT`.

    A row that is missing stands for a full bucket.
    """

    class Limit(models.TextChoices):
        """Limits that are no domain's; no domain has a blank in its name."""

        ALL = "all sending"
        WARM_UP = "warm-up cap"

    name = models.CharField(max_length=253, primary_key=True)
    tokens = models.FloatField()
    filled_at = models.DateTimeField()
    ran_dry_at = models.DateTimeField(null=True, help_text="When mail last waited for it.")

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(tokens__gte=0), name="token_bucket_not_overdrawn")
        ]

    def __str__(self) -> str:
        return self.name


class Alert(models.Model):
    """What the operators are told of by mail, once an hour at most for each subject."""

    subject = models.CharField(max_length=200, unique=True)
    text = models.TextField()
    raised_at = models.DateTimeField()
    times = models.PositiveIntegerField(default=1, help_text="How often it was raised.")
    waits = models.BooleanField(default=True, help_text="Its mail has not left yet.")
    tried_at = models.DateTimeField(null=True, blank=True)
    mailed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-raised_at",)
        indexes = [models.Index(fields=["tried_at"], condition=Q(waits=True), name="alert_waits")]

    def __str__(self) -> str:
        return self.subject


class DeliveryEvent(models.Model):
    """One thing a provider or a mail server told us, append-only: stored first, processed after.

    No plain address: the recipient is a keyed hash, and `detail` has its addresses taken out.
    """

    class Kind(models.TextChoices):
        """django-anymail's vocabulary, without those of inbound mail."""

        QUEUED = "queued"
        SENT = "sent"
        REJECTED = "rejected"
        FAILED = "failed"
        BOUNCED = "bounced"
        DEFERRED = "deferred"
        DELIVERED = "delivered"
        AUTORESPONDED = "autoresponded"
        OPENED = "opened"
        CLICKED = "clicked"
        COMPLAINED = "complained"
        UNSUBSCRIBED = "unsubscribed"
        SUBSCRIBED = "subscribed"
        UNKNOWN = "unknown"

    class Cause(models.TextChoices):
        """Why it did not arrive: the classes of newsletter.bounces, and what a provider remembers
        of a reader who left by its own link."""

        INVALID = "invalid", "invalid address"
        COMPLAINT = "complaint"
        MAILBOX = "mailbox", "mailbox full or closed"
        CONTENT = "content"
        POLICY = "policy", "policy or reputation"
        SENDER = "sender", "refusal of the sender"
        SOFT = "soft", "unclassified"
        UNSUBSCRIBED = "unsubscribed"

    event_id = models.CharField(max_length=255, blank=True, help_text="The provider's, if any.")
    content_digest = models.CharField(max_length=64, unique=True, editable=False)
    source = models.CharField(max_length=64, help_text="A provider's name, smtp or mailbox.")
    kind = models.CharField(max_length=16, choices=Kind)
    cause = models.CharField(max_length=12, choices=Cause, blank=True)
    delivery = models.ForeignKey(
        Delivery, models.CASCADE, related_name="events", null=True, blank=True
    )
    # What it says of itself, to find its delivery by: perhaps not yet, or never.
    delivery_uuid = models.UUIDField(null=True, blank=True)
    message_id = models.CharField(max_length=255, blank=True)
    address_hash = models.CharField(max_length=64, blank=True)
    detail = models.TextField(blank=True)
    occurred_at = models.DateTimeField()
    received_at = models.DateTimeField(db_default=Now())
    retry_at = models.DateTimeField(null=True, blank=True)
    processed_at = models.DateTimeField(null=True, blank=True)
    outcome = models.CharField(max_length=255, blank=True, help_text="What followed from it.")

    class Meta:
        ordering = ("-id",)
        constraints = [
            models.CheckConstraint(
                condition=Q(
                    kind__in=[
                        "queued", "sent", "rejected", "failed", "bounced", "deferred", "delivered",
                        "autoresponded", "opened", "clicked", "complained", "unsubscribed",
                        "subscribed", "unknown",
                    ]
                ),
                name="deliveryevent_kind_known",
            ),
            models.CheckConstraint(
                condition=Q(
                    cause__in=[
                        "", "invalid", "complaint", "mailbox", "content", "policy", "sender",
                        "soft", "unsubscribed",
                    ]
                ),
                name="deliveryevent_cause_known",
            ),
        ]  # fmt: skip
        indexes = [
            models.Index(
                fields=["id"], condition=Q(processed_at=None), name="deliveryevent_pending"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} from {self.source}"
