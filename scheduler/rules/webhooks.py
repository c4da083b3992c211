"""Rules of webhooks: secrets; tries, answers and results; order, turns and circuits."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from uuid import UUID

from scheduler.domain.webhook import (
    Delivery,
    DeliveryState,
    DisabledCause,
    ErrorKind,
    EventType,
    Outcome,
    WebhookAnswer,
)

# --- Rotation of a webhook's secret: the old one signs with the new one for a day


OVERLAP = timedelta(hours=24)
"""Time in which a partner replaces the secret in its receiver. Both signatures are sent meanwhile."""


@dataclass(frozen=True, kw_only=True)
class EndpointSecrets:
    """The secrets of an endpoint, as they are stored (encrypted)."""

    secret: bytes = field(repr=False)
    old_secret: bytes | None = field(default=None, repr=False)
    old_secret_until: datetime | None = None


def rotated(secrets: EndpointSecrets, new: bytes, now: datetime) -> EndpointSecrets:
    """Compute the secrets after a rotation. A secret that was old before ends at once, because two sign at most."""
    return EndpointSecrets(secret=new, old_secret=secrets.secret, old_secret_until=now + OVERLAP)


def signing(secrets: EndpointSecrets, now: datetime) -> tuple[bytes, ...]:
    """List the secrets that sign now, the current one first."""
    if secrets.old_secret is None or secrets.old_secret_until is None or now >= secrets.old_secret_until:
        return (secrets.secret,)
    return (secrets.secret, secrets.old_secret)


# --- Answers of webhook receivers: delivered, failed or gone, and when to try again at the earliest


LONGEST_RETRY_AFTER = timedelta(days=1)
"""A receiver cannot delay a delivery beyond this, or it would never fail."""

_SUCCESS = range(200, 300)
_REDIRECTS = range(300, 400)
_GONE = 410
_THROTTLED = frozenset({429, 503})
_MOST_DIGITS = 9


def answer_of(status: int, retry_after: str | None, now: datetime, milliseconds: int = 0) -> WebhookAnswer:
    """Classify an HTTP answer. Only 2xx is success: a redirect may be forged by a proxy, and is never followed."""
    kind = _error_kind(status)
    if kind is None:
        return WebhookAnswer(outcome=Outcome.DELIVERED, status=status, milliseconds=milliseconds)
    return WebhookAnswer(
        outcome=Outcome.GONE if kind is ErrorKind.GONE else Outcome.FAILED,
        status=status,
        error_kind=kind,
        retry_after=delay_of(retry_after, now) if kind is ErrorKind.THROTTLED else None,
        milliseconds=milliseconds,
    )


def no_answer(kind: ErrorKind, milliseconds: int = 0) -> WebhookAnswer:
    """Build the outcome of a request that got no answer."""
    return WebhookAnswer(outcome=Outcome.FAILED, error_kind=kind, milliseconds=milliseconds)


def delay_of(retry_after: str | None, now: datetime) -> timedelta | None:
    """Read the delay that a Retry-After header asks for (seconds or a date), between zero and a day.

    None if the header is missing or unreadable. `now` is the machine's time, as the receiver's date is.
    """
    text = "" if retry_after is None else retry_after.strip()
    if text.isascii() and text.isdecimal():
        if len(text.lstrip("0")) > _MOST_DIGITS:
            return LONGEST_RETRY_AFTER
        return min(timedelta(seconds=int(text)), LONGEST_RETRY_AFTER)
    try:
        at = parsedate_to_datetime(text)
        # A date without a zone is GMT, as every date in HTTP.
        asked = (at.replace(tzinfo=UTC) if at.tzinfo is None else at) - now
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    return min(max(asked, timedelta(0)), LONGEST_RETRY_AFTER)


def _error_kind(status: int) -> ErrorKind | None:
    if status in _SUCCESS:
        return None
    if status in _REDIRECTS:
        return ErrorKind.REDIRECT
    if status == _GONE:  # guard: hook_gone
        return ErrorKind.GONE
    return ErrorKind.THROTTLED if status in _THROTTLED else ErrorKind.HTTP_ERROR


# --- Times of the tries to deliver a message: ten in about three days, so that a receiver can be down over a weekend


DEADLINE_S = 15.0
"""Time for the answer of a receiver, from the first byte to the last."""
DELAYS = (
    timedelta(0),
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    *(timedelta(hours=hours) for hours in (2, 5, 10, 14, 20, 24)),
)
"""The wait before each try, counted from the end of the try before it. The first one is sent at once."""
MOST_TRIES = len(DELAYS)
MOST_KEPT = 3 * MOST_TRIES
"""The newest tries of a delivery that are kept and shown. Each replay has tries of its own."""
JITTER = 0.1
"""Each wait is longer or shorter by up to this part, so that messages that failed together do not return together."""
LONGEST_WAIT = max(DELAYS[-1] * (1 + JITTER), LONGEST_RETRY_AFTER)
"""The longest wait between two tries."""


def try_again_at(tries: int, now: datetime, *, jitter: float, retry_after: timedelta | None = None) -> datetime | None:
    """Compute the time of the next try after `tries` failed ones (at least 1). None: the delivery has failed.

    `jitter` is a random number from -1 to 1. The receiver's `retry_after` can delay the try, and never hasten it:
    otherwise a receiver could use up all tries within seconds.
    """
    if tries >= MOST_TRIES:
        return None
    return now + max(DELAYS[tries] * (1 + JITTER * jitter), retry_after or timedelta(0))


# --- The circuit of an endpoint: ten failures in a row leave it one probe a minute, five days of failures disable it


OPENS_AFTER = 10
"""Consecutive failures, over all messages of the endpoint."""
PROBE_EVERY = timedelta(minutes=1)
DISABLED_AFTER = timedelta(days=5)


@dataclass(frozen=True, kw_only=True)
class Circuit:
    """The recent answers of an endpoint. Replays are not among them."""

    consecutive_failures: int = 0
    failing_since: datetime | None = None
    """The first of the consecutive failures."""
    circuit_opened_at: datetime | None = None
    probe_at: datetime | None = None
    """The time of the next probe. None while the circuit is closed."""
    disabled_at: datetime | None = None
    disabled_cause: DisabledCause | None = None

    @property
    def is_open(self) -> bool:
        return self.circuit_opened_at is not None

    def may_send(self, now: datetime) -> bool:
        """Return whether a message may be sent now. With an open circuit only one, see `while_probed`."""
        if self.disabled_at is not None:
            return False
        if self.probe_at is None:
            return True
        # A wait beyond the maximum began on a clock that has been set back since.
        return now >= self.probe_at or now < self.probe_at - PROBE_EVERY


def while_probed(circuit: Circuit, now: datetime) -> Circuit:
    """Compute the circuit when a message is taken to be sent. The next one may be sent a minute later if it is open.

    It is stored before the message is sent, so that one of several workers probes, and a crash of that worker blocks
    none.
    """
    return replace(circuit, probe_at=now + PROBE_EVERY) if circuit.is_open else circuit


def after_success(circuit: Circuit) -> Circuit:
    """Compute the circuit after a delivery. A late answer does not enable a webhook again: its partner does."""
    return Circuit(disabled_at=circuit.disabled_at, disabled_cause=circuit.disabled_cause)


def after_failure(circuit: Circuit, now: datetime) -> Circuit:
    """Compute the circuit after a failed try."""
    if circuit.disabled_at is not None:
        return circuit
    failures = circuit.consecutive_failures + 1
    failing_since = now if circuit.failing_since is None else min(circuit.failing_since, now)
    failing = replace(circuit, consecutive_failures=failures, failing_since=failing_since)
    if failures < OPENS_AFTER:
        # Also after five days: a few failures of a webhook with few messages say little about it.
        return failing
    if now - failing_since >= DISABLED_AFTER:
        return _disabled(failing, DisabledCause.FAILING, now)
    if circuit.is_open:
        # The next probe was set when this one was taken. Answers to messages sent before the opening do not delay it.
        return failing
    return replace(failing, circuit_opened_at=now, probe_at=now + PROBE_EVERY)


def after_gone(circuit: Circuit, now: datetime) -> Circuit:
    """Compute the circuit after a 410."""
    return circuit if circuit.disabled_at is not None else _disabled(circuit, DisabledCause.GONE, now)


def reset() -> Circuit:
    """Reset the circuit: closed, enabled, without failures."""
    return Circuit()


def _disabled(circuit: Circuit, cause: DisabledCause, now: datetime) -> Circuit:
    return replace(circuit, disabled_at=now, disabled_cause=cause)


# --- Results of tries: the state of a delivery and of its webhook after the answer of a receiver


NOT_SENT_AGAIN_AFTER = timedelta(minutes=5)
"""The wait of a message that this installation could not send. It is no try, because the receiver has no part in it."""


def delivery_after(delivery: Delivery, answer: WebhookAnswer, now: datetime, *, jitter: float) -> Delivery:
    """Compute the delivery after a try. A test is not tried again: its result is what the partner asked for.

    Also after a 410 it waits for its next try: a partner that enables the webhook again gets the message.
    """
    tried = replace(delivery, tries=delivery.tries + 1)
    if answer.outcome is Outcome.DELIVERED:
        return replace(tried, state=DeliveryState.DELIVERED)
    again_at = None
    if delivery.type is not EventType.PING:
        again_at = try_again_at(tried.tries, now, jitter=jitter, retry_after=answer.retry_after)
    failed = replace(tried, first_failed_at=delivery.first_failed_at or now)
    if again_at is None:
        return replace(failed, state=DeliveryState.FAILED)
    return replace(failed, send_at=again_at)


def not_sent(delivery: Delivery, now: datetime) -> Delivery:
    """Put off a delivery that was claimed and not sent."""
    return replace(delivery, send_at=now + NOT_SENT_AGAIN_AFTER)


def circuit_after(circuit: Circuit, delivery: Delivery, answer: WebhookAnswer, now: datetime) -> Circuit:
    """Compute the circuit of the webhook after a try."""
    if delivery.is_apart:  # guard: replay_circuit
        return circuit
    match answer.outcome:
        case Outcome.DELIVERED:
            return after_success(circuit)
        case Outcome.GONE:
            return after_gone(circuit, now)
        case Outcome.FAILED:
            return after_failure(circuit, now)


# --- Order of deliveries: those of one webhook and interview are sent by their sequence, others never wait
# An event waits for each earlier one until that is delivered or has failed for a minute. Without this limit a receiver
# that refuses one event would get no other of its interview for three days.


WAITS_AT_MOST = timedelta(seconds=60)


@dataclass(frozen=True, kw_only=True)
class QueuedDelivery:
    """A delivery of one webhook and interview, as far as the order of sending depends on it."""

    sequence: int
    is_waiting: bool = True
    """False once it was delivered, has failed or was dropped."""
    first_failed_at: datetime | None = None
    send_at: datetime
    lease_until: datetime | None = None
    """Another worker may be sending it until then."""
    is_replay: bool = False
    """A replay neither waits nor is waited for: its receiver had later events before."""


def sendable(deliveries: Sequence[QueuedDelivery], now: datetime) -> list[QueuedDelivery]:
    """List the deliveries of one webhook and interview that may be sent now, by sequence."""
    return sorted(
        (each for each in deliveries if _is_due(each, now) and blocked_until(each, deliveries, now) is None),
        key=lambda each: each.sequence,
    )


def blocked_until(delivery: QueuedDelivery, deliveries: Sequence[QueuedDelivery], now: datetime) -> datetime | None:
    """Compute when earlier deliveries stop blocking this one at the latest, as far as is known now.

    None: none blocks it. `datetime.max` in UTC: an earlier one has not failed yet, so there is no such time.
    """
    if delivery.is_replay:
        return None
    blocking = [_blocks_until(each) for each in deliveries if each.sequence < delivery.sequence]
    return max((until for until in blocking if until > now), default=None)


def _is_due(delivery: QueuedDelivery, now: datetime) -> bool:
    is_leased = delivery.lease_until is not None and delivery.lease_until > now
    return delivery.is_waiting and delivery.send_at <= now and not is_leased


def _blocks_until(delivery: QueuedDelivery) -> datetime:
    if not delivery.is_waiting or delivery.is_replay:
        return _NEVER_BLOCKS
    return _NO_END if delivery.first_failed_at is None else delivery.first_failed_at + WAITS_AT_MOST


_NEVER_BLOCKS = datetime.min.replace(tzinfo=UTC)
_NO_END = datetime.max.replace(tzinfo=UTC)


# --- Turns of webhooks: which of them may have a message sent now, so that a dead or slow one delays no other
# Each webhook has few messages in flight in the whole installation, and a failing one has a single one. Webhooks whose
# last answer was late share half of a process's threads, however many they are: the other half is never waiting for
# them. The endpoints of one owner also use at most half of the threads, slow or not.


MOST_IN_FLIGHT = 4
"""Messages of one webhook that are sent at the same time, by all processes together."""
SLOW_AFTER = timedelta(seconds=2)
"""A webhook whose last answer took longer is slow."""
_PART = 2
"""Slow webhooks together, and the webhooks of one owner, use one thread of this many."""


@dataclass(frozen=True, kw_only=True)
class WaitingEndpoint:
    """A webhook with messages that may be sent now, in the order of their claims: the last served come last."""

    id: UUID
    owner: UUID
    """The principal to which the webhook belongs."""
    in_flight: int
    sendable: int
    is_failing: bool = False
    is_slow: bool = False


@dataclass(frozen=True, kw_only=True)
class Room:
    """The threads of a process that may take a message now."""

    free: int
    free_for_slow: int
    """Free threads that may take a message of a slow endpoint."""
    most_of_an_owner: int
    """Threads that send for one owner at the same time, including the threads of `held`."""
    held: Mapping[UUID, int] = field(default_factory=dict)
    """Threads that are sending, by owner."""

    @property
    def full_owners(self) -> list[UUID]:
        """List the owners of which no message may be taken now."""
        return [owner for owner, count in self.held.items() if count >= self.most_of_an_owner]


def room(threads: int, sending: Sequence[tuple[UUID, bool]], unrecorded: int) -> Room:
    """Compute the room of a process. `sending` has the owner of each message in flight, and if its endpoint is slow.

    Results that are not recorded yet also take threads: without a database, messages are not sent again and again.
    """
    free = max(0, threads - len(sending) - unrecorded)
    part = max(1, threads // _PART)
    slow = sum(is_slow for _, is_slow in sending)
    return Room(
        free=free,
        free_for_slow=max(0, min(free, part - slow)),
        most_of_an_owner=part,
        held=Counter(owner for owner, _ in sending),
    )


def most_in_flight(*, is_failing: bool) -> int:
    return 1 if is_failing else MOST_IN_FLIGHT


def places(endpoints: Sequence[WaitingEndpoint], room: Room) -> dict[UUID, int]:
    """Decide how many messages of each webhook are taken.

    The webhook with the fewest messages in flight comes first. Among equals, the one that was served longest ago.
    """
    taken = dict.fromkeys((each.id for each in endpoints), 0)
    free, free_for_slow, held = room.free, room.free_for_slow, Counter(room.held)
    while free > 0:
        able = [
            each
            for each in endpoints
            if _may_take(each, taken[each.id])
            and (free_for_slow > 0 or not each.is_slow)
            and held[each.owner] < room.most_of_an_owner
        ]
        if not able:
            break
        chosen = min(able, key=lambda each: each.in_flight + taken[each.id])
        taken[chosen.id] += 1
        held[chosen.owner] += 1
        free -= 1
        free_for_slow -= chosen.is_slow
    return {endpoint: count for endpoint, count in taken.items() if count}


def _may_take(endpoint: WaitingEndpoint, taken: int) -> bool:
    room = most_in_flight(is_failing=endpoint.is_failing) - endpoint.in_flight
    return taken < min(room, endpoint.sendable)
