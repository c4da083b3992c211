"""Candidates: made, listed, changed, erased; a new number or zone moves their pending calls."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID, uuid4

from scheduler.domain.attempt import AttemptState, Cancelled, Reason
from scheduler.domain.candidate import Candidate, CandidateStatus, NewCandidate
from scheduler.domain.company import Company
from scheduler.domain.interview import InterviewStatus
from scheduler.domain.pagination import Listed, Slice
from scheduler.domain.principal import Principal
from scheduler.domain.refusals import ContactRequired, PhoneNumberInvalid, UnknownJobs
from scheduler.domain.resource import Changes
from scheduler.lifecycle import interviews
from scheduler.persistence.database import Database, Stores
from scheduler.rules.resource_changes import changed
from scheduler.timing import callee_zones
from scheduler.use_cases.resources.idempotent_writes import IdempotentWrites, WriteRequest, WriteResult, of_company
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.hints import Hints
from scheduler.use_cases.submit import authorized_company, require


class Candidates:
    """Each method raises AccessDenied, CompanyIdRequired, DatabaseAway; writes also as `IdempotentWrites.once`."""

    def __init__(self, database: Database, writes: IdempotentWrites, hints: Hints) -> None:
        self._database = database
        self._writes = writes
        self._hints = hints

    def get(self, principal: Principal, company_id: UUID | None, candidate_id: UUID) -> Candidate:
        """Raises NotFound."""
        with self._database.reading(principal) as stores:
            company = authorized_company(stores, principal, company_id)
            return require(stores.candidates.get(company, candidate_id), "candidate", candidate_id)

    def page(
        self,
        principal: Principal,
        company_id: UUID | None,
        asked: Slice,
        *,
        job_id: UUID | None = None,
        status: CandidateStatus | None = None,
        search: str | None = None,
    ) -> Listed[Candidate]:
        """`search` looks for a part of a name or an address, whatever its case."""
        with self._database.reading(principal) as stores:
            company = authorized_company(stores, principal, company_id)
            return stores.candidates.page(company, asked, job_id=job_id, status=status, search=search)

    def create(self, sent: WriteRequest, company_id: UUID | None, new: NewCandidate) -> WriteResult:
        """Create a candidate, with any number in E.164: a forbidden number is refused when a call is requested.

        Refused: InvalidTimezone, UnknownJobs.
        """

        def write(stores: Stores, company_id: UUID, now: datetime) -> Candidate:
            company = stores.companies.get(company_id)
            assert company is not None  # it is held
            return new_candidate(stores, company, new, now, is_rung=False)

        return self._writes.once(sent, of_company(sent.principal, company_id), write)

    def change(self, sent: WriteRequest, company_id: UUID | None, candidate_id: UUID, changes: Changes) -> WriteResult:
        """The candidate with these changes; pending attempts ring a new number, on its clock.

        A call in progress goes on to the number that it was placed to. A pending call asks for a number that may be
        called; without one any number in E.164 is kept. Refused: NotFound, ContactRequired, PhoneNumberInvalid,
        NumberNotAllowed, InvalidTimezone, UnknownJobs, MetadataTooLarge.
        """
        rings = False

        def write(stores: Stores, company_id: UUID, now: datetime) -> Candidate:
            nonlocal rings
            company = stores.companies.get(company_id)
            assert company is not None  # it is held
            before = _locked(stores, company_id, candidate_id)
            is_rung = bool("phone_number" in changes and stores.attempts.pending_of(company_id, candidate_id, None, 1))
            after = _as_kept(stores, replace(changed(before, changes), updated_at=now), before, is_rung=is_rung)
            if is_rung and after.phone_number != before.phone_number:
                _check_allowed(after, company)
            stores.candidates.save(after)
            if after.job_ids != before.job_ids:  # a job that was deleted meanwhile must not come back
                stores.candidates.save_jobs(after)
            rings = _is_reached_otherwise(before, after)
            if rings:
                stores.reresolutions.ask(company_id, candidate_id, now)
            return after

        written = self._writes.once(sent, of_company(sent.principal, company_id), write)
        if rings:
            self._hints.send(tasks.RERESOLVE)
        return written

    def delete(self, sent: WriteRequest, company_id: UUID | None, candidate_id: UUID) -> WriteResult:
        """Call this person no more, and forget name, number and address.

        Pending attempts are cancelled, interviews that are not over are CANCELLED and stay, without the person. A call
        in progress runs to its end; the number that it is asked for by goes with it. Refused: NotFound.
        """

        def write(stores: Stores, company_id: UUID, now: datetime) -> None:
            _locked(stores, company_id, candidate_id)
            for interview_id in stores.interviews.of_candidate(candidate_id):
                _call_no_more(stores, interview_id, f"key:{sent.principal.key_id}", now)
            stores.candidates.erase(candidate_id, now)
            stores.attempts.forget_candidate(candidate_id)
            stores.carrier_events.forget_candidate(candidate_id)

        return self._writes.once(sent, of_company(sent.principal, company_id), write)


def new_candidate(stores: Stores, company: Company, new: NewCandidate, now: datetime, *, is_rung: bool) -> Candidate:
    """A candidate of the company, made of what a request says.

    A number that nobody rings may be none. Raises PhoneNumberInvalid, InvalidTimezone, UnknownJobs.
    """
    candidate = Candidate(
        id=uuid4(),
        company_id=company.id,
        first_name=new.first_name,
        last_name=new.last_name,
        email=new.email,
        phone_number=new.phone_number,
        timezone=new.timezone,
        gdpr_expiry_date=new.gdpr_expiry_date,
        status=new.status,
        job_ids=new.job_ids,
        metadata=new.metadata,
        created_at=now,
        updated_at=now,
    )
    candidate = _as_kept(stores, candidate, None, is_rung=is_rung)
    stores.candidates.add(candidate)
    return candidate


def _as_kept(stores: Stores, candidate: Candidate, before: Candidate | None, *, is_rung: bool) -> Candidate:
    """Number and zone in their one spelling; each job one that the company has.

    A number that stays is not read anew: it may be none any more, and other things still change.
    """
    if candidate.email is None and candidate.phone_number is None:
        raise ContactRequired
    number, zone = candidate.phone_number, candidate.timezone
    if number is not None and (before is None or before.phone_number != number):
        number = _spelled(number, is_rung=is_rung)
    had = () if before is None else before.job_ids
    if had != candidate.job_ids:
        _check_jobs(stores, candidate.company_id, candidate.job_ids)
    return replace(
        candidate,
        phone_number=number,
        timezone=None if zone is None else callee_zones.check_zone(zone),
        job_ids=_in_order(had, candidate.job_ids),
    )


def _spelled(number: str, *, is_rung: bool) -> str:
    try:
        return callee_zones.read_number(number).e164
    except PhoneNumberInvalid:
        if is_rung:
            raise
        return number


def _in_order(had: Sequence[UUID], job_ids: Sequence[UUID]) -> tuple[UUID, ...]:
    """As they are read back: in the order in which they were assigned, those of one moment by their ids."""
    stay = [job_id for job_id in had if job_id in job_ids]
    return (*stay, *sorted(set(job_ids).difference(had)))


def _check_jobs(stores: Stores, company_id: UUID, job_ids: Sequence[UUID]) -> None:
    if not job_ids:
        return
    there = {job.id for job in stores.jobs.lock_shared(company_id, job_ids)}
    missing = [str(each) for each in job_ids if each not in there]
    if missing:
        raise UnknownJobs(jobIds=missing)


def _check_allowed(candidate: Candidate, company: Company) -> None:
    if candidate.phone_number is not None:
        number = callee_zones.read_number(candidate.phone_number)
        callee_zones.check_allowed(number, company.settings.allowed_countries)


def _is_reached_otherwise(before: Candidate, after: Candidate) -> bool:
    return (before.phone_number, before.timezone, before.gdpr_expiry_date) != (
        after.phone_number,
        after.timezone,
        after.gdpr_expiry_date,
    )


def _call_no_more(stores: Stores, interview_id: UUID, actor: str, now: datetime) -> None:
    interview = stores.interviews.lock(interview_id)
    attempt = stores.attempts.lock_open(interview_id)
    if attempt is not None and attempt.state is AttemptState.PENDING:
        stores.attempts.save(attempt, Cancelled(reason=Reason.CANDIDATE_DELETED), actor, now)
    if interview.status is InterviewStatus.SCHEDULED:
        stores.interviews.save(interviews.with_status(interview, InterviewStatus.CANCELLED, now), now)


def _locked(stores: Stores, company_id: UUID, candidate_id: UUID) -> Candidate:
    return require(stores.candidates.lock(company_id, candidate_id), "candidate", candidate_id)
