"""Whether the daily run does its work, and what somebody has to be told of.

Each check returns what it found; none changes anything. Workers and beat are judged by what they do
and not by whether they run: a worker may be connected and yet have stopped consuming (Celery's
issue 10205). A real task's answer and beat's last tick are kept as keys in Redis; losing them costs
a minute's knowledge.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.db.models import Count, F, Max, Min, OuterRef, Q, QuerySet
from django.utils.timesince import timesince, timeuntil
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from newsletter import sending
from newsletter.addresses import address_hash
from newsletter.alerts import alert
from newsletter.bounces import without_addresses
from newsletter.delivery import NO_CONNECTION, counts_by_state
from newsletter.findings import Finding, Level, error, ok, several, warning
from newsletter.models import Alert, ConsentRecord, Delivery, SendingPause, Subscriber
from papers.models import Edition, Harvest, Paper, Source

ANSWER_KEPT = 60
FREEZE_LATE = timedelta(hours=2)
FREEZE_EXPECTED = timedelta(minutes=10)
HARVEST_LATE = timedelta(hours=26)
HARVEST_HANGS = timedelta(hours=6)
ATTEMPTS_QUIET = 3  # in a row until somebody is told
SOURCE_ERRORS = "Unreachable|Busy|ServerFailed|Refused|CursorExpired|BadAnswer"
MINUTES = 30
STUCK = timedelta(minutes=MINUTES)  # of what should be done within one or two
# Of an edition, failed or expired: fewer are dead addresses, which a day has.
LOST_AT_LEAST = 5
LOST_PERCENT = 5
LOOKED_BACK = 14  # editions in whose deliveries trouble is looked for
REDIS_SECONDS = 2

SUBJECTS = {
    "edition": "The day's edition is missing",
    "harvest": "A harvest failed",
    "deliveries": "Deliveries need you",
    "lost mail": "Deliveries failed or expired",
    "sign-up": "Sign-ups wait for their answer",
}

# The numbers of an edition, as `lost` says them.
LOST = re.compile(r"of (\d{4}-\d\d-\d\d), (\d+) \w+(?: and (\d+) \w+)?\.")

S = Delivery.State


def redis(seconds: float = REDIS_SECONDS) -> Redis:
    """A client of the broker's Redis that waits so long for an answer, and asks once."""
    return Redis.from_url(
        settings.CELERY_BROKER_URL,
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        retry=Retry(NoBackoff(), 0),
    )


def key(name: str) -> str:
    return f"{settings.REDIS_KEY_PREFIX}health:{name}"


# --- What workers leave behind --------------------------------------------------------------------


def answer(token: str) -> None:
    """A worker's side of the round trip: it has the broker, this code and the database."""
    Edition.objects.exists()
    with redis() as server, server.pipeline() as pipe:
        pipe.rpush(key(f"answer:{token}"), "here")
        pipe.expire(key(f"answer:{token}"), ANSWER_KEPT)
        pipe.execute()


def tick(now: datetime) -> None:
    """Note that beat asked and a worker heard it."""
    with redis() as server:
        server.set(key("tick"), now.isoformat())


def last_tick() -> datetime | None:
    with redis() as server:
        noted = server.get(key("tick"))
    return datetime.fromisoformat(noted.decode()) if isinstance(noted, bytes) else None


# --- The daily run --------------------------------------------------------------------------------


def ago(moment: datetime, now: datetime) -> str:
    if now - moment < timedelta(minutes=1):
        return "just now"
    return f"{timesince(moment, now, depth=1)} ago".replace("\xa0", " ")


def source_of(harvest: Harvest) -> str:
    """The public name of where it came from: files have paths, which are nobody's business."""
    names = dict(Source.choices)
    name = str(names.get(harvest.source, "Files"))
    return f"{name}, {harvest.part}" if harvest.part else name


def newest_harvests() -> list[Harvest]:
    """The last one of each source and part, by their names; whatever was read from files is one
    source."""
    named = Harvest.objects.filter(source__in=Source.values)
    rows = list(named.order_by("source", "part", "-started_at").distinct("source", "part"))
    files = Harvest.objects.exclude(source__in=Source.values).order_by("-started_at").first()
    return [*rows, files] if files else rows


