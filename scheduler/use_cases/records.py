"""Records: a company's settings, a candidate's number and zone; and what changing them does to pending calls."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from scheduler.clock import Now
from scheduler.domain.attempt import Attempt, AttemptState, Cancelled, Reason
from scheduler.domain.candidate import Candidate
from scheduler.domain.company import Company, CompanySettings
from scheduler.domain.interview import InterviewStatus
from scheduler.domain.principal import Principal
from scheduler.domain.refusals import Refused
from scheduler.hashing import Hasher
from scheduler.lifecycle import blocks, interviews, scheduling
from scheduler.lifecycle.policy import Policy
from scheduler.lifecycle.state_machine import NoSuchArrow
from scheduler.logs import log
from scheduler.persistence.database import Database, Stores
from scheduler.timing import callee_zones
from scheduler.use_cases import bell as tasks
from scheduler.use_cases.bell import Bell
from scheduler.use_cases.consequences import Consequences
from scheduler.use_cases.seen import callee_from
from scheduler.use_cases.submit import no_such, reached_company

_log = log(__name__)
_AT_ONCE = 100
_CANNOT_BE_LOOKED_AT = (Refused, NoSuchArrow, ValueError, TypeError, LookupError, ArithmeticError, AssertionError)
"""What a row brings about that another release wrote, or nobody should have; not what the database does."""
_LONGEST_TRANSACTION = timedelta(seconds=6)
"""A statement ends after 5 s: what was being made while settings changed is there by then."""


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Where and on whose clock a candidate is reached."""

    phone_number: str | None
    timezone: str | None


