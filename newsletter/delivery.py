"""The state machine of a delivery: claim, hand over, settle, recover.

One table says which moves there are, and one function makes a move, by an UPDATE that only
succeeds from the state it leaves; the two moves that every mail makes share one statement. "Handed
over" is committed before the network is touched: after a crash at any point it is known whether a
mail may have left.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Count, F, Max, Q, QuerySet, Value
from django.utils import timezone

from newsletter import mail, provider, sending
from newsletter.addresses import address_hash
from newsletter.bounces import Class, clean, without_addresses
from newsletter.models import Delivery, SendingPause, Subscriber, Suppression
from papers.locks import Lock, try_lock
from papers.models import Edition

log = logging.getLogger(__name__)

S = Delivery.State

MOVES: frozenset[tuple[str, str]] = frozenset(
    {
        (S.PLANNED, S.CLAIMED),
        (S.PLANNED, S.SUPPRESSED),
        (S.PLANNED, S.EXPIRED),
        (S.CLAIMED, S.PLANNED),  # the lease ran out, or no connection: nothing has left
        (S.CLAIMED, S.HANDED_OVER),
        (S.CLAIMED, S.SUPPRESSED),
        (S.CLAIMED, S.EXPIRED),
        (S.CLAIMED, S.SKIPPED),  # every pick was hidden since it was planned
        (S.CLAIMED, S.FAILED),  # its mail could not be composed, or every try killed its worker
        (S.HANDED_OVER, S.SENT),
        (S.HANDED_OVER, S.PLANNED),  # definitely refused for now
        (S.HANDED_OVER, S.FAILED),  # definitely refused for good
        (S.HANDED_OVER, S.UNKNOWN),  # the connection died, or the lease ran out: held
        (S.UNKNOWN, S.SENT),
        (S.UNKNOWN, S.PLANNED),
        (S.UNKNOWN, S.FAILED),
        # What events tell. What was handed over once may have arrived, whatever was thought since:
        (S.PLANNED, S.SENT),
        (S.FAILED, S.SENT),
        (S.EXPIRED, S.SENT),
        (S.SUPPRESSED, S.SENT),
        (S.SENT, S.PLANNED),  # the provider took it, and then refused us
        (S.SENT, S.DELIVERED),
        (S.SENT, S.BOUNCED),
        (S.SENT, S.FAILED),  # refused by policy, at a later hop
        (S.SENT, S.COMPLAINED),
        (S.DELIVERED, S.BOUNCED),  # a server behind the first one sent it back
        (S.DELIVERED, S.FAILED),
        (S.DELIVERED, S.COMPLAINED),
        (S.BOUNCED, S.DELIVERED),  # a soft bounce, and a later try of the server's
        (S.BOUNCED, S.COMPLAINED),
    }
)

# What the setting UNKNOWN_OUTCOME may say, and the state that follows; None: an operator decides.
UNKNOWN_OUTCOMES = {"hold": None, "resend": S.PLANNED, "give_up": S.FAILED}

FIRST_DELAY = timedelta(minutes=5)  # what greylisting asks for
FIRST_DELAYS = {
    Class.MAILBOX: timedelta(hours=1),  # somebody has to make room
    Class.NONE: timedelta(minutes=2),  # the conversation broke, or we were too fast
    Class.SENDER: timedelta(minutes=1),  # a pause holds it: once that ends, there is no reason left
}
SHORTEST_DELAY = timedelta(minutes=1)

RUN_SECONDS = 50  # of a worker's run: it ends before the next tick of beat, and begins anew
MOST_EDITIONS = 3  # how often a mail is composed again since its edition changed
EXPIRED_AT_ONCE = 2000  # deliveries in one transaction

LONGEST_ID = 250  # of a provider, as events know it

BAD_IN_A_ROW = 10  # deliveries: then all sending is paused
BAD_WITHIN = timedelta(hours=1)

# What `error` says of those that a worker was lost with; the second as long as it is composed.
LOST = "The worker that held it did not come back."
COMPOSING = "It is composed alone, since a worker was lost with it."
NO_CONNECTION = "no connection to the mail server"
# What it begins with after a refusal that speaks of us, and after one for now at the last try.
OF_SENDER = "it is us who are refused"
TRIES_ARE_OVER = "its tries are over"


class TooLate(Exception):
    """A delivery cannot be sent again, for its edition is over."""


@dataclass(slots=True)
class Tally:
    """What one call of `send_planned` did."""

    sent: int = 0
    failed: int = 0
    later: int = 0
    unknown: int = 0
    dropped: int = 0
    is_left: bool = False  # its time was over first

    def __str__(self) -> str:
        return (
            f"{self.sent} sent, {self.failed} failed, {self.later} to be tried again, "
            f"{self.unknown} unknown, {self.dropped} dropped"
        )


def move(delivery: Delivery, source: str, target: str, **values: object) -> bool:
    """Move one delivery; False if it was not in `source` any more, or is in another's hand: one
    that is held is moved by whom its lease names."""
    rows = Delivery.objects.filter(pk=delivery.pk)
    if source in (S.CLAIMED, S.HANDED_OVER):
        rows = rows.filter(lease_until=delivery.lease_until)
    moved = move_all(rows, source, target, **values)
    if moved:
        for name, value in {"state": target, **values}.items():
            setattr(delivery, name, value)
    return bool(moved)


def move_all(deliveries: QuerySet[Delivery], source: str, target: str, **values: object) -> int:
    """Move those of `deliveries` that are in `source`; returns how many.

    Raises:
        ValueError: there is no such move.
    """
    if (source, target) not in MOVES:
        raise ValueError(f"no move from {source} to {target}")
    return deliveries.filter(state=source).update(state=target, **values)


def settle_unknown(delivery: Delivery, target: str) -> bool:
    """What an operator found out of a delivery of unknown outcome: it is sent, to be planned again
    (under the same Message-ID), or failed. False if it was settled meanwhile.

    Raises:
        TooLate: it is to be planned again, and its edition is no longer mailed.
    """
    values: dict[str, object] = {}
    if target == S.SENT:
        values["sent_at"] = delivery.handed_over_at
    if target == S.PLANNED:
        now = timezone.now()
        if not delivery.edition.may_be_mailed(now):
            raise TooLate(
                f"The edition of {delivery.edition.day} is over and no longer mailed: what is "
                "unknown of it has arrived, or is given up."
            )
        values["not_before"] = now  # since when it waits
    return move(delivery, S.UNKNOWN, target, **values)


def settle_due_unknown(now: datetime) -> int:
    """Settle what has been unknown for long, where UNKNOWN_OUTCOME says how; returns how many.

    What is sent again is so while it is news, and waits longer after each try: a server that never
    answers takes few repeats of it, and then it is held.
    """
    target = UNKNOWN_OUTCOMES.get(settings.UNKNOWN_OUTCOME)
    if target is None:
        return 0
    wait = timedelta(hours=settings.UNKNOWN_SETTLE_HOURS)
    unknown = Delivery.objects.filter(state=S.UNKNOWN, handed_over_at__lte=now - wait)
    if target == S.PLANNED:
        news = [one.pk for one in Edition.objects.fresh(now) if one.may_be_mailed(now)]
        unknown = unknown.filter(
            edition__in=news,
            attempts__lt=settings.SEND_MAX_ATTEMPTS,
            handed_over_at__lte=now - F("attempts") * Value(wait),
        )
    values = {"not_before": now} if target == S.PLANNED else {}  # since when it waits
    count = move_all(unknown, S.UNKNOWN, target, **values)
    if count:
        log.warning("%d unknown deliveries are %s, by UNKNOWN_OUTCOME", count, target)
    return count


def recover(now: datetime) -> int:
    """Take back what a dead worker held: claimed ones are planned again, handed-over ones are
    unknown, since their mail may have left."""
    ran_out = Delivery.objects.filter(lease_until__lte=now)
    # What kills every worker that composes it must not do so for ever; for what else that worker
    # had claimed, nothing was tried.
    last_try = ran_out.filter(error=COMPOSING, attempts__gte=settings.SEND_MAX_ATTEMPTS)
    gone = "Each worker that composed its mail was lost."
    count = move_all(last_try, S.CLAIMED, S.FAILED, lease_until=None, error=gone)
    count += move_all(ran_out, S.CLAIMED, S.PLANNED, lease_until=None, error=LOST)
    count += move_all(ran_out, S.HANDED_OVER, S.UNKNOWN, lease_until=None, error=LOST)
    if count:
        log.warning("recovered %d deliveries of lost workers", count)
    return count


@contextmanager
def turn() -> Iterator[bool]:
    """Whether this process may be one of the SEND_PROCESSES that send at once, until the end of the
    block. The workers' others are free for whatever else is due."""
    with ExitStack() as stack:
        numbers = range(max(settings.SEND_PROCESSES, 1))
        yield any(stack.enter_context(try_lock(Lock.SEND, number)) for number in numbers)


