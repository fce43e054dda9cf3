"""What providers and mail servers tell of our mails: stored first, processed after.

A webhook, a bounce or complaint mail, and a refusal at SMTP time all become a DeliveryEvent. Each
is stored once, whatever its way repeats. Then it finds its delivery, moves it by the table of
`delivery`, and has its consequence. One that comes before our own commit waits; one that tells of
an earlier moment than what is known already changes no state.
"""

from __future__ import annotations

import hashlib
import logging
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from anymail.signals import tracking
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import InterfaceError, OperationalError, transaction
from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from django.dispatch import receiver
from django.utils import timezone

from newsletter import bounces, sending, subscriptions
from newsletter.addresses import accept, address_hash, delivery_of_return_path
from newsletter.bounces import BounceReport
from newsletter.delivery import FIRST_DELAY, move
from newsletter.models import Delivery, DeliveryEvent, Subscriber, Suppression

log = logging.getLogger(__name__)

State = Delivery.State
Kind = DeliveryEvent.Kind
Cause = DeliveryEvent.Cause

WAITS = timedelta(days=1)  # for its delivery
BATCH = 200
FEWEST_REFUSALS = 5  # of a domain in a day: fewer say nothing of it
LONGEST_DETAIL = 1000

# We ask neither who opens nor who clicks, and subscriptions are made here alone.
UNWANTED = {Kind.OPENED, Kind.CLICKED, Kind.SUBSCRIBED}
SOFT = (Cause.MAILBOX, Cause.CONTENT, Cause.SOFT)
ARRIVED = {Kind.DELIVERED, Kind.COMPLAINED, Kind.UNSUBSCRIBED, Kind.AUTORESPONDED}
ACCEPTED = {Kind.QUEUED, Kind.SENT, Kind.DEFERRED}
REFUSED = {Kind.BOUNCED, Kind.REJECTED, Kind.FAILED}
# Of a reader: nothing that is told later takes them back.
WISHES = {Kind.COMPLAINED, Kind.UNSUBSCRIBED, Cause.COMPLAINT, Cause.UNSUBSCRIBED}
IN_HAND = (State.CLAIMED, State.HANDED_OVER)
# Sources whose word needs no proof of a delivery: a webhook's secret, or our own conversation.
MAILBOX = "mailbox"
SMTP = "smtp"


class Consequence(StrEnum):
    """What an event asks for beyond its own delivery's state."""

    SUPPRESS = "suppress"  # the address, at once
    UNSUBSCRIBE = "unsubscribe"
    COUNT_SOFT = "count soft"  # suppress after so many in a row over so many days
    COUNT_POLICY = "count policy"  # pause the domain above a share of its mails
    PAUSE_ALL = "pause all"
    NOTHING = "nothing"


def consequence_of(kind: str, cause: str) -> Consequence:
    if kind == Kind.UNSUBSCRIBED or cause == Cause.UNSUBSCRIBED:
        return Consequence.UNSUBSCRIBE
    if kind == Kind.COMPLAINED or cause == Cause.COMPLAINT:
        return Consequence.SUPPRESS
    if kind == Kind.DEFERRED and cause == Cause.MAILBOX:
        return Consequence.COUNT_SOFT
    if kind not in REFUSED:
        return Consequence.NOTHING
    match cause:
        case Cause.INVALID:
            return Consequence.SUPPRESS
        case Cause.POLICY:
            return Consequence.COUNT_POLICY
        case Cause.SENDER:
            return Consequence.PAUSE_ALL
    return Consequence.COUNT_SOFT


# --- Storing --------------------------------------------------------------------------------------


def store(
    kind: str,
    *,
    source: str,
    cause: str = "",
    event_id: str = "",
    delivery_uuid: uuid.UUID | None = None,
    message_id: str = "",
    recipient: str = "",
    detail: str = "",
    occurred_at: datetime | None = None,
    content: object = None,
) -> bool:
    """Keep one event; False if it is kept already.

    Args:
        event_id: the provider's; without one, the same `content` is the same event.
        content: what tells it from others, where the fields here do not.
    """
    detail = bounces.clean(bounces.without_addresses(detail), LONGEST_DETAIL)
    hashed = address_hash(_as_kept(recipient)) if recipient.strip() else ""
    message_id = bounces.clean(message_id, 250)
    told = event_id or repr(
        (kind, cause, delivery_uuid, message_id, hashed, content or (detail, occurred_at))
    )
    digest = hashlib.sha256(f"{source}\n{kind}\n{told}".encode(errors="replace")).hexdigest()
    event = DeliveryEvent(
        event_id=bounces.clean(event_id, 255),
        content_digest=digest,
        source=bounces.clean(source, 64),
        kind=kind,
        cause=cause,
        delivery_uuid=delivery_uuid,
        message_id=message_id,
        address_hash=hashed,
        detail=detail,
        occurred_at=occurred_at or timezone.now(),
    )
    if DeliveryEvent.objects.filter(content_digest=digest).exists():
        return False
    DeliveryEvent.objects.bulk_create([event], ignore_conflicts=True)
    return True


