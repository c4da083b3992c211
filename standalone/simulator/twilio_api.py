"""The customers' API of the simulated carrier: orders are taken in, and calls are listed."""

import asyncio
import binascii
import json
import re
from base64 import b64decode
from bisect import bisect_left, bisect_right
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from functools import partial
from itertools import islice
from secrets import compare_digest
from typing import Any
from urllib.parse import urlencode

from fastapi import Response
from fastapi.responses import JSONResponse
from starlette.requests import Request
from starlette.routing import Route

from standalone.simulator.call_lives import CallLives
from standalone.simulator.calls import (
    API_VERSION,
    Call,
    Form,
    Order,
    as_resource,
    field,
    gives_instructions,
    notifications_of,
    read_changes,
    read_form,
    read_order,
    token_of,
)
from standalone.simulator.faults import HungUp, NoAnswer, Outage, RefusedByTwilio
from standalone.simulator.ledger import Arrival, Differences, RequestLog
from standalone.simulator.plans import CONDUCTS, Acceptance, Conduct, Plan, Plans, Reply
from standalone.simulator.published_api import (
    CREATE,
    FETCH,
    LIST,
    LIST_NOTIFICATIONS,
    UPDATE,
    Operation,
    violations_of_answer,
    violations_of_request,
)

# --- Intake of requests to place a call
# recorded, matched with the plans, accepted or not, answered or not.


MAX_SILENCE_S = 60.0
"""After this time without an answer the connection is closed."""


class CallIntake:
    def __init__(self, *, lives: CallLives, plans: Plans, arrivals: RequestLog, outage: Outage) -> None:
        self._lives = lives
        self._plans = plans
        self._arrivals = arrivals
        self._outage = outage

    @contextmanager
    def recorded(self, form: Form) -> Iterator[Arrival]:
        """Record the request before any check, and its refusal, if any."""
        arrival = self._arrivals.arrived(
            to=field(form, "To"), from_=field(form, "From"), token=token_of(field(form, "StatusCallback"))
        )
        try:
            yield arrival
        except RefusedByTwilio as refusal:
            if self._outage.loses_answers:
                raise HungUp(hold_s=0) from refusal
            self._arrivals.was_answered(arrival, refusal.status)
            raise

    async def take(self, form: Form, arrival: Arrival) -> Response:
        order = read_order(form)
        attempt = self._arrivals.was_in_order(arrival, order.to)
        plan = self._plans.follow(order.to, attempt)
        conduct = CONDUCTS[plan.fault]
        call = self._accept(conduct, order, plan, attempt)
        answer = await _answer(conduct, plan, call)
        if self._outage.loses_answers:
            return NoAnswer(hold_s=0)
        if not isinstance(answer, NoAnswer):
            self._arrivals.was_answered(arrival, answer.status_code)
        return answer

    def _accept(self, conduct: Conduct, order: Order, plan: Plan, attempt: int) -> Call | None:
        if conduct.accepts is Acceptance.AT_ONCE:
            return self._lives.accept(order, plan, attempt)
        if conduct.accepts is Acceptance.LATE:
            self._lives.accept_later(order, plan, attempt)
        return None


async def _answer(conduct: Conduct, plan: Plan, call: Call | None) -> Response:
    if conduct.replies is Reply.REFUSED:
        planned_status = plan.status if conduct.code is None else None
        raise RefusedByTwilio(conduct.code or plan.code, status=planned_status)
    if conduct.replies is Reply.SILENCE:
        return NoAnswer(hold_s=MAX_SILENCE_S)
    if conduct.replies is Reply.HANG_UP:
        return NoAnswer(hold_s=0)
    assert call is not None
    if conduct.replies is Reply.CREATED_LATE:
        await asyncio.sleep(plan.delay_s)
    return JSONResponse(as_resource(call), status_code=201)


# --- Lists of calls: filters and pages


DEFAULT_PAGE_SIZE = 50
LARGEST_PAGE_SIZE = 1000

_AFTER = "PA"
_BEFORE = "PB"
_DAY = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(T.*)?")