def own_harvests(now: datetime) -> list[Harvest]:
    """Of the newest ones, those that the service made by itself, lately: whoever reads files sees
    how it goes, and a source that is given up is no news for ever. That a source is away for a
    moment is none either: it is asked again."""
    since = now - HARVEST_LATE
    return [
        one
        for one in newest_harvests()
        if one.source in Source.values
        and (one.retry_at or one.started_at) > since
        and not (_is_retried(one) and one.attempt < ATTEMPTS_QUIET)
    ]


def _is_retried(harvest: Harvest) -> bool:
    return harvest.state == Harvest.State.FAILED and harvest.retry_at is not None


def trouble_of(harvest: Harvest, now: datetime) -> str:
    """What went wrong with a harvest, by the class of its error and no more; "" for nothing."""
    if harvest.state == Harvest.State.FAILED:
        last = harvest.errors[-1] if harvest.errors else ""
        named = re.match(rf"([A-Z]\w*(?:Error|Exception|Timeout)|{SOURCE_ERRORS})\b", last)
        trouble = f"failed ({named[1]})" if named else "failed"
        if harvest.retry_at is not None and harvest.retry_at > now:
            trouble += f", tried again in {timeuntil(harvest.retry_at, now, depth=1)}"
        return trouble.replace("\xa0", " ")
    if harvest.state == Harvest.State.DONE and harvest.failed > harvest.read:
        return f"could not read {harvest.failed} of {harvest.read + harvest.failed} records"
    since = harvest.retry_at or harvest.started_at  # it may be taken up again for so long
    if harvest.state == Harvest.State.RUNNING and now - since > HARVEST_HANGS:
        return "did not end"
    return ""


def harvests(now: datetime) -> Iterator[Finding]:
    """The last harvest of each source, and how long ago anything came in."""
    newest = newest_harvests()
    yield from _failed_harvests(newest, now)
    done = [
        one.finished_at for one in newest if one.state == Harvest.State.DONE and one.finished_at
    ]
    mend = "Run `manage.py import_papers`, or see the harvests in the admin for why none came."
    if not done:
        found = "No harvest has been finished yet."
        yield warning("harvest", found, "There are no papers to send.", mend)
    elif now - max(done) > HARVEST_LATE:
        found = f"The last papers came in {ago(max(done), now)}."
        yield warning("harvest", found, "The next editions will be empty.", mend)
    else:
        yield ok("harvest", f"The last one ended {ago(max(done), now)}.")


def _failed_harvests(newest: Iterable[Harvest], now: datetime) -> Iterator[Finding]:
    for one in newest:
        if trouble := trouble_of(one, now):
            yield error(
                "harvest",
                f"The last harvest of {source_of(one)}, {ago(one.started_at, now)}, {trouble}.",
                "Its papers are missing from the next edition.",
                "See it under Harvests in the admin and in the workers' log.",
            )


def last_freeze(now: datetime) -> datetime:
    """The newest hour of freezing that has passed."""
    freeze = datetime.combine(now.astimezone(UTC).date(), settings.EDITION_FREEZE_AT, tzinfo=UTC)
    return freeze if freeze <= now else freeze - timedelta(days=1)


def edition(now: datetime) -> Iterator[Finding]:
    """Whether the edition of the last freeze is settled."""
    if late := missing_edition(now, FREEZE_EXPECTED):
        yield late
        return
    newest = Edition.objects.settled().first()
    if newest is None or newest.frozen_at is None:
        yield ok("edition", "None is due yet.")
        return
    settled = f"{newest.day}: {newest.state}, settled {ago(newest.frozen_at, now)}."
    yield ok("edition", f"{settled} {newest.reason}".strip())


