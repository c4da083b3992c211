"""Capacity: how many calls may start now, and when, by the pace and limits of the account and of each company."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from math import ceil
from operator import itemgetter
from typing import Protocol, TypeVar
from uuid import UUID

from scheduler.lifecycle.policy import AT_MOST_A_TRANSACTION, LOOKS_TOGETHER, RECORD_SPAN, latest_slot


class _Due(Protocol):
    """The attributes that decide an attempt's turn."""

    @property
    def id(self) -> UUID: ...
    @property
    def company_id(self) -> UUID: ...
    @property
    def manual(self) -> bool: ...
    @property
    def due_at(self) -> datetime: ...


DueT = TypeVar("DueT", bound=_Due)


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Calls per second and concurrent calls of an account or a company."""

    next_slot_at: datetime
    per_second: float
    room: int
    """How many more calls may be in progress."""
    calls: int = 0
    """The calls of a company that are in progress. Only known for companies."""

    @property
    def last_start_at(self) -> datetime:
        return self.next_slot_at - timedelta(seconds=1 / self.per_second)

    def of_this_clock(self, now: datetime) -> "Pace":
        """Bound the pace: its next slot becomes `now` if a wrong clock had reserved it too far ahead."""
        latest = latest_slot(now, self.per_second)
        return self if self.next_slot_at <= latest else replace(self, next_slot_at=now)

    def places(self, now: datetime, within: timedelta) -> int:
        """Count how many calls may start before `now + within`."""
        free = now + within - max(now, self.of_this_clock(now).next_slot_at)
        return max(0, min(self.room, ceil(free.total_seconds() * self.per_second)))

    def taken(self, send_at: datetime) -> "Pace":
        """Compute the pace after a call that starts at `send_at`."""
        step = timedelta(seconds=1 / self.per_second)
        return replace(self, next_slot_at=send_at + step, room=self.room - 1, calls=self.calls + 1)


KEPT_SHARE = 10
"""One place of so many is kept for companies without a call in progress."""


def kept_places(max_calls: int) -> int:
    """Compute how many of the account's places only companies without a call in progress may take. At least one.

    An account with a single place still calls: while that place is free, no company has a call in progress.
    """
    return max(1, max_calls // KEPT_SHARE)


def leaves_kept_places(calls: int, room: int, kept: int) -> bool:
    """Return True if a company with so many `calls` may take a place while the account has `room` for more calls."""
    return calls == 0 or room > kept


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
    """The time at which an attempt without a place may get one. None if all have one, or if a call must end first."""


def allot(
    attempts: Sequence[tuple[UUID, UUID]],
    account: Pace,
    companies: Mapping[UUID, Pace],
    now: datetime,
    within: timedelta,
    kept: int = 0,
) -> Allotment:
    """Assign places to (attempt, company) pairs. Each starts before `now + within`.

    Each place of the account is for the company that may start a call then, and whose last call started longest ago:
    to the first of its attempts. A claim of a single place would otherwise always serve the company that is due
    earliest. No place waits for the next slot of a slower company. The last `kept` places of the account's room go to
    companies without a call in progress.
    """
    places: list[Place] = []
    account = account.of_this_clock(now)
    paces = {company_id: pace.of_this_clock(now) for company_id, pace in companies.items()}
    waiting = _Waiting(attempts, paces)
    try_again_at = None
    while (
        (company_id := waiting.next(max(now, account.next_slot_at))) is not None
        and account.room > 0  # guard: account_room
    ):
        if not leaves_kept_places(paces[company_id].calls, account.room, kept):  # guard: kept_places
            waiting.take()
            paces[company_id] = replace(paces[company_id], room=0)  # until a call of the account ends
            continue
        send_at = max(
            now,
            account.next_slot_at,  # guard: account_pace
            paces[company_id].next_slot_at,  # guard: company_pace
        )
        if send_at >= now + within:
            try_again_at = send_at - within
            break
        places.append(Place(attempt_id=waiting.take(), send_at=send_at))
        account = account.taken(send_at)
        paces[company_id] = paces[company_id].taken(send_at)
        waiting.rest(company_id)
    return Allotment(places=tuple(places), account=account, companies=paces, try_again_at=try_again_at)


class _Waiting:
    """The companies whose attempts wait for a place. `paces` are theirs, and the caller replaces them."""

    def __init__(self, attempts: Iterable[tuple[UUID, UUID]], paces: Mapping[UUID, Pace]) -> None:
        self._paces = paces
        self._attempts: dict[UUID, deque[UUID]] = {}
        for attempt_id, company_id in attempts:
            self._attempts.setdefault(company_id, deque()).append(attempt_id)
        self._positions = {company_id: position for position, company_id in enumerate(self._attempts)}
        # Heaps: a claim may have 200 attempts of as many companies, which would be compared for each place.
        self._resting: list[tuple[datetime, datetime, int, UUID]] = []
        """Their next slot, their last start, their position."""
        self._ready: list[tuple[datetime, int, UUID]] = []
        for company_id in self._attempts:
            self.rest(company_id)

    def rest(self, company_id: UUID) -> None:
        """Let a company wait for its next slot, if it has an attempt left and may start another call."""
        pace = self._paces.get(company_id)
        if (
            pace is None
            or pace.room <= 0  # guard: company_room
            or not self._attempts[company_id]
        ):
            return
        heappush(self._resting, (pace.next_slot_at, pace.last_start_at, self._positions[company_id], company_id))

    def next(self, opens_at: datetime) -> UUID | None:
        """Choose the company that starts the next call of an account whose next slot is at `opens_at`.

        If companies may start one then, it is the one whose last call started longest ago, otherwise the one with the
        next slot.
        """
        while self._resting and self._resting[0][0] <= opens_at:
            _, last_start_at, position, company_id = heappop(self._resting)
            heappush(self._ready, (last_start_at, position, company_id))
        if self._ready:
            return self._ready[0][-1]
        return self._resting[0][-1] if self._resting else None

    def take(self) -> UUID:
        """Remove the company that `next` has returned, and return its first attempt."""
        company_id = heappop(self._ready)[-1] if self._ready else heappop(self._resting)[-1]
        return self._attempts[company_id].popleft()


_FEW = 20
"""The size of the first claim, also after idle time: less than one second of calls at the usual pace."""
_SECOND = 1.0


class SendRate:
    """The number of calls that this machine can send, as measured. Instants are seconds on the monotonic clock.

    With claims sized only by the pace, a slow machine would hold leases that end before it can send their calls.
    """

    def __init__(self) -> None:
        self._sent: deque[float] = deque()
        self._late_at: float | None = None
        self._few = _FEW

    def sent(self, instant: float) -> None:
        self._sent.append(instant)
        self._few = min(self._few + 1, _FEW)

    def fell_behind(self, instant: float) -> None:
        """Halve the next claim, because a claimed call could not be sent in time, or a claim took too long."""
        self._late_at = instant
        self._few = max(1, self._few // 2)

    def may_claim(self, instant: float, held: int) -> int:
        """Compute how many more may be claimed while `held` are claimed but unsent, or sent but unrecorded.

        The total is twice the calls sent within the last second, or half of them after the machine fell behind. Nothing
        is claimed while more than half of that total is held, because each claim costs a transaction. The total may be
        two transactions' worth, so that the next claim is made while the calls of the last one are sent.
        """
        while self._sent and self._sent[0] <= instant - _SECOND:
            self._sent.popleft()
        recent = len(self._sent)
        is_behind = self._late_at is not None and instant - self._late_at < _SECOND
        size = max(1, recent // 2) if is_behind else max(self._few, 2 * recent)
        size = min(size, 2 * AT_MOST_A_TRANSACTION)
        free = size - held
        return min(free, AT_MOST_A_TRANSACTION) if 2 * free >= size else 0


class RecordSize:
    """The number of answers recorded in one transaction, adapted to the duration of the last transaction."""

    def __init__(self) -> None:
        self.size = 20

    def took(self, count: int, seconds: float) -> None:
        """Fit the next transaction into `RECORD_SPAN`, at most doubling its size."""
        fitting = RECORD_SPAN.total_seconds() / max(seconds / count, 0.001)
        self.size = max(1, min(int(fitting), 2 * self.size, AT_MOST_A_TRANSACTION))


def in_step(send_at: Sequence[datetime], now: datetime) -> list[datetime]:
    """Shift the instants of one claim by the same span so that none has passed.

    If a slow claim sent all its calls at the same time, they would all be lost before the first answer shows that the
    carrier is down.
    """
    late = max(now - min(send_at), timedelta(0)) if send_at else timedelta(0)
    return [each + late for each in send_at]


class LateSlots:
    """The slots behind calls that came too late for their own, so that `in_step` shifts them.

    The rows have the slots that would follow without the shift: it is known only after the commit. With these, the next
    claim of this process would start its calls too soon. Slots are never moved to an earlier instant.
    """

    def __init__(self) -> None:
        self._slots: dict[UUID | None, datetime] = {}
        """By company. None: of the account."""

    def note(self, send_at: Sequence[datetime], account: Pace, companies: Mapping[UUID, Pace], now: datetime) -> None:
        """Note the slots behind the calls of a claim that was committed `now`, with the paces that it left."""
        if send_at and (late := now - min(send_at)) > timedelta(0):
            paces: list[tuple[UUID | None, Pace]] = [(None, account), *companies.items()]
            shifted = {of: pace.next_slot_at + late for of, pace in paces}
            self._slots = {of: at for of, at in (self._slots | shifted).items() if at > now}

    def behind(self, of: UUID | None, pace: Pace, now: datetime) -> Pace:
        """Move the next slot of a pace behind the calls that were shifted."""
        moved = replace(pace, next_slot_at=max(pace.next_slot_at, self._slots.get(of, pace.next_slot_at)))
        return moved if moved == moved.of_this_clock(now) else pace


def look_waits(send_at: Sequence[datetime], now: datetime) -> list[timedelta]:
    """Compute how long from now the calls of one claim wait with their last looks: those of 25 ms look together.

    No look is made after its call could be sent, and none so early that it would not be valid any longer.
    """
    return [max(each - now, timedelta(0)) // LOOKS_TOGETHER * LOOKS_TOGETHER for each in send_at]


def in_turns(due: Iterable[DueT], last_start_of: Callable[[UUID], float] = lambda _: 0.0) -> list[DueT]:
    """Sort due attempts in dialling order: first the first attempt of each company, then the second of each, ...

    A company's thousand attempts do not delay another company's only one. In each turn the company whose last call
    started longest ago goes first, if that is known. Within a company manual attempts (invokes) go first, then the
    earliest due.
    """
    # By the numbers of the ids: UUIDs themselves compare several times as slowly.
    turns: dict[UUID, Iterator[int]] = defaultdict(count)
    in_own_order = sorted(due, key=lambda each: (not each.manual, each.due_at, each.id.int))
    order = [
        ((next(turns[each.company_id]), last_start_of(each.company_id), each.due_at, each.id.int), each)
        for each in in_own_order
    ]
    return [each for _, each in sorted(order, key=itemgetter(0))]
