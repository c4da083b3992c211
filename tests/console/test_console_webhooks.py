"""The pages Webhooks, Webhook and Batches, and the acts on webhooks."""

from datetime import timedelta
from uuid import UUID, uuid4

import httpx
import pytest

from scheduler.persistence.alarms import AuditFilter
from scheduler.persistence.database import Database
from scheduler.use_cases.shared.alarms import Acts
from tests.conftest import real_now, seed
from tests.console.acts import form_in, send, words
from tests.console.partners import a_batch, a_delivery, a_webhook
from tests.support.builders import Tenant, of_company

OK, SEE_OTHER, FORBIDDEN, NOT_FOUND, CONFLICT, UNPROCESSABLE = 200, 303, 403, 404, 409, 422
GONE = {"disabled_cause": "GONE", "disabled_at": real_now()}
OPEN = {"circuit_opened_at": real_now(), "consecutive_failures": 12}


def _act(name: str, webhook_id: UUID, more: str = "") -> str:
    return f"/acts/{name}?webhook={webhook_id}{more}"


def _listed(page: httpx.Response, *ids: UUID) -> list[UUID]:
    return sorted((each for each in ids if str(each) in page.text), key=lambda each: page.text.index(str(each)))


# ---- lists


def test_webhooks_are_listed_oldest_first(viewer: httpx.Client, tenant: Tenant) -> None:
    first = a_webhook(tenant, at=tenant.now() - timedelta(hours=2), **OPEN)
    second = a_webhook(tenant, at=tenant.now() - timedelta(hours=1))
    a_delivery(tenant, first, "WAITING")
    page = viewer.get("/webhooks")
    assert _listed(page, first, second) == [first, second]
    assert "https://hooks.example:8443" in page.text
    shown = words(page)
    assert "◐ Circuit open" in shown
    assert "HTTP_ERROR (500)" in shown
    assert f'href="/webhooks/{first}?state=waiting">1</a>' in page.text


def test_webhooks_are_filtered_by_state(viewer: httpx.Client, tenant: Tenant) -> None:
    made = {
        "active": a_webhook(tenant),
        "circuit-open": a_webhook(tenant, **OPEN),
        "paused": a_webhook(tenant, is_active=False),
        "disabled": a_webhook(tenant, **GONE),
    }
    deleted = a_webhook(tenant, disabled_cause="DELETED", disabled_at=tenant.now())
    for state, webhook_id in made.items():
        assert _listed(viewer.get(f"/webhooks?state={state}"), deleted, *made.values()) == [webhook_id]
    assert "its receiver answered 410" in words(viewer.get("/webhooks?state=disabled"))
    assert viewer.get(f"/webhooks/{deleted}").status_code == NOT_FOUND


def test_webhooks_of_a_company_include_its_ats(viewer: httpx.Client, tenant: Tenant) -> None:
    other, ats_id = of_company(tenant, seed(tenant.database, tenant.now())), uuid4()
    tenant.change("UPDATE companies SET ats_principal_id = :ats WHERE id = :id", ats=ats_id, id=tenant.company_id)
    own, theirs = a_webhook(tenant), a_webhook(other)
    of_ats = a_webhook(tenant, company_id=None, principal_id=ats_id)
    page = viewer.get(f"/webhooks?company={tenant.company_id}")
    assert set(_listed(page, own, theirs, of_ats)) == {own, of_ats}
    assert "all companies of its ATS" in words(page)
    a_batch(tenant)
    shown = words(viewer.get(f"/companies/{tenant.company_id}"))
    assert "2 webhooks receive its events" in shown
    assert "1 batch" in shown
    assert "1 webhook receives its events" in words(viewer.get(f"/companies/{other.company_id}"))


