"""Pages and acts of the console send the database as many statements for a few rows as for many."""

from collections.abc import Callable, Mapping
from uuid import UUID, uuid4

import httpx
import pytest

from console.assembly import ConsoleUseCases
from console.attempt_list import filter_of
from console.lists import ROWS
from console.reads.installation import Show
from console.stores.resources import OperatedResources
from scheduler.domain.alarm import RaisedAlarm, key_of
from scheduler.domain.attempt import Attempt, Ended, Reason
from scheduler.domain.batch import BatchFilter
from scheduler.domain.delivery_history import DeliveryFilter, EndpointFilter
from scheduler.domain.principal import KeyKind
from scheduler.domain.resource import NEWEST_FIRST, KeysetSlice
from scheduler.hashing import Hasher
from scheduler.persistence.alarms import AuditFilter
from scheduler.persistence.database import Database
from scheduler.persistence.stores import Stores
from scheduler.use_cases.resources.keys import Keys
from tests.conftest import real_now, seed
from tests.console.conftest import PEPPER
from tests.console.partners import a_batch, a_delivery, a_webhook
from tests.console.work import a_failed_command
from tests.support.builders import (
    ALWAYS,
    Tenant,
    a_number,
    a_pending_attempt,
    a_placed_attempt,
    a_tenant,
    a_waiting_command,
    an_attempt_of_unknown_outcome,
    an_operator,
)
from tests.support.statements import statements_of

WHY = "the receiver answers again"
LISTED = ("", "state=due", "state=pending", "state=in-progress", "reason=busy")
NUMBER = a_number()


@pytest.fixture
def tenant(database: Database) -> Tenant:
    """A company on the clock of the console."""
    return a_tenant(database, seed(database, real_now(), intervals=ALWAYS), Hasher(PEPPER), real_now)


def more_of_everything(tenant: Tenant, attempt: Attempt) -> None:
    a_pending_attempt(tenant, NUMBER)
    a_pending_attempt(tenant, due_at=real_now())
    a_placed_attempt(tenant)
    tenant.take(a_placed_attempt(tenant), Ended(reason=Reason.BUSY, ended_at=real_now()))
    an_attempt_of_unknown_outcome(tenant)
    a_waiting_command(tenant, attempt.interview_id)
    a_failed_command(tenant)
    a_delivery(tenant, a_webhook(tenant))
    a_batch(tenant)
    a_key(tenant)
    other = seed(tenant.database, real_now(), intervals=ALWAYS)
    a_pending_attempt(a_tenant(tenant.database, other, tenant.hasher, real_now), due_at=real_now())
    tenant.change("UPDATE interviews SET external_id = 'a' WHERE company_id <> :id", id=tenant.company_id)
    tenant.change(
        "INSERT INTO attempt_history (attempt_id, at, event, from_state, to_state, reason, epoch, actor, detail)"
        " SELECT attempt_id, at, event, from_state, to_state, reason, epoch, actor, detail FROM attempt_history"
    )
    tenant.change(
        "INSERT INTO erasures (company_id, asked_at, rung_at, erased) VALUES (gen_random_uuid(), :at, :at, '{}')",
        at=real_now(),
    )
    for _ in range(2):
        raise_an_alarm(tenant)


def a_key(tenant: Tenant) -> UUID:
    keys = Keys(tenant.database, Hasher(PEPPER), real_now)
    return keys.create(name="night shift", kind=KeyKind.REGULAR, company_id=tenant.company_id)[0].key_id


def raise_an_alarm(tenant: Tenant) -> None:
    with tenant.database.transaction() as stores:
        now = stores.instant(real_now)
        key = key_of("CAUSE_LOST", {"attempt_id": uuid4()})
        stores.alarms.raise_all([RaisedAlarm(key=key, first_seen_at=now, last_seen_at=now)], now)