@receiver(tracking, dispatch_uid="newsletter.events")
def store_webhook(sender: object, event: Any, esp_name: str, **options: Any) -> None:
    """One event of a provider's webhook. An error in one must not lose the rest of its batch."""
    try:
        _store_tracking(event, esp_name)
    except (OperationalError, InterfaceError):
        raise  # no database, so none of the batch is kept: the provider tries again
    except Exception as error:
        # The class alone: what the event holds names addresses.
        log.error("an event of %s could not be stored: %s", esp_name, type(error).__name__)


def _store_tracking(event: Any, esp_name: str) -> None:
    kind = event.event_type if event.event_type in Kind.values else Kind.UNKNOWN
    if kind in UNWANTED:
        return
    text = " ".join(str(part) for part in (event.mta_response, event.description) if part)
    kind, cause = translated(kind, str(event.reject_reason or ""), text)
    with transaction.atomic():
        store(
            kind,
            source=esp_name,
            cause=cause,
            event_id=str(event.event_id or ""),
            delivery_uuid=_uuid_in(event.metadata),
            message_id=str(event.message_id or ""),
            recipient=str(event.recipient or ""),
            detail=text,
            occurred_at=event.timestamp,
            content=None if event.timestamp else _plain(event.esp_event),
        )


def _as_kept(address: str) -> str:
    try:
        return accept(address)
    except ValidationError:
        return address.strip()


def _plain(esp_event: object) -> object:
    return getattr(esp_event, "dict", lambda: esp_event)()


def _uuid_in(metadata: object) -> uuid.UUID | None:
    named = metadata.get("delivery") if isinstance(metadata, dict) else None
    try:
        return uuid.UUID(str(named)) if named else None
    except ValueError:
        return None


def translated(kind: str, reason: str, text: str) -> tuple[str, str]:
    """A provider's event as one of ours: the kind, and the cause where it is a refusal.

    A `rejected` mail never left, for what the provider remembers of its recipient; the reason of a
    `bounced` one is only the provider's summary, and the server's words say more.
    """
    if kind == Kind.COMPLAINED:
        return kind, Cause.COMPLAINT
    if kind not in REFUSED:
        return kind, ""
    if kind == Kind.REJECTED:
        match reason:
            case "unsubscribed":
                return kind, Cause.UNSUBSCRIBED
            case "spam":
                return kind, Cause.COMPLAINT
            case "bounced":
                return kind, Cause.INVALID
    if reason == "invalid":
        return kind, Cause.INVALID
    cause = bounces.classify(None, "", text)
    if kind == Kind.BOUNCED and cause is bounces.Class.SENDER:
        return kind, Cause.POLICY  # a receiver's words: they stop no other's mail
    if cause is bounces.Class.SOFT and reason in ("blocked", "spam"):
        return kind, Cause.POLICY
    return kind, str(cause)


def store_report(report: BounceReport, content: bytes) -> bool:
    """Keep what a bounce or complaint mail says, if it proves that it speaks of a mail of ours.

    Anybody can forge a bounce. Proof is what only the receivers of that mail can know: its signed
    return path, or its Message-ID. False where there is no proof, or nothing to keep.
    """
    delivery_uuid = proven_delivery(report)
    if delivery_uuid is None:
        return False
    match report.kind:
        case bounces.Kind.COMPLAINT:
            kind = Kind.COMPLAINED
        case bounces.Kind.BOUNCE:
            kind = Kind.DEFERRED if report.is_delay else Kind.BOUNCED
        case _:
            return False
    reader = Subscriber.objects.filter(deliveries__uuid=delivery_uuid).first()
    own = _hashes(reader.address) if reader else set()
    return store(
        kind,
        source=MAILBOX,
        cause="" if kind == Kind.DEFERRED else str(report.cls),
        delivery_uuid=delivery_uuid,
        # A report may name others before the reader.
        recipient=next((r for r in report.recipients if address_hash(r) in own), report.recipient),
        detail=f"{report.status} {report.diagnostic}",
        content=hashlib.sha256(content).hexdigest(),
    )


