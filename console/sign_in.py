"""Sign in with a link of `duecall console login`, and sign out."""

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from console import oidc_routes as oidc
from console.asked_page import asked_page, forget
from console.context import console_context
from console.operators import cookie_of, delete_cookie, set_cookie
from console.rendering import page

router = APIRouter()
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
    elsewhere = None if session is None else await oidc.sign_out_elsewhere(request, session)
    response = elsewhere or RedirectResponse("/sign-in?signedOut", _SEE_OTHER)
    delete_cookie(request, response)
    return response


def _signed_in(request: Request, secret: str) -> Response:
    response = RedirectResponse(asked_page(request), _SEE_OTHER)
    forget(request, response)
    set_cookie(request, response, secret)
    return response
