"""Assembly of the console: builds its use cases and its sign-in from the settings, and the resources of its process."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar, cast

from jinja2 import Environment
from starlette.requests import HTTPConnection

from api_shim.thread_pools import ThreadPool, run_in_thread
from console.identity_provider import Provider
from console.live import Live
from console.oidc import SignIn
from console.reads.attempts import AttemptLists, AttemptPages
from console.reads.calendar import Calendars
from console.reads.find import Find, SearchLimit
from console.reads.installation import CompanyPages, KeyPages, OperatorPages
from console.security import Address
from console.sessions import ConsoleSessions
from scheduler.assembly import context_of, marks_of
from scheduler.domain.principal import SYSTEM, OperatorRole
from scheduler.hashing import Hasher
from scheduler.persistence.database import Database
from scheduler.persistence.stores import Stores
from scheduler.settings import Settings
from scheduler.use_cases.operations.erase import Certificates
from scheduler.use_cases.operations.pauses import Pauses
from scheduler.use_cases.operations.quarantine import Quarantine
from scheduler.use_cases.operations.unknown_outcomes import OperatorCommands, UnknownOutcomes
from scheduler.use_cases.operations.webhooks import WebhookOperations
from scheduler.use_cases.resources.keys import Keys
from scheduler.use_cases.shared.alarms import Acts, Alarms
from scheduler.use_cases.shared.hints import Hints
from workers.liveness import Presence


class ConsoleUseCases:
    """The use cases of the operators' console. Their database reads no personal data."""

    def __init__(self, settings: Settings, hints: Hints) -> None:
        """Build them for a console process. Raises MissingSetting."""
        database = Database(settings.database("operator"), pool_size=4, operates=True)
        context = context_of(settings, database)
        now = context.now
        self.database = database
        self.now = now
        self.hints = hints
        self.sessions = ConsoleSessions(database, context.hasher, now)
        self.pages = OperatorPages(context)
        self.calendars = Calendars(context)
        self.attempt_pages = AttemptPages(context)
        self.find = Find(database, context.hasher)
        self.company_pages = CompanyPages(context)
        self.key_pages = KeyPages(database, now)
        self.hasher = context.hasher
        self.certificates = Certificates(database)
        self.audit = Acts(database)
        self.marks = marks_of(settings, database)
        self.attempt_lists = AttemptLists(database, now)

    def unknown_outcomes(self, actor: str = SYSTEM) -> UnknownOutcomes:
        return UnknownOutcomes(self.database, self.now, actor)

    def quarantine(self, actor: str = SYSTEM) -> Quarantine:
        return Quarantine(self.database, self.now, actor)

    def alarms(self, actor: str = SYSTEM) -> Alarms:
        return Alarms(self.database, self.now, actor)

    def webhooks(self, actor: str = SYSTEM) -> WebhookOperations:
        return WebhookOperations(self.database, self.now, actor)

    def keys(self, actor: str) -> Keys:
        """Build the use case of this operator, who is named in the audit."""
        return Keys(self.database, self.hasher, self.now, actor)

    def pauses(self, actor: str = SYSTEM) -> Pauses:
        """Build the use case of this operator, who is named in the audit."""
        return Pauses(self.database, self.now, actor)

    def commands(self, actor: str) -> OperatorCommands:
        """Build the use case of this operator, who is named in the audit and in the history of attempts."""
        return OperatorCommands(self.database, self.now, actor, self.hints)


def oidc_sign_in(settings: Settings) -> SignIn | None:
    """Build the sign-in with the identity provider of the settings. None: operators sign in with links only."""
    issuer, client_id = settings.console_oidc_issuer, settings.console_oidc_client_id
    secret = settings.console_oidc_client_secret
    if issuer is None or client_id is None or secret is None:
        return None
    return SignIn(
        Provider(issuer, client_id, secret.get_secret_value()),
        Hasher(settings.key_pepper.get_secret_value()),
        redirect_uri=f"{settings.console_url}/sign-in/callback",
        after_sign_out_uri=f"{settings.console_url}/sign-in",
        scope=settings.console_oidc_scope,
        roles_claim=settings.console_oidc_roles_claim,
        roles={
            OperatorRole.VIEWER: settings.console_oidc_viewer_role,
            OperatorRole.OPERATOR: settings.console_oidc_operator_role,
            OperatorRole.ADMIN: settings.console_oidc_admin_role,
        },
    )


# --- The resources of one console process


P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ConsoleContext:
    """Created once, inside the event loop that serves."""

    use_cases: ConsoleUseCases
    threads: ThreadPool
    templates: Environment
    presence: Presence
    live: Live
    schema_head: str
    """The migration that this version needs."""
    address: Address
    searches: SearchLimit = field(default_factory=SearchLimit)
    oidc: SignIn | None = None
    """Sign-in with the identity provider of the settings, if any."""
    docs_url: str | None = None
    """Address of the folder docs, for links."""
    instance: str | None = None
    """Id of the `duecall up` that runs this process, if any."""

    async def run(self, verb: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a use case in a thread. Raises its errors, and DatabaseAway at the request's deadline."""
        return await run_in_thread(self.threads, verb, *args, **kwargs)

    async def read(self, rows: Callable[[Stores], T]) -> T:
        """Read rows in one transaction, for a list that shows them as they are. Raises DatabaseAway."""

        def reading() -> T:
            with self.use_cases.database.reading() as stores:
                return rows(stores)

        return await self.run(reading)


def console_context(connection: HTTPConnection) -> ConsoleContext:
    return cast("ConsoleContext", connection.app.state.console_context)
