"""The pages Companies and Company, and the pause of one company."""

import re
from datetime import timedelta
from uuid import UUID

import httpx
import pytest

from console.reads.installation import MOST_LISTED, MOST_PARTS
from scheduler.domain.alarm import RaisedAlarm, key_of
from scheduler.hashing import Hasher
from scheduler.persistence.alarms import AuditFilter
from scheduler.persistence.database import Database
from scheduler.use_cases.shared.alarms import Acts
from tests.conftest import CALLER, real_now, seed
from tests.console.acts import form_in, send, words
from tests.console.conftest import Console
from tests.support.builders import (
    ALWAYS,
    Tenant,
    a_pending_attempt,
    a_placed_attempt,
    a_tenant,
    a_waiting_command,
    an_attempt_of_unknown_outcome,
)

OK, SEE_OTHER, FORBIDDEN, NOT_FOUND, UNPROCESSABLE = 200, 303, 403, 404, 422
FIVE_MINUTES = timedelta(minutes=5)


def a_company(database: Database, hasher: Hasher, name: str) -> Tenant:
    """A company on the clock of the console."""
    tenant = a_tenant(database, seed(database, real_now(), intervals=ALWAYS), hasher, real_now)
    tenant.change("UPDATE companies SET name = :name WHERE id = :id", name=name, id=tenant.company_id)
    return tenant


@pytest.fixture
def acme(database: Database, hasher: Hasher) -> Tenant:
    return a_company(database, hasher, "Acme")


@pytest.fixture
def globex(database: Database, hasher: Hasher) -> Tenant:
    return a_company(database, hasher, "Globex")


def _page_of(tenant: Tenant) -> str:
    return f"/companies/{tenant.company_id}"


def _names(page: httpx.Response, *names: str) -> list[str]:
    """Find the names that the list has, in its order."""
    listed = words(page)
    return sorted((each for each in names if f" {each} " in listed), key=listed.index)


def _copies(tenant: Tenant, count: int) -> None:
    columns = "settings, calls_per_second, concurrent_calls, next_slot_at, created_at, updated_at"
    tenant.change(
        f"INSERT INTO companies (id, name, {columns})"
        f" SELECT gen_random_uuid(), 'copy', {columns} FROM companies, generate_series(1, :count) WHERE id = :id",
        count=count,
        id=tenant.company_id,
    )


def test_companies_are_listed_by_trouble(viewer: httpx.Client, acme: Tenant, globex: Tenant) -> None:
    a_company(acme.database, acme.hasher, "Initech")
    a_pending_attempt(globex, due_at=real_now() - FIVE_MINUTES)
    a_waiting_command(acme, None)
    page = viewer.get("/companies")
    assert f'<a href="{_page_of(acme)}">Acme</a>' in page.text
    assert _names(page, "Acme", "Globex", "Initech") == ["Globex", "Acme", "Initech"]
    assert "3 of 3 companies, the most troubled first." in words(page)
    assert "5 min" in words(page)
    assert str(globex.company_id) in page.text


def test_companies_are_filtered(console: Console, viewer: httpx.Client, acme: Tenant, globex: Tenant) -> None:
    console.pauses.pause(globex.company_id, "an invoice")
    a_pending_attempt(acme, due_at=real_now() - FIVE_MINUTES)
    a_waiting_command(globex, None)

    def found(query: str) -> list[str]:
        return _names(viewer.get(f"/companies?{query}"), "Acme", "Globex")

    assert found("show=late") == ["Acme"]
    assert found("show=paused") == ["Globex"]
    assert found("show=commands") == ["Globex"]
    assert found("show=all&name=acM") == ["Acme"]
    assert found("name=glob&show=late") == []
    assert "an invoice" in viewer.get("/companies?show=paused").text


def test_list_without_a_match_says_so(viewer: httpx.Client, acme: Tenant) -> None:
    assert "The only company does not match: no call is delayed" in words(viewer.get("/companies?show=late"))
    assert "The only company does not match. Show all" in words(viewer.get("/companies?name=nobody"))
    _copies(acme, 1)
    assert "None of the 2 companies matches. Show all" in words(viewer.get("/companies?name=nobody"))
    acme.change("UPDATE companies SET deleted_at = now()")
    assert "There are no companies." in words(viewer.get("/companies"))


