"""Webhooks over HTTP: endpoints of a key, their secrets, and tests."""

import base64
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http import HTTPStatus
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text
from standardwebhooks import Webhook

from scheduler.assembly import webhook_encryption, webhook_sender
from scheduler.domain.webhook import MOST_OF_A_KEY
from scheduler.hashing import fingerprint
from scheduler.persistence.database import Database
from scheduler.rules.webhooks import room
from scheduler.use_cases.resources import webhooks
from scheduler.use_cases.webhooks.deliver import Deliver
from scheduler.webhooks.sending import headers_place, secret_place
from scheduler.wire.json_values import canonical
from tests.api_shim.answers import data, refusal, wrong_fields
from tests.api_shim.deliveries import Partner
from tests.api_shim.intake import ASYNC, KEY, Intake, meanwhile
from tests.architecture.rules import does, does_not
from tests.conftest import wait_until
from tests.support.webhook_receivers import Visit, a_webhook_receiver, answers

URL = "https://hooks.example.com/duecall?token=s3cret-in-the-url"
VALUE = "Bearer s3cret-in-a-header"
BODY: dict[str, Any] = {
    "url": URL,
    "events": ["interview.completed", "call_attempt.ended"],
    "name": "Our ATS",
    "description": "Sends results",
    "headers": [{"name": "Authorization", "value": VALUE}, {"name": "X-Tenant", "value": "north"}],
}
ALL = "/webhooks"


def made(intake: Intake, **changes: Any) -> dict[str, Any]:
    return dict(intake.made(ALL, BODY | changes))


def of(webhook: dict[str, Any], act: str = "") -> str:
    return f"{ALL}/{webhook['id']}{act}"


def row(intake: Intake, webhook: dict[str, Any]) -> dict[str, Any]:
    [found] = intake.ask("SELECT * FROM webhook_endpoints WHERE id = :id", id=webhook["id"])
    return dict(found._asdict())


# ---- create, read, change, delete


@does("F7-3")
def test_webhook_is_created_with_the_documented_fields(intake: Intake) -> None:
    principal, key = intake.new_key()
    webhook = made(intake.with_key(key))
    secret = webhook.pop("signingSecret")
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    times = {name: webhook.pop(name) for name in ("createdAt", "updatedAt")}
    assert times["createdAt"] == times["updatedAt"]
    assert UUID(webhook.pop("id"))
    assert webhook == {
        "apiKeyId": str(principal.key_id),
        "companyId": str(intake.seeded.company_id),
        "url": URL,
        "name": "Our ATS",
        "description": "Sends results",
        "headers": [{"name": "Authorization", "isMasked": True}, {"name": "X-Tenant", "isMasked": True}],
        "events": ["interview.completed", "call_attempt.ended"],
        "isActive": True,
        "maxRetries": 9,
        "timeoutMs": 15000,
        "consecutiveFailures": 0,
        "circuitOpenedAt": None,
        "disabledAt": None,
        "disabledCause": None,
    }


@pytest.mark.parametrize("values", [{"maxRetries": 3, "timeoutMs": 30000}, {"maxRetries": None}])
def test_fields_of_the_public_api_are_ignored(intake: Intake, values: dict[str, Any]) -> None:
    webhook = made(intake, **values)
    changed = data(intake.patch(of(webhook), values))
    assert {(each["maxRetries"], each["timeoutMs"]) for each in (webhook, changed)} == {(9, 15000)}
    assert intake.post(ALL, BODY | {"maxRetries": "3"}).status_code == HTTPStatus.BAD_REQUEST


def test_webhook_is_read_without_its_secret(intake: Intake) -> None:
    webhook = made(intake)
    del webhook["signingSecret"]
    assert data(intake.get(of(webhook))) == webhook
    assert data(intake.get(ALL))["items"] == [webhook]


def test_only_named_fields_change(intake: Intake) -> None:
    webhook = made(intake)
    changed = data(intake.patch(of(webhook), {"name": None, "events": ["ping"]}))
    assert (changed["name"], changed["events"]) == (None, ["ping"])
    same = ("url", "description", "headers", "isActive", "companyId", "createdAt", "apiKeyId")
    assert {name: changed[name] for name in same} == {name: webhook[name] for name in same}
    assert "signingSecret" not in changed


