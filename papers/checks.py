"""An encoder that is not there, or not one, found before a reader wonders about the ranking."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage

from papers import encoders
from papers.encoders import Encoder, EncoderError, EncoderMissing

HINT = "Run `manage.py fetch_encoder`."


@checks.register()
def encoder(**options: Any) -> list[CheckMessage]:
    """By a glance at the files: this runs before every command, and before Celery's fork."""
    folder = settings.ENCODER_DIR
    try:
        encoders.find(folder)
    except EncoderMissing as error:
        # One of the two files alone is no choice but an accident.
        if any((folder / name).exists() for name in encoders.FILES):
            return [_broken(error)]
        return [
            checks.Info(
                f"There is no sentence encoder in {folder}: papers are ranked by their words alone "
                "(the sparse view).",
                hint="`manage.py fetch_encoder` brings one.",
                id="papers.I001",
            )
        ]
    except EncoderError as error:
        return [_broken(error)]
    return []


@checks.register(deploy=True)
def encoder_opens(**options: Any) -> list[CheckMessage]:
    """By opening it, which takes half a second and is not for every command."""
    try:
        encoders.find(settings.ENCODER_DIR)
    except EncoderError:
        return []  # told above
    try:
        Encoder(settings.ENCODER_DIR)
    except EncoderError as error:
        return [_broken(error)]
    return []


def _broken(error: EncoderError) -> CheckMessage:
    return checks.Warning(
        f"The sentence encoder cannot be used: {error}", hint=HINT, id="papers.W001"
    )
