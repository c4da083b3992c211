"""The page Alarms, their number on Now, and operators who acknowledge them."""

import re
from collections.abc import Callable
from datetime import timedelta
from html import unescape
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from scheduler.domain.alarm import KeptAlarm, RaisedAlarm, key_of
from scheduler.persistence.alarms import AuditFilter
from scheduler.persistence.database import Database
from scheduler.persistence.schema import Logins
from scheduler.use_cases.shared.alarms import Acts, Alarms
from tests.conftest import real_now
from tests.console.acts import form_in, send, words
from tests.console.conftest import Console, settings_of_console
from tests.console.oidc import served
from tests.console.test_console_now import events
from tests.support.builders import Tenant

SEE_OTHER, FORBIDDEN, NOT_FOUND, UNPROCESSABLE = 303, 403, 404, 422
WHY = "the proxy was restarted"
Raise = Callable[..., KeptAlarm]
ACKNOWLEDGE = "/acts/acknowledge-alarms"


@pytest.fixture
def alarms(database: Database) -> Alarms:
    return Alarms(database, real_now, "cli:ada@host")


@pytest.fixture
def raised(database: Database, alarms: Alarms) -> Raise:
    """Raise an alarm, the later ones after the earlier ones."""

    def stored(kind: str, count: int = 1, **subjects: UUID) -> KeptAlarm:
        with database.transaction() as stores:
            now = stores.instant(real_now)
            key = key_of(kind, subjects)
            stores.alarms.raise_all(
                [RaisedAlarm(key=key, count=count, first_seen_at=now - timedelta(hours=1), last_seen_at=now)], now
            )
        [alarm] = [each for each in alarms.open() if (each.kind, dict(each.subjects)) == (kind, dict(key.subjects))]
        return alarm

    return stored


def copies_of(database: Database, alarm: KeptAlarm, count: int) -> None:
    """Acknowledged copies: an alarm is open once."""
    with database.transaction() as stores:
        stores.connection.execute(_COPY, {"count": count, "id": alarm.id})


_COPY = text("""
    INSERT INTO alarms
    SELECT (jsonb_populate_record(a, jsonb_build_object('id', gen_random_uuid(), 'acknowledged_at', now(),
            'acknowledged_by', 'cli:ada@host', 'note', 'a copy', 'post_at', NULL))).*
    FROM alarms a, generate_series(1, :count) WHERE a.id = :id
""")


def kinds(page: httpx.Response) -> list[str]:
    return re.findall(r'<th scope="row" role="rowheader"><code>([^<]+)<', page.text)


def test_open_alarms_are_listed_by_their_last_occurrence(operator: httpx.Client, raised: Raise) -> None:
    attempt_id, company_id = uuid4(), uuid4()
    raised("CAUSE_LOST", attempt_id=attempt_id, company_id=company_id)
    raised("DEAF_WORKER")
    raised("CAUSE_LOST", 4, attempt_id=attempt_id, company_id=company_id)
    page = operator.get("/alarms")
    assert kinds(page) == ["CAUSE_LOST", "DEAF_WORKER"]
    assert f"attempt {attempt_id} company {company_id}" in words(page)
    assert '<td role="cell" class="count" data-label="Count">5</td>' in page.text
    assert "Steps: docs/operations.md#deaf_worker" in words(page)
    assert "DEAF_WORKER A worker received nothing from Redis and was restarted." in words(page)
    assert "the installation" in words(page)


def test_steps_are_a_link_where_docs_have_an_address(
    console: Console, operator: httpx.Client, raised: Raise, logins: Logins, redis_url: str
) -> None:
    raised("SETTINGS")
    settings = settings_of_console(logins, redis_url, console.url)
    with served(settings.model_copy(update={"console_docs_url": "https://git.example.com/docs"})) as url:
        page = httpx.get(f"{url}/alarms", cookies=operator.cookies, timeout=30)
    assert '<a href="https://git.example.com/docs/operations.md#settings--prices">Steps</a>' in page.text


def test_now_counts_open_alarms_by_kind(operator: httpx.Client, raised: Raise, alarms: Alarms) -> None:
    raised("CAUSE_LOST", attempt_id=uuid4())
    raised("CAUSE_LOST", attempt_id=uuid4())
    raised("DEAF_WORKER")
    page = operator.get("/")
    assert '<a class="value" id="figure-alarms" href="/alarms">3</a>' in page.text
    assert '<a href="/alarms?kind=CAUSE_LOST"><code>CAUSE_LOST</code></a> 2' in page.text
    assert kinds(operator.get("/alarms?kind=CAUSE_LOST")) == ["CAUSE_LOST", "CAUSE_LOST"]
    assert kinds(operator.get("/alarms?kind=deaf_worker")) == ["DEAF_WORKER"]
    with events(operator) as stream:
        for _ in range(6):
            next(stream)
        alarms.acknowledge(None, kind="CAUSE_LOST")
        name, html = next(stream)
    assert name == "now-work"
    assert 'href="/alarms">1</a>' in html


