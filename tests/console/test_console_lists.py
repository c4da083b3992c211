"""Every list of the console: it continues, says why it is empty, and names a wrong filter."""

import re
from collections.abc import Callable
from datetime import timedelta
from html import escape, unescape
from types import SimpleNamespace
from uuid import UUID

import httpx
import pytest

from console.lists import ROWS, place_text
from console.rendering import attribute
from scheduler.domain.principal import KeyKind
from scheduler.hashing import Hasher
from scheduler.persistence.database import Database
from scheduler.use_cases.resources.keys import Keys
from tests.conftest import TestClock, real_now, seed
from tests.console.acts import words
from tests.console.conftest import PEPPER
from tests.console.partners import a_batch, a_delivery, a_webhook
from tests.console.test_console_quarantine import copies_of as copies_of_command
from tests.console.test_console_records import add, an_act, an_erasure
from tests.console.test_console_unknown import copies_of as copies_of_attempt
from tests.console.work import a_failed_command
from tests.support.builders import ALWAYS, Tenant, a_tenant, an_attempt_of_unknown_outcome

UNPROCESSABLE = 422
LONG = ROWS + 1
Made = tuple[str, list[UUID]]
"""The address of a list, and the ids of its rows in order."""


@pytest.fixture
def tenant(database: Database) -> Tenant:
    """A company on the clock of the console."""
    return a_tenant(database, seed(database, real_now(), intervals=ALWAYS), Hasher(PEPPER), real_now)


def test_cell_is_empty_without_a_value() -> None:
    assert [attribute(SimpleNamespace(left=left), "left") for left in (None, 0, "no")] == ["", "0", "no"]


def keys(tenant: Tenant) -> Made:
    clock = TestClock(real_now() - timedelta(hours=1))
    made, of = [], Keys(tenant.database, tenant.hasher, clock)
    for _ in range(LONG):
        clock.move(timedelta(seconds=1))  # ids of the same millisecond have no order
        made.append(of.create(kind=KeyKind.REGULAR, name="one", company_id=tenant.company_id)[0].key_id)
    return f"/keys?company={tenant.company_id}", made[::-1]


def webhooks(tenant: Tenant) -> Made:
    begin = tenant.now() - timedelta(hours=2)
    return "/webhooks?state=active", [a_webhook(tenant, at=begin + timedelta(seconds=each)) for each in range(LONG)]


def deliveries(tenant: Tenant) -> Made:
    webhook_id = a_webhook(tenant)
    made = [a_delivery(tenant, webhook_id) for _ in range(LONG)]
    return f"/webhooks/{webhook_id}?state=failed", made[::-1]


def batches(tenant: Tenant) -> Made:
    begin = tenant.now() - timedelta(hours=2)
    made = [a_batch(tenant, at=begin + timedelta(seconds=each)) for each in range(LONG)]
    return "/batches?state=running", made[::-1]


def erasures(tenant: Tenant) -> Made:
    an_erasure(tenant, days_ago=3)
    return "/erasures?state=done", [an_erasure(tenant, days_ago=each, is_done=True) for each in range(LONG)]


def audit(tenant: Tenant) -> Made:
    acts = [an_act() for _ in range(LONG)]
    add(tenant.database, "link:x", *acts)
    add(tenant.database, "link:y", an_act())
    return "/audit?actor=link%3Ax", [each.target_id for each in reversed(acts) if each.target_id is not None]


def quarantine(tenant: Tenant) -> Made:
    copies_of_command(tenant, a_failed_command(tenant), ROWS)
    made = tenant.ask("SELECT id FROM inbox ORDER BY received_at, id")
    return "/quarantine?kind=command", [each for [each] in made]


def unknown(tenant: Tenant) -> Made:
    copies_of_attempt(tenant, an_attempt_of_unknown_outcome(tenant), ROWS)
    made = tenant.ask("SELECT id FROM attempts ORDER BY ended_at, id")
    return f"/unknown?company={tenant.company_id}", [each for [each] in made]


