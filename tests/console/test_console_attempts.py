"""The page Attempts: each number leads to exactly its rows, pages follow each other, and a list can be cancelled."""

import json
import re
from base64 import b64decode
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from html import unescape
from itertools import product
from typing import Any
from uuid import UUID

import httpx
import pytest
from redis import Redis
from sqlalchemy import text

from api_shim.thread_pools import MAX_S
from console.attempt_list import filter_of
from console.attempt_words import RULES
from console.lists import place_text
from console.pages.attempts import CANCEL, CANCEL_MANY
from console.reads import attempts
from scheduler.clock import remaining_s
from scheduler.domain.attempt import Attempt, AttemptState, Cancelled, Ended, Proven, Reason
from scheduler.domain.call import CalleeClock, TimezoneSource
from scheduler.domain.command import CommandKind
from scheduler.domain.explanation import PACE, Rule
from scheduler.domain.principal import OperatorRole
from scheduler.hashing import Hasher
from scheduler.persistence.alarms import AuditFilter
from scheduler.persistence.database import Database
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.operations.counts import Counts
from scheduler.use_cases.operations.unknown_outcomes import OperatorCommands
from scheduler.use_cases.shared.alarms import Acts
from tests.conftest import real_now, seed, wait_until
from tests.console.acts import figure, form_in, send
from tests.console.conftest import Console
from tests.support.builders import (
    RecordingHints,
    Tenant,
    a_number,
    a_pending_attempt,
    a_placed_attempt,
    a_sid,
    a_tenant,
    a_waiting_command,
    an_attempt_of_unknown_outcome,
    of_company,
)

OK, SEE_OTHER, UNPROCESSABLE, AWAY = 200, 303, 422, 503
AN_HOUR, A_DAY = timedelta(hours=1), timedelta(days=1)
TOKYO = CalleeClock(source=TimezoneSource.ZONE, zones=("Asia/Tokyo",))
WHY = "the campaign was stopped"
LATEST = datetime.max.replace(tzinfo=timezone(-AN_HOUR))
"""It has no form in UTC."""


@pytest.fixture
def tenant(database: Database, hasher: Hasher) -> Tenant:
    return a_tenant(database, seed(database, real_now()), hasher, real_now)


@pytest.fixture
def other(tenant: Tenant) -> Tenant:
    return of_company(tenant, seed(tenant.database, real_now()))


def rows_of(page: httpx.Response) -> list[UUID]:
    assert page.status_code == OK, page.text
    return [
        UUID(each)
        for each in re.findall(r'<th scope="row" role="rowheader"><a href="/attempts/([0-9a-f-]{36})">', page.text)
    ]


def listed(client: httpx.Client, **fields: str) -> list[UUID]:
    return rows_of(client.get("/attempts", params=fields))


def all_listed(client: httpx.Client, **fields: str) -> list[UUID]:
    """List the rows of all pages."""
    page, found = client.get("/attempts", params=fields), []
    while True:
        found += rows_of(page)
        following = re.search(r'rel="next" href="([^"]+)"', page.text)
        if following is None:
            return found
        page = client.get(following[1].replace("&amp;", "&"))


def waiting(tenant: Tenant, in_time: timedelta = A_DAY, clock: CalleeClock | None = None) -> Attempt:
    due_at = real_now() + in_time
    return (
        a_pending_attempt(tenant, due_at=due_at)
        if clock is None
        else a_pending_attempt(tenant, due_at=due_at, clock=clock)
    )


def due(tenant: Tenant, number: str | None = None, ago: timedelta = AN_HOUR) -> Attempt:
    return a_pending_attempt(tenant, number, due_at=real_now() - ago, expires_at=real_now() + A_DAY)


def ended(tenant: Tenant, reason: Reason, *, cause_is_known: bool = True) -> Attempt:
    event = Ended(reason=reason, ended_at=real_now(), cause_is_known=cause_is_known)
    return tenant.take(a_placed_attempt(tenant), event)


def linked(page: httpx.Response, label: str) -> str:
    found = re.search(rf'<dt>{label}</dt>\s*<dd>\s*<a [^>]*href="([^"]+)"', page.text)
    assert found, label
    return found[1].replace("&amp;", "&")


