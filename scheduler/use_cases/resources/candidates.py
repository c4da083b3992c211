"""Candidates: create, list, change, erase. A new number or time zone reschedules their pending calls."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from operator import attrgetter
from uuid import UUID

from scheduler.domain.company import Company
from scheduler.domain.interview import Candidate, CandidateFilter, NewCandidate
from scheduler.domain.principal import Principal
from scheduler.domain.refusals import ContactRequired, PhoneNumberInvalid, UnknownJobs
from scheduler.domain.resource import Changes, ExternalKind, KeysetPage, KeysetSlice, Listed, Slice
from scheduler.ids import new_id
from scheduler.persistence.database import Database
from scheduler.persistence.stores import Stores
from scheduler.rules.resources import changed
from scheduler.timing import callee_zones, zone_names
from scheduler.use_cases.operations.erase import INTERVIEWS_AT_ONCE, cancel_interviews, note_rest
from scheduler.use_cases.resources.idempotent_writes import IdempotentWrites, WriteRequest, WriteResult
from scheduler.use_cases.shared import access
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.access import authorized_company, require
from scheduler.use_cases.shared.hints import Hints

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

        def write(stores: Stores, company_id: UUID, now: datetime) -> Candidate | WriteResult:
            external_id = access.lock(stores, ExternalKind.CANDIDATE, company_id, new.external_id)
            known = access.find_same(stores, external_id, new)
            present = None if known is None else stores.candidates.get(company_id, known)
            if present is not None:
                return WriteResult(record=present, existed=True)
            company = stores.companies.get(company_id)
            assert company is not None  # `IdempotentWrites.once` has locked it
            return new_candidate(stores, company, new, now, is_rung=False)

        return self._writes.of_company(sent, company_id, write)

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
            external_id = access.lock(stores, ExternalKind.CANDIDATE, company_id, changes.get("external_id"))
            before = _locked(stores, company_id, candidate_id)
            access.must_be_free(stores, external_id, candidate_id)
            is_rung = bool("phone_number" in changes and stores.attempts.has_pending(candidate_id))
            after = _normalised(stores, replace(changed(before, changes), updated_at=now), before, is_rung=is_rung)
            if is_rung and after.phone_number != before.phone_number:
                _check_allowed(after, company)
            stores.candidates.save(after)
            if after.job_ids != before.job_ids:  # otherwise a job deleted in the meantime would come back
                stores.candidates.save_jobs(after)
            rings = _CALL_RULES(before) != _CALL_RULES(after)
            if rings:
                stores.schedule_recomputations.ask(company_id, candidate_id, now)
            return after

        written = self._writes.of_company(sent, company_id, write)
        if rings:
            self._hints.send(tasks.RECOMPUTE)
        return written

    def delete(self, sent: WriteRequest, company_id: UUID | None, candidate_id: UUID) -> WriteResult:
        """Erase a candidate's personal data and cancel all pending calls.

        From the commit on, no call of the candidate is claimed. Open interviews become CANCELLED and are kept without
        the person: the first ones now, the others by a worker. A call in progress runs to its end. The number used to
        poll it is deleted with it. Refused: NotFound.
        """
        has_rest = False

        def write(stores: Stores, company_id: UUID, now: datetime) -> None:
            nonlocal has_rest
            # Each claim needs this lock. An earlier one has committed, and a later one sees that the person is erased.
            stores.companies.lock_row(company_id)  # guard: erasing_stops_claims
            _locked(stores, company_id, candidate_id)
            stores.candidates.erase(candidate_id, now)
            cancel_interviews(stores, candidate_id, INTERVIEWS_AT_ONCE, f"key:{sent.principal.key_id}", now)
            has_rest = note_rest(stores, candidate_id, now)

        written = self._writes.of_company(sent, company_id, write)
        if has_rest:
            self._hints.send(tasks.ERASE_PEOPLE)
        return written


def new_candidate(stores: Stores, company: Company, new: NewCandidate, now: datetime, *, is_rung: bool) -> Candidate:
    """Create a candidate of the company. An invalid number is accepted if `is_rung` is False.

    Raises PhoneNumberInvalid, InvalidTimezone, UnknownJobs.
    """
    candidate = Candidate(id=new_id(now), company_id=company.id, created_at=now, updated_at=now, **vars(new))
    candidate = _normalised(stores, candidate, None, is_rung=is_rung)
    stores.candidates.add(candidate, access.content_hash(new))
    return candidate


def _normalised(stores: Stores, candidate: Candidate, before: Candidate | None, *, is_rung: bool) -> Candidate:
    """Normalise the candidate's number and time zone, after checking its jobs.

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
        timezone=None if zone is None else zone_names.check_zone(zone),
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


def _locked(stores: Stores, company_id: UUID, candidate_id: UUID) -> Candidate:
    return require(stores.candidates.lock(company_id, candidate_id), "candidate", candidate_id)
