"""History of deliveries and replays over HTTP: own endpoints only, pages by cursor, the same id again."""

from dataclasses import replace
from datetime import timedelta
from http import HTTPStatus
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from scheduler.domain.delivery_history import BATCHES_A_REPLAY, REPLAYED_A_BATCH, DeliveryFilter, ReplayFilter
from scheduler.domain.principal import KeyKind
from scheduler.domain.webhook import DeliveryState, ErrorKind, Outcome, WebhookAnswer
from scheduler.rules.webhooks import MOST_KEPT
from scheduler.use_cases.resources.idempotent_writes import IdempotentWrites
from scheduler.use_cases.resources.webhooks import WebhookDeliveries, replay_range
from scheduler.use_cases.webhooks.deliver import Deliver, Result
from tests.api_shim.answers import data
from tests.api_shim.deliveries import INTERVIEW, Partner, a_partner
from tests.api_shim.intake import Intake
from tests.architecture.rules import does, does_not
from tests.conftest import NOON
from tests.support.builders import RecordingHints
from tests.support.statements import statements_of
from tests.use_cases.webhooks.endpoints import ENCRYPTION, EVERYTHING, ScriptedSender

MINUTE = timedelta(minutes=1)


@pytest.fixture
def partner(intake: Intake) -> Partner:
    return a_partner(intake)


def listed(partner: Partner, **params: Any) -> Any:
    return data(partner.client.get(f"{partner.path}/deliveries", **params))


def ids(page: Any) -> list[UUID]:
    return [UUID(each["deliveryId"]) for each in page["items"]]


def replayed(partner: Partner, status: int = HTTPStatus.ACCEPTED, **body: Any) -> Any:
    answer = partner.client.post(f"{partner.path}/replay", {"from": NOON.isoformat(), **body})
    assert answer.status_code == status, answer.text
    return answer.json()["data"]


# ---- the list


@does("F7-6")
def test_deliveries_are_listed_newest_first(partner: Partner) -> None:
    first = partner.delivery(partner.event())
    second = partner.delivery(partner.event(NOON + MINUTE), "FAILED", tries=10)
    page = listed(partner)
    assert ids(page) == [second, first]
    assert page["pagination"]["hasNextPage"] is False
    newest = page["items"][0]
    created = newest.pop("createdAt")
    assert created == newest.pop("finishedAt") == newest.pop("lastTriedAt") == newest.pop("timestamp")
    assert newest == {
        "deliveryId": str(second),
        "type": "interview.completed",
        "state": "FAILED",
        "tries": 10,
        "nextTryAt": None,
        "lastStatus": 500,
        "lastErrorKind": None,
        "durationMs": 12,
        "isReplay": False,
        "interviewId": str(INTERVIEW),
        "sequence": 1,
    }


def test_waiting_delivery_shows_its_next_try(partner: Partner) -> None:
    partner.delivered(1, "WAITING")
    [waiting] = listed(partner)["items"]
    assert (waiting["finishedAt"], waiting["nextTryAt"]) == (None, waiting["createdAt"])


@does("F7-6")
def test_one_delivery_is_read_like_in_the_list(intake: Intake, partner: Partner) -> None:
    partner.delivered(2, "FAILED")
    for shown in listed(partner)["items"]:
        one = data(partner.client.get(f"{partner.path}/deliveries/{shown['deliveryId']}"))
        assert one == {**shown, "history": []}
    own, other = f"{partner.path}/deliveries", a_partner(intake)
    [theirs] = other.delivered(1)
    for client, path in (
        (partner.client, f"{own}/{uuid4()}"),
        (partner.client, f"{own}/{theirs}"),
        (other.client, f"{own}/{shown['deliveryId']}"),
    ):
        assert client.get(path).status_code == HTTPStatus.NOT_FOUND


@does("F7-6")
def test_one_delivery_shows_all_its_tries(partner: Partner) -> None:
    """Also the tries of a replay, which counts its own `tries`."""
    [event_id] = partner.delivered(1, "WAITING")
    path = f"{partner.path}/deliveries/{event_id}"
    for answer in (FAILED, TIMED_OUT, ACCEPTED):
        partner.client.change("UPDATE webhook_deliveries SET send_at = :now", now=partner.client.now())
        answered(partner, answer)
    partner.client.post(f"{path}/replay")
    answered(partner, FAILED)
    shown = data(partner.client.get(path))
    assert (shown["tries"], shown["state"]) == (1, "WAITING")
    times = [each.pop("triedAt") for each in shown["history"]]
    assert times == sorted(times)
    assert times[-1] == shown["lastTriedAt"]
    failed = {"status": 500, "errorKind": "HTTP_ERROR", "durationMs": 31}
    timed_out = {"status": None, "errorKind": "TIMEOUT", "durationMs": 15_000}
    accepted = {"status": 200, "errorKind": None, "durationMs": 9}
    assert shown["history"] == [failed, timed_out, accepted, failed]
    assert "history" not in listed(partner)["items"][0]


