"""Where curators work: the edition's list, its papers, and what the sources brought."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import date
from pathlib import PurePath
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.widgets import AdminTextareaWidget
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import (
    Case,
    Count,
    F,
    Func,
    IntegerField,
    OrderBy,
    OuterRef,
    QuerySet,
    Subquery,
    TextField,
    URLField,
    Value,
    When,
)
from django.db.models.fields.json import KT
from django.db.models.functions import Cast, Coalesce
from django.forms import BaseModelFormSet, ModelForm
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST

from papers import boards, editions, harvesting, ingest, notes, paths  # noqa: F401  (paths registers <day:…>)
from papers.about import source_name
from papers.categories import CATEGORY_NAMES
from papers.ingest import storable
from papers.meanwhile import MeanwhileForm, lines
from papers.models import (
    MOST_PINS,
    Edition,
    EditionPaper,
    Harvest,
    Paper,
    Signal,
    Source,
    SourceRecord,
)
from papers.search import saying
from papers.sources.identifiers import normalise_arxiv_id, normalise_doi
from papers.views import day_context

MOST_RECORDS = 500  # of an edition's log, on one page
MOST_VALUES = 20  # of a filter, the most frequent ones
ROWS = {"title": 2, "summary": 3, "versions": 3, "comment": 2, "journal_ref": 2}  # of a paper
MOST_TOLD = 8  # refusals in one message, told by name
FIXED_BY_FREEZE = ("position", "note")  # of a candidate


class NoHandWriting:
    """Rows the service writes itself: people may read them, not change them."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class SignalInline(NoHandWriting, admin.TabularInline[Signal, Paper]):
    model = Signal
    extra = 0


class SourceRecordInline(NoHandWriting, admin.TabularInline[SourceRecord, Paper]):
    model = SourceRecord
    extra = 0


class PaperForm(MeanwhileForm[Paper]):
    def clean_arxiv_id(self) -> str | None:
        return _normalised(self.cleaned_data["arxiv_id"], normalise_arxiv_id)

    def clean_doi(self) -> str | None:
        return _normalised(self.cleaned_data["doi"], normalise_doi)


def _normalised(typed: str | None, normalise: Callable[[str], str]) -> str | None:
    try:
        return normalise(typed) if typed else None
    except ValueError as error:
        raise ValidationError(f"{error}: type one, or its address, or nothing.") from None


@admin.register(Paper)
class PaperAdmin(admin.ModelAdmin[Paper]):
    form = PaperForm
    list_display = ("title", "arxiv_id", "listing_day", "sources")
    list_filter = ("listing_day",)
    search_fields = ("title", "arxiv_id", "doi", "abstract")
    search_help_text = (
        "Whole words of title, authors or abstract: of many papers, those that came last. Or an "
        "arXiv id or a DOI."
    )
    date_hierarchy = "listing_day"
    # What comes of the sources, and no curator's word replaces.
    readonly_fields = ("summary_source", "sources", "versions")
    inlines = (SourceRecordInline, SignalInline)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Paper], search_term: str
    ) -> tuple[QuerySet[Paper], bool]:
        """By the indexes: any part of any text would be looked for in all abstracts, four times a
        page. What was withdrawn has left the index of words, and is found by its title."""
        if not (term := " ".join(storable(search_term).split())):
            return queryset, False
        for name, normalise in (("arxiv_id", normalise_arxiv_id), ("doi", normalise_doi)):
            with suppress(ValueError):
                return queryset.filter(**{name: normalise(term)}), False
        withdrawn = Paper.objects.filter(withdrawn_on__isnull=False, title__icontains=term)
        ids = [*saying(term), *withdrawn.order_by().values_list("pk", flat=True)]
        return queryset.filter(pk__in=ids), False

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **options: Any) -> Any:
        if isinstance(db_field, ArrayField):  # one a line: a comma is part of many a name
            options |= {"delimiter": "\n", "widget": forms.Textarea(attrs={"rows": 3})}
        if isinstance(db_field, URLField):
            options["assume_scheme"] = "https"
        if db_field.name in ingest.IDENTIFIERS:  # an address is longer than what it is for
            options["max_length"] = 1000
        if db_field.name == "arxiv_id":
            options["label"] = "arXiv id"  # Django would begin it with a capital
        if rows := ROWS.get(db_field.name):
            options["widget"] = AdminTextareaWidget(attrs={"rows": rows})
        return super().formfield_for_dbfield(db_field, request, **options)

    def save_model(
        self, request: HttpRequest, obj: Paper, form: ModelForm[Paper], change: bool
    ) -> None:
        # A form calls some fields changed that are as they were, spelled otherwise.
        changed = [
            name for name in form.changed_data if form.cleaned_data[name] != form.initial.get(name)
        ]
        by = request.user.get_username()
        if not change:
            obj.sources = [Source.CURATOR.value]
            super().save_model(request, obj, form, change)
        else:
            editions.correct(obj, changed, by=by)
        ingest.keep_word(obj, changed, timezone.now())