def missing_edition(now: datetime, patience: timedelta) -> Finding | None:
    """The edition that should be settled since `patience`, and is not."""
    frozen_at = last_freeze(now)
    if now < frozen_at + patience:
        frozen_at -= timedelta(days=1)
    day = frozen_at.date()
    if Edition.objects.settled().filter(day__gte=day).exists():
        return None
    # A new installation has missed nothing before its first day.
    if not Paper.objects.filter(created_at__lt=frozen_at).exists():
        return None
    silent = "Readers get no mail until it is settled."
    level = error if now >= frozen_at + FREEZE_LATE else warning
    row = Edition.objects.filter(day=day).first()
    if row is not None and row.held:
        found = f"The edition of {day} is held by the curators."
        return level("edition", found, silent, "Freeze it in Admin → Editions.")
    return level(
        "edition",
        f"The edition of {day} is not frozen.",
        silent,
        "See that worker and beat run; or freeze it by hand in Admin → Editions.",
    )


def deliveries(now: datetime) -> Iterator[Finding]:
    """What is held back, late, lost or unknown among the deliveries."""
    trouble = [*_pauses(), *stuck(now), *_unknown(), *lost(now)]
    yield from trouble
    newest = (
        Delivery.objects.filter(edition__in=_last_editions(), sent_at__isnull=False)
        .order_by("-pk")
        .values_list("sent_at", flat=True)
        .first()
    )
    if newest is not None:
        yield ok("deliveries", f"The newest mail was sent {ago(newest, now)}.")
    elif not trouble:
        yield ok("deliveries", "None has been sent yet, and none is late.")


def _last_editions() -> list[int]:
    return list(Edition.objects.order_by("-day").values_list("pk", flat=True)[:LOOKED_BACK])


def _pauses() -> Iterator[Finding]:
    for one in SendingPause.objects.in_force().select_related("by"):
        who = one.by.get_username() if one.by else "the service itself"
        until = f" until {one.until:%Y-%m-%d %H:%M} UTC" if one.until else ""
        yield warning(
            "deliveries",
            f"{one.words} is paused since {one.since:%Y-%m-%d %H:%M} UTC{until} by {who}: "
            f"{one.why}",
            "What waits for it is late, and expires with its edition.",
            "Mend the cause, then resume it in Admin → Sending.",
        )


def lost(now: datetime) -> Iterator[Finding]:
    """The editions of the last two days of which something failed, or never left in time."""
    editions = Edition.objects.settled().filter(frozen_at__gt=now - 2 * Edition.LIFETIME)
    for edition in editions.order_by("day"):
        counts = counts_by_state(edition)
        due = sum(counts.values()) - counts.get(S.SKIPPED, 0)
        gone = {state: counts[state] for state in (S.FAILED, S.EXPIRED) if state in counts}
        if not (number := sum(gone.values())):
            continue
        yield (error if number == due or _is_much(number, due) else warning)(
            "lost mail",
            f"Of {several(due, 'delivery', 'deliveries')} of {edition.day}, "
            f"{' and '.join(f'{count} {state}' for state, count in gone.items())}.",
            "Their readers got nothing: a mail server refused for good or was away, the mail could "
            "not be composed, or a pause or a limit held it back for too long.",
            "See them in Admin → Deliveries, states “failed” and “expired”: each says why.",
        )


def _is_much(number: int, due: int) -> bool:
    return number >= LOST_AT_LEAST and 100 * number >= LOST_PERCENT * due


def stuck(now: datetime) -> Iterator[Finding]:
    """What should have been done within minutes, and is not."""
    before = now - STUCK
    current = Edition.objects.current(now)
    # Before there is an edition, everybody waits for it.
    served = current is not None and current.frozen_at is not None and current.frozen_at <= before
    if served and (late := Subscriber.objects.due(before).count()):
        yield error(
            "deliveries",
            f"The hour of {several(late, 'reader', 'readers')} came more than {MINUTES} minutes "
            "ago, and no delivery is planned.",
            "They are without today's mail.",
            "See that worker and beat run and read the workers' log.",
        )
    yield from _late(now)
    in_hand = Delivery.objects.filter(state__in=[S.CLAIMED, S.HANDED_OVER], lease_until__lte=before)
    if late := in_hand.count():
        yield error(
            "deliveries",
            f"{several(late, 'delivery is', 'deliveries are')} held by a worker whose lease ran "
            "out.",
            "Nobody takes them back, so no worker sends at all.",
            "See that worker and beat run and read the workers' log.",
        )


