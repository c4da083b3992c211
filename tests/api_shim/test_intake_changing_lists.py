"""Lists over HTTP by external id and cursor, and lists that change while a client reads them."""

from datetime import datetime, timedelta
from typing import Any
from unicodedata import normalize
from uuid import UUID, uuid4

import pytest

from scheduler.domain.attempt import Cancelled, Reason
from tests.api_shim.answers import data, refused, wrong_fields
from tests.api_shim.bodies import JOB, TOMORROW, candidate
from tests.api_shim.intake import Intake, Worker
from tests.api_shim.test_intake_filtered_lists import BY_CURSOR, TABLES, ids, pages, text, whole
from tests.architecture.rules import does, does_not
from tests.conftest import NOON
from tests.support.builders import Tenant, a_pending_attempt

OURS = "ats-4711"
NAMED = ("/interviews", "/candidates", "/jobs")
MINUTE = timedelta(minutes=1)
CHANGED = NOON + timedelta(hours=1)


def _rows(intake: Intake, tenant: Tenant, count: int) -> dict[str, list[str]]:
    """Make rows of each list, created and changed a minute apart, the oldest first."""
    for _ in range(count):
        a_pending_attempt(tenant)
        intake.made("/jobs", JOB)
    for table in TABLES.values():
        intake.change(
            f"UPDATE {table} SET created_at = :at + place * interval '1 minute',"
            " updated_at = :changed + place * interval '1 minute'"
            f" FROM (SELECT id AS row_id, row_number() OVER (ORDER BY id) - 1 AS place FROM {table}) AS t"
            f" WHERE id = row_id",
            at=NOON,
            changed=CHANGED,
        )
    return {
        path: [str(row[0]) for row in intake.ask(f"SELECT id FROM {table} ORDER BY created_at")]
        for path, table in TABLES.items()
    }


@pytest.fixture
def six(intake: Intake, tenant: Tenant) -> dict[str, list[str]]:
    return _rows(intake, tenant, 6)


def change_at(intake: Intake, path: str, row_id: str, at: datetime) -> None:
    intake.change(f"UPDATE {TABLES[path]} SET updated_at = :at WHERE id = :id", at=at, id=row_id)


def delete(tenant: Tenant, path: str, row_id: str) -> None:
    with tenant.database.transaction() as stores:
        match path:
            case "/candidates":
                stores.candidates.erase(UUID(row_id), NOON)
            case "/jobs":
                stores.jobs.delete(UUID(row_id), NOON)
    if path == "/call-attempts":
        tenant.take(tenant.attempt(UUID(row_id)), Cancelled(reason=Reason.CANCELLED_BY_USER))
        tenant.change("UPDATE attempts SET deleted_at = ended_at WHERE id = :id", id=row_id)
    elif path == "/interviews":
        tenant.change("UPDATE interviews SET deleted_at = updated_at WHERE id = :id", id=row_id)


# ---- external ids


def identify(intake: Intake, path: str, row_id: str, external_id: str = OURS) -> None:
    intake.change(f"UPDATE {TABLES[path]} SET external_id = :text WHERE id = :id", text=external_id, id=row_id)


def test_external_id_is_combined_with_other_filters(intake: Intake, six: dict[str, list[str]]) -> None:
    for path in NAMED:
        rows = six[path]
        identify(intake, path, rows[2])
        identify(intake, path, rows[3], OURS.upper())
        sorts = ["createdAt:asc", "updatedAt:desc", *(["scheduledAt:asc"] if path == "/interviews" else [])]
        asked: list[dict[str, Any]] = [{}, *({"sort": each} for each in sorts)]
        asked += [{"updatedSince": text(CHANGED)}, {"createdFrom": text(NOON + 2 * MINUTE), "limit": 1}]
        for each in asked:
            assert whole(intake, path, externalId=OURS, **each) == [rows[2]], (path, each)
            assert whole(intake, path, externalId="unknown", **each) == [], (path, each)
        for none in ({"createdFrom": text(NOON + 3 * MINUTE)}, {"createdTo": text(NOON + 2 * MINUTE)}):
            assert ids(intake, path, externalId=OURS, **none) == [], (path, none)