class AddPaperForm(forms.Form):
    """Known papers by their identifiers, or a new one by title and link."""

    identifier = forms.CharField(
        required=False,
        max_length=20_000,
        label="arXiv ids or DOIs",
        help_text="One a line.",
        widget=forms.Textarea(attrs={"rows": 4, "cols": 50}),
    )
    ask = forms.BooleanField(
        required=False, initial=True, label="Ask arXiv for those that are not known here"
    )
    title = forms.CharField(required=False, max_length=1000, label="or a new paper's title")
    link = forms.URLField(
        required=False, max_length=500, label="and its link", assume_scheme="https"
    )

    def clean_identifier(self) -> list[str]:
        lines = [line.strip() for line in self.cleaned_data["identifier"].splitlines()]
        found = [line for line in lines if line]
        if len(found) > editions.MOST_ADDED:
            raise ValidationError(
                f"These are {len(found)}: add at most {editions.MOST_ADDED} at a time."
            )
        return found


class EditionForm(ModelForm[Edition]):
    def clean_day(self) -> date:
        day: date = self.cleaned_data["day"]
        try:
            editions.check_day(day, timezone.now())
        except editions.CurationError as error:
            raise ValidationError(str(error)) from None
        return day


@admin.register(Edition)
class EditionAdmin(admin.ModelAdmin[Edition]):
    form = EditionForm
    list_display = ("day", "outlook", "candidate_list", "log_link")
    list_filter = ("state", "held")
    date_hierarchy = "day"
    fields = ("day",)
    change_list_template = "admin/papers/edition/change_list.html"

    def get_fields(self, request: HttpRequest, obj: Edition | None = None) -> list[Any]:
        return ["day", "outlook", "candidate_list", "log_link"] if obj else ["day"]

    def get_readonly_fields(self, request: HttpRequest, obj: Edition | None = None) -> list[Any]:
        return self.get_fields(request, obj) if obj else []

    def has_delete_permission(self, request: HttpRequest, obj: Edition | None = None) -> bool:
        return False  # deliveries answer to it

    def get_queryset(self, request: HttpRequest) -> QuerySet[Edition]:
        # Of each row that is shown, and not a join with all candidates there ever were.
        of_each = EditionPaper.objects.filter(edition=OuterRef("pk")).order_by().values("edition")
        size = Subquery(of_each.values(size=Count("pk")))
        return super().get_queryset(request).annotate(size=Coalesce(size, 0))

    def save_model(
        self, request: HttpRequest, obj: Edition, form: ModelForm[Edition], change: bool
    ) -> None:
        if not change:  # of an edition that is there, nothing is changed in this form
            super().save_model(request, obj, form, change)
            editions.record(obj, "Opened.", request.user.get_username())

    @admin.display(description="State")
    def outlook(self, edition: Edition) -> str:
        return editions.outlook(edition, timezone.now())

    @admin.display(description="Papers")
    def candidate_list(self, edition: Any) -> str:
        url = reverse("admin:papers_edition_curate", args=[edition.day])
        papers = "paper" if edition.size == 1 else "papers"
        return format_html('<a href="{}">{} {}</a>', url, edition.size, papers)

    @admin.display(description="Log")
    def log_link(self, edition: Edition) -> str:
        url = reverse("admin:papers_edition_log", args=[edition.day])
        return format_html('<a href="{}">Who did what</a>', url)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("next/", view(self.next), name="papers_edition_next"),
            path("<day:day>/curate/", view(self.curate), name="papers_edition_curate"),
            path("<day:day>/add/", view(self.add_paper), name="papers_edition_add_paper"),
            path("<day:day>/preview/", view(self.preview), name="papers_edition_preview"),
            path("<day:day>/hold/", view(require_POST(self.hold)), name="papers_edition_hold"),
            path("<day:day>/freeze/", view(self.freeze), name="papers_edition_freeze"),
            path("<day:day>/log/", view(self.log), name="papers_edition_log"),
            *super().get_urls(),
        ]

    def next(self, request: HttpRequest) -> HttpResponse:
        return redirect("admin:papers_edition_curate", day=editions.next_day(timezone.now()))

    def curate(self, request: HttpRequest, day: Any) -> HttpResponse:
        """Collect what has become a candidate, then show the list.

        A GET that writes: only rows that the freeze would write by itself, and only for curators.
        Who may but look is shown what there is.
        """
        collects = request.user.has_perm("papers.change_editionpaper")
        if not collects:
            self._require(request, "papers.view_editionpaper")
        edition = Edition.objects.filter(day=day).first()
        try:
            editions.check_day(day, timezone.now())
            if collects:
                edition = editions.open_edition(day)
        except editions.CurationError as error:
            if edition is None:
                raise Http404(str(error)) from None
            return self._refuse(request, error)
        if edition is None:
            messages.info(request, f"There is no edition of {day} yet.")
            return redirect("admin:papers_edition_changelist")
        return redirect(_list_of(edition))

    def add_paper(self, request: HttpRequest, day: Any) -> HttpResponse:
        self._require(request, "papers.add_editionpaper")
        edition = get_object_or_404(Edition, day=day)
        form = AddPaperForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            by = request.user.get_username()
            identifiers = form.cleaned_data.pop("identifier")
            ask = form.cleaned_data.pop("ask")
            failed: dict[str, str] = {}
            refused: list[editions.Refusal] = []
            try:
                if identifiers:
                    if ask and edition.is_open:
                        failed = editions.ask_arxiv(identifiers)
                    added, refused = editions.add_papers(edition, identifiers, by=by)
                else:
                    added = [editions.add_paper(edition, **form.cleaned_data, by=by)]
            except editions.CurationError as error:
                form.add_error(None, str(error))
            else:
                for candidate in added:
                    messages.success(request, f"“{candidate.paper}” is on the list.")
                if not refused:
                    return redirect(_list_of(edition))
                # What is left to do is what could not be done.
                left = {"identifier": "\n".join(refusal.what for refusal in refused), "ask": ask}
                form = AddPaperForm(left)
                form.full_clean()
                for refusal in refused:
                    form.add_error("identifier", failed.get(refusal.what, refusal.why))
        context = page_of(request, edition, f"Add papers to the {str(edition).lower()}")
        return render(request, "admin/papers/edition/add_paper.html", context | {"form": form})

    def preview(self, request: HttpRequest, day: Any) -> HttpResponse:
        """The public page as a freeze would make it now. The admin's pages are never cached."""
        self._require(request, "papers.change_editionpaper")
        edition = get_object_or_404(Edition, day=day)
        now = timezone.now()
        outlook = editions.outlook(edition, now)
        try:
            with editions.as_frozen(edition, now) as preview:
                context = day_context(boards.day(preview.edition.day))
                context |= {"joining": preview.joining, "outlook": outlook}
                context["list_url"] = _list_of(edition)
                response = render(request, "papers/preview.html", context)
        except editions.CurationError as error:
            return self._refuse(request, error)
        response["X-Robots-Tag"] = "noindex"
        return response

    def hold(self, request: HttpRequest, day: Any) -> HttpResponse:
        """Hold it or release it, as the button says that was pressed."""
        self._require(request, "papers.change_edition")
        edition = get_object_or_404(Edition, day=day)
        act = editions.release if request.POST.get("do") == "release" else editions.hold
        try:
            act(edition, by=request.user.get_username())
        except editions.CurationError as error:
            messages.error(request, str(error))
        else:
            edition.refresh_from_db()
            messages.success(request, f"{edition}: {editions.outlook(edition, timezone.now())}")
        return redirect(_list_of(edition))

    def freeze(self, request: HttpRequest, day: Any) -> HttpResponse:
        self._require(request, "papers.freeze_edition")
        edition = get_object_or_404(Edition, day=day)
        now = timezone.now()
        if request.method == "POST" and edition.is_open:
            try:
                edition = editions.freeze(edition, now, by=request.user.get_username())
            except editions.CurationError as error:
                return self._refuse(request, error)
            messages.success(request, f"{edition} is {edition.state}.")
            return redirect(_list_of(edition))
        count = Count("pk")
        sizes = edition.candidates.order_by().values_list("curation").annotate(count)
        context = page_of(request, edition, f"Freeze the {str(edition).lower()}?")
        context["outlook"] = editions.outlook(edition, now)
        context["is_early"] = edition.day > now.date()
        context |= {f"{curation or 'plain'}_count": size for curation, size in sizes}
        return render(request, "admin/papers/edition/freeze.html", context)

    def log(self, request: HttpRequest, day: Any) -> HttpResponse:
        """Who did what, newest first."""
        self._require(request, "papers.view_edition")
        edition = get_object_or_404(Edition, day=day)
        return log_page(request, edition)

    def history_view(self, request: HttpRequest, object_id: str, *args: Any) -> HttpResponse:
        """An edition has one history, and it outlives the accounts."""
        edition = self.get_object(request, object_id)
        if edition is None:
            return super().history_view(request, object_id)
        return self.log(request, edition.day)

    def _refuse(self, request: HttpRequest, error: editions.CurationError) -> HttpResponse:
        messages.error(request, str(error))
        return redirect("admin:papers_edition_changelist")

    def _require(self, request: HttpRequest, permission: str) -> None:
        if not request.user.has_perm(permission):
            raise PermissionDenied


