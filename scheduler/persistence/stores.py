"""The stores of one transaction, and its clock."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy
from sqlalchemy import text

from scheduler.clock import Now, monotonic
from scheduler.lifecycle import policy
from scheduler.persistence import alarms, owners, resources, unknown_outcomes, voice_failures, webhook_endpoints
from scheduler.persistence.attempt_claims import AttemptClaims
from scheduler.persistence.attempt_counts import AttemptCounts
from scheduler.persistence.attempt_holds import AttemptHolds
from scheduler.persistence.attempt_polls import AttemptPolls
from scheduler.persistence.attempt_release import AttemptRelease
from scheduler.persistence.attempts import Attempts
from scheduler.persistence.backoffs import CarrierBackoffs
from scheduler.persistence.batches import Batches
from scheduler.persistence.caller_days import CallerDays
from scheduler.persistence.candidates import Candidates
from scheduler.persistence.carrier_accounts import CarrierAccounts
from scheduler.persistence.carrier_events import CarrierEvents
from scheduler.persistence.companies import Companies
from scheduler.persistence.connection import Connection
from scheduler.persistence.conversations import Conversations
from scheduler.persistence.corrections import Corrections
from scheduler.persistence.due_calls import DueCalls
from scheduler.persistence.erasures import Erasures
from scheduler.persistence.errors import ClockWrong
from scheduler.persistence.events import Events
from scheduler.persistence.evidence import EvidenceRows
from scheduler.persistence.inbox import Inbox
from scheduler.persistence.interviews import Interviews
from scheduler.persistence.keys import Keys
from scheduler.persistence.keyset import CompanyAttempts
from scheduler.persistence.last_looks import Lines
from scheduler.persistence.marks import Marks
from scheduler.persistence.quarantine import Quarantine
from scheduler.persistence.schedule_recomputations import ScheduleRecomputations
from scheduler.persistence.store import Statements, Write
from scheduler.persistence.tallies import Tallies
from scheduler.persistence.usage import Usage
from scheduler.persistence.webhook_deliveries import WebhookDeliveries
from scheduler.persistence.webhook_history import WebhookHistory
from scheduler.rules import operators

_ON_BEHALF_OF = text(
    "SELECT set_config('duecall.principal_id', :principal_id, true) AS principal_id,"
    " set_config('duecall.company_id', :company_id, true) AS company_id"
)

DUE_CHANNEL = "duecall_due"
"""Notified when an attempt became due at once or soon, so that it does not wait for the clock's next tick."""

_NOTIFY_CHANNEL = text("SELECT pg_notify(:channel, '')")


def _notify(connection: Connection, channels: Sequence[str]) -> None:
    for channel in channels:
        connection.execute(_NOTIFY_CHANNEL, {"channel": channel})


_NOTIFY = Write(execute=_notify, turn=9, merge=lambda first, _: first)


@dataclass(frozen=True, kw_only=True)
class CheckedClock:
    """This process's clock within one transaction, which has compared it with the database's."""

    comparison: operators.Comparison
    machine: Now
    is_corrected: bool
    """A wrong clock is corrected by the database's clock instead of being rejected."""

    def instant(self, now: Now) -> datetime:
        """Read `now`. Raises ClockWrong when the clock was set since the comparison."""
        instant = now()
        # Read after `now`: a step in between is then noticed too.
        ahead = self.ahead()
        if not operators.is_wrong(ahead):
            return instant
        if self.is_corrected:
            return instant - ahead
        raise ClockWrong  # guard: clock_step

    def ahead(self) -> timedelta:
        return self.comparison.ahead(self.machine(), monotonic())

    def noticed_ahead(self) -> timedelta:
        """Compute how far this machine's clock is certainly ahead of the database's. Zero if that is uncertain."""
        ahead = self.ahead()
        return ahead if ahead > policy.NOTICED_CLOCK_SKEW else timedelta()


