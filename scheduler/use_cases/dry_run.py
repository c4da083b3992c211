"""Dry run: decide about many requests for interviews as their workers would, and store nothing."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeAlias
from uuid import UUID

from scheduler.domain.attempt import Attempt, AttemptState
from scheduler.domain.batch import DryRun, DueHour, RefusedItems
from scheduler.domain.call import CalleeClock
from scheduler.domain.command import Command, CommandKind, CreateInterview, Refusal, refusal_of
from scheduler.domain.interview import InterviewStory
from scheduler.domain.principal import Principal
from scheduler.domain.refusals import Refused
from scheduler.ids import new_id
from scheduler.persistence.dry_run import KnownRows, without_writes
from scheduler.persistence.stores import Stores
from scheduler.use_cases.applying import NewInterviews
from scheduler.use_cases.operations.new_calls import NewCallsForecast, NewCallsForecasts
from scheduler.use_cases.shared import access
from scheduler.use_cases.shared.access import authorized_company
from scheduler.use_cases.shared.context import Context
from scheduler.use_cases.shared.turn import SharedReads, Turn
from scheduler.wire import named_fields
from scheduler.wire.named_fields import message_alone, message_of_many, named, without_numbers

ITEMS_A_TRANSACTION = 200
EXAMPLES = 100
"""The places that are returned for each kind of refusal."""
_HOUR = timedelta(hours=1)

Item: TypeAlias = CreateInterview | Refusal
"""A request, or the refusal of an unreadable one."""


class DryRuns:
    def __init__(self, context: Context) -> None:
        self._database = context.database
        self._new = NewInterviews(context.hasher, context.policy)
        self._now = context.now
        self._forecasts = NewCallsForecasts(context)

    def decide(self, principal: Principal, company_id: UUID | None, items: Sequence[Item]) -> DryRun:
        """Decide the answers that a batch of these items would get now, in their order.

        An item sees what the items before it would create. Raises AccessDenied, CompanyIdRequired, DatabaseAway.
        """
        now = self._now()
        counted = _Counts()
        with self._database.reading(principal) as stores:
            known = KnownRows(company_id=authorized_company(stores, principal, company_id))
        numbered = list(enumerate(items))
        for begins in range(0, len(items), ITEMS_A_TRANSACTION):
            with self._database.reading(principal) as stores:
                part = numbered[begins : begins + ITEMS_A_TRANSACTION]
                self._decide_some(stores, principal, known, part, now, counted)
        forecast = self._forecasts.of(principal, known.company_id, counted.due)
        return counted.dry_run(len(items), forecast)

    def _decide_some(
        self,
        stores: Stores,
        principal: Principal,
        known: KnownRows,
        items: Sequence[tuple[int, Item]],
        now: datetime,
        counted: "_Counts",
    ) -> None:
        requests = [item for _, item in items if isinstance(item, CreateInterview)]
        known.load(stores, requests)
        turn = _turn(without_writes(stores, known), principal, known, now)
        turn.company()  # it may have been deleted since the last transaction
        turn.reads.lock_named({each for request in requests for each in known.external_ids_of(request)})
        before = set(counted.numbers)
        for place, item in items:
            counted.add(place, item if isinstance(item, Refusal) else self._answer(turn, known, item))
        if new := counted.numbers.keys() - before:
            counted.called |= stores.attempt_counts.numbers_with_calls(known.company_id, new)

    def _answer(self, turn: Turn, known: KnownRows, request: CreateInterview) -> InterviewStory | Refusal | None:
        """Decide the interview that the request would create, or its refusal. None: the interview exists."""
        try:
            with named(named_fields.of_command(request)):
                if self._new.existing_id(turn, request) is not None:
                    return None
                story = self._new.decide(turn, request)
        except Refused as refused:
            known.refuse()
            return refusal_of(refused)
        turn.stores.interviews.add(story.interview, access.content_hash(request))
        known.accept()
        return story


def _turn(stores: Stores, principal: Principal, known: KnownRows, now: datetime) -> Turn:
    """Build the turn of a command that is received now."""
    command = Command(
        id=new_id(now),
        kind=CommandKind.CREATE_INTERVIEW,
        principal_id=principal.id,
        key_id=principal.key_id,
        company_id=known.company_id,
        idempotency_key=None,
        request_hash=b"",
        received_at=now,
    )
    return Turn(stores=stores, reads=SharedReads(stores), command=command, now=now)


@dataclass
class _Counts:
    """The answers so far."""

    accepted: int = 0
    existing: int = 0
    calls: int = 0
    numbers: Counter[bytes] = field(default_factory=Counter)
    """Calls by number."""
    called: set[bytes] = field(default_factory=set)
    """Numbers with a call that is pending or in progress."""
    due: Counter[tuple[datetime, datetime, CalleeClock]] = field(default_factory=Counter)
    """Calls by due time, expiry and clock."""
    refused: dict[tuple[str, str | None, str], list[int]] = field(default_factory=dict)
    """The places of refused items by code, field, and message without its numbers.

    Thousands of items at different times of a night are one group.
    """
    messages: dict[tuple[str, str | None, str], str] = field(default_factory=dict)
    """The first message of each group."""

    def add(self, place: int, answer: InterviewStory | Refusal | None) -> None:
        match answer:
            case None:
                self.existing += 1
            case Refusal():
                message = message_of_many(message_alone(answer.message, answer.details))
                key = answer.code, _field_of(answer), without_numbers(message)
                self.refused.setdefault(key, []).append(place)
                self.messages.setdefault(key, message)
            case InterviewStory():
                self.accepted += 1
                for attempt in answer.attempts:
                    self._add_call(attempt)

    def _add_call(self, attempt: Attempt) -> None:
        if attempt.state is not AttemptState.PENDING:  # a test interview places no call
            return
        assert attempt.number_hash is not None
        self.calls += 1
        self.numbers[attempt.number_hash] += 1
        self.due[attempt.due_at, attempt.expires_at, attempt.schedule.clock] += 1

    def dry_run(self, total: int, forecast: NewCallsForecast) -> DryRun:
        return DryRun(
            total=total,
            accepted=self.accepted,
            existing=self.existing,
            calls=self.calls,
            refused=tuple(self._refused()),
            repeated_numbers=self.calls - len(self.numbers),
            numbers_with_calls=sum(self.numbers[each] for each in self.called),
            due=tuple(self._hours()),
            first_due_at=min((due_at for due_at, _, _ in self.due), default=None),
            last_due_at=max((due_at for due_at, _, _ in self.due), default=None),
            last_start_at=forecast.last_start_at,
            expired=forecast.expired,
            waits_for=forecast.waits_for,
            call_lasts=forecast.call_lasts,
        )

    def _refused(self) -> Iterator[RefusedItems]:
        for key, places in sorted(self.refused.items(), key=lambda each: -len(each[1])):
            code, name, _ = key
            yield RefusedItems(
                code=code,
                field=name,
                message=self.messages[key],
                count=len(places),
                first=tuple(places[:EXAMPLES]),
            )

    def _hours(self) -> Iterator[DueHour]:
        hours: Counter[tuple[datetime, tuple[str, ...], timedelta | None]] = Counter()
        for (due_at, _, clock), calls in self.due.items():
            hours[due_at.replace(minute=0, second=0, microsecond=0), clock.zones, clock.offset] += calls
        for begins, zones, offset in sorted(hours, key=lambda each: (each[0], each[1], each[2] or timedelta())):
            yield DueHour(begins=begins, zones=zones, offset=offset, calls=hours[begins, zones, offset])


def _field_of(refusal: Refusal) -> str | None:
    """Find the name of the field that the refusal is about: of several wrong fields the first."""
    fields = refusal.details.get("fields")
    name = fields[0].get("field") if fields else refusal.details.get("field")
    return name if isinstance(name, str) and name else None