def test_headers_are_replaced_as_a_whole(intake: Intake) -> None:
    webhook = made(intake)
    changed = data(intake.patch(of(webhook), {"headers": [{"name": "X-Other", "value": "v"}]}))
    assert changed["headers"] == [{"name": "X-Other", "isMasked": True}]
    assert data(intake.patch(of(webhook), {"headers": []}))["headers"] == []
    assert row(intake, webhook)["headers"] is None


def test_deleted_webhook_is_gone_without_a_trace_of_its_secrets(intake: Intake) -> None:
    webhook = made(intake)
    data(intake.post(of(webhook, "/test"), headers=ASYNC))
    answer = intake.delete(of(webhook))
    assert (answer.status_code, answer.content) == (HTTPStatus.NO_CONTENT, b"")
    for again in (intake.get(of(webhook)), intake.patch(of(webhook), {"name": "x"}), intake.delete(of(webhook))):
        assert refusal(again) == (HTTPStatus.NOT_FOUND, "RESOURCE_NOT_FOUND")
    assert intake.ids(ALL) == []
    left = row(intake, webhook)
    assert left["disabled_at"] is not None
    assert not any(left[name] for name in ("url", "name", "description", "headers", "header_names", "secret"))


@does_not("F7-7")
def test_wrong_field_is_named(intake: Intake) -> None:
    """By a creation and a change. `tests/wire/test_webhook_requests.py` has all wrong fields."""
    address = of(made(intake))
    for change, field, error in (
        ({"url": "http://172.17.0.1:8080"}, "url", "ADDRESS_FORBIDDEN"),
        ({"url": "https://metadata.google.internal/hook"}, "url", "ADDRESS_FORBIDDEN"),
        ({"url": None}, "url", "WRONG_TYPE"),
        ({"events": ["interview.moved"]}, "events.0", "UNKNOWN_EVENT"),
        ({"headers": [{"name": "Host", "value": "x"}]}, "headers.0.name", "HEADER_NOT_SETTABLE"),
        ({"consecutiveFailures": 0}, "consecutiveFailures", "READ_ONLY_FIELD"),
        ({"retries": 3}, "retries", "UNKNOWN_FIELD"),
    ):
        for answer in (intake.post(ALL, BODY | change), intake.patch(address, change)):
            assert wrong_fields(answer) == [(field, error)], change
            assert "s3cret" not in answer.text
    assert len(intake.ids(ALL)) == 1


def test_key_has_a_limited_number_of_webhooks(intake: Intake) -> None:
    first = made(intake)
    intake.change(
        "INSERT INTO webhook_endpoints (id, principal_id, api_key_id, company_id, url, events, max_retries, timeout_ms,"
        " secret, created_at, updated_at) SELECT gen_random_uuid(), principal_id, api_key_id, company_id, url, events,"
        " max_retries, timeout_ms, secret, created_at, updated_at FROM webhook_endpoints, generate_series(2, :most)",
        most=MOST_OF_A_KEY,
    )
    answer = intake.post(ALL, BODY)
    assert refusal(answer) == (HTTPStatus.CONFLICT, "TOO_MANY_WEBHOOKS")
    assert answer.json()["error"]["details"] == {"limit": MOST_OF_A_KEY}
    assert intake.with_new_key().post(ALL, BODY).status_code == HTTPStatus.CREATED
    intake.delete(of(first))
    assert intake.post(ALL, BODY).status_code == HTTPStatus.CREATED


def test_webhooks_that_are_created_at_once_keep_the_limit(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "MOST_OF_A_KEY", 2)
    first = made(intake)
    principal_id = row(intake, first)["principal_id"]
    waits = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with intake.database.transaction() as stores:
        stores.webhook_endpoints.lock_principal(principal_id)
        another = stores.webhook_endpoints.get(principal_id, UUID(first["id"]))
        assert another is not None
        stores.webhook_endpoints.add(replace(another, id=uuid4()), b"", None)
        with meanwhile(lambda: intake.post(ALL, BODY)) as answer:
            wait_until(lambda: intake.ask(waits), says="the request waits")
            stores.connection.execute(text("COMMIT"))
            assert refusal(answer()) == (HTTPStatus.CONFLICT, "TOO_MANY_WEBHOOKS")


# ---- whose webhooks


def changes_of(by: Intake, webhook: dict[str, Any]) -> list[httpx.Response]:
    acts = ("/test", "/reset-circuit", "/rotate-secret")
    return [by.patch(of(webhook), {"isActive": False}), *(by.post(of(webhook, act)) for act in acts)]