def page_of(request: HttpRequest, edition: Edition, title: str) -> dict[str, Any]:
    """What every page about an edition is given."""
    context = {**admin.site.each_context(request), "edition": edition}
    return context | {"title": title, "opts": Edition._meta, "list_url": _list_of(edition)}


def log_page(request: HttpRequest, edition: Edition) -> HttpResponse:
    records = list(edition.curation_records.all()[: MOST_RECORDS + 1])
    context = page_of(request, edition, f"Log of the {str(edition).lower()}")
    context |= {"records": records[:MOST_RECORDS], "more": len(records) > MOST_RECORDS}
    return render(request, "admin/papers/edition/log.html", context)


def _list_of(edition: Edition) -> str:
    url = reverse("admin:papers_editionpaper_changelist")
    return f"{url}?edition__id__exact={edition.pk}"


class CandidateForm(MeanwhileForm[EditionPaper]):
    """Of a candidate of a frozen edition, only what can still be done."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.late: list[str] = []
        if self.instance.pk is None or self.instance.edition.is_open:
            return
        for name in FIXED_BY_FREEZE:
            if self.is_bound and self._typed_late(name):
                self.late.append(name)
            self.fields.pop(name, None)
        self.overtaken = [name for name in self.overtaken if name in self.fields]
        pinned = EditionPaper.Curation.PINNED
        if "curation" in self.fields and self.instance.curation != pinned:  # none: for who may look
            # Not the field's: whoever chooses it on an older page is told why it cannot be.
            widget: Any = self.fields["curation"].widget
            widget.choices = [choice for choice in widget.choices if choice[0] != pinned]

    def _typed_late(self, name: str) -> bool:
        """Whether a page from before the freeze sends another value than it showed."""
        value = getattr(self.instance, name)
        stands = "" if value is None else str(value)
        shown = lines(self.data.get(self.add_initial_prefix(name), stands))
        return bool(lines(self.data.get(self.add_prefix(name), shown)) != shown)

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        for name in self.late:
            fixed, typed = "order is", ""
            if name == "note":
                fixed = "notes are"
                typed = f" You had noted: “{self.data[self.add_prefix(name)]}”."
            self.add_error(
                None, f"The edition has been frozen meanwhile, and its {fixed} fixed.{typed}"
            )
        return cleaned

    def changed_by(self, name: str) -> str:
        return editions.changed_by(self.instance, name)

    def words_of(self, name: str) -> str:
        if name == "curation":
            return editions.in_words(self[name].initial)
        return super().words_of(name)


class CandidateFormSet(BaseModelFormSet[EditionPaper, CandidateForm]):
    """The rows of a list that are saved at once: each by itself could be the last pin."""

    @cached_property
    def forms(self) -> list[CandidateForm]:
        """Without the rows that have left the list since it was shown."""
        forms: list[CandidateForm] = super().forms
        self.gone = [form for form in forms if form.instance.pk is None]
        return [form for form in forms if form.instance.pk is not None]

    def clean(self) -> None:
        super().clean()
        for form in self.gone:
            if set(form.changed_data) - {"id"}:
                note = form["note"].data
                raise ValidationError(
                    "A paper that you changed has left this list meanwhile: another edition "
                    "carries it, or its source took it back. "
                    + (f"You had noted at it: “{note}”. " if note else "")
                    + "Save once more to save the rest."
                )
        if any(self.errors):
            return
        pins = Counter(
            form.instance.edition
            for form in self.forms
            if "curation" in form.changed_data
            and form.instance.curation == EditionPaper.Curation.PINNED
        )
        for edition, more in pins.items():
            EditionPaper.check_pins(edition, more)

    @property
    def told(self) -> list[SafeString]:
        """What is wrong with the rows, which may be far below, each by a link to its paper's."""
        by_reason: dict[str, list[str]] = {}
        for form in self.forms:
            link = format_html(
                '<a href="#{}">“{}”</a>', form["curation"].id_for_label, form.instance.paper
            )
            for errors in form.errors.values():
                for why in errors:
                    by_reason.setdefault(str(why), []).append(link)
        return [format_html("{}: {}", _some(links), why) for why, links in by_reason.items()]