def test_webhook_shows_its_deliveries(viewer: httpx.Client, tenant: Tenant) -> None:
    webhook_id = a_webhook(tenant)
    failed, delivered = (
        a_delivery(tenant, webhook_id),
        a_delivery(tenant, webhook_id, "DELIVERED", type="ping", is_replay=True),
    )
    waiting = a_delivery(tenant, webhook_id, "WAITING")
    path, made = f"/webhooks/{webhook_id}", (failed, delivered, waiting)
    assert _listed(viewer.get(path), *made) == [waiting, delivered, failed]
    for query, found in (
        ("state=failed", failed),
        ("state=delivered", delivered),
        ("state=waiting", waiting),
        ("type=ping", delivered),
    ):
        assert _listed(viewer.get(f"{path}?{query}"), *made) == [found]
    assert "accepted (204) after 12 ms" in words(viewer.get(f"{path}?state=delivered"))
    shown = words(viewer.get(f"{path}?type=ping"))
    assert ("a test" in shown, "a replay" in shown) == (True, False)
    assert "No such delivery exists." in words(viewer.get(f"{path}?state=failed&type=ping"))


def test_batches_are_listed_newest_first(viewer: httpx.Client, tenant: Tenant) -> None:
    other = of_company(tenant, seed(tenant.database, tenant.now()))
    old = a_batch(tenant, "COMPLETED", at=tenant.now() - timedelta(hours=1))
    new, theirs = a_batch(tenant), a_batch(other, at=tenant.now() + timedelta(seconds=1))
    page = viewer.get("/batches")
    assert _listed(page, old, new, theirs) == [theirs, new, old]
    assert "9 3 4 0 2 0" in words(page)
    assert _listed(viewer.get(f"/batches?company={tenant.company_id}"), old, new, theirs) == [new, old]
    assert _listed(viewer.get("/batches?state=completed"), old, new, theirs) == [old]
    assert _listed(viewer.get(f"/batches?batch={new}"), old, new, theirs) == [new]


def test_unknown_webhook_has_no_page(viewer: httpx.Client) -> None:
    for webhook_id in (str(uuid4()), "hooks"):
        page = viewer.get(f"/webhooks/{webhook_id}")
        assert page.status_code == NOT_FOUND
        assert "There is no such webhook." in page.text


def test_ids_of_partners_are_found(viewer: httpx.Client, tenant: Tenant) -> None:
    webhook_id, batch_id = a_webhook(tenant), a_batch(tenant)
    event_id = a_delivery(tenant, webhook_id)
    for wanted, href in (
        (webhook_id, f"/webhooks/{webhook_id}"),
        (event_id, f"/webhooks/{webhook_id}"),
        (batch_id, f"/batches?batch={batch_id}"),
    ):
        assert f'href="{href}"' in viewer.post("/find", data={"wanted": str(wanted)}).text
    assert f"Event {event_id} of company" in words(viewer.post("/find", data={"wanted": str(event_id)}))


# ---- acts


def test_webhook_is_disabled_and_enabled(operator: httpx.Client, tenant: Tenant) -> None:
    webhook_id = a_webhook(tenant, **OPEN)
    later = real_now() + timedelta(days=1)
    a_delivery(tenant, webhook_id, "WAITING", send_at=later)
    shown = words(operator.get(_act("disable-webhook", webhook_id)))
    assert "at https://hooks.example:8443 receives events of the company Acme." in shown
    assert "1 delivery waits for it until then." in shown
    disabled = send(operator, _act("disable-webhook", webhook_id), reason="they asked for it")
    assert disabled.headers["location"] == f"/webhooks/{webhook_id}"
    assert "✕ Disabled by an operator" in words(operator.get(f"/webhooks/{webhook_id}"))
    assert send(operator, _act("enable-webhook", webhook_id), reason="it works again").status_code == SEE_OTHER
    assert "✓ Active" in words(operator.get(f"/webhooks/{webhook_id}"))
    assert tenant.ask("SELECT send_at < :later FROM webhook_deliveries", later=later) == [(True,)]
    assert f'href="/webhooks/{webhook_id}"' in operator.get("/audit").text


def test_circuit_is_closed(operator: httpx.Client, tenant: Tenant, database: Database) -> None:
    webhook_id = a_webhook(tenant, **OPEN)
    assert "12 failures in a row are forgotten" in words(operator.get(_act("close-circuit", webhook_id)))
    assert send(operator, _act("close-circuit", webhook_id), reason="it is back").status_code == SEE_OTHER
    page = operator.get(f"/webhooks/{webhook_id}")
    assert "✓ Active" in words(page)
    assert "close-circuit" not in page.text
    [act] = Acts(database).newest(AuditFilter(concerns=webhook_id), None, 5)
    assert (act.verb, act.before, act.after) == (
        *("webhook.reset", {"state": "ENABLED", "count": 12}, {"state": "ENABLED"}),
    )