@does("F7-3")
@pytest.mark.parametrize("of_the_ats", [False, True])
def test_other_keys_of_the_company_see_and_delete_a_webhook(intake: Intake, of_the_ats: bool) -> None:
    webhook, later = made(intake), made(intake, name="later")
    other = intake.with_key_of_its_ats() if of_the_ats else intake.with_new_key()
    assert other.ids(ALL) == [later["id"], webhook["id"]]
    shown = data(other.get(of(webhook)))
    assert "signingSecret" not in shown
    assert shown == {name: value for name, value in webhook.items() if name != "signingSecret"}
    for answer in changes_of(other, webhook):
        assert refusal(answer) == (HTTPStatus.FORBIDDEN, "INSUFFICIENT_PERMISSIONS")
    assert other.get(of(webhook, "/deliveries")).status_code == HTTPStatus.NOT_FOUND
    assert row(intake, webhook)["is_active"]
    assert other.delete(of(webhook)).status_code == HTTPStatus.NO_CONTENT
    assert intake.ids(ALL) == [later["id"]]


@does_not("F7-3")
def test_webhook_of_an_ats_is_hidden_from_its_companies(intake: Intake) -> None:
    ats = intake.with_key_of_its_ats()
    company = {"companyId": str(intake.seeded.company_id)}
    for webhook in (made(ats), made(ats, **company)):
        for answer in (intake.get(of(webhook)), intake.delete(of(webhook)), *changes_of(intake, webhook)):
            assert refusal(answer) == (HTTPStatus.NOT_FOUND, "RESOURCE_NOT_FOUND")
    assert intake.ids(ALL) == []


def test_revocation_of_the_last_key_disables_its_webhooks(intake: Intake) -> None:
    webhook = made(intake)
    first = UUID(webhook["apiKeyId"])
    second, key = intake.keys.rotate(first, {})
    intake.keys.revoke(first)
    rotated = intake.with_key(key)
    assert data(rotated.get(of(webhook)))["isActive"]
    intake.keys.revoke(second.key_id)
    assert row(intake, webhook)["disabled_cause"] == "KEY_REVOKED"
    _, key = intake.keys.rotate(second.key_id, {})
    later = data(intake.with_key(key).get(of(webhook)))
    assert (later["isActive"], later["disabledCause"]) == (False, "KEY_REVOKED")
    assert data(intake.with_key(key).patch(of(webhook), {"isActive": True}))["disabledAt"] is None


def test_ats_key_has_webhooks_for_all_companies_or_one(intake: Intake) -> None:
    ats = intake.with_key_of_its_ats()
    company = str(intake.seeded.company_id)
    for_all, for_one = made(ats), made(ats, companyId=company)
    assert (for_all["companyId"], for_one["companyId"]) == (None, company)
    assert ats.ids(ALL) == [for_one["id"], for_all["id"]]
    assert ats.ids(ALL, companyId=company) == [for_one["id"]]
    for answer in (
        ats.post(ALL, BODY | {"companyId": str(uuid4())}),
        ats.get(ALL, companyId=str(uuid4())),
        intake.post(ALL, BODY | {"companyId": str(uuid4())}),
    ):
        assert refusal(answer) == (HTTPStatus.FORBIDDEN, "RESOURCE_ACCESS_DENIED")


# ---- secrets


def test_secrets_and_headers_are_stored_encrypted(intake: Intake) -> None:
    webhook = made(intake)
    stored = row(intake, webhook)
    encryption = webhook_encryption(intake.settings)
    endpoint_id = UUID(webhook["id"])
    assert encryption.decrypt(stored["secret"], secret_place(endpoint_id)) == webhook["signingSecret"]
    expected = '{"Authorization": "' + VALUE + '", "X-Tenant": "north"}'
    assert encryption.decrypt(stored["headers"], headers_place(endpoint_id)) == expected
    [[whole]] = intake.ask("SELECT (webhook_endpoints, inbox)::text FROM webhook_endpoints FULL JOIN inbox ON true")
    assert webhook["signingSecret"] not in whole
    assert VALUE not in whole


def test_key_reused_for_another_header_is_refused(intake: Intake) -> None:
    others: list[dict[str, Any]] = [
        {"url": URL + "2"},
        {"headers": [{"name": "Authorization", "value": "other"}, BODY["headers"][1]]},
    ]
    assert intake.post(ALL, BODY, headers=KEY).status_code == HTTPStatus.CREATED
    for other in others:
        answer = intake.post(ALL, BODY | other, headers=KEY)
        assert refusal(answer) == (HTTPStatus.UNPROCESSABLE_ENTITY, "IDEMPOTENCY_KEY_REUSED")
    assert intake.post(ALL, BODY, headers=KEY).headers["Idempotent-Replayed"] == "true"


