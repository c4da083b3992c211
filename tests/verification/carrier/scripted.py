"""Carrier controlled by a test: its calls, their callbacks, and its answers to polls."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

import requests
from requests.adapters import BaseAdapter

from scheduler.carriers.twilio import TwilioAccount, callback_path
from scheduler.carriers.twilio_queries import TwilioQueries
from scheduler.domain.call import CallOrder
from scheduler.lifecycle.policy import Policy
from standalone.simulator.callbacks import signature
from standalone.simulator.published_api import (
    FETCH,
    LIST,
    LIST_NOTIFICATIONS,
    UPDATE,
    violations_of_answer,
    violations_of_request,
)
from tests.support.builders import a_sid
from tests.support.servers import ACCOUNT_SID, PRIMARY

PUBLIC_URL = "https://duecall.example"
ACCOUNT = TwilioAccount(
    api_url="http://carrier.example",
    account_sid=ACCOUNT_SID,
    auth_tokens=(PRIMARY,),
    public_url=PUBLIC_URL,
    voice_url="https://example.com/voice",
)
UNANSWERED = ("queued", "initiated", "ringing")
ALIVE = (*UNANSWERED, "in-progress")


@dataclass(frozen=True, kw_only=True)
class Way:
    """One change of a call's status."""

    status: str
    sip: str = ""
    answered_by: str = ""


RINGS = (Way(status="initiated"), Way(status="ringing"))
HANGS_UP = Way(status="completed", sip="200")
PERSON = Way(status="in-progress", answered_by="human")
ENDS: Mapping[str, tuple[Way, ...]] = {
    "a person answers": (*RINGS, PERSON, HANGS_UP),
    "a machine answers": (*RINGS, Way(status="in-progress", answered_by="machine_start"), HANGS_UP),
    "it is unclear who answers": (*RINGS, Way(status="in-progress", answered_by="unknown"), HANGS_UP),
    "there is no answer": (*RINGS, Way(status="no-answer", sip="487")),
    "it is busy": (*RINGS, Way(status="busy", sip="486")),
    "it is declined": (*RINGS, Way(status="failed", sip="603")),
    "there is no such number": (*RINGS[:1], Way(status="failed", sip="404")),
    "the carrier fails": (*RINGS[:1], Way(status="failed", sip="503")),
    "the carrier cancels it": (*RINGS, Way(status="canceled", sip="487")),
}
"""Status changes of each kind of call, from its first to its last."""


@dataclass(frozen=True, kw_only=True)
class Leg:
    """The true state of one call."""

    sid: str
    token: str
    to: str
    caller: str
    created_at: datetime
    status: str = "queued"
    started_at: datetime | None = None
    ended_at: datetime | None = None
    answered_by: str = ""
    sip: str = ""
    is_listed: bool = True
    is_stray: bool = False
    """The carrier placed this call by mistake; no dialler ordered it."""

    @property
    def is_alive(self) -> bool:
        return self.status in ALIVE


@dataclass(frozen=True, kw_only=True)
class Callback:
    """A status callback, which may arrive late, twice, or never."""

    token: str
    form: tuple[tuple[str, str], ...]

    @property
    def path(self) -> str:
        return callback_path(self.token)

    @property
    def signature(self) -> str:
        return signature(PRIMARY, f"{PUBLIC_URL}{self.path}", dict(self.form))


@dataclass
class ScriptedCarrier:
    legs: dict[str, Leg] = field(default_factory=dict)
    callbacks: list[Callback] = field(default_factory=list)
    is_away: bool = False
    """Polls fail with a connection error."""

    def ring(self, order: "CallOrder | Leg", now: datetime, *, is_listed: bool = True, is_stray: bool = False) -> Leg:
        """Start a call. The phone will ring, whatever answer the dialler receives."""
        leg = Leg(
            sid=a_sid(),
            token=order.token,
            to=order.to,
            caller=order.caller,
            created_at=now,
            is_listed=is_listed,
            is_stray=is_stray,
        )
        self.legs[leg.sid] = leg
        return leg

    def alive(self) -> list[Leg]:
        return [leg for leg in self.legs.values() if leg.is_alive]

    def goes_towards(self, leg: Leg, end: str, now: datetime) -> Leg:
        """Advance a call by one change towards that end. An answered call can only be hung up."""
        ways = ENDS[end]
        passed = [way.status for way in ways].index(leg.status) + 1 if leg.status in {w.status for w in ways} else 0
        way = HANGS_UP if leg.status == "in-progress" else ways[passed]
        if leg.status == "ringing" and way.status == "initiated":
            way = ways[-1]
        self.goes_on(leg, way, now)
        return self.legs[leg.sid]

    def goes_on(self, leg: Leg, way: Way, now: datetime) -> None:
        is_over = way.status not in ALIVE
        moved = replace(
            leg,
            status=way.status,
            started_at=leg.started_at or (now if way.status != "canceled" else None),
            ended_at=now if is_over else None,
            answered_by=way.answered_by or leg.answered_by,
            sip=way.sip,
        )
        self.legs[leg.sid] = moved
        self.callbacks.append(Callback(token=leg.token, form=_form(moved, len(self.callbacks))))


