"""The page of one attempt: blocks with who ends them, times, history, chain and call."""

import re
from datetime import timedelta
from uuid import UUID, uuid4

import httpx
import pytest

from console.pages import attempt as attempt_page
from console.reads.attempts import AttemptPages
from scheduler.domain.attempt import Attempt, Ended, Reason
from scheduler.domain.company import RetryPolicy
from scheduler.domain.explanation import Block, Rule
from scheduler.hashing import Hasher
from scheduler.persistence.database import Database
from scheduler.use_cases.apply import Apply
from tests.conftest import real_now, seed
from tests.console.acts import send
from tests.console.conftest import PEPPER, Console
from tests.support.builders import (
    ALWAYS,
    RecordingHints,
    Tenant,
    a_number,
    a_pending_attempt,
    a_placed_attempt,
    a_tenant,
    a_waiting_command,
    an_attempt_of_unknown_outcome,
)

OK, NOT_FOUND, UNPROCESSABLE = 200, 404, 422


@pytest.fixture
def tenant(database: Database) -> Tenant:
    """A company that may call at every hour of the real clock, which the console reads."""
    return a_tenant(database, seed(database, real_now(), intervals=ALWAYS), Hasher(PEPPER), real_now)


def shown(client: httpx.Client, attempt: Attempt) -> str:
    answer = client.get(f"/attempts/{attempt.id}")
    assert answer.status_code == OK
    return re.sub(r"\s+", " ", answer.text)


def blocks_in(page: str) -> list[str]:
    return re.findall(r'<th scope="row" role="rowheader"><code>([A-Z_]+)</code></th>', page)


def test_blocks_are_in_the_diallers_order_with_who_ends_them(
    console: Console, tenant: Tenant, viewer: httpx.Client
) -> None:
    number = a_number()
    other = a_placed_attempt(tenant, number)
    attempt = a_pending_attempt(tenant, number)
    console.pauses.pause(None, "the voice server is down")
    console.pauses.pause(tenant.company_id, "their agent is wrong")
    command = a_waiting_command(tenant, attempt.interview_id)
    page = shown(viewer, attempt)
    assert blocks_in(page) == ["ACCOUNT_PAUSED", "COMPANY_PAUSED", "COMMAND_WAITING", "NUMBER_BUSY"]
    assert 'An operator resumes all calls. <a href="/">Now</a>' in page
    assert "An operator resumes the company." in page
    assert f'The end of the other call. <a href="/attempts/{other.id}">' in page
    assert f"Waiting command <code>{command.id}</code>" in page
    assert "waits for the end of the pause: the voice server is down" in page


def test_resting_number_links_to_its_last_call(tenant: Tenant, viewer: httpx.Client) -> None:
    number = a_number()
    last = tenant.take(a_placed_attempt(tenant, number), Ended(reason=Reason.BUSY, ended_at=real_now()))
    attempt = a_pending_attempt(tenant, number)
    rests = "Time: the number rests after its last call."
    assert f'{rests} <a href="/attempts/{last.id}">The last call</a>' in shown(viewer, attempt)
    tenant.change("UPDATE lines SET interview_id = NULL")
    page = shown(viewer, attempt)
    assert blocks_in(page) == ["NUMBER_BUSY"]
    assert rests in page
    assert f"{rests} <a" not in page


def test_only_actors_of_the_audit_are_linked(tenant: Tenant, viewer: httpx.Client) -> None:
    attempt = a_placed_attempt(tenant)
    actors = {"carrier": 0, "dial": 0, "settings": 0, "duecall up": 0, "system:duecall": 0}
    actors |= {"cli:ada@host": 1, "link:x": 1, "oidc:ada": 1, f"key:{tenant.principal.id}": 1}
    for actor, count in actors.items():
        tenant.change("UPDATE attempt_history SET actor = :actor WHERE attempt_id = :id", actor=actor, id=attempt.id)
        assert ("/audit?actor=" in shown(viewer, attempt)) is bool(count), actor


