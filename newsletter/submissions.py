"""Papers that readers propose by arXiv id: submitted, fetched where unknown, accepted or declined.

Nothing of the reader goes with a paper but the name they gave for it.
"""

from __future__ import annotations

import logging
from datetime import date, datetime, timedelta

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from newsletter import feedback
from newsletter.mail import header
from newsletter.models import Submission, Subscriber
from papers import editions, harvesting, joining
from papers.models import Edition, Paper
from papers.politeness import NotYet
from papers.sources import Refused, SourceError

log = logging.getLogger(__name__)

NAMELESS = "a reader"
A_DAY = timedelta(days=1)
MOST_WAITING = 500  # of all readers together: what editors can be asked to look at
FETCH_LEASE = timedelta(minutes=10)
FIRST_DELAY = timedelta(minutes=5)  # until the next try, then twice as long each time
MOST_FETCHES = 6
FETCHED_AT_ONCE = 5  # of one tick: arXiv is asked once in three seconds, and may be slow

State = Submission.State

ANOTHER = "Another reader submitted it before you. Thank you all the same."


class SubmissionError(ValueError):
    """It cannot be submitted, or not be decided; the message says why."""


def submit(
    reader: Subscriber, arxiv_id: str, *, shown_name: str = "", now: datetime | None = None
) -> Submission:
    """Propose a paper to the editors.

    Args:
        arxiv_id: as `normalise_arxiv_id` gives it.

    Raises:
        SubmissionError: it is known or was proposed already, or there were enough today.
    """
    now = now or timezone.now()
    with transaction.atomic():
        paper = Paper.objects.filter(arxiv_id=arxiv_id).first()
        if paper is not None:
            paper = joining.lock_paper(paper)
        feedback.lock(reader)  # two at once do not both see that one more is allowed
        own = reader.submissions.filter(arxiv_id=arxiv_id).first()
        if own is not None:
            raise SubmissionError(f"You submitted it on {own.created_at:%-d %B %Y}. See below.")
        if paper is not None:
            _check(paper)
        others = Submission.objects.filter(arxiv_id=arxiv_id).exclude(state=State.DECLINED)
        if others.exists():
            raise SubmissionError(ANOTHER)
        if reader.submissions.filter(created_at__gt=now - A_DAY).count() >= _most_a_day():
            raise SubmissionError(
                f"You can submit {_most_a_day()} papers a day. Please come back tomorrow."
            )
        if Submission.objects.filter(state=State.PENDING).count() >= MOST_WAITING:
            raise SubmissionError("Many papers wait for the editors. Please try again soon.")
        try:
            with transaction.atomic():
                return Submission.objects.create(
                    subscriber=reader,
                    arxiv_id=arxiv_id,
                    shown_name=shown_name,
                    paper=paper,
                    fetch_at=None if paper else now,
                    created_at=now,
                )
        except IntegrityError:  # at the same moment
            raise SubmissionError(ANOTHER) from None


def _most_a_day() -> int:
    most: int = settings.SUBMISSIONS_PER_DAY
    return most


def _check(paper: Paper) -> None:
    carried = Edition.objects.settled().filter(papers=paper).first()
    if carried is not None:
        raise SubmissionError(f"It was on the list of {carried.day:%-d %B %Y} already.")
    if paper.withdrawn_on is not None:
        raise SubmissionError("It was withdrawn at its source.")


def accept(submission: Submission, now: datetime, *, by: str = "") -> date:
    """Put the paper on the next list; returns the list's day.

    Raises:
        SubmissionError: it was decided before, or its paper is not known here yet.
        CurationError: the paper cannot be listed.
    """
    with editions.alone():
        paper = (
            Paper.objects.filter(submissions=submission.pk).first()
            or Paper.objects.filter(arxiv_id=submission.arxiv_id).first()
        )
        if paper is not None:
            paper = joining.lock_paper(paper, to_write=True)
        submission = _undecided(submission)
        if paper is None:
            why = submission.problem or "A worker is fetching it from arXiv; try again in a minute."
            raise SubmissionError(f"{submission.arxiv_id} is not known here yet. {why}")
        submitter = submission.shown_name or NAMELESS
        day = editions.list_next(paper, now, submitter=submitter, by=by)
        submission.state, submission.paper = State.ACCEPTED, paper
        submission.decided_at, submission.fetch_at = now, None
        submission.save()
    return day