def reads_and_acts(use_cases: ConsoleUseCases, tenant: Tenant, attempt: Attempt) -> Mapping[str, Callable[[], object]]:
    actor, company_id = an_operator(tenant), tenant.company_id
    unknown, webhook_id = an_attempt_of_unknown_outcome(tenant), a_webhook(tenant)
    a_delivery(tenant, webhook_id)
    retried, dropped = a_failed_command(tenant).id, a_failed_command(tenant).id
    key_id = a_key(tenant)

    def read(do: Callable[[Stores], object]) -> object:
        with use_cases.database.reading() as stores:
            return do(stores)

    part = KeysetSlice(limit=ROWS, sort=NEWEST_FIRST)
    of_quarantine, of_alarms, webhooks = use_cases.quarantine(actor), use_cases.alarms(actor), use_cases.webhooks()
    lists = {
        f"attempts {each}": lambda each=each: use_cases.attempt_lists.page(
            filter_of(dict(httpx.QueryParams(each))), None
        )
        for each in (*LISTED, f"company={company_id}")
    }
    return {
        **lists,
        "attempt": lambda: use_cases.attempt_pages.details(attempt.id),
        "calendar": use_cases.calendars.day,
        "companies": lambda: use_cases.company_pages.all(Show.ALL, ""),
        "company": lambda: use_cases.company_pages.one(company_id),
        "keys": lambda: read(lambda stores: stores.keys.newest(company_id, None, ROWS + 1)),
        "key": lambda: use_cases.key_pages.one(key_id),
        "number": lambda: use_cases.find.text(NUMBER),
        "unknown number": lambda: use_cases.find.text(a_number()),
        "id": lambda: use_cases.find.text(str(uuid4())),
        "call": lambda: use_cases.find.text("CA" + "0" * 32),
        "external id": lambda: use_cases.find.external_id("a"),
        "unknown external id": lambda: use_cases.find.external_id("b"),
        "erasures": use_cases.certificates.newest,
        "audit": lambda: use_cases.audit.newest(AuditFilter(), None, ROWS),
        "unknown outcomes": lambda: use_cases.unknown_outcomes().page(None, None, ROWS),
        "unknown outcome": lambda: use_cases.unknown_outcomes().undecided(unknown.id),
        "webhooks": lambda: webhooks.page(EndpointFilter(), None, ROWS),
        "webhook": lambda: webhooks.with_deliveries(webhook_id, DeliveryFilter(), None, ROWS),
        "batches": lambda: read(lambda stores: OperatedResources(stores.connection).batches(BatchFilter(), part)),
        "quarantine": lambda: of_quarantine.page(None, None, ROWS),
        "quarantine of a company": lambda: of_quarantine.page(None, None, ROWS, company_id),
        "command in quarantine": lambda: of_quarantine.find(retried),
        "retry": lambda: of_quarantine.requeue(retried, WHY),
        "drop": lambda: of_quarantine.drop(dropped, WHY),
        "open alarms": of_alarms.open,
        "alarms": of_alarms.all,
        "open alarms of a company": lambda: of_alarms.open(company_id=company_id),
        "alarms of a company": lambda: of_alarms.all(company_id=company_id),
        "acknowledge": lambda: of_alarms.acknowledge(None, kind="CAUSE_LOST", note=WHY),
    }


def test_pages_and_acts_send_a_constant_number_of_statements(use_cases: ConsoleUseCases, tenant: Tenant) -> None:
    attempt = a_pending_attempt(tenant)
    counts: list[dict[str, int]] = []
    use_cases.find.text(a_number())  # the first transaction of a connection says more
    for times in (1, 6):
        for _ in range(times):
            more_of_everything(tenant, attempt)
        counts.append({})
        for name, do in reads_and_acts(use_cases, tenant, attempt).items():
            with statements_of(use_cases.database) as sent:
                do()
            counts[-1][name] = len(sent)
    few, many = counts
    assert few == many
    assert max(few[each] for each in few if each.startswith("attempts")) <= 4
    assert few["attempt"] <= 16
    assert {few[each] for each in ("number", "unknown number", "external id", "unknown external id")} <= {few["number"]}
    assert few["number"] <= 4
    # One begins the transaction, and one has the rows of a webhook read in the order of an index.
    assert (few["webhooks"], few["webhook"], few["batches"]) == (3, 4, 3)