@pytest.fixture
def everything(tenant: Tenant, other: Tenant) -> None:
    """Calls in each state, held by several rules, of two companies and a deleted one."""
    deleted = of_company(tenant, seed(tenant.database, real_now()))
    for each in (tenant, other, deleted):
        busy = a_number()
        a_placed_attempt(each, busy)
        due(each, busy)
        due(each)
        a_waiting_command(each, due(each).interview_id)
        waiting(each)
        an_attempt_of_unknown_outcome(each)
    due(other)
    waiting(other)
    a_pending_attempt(other, due_at=real_now() - A_DAY, expires_at=real_now() - AN_HOUR)
    ended(tenant, Reason.CARRIER_ERROR, cause_is_known=False)
    ended(tenant, Reason.ANSWERED)
    decided = an_attempt_of_unknown_outcome(tenant)
    tenant.change("UPDATE attempts SET decision = 'LEFT', decided_at = now() WHERE id = :id", id=decided.id)
    tenant.change("UPDATE companies SET deleted_at = now() WHERE id = :id", id=deleted.company_id)


@pytest.mark.usefixtures("everything")
def test_numbers_of_now_lead_to_their_rows(viewer: httpx.Client) -> None:
    now = viewer.get("/")
    for label, count in {"Due": 8, "In progress": 2, "Waiting for their time": 3, "Failed, cause lost": 1}.items():
        assert figure(now, label) == str(count)
        assert len(rows_of(viewer.get(linked(now, label)))) == count, label
    assert figure(now, "Unknown outcomes") == "2"
    assert len(listed(viewer, state="unknown")) == 2


@pytest.mark.usefixtures("everything")
def test_each_rule_leads_to_the_calls_it_holds(viewer: httpx.Client, tenant: Tenant) -> None:
    def of_now() -> dict[str, tuple[int, int]]:
        """The counts of the page Now by rule, each with the length of the list that it leads to."""
        links = re.findall(r'<a href="([^"]+)">([0-9]+) held by <code>(\w+)</code></a>', viewer.get("/").text)
        return {rule: (int(count), len(rows_of(viewer.get(unescape(href))))) for href, count, rule in links}

    def compared() -> Counter[str]:
        counts: Counter[str] = Counter()
        for each in Counts(tenant.context).attempts():
            counts.update({rule: held.count for rule, held in each.held.items()})
        assert {rule: len(listed(viewer, rule=rule)) for rule in RULES} == {rule: counts[rule] for rule in RULES}
        assert of_now() == {rule: (counts[rule], counts[rule]) for rule in counts}
        assert len(listed(viewer, state="due")) == sum(each.due for each in Counts(tenant.context).attempts())
        return counts

    assert set(compared()) == {Rule.NUMBER_BUSY, Rule.COMMAND_WAITING, Rule.EXPIRED}
    tenant.change("UPDATE companies SET concurrent_calls = 1 WHERE id = :id", id=tenant.company_id)
    assert compared()[Rule.COMPANY_LIMIT] == 1
    tenant.change("UPDATE carrier_accounts SET calls_per_second = 0.5")
    assert compared()[PACE] == 2
    tenant.change("UPDATE companies SET paused_at = now(), pause_reason = 'x' WHERE id = :id", id=tenant.company_id)
    assert compared()[Rule.COMPANY_PAUSED] == 3
    tenant.change("UPDATE carrier_accounts SET paused_at = now(), pause_reason = 'x'")
    assert compared() == {Rule.ACCOUNT_PAUSED: 8}