class Records:
    def __init__(
        self, database: Database, bell: Bell, hasher: Hasher, consequences: Consequences, policy: Policy, now: Now
    ) -> None:
        self._database = database
        self._bell = bell
        self._hasher = hasher
        self._consequences = consequences
        self._policy = policy
        self._now = now

    def change_settings(self, principal: Principal, company_id: UUID | None, settings: CompanySettings) -> Company:
        """The company with these settings; its pending attempts are looked at anew when they may be due otherwise.

        Raises AccessDenied, CompanyIdRequired, DatabaseAway.
        """
        now = self._now()
        with self._database.transaction() as stores:
            reached = reached_company(stores, principal, company_id)
            company = stores.companies.lock(reached)
            if company is None:
                raise no_such("company", reached)
            stores.companies.set_settings(company.id, settings, now)
            before = company.settings
            asks = _decides_when(before) != _decides_when(settings)
            if asks:
                stores.reresolutions.ask(company.id, None, now)
        if asks:
            self._bell.ring(tasks.RERESOLVE)
        return replace(company, settings=settings, updated_at=now)

    def change_reach(
        self, principal: Principal, company_id: UUID | None, candidate_id: UUID, reach: Reach
    ) -> Candidate:
        """The candidate with another number or zone; pending attempts ring the new one, on its clock.

        A call in progress goes on to the number that it was placed to. Raises NotFound, PhoneNumberInvalid,
        NumberNotAllowed, InvalidTimezone, AccessDenied, CompanyIdRequired, DatabaseAway.
        """
        now = self._now()
        with self._database.transaction() as stores:
            company = stores.companies.get(reached_company(stores, principal, company_id))
            candidate = None if company is None else stores.candidates.lock(company.id, candidate_id)
            if company is None or candidate is None:
                raise no_such("candidate", candidate_id)
            changed = replace(candidate, phone_number=_e164(reach, company), timezone=_zone(reach), updated_at=now)
            stores.candidates.set_reach(candidate.id, changed.phone_number, changed.timezone, now)
            asks = (candidate.phone_number, candidate.timezone) != (changed.phone_number, changed.timezone)
            if asks:
                stores.reresolutions.ask(company.id, candidate.id, now)
        if asks:
            self._bell.ring(tasks.RERESOLVE)
        return changed

    def delete_candidate(self, principal: Principal, company_id: UUID | None, candidate_id: UUID) -> None:
        """Call this person no more, and forget name, number and address.

        Pending attempts are cancelled, interviews that are not over are CANCELLED and stay, without the person. A call
        in progress runs to its end; the number that it is asked for by goes with it. Raises NotFound, AccessDenied,
        CompanyIdRequired, DatabaseAway.
        """
        now = self._now()
        with self._database.transaction() as stores:
            reached = reached_company(stores, principal, company_id)
            if stores.candidates.lock(reached, candidate_id) is None:
                raise no_such("candidate", candidate_id)
            for interview_id in stores.interviews.of_candidate(candidate_id):
                _call_no_more(stores, interview_id, f"key:{principal.key_id}", now)
            stores.candidates.erase(candidate_id, now)
            stores.attempts.forget_candidate(candidate_id)
            stores.carrier_events.forget_candidate(candidate_id)

    def reresolve(self) -> None:
        """Look at pending attempts anew whose hours, zones or numbers changed, in batches. Raises DatabaseAway."""
        while self._reresolve_some():
            pass

    def _reresolve_some(self) -> bool:
        """One batch of the oldest change. False: nothing is left that nobody else is at."""
        with self._database.transaction() as stores:
            change = stores.reresolutions.lock_next(self._now())
            if change is None:
                return False
            pending = stores.attempts.pending_of(change.company_id, change.candidate_id, change.after_id, _AT_ONCE)
            # In the order in which whoever else holds several interviews takes them.
            for attempt in sorted(pending, key=lambda each: each.interview_id):
                self._try_to_resolve(stores, attempt)
            if len(pending) == _AT_ONCE:
                stores.reresolutions.came_to(change.id, pending[-1].id)
            elif change.is_last_pass:
                stores.reresolutions.done(change.id)
            else:
                stores.reresolutions.once_more(change.id, change.asked_at + _LONGEST_TRANSACTION)
            return True

    def _try_to_resolve(self, stores: Stores, attempt: Attempt) -> None:
        """One that cannot be looked at stays as it is, held by the last look, and keeps nobody else waiting."""
        try:
            with stores.connection.begin_nested():
                self._resolve_anew(stores, attempt)
        except _CANNOT_BE_LOOKED_AT:
            _log.exception("an attempt cannot be resolved anew", alarm="UNRESOLVED", attempt_id=str(attempt.id))

    def _resolve_anew(self, stores: Stores, seen: Attempt) -> None:
        now = self._now()
        interview = stores.interviews.lock(seen.interview_id)
        attempt = stores.attempts.lock(seen.id)
        if attempt.state is not AttemptState.PENDING:
            return
        callee = callee_from(stores.attempts.callee_of(interview.id))
        if blocks.of_number(callee) is not None:
            return  # held by the last look, until there is a number that may be called or it expires
        assert callee.number is not None
        number = callee.number.e164
        schedule = scheduling.resolved_anew(attempt, callee, now, self._policy)
        if schedule is None and self._hasher.number(number) == attempt.number_hash:
            return
        self._consequences.move(stores, attempt, schedule, number, now)


def _decides_when(settings: CompanySettings) -> tuple[object, ...]:
    """By what pending attempts are scheduled: the hours, the zone, and which countries may be called at all."""
    return settings.intervals, settings.timezone, settings.allowed_countries


def _call_no_more(stores: Stores, interview_id: UUID, actor: str, now: datetime) -> None:
    interview = stores.interviews.lock(interview_id)
    attempt = stores.attempts.lock_open(interview_id)
    if attempt is not None and attempt.state is AttemptState.PENDING:
        stores.attempts.save(attempt, Cancelled(reason=Reason.CANDIDATE_DELETED), actor, now)
    if interview.status is InterviewStatus.SCHEDULED:
        stores.interviews.save(interviews.with_status(interview, InterviewStatus.CANCELLED, now), now)


def _e164(reach: Reach, company: Company) -> str | None:
    if reach.phone_number is None:
        return None
    number = callee_zones.read_number(reach.phone_number)
    callee_zones.check_allowed(number, company.settings.allowed_countries)
    return number.e164


def _zone(reach: Reach) -> str | None:
    return None if reach.timezone is None else callee_zones.check_zone(reach.timezone)