def test_external_id_is_combined_with_statuses_and_ids(intake: Intake, six: dict[str, list[str]]) -> None:
    interview, other = six["/interviews"][:2]
    for path in NAMED:
        identify(intake, path, six[path][0])
    people = dict(intake.ask("SELECT id::text, candidate_id::text FROM interviews"))
    for found, asked in (
        ([interview], {"candidateId": people[interview]}),
        ([], {"candidateId": people[other]}),
        ([interview], {"status": ["SCHEDULED", "FAILED"]}),
        ([], {"status": ["COMPLETED", "FAILED"]}),
        ([], {"jobId": str(uuid4())}),
    ):
        for more in ({}, {"sort": "createdAt:asc"}):
            assert ids(intake, "/interviews", externalId=OURS, **asked, **more) == found, (asked, more)
    person, job = six["/candidates"][0], six["/jobs"][0]
    for more in ({}, {"sort": "updatedAt:asc"}):
        assert ids(intake, "/candidates", externalId=OURS, search="no such name", **more) == []
        assert ids(intake, "/candidates", externalId=OURS, jobId=job, **more) == []
        assert ids(intake, "/candidates", externalId=OURS, status="REJECTED", **more) == []
        assert ids(intake, "/candidates", externalId=OURS, status="APPLIED", **more) == [person]
        assert ids(intake, "/jobs", externalId=OURS, status="CLOSED", **more) == []
        assert ids(intake, "/jobs", externalId=OURS, status=["OPEN", "CLOSED"], **more) == [job]


@does("F7-8")
def test_attempts_of_an_external_id_are_listed(intake: Intake, tenant: Tenant) -> None:
    first, other = a_pending_attempt(tenant), a_pending_attempt(tenant)
    tenant.take(first, Cancelled(reason=Reason.REPLACED))
    second = a_pending_attempt(tenant, interview_id=first.interview_id)
    identify(intake, "/interviews", str(first.interview_id))
    both = {str(first.id), str(second.id)}
    assert set(ids(intake, "/call-attempts", externalId=OURS)) == both
    found = [*pages(intake, "/call-attempts", externalId=OURS, limit=1)]
    assert {each for page in found for each in page} == both
    assert all(len(page) <= 1 for page in found)
    assert ids(intake, "/call-attempts", externalId=OURS, status="PENDING") == [str(second.id)]
    assert set(ids(intake, "/call-attempts", externalId=OURS, interviewId=str(first.interview_id))) == both
    assert ids(intake, "/call-attempts", externalId=OURS, interviewId=str(other.interview_id)) == []
    [person] = intake.ask(f"SELECT candidate_id FROM interviews WHERE id = '{other.interview_id}'")[0]
    assert ids(intake, "/call-attempts", externalId=OURS, candidateId=str(person)) == []
    assert wrong_fields(intake.get("/call-attempts", externalId="")) == [("externalId", "TOO_SHORT")]
    assert wrong_fields(intake.get("/call-attempts", externalId="x" * 256)) == [("externalId", "TOO_LONG")]
    assert ids(intake.with_key_of_another_company(), "/call-attempts", externalId=OURS) == []
    intake.change("UPDATE interviews SET deleted_at = updated_at WHERE id = :id", id=first.interview_id)
    assert ids(intake, "/call-attempts", externalId=OURS) == []


