"""Back-offs: after refusals or failures of the carrier, only orders of the same caller or to the same country wait.

A failure counts against the company and its caller number before it counts against the carrier. The breaker of the
whole account opens when two companies fail at the same time, or when the carrier does not answer a probe. A permission
that our account lacks, for a country or a caller id, never opens it.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from scheduler.domain.call import Accepted, CarrierAnswer, NeverTaken
from scheduler.lifecycle import breaker as breakers
from scheduler.lifecycle import voice_server
from scheduler.lifecycle.breaker import PERMISSIONS, Breaker

T = TypeVar("T")

NO_COUNTRY = "001"
"""The code for numbers without a country, such as +800 (UN M49: the world)."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """The orders that a back-off affects: those to a country, or those of a company from one of its numbers."""

    country: str | None = None
    """ISO 3166 alpha-2, or NO_COUNTRY."""
    company_id: UUID | None = None
    caller: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Where:
    """The caller and destination of an order, as far as other orders share them."""

    company_id: UUID
    caller: str = field(repr=False)
    country: str

    @property
    def of_caller(self) -> Scope:
        return Scope(company_id=self.company_id, caller=self.caller)

    @property
    def of_country(self) -> Scope:
        return Scope(country=self.country)

    @property
    def scopes(self) -> tuple[Scope, Scope]:
        return (self.of_country, self.of_caller)


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """The carrier's recent answers to the orders of one scope."""

    scope: Scope
    breaker: Breaker
    is_asked: bool = False
    """Whether the carrier was probed after this back-off opened."""
    others_work: bool = False
    """Whether the carrier has accepted a call of another company since, so that only this company is affected."""

    @property
    def cause(self) -> str:
        return self.breaker.cause or ""

    @property
    def is_permission(self) -> bool:
        return self.cause in PERMISSIONS

    @property
    def speaks_of_the_carrier(self) -> bool:
        """True if the carrier itself may be failing, and not only this company's orders."""
        return not self.is_permission and not self.others_work

    def is_to_be_asked(self, now: datetime) -> bool:
        """Return whether to probe the carrier: once right after the opening, and later before each trial order."""
        is_new = self.breaker.is_down and self.speaks_of_the_carrier and not self.is_asked
        return is_new or self.breaker.is_to_be_asked(now)


Backoffs = Mapping[Scope, Backoff]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The account's breaker and the back-offs after some answers."""

    account: Breaker
    backoffs: Backoffs
    opened: tuple[Backoff, ...] = ()
    """Back-offs that opened or were extended."""


def judge(
    account: Breaker,
    backoffs: Backoffs,
    answers: Sequence[tuple[Where, CarrierAnswer]],
    companies: int,
    now: datetime,
) -> Verdict:
    """Apply the carrier's answers. `companies` is 0, 1 or 2 (for more): a single company's failures count for all."""
    worked = [(where, answer) for where, answer in answers if breakers.shows_that_it_works(answer)]
    held = _after_those_that_worked(backoffs, worked)
    causes = [(where, cause) for where, answer in answers if (cause := breakers.cause_of(answer)) is not None]
    judged = account
    if worked and not account.is_down and not any(breakers.opens_at_once(cause) for _, cause in causes):
        judged = _after_work(account, [answer for _, answer in worked], now)
    judged = _after_those_that_failed(judged, held, causes, {where.of_caller for where, _ in worked}, companies, now)
    for where, answer in answers:
        if isinstance(answer, NeverTaken) and answer.cause in PERMISSIONS:
            _refuse(held, where.of_country if answer.cause == "COUNTRY_REFUSED" else where.of_caller, answer.cause, now)
    if judged.is_down and not account.is_down:
        held = without_the_carriers(held)
    opened = tuple(
        each
        for scope, each in held.items()
        if each.breaker.is_down and (scope not in backoffs or backoffs[scope].breaker != each.breaker)
    )
    return Verdict(account=judged, backoffs=held, opened=opened)


def with_refused_countries(
    answers: Sequence[tuple[Where, CarrierAnswer]], blocked: Collection[str]
) -> list[tuple[Where, CarrierAnswer]]:
    """Read the answer that a number is blocked as a refused country, for countries with several blocked numbers."""
    refused = NeverTaken(cause="COUNTRY_REFUSED")
    return [
        (where, refused if breakers.is_number_blocked(answer) and where.country in blocked else answer)
        for where, answer in answers
    ]


def _after_work(account: Breaker, worked: Sequence[CarrierAnswer], now: datetime) -> Breaker:
    """Compute the account's breaker after good answers. A trial of the voice server is decided only later."""
    if voice_server.is_down(account):  # guard: voice_trial
        is_placed = any(isinstance(answer, Accepted) for answer in worked)
        return voice_server.after_trial_was_placed(account, now) if is_placed else account
    return Breaker()