def more_is_ready(now: datetime) -> bool:
    """Whether there is work for another process beside this one."""
    return _ready(now)[settings.SEND_BATCH_SIZE : settings.SEND_BATCH_SIZE + 1].exists()


def send_planned(*, edition: Edition | None = None, seconds: float = math.inf) -> Tally:
    """Send what is planned and may be sent now, until nothing is left.

    What a pause or a limit holds back stays planned, for a later run.

    Args:
        edition: only this one's deliveries.
        seconds: after these nothing more is handed over, and what was claimed is given back.
    """
    ends_at = time.monotonic() + seconds
    recover(timezone.now())
    settle_due_unknown(timezone.now())
    tally = Tally(dropped=expire_outdated(timezone.now()))
    walk, row = sending.Walk(), _BadRow()
    with provider.sessions(max(settings.SEND_CONNECTIONS, 1)) as sessions:
        while time.monotonic() < ends_at:
            batch = _claim(timezone.now(), edition, walk)
            if batch is None:
                break
            if not batch:
                continue
            if not _Round(batch, sessions, tally, row, ends_at).run():
                break
            walk.begin_anew_when_due()
        else:
            tally.is_left = True
    log.info("send_planned: %s", tally)
    return tally


class _BadRow:
    """The deliveries that ended badly one after the other, none accepted between them: unknown,
    refused for good, or refused for who we are. A provider that is down or refuses us says so of
    each of them. When there are BAD_IN_A_ROW, all sending is paused; what they ended as they stay.

    What ended unknown is in the row whoever it was for: it is our own server that did not answer.
    A refusal may be the word of a reader's server, and then it stops nobody else's mail:

    - what failed only because its tries are over was refused for now, as by greylisting: it is
      in no row;
    - that of a later try is in the row only if nothing was accepted since its mail was planned:
      what was refused while other mail was taken comes due together, and says nothing new;
    - those to one domain alone do not count if anything was accepted within BAD_WITHIN.

    The ledger tells, for against a slow server each run comes to the end of but a few. It is asked
    at the first that ends badly in a run, and where the row may be full.
    """

    def __init__(self) -> None:
        self._length: int | None = None  # at most; None: nothing has ended here yet
        # When what was accepted last was handed over, as far as it is known.
        self._accepted_at: datetime | None = None

    def most(self, in_hand: int) -> int | float:
        """How many more may be told beside those in hand: a row that has begun takes no more with
        it than make it full, however many connections there are."""
        if not self._length:
            return math.inf
        return max(BAD_IN_A_ROW - self._length - in_hand, 0 if in_hand else 1)

    def break_off(self, accepted: Delivery) -> None:
        self._length = 0
        self._accepted_at = accepted.handed_over_at

    def add(self, said: str) -> None:
        """One that ended badly, and is settled so."""
        if self._length is not None:
            self._length += 1
            if self._length < BAD_IN_A_ROW:
                return
        now = timezone.now()
        accepted_at = self._last_accepted(now)
        row = self._in_ledger(now, accepted_at)
        self._length = len(row)
        if len({domain for _, domain in row}) == 1 and accepted_at > now - BAD_WITHIN:
            row = [one for one in row if one[0] == S.UNKNOWN]
        if len(row) >= BAD_IN_A_ROW:
            sending.pause(
                f"{len(row)} deliveries in a row were refused or ended unknown, and none was "
                f"accepted. Of the last one: {without_addresses(said)[:300]}"
            )
            self._length = 0

    def _last_accepted(self, now: datetime) -> datetime:
        """When what was accepted last was handed over; if nothing was, before all that is news."""
        since = self._accepted_at or now - Edition.LIFETIME
        accepted = Delivery.objects.filter(handed_over_at__gt=since, sent_at__isnull=False)
        last = accepted.aggregate(last=Max("handed_over_at"))["last"]
        self._accepted_at = last or since
        return self._accepted_at

    @staticmethod
    def _in_ledger(now: datetime, accepted_at: datetime) -> list[tuple[str, str]]:
        """The states and domains of the row, since sending was resumed at the most."""
        since = [now - BAD_WITHIN, accepted_at]
        for pause in SendingPause.objects.filter(domain=sending.ALL).order_by("-since")[:1]:
            since.append(pause.ended_at or pause.until or pause.since)
        unknown = Q(state=S.UNKNOWN)
        for_good = Q(state=S.FAILED) & ~Q(error__startswith=TRIES_ARE_OVER)
        of_sender = Q(state=S.PLANNED, error__startswith=OF_SENDER)
        is_news = Q(attempts__lte=1) | Q(planned_at__gt=accepted_at)
        bad = Delivery.objects.filter(unknown | (for_good | of_sender) & is_news)
        return list(
            bad.filter(handed_over_at__gt=max(since), sent_at=None)
            .exclude(error=LOST)  # its worker's end, and not its server's
            .annotate(domain=sending.of_deliveries())
            .values_list("state", "domain")
        )


