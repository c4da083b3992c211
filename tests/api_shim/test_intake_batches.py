"""Batches over HTTP: stored with the response, applied by a worker, shown item by item."""

import json
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from api_shim.rate_limits import Uploads
from scheduler.domain.refusals import RateLimitExceeded
from scheduler.rules.tallies import BATCH_ITEMS
from scheduler.use_cases.apply_batches import ApplyBatches
from scheduler.use_cases.operations.counts import Counts
from scheduler.use_cases.operations.number_events import NumberEvents
from scheduler.wire.batches import LARGEST_BATCH
from tests.api_shim.answers import data, refused
from tests.api_shim.bodies import candidate
from tests.api_shim.intake import KEY, Intake
from tests.architecture.rules import does, does_not
from tests.support.builders import RecordingHints, Tenant, a_number

NDJSON = {"Content-Type": "application/x-ndjson"}


@pytest.fixture
def bulk(tenant: Tenant) -> ApplyBatches:
    """The worker of batches."""
    return ApplyBatches(tenant.context, RecordingHints())


def ndjson(*items: Any) -> bytes:
    return b"\n".join(each if isinstance(each, bytes) else json.dumps(each).encode() for each in items)


def send(intake: Intake, content: bytes, path: str = "/batches", **headers: str) -> httpx.Response:
    return intake.send("POST", path, content=content, headers=NDJSON | headers)


def person(intake: Intake, **changes: Any) -> dict[str, Any]:
    return intake.body(candidate=candidate(phoneNumber=a_number()), **changes)


def items_of(intake: Intake, batch: dict[str, Any], **params: Any) -> list[dict[str, Any]]:
    return list(data(intake.get(f"/batches/{batch['id']}/items", **params))["items"])


def made(intake: Intake, *items: Any, **more: Any) -> dict[str, Any]:
    return dict(data(intake.post("/batches", {"items": list(items), **more}), 202))


@does("F7-10")
def test_accepted_batch_names_its_url(intake: Intake) -> None:
    body, headers = {"items": [person(intake)]}, {"Idempotency-Key": "one batch"}
    first, again = (intake.post("/batches", body, headers=headers) for _ in range(2))
    batch = data(first, 202)
    assert first.headers["Location"] == again.headers["Location"] == f"/batches/{batch['id']}"
    assert data(intake.get(first.headers["Location"]))["id"] == batch["id"]
    refused(intake.post("/batches", body | {"name": "May"}, headers=headers), 422, "IDEMPOTENCY_KEY_REUSED")
    assert "Location" not in intake.post("/batches", body | {"dryRun": True}).headers


@pytest.mark.parametrize("form", ["JSON", "NDJSON"])
def test_nul_in_a_nested_name_refuses_only_its_item(intake: Intake, form: str) -> None:
    """PostgreSQL cannot store the name of the field in the refusal either."""
    inner = {"a\0b": {"c": "\0"}}
    items = [{"a\0b": 1}, inner, {"metadata": inner}, {"candidate": {"\0": {"\0": ["\0"]}}}, person(intake)]
    batch = made(intake, *items) if form == "JSON" else data(send(intake, ndjson(*items)), 202)
    shown = items_of(intake, batch)
    assert [each["status"] for each in shown] == ["REFUSED"] * 4 + ["WAITING"]
    assert {each["error"]["code"] for each in shown[:4]} == {"VALIDATION_ERROR"}
    wrong = [[(each["field"], each["code"]) for each in item["error"]["details"]["fields"]] for item in shown[:4]]
    bad = "INVALID_CHARACTER"
    assert wrong == [
        [("", bad)],
        [("", bad), (r"a\x00b.c", bad)],
        [("metadata", bad), (r"metadata.a\x00b.c", bad)],
        [("candidate", bad), (r"candidate.\x00", bad), (r"candidate.\x00.\x00.0", bad)],
    ]


