"""When the carrier is down for its customers, and how that shows."""

import asyncio
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.types import Scope

from scheduler.carriers.simulator.refusals import RefusedByTwilio
from scheduler.carriers.simulator.silence import HungUp, shut_the_door


class OutageKind(StrEnum):
    """What a customer meets. Accepted calls go on, and so do their callbacks, except where a kind says otherwise."""

    REFUSE = "refuse"
    """No connection is taken, and those that were open are closed. The operator's door is shut as well."""
    UNAVAILABLE = "503"
    TOO_MANY_REQUESTS = "429"
    BAD_CREDENTIALS = "401"
    DROP = "drop"
    """Each request is taken in, and its connection closed without an answer."""
    HANG = "hang"
    """Each request is taken in, and never answered."""
    UPLINK = "uplink"
    """The network between the carrier and its customer is lost. Orders arrive and are carried out, their answers are
    lost, no question is answered, and no callback arrives or is sent again."""


_LONGER_THAN_ANYBODY_WAITS_S = 600.0
_CODES = {OutageKind.UNAVAILABLE: 20503, OutageKind.TOO_MANY_REQUESTS: 20429, OutageKind.BAD_CREDENTIALS: 20003}


class Order(BaseModel):
    """An outage as it is asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: OutageKind
    for_s: float | None = Field(default=None, gt=0, le=3600)
    """In real seconds; None is until somebody ends it."""
    answers_questions: bool = False
    """Only orders meet it: what is asked by GET is answered as ever."""

    @model_validator(mode="after")
    def _ends(self) -> "Order":
        if self.kind is OutageKind.REFUSE and self.for_s is None:
            raise ValueError("nobody could end an outage that refuses connections: say for_s")
        if self.kind is OutageKind.REFUSE and self.answers_questions:
            raise ValueError("who takes no connection answers no question")
        return self


class Outage:
    """One at a time; the latest counts."""

    def __init__(self) -> None:
        self._kind: OutageKind | None = None
        self._answers_questions = False
        self._end: asyncio.TimerHandle | None = None

    @property
    def kind(self) -> OutageKind | None:
        return self._kind

    async def begin(self, order: Order, scope: Scope) -> None:
        """`scope` is that of the request that asks for it: it came in by the door that may be shut."""
        self.end()
        self._kind = order.kind
        self._answers_questions = order.answers_questions
        if order.for_s is not None:
            self._end = asyncio.get_running_loop().call_later(order.for_s, self.end)
            if order.kind is OutageKind.REFUSE:
                await shut_the_door(scope, for_s=order.for_s)

    def end(self) -> None:
        self._kind = None
        if self._end is not None:
            self._end.cancel()
            self._end = None

    @property
    def loses_answers(self) -> bool:
        """True if orders are carried out and neither their answer nor a callback reaches us."""
        return self._kind is OutageKind.UPLINK

    def check(self, *, is_question: bool) -> None:
        """Raises RefusedByTwilio or HungUp while the carrier is down."""
        if self._kind is None or (is_question and self._answers_questions):
            return
        if self.loses_answers and not is_question:
            return
        if self._kind in _CODES:
            raise RefusedByTwilio(_CODES[self._kind])
        raise HungUp(hold_s=_LONGER_THAN_ANYBODY_WAITS_S if self._kind is OutageKind.HANG else 0)
