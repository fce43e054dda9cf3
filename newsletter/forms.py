"""What people type: checked here, said back in words, handed on as plain values."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, cast

from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError

from newsletter import addresses, references
from newsletter.mail import header
from newsletter.models import (
    LONGEST_INTEREST,
    MAX_EXAMPLES,
    MAX_INTERESTS,
    Interest,
    Subscriber,
)
from newsletter.schedule import QUARTERS, Days, zone_names
from newsletter.subscriptions import Subject
from papers.categories import ARCHIVES, CATEGORY_NAMES
from papers.models import Paper
from papers.sources.identifiers import normalise_arxiv_id

MOST_LINES = 100
LONGEST_LINE = 100
LONGEST_EXAMPLES = 1_000_000  # characters: a pasted library of some hundred entries


def category_choices() -> list[tuple[str, list[tuple[str, str]]]]:
    """Categories grouped by archive, for a select."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for code, name in CATEGORY_NAMES.items():
        archive = ARCHIVES.get(code.partition(".")[0], "Physics")
        groups.setdefault(archive, []).append((code, f"{name} ({code})"))
    return sorted(groups.items())


def zone_choices() -> list[tuple[str, str]]:
    """Every zone a subscriber can have, so that saving the form changes none; cities first."""

    def without_city(name: str) -> bool:
        return "/" not in name or name.startswith("Etc/")

    names = sorted(zone_names(), key=lambda name: (without_city(name), name))
    return [(name, name.replace("_", " ")) for name in names]


class _Slot(forms.Form):
    """When the mail comes: used by the sign-up and by the preferences."""

    time_zone = forms.ChoiceField(choices=zone_choices)
    send_hour = forms.TypedChoiceField(
        label="Hour", coerce=int, choices=[(hour, f"{hour:02}:00") for hour in range(24)]
    )


class _Address(forms.EmailField):
    """An address as `addresses.accept` takes it, with its own words for what it refuses."""

    default_validators = []

    def clean(self, value: Any) -> str:
        text = forms.CharField.clean(self, value)
        return addresses.accept(text)


class SignInForm(forms.Form):
    """Who wants to sign in."""

    address = _Address(
        label="E-mail address",
        widget=forms.EmailInput(attrs={"autocomplete": "email", "placeholder": "you@example.org"}),
    )


class SubmissionForm(forms.Form):
    """A paper for the editors."""

    arxiv_id = forms.CharField(
        label="arXiv id or address",
        max_length=200,
        widget=forms.TextInput(attrs={"placeholder": "2505.24864", "autocomplete": "off"}),
    )
    shown_name = forms.CharField(
        label="Your name, if you like",
        help_text="It is shown with the paper. Without one, it says “a reader”.",
        required=False,
        max_length=100,
    )

    def clean_arxiv_id(self) -> str:
        try:
            return normalise_arxiv_id(self.cleaned_data["arxiv_id"])
        except ValueError as error:
            raise ValidationError(f"{error}.") from None

    def clean_shown_name(self) -> str:
        return header(self.cleaned_data["shown_name"])


class _Lines(forms.CharField):
    """One entry a line -> a list of them, each once."""

    widget = forms.Textarea

    def __init__(self, *, label: str, hint: str, placeholder: str = "", rows: int = 2) -> None:
        super().__init__(
            label=label,
            help_text=hint,
            required=False,
            max_length=2 * MOST_LINES * LONGEST_LINE,
            widget=forms.Textarea(attrs={"rows": rows, "placeholder": placeholder}),
        )

    def prepare_value(self, value: Any) -> Any:
        return value if isinstance(value, str) or value is None else "\n".join(value)

    def split(self, text: str) -> Iterable[str]:
        return text.splitlines()

    def clean(self, value: Any) -> list[str]:
        lines = (" ".join(line.split()) for line in self.split(super().clean(value)))
        entries = list({line.casefold(): line for line in lines if line}.values())
        if len(entries) > MOST_LINES:
            raise ValidationError(f"There can be {MOST_LINES}; these are {len(entries)}.")
        for entry in entries:
            if len(entry) > LONGEST_LINE:
                start = f"“{entry[:40]}…”"
                raise ValidationError(f"{start} is longer than {LONGEST_LINE} characters.")
        return entries

    def has_changed(self, initial: Any, data: Any) -> bool:
        return super().has_changed(self.prepare_value(initial), data)


