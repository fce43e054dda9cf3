"""Where curators work: the edition's list, its papers, and what the sources brought."""

from __future__ import annotations

from collections import Counter
from datetime import date
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Count, QuerySet, URLField
from django.forms import BaseModelFormSet, ModelForm
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join

from papers import editions, harvesting, ingest, paths  # noqa: F401  (paths registers <day:…>)
from papers.models import Edition, EditionPaper, Harvest, Paper, Signal, SourceRecord
from papers.sources import SourceError
from papers.sources.identifiers import normalise_arxiv_id


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


@admin.register(Paper)
class PaperAdmin(admin.ModelAdmin[Paper]):
    list_display = ("title", "arxiv_id", "listing_day", "sources")
    list_filter = ("listing_day",)
    search_fields = ("title", "arxiv_id", "doi", "abstract")
    date_hierarchy = "listing_day"
    inlines = (SourceRecordInline, SignalInline)

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **options: Any) -> Any:
        if isinstance(db_field, ArrayField):  # one a line: a comma is part of many a name
            options |= {"delimiter": "\n", "widget": forms.Textarea(attrs={"rows": 3})}
        if isinstance(db_field, URLField):
            options["assume_scheme"] = "https"
        return super().formfield_for_dbfield(db_field, request, **options)

    def save_model(
        self, request: HttpRequest, obj: Paper, form: ModelForm[Paper], change: bool
    ) -> None:
        was = Paper.objects.filter(pk=obj.pk).first()
        super().save_model(request, obj, form, change)
        # A form calls some fields changed that are as they were.
        changed = [
            name
            for name in form.changed_data
            if was is None or getattr(was, name) != getattr(obj, name)
        ]
        ingest.keep_word(obj, changed, timezone.now())
        for edition in obj.editions.all():
            editions.touch(edition)


class AddPaperForm(forms.Form):
    """A paper by its identifier, or a new one by title and link."""

    identifier = forms.CharField(
        required=False,
        label="arXiv id or DOI",
        help_text="arXiv is asked for a paper that is not known here",
    )
    title = forms.CharField(required=False, max_length=1000, label="or a new paper's title")
    link = forms.URLField(
        required=False, max_length=500, label="and its link", assume_scheme="https"
    )


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
    list_display = ("day", "state", "candidate_list", "reason", "frozen_at", "held")
    list_editable = ("held",)
    fields = ("day", "held")
    change_list_template = "admin/papers/edition/change_list.html"

    def get_readonly_fields(self, request: HttpRequest, obj: Edition | None = None) -> list[str]:
        return ["day"] if obj else []

    def has_delete_permission(self, request: HttpRequest, obj: Edition | None = None) -> bool:
        return False  # deliveries answer to it

    def get_queryset(self, request: HttpRequest) -> QuerySet[Edition]:
        return super().get_queryset(request).annotate(size=Count("candidates"))

    def save_model(
        self, request: HttpRequest, obj: Edition, form: ModelForm[Edition], change: bool
    ) -> None:
        if change:  # of a row read a while ago: it may have been frozen since
            obj.save(update_fields=["held"])
        else:
            super().save_model(request, obj, form, change)

    @admin.display(description="Papers")
    def candidate_list(self, edition: Any) -> str:
        url = reverse("admin:papers_edition_curate", args=[edition.day])
        return format_html('<a href="{}">{} papers</a>', url, edition.size)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("today/", view(self.today), name="papers_edition_today"),
            path("<day:day>/curate/", view(self.curate), name="papers_edition_curate"),
            path("<day:day>/add/", view(self.add_paper), name="papers_edition_add_paper"),
            path("<day:day>/freeze/", view(self.freeze), name="papers_edition_freeze"),
            *super().get_urls(),
        ]

    def today(self, request: HttpRequest) -> HttpResponse:
        return redirect("admin:papers_edition_curate", day=timezone.now().date())

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
            try:
                _fetch(form.cleaned_data["identifier"])
                candidate = editions.add_paper(edition, **form.cleaned_data)
            except editions.CurationError as error:
                form.add_error(None, str(error))
            except SourceError as error:
                form.add_error(
                    "identifier", f"{error}. Or add the paper by its title and link instead."
                )
            else:
                self.log_change(request, edition, f"Added “{candidate.paper}”.")
                messages.success(request, f"“{candidate.paper}” is on the list.")
                return redirect(_list_of(edition))
        context = {**self.admin_site.each_context(request), "form": form, "edition": edition}
        context |= {"title": f"Add a paper to the {str(edition).lower()}", "opts": self.opts}
        return render(request, "admin/papers/edition/add_paper.html", context)

    def freeze(self, request: HttpRequest, day: Any) -> HttpResponse:
        self._require(request, "papers.freeze_edition")
        edition = get_object_or_404(Edition, day=day)
        if request.method == "POST" and edition.is_open:
            try:
                edition = editions.freeze(edition, timezone.now())
            except editions.CurationError as error:
                return self._refuse(request, error)
            self.log_change(request, edition, "Frozen by hand.")
            messages.success(request, f"{edition} is {edition.get_state_display()}.")
            return redirect(_list_of(edition))
        context = {**self.admin_site.each_context(request), "edition": edition, "opts": self.opts}
        context["title"] = f"Freeze the {str(edition).lower()}?"
        return render(request, "admin/papers/edition/freeze.html", context)

    def _refuse(self, request: HttpRequest, error: editions.CurationError) -> HttpResponse:
        messages.error(request, str(error))
        return redirect("admin:papers_edition_changelist")

    def _require(self, request: HttpRequest, permission: str) -> None:
        if not request.user.has_perm(permission):
            raise PermissionDenied