def proven_delivery(report: BounceReport) -> uuid.UUID | None:
    for address in report.returned_to:
        if found := delivery_of_return_path(address):
            return found
    known = Delivery.objects.filter(uuid__in=report.delivery_uuids)
    return known.values_list("uuid", flat=True).first()


def refused(delivery: Delivery, cause: str, said: str, *, for_good: bool = True) -> None:
    """A refusal in our own conversation: kept, and its consequence drawn at once, but for what is
    counted over many: `process_pending` does that.

    Of those for now, only what says something of us, or of the mailbox: one that is full for days
    may be so at each try until the edition is over. It is kept once for a delivery.
    """
    if not for_good and cause not in (Cause.SENDER, Cause.MAILBOX):
        return
    is_deferred = not for_good and cause == Cause.MAILBOX
    kind = Kind.DEFERRED if is_deferred else Kind.BOUNCED
    with transaction.atomic():
        stored = store(
            kind,
            source=SMTP,
            cause=cause,
            delivery_uuid=delivery.uuid,
            recipient=delivery.subscriber.address,
            detail=said,
            content="for now" if is_deferred else delivery.handed_over_at,
        )
    if stored and consequence_of(kind, cause) is not Consequence.COUNT_POLICY:
        events = DeliveryEvent.objects.filter(delivery_uuid=delivery.uuid, source=SMTP)
        _process_alone(events.filter(processed_at=None), timezone.now(), Tally())


# --- Processing -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Tally:
    """What one call of `process_pending` did."""

    processed: int = 0
    waiting: int = 0
    failed: int = 0
    refusing: set[str] = field(default_factory=set)  # domains, by policy

    def __str__(self) -> str:
        return f"{self.processed} processed, {self.waiting} waiting, {self.failed} failed"


def process_pending(now: datetime | None = None) -> Tally:
    """Process what is stored and due. Any number may run at once: each takes what is free."""
    now = now or timezone.now()
    tally = Tally()
    pending = DeliveryEvent.objects.filter(processed_at=None)
    pending = pending.filter(Q(retry_at=None) | Q(retry_at__lte=now)).order_by("id")
    last = 0
    while ids := list(pending.filter(id__gt=last).values_list("id", flat=True)[:BATCH]):
        for pk in ids:
            _process_alone(pending.filter(pk=pk), now, tally)
        last = ids[-1]
    # Once for all that came: the deliveries of a day are many, and so may be the refusals.
    if tally.refusing:
        _pause_refusing(tally.refusing, now)
    if tally.processed or tally.failed:
        log.info("process_events: %s", tally)
    return tally


def _process_alone(pending: QuerySet[DeliveryEvent], now: datetime, tally: Tally) -> None:
    """One event in a transaction of its own: what becomes of one is nothing to another, and none
    holds the rows that it changed while others are processed."""
    try:
        with transaction.atomic():
            event = pending.select_for_update(skip_locked=True).first()
            if event is None:
                return
            done = _process(event, now)
    except OperationalError:  # another transaction was preferred: nothing is wrong with the event
        tally.waiting += pending.update(retry_at=now + timedelta(minutes=1))
    except Exception as error:  # one poisoned event keeps no other waiting
        log.exception("an event could not be processed")
        outcome = f"error: {type(error).__name__}"
        tally.failed += pending.update(processed_at=now, outcome=outcome)
    else:
        tally.processed += done
        if event.delivery and consequence_of(event.kind, event.cause) is Consequence.COUNT_POLICY:
            tally.refusing.add(sending.domain_of(event.delivery.subscriber.address))
        tally.waiting += not done


def _process(event: DeliveryEvent, now: datetime) -> bool:
    """Draw the consequences of one event; False if it waits for its delivery."""
    delivery = _delivery_of(event)
    if delivery is None:
        # A provider's word is proven by its secret, whoever the mail was for.
        outcome = _suppress_hash(event)
        may_come = event.delivery_uuid is not None or event.message_id
        if may_come and now - event.received_at < WAITS:
            return _wait(event, now)
        _settle(event, now, outcome or "no delivery of ours")
        return True
    event.delivery = delivery
    own = {"", *_hashes(delivery.subscriber.address)}
    if event.cause == Cause.INVALID and event.address_hash not in own:
        event.cause = Cause.SOFT  # a dead forward behind the mailbox: their own address is there
    event.save(update_fields=["delivery", "cause"])
    if delivery.state in IN_HAND:
        return _wait(event, now)
    outdated = _tells_of_the_past(event)
    moved = "" if outdated else _move(event, delivery, now)
    outcomes = [moved] if moved else []
    if not outdated or WISHES & {event.kind, event.cause}:
        outcomes.append(_consequences(event, delivery, now))
    _settle(event, now, "; ".join(filter(None, outcomes)) or "nothing")
    return True