def test_long_list_says_how_many_it_leaves_out(viewer: httpx.Client, acme: Tenant) -> None:
    _copies(acme, MOST_LISTED)
    a_pending_attempt(acme, due_at=real_now() - FIVE_MINUTES)
    page = viewer.get("/companies")
    assert f"The {MOST_LISTED} most troubled of {MOST_LISTED + 1} companies." in words(page)
    assert page.text.count('<th scope="row" role="rowheader">') == MOST_LISTED
    assert str(acme.company_id) in page.text


# ---- one company


def test_company_shows_its_parts(viewer: httpx.Client, acme: Tenant) -> None:
    a_placed_attempt(acme)
    unknown = an_attempt_of_unknown_outcome(acme)
    command = a_waiting_command(acme, unknown.interview_id)
    alarm = RaisedAlarm(
        key=key_of("SETTINGS", {"company_id": acme.company_id}), first_seen_at=real_now(), last_seen_at=real_now()
    )
    with acme.database.transaction() as stores:
        stores.alarms.raise_all([alarm], real_now())
    page = viewer.get(_page_of(acme))
    shown = words(page)
    assert "1 of 1,000 at once" in shown
    for each in (unknown.id, command.id, acme.ask("SELECT id FROM phone_numbers")[0][0]):
        assert str(each) in page.text
    assert "SETTINGS the company" in shown
    assert "every day 00:00 to 24:00" in shown
    assert "0 active of 0" in shown
    assert CALLER not in page.text


def test_company_shows_the_calls_of_its_numbers_today(viewer: httpx.Client, acme: Tenant) -> None:
    acme.change(
        "INSERT INTO caller_days (company_id, phone_number_id, day, calls, answered, declined, blocked)"
        " SELECT company_id, id, day, 9, 4, 2, 1 FROM phone_numbers, (VALUES (CAST(:today AS date)), (:before)) d (day)"
        " WHERE company_id = :id",
        id=acme.company_id,
        today=real_now().date(),
        before=real_now().date() - timedelta(days=1),
    )
    page = viewer.get(_page_of(acme))
    assert "Blocked" in words(page)
    assert "9 4 2 1" in words(page)
    assert CALLER not in page.text


def test_company_names_the_rules_that_hold_calls(viewer: httpx.Client, console: Console, acme: Tenant) -> None:
    a_pending_attempt(acme, due_at=real_now() - FIVE_MINUTES)
    console.pauses.pause(acme.company_id, "an invoice")
    shown = words(viewer.get(_page_of(acme)))
    assert "The company is paused. COMPANY_PAUSED 1 5 min" in shown
    assert "Paused since" in shown
    assert "an invoice" in shown


def test_late_is_a_link_only_with_a_late_call(viewer: httpx.Client, console: Console, acme: Tenant) -> None:
    a_pending_attempt(acme, due_at=real_now() - FIVE_MINUTES)
    link = f'id="figure-late" href="/attempts?state=due&amp;company={acme.company_id}"'
    assert link in viewer.get(_page_of(acme)).text
    console.pauses.pause(acme.company_id, "an invoice")
    page = viewer.get(_page_of(acme))
    held = "Late none no call is delayed by Duecall itself; 1 held, the oldest for 5 min"
    assert held in words(page)
    assert held in words(viewer.get("/"))
    assert "figure-late" not in page.text


def test_company_shows_only_the_first_of_many_commands(viewer: httpx.Client, acme: Tenant) -> None:
    for _ in range(MOST_PARTS):
        a_waiting_command(acme, None)
    assert "There are more than these" not in words(viewer.get(_page_of(acme)))
    last = a_waiting_command(acme, None)
    page = viewer.get(_page_of(acme))
    assert f"There are more than these {MOST_PARTS}." in words(page)
    assert str(last.id) not in page.text


def test_other_companies_parts_are_not_shown(viewer: httpx.Client, acme: Tenant, globex: Tenant) -> None:
    theirs = an_attempt_of_unknown_outcome(globex)
    command = a_waiting_command(globex, theirs.interview_id)
    page = viewer.get(_page_of(acme))
    for each in (theirs.id, command.id, globex.company_id):
        assert str(each) not in page.text