def test_filters_find_their_calls(viewer: httpx.Client, tenant: Tenant, other: Tenant) -> None:
    late, soon, far = due(tenant), waiting(tenant, AN_HOUR), waiting(other, A_DAY, TOKYO)
    calling, lost = a_placed_attempt(tenant), ended(other, Reason.CARRIER_ERROR, cause_is_known=False)
    answered, busy = ended(tenant, Reason.ANSWERED), ended(tenant, Reason.BUSY)
    after_busy = [each.id for each in tenant.attempts(busy.interview_id) if each.id != busy.id]
    of_company = {late.id, soon.id, calling.id, answered.id, busy.id, *after_busy}
    company, range_end = str(tenant.company_id), f"{real_now() + timedelta(hours=2):%Y-%m-%dT%H:%M}"
    assert set(listed(viewer)) == of_company | {far.id, lost.id}
    assert set(listed(viewer, company=company)) == of_company
    assert listed(viewer, state="due") == [late.id]
    assert listed(viewer, state="pending", company=str(other.company_id)) == [far.id]
    assert [each for each in listed(viewer, state="pending") if each not in after_busy] == [late.id, soon.id, far.id]
    assert listed(viewer, zone="Asia/Tokyo") == [far.id]
    assert listed(viewer, state="due", zone="Europe/Bratislava") == [late.id]
    assert listed(viewer, state="due", zone="Asia/Tokyo") == []
    assert set(listed(viewer, due_to=range_end)) - set(after_busy) == {late.id, soon.id}
    assert set(listed(viewer, due_from=range_end)) - set(after_busy) == {far.id}
    assert listed(viewer, state="in-progress") == [calling.id]
    assert listed(viewer, state="completed") == [answered.id]
    assert set(listed(viewer, state="finished")) == {answered.id, busy.id, lost.id}
    assert listed(viewer, state="finished", company=str(other.company_id)) == [lost.id]
    assert listed(viewer, reason="busy") == listed(viewer, state="failed", company=company) == [busy.id]
    finished = [answered.id, busy.id]
    for later, each in enumerate(finished):
        change = "UPDATE attempts SET due_at = :at WHERE id = :id"
        tenant.change(change, at=datetime(2030, 1, 1 + later, tzinfo=UTC), id=each)
    for filters in ({"company": company}, {}):
        assert set(listed(viewer, state="finished", due_from="2030-01-01T00:00", **filters)) == set(finished)
        assert listed(viewer, state="finished", due_from="2030-01-02T00:00", **filters) == [busy.id]
        assert listed(viewer, reason="answered", due_to="2030-01-02T00:00", **filters) == [answered.id]
        assert listed(viewer, reason="busy", due_from="2030-01-01", due_to="2030-01-02", **filters) == []
    assert listed(viewer, state="finished", company=company, due_from="2030-01-01T00:00") == finished
    assert listed(viewer, reason="cause-lost") == [lost.id]
    assert listed(viewer, reason="cause-lost", company=company) == []
    page = viewer.get("/attempts?zone=Asia/Tokyo").text
    assert f"{far.due_at + timedelta(hours=9):%H:%M} Asia/Tokyo" in page


def test_list_shows_calls_by_the_outcome_of_their_conversations(viewer: httpx.Client, tenant: Tenant) -> None:
    asked, unreported = (ended(tenant, Reason.ANSWERED) for _ in range(2))
    change = "UPDATE attempts SET outcome = 'WRONG_PERSON', outcome_at = :at WHERE id = :id"
    tenant.change(change, at=real_now(), id=asked.id)
    for filters in ({}, {"company": str(tenant.company_id)}, {"reason": "answered"}, {"state": "completed"}):
        assert listed(viewer, outcome="wrong-person", **filters) == [asked.id]
        assert listed(viewer, outcome="screened", **filters) == []
    assert set(listed(viewer, reason="answered")) == {asked.id, unreported.id}
    assert "outcome: wrong person" in viewer.get("/attempts?outcome=wrong-person").text
    assert "outcome: wrong person" in viewer.get(f"/attempts/{asked.id}").text
    assert "outcome: " not in viewer.get(f"/attempts/{unreported.id}").text


def test_two_end_states_are_one_filter(viewer: httpx.Client, tenant: Tenant, other: Tenant) -> None:
    by_state = {
        "completed": ended(tenant, Reason.ANSWERED).id,
        "failed": ended(tenant, Reason.INVALID_NUMBER).id,
        "cancelled": tenant.take(waiting(tenant), Cancelled(reason=Reason.CANCELLED_BY_USER)).id,
    }
    waiting(tenant)
    theirs = ended(other, Reason.ANSWERED).id
    company = str(tenant.company_id)
    for first, second in (("completed", "failed"), ("completed", "cancelled"), ("failed", "cancelled")):
        both = {by_state[first], by_state[second]}
        state = f"{first}-or-{second}"
        assert set(listed(viewer, state=state, company=company)) == both, state
        assert set(listed(viewer, state=state)) == both | ({theirs} if first == "completed" else set()), state
        assert set(listed(viewer, state=state, company=company, due_from="2020-01-01T00:00")) == both, state