def _hashes(address: str) -> set[str]:
    """Those of an address, as its mail server may call it: some drop the plus part."""
    local, _, domain = address.rpartition("@")
    return {address_hash(address), address_hash(f"{local.partition('+')[0]}@{domain}")}


def _delivery_of(event: DeliveryEvent) -> Delivery | None:
    """By what we gave the provider along with it, else by the provider's id or our own.

    Its reader is locked: who is erased at this moment takes the delivery along.
    """
    found = Delivery.objects.select_related("subscriber")
    found = found.select_for_update(of=("subscriber",), no_key=True)
    if event.delivery_uuid is not None:
        return found.filter(uuid=event.delivery_uuid).first()
    if not event.message_id:
        return None
    if match := bounces.UUID_ID.match(event.message_id):
        return found.filter(uuid=match.group(1)).first()
    return found.filter(provider_id=event.message_id).exclude(provider_id="").first()


def _wait(event: DeliveryEvent, now: datetime) -> bool:
    age = now - event.received_at
    event.retry_at = now + max(age / 2, timedelta(minutes=1))
    DeliveryEvent.objects.filter(pk=event.pk).update(retry_at=event.retry_at)
    return False


def _settle(event: DeliveryEvent, now: datetime, outcome: str) -> None:
    event.processed_at, event.outcome = now, outcome[:255]
    event.save(update_fields=["processed_at", "outcome"])


def _tells_of_the_past(event: DeliveryEvent) -> bool:
    """Whether something later is known already of what became of the mail."""
    telling = [Kind.DELIVERED, Kind.BOUNCED, Kind.REJECTED, Kind.FAILED, Kind.COMPLAINED]
    known = DeliveryEvent.objects.filter(delivery=event.delivery, processed_at__isnull=False)
    return known.filter(kind__in=telling, occurred_at__gt=event.occurred_at).exists()


def _move(event: DeliveryEvent, delivery: Delivery, now: datetime) -> str:
    """Move the delivery to where the event says it is; says what was done, "" for nothing."""
    if event.source == SMTP:
        return ""  # our own conversation has settled it
    was = delivery.state
    _sent_after_all(event, delivery)
    target: str
    if event.kind in REFUSED:
        if event.cause == Cause.SENDER:
            later = {"sent_at": None, "not_before": now + FIRST_DELAY, "provider_id": ""}
            _moved(delivery, (State.SENT,), State.PLANNED, **later)
            return _told(was, delivery)
        policy = event.cause == Cause.POLICY or event.kind == Kind.FAILED
        target = State.FAILED if policy else State.BOUNCED
        _moved(delivery, (State.SENT, State.DELIVERED), target, error=event.detail)
    elif event.kind == Kind.DELIVERED:
        _moved(delivery, (State.SENT, State.BOUNCED), State.DELIVERED, error="")
    elif event.kind == Kind.COMPLAINED:
        states = (State.SENT, State.DELIVERED, State.BOUNCED)
        _moved(delivery, states, State.COMPLAINED)
    return _told(was, delivery)


def _sent_after_all(event: DeliveryEvent, delivery: Delivery) -> None:
    """A mail that a server speaks of has left, whatever was thought of it since."""
    if delivery.handed_over_at is None:
        return
    states: tuple[str, ...] = (State.UNKNOWN, State.PLANNED)
    if event.kind in ARRIVED:
        states = (*states, State.FAILED, State.EXPIRED, State.SUPPRESSED)
    elif event.kind not in ACCEPTED | REFUSED:
        return
    if event.occurred_at < delivery.handed_over_at - timedelta(minutes=5):
        return  # of an earlier try, which was refused for now: clocks differ, but not by so much
    _moved(delivery, states, State.SENT, sent_at=delivery.handed_over_at, not_before=None, error="")


def _moved(delivery: Delivery, sources: tuple[str, ...], target: State, **values: object) -> bool:
    if delivery.state not in sources:
        return False
    return move(delivery, delivery.state, target, **values)


def _told(was: str, delivery: Delivery) -> str:
    return f"{was} → {delivery.state}" if was != delivery.state else ""


# --- Consequences ---------------------------------------------------------------------------------