def decline(submission: Submission, reason: str, now: datetime) -> None:
    """Say no, and why.

    Raises:
        SubmissionError: it was decided before, or no reason is given.
    """
    reason = " ".join(reason.split())
    if not reason:
        raise SubmissionError("Please say why: the reader is told the reason.")
    if len(reason) > 255:
        raise SubmissionError("Please say it in at most 255 characters.")
    with transaction.atomic():
        submission = _undecided(submission)
        submission.state, submission.reason = State.DECLINED, reason
        submission.decided_at, submission.fetch_at = now, None
        submission.save()


def _undecided(submission: Submission) -> Submission:
    found = Submission.objects.select_for_update().filter(pk=submission.pk).first()
    if found is None:
        raise SubmissionError(f"{submission.arxiv_id} is gone: its reader was erased.")
    if found.state != State.PENDING:
        raise SubmissionError(f"{found.arxiv_id} was {found.state} before.")
    return found


def take_names_back(reader: Subscriber) -> None:
    """Leave the papers that a reader brought without the name they gave.

    To be called in the transaction that erases the reader, and has locked the papers: an editor who
    is just accepting one of them is waited for, and can accept none from then on.
    """
    rows = list(reader.submissions.select_for_update())
    accepted = [row for row in rows if row.state == State.ACCEPTED and row.shown_name]
    names = {(row.paper_id, row.shown_name) for row in accepted}
    # In the order in which a harvest locks them.
    ids = {row.paper_id for row in accepted if row.paper_id}
    for paper in Paper.objects.filter(pk__in=ids).order_by("id").select_for_update(no_key=True):
        if (paper.pk, paper.submitter) in names:
            paper.submitter = NAMELESS
            paper.save(update_fields=["submitter", "updated_at"])


def fetch_again(submission: Submission, now: datetime) -> None:
    """Let a worker try once more to get a paper that it gave up."""
    waiting = Submission.objects.filter(pk=submission.pk, state=State.PENDING, paper=None)
    waiting.update(fetch_at=now, fetches=0)


def fetch_waiting(now: datetime) -> int:
    """Get the papers that were submitted and are not known here; returns how many came.

    Claimed by a lease, so that a crash costs but time, and never in a request of the web: arXiv may
    be slow, and is asked once in three seconds by the whole installation.
    """
    came = 0
    for _ in range(FETCHED_AT_ONCE):
        submission = _claim(now)
        if submission is None:
            break
        came += _fetch(submission, now)
    return came


def _claim(now: datetime) -> Submission | None:
    with transaction.atomic():
        waiting = Submission.objects.filter(state=State.PENDING, fetch_at__lte=now)
        submission = waiting.order_by("fetch_at").select_for_update(skip_locked=True).first()
        if submission is not None:
            submission.fetch_at = now + FETCH_LEASE
            submission.fetches += 1
            submission.save(update_fields=["fetch_at", "fetches"])
    return submission


def _fetch(submission: Submission, now: datetime) -> bool:
    """Get one paper, or note why not and when to try again; a curator reads the reason."""
    waiting = Submission.objects.filter(pk=submission.pk, state=State.PENDING)
    try:
        paper = harvesting.fetch_paper(submission.arxiv_id)
    except NotYet as error:  # nobody was asked: it is no try of this paper
        wait = timedelta(seconds=error.retry_after or 0)
        fetches = submission.fetches - 1
        waiting.update(fetches=fetches, fetch_at=now + max(wait, FIRST_DELAY))
        return False
    except SourceError as error:
        log.warning("submission %s: %s is not fetched: %s", submission.pk, submission, error)
        given_up = isinstance(error, Refused) or submission.fetches >= MOST_FETCHES
        again = None if given_up else now + FIRST_DELAY * 2 ** (submission.fetches - 1)
        waiting.update(problem=header(str(error))[:255], fetch_at=again)
        return False
    waiting.update(paper=paper, problem="", fetch_at=None)
    return True