HISTORY_OF = ("", "pending", "due", "waiting", "in-progress", "finished", "failed", "unknown")


def test_calls_of_a_company_are_found_by_creation_and_change(
    viewer: httpx.Client, tenant: Tenant, other: Tenant
) -> None:
    for each in (tenant, tenant, other):
        due(each), waiting(each), a_placed_attempt(each), ended(each, Reason.INVALID_NUMBER)
        an_attempt_of_unknown_outcome(each)
    tenant.change("UPDATE interviews SET created_at = '2025-01-01'")
    for state in HISTORY_OF:
        fields = {"state": state, "company": str(tenant.company_id)}
        rows = all_listed(viewer, **fields)
        first, second = rows[:2]
        for number, row in enumerate(rows):
            days = {first: 1, second: 2}.get(row, 3 + number)
            change = "UPDATE attempts SET created_at = :created, updated_at = :changed WHERE id = :id"
            created = datetime(2025, 1, days, tzinfo=UTC)
            tenant.change(change, created=created, changed=created + timedelta(days=365), id=row)
        for more, expected in (
            ({"created_from": "2025-01-01T00:00", "created_to": "2025-01-02T00:00"}, {first}),
            ({"created_to": "2025-01-03T00:00"}, {first, second}),
            ({"created_from": "2025-01-02T00:00"}, set(rows) - {first}),
            ({"changed_from": "2026-01-02T00:00"}, set(rows) - {first}),
            ({"changed_from": "2027-01-01T00:00"}, set()),
            ({"created_to": "2024-01-01T00:00"}, set()),
        ):
            assert set(all_listed(viewer, **fields, **more)) == expected, (state, more)


def test_cancellation_by_creation_takes_only_listed_calls(operator: httpx.Client, tenant: Tenant) -> None:
    for made in (due, waiting):
        old, new = made(tenant), made(tenant)
        tenant.change("UPDATE attempts SET created_at = '2025-01-01' WHERE id = :id", id=old.id)
        state = "due" if made is due else "waiting"
        query = f"?state={state}&company={tenant.company_id}&created_to=2025-01-02T00:00:00Z"
        form = f"/acts/{CANCEL.name}{query}"
        preview = operator.get(form).text
        assert "1 pending call of 1 company" in preview
        assert "created before 2025-01-02T00:00:00Z" in preview
        assert send(operator, form, reason=WHY).status_code == SEE_OTHER
        apply_all(tenant)
        assert tenant.attempt(old.id).state is AttemptState.CANCELLED
        assert tenant.attempt(new.id).state is AttemptState.PENDING


@pytest.mark.parametrize(
    ("due_from", "due_to", "expected"),
    [
        ("09:00", "", ("2030-01-31T09:00", None)),
        ("", "9:30", (None, "2030-01-31T09:30")),
        ("09:00", "17:00", ("2030-01-31T09:00", "2030-01-31T17:00")),
        ("22:00", "06:00", ("2030-01-31T22:00", "2030-02-01T06:00")),
        ("00:00", "00:00", ("2030-01-31T00:00", "2030-02-01T00:00")),
        ("2030-03-01T12:00", "11:00", ("2030-03-01T12:00", "2030-03-02T11:00")),
        ("2030-03-01T23:00-05:00", "05:00", ("2030-03-02T04:00", "2030-03-02T05:00")),
        ("10:00", "2030-02-02T00:00", ("2030-01-31T10:00", "2030-02-02T00:00")),
    ],
)
def test_due_time_without_a_day_is_of_today(
    due_from: str, due_to: str, expected: tuple[str | None, str | None]
) -> None:
    now = datetime(2030, 2, 1, 1, 30, tzinfo=timezone(2 * AN_HOUR))  # still the day before in UTC
    only = filter_of({"due_from": due_from, "due_to": due_to}, now)
    found = [None if each is None else f"{each:%Y-%m-%dT%H:%M}" for each in (only.due_from, only.due_to)]
    assert tuple(found) == expected
    assert {each.tzinfo for each in (only.due_from, only.due_to) if each is not None} == {UTC}