@does("F7-10")
def test_batch_is_stored_then_applied(intake: Intake, bulk: ApplyBatches) -> None:
    batch = made(intake, person(intake, externalId="row-1"), person(intake), name="Spring")
    assert (batch["status"], batch["total"], batch["name"]) == ("ACCEPTED", 2, "Spring")
    counts = {"waiting": 2, "applied": 0, "existing": 0, "refused": 0, "cancelled": 0, "inProgress": None}
    assert batch["counts"] == counts
    bulk.turn()
    done = data(intake.get(f"/batches/{batch['id']}"))
    assert (done["status"], done["counts"]["applied"]) == ("COMPLETED", 2)
    assert done["firstDueAt"] is not None
    first, second = items_of(intake, batch)
    assert (first["externalId"], first["status"], first["error"]) == ("row-1", "APPLIED", None)
    interview = data(intake.get(f"/interviews/{second['interviewId']}"))
    assert interview["status"] == "SCHEDULED"
    assert done["firstDueAt"] == interview["callAttempts"][0]["scheduledAt"]


@does("F7-1", "F7-10")
def test_completed_batch_is_read_as_event_with_counts(intake: Intake, bulk: ApplyBatches) -> None:
    reader = intake.with_new_key("read:webhooks")
    batch = made(intake, person(intake), {})
    bulk.turn()
    NumberEvents(reader.database, RecordingHints(), reader.now).all()
    [event] = data(reader.send("GET", "/events", params={"types": "batch.completed"}))["items"]
    counts = {"applied": 1, "refused": 1, "cancelled": 0}
    ids = {"companyId": str(intake.seeded.company_id), "batchId": batch["id"]}
    assert event["data"] == ids | counts | {"status": "COMPLETED"}


def test_outcome_of_a_batch_is_read_by_its_idempotency_key(intake: Intake) -> None:
    batch = data(intake.post("/batches", {"items": [person(intake)]}, headers={"Idempotency-Key": "May"}), 202)
    command = data(intake.get("/commands/May"))
    assert (command["status"], command["statusCode"], command["result"]["id"]) == ("APPLIED", 202, batch["id"])


@does("F7-10")
def test_lines_are_stored_in_one_request(intake: Intake, bulk: ApplyBatches) -> None:
    batch = data(send(intake, ndjson(person(intake), b"{", person(intake)), "/batches?name=May"), 202)
    assert (batch["total"], batch["name"], batch["counts"]["refused"]) == (3, "May", 1)
    bulk.turn()
    [item] = items_of(intake, batch, state="REFUSED")
    assert (item["index"], item["error"]["code"]) == (1, "MALFORMED_JSON")
    assert [each["index"] for each in items_of(intake, batch, state="APPLIED")] == [0, 2]


@does_not("F7-10")
def test_body_that_is_no_batch_stores_nothing(intake: Intake) -> None:
    lines, whole = "application/x-ndjson", "application/json"
    for content, content_type, status, code in (
        (b"", lines, 400, "MALFORMED_JSON"),
        (b"\n\n", lines, 400, "MALFORMED_JSON"),
        (b"name;number\n", lines, 400, "MALFORMED_JSON"),
        (b"{}\n" * 10_001, lines, 400, "BATCH_TOO_LARGE"),
        (b"{}", "text/csv", 400, "CONTENT_TYPE_NOT_BATCH"),
        (b"[]", whole, 400, "VALIDATION_ERROR"),
        (b'{"items": []}', whole, 400, "VALIDATION_ERROR"),
        (b" " * (LARGEST_BATCH + 1), lines, 413, "BODY_TOO_LARGE"),
    ):
        refused(send(intake, content, **{"Content-Type": content_type}), status, code)
    assert intake.count("batches") == 0


def test_batch_may_be_larger_than_other_bodies(intake: Intake) -> None:
    item = person(intake, metadata={"a": "x" * 9000})
    assert data(send(intake, ndjson(*[item] * 20)), 202)["total"] == 20
    refused(intake.post("/interviews", {"items": [item] * 20}), 413, "BODY_TOO_LARGE")


