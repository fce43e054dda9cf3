"""What was published, and how much attention it gets."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import ClassVar, Self
from uuid import UUID

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex, HashIndex
from django.contrib.postgres.search import SearchVectorField
from django.core.exceptions import ValidationError
from django.core.validators import MaxLengthValidator
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import MD5, Concat, Now
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString, mark_safe
from pgvector.django import VectorField

from papers import notes
from papers.categories import CATEGORY_NAMES
from papers.sources.identifiers import title_key

# A pinned paper is in everybody's mail, and the smallest mail a reader can ask for has 3 papers.
MOST_PINS = 3


class Source(models.TextChoices):
    ARXIV = "arxiv", "arXiv"
    HUGGING_FACE = "huggingface", "Hugging Face Daily Papers"
    LISTING = "listing", "a listing"
    FILE = "file", "a file"
    CURATOR = "curator", "the curators"
    PAPERROUND = "paperround", "the readers here"


def text_list(**options: object) -> ArrayField[list[str], list[str]]:
    return ArrayField(models.TextField(), default=list, blank=True, **options)  # type: ignore[arg-type]


class Paper(models.Model):
    """One scholarly work; its versions are the same paper."""

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    arxiv_id = models.CharField("arXiv id", max_length=32, unique=True, null=True, blank=True)
    doi = models.CharField("DOI", max_length=255, unique=True, null=True, blank=True)
    title = models.TextField()
    title_key = models.TextField(editable=False)
    abstract = models.TextField(blank=True)
    authors = text_list()
    categories = text_list(help_text="The primary one first.")
    published_on = models.DateField(null=True, blank=True)
    listing_day = models.DateField(
        db_index=True, help_text="The source's list day, else the day of the import."
    )
    url = models.URLField("URL", max_length=500, blank=True)
    pdf_url = models.URLField("PDF", max_length=500, blank=True)
    code_url = models.URLField("code", max_length=500, blank=True)
    project_url = models.URLField("project page", max_length=500, blank=True)
    thumbnail_url = models.URLField("thumbnail", max_length=500, blank=True)
    keywords = text_list()
    summary = models.TextField(blank=True, help_text="One its source wrote; not the abstract.")
    summary_source = models.CharField(max_length=16, choices=Source, blank=True)
    organisation = models.CharField(max_length=255, blank=True)
    submitter = models.CharField(max_length=255, blank=True)
    sources = text_list(help_text="Every source that named this paper.")
    # [{"number": 1, "on": "2025-06-02"}, …], the first one first.
    versions = models.JSONField(default=list, blank=True)
    licence = models.CharField(max_length=255, blank=True, help_text="The address of its text.")
    comment = models.TextField(blank=True, help_text="The authors' own, as at arXiv.")
    journal_ref = models.TextField("journal reference", blank=True)
    withdrawn_on = models.DateField(
        null=True, blank=True, help_text="When its source took it back: not listed from then on."
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    # Of what an encoder reads. The database keeps it, so no writer can forget to.
    text_digest = models.GeneratedField(
        expression=MD5(Concat("title", models.Value("\n", models.TextField()), "abstract")),
        output_field=models.CharField(max_length=32),
        db_persist=True,
    )

    class Meta:
        ordering = ("-listing_day", "id")
        # Asked for equality only; a B-tree refuses what is longer than 2,704 bytes.
        indexes = [
            HashIndex(fields=["title_key"], name="paper_title_key"),
            # What waits for an encoder is asked each minute: from indexes alone, rows are wide.
            models.Index(
                fields=["-listing_day", "-id"], include=["text_digest"], name="paper_newest"
            ),
            # The few that search, and its index, leave out.
            models.Index(
                fields=["withdrawn_on"],
                condition=Q(withdrawn_on__isnull=False),
                name="paper_withdrawn",
            ),
            GinIndex(fields=["authors"], name="paper_authors"),
            GinIndex(fields=["categories"], name="paper_categories"),
        ]
        constraints = [
            models.CheckConstraint(condition=~Q(title=""), name="paper_has_title"),
            models.CheckConstraint(condition=~Q(arxiv_id=""), name="paper_arxiv_id_not_empty"),
            models.CheckConstraint(condition=~Q(doi=""), name="paper_doi_not_empty"),
        ]

    def __str__(self) -> str:
        return self.title

    def get_absolute_url(self) -> str:
        return reverse("paper", args=[self.uuid])

    @classmethod
    def named(cls, name: UUID) -> Paper | None:
        """The paper of this uuid, or of one that was joined with it."""
        if found := cls.objects.filter(uuid=name).first():
            return found
        return cls.objects.filter(aliases__uuid=name).first()

    @property
    def ids(self) -> list[int]:
        """Its own, and those of the papers that were joined with it."""
        return [self.pk, *self.aliases.values_list("old_id", flat=True)]

    def clean(self) -> None:
        self.arxiv_id = self.arxiv_id or None
        self.doi = self.doi or None
        self.title_key = title_key(self.title)

    @property
    def abstract_page(self) -> str:
        """Where the abstract stands at its source, "" for a paper that has only our own page."""
        if self.url:
            return self.url
        if self.arxiv_id:
            return f"https://arxiv.org/abs/{self.arxiv_id}"
        return f"https://doi.org/{self.doi}" if self.doi else ""

    @property
    def pdf_page(self) -> str:
        if self.pdf_url or not self.arxiv_id:
            return self.pdf_url
        return f"https://arxiv.org/pdf/{self.arxiv_id}"

    @property
    def is_new(self) -> bool:
        """Whether it was listed today or yesterday (UTC)."""
        return self.listing_day >= timezone.now().date() - timedelta(days=1)

    @property
    def text(self) -> str:
        """What a reader's words are matched against: a category counts as its name's words."""
        names = [CATEGORY_NAMES.get(code, "") for code in self.categories]
        return "\n".join([self.title, self.abstract, *self.keywords, *names])


class PaperAlias(models.Model):
    """The names of a paper that turned out to be another one: mails and links still say them."""

    old_id = models.BigIntegerField(primary_key=True)
    uuid = models.UUIDField(unique=True)
    paper = models.ForeignKey(Paper, models.CASCADE, related_name="aliases")
    joined_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"{self.old_id} is {self.paper_id}"

    @classmethod
    def present(cls, ids: Iterable[int]) -> dict[int, int]:
        """The ids that these papers have now."""
        asked = {pk: pk for pk in ids}
        old = cls.objects.filter(pk__in=asked).values_list("old_id", "paper_id")
        return asked | dict(old)


class Embedding(models.Model):
    """The dense view of one paper by one encoder."""

    paper = models.ForeignKey(Paper, models.CASCADE, related_name="embeddings")
    encoder = models.CharField(max_length=64, help_text="The sha256 of its model file.")
    # Without a dimension: two encoders may differ. Each has a partial index, papers/embeddings.py.
    vector = VectorField(null=True, help_text="None: the text says nothing to this encoder.")
    text_digest = models.CharField(max_length=32, help_text="The paper's, when it was encoded.")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["encoder", "paper"], include=["text_digest"], name="embedding_once"
            ),
            models.CheckConstraint(
                condition=Q(encoder__regex="^[0-9a-f]{64}$"), name="embedding_encoder_is_sha256"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.paper_id} by {self.encoder[:12]}"


class SearchText(models.Model):
    """A paper's title, authors and abstract as search sees them. Triggers of the database keep it.

    A paper that its source withdrew has none. Neither keywords nor summaries are in it: they are
    what machines wrote, and what a reader searches is what the authors wrote.
    """

    paper = models.OneToOneField(
        Paper, models.CASCADE, primary_key=True, related_name="search_text"
    )
    title = SearchVectorField()
    lexemes = SearchVectorField(help_text="Of the title (A), the authors (B), the abstract (D).")

    class Meta:
        # Not fastupdate: a query would read the pending list from end to end.
        indexes = [
            GinIndex(fields=["lexemes"], name="search_text_lexemes", fastupdate=False),
            GinIndex(fields=["title"], name="search_text_title", fastupdate=False),
        ]

    def __str__(self) -> str:
        return f"{self.paper_id}"


class SearchWord(models.Model):
    """A word of the papers, and in how many it stands: see papers/search.py, count_words."""

    word = models.TextField(primary_key=True)
    lexeme = models.TextField(db_index=True)
    papers = models.PositiveIntegerField()

    class Meta:
        indexes = [
            GinIndex(fields=["word"], opclasses=["gin_trgm_ops"], name="search_word_trigrams")
        ]

    def __str__(self) -> str:
        return self.word


class SourceRecord(models.Model):
    """What one source last said of a paper, as it said it: the paper itself is merged of these."""

    paper = models.ForeignKey(Paper, models.CASCADE, related_name="source_records")
    source = models.CharField(max_length=16, choices=Source)
    record = models.JSONField(help_text="The fields it stated.")
    seen_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["paper", "source"], name="source_record_once")
        ]

    def __str__(self) -> str:
        return f"{self.paper_id} by {self.source}"


class Signal(models.Model):
    """One counter of a paper, observed at one time. Snapshots are kept, never overwritten."""

    class Counter(models.TextChoices):
        UPVOTES = "upvotes"
        COMMENTS = "comments"
        STARS = "stars"

    paper = models.ForeignKey(Paper, models.CASCADE, related_name="signals")
    source = models.CharField(max_length=16, choices=Source)
    counter = models.CharField(max_length=16, choices=Counter)
    value = models.PositiveIntegerField()
    observed_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["paper", "counter", "source", "observed_at"], name="signal_once"
            ),
            models.CheckConstraint(
                condition=Q(counter__in=["upvotes", "comments", "stars"]),
                name="signal_counter_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.value} {self.counter}"


class Harvest(models.Model):
    """One pull from a source: what it brought, and what could not be read."""

    class State(models.TextChoices):
        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"

    source = models.CharField(max_length=255, help_text="A source's name, or the paths read.")
    state = models.CharField(max_length=8, choices=State, default=State.RUNNING)
    started_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True, blank=True)
    read = models.PositiveIntegerField(default=0)
    new = models.PositiveIntegerField(default=0)
    updated = models.PositiveIntegerField(default=0)
    skipped = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    joined = models.PositiveIntegerField(
        default=0, help_text="Times that two papers turned out to be one."
    )
    errors = text_list()
    # Of a pull over the network; a file has none of these.
    since = models.DateField(null=True, blank=True)
    until = models.DateField(null=True, blank=True)
    part = models.CharField(
        max_length=64, blank=True, help_text="Of the source, such as a set of arXiv."
    )
    cursor = models.TextField(blank=True, help_text="Where a broken pull goes on.")
    attempt = models.PositiveSmallIntegerField(default=1, help_text="In a row, of this window.")
    retry_at = models.DateTimeField(null=True, blank=True, help_text="When it is tried again.")

    class Meta:
        ordering = ("-started_at",)
        permissions = [("give_up_harvest", "Can give up a harvest")]
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=["running", "done", "failed"]), name="harvest_state_known"
            )
        ]
        indexes = [models.Index(fields=["source", "part", "-started_at"], name="harvest_newest")]

    def __str__(self) -> str:
        return f"{self.source} at {self.started_at:%Y-%m-%d %H:%M}"


class SourceHost(models.Model):
    """One host that papers are asked of: the row whose lock is the turn to ask it."""

    name = models.CharField(max_length=253, primary_key=True)
    free_at = models.DateTimeField(default=timezone.now, help_text="Not asked before.")

    def __str__(self) -> str:
        return self.name


class SourceAnswer(models.Model):
    """What a source's server said of an address, so that it is asked only for what has changed."""

    url = models.TextField(unique=True)
    etag = models.TextField(blank=True)
    last_modified = models.TextField(blank=True)
    at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return self.url


