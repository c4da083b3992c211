"""The pages Erasures and Audit, which only show."""

import re
from collections.abc import Callable
from datetime import timedelta
from html import escape
from typing import Any
from uuid import UUID, uuid4

import httpx

from scheduler.domain.principal import Act, TargetKind, Verb
from scheduler.persistence.database import Database
from tests.conftest import real_now
from tests.console.acts import send, words
from tests.console.conftest import Console
from tests.support.builders import Tenant

OK, NOT_FOUND, UNPROCESSABLE = 200, 404, 422


def an_erasure(tenant: Tenant, *, days_ago: int = 0, is_done: bool = False, **erased: int) -> UUID:
    company_id, asked_at = uuid4(), real_now() - timedelta(days=days_ago)
    tenant.change(
        "INSERT INTO erasures (company_id, asked_at, rung_at, finished_at, erased)"
        " VALUES (:id, :at, :at, CASE WHEN :is_done THEN CAST(:at AS timestamptz) END, CAST(:erased AS jsonb))",
        id=company_id,
        at=asked_at,
        is_done=is_done,
        erased=str(erased).replace("'", '"'),
    )
    return company_id


def companies_in(page: httpx.Response) -> list[str]:
    return re.findall(r'<th scope="row" role="rowheader"><a href="/erasures/([^"]+)">', page.text)


# ---- erasures


def test_erasures_are_listed_newest_first(viewer: httpx.Client, tenant: Tenant) -> None:
    done, is_open = an_erasure(tenant, days_ago=9, is_done=True, interviews=1234), an_erasure(tenant, days_ago=2)
    page = viewer.get("/erasures")
    assert companies_in(page) == [str(is_open), str(done)]
    assert "Open for 2 d" in words(page)
    assert '<td role="cell" class="count" data-label="Erased rows">1,234</td>' in page.text
    assert companies_in(viewer.get("/erasures?state=open")) == [str(is_open)]
    assert companies_in(viewer.get("/erasures?state=done")) == [str(done)]
    assert 'id="figure-erasures" href="/erasures?state=open">1</a>' in viewer.get("/").text


def test_certificate_shows_the_erased_rows(viewer: httpx.Client, tenant: Tenant) -> None:
    done, is_open = an_erasure(tenant, is_done=True, interviews=3, attempts=7), an_erasure(tenant)
    assert "attempts 7 interviews 3" in words(viewer.get(f"/erasures/{done}"))
    assert "Open for" in words(viewer.get(f"/erasures/{is_open}"))
    assert "No row was erased yet." in words(viewer.get(f"/erasures/{is_open}"))
    for nothing in (uuid4(), "x"):
        page = viewer.get(f"/erasures/{nothing}")
        assert page.status_code == NOT_FOUND
        assert "There is no such certificate." in words(page)


# ---- audit


def add(database: Database, actor: str, *acts: Act) -> None:
    with database.transaction() as stores:
        stores.audit.add(actor, acts, stores.instant(real_now))


def an_act(**values: Any) -> Act:
    return Act(**{"verb": Verb.SUSPEND_KEY, "target_kind": TargetKind.KEY, "target_id": uuid4(), **values})


def verbs(page: httpx.Response) -> list[str]:
    return re.findall(r'<th scope="row" role="rowheader"><code>([^<]+)</code></th>', page.text)


def test_audit_shows_an_act_of_the_console(
    console: Console, operator: httpx.Client, account: Callable[[], None]
) -> None:
    account()
    send(operator, "/acts/pause-everything", reason="the voice server is down")
    send(operator, "/acts/resume-everything", reason="it answers")
    console.pauses.pause(None, "a test")
    console.pauses.resume(None)
    page = operator.get("/audit")
    assert verbs(page) == ["resume", "pause", "resume", "pause"]
    shown = words(page)
    assert "all calls the voice server is down reason the voice server is down state RUNNING → became PAUSED" in shown
    assert "it answers reason the voice server is down (before) state PAUSED → became RUNNING" in shown
    assert "none given reason a test (before) state PAUSED → became RUNNING" in shown
    actors = {each.actor for each in console.sessions.all()}
    assert len(actors) == 1
    assert shown.count(f"{actors.pop()} link created by cli:ada@host") == 2
    assert shown.count("link created by") == 2, "another actor has a link"


def test_change_is_readable(viewer: httpx.Client, database: Database) -> None:
    change = an_act(
        before={"perMinute": 10, "scopes": ["a", "b"]}, after={"perMinute": 20, "expiresAt": None}, company_id=uuid4()
    )
    add(database, "cli:ada@host", change)
    shown = words(viewer.get("/audit"))
    assert "expiresAt none perMinute 10 → became 20 scopes a, b (before)" in shown
    assert f"key {change.target_id} company {change.company_id}" in shown
    assert "none given" in shown


def test_filter_of_a_cancellation_is_in_words_and_a_link(viewer: httpx.Client, database: Database) -> None:
    company = str(uuid4())
    only = {"state": "pending", "company": company, "zone": "Asia/Tokyo", "due_to": "2030-01-31T09:00:00Z"}
    of_a_key = {"perMinute": 20}
    for after in ({"count": 3, "filter": only}, {"count": 3, "filter": of_a_key}):
        add(database, "link:x", an_act(verb=Verb.CANCEL_ATTEMPTS, after=after))
    page = viewer.get("/audit")
    described = f"state pending, company {company}, time zone Asia/Tokyo, due before 2030-01-31T09:00:00Z"
    query = f"state=pending&company={company}&zone=Asia%2FTokyo&due_to=2030-01-31T09%3A00%3A00Z"
    assert f'<dd><a href="/attempts?{escape(query)}">{described}</a></dd>' in page.text
    assert 'filter {"perMinute": 20}' in words(page)
    assert viewer.get(f"/attempts?{query.replace(company, '')}").status_code == OK


def test_audit_is_filtered(viewer: httpx.Client, database: Database) -> None:
    company_id, key_id = uuid4(), uuid4()
    add(database, "cli:ada@host", an_act(target_id=key_id, company_id=company_id))
    add(database, "link:x", an_act(verb=Verb.PAUSE, target_kind=TargetKind.COMPANY, target_id=company_id))
    add(database, "link:x", an_act(verb=Verb.REVOKE_KEY))
    assert verbs(viewer.get("/audit?actor=link%3Ax")) == ["key.revoke", "pause"]
    assert verbs(viewer.get("/audit?kind=key.suspend")) == ["key.suspend"]
    assert verbs(viewer.get(f"/audit?subject={key_id}")) == ["key.suspend"]
    assert verbs(viewer.get(f"/audit?subject={company_id}")) == ["pause", "key.suspend"]
    assert verbs(viewer.get(f"/audit?subject={company_id}&actor=link%3Ax")) == ["pause"]