def test_page_names_the_day_of_a_due_time(operator: httpx.Client, tenant: Tenant) -> None:
    page = operator.get("/attempts?state=pending&due_from=00:00")
    assert re.search(r'name="due_from" value="\d{4}-\d\d-\d\dT00:00:00Z"', page.text)
    form = operator.get(f"/acts/{CANCEL.name}?state=pending&due_from=00:00")
    assert form.status_code == UNPROCESSABLE, "an act must not depend on the day on which its form is sent"


WRONG_FILTERS = [
    ("state=gone", "There is no such state"),
    ("rule=WEATHER", "There is no such rule"),
    ("reason=none", "There is no such end reason"),
    ("outcome=none", "There is no such outcome"),
    ("state=due&outcome=finished", "Only finished calls have an outcome."),
    ("reason=cause-lost&outcome=finished", "Only finished calls have an outcome."),
    ("company=acme", "named by its id"),
    (f"company={UUID(int=7)}", "There is no company with this id."),
    ("zone=Mars/Base", "There is no such time zone"),
    ("zone=%2B99:00", "There is no such time zone"),
    ("due_from=tomorrow", "Write due times in UTC"),
    ("due_from=24:00", "or 09:00 for today."),
    ("due_from=9999-12-31T12:00&due_to=11:00", "Write due times in UTC"),
    ("due_from=2030-01-02T00:00&due_to=2030-01-01T00:00", "ends before it begins"),
    ("created_from=2030-01-02T00:00&created_to=2030-01-01T00:00", "The range of creation times ends before"),
    ("created_to=soon", "Write creation times in UTC"),
    ("changed_from=soon", "Write times in UTC"),
    ("created_from=2030-01-02T00:00", "Add a company id."),
    ("changed_from=2030-01-02T00:00&state=finished", "Add a company id."),
    ("state=waiting&rule=PACE", "A rule holds only due calls."),
    ("state=finished&zone=Asia/Tokyo", "only among pending calls"),
    ("state=in-progress&due_from=09:00", "only among pending or finished calls"),
    ("state=finished&reason=cause-lost&due_from=09:00", "only among pending or finished calls"),
    ("state=due&reason=busy", "Only finished calls have an end reason."),
    ("state=due&reason=cause-lost", "The cause is lost only of failed calls."),
    (f"state=finished&after={place_text(UUID(int=1), 10**30)}", "this part of the list is incomplete."),
    ("state=due&after=x", "this part of the list is incomplete."),
    (f"after={place_text(UUID(int=1), datetime(2030, 1, 1, tzinfo=UTC))}", "this part of the list is incomplete."),
    (f"state=due&after={place_text(UUID(int=1), LATEST)}", "this part of the list is incomplete."),
]


def test_wrong_filter_is_explained(viewer: httpx.Client) -> None:
    for query, problem in WRONG_FILTERS:
        page = viewer.get(f"/attempts?{query}")
        assert page.status_code == UNPROCESSABLE, query
        assert problem in page.text, query


def test_calls_with_an_offset_are_found_by_it(viewer: httpx.Client, tenant: Tenant) -> None:
    waiting(tenant)
    west, east = (
        waiting(tenant, clock=CalleeClock(source=TimezoneSource.OFFSET, offset=timedelta(hours=hours)))
        for hours in (-9.5, 9.5)
    )
    assert listed(viewer, zone="-09:30") == [west.id]
    assert listed(viewer, zone="+09:30") == [east.id]
    assert listed(viewer, zone="+09:00") == []
    page = viewer.get("/attempts", params={"zone": "+09:30"})
    assert f"{east.due_at + timedelta(hours=9.5):%H:%M} offset of the request" in page.text


def test_empty_list_says_what_to_do(viewer: httpx.Client) -> None:
    assert "No call matches." in viewer.get("/attempts?state=due").text


def test_pages_follow_each_other(
    viewer: httpx.Client, tenant: Tenant, other: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "PAGE_SIZE", 2)
    at = real_now() + A_DAY
    made = [a_pending_attempt(tenant, due_at=at) for _ in range(3)]  # of one instant
    made += [waiting(tenant, timedelta(days=2)), waiting(other, timedelta(days=3))]
    expected = [each.id for each in sorted(made, key=lambda each: (each.due_at, each.id))]
    assert all_listed(viewer, state="waiting") == expected
    assert all_listed(viewer, state="waiting", company=str(tenant.company_id)) == expected[:-1]
    assert all_listed(viewer) == sorted(expected, reverse=True)
    assert sorted(all_listed(viewer, company=str(tenant.company_id))) == sorted(expected[:-1])
    late = [due(tenant).id for _ in range(5)]
    assert sorted(all_listed(viewer, state="due")) == sorted(late)
    calling = [a_placed_attempt(each).id for each in (tenant, other, tenant)]
    assert all_listed(viewer, state="in-progress") == sorted(calling, reverse=True)


