"""Builds the inputs of the rules, callee and situation, from database rows."""

from dataclasses import replace
from datetime import timedelta

from scheduler.domain.company import Company
from scheduler.domain.interview import Candidate
from scheduler.domain.refusals import PhoneNumberInvalid
from scheduler.hashing import Hasher
from scheduler.lifecycle.backoffs import NO_COUNTRY
from scheduler.lifecycle.blocks import Line, Situation
from scheduler.lifecycle.scheduling import Callee
from scheduler.persistence.attempts import CalleeRow
from scheduler.persistence.last_looks import LastLookRow, LookWithoutNumber
from scheduler.timing import callee_zones
from scheduler.timing.callee_zones import CalleeNumber
from scheduler.timing.number_facts import number_without_digits


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
        command_waiting=row.command_waiting,
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