def test_stored_hash_of_a_request_is_keyed(intake: Intake) -> None:
    assert intake.post(ALL, BODY, headers=KEY).status_code == HTTPStatus.CREATED
    [[stored]] = intake.ask("SELECT request_hash FROM inbox WHERE idempotency_key = 'k'")
    assert bytes(stored) != fingerprint(b"POST", b"/webhooks?", canonical(BODY), b"")


@pytest.mark.parametrize("act", ["", "/rotate-secret"])
def test_repeated_request_does_not_show_the_secret_again(intake: Intake, act: str) -> None:
    path, body = (ALL, BODY) if not act else (of(made(intake), act), None)
    first, again = (intake.post(path, body, headers=KEY) for _ in range(2))
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.status_code == first.status_code
    shown = first.json()["data"]
    assert shown["signingSecret"].startswith("whsec_")
    assert again.json()["data"] == shown | {"signingSecret": None}
    stored = intake.ask("SELECT inbox::text FROM inbox WHERE idempotency_key IS NOT NULL")
    assert not any(secret in stored[0][0] for secret in (shown["signingSecret"], "s3cret", "Our ATS", "Sends"))


def test_replay_after_deletion_has_no_address(intake: Intake) -> None:
    first = intake.post(ALL, BODY, headers=KEY).json()["data"]
    intake.delete(of(first))
    again = intake.post(ALL, BODY, headers=KEY).json()["data"]
    assert (again["id"], again["url"], again["name"], again["headers"]) == (first["id"], None, None, [])


def test_rotated_secret_signs_next_to_the_old_one_for_a_day(intake: Intake) -> None:
    webhook = made(intake)
    rotated = data(intake.post(of(webhook, "/rotate-secret")))
    assert rotated["signingSecret"] != webhook["signingSecret"]
    assert Webhook(rotated["signingSecret"])
    stored = row(intake, webhook)
    place = secret_place(UUID(webhook["id"]))
    decrypted = [webhook_encryption(intake.settings).decrypt(stored[name], place) for name in ("secret", "old_secret")]
    assert decrypted == [rotated["signingSecret"], webhook["signingSecret"]]
    assert (stored["old_secret_until"] - stored["updated_at"]).total_seconds() == 24 * 3600


def test_command_of_a_webhook_names_only_its_ids(intake: Intake) -> None:
    webhook = intake.post(ALL, BODY, headers=KEY).json()["data"]
    command = data(intake.get("/commands/k"))
    assert command["result"] == {"id": webhook["id"], "companyId": webhook["companyId"]}
    assert (command["kind"], command["statusCode"]) == ("create_webhook", HTTPStatus.CREATED)


def test_no_log_line_has_an_address_or_a_secret(intake: Intake, lines: list[dict[str, Any]]) -> None:
    webhook = made(intake)
    secret = webhook["signingSecret"]
    intake.patch(of(webhook), BODY)
    rotated = data(intake.post(of(webhook, "/rotate-secret")))["signingSecret"]
    data(intake.post(of(webhook, "/test"), headers=ASYNC))
    intake.delete(of(webhook))
    assert lines
    written = str(lines)
    assert not [each for each in ("s3cret", "hooks.example.com", secret, rotated, "Our ATS") if each in written]


# ---- circuit


def disabled(intake: Intake, webhook: dict[str, Any]) -> None:
    intake.change(
        "UPDATE webhook_endpoints SET consecutive_failures = 12, failing_since = created_at,"
        " circuit_opened_at = created_at, probe_at = created_at, disabled_at = created_at, disabled_cause = 'FAILING'"
        " WHERE id = :id",
        id=webhook["id"],
    )


@pytest.mark.parametrize("act", ["reset", "activate"])
def test_disabled_webhook_is_enabled_again(intake: Intake, act: str) -> None:
    webhook = made(intake)
    disabled(intake, webhook)
    before = data(intake.get(of(webhook)))
    assert (before["isActive"], before["disabledCause"], before["consecutiveFailures"]) == (False, "FAILING", 12)
    if act == "reset":
        after = data(intake.post(of(webhook, "/reset-circuit")))
    else:
        after = data(intake.patch(of(webhook), {"isActive": True}))
    fields = ("isActive", "disabledAt", "disabledCause", "consecutiveFailures", "circuitOpenedAt")
    assert [after[name] for name in fields] == [True, None, None, 0, None]
    assert row(intake, webhook)["failing_since"] is None