def _fetch(identifier: str) -> None:
    """Ask arXiv for the paper of an arXiv id, where it is not known here."""
    try:
        normalise_arxiv_id(identifier)
    except ValueError:
        return  # a DOI, or none
    harvesting.fetch_paper(identifier)


def _list_of(edition: Edition) -> str:
    url = reverse("admin:papers_editionpaper_changelist")
    return f"{url}?edition__id__exact={edition.pk}"


class CandidateFormSet(BaseModelFormSet[EditionPaper, ModelForm[EditionPaper]]):
    """The rows of a list that are saved at once: each by itself could be the last pin."""

    def clean(self) -> None:
        super().clean()
        if any(self.errors):
            return
        pins = Counter(
            form.instance.edition_id
            for form in self.forms
            if "curation" in form.changed_data
            and form.instance.curation == EditionPaper.Curation.PINNED
        )
        for edition_id, more in pins.items():
            EditionPaper.check_pins(edition_id, more)


@admin.register(EditionPaper)
class EditionPaperAdmin(admin.ModelAdmin[EditionPaper]):
    """The list of an edition: pin, hide, order, note."""

    list_display = (
        "paper_title", "source", "trend_in_words", "curation", "position", "note",
    )  # fmt: skip
    list_display_links = None
    list_editable = ("curation", "position", "note")
    list_filter = ("edition", "curation")
    list_select_related = ("paper", "edition")
    list_per_page = 50
    search_fields = ("paper__title", "paper__arxiv_id", "paper__abstract")
    actions = ("pin", "hide", "restore")
    fields = ("edition", "paper", "curation", "position", "note", "trend", "trend_terms")
    readonly_fields = ("edition", "paper", "trend", "trend_terms")
    change_list_template = "admin/papers/editionpaper/change_list.html"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # by way of the edition: "add a paper"

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **options: Any) -> Any:
        field = super().formfield_for_dbfield(db_field, request, **options)
        if db_field.name == "note" and field is not None:
            field.widget = forms.Textarea(attrs={"rows": 2, "cols": 18})
        if db_field.name == "position" and field is not None:
            field.widget = forms.NumberInput(attrs={"min": 0, "size": 3, "style": "width: 4em"})
        return field

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        edition_id = request.GET.get("edition__id__exact", "")
        edition = Edition.objects.filter(pk=edition_id).first() if edition_id.isdecimal() else None
        if edition is None and not request.GET and request.method == "GET":
            return HttpResponseRedirect(reverse("admin:papers_edition_today"))
        context = {"edition": edition, "title": str(edition) if edition else "Candidates"}
        context = {**(extra_context or {}), **context}
        if request.method != "POST":
            return super().changelist_view(request, context)
        with editions.alone():  # from the check of all rows to the saving of the last
            return super().changelist_view(request, context)

    def changeform_view(self, request: HttpRequest, *args: Any, **options: Any) -> Any:
        if request.method != "POST":
            return super().changeform_view(request, *args, **options)
        with editions.alone():
            return super().changeform_view(request, *args, **options)

    def get_changelist_formset(self, request: HttpRequest, **options: Any) -> Any:
        return super().get_changelist_formset(request, formset=CandidateFormSet, **options)

    def save_model(self, request: HttpRequest, obj: EditionPaper, form: Any, change: bool) -> None:
        editions.touch(obj.edition)  # first: the freeze, too, locks the edition before its papers
        super().save_model(request, obj, form, change)

    @admin.display(description="Title", ordering="paper__title")
    def paper_title(self, row: EditionPaper) -> str:
        url = reverse("admin:papers_paper_change", args=[row.paper_id])
        return format_html('<a href="{}">{}</a>', url, row.paper.title)

    @admin.display(description="Source")
    def source(self, row: EditionPaper) -> str:
        return ", ".join(row.paper.sources)

    @admin.display(description="Trend: counters and percentiles", ordering="trend")
    def trend_in_words(self, row: EditionPaper) -> str:
        terms = ", ".join(
            f"{name} {values['count']} ({values['percentile']:.0%})"
            for name in Signal.Counter.values
            if (values := row.trend_terms.get(name))
        )
        return f"{row.trend:.2f}: {terms or 'nothing counted, neutral'}"

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
        for row in rows.select_related("edition", "paper"):
            try:
                editions.curate(row, curation)
            except editions.CurationError as error:
                messages.error(request, str(error))
                return
            word = curation.label if curation else "neither pinned nor hidden"
            self.log_change(request, row, f"Marked {word}.")


@admin.register(Harvest)
class HarvestAdmin(NoHandWriting, admin.ModelAdmin[Harvest]):
    list_display = (
        "started_at", "source", "part", "window", "state", "attempt", "retry_at",
        "read", "new", "updated", "skipped", "failed", "last_error",
    )  # fmt: skip
    list_filter = ("state",)
    fields = (
        "source", "part", "window", "state", "attempt", "retry_at", "started_at", "finished_at",
        "read", "new", "updated", "skipped", "failed", "error_list", "cursor",
    )  # fmt: skip
    actions = ("try_again",)

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
