"""What people type: checked here, said back in words, handed on as plain values."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError

from newsletter import addresses
from newsletter.models import LONGEST_INTEREST, MAX_INTERESTS, Subscriber
from newsletter.schedule import zone_names
from newsletter.subscriptions import Subject
from papers.categories import CATEGORY_NAMES

ARCHIVES = {
    "astro-ph": "Astrophysics", "cond-mat": "Condensed matter", "cs": "Computer science",
    "econ": "Economics", "eess": "Electrical engineering", "math": "Mathematics",
    "nlin": "Nonlinear sciences", "physics": "Physics", "q-bio": "Quantitative biology",
    "q-fin": "Quantitative finance", "stat": "Statistics",
}  # fmt: skip


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


class SubjectForm(forms.Form):
    """One interest."""

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
    papers_per_mail = forms.IntegerField(label="Papers a mail", min_value=3, max_value=20)
    paused = forms.BooleanField(label="Pause my mail", required=False)

    @classmethod
    def initial_of(cls, subscriber: Subscriber) -> dict[str, Any]:
        return {
            "time_zone": subscriber.time_zone,
            "send_hour": subscriber.send_hour,
            "papers_per_mail": subscriber.papers_per_mail,
            "paused": subscriber.state == Subscriber.State.PAUSED,
        }


class _Subjects(forms.BaseFormSet[SubjectForm]):
    def clean(self) -> None:
        titles = [form.subject().title for form in self.forms if form.has_changed()]
        repeated = {title for title in titles if title and titles.count(title) > 1}
        if repeated:
            raise ValidationError(f"“{repeated.pop()}” stands here twice.")


SubjectFormSet = forms.formset_factory(
    SubjectForm,
    formset=_Subjects,
    extra=1,
    max_num=MAX_INTERESTS,
    absolute_max=MAX_INTERESTS + 1,  # no more are made of what a POST says, the one too many shown
    validate_max=True,
)
