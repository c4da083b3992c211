"""The page that a browser asked for before its operator signed in: a cookie keeps its address until then.

The address of the sign-in page could not: operators open a link of `duecall console login`, or come from a provider.
"""

from urllib.parse import quote, unquote

from starlette.requests import Request
from starlette.responses import Response

from console.context import console_context
from console.operator_session import LINK_LASTS
from console.rendering import is_page

_SECURE_COOKIE, _COOKIE = "__Host-duecall-page", "duecall-page"
_HOME = "/"
_LONGEST = 2000


def remember(request: Request, response: Response) -> None:
    """Remember the page of this request for the sign-in."""
    query = request.url.query
    value = quote(f"{request.url.path}?{query}" if query else request.url.path, safe="")
    if len(value) > _LONGEST:
        return
    response.set_cookie(
        _cookie_name(request),
        value,
        max_age=int(LINK_LASTS.total_seconds()),
        secure=console_context(request).address.is_secure,
        httponly=True,
        # A link in a chat and an identity provider begin the request on another site.
        samesite="lax",
        path="/",
    )


def asked_page(request: Request) -> str:
    """Choose the page that this browser asked for, or Now.

    A cookie can be forged, so it leads to pages of the console only.
    """
    address = unquote(request.cookies.get(_cookie_name(request), ""))
    return address if is_page(address) else _HOME


def forget(request: Request, response: Response) -> None:
    """Delete the cookie, if there is one."""
    name = _cookie_name(request)
    if name in request.cookies:
        secure = console_context(request).address.is_secure
        response.delete_cookie(name, secure=secure, httponly=True, samesite="lax", path="/")


def _cookie_name(request: Request) -> str:
    return _SECURE_COOKIE if console_context(request).address.is_secure else _COOKIE