def test_unknown_parameters_of_a_batch_are_named(intake: Intake) -> None:
    error = refused(intake.post("/batches?name=x", {"items": [person(intake)]}), 400, "VALIDATION_ERROR")
    assert error["details"]["fields"][0]["field"] == "name"
    assert "in the body" in error["details"]["fields"][0]["message"]
    error = refused(intake.post("/batches", {"items": [{}], "itmes": 1}), 400, "VALIDATION_ERROR")
    assert error["details"]["fields"][0]["field"] == "itmes"


@does("F4-8", "F7-10")
def test_cancelled_batch_counts_its_calls_in_progress(intake: Intake, bulk: ApplyBatches, tenant: Tenant) -> None:
    """A call that was claimed before the cancellation runs on. Interviews that existed before do not count."""
    old = made(intake, person(intake, externalId="old"))
    bulk.turn()
    batch = made(intake, person(intake), person(intake), {**person(intake), "externalId": "old"})
    bulk.turn()
    due = [UUID(each["callAttempts"][-1]["id"]) for each in data(intake.get("/interviews"))["items"]]
    tenant.change("UPDATE attempts SET due_at = :now", now=tenant.now())
    claimed = tenant.dial.claim([due[0]]).claimed
    assert len(claimed) == 1
    path = f"/batches/{batch['id']}"
    in_progress = data(intake.get(path))["counts"]["inProgress"]
    cancelled = data(intake.delete(path, headers=KEY))
    assert (cancelled["status"], cancelled["counts"]["inProgress"], in_progress) == ("CANCELLED", 1, 1)
    assert data(intake.delete(path, headers=KEY))["counts"]["inProgress"] == 1, "the replay is the same"
    assert data(intake.get(f"/batches/{old['id']}"))["counts"]["inProgress"] == 0
    assert [each["counts"]["inProgress"] for each in data(intake.get("/batches"))["items"]] == [None, None]


@does("F7-10")
@pytest.mark.usefixtures("worker")
def test_cancelled_interviews_exist_until_they_are_deleted(intake: Intake, bulk: ApplyBatches) -> None:
    row = person(intake, externalId="row")
    first = made(intake, row)
    bulk.turn()
    data(intake.delete(f"/batches/{first['id']}"))
    again = made(intake, row)
    bulk.turn()
    [item] = items_of(intake, again)
    assert (item["existed"], item["interviewStatus"]) == (True, "CANCELLED")
    path = f"/interviews/{item['interviewId']}"
    error = refused(intake.patch(path, {"scheduledAt": "2026-04-03T09:30:00"}), 409, "CALL_ATTEMPT_NOT_PENDING")
    assert error["message"] == "The interview is cancelled. Create a new one."
    refused(intake.post(f"{path}/call-attempts"), 409, "INTERVIEW_FINISHED")
    data(intake.delete(path))
    assert items_of(intake, again)[0]["interviewStatus"] is None
    third = made(intake, row)
    bulk.turn()
    [item] = items_of(intake, third)
    assert (item["existed"], item["interviewStatus"]) == (False, "SCHEDULED")


