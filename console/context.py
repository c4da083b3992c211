"""The resources of one console process."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar, cast

from jinja2 import Environment
from starlette.requests import HTTPConnection

from api_shim.context import run_in_thread
from api_shim.thread_pools import ThreadPool
from console.assembly import ConsoleUseCases
from console.live import Live
from console.oidc.sign_in import SignIn
from console.operator_session import SearchLimit
from console.security import Address
from workers.liveness import Presence

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


def console_context(connection: HTTPConnection) -> ConsoleContext:
    return cast("ConsoleContext", connection.app.state.console_context)