def _after_those_that_worked(backoffs: Backoffs, worked: Sequence[tuple[Where, CarrierAnswer]]) -> dict[Scope, Backoff]:
    """Compute the back-offs after successful calls. A call sent before a back-off opened does not change it."""
    ended: set[Scope] = set()
    for where, answer in worked:
        if isinstance(answer, Accepted):
            ended.update(where.scopes)
        elif where.of_caller in backoffs and not backoffs[where.of_caller].is_permission:
            ended.add(where.of_caller)
    taken_of = {where.company_id for where, _ in worked}
    held = {}
    for scope, each in backoffs.items():
        if scope in ended and not each.breaker.is_down:
            continue
        others_work = each.others_work or bool(taken_of - {scope.company_id})
        held[scope] = replace(each, others_work=others_work) if not each.is_permission else each
    return held


def _after_those_that_failed(
    account: Breaker,
    held: dict[Scope, Backoff],
    causes: Sequence[tuple[Where, str]],
    working: Collection[Scope],
    companies: int,
    now: datetime,
) -> Breaker:
    """Compute the account's breaker and update `held`. `working` are callers with a successful call."""
    for where, cause in causes:
        if cause in breakers.NEEDS_A_PERSON:
            account = _after_failure(account, cause, now)
        elif not account.is_down and (where.of_caller not in working or breakers.opens_at_once(cause)):
            account = _after_one_that_failed(account, held, where, cause, companies, now)
    return account


def _after_one_that_failed(
    account: Breaker, held: dict[Scope, Backoff], where: Where, cause: str, companies: int, now: datetime
) -> Breaker:
    """Compute the account's breaker and update `held`. The failures of an only company open the account's."""
    if companies <= 1:
        return _after_failure(account, cause, now)
    before = held.get(where.of_caller, Backoff(scope=where.of_caller, breaker=Breaker()))
    if before.is_permission and before.breaker.is_down:
        return account
    after = breakers.after_failure(before.breaker, cause, now)
    is_new = after != before.breaker and not before.breaker.is_on_trial
    held[where.of_caller] = replace(before, breaker=after, is_asked=before.is_asked and not is_new)
    if before.others_work and after.is_down:
        return account
    failing = {
        each.scope.company_id
        for each in held.values()
        if each.scope.company_id is not None and each.speaks_of_the_carrier and each.breaker.failures
    }
    return _after_failure(account, cause, now, may_open=len(failing) > 1)


def _after_failure(account: Breaker, cause: str, now: datetime, *, may_open: bool = True) -> Breaker:
    """Compute the account's breaker. A failure of the carrier does not end an outage of the voice server."""
    judged = breakers.after_failure(account, cause, now, may_open=may_open)
    if voice_server.is_down(account):  # guard: voice_cause
        judged = voice_server.after_carrier_failure(account, judged)
    return judged


def _refuse(held: dict[Scope, Backoff], scope: Scope, cause: str, now: datetime) -> None:
    """Open a back-off after the first refusal: further orders would be refused for the same reason."""
    before = held.get(scope)
    if before is not None and before.breaker.is_down:
        return
    after = breakers.after_refusal(Breaker() if before is None else before.breaker, cause, now)
    held[scope] = Backoff(scope=scope, breaker=after)


def without_the_carriers(backoffs: Backoffs) -> dict[Scope, Backoff]:
    """Keep the back-offs that remain when the account's breaker opens: it replaces those about the carrier."""
    return {scope: each for scope, each in backoffs.items() if not each.speaks_of_the_carrier}


def while_asked(each: Backoff, now: datetime) -> Backoff:
    """Compute the back-off during a probe, which also applies if the probe fails."""
    if each.breaker.is_to_be_asked(now):
        return replace(each, breaker=breakers.while_asked(each.breaker, now), is_asked=True)
    return replace(each, is_asked=True)


def after_answer(before: Backoff, now: datetime) -> Backoff:
    """Compute the back-off after a successful probe. An order of this scope is tried only after its wait."""
    if before.breaker.is_to_be_asked(now):
        return replace(before, breaker=breakers.after_answer(before.breaker, now), is_asked=True)
    return replace(before, is_asked=True)


def held_back(backoffs: Backoffs, orders: Iterable[tuple[T, Where]], being_placed: Iterable[Where]) -> frozenset[T]:
    """Find the orders that may not be claimed now: their scope is down, or on trial with another order."""
    on_trial = {scope for where in being_placed for scope in where.scopes}
    held = set()
    for order, where in orders:
        own = [backoffs[scope] for scope in where.scopes if scope in backoffs]
        tried = [each.scope for each in own if each.breaker.is_on_trial]
        if any(each.breaker.is_down for each in own) or on_trial.intersection(tried):  # guard: backoff
            held.add(order)
            continue
        on_trial.update(tried)
    return frozenset(held)
