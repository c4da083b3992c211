"""Assembly of the API: builds its use cases from the settings, once per process."""

from dataclasses import dataclass, replace

from scheduler import failpoints
from scheduler.assembly import carrier_callbacks, context_of, marks_of, webhook_encryption
from scheduler.clock import Now
from scheduler.hashing import Hasher
from scheduler.persistence.database import Database
from scheduler.settings import Settings
from scheduler.use_cases.dry_run import DryRuns
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.operations.counts import Counts, Tallies
from scheduler.use_cases.operations.installation import InstallationMarks
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


@dataclass(frozen=True, kw_only=True)
class ApiUseCases:
    """The use cases of the API."""

    database: Database
    now: Now
    keys: Keys
    hasher: Hasher
    submit: Submit
    hear: Hear
    explain: Explain
    counts: Counts
    tallies: Tallies
    companies: Companies
    jobs: Jobs
    candidates: Candidates
    agents: Agents
    batches: Batches
    dry_runs: DryRuns
    owners: Owners
    usage: Usage
    events: Events
    webhooks: Webhooks
    webhook_deliveries: WebhookDeliveries
    health: Database
    """Only for health checks."""
    marks: InstallationMarks
    command_lookup: CommandLookup
    databases: tuple[Database, ...]
    """All connection pools: callbacks, key checks, health checks and lookups have their own."""


def api_use_cases(settings: Settings, hints: Hints) -> ApiUseCases:
    """Build the use cases of an API process. Raises MissingSetting."""
    failpoints.arm(settings.duecall_failpoint)

    def connected(pool_size: int) -> Database:
        # Development may use one role for all; row-level security applies only to a role that is bound by it.
        bound = True if settings.is_production else None
        return Database(settings.database("api"), pool_size=pool_size, bound=bound)

    database, for_keys, for_callbacks, for_health, for_lookups = map(connected, (8, 2, 3, 1, 2))
    context = context_of(settings, database)
    hasher, now = context.hasher, context.now
    writes = IdempotentWrites(database, now)
    return ApiUseCases(
        database=database,
        now=now,
        keys=Keys(for_keys, hasher, now),
        hasher=hasher,
        submit=Submit(database, hints, now),
        hear=Hear(replace(context, database=for_callbacks), hints, carrier_callbacks(settings)),
        explain=Explain(context),
        counts=Counts(context),
        tallies=Tallies(database),
        companies=Companies(database, writes, hints, settings.default_caller_id),
        jobs=Jobs(database, writes),
        candidates=Candidates(database, writes, hints),
        agents=Agents(database, writes),
        batches=Batches(database, writes, hints),
        dry_runs=DryRuns(context),
        owners=Owners(database, hasher, now),
        usage=Usage(database, now),
        events=Events(database),
        webhooks=Webhooks(
            database, writes, hints, webhook_encryption(settings), hasher, https_only=settings.is_production
        ),
        webhook_deliveries=WebhookDeliveries(database, writes, hints),
        health=for_health,
        marks=marks_of(settings, database),
        command_lookup=CommandLookup(for_lookups, Submit(for_lookups, hints, now), hints),
        databases=(database, for_keys, for_callbacks, for_health, for_lookups),
    )
