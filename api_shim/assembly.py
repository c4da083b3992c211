"""Assembly of the API: builds its use cases from the settings, and the resources of its process."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import ParamSpec, TypeVar, cast
from uuid import UUID

from starlette.requests import HTTPConnection

from api_shim.answer_waiter import AnswerWaiter
from api_shim.http_metrics import RecentValue
from api_shim.rate_limits import RateLimits, Uploads
from api_shim.thread_pools import ThreadPools, run_in_thread
from scheduler import failpoints
from scheduler.assembly import carrier_callbacks, context_of, history_key, marks_of, webhook_encryption
from scheduler.clock import deadline_in, remaining_s
from scheduler.domain.command import Command
from scheduler.domain.principal import Principal
from scheduler.persistence.carrier_events import NewCarrierEvent
from scheduler.persistence.database import Database
from scheduler.persistence.errors import Commit, DatabaseAway, Outcome
from scheduler.settings import Settings
from scheduler.use_cases.dry_run import DryRuns
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.operations.counts import Counts, Tallies
from scheduler.use_cases.operations.evidence import CallEvidence
from scheduler.use_cases.resources.agents import Agents, Jobs
from scheduler.use_cases.resources.batches import Batches
from scheduler.use_cases.resources.candidates import Candidates
from scheduler.use_cases.resources.companies import Companies, Usage
from scheduler.use_cases.resources.idempotent_writes import CommandLookup, IdempotentWrites
from scheduler.use_cases.resources.keys import Keys
from scheduler.use_cases.resources.owners import Owners
from scheduler.use_cases.resources.webhooks import Events, WebhookDeliveries, Webhooks
from scheduler.use_cases.shared.hints import Hints
from scheduler.use_cases.submit import Submit
from workers.liveness import Presence


class ApiUseCases:
    """The use cases of the API."""

    def __init__(self, settings: Settings, hints: Hints) -> None:
        """Build them for an API process. Raises MissingSetting."""
        failpoints.arm(settings.duecall_failpoint)

        def connected(pool_size: int) -> Database:
            # Development may use one role for all; row-level security applies only to a role that is bound by it.
            bound = True if settings.is_production else None
            return Database(
                settings.database("api"), pool_size=pool_size, bound=bound, history_key=history_key(settings)
            )

        database, for_keys, for_callbacks, for_health, for_lookups = map(connected, (8, 2, 3, 1, 2))
        context = context_of(settings, database)
        hasher, now = context.hasher, context.now
        writes = IdempotentWrites(database, now)
        self.database = database
        self.now = now
        self.keys = Keys(for_keys, hasher, now)
        self.hasher = hasher
        self.submit = Submit(database, hints, now)
        self.hear = Hear(replace(context, database=for_callbacks), hints, carrier_callbacks(settings))
        self.explain = Explain(context)
        self.evidence = CallEvidence(context)
        self.counts = Counts(context)
        self.tallies = Tallies(database)
        self.companies = Companies(database, writes, hints, settings.default_caller_id)
        self.jobs = Jobs(database, writes)
        self.candidates = Candidates(database, writes, hints)
        self.agents = Agents(database, writes)
        self.batches = Batches(database, writes, hints)
        self.dry_runs = DryRuns(context)
        self.owners = Owners(database, hasher, now)
        self.usage = Usage(database, now)
        self.events = Events(database)
        self.webhooks = Webhooks(
            database, writes, hints, webhook_encryption(settings), hasher, https_only=settings.is_production
        )
        self.webhook_deliveries = WebhookDeliveries(database, writes, hints)
        self.health = for_health  # only for health checks
        self.marks = marks_of(settings, database)
        self.command_lookup = CommandLookup(for_lookups, Submit(for_lookups, hints, now), hints)
        # All connection pools: callbacks, key checks, health checks and lookups have their own.
        self.databases = (database, for_keys, for_callbacks, for_health, for_lookups)


# --- The resources of one API process


P = ParamSpec("P")
T = TypeVar("T")

DOUBT_S = 3.0
"""Time to determine the outcome of a commit in doubt, after the deadline too: the client needs a certain answer."""
COUNTED_EVERY_S = 5.0
"""Shortest time between two counts for `/metrics` in one process, however many clients read it."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.5


@dataclass(frozen=True, kw_only=True)
class AppContext:
    """The resources of one API process. Created once, inside the event loop that serves."""

    use_cases: ApiUseCases
    waiter: AnswerWaiter
    schema_head: str
    """The migration that this version needs."""
    threads: ThreadPools
    store_callback: Callable[[NewCarrierEvent], Awaitable[None]]
    """See `CallbackBatches.store`."""
    find_command: Callable[[Principal, UUID], Awaitable[Command]]
    """See `CommandReads.find`."""
    rate_limits: RateLimits
    presence: Presence
    """Reports which workers and clocks are live."""
    uploads: Uploads = field(default_factory=Uploads)
    instance: str | None = None
    """Id of the `duecall up` that runs this process, if any."""
    counted: RecentValue[bytes] = field(default_factory=lambda: RecentValue(COUNTED_EVERY_S))
    """The rendered counts of `/metrics`, over all companies."""
    reached: set[tuple[UUID, UUID]] = field(default_factory=set)
    """ATS principals with companies that they have created, as far as this process knows. Neither changes."""
    notes: dict[UUID, asyncio.Task[None]] = field(default_factory=dict)
    """Background tasks that store the last use of a key, by key id."""

    async def ask(self, verb: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a use case that changes nothing. Raises its errors, and DatabaseAway at the deadline."""
        return await run_in_thread(self.threads.requests, verb, *args, **kwargs)

    async def outcome(self, commit: Commit) -> Outcome:
        """Determine over another connection how a commit in doubt ended, for at most 3 s."""
        if commit.transaction_id is None:
            return Outcome.UNKNOWN
        pause = _FIRST_PAUSE_S
        with deadline_in(DOUBT_S):
            while (left := remaining_s()) is not None and left > 0:
                try:
                    outcome = await run_in_thread(
                        self.threads.lookups, self.use_cases.command_lookup.outcome_of, commit.transaction_id
                    )
                except DatabaseAway:
                    outcome = Outcome.UNKNOWN
                if outcome is not Outcome.UNKNOWN:
                    return outcome
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_S)
        return Outcome.UNKNOWN


def app_context(connection: HTTPConnection) -> AppContext:
    """Get the resources of the process that serves this request."""
    return cast("AppContext", connection.app.state.app_context)
