"""Explain: what an attempt waits for, and what has happened to it so far; from the rules that dial."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from scheduler.clock import Now
from scheduler.domain.attempt import Attempt, AttemptState, Phase
from scheduler.domain.candidate import Candidate
from scheduler.domain.command import refusal_of
from scheduler.domain.company import Company
from scheduler.domain.explanation import Block, CallTimeAnswer, CallTimeQuestion, Explanation, HistoryEntry
from scheduler.domain.interview import InterviewFilter, InterviewStory
from scheduler.domain.key import MAX_NAME
from scheduler.domain.owner import Mails
from scheduler.domain.pagination import Listed, Slice
from scheduler.domain.principal import Principal
from scheduler.domain.refusals import PhoneNumberRequired, Refused
from scheduler.domain.schedule import Schedule, ScheduleWarning
from scheduler.hashing import Hasher
from scheduler.lifecycle import blocks, decisions, scheduling
from scheduler.lifecycle.blocks import Load
from scheduler.lifecycle.policy import Policy
from scheduler.lifecycle.scheduling import Callee
from scheduler.lifecycle.state_machine import has_live_leg
from scheduler.persistence.database import Database, Stores
from scheduler.rules.display_names import shown
from scheduler.rules.etags import etag_of
from scheduler.timing import callee_zones
from scheduler.use_cases.shared.situations import callee_of, situation_from
from scheduler.use_cases.submit import authorized_company, not_found, require
from scheduler.wire.named_fields import named, of_question

__all__ = ["Carrier", "Explain", "Waiting", "etag_of", "waits_for"]

_FAR = timedelta(days=365 * 50)
_KEY = "key:"


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """What one company's attempts are doing."""

    company_id: UUID
    pause_reason: str | None
    waiting: int
    """Their time has not come."""
    next_due_at: datetime | None
    due: int
    late: timedelta | None
    """How long the longest one has waited that Duecall itself could ring and has not; None without one.

    Counted since it could: a resting line, a command, a pause, an open breaker, the pace and the limits excuse it.
    """
    for_commands: int
    """Of the due ones: a command was accepted and is not applied yet."""
    for_numbers: int
    """Of the due ones: another call to the number is in progress, or was a short while ago."""
    for_places: int
    """Of the due ones: they wait for their turn, or for an end of the pause."""
    in_progress: int
    concurrent_calls: int
    """How many may be in progress."""
    asked_for: int
    """Their answer was lost, and the carrier is being asked."""
    undecided: int
    """Of these: the verdict is overdue, because no list of the carrier's calls could be read."""
    unknown: int
    """Ended with an unknown outcome; a person decides."""
    cause_lost: int
    """Failed, and nothing says why; no retry followed, and a person decides."""

    @property
    def paused(self) -> bool:
        return self.pause_reason is not None


@dataclass(frozen=True, kw_only=True)
class Carrier:
    """How the carrier account stands."""

    pause_reason: str | None
    down_until: datetime | None
    """When it is asked whether it is back; None while it takes calls."""
    down_cause: str | None
    on_trial: bool
    """It answers questions again: one call at a time is tried."""
    in_progress: int
    max_calls: int

    @property
    def is_full(self) -> bool:
        return self.in_progress >= self.max_calls

    @property
    def is_down(self) -> bool:
        return self.down_until is not None and not self.on_trial