class EditionQuerySet(models.QuerySet["Edition"]):
    def settled(self) -> Self:
        """Those that will not change any more: frozen, or empty for a stated reason."""
        return self.filter(state__in=[Edition.State.FROZEN, Edition.State.EMPTY])

    def fresh(self, moment: datetime) -> Self:
        """Settled ones whose freeze lies at most 24 hours back."""
        since = moment - Edition.LIFETIME
        return self.settled().filter(frozen_at__lte=moment, frozen_at__gt=since)

    def joined(self, newest: Edition, since: date | None) -> Self:
        """Those that one mail is chosen from: the newest, and with `since` all from that day on."""
        if since is None:
            return self.filter(pk=newest.pk)
        return self.settled().filter(day__range=(since, newest.day))

    def current(self, moment: datetime) -> Edition | None:
        """The newest edition, from its freeze to the next freeze, at most 24 hours."""
        return self.fresh(moment).order_by("-day").first()


class Edition(models.Model):
    """The dated daily list: its candidates, with the curators' pins, hides and notes."""

    LIFETIME = timedelta(hours=24)

    class State(models.TextChoices):
        OPEN = "open"
        FROZEN = "frozen"
        EMPTY = "empty"

    day = models.DateField(unique=True)
    state = models.CharField(max_length=8, choices=State, default=State.OPEN)
    held = models.BooleanField(
        default=False, help_text="Not frozen automatically; freeze it by hand."
    )
    held_by = models.CharField(max_length=150, blank=True)
    held_at = models.DateTimeField(null=True, blank=True)
    reason = models.CharField(max_length=255, blank=True, help_text="Why there is nothing today.")
    frozen_at = models.DateTimeField(null=True, blank=True)
    # Moves with every change of a candidate, so that what is cached of an edition is never stale.
    changed_at = models.DateTimeField(default=timezone.now, editable=False)
    papers = models.ManyToManyField(Paper, through="EditionPaper", related_name="editions")

    objects: ClassVar[EditionQuerySet] = EditionQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        ordering = ("-day",)
        permissions = [("freeze_edition", "Can freeze an edition")]
        constraints = [
            models.CheckConstraint(
                condition=Q(state="open", frozen_at=None)
                | Q(state="frozen", frozen_at__isnull=False)
                | (Q(state="empty", frozen_at__isnull=False) & ~Q(reason="")),
                name="edition_state_complete",
            )
        ]

    def __str__(self) -> str:
        return f"Edition of {self.day:%Y-%m-%d}"

    def get_absolute_url(self) -> str:
        return reverse("day", args=[self.day])

    @property
    def is_open(self) -> bool:
        return self.state == Edition.State.OPEN

    def why_no_pins(self, pins: int, more: int = 1) -> str:
        """Why `more` papers cannot be pinned beside the `pins` there are; "" where they can."""
        if not self.is_open:
            return (
                "This edition is frozen and its mail may be on the way: a paper can still be "
                "hidden, but no longer pinned. Pin it in the next edition."
            )
        if pins + more > MOST_PINS:
            why = f"a pinned paper is in everybody's mail, and the smallest mail has {MOST_PINS}"
            if not pins:
                return f"You chose {more}; an edition has at most {MOST_PINS} pins: {why} papers."
            are = "is" if pins == 1 else "are"
            chosen = f", and you chose {more} more" if more > 1 else ""
            return (
                f"At most {MOST_PINS} papers of an edition can be pinned: {why} papers. {pins} "
                f"{are} pinned already{chosen}; take a pin back and save before you pin another."
            )
        return ""

    def may_be_mailed(self, moment: datetime) -> bool:
        """Whether it is still news: fresh, and not replaced by a newer one that has papers."""
        fresh = Edition.objects.fresh(moment)
        newer = fresh.filter(day__gt=self.day, state=Edition.State.FROZEN)
        return fresh.filter(pk=self.pk).exists() and not newer.exists()