@dataclass(slots=True, eq=False)
class _Letter:
    """A delivery on its way."""

    delivery: Delivery
    prepared: Any  # its message, as the sessions take it
    provider_id: str = ""
    sent_at: datetime | None = None
    tries: int = 0  # at composing: its edition may change under it
    is_counted: bool = False  # this try is, and not only with its hand-over


class _Round:
    """Brings each of a claimed batch to its end. Whatever happens to one happens to no other.

    All are composed first. From then on one statement settles what the server has accepted and
    hands over what is next, as many as there are free sessions: each is committed before it is
    told, and then told at once.

    One of those that a worker was lost with may be what killed it. They come last, one by one, and
    of each it is committed that it is tried before it is composed.
    """

    def __init__(
        self,
        batch: list[Delivery],
        sessions: provider.Sessions[_Letter],
        tally: Tally,
        row: _BadRow,
        ends_at: float = math.inf,
    ) -> None:
        self._sessions = sessions
        self._tally = tally
        self._row = row
        self._ends_at = ends_at  # by the monotonic clock
        self._lease = batch[0].lease_until
        self._batch = [one for one in batch if one.error not in (LOST, COMPOSING)]
        suspects = [one for one in batch if one.error in (LOST, COMPOSING)]
        self._suspects = deque(sorted(suspects, key=lambda one: one.attempts))
        self._waiting: deque[_Letter] = deque()
        self._in_hand = 0  # told, and not answered yet
        self._accepted: list[_Letter] = []
        self._goes_on = True

    def run(self) -> bool:
        """False if nothing more is to leave now: there is no mail server to talk to, all sending is
        paused, or the time is over."""
        self._compose(self._batch)
        self._tell()
        while self._may_go_on():
            suspect = self._suspects.popleft()
            if _count_try(suspect):
                self._compose([suspect], is_counted=True)
                self._tell()
        return self._goes_on

    def _tell(self) -> None:
        while self._waiting or self._sessions.are_talking:
            self._may_go_on()
            self._hand_over_next()
            if not self._sessions.are_talking:
                continue
            answers = self._sessions.answers()
            self._in_hand -= len(answers)
            for letter, answer in answers:
                with _alone(letter.delivery):
                    self._finish(letter, answer)
            if len(self._accepted) < len(answers) or not answers:
                self._commit([])  # before a lost connection is opened again, which may take
        self._commit([])

    def _rest(self) -> list[Delivery]:
        """What is claimed and has not been begun."""
        return [*(letter.delivery for letter in self._waiting), *self._suspects]

    def _may_go_on(self) -> bool:
        """Whether there is more to begin, and time for it; else it is given back. Its lease is
        renewed where that is due: over slow hand-overs it would run out, and others take it."""
        if not (self._waiting or self._suspects):
            return False
        if time.monotonic() >= self._ends_at:
            self._tally.is_left = True
            self._stop()
            return False
        now, span = timezone.now(), timedelta(seconds=settings.SEND_LEASE_SECONDS)
        if self._lease is not None and self._lease < now + span / 2:
            rest, self._lease = self._rest(), now + span
            _held(rest).filter(state=S.CLAIMED).update(lease_until=self._lease)
            for delivery in rest:
                delivery.lease_until = self._lease  # what others have taken has another one
        return True

    def _compose(
        self, batch: Sequence[Delivery], tries: int = 0, *, is_counted: bool = False
    ) -> None:
        now = timezone.now()
        editions = {one.edition_id: one.edition for one in batch}
        # At its freeze at the earliest: a worker whose clock is behind must not end what is news.
        news = {
            pk
            for pk, edition in editions.items()
            if edition.may_be_mailed(max(now, edition.frozen_at or now))
        }
        composer = mail.Composer(batch)
        for delivery in batch:
            if delivery.edition_id not in news:
                stopped = _must_not_leave(delivery) or S.EXPIRED
                move(delivery, S.CLAIMED, stopped, lease_until=None)
                self._tally.dropped += 1
                continue
            try:
                # What cannot be written as a mail shows here, while it is here.
                prepared = self._sessions.prepared(composer.compose(delivery))
            except mail.NothingToSend as nothing:
                stopped = _must_not_leave(delivery)
                why = {} if stopped else {"skip_reason": str(nothing)}
                move(delivery, S.CLAIMED, stopped or S.SKIPPED, lease_until=None, **why)
                self._tally.dropped += 1
            except Exception as error:  # one poisoned paper fails one delivery, not the run
                log.exception("delivery %s could not be composed", delivery.uuid)
                move(delivery, S.CLAIMED, S.FAILED, lease_until=None, error=repr(error))
                self._tally.failed += 1
            else:
                letter = _Letter(delivery, prepared, tries=tries, is_counted=is_counted)
                self._waiting.append(letter)

    def _hand_over_next(self) -> None:
        try:
            most = min(len(self._waiting), self._row.most(self._in_hand))
            servers = self._sessions.take(int(most))
        except provider.NoServer as error:
            self._no_server(error)
            return
        letters = [self._waiting.popleft() for _ in servers]
        handed_over = self._commit(letters)
        held_back = []
        for letter, server in zip(letters, servers, strict=True):
            if letter.delivery.pk in handed_over:
                self._in_hand += 1
                self._sessions.begin(server, letter, letter.prepared)
            else:
                self._sessions.give_back(server)
                held_back.append(letter)
        for letter in held_back:
            with _alone(letter.delivery):
                self._held_back(letter)

    def _no_server(self, error: provider.NoServer) -> None:
        """Nothing has left, and none of those that wait would fare better: the server is asked once
        and not once for each, and by the next run again. It is nobody's try."""
        why = without_addresses(str(error))
        if error.cause is Class.SENDER:
            sending.pause(f"The mail server refuses us as a sender: {why[:200]}")
        waiting = [letter.delivery for letter in self._waiting]
        self._tally.later += _give_back(waiting, error=f"{NO_CONNECTION}: {why}")
        self._waiting.clear()
        self._stop()

    def _commit(self, letters: Sequence[_Letter]) -> set[int]:
        """Settle what was accepted and hand over `letters`: those that are still this worker's, and
        may leave. Returns the ids of those."""
        accepted, self._accepted = self._accepted, []
        if not accepted and not letters:
            return set()
        settled, handed_over = _settle_and_hand_over(accepted, letters)
        for letter in accepted:
            # Over a slow hand-over the lease may have run out, and it was taken for unknown.
            if letter.delivery.pk in settled or move(
                letter.delivery,
                S.UNKNOWN,
                S.SENT,
                sent_at=letter.sent_at,
                provider_id=letter.provider_id,
                error="",
            ):
                self._tally.sent += 1
        return handed_over

    def _held_back(self, letter: _Letter) -> None:
        """What could not be handed over: its reader left, it is paused, its edition changed; or
        its lease ran out, and somebody else has it."""
        delivery = letter.delivery
        if stopped := _must_not_leave(delivery):
            self._tally.dropped += move(delivery, S.CLAIMED, stopped, lease_until=None)
        elif sending.is_paused(sending.domain_of(delivery.subscriber.address)):
            self._tally.later += move(delivery, S.CLAIMED, S.PLANNED, lease_until=None)
            self._stop_if_paused()
        elif letter.tries < MOST_EDITIONS and _is_held(delivery):
            delivery.edition = Edition.objects.get(pk=delivery.edition_id)
            self._compose([delivery], letter.tries + 1, is_counted=letter.is_counted)

    def _finish(self, letter: _Letter, answer: provider.Answer) -> None:
        """Settle a conversation. What was accepted waits for the next statement, which comes at
        once; an error has its own."""
        delivery, error = letter.delivery, answer.error
        if error is None:
            letter.provider_id = clean(answer.provider_id, LONGEST_ID)
            letter.sent_at = timezone.now()
            self._accepted.append(letter)
            self._row.break_off(delivery)
        elif isinstance(error, provider.Refused):
            self._refused(delivery, error)
            self._stop_if_paused()
        else:  # OutcomeUnknown, and whatever a provider's code may raise
            log.warning("delivery %s: unknown outcome, %s", delivery.uuid, type(error).__name__)
            said = clean(str(error))
            if move(delivery, S.HANDED_OVER, S.UNKNOWN, lease_until=None, error=said):
                self._tally.unknown += 1
                self._row.add(said)
            self._stop_if_paused()

    def _refused(self, delivery: Delivery, refused: provider.Refused) -> None:
        said, cause = str(refused), refused.cause
        is_ours = cause is Class.SENDER
        tries_are_over = delivery.attempts >= settings.SEND_MAX_ATTEMPTS and not is_ours
        for_good = refused.for_good or tries_are_over
        log.warning("delivery %s refused for %s", delivery.uuid, "good" if for_good else "now")
        why = said
        if refused.of_sender:
            why = f"{OF_SENDER}: {said}"
        elif for_good and not refused.for_good:
            why = f"{TRIES_ARE_OVER}: {said}"
        if not for_good:
            later = _later(delivery, why, cause)
            if is_ours:  # it was nobody's try
                later["attempts"] = delivery.attempts - 1
            self._tally.later += _take_back(delivery, S.PLANNED, **later)
        elif _take_back(delivery, S.FAILED, lease_until=None, error=why):
            self._tally.failed += 1
        if refused.for_good or refused.of_sender:
            self._row.add(said)
        if cause:
            from newsletter import events  # events move deliveries, and so import this module

            events.refused(delivery, cause, said, for_good=for_good)

    def _stop_if_paused(self) -> None:
        if self._goes_on and sending.is_paused():
            self._stop()

    def _stop(self) -> None:
        self._tally.later += _give_back(self._rest())
        self._waiting.clear()
        self._suspects.clear()
        self._goes_on = False


