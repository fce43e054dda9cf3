"""What is wrong with the encoder or the sources, found before a reader wonders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage

from papers import encoders
from papers.encoders import Encoder, EncoderError
from papers.sources import arxiv

HINT = "Run `manage.py fetch_encoder`."


@checks.register()
def encoder(**options: Any) -> list[CheckMessage]:
    """By a glance at the files: this runs before every command, and before Celery's fork."""
    if not _some_file():
        return []
    try:
        encoders.find(settings.ENCODER_DIR)
    except EncoderError as error:
        return [_broken(error)]
    return []


# The least that each may be: with less, nothing is listed or encoded, and nothing says why.
LEAST = {"EDITION_WINDOW_DAYS": 1, "ENCODE_BATCH_SIZE": 1}


@checks.register()
def numbers(**options: Any) -> list[CheckMessage]:
    return too_small(LEAST, "papers.E004")


def too_small(least: Mapping[str, int], number: str) -> list[CheckMessage]:
    """An error for each setting that is less than it may be."""
    return [
        checks.Error(
            f"{name} is less than {lowest}.",
            hint=f"Set it to {lowest} or more, or leave it out; README says what it means.",
            id=number,
        )
        for name, lowest in least.items()
        if getattr(settings, name) < lowest
    ]


@checks.register()
def sources(**options: Any) -> list[CheckMessage]:
    """Settings by which nothing, or not what is meant, would be harvested."""
    found: list[CheckMessage] = []
    unknown = set(settings.HARVEST_SOURCES) - {"arxiv", "huggingface"}
    if unknown:
        found.append(
            checks.Error(
                f"HARVEST_SOURCES names what is no source: {', '.join(sorted(unknown))}.",
                hint="The sources are arxiv and huggingface.",
                id="papers.E001",
            )
        )
    if "arxiv" in settings.HARVEST_SOURCES and not settings.ARXIV_CATEGORIES:
        found.append(
            checks.Error(
                "ARXIV_CATEGORIES is not set: nothing of arXiv is harvested.",
                hint="Name what your readers want, such as cs.LG,stat.ML.",
                id="papers.E002",
            )
        )
    for category in settings.ARXIV_CATEGORIES:
        try:
            arxiv.set_of(category)
        except ValueError as error:
            found.append(
                checks.Error(
                    f"ARXIV_CATEGORIES: {error}.",
                    hint="They are listed at arxiv.org/category_taxonomy.",
                    id="papers.E003",
                )
            )
    return found


@checks.register(deploy=True)
def choices(**options: Any) -> list[CheckMessage]:
    """What may be meant so, and is not to be read before every command."""
    found: list[CheckMessage] = []
    if not _some_file():
        found.append(
            checks.Info(
                f"There is no sentence encoder in {settings.ENCODER_DIR}: papers are ranked by "
                "their words alone (the sparse view).",
                hint="`manage.py fetch_encoder` brings one.",
                id="papers.I001",
            )
        )
    if settings.HARVEST_SOURCES == ["huggingface"]:
        found.append(
            checks.Info(
                "HARVEST_SOURCES is huggingface alone: its papers have no categories.",
                hint="The categories that readers choose find nothing then. Set HARVEST_SOURCES to "
                "arxiv,huggingface, and ARXIV_CATEGORIES to what your readers want.",
                id="papers.I002",
            )
        )
    return found


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


def _some_file() -> bool:
    """Whether there is a file of an encoder: one of the two alone is no choice but an accident."""
    return any((settings.ENCODER_DIR / name).exists() for name in encoders.FILES)


def _broken(error: EncoderError) -> CheckMessage:
    return checks.Warning(
        f"The sentence encoder cannot be used: {error}", hint=HINT, id="papers.W001"
    )