def test_interview_with_many_attempts_spans_pages(
    viewer: httpx.Client, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "PAGE_SIZE", 2)
    first = ended(tenant, Reason.INVALID_NUMBER)
    later = []
    for _ in range(4):
        again = a_placed_attempt(tenant, interview_id=first.interview_id)
        later.append(tenant.take(again, Ended(reason=Reason.INVALID_NUMBER, ended_at=real_now())))
    newest = waiting(tenant)
    found = all_listed(viewer, company=str(tenant.company_id))
    assert found == [newest.id, *sorted([first.id, *(each.id for each in later)], reverse=True)]


def test_finished_calls_are_in_the_order_of_their_ends(
    viewer: httpx.Client, tenant: Tenant, other: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "PAGE_SIZE", 2)
    calling = [a_placed_attempt(each) for each in (tenant, other, tenant, tenant)]
    unknown = an_attempt_of_unknown_outcome(tenant)
    for each in reversed(calling):
        tenant.take(each, Ended(reason=Reason.INVALID_NUMBER, ended_at=real_now()))
    proof = Proven(reason=Reason.ANSWERED, call_sid=a_sid(), ended_at=real_now())
    tenant.take(unknown, proof)  # it ended earlier
    assert all_listed(viewer, state="finished") == [*(each.id for each in calling), unknown.id]
    assert all_listed(viewer, state="failed") == [each.id for each in calling]
    assert all_listed(viewer, reason="answered") == [unknown.id]