class CurationFilter(admin.ChoicesFieldListFilter):
    """Says in a word what is but a dash in a row."""

    def choices(self, changelist: Any) -> Iterator[Any]:
        none = str(EditionPaper.Curation.NONE.label)
        for choice in super().choices(changelist):
            yield {**choice, "display": str(choice["display"]).replace(none, "Neither", 1)}


class OfPapers(admin.SimpleListFilter):
    """A filter by one of the lists of a paper, with the values that the candidates have."""

    field: str

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        edition = request.GET.get("edition__id__exact", "")
        if not _is_key(edition):
            return []
        values = EditionPaper.objects.filter(edition=int(edition)).order_by()
        each = Func(F(f"paper__{self.field}"), function="unnest", output_field=TextField())
        counts = Counter(values.values_list(each, flat=True))
        return [
            (value, f"{self.label(value)} ({count})")
            for value, count in counts.most_common(MOST_VALUES)
        ]

    def label(self, value: str) -> str:
        return value

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[EditionPaper]
    ) -> QuerySet[EditionPaper]:
        value = self.value()
        return queryset.filter(**{f"paper__{self.field}__contains": [value]}) if value else queryset


class CategoryFilter(OfPapers):
    title = "category"
    parameter_name = "category"
    field = "categories"

    def label(self, value: str) -> str:
        return CATEGORY_NAMES.get(value, value)