def test_delivery_of_an_outage_is_sent_at_once(intake: Intake) -> None:
    principal, key = intake.new_key()
    client, works = intake.with_key(key), threading.Event()

    def behave(visit: Visit) -> None:
        answers(204 if works.is_set() else 500)(visit)

    with a_webhook_receiver(behave) as receiver, delivering(intake):
        webhook = made(client, url=receiver.url)
        partner = Partner(client=client, principal=principal, endpoint_id=UUID(webhook["id"]))
        event_id = partner.delivery(partner.event(intake.now()), "WAITING", tries=3)
        wait_until(lambda: partner.row(event_id).tries == 4, says="the receiver has refused it")
        works.set()
        client.post(of(webhook, "/reset-circuit"))
        wait_until(lambda: partner.row(event_id).state == "DELIVERED", says="it is delivered")
    assert len(receiver.visits) == 2


def test_paused_webhook_is_not_active(intake: Intake) -> None:
    webhook = made(intake, isActive=False)
    assert not webhook["isActive"]
    assert refusal(intake.post(of(webhook, "/test"))) == (HTTPStatus.CONFLICT, "WEBHOOK_NOT_ACTIVE")
    assert data(intake.post(of(webhook, "/reset-circuit")))["isActive"]
    assert not data(intake.patch(of(webhook), {"isActive": False}))["isActive"]


# ---- tests of webhooks


def record(intake: Intake, **result: Any) -> None:
    """Record the result of the only delivery, as the process that delivers does."""
    values = {"state": "DELIVERED", "last_status": None, "last_error_kind": None, "last_ms": 7} | result
    intake.change(
        "UPDATE webhook_deliveries SET tries = 1, finished_at = created_at, state = :state, last_status = :last_status,"
        " last_error_kind = :last_error_kind, last_ms = :last_ms",
        **values,
    )


@pytest.mark.parametrize(
    ("result", "status", "says"),
    [
        pytest.param({"last_status": 204}, 204, "answered 204", id="delivered"),
        pytest.param({"state": "FAILED", "last_status": 500, "last_error_kind": "HTTP_ERROR"}, 500, "500", id="500"),
        pytest.param({"state": "FAILED", "last_error_kind": "ADDRESS_FORBIDDEN"}, None, "public", id="inside"),
    ],
)
def test_test_waits_for_the_result(intake: Intake, result: dict[str, Any], status: int | None, says: str) -> None:
    webhook = made(intake)
    with meanwhile(lambda: intake.post(of(webhook, "/test"))) as answer:
        wait_until(lambda: intake.count("webhook_deliveries"), says="the ping is stored")
        record(intake, **result)
        test = data(answer())
    [[event_id]] = intake.ask("SELECT event_id FROM webhook_deliveries")
    assert says in test.pop("message")
    delivered = result.get("state") != "FAILED"
    assert test == {"success": delivered, "deliveryId": str(event_id), "httpStatus": status, "durationMs": 7}
    [delivery] = data(intake.get(of(webhook, "/deliveries")))["items"]
    assert (delivery["type"], delivery["isReplay"]) == ("ping", False)


def test_events_about_a_webhook_are_read_by_its_owner_only(intake: Intake) -> None:
    webhook = made(intake)
    data(intake.post(of(webhook, "/test"), headers=ASYNC))
    ping = intake.ask("SELECT id, ats_principal_id, company_id FROM events")[0]
    disabled = uuid4()
    intake.change(
        "INSERT INTO events (id, company_id, ats_principal_id, type, occurred_at, data, place)"
        " VALUES (:id, :company, :owner, 'endpoint.disabled', :now, '{}', nextval('event_places'))",
        id=disabled,
        company=ping.company_id,
        owner=ping.ats_principal_id,
        now=intake.now(),
    )
    mine = [UUID(each["deliveryId"]) for each in data(intake.get("/events"))["items"]]
    assert mine == [ping.id, disabled]
    stranger, ats = intake.with_new_key("read:webhooks"), intake.with_key_of_its_ats()
    of_company = {"companyId": str(intake.seeded.company_id)}
    for page in (stranger.get("/events"), stranger.get("/events", types="ping"), ats.get("/events", **of_company)):
        assert data(page)["items"] == []
        assert data(ats.get("/events"))["items"] == []