@contextmanager
def _alone(delivery: Delivery) -> Iterator[None]:
    """An error with one delivery is logged, and the others go on: its reader may be erased at any
    moment. Its lease tells, if it could not be settled."""
    try:
        yield
    except Exception:
        log.exception("delivery %s could not be settled", delivery.uuid)


def _settle_and_hand_over(
    accepted: Sequence[_Letter], letters: Sequence[_Letter]
) -> tuple[set[int], set[int]]:
    """Make the two moves that every mail makes in one statement: HANDED_OVER to SENT for some,
    CLAIMED to HANDED_OVER for others, as far as those may leave at this moment.

    One commit for as many as there are sessions: the database's time was the most of what a
    mail cost.

    Returns:
        The ids of what was settled, and of what was handed over.
    """
    now = timezone.now()
    lease = now + timedelta(seconds=settings.SEND_LEASE_SECONDS)
    addresses = [letter.delivery.subscriber.address for letter in letters]
    with connection.cursor() as cursor:
        cursor.execute(
            SETTLE_AND_HAND_OVER,
            {
                "accepted": _array(letter.delivery.pk for letter in accepted),
                "handed_over": _array([S.HANDED_OVER.value] * len(accepted)),
                "held": _array(letter.delivery.lease_until for letter in accepted),
                "sent_at": _array(letter.sent_at for letter in accepted),
                "provider_ids": [letter.provider_id for letter in accepted],
                "now": now,
                "lease": lease,
                "leaving": _array(letter.delivery.pk for letter in letters),
                "claimed": _array([S.CLAIMED.value] * len(letters)),
                "leased": _array(letter.delivery.lease_until for letter in letters),
                "hashes": _array(address_hash(address) for address in addresses),
                "domains": [sending.domain_of(address) for address in addresses],
                "changed_at": _array(letter.delivery.edition.changed_at for letter in letters),
                "tries": _array(int(not letter.is_counted) for letter in letters),
            },
        )
        rows = cursor.fetchall()
    settled = {pk for pk, state in rows if state == S.SENT}
    handed_over = {pk for pk, state in rows if state == S.HANDED_OVER}
    for letter in letters:
        if letter.delivery.pk in handed_over:
            letter.delivery.state = S.HANDED_OVER
            letter.delivery.handed_over_at = now
            letter.delivery.lease_until = lease
            letter.delivery.attempts += not letter.is_counted
    return settled, handed_over


