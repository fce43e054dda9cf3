"""When mail may leave: pauses by hand or by the service, rates as token buckets, the warm-up.

All of it is in the database, so that it holds for every worker together. A delivery that is held
back stays planned: it is not claimed, and no try is counted.

A claim asks for a Permit; "handed over" is only committed while no pause holds. Confirmations and
other answers to a person wait for a pause too, but take no tokens: they are few, and awaited.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, transaction
from django.db.models import (
    CharField,
    Count,
    Exists,
    F,
    Func,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Value,
)
from django.db.models.expressions import Combinable, NegatedExpression
from django.db.models.functions import Coalesce, Lower, Now
from django.utils import timezone

from newsletter import alerts
from newsletter.models import Delivery, SendingPause, Subscriber, TokenBucket

log = logging.getLogger(__name__)

ALL = SendingPause.ALL
Limit = TokenBucket.Limit
S = Delivery.State

OTHERS = "*"  # in SEND_DOMAIN_RATES: each domain that is not named
# A bucket holds one token and what flows in over this time: twice the tick of beat, so that a run
# a minute can use the whole rate, and no outage saves up for a storm.
BURST = timedelta(minutes=2)
# A run passes mail that is held back once in this time, not once a batch: tokens come back.
WALK_SECONDS = 60.0

REMINDED_IN = timedelta(days=1)

TOO_LATE = "Its edition was over before it could leave"


# Domains


def domain_of(address: str) -> str:
    return address.rpartition("@")[2].lower()


def domain_expression(address: str | Combinable) -> Lower:
    """The same in SQL, of a field or an expression."""
    return Lower(
        Func(address, Value("@"), Value(-1), function="split_part", output_field=CharField())
    )


def known_domain(text: str) -> str:
    """A domain as addresses have it: lower case, ASCII.

    Raises:
        ValueError: it is none; the message says why.
    """
    domain = text.strip().removeprefix("@").rstrip(".")
    try:
        domain = domain.encode("idna").decode().lower()
    except UnicodeError:
        raise ValueError(f"“{text}” is not a domain; write one like example.org.") from None
    if not 0 < len(domain) <= 253 or any(mark in domain for mark in " @,=/*"):
        raise ValueError(f"“{text}” is not a domain; write one like example.org.")
    return domain


# Pauses


def pause(
    why: str, *, until: datetime | None = None, by: AbstractBaseUser | None = None
) -> SendingPause | None:
    """Stop all sending, within a second, until `until` or until somebody resumes it.

    Args:
        why: for the operators to read.
        by: who decided; None: the service itself.

    Returns:
        The pause; None if all sending is paused already. That one keeps its reason, and lasts the
        longer of the two; but the service leaves a person's as it is, and tells the operators.
    """
    return _pause(ALL, why, until, by)


def pause_domain(
    domain: str,
    why: str,
    *,
    until: datetime | None = None,
    by: AbstractBaseUser | None = None,
) -> SendingPause | None:
    """The same for the mail to one domain of recipients.

    Raises:
        ValueError: `domain` is none.
    """
    return _pause(known_domain(domain), why, until, by)


def _pause(
    domain: str, why: str, until: datetime | None, by: AbstractBaseUser | None
) -> SendingPause | None:
    why = " ".join(why.split())[:500]
    if not why:
        raise ValueError("A pause needs a reason: it is what others will read.")
    rows = SendingPause.objects.filter(domain=domain, ended_at=None)
    with transaction.atomic():
        rows.filter(until__lte=Now()).update(ended_at=F("until"))
        # Two at the same moment make one.
        values = {"why": why, "until": until, "by": by}
        standing, is_new = SendingPause.objects.get_or_create(
            domain=domain, ended_at=None, defaults=values
        )
        if not is_new and (by is not None or standing.by is None):
            if until is None:
                rows.update(until=None)
            else:
                rows.filter(until__lt=until).update(until=until)
            return None
    if not is_new:
        # Their end is theirs. If nothing is mended by then, the next refusal pauses it again.
        end = standing.until
        ends = f"at {end.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if end else "when somebody resumes it"
        alerts.alert(
            f"{standing.words} is refused while it is paused",
            f"The service would have paused {standing}: {why}\n\nIt is paused by hand already "
            f"({standing.why}), and that pause ends {ends}. Mend the cause before.",
        )
        return None
    log.warning("%s is paused: %s", standing, why)
    if by is None:
        _tell(standing)
    return standing


def _tell(standing: SendingPause) -> None:
    alerts.alert(
        _subject(standing),
        f"The service paused {standing} by itself: {standing.why}\n\n"
        + (
            f"It is resumed at {standing.until.astimezone(UTC):%Y-%m-%d %H:%M} UTC."
            if standing.until
            else "Mend the cause, then resume it in the admin, under Sending."
        ),
        # Another one comes only after somebody has ended it; what ends by itself may come often.
        is_new=standing.until is None,
    )


def _subject(standing: SendingPause) -> str:
    return f"{standing.words} is paused"


def tell_of_standing_pauses(now: datetime) -> None:
    """Tell the operators each day of the pauses that the service made and nobody has ended, and
    each hour of one of which it is not known that they were told."""
    for standing in SendingPause.objects.in_force().filter(by=None, until=None):
        if not alerts.is_told(_subject(standing), now, now - REMINDED_IN):
            _tell(standing)


def resume() -> SendingPause | None:
    """Let mail leave again; returns the pause that ended, None if there was none."""
    return _resume(ALL)


def resume_domain(domain: str) -> SendingPause | None:
    return _resume(known_domain(domain))


def _resume(domain: str) -> SendingPause | None:
    with transaction.atomic():
        standing = SendingPause.objects.in_force().select_for_update().filter(domain=domain).first()
        if standing is None:
            return None
        SendingPause.objects.filter(pk=standing.pk).update(ended_at=Now())
    log.warning("%s is resumed", standing)
    return standing


def is_paused(domain: str = ALL) -> bool:
    """Whether all sending is paused, or that to `domain`."""
    return SendingPause.objects.holding(domain.lower()).exists()


def not_paused(domain: str | Combinable) -> NegatedExpression[Any]:
    """A condition of a query: no pause holds back the mail to `domain`."""
    return ~Exists(SendingPause.objects.holding(domain))


def ended_since(
    moment: datetime | Combinable, domain: str | Combinable = ALL
) -> QuerySet[SendingPause]:
    """The pauses of all sending, or of `domain` alone, that have ended since `moment`: what was
    refused before is no reason to pause again."""
    ended = SendingPause.objects.annotate(end=Coalesce("ended_at", "until"))
    return ended.filter(domain=domain, end__gte=moment, end__lte=Now())


# Rates


def burst(per_hour: float) -> float:
    """How many tokens a bucket of this rate holds at most."""
    return 1 + per_hour * BURST.total_seconds() / 3600


def refilled(tokens: float, filled_at: datetime, now: datetime, per_hour: float) -> float:
    """What a bucket holds at `now`, of which it held `tokens` at `filled_at`.

    A clock that was set back brings nothing; the caller notes `now` all the same, so that a clock
    that was wrong by a year does not stop the mail for one.
    """
    passed = max((now - filled_at).total_seconds(), 0.0)
    return min(burst(per_hour), tokens + passed * per_hour / 3600)


@lru_cache(maxsize=8)
def parse_domain_rates(text: str) -> Mapping[str, int]:
    """Mails an hour by domain, of text such as "gmail.com=2000,*=10000"; `OTHERS` is in force for
    each domain that is not named.

    Raises:
        ValueError: it cannot be read; the message says why.
    """
    rates: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, number = (piece.strip() for piece in part.partition("="))
        if not equals or not number.isdecimal() or int(number) < 1:
            raise ValueError(f"“{part}” is not like gmail.com=2000: a domain, =, mails an hour.")
        domain = OTHERS if name == OTHERS else known_domain(name)
        if domain in rates:
            raise ValueError(f"“{name}” has two rates.")
        rates[domain] = int(number)
    return rates


@lru_cache(maxsize=8)
def parse_warm_up(start: str, plan: str) -> WarmUp | None:
    """The schedule that two settings describe; None where no start is set.

    Raises:
        ValueError: they cannot be read; the message says why.
    """
    if not start:
        return None
    try:
        first = date.fromisoformat(start)
    except ValueError:
        raise ValueError(f"SEND_WARMUP_START “{start}” is not a date like 2026-11-20.") from None
    caps = [part.strip() for part in plan.split(",") if part.strip()]
    if not caps or not all(cap.isdecimal() and int(cap) for cap in caps):
        raise ValueError(f"SEND_WARMUP_PLAN “{plan}” is not a list of mails a day like 50,100,500.")
    return WarmUp(first, tuple(int(cap) for cap in caps))


@dataclass(frozen=True, slots=True)
class WarmUp:
    """How many mails a new sending domain may send on its first days (UTC)."""

    start: date
    caps: tuple[int, ...]

    def cap(self, day: date) -> int | None:
        """The most mails of `day`, None: no limit, before the start or after the plan."""
        number = (day - self.start).days
        return self.caps[number] if 0 <= number < len(self.caps) else None


def _domain_rates() -> Mapping[str, int]:
    try:
        return parse_domain_rates(settings.SEND_DOMAIN_RATES)
    except ValueError as error:
        raise ImproperlyConfigured(f"SEND_DOMAIN_RATES: {error}") from error


def _warm_up() -> WarmUp | None:
    try:
        return parse_warm_up(settings.SEND_WARMUP_START, settings.SEND_WARMUP_PLAN)
    except ValueError as error:
        raise ImproperlyConfigured(str(error)) from error


def rate_of(domain: str) -> int | None:
    """Mails an hour to `domain`, None: no limit."""
    rates = _domain_rates()
    return rates.get(domain, rates.get(OTHERS))


# What a claim asks


@dataclass(slots=True)
class Walk:
    """How far one run has come along the queue, by id from its head.

    Mail that a limit holds back is passed once, and no other waits behind it.
    """

    after: int = 0
    dry: set[str] = field(default_factory=set)  # domains whose buckets are empty
    began: float = field(default_factory=time.monotonic)

    def begin_anew_when_due(self) -> None:
        """To be called after something was sent: a run that only passes by must come to its end."""
        if time.monotonic() - self.began >= WALK_SECONDS:
            self.after, self.dry, self.began = 0, set(), time.monotonic()


class Permit:
    """What may leave now: asked for by a claim, within its transaction.

    Buckets are locked until that ends, "all" before the domains', those by their names: workers
    wait for each other here for the length of a claim, and never in a circle.
    """

    def __init__(self, walk: Walk, now: datetime, wanted: int) -> None:
        paused = SendingPause.objects.in_force().values_list("domain", flat=True)
        self.walk = walk
        self.closed = {*paused, *walk.dry}
        self.size = 0 if ALL in self.closed else wanted
        self._levels: dict[str, float] = {}
        self._wanted = wanted
        if not self.size:
            return
        if rate := settings.SEND_RATE_PER_HOUR:
            self._levels |= _locked_levels({Limit.ALL.value: rate})
        cap = warm_up.cap(_day(now)) if (warm_up := _warm_up()) else None
        if cap is not None:
            # For its lock: two workers must not both take the rest of the day.
            _locked_levels({Limit.WARM_UP.value: 1})
            self._levels[Limit.WARM_UP.value] = max(float(cap - used_on(_day(now))), 0.0)
        self.size = min([self.size, *(int(level) for level in self._levels.values())])
        if not self.size:
            self._spend({}, {name for name, level in self._levels.items() if level < 1})

    @property
    def asks_domains(self) -> bool:
        """Whether it matters which domain a delivery goes to."""
        return bool(self.closed or _domain_rates())

    def choose(self, rows: Sequence[tuple[int, str]]) -> list[int]:
        """Those of `rows` (id, domain), at most `size`, that may be claimed; takes their tokens."""
        wanted = Counter(domain for _, domain in rows)
        rates = {domain: rate for domain in wanted if (rate := rate_of(domain)) is not None}
        left = {domain: int(level) for domain, level in self._lock(rates).items()}
        chosen, spent, dry = [], Counter[str](), set()
        for pk, domain in rows:
            if domain in left:
                if left[domain] == 0:
                    dry.add(domain)
                    continue
                left[domain] -= 1
                spent[domain] += 1
            chosen.append(pk)
        self.walk.dry |= dry
        common = self._levels.keys() & {Limit.ALL.value, Limit.WARM_UP.value}
        if len(rows) == self.size < self._wanted:
            dry |= {name for name in common if self._levels[name] - len(chosen) < 1}
        self._spend(spent + Counter(dict.fromkeys(common, len(chosen))), dry)
        return chosen

    def _lock(self, rates: Mapping[str, int]) -> dict[str, float]:
        levels = _locked_levels(rates)
        self._levels |= levels
        return levels

    def _spend(self, spent: Mapping[str, int], dry: Collection[str]) -> None:
        names = [name for name in self._levels if spent.get(name) or name in dry]
        if not names:
            return
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE newsletter_tokenbucket AS bucket SET tokens = new.tokens, "
                "filled_at = clock_timestamp(), "
                "ran_dry_at = CASE WHEN new.dry THEN clock_timestamp() ELSE ran_dry_at END "
                "FROM unnest(%s::text[], %s::float8[], %s::bool[]) AS new (name, tokens, dry) "
                "WHERE bucket.name = new.name",
                [
                    names,
                    [self._levels[name] - spent.get(name, 0) for name in names],
                    [name in dry for name in names],
                ],
            )


def _locked_levels(rates: Mapping[str, int]) -> dict[str, float]:
    """What the buckets of these rates hold now, by the database's clock; locked in one query."""
    if not rates:
        return {}
    names = sorted(rates)
    rows = _lock(names)
    if len(rows) < len(names):
        TokenBucket.objects.bulk_create(
            [TokenBucket(name=name, tokens=burst(rates[name]), filled_at=Now()) for name in names],
            ignore_conflicts=True,
        )
        rows = _lock(names)
    return {
        name: refilled(tokens, filled_at, now, rates[name]) for name, tokens, filled_at, now in rows
    }