def test_newest_tries_of_a_delivery_are_kept(partner: Partner) -> None:
    [event_id] = partner.delivered(1, "WAITING")
    for each in range(MOST_KEPT + 2):
        partner.client.change("UPDATE webhook_deliveries SET send_at = :now, tries = 0", now=partner.client.now())
        partner.client.change("UPDATE webhook_endpoints SET circuit_opened_at = NULL, probe_at = NULL")
        answered(partner, replace(FAILED, milliseconds=each))
    history = data(partner.client.get(f"{partner.path}/deliveries/{event_id}"))["history"]
    assert [each["durationMs"] for each in history] == list(range(2, MOST_KEPT + 2))


FAILED = WebhookAnswer(outcome=Outcome.FAILED, status=500, error_kind=ErrorKind.HTTP_ERROR, milliseconds=31)
TIMED_OUT = WebhookAnswer(outcome=Outcome.FAILED, error_kind=ErrorKind.TIMEOUT, milliseconds=15_000)
ACCEPTED = WebhookAnswer(outcome=Outcome.DELIVERED, status=200, milliseconds=9)


def answered(partner: Partner, answer: WebhookAnswer) -> None:
    """Claim the one delivery that is due, and record this answer of its receiver."""
    deliver = Deliver(partner.client.database, ScriptedSender(answer), ENCRYPTION, partner.client.now)
    [claim] = deliver.claim(EVERYTHING)
    assert not deliver.record([Result(claimed=claim, answer=answer)])


@pytest.mark.parametrize("state", [None, "FAILED"])
def test_pages_follow_each_other_by_cursor(partner: Partner, state: str | None) -> None:
    made = partner.delivered(7, "FAILED")
    params: dict[str, Any] = {"limit": 3} | ({} if state is None else {"state": state})
    found: list[UUID] = []
    cursor = None
    while cursor is not None or not found:
        page = listed(partner, **params, **({} if cursor is None else {"cursor": cursor}))
        found += ids(page)
        # A newer one moves no other row.
        partner.delivery(partner.event(NOON + 60 * MINUTE), "FAILED")
        cursor = page["pagination"]["nextCursor"]
    assert found == made[::-1]


def test_deliveries_are_filtered(partner: Partner) -> None:
    states = ["DELIVERED", "DELIVERED", "WAITING", "FAILED"]
    types = ["interview.completed", "interview.failed", "interview.completed", "interview.completed"]
    made = [
        partner.delivery(partner.event(NOON + nth * MINUTE, type_), state)
        for nth, (state, type_) in enumerate(zip(states, types, strict=True))
    ]
    since, until = (NOON + MINUTE).isoformat(), (NOON + 3 * MINUTE).isoformat()
    for params, wanted in (
        ({"state": "FAILED"}, [3]),
        ({"state": "WAITING"}, [2]),
        ({"state": "DELIVERED"}, [1, 0]),
        ({"types": "interview.failed"}, [1]),
        ({"types": "interview.failed,interview.completed"}, [3, 2, 1, 0]),
        ({"from": since, "to": until}, [2, 1]),
        ({"from": since, "state": "DELIVERED"}, [1]),
        ({"to": NOON.isoformat()}, []),
        ({"from": "0002-01-01T00:00:00Z"}, [3, 2, 1, 0]),
        ({"to": "9998-12-31T23:59:59Z"}, [3, 2, 1, 0]),
    ):
        assert ids(listed(partner, **params)) == [made[each] for each in wanted], params