Matches = Callable[[Call, str], bool]


def _day_of(text: str) -> date:
    """Parse a time filter. Twilio's filters compare UTC dates and ignore the time of day."""
    match = _DAY.fullmatch(text)
    if match is None:
        raise RefusedByTwilio(20001, message="Invalid parameter: a time filter is a date, YYYY-MM-DD")
    try:
        return date.fromisoformat(match[1])
    except ValueError as error:
        raise RefusedByTwilio(20001, message="Invalid parameter: no such date") from error


def _on(day: date, at: datetime | None) -> int | None:
    """Compare the instant with that day: before (-1), on (0) or after (1). None without an instant."""
    if at is None:
        return None
    own = at.astimezone(UTC).date()
    return (own > day) - (own < day)


FILTERS: dict[str, Matches] = {
    "To": lambda call, value: call.order.to == value,
    "From": lambda call, value: call.order.from_ == value,
    "Status": lambda call, value: call.shown_status == value,
    "ParentCallSid": lambda call, value: call.parent_call_sid == value,
    "StartTime": lambda call, value: _on(_day_of(value), call.started_at) == 0,
    "StartTime<": lambda call, value: _on(_day_of(value), call.started_at) == -1,
    "StartTime>": lambda call, value: _on(_day_of(value), call.started_at) in {0, 1},
    "EndTime": lambda call, value: _on(_day_of(value), call.ended_at) == 0,
    "EndTime<": lambda call, value: _on(_day_of(value), call.ended_at) == -1,
    "EndTime>": lambda call, value: _on(_day_of(value), call.ended_at) in {0, 1},
}
"""By query parameter. A queued call has no start time, so every StartTime filter misses it, as at Twilio."""


class Calls:
    """The calls of a list, filtered lazily."""

    def __init__(self, calls: Sequence[Call], filters: Mapping[str, str], *, oldest_first: bool) -> None:
        """`calls` are oldest first, whatever the order of the list."""
        self._calls = calls
        self._filters = [(FILTERS[name], value) for name, value in filters.items()]
        self._oldest_first = oldest_first

    def all(self) -> Iterator[Call]:
        return filter(self._match, self._calls if self._oldest_first else reversed(self._calls))

    def after(self, call: Call) -> Iterator[Call]:
        """Iterate in the order of the list, from the next call on."""
        return self._newer_than(call.ordinal) if self._oldest_first else self._older_than(call.ordinal)

    def before(self, call: Call) -> Iterator[Call]:
        """Iterate against the order of the list, from the previous call on."""
        return self._older_than(call.ordinal) if self._oldest_first else self._newer_than(call.ordinal)

    def _older_than(self, ordinal: int) -> Iterator[Call]:
        """Iterate newest first."""
        end = bisect_left(self._calls, ordinal, key=_ordinal)
        return filter(self._match, (self._calls[place] for place in range(end - 1, -1, -1)))

    def _newer_than(self, ordinal: int) -> Iterator[Call]:
        """Iterate oldest first."""
        start = bisect_right(self._calls, ordinal, key=_ordinal)
        return filter(self._match, (self._calls[place] for place in range(start, len(self._calls))))

    def _match(self, call: Call) -> bool:
        return call.listed and all(matches(call, value) for matches, value in self._filters)


