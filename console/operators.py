"""The operator of a request, and the role that a route needs."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import Response

from console.assembly import console_context
from console.stores.sessions import SESSION_LASTS, ConsoleSession
from scheduler.domain.principal import OperatorRole
from scheduler.persistence.errors import ClockWrong, DatabaseAway

_SECURE_COOKIE, _COOKIE = "__Host-duecall", "duecall-console"


class NotSignedIn(Exception):
    """The request has no valid session."""


class RoleMissing(Exception):
    """The operator may not do this. The argument is the role that may."""

    def __init__(self, needed: OperatorRole) -> None:
        super().__init__(needed)
        self.needed = needed


def needs(role: OperatorRole) -> Callable[[Request], Awaitable[ConsoleSession]]:
    """Build a dependency that returns the operator's session. It raises NotSignedIn, RoleMissing, DatabaseAway."""

    async def session_of(request: Request) -> ConsoleSession:
        session = await _current(request)
        if session is None:
            raise NotSignedIn
        request.state.session = session
        if not session.role.may(role):
            raise RoleMissing(role)
        return session

    return session_of


viewer = needs(OperatorRole.VIEWER)
operator = needs(OperatorRole.OPERATOR)
admin = needs(OperatorRole.ADMIN)


async def find_session(request: Request) -> None:
    """Give an error page the navigation of a signed-in operator, if the database can be reached."""
    with suppress(ClockWrong, DatabaseAway):
        request.state.session = await _current(request)


def cookie_of(request: Request) -> str | None:
    """Read the secret of the session's cookie, if there is one."""
    return request.cookies.get(_cookie_name(request))


def set_cookie(request: Request, response: Response, secret: str) -> None:
    """Sign the browser in. Scripts cannot read the cookie, and no request from another site carries it."""
    response.set_cookie(
        _cookie_name(request),
        secret,
        max_age=int(SESSION_LASTS.total_seconds()),
        secure=console_context(request).address.is_secure,
        httponly=True,
        samesite="strict",
        path="/",
    )


def delete_cookie(request: Request, response: Response) -> None:
    secure = console_context(request).address.is_secure
    response.delete_cookie(_cookie_name(request), secure=secure, httponly=True, samesite="strict", path="/")


def _cookie_name(request: Request) -> str:
    # Browsers accept the prefix only from https, and only for this host and all of its paths.
    return _SECURE_COOKIE if console_context(request).address.is_secure else _COOKIE


async def _current(request: Request) -> ConsoleSession | None:
    context = console_context(request)
    secret = cookie_of(request)
    return None if secret is None else await context.run(context.use_cases.sessions.current, secret)