def _array(values: Iterable[object]) -> str:
    """An array as PostgreSQL reads it, of what needs no quotes: in a fifth of the time that the
    driver takes for it."""
    return f"{{{','.join(map(str, values))}}}"


# The conditions are those of _must_not_leave and sending.not_paused; and the mail must have been
# composed of the edition as it is. The states are values and not written out, or the planner would
# walk the index of all that is in hand instead of looking up an id.
SETTLE_AND_HAND_OVER = """
WITH settled AS (
    UPDATE newsletter_delivery AS delivery
    SET state = 'sent', lease_until = NULL, error = '',
        sent_at = new.sent_at, provider_id = new.provider_id
    FROM unnest(
            %(accepted)s::bigint[], %(handed_over)s::text[], %(held)s::timestamptz[],
            %(sent_at)s::timestamptz[], %(provider_ids)s::text[]
        ) AS new (id, source, lease, sent_at, provider_id)
    WHERE delivery.id = new.id AND delivery.state = new.source
        AND delivery.lease_until = new.lease
    RETURNING delivery.id, delivery.state
), handed_over AS (
    UPDATE newsletter_delivery AS delivery
    SET state = 'handed_over', handed_over_at = %(now)s, lease_until = %(lease)s,
        attempts = delivery.attempts + new.tries
    FROM unnest(
            %(leaving)s::bigint[], %(claimed)s::text[], %(leased)s::timestamptz[],
            %(hashes)s::text[], %(domains)s::text[], %(changed_at)s::timestamptz[],
            %(tries)s::smallint[]
        ) AS new (id, source, lease, address_hash, domain, changed_at, tries),
        newsletter_subscriber AS subscriber, papers_edition AS edition
    WHERE delivery.id = new.id AND delivery.state = new.source
        AND delivery.lease_until = new.lease
        AND subscriber.id = delivery.subscriber_id AND subscriber.state = 'active'
        AND edition.id = delivery.edition_id AND edition.changed_at = new.changed_at
        AND NOT EXISTS (
            SELECT FROM newsletter_suppression WHERE address_hash = new.address_hash
        )
        AND NOT EXISTS (
            SELECT FROM newsletter_sendingpause AS pause
            WHERE pause.ended_at IS NULL
                AND (pause.until IS NULL OR pause.until > statement_timestamp())
                AND pause.domain IN ('', new.domain)
        )
    RETURNING delivery.id, delivery.state
)
SELECT id, state FROM settled UNION ALL SELECT id, state FROM handed_over
"""


