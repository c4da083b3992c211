"""What Duecall wants of a carrier. An adapter speaks the vendor's words; nobody else does."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from scheduler.domain.call import CallNews, CallOrder, CarrierAnswer, ListedCall


class CarrierUnavailable(Exception):
    """The carrier could not be asked, or did not answer as documented."""


class CarrierAway(CarrierUnavailable):
    """Nobody there answers now, whatever is asked, or not us: no other question need be asked for a while."""


class NotACallback(Exception):
    """The request is not one that this carrier sends."""


class Gate(Protocol):
    """Decides on the way to the one POST whether it may still be sent. Every method is called on the event loop."""

    async def connected(self) -> bool:
        """Check with a connection in hand, which may have taken seconds to get. May wait. False: do not send."""
        ...

    def may_leave(self) -> bool:
        """Check right before the first byte is written; nothing else runs in between. False: do not send."""
        ...

    def left(self) -> None:
        """All bytes are with the kernel."""
        ...


class CarrierLine(Protocol):
    """Places calls, on an event loop."""

    async def place(self, order: CallOrder, gate: Gate | None = None) -> CarrierAnswer:
        """Send the one POST of an attempt. Never raises and never sends twice; in doubt, AnswerUnknown.

        Without any byte sent, because `gate` said no or the connection failed before, it returns NeverTaken.
        """
        ...

    async def cancel(self, call_sid: str) -> bool:
        """Stop a call that nobody has answered; one that was answered is left alone. May be sent twice. Never raises.

        True: the carrier took it, or the call is answered or over. False: unknown, so somebody asks again later.
        """
        ...

    async def close(self) -> None: ...


class CarrierDesk(Protocol):
    """Answers questions about calls, and ends them; asked from threads. Each may raise CarrierUnavailable."""

    def probe(self) -> None:
        """Ask what changes nothing and rings nobody; returns when it was answered as documented."""
        ...

    def listed(
        self, *, to: str | None, caller: str, created_from: datetime, created_until: datetime
    ) -> Sequence[ListedCall]:
        """The calls between two numbers, or from `caller` to any, that were created in the half-open span."""
        ...

    def fetch(self, call_sid: str) -> CallNews:
        """Return how a call stands; of a failed call with its cause, where the carrier names one."""
        ...

    def cancel(self, call_sid: str) -> None:
        """Stop a call that nobody has answered; one that was answered is left alone. May be sent twice."""
        ...

    def hang_up(self, call_sid: str) -> None:
        """End a call wherever it is; one that is over stays so. May be sent twice."""
        ...


class CarrierCallbacks(Protocol):
    """Reads what a carrier tells us unasked."""

    def is_genuine(self, path: str, form: Sequence[tuple[str, str]], signature: str) -> bool:
        """Does the signature cover our public URL, with this path and query, and this form? Never raises."""
        ...

    def read(self, token: str, form: Mapping[str, str]) -> CallNews:
        """The news in a form. Raises NotACallback when a known field is not what it must be."""
        ...