def _late(now: datetime) -> Iterator[Finding]:
    """What is planned and late: held back, slow by its rates, refused, or stuck."""
    before = now - STUCK
    planned = Delivery.objects.filter(state=S.PLANNED).annotate(domain=sending.of_deliveries())
    ready = planned.filter(Q(not_before=None, planned_at__lte=before) | Q(not_before__lte=before))
    # What was handed over has not left yet: it may be refused.
    is_leaving = Delivery.objects.filter(
        handed_over_at__gt=before - STUCK, sent_at__gt=before
    ).exists()
    if ready.exists():
        if why := sending.why_waiting(sending.ALL, now):
            found = f"{_waited(ready.count())} {why}"
            yield warning("deliveries", found, "Mails are late.", "See Admin → Sending.")
        else:
            why_held = sending.held_domains()
            held = ready.filter(domain__in=why_held).order_by().values_list("domain")
            if counts := dict(held.annotate(Count("pk"))):
                yield _held(counts, why_held)
            free = ready.exclude(domain__in=why_held)
            if number := free.count():
                yield _slow(number) if is_leaving else _none_leaves(number, free, before)
                return
    if not is_leaving:
        yield from _refused(planned, now)


def _waited(number: int) -> str:
    waits = several(number, "delivery has", "deliveries have")
    return f"{waits} waited over {MINUTES} minutes to leave."


def _held(counts: dict[str, int], why: dict[str, str]) -> Finding:
    """By pauses and empty buckets of single domains, of which the one with the most is named."""
    found = f"{_waited(sum(counts.values()))} {why[max(counts, key=lambda one: counts[one])]}"
    if others := len(counts) - 1:
        found += f" So it is with {several(others, 'domain', 'domains')} more."
    return warning("deliveries", found, "Mails are late.", "See Admin → Sending.")


def _slow(number: int) -> Finding:
    return warning(
        "deliveries",
        f"{_waited(number)} Others are leaving.",
        "Mails are late: a rate or a slow mail server holds them back.",
        "See Admin → Sending; raise the rates, SEND_CONNECTIONS or SEND_PROCESSES.",
    )


def _none_leaves(number: int, late: QuerySet[Delivery], before: datetime) -> Finding:
    away = late.filter(error__startswith=NO_CONNECTION).order_by("planned_at").first()
    if away is not None:
        return error(
            "deliveries",
            f"{_waited(number)} There is {away.error}. The first waits since "
            f"{away.planned_at:%Y-%m-%d %H:%M} UTC.",
            "No mail leaves; what does not leave in its edition's day expires.",
            "See that the mail server runs, and that EMAIL_URL is right.",
        )
    found = f"{_waited(number)} None is leaving."
    tried = Delivery.objects.filter(handed_over_at__gt=before)
    if tried.exists():
        return _none_taken(found, tried)
    return error(
        "deliveries",
        found,
        "Mails are late: no worker sends.",
        "See that worker and beat run and read the workers' log.",
    )


def _refused(planned: QuerySet[Delivery], now: datetime) -> Iterator[Finding]:
    """What waits for its next try, refused for now at each of them, where nothing else leaves
    either.

    A few full mailboxes wait so all day, while everybody else has had their mail. So it must be
    more than one for whom nothing has left since they were planned, or as many as would be much if
    they were lost.
    """
    waiting = planned.filter(
        sending.not_paused(OuterRef("domain")),
        attempts__gt=0,
        planned_at__lte=now - STUCK,
        not_before__gt=now,
    )
    number, first = waiting.aggregate(number=Count("pk"), first=Min("planned_at")).values()
    if not number:
        return
    since = Delivery.objects.filter(handed_over_at__gte=first, sent_at__isnull=False)
    sent, last = since.aggregate(number=Count("pk"), last=Max("sent_at")).values()
    alone = waiting.filter(planned_at__gt=last).count() if last else number
    if alone > 1 or _is_much(number, number + sent):
        refused = several(number, "delivery is", "deliveries are")
        found = f"{refused} refused for now, and no mail has left within {MINUTES} minutes."
        yield _none_taken(found, waiting)