def test_every_rule_names_who_ends_it(tenant: Tenant, database: Database) -> None:
    attempt = a_pending_attempt(tenant)
    details = AttemptPages(tenant.context).details(attempt.id)
    for rule in Rule:
        ender = attempt_page.ender_of(Block(rule=rule), details)
        assert ender.words.endswith("."), rule
        assert (ender.href is None) or ender.link, rule


def test_command_in_quarantine_is_an_operators(tenant: Tenant, viewer: httpx.Client) -> None:
    attempt = a_pending_attempt(tenant)
    a_waiting_command(tenant, attempt.interview_id)
    tenant.change("UPDATE inbox SET quarantined_at = received_at, first_failed_at = received_at, failures = 5")
    page = shown(viewer, attempt)
    assert "An operator retries or drops the command, which failed five times." in page
    assert "after 5 failures" in page


def test_attempt_of_an_earlier_version_says_what_may_be_missing(tenant: Tenant, viewer: httpx.Client) -> None:
    attempt = a_pending_attempt(tenant)
    assert "An earlier version" not in shown(viewer, attempt)
    tenant.change("UPDATE attempts SET schedule = schedule - 'country'")
    assert "An earlier version created this attempt. Rules about the country or the time zone" in shown(viewer, attempt)


def test_callable_attempt_has_no_block_but_tables_with_bars(tenant: Tenant, viewer: httpx.Client) -> None:
    page = shown(viewer, a_pending_attempt(tenant))
    assert blocks_in(page) == []
    assert "No rule blocks it. It is called in its turn" in page
    assert "never claimed" in page
    assert page.count('<svg class="bar"') == 1
    assert "<caption>Events of the attempt</caption>" in page
    assert "<caption>Calling hours</caption>" in page
    assert 'role="rowheader">Europe/Bratislava</th>' in page


def test_times_are_in_utc_and_on_the_callees_clock(tenant: Tenant, viewer: httpx.Client) -> None:
    due_at = (real_now() + timedelta(days=2)).replace(hour=10, minute=0, second=0, microsecond=0)
    page = shown(viewer, a_pending_attempt(tenant, due_at=due_at))
    hour = 12 if due_at.month in range(4, 10) else 11
    assert f"{due_at:%Y-%m-%d} 10:00:00 UTC" in page
    assert f"{due_at:%Y-%m-%d} {hour}:00 Europe/Bratislava" in page or due_at.month in {3, 10}
    assert "Europe/Bratislava (<code>PHONE_NUMBER</code>)" in page


def test_call_and_history_are_shown(tenant: Tenant, viewer: httpx.Client) -> None:
    attempt = a_placed_attempt(tenant)
    page = shown(viewer, attempt)
    assert f"<code>{attempt.call_sid}</code>" in page
    for event in ("created", "claimed", "placed"):
        assert f"<code>{event}</code>" in page
    assert "It is being called. It waits for the call's end." in page.replace("&#39;", "'")


def test_history_names_the_key_of_a_client(tenant: Tenant, viewer: httpx.Client) -> None:
    attempt = a_pending_attempt(tenant)
    key_id = uuid4()
    tenant.insert(
        "api_keys",
        id=key_id,
        principal_id=uuid4(),
        kind="REGULAR",
        company_id=tenant.company_id,
        name="the night shift",
        key_hash=b"h" * 32,
        scopes=[],
        per_minute=1,
        per_hour=1,
        created_at=real_now(),
        updated_at=real_now(),
    )
    tenant.change("UPDATE attempt_history SET actor = :key", key=f"key:{key_id}")
    assert "the night shift" in shown(viewer, attempt)