@pytest.mark.parametrize(
    ("make", "label"),
    [
        *((make, "Newest") for make in (keys, deliveries, batches, erasures, audit)),
        *((make, "Oldest") for make in (webhooks, quarantine, unknown)),
    ],
)
def test_list_continues_after_fifty_rows(
    admin: httpx.Client, tenant: Tenant, make: Callable[[Tenant], Made], label: str
) -> None:
    address, made = make(tenant)
    first = admin.get(address)
    [following] = re.findall(r'rel="next" href="([^"]+)"', first.text)
    second = admin.get(unescape(following))
    found = [[each for each in made if str(each) in page.text] for page in (first, second)]
    assert found == [made[:ROWS], made[ROWS:]]
    for page, part in zip((first, second), found, strict=True):
        assert sorted(part, key=lambda each: page.text.index(str(each))) == part
    assert f'href="{escape(address)}">{label}<' in second.text
    assert 'rel="next"' not in second.text


COMPANY = UUID(int=7)


EMPTY = (
    ("/alarms", "No alarm is open: nothing needs an operator now."),
    ("/alarms?state=all", "Acknowledged alarms are deleted after a year."),
    ("/alarms?kind=X", "No such alarm has this kind."),
    (f"/alarms?company={COMPANY}", "No such alarm names this company."),
    ("/audit", "No act was recorded yet."),
    (f"/audit?subject={COMPANY}", "No act matches."),
    ("/audit?actor=other", "No act matches."),
    ("/batches", "There are no batches."),
    (f"/batches?company={COMPANY}", "No batch of this company was sent."),
    ("/erasures", "No company was deleted."),
    ("/erasures?state=open", "No erasure is open. Show all"),
    ("/keys", "There are no API keys yet."),
    (f"/keys?company={COMPANY}", "This company has no keys of its own."),
    (f"/keys?after={place_text(COMPANY)}", "There are no older keys. Newest"),
    ("/quarantine", "Nothing is in quarantine"),
    ("/quarantine?kind=callback", "No callback is in quarantine."),
    (f"/quarantine?kind=callback&company={COMPANY}", "No callback of this company is in quarantine."),
    ("/unknown", "No outcome needs a decision"),
    (f"/unknown?company={COMPANY}", "No outcome of this company needs a decision."),
    ("/webhooks", "There are no webhooks."),
    (f"/webhooks?company={COMPANY}", "No webhook receives events of this company."),
)
"""Addresses of lists without rows, and what they say."""


def test_empty_list_says_why(admin: httpx.Client) -> None:
    for address, text in EMPTY:
        assert text in words(admin.get(address)), address


WRONG = (
    *(
        (f"/{each}?company=x", "The filter company is not an id.")
        for each in ("alarms", "batches", "keys", "quarantine", "unknown", "webhooks")
    ),
    *(
        (f"/{each}?after=eA", "The address of this part of the list is incomplete.")
        for each in ("alarms", "audit", "batches", "erasures", "keys", "quarantine", "unknown", "webhooks")
    ),
    ("/alarms?state=all&after=MjAyNi0wMS0wMSAx", "The address of this part of the list is incomplete."),
    ("/alarms?state=x", "The filter state must be one of: open, acknowledged, all."),
    ("/alarms?kind=a%00b", "The filter kind must be one line"),
    ("/audit?kind=x", "The filter kind must be one of: alarm.acknowledge,"),
    ("/audit?subject=x", "The filter subject is not an id."),
    ("/audit?actor=a%00b", "The filter actor must be one line of at most 200 visible characters."),
    ("/audit?after=LTE", "The address of this part of the list is incomplete."),
    ("/audit?after=%F0%9F", "The address of this part of the list is incomplete."),
    ("/batches?state=x", "The filter state must be one of"),
    ("/batches?batch=x", "The filter batch is not an id."),
    ("/companies?show=x", "The filter show must be one of: all, late, paused, commands."),
    (f"/companies?name={'x' * 101}", "The filter name must be one line of at most 100 visible characters."),
    ("/erasures?state=x", "The filter state must be one of: open, done."),
    ("/quarantine?kind=x", "The filter kind must be one of: command, callback."),
    ("/webhooks?state=x", "The filter state must be one of"),
    *((f"/webhooks/{{id}}?{query}", "The") for query in ("state=x", "type=x", "after=x")),
)


def test_wrong_filter_is_named(admin: httpx.Client, tenant: Tenant) -> None:
    webhook_id = a_webhook(tenant)
    for address, problem in WRONG:
        page = admin.get(address.replace("{id}", str(webhook_id)))
        assert page.status_code == UNPROCESSABLE, address
        assert problem in words(page), address
        assert "<tbody" not in page.text.partition('role="alert"')[2], "no row is listed"
