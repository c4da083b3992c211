"""The carrier as its customers see it: Twilio's calls over HTTP."""

import binascii
from base64 import b64decode
from collections.abc import Sequence
from secrets import compare_digest

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from scheduler.carriers.simulator.calls import API_VERSION, Call, as_resource
from scheduler.carriers.simulator.desk import Desk
from scheduler.carriers.simulator.exchange import Exchange
from scheduler.carriers.simulator.listing import page
from scheduler.carriers.simulator.order import Form, field, read_callback_change, read_form
from scheduler.carriers.simulator.refusals import RefusedByTwilio

CALLS = f"/{API_VERSION}/Accounts/{{account_sid}}/Calls.json"
CALL = f"/{API_VERSION}/Accounts/{{account_sid}}/Calls/{{sid}}.json"


class Door:
    """Who may come in: the account, with any of its tokens, so that a rotation locks nobody out."""

    def __init__(self, *, account_sid: str, auth_tokens: Sequence[str]) -> None:
        self._account_sid = account_sid
        self._auth_tokens = tuple(auth_tokens)

    def admit(self, authorization: str | None, account_in_path: str) -> None:
        user, password = _basic(authorization)
        known = [compare_digest(password.encode(), token.encode()) for token in self._auth_tokens]
        if user != self._account_sid or not any(known):
            raise RefusedByTwilio(20003)
        if account_in_path != self._account_sid:
            raise RefusedByTwilio(20404)


def routes(*, door: Door, desk: Desk, exchange: Exchange) -> APIRouter:
    router = APIRouter()

    def admit(account_sid: str, request: Request) -> None:
        door.admit(request.headers.get("authorization"), account_sid)

    @router.post(CALLS)
    async def create(account_sid: str, request: Request) -> Response:
        form = await _form(request)
        with desk.recorded(form) as arrival:
            admit(account_sid, request)
            return await desk.take(form, arrival)

    @router.get(CALLS)
    async def read_many(account_sid: str, request: Request) -> JSONResponse:
        admit(account_sid, request)
        calls = {call.sid: call for call in exchange.all()}
        return JSONResponse(page(calls, request.url.path, request.query_params))

    @router.get(CALL)
    async def read(account_sid: str, sid: str, request: Request) -> JSONResponse:
        admit(account_sid, request)
        return JSONResponse(as_resource(exchange.get(sid)))

    @router.post(CALL)
    async def update(account_sid: str, sid: str, request: Request) -> JSONResponse:
        admit(account_sid, request)
        return JSONResponse(as_resource(_updated(exchange, sid, await _form(request))))

    return router


async def _form(request: Request) -> Form:
    return read_form(request.headers.get("content-type", ""), await request.body())


def _updated(exchange: Exchange, sid: str, form: Form) -> Call:
    status = field(form, "Status")
    ways = {None: exchange.get, "canceled": exchange.cancel, "completed": exchange.hang_up}
    if status not in ways:
        raise RefusedByTwilio(20001, message="Invalid parameter: Status must be canceled or completed")
    changes = read_callback_change(form)
    if changes or status is None:
        exchange.redirect(sid, changes)
    return ways[status](sid)


def _basic(authorization: str | None) -> tuple[str, str]:
    """User and password of a Basic header; two empty texts when it is none."""
    scheme, _, credentials = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        user, _, password = b64decode(credentials, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return user, password