@does_not("F7-8")
@pytest.mark.parametrize("path", BY_CURSOR)
def test_external_id_of_a_deleted_row_finds_nothing(
    intake: Intake, tenant: Tenant, six: dict[str, list[str]], path: str
) -> None:
    named = "/interviews" if path == "/call-attempts" else path
    row_id = six[named][0]
    identify(intake, named, row_id)
    assert len(ids(intake, path, externalId=OURS)) == 1
    delete(tenant, named, row_id)
    for more in ({}, {"sort": "scheduledAt:asc" if path == "/call-attempts" else "createdAt:asc"}):
        assert ids(intake, path, externalId=OURS, **more) == [], more


def test_external_ids_are_compared_by_code_points(intake: Intake) -> None:
    composed = "caf\N{LATIN SMALL LETTER E WITH ACUTE}"
    variants = [
        composed,
        normalize("NFD", composed),
        composed.upper(),
        f" {composed}",
        f"{composed}\t",
        "ﬁ",
        "fi",
        "İ",
        "i",
    ]
    made = {each: intake.made("/jobs", {**JOB, "externalId": each})["id"] for each in variants}
    assert len(set(made.values())) == len(variants)
    for external_id, job_id in made.items():
        for more in ({}, {"sort": "createdAt:asc"}):
            assert ids(intake, "/jobs", externalId=external_id, **more) == [job_id], repr(external_id)
        assert data(intake.post("/jobs", {**JOB, "externalId": external_id}), 200)["id"] == job_id


def test_external_id_passes_on_after_each_deletion(intake: Intake, worker: Worker) -> None:
    body = intake.body(scheduledAt=TOMORROW, externalId=OURS, candidate=candidate(externalId="p"))
    seen = set()
    for _ in range(3):
        one = data(intake.create(body), 201)
        assert ids(intake, "/interviews", externalId=OURS, sort="createdAt:asc") == [one["id"]]
        seen |= {one["id"], one["candidateId"]}
        assert data(intake.delete(f"/candidates/{one['candidateId']}")) is True
        refused(intake.create(body), 409, "EXTERNAL_ID_REUSED")
        assert data(intake.delete(f"/interviews/{one['id']}")) is True
    assert len(seen) == 6
    assert ids(intake, "/candidates", externalId="p", sort="createdAt:asc") == []


# ---- rows that change


@does("F7-8")
@pytest.mark.parametrize("path", NAMED)
def test_changes_meanwhile_hide_no_row_of_a_list_by_change(
    intake: Intake, six: dict[str, list[str]], path: str
) -> None:
    """A changed row moves to the end: one that was read is read again, one that was not read is read once."""
    rows, seen = six[path], []
    for number, page in enumerate(pages(intake, path, updatedSince=text(NOON), limit=2)):
        seen += page
        if number == 0:
            for place, row_id in enumerate((rows[0], rows[1], rows[2], rows[5])):
                change_at(intake, path, row_id, CHANGED + timedelta(hours=1) + place * MINUTE)
    assert seen == [rows[0], rows[1], rows[3], rows[4], rows[0], rows[1], rows[2], rows[5]]


def test_reader_of_changes_goes_on_from_the_newest_one(intake: Intake, six: dict[str, list[str]]) -> None:
    for path in NAMED:
        newest = data(intake.get(path, sort="updatedAt:asc"))["items"][-1]["updatedAt"]
        assert ids(intake, path, updatedSince=newest) == [six[path][-1]]
        change_at(intake, path, six[path][2], datetime.fromisoformat(newest) + timedelta(microseconds=1))
        assert ids(intake, path, updatedSince=newest) == [six[path][-1], six[path][2]]


@pytest.mark.parametrize("path", BY_CURSOR)
def test_rows_deleted_between_pages_hide_no_other_row(
    intake: Intake, tenant: Tenant, six: dict[str, list[str]], path: str
) -> None:
    rows, seen = six[path][::-1], []
    if path == "/call-attempts":
        intake.change("UPDATE attempts SET due_at = created_at + interval '1 day'")
    for number, page in enumerate(pages(intake, path, limit=2)):
        seen += page
        if number == 0:  # the last row of this page, and a row of each later one
            for row_id in (rows[1], rows[2], rows[5]):
                delete(tenant, path, row_id)
    assert seen == [rows[0], rows[1], rows[3], rows[4]]


