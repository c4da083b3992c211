"""The attempts that one transaction changes, with their interviews and the facts that decide about them.

Each kind of fact is read once, for all of them, when it is first needed. So a batch takes as many statements as one
attempt.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from scheduler.domain.attempt import Attempt, Created, Event
from scheduler.domain.company import Billing, Company
from scheduler.domain.interview import Candidate, Interview, InterviewStatus
from scheduler.domain.refusals import PhoneNumberInvalid
from scheduler.hashing import Hasher
from scheduler.lifecycle.backoffs import NO_COUNTRY
from scheduler.lifecycle.blocks import Line, Situation
from scheduler.lifecycle.conversations import NumberRefusal
from scheduler.lifecycle.retries import MOST_ATTEMPTS, takes_another_attempt
from scheduler.lifecycle.scheduling import Callee
from scheduler.lifecycle.state_machine import is_awaited, is_over
from scheduler.persistence.attempt_rows import attempt_of
from scheduler.persistence.attempts import CalleeRow, callee_row
from scheduler.persistence.last_looks import LastLookRow, LookWithoutNumber
from scheduler.persistence.rows import AnyRow
from scheduler.persistence.stores import Stores
from scheduler.persistence.usage import billing_from
from scheduler.timing import callee_zones
from scheduler.timing.callee_zones import CalleeNumber, number_without_digits


class Batch:
    """Attempts and interviews that the caller has locked."""

    def __init__(self, stores: Stores, interviews: Iterable[Interview], attempts: Iterable[Attempt] = ()) -> None:
        self.stores = stores
        self.interviews = {each.id: each for each in interviews}
        self._attempts = {each.id: each for each in attempts}
        self._open: defaultdict[UUID, set[UUID]] | None = None
        """The open attempt of each interview that has one. Not all of them are locked."""
        self._chains: dict[UUID, dict[UUID, Attempt]] | None = None
        self._stored_chains: dict[UUID, list[AnyRow]] = defaultdict(list)
        """Rows of chains that are not read yet. An unreadable row concerns only its own chain."""
        self._attempt_counts: Mapping[UUID, int] | None = None
        self._refusals: defaultdict[UUID, list[NumberRefusal]] | None = None
        self._callees: Mapping[UUID, AnyRow] | None = None
        self._billings: Mapping[UUID, AnyRow] | None = None
        self.without_instructions: list[Attempt] = []
        """Attempts that are found in this transaction to have got no instructions."""

    @classmethod
    def locked(cls, stores: Stores, interviews_by_attempt: Mapping[UUID, UUID]) -> "Batch":
        """Lock these attempts and, before them, their interviews."""
        interviews = stores.interviews.lock_all(list(set(interviews_by_attempt.values())))
        attempts = stores.attempts.lock_all([each.id for each in interviews], list(interviews_by_attempt))
        return cls(stores, interviews, attempts)

    @classmethod
    def free(cls, stores: Stores, interviews_by_attempt: Mapping[UUID, UUID]) -> tuple["Batch", frozenset[UUID]]:
        """Lock these attempts, and before them their interviews. Skip any that another transaction has locked.

        Return also the attempts that were left out because they or their interviews are locked. One that this release
        cannot read is also left out, and not among these.
        """
        interviews = stores.interviews.lock_free(list(set(interviews_by_attempt.values())))
        attempts = stores.attempts.lock_free_of([each.id for each in interviews.rows], list(interviews_by_attempt))
        held = {each for each, interview_id in interviews_by_attempt.items() if interview_id in interviews.held}
        return cls(stores, interviews.rows, attempts.rows), attempts.held | held

    def has(self, attempt_id: UUID) -> bool:
        """Return True if this transaction has locked the attempt and could read it."""
        return attempt_id in self._attempts

    def attempt(self, attempt_id: UUID) -> Attempt:
        """Find a locked attempt as this transaction has left it. Raises KeyError if it does not exist any longer."""
        return self._attempts[attempt_id]

    def has_open(self, interview_id: UUID) -> bool:
        """Return True if the interview has an attempt that is pending or in progress, or may still be reported.

        Read without a lock: no other transaction adds or ends an attempt of an interview that this one has locked.
        """
        if self._open is None:
            self._open = defaultdict(set)
            with self.stores.connection.beside():
                for stored_id, attempt_id in self.stores.attempts.open_or_awaited_of(list(self.interviews)):
                    self._open[stored_id].add(attempt_id)
            for each in self._attempts.values():
                self._open[each.interview_id].add(each.id)
        # As this transaction has left them: its own changes may not be stored yet.
        mine = self._attempts
        return any(each not in mine or not _is_closed(mine[each]) for each in self._open[interview_id])

    def lock_open(self, interview_id: UUID) -> Attempt | None:
        """Lock the interview's attempt that is pending or in progress, so that it cannot be claimed until we commit."""
        if not self.has_open(interview_id):
            return None
        found = self.stores.attempts.lock_open(interview_id)
        if found is not None:
            self.keep(found)
        return found

    def chain_of(self, attempt: Attempt) -> Collection[Attempt]:
        """List all attempts of the attempt's chain of retries. Deleted attempts still count as tries."""
        if self._chains is None:
            mine = list(self._attempts.values())
            self._chains = {each.chain_id: {} for each in (attempt, *mine)}
            with self.stores.connection.beside():
                stored = self.stores.attempts.of_chains(list(self._chains))
            for row in stored:
                self._stored_chains[row.chain_id].append(row)
            for each in mine:
                self._chains[each.chain_id][each.id] = each
        chain = self._chains[attempt.chain_id]
        for row in self._stored_chains[attempt.chain_id]:
            if row.id not in chain:
                chain[row.id] = attempt_of(row)
        return chain.values()

    def takes_another_attempt(self, interview_id: UUID) -> bool:
        """Return whether the interview has fewer attempts than it may have. It is asked once before a retry."""
        if self._attempt_counts is None:
            with self.stores.connection.beside():
                self._attempt_counts = self.stores.attempts.counts_of(list(self.interviews), MOST_ATTEMPTS)
        return takes_another_attempt(self._attempt_counts[interview_id])

    def refusals_of(self, interview_id: UUID) -> Sequence[NumberRefusal]:
        """List the refusals of numbers that calls of the interview have reported. First attempts need none."""
        if self._refusals is None:
            self._refusals = defaultdict(list)
            with self.stores.connection.beside():
                for each in self.stores.conversations.refusals_of(list(self.interviews)):
                    self._refusals[each.interview_id].append(each)
        return self._refusals[interview_id]

    def callee_of(self, interview_id: UUID) -> CalleeRow:
        """Read the person whom the interview calls. Raises KeyError for settings that cannot be read."""
        return callee_row(self._callee(interview_id))

    def has_company(self, interview_id: UUID) -> bool:
        """Return True if the company has not been deleted, also if its settings cannot be read."""
        return not self._callee(interview_id).company_deleted

    def _callee(self, interview_id: UUID) -> AnyRow:
        if self._callees is None:
            with self.stores.connection.beside():
                self._callees = self.stores.attempts.callees_of(list(self.interviews))
        return self._callees[interview_id]

    def billing_of(self, company_id: UUID, now: datetime) -> Billing:
        return billing_from(self._billing(company_id, now))

    def may_report(self, company_id: UUID, now: datetime) -> bool:
        """Return True if a key may report the outcome of the company's calls. Read together with its billing."""
        return bool(self._billing(company_id, now).may_report)

    def report_waits(self, interview: Interview, now: datetime) -> bool:
        """Return True if an accepted report will soon be applied. The caller has locked the interview before.

        A report is accepted under the same lock, so none is missed. Read together with the company's billing.
        """
        return interview.id in self._billing(interview.company_id, now).reports

    def _billing(self, company_id: UUID, now: datetime) -> AnyRow:
        if self._billings is None:
            companies = {each.company_id for each in self.interviews.values()}
            with self.stores.connection.beside():
                self._billings = self.stores.usage.billings_of(companies, now, list(self.interviews))
        return self._billings[company_id]

    def save(self, attempt: Attempt, event: Event, actor: str, now: datetime) -> Attempt:
        """Apply `event` to an attempt, and save it with its history row. Raises NoSuchArrow."""
        moved = self.stores.attempts.save(attempt, event, actor, now)
        self.keep(moved)
        return moved

    def add(self, attempt: Attempt, actor: str, *, retry_of: UUID) -> None:
        """Add the pending retry of an attempt, and its line. Notify the clock if it is due soon."""
        self.keep(add_attempt(self.stores, attempt, actor, retry_of=retry_of))

    def set_status(self, interview: Interview, status: InterviewStatus, now: datetime, cause: Attempt) -> None:
        """Set the interview's status, which changes because of an attempt's end."""
        self.interviews[interview.id] = self.stores.interviews.set_status(interview, status, now, cause)

    def keep(self, attempt: Attempt) -> None:
        """Note the present version of an attempt."""
        self._attempts[attempt.id] = attempt
        if self._open is not None:
            self._open[attempt.interview_id].add(attempt.id)
        if self._chains is not None:
            self._chains.setdefault(attempt.chain_id, {})[attempt.id] = attempt