def _lock(names: Sequence[str]) -> list[tuple[str, float, datetime, datetime]]:
    with connection.cursor() as cursor:
        # The clock is read of each row after it was locked, which may have taken a while.
        cursor.execute(
            "WITH locked AS MATERIALIZED (SELECT name, tokens, filled_at "
            "FROM newsletter_tokenbucket WHERE name = ANY(%s) ORDER BY name FOR UPDATE) "
            "SELECT name, tokens, filled_at, clock_timestamp() FROM locked",
            [list(names)],
        )
        return list(cursor.fetchall())


def _day(now: datetime) -> date:
    return now.astimezone(UTC).date()


def used_on(day: date) -> int:
    """How many mails were handed over on `day` (UTC), or are in a worker's hand to be so."""
    start = datetime.combine(day, time_of_day(), tzinfo=UTC)
    handed_over = Q(handed_over_at__gte=start, handed_over_at__lt=start + timedelta(days=1))
    # In one query, for a delivery moves from the one to the other at any moment.
    return Delivery.objects.filter(handed_over | Q(state=S.CLAIMED)).count()


def of_deliveries() -> Subquery:
    """The domain that a delivery goes to, as a column; no join, so that no reader is locked."""
    reader = Subscriber.objects.filter(pk=OuterRef("subscriber_id"))
    return Subquery(reader.values(domain=domain_expression("address")))