def test_wrong_filter_of_deliveries_is_named(partner: Partner) -> None:
    for params, text in (
        ({"state": "LOST"}, "state"),
        ({"types": "interview.moved"}, "types"),
        ({"from": "2026-04-02"}, "with Z or an offset"),
        ({"cursor": "x"}, "cursor"),
        ({"limit": 101}, "limit"),
        ({"page": 2}, "page"),
        ({"from": "2026-04-03T00:00:00Z", "to": "2026-04-02T00:00:00Z"}, "INVALID_RANGE"),
    ):
        answer = partner.client.get(f"{partner.path}/deliveries", **params)
        assert answer.status_code == HTTPStatus.BAD_REQUEST, params
        assert text in answer.text, params


@does_not("F7-6")
def test_cursor_of_other_filters_or_another_webhook_is_refused(intake: Intake, partner: Partner) -> None:
    partner.delivered(3, "FAILED")
    other, filtered = a_partner(intake), {"state": "FAILED"}
    cursor = listed(partner, limit=1, **filtered)["pagination"]["nextCursor"]
    for reader, params in (
        (partner, {}),
        (partner, {"state": "WAITING"}),
        (partner, {**filtered, "types": "interview.completed"}),
        (other, filtered),
    ):
        answer = reader.client.get(f"{reader.path}/deliveries", cursor=cursor, **params)
        assert answer.status_code == HTTPStatus.BAD_REQUEST, params
        assert "INVALID_CURSOR" in answer.text


@pytest.mark.parametrize("wanted", [DeliveryFilter(), DeliveryFilter(state=DeliveryState.FAILED, since=NOON)])
def test_list_of_deliveries_takes_two_statements(partner: Partner, wanted: DeliveryFilter) -> None:
    database = partner.client.database
    deliveries = WebhookDeliveries(database, IdempotentWrites(database, partner.client.now), RecordingHints())
    for count in (1, 50):
        partner.delivered(count, "FAILED")
        with statements_of(database) as sent:
            deliveries.page(partner.principal, partner.endpoint_id, wanted, before=None, limit=100)
        assert len([each for each in sent if "BEGIN" not in each]) == 2


# ---- whose they are


def test_rotated_key_reads_and_replays_the_deliveries(intake: Intake, partner: Partner) -> None:
    delivered = partner.delivered(1)
    _, secret = intake.keys.rotate(partner.principal.key_id, {})
    rotated = Partner(client=intake.with_key(secret), principal=partner.principal, endpoint_id=partner.endpoint_id)
    assert ids(listed(rotated)) == delivered
    assert replayed(rotated)["replayed"] == 1


# ---- replays


@does("F7-6")
@pytest.mark.parametrize("state", ["DELIVERED", "FAILED"])
def test_replay_sends_the_same_delivery_again(partner: Partner, state: str) -> None:
    [event_id] = partner.delivered(1, state)
    before = partner.row(event_id)
    answer = partner.client.post(f"{partner.path}/deliveries/{event_id}/replay")
    assert (answer.status_code, answer.json()["data"]) == (HTTPStatus.ACCEPTED, True)
    after = partner.row(event_id)
    assert (after.state, after.is_replay, after.tries, after.finished_at) == ("WAITING", True, 0, None)
    assert (after.claim, after.first_failed_at) == (None, None)
    assert after.send_at == partner.client.ask("SELECT at FROM audit WHERE verb = 'webhook.replay'")[0][0]
    assert after.place == before.place
    assert len(partner.rows()) == 1


def test_waiting_delivery_is_sent_now_in_its_order(partner: Partner) -> None:
    [event_id] = partner.delivered(1, "WAITING")
    partner.client.change("UPDATE webhook_deliveries SET send_at = send_at + interval '1 day', tries = 4")
    before = partner.row(event_id)
    assert partner.client.post(f"{partner.path}/deliveries/{event_id}/replay").status_code == HTTPStatus.ACCEPTED
    after = partner.row(event_id)
    assert after.send_at < before.send_at
    assert (after.state, after.is_replay, after.tries) == ("WAITING", False, 4)


def test_unknown_delivery_is_not_replayed(partner: Partner) -> None:
    undelivered = partner.event()
    for event_id in (uuid4(), undelivered):
        answer = partner.client.post(f"{partner.path}/deliveries/{event_id}/replay")
        assert answer.status_code == HTTPStatus.NOT_FOUND
        assert answer.json()["error"]["details"]["resourceType"] == "delivery"
    assert partner.rows() == []


