"""Lists over HTTP by time, status and order, and their cursors."""

from base64 import urlsafe_b64encode
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from scheduler.domain.attempt import Cancelled, Reason
from scheduler.persistence.keyset import LOOKED_AT, NARROW
from tests.api_shim.answers import data, refused, wrong_fields
from tests.api_shim.bodies import JOB, candidate
from tests.api_shim.calls import an_online_agent
from tests.api_shim.intake import Intake, Worker
from tests.architecture.rules import does, does_not
from tests.conftest import NOON
from tests.support.big_tables import add_candidates, add_pending_calls
from tests.support.builders import Tenant, a_pending_attempt, a_placed_attempt, an_attempt_of_unknown_outcome

TABLES = {"/interviews": "interviews", "/candidates": "candidates", "/jobs": "jobs", "/call-attempts": "attempts"}
BY_CURSOR = tuple(TABLES)
MINUTE = timedelta(minutes=1)


def text(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def ids(intake: Intake, path: str, **asked: Any) -> list[str]:
    return [each["id"] for each in data(intake.get(path, **asked))["items"]]


def pages(intake: Intake, path: str, **asked: Any) -> Iterator[list[str]]:
    """Follow the cursors of a list from its first page to its last one."""
    cursor: dict[str, str] = {}
    while True:
        page = data(intake.get(path, **asked, **cursor))
        yield [each["id"] for each in page["items"]]
        assert page["pagination"]["hasNextPage"] is (page["pagination"]["nextCursor"] is not None)
        if page["pagination"]["nextCursor"] is None:
            return
        cursor = {"cursor": page["pagination"]["nextCursor"]}


def whole(intake: Intake, path: str, **asked: Any) -> list[str]:
    return [each for page in pages(intake, path, **asked) for each in page]


@pytest.fixture
def five(intake: Intake, tenant: Tenant) -> dict[str, list[str]]:
    """Five rows of each list, the oldest first, created a minute apart from NOON on. Each changed an hour later."""
    for number in range(5):
        attempt = a_pending_attempt(tenant)
        job = intake.made("/jobs", JOB)["id"]
        at = NOON + number * MINUTE
        person = intake.ask(f"SELECT candidate_id FROM interviews WHERE id = '{attempt.interview_id}'")[0][0]
        rows = {"interviews": attempt.interview_id, "candidates": person, "jobs": UUID(job), "attempts": attempt.id}
        for table, row_id in rows.items():
            change = f"UPDATE {table} SET created_at = :at, updated_at = :updated WHERE id = :id"
            intake.change(change, at=at, updated=at + timedelta(hours=1), id=row_id)
        intake.change("UPDATE attempts SET due_at = :at WHERE id = :id", at=at + timedelta(days=1), id=attempt.id)
    return {
        path: [str(row[0]) for row in intake.ask(f"SELECT id FROM {table} ORDER BY created_at")]
        for path, table in TABLES.items()
    }


@does("F7-8")
def test_lists_have_the_rows_created_or_updated_in_a_range(intake: Intake, five: dict[str, list[str]]) -> None:
    first, last = text(NOON + MINUTE), text(NOON + 3 * MINUTE)
    since = text(NOON + timedelta(hours=1) + 2 * MINUTE)
    for path, rows in five.items():
        for asked, expected in (
            ({"createdFrom": first}, rows[1:]),
            ({"createdTo": last}, rows[:3]),
            ({"createdFrom": first, "createdTo": last}, rows[1:3]),
            ({"createdFrom": text(NOON + 5 * MINUTE)}, []),
            ({"updatedSince": since}, rows[2:]),
            ({"updatedSince": since, "createdTo": text(NOON + 4 * MINUTE)}, rows[2:4]),
        ):
            found = ids(intake, path, **asked)
            assert sorted(found) == sorted(expected), (path, asked)


def test_lists_have_the_rows_scheduled_in_a_range(intake: Intake, five: dict[str, list[str]]) -> None:
    day = NOON + timedelta(days=1)
    both = {"scheduledFrom": text(day + MINUTE), "scheduledTo": text(day + 4 * MINUTE)}
    for path in ("/interviews", "/call-attempts"):
        rows = five[path]
        assert ids(intake, path, **both) == rows[1:4], "the earliest first"
        assert ids(intake, path, **both, sort="scheduledAt:desc") == rows[1:4][::-1]
        assert set(ids(intake, path, **both, createdFrom=text(NOON + 2 * MINUTE))) == set(rows[2:4])
        assert ids(intake, path, scheduledFrom=text(day + 5 * MINUTE)) == []


def test_lists_are_sorted_in_both_directions(intake: Intake, five: dict[str, list[str]]) -> None:
    allowed = {"/interviews": {"createdAt", "updatedAt", "scheduledAt"}, "/call-attempts": {"scheduledAt"}}
    for path, rows in five.items():
        assert ids(intake, path) == whole(intake, path, limit=2) == rows[::-1], "by default the newest first"
        for by in ("createdAt", "updatedAt", "scheduledAt"):
            if by not in allowed.get(path, {"createdAt", "updatedAt"}):
                assert wrong_fields(intake.get(path, sort=f"{by}:asc")) == [("sort", "INVALID_VALUE")]
                continue
            assert ids(intake, path, sort=f"{by}:asc") == rows
            assert ids(intake, path, sort=f"{by}:desc") == rows[::-1]
            assert [*pages(intake, path, sort=f"{by}:asc", limit=2)] == [rows[:2], rows[2:4], rows[4:]]
        if path != "/call-attempts":
            assert ids(intake, path, updatedSince=text(NOON)) == rows, "the oldest change first"


@pytest.mark.parametrize("path", BY_CURSOR)
def test_rows_added_meanwhile_move_no_cursor(
    intake: Intake, tenant: Tenant, five: dict[str, list[str]], path: str
) -> None:
    """A numbered page would repeat the rows that new ones have pushed onto it."""
    seen = []
    newer = {"created_at": NOON + timedelta(hours=1), "due_at": NOON + timedelta(days=9)}
    for page in pages(intake, path, limit=2):
        seen += page
        a_pending_attempt(tenant)
        intake.made("/jobs", JOB)
        column = "due_at" if path == "/call-attempts" else "created_at"
        change = f"UPDATE {TABLES[path]} SET {column} = :at WHERE NOT id = ANY (CAST(:ids AS uuid[]))"
        intake.change(change, at=newer[column], ids=five[path])
    assert seen == five[path][::-1]
    assert len(whole(intake, path)) == 5 + 3


def test_rows_of_one_instant_are_all_listed(intake: Intake, five: dict[str, list[str]]) -> None:
    for table in TABLES.values():
        intake.change(f"UPDATE {table} SET created_at = :at, updated_at = :at", at=NOON)
    intake.change("UPDATE attempts SET due_at = :at", at=NOON)
    for path, rows in five.items():
        by = "scheduledAt" if path == "/call-attempts" else "createdAt"
        for direction in ("asc", "desc"):
            found = whole(intake, path, sort=f"{by}:{direction}", limit=2)
            assert [UUID(each) for each in found] == sorted(map(UUID, rows), reverse=direction == "desc"), path


# ---- statuses


def test_interviews_of_several_statuses_are_listed(intake: Intake, worker: Worker, tenant: Tenant) -> None:
    waits, calls = a_pending_attempt(tenant), a_placed_attempt(tenant)
    failed = an_attempt_of_unknown_outcome(tenant)
    by_status = {
        "SCHEDULED": str(waits.interview_id),
        "IN_PROGRESS": str(calls.interview_id),
        "FAILED": str(failed.interview_id),
        "COMPLETED": intake.interview(isTest=True)["id"],
        "CANCELLED": intake.interview(agentId=str(an_online_agent(intake)), scheduledAt="2026-04-07T10:00:00Z")["id"],
    }
    assert intake.patch(f"/interviews/{by_status['CANCELLED']}", {"status": "CANCELLED"}).status_code == 200
    for status, one in by_status.items():
        page = data(intake.get("/interviews", status=status))
        assert ([(each["id"], each["status"]) for each in page["items"]]) == [(one, status)]
        assert page["pagination"]["total"] == 1
    for sort in ("createdAt:asc", "updatedAt:asc", "scheduledAt:asc"):
        for first, one in by_status.items():
            assert ids(intake, "/interviews", status=first, sort=sort) == [one], (first, sort)
            for second, other in by_status.items():
                expected = {one, other}
                found = ids(intake, "/interviews", status=[first, second], sort=sort)
                assert set(found) == expected, (first, second, sort)
                assert len(found) == len(expected)
    assert set(ids(intake, "/interviews", status=["FAILED", "FAILED"])) == {by_status["FAILED"]}


def test_statuses_in_one_parameter_are_refused(intake: Intake) -> None:
    for path in ("/interviews", "/call-attempts"):
        error = refused(intake.get(path, status="COMPLETED,FAILED"), 400, "VALIDATION_ERROR")
        assert error["details"]["fields"][0]["message"].endswith("For several, repeat status=.")


def test_attempts_of_several_statuses_are_listed(intake: Intake, tenant: Tenant) -> None:
    waits, calls, failed = a_pending_attempt(tenant), a_placed_attempt(tenant), an_attempt_of_unknown_outcome(tenant)
    cancelled = a_pending_attempt(tenant)
    tenant.take(cancelled, Cancelled(reason=Reason.CANCELLED_BY_USER))
    by_status = {"PENDING": waits, "IN_PROGRESS": calls, "FAILED": failed, "CANCELLED": cancelled}
    for first, one in by_status.items():
        for second, two in by_status.items():
            found = ids(intake, "/call-attempts", status=[first, second])
            assert set(found) == {str(one.id), str(two.id)}, (first, second)
            assert len(found) == len(set(found))
    assert set(ids(intake, "/call-attempts")) == {str(each.id) for each in by_status.values()}
    assert ids(intake, "/call-attempts", status="COMPLETED") == []


def test_candidates_and_jobs_of_several_statuses_are_listed(intake: Intake) -> None:
    people = {each: intake.made("/candidates", candidate(status=each))["id"] for each in ("APPLIED", "REJECTED")}
    intake.made("/candidates", candidate(status="ACCEPTED"))
    for more in ({}, {"sort": "updatedAt:desc"}, {"createdFrom": "2020-01-01T00:00:00Z"}):
        assert set(ids(intake, "/candidates", status=[*people], **more)) == {*people.values()}
        assert ids(intake, "/candidates", status="REJECTED", **more) == [people["REJECTED"]]
    opened, closed = (intake.made("/jobs", JOB)["id"] for _ in range(2))
    data(intake.patch(f"/jobs/{closed}", {"status": "CLOSED"}))
    assert set(ids(intake, "/jobs", status=["OPEN", "CLOSED"])) == {opened, closed}
    assert ids(intake, "/jobs", status="CLOSED", sort="createdAt:asc") == [closed]


def test_statuses_may_be_repeated_and_a_wrong_one_is_named(intake: Intake, five: dict[str, list[str]]) -> None:
    valid = {"/jobs": "OPEN", "/candidates": "APPLIED", "/call-attempts": "PENDING", "/interviews": "SCHEDULED"}
    for path, rows in five.items():
        for query in ("status=NOBODY", "status=NOBODY&status=", "status=", "&".join(["status=NOBODY"] * 500)):
            answer = intake.send("GET", f"{path}?{query}")
            assert set(wrong_fields(answer)) == {("status", "INVALID_VALUE")}, query
            assert len(answer.content) < 10_000
        found = intake.send("GET", f"{path}?{'&'.join([f'status={valid[path]}'] * 300)}")
        assert {each["id"] for each in data(found)["items"]} == set(rows), path


# ---- call attempts of all interviews


def test_attempts_are_listed_as_their_interview_lists_them(intake: Intake, tenant: Tenant) -> None:
    first = a_pending_attempt(tenant)
    tenant.take(first, Cancelled(reason=Reason.REPLACED))
    second = a_pending_attempt(tenant, interview_id=first.interview_id)
    other = a_pending_attempt(tenant)
    listed = {each["id"]: each for each in data(intake.get("/call-attempts"))["items"]}
    assert listed.keys() == {str(each.id) for each in (first, second, other)}
    for each in data(intake.get(f"/interviews/{first.interview_id}/call-attempts"))["items"]:
        assert listed[each["id"]] == each
    of_interview = ids(intake, "/call-attempts", interviewId=str(first.interview_id))
    assert set(of_interview) == {str(first.id), str(second.id)}
    assert ids(intake, "/call-attempts", interviewId=str(first.interview_id), status="PENDING") == [str(second.id)]
    [person] = intake.ask(f"SELECT candidate_id FROM interviews WHERE id = '{other.interview_id}'")[0]
    assert ids(intake, "/call-attempts", candidateId=str(person)) == [str(other.id)]
    assert ids(intake, "/call-attempts", candidateId=str(uuid4())) == []
    assert ids(intake, "/call-attempts", interviewId=str(uuid4())) == []


def test_deleted_attempts_and_interviews_are_not_listed(intake: Intake, tenant: Tenant) -> None:
    deleted, hidden, shown = (a_pending_attempt(tenant) for _ in range(3))
    for each in (deleted, hidden):
        tenant.take(each, Cancelled(reason=Reason.CANCELLED_BY_USER))
    tenant.change("UPDATE attempts SET deleted_at = ended_at WHERE id = :id", id=deleted.id)
    tenant.change("UPDATE interviews SET deleted_at = updated_at WHERE id = :id", id=hidden.interview_id)
    assert ids(intake, "/call-attempts") == [str(shown.id)]
    assert ids(intake, "/call-attempts", interviewId=str(hidden.interview_id)) == []
    for sort in ("createdAt:asc", "updatedAt:asc", "scheduledAt:asc"):
        assert str(hidden.interview_id) not in ids(intake, "/interviews", sort=sort)


def test_interview_is_listed_once_by_its_newest_attempt(intake: Intake, tenant: Tenant) -> None:
    first = a_pending_attempt(tenant)
    tenant.take(first, Cancelled(reason=Reason.REPLACED))
    tenant.change("UPDATE attempts SET due_at = :at WHERE id = :id", at=NOON + timedelta(days=3), id=first.id)
    second = a_pending_attempt(tenant, interview_id=first.interview_id)
    change = "UPDATE attempts SET due_at = :at, created_at = :created WHERE id = :id"
    tenant.change(change, at=NOON + timedelta(days=5), created=NOON + timedelta(days=4), id=second.id)
    assert ids(intake, "/interviews", sort="scheduledAt:asc") == [str(first.interview_id)]
    assert ids(intake, "/interviews", scheduledTo=text(NOON + timedelta(days=4))) == []
    for more in ({}, {"sort": "createdAt:asc"}, {"agentId": str(intake.seeded.agent_id)}):
        found = ids(intake, "/interviews", scheduledFrom=text(NOON + timedelta(days=4)), **more)
        assert found == [str(first.interview_id)], more


def test_online_interview_is_listed_by_its_own_time(intake: Intake, worker: Worker) -> None:
    agent = str(an_online_agent(intake))
    at = "2026-04-07T10:00:00Z"
    online = intake.interview(agentId=agent, scheduledAt=at)["id"]
    without_time = intake.interview(agentId=agent)["id"]
    assert ids(intake, "/interviews", scheduledFrom=at, scheduledTo="2026-04-07T10:00:01Z") == [online]
    assert ids(intake, "/interviews", sort="scheduledAt:desc") == [online]
    assert set(ids(intake, "/interviews")) == {online, without_time}


# ---- long lists


def test_rare_filter_ends_its_page_early_and_goes_on(intake: Intake, postgres_url: str) -> None:
    """No index finds the one candidate of this status among changes. Each page looks at a limited number of rows."""
    count = 2 * LOOKED_AT + 10
    add_candidates(postgres_url, intake.seeded, NOON, count, named=False)
    intake.change("UPDATE candidates SET updated_at = created_at")
    rare = intake.ask("SELECT id FROM candidates ORDER BY created_at LIMIT 1")[0][0]
    intake.change("UPDATE candidates SET status = 'REJECTED' WHERE id = :id", id=rare)
    found = [*pages(intake, "/candidates", status="REJECTED", sort="updatedAt:desc")]
    assert found == [[], [], [str(rare)]]
    assert [*pages(intake, "/candidates", status="REJECTED", sort="createdAt:asc")] == [[str(rare)]]


def test_every_row_of_a_long_list_is_returned_once(intake: Intake, postgres_url: str) -> None:
    count = NARROW + 50
    add_pending_calls(postgres_url, intake.seeded, NOON, count)
    agent = str(intake.seeded.agent_id)
    for path, asked in (
        ("/interviews", {"agentId": agent, "sort": "createdAt:asc"}),
        ("/interviews", {"sort": "scheduledAt:asc"}),
        ("/candidates", {"search": "example", "sort": "createdAt:asc"}),
        ("/candidates", {}),
        ("/call-attempts", {}),
        ("/call-attempts", {"createdTo": text(NOON + MINUTE)}),
    ):
        found = whole(intake, path, limit=100, **asked)
        assert len(found) == len(set(found)) == count, (path, asked)


# ---- parameters

WRONG_INSTANTS = (
    *("2026-04-02", "2026-04-02T07:00:00", "2026-04-02 07:00:00Z", "2026-02-30T07:00:00Z", "0000-01-01T00:00:00Z"),
    *("1", "", "now", "2026-06-30T23:59:60Z", "2026-04-02T24:00:00Z", "2026-04-02T07:00:00+24:00"),
)


def test_wrong_instant_is_named(intake: Intake) -> None:
    for path in BY_CURSOR:
        for value in WRONG_INSTANTS:
            wrong = wrong_fields(intake.get(path, updatedSince=value))
            assert wrong == [("updatedSince", "INVALID_DATE_TIME")], (path, value)


def test_instant_may_have_an_offset_and_a_fraction(intake: Intake, five: dict[str, list[str]]) -> None:
    since = "2026-04-02T14:03:00.000001+02:00"
    assert ids(intake, "/jobs", createdFrom=since) == five["/jobs"][:3:-1]
    assert NOON + 3 * MINUTE < datetime.fromisoformat(since) < NOON + 4 * MINUTE
    first, last = "0001-01-01T00:00:00+14:00", "9999-12-31t23:59:59.123456789-14:00"
    assert ids(intake, "/jobs", createdFrom=first, createdTo=last) == five["/jobs"][::-1]


def test_range_that_ends_before_it_begins_is_named(intake: Intake) -> None:
    at = text(NOON)
    for name in ("created", "scheduled"):
        asked = {f"{name}From": at, f"{name}To": at}
        assert wrong_fields(intake.get("/interviews", **asked)) == [(f"{name}To", "INVALID_RANGE")]


FORGED = [
    "{by}:desc now {id}",
    "{by}:down 2026-04-02T12:00:00+00:00 {id}",
    "{by}:DESC 2026-04-02T12:00:00+00:00 {id}",
    "{by}:desc:asc 2026-04-02T12:00:00+00:00 {id}",
    "dueAt:asc 2026-04-02T12:00:00+00:00 {id}",
    "{by} 2026-04-02T12:00:00+00:00 {id}",
    "2026-04-02T12:00:00+00:00 {id}",
    "{by}:desc 0001-01-01T00:00:00+14:00 {id}",
    "{by}:desc 2026-04-02T12:00:00+00:00 {id}\n",
    "{by}:desc 2026-04-02T12:00:00+00:00 {{{id}}}",
    "{by}:desc 2026-04-02T12:00:00+00:00 urn:uuid:{id}",
    "{by}:desc 2026-04-02 {id}",
    "{by}:desc 2026-W14-4T12:00:00+00:00 {id}",
    "{by}:desc infinity {id}",
    "{by}:desc 2026-04-02T12:00:00 {id}",
    "{by}:desc 10000-01-01T00:00:00+00:00 {id}",
    "' OR 1=1 -- {id}",
]
"""Contents of cursors, after the name of their list."""


def test_cursor_of_another_list_is_named(intake: Intake, five: dict[str, list[str]]) -> None:
    cursors = {each: data(intake.get(each, limit=2))["pagination"]["nextCursor"] for each in BY_CURSOR}
    for path, rows in five.items():
        own, others = cursors[path], [cursor for each, cursor in cursors.items() if each != path]
        by = "scheduledAt" if path == "/call-attempts" else "createdAt"
        assert ids(intake, path, cursor=own) == ids(intake, path, cursor=own, sort=f"{by}:desc") == rows[::-1][2:]
        right = encoded(f"{path[1:]} {by}:desc 2026-04-02T12:00:00+00:00 {uuid4()}")
        assert data(intake.get(path, cursor=right)), "this one has the form of a cursor"
        forged = [encoded(f"{path[1:]} {each.format(by=by, id=uuid4())}") for each in FORGED]
        if path != "/interviews":
            order = "createdAt" if path == "/call-attempts" else "scheduledAt"
            forged.append(encoded(f"{path[1:]} {order}:asc 2026-04-02T12:00:00+00:00 {uuid4()}"))
        forged += [own[:-1], own + "A", own[2:], "é", "AAAA", "a" * 300, "", encoded("\0")]
        for cursor in (*others, *forged):
            wrong = wrong_fields(intake.get(path, cursor=cursor))
            assert [name for name, _ in wrong] == ["cursor"], (path, cursor)
        assert wrong_fields(intake.get(path, cursor=own, sort=f"{by}:asc")) == [("cursor", "INVALID_CURSOR")]


def test_cursor_at_the_end_of_time_is_a_place(intake: Intake, five: dict[str, list[str]]) -> None:
    first, last = f"0001-01-01T00:00:00+00:00 {UUID(int=0)}", f"9999-12-31T23:59:59.999999+00:00 {UUID(int=2**128 - 1)}"
    for path in five:
        by = "scheduledAt" if path == "/call-attempts" else "createdAt"
        for order, place, count in (("asc", first, 5), ("asc", last, 0), ("desc", first, 0), ("desc", last, 5)):
            cursor = encoded(f"{path[1:]} {by}:{order} {place}")
            assert len(ids(intake, path, cursor=cursor)) == count, (path, order, place)


@does_not("F7-8")
def test_cursor_of_other_filters_is_named(intake: Intake, five: dict[str, list[str]]) -> None:
    late, early = ({"createdTo": text(NOON + timedelta(days=days))} for days in (400, 300))
    for path in five:
        unfiltered, filtered = (
            data(intake.get(path, limit=1, **each))["pagination"]["nextCursor"] for each in ({}, late)
        )
        assert filtered is not None
        assert ids(intake, path, cursor=filtered, limit=2, **late), "another limit is no other filter"
        for cursor, asked in ((unfiltered, late), (filtered, {}), (filtered, early)):
            assert wrong_fields(intake.get(path, cursor=cursor, **asked)) == [("cursor", "INVALID_CURSOR")], asked


def encoded(content: str) -> str:
    return urlsafe_b64encode(content.encode()).decode().rstrip("=")


def test_page_number_of_a_list_by_cursor_is_named(intake: Intake, five: dict[str, list[str]]) -> None:
    for path in ("/interviews", "/candidates", "/jobs"):
        cursor = data(intake.get(path, limit=2))["pagination"]["nextCursor"]
        for asked in ({"cursor": cursor}, {"sort": "createdAt:asc"}, {"createdFrom": text(NOON)}):
            assert wrong_fields(intake.get(path, page=2, **asked)) == [("page", "CURSOR_REQUIRED")], asked
    assert wrong_fields(intake.get("/call-attempts", page=1)) == [("page", "UNKNOWN_PARAMETER")]


def test_list_by_cursor_has_no_total(intake: Intake, five: dict[str, list[str]]) -> None:
    page = data(intake.get("/jobs", sort="createdAt:asc", limit=2))["pagination"]
    assert {**page, "nextCursor": None} == {
        "page": None,
        "limit": 2,
        "total": None,
        "totalIsEstimate": False,
        "totalPages": None,
        "hasNextPage": True,
        "hasPreviousPage": False,
        "nextCursor": None,
    }
    following = data(intake.get("/jobs", cursor=page["nextCursor"], limit=3))["pagination"]
    assert following["nextCursor"] is None
    assert (following["hasNextPage"], following["hasPreviousPage"]) == (False, True)


# ---- tenants


@does_not("F7-8")
def test_filters_and_cursors_reach_no_other_company(intake: Intake, five: dict[str, list[str]]) -> None:
    [interview, person] = map(str, intake.ask("SELECT id, candidate_id FROM interviews LIMIT 1")[0])
    stranger, since = intake.with_key_of_another_company(), text(NOON)
    of_one_list: dict[str, list[dict[str, Any]]] = {
        "/call-attempts": [{"interviewId": interview}, {"candidateId": person}, {"status": "PENDING"}],
        "/interviews": [{"candidateId": person, "sort": "createdAt:asc"}, {"status": ["SCHEDULED", "FAILED"]}],
    }
    for path in five:
        cursor = data(intake.get(path, limit=1))["pagination"]["nextCursor"]
        scheduled = [{"scheduledFrom": since}] if path in of_one_list else []
        for each in ({}, {"createdFrom": since}, {"updatedSince": since}, *scheduled, *of_one_list.get(path, [])):
            assert ids(stranger, path, **each) == [], (path, each)
        page = data(stranger.get(path, cursor=cursor))
        assert (page["items"], page["pagination"]["nextCursor"], page["pagination"]["total"]) == ([], None, None)
        assert len(ids(intake, path)) == 5