class Explain:
    def __init__(self, database: Database, hasher: Hasher, policy: Policy, now: Now) -> None:
        self._database = database
        self._hasher = hasher
        self._policy = policy
        self._now = now

    def interview(self, principal: Principal, company_id: UUID | None, interview_id: UUID) -> InterviewStory:
        """The interview with its attempts. Raises NotFound, AccessDenied, CompanyIdRequired, DatabaseAway."""
        with self._database.reading(principal) as stores:
            return _story(stores, authorized_company(stores, principal, company_id), interview_id)

    def interviews(
        self, principal: Principal, company_id: UUID | None, asked: Slice, wanted: InterviewFilter
    ) -> Listed[InterviewStory]:
        """A page of the interviews that are asked for, each with its attempts.

        Raises AccessDenied, CompanyIdRequired, DatabaseAway.
        """
        with self._database.reading(principal) as stores:
            found = stores.interviews.page(authorized_company(stores, principal, company_id), asked, wanted)
            attempts = stores.attempts.of_interviews([interview.id for interview in found.items])
        stories = (InterviewStory(interview=each, attempts=attempts[each.id]) for each in found.items)
        return Listed(items=tuple(stories), total=found.total, asked=asked)

    def attempt(self, principal: Principal, company_id: UUID | None, interview_id: UUID, attempt_id: UUID) -> Attempt:
        """One attempt, unless it was deleted. Raises NotFound, AccessDenied, CompanyIdRequired, DatabaseAway."""
        with self._database.reading(principal) as stores:
            company = authorized_company(stores, principal, company_id)
            return _attempt_of(_story(stores, company, interview_id), attempt_id)

    def explanation(
        self, principal: Principal, company_id: UUID | None, interview_id: UUID, attempt_id: UUID
    ) -> Explanation:
        """Why an attempt stands as it does. Raises NotFound, AccessDenied, CompanyIdRequired, DatabaseAway."""
        account_calls = self._account_calls()
        with self._database.reading(principal) as stores:
            company = authorized_company(stores, principal, company_id)
            attempt = _attempt_of(_story(stores, company, interview_id), attempt_id)
            return self._explanation(stores, attempt, account_calls, principal)

    def explanation_of(self, attempt_id: UUID) -> Explanation:
        """The same for whoever runs the installation, deleted attempts included. Raises NotFound, DatabaseAway."""
        account_calls = self._account_calls()
        with self._database.reading() as stores:
            attempt = require(stores.attempts.find(attempt_id), "callAttempt", attempt_id)
            return self._explanation(stores, attempt, account_calls, None)

    def attempts_of(self, interview_id: UUID) -> Sequence[Attempt]:
        """An interview's attempts for whoever runs the installation, deleted ones included, oldest first.

        None where there is no such interview. Raises DatabaseAway.
        """
        with self._database.reading() as stores:
            return stores.attempts.find_of_interview(interview_id)

    def _account_calls(self) -> int:
        """How many calls are in progress, of all companies: of what is others' no principal sees more than this."""
        return sum(each.in_progress for each in self.carriers())

    def _explanation(
        self, stores: Stores, attempt: Attempt, account_calls: int, reader: Principal | None
    ) -> Explanation:
        """`reader` is None for whoever runs the installation."""
        now = self._now()
        happenings = _with_key_names(stores, stores.attempts.history(attempt.id), attempt.company_id, reader)
        found: tuple[Block, ...] = ()
        possible: datetime | None = None
        waiting_for = waits_for(attempt, now)
        if attempt.state is AttemptState.PENDING:
            row = stores.attempts.look(attempt.id)
            assert row is not None
            situation = situation_from(row, self._hasher)
            load = Load(
                company_calls=stores.attempts.calls_of_company(attempt.company_id),
                company_limit=row.settings.limits.concurrent_calls,
                account_calls=account_calls,
                account_limit=row.max_calls if row.max_calls is not None else account_calls + 1,
            )
            situation = replace(situation, load=load)
            found = blocks.blocks(situation, now, self._policy)
            possible = blocks.next_possible_at(situation, now, self._policy)
            waiting_for = blocks.waits_for(situation, found)
        return Explanation(
            attempt=attempt,
            waits_for=waiting_for,
            next_possible_at=possible,
            blocks=found,
            happenings=happenings,
        )

    def preview(self, principal: Principal, company_id: UUID | None, question: CallTimeQuestion) -> CallTimeAnswer:
        """What an interview with these would be answered; nothing is created.

        Raises NotFound for a candidate that is not there, AccessDenied, CompanyIdRequired, DatabaseAway.
        """
        with self._database.reading(principal) as stores:
            now = self._now()
            company = stores.companies.get(authorized_company(stores, principal, company_id))
            if company is None:
                raise not_found("company", company_id or principal.id)
            candidate = None
            known: tuple[ScheduleWarning, ...] = ()
            if question.candidate_id is not None:
                candidate = stores.candidates.get(company.id, question.candidate_id)
                if candidate is None:
                    raise not_found("candidate", question.candidate_id)
                if stores.interviews.open_of_candidate(candidate.id):
                    known = (ScheduleWarning.CANDIDATE_HAS_OPEN_INTERVIEW,)
        try:
            with named(of_question(question)):
                schedule, warnings = self._judge(question, candidate, company, now)
        except Refused as refused:
            return CallTimeAnswer(refusal=refusal_of(refused), next_possible_at=_next_allowed(refused))
        return CallTimeAnswer(schedule=schedule, warnings=(*warnings, *known), next_possible_at=schedule.due_at)

    def _judge(
        self, question: CallTimeQuestion, candidate: Candidate | None, company: Company, now: datetime
    ) -> tuple[Schedule, tuple[ScheduleWarning, ...]]:
        """Raises the refusal that says why this person cannot be called then, or at all."""
        if candidate is not None:
            callee = callee_of(candidate, company)
        else:
            number = question.phone_number
            callee = Callee(
                number=None if number is None else callee_zones.read_number(number),
                timezone=None,
                consent_until=(now + _FAR).date(),
                settings=company.settings,
            )
        if question.timezone is not None:
            callee = replace(callee, timezone=callee_zones.check_zone(question.timezone))
        if callee.number is None:
            raise PhoneNumberRequired
        callee_zones.check_allowed(callee.number, company.settings.allowed_countries)
        return scheduling.on_request(question.scheduled_at, callee, now, self._policy)

    def waiting(self) -> Sequence[Waiting]:
        """Every company's attempts, counted. Raises DatabaseAway."""
        now = self._now()
        with self._database.counting() as stores:
            return [
                Waiting(
                    company_id=row.company_id,
                    pause_reason=row.pause_reason,
                    waiting=row.waiting,
                    next_due_at=row.next_due_at,
                    due=row.due,
                    late=row.late,
                    for_commands=row.for_commands,
                    for_numbers=row.for_numbers,
                    for_places=row.for_places,
                    in_progress=row.in_progress,
                    concurrent_calls=row.concurrent_calls,
                    asked_for=row.asked_for,
                    undecided=row.undecided,
                    unknown=row.unknown,
                    cause_lost=row.cause_lost,
                )
                for row in stores.attempts.counts(now, decisions.undecided_before(now, self._policy))
            ]

    def unsent_invitations(self) -> Sequence[Mails]:
        """How the mails of invitations stand that were not sent, by company. Raises DatabaseAway."""
        with self._database.reading() as stores:
            return stores.invitations.unsent(self._now())

    def carriers(self) -> Sequence[Carrier]:
        """How the carrier accounts stand; usually one. Raises DatabaseAway."""
        with self._database.counting() as stores:
            return _carriers(stores)


