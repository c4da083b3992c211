"""Tests of webhooks: the request waits until the process that delivers has sent the ping."""

import asyncio

from api_shim.context import MAX_S, AppContext
from scheduler.clock import monotonic
from scheduler.deadline import set_deadline
from scheduler.domain.principal import Principal
from scheduler.domain.webhook_endpoint import EndpointTest, TestProgress
from scheduler.persistence.errors import DatabaseAway

WAIT_S = 20.0
"""Longer than a delivery may take."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _LONGER = 0.05, 1.0, 1.5


async def outcome_of(
    context: AppContext, principal: Principal, test: EndpointTest, seconds: float
) -> TestProgress | None:
    """Query the progress of a test until it is over, for at most `seconds`. None: the database is unavailable.

    Between two queries the request holds neither a thread nor a connection. Raises NotFound if the webhook was
    deleted.
    """
    ends = monotonic() + seconds
    pause = _FIRST_PAUSE_S
    progress = None
    while True:
        set_deadline(MAX_S)  # the test is stored, so each query gets a deadline of its own
        try:
            progress = await context.ask(context.use_cases.webhooks.progress, principal, test)
        except DatabaseAway:
            progress = None
        is_over = progress is not None and progress.is_over
        # Without Redis, the process that delivers does not learn of the ping.
        if is_over or context.waiter.is_off or monotonic() + pause > ends:
            return progress
        await asyncio.sleep(pause)
        pause = min(pause * _LONGER, _LONGEST_PAUSE_S)