class EditionPaper(models.Model):
    """One candidate of one edition, as the curators left it."""

    class Curation(models.TextChoices):
        NONE = "", "—"
        PINNED = "pinned"
        HIDDEN = "hidden"

    edition = models.ForeignKey(Edition, models.CASCADE, related_name="candidates")
    paper = models.ForeignKey(Paper, models.CASCADE, related_name="candidacies")
    curation = models.CharField(max_length=8, choices=Curation, default=Curation.NONE, blank=True)
    position = models.PositiveSmallIntegerField(
        null=True, blank=True, help_text="Order among the pinned, and on the day's page."
    )
    note = models.TextField(
        blank=True,
        validators=[MaxLengthValidator(notes.MOST)],
        help_text="The editor's word, shown with the paper: Markdown.",
    )
    trend = models.FloatField(default=0.0, help_text="0 to 1, within this edition.")
    trend_terms = models.JSONField(default=dict, blank=True)

    class Meta:
        verbose_name = "candidate"
        ordering = (F("position").asc(nulls_last=True), "-trend", "id")
        constraints = [
            models.UniqueConstraint(fields=["edition", "paper"], name="candidate_once"),
            models.CheckConstraint(
                condition=Q(curation__in=["", "pinned", "hidden"]), name="candidate_curation_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.paper} ({self.edition.day:%Y-%m-%d})"

    @property
    def note_html(self) -> SafeString:
        return mark_safe(notes.note_html(self.note))  # noqa: S308  (of a short list of tags)

    @property
    def note_text(self) -> str:
        return notes.note_text(self.note)

    def clean(self) -> None:
        was = EditionPaper.objects.filter(pk=self.pk).values_list("curation", flat=True).first()
        if self.curation != self.Curation.PINNED or was == self.Curation.PINNED:
            return
        self.check_pins(self.edition, 1)

    @classmethod
    def check_pins(cls, edition: Edition, more: int) -> None:
        """Raise a ValidationError where `more` papers of the edition cannot be pinned."""
        pins = cls.objects.filter(edition=edition, curation=cls.Curation.PINNED).count()
        if reason := edition.why_no_pins(pins, more):
            raise ValidationError(reason)


class CurationRecord(models.Model):
    """One thing that was done to an edition, and who did it. It outlives the account."""

    edition = models.ForeignKey(Edition, models.CASCADE, related_name="curation_records")
    at = models.DateTimeField(default=timezone.now)
    by = models.CharField(max_length=150, blank=True, help_text="Empty: the service itself.")
    what = models.TextField()

    class Meta:
        ordering = ("-at", "-id")

    def __str__(self) -> str:
        return f"{self.by or 'the service itself'}: {self.what}"