def _consequences(event: DeliveryEvent, delivery: Delivery, now: datetime) -> str:
    """What the event asks for beyond its delivery; says what was done, "" for nothing."""
    subscriber = delivery.subscriber
    match consequence_of(event.kind, event.cause):
        case Consequence.SUPPRESS:
            return _suppress(event, subscriber)
        case Consequence.UNSUBSCRIBE:
            subscriptions.unsubscribe(subscriber, way=event.source[:64])
            return "unsubscribed"
        case Consequence.COUNT_SOFT if _bounces_softly(delivery):
            note = f"{settings.SOFT_BOUNCE_LIMIT} soft bounces in a row"
            subscriptions.suppress(subscriber.address, Suppression.Reason.INVALID, note)
            return f"suppressed: {note}"
        case Consequence.PAUSE_ALL:
            # What is told late, of before somebody mended it, says nothing of now.
            if sending.ended_since(event.occurred_at).exists():
                return "refused us before sending was resumed"
            sending.pause(f"{event.source} refuses us as a sender: {event.detail[:200]}")
            return "paused all sending"
    return ""


def _suppress(event: DeliveryEvent, subscriber: Subscriber) -> str:
    complained = event.kind == Kind.COMPLAINED or event.cause == Cause.COMPLAINT
    reason = Suppression.Reason.COMPLAINT if complained else Suppression.Reason.INVALID
    subscriptions.suppress(subscriber.address, reason, f"event of {event.source}")
    if complained:
        subscriptions.unsubscribe(subscriber, way="complaint")
    return f"suppressed: {reason.label}"


def _suppress_hash(event: DeliveryEvent) -> str:
    """Suppress an address of which nothing but its hash is known."""
    trusted = event.source != MAILBOX and event.address_hash
    if not trusted or consequence_of(event.kind, event.cause) is not Consequence.SUPPRESS:
        return ""
    invalid = event.cause == Cause.INVALID
    reason = Suppression.Reason.INVALID if invalid else Suppression.Reason.COMPLAINT
    Suppression.objects.get_or_create(
        address_hash=event.address_hash,
        defaults={"reason": reason, "note": f"event of {event.source}"},
    )
    return f"suppressed: {reason.label}"


def _bounces_softly(delivery: Delivery) -> bool:
    """Whether the last deliveries to this reader, up to this one, all came back softly, over long
    enough. One that is refused by policy counts for neither, nor one that expired for any reason
    but a full mailbox."""
    limit = settings.SOFT_BOUNCE_LIMIT
    told = DeliveryEvent.objects.filter(delivery=OuterRef("pk"))
    softly = told.filter(kind__in=REFUSED, cause__in=[*SOFT, ""])
    deferred = told.filter(kind=Kind.DEFERRED, cause=Cause.MAILBOX)
    arrived = (State.SENT, State.DELIVERED, State.COMPLAINED)
    past = Delivery.objects.filter(subscriber=delivery.subscriber_id, id__lte=delivery.pk).annotate(
        soft=Q(state__in=(State.BOUNCED, State.FAILED)) & Exists(softly)
        | Q(state=State.EXPIRED) & Exists(deferred)
    )
    rows = list(
        past.filter(Q(soft=True) | Q(state__in=(*arrived, State.BOUNCED)))
        .order_by("-id")
        .values_list("soft", "handed_over_at")[:limit]
    )
    came_back = all(soft for soft, _ in rows)
    times = [at for _, at in rows if at is not None]
    if len(rows) < limit or not came_back or not times:
        return False
    return max(times) - min(times) >= timedelta(days=settings.SOFT_BOUNCE_DAYS)


def _pause_refusing(domains: set[str], now: datetime) -> None:
    """Pause those of `domains` that refused too many of a day's mails by policy, of those since
    their last pause ended."""
    refusals = DeliveryEvent.objects.filter(
        delivery=OuterRef("pk"), kind__in=REFUSED, cause=Cause.POLICY
    )
    counts = (
        Delivery.objects.filter(handed_over_at__gt=now - timedelta(days=1))
        .annotate(domain=sending.domain_expression("subscriber__address"))
        .filter(
            ~Exists(sending.ended_since(OuterRef("handed_over_at"), OuterRef("domain"))),
            domain__in=domains,
        )
        .order_by()
        .values_list("domain")
        .annotate(Count("pk"), refused=Count("pk", filter=Exists(refusals)))
    )
    for domain, number, refused in counts:
        share = 100 * refused // number
        if refused >= FEWEST_REFUSALS and share >= settings.POLICY_BOUNCE_PERCENT:
            sending.pause_domain(domain, f"It refuses {share} % of its mails by policy.")
