"""Sign in with the identity provider of an organisation (OpenID Connect).

A page leads to the provider, and another one back into the console. A redirect would not do: the policy of our pages
stops a form that is redirected to another site, and the browser sends the session's cookie, which is SameSite=Strict,
with no request that another site began.
"""

from collections.abc import Mapping

from fastapi import APIRouter, Request
from starlette.responses import Response

from api_shim.context import MAX_S
from console.asked_page import asked_page, forget
from console.context import ConsoleContext, console_context
from console.oidc.id_tokens import SIGN_IN_LASTS
from console.oidc.provider import Refusal, SignInRefused
from console.oidc.sign_in import Identity, SignIn
from console.operator_session import ConsoleSession
from console.operators import set_cookie
from console.rendering import page
from scheduler.clock import set_deadline
from scheduler.logs import log

router = APIRouter()
_log = log(__name__)
_SECURE_COOKIE, _COOKIE = "__Host-duecall-sign-in", "duecall-sign-in"
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
        _cookie_name(context),
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
    cookie = request.cookies.get(_cookie_name(context), "")
    try:
        context.oidc.check_state(cookie, answer.get("state", ""))
    except SignInRefused as refused:
        return _refused(request, context.oidc, refused)
    try:
        response = await _signed_in(request, context, await context.oidc.finish(cookie, answer))
    except SignInRefused as refused:
        response = _refused(request, context.oidc, refused)
    response.delete_cookie(
        _cookie_name(context), secure=context.address.is_secure, httponly=True, samesite="lax", path="/"
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


async def _signed_in(request: Request, context: ConsoleContext, identity: Identity) -> Response:
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


def _cookie_name(context: ConsoleContext) -> str:
    # The prefix keeps other hosts of the same domain from setting the cookie, which a path would not. It wants path=/.
    return _SECURE_COOKIE if context.address.is_secure else _COOKIE