def test_webhook_without_a_key_stays_disabled(operator: httpx.Client, tenant: Tenant) -> None:
    webhook_id = a_webhook(tenant, disabled_at=tenant.now(), disabled_cause="KEY_REVOKED")
    page = operator.get(f"/webhooks/{webhook_id}")
    assert not [each for each in ("enable-webhook", "disable-webhook") if each in page.text]
    answer = operator.get(_act("enable-webhook", webhook_id))
    assert answer.status_code == UNPROCESSABLE
    assert "The last key of its principal was revoked." in answer.text


def test_webhook_that_changed_meanwhile_stays_as_it_is(operator: httpx.Client, tenant: Tenant) -> None:
    """The form was opened before its receiver was gone, or its key was revoked."""
    for act, fields, cause, problem in (
        ("close-circuit", OPEN, "GONE", "This webhook is disabled"),
        ("enable-webhook", GONE, "KEY_REVOKED", "Rotate that key"),
    ):
        webhook_id = a_webhook(tenant, **fields)
        form = form_in(operator.get(_act(act, webhook_id)))
        change = "UPDATE webhook_endpoints SET disabled_at = now(), disabled_cause = :cause WHERE id = :id"
        tenant.change(change, cause=cause, id=webhook_id)
        answer = operator.post(f"/acts/{act}", data={**form, "reason": "too late"})
        assert problem in answer.text
        assert operator.get(_act(act, webhook_id)).status_code == UNPROCESSABLE
        [[after]] = tenant.ask("SELECT disabled_cause FROM webhook_endpoints WHERE id = :id", id=webhook_id)
        assert after == cause


def test_failed_deliveries_of_a_range_are_replayed(operator: httpx.Client, tenant: Tenant, database: Database) -> None:
    webhook_id, now = a_webhook(tenant), tenant.now()
    old = a_delivery(tenant, webhook_id, at=now - timedelta(days=3))
    failed = a_delivery(tenant, webhook_id, at=now - timedelta(hours=3))
    a_delivery(tenant, webhook_id, "DELIVERED", at=now - timedelta(hours=2))
    ping = a_delivery(tenant, webhook_id, type="ping", at=now - timedelta(hours=2))
    since, until = (f"{now - timedelta(hours=each):%Y-%m-%dT%H:%M:%SZ}" for each in (4, 1))
    address = _act("replay-failed", webhook_id, f"&since={since}&until={until}")
    shown = words(operator.get(address))
    assert "1 delivery of events from" in shown
    answer = send(operator, address, reason="their outage")
    assert answer.headers["location"] == f"/webhooks/{webhook_id}"
    rows = tenant.ask("SELECT event_id, state, is_replay FROM webhook_deliveries ORDER BY place")
    assert [tuple(each) for each in rows[:2]] == [(old, "FAILED", False), (failed, "WAITING", True)]
    assert tuple(rows[2])[1:] == ("DELIVERED", False)
    assert tuple(rows[3]) == (ping, "FAILED", False)
    [act] = Acts(database).newest(AuditFilter(concerns=webhook_id), None, 5)
    assert (act.verb, act.reason, act.after["count"]) == ("webhook.replay", "their outage", 1)
    assert "Nothing is sent again." in words(operator.get(address))


@pytest.mark.parametrize(
    ("since", "until"), [("", "2030-01-31T09:00"), ("noon", "2030-01-31T09:00"), ("2030-01-31T09:00",) * 2]
)
def test_replay_of_no_range_is_refused(operator: httpx.Client, tenant: Tenant, since: str, until: str) -> None:
    answer = operator.get(_act("replay-failed", a_webhook(tenant), f"&since={since}&until={until}"))
    assert answer.status_code == UNPROCESSABLE
    assert "replay" in words(answer)