def _is_closed(attempt: Attempt) -> bool:
    return is_over(attempt) and not is_awaited(attempt)


def add_attempt(stores: Stores, attempt: Attempt, actor: str, *, retry_of: UUID | None = None) -> Attempt:
    """Add a pending attempt and its line, and return it as it was added. Notify the clock if it is due soon."""
    assert attempt.number_hash is not None
    stores.lines.ensure(attempt.number_hash)
    stores.notify_if_due_soon(attempt.due_at, attempt.created_at)
    return stores.attempts.add(attempt, Created(), actor, retry_of=retry_of)


# --- Inputs of the rules, callee and situation, from database rows


def callee_of(candidate: Candidate, company: Company, *, is_rung: bool = True) -> Callee:
    """Collect everything that decides when this candidate may be called.

    Raises PhoneNumberInvalid, unless the interview is ONLINE (`is_rung=False`), where an invalid number is ignored.
    """
    text = candidate.phone_number
    parse = callee_zones.read_number if is_rung else _number_or_none
    return Callee(
        number=None if text is None else parse(text),
        timezone=candidate.timezone,
        consent_until=candidate.gdpr_expiry_date,
        settings=company.settings,
    )


def callee_from(row: CalleeRow | LastLookRow) -> Callee:
    """Like `callee_of`, for an existing interview. A number that is no longer valid is treated as missing."""
    if isinstance(row, LookWithoutNumber):
        return _without_digits(row)
    return Callee(
        number=_number_or_none(row.phone_number),
        timezone=row.timezone,
        consent_until=row.gdpr_expiry_date,
        settings=row.settings,
    )


