"""Fixtures: receivers of one company that accept each message, or fail."""

import pytest

from scheduler.use_cases.webhooks.deliver import Deliver
from tests.use_cases.webhooks.endpoints import ACCEPTED, FAILED, ScriptedSender, Webhooks


@pytest.fixture
def accepting(webhooks: Webhooks) -> Deliver:
    return webhooks.deliver(ScriptedSender(ACCEPTED))


@pytest.fixture
def failing(webhooks: Webhooks) -> Deliver:
    return webhooks.deliver(ScriptedSender(FAILED))