class Stores:
    """The stores of one transaction, one a noun."""

    def __init__(  # noqa: PLR0915 - one line a store
        self, connection: sqlalchemy.Connection, clock: CheckedClock | None, history_key: bytes | None = None
    ) -> None:
        """`clock` is None in a transaction that only reads. `history_key` is that of the database."""
        self.connection = statements = Statements(connection, history_key)
        self.clock = clock
        self.agents = resources.Agents(statements)
        self.alarms = alarms.Alarms(statements)
        self.attempt_holds = AttemptHolds(statements)
        self.attempt_release = AttemptRelease(statements)
        self.attempt_cancellations = unknown_outcomes.AttemptCancellations(statements)
        self.attempt_claims = AttemptClaims(statements)
        self.attempt_polls = AttemptPolls(statements)
        self.attempt_counts = AttemptCounts(statements)
        self.attempts = Attempts(statements)
        self.audit = alarms.Audit(statements)
        self.backoffs = CarrierBackoffs(statements)
        self.batches = Batches(statements)
        self.caller_days = CallerDays(statements)
        self.candidates = Candidates(statements)
        self.carrier_accounts = CarrierAccounts(statements)
        self.carrier_events = CarrierEvents(statements)
        self.companies = Companies(statements)
        self.company_attempts = CompanyAttempts(statements)
        self.conversations = Conversations(statements)
        self.corrections = Corrections(statements)
        self.due_calls = DueCalls(statements)
        self.erasures = Erasures(statements)
        self.events = Events(statements)
        self.evidence = EvidenceRows(statements)
        self.external_ids = resources.ExternalIds(statements)
        self.inbox = Inbox(statements)
        self.interviews = Interviews(statements)
        self.invitations = owners.Invitations(statements)
        self.jobs = resources.Jobs(statements)
        self.keys = Keys(statements)
        self.lines = Lines(statements)
        self.marks = Marks(statements)
        self.memberships = owners.Memberships(statements)
        self.phone_numbers = resources.PhoneNumbers(statements)
        self.open_transactions = unknown_outcomes.OpenTransactions(statements)
        self.quarantine = Quarantine(statements)
        self.schedule_recomputations = ScheduleRecomputations(statements)
        self.voice_failures = voice_failures.VoiceFailures(statements)
        self.stray_calls = unknown_outcomes.StrayCalls(statements)
        self.unknown_outcomes = unknown_outcomes.UnknownOutcomes(statements)
        self.tallies = Tallies(statements)
        self.usage = Usage(statements)
        self.users = owners.Users(statements)
        self.webhook_deliveries = WebhookDeliveries(statements)
        self.webhook_endpoints = webhook_endpoints.WebhookEndpoints(statements)
        self.webhook_notices = webhook_endpoints.WebhookNotices(statements)
        self.webhook_history = WebhookHistory(statements)
        self.webhook_overview = webhook_endpoints.WebhookOverview(statements)

    def instant(self, now: Now) -> datetime:
        """Read `now` for this transaction to write. Its clock was compared with the database's.

        May be called again after a wait for a lock. Raises ClockWrong when the clock was set since the comparison.
        """
        assert self.clock is not None, "a transaction that only reads writes no time"
        return self.clock.instant(now)

    def noticed_ahead(self) -> timedelta:
        """Compute how far this machine's clock is certainly ahead of the database's. Zero if that is uncertain."""
        assert self.clock is not None, "a transaction that only reads compares no clocks"
        return self.clock.noticed_ahead()

    def act_for_company(self, company_id: UUID) -> None:
        """Let this transaction see the rows of the company.

        For callers without an API key that have proved their permission otherwise, by the token of an invitation.
        """
        self.connection.execute(_ON_BEHALF_OF, {"principal_id": "", "company_id": str(company_id)})

    def notify_if_due_soon(self, due_at: datetime, now: datetime) -> None:
        """Wake the clock when this commits if an attempt is due before the clock would see it by itself."""
        if due_at <= now + policy.RELEASE_AHEAD:
            self.notify_due()

    def notify_due(self) -> None:
        """Wake the clock when this commits."""
        self.connection.write(_NOTIFY, DUE_CHANNEL, DUE_CHANNEL)