def test_metrics_count_batches_and_outcomes(intake: Intake, tenant: Tenant, bulk: ApplyBatches) -> None:
    """A paused batch is not counted: its client decides when it goes on."""
    path = f"/batches/{made(intake, person(intake, externalId='row'), {})['id']}"
    made(intake.with_key_of_another_company(), {})  # finished at once
    assert waiting(tenant) == (1, 1, 0, 0)
    at = tenant.now() - timedelta(seconds=150)
    tenant.change("UPDATE batches SET created_at = :at, updated_at = :at WHERE finished_at IS NULL", at=at)
    assert waiting(tenant) == (1, 1, 1, 1)
    data(intake.post(path + "/pause"))
    assert waiting(tenant) == (0, 0, None, None)
    data(intake.post(path + "/resume"))
    assert waiting(tenant) == (1, 1, 1, 0)
    bulk.turn()
    assert waiting(tenant) == (0, 0, None, None)
    made(intake, intake.body(candidate=candidate(phoneNumber="+421915")), person(intake))
    data(intake.delete(f"/batches/{data(intake.get('/batches'))['items'][0]['id']}"))
    counted = Counts(tenant.context).count().totals
    outcomes = {labels: amount.n for (name, labels), amount in counted.items() if name == BATCH_ITEMS.name}
    assert outcomes == {"CREATED": 1, "REFUSED": 3, "CANCELLED": 1}
    text = intake.get("/metrics").text
    assert 'duecall_batch_items_total{outcome="CREATED"} 1.0' in text
    assert "duecall_batches_still_seconds 0.0" in text


def waiting(tenant: Tenant) -> tuple[int, int, int | None, int | None]:
    """Return batches, items, and the hundreds of seconds since the oldest batch and since progress was made."""
    counted = Counts(tenant.context).count()
    oldest, still = (
        None if each is None else each // timedelta(seconds=100)
        for each in (counted.batches_oldest, counted.batches_still)
    )
    return counted.batches.count, counted.batches.items, oldest, still


def test_items_count_against_their_own_limit(intake: Intake) -> None:
    limited = intake.with_key(intake.new_key(per_hour=1)[1])
    again = intake.with_key(intake.new_key(per_hour=2)[1])
    error = refused(send(limited, ndjson(*[person(intake)] * 11)), 429, "RATE_LIMIT_EXCEEDED")
    assert (error["details"]["limit"], error["details"]["unit"]) == (10, "items")
    assert intake.count("batches") == 0
    data(send(again, ndjson(*[person(intake)] * 15)), 202)
    refused(send(again, ndjson(*[person(intake)] * 6)), 429, "RATE_LIMIT_EXCEEDED")