def page(
    calls: Sequence[Call],
    find: Callable[[str], Call | None],
    path: str,
    query: Mapping[str, str],
    *,
    oldest_first: bool = False,
) -> dict[str, Any]:
    """Build a page of those of `calls` (oldest first) that match, in Twilio's envelope.

    A page token names the call at the page's edge, which `find` returns, so calls that are accepted between two pages
    neither repeat nor hide a call.
    """
    filters = {name: query[name] for name in FILTERS if query.get(name)}
    for name, value in filters.items():
        if name.startswith(("StartTime", "EndTime")):
            _day_of(value)
    size = min(max(_whole(query, "PageSize", DEFAULT_PAGE_SIZE), 1), LARGEST_PAGE_SIZE)
    number = _whole(query, "Page", 0)
    listed = Calls(calls, filters, oldest_first=oldest_first)
    shown = _shown(listed, find, query.get("PageToken"), number=number, size=size)

    def uri(to_page: int, token: str | None) -> str:
        place = {"PageSize": size, "Page": to_page} | ({"PageToken": token} if token else {})
        return f"{path}?{urlencode(filters | place)}"

    has_next = bool(shown) and any(listed.after(shown[-1]))
    has_previous = bool(shown) and any(listed.before(shown[0]))
    start = number * size
    return {
        "first_page_uri": uri(0, None),
        "next_page_uri": uri(number + 1, _AFTER + shown[-1].sid) if has_next else None,
        "previous_page_uri": uri(max(number - 1, 0), _BEFORE + shown[0].sid) if has_previous else None,
        "page": number,
        "page_size": size,
        "uri": uri(number, query.get("PageToken")),
        "start": start,
        "end": start + max(len(shown) - 1, 0),
        "calls": [as_resource(call) for call in shown],
    }


def _shown(
    calls: Calls, find: Callable[[str], Call | None], token: str | None, *, number: int, size: int
) -> list[Call]:
    if not token:
        return list(islice(calls.all(), number * size, (number + 1) * size))
    direction, edge = token[:2], find(token[2:])
    if direction not in {_AFTER, _BEFORE} or edge is None:
        raise RefusedByTwilio(20001, message="Invalid parameter: PageToken")
    if direction == _AFTER:
        return list(islice(calls.after(edge), size))
    return list(islice(calls.before(edge), size))[::-1]


def _ordinal(call: Call) -> int:
    return call.ordinal


def _whole(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name) or str(default)
    if not (text.isascii() and text.isdecimal()):
        raise RefusedByTwilio(20001, message=f"Invalid parameter: {name}")
    return int(text)


# --- The customers' API of the simulated carrier: Twilio's Calls over HTTP


CALLS = f"/{API_VERSION}/Accounts/{{account_sid}}/Calls.json"
CALL = f"/{API_VERSION}/Accounts/{{account_sid}}/Calls/{{sid}}.json"
NOTIFICATIONS = f"/{API_VERSION}/Accounts/{{account_sid}}/Calls/{{sid}}/Notifications.json"


Endpoint = Callable[[Request], Awaitable[Response]]


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


def routes(
    *,
    authentication: Authentication,
    intake: CallIntake,
    lives: CallLives,
    differences: Differences,
    outage: Outage,
    oldest_first: bool = False,
) -> list[Route]:
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
        path = request.url.path
        return JSONResponse(page(calls, lives.find, path, request.query_params, oldest_first=oldest_first))

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

    def compared(operation: Operation, answer_to: Endpoint) -> Endpoint:
        return partial(_compared, differences, operation, answer_to)

    return [
        Route(CALLS, compared(CREATE, create), methods=["POST"]),
        Route(CALLS, compared(LIST, read_many), methods=["GET"]),
        Route(CALL, compared(FETCH, read), methods=["GET"]),
        Route(CALL, compared(UPDATE, update), methods=["POST"]),
        Route(NOTIFICATIONS, compared(LIST_NOTIFICATIONS, read_notifications), methods=["GET"]),
    ]


async def _compared(differences: Differences, operation: Operation, answer_to: Endpoint, request: Request) -> Response:
    """Answer a request, and compare both with Twilio's published API."""
    content_type = request.headers.get("content-type", "")
    body = await request.body()
    asked = violations_of_request(operation, query=request.url.query, content_type=content_type, body=body)
    differences.note(operation.name, asked)
    try:
        answer = await answer_to(request)
    except RefusedByTwilio as refusal:
        differences.note(operation.name, violations_of_answer(operation, refusal.status, refusal.body()))
        raise
    if not isinstance(answer, NoAnswer):
        content = json.loads(bytes(answer.body))
        differences.note(operation.name, violations_of_answer(operation, answer.status_code, content))
    return answer


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
    """Read user and password of a Basic header. Empty strings for any other header."""
    scheme, _, credentials = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        user, _, password = b64decode(credentials, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return user, password