def situation_from(row: LastLookRow, hasher: Hasher, skew: timedelta = timedelta()) -> Situation:
    """Collect everything that decides whether an attempt may be called. `skew` is the database's clock minus ours."""
    callee = callee_from(row)
    attempt = row.attempt
    is_its_line = callee.number is not None and hasher.number(callee.number.e164) == attempt.number_hash
    return Situation(
        attempt=attempt,
        callee=callee,
        line=Line(
            mine=is_its_line and row.line_holder == attempt.id,
            held_by_another=row.line_holder not in {None, attempt.id},
            free_at=None if row.line_interview == attempt.interview_id else row.line_free_at,
        ),
        interview_over=row.interview_over,
        refused_by=row.refused_by,
        command_waiting=row.command_waiting,
        refusal_waiting_since=row.refusal_waiting_since,
        account_paused=row.account_paused,
        company_paused=row.company_paused,
        company_deleted=row.company_deleted,
        breaker=row.breaker,
        backoff=row.backoff,
        database_skew=skew,
    )


def _without_digits(row: LookWithoutNumber) -> Callee:
    """Rebuild the callee as far as the attempt's schedule describes the number."""
    settings, schedule = row.settings, row.attempt.schedule
    if schedule.number is None and row.line_country is None:
        settings = replace(settings, allowed_countries=None)  # of an older version: the country is unknown
    country = None if row.line_country == NO_COUNTRY else row.line_country
    return Callee(
        number=number_without_digits(schedule, country) if row.has_number else None,
        timezone=row.timezone,
        consent_until=row.gdpr_expiry_date,
        settings=settings,
    )


def _number_or_none(text: str | None) -> CalleeNumber | None:
    """The candidate's current number, or None if it is no longer valid."""
    try:
        return None if text is None else callee_zones.read_number(text)
    except PhoneNumberInvalid:
        return None
