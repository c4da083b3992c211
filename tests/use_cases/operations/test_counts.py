"""The numbers of `/metrics` are read by a constant number of statements in one transaction."""

from scheduler.use_cases.operations.counts import Counts
from tests.support.builders import Tenant, a_claimed_attempt, a_pending_attempt
from tests.support.statements import statements_of


def test_everything_is_counted_by_fourteen_statements(tenant: Tenant, other: Tenant) -> None:
    for each in (tenant, other):
        a_claimed_attempt(each)
        a_pending_attempt(each)
    with tenant.database.transaction() as stores:
        stores.carrier_accounts.ensure("AC-second", 1.0, 5, tenant.now())
    with statements_of(tenant.database) as sent:
        counted = Counts(tenant.context).count()
    assert len(sent) == 14
    assert [each for each in sent if "BEGIN" in each] == ["BEGIN READ ONLY; SET LOCAL ROLE duecall_counter"]
    assert {each.company_id for each in counted.companies} == {tenant.company_id, other.company_id}
    assert [(each.in_progress, each.max_calls) for each in counted.carriers] == [(2, 1000), (0, 5)]