def _held(batch: Sequence[Delivery]) -> QuerySet[Delivery]:
    """Those of a batch that are still this worker's."""
    return Delivery.objects.filter(
        pk__in=[one.pk for one in batch], lease_until__in={one.lease_until for one in batch}
    )


def _is_held(delivery: Delivery) -> bool:
    """Whether a claimed delivery is still this worker's."""
    return _held([delivery]).filter(state=S.CLAIMED).exists()


def _count_try(delivery: Delivery) -> bool:
    """Note of one that is claimed that it is tried, before it is composed: that may be the worker's
    end. False if it is another's by now."""
    counted = (
        _held([delivery])
        .filter(state=S.CLAIMED)
        .update(attempts=F("attempts") + 1, error=COMPOSING)
    )
    delivery.attempts += counted
    return bool(counted)


def _give_back(batch: Sequence[Delivery], **values: object) -> int:
    """Plan again what this worker still holds of a batch: nothing of it has left."""
    return move_all(_held(batch), S.CLAIMED, S.PLANNED, lease_until=None, **values)


def _ready(now: datetime) -> QuerySet[Delivery]:
    """What is planned and not to wait for a later try, the oldest first."""
    planned = Delivery.objects.filter(state=S.PLANNED)
    return planned.filter(Q(not_before=None) | Q(not_before__lte=now)).order_by("id")


