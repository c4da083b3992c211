"""The customers' API of the simulated carrier: Twilio's Calls over HTTP."""

import binascii
from base64 import b64decode
from collections.abc import Sequence
from secrets import compare_digest

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from standalone.simulator.call_intake import CallIntake
from standalone.simulator.call_lists import page
from standalone.simulator.call_lives import CallLives
from standalone.simulator.call_orders import Form, field, gives_instructions, read_changes, read_form
from standalone.simulator.calls import API_VERSION, Call, as_resource, notifications_of
from standalone.simulator.no_answer import HungUp
from standalone.simulator.outage import Outage
from standalone.simulator.refusals import RefusedByTwilio

CALLS = f"/{API_VERSION}/Accounts/{{account_sid}}/Calls.json"
CALL = f"/{API_VERSION}/Accounts/{{account_sid}}/Calls/{{sid}}.json"
NOTIFICATIONS = f"/{API_VERSION}/Accounts/{{account_sid}}/Calls/{{sid}}/Notifications.json"


class Authentication:
    """The account with any of its tokens, so that tokens can be rotated without an outage."""

    def __init__(self, *, account_sid: str, auth_tokens: Sequence[str]) -> None:
        self._account_sid = account_sid
        self._auth_tokens = tuple(auth_tokens)

    def admit(self, authorization: str | None, account_in_path: str) -> None:
        user, password = _basic(authorization)
        matches = [compare_digest(password.encode(), token.encode()) for token in self._auth_tokens]
        if user != self._account_sid or not any(matches):
            raise RefusedByTwilio(20003)
        if account_in_path != self._account_sid:
            raise RefusedByTwilio(20404)


def routes(*, authentication: Authentication, intake: CallIntake, lives: CallLives, outage: Outage) -> list[Route]:
    """Build Starlette routes: FastAPI would only make each request slower here."""

    def admit(request: Request) -> None:
        outage.check(is_question=request.method == "GET")
        authentication.admit(request.headers.get("authorization"), request.path_params["account_sid"])

    async def create(request: Request) -> Response:
        form = await _form(request)
        with intake.recorded(form) as arrival:
            admit(request)
            return await intake.take(form, arrival)

    async def read_many(request: Request) -> JSONResponse:
        admit(request)
        calls = lives.all(request.query_params.get("To") or None)
        return JSONResponse(page(calls, lives.find, request.url.path, request.query_params))

    async def read(request: Request) -> JSONResponse:
        admit(request)
        return JSONResponse(as_resource(lives.get(request.path_params["sid"])))

    async def read_notifications(request: Request) -> JSONResponse:
        admit(request)
        notifications = notifications_of(lives.get(request.path_params["sid"]))
        path = request.url.path
        envelope = {"first_page_uri": path, "next_page_uri": None, "previous_page_uri": None, "page": 0, "uri": path}
        return JSONResponse(
            {
                **envelope,
                "page_size": 50,
                "start": 0,
                "end": max(len(notifications) - 1, 0),
                "notifications": notifications,
            }
        )

    async def update(request: Request) -> JSONResponse:
        admit(request)
        try:
            changed = _updated(lives, request.path_params["sid"], await _form(request))
        finally:
            if outage.loses_answers:
                raise HungUp(hold_s=0)
        return JSONResponse(as_resource(changed))

    return [
        Route(CALLS, create, methods=["POST"]),
        Route(CALLS, read_many, methods=["GET"]),
        Route(CALL, read, methods=["GET"]),
        Route(CALL, update, methods=["POST"]),
        Route(NOTIFICATIONS, read_notifications, methods=["GET"]),
    ]


async def _form(request: Request) -> Form:
    return read_form(request.headers.get("content-type", ""), await request.body())


def _updated(lives: CallLives, sid: str, form: Form) -> Call:
    status = field(form, "Status")
    ways = {None: lives.get, "canceled": lives.cancel, "completed": lives.hang_up}
    if status not in ways:
        raise RefusedByTwilio(20001, message="Invalid parameter: Status must be canceled or completed")
    changes, instructs = read_changes(form), gives_instructions(form)
    if changes or instructs or status is None:
        lives.change(sid, changes, instructs=instructs)
    return ways[status](sid)


def _basic(authorization: str | None) -> tuple[str, str]:
    """Return user and password of a Basic header. Empty strings for any other header."""
    scheme, _, credentials = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        user, _, password = b64decode(credentials, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return user, password