def test_few_batches_of_a_key_are_received_at_a_time(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    one_of, key, other = Uploads(most=1).one_of, uuid4(), uuid4()
    with one_of(key), one_of(other), pytest.raises(RateLimitExceeded), one_of(key):
        pass
    with one_of(key), monkeypatch.context() as patched:
        patched.setattr(Uploads, "one_of", lambda *_: one_of(key))
        busy = send(intake, ndjson(person(intake)))
    assert busy.headers["Retry-After"] == "1"
    assert refused(busy, 429, "RATE_LIMIT_EXCEEDED")["details"]["limit"] == 1
    assert intake.count("batches") == 0
    data(send(intake, ndjson(person(intake))), 202)


def test_items_are_read_page_by_page(intake: Intake) -> None:
    batch = made(intake, *[person(intake)] * 5)
    path = f"/batches/{batch['id']}/items"
    first = data(intake.get(path, limit=3))
    rest = data(intake.get(path, limit=3, cursor=first["pagination"]["nextCursor"]))
    assert [each["index"] for each in first["items"] + rest["items"]] == [0, 1, 2, 3, 4]
    assert rest["pagination"] == {"limit": 3, "hasNextPage": False, "nextCursor": None}
    for cursor, asked in (("-1", {}), ("2", {}), (first["pagination"]["nextCursor"], {"status": "WAITING"})):
        refused(intake.get(path, cursor=cursor, **asked), 400, "VALIDATION_ERROR")
    waiting = data(intake.get(path, limit=3, state="WAITING"))["pagination"]["nextCursor"]
    assert len(data(intake.get(path, cursor=waiting, status="WAITING"))["items"]) == 2
    for name in ("status", "state"):
        assert [len(data(intake.get(path, **{name: each}))["items"]) for each in ("WAITING", "REFUSED")] == [5, 0]
    refused(intake.get(path, status="REFUSED", state="REFUSED"), 400, "VALIDATION_ERROR")
    refused(intake.get(path, state="DONE"), 400, "VALIDATION_ERROR")


def test_batches_are_listed_by_cursor(intake: Intake) -> None:
    ids = [made(intake, person(intake))["id"] for _ in range(3)]
    first = data(intake.get("/batches", limit=2))
    rest = data(intake.get("/batches", limit=2, cursor=first["pagination"]["nextCursor"]))
    assert [each["id"] for each in first["items"] + rest["items"]] == ids[::-1]
    assert intake.with_key_of_another_company().ids("/batches") == []


@does("F7-10")
def test_batch_is_paused_resumed_and_cancelled(intake: Intake, bulk: ApplyBatches) -> None:
    batch = made(intake, person(intake), person(intake))
    path = f"/batches/{batch['id']}"
    assert data(intake.post(path + "/pause"))["status"] == "PAUSED"
    bulk.turn()
    assert intake.count("interviews") == 0
    assert data(intake.post(path + "/resume"))["status"] == "ACCEPTED"
    bulk.turn()
    refused(intake.post(path + "/pause"), 409, "BATCH_FINISHED")
    cancelled = data(intake.delete(path))
    assert cancelled["status"] == "CANCELLED"
    for item in items_of(intake, batch):
        interview = data(intake.get(f"/interviews/{item['interviewId']}"))
        assert (interview["status"], interview["callAttempts"][0]["status"]) == ("CANCELLED", "CANCELLED")


def test_long_cancellation_is_accepted(intake: Intake, bulk: ApplyBatches) -> None:
    batch = data(send(intake, ndjson(*(person(intake) for _ in range(101)))), 202)
    bulk.turn()
    answer = intake.delete(f"/batches/{batch['id']}")
    assert (answer.status_code, answer.json()["data"]["finishedAt"]) == (202, None)
    bulk.turn()
    assert data(intake.get(f"/batches/{batch['id']}"))["finishedAt"] is not None
    assert intake.delete(f"/batches/{batch['id']}").status_code == 200


def test_ats_key_names_the_company_of_a_batch(intake: Intake, bulk: ApplyBatches) -> None:
    item = person(intake)
    ats = intake.with_key_of_its_ats()
    refused(send(ats, ndjson(item)), 400, "COMPANY_ID_REQUIRED")
    batch = data(send(ats, ndjson(item), f"/batches?companyId={intake.seeded.company_id}"), 202)
    bulk.turn()
    assert data(intake.get(f"/batches/{batch['id']}"))["counts"]["applied"] == 1


def test_items_show_no_personal_data(intake: Intake, bulk: ApplyBatches, lines: list[dict[str, Any]]) -> None:
    secret = candidate(firstName="Zdenka-Canary", email="canary@example.com", phoneNumber="+421905777888")
    bodies = [
        intake.body(candidate=secret),
        intake.body(candidate=secret, scheduledAt="2026-01-01T00:00:00 canary"),
        intake.body(candidate=secret | {"gdprExpiryDate": "canary"}, metadata={"canary": "canary"}),
        intake.body(candidate=secret | {"phoneNumber": "+421905777888canary"}),
    ]
    batch = made(intake, *bodies)
    path = f"/batches/{batch['id']}"
    before = [intake.get(path), intake.get(path + "/items")]
    bulk.turn()
    answers = [*before, intake.get(path), intake.get(path + "/items"), intake.get("/batches"), intake.delete(path)]
    for text in (*(each.text for each in answers), json.dumps(lines, default=str)):
        assert "anary" not in text
        assert "905777888" not in text
    stored = str(intake.ask("SELECT row_to_json(i) FROM batch_items i"))
    assert "905777888" not in stored


def test_batch_of_ten_thousand_is_stored_whole(intake: Intake) -> None:
    item = json.dumps(person(intake)).encode()
    batch = data(send(intake, b"\n".join([item] * 10_000) + b"\n"), 202)
    assert (batch["total"], batch["counts"]["waiting"]) == (10_000, 10_000)
    assert intake.count("batch_items") == 10_000
