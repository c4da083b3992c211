"""Ledger: every ring and every request, for tests that judge the caller."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from standalone.simulator.calls import Call
from standalone.simulator.plans import Journal


class Arrival(BaseModel):
    """A request to place a call, as it arrived, in order or not."""

    model_config = ConfigDict(frozen=True)

    number: int
    at: datetime
    to: str | None
    from_: str | None
    token: str | None
    attempt_of_number: int | None = None
    """The position among the valid requests for this number, from 1. None for an invalid request."""
    answered: int | None = None
    """The HTTP status of the answer. None without an answer."""


class RequestLog:
    """All requests to place a call, kept permanently."""

    def __init__(self, journal: Journal, *, now: Callable[[], datetime]) -> None:
        self._journal = journal
        self._now = now
        self._arrivals: dict[int, Arrival] = {}
        self._of_number: defaultdict[str | None, dict[int, None]] = defaultdict(dict)
        for kept in journal.kept("arrival"):
            self._hold(Arrival.model_validate(kept))
        self._attempts = Counter(
            arrival.to for arrival in self._arrivals.values() if arrival.attempt_of_number is not None
        )

    def all(self, to: str | None = None) -> list[Arrival]:
        """List all requests, or the requests for one number, oldest first."""
        if to is None:
            return list(self._arrivals.values())
        return [self._arrivals[number] for number in self._of_number.get(to, ())]

    def arrived(self, *, to: str | None, from_: str | None, token: str | None) -> Arrival:
        number = len(self._arrivals) + 1
        return self._keep(Arrival(number=number, at=self._now(), to=to, from_=from_, token=token))

    def was_in_order(self, arrival: Arrival, to: str) -> int:
        """Count a valid request for `to`, and return its number."""
        self._attempts[to] += 1
        self._keep(arrival.model_copy(update={"to": to, "attempt_of_number": self._attempts[to]}))
        return self._attempts[to]

    def was_answered(self, arrival: Arrival, status: int) -> None:
        self._keep(self._arrivals[arrival.number].model_copy(update={"answered": status}))

    def _keep(self, arrival: Arrival) -> Arrival:
        self._journal.keep("arrival", str(arrival.number), arrival)
        return self._hold(arrival)

    def _hold(self, arrival: Arrival) -> Arrival:
        before = self._arrivals.get(arrival.number)
        if before is not None and before.to != arrival.to:
            del self._of_number[before.to][arrival.number]
        self._arrivals[arrival.number] = arrival
        self._of_number[arrival.to][arrival.number] = None
        return arrival


def rings(calls: Iterable[Call]) -> list[dict[str, Any]]:
    """List every placed call with facts that only the carrier has. `rang_at` is None until the phone rang."""
    return [
        {
            "sid": call.sid,
            "token": call.token,
            "to": call.order.to,
            "from": call.order.from_,
            "accepted_at": _iso(call.accepted_at),
            "started_at": _iso(call.started_at),
            "rang_at": _iso(call.rang_at),
            "answered_at": _iso(call.answered_at),
            "ended_at": _iso(call.ended_at),
            "instructed": call.is_instructed,
            "status": call.status,
            "cancelled_by": call.cancelled_by,
            "attempt_of_number": call.attempt_of_number,
        }
        for call in calls
        if call.is_ordered
    ]


def requests(arrivals: Iterable[Arrival]) -> list[dict[str, Any]]:
    return [
        {
            "at": _iso(arrival.at),
            "to": arrival.to,
            "from": arrival.from_,
            "token": arrival.token,
            "answered": arrival.answered,
        }
        for arrival in arrivals
    ]


class Differences:
    """Differences between the traffic and Twilio's published API, each kept once."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._found = {Difference.model_validate(kept).text: None for kept in journal.kept("difference")}

    def note(self, request: str, texts: Iterable[str]) -> None:
        for text in texts:
            found = f"{request}: {text}"
            if found not in self._found and len(self._found) < _MAX_DIFFERENCES:
                self._found[found] = None
                self._journal.keep("difference", found, Difference(text=found))

    def all(self) -> list[str]:
        return list(self._found)


class Difference(BaseModel):
    """One difference, without the value that differs."""

    model_config = ConfigDict(frozen=True)

    text: str


_MAX_DIFFERENCES = 100


def verdict(arrivals: Iterable[Arrival], calls: Iterable[Call], differences: Differences) -> dict[str, Any]:
    """Collect the caller's violations: a token that was used twice, or two simultaneous calls to one number.

    `unlike_twilio`: requests with unknown or invalid parameters, and answers of this carrier with other fields.
    """
    calls = [call for call in calls if call.is_ordered]
    posted = Counter(arrival.token for arrival in arrivals if arrival.token is not None)
    accepted = Counter(call.token for call in calls if call.token is not None)
    return {
        "calls": len(calls),
        "rings": sum(call.rang_at is not None for call in calls),
        "alive": sum(not call.is_over for call in calls),
        "tokens_posted_twice": [token for token, times in posted.items() if times > 1],
        "tokens_with_two_calls": [token for token, times in accepted.items() if times > 1],
        "unlike_twilio": differences.all(),
        "calls_at_once": [[call.beside, call.sid] for call in calls if call.beside is not None],
    }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat(timespec="microseconds")