def expire_outdated(now: datetime) -> int:
    """End what is planned of an edition that is no longer news, with what held it back.

    In bulk, since a limit may have held back many, and before any claim, since what never leaves
    takes nobody's tokens. Editions are planned one after the other: the queue's head tells.
    """
    count = 0
    while head := _ready(now).select_related("edition").only("edition").first():
        edition = head.edition
        since = edition.frozen_at
        if since is None or since > now or edition.may_be_mailed(now):
            break  # still news, or a clock was set back
        with transaction.atomic():
            rows = list(
                _ready(now)
                .filter(edition=edition)
                .annotate(domain=sending.of_deliveries())
                .select_for_update(skip_locked=True)
                .values_list("pk", "domain")[:EXPIRED_AT_ONCE]
            )
            holds = sending.Holds(since, {domain for _, domain in rows})
            why: dict[str, list[int]] = {}
            for pk, domain in rows:
                why.setdefault(holds.words(domain), []).append(pk)
            for words, ids in why.items():
                of_these = Delivery.objects.filter(pk__in=ids)
                # An error of an earlier try says more.
                count += move_all(of_these.filter(error=""), S.PLANNED, S.EXPIRED, error=words)
                count += move_all(of_these, S.PLANNED, S.EXPIRED)
        if not rows:
            break  # another worker is at them
    if count:
        log.warning("%d planned deliveries expired with their edition", count)
    return count