class _Names(_Lines):
    """People, one a line; also with commas between whole names, or as “Alvarez, Ada”."""

    def split(self, text: str) -> Iterable[str]:
        for line in re.split(r"[\n\r;]", text):
            parts = [" ".join(part.split()) for part in line.split(",") if part.strip()]
            if len(parts) == 2 and not all(" " in part for part in parts):
                yield f"{parts[1]} {parts[0]}"
            else:
                yield from parts


class SubjectForm(forms.Form):
    """One interest, as a sign-up states it."""

    words = forms.CharField(
        label="What interests you",
        required=False,
        max_length=LONGEST_INTEREST,
        widget=forms.Textarea(
            attrs={"rows": 2, "placeholder": "e.g. video diffusion, robot learning from few demos"}
        ),
    )
    categories = forms.MultipleChoiceField(
        label="Fields",
        required=False,
        choices=category_choices,
        widget=forms.CheckboxSelectMultiple,
    )

    def subject(self) -> Subject:
        data = self.cleaned_data
        return Subject(words=data.get("words", ""), categories=tuple(data.get("categories", ())))


class WholeSubjectForm(SubjectForm):
    """One interest with all that can be stated of it, and the row it was read from.

    `unknown` holds the examples that no paper here answers to: the others are taken.
    """

    interest = forms.IntegerField(required=False, widget=forms.HiddenInput)
    name = forms.CharField(
        label="Name",
        help_text="If you like. It stands above its papers in your mail.",
        required=False,
        max_length=100,
    )
    authors = _Names(
        label="Authors you follow",
        hint="One a line.",
        placeholder="Ada Alvarez",
    )
    examples = forms.CharField(
        label="Example papers",
        help_text=(
            "arXiv ids, DOIs or links, one a line; or paste BibTeX or RIS. "
            "They must be papers that are known here."
        ),
        required=False,
        max_length=LONGEST_EXAMPLES,
        widget=forms.Textarea(attrs={"rows": 3, "placeholder": "2505.24864"}),
    )

    unknown: list[str]

    def clean_examples(self) -> tuple[int, ...]:
        named = references.read(self.cleaned_data["examples"])
        if len(named) > 10 * MAX_EXAMPLES:
            raise ValidationError(f"There can be {MAX_EXAMPLES} example papers.")
        known, self.unknown = references.look_up(named)
        if len(known) > MAX_EXAMPLES:
            raise ValidationError(
                f"There can be {MAX_EXAMPLES} example papers; these are {len(known)}."
            )
        return tuple(known)

    def subject(self) -> Subject:
        data = self.cleaned_data
        return Subject(
            words=data.get("words", ""),
            categories=tuple(data.get("categories", ())),
            name=" ".join(data.get("name", "").split()),
            authors=tuple(data.get("authors", ())),
            example_ids=data.get("examples", ()),
            interest_id=data.get("interest"),
        )

    @staticmethod
    def initial_of(subscriber: Subscriber) -> list[dict[str, Any]]:
        interests = list(subscriber.interests.all())
        wanted = {paper_id for interest in interests for paper_id in interest.example_ids}
        papers = Paper.objects.in_bulk(wanted)
        return [
            {
                "interest": interest.pk,
                "name": "" if interest.name == _derived_name(interest) else interest.name,
                "words": interest.words,
                "categories": interest.categories,
                "authors": interest.authors,
                "examples": "\n".join(
                    references.written(papers[paper_id])
                    for paper_id in interest.example_ids
                    if paper_id in papers
                ),
            }
            for interest in interests
        ]


def _derived_name(interest: Interest) -> str:
    """The name it would have without one of its own."""
    return Subject(
        words=interest.words,
        categories=tuple(interest.categories),
        authors=tuple(interest.authors),
        example_ids=tuple(interest.example_ids),
    ).title


class SignUpForm(SubjectForm, _Slot):
    address = _Address(
        label="E-mail address",
        max_length=254,
        widget=forms.EmailInput(attrs={"autocomplete": "email", "placeholder": "you@example.org"}),
    )
    field_order = ["address", "words", "categories", "time_zone", "send_hour"]

    def __init__(self, *args: Any, **options: Any) -> None:
        first = {
            "time_zone": settings.DEFAULT_TIME_ZONE,
            "send_hour": settings.DEFAULT_SEND_HOUR,
        }
        options["initial"] = first | (options.get("initial") or {})
        super().__init__(*args, **options)