@does("F7-6")
def test_range_is_replayed_with_events_never_sent(partner: Partner) -> None:
    delivered = partner.delivery(partner.event(NOON))
    missing = partner.event(NOON + MINUTE)
    unwanted = partner.event(NOON + MINUTE, "call_attempt.started")
    ping = partner.event(NOON + MINUTE, "ping", interview_id=None)
    waiting = partner.delivery(partner.event(NOON + 2 * MINUTE), "WAITING")
    outside = partner.delivery(partner.event(NOON + 3 * MINUTE))
    early = partner.delivery(partner.event(NOON - MINUTE))
    done = replayed(partner, to=(NOON + 3 * MINUTE).isoformat())
    assert (done["replayed"], done["hasMore"]) == (2, False)
    rows = {row.event_id: (row.state, row.is_replay, row.tries) for row in partner.rows()}
    assert rows == {
        delivered: ("WAITING", True, 0),
        missing: ("WAITING", True, 0),
        waiting: ("WAITING", False, 1),
        outside: ("DELIVERED", False, 1),
        early: ("DELIVERED", False, 1),
    }
    assert not {unwanted, ping} & set(rows)
    made = partner.row(missing)
    assert (made.interview_id, made.sequence) == (INTERVIEW, 1)


def test_only_failed_deliveries_of_some_types_are_replayed(partner: Partner) -> None:
    types = ("interview.failed", "interview.completed")
    failed = [partner.delivery(partner.event(NOON, type_), "FAILED") for type_ in types]
    delivered = partner.delivery(partner.event(NOON, "interview.failed"))
    partner.event(NOON, "interview.failed")
    assert replayed(partner, onlyFailed=True, types=["interview.failed"])["replayed"] == 1
    assert [row.event_id for row in partner.rows() if row.is_replay] == failed[:1]
    assert partner.row(delivered).state == "DELIVERED"
    assert replayed(partner, onlyFailed=True)["replayed"] == 1
    assert len(partner.rows()) == 3


@pytest.mark.parametrize("body", [{}, {"onlyFailed": True}, {"types": ["ping"]}], ids=["all", "failed", "pings"])
def test_ping_is_not_replayed_with_a_range(partner: Partner, body: dict[str, Any]) -> None:
    ping = partner.delivery(partner.event(NOON, "ping", interview_id=None), "FAILED")
    failed = partner.delivery(partner.event(NOON), "FAILED")
    assert replayed(partner, **body)["replayed"] == (0 if "types" in body else 1)
    assert (partner.row(ping).state, partner.row(ping).is_replay) == ("FAILED", False)
    assert partner.row(failed).is_replay is ("types" not in body)


@does_not("F7-6")
def test_replay_of_a_range_sends_nothing_of_others(intake: Intake, partner: Partner) -> None:
    of_other_company = partner.event(company_id=uuid4())
    ours = partner.event()
    other = a_partner(intake)
    theirs = other.delivery(ours)
    assert replayed(partner)["replayed"] == 1
    assert [row.event_id for row in partner.rows()] == [ours]
    assert other.row(theirs).state == "DELIVERED"
    assert of_other_company not in {row.event_id for row in partner.rows()}


@pytest.mark.parametrize("is_for_one", [True, False])
def test_ats_replays_the_events_that_its_webhook_is_for(intake: Intake, is_for_one: bool) -> None:
    ats = a_partner(intake, kind=KeyKind.ATS, company_id=intake.seeded.company_id if is_for_one else None)
    intake.adopt(ats.principal)
    of_company = ats.event(ats=ats.principal.id)
    of_deleted = ats.event(ats=ats.principal.id, company_id=uuid4())
    ats.event(company_id=uuid4())
    assert replayed(ats)["replayed"] == (1 if is_for_one else 2)
    assert [row.event_id for row in ats.rows()] == ([of_company] if is_for_one else [of_company, of_deleted])
    [[company_id, actor]] = intake.ask("SELECT company_id, actor FROM audit WHERE verb = 'webhook.replay'")
    assert company_id == (intake.seeded.company_id if is_for_one else None)
    assert actor == f"key:{ats.principal.key_id}"