def test_unreadable_settings_are_named(viewer: httpx.Client, acme: Tenant) -> None:
    acme.change("UPDATE companies SET settings = '{}'")
    page = viewer.get(_page_of(acme))
    assert page.status_code == OK
    assert "The settings cannot be read." in words(page)


def test_deleted_company_has_a_page_without_its_name(viewer: httpx.Client, acme: Tenant) -> None:
    acme.change("UPDATE companies SET deleted_at = now()")
    page = viewer.get(_page_of(acme))
    assert page.status_code == OK
    assert "A deleted company" in words(page)
    assert "Acme" not in page.text


@pytest.mark.parametrize("company", [str(UUID(int=1)), "acme", "0"])
def test_unknown_company_has_no_page(viewer: httpx.Client, company: str) -> None:
    page = viewer.get(f"/companies/{company}")
    assert page.status_code == NOT_FOUND
    assert "There is no such company." in page.text


# ---- pause and resume


def _acts(tenant: Tenant) -> tuple[str, str]:
    return (f"/acts/pause-company?company={tenant.company_id}", f"/acts/resume-company?company={tenant.company_id}")


def test_company_offers_its_pause_or_its_end(console: Console, operator: httpx.Client, acme: Tenant) -> None:
    pause, resume = _acts(acme)
    assert pause in operator.get(_page_of(acme)).text
    assert send(operator, pause, reason="an invoice").headers["location"] == _page_of(acme)
    assert console.pauses.active() == (None, {acme.company_id: "an invoice"})
    assert resume in operator.get(_page_of(acme)).text


def test_preview_counts_the_calls_of_this_company(
    console: Console, operator: httpx.Client, acme: Tenant, globex: Tenant
) -> None:
    a_pending_attempt(acme, due_at=real_now() - FIVE_MINUTES)
    a_pending_attempt(acme, due_at=real_now() + FIVE_MINUTES)
    a_pending_attempt(globex)
    a_placed_attempt(acme)
    shown = words(operator.get(_acts(acme)[0]))
    assert f"2 pending calls of Acme ({acme.company_id}) will wait until it is resumed. 1 of them is due now." in shown
    assert "1 of its calls in progress continues." in shown
    assert console.pauses.active() == (None, {})
    assert "Acme is not paused. Resuming changes nothing." in words(operator.get(_acts(acme)[1]))
    console.pauses.pause(acme.company_id, "an invoice")
    assert "Acme is paused already: an invoice." in words(operator.get(_acts(acme)[0]))
    console.pauses.pause(None, "a storm")
    shown = words(operator.get(_acts(acme)[1]))
    assert "The oldest has been due for 5 min" in shown
    assert "nothing is placed until that pause ends: a storm" in shown


def test_second_tab_learns_of_the_first_pause(console: Console, operator: httpx.Client, acme: Tenant) -> None:
    pause, resume = _acts(acme)
    fields = [form_in(operator.get(address)) for address in (pause, resume)]
    console.pauses.pause(acme.company_id, "an invoice")
    answer = operator.post("/acts/pause-company", data={**fields[0], "reason": "a late tab"})
    assert answer.status_code == UNPROCESSABLE
    shown = words(answer)
    assert re.search(
        r"Not completed. The pause began at \S+ \S+ UTC by cli:ada@host. Its reason is: an invoice. Your reason", shown
    )
    assert "Acme is paused already: an invoice. Pausing again changes nothing. The pause began at" in shown
    assert console.pauses.active() == (None, {acme.company_id: "an invoice"})
    console.pauses.resume(acme.company_id)
    answer = operator.post("/acts/resume-company", data={**fields[1], "reason": "a late tab"})
    assert answer.status_code == UNPROCESSABLE
    assert "Not completed. The pause has ended already." in words(answer)


def test_company_deleted_meanwhile_is_not_paused(console: Console, operator: httpx.Client, acme: Tenant) -> None:
    form = form_in(operator.get(_acts(acme)[0]))
    acme.change("UPDATE companies SET deleted_at = now()")
    answer = operator.post("/acts/pause-company", data={**form, "reason": "too late"})
    assert answer.status_code == NOT_FOUND
    assert acme.ask("SELECT paused_at FROM companies") == [(None,)]
    assert Acts(console.database).newest(AuditFilter(), None, 1) == []