def test_attempts_of_an_interview_are_linked(tenant: Tenant, viewer: httpx.Client) -> None:
    number = a_number()
    first = a_placed_attempt(tenant, number)
    tenant.take(first, Ended(reason=Reason.BUSY, ended_at=real_now()))
    second = a_pending_attempt(tenant, number, interview_id=first.interview_id)
    assert f'<a rel="next" href="/attempts/{second.id}">' in shown(viewer, first)
    page = shown(viewer, second)
    assert f'<a rel="prev" href="/attempts/{first.id}">' in page
    assert "Failed</span> Busy" in page
    assert 'rel="next"' not in page


def test_retry_names_the_call_that_it_repeats(database: Database, viewer: httpx.Client) -> None:
    seeded = seed(database, real_now(), intervals=ALWAYS, retry_policy=RetryPolicy(max_retries=2))
    tenant = a_tenant(database, seeded, Hasher(PEPPER), real_now)
    first = a_placed_attempt(tenant)
    tenant.take(first, Ended(reason=Reason.BUSY, ended_at=real_now()))
    [[retry_id]] = tenant.ask("SELECT id FROM attempts WHERE retry_number = 1")
    page = re.sub(r"\s+", " ", viewer.get(f"/attempts/{retry_id}").text)
    assert f'retry 1 of <a href="/attempts/{first.id}">the call</a> of <time' in page
    assert "as soon as allowed" not in page
    assert "as soon as allowed" in shown(viewer, first)


def test_unknown_outcome_is_shown_with_its_decision(
    tenant: Tenant, viewer: httpx.Client, operator: httpx.Client
) -> None:
    attempt = an_attempt_of_unknown_outcome(tenant)
    act = f'href="/acts/decide-outcome?attempt={attempt.id}"'
    assert act in shown(operator, attempt)
    page = shown(viewer, attempt)
    assert act not in page
    assert "FAILED, OUTCOME_UNKNOWN" in page
    assert "Only a new attempt calls again." in page
    assert "Answer lost" in page


def test_missing_attempt_is_a_page(viewer: httpx.Client) -> None:
    for attempt_id in (UUID(int=1), "nonsense", "%2e%2e"):
        answer = viewer.get(f"/attempts/{attempt_id}")
        assert answer.status_code == NOT_FOUND
        assert "There is no such" in answer.text


# ---- acts


def cancelled(client: httpx.Client, attempt: Attempt, reason: str = "the job was filled") -> httpx.Response:
    return send(client, f"/acts/cancel-attempt?attempt={attempt.id}", reason=reason)


def test_operator_cancels_a_pending_call(tenant: Tenant, operator: httpx.Client, viewer: httpx.Client) -> None:
    attempt = a_pending_attempt(tenant)
    act = f'href="/acts/cancel-attempt?attempt={attempt.id}"'
    assert act in shown(operator, attempt)
    assert act not in shown(viewer, attempt)
    form = operator.get("/acts/cancel-attempt", params={"attempt": str(attempt.id)})
    assert f"Attempt {attempt.id} will be cancelled." in form.text
    assert cancelled(operator, attempt).headers["location"] == f"/attempts/{attempt.id}"
    [[command_id]] = tenant.ask("SELECT id FROM inbox")
    assert blocks_in(shown(viewer, attempt)) == ["COMMAND_WAITING"]
    Apply(tenant.context, RecordingHints()).command(command_id)
    page = shown(viewer, attempt)
    assert "CANCELLED, CANCELLED_BY_USER" in page
    head = re.search(r'<p class="state">(.*?)</p>', page)
    assert head
    assert re.sub(r"<[^>]+>", "", head[1]).strip() == "⊘ Cancelled by client or operator"
    assert "link:" in page, "the history names the operator"
    assert "the job was filled" in page


def test_call_that_was_claimed_is_not_cancelled(tenant: Tenant, operator: httpx.Client) -> None:
    attempt = a_placed_attempt(tenant)
    assert "/acts/" not in shown(operator, attempt)
    answer = cancelled(operator, attempt)
    assert answer.status_code == UNPROCESSABLE
    assert "not pending any longer" in answer.text
    assert tenant.ask("SELECT count(*) FROM inbox") == [(0,)]
