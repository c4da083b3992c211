"""Candidates: create, list, change, erase. A new number or time zone reschedules their pending calls."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from operator import attrgetter
from uuid import UUID

from scheduler.domain.attempt import AttemptState, Cancelled, Reason
from scheduler.domain.candidate import Candidate, CandidateFilter, NewCandidate
from scheduler.domain.company import Company
from scheduler.domain.external_id import ExternalKind
from scheduler.domain.interview import InterviewStatus
from scheduler.domain.pagination import KeysetPage, KeysetSlice, Listed, Slice
from scheduler.domain.principal import Principal
from scheduler.domain.refusals import ContactRequired, PhoneNumberInvalid, UnknownJobs
from scheduler.domain.resource import Changes
from scheduler.ids import new_id
from scheduler.lifecycle import interviews
from scheduler.persistence.database import Database
from scheduler.persistence.stores import Stores
from scheduler.rules.resource_changes import changed
from scheduler.timing import callee_zones
from scheduler.use_cases.resources.idempotent_writes import (
    Existing,
    IdempotentWrites,
    WriteRequest,
    WriteResult,
    of_company,
)
from scheduler.use_cases.shared import external_ids
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.hints import Hints
from scheduler.use_cases.submit import authorized_company, require

_CALL_RULES = attrgetter("phone_number", "timezone", "gdpr_expiry_date")
"""The fields that determine when, or whether, a candidate is called."""


class Candidates:
    """Methods raise AccessDenied, CompanyIdRequired, DatabaseAway. Writes add the errors of `IdempotentWrites.once`."""

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
        asked: Slice | KeysetSlice,
        only: CandidateFilter,
    ) -> Listed[Candidate] | KeysetPage[Candidate]:
        """List candidates: a numbered page of at most one status, or a page by cursor."""
        with self._database.reading(principal) as stores:
            company = authorized_company(stores, principal, company_id)
            if isinstance(asked, KeysetSlice):
                return stores.candidates.keyset_page(company, asked, only)
            return stores.candidates.page(company, asked, only)

    def create(self, sent: WriteRequest, company_id: UUID | None, new: NewCandidate) -> WriteResult:
        """Create a candidate. Any number in E.164 is stored. A forbidden number is refused when a call is requested.

        A candidate that was created with the same external id is returned. Refused: ExternalIdReused, InvalidTimezone,
        UnknownJobs.
        """

        def write(stores: Stores, company_id: UUID, now: datetime) -> Candidate | Existing:
            external_id = external_ids.lock(stores, ExternalKind.CANDIDATE, company_id, new.external_id)
            known = external_ids.find_same(stores, external_id, new)
            present = None if known is None else stores.candidates.get(company_id, known)
            if present is not None:
                return Existing(record=present)
            company = stores.companies.get(company_id)
            assert company is not None  # `IdempotentWrites.once` has locked it
            return new_candidate(stores, company, new, now, is_rung=False)

        return self._writes.once(sent, of_company(sent.principal, company_id), write)

    def change(self, sent: WriteRequest, company_id: UUID | None, candidate_id: UUID, changes: Changes) -> WriteResult:
        """Change a candidate. Pending attempts use a new number and its time zone. A call in progress goes on.

        With a pending call a new number must be valid and allowed. Without one any number in E.164 is stored. Refused:
        NotFound, ContactRequired, PhoneNumberInvalid, NumberNotAllowed, InvalidTimezone, UnknownJobs, MetadataTooLarge,
        ExternalIdReused.
        """
        rings = False

        def write(stores: Stores, company_id: UUID, now: datetime) -> Candidate:
            nonlocal rings
            company = stores.companies.get(company_id)
            assert company is not None  # `IdempotentWrites.once` has locked it
            external_id = external_ids.lock(stores, ExternalKind.CANDIDATE, company_id, changes.get("external_id"))
            before = _locked(stores, company_id, candidate_id)
            external_ids.must_be_free(stores, external_id, candidate_id)
            is_rung = bool("phone_number" in changes and stores.attempts.has_pending(candidate_id))
            after = _normalised(stores, replace(changed(before, changes), updated_at=now), before, is_rung=is_rung)
            if is_rung and after.phone_number != before.phone_number:
                _check_allowed(after, company)
            stores.candidates.save(after)
            if after.job_ids != before.job_ids:  # otherwise a job deleted in the meantime would come back
                stores.candidates.save_jobs(after)
            rings = _CALL_RULES(before) != _CALL_RULES(after)
            if rings:
                stores.reresolutions.ask(company_id, candidate_id, now)
            return after

        written = self._writes.once(sent, of_company(sent.principal, company_id), write)
        if rings:
            self._hints.send(tasks.RERESOLVE)
        return written

    def delete(self, sent: WriteRequest, company_id: UUID | None, candidate_id: UUID) -> WriteResult:
        """Erase a candidate's personal data and cancel all pending calls.

        Open interviews become CANCELLED and are kept without the person. A call in progress runs to its end. The number
        used to poll it is deleted with it. Refused: NotFound.
        """

        def write(stores: Stores, company_id: UUID, now: datetime) -> None:
            _locked(stores, company_id, candidate_id)
            for interview_id in stores.interviews.of_candidate(candidate_id):
                _cancel_interview(stores, interview_id, f"key:{sent.principal.key_id}", now)
            stores.candidates.erase(candidate_id, now)
            stores.interviews.forget_contents(candidate_id)
            stores.attempts.forget_candidate(candidate_id)
            stores.carrier_events.forget_candidate(candidate_id)

        return self._writes.once(sent, of_company(sent.principal, company_id), write)


def new_candidate(stores: Stores, company: Company, new: NewCandidate, now: datetime, *, is_rung: bool) -> Candidate:
    """Create a candidate of the company. An invalid number is accepted if `is_rung` is False.

    Raises PhoneNumberInvalid, InvalidTimezone, UnknownJobs.
    """
    candidate = Candidate(id=new_id(now), company_id=company.id, created_at=now, updated_at=now, **vars(new))
    candidate = _normalised(stores, candidate, None, is_rung=is_rung)
    stores.candidates.add(candidate, external_ids.content_hash(new))
    return candidate


def _normalised(stores: Stores, candidate: Candidate, before: Candidate | None, *, is_rung: bool) -> Candidate:
    """Return the candidate with normalised number and time zone, after checking its jobs.

    An unchanged number is not parsed again: newer numbering plans may reject it, and other fields must still change.
    """
    if candidate.email is None and candidate.phone_number is None:
        raise ContactRequired
    number, zone = candidate.phone_number, candidate.timezone
    if number is not None and (before is None or before.phone_number != number):
        number = _e164(number, is_rung=is_rung)
    former = () if before is None else before.job_ids
    if former != candidate.job_ids:
        _check_jobs(stores, candidate.company_id, candidate.job_ids)
    return replace(
        candidate,
        phone_number=number,
        timezone=None if zone is None else callee_zones.check_zone(zone),
        job_ids=_as_read_back(former, candidate.job_ids),
    )


def _e164(number: str, *, is_rung: bool) -> str:
    try:
        return callee_zones.read_number(number).e164
    except PhoneNumberInvalid:
        if is_rung:
            raise
        return number


def _as_read_back(former: Sequence[UUID], job_ids: Sequence[UUID]) -> tuple[UUID, ...]:
    """Sort job ids as the database returns them: by time of assignment, then by id."""
    remaining = [job_id for job_id in former if job_id in job_ids]
    return (*remaining, *sorted(set(job_ids).difference(former)))


def _check_jobs(stores: Stores, company_id: UUID, job_ids: Sequence[UUID]) -> None:
    if not job_ids:
        return
    known = {job.id for job in stores.jobs.lock_shared(company_id, job_ids)}
    missing = [str(each) for each in job_ids if each not in known]
    if missing:
        raise UnknownJobs(jobIds=missing)


def _check_allowed(candidate: Candidate, company: Company) -> None:
    if candidate.phone_number is not None:
        number = callee_zones.read_number(candidate.phone_number)
        callee_zones.check_allowed(number, company.settings.allowed_countries)


def _cancel_interview(stores: Stores, interview_id: UUID, actor: str, now: datetime) -> None:
    interview = stores.interviews.lock(interview_id)
    attempt = stores.attempts.lock_open(interview_id)
    with stores.connection.together():
        if attempt is not None and attempt.state is AttemptState.PENDING:
            stores.attempts.save(attempt, Cancelled(reason=Reason.CANDIDATE_DELETED), actor, now)
        if interview.status is InterviewStatus.SCHEDULED:
            cancelled = interviews.with_status(interview, InterviewStatus.CANCELLED, now)
            stores.interviews.save(cancelled, now, before=interview)


def _locked(stores: Stores, company_id: UUID, candidate_id: UUID) -> Candidate:
    return require(stores.candidates.lock(company_id, candidate_id), "candidate", candidate_id)
