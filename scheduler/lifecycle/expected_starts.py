"""Expected starts: when the last of some new calls starts, if they wait beside those that wait already.

A forecast knows one closing of each call. Here a call that would start too late becomes due again at the next opening,
and the forecast is repeated, until each call has started or expired.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from operator import attrgetter
from uuid import UUID

from scheduler.domain.schedule import CalleeClock
from scheduler.lifecycle.forecast import CompanyQueue, DueCalls, Forecast, forecast
from scheduler.lifecycle.start_rates import Limits
from scheduler.lifecycle.starts_by_call import are_few, starts_by_call

MOST_OPENINGS = 40
"""Each forecast ends at one opening of each clock. No call waits for more of them than this."""

NextOpening = Callable[[CalleeClock | None, datetime], tuple[datetime, datetime | None] | None]
"""Returns the start of the next opening after an instant and the last start in it, or None without an opening."""


@dataclass(frozen=True, kw_only=True)
class WaitingCalls:
    """Calls of one company that wait for the same instants."""

    due: DueCalls
    clock: CalleeClock | None
    """None: unknown. Then they are never too late."""
    expires_at: datetime
    is_new: bool = False

    @property
    def ends(self) -> datetime:
        """The due time of the last of them."""
        return self.due.at + self.due.over


@dataclass(frozen=True, kw_only=True)
class WaitingQueue:
    """The calls of one company."""

    company_id: UUID
    limits: Limits
    waiting: Sequence[WaitingCalls]
    next_opening: NextOpening

    @property
    def as_due(self) -> CompanyQueue:
        return CompanyQueue(company_id=self.company_id, limits=self.limits, due=[each.due for each in self.waiting])


@dataclass(frozen=True, kw_only=True)
class ExpectedStarts:
    """The starts of the new calls."""

    last_start_at: datetime | None
    """None if none of them starts."""
    expired: int
    """New calls that expire before they could start."""


def expected_starts(
    own: WaitingQueue,
    others: Sequence[WaitingQueue],
    account: Limits,
    now: datetime,
    *,
    call_lasts: timedelta | None = None,
    durations: Sequence[timedelta] = (),
) -> ExpectedStarts:
    """Return when the new ones among a company's own calls start, beside those of other companies.

    `call_lasts` is the mean of `durations`. Both are those of `forecast` and of `starts_by_call`, which is used while
    the calls are few.
    """
    expired = 0
    last_start_at: datetime | None = None
    for _ in range(MOST_OPENINGS):
        own = replace(own, waiting=list(_before_the_last_new(own.waiting)))
        queues = [each.as_due for each in (own, *others)]
        if are_few(queues):
            found = starts_by_call(queues, account, now, durations=durations)
        else:
            found = forecast(queues, account, now, call_lasts=call_lasts)
        last_start_at = found.companies[own.company_id].last_start_at
        own_again = _due_again(own, found)
        others_again = [_due_again(each, found) for each in others]
        first_at = min((each.first_at for each in others_again if each.first_at is not None), default=None)
        delays = first_at is not None and last_start_at is not None and first_at < last_start_at
        if not own_again.past and not delays:
            break
        own, others = own_again.queue, [each.queue for each in others_again]
        expired += own_again.expired
    if not any(each.is_new for each in own.waiting):
        return ExpectedStarts(last_start_at=None, expired=expired)
    return ExpectedStarts(last_start_at=last_start_at, expired=expired)


@dataclass(frozen=True, kw_only=True)
class _DueAgain:
    queue: WaitingQueue
    past: bool = False
    """True if a call was past closing."""
    first_at: datetime | None = None
    """The first instant at which such calls become due again."""
    expired: int = 0
    """New calls that expire before."""


def _due_again(queue: WaitingQueue, found: Forecast) -> _DueAgain:
    """Let the calls that were past closing become due again at their next openings."""
    past = {at: round(calls) for at, calls in found.past[queue.company_id].items() if round(calls)}
    if not past:
        return _DueAgain(queue=queue)
    kept, moved, expired = _moved(queue.waiting, past, queue.next_opening)
    return _DueAgain(
        queue=replace(queue, waiting=[*kept, *moved]),
        past=True,
        first_at=min((each.due.at for each in moved), default=None),
        expired=expired,
    )


def _before_the_last_new(waiting: Sequence[WaitingCalls]) -> Iterator[WaitingCalls]:
    """Yield the calls that start before the last new one does: a company's calls start in the order of due times."""
    last_at = max((each.ends for each in waiting if each.is_new), default=None)
    for each in waiting:
        if last_at is None or each.due.at > last_at:
            continue
        if each.ends <= last_at:
            yield each
        elif calls := round(each.due.calls * ((last_at - each.due.at) / each.due.over)):
            yield replace(each, due=replace(each.due, calls=calls, over=last_at - each.due.at))


def _moved(
    waiting: Sequence[WaitingCalls], past: dict[datetime, int], next_opening: NextOpening
) -> tuple[list[WaitingCalls], list[WaitingCalls], int]:
    """Let as many calls of each last start become due at the next opening: those that became due last.

    Returns the calls that stay, those that are moved, and the number of new calls that expire before.
    """
    by_last_start: dict[datetime | None, list[WaitingCalls]] = defaultdict(list)
    for each in waiting:
        by_last_start[each.due.last_start].append(each)
    kept = by_last_start.pop(None, [])
    moved: list[WaitingCalls] = []
    expired = 0
    for last_start, calls in by_last_start.items():
        assert last_start is not None
        staying, leaving = _parted(calls, past.get(last_start, 0))
        kept += staying
        for each in leaving:
            opening = next_opening(each.clock, last_start)
            if opening is None or opening[0] >= each.expires_at:
                expired += each.due.calls if each.is_new else 0
                continue
            moved.append(replace(each, due=DueCalls(at=opening[0], calls=each.due.calls, last_start=opening[1])))
    return kept, moved, expired


def _parted(calls: Iterable[WaitingCalls], leaving: int) -> tuple[list[WaitingCalls], list[WaitingCalls]]:
    """Part calls with the same last start: those that stay, and as many as leave, of the latest due times.

    Calls of one due time start mixed, so all of them leave in proportion.
    """
    by_due: dict[datetime, list[WaitingCalls]] = defaultdict(list)
    for each in calls:
        by_due[each.ends].append(each)
    staying, left = [], []
    for ends in sorted(by_due, reverse=True):
        together = sum(each.due.calls for each in by_due[ends])
        for each in sorted(by_due[ends], key=attrgetter("is_new"), reverse=True):
            share = min(-(-each.due.calls * leaving // together), each.due.calls) if together else 0
            together, leaving = together - each.due.calls, leaving - share
            stay = each.due.calls - share
            if stay:
                part = stay / each.due.calls
                staying.append(replace(each, due=replace(each.due, calls=stay, over=each.due.over * part)))
            if share:
                left.append(replace(each, due=replace(each.due, calls=share)))
    return staying, left
