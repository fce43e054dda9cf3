"""Forms of which two may be open at a time: saving one undoes nothing that was saved meanwhile."""

from __future__ import annotations

from copy import copy
from typing import Any, TypeVar

from django.core.exceptions import ValidationError
from django.db.models import Model
from django.forms import ModelForm

M = TypeVar("M", bound=Model)


class MeanwhileForm(ModelForm[M]):
    """A form of a row that others change as well, between its being shown and its being saved.

    What each field showed comes back with it. A field that was left as shown is left as the row
    has it by now. One that was changed here and elsewhere is told and not saved; it stays as it was
    typed, and saving once more puts it in place of the other.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.overtaken: list[str] = []
        for field in self.fields.values():
            field.show_hidden_initial = True
        if self.is_bound and self.instance.pk is not None:
            for name in self.fields:
                self._catch_up(name)

    def _catch_up(self, name: str) -> None:
        bound, field = self[name], self.fields[name]
        now = field.prepare_value(bound.initial)
        try:
            shown = field.to_python(lines(self.data.get(bound.html_initial_name)))
            stands = field.to_python(lines(now))
        except ValidationError:
            return  # no browser sends that; it counts as changed
        if shown == stands:
            return
        typed = lines(bound.data)
        data: Any = copy(self.data)
        self.data = data
        data[bound.html_initial_name] = now
        if not field.has_changed(shown, typed):
            data[bound.html_name] = now
        elif field.has_changed(stands, typed):
            self.overtaken.append(name)

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        for name in self.overtaken:
            by = self.changed_by(name)
            words = self.words_of(name)
            self.add_error(
                name,
                f"Changed meanwhile{f' by {by}' if by else ''}: it is {words} now. Yours is not "
                "saved; save once more to put it in place of that.",
            )
        return cleaned

    def changed_by(self, name: str) -> str:
        """Who changed that field last, "" where nobody knows."""
        return ""

    def words_of(self, name: str) -> str:
        value = self.fields[name].prepare_value(self[name].initial)
        return "empty" if value in (None, "") else f"“{value}”"


def lines(value: Any) -> Any:
    """As a browser sends it, a line ends otherwise than in the row."""
    return value.replace("\r\n", "\n") if isinstance(value, str) else value
