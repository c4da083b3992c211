"""How many calls may start now, and when each: the account's pace and room, and each company's."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from scheduler.lifecycle import bounds
from scheduler.lifecycle.policy import AT_MOST_A_TRANSACTION, RECORD_SPAN

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Calls started a second, and calls at once, of an account or a company."""

    next_slot_at: datetime
    per_second: float
    room: int
    """How many more calls may be in progress."""

    def of_this_clock(self, now: datetime) -> "Pace":
        """Return the same, unless its slot was taken on a wrong clock: then it is free now."""
        latest = bounds.latest_slot(now, self.per_second)
        return self if self.next_slot_at <= latest else replace(self, next_slot_at=now)

    def taken(self, send_at: datetime) -> "Pace":
        """What is left after a call that starts at `send_at`."""
        step = timedelta(seconds=1 / self.per_second)
        return replace(self, next_slot_at=send_at + step, room=self.room - 1)


@dataclass(frozen=True, kw_only=True)
class Place:
    """One attempt may start at `send_at`."""

    attempt_id: UUID
    send_at: datetime


@dataclass(frozen=True, kw_only=True)
class Allotment:
    places: tuple[Place, ...]
    account: Pace
    companies: Mapping[UUID, Pace]
    try_again_at: datetime | None
    """When the first attempt without a place may have one; None when all have one, or only an end makes room."""


def allot(
    attempts: Sequence[tuple[UUID, UUID]],
    account: Pace,
    companies: Mapping[UUID, Pace],
    now: datetime,
    within: timedelta,
) -> Allotment:
    """Give (attempt, company) pairs their places, in their order; each starts before `now + within`.

    A company without room or pace does not hold up the others behind it.
    """
    places: list[Place] = []
    account = account.of_this_clock(now)
    paces = {company_id: pace.of_this_clock(now) for company_id, pace in companies.items()}
    later: list[datetime] = []
    for attempt_id, company_id in attempts:
        company = paces.get(company_id)
        if (
            company is None
            or company.room <= 0  # guard: company_room
            or account.room <= 0  # guard: account_room
        ):
            continue
        send_at = max(
            now,
            account.next_slot_at,  # guard: account_pace
            company.next_slot_at,  # guard: company_pace
        )
        if send_at >= now + within:
            later.append(send_at - within)
            continue
        places.append(Place(attempt_id=attempt_id, send_at=send_at))
        account = account.taken(send_at)
        paces[company_id] = company.taken(send_at)
    return Allotment(places=tuple(places), account=account, companies=paces, try_again_at=min(later) if later else None)


_FEW = 20
"""So many are claimed when nothing is known yet, or after a rest: less than a second's at a usual pace."""
_SECOND = 1.0


class SendRate:
    """How many calls this machine can send, measured by what it did send. Instants are seconds on the monotonic clock.

    A claim that is sized by the pace alone fills leases with calls that a slow machine cannot send before they end.
    """

    def __init__(self) -> None:
        self._sent: deque[float] = deque()
        self._late_at: float | None = None
        self._few = _FEW

    def sent(self, instant: float) -> None:
        self._sent.append(instant)
        self._few = min(self._few + 1, _FEW)

    def fell_behind(self, instant: float) -> None:
        """A claimed call could not be sent in time, or a claim took too long. Each one halves what is tried next."""
        self._late_at = instant
        self._few = max(1, self._few // 2)

    def may_claim(self, instant: float, held: int) -> int:
        """How many more may be claimed while `held` are claimed and not yet sent, or sent and not yet recorded.

        Twice of what was sent within the last second, or half of it after the machine fell behind. Few at a time are
        not claimed at all before half of the earlier ones are done: each claim is a transaction.
        """
        while self._sent and self._sent[0] <= instant - _SECOND:
            self._sent.popleft()
        recent = len(self._sent)
        is_behind = self._late_at is not None and instant - self._late_at < _SECOND
        size = max(1, recent // 2) if is_behind else max(self._few, 2 * recent)
        size = min(size, AT_MOST_A_TRANSACTION)
        free = size - held
        return free if 2 * free >= size else 0


class RecordSize:
    """How many answers are recorded in one transaction, by what the last transactions took."""

    def __init__(self) -> None:
        self.size = 20

    def took(self, count: int, seconds: float) -> None:
        """Fit the next one into `RECORD_SPAN`, growing no faster than twofold."""
        fitting = RECORD_SPAN.total_seconds() / max(seconds / count, 0.001)
        self.size = max(1, min(int(fitting), 2 * self.size, AT_MOST_A_TRANSACTION))


def in_step(send_at: Sequence[datetime], now: datetime) -> list[datetime]:
    """Move the instants of one claim together so that none is over, as far apart from each other as before.

    Sent all at once because the claim took long, they would all be used up before the first answer shows that the
    carrier is down.
    """
    late = max(now - min(send_at), timedelta(0)) if send_at else timedelta(0)
    return [each + late for each in send_at]


def in_turns(due: Iterable[T], attempt_of: Callable[[T], Any] = lambda each: each) -> list[T]:
    """Put due attempts in the order in which they are dialled: each company's first, then each company's second, ...

    One company's thousands do not stand before another's one. Within a company manual attempts (invokes) go first,
    then the one that has been due for longest. `attempt_of` gives what has `manual`, `company_id`, `due_at` and `id`.
    """

    def own_order(each: T) -> tuple[bool, Any, Any]:
        attempt = attempt_of(each)
        return not attempt.manual, attempt.due_at, attempt.id

    turns: Counter[UUID] = Counter()
    order = []
    for each in sorted(due, key=own_order):
        attempt = attempt_of(each)
        order.append(((turns[attempt.company_id], attempt.due_at, attempt.id), each))
        turns[attempt.company_id] += 1
    return [each for _, each in sorted(order, key=lambda pair: pair[0])]
