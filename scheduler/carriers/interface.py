"""The interface of a carrier. Only an adapter uses the vendor's words."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from scheduler.domain.call import CallNews, CallOrder, CarrierAnswer, ListedCall


class CarrierUnavailable(Exception):
    """The carrier could not be reached, or did not answer as documented."""


class CarrierAway(CarrierUnavailable):
    """The carrier answers no request now, or none of ours: send no other query for a while."""


class QueryNotSent(CarrierAway):
    """This machine could not open a connection. It says nothing about the carrier."""


class NotACallback(Exception):
    """The request is not a callback of this carrier."""


class Gate(Protocol):
    """Decides at each step before the POST of an attempt if it may still be sent. Called on the event loop."""

    async def connected(self) -> bool:
        """Check with a connection in hand, which may have taken seconds to get. May wait. False: do not send."""
        ...

    def may_leave(self) -> bool:
        """Check right before the first byte is written. Nothing else runs in between. False: do not send."""
        ...

    def left(self) -> None:
        """Record that the kernel has taken all bytes."""
        ...


class CallPlacer(Protocol):
    """Places calls, on an event loop."""

    async def place(self, order: CallOrder, gate: Gate | None = None) -> CarrierAnswer:
        """Send an attempt's only POST. Never raises and never sends twice. In doubt, AnswerUnknown.

        Returns NeverTaken if no byte was sent, because `gate` refused or the connection failed before. Returns Withheld
        if this machine could not open a connection, which says nothing about the carrier.
        """
        ...

    async def cancel(self, call_sid: str) -> bool:
        """Cancel an unanswered call. An answered call goes on. May be sent twice. Never raises.

        True: the carrier took it, or the call is answered or has ended. False: unknown, so the call is polled later.
        """
        ...

    async def close(self) -> None: ...


class CarrierQueries(Protocol):
    """Queries calls and ends them, from threads. Each method may raise CarrierUnavailable."""

    def probe(self) -> None:
        """Send a query that changes nothing and places no call. Return if it was answered as documented."""
        ...

    def listed(
        self, *, to: str | None, caller: str, created_from: datetime, created_until: datetime
    ) -> Sequence[ListedCall]:
        """List calls between two numbers, or from `caller` to any, that were created in the half-open span."""
        ...

    def fetch(self, call_sid: str) -> CallNews:
        """Fetch the state of a call, and of a failed call also the cause if the carrier names one."""
        ...

    def cancel(self, call_sid: str) -> None:
        """Cancel an unanswered call. An answered call goes on. May be sent twice."""
        ...

    def hang_up(self, call_sid: str) -> None:
        """End a call in any state. A finished call stays as it is. May be sent twice."""
        ...


class VoiceServer(Protocol):
    """Instructs the carrier about answered calls."""

    def answers(self) -> bool:
        """Return True if it answers a probe, which starts no conversation. Raises QueryNotSent."""
        ...


class CarrierCallbacks(Protocol):
    """Reads the carrier's callbacks."""

    def is_genuine(self, path: str, form: Sequence[tuple[str, str]], signature: str) -> bool:
        """Return True if the signature covers our public URL with this path, query and form. Never raises."""
        ...

    def read(self, token: str, form: Mapping[str, str]) -> CallNews:
        """Parse a callback's form. Raises NotACallback if a known field is invalid."""
        ...

    def read_fallback(self, token: str, form: Mapping[str, str]) -> CallNews:
        """Parse the form of a request for other instructions. Raises NotACallback if a known field is invalid."""
        ...