class PreferencesForm(_Slot):
    # A page from before there were these leaves them out: they stay as they are.
    send_minute = forms.TypedChoiceField(
        label="Minute",
        coerce=int,
        empty_value=None,
        required=False,
        choices=[(minute, f"{minute:02}") for minute in QUARTERS],
    )
    send_days = forms.ChoiceField(label="Days", required=False, choices=Days)
    papers_per_mail = forms.IntegerField(
        label="Papers a mail",
        min_value=3,
        max_value=20,
        error_messages={"min_value": "At least 3.", "max_value": "At most 20."},
    )
    paused = forms.BooleanField(label="Pause my mail", required=False)
    popularity = forms.IntegerField(
        label="Personal or popular",
        help_text="Left: by your subjects alone. Right: by what everybody reads.",
        required=False,
        min_value=0,
        max_value=100,
        widget=forms.NumberInput(attrs={"type": "range", "step": 5}),
    )
    must_phrases = _Lines(
        label="Words you never want to miss",
        hint="One phrase a line. A paper that says it is always in your mail.",
        placeholder="sparse autoencoder",
    )
    must_authors = _Names(
        label="Authors you never want to miss",
        hint="One a line. Their papers are always in your mail.",
        placeholder="Ada Alvarez",
    )
    muted_terms = _Lines(
        label="Words you do not want",
        hint="One word or phrase a line. Papers that say it are left out.",
        placeholder="survey",
    )
    muted_authors = _Names(
        label="Authors you do not want",
        hint="One a line. Their papers are left out.",
    )
    muted_categories = forms.MultipleChoiceField(
        label="Fields you do not want",
        required=False,
        choices=category_choices,
        widget=forms.CheckboxSelectMultiple,
    )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        hours = [(hour, f"{hour:02}") for hour in range(24)]
        cast(forms.ChoiceField, self.fields["send_hour"]).choices = hours

    def clean(self) -> dict[str, Any]:
        stated = self.cleaned_data
        unsaid = [name for name in ("send_minute", "send_days") if stated.get(name) in (None, "")]
        return {name: value for name, value in stated.items() if name not in unsaid}

    def clean_popularity(self) -> int:
        chosen: int | None = self.cleaned_data["popularity"]
        default: int = Subscriber._meta.get_field("popularity").default
        return default if chosen is None else chosen

    @classmethod
    def initial_of(cls, subscriber: Subscriber) -> dict[str, Any]:
        same = (name for name in cls.base_fields if name != "paused")
        return {name: getattr(subscriber, name) for name in same} | {
            "paused": subscriber.state == Subscriber.State.PAUSED
        }


class _Subjects(forms.BaseFormSet[WholeSubjectForm]):
    def add_fields(self, form: WholeSubjectForm, index: int | None) -> None:
        super().add_fields(form, index)
        if remove := form.fields.get("DELETE"):
            remove.label = "Remove this subject"

    def clean(self) -> None:
        titles = [subject.title for subject in self.subjects()]
        repeated = {title for title in titles if title and titles.count(title) > 1}
        if repeated:
            raise ValidationError(f"“{repeated.pop()}” stands here twice.")

    def subjects(self) -> list[Subject]:
        """Those stated, without the ones to be removed."""
        return [
            form.subject()
            for form in self.forms
            if form.has_changed() and form not in self.deleted_forms
        ]

    def seen(self) -> set[int]:
        """The interests that were on the page when it was made."""
        return {form.cleaned_data.get("interest") or 0 for form in self.forms}

    def unknown(self) -> list[str]:
        """The examples that are not known here."""
        return [name for form in self.forms for name in getattr(form, "unknown", ())]


SubjectFormSet: type[_Subjects] = forms.formset_factory(  # type: ignore[assignment]
    WholeSubjectForm,
    formset=_Subjects,
    extra=1,
    can_delete=True,
    can_delete_extra=False,
    max_num=MAX_INTERESTS,
    absolute_max=MAX_INTERESTS + 1,  # no more are made of what a POST says, the one too many shown
    validate_max=True,
)