@pytest.mark.parametrize("query", ["zone=Asia/Tokyo", "state=failed", "state=failed&company={company}"])
def test_search_looks_at_bounded_rows_and_goes_on(
    viewer: httpx.Client, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    monkeypatch.setattr(attempts, "SCANNED", 3)
    monkeypatch.setattr(attempts, "INTERVIEWS_SCANNED", 3)
    wanted = [ended(tenant, Reason.INVALID_NUMBER).id if "failed" in query else waiting(tenant, clock=TOKYO).id]
    for _ in range(7):
        waiting(tenant, AN_HOUR)
    fields = dict(httpx.QueryParams(query.format(company=tenant.company_id)))
    if "failed" in query:
        tenant.change("UPDATE interviews SET created_at = created_at - interval '1 day' WHERE finished_at IS NOT NULL")
    assert all_listed(viewer, **fields) == wanted


def test_part_without_a_match_says_that_more_was_not_searched(
    viewer: httpx.Client, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "SCANNED", 3)
    for _ in range(3):
        waiting(tenant)
    page = viewer.get("/attempts?zone=Asia/Tokyo").text
    assert "pending calls were searched. Go on for later ones" in page
    assert "No match among the calls that were searched." in page
    assert 'rel="next"' in page


# ---- cancellation


def waiting_commands(tenant: Tenant) -> list[UUID]:
    query = "SELECT id FROM inbox WHERE kind = :kind AND applied_at IS NULL ORDER BY seq"
    return [row[0] for row in tenant.ask(query, kind=CommandKind.CANCEL_ATTEMPT.value)]


def apply_all(tenant: Tenant) -> None:
    apply = Apply(tenant.context, RecordingHints())
    for each in waiting_commands(tenant):
        apply.command(each)


def test_row_shortens_many_zones(operator: httpx.Client, tenant: Tenant) -> None:
    zones = ("America/Adak", "America/Chicago", "America/Denver", "America/New_York")
    waiting(tenant, clock=CalleeClock(source=TimezoneSource.PHONE_NUMBER, zones=zones))
    page = operator.get("/attempts?state=waiting").text
    assert "America/Adak and 3 more zones" in page
    assert "America/Chicago" not in page


def test_list_of_all_companies_says_how_to_cancel(operator: httpx.Client, console: Console, tenant: Tenant) -> None:
    waiting(tenant)
    hint = "To cancel calls of this list, add a company, a time zone or a range of due times."
    assert hint in operator.get("/attempts?state=waiting").text
    assert hint not in operator.get(f"/attempts?state=waiting&company={tenant.company_id}").text
    assert hint not in operator.get("/attempts?state=finished").text
    with console.signed_in(OperatorRole.VIEWER) as viewer:
        assert hint not in viewer.get("/attempts?state=waiting").text


def test_workers_hear_of_a_cancellation_at_once(operator: httpx.Client, tenant: Tenant, redis_url: str) -> None:
    waiting(tenant)
    send(operator, f"/acts/{CANCEL.name}?state=pending&company={tenant.company_id}", reason=WHY)
    [command] = waiting_commands(tenant)
    with Redis.from_url(redis_url) as redis:
        wait_until(lambda: redis.llen("duecall:intake") == 1, says="the hint is sent")
        [message] = redis.lrange("duecall:intake", 0, -1)
    assert json.loads(b64decode(json.loads(message)["body"]))[0] == [[str(command)]]


def test_list_is_cancelled_by_commands(operator: httpx.Client, tenant: Tenant, other: Tenant) -> None:
    mine = [due(tenant), waiting(tenant, AN_HOUR / 2), waiting(tenant)]
    calling, theirs = a_placed_attempt(tenant), waiting(other)
    query = f"?state=pending&company={tenant.company_id}"
    page = operator.get(f"/attempts{query}")
    assert "Cancel up to 200 calls…" in page.text
    form = f"/acts/{CANCEL.name}{query}"
    preview = operator.get(form).text
    assert "3 pending calls of 1 company will be cancelled." in preview
    assert "2 of them are due within the hour." in preview
    assert f"The filter is: state pending, company {tenant.company_id}." in preview
    assert waiting_commands(tenant) == []
    fields = {"state": "pending", "company": str(tenant.company_id)}
    answer = send(operator, form, reason=WHY)
    assert (answer.status_code, answer.headers["location"]) == (SEE_OTHER, f"/attempts{query}&cancelled=3")
    after = operator.get(answer.headers["location"]).text
    assert "A command is not applied yet" in after
    assert "3 calls are being cancelled. They leave the list when their commands are applied" in after
    assert "cancelled=" not in after, "the notice would stay on other pages of the list"
    assert not tenant.dial.claim([mine[0].id]).claimed, "a call was claimed although a command waits"

    apply_all(tenant)
    states = [(each.state, each.reason) for each in map(tenant.attempt, [each.id for each in mine])]
    assert states == [(AttemptState.CANCELLED, Reason.CANCELLED_BY_USER)] * 3
    assert tenant.attempt(calling.id).state is AttemptState.IN_PROGRESS
    assert tenant.attempt(theirs.id).state is AttemptState.PENDING
    [entry] = Acts(tenant.database).newest(AuditFilter(), None, 10)
    assert entry.actor.startswith("link:")
    assert (entry.verb, entry.target_kind, entry.target_id) == ("attempt.cancel", "company", str(tenant.company_id))
    assert (entry.reason, entry.after) == (WHY, {"count": 3, "filter": fields})


def test_notice_of_a_cancellation_has_only_a_number(viewer: httpx.Client) -> None:
    for number, notice in (
        ("0", "No call was cancelled:"),
        ("1", "1 call is being cancelled."),
        ("10000", "10,000 calls are being cancelled."),
    ):
        assert f'role="status">{notice}' in viewer.get("/attempts", params={"cancelled": number}).text
    for wrong in ("", "-1", "1e3", "1234567", "all<b>"):
        page = viewer.get("/attempts", params={"cancelled": wrong})
        assert page.status_code == OK
        assert 'role="status"' not in page.text, wrong
        assert "all<b>" not in unescape(page.text)


def test_cancellation_of_claimed_calls_says_so(
    operator: httpx.Client, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = due(tenant)
    matching = attempts.AttemptLists.matching

    def claimed_meanwhile(*arguments: Any) -> Any:
        found = matching(*arguments)
        assert tenant.dial.claim([attempt.id]).claimed
        return found

    monkeypatch.setattr(attempts.AttemptLists, "matching", claimed_meanwhile)
    answer = send(operator, f"/acts/{CANCEL.name}?state=due&company={tenant.company_id}", reason=WHY)
    assert "No call was cancelled:" in operator.get(answer.headers["location"]).text
    assert waiting_commands(tenant) == []


@pytest.mark.usefixtures("everything")
def test_preview_counts_what_the_act_cancels(tenant: Tenant) -> None:
    lists = attempts.AttemptLists(tenant.database, real_now)
    for query, more in product(
        ("state=due", "state=waiting", "state=pending", f"rule={Rule.EXPIRED}"),
        (
            "",
            f"&company={tenant.company_id}",
            "&zone=Europe/Bratislava",
            "&zone=Asia/Tokyo",
            "&due_to=2100-01-01T00:00",
        ),
    ):
        only = filter_of(dict(httpx.QueryParams(query + more)))
        counts = lists.matching_counts(only, 1000)
        found = [tenant.attempt(each) for each in lists.matching(only, 1000)]
        assert counts.attempts == len(found), (query, more)
        assert counts.companies == len({each.company_id for each in found}), (query, more)
        assert counts.soon == sum(each.due_at < real_now() + AN_HOUR for each in found), (query, more)


def test_cancellation_of_all_companies_is_refused(operator: httpx.Client, tenant: Tenant) -> None:
    waiting(tenant)
    for query in ("", "?state=pending", "?state=waiting", "?state=finished", f"?company={tenant.company_id}"):
        answer = operator.get(f"/acts/{CANCEL.name}{query}")
        assert answer.status_code == UNPROCESSABLE
        assert "first." in answer.text
        assert "Cancel up to" not in operator.get(f"/attempts{query}").text


def test_operator_cancels_fewer_calls_than_admin(
    console: Console, operator: httpx.Client, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(201):
        waiting(tenant)
    query = f"?state=waiting&company={tenant.company_id}"
    assert "More than 200 pending calls match." in operator.get(f"/acts/{CANCEL.name}{query}").text
    assert operator.get(f"/acts/{CANCEL_MANY.name}{query}").status_code == httpx.codes.FORBIDDEN
    with console.signed_in(OperatorRole.ADMIN) as admin:
        form = f"/acts/{CANCEL_MANY.name}{query}"
        assert "201 pending calls of 1 company" in admin.get(form).text
        assert send(admin, form, reason=WHY).status_code == SEE_OTHER
    assert len(waiting_commands(tenant)) == 201


def test_form_cancels_no_more_calls_than_it_named(operator: httpx.Client, tenant: Tenant) -> None:
    waiting(tenant)
    form = f"/acts/{CANCEL.name}?state=waiting&company={tenant.company_id}"
    fields = {**form_in(operator.get(form)), "reason": WHY}
    waiting(tenant)
    answer = operator.post(f"/acts/{CANCEL.name}", data=fields)
    assert answer.status_code == UNPROCESSABLE
    assert "2 calls match by now, and the form named 1." in answer.text
    assert waiting_commands(tenant) == []
    again = {**form_in(answer), "reason": WHY}
    assert operator.post(f"/acts/{CANCEL.name}", data=again).status_code == SEE_OTHER
    assert len(waiting_commands(tenant)) == 2


def test_long_cancellation_has_more_time_than_a_page(
    operator: httpx.Client, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting(tenant)
    left, cancel = [], OperatorCommands.cancel

    def observed(commands: OperatorCommands, *arguments: Any) -> int:
        left.append(remaining_s() or 0.0)
        return cancel(commands, *arguments)

    monkeypatch.setattr(OperatorCommands, "cancel", observed)
    form = f"/acts/{CANCEL.name}?state=waiting&company={tenant.company_id}"
    assert send(operator, form, reason=WHY).status_code == SEE_OTHER
    assert left[0] > 2 * MAX_S


def test_cancellation_without_database_says_that_it_may_be_done(operator: httpx.Client, tenant: Tenant) -> None:
    attempt = waiting(tenant)
    form = f"/acts/{CANCEL.name}?state=waiting&company={tenant.company_id}"
    with tenant.database.transaction() as stores:
        stores.connection.execute(
            text("SELECT id FROM interviews WHERE id = :id FOR UPDATE"), {"id": attempt.interview_id}
        )
        answer = send(operator, form, reason=WHY)
    assert answer.status_code == AWAY
    assert "What you did may be done, or done in part." in answer.text
