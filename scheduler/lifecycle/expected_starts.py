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
from scheduler.lifecycle.forecast import CompanyQueue, DueCalls, forecast
from scheduler.lifecycle.start_rates import Limits

MOST_OPENINGS = 40
"""Each forecast ends at one opening of each clock. No call waits for more of them than this."""

NextOpening = Callable[[CalleeClock | None, datetime], tuple[datetime, datetime | None] | None]
"""Returns the start of the next opening after an instant and the last start in it, or None without an opening."""


@dataclass(frozen=True, kw_only=True)
class WaitingCalls:
    """Calls of the company that wait for the same instants."""

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
class ExpectedStarts:
    """The starts of the new calls."""

    last_start_at: datetime | None
    """None if none of them starts."""
    expired: int
    """New calls that expire before they could start."""


def expected_starts(
    company_id: UUID,
    limits: Limits,
    waiting: Sequence[WaitingCalls],
    others: Sequence[CompanyQueue],
    account: Limits,
    now: datetime,
    next_opening: NextOpening,
    *,
    call_lasts: timedelta | None = None,
) -> ExpectedStarts:
    """Return when the new ones among the company's waiting calls start. `others` are the queues of other companies."""
    expired = 0
    last_start_at: datetime | None = None
    for _ in range(MOST_OPENINGS):
        waiting = list(_before_the_last_new(waiting))
        queue = CompanyQueue(company_id=company_id, limits=limits, due=[each.due for each in waiting])
        found = forecast([queue, *others], account, now, call_lasts=call_lasts)
        past = {last_start: round(calls) for last_start, calls in found.past[company_id].items() if round(calls)}
        last_start_at = found.companies[company_id].last_start_at
        if not past:
            break
        waiting, lost = _moved(waiting, past, next_opening)
        expired += lost
    if not any(each.is_new for each in waiting):
        return ExpectedStarts(last_start_at=None, expired=expired)
    return ExpectedStarts(last_start_at=last_start_at, expired=expired)


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
) -> tuple[list[WaitingCalls], int]:
    """Let as many calls of each last start become due at the next opening: those that became due last.

    Returns also the number of new calls that expire before.
    """
    by_last_start: dict[datetime | None, list[WaitingCalls]] = defaultdict(list)
    for each in waiting:
        by_last_start[each.due.last_start].append(each)
    kept = by_last_start.pop(None, [])
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
            kept.append(replace(each, due=DueCalls(at=opening[0], calls=each.due.calls, last_start=opening[1])))
    return kept, expired


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
