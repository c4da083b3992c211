"""An installation: its initial data, the sessions of its database, and the settings that belong to it."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from scheduler.clock import Now
from scheduler.domain.company import Company, NewCompany
from scheduler.domain.interview import Agent, AgentFocus, AgentType, NewAgent
from scheduler.domain.principal import SYSTEM, Act, KeyKind, TargetKind, Verb
from scheduler.domain.refusals import InvalidRequest, NotFound
from scheduler.ids import new_id
from scheduler.persistence.database import Database
from scheduler.persistence.errors import ClockWrong, WrongDatabase
from scheduler.persistence.stores import Stores
from scheduler.persistence.unknown_outcomes import OpenTransaction
from scheduler.rules import operators
from scheduler.timing import callee_zones
from scheduler.use_cases.resources.agents import add_agent
from scheduler.use_cases.resources.companies import add_company
from scheduler.use_cases.resources.keys import Keys, revocation
from scheduler.use_cases.shared.access import OperatorUseCase, require

_KEY_NAME = "duecall up"
_PER_MINUTE = 6000
_PER_HOUR = 360_000


@dataclass(frozen=True, kw_only=True)
class Seeded:
    company_id: UUID
    agent_id: UUID
    phone_number_id: UUID
    company_key: str
    ats_key: str


class Installation:
    def __init__(self, database: Database, keys: Keys, now: Now, actor: str = SYSTEM) -> None:
        self._database = database
        self._keys = keys
        self._now = now
        self._actor = actor

    def seed(self, caller_id: str) -> Seeded:
        """Seed the first company with number, agent and keys. Creates whatever is missing.

        A stored key cannot be shown again, so each run creates new keys and revokes those of the previous run. Raises
        PhoneNumberInvalid for an invalid caller id.
        """
        number = callee_zones.read_number(caller_id).e164
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            company = stores.companies.first() or _new_company(stores, "First company", new_id(now), now)
            number_id = stores.phone_numbers.add(new_id(now), company.id, number, now)
            agent = stores.agents.first(company.id) or _new_agent(stores, company, number_id, now)
            revoked = stores.keys.revoke_named(_KEY_NAME, now)
            stores.audit.add(self._actor, [revocation(each, None) for each in revoked], now)
        ats_principal = company.ats_principal_id
        assert ats_principal is not None
        return Seeded(
            company_id=company.id,
            agent_id=agent.id,
            phone_number_id=number_id,
            company_key=self._key(KeyKind.REGULAR, company.id, company.id),
            ats_key=self._key(KeyKind.ATS, ats_principal, None),
        )

    def _key(self, kind: KeyKind, principal_id: UUID, company_id: UUID | None) -> str:
        _, secret = self._keys.create(
            kind=kind,
            name=_KEY_NAME,
            company_id=company_id,
            principal_id=principal_id,
            per_minute=_PER_MINUTE,
            per_hour=_PER_HOUR,
        )
        return secret

    def add_company(self, name: str, caller_id: str) -> tuple[UUID, UUID]:
        """Create a company with a number and an agent. Return both ids. Raises PhoneNumberInvalid."""
        number = callee_zones.read_number(caller_id).e164
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            company = _new_company(stores, name, None, now)
            number_id = stores.phone_numbers.add(new_id(now), company.id, number, now)
            return company.id, _new_agent(stores, company, number_id, now).id

    def add_number(self, company_id: UUID, number: str, reason: str | None = None) -> UUID:
        """Add a caller number to a company. `reason` is for the audit, which does not contain the number.

        Raises PhoneNumberInvalid, InvalidPauseReason, NotFound.
        """
        reason = operators.optional(reason)
        e164 = callee_zones.read_number(number).e164
        with self._database.transaction() as stores:
            require(stores.companies.get(company_id), "company", company_id)
            now = stores.instant(self._now)
            new = new_id(now)
            number_id = stores.phone_numbers.add(new, company_id, e164, now)
            if number_id == new:
                act = Act(
                    verb=Verb.ADD_NUMBER,
                    target_kind=TargetKind.NUMBER,
                    target_id=number_id,
                    company_id=company_id,
                    reason=reason,
                )
                stores.audit.add(self._actor, [act], now)
            return number_id


def _new_company(stores: Stores, name: str, ats_principal_id: UUID | None, now: datetime) -> Company:
    return add_company(stores, NewCompany(name=name), ats_principal_id, now)


def _new_agent(stores: Stores, company: Company, number_id: UUID, now: datetime) -> Agent:
    new = NewAgent(
        name="Generic interviewer",
        type=AgentType.PHONE,
        focus=AgentFocus.GENERIC,
        language="EN",
        duration=timedelta(minutes=30),
        phone_number_id=number_id,
    )
    return add_agent(stores, company.id, new, now)


# --- Database sessions: an operator looks for the transaction that keeps a row locked, and ends its session


class DatabaseSessions(OperatorUseCase):
    def open_transactions(self) -> Sequence[OpenTransaction]:
        """List the open transactions of all programs, oldest first. Raises DatabaseAway."""
        with self._database.reading() as stores:
            return stores.open_transactions.all()

    def end(self, pid: int, reason: str) -> None:
        """End the session of an open transaction, which is rolled back.

        Raises InvalidPauseReason, NotFound, WrongRole, DatabaseAway.
        """
        reason = operators.checked(reason)
        with self._database.transaction() as stores:
            if not stores.open_transactions.end(pid):
                raise NotFound("No session with this id has an open transaction; `duecall locks list` has the ids.")
            act = Act(verb=Verb.END_DATABASE_SESSION, target_kind=TargetKind.ALL, reason=reason, before={"pid": pid})
            stores.audit.add(self._actor, [act], stores.instant(self._now))


# --- Settings that belong to the database: another pepper, carrier account or address is noticed at each start


PEPPER = "KEY_PEPPER"


class InstallationMarks:
    """`own` are the marks of this process's settings. A setting that this process does not have is not compared."""

    def __init__(self, database: Database, own: Mapping[str, bytes], now: Now, actor: str = SYSTEM) -> None:
        self._database = database
        self._own = own
        self._now = now
        self._actor = actor

    def check(self) -> None:
        """Raise WrongDatabase, which names the settings, if this database has those of another installation."""
        self._missing()

    def record(self) -> None:
        """Check, and write the marks that the database does not have yet. For workers. Raises as `check`."""
        missing = self._missing()
        if missing:
            # A worker with a wrong clock starts and waits. Another one, or its next start, writes them.
            with suppress(ClockWrong), self._database.transaction() as stores:
                stores.marks.add(missing, stores.instant(self._now))
            self._missing()

    def accept(self, reason: str | None = None) -> Sequence[str]:
        """Replace the marks of other settings by those of this process, and return their names.

        Raises InvalidRequest while a line is in use, for another pepper: its hash names the lines of all numbers, so
        the same person could be called twice. Raises InvalidPauseReason, ClockWrong, DatabaseAway.
        """
        reason = operators.optional(reason)
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            changed = _changed(stores.marks.all(), self._own)
            if not changed:
                return ()
            if PEPPER in changed and stores.marks.lines_in_use(now):
                raise InvalidRequest(_IN_USE)  # guard: pepper_of_lines
            stores.marks.replace(self._own, now)
            act = Act(
                verb=Verb.ACCEPT_SETTINGS, target_kind=TargetKind.ALL, reason=reason, after={"fields": list(changed)}
            )
            stores.audit.add(self._actor, [act], now)
        return changed

    def _missing(self) -> Mapping[str, bytes]:
        with self._database.statement() as stores:
            stored = stores.marks.all()
        changed = _changed(stored, self._own)
        if changed:
            raise WrongDatabase(  # guard: other_installation
                f"{' and '.join(changed)} differ from those of the installation that uses this database. Set the ones"
                " that it was created with, or another DATABASE_URL. After a change that is meant:"
                " duecall db accept --reason '...'"
            )
        return {setting: mark for setting, mark in self._own.items() if setting not in stored}


def _changed(stored: Mapping[str, bytes], own: Mapping[str, bytes]) -> Sequence[str]:
    """Name the settings that differ. With another pepper all marks differ, so only it is named."""
    changed = [setting for setting, mark in own.items() if stored.get(setting, mark) != mark]
    return [PEPPER] if PEPPER in changed else changed


_IN_USE = (
    "Another KEY_PEPPER makes every number a new one. While a call is pending or in progress, or a line waits for its"
    " gap, the same person could be called twice. Pause everything, cancel what is pending, and wait for LINE_GAP_S."
)