class SourceFilter(OfPapers):
    title = "source"
    parameter_name = "source"
    field = "sources"

    def label(self, value: str) -> str:
        return source_name(value)


@admin.register(EditionPaper)
class EditionPaperAdmin(admin.ModelAdmin[EditionPaper]):
    """The list of an edition: search, pin, hide, order, note."""

    form = CandidateForm
    list_display = (
        "paper_title", "trend_in_words", "upvotes", "curation", "position", "note",
    )  # fmt: skip
    list_display_links = None
    list_editable = ("curation", "position", "note")
    list_filter = (("curation", CurationFilter), CategoryFilter, SourceFilter)
    # Of each row eight fields are posted, and DATA_UPLOAD_MAX_NUMBER_FIELDS of them are read.
    list_per_page = 100
    list_max_show_all = 190
    show_full_result_count = False
    empty_value_display = ""
    search_fields = (
        "paper__title", "paper__authors", "paper__arxiv_id", "paper__doi", "paper__abstract",
    )  # fmt: skip
    search_help_text = "Title, authors, arXiv id, DOI, abstract"
    actions = ("pin", "hide", "restore")
    fields = ("edition", "paper", "curation", "position", "note", "trend", "trend_terms")
    readonly_fields = ("edition", "paper", "trend", "trend_terms")
    change_list_template = "admin/papers/editionpaper/change_list.html"

    class Media:
        js = (forms.Script("papers/order.js", defer=True),)
        css = {"all": ("papers/curating.css",)}

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # by way of the edition: "add a paper"

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **options: Any) -> Any:
        field = super().formfield_for_dbfield(db_field, request, **options)
        if db_field.name == "note" and field is not None:
            field.widget = forms.Textarea(
                attrs={"rows": 2, "cols": 18, "maxlength": notes.MOST, "aria-label": "Note"}
            )
        if db_field.name == "curation" and field is not None:
            field.widget.attrs["aria-label"] = "Pinned or hidden"
        if db_field.name == "position" and field is not None:
            numbers = {"min": 0, "max": 32767, "class": "place", "aria-label": "Place"}
            field.widget = forms.NumberInput(attrs=numbers)
        return field

    def get_readonly_fields(
        self, request: HttpRequest, obj: EditionPaper | None = None
    ) -> list[Any]:
        fixed = FIXED_BY_FREEZE if obj is not None and not obj.edition.is_open else ()
        return [*super().get_readonly_fields(request, obj), *fixed]

    def get_queryset(self, request: HttpRequest) -> QuerySet[EditionPaper]:
        votes = Cast(KT("trend_terms__upvotes__count"), IntegerField())
        rows = super().get_queryset(request).select_related("paper", "edition")
        return rows.annotate(votes=votes)

    def get_ordering(self, request: HttpRequest) -> list[Any]:
        """As on the page: the pinned first, and here the hidden last."""
        ranks = [When(curation="pinned", then=Value(0)), When(curation="hidden", then=Value(2))]
        return [
            OrderBy(Case(*ranks, default=Value(1))),
            F("position").asc(nulls_last=True),
            "-trend",
            "id",
        ]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        edition_id = request.GET.get("edition__id__exact", "")
        edition = Edition.objects.filter(pk=edition_id).first() if _is_key(edition_id) else None
        if edition is None and not request.GET and request.method == "GET":
            return HttpResponseRedirect(reverse("admin:papers_edition_next"))
        context: dict[str, Any] = {
            "edition": edition,
            "title": str(edition) if edition else "Candidates",
            # Rows that are sorted or sifted, or come on a later page, are not in the page's order.
            "orderly": set(request.GET) - {"all"} == {"edition__id__exact"},
        }
        if edition is not None:
            context["outlook"] = editions.outlook(edition, timezone.now())
            count = edition.candidates.count
            context["sizes"] = {
                "all": count(),
                "pinned": edition.candidates.filter(curation="pinned").count(),
                "hidden": edition.candidates.filter(curation="hidden").count(),
                "most": MOST_PINS,
            }
        context = {**(extra_context or {}), **context}
        if request.method != "POST":
            response = super().changelist_view(request, context)
        else:
            with editions.alone():  # from the check of all rows to the saving of the last
                response = super().changelist_view(request, context)
        shown: Any = getattr(response, "context_data", None) or {}
        if request.method == "POST" and shown and (formset := shown["cl"].formset) is not None:
            # The rows may stand in another order by now, and each has its own form.
            shown["cl"].result_list = [form.instance for form in formset.forms]
        if edition is not None and not edition.is_open and shown.get("action_form"):
            # Of what is shown only: whoever asks for a pin on an older page is told why not.
            action = shown["action_form"].fields["action"]
            action.choices = [choice for choice in action.choices if choice[0] != "pin"]
        return response

    def changeform_view(self, request: HttpRequest, *args: Any, **options: Any) -> Any:
        if request.method != "POST":
            return super().changeform_view(request, *args, **options)
        with editions.alone():
            return super().changeform_view(request, *args, **options)

    def history_view(self, request: HttpRequest, object_id: str, *args: Any) -> HttpResponse:
        """It is in the log of its edition."""
        row = self.get_object(request, object_id)
        if row is None or not self.has_view_permission(request, row):
            return super().history_view(request, object_id)
        return log_page(request, row.edition)

    def get_changelist_formset(self, request: HttpRequest, **options: Any) -> Any:
        return super().get_changelist_formset(request, formset=CandidateFormSet, **options)

    def get_changelist_form(self, request: HttpRequest, **options: Any) -> Any:
        return super().get_changelist_form(request, form=CandidateForm, **options)

    def save_model(self, request: HttpRequest, obj: EditionPaper, form: Any, change: bool) -> None:
        editions.revise(obj, form.changed_data, by=request.user.get_username())

    @admin.display(description="Title", ordering="paper__title")
    def paper_title(self, row: EditionPaper) -> str:
        paper = row.paper
        facts = [", ".join(paper.authors[:3]) + (" …" if len(paper.authors) > 3 else "")]
        facts += [", ".join(paper.categories[:1]), paper.arxiv_id or "", ", ".join(paper.sources)]
        return format_html(
            '<a href="{}">{}</a><details><summary>{}</summary><p>{}</p></details>',
            reverse("admin:papers_paper_change", args=[paper.pk]),
            paper.title,
            " · ".join(fact for fact in facts if fact) or "Abstract",
            paper.abstract or "No abstract is known here.",
        )

    @admin.display(description="Trend", ordering="trend")
    def trend_in_words(self, row: EditionPaper) -> str:
        terms = ", ".join(
            f"{name} {values['count']} ({values['percentile']:.0%})"
            for name in Signal.Counter.values
            if (values := row.trend_terms.get(name))
        )
        terms = terms or "nothing counted, neutral"
        if votes := row.trend_terms.get("votes"):
            terms += f"; votes here {votes['count']} (+{votes['lift']:.2f})"
        return f"{row.trend:.2f}: {terms}"

    @admin.display(description="Upvotes", ordering=F("votes").asc(nulls_first=True))
    def upvotes(self, row: Any) -> str:
        return "–" if row.votes is None else str(row.votes)

    @admin.action(description="Pin: into everybody's mail", permissions=["change"])
    def pin(self, request: HttpRequest, rows: QuerySet[EditionPaper]) -> None:
        self._curate(request, rows, EditionPaper.Curation.PINNED)

    @admin.action(description="Hide: out of everybody's mail and the page", permissions=["change"])
    def hide(self, request: HttpRequest, rows: QuerySet[EditionPaper]) -> None:
        self._curate(request, rows, EditionPaper.Curation.HIDDEN)

    @admin.action(description="Neither pinned nor hidden", permissions=["change"])
    def restore(self, request: HttpRequest, rows: QuerySet[EditionPaper]) -> None:
        self._curate(request, rows, EditionPaper.Curation.NONE)

    def _curate(
        self, request: HttpRequest, rows: QuerySet[EditionPaper], curation: EditionPaper.Curation
    ) -> None:
        asked = list(rows)
        was = {row.pk: row.curation for row in asked}
        shown = _shown(request)
        for row in asked:
            row.curation = shown.get(row.pk, row.curation)
        refused = editions.curate_all(asked, curation, by=request.user.get_username())
        done = [row for row in asked if row.curation == curation]
        changed = [row for row in done if was[row.pk] != curation]
        word = editions.in_words(curation)
        if changed:
            messages.success(request, f"{_count(len(changed))} {word} now.")
        if len(done) > len(changed):
            messages.info(request, f"{_count(len(done) - len(changed))} {word} already.")
        by_reason: dict[str, list[str]] = {}
        for refusal in refused:
            by_reason.setdefault(refusal.why, []).append(f"“{refusal.what}”")
        for why, titles in by_reason.items():
            messages.error(request, format_html("Not {}: {}. {}", word, _some(titles), why))


