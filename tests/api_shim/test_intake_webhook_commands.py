"""`duecall webhooks`: what operators see of endpoints and do to them, and events forwarded to a developer's machine."""

import json
import shlex
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from command_line import main as cli
from command_line.session import this_actor
from scheduler.settings import settings
from scheduler.webhooks.sender import WebhookSender
from scheduler.webhooks.sending import new_secret
from standalone.api_client import ApiClient, ApiRefused, Forwarded, Forwarding
from tests.api_shim.answers import data
from tests.api_shim.deliveries import Partner, a_partner
from tests.api_shim.intake import Intake, environment_of
from tests.conftest import NOON
from tests.support.servers import a_closed_port
from tests.support.statements import statements_of
from tests.support.webhook_receivers import WebhookReceiver, a_webhook_receiver, answers

WHY = "--reason 'an outage of its receiver'"
Command = Callable[[str], Any]


@pytest.fixture
def duecall(
    intake: Intake, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """The command, on the installation of the API. Returns its output, its messages and its status."""
    for name, value in {**environment_of(intake), "DUECALL_HOME": str(folder)}.items():
        monkeypatch.setenv(name, value)

    def run(line: str) -> tuple[str, str, int]:
        settings.cache_clear()
        monkeypatch.setattr("sys.argv", ["duecall", "webhooks", *shlex.split(line)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return said.out, " ".join(said.err.split()), ended.value.code

    yield run
    settings.cache_clear()


@pytest.fixture
def partner(intake: Intake) -> Partner:
    return a_partner(intake)


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with a_webhook_receiver(answers(200)) as receiver:
        yield receiver


def of_json(duecall: Command, line: str) -> Any:
    out, err, code = duecall(f"{line} --json")
    assert code == 0, err
    return json.loads(out)


def audited(partner: Partner) -> list[Any]:
    return partner.client.ask("SELECT * FROM audit WHERE target_kind = 'webhook' ORDER BY id")


# ---- operators


def test_list_shows_state_and_what_waits(duecall: Command, intake: Intake, partner: Partner) -> None:
    partner.delivered(2, "WAITING")
    partner.client.change(
        "UPDATE webhook_deliveries SET last_error_kind = 'TIMEOUT' WHERE place = (SELECT max(place) FROM events)"
    )
    partner.client.change("UPDATE webhook_endpoints SET circuit_opened_at = created_at, consecutive_failures = 12")
    other = a_partner(intake)
    rows = {UUID(row["webhookId"]): row for row in of_json(duecall, "list")}
    first, second = rows[partner.endpoint_id], rows[other.endpoint_id]
    assert first["companyId"] == str(intake.seeded.company_id)
    assert (first["state"], first["waiting"], first["waitingIsEstimate"]) == ("circuit open", 2, False)
    assert (first["oldestWaitingAt"], first["lastErrorKind"]) == (NOON.isoformat(), "TIMEOUT")
    assert (second["state"], second["waiting"]) == ("active", 0)
    out, err, _ = duecall("list")
    assert f"{partner.endpoint_id}" in out
    assert "circuit open  2 waiting" in out
    assert "docs/operations.md" in err


def test_list_shows_no_path_of_a_url(duecall: Command, partner: Partner) -> None:
    partner.client.change("UPDATE webhook_endpoints SET url = 'https://me:pw@hooks.example:8443/p/tok?key=v'")
    [row] = of_json(duecall, "list")
    assert row["origin"] == "https://hooks.example:8443"
    out, err, _ = duecall("list")
    for secret in ("pw", "/p/", "tok", "key=v"):
        assert secret not in out + err


def test_list_takes_two_statements_for_any_number(intake: Intake, partner: Partner) -> None:
    for _ in range(2):
        with intake.database.reading() as stores, statements_of(intake.database) as sent:
            found = stores.webhook_overview.states(1000)
        # The first one makes PostgreSQL read in the order of an index.
        assert len(sent) == 2
        a_partner(intake).delivered(3, "FAILED")
    assert len(found) == 2


def test_deleted_webhook_is_not_listed(duecall: Command, partner: Partner) -> None:
    partner.client.change("UPDATE webhook_endpoints SET disabled_at = created_at, disabled_cause = 'DELETED'")
    assert of_json(duecall, "list") == []
    for act in ("disable", "enable", "replay --from 2026-04-02T12:00Z"):
        verb, _, more = act.partition(" ")
        _, err, code = duecall(f"{verb} {partner.endpoint_id} {more} {WHY}")
        assert (code, "There is no such webhook" in err) == (1, True)


def test_disabled_webhook_is_enabled_again(duecall: Command, partner: Partner) -> None:
    partner.client.change("UPDATE webhook_endpoints SET consecutive_failures = 12, circuit_opened_at = created_at")
    assert "is disabled" in duecall(f"disable {partner.endpoint_id} {WHY}")[1]
    assert "was disabled before; nothing changed" in duecall(f"disable {partner.endpoint_id} {WHY}")[1]
    [row] = of_json(duecall, "list")
    assert row["state"] == "disabled: OPERATOR"
    assert data(partner.client.get(partner.path))["isActive"] is False
    assert "is enabled" in duecall(f"enable {partner.endpoint_id} {WHY}")[1]
    [row] = of_json(duecall, "list")
    assert (row["state"], row["consecutiveFailures"]) == ("active", 0)
    [[type_, reason]] = partner.client.ask("SELECT type, data ->> 'reasonCode' FROM events")
    assert (type_, reason) == ("endpoint.disabled", "OPERATOR")
    disabled, enabled = audited(partner)
    assert (disabled.verb, disabled.actor) == ("webhook.disable", this_actor())
    assert (disabled.reason, disabled.company_id) == ("an outage of its receiver", partner.principal.company_id)
    assert (disabled.before, disabled.after) == ({"state": "ENABLED", "count": 12}, {"state": "OPERATOR"})
    assert (enabled.verb, enabled.after) == ("webhook.enable", {"state": "ENABLED"})


def test_webhook_without_a_key_is_not_enabled(duecall: Command, partner: Partner) -> None:
    partner.client.change("UPDATE webhook_endpoints SET disabled_at = created_at, disabled_cause = 'KEY_REVOKED'")
    _, err, code = duecall(f"enable {partner.endpoint_id} {WHY}")
    assert (code, "duecall keys create --rotate KEY_ID" in err) == (1, True)
    [row] = of_json(duecall, "list")
    assert row["state"] == "disabled: KEY_REVOKED"
    assert audited(partner) == []


def test_enabled_webhook_may_be_paused_by_its_partner(duecall: Command, partner: Partner) -> None:
    partner.client.change("UPDATE webhook_endpoints SET is_active = false")
    assert "its partner has paused it" in duecall(f"enable {partner.endpoint_id} {WHY}")[1]
    assert audited(partner) == []
    [row] = of_json(duecall, "list")
    assert row["state"] == "paused by its partner"


def test_operator_replays_a_range_to_its_end(
    duecall: Command, partner: Partner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.use_cases.resources.webhooks.REPLAYED_A_BATCH", 2)
    monkeypatch.setattr("scheduler.use_cases.resources.webhooks.BATCHES_A_REPLAY", 1)
    made = partner.delivered(5, "FAILED")
    line = f"replay {partner.endpoint_id} --from 2026-04-02T12:00Z --to 2026-04-02T12:04Z --only-failed {WHY}"
    assert of_json(duecall, line) == {"webhookId": str(partner.endpoint_id), "replayed": 4}
    assert [row.event_id for row in partner.rows() if row.is_replay] == made[:4]
    assert "0 deliveries" in duecall(line)[1]
    rows = audited(partner)
    assert [row.after["count"] for row in rows] == [2, 2, 0, 0]
    assert {(row.verb, row.actor) for row in rows} == {("webhook.replay", this_actor())}
    assert rows[0].after["filter"]["onlyFailed"] is True


WRONG_ARGUMENTS = {
    "disable {id}": "Missing --reason",
    "enable {id}": "Missing --reason",
    "replay {id} --from 2026-04-02T12:00Z": "Missing --reason",
    f"replay {{id}} --from noon {WHY}": "Write it like 2026-04-02T15:00:00Z or 2026-04-02T15:00:00+02:00.",
    f"replay {{id}} --from 2026-04-02T12:00Z --to 2026-04-02T12:00Z {WHY}": "--to must be later",
    f"replay {{id}} --from 2026-04-02T12:00Z --types x {WHY}": "There is no type x",
    f"disable 7 {WHY}": "this is not an id",
    "listen --forward-to localhost:3000 --key k": "--forward-to must be a URL",
    "listen --forward-to http://127.0.0.1:1 --url api --key k": "--url must be a URL",
    "listen --forward-to http://127.0.0.1:1": "--key",
    "listen --forward-to http://127.0.0.1:1 --key k --secret whsec_x": "--secret must be",
}


def test_wrong_arguments_are_refused(duecall: Command, partner: Partner) -> None:
    for line, text in WRONG_ARGUMENTS.items():
        out, err, code = duecall(line.format(id=partner.endpoint_id))
        assert (out, code != 0) == ("", True), line
        assert text in err, line
    assert audited(partner) == []


# ---- developers


def listening(intake: Intake, receiver: WebhookReceiver, *more: str) -> str:
    return f"listen --forward-to {receiver.url} --url {intake.client.base_url} {' '.join(more)}"


def test_listen_forwards_signed_events(
    duecall: Command, partner: Partner, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUECALL_API_KEY", partner.client.key)
    made = [partner.event(), partner.event(type_="interview.failed")]
    out, err, code = duecall(listening(partner.client, receiver, "--once"))
    assert code == 0, err
    assert [line.split()[:3] for line in out.splitlines()] == [
        ["interview.completed", str(made[0]), "200"],
        ["interview.failed", str(made[1]), "200"],
    ]
    assert err.count("whsec_") == 1
    assert partner.client.key not in out + err
    secret = err.split("session: ")[1].split()[0]
    for visit, event_id in zip(receiver.visits, made, strict=True):
        body = Webhook(secret).verify(visit.body, visit.headers)
        assert (body["deliveryId"], visit.headers["webhook-id"]) == (str(event_id), str(event_id))
        with pytest.raises(WebhookVerificationError):
            Webhook(new_secret()).verify(visit.body, visit.headers)


def test_listen_signs_with_the_secret_that_is_given(
    duecall: Command, partner: Partner, receiver: WebhookReceiver
) -> None:
    partner.event()
    secret = new_secret()
    _, err, code = duecall(listening(partner.client, receiver, f"--once --key {partner.client.key} --secret {secret}"))
    assert code == 0, err
    [visit] = receiver.visits
    Webhook(secret).verify(visit.body, visit.headers)


def test_listen_begins_after_a_place_with_some_types(
    duecall: Command, partner: Partner, receiver: WebhookReceiver
) -> None:
    made = [partner.event(type_=each) for each in ("interview.failed", "interview.completed", "interview.failed")]
    [[place]] = partner.client.ask("SELECT place FROM events WHERE id = :id", id=made[0])
    more = f"--once --key {partner.client.key} --types interview.failed --after {place}"
    out, _, _ = duecall(listening(partner.client, receiver, more))
    assert [line.split()[1] for line in out.splitlines()] == [str(made[2])]


def test_listen_prints_the_error_of_the_receiver(duecall: Command, partner: Partner) -> None:
    partner.event()
    line = f"listen --url {partner.client.client.base_url} --once --key {partner.client.key} --forward-to"
    out, _, code = duecall(f"{line} http://127.0.0.1:{a_closed_port().rsplit(':', 1)[1]}")
    assert (out.split()[2], code) == ("NOT_CONNECTED", 0)
    with a_webhook_receiver(answers(500, body=b"do not print me")) as failing:
        out, err, _ = duecall(f"{line} {failing.url}")
    assert out.split()[2] == "500"
    assert "do not print me" not in out + err


def test_listen_needs_a_valid_key_and_an_api(duecall: Command, intake: Intake, receiver: WebhookReceiver) -> None:
    for key, text in (("sk_live_wrong", "401"), (intake.with_new_key("read:jobs").key, "403")):
        out, err, code = duecall(listening(intake, receiver, f"--once --key {key}"))
        assert (out, code, text in err) == ("", 1, True)
        assert key not in err
    with a_webhook_receiver(answers(200, body=b"<html>")) as page:
        _, err, code = duecall(f"listen --once --key k --url {page.url} --forward-to {receiver.url}")
    assert (code, "Check --url" in err) == (1, True)
    with a_webhook_receiver(answers(302, f"Location: {receiver.url}")) as redirect:
        _, err, code = duecall(f"listen --once --key k --url {redirect.url} --forward-to {receiver.url}")
    assert (code, receiver.visits) == (1, [])


class Waits:
    """The waits of a forwarding. Each acts instead of waiting, and the last one stops."""

    def __init__(self, *acts: Callable[[], object]) -> None:
        self.acts = list(acts)
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        if not self.acts:
            raise KeyboardInterrupt
        self.acts.pop(0)()


def followed(
    api: ApiClient, receiver: WebhookReceiver, waits: Waits, after: int | None = None
) -> tuple[list[Forwarded], list[str]]:
    told: list[str] = []
    sender = WebhookSender(to_partners=False, in_development=True)
    forwarding = Forwarding(api, sender, receiver.url, new_secret(), wait=waits, tell=told.append)
    found: list[Forwarded] = []
    with pytest.raises(KeyboardInterrupt):
        found.extend(islice(forwarding.follow(after), 1000))
    return found, told


def test_listen_follows_new_events_only(partner: Partner, receiver: WebhookReceiver) -> None:
    partner.event(NOON - timedelta(hours=1))
    made: list[UUID] = []

    def occur(count: int = 1) -> None:
        made.extend(partner.event(partner.client.now()) for _ in range(count))

    waits = Waits(occur, lambda: occur(101), lambda: None)
    api = ApiClient(str(partner.client.client.base_url), partner.client.key)
    found, told = followed(api, receiver, waits)
    assert [each.id for each in found] == [str(each) for each in made]
    assert (len(made), told) == (102, ["Waiting for new events …"])


def test_listen_waits_while_the_api_is_away(partner: Partner, receiver: WebhookReceiver) -> None:
    event_id = partner.event()
    api = ApiClient(a_closed_port(), partner.client.key)

    def come_back() -> None:
        api.url = str(partner.client.client.base_url).rstrip("/")

    waits = Waits(lambda: None, lambda: None, come_back)
    found, told = followed(api, receiver, waits, after=0)
    assert [each.id for each in found] == [str(event_id)]
    assert waits.seconds == [1, 2, 4, 1]
    assert told[0].endswith("trying again in 1 s")
    assert told[-1] == "the API answers again"
    assert all(partner.client.key not in each for each in told)


def test_overloaded_api_is_asked_when_it_says(partner: Partner, receiver: WebhookReceiver) -> None:
    with a_webhook_receiver(answers(429, "Retry-After: 17")) as api:
        waits = Waits()
        _, told = followed(ApiClient(api.url, partner.client.key), receiver, waits)
    assert waits.seconds == [17]
    assert "answered 429; trying again in 17 s" in told[0]


def test_key_of_an_invalid_url_is_not_told() -> None:
    with pytest.raises(ApiRefused) as refused:
        ApiClient("http://[", "sk_live_secret").send("GET", "/events")
    assert "sk_live_secret" not in str(refused.value)
