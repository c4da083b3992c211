"""Sign in with a link of `duecall console login` or an identity provider, return to the asked page, and sign out."""

from collections.abc import Mapping
from urllib.parse import quote, unquote

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from api_shim.thread_pools import MAX_S
from console.assembly import ConsoleContext, console_context
from console.identity_provider import Refusal, SignInRefused
from console.oidc import SIGN_IN_LASTS, Identity, SignIn
from console.operators import cookie_of, delete_cookie, set_cookie
from console.rendering import is_page, page
from console.stores.sessions import LINK_LASTS, ConsoleSession
from scheduler.clock import set_deadline
from scheduler.logs import log

# --- The page that a browser asked for before its operator signed in
# A cookie keeps its address until then. The address of the sign-in page could not: operators open a link of `duecall
# console login`, or come from a provider.


_SECURE_PAGE_COOKIE, _PAGE_COOKIE = "__Host-duecall-page", "duecall-page"
_HOME = "/"
_LONGEST = 2000


def remember(request: Request, response: Response) -> None:
    """Remember the page of this request for the sign-in."""
    query = request.url.query
    value = quote(f"{request.url.path}?{query}" if query else request.url.path, safe="")
    if len(value) > _LONGEST:
        return
    response.set_cookie(
        _page_cookie_name(request),
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
    address = unquote(request.cookies.get(_page_cookie_name(request), ""))
    return address if is_page(address) else _HOME


def forget(request: Request, response: Response) -> None:
    """Delete the cookie, if there is one."""
    name = _page_cookie_name(request)
    if name in request.cookies:
        secure = console_context(request).address.is_secure
        response.delete_cookie(name, secure=secure, httponly=True, samesite="lax", path="/")


def _page_cookie_name(request: Request) -> str:
    return _SECURE_PAGE_COOKIE if console_context(request).address.is_secure else _PAGE_COOKIE


# --- Sign in with the identity provider of an organisation (OpenID Connect)
# A page leads to the provider, and another one back into the console. A redirect would not do: the policy of our
# pages stops a form that is redirected to another site, and the browser sends the session's cookie, which is
# SameSite=Strict, with no request that another site began.


router = APIRouter()
_log = log(__name__)
_SECURE_STATE_COOKIE, _STATE_COOKIE = "__Host-duecall-sign-in", "duecall-sign-in"
_BAD_REQUEST, _FORBIDDEN, _NOT_FOUND, _BAD_GATEWAY, _AWAY = 400, 403, 404, 502, 503
_AGAIN = "Start again on the sign-in page."

_TEXTS: Mapping[Refusal, tuple[int, str, str]] = {
    Refusal.NOT_STARTED: (
        _BAD_REQUEST,
        "This browser did not start this sign-in.",
        "Start on the sign-in page, and finish in the same browser. The browser must accept the console's cookies.",
    ),
    Refusal.TOO_LATE: (_BAD_REQUEST, "This sign-in took longer than ten minutes.", _AGAIN),
    Refusal.REPEATED: (_BAD_REQUEST, "This sign-in was already used.", _AGAIN),
    Refusal.DENIED: (
        _FORBIDDEN,
        "Your organisation did not sign you in.",
        "Its sign-in was cancelled, or it does not let you use the console. Ask its administrators for access.",
    ),
    Refusal.PROVIDER_ERROR: (
        _BAD_GATEWAY,
        "The sign-in of your organisation reported an error.",
        "Its log has the details. Check the console's registration there: redirect address, scopes, response type.",
    ),
    Refusal.OTHER_ISSUER: (
        _FORBIDDEN,
        "The answer came from another identity provider.",
        "You are not signed in. Start again on the sign-in page, and tell the person who runs Duecall if it recurs.",
    ),
    Refusal.CODE_REFUSED: (
        _FORBIDDEN,
        "Your organisation does not accept this sign-in any longer.",
        "It was used before, or has expired. Start again on the sign-in page.",
    ),
    Refusal.CLIENT_REFUSED: (
        _BAD_GATEWAY,
        "Your organisation does not accept the console.",
        "The person who runs Duecall must check CONSOLE_OIDC_CLIENT_ID and CONSOLE_OIDC_CLIENT_SECRET.",
    ),
    Refusal.NOT_VERIFIED: (
        _FORBIDDEN,
        "The answer of your organisation could not be verified.",
        "You are not signed in. The log of the console contains the cause under the event console_sign_in_refused.",
    ),
    Refusal.PROVIDER_AWAY: (
        _AWAY,
        "The sign-in of your organisation cannot be reached.",
        "Calls do not depend on it. Try again in a moment.",
    ),
    Refusal.PROVIDER_WRONG: (
        _BAD_GATEWAY,
        "The sign-in of your organisation answers in an unexpected way.",
        "Check CONSOLE_OIDC_ISSUER. The log of the console contains the cause under the event console_sign_in_refused.",
    ),
}


@router.post("/sign-in/oidc")
async def start(request: Request) -> Response:
    """Lead to the provider. A form, so that no other site can start a sign-in."""
    context = console_context(request)
    if context.oidc is None:
        return _not_configured(request)
    try:
        started = await context.oidc.start()
    except SignInRefused as refused:
        return _refused(request, context.oidc, refused)
    response = page(
        request,
        "continue.html",
        url=started.url,
        title="Sign in with your organisation",
        label="Continue to the sign-in of your organisation",
    )
    response.set_cookie(
        _state_cookie_name(context),
        started.cookie,
        max_age=int(SIGN_IN_LASTS.total_seconds()),
        secure=context.address.is_secure,
        httponly=True,
        # The provider sends the browser back, so the cookie must come with a request that another site began.
        samesite="lax",
        path="/",
    )
    return response


@router.get("/sign-in/callback")
async def finish(request: Request) -> Response:
    context, answer = console_context(request), request.query_params
    if context.oidc is None:
        return _not_configured(request)
    cookie = request.cookies.get(_state_cookie_name(context), "")
    try:
        context.oidc.check_state(cookie, answer.get("state", ""))
    except SignInRefused as refused:
        return _refused(request, context.oidc, refused)
    try:
        response = await _signed_in_elsewhere(request, context, await context.oidc.finish(cookie, answer))
    except SignInRefused as refused:
        response = _refused(request, context.oidc, refused)
    response.delete_cookie(
        _state_cookie_name(context), secure=context.address.is_secure, httponly=True, samesite="lax", path="/"
    )
    return response


async def sign_out_elsewhere(request: Request, session: ConsoleSession) -> Response | None:
    """Build a page that leads to the sign-out of the operator's provider. None: the provider has no such page."""
    oidc = console_context(request).oidc
    if oidc is None or not session.actor.startswith("oidc:"):
        return None
    try:
        url = await oidc.sign_out_url()
    except SignInRefused as refused:
        _log.warning(
            "console_sign_out_incomplete: The identity provider cannot be asked for its sign-out page.",
            reason=refused.refusal.value,
            cause=refused.cause,
        )
        return None
    if url is None:
        return None
    return page(
        request,
        "continue.html",
        url=url,
        title="You are signed out of the console",
        label="Continue to the sign-out of your organisation",
    )


async def _signed_in_elsewhere(request: Request, context: ConsoleContext, identity: Identity) -> Response:
    set_deadline(MAX_S)  # the provider may have used most of the first one
    opened = await context.run(context.use_cases.sessions.open, identity.actor, identity.role, identity.state)
    if opened is None:
        raise SignInRefused(Refusal.REPEATED)
    url = asked_page(request)
    response = page(request, "continue.html", url=url, title="You are signed in", label="Open the console")
    forget(request, response)
    set_cookie(request, response, opened[1])
    return response


def _refused(request: Request, oidc: SignIn, refused: SignInRefused) -> Response:
    _log.warning(
        "console_sign_in_refused: A sign-in with the identity provider failed.",
        reason=refused.refusal.value,
        cause=refused.cause,
    )
    if refused.refusal is Refusal.ROLE_MISSING:
        values = ", ".join(oidc.roles.values())
        status, title = _FORBIDDEN, "You have no role in the console."
        text = (
            f"Your organisation signed you in, but the claim {oidc.roles_claim} of its ID token contains no role of the"
            f" console. Its administrators can add one of these values: {values}."
        )
    else:
        status, title, text = _TEXTS[refused.refusal]
    return page(request, "sign_in_failed.html", status, title=title, text=text)


def _not_configured(request: Request) -> Response:
    text = "CONSOLE_OIDC_ISSUER is not set, so operators sign in with links."
    return page(request, "sign_in_failed.html", _NOT_FOUND, title="No identity provider is configured.", text=text)


def _state_cookie_name(context: ConsoleContext) -> str:
    # The prefix keeps other hosts of the same domain from setting the cookie, which a path would not. It wants path=/.
    return _SECURE_STATE_COOKIE if context.address.is_secure else _STATE_COOKIE


# --- Sign in with a link of `duecall console login`, and sign out


_SEE_OTHER = 303
_GONE = 410


@router.get("/sign-in")
async def sign_in(request: Request) -> Response:
    return page(
        request,
        "sign_in.html",
        is_signed_out="signedOut" in request.query_params,
        has_oidc=console_context(request).oidc is not None,
        asked_page=asked_page(request),
    )


@router.get("/sign-in/link/{secret}")
async def look_at_link(request: Request, secret: str) -> Response:
    """Show a button. A preview of the link in a chat opens it too, and must not use it."""
    context = console_context(request)
    link = await context.run(context.use_cases.sessions.link, secret)
    return page(request, "sign_in_link.html", 200 if link is not None else _GONE, link=link)


@router.post("/sign-in/link/{secret}")
async def use_link(request: Request, secret: str) -> Response:
    context = console_context(request)
    found = await context.run(context.use_cases.sessions.sign_in, secret)
    if found is None:
        return page(request, "sign_in_link.html", _GONE, link=None)
    return _signed_in(request, found[1])


@router.post("/sign-out")
async def sign_out(request: Request) -> Response:
    context = console_context(request)
    secret = cookie_of(request)
    session = None if secret is None else await context.run(context.use_cases.sessions.current, secret)
    if session is not None:
        await context.run(context.use_cases.sessions.revoke, session.id)
    elsewhere = None if session is None else await sign_out_elsewhere(request, session)
    response = elsewhere or RedirectResponse("/sign-in?signedOut", _SEE_OTHER)
    delete_cookie(request, response)
    return response


def _signed_in(request: Request, secret: str) -> Response:
    response = RedirectResponse(asked_page(request), _SEE_OTHER)
    forget(request, response)
    set_cookie(request, response, secret)
    return response