def _shown(request: HttpRequest) -> dict[int, str]:
    """The curation of each row as it stood on the page that `request` comes from."""
    post = request.POST
    rows = [key.removesuffix("-id") for key in post if re.fullmatch(r"form-\d+-id", key)]
    return {
        int(post[f"{row}-id"]): post[f"initial-{row}-curation"]
        for row in rows
        if f"initial-{row}-curation" in post and _is_key(post[f"{row}-id"])
    }


def _some(titles: list[str]) -> SafeString:
    """A few of them, and how many more there are."""
    told = format_html_join(", ", "{}", ((title,) for title in titles[:MOST_TOLD]))
    more = len(titles) - MOST_TOLD
    return format_html("{} and {} more", told, more) if more > 0 else told


def _count(papers: int) -> str:
    return "1 paper is" if papers == 1 else f"{papers} papers are"


def _is_key(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 19


@admin.register(Harvest)
class HarvestAdmin(NoHandWriting, admin.ModelAdmin[Harvest]):
    list_display = (
        "started_at", "state", "last_error", "where_from", "window", "retry_at", "brought",
    )  # fmt: skip
    list_filter = ("state",)
    fields = (
        "source", "part", "window", "state", "attempt", "retry_at", "started_at", "finished_at",
        "read", "new", "updated", "skipped", "failed", "joined", "error_list", "cursor",
    )  # fmt: skip
    actions = ("try_again", "give_up")

    @admin.display(description="Source", ordering="source")
    def where_from(self, harvest: Harvest) -> str:
        """Of files their names alone: the paths stand on its page."""
        known = dict(Source.choices).get(harvest.source)
        names = " ".join(PurePath(path).name for path in harvest.source.split(" "))
        return " ".join(filter(None, (str(known or names), harvest.part)))

    @admin.display(description="Papers")
    def brought(self, harvest: Harvest) -> str:
        counts = {name: getattr(harvest, name) for name in ("new", "updated", "skipped", "failed")}
        told = [f"{count} {name}" for name, count in counts.items() if count]
        return ", ".join([f"{harvest.read} read", *told])

    @admin.display(description="Window")
    def window(self, harvest: Harvest) -> str:
        if harvest.since is None:
            return ""
        return f"{harvest.since} – {harvest.until or 'now'}"

    @admin.display(description="Last error")
    def last_error(self, harvest: Harvest) -> str:
        return harvest.errors[-1][:200] if harvest.errors else ""

    @admin.display(description="Errors")
    def error_list(self, harvest: Harvest) -> str:
        return format_html_join("", "<p>{}</p>", ((error,) for error in harvest.errors))

    # For whoever may look: it is asked as politely as without, only earlier.
    @admin.action(description="Try again now", permissions=["view"])
    def try_again(self, request: HttpRequest, rows: QuerySet[Harvest]) -> None:
        asked = harvesting.try_again(rows, timezone.now())
        if asked:
            messages.success(request, "Tried again within a minute, if a worker and beat run.")
        else:
            messages.warning(request, "None of these failed at one of HARVEST_SOURCES.")

    def has_give_up_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("papers.give_up_harvest")

    @admin.action(description="Give up", permissions=["give_up"])
    def give_up(self, request: HttpRequest, rows: QuerySet[Harvest]) -> None:
        given_up = harvesting.give_up(rows)
        if given_up:
            messages.success(
                request,
                f"{given_up} given up. Of arXiv, the next pull goes on from the day on which this "
                "one began, and what it did not read is left out: `manage.py harvest arxiv "
                "--since …` asks for it once more. Hugging Face's last days are asked for again.",
            )
        else:
            messages.warning(request, "None of these failed and waits to be tried again.")
