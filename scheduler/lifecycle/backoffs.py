"""Who waits when the carrier refuses or fails some orders: those of one caller or one country, and nobody else.

A failure counts against the company and the number that it calls from before it counts against the carrier. The
account closes to everybody when two companies fail at the same time, or when the carrier does not answer a question. A
permission that our account lacks, for a country or a caller id, never closes it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from scheduler.domain.call import Accepted, CarrierAnswer, NeverTaken
from scheduler.lifecycle import breaker as breakers
from scheduler.lifecycle.breaker import PERMISSIONS, Breaker

T = TypeVar("T")

NO_COUNTRY = "001"
"""The country of numbers that belong to none, such as +800 (UN M49: the world)."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Which orders: those to a country, or those of a company from one of its numbers."""

    country: str | None = None
    """ISO 3166 alpha-2, or NO_COUNTRY."""
    company_id: UUID | None = None
    caller: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Where:
    """Between which ends an order goes, as far as others share it."""

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
    """How the carrier has answered the orders of one scope lately."""

    scope: Scope
    breaker: Breaker
    is_asked: bool = False
    """Whether the carrier was asked, since this opened, if it works at all."""
    others_work: bool = False
    """Whether the carrier has taken a call of another company since: then it is this company's own trouble."""

    @property
    def cause(self) -> str:
        return self.breaker.cause or ""

    @property
    def is_permission(self) -> bool:
        return self.cause in PERMISSIONS

    @property
    def speaks_of_the_carrier(self) -> bool:
        """Whether it may be the carrier that fails, and not this company's orders."""
        return not self.is_permission and not self.others_work

    def is_to_be_asked(self, now: datetime) -> bool:
        """Whether to ask the carrier: at once whether it works at all, and later before an order is tried."""
        is_new = self.breaker.is_down and self.speaks_of_the_carrier and not self.is_asked
        return is_new or self.breaker.is_to_be_asked(now)


Backoffs = Mapping[Scope, Backoff]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What answers make of the account's breaker and of the back-offs."""

    account: Breaker
    backoffs: Backoffs
    opened: tuple[Backoff, ...] = ()
    """Those whose orders wait from now on, or longer."""


def judge(
    account: Breaker,
    backoffs: Backoffs,
    answers: Sequence[tuple[Where, CarrierAnswer]],
    companies: int,
    now: datetime,
) -> Verdict:
    """`companies` is how many the installation has, two standing for more: the failures of the only one are all."""
    worked = [(where, answer) for where, answer in answers if breakers.shows_that_it_works(answer)]
    held = _after_those_that_worked(backoffs, worked)
    causes = [(where, cause) for where, answer in answers if (cause := breakers.cause_of(answer)) is not None]
    judged = account
    if worked and not account.is_down and not any(breakers.opens_at_once(cause) for _, cause in causes):
        judged = Breaker()
    sound = {where.of_caller for where, _ in worked}
    for where, cause in causes:
        if cause in breakers.NEEDS_A_PERSON:
            judged = breakers.after_failure(judged, cause, now)
        elif not judged.is_down and (where.of_caller not in sound or breakers.opens_at_once(cause)):
            judged = _after_one_that_failed(judged, held, where, cause, companies, now)
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


def _after_those_that_worked(backoffs: Backoffs, worked: Sequence[tuple[Where, CarrierAnswer]]) -> dict[Scope, Backoff]:
    """A call sent before a back-off opened neither ends nor lengthens it."""
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


def _after_one_that_failed(
    account: Breaker, held: dict[Scope, Backoff], where: Where, cause: str, companies: int, now: datetime
) -> Breaker:
    """The account's breaker; `held` is changed. If only one company calls, its failures count for the account."""
    if companies <= 1:
        return breakers.after_failure(account, cause, now)
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
    return breakers.after_failure(account, cause, now, may_open=len(failing) > 1)


def _refuse(held: dict[Scope, Backoff], scope: Scope, cause: str, now: datetime) -> None:
    """The first refusal is enough: each further order would be refused for the same reason."""
    before = held.get(scope)
    if before is not None and before.breaker.is_down:
        return
    after = breakers.after_refusal(Breaker() if before is None else before.breaker, cause, now)
    held[scope] = Backoff(scope=scope, breaker=after)


def without_the_carriers(backoffs: Backoffs) -> dict[Scope, Backoff]:
    """Those that stay when the account has closed: what spoke of the carrier is told by the account from now on."""
    return {scope: each for scope, each in backoffs.items() if not each.speaks_of_the_carrier}


def while_asked(each: Backoff, now: datetime) -> Backoff:
    """While the question is out, and if no good answer comes."""
    if each.breaker.is_to_be_asked(now):
        return replace(each, breaker=breakers.while_asked(each.breaker, now), is_asked=True)
    return replace(each, is_asked=True)


def after_answer(before: Backoff, now: datetime) -> Backoff:
    """The carrier works: an order of this scope is tried when its wait is over, and not before."""
    if before.breaker.is_to_be_asked(now):
        return replace(before, breaker=breakers.after_answer(before.breaker, now), is_asked=True)
    return replace(before, is_asked=True)


def held_back(backoffs: Backoffs, orders: Iterable[tuple[T, Where]], being_placed: Iterable[Where]) -> frozenset[T]:
    """Those that may not be claimed now: their scope is down, or on trial, and its one trial is another's."""
    on_trial = {scope for where in being_placed for scope in where.scopes}
    held = set()
    for order, where in orders:
        mine = [backoffs[scope] for scope in where.scopes if scope in backoffs]
        tried = [each.scope for each in mine if each.breaker.is_on_trial]
        if any(each.breaker.is_down for each in mine) or on_trial.intersection(tried):  # guard: backoff
            held.add(order)
            continue
        on_trial.update(tried)
    return frozenset(held)
