"""Simulated outages of the carrier."""

import asyncio
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.types import Scope

from standalone.simulator.no_answer import HungUp, refuse_connections
from standalone.simulator.refusals import RefusedByTwilio


class OutageKind(StrEnum):
    """The effect on customers. Accepted calls go on, and so do their callbacks unless a kind changes that."""

    REFUSE = "refuse"
    """New connections are refused and open ones are closed, also for the operator's API."""
    UNAVAILABLE = "503"
    TOO_MANY_REQUESTS = "429"
    BAD_CREDENTIALS = "401"
    DROP = "drop"
    """Each request is read, and its connection is closed without an answer."""
    HANG = "hang"
    """Each request is read and never answered."""
    UPLINK = "uplink"
    """The network between the carrier and its customer is lost. Orders arrive and are carried out. Their answers are
    lost, queries get no answer, and callbacks do not arrive and are not sent again."""


_HANG_S = 600.0
"""Longer than any client waits."""
_CODES = {OutageKind.UNAVAILABLE: 20503, OutageKind.TOO_MANY_REQUESTS: 20429, OutageKind.BAD_CREDENTIALS: 20003}


class Order(BaseModel):
    """The request for an outage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: OutageKind
    for_s: float | None = Field(default=None, gt=0, le=3600)
    """In real seconds. None: until the operator ends it."""
    answers_questions: bool = False
    """True: only orders are affected, and GET requests are answered normally."""

    @model_validator(mode="after")
    def _ends(self) -> "Order":
        if self.kind is OutageKind.REFUSE and self.for_s is None:
            raise ValueError("for_s is required: an outage that refuses connections can be ended only by time")
        if self.kind is OutageKind.REFUSE and self.answers_questions:
            raise ValueError("answers_questions is impossible for an outage that refuses connections")
        return self


class Outage:
    """The current outage. A new one replaces it."""

    def __init__(self) -> None:
        self._kind: OutageKind | None = None
        self._answers_questions = False
        self._end: asyncio.TimerHandle | None = None

    @property
    def kind(self) -> OutageKind | None:
        return self._kind

    async def begin(self, order: Order, scope: Scope) -> None:
        """Begin an outage. `scope` belongs to the current request, which arrived on the server that may refuse."""
        self.end()
        self._kind = order.kind
        self._answers_questions = order.answers_questions
        if order.for_s is not None:
            self._end = asyncio.get_running_loop().call_later(order.for_s, self.end)
            if order.kind is OutageKind.REFUSE:
                await refuse_connections(scope, for_s=order.for_s)

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
        """Raise RefusedByTwilio or HungUp while the carrier is down."""
        if self._kind is None or (is_question and self._answers_questions):
            return
        if self.loses_answers and not is_question:
            return
        if self._kind in _CODES:
            raise RefusedByTwilio(_CODES[self._kind])
        raise HungUp(hold_s=_HANG_S if self._kind is OutageKind.HANG else 0)