def _none_taken(found: str, refused: QuerySet[Delivery]) -> Finding:
    """With what is said most often, which may name addresses."""
    said = refused.exclude(error="").order_by().values_list("error").annotate(number=Count("pk"))
    words = [without_addresses(error)[:300] for error, _ in said.order_by("-number")[:1]]
    return error(
        "deliveries",
        " ".join([found, *(f"Said most often: {one}" for one in words)]),
        "No mail leaves; what does not leave in its edition's day expires.",
        "Read the mail server's log, and what it says in Admin → Deliveries; see that EMAIL_URL is "
        "right.",
    )


def _unknown() -> Iterator[Finding]:
    count = Delivery.objects.filter(edition__in=_last_editions(), state=S.UNKNOWN).count()
    if count:
        yield error(
            "deliveries",
            f"{several(count, 'delivery is', 'deliveries are')} of unknown outcome.",
            "Their mail may have arrived or not: it is neither repeated nor counted as sent.",
            "Settle them in Admin → Deliveries, state “unknown”.",
        )


def answers(now: datetime) -> Iterator[Finding]:
    """Sign-ups that wait for their answer by mail."""
    yield _late_answers(now) or ok("sign-up", "No answer is late.")


def _late_answers(now: datetime) -> Finding | None:
    # When they asked, and not when the next try is due: each moves that on.
    asked = ConsentRecord.objects.filter(act=ConsentRecord.Act.ASKED, at__gt=now - STUCK)
    just_asked = set(asked.values_list("address_hash", flat=True))
    waiting = Subscriber.objects.filter(answer_due_at__isnull=False).values_list("pk", "address")
    ids = [pk for pk, address in waiting if address_hash(address) not in just_asked]
    if not (number := len(ids)):
        return None
    waits = several(number, "sign-up has", "sign-ups have")
    found = f"{waits} waited over {MINUTES} minutes for an answer."
    silent = "People wait for a confirmation that does not come."
    domain = sending.domain_expression(OuterRef("address"))
    if Subscriber.objects.filter(sending.not_paused(domain), pk__in=ids).exists():
        do = "See that worker and beat run and that the mail server answers."
        return error("sign-up", found, silent, do)
    return warning("sign-up", f"{found} A pause holds them back.", silent, "See Admin → Sending.")


# --- The minute's watch ---------------------------------------------------------------------------


def watch(now: datetime) -> list[Finding]:
    """What somebody has to be told of, because it stops mail and does not mend itself."""
    found = [*_failed_harvests(own_harvests(now), now), *stuck(now), *_unknown(), *lost(now)]
    one_by_one = (missing_edition(now, FREEZE_LATE), _late_answers(now))
    return [*found, *filter(None, one_by_one)]


def alert_operators(now: datetime) -> None:
    """Tell the operators by mail of each kind of trouble."""
    troubles: dict[str, list[Finding]] = {}
    for finding in watch(now):
        if finding.level == Level.ERROR:
            troubles.setdefault(finding.check, []).append(finding)
    for check, findings in troubles.items():
        text = "\n\n".join(f"{f.found} {f.means}\n{f.do}" for f in findings)
        if check == "lost mail" and _is_known(text):
            continue
        # The same subject as long as it lasts, whatever the numbers.
        alert(SUBJECTS[check], text)
    sending.tell_of_standing_pauses(now)


def _is_known(text: str) -> bool:
    """Whether the operators were told of as much lost mail of each edition. It cannot be mended: it
    is told when it has become more, and not each hour."""
    settled = Q(waits=True) | Q(tried_at__gte=F("raised_at"))
    told = Alert.objects.filter(settled, subject=SUBJECTS["lost mail"]).first()
    known = _numbers_lost(told.text) if told else {}
    return all(number <= known.get(day, 0) for day, number in _numbers_lost(text).items())


def _numbers_lost(text: str) -> dict[str, int]:
    return {day: int(one) + int(other or 0) for day, one, other in LOST.findall(text)}
