"""Intake of requests to place a call: recorded, matched with the plans, accepted or not, answered or not."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import Response
from fastapi.responses import JSONResponse

from standalone.simulator.call_lives import CallLives
from standalone.simulator.call_orders import Form, Order, field, read_order, token_of
from standalone.simulator.calls import Call, as_resource
from standalone.simulator.ledger import Arrival, RequestLog
from standalone.simulator.no_answer import HungUp, NoAnswer
from standalone.simulator.outage import Outage
from standalone.simulator.plans import CONDUCTS, Acceptance, Conduct, Plan, Plans, Reply
from standalone.simulator.refusals import RefusedByTwilio

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
