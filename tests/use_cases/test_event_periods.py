"""Events of a period, when they were not numbered in the order of their times."""

from datetime import timedelta

from scheduler.use_cases.operations.number_events import NumberEvents
from tests.conftest import TestClock
from tests.support.builders import RecordingHints, Tenant, a_pending_attempt
from tests.use_cases.test_partner_events import page, with_reader
from tests.use_cases.webhooks.endpoints import Webhooks


def test_test_of_a_webhook_hides_no_event_that_is_numbered_later(tenant: Tenant, other: Tenant, now: TestClock) -> None:
    """A ping has its place at once. Also another company's, because a period is found by the events of all."""
    read = with_reader(tenant)
    endpoint_id = Webhooks(tenant=other).endpoint(principal_id=other.principal.id)
    first = now()
    a_pending_attempt(read)
    now.move(timedelta(minutes=10))
    with other.database.transaction(other.principal) as stores:
        endpoint = stores.webhook_endpoints.get(other.principal.id, endpoint_id)
        assert endpoint is not None
        stores.webhook_endpoints.add_test(endpoint, other.principal, now())
    NumberEvents(tenant.database, RecordingHints(), tenant.now).all()
    until = now() - timedelta(minutes=5)
    assert {each.occurred_at for each in page(read, period=(None, until))} == {first}