def _carriers(stores: Stores) -> list[Carrier]:
    return [
        Carrier(
            pause_reason=account.pause_reason,
            down_until=account.breaker.down_until,
            down_cause=account.breaker.cause if account.breaker.down_until is not None else None,
            on_trial=account.breaker.is_on_trial,
            in_progress=stores.carrier_accounts.calls_at_once(account.id),
            max_calls=account.max_calls,
        )
        for account in stores.carrier_accounts.all()
    ]


def _with_key_names(
    stores: Stores, happenings: Sequence[HistoryEntry], company_id: UUID, reader: Principal | None
) -> tuple[HistoryEntry, ...]:
    """Add the name of the key that caused each happening, where the reader may know that key."""
    ids = {each.actor: UUID(each.actor.removeprefix(_KEY)) for each in happenings if each.actor.startswith(_KEY)}
    names: dict[UUID, str] = {}
    for key in stores.keys.named(ids.values(), company_id, reader):
        name = shown(key.name, MAX_NAME)
        names[key.id] = name
        names.setdefault(key.principal_id, name)
    return tuple(
        replace(each, key_name=names.get(ids[each.actor])) if each.actor in ids else each for each in happenings
    )


def _story(stores: Stores, company_id: UUID, interview_id: UUID) -> InterviewStory:
    interview = require(stores.interviews.get(company_id, interview_id), "interview", interview_id)
    return InterviewStory(interview=interview, attempts=stores.attempts.of_interview(company_id, interview_id))


def _attempt_of(story: InterviewStory, attempt_id: UUID) -> Attempt:
    for attempt in story.attempts:
        if attempt.id == attempt_id:
            return attempt
    raise not_found("callAttempt", attempt_id)


def _next_allowed(refused: Refused) -> datetime | None:
    text = refused.details.get("nextAllowedAt")
    return datetime.fromisoformat(text) if isinstance(text, str) else None


def waits_for(attempt: Attempt, now: datetime) -> str:
    """In a few words, what must happen next as far as the attempt itself tells; empty when nothing must.

    What else keeps a pending one, as a pause, its explanation says.
    """
    if attempt.state is AttemptState.PENDING:
        return "its time" if attempt.due_at > now else "its turn"
    if attempt.phase is Phase.DIALLING:
        return "the carrier's answer"
    if attempt.phase is Phase.PLACED:
        return "the call's end"
    if attempt.phase is Phase.UNKNOWN:
        return "proof of what became of it"
    return "the call's end" if has_live_leg(attempt) else ""