def _form(leg: Leg, number: int) -> tuple[tuple[str, str], ...]:
    fields = {
        "CallSid": leg.sid,
        "AccountSid": ACCOUNT_SID,
        "CallStatus": leg.status,
        "From": leg.caller,
        "To": leg.to,
        "SequenceNumber": str(number),
    }
    if not leg.is_alive:
        fields |= {"CallDuration": "60" if leg.answered_by else "0", "SipResponseCode": leg.sip}
    if leg.answered_by:
        fields["AnsweredBy"] = leg.answered_by
    return tuple(fields.items())


class ScriptedAdapter(BaseAdapter):
    """HTTP adapter that passes the vendor client's requests to this carrier."""

    def __init__(self, carrier: ScriptedCarrier, now: Any) -> None:
        super().__init__()
        self._carrier = carrier
        self._now = now

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        if self._carrier.is_away:
            raise requests.ConnectionError
        url = urlsplit(request.url or "")
        name = url.path.rpartition("/")[2].removesuffix(".json")
        of_one = UPDATE if request.method == "POST" else FETCH
        operation = {"Calls": LIST, "Notifications": LIST_NOTIFICATIONS}.get(name, of_one)
        content_type, body = request.headers.get("Content-Type", ""), str(request.body or "").encode()
        asked = violations_of_request(operation, query=url.query, content_type=content_type, body=body)
        assert list(asked) == [], "the request differs from Twilio's published API"
        answer = self._answered(request, url, name)
        differences = violations_of_answer(operation, answer.status_code, answer.json())
        assert list(differences) == [], "the answer differs from Twilio's published API"
        return answer

    def _answered(self, request: requests.PreparedRequest, url: SplitResult, name: str) -> requests.Response:
        if name == "Calls":
            return _answer(request, 200, self._listed(parse_qs(url.query)))
        leg = self._carrier.legs.get(name)
        if leg is None:
            return _refusal(request, 404, 20404)
        if request.method == "POST":
            return self._stopped(request, leg, parse_qs(str(request.body))["Status"][0])
        return _answer(request, 200, _resource(leg))

    def _listed(self, query: Mapping[str, list[str]]) -> dict[str, Any]:
        found = [
            leg
            for leg in self._carrier.legs.values()
            if leg.is_listed and leg.to in query.get("To", [leg.to]) and leg.caller in query.get("From", [leg.caller])
        ]
        newest_first = sorted(found, key=lambda leg: leg.created_at, reverse=True)
        return {
            "calls": [_resource(leg) for leg in newest_first],
            "page": 0,
            "page_size": 50,
            "start": 0,
            "end": max(len(found) - 1, 0),
            "uri": _CALLS,
            "first_page_uri": _CALLS,
            "next_page_uri": None,
            "previous_page_uri": None,
        }

    def _stopped(self, request: requests.PreparedRequest, leg: Leg, status: str) -> requests.Response:
        if not leg.is_alive or (status == "canceled" and leg.status not in UNANSWERED):
            return _refusal(request, 400, 21220)
        end = "canceled" if leg.status in UNANSWERED else "completed"
        self._carrier.goes_on(leg, Way(status=end, sip="487" if end == "canceled" else "200"), self._now())
        return _answer(request, 200, _resource(self._carrier.legs[leg.sid]))

    def close(self) -> None:
        """Do nothing: no connection was opened."""


def carrier_queries(carrier: ScriptedCarrier, now: Any) -> TwilioQueries:
    """Build the product's carrier queries, connected to this carrier."""
    queries = TwilioQueries(ACCOUNT, Policy(short_call=timedelta()))
    queries._client.http_client.session.mount("http://", ScriptedAdapter(carrier, now))
    return queries


def _resource(leg: Leg) -> dict[str, Any]:
    return {
        **dict.fromkeys(FETCH.fields),
        "sid": leg.sid,
        "account_sid": ACCOUNT_SID,
        "direction": "outbound-api",
        "api_version": "2010-04-01",
        "queue_time": "0",
        "to_formatted": leg.to,
        "from_formatted": leg.caller,
        "uri": f"{_CALLS.removesuffix('.json')}/{leg.sid}.json",
        "subresource_uris": {},
        "date_updated": format_datetime(leg.created_at.replace(microsecond=0)),
        "to": leg.to,
        "from": leg.caller,
        "status": "queued" if leg.status == "initiated" else leg.status,
        "date_created": format_datetime(leg.created_at.replace(microsecond=0)),
        "start_time": None if leg.started_at is None else format_datetime(leg.started_at.replace(microsecond=0)),
        "duration": None if leg.is_alive else ("60" if leg.answered_by else "0"),
        "answered_by": leg.answered_by or None,
    }


def _refusal(request: requests.PreparedRequest, status: int, code: int) -> requests.Response:
    more_info = f"https://www.twilio.com/docs/errors/{code}"
    return _answer(request, status, {"code": code, "message": "refused", "more_info": more_info, "status": status})


_CALLS = f"/2010-04-01/Accounts/{ACCOUNT_SID}/Calls.json"


def _answer(request: requests.PreparedRequest, status: int, body: dict[str, Any]) -> requests.Response:
    answer = requests.Response()
    answer.status_code = status
    answer.request = request
    answer.url = request.url or ""
    answer._content = json.dumps(body).encode()
    return answer