def test_long_replay_continues_after_a_place(partner: Partner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler.use_cases.resources.webhooks.REPLAYED_A_BATCH", 2)
    monkeypatch.setattr("scheduler.use_cases.resources.webhooks.BATCHES_A_REPLAY", 2)
    made = partner.delivered(5)
    first = replayed(partner)
    assert (first["replayed"], first["hasMore"]) == (4, True)
    assert [row.event_id for row in partner.rows() if row.is_replay] == made[:4]
    rest = replayed(partner, after=first["after"])
    assert (rest["replayed"], rest["hasMore"]) == (1, False)
    assert all(row.is_replay for row in partner.rows())


def test_replay_sends_one_statement_a_batch(partner: Partner) -> None:
    """However many deliveries the batches have: at most ten statements for 2,000."""
    assert (REPLAYED_A_BATCH, BATCHES_A_REPLAY) == (200, 10)
    counts = []
    for count in (1, 150, REPLAYED_A_BATCH + 1):
        partner.client.change("DELETE FROM events")
        partner.client.change(
            "INSERT INTO events (id, company_id, type, occurred_at, data, place)"
            " SELECT CAST(lpad(to_hex(CAST(extract(epoch FROM CAST(:at AS timestamptz)) * 1000 AS bigint)), 12, '0')"
            " || '7000800000' || lpad(to_hex(n), 10, '0') AS uuid), :company, 'interview.failed', :at, '{}',"
            " nextval('event_places') FROM generate_series(1, :count) n",
            at=NOON,
            company=partner.client.seeded.company_id,
            count=count,
        )
        with partner.client.database.transaction() as stores:
            endpoint = stores.webhook_history.receiver(partner.endpoint_id, partner.principal.id)
            assert endpoint is not None
            with statements_of(partner.client.database) as sent:
                assert replay_range(stores, endpoint, ReplayFilter(since=NOON), 0, NOON).replayed == count
        counts.append(len(sent))
    assert counts == [1, 1, 2]


def test_wrong_range_is_named(partner: Partner) -> None:
    at = "2026-04-02T08:00:00Z"
    for body, field in (
        ({}, "from"),
        ({"from": "2026-04-02"}, "from"),
        ({"from": at, "to": at}, "to"),
        ({"from": at, "types": ["interview.moved"]}, "types"),
        ({"from": at, "types": []}, "types"),
        ({"from": at, "after": -1}, "after"),
        ({"from": at, "onlyfailed": True}, "onlyfailed"),
    ):
        answer = partner.client.post(f"{partner.path}/replay", body)
        assert answer.status_code == HTTPStatus.BAD_REQUEST, body
        assert field in answer.text, body


def test_replay_is_audited_with_its_key(partner: Partner) -> None:
    [event_id] = partner.delivered(1, "FAILED")
    partner.client.post(f"{partner.path}/deliveries/{event_id}/replay")
    replayed(partner, onlyFailed=True)
    rows = partner.client.ask("SELECT * FROM audit WHERE verb = 'webhook.replay' ORDER BY id")
    assert {(row.actor, row.target_kind, row.target_id) for row in rows} == {
        (f"key:{partner.principal.key_id}", "webhook", str(partner.endpoint_id))
    }
    assert [row.after for row in rows] == [
        {"count": 1, "filter": {"deliveryId": str(event_id)}},
        {
            "count": 0,
            "filter": {"from": "2026-04-02T12:00:00Z", "to": None, "types": None, "onlyFailed": True},
        },
    ]
    assert all(row.trace_id for row in rows)


def test_replay_with_an_idempotency_key_runs_once(partner: Partner) -> None:
    [event_id] = partner.delivered(1)
    body, key = {"from": NOON.isoformat()}, {"Idempotency-Key": "again"}

    def send(path: str, json: Any) -> httpx.Response:
        return partner.client.post(f"{partner.path}{path}", json, headers=key)

    first = send("/replay", body)
    partner.client.change("UPDATE webhook_deliveries SET state = 'DELIVERED', finished_at = send_at")
    second = send("/replay", body)
    assert first.status_code == second.status_code == HTTPStatus.ACCEPTED
    assert second.headers["Idempotent-Replayed"] == "true"
    assert first.json()["data"] == second.json()["data"]
    assert partner.row(event_id).state == "DELIVERED"
    assert send("/replay", body | {"after": 1}).status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    command = data(partner.client.get("/commands/again"))
    assert (command["statusCode"], command["result"]) == (HTTPStatus.ACCEPTED, first.json()["data"])


def test_repeated_replay_of_one_delivery_runs_once(partner: Partner) -> None:
    [event_id] = partner.delivered(1)
    path, key = f"{partner.path}/deliveries/{event_id}/replay", {"Idempotency-Key": "one"}
    assert data(partner.client.post(path, headers=key), HTTPStatus.ACCEPTED) is True
    partner.client.change("UPDATE webhook_deliveries SET state = 'DELIVERED', finished_at = send_at")
    assert data(partner.client.post(path, headers=key), HTTPStatus.ACCEPTED) is True
    assert partner.row(event_id).state == "DELIVERED"
    assert data(partner.client.get("/commands/one"))["result"] is True


@does_not("F7-6")
def test_replay_leaves_the_circuit_alone(partner: Partner) -> None:
    partner.client.change(
        "UPDATE webhook_endpoints SET consecutive_failures = 12, circuit_opened_at = created_at, is_active = false"
    )
    before = partner.client.ask("SELECT * FROM webhook_endpoints")
    partner.delivered(2, "FAILED")
    assert replayed(partner)["replayed"] == 2
    assert partner.client.ask("SELECT * FROM webhook_endpoints") == before


# ---- GET /events?deliverySuccess=


def events_of(partner: Partner, **params: Any) -> list[UUID]:
    return ids(data(partner.client.get("/events", **params)))


@does("F7-6")
def test_events_are_filtered_by_the_success_of_delivery(intake: Intake, partner: Partner) -> None:
    delivered = partner.delivery(partner.event())
    failed = partner.delivery(partner.event(), "FAILED")
    waiting = partner.delivery(partner.event(), "WAITING")
    unwanted = partner.event()
    test = partner.delivery(partner.event(type_="ping", ats=partner.principal.id, interview_id=None), "FAILED")
    # The endpoint of another key of the company says nothing about what this one has received.
    a_partner(intake).delivery(delivered, "FAILED")
    assert events_of(partner, deliverySuccess="false") == [failed, waiting]
    assert events_of(partner, deliverySuccess="true") == [delivered, unwanted, test]
    assert events_of(partner) == [delivered, failed, waiting, unwanted, test]
    # An event for two endpoints of the key is listed once.
    second = a_second_endpoint(partner)
    second.delivery(failed, "FAILED")
    second.delivery(delivered, "WAITING")
    assert events_of(partner, deliverySuccess="false") == [delivered, failed, waiting]


def a_second_endpoint(partner: Partner) -> Partner:
    endpoint_id = uuid4()
    partner.client.change(
        "INSERT INTO webhook_endpoints (id, principal_id, api_key_id, company_id, url, events, max_retries, timeout_ms,"
        " secret, created_at, updated_at) SELECT :id, principal_id, api_key_id, company_id, url, events, max_retries,"
        " timeout_ms, secret, created_at, updated_at FROM webhook_endpoints WHERE id = :first",
        id=endpoint_id,
        first=partner.endpoint_id,
    )
    return Partner(client=partner.client, principal=partner.principal, endpoint_id=endpoint_id)


def test_failed_events_are_read_page_by_page(partner: Partner) -> None:
    failed = partner.delivered(3, "FAILED")
    partner.delivered(2)
    first = data(partner.client.get("/events", deliverySuccess="false", limit=2))
    assert (ids(first), first["hasMore"]) == (failed[:2], True)
    rest = data(partner.client.get("/events", deliverySuccess="false", limit=2, after=first["after"]))
    assert (ids(rest), rest["hasMore"]) == (failed[2:], False)


def test_failed_events_of_one_company_of_an_ats(intake: Intake) -> None:
    ats = a_partner(intake, kind=KeyKind.ATS)
    intake.adopt(ats.principal)
    ats.delivery(ats.event(ats=ats.principal.id, company_id=uuid4()), "FAILED")
    failed = ats.delivery(ats.event(ats=ats.principal.id), "FAILED")
    found = data(ats.client.get("/events", deliverySuccess="false", companyId=str(intake.seeded.company_id), limit=1))
    assert (ids(found), found["hasMore"]) == ([failed], False)
    assert len(events_of(ats, deliverySuccess="false")) == 2


def test_events_of_a_period_are_found_by_its_places(partner: Partner) -> None:
    made = [partner.event(NOON + nth * MINUTE) for nth in range(10)]
    since, until = NOON + 3 * MINUTE, NOON + 6 * MINUTE
    # Written by a long transaction, it has the place of a later time.
    late = partner.event(NOON + 8.5 * MINUTE)
    assert events_of(partner, **{"from": since.isoformat(), "to": until.isoformat()}) == made[3:6]
    assert events_of(partner, **{"from": (NOON + 8.2 * MINUTE).isoformat(), "to": (NOON + 9 * MINUTE).isoformat()}) == [
        late
    ]