def _claim(now: datetime, edition: Edition | None, walk: sending.Walk) -> list[Delivery] | None:
    """Take a batch for this worker, with a lease; others skip what is being taken.

    Empty where limits hold back all that were looked at, None where nothing is left that may leave.
    """
    ready = _ready(now).filter(pk__gt=walk.after)
    if edition is not None:
        ready = ready.filter(edition=edition)
    with transaction.atomic():
        permit = sending.Permit(walk, now, settings.SEND_BATCH_SIZE)
        if not permit.size:
            return None
        rows = ready.select_for_update(skip_locked=True)
        if permit.asks_domains:
            domains = rows.annotate(domain=sending.of_deliveries())
            seen = list(
                domains.exclude(domain__in=permit.closed).values_list("pk", "domain")[: permit.size]
            )
        else:
            seen = [(pk, "") for pk in rows.values_list("pk", flat=True)[: permit.size]]
        if not seen:
            return None
        walk.after = seen[-1][0]
        ids = permit.choose(seen)
        lease = now + timedelta(seconds=settings.SEND_LEASE_SECONDS)
        move_all(Delivery.objects.filter(pk__in=ids), S.PLANNED, S.CLAIMED, lease_until=lease)
    return list(
        Delivery.objects.filter(pk__in=ids, state=S.CLAIMED, lease_until=lease)
        .select_related("subscriber", "edition")
        .order_by("pk")
    )


def _must_not_leave(delivery: Delivery) -> str:
    """The state a delivery ends in because of its reader, "" if it may leave."""
    subscriber = Subscriber.objects.filter(pk=delivery.subscriber_id).first()
    if subscriber is None or subscriber.state != Subscriber.State.ACTIVE:
        return S.SUPPRESSED
    return S.SUPPRESSED if is_suppressed(subscriber.address) else ""


def is_suppressed(address: str) -> bool:
    return Suppression.objects.filter(address_hash=address_hash(address)).exists()


def _take_back(delivery: Delivery, target: str, **values: object) -> bool:
    """Move what was refused, also where over a slow hand-over its lease ran out and it was taken
    for unknown; but not what somebody handed over since: of that the refusal says nothing."""
    if move(delivery, S.HANDED_OVER, target, **values):
        return True
    ours = Delivery.objects.filter(pk=delivery.pk, handed_over_at=delivery.handed_over_at)
    return bool(move_all(ours, S.UNKNOWN, target, **values))


def _later(delivery: Delivery, why: str, cause: Class) -> dict[str, object]:
    """What is noted of one that is planned again, refused for now.

    It waits by the class of what was said: an hour where a mailbox is full, two minutes where the
    conversation broke, else the five of greylisting. That doubles with each try, up to the even
    share of what is left of its edition's day: the last try comes within it too.
    """
    now = timezone.now()
    delay = FIRST_DELAYS.get(cause, FIRST_DELAY) * 2 ** min(max(delivery.attempts - 1, 0), 16)
    left = (delivery.edition.frozen_at or now) + Edition.LIFETIME - now
    share = left / (max(settings.SEND_MAX_ATTEMPTS - delivery.attempts, 0) + 1)
    wait = max(min(delay, share), SHORTEST_DELAY)
    return {"lease_until": None, "not_before": now + wait, "error": why}


def counts_by_state(edition: Edition) -> dict[str, int]:
    """How many deliveries of an edition stand in each state."""
    states = Delivery.objects.filter(edition=edition).order_by("state").values_list("state")
    return dict(states.annotate(Count("id")))