def test_ping_of_an_ats_is_not_seen_by_its_company(intake: Intake) -> None:
    ats = intake.with_key_of_its_ats()
    webhook = made(ats, companyId=str(intake.seeded.company_id))
    data(ats.post(of(webhook, "/test"), headers=ASYNC))
    assert data(intake.get("/events"))["items"] == []
    [ping] = data(ats.get("/events"))["items"]
    assert ping["data"] == {"webhookId": webhook["id"]}


def test_test_that_is_not_sent_yet_says_so(intake: Intake) -> None:
    webhook = made(intake)
    test = data(intake.post(of(webhook, "/test"), headers={"Prefer": "wait=0"}))
    assert (test["success"], test["httpStatus"], test["durationMs"]) == (False, None, None)
    assert "not sent yet" in test["message"]


def test_repeated_test_sends_no_second_ping(intake: Intake) -> None:
    webhook = made(intake)
    first = intake.post(of(webhook, "/test"), headers=KEY | ASYNC)
    record(intake, last_status=200)
    again = intake.post(of(webhook, "/test"), headers=KEY)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert data(again)["deliveryId"] == data(first)["deliveryId"]
    assert data(again)["success"]
    assert intake.count("events") == intake.count("webhook_deliveries") == 1


def test_waiting_test_holds_no_connection(intake: Intake, busy: Callable[[], int]) -> None:
    webhook = made(intake)
    with meanwhile(lambda: intake.post(of(webhook, "/test"))) as answer:
        wait_until(lambda: intake.count("webhook_deliveries"), says="the ping is stored")
        wait_until(lambda: busy() == 0, says="no transaction is open")
        record(intake, last_status=200)
        assert data(answer())["success"]


@pytest.fixture
def busy(intake: Intake) -> Callable[[], int]:
    """Count the transactions that are open in other sessions."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
    return lambda: int(intake.ask(query)[0][0])


# ---- the audit


def test_acts_on_webhooks_are_audited_without_their_texts(intake: Intake) -> None:
    webhook = made(intake)
    intake.patch(of(webhook), {"url": URL + "2", "headers": []})
    intake.post(of(webhook, "/rotate-secret"))
    intake.post(of(webhook, "/reset-circuit"))
    intake.delete(of(webhook))
    acts = intake.ask(
        "SELECT verb, actor, after, audit::text AS whole FROM audit WHERE target_id = :id ORDER BY id", id=webhook["id"]
    )
    assert [each.verb for each in acts] == [
        "webhook.create",
        "webhook.change",
        "webhook.rotate_secret",
        "webhook.reset",
        "webhook.delete",
    ]
    assert {each.actor for each in acts} == {f"key:{webhook['apiKeyId']}"}
    assert acts[1].after == {"fields": ["headers", "url"]}
    assert not any(word in each.whole for each in acts for word in ("s3cret", "hooks.example.com", "Our ATS"))


# ---- with the process that delivers


@contextmanager
def delivering(intake: Intake) -> Iterator[None]:
    """Send deliveries as the process `webhooks` does."""
    database = Database(intake.settings.database("worker"), pool_size=1)
    deliver = Deliver(database, webhook_sender(intake.settings), webhook_encryption(intake.settings), intake.now)
    over = threading.Event()

    def run() -> None:
        while not over.wait(0.02):
            if results := [deliver.send(each) for each in deliver.claim(room(8, [], unrecorded=0))]:
                deliver.record(results)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        database.close()


def test_ping_arrives_signed_by_both_secrets_with_headers(intake: Intake) -> None:
    with a_webhook_receiver(answers(204)) as receiver, delivering(intake):
        webhook = made(intake, url=receiver.url)
        secrets = webhook["signingSecret"], data(intake.post(of(webhook, "/rotate-secret")))["signingSecret"]
        test = data(intake.post(of(webhook, "/test")))
    assert (test["success"], test["httpStatus"]) == (True, HTTPStatus.NO_CONTENT)
    [visit] = receiver.visits
    assert (visit.headers["authorization"], visit.headers["x-tenant"]) == (VALUE, "north")
    assert visit.headers["webhook-id"] == test["deliveryId"]
    for secret in secrets:
        body = Webhook(secret).verify(visit.body, visit.headers)
        assert (body["type"], body["deliveryId"]) == ("ping", test["deliveryId"])
        assert body["data"] == {"companyId": webhook["companyId"], "webhookId": webhook["id"]}