def test_acknowledged_alarm_has_operator_time_and_note(
    console: Console, operator: httpx.Client, raised: Raise, alarms: Alarms, database: Database
) -> None:
    alarm = raised("DEAF_WORKER", 3)
    form = f"{ACKNOWLEDGE}?alarm={alarm.id}"
    assert "The alarm DEAF_WORKER is acknowledged. It occurred 3 times" in words(operator.get(form))
    assert send(operator, form, reason=WHY).headers["location"] == "/alarms"
    assert alarms.open() == []
    page = operator.get("/alarms?state=acknowledged")
    [closed] = alarms.all()
    assert closed.acknowledged_by is not None
    assert closed.acknowledged_by.startswith("link:")
    assert f"by {closed.acknowledged_by} link created by cli:ada@host {WHY}" in words(page)
    assert kinds(operator.get("/alarms")) == []
    assert kinds(operator.get("/alarms?state=all")) == ["DEAF_WORKER"]
    [entry] = Acts(database).newest(AuditFilter(concerns=alarm.id), None, 10)
    assert (entry.actor, entry.reason) == (closed.acknowledged_by, WHY)


def test_all_alarms_of_a_kind_are_counted_and_closed(operator: httpx.Client, raised: Raise, alarms: Alarms) -> None:
    for count in (1, 2, 3):
        raised("CAUSE_LOST", count, attempt_id=uuid4())
    raised("DEAF_WORKER")
    form = f"{ACKNOWLEDGE}?kind=CAUSE_LOST"
    assert "3 open alarms of the kind CAUSE_LOST are acknowledged. They occurred 6 times" in words(operator.get(form))
    assert send(operator, form, reason=WHY).status_code == SEE_OTHER
    assert [each.kind for each in alarms.open()] == ["DEAF_WORKER"]


def test_form_of_a_kind_closes_only_the_alarms_it_showed(
    operator: httpx.Client, raised: Raise, alarms: Alarms, database: Database
) -> None:
    again, unchanged = uuid4(), uuid4()
    for attempt_id in (again, unchanged):
        raised("CAUSE_LOST", attempt_id=attempt_id)
    page = operator.get(f"{ACKNOWLEDGE}?kind=CAUSE_LOST")
    assert "An alarm that occurs again before you send this form stays open." in words(page)
    repeated, new, late = (raised("CAUSE_LOST", attempt_id=each) for each in (again, uuid4(), uuid4()))
    with database.transaction() as stores:  # one that occurred before the form, and waited for the database
        stores.connection.execute(
            text("UPDATE alarms SET last_seen_at = first_seen_at WHERE id = :id"), {"id": late.id}
        )
    answer = operator.post(ACKNOWLEDGE, data={**form_in(page), "reason": WHY})
    assert answer.status_code == SEE_OTHER
    assert {each.id for each in alarms.open()} == {repeated.id, new.id, late.id}
    [closed] = alarms.all(acknowledged=True)
    assert closed.subjects["attempt_id"] == str(unchanged)


def test_form_of_a_kind_whose_alarms_all_recur_closes_none(
    operator: httpx.Client, raised: Raise, alarms: Alarms
) -> None:
    attempt_id = uuid4()
    raised("CAUSE_LOST", attempt_id=attempt_id)
    form = form_in(operator.get(f"{ACKNOWLEDGE}?kind=CAUSE_LOST"))
    raised("CAUSE_LOST", attempt_id=attempt_id)
    answer = operator.post(ACKNOWLEDGE, data={**form, "reason": WHY})
    assert answer.status_code == UNPROCESSABLE
    assert "occurred again, so none was acknowledged now." in words(answer)
    assert "They occurred 2 times" in words(answer)
    for shown in ("", "x", "2030-01-01T00:00Z x", f"2030-01-01T00:00 {uuid4()}"):
        fields = {**_reopened(operator), "shown": shown, "reason": WHY}
        assert "This form is incomplete." in words(operator.post(ACKNOWLEDGE, data=fields)), shown
    assert len(alarms.open()) == 1
    assert operator.post(ACKNOWLEDGE, data={**_reopened(operator), "reason": WHY}).status_code == SEE_OTHER
    assert alarms.open() == []


def _reopened(operator: httpx.Client) -> dict[str, str]:
    return form_in(operator.get(f"{ACKNOWLEDGE}?kind=CAUSE_LOST"))


def test_alarms_of_a_company_are_linked_from_its_page(operator: httpx.Client, raised: Raise, tenant: Tenant) -> None:
    mine = raised("SETTINGS", company_id=tenant.company_id)
    raised("SETTINGS", company_id=uuid4())
    raised("CAUSE_LOST", company_id=tenant.company_id, attempt_id=uuid4())
    [href] = re.findall(
        r'<a href="(/alarms[^"]+)"><code>SETTINGS', operator.get(f"/companies/{tenant.company_id}").text
    )
    page = operator.get(unescape(href))
    assert kinds(page) == ["SETTINGS"]
    assert str(mine.id) in page.text
    for state in ("open", "all"):
        assert len(kinds(operator.get(f"/alarms?state={state}&company={tenant.company_id}"))) == 2


@pytest.mark.parametrize("state", ["open", "acknowledged", "all"])
def test_list_continues_after_fifty_rows(operator: httpx.Client, raised: Raise, database: Database, state: str) -> None:
    for _ in range(55 if state == "open" else 1):
        alarm = raised("CAUSE_LOST", attempt_id=uuid4())
    copies_of(database, alarm, 55)
    ids, address, pages = [], f"/alarms?state={state}", 0
    while address:
        page = operator.get(address)
        rows = re.findall(r'<tr role="row">.*?</tr>', page.text, re.DOTALL)[1:]
        ids += rows
        address = next(iter(re.findall(r'rel="next" href="([^"]+)"', page.text)), "").replace("&amp;", "&")
        pages += 1
    assert pages == 2
    assert len(ids) == {"open": 55, "acknowledged": 55, "all": 56}[state]
