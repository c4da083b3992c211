"""Assembly of the API: builds its use cases from the settings, once per process."""

from dataclasses import replace

from scheduler import failpoints
from scheduler.assembly import carrier_callbacks, context_of, marks_of, webhook_encryption
from scheduler.persistence.database import Database
from scheduler.settings import Settings
from scheduler.use_cases.dry_run import DryRuns
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.operations.counts import Counts, Tallies
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


class ApiUseCases:
    """The use cases of the API."""

    def __init__(self, settings: Settings, hints: Hints) -> None:
        """Build them for an API process. Raises MissingSetting."""
        failpoints.arm(settings.duecall_failpoint)

        def connected(pool_size: int) -> Database:
            # Development may use one role for all; row-level security applies only to a role that is bound by it.
            bound = True if settings.is_production else None
            return Database(settings.database("api"), pool_size=pool_size, bound=bound)

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