# Why mail waits, or never left


def why_waiting(domain: str, now: datetime) -> str:
    """What holds back the mail to `domain` at this moment, "" if nothing does."""
    held = SendingPause.objects.holding(domain).order_by("domain").first()
    if held is not None:
        return _paused(held)
    cap = warm_up.cap(_day(now)) if (warm_up := _warm_up()) else None
    if cap is not None and used_on(_day(now)) >= cap:
        return f"The warm-up cap of the day, {cap} mails, is reached."
    rates = {Limit.ALL.value: settings.SEND_RATE_PER_HOUR or None, domain: rate_of(domain)}
    for bucket in TokenBucket.objects.filter(name__in=list(rates)):
        if why := _used_up(bucket, rates[bucket.name]):
            return why
    return ""


def held_domains() -> dict[str, str]:
    """What holds back the mail to single domains at this moment, by the domain."""
    buckets = TokenBucket.objects.exclude(name__in=Limit.values) if _domain_rates() else ()
    held = {bucket.name: _used_up(bucket, rate_of(bucket.name)) for bucket in buckets}
    for pause in SendingPause.objects.in_force().exclude(domain=ALL):
        held[pause.domain] = _paused(pause)
    return {domain: why for domain, why in held.items() if why}


def _paused(pause: SendingPause) -> str:
    return f"{pause.words} is paused since {pause.since:%Y-%m-%d %H:%M} UTC: {pause.why}"