def test_due_row_before_the_cursor_is_not_repeated(intake: Intake, six: dict[str, list[str]]) -> None:
    """The place of a row decides, not the row: nothing is skipped although the cursor's row has moved."""
    intake.change("UPDATE attempts SET due_at = created_at + interval '1 day'")
    rows = six["/call-attempts"]
    page = data(intake.get("/call-attempts", sort="scheduledAt:asc", limit=3))
    assert [each["id"] for each in page["items"]] == rows[:3]
    intake.change("UPDATE attempts SET due_at = :at WHERE id = :id", at=NOON, id=rows[2])
    assert ids(intake, "/call-attempts", cursor=page["pagination"]["nextCursor"]) == rows[3:]


# ---- parameters


def test_repeated_parameter_of_a_list_is_named(intake: Intake) -> None:
    for path in BY_CURSOR:
        names = ["createdFrom", "createdTo", "updatedSince", "sort", "cursor", "externalId", "limit"]
        if path in {"/interviews", "/call-attempts"}:
            names += ["scheduledFrom", "scheduledTo", "candidateId"]
        for name in names:
            wrong = wrong_fields(intake.send("GET", f"{path}?{name}=1&{name}=1"))
            assert (name, "REPEATED_PARAMETER") in wrong, (path, name)


# ---- ranges

SPRING, AUTUMN = "2026-03-29", "2026-10-25"


def test_range_across_a_clock_change_is_one_of_instants(intake: Intake, six: dict[str, list[str]]) -> None:
    """In Bratislava 01:59:59+01:00 is followed by 03:00:00+02:00, and later 02:00 comes twice."""
    rows = six["/jobs"]
    for at, row_id in zip(("00:59:59", "01:00:00", "01:00:01"), rows, strict=False):
        change = "UPDATE jobs SET created_at = CAST(:at AS timestamptz) WHERE id = :id"
        intake.change(change, at=f"{SPRING}T{at}Z", id=row_id)
    gap = {"createdFrom": f"{SPRING}T01:59:59+01:00", "createdTo": f"{SPRING}T03:00:00+02:00"}
    assert ids(intake, "/jobs", **gap) == [rows[0]]
    gap = {"createdFrom": f"{SPRING}T02:00:00+01:00", "createdTo": f"{SPRING}T03:00:01+02:00"}
    assert ids(intake, "/jobs", **gap) == [rows[1]], "a local time that no clock shows is an instant too"
    twice = {"createdFrom": f"{AUTUMN}T02:30:00+01:00", "createdTo": f"{AUTUMN}T02:30:00+02:00"}
    same = {"createdFrom": f"{AUTUMN}T03:00:00+02:00", "createdTo": f"{AUTUMN}T02:00:00+01:00"}
    for empty in (twice, same):
        assert wrong_fields(intake.get("/jobs", **empty)) == [("createdTo", "INVALID_RANGE")]
    assert ids(intake, "/jobs", createdFrom=twice["createdTo"], createdTo=twice["createdFrom"]) == []


def test_range_at_the_ends_of_time_is_read(intake: Intake, six: dict[str, list[str]]) -> None:
    first, last = "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"
    for path in six:
        for name in ["created"] if path in {"/jobs", "/candidates"} else ["created", "scheduled"]:
            assert len(ids(intake, path, **{f"{name}From": first, f"{name}To": last})) == 6
            assert ids(intake, path, **{f"{name}To": "0001-01-01T00:00:00.000001Z"}) == []
            assert ids(intake, path, **{f"{name}From": last}) == []
        assert ids(intake, path, updatedSince="9999-12-31T23:59:59-14:00") == []
        assert len(ids(intake, path, updatedSince="0001-01-01T00:00:00+14:00")) == 6