def _used_up(bucket: TokenBucket, rate: int | None) -> str:
    if rate and refilled(bucket.tokens, bucket.filled_at, timezone.now(), rate) < 1:
        return f"The rate of {rate} mails an hour to {bucket.name} is used up."
    return ""


class Holds:
    """What held mail back between `since` and now, for those whose edition is over."""

    def __init__(self, since: datetime, domains: Iterable[str]) -> None:
        names = {*domains}
        pauses = SendingPause.objects.filter(
            Q(ended_at=None) | Q(ended_at__gt=since), domain__in={*names, ALL}
        ).exclude(until__lte=since)
        self._pauses = {one.domain: one.why for one in pauses.order_by("since")}
        buckets = TokenBucket.objects.filter(name__in={*names, *Limit.values}, ran_dry_at__gt=since)
        self._dry = set(buckets.values_list("name", flat=True))

    def words(self, domain: str) -> str:
        held = self._by(domain)
        return f"{TOO_LATE}: {held}." if held else f"{TOO_LATE}."

    def _by(self, domain: str) -> str:
        if ALL in self._pauses:
            return f"all sending was paused ({self._pauses[ALL]})"
        if domain in self._pauses:
            return f"mail to {domain} was paused ({self._pauses[domain]})"
        if Limit.WARM_UP in self._dry:
            return "the warm-up cap was reached"
        if domain in self._dry:
            return f"the rate of mails to {domain} was used up"
        return "the rate of all sending was used up" if Limit.ALL in self._dry else ""


@dataclass(frozen=True, slots=True)
class Overview:
    """The state of sending, as the admin shows it."""

    paused: SendingPause | None
    rate: int
    domain_rates: Mapping[str, int]
    warm_up_day: int
    cap: int | None
    used: int
    waiting: int


def overview(now: datetime) -> Overview:
    warm_up = _warm_up()
    day = _day(now)
    cap = warm_up.cap(day) if warm_up else None
    return Overview(
        paused=SendingPause.objects.in_force().filter(domain=ALL).select_related("by").first(),
        rate=settings.SEND_RATE_PER_HOUR,
        domain_rates=_domain_rates(),
        warm_up_day=max((day - warm_up.start).days, 0) + 1 if warm_up else 0,
        cap=cap,
        used=used_on(day) if cap is not None else 0,
        waiting=Delivery.objects.filter(state=S.PLANNED).aggregate(n=Count("pk"))["n"],
    )
