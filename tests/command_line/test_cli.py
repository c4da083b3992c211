"""Operator commands: explain, status, pause, resume and billing; and errors of wrong arguments."""

import fcntl
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from importlib import metadata
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
import typer.main

from api_shim.routes import health
from command_line import main as cli
from command_line.terminal import explanation_page
from scheduler.domain.attempt import Deferred, ExpiryMoved, Progressed
from scheduler.domain.call import CalleeClock, CallProgress, TimezoneSource
from scheduler.domain.command import Answer
from scheduler.domain.company import EVERY_DAY, CallTimeInterval, Invitation
from scheduler.domain.principal import KeyKind
from scheduler.domain.resource import COUNTED_UP_TO
from scheduler.lifecycle.backoffs import Backoff, Scope
from scheduler.lifecycle.breaker import Breaker
from scheduler.persistence import sessions
from scheduler.settings import settings
from scheduler.timing import callee_zones
from scheduler.use_cases.operations.counts import Counts
from scheduler.use_cases.operations.pauses import Pauses
from scheduler.use_cases.resources.keys import Keys
from scheduler.use_cases.shared.alarms import raise_in
from standalone.demo.run import print_what_to_try
from standalone.run_file import Running
from tests.command_line.conftest import CliResult, Duecall
from tests.conftest import NOON, Seeded, TestClock, seed, wait_until
from tests.support.big_tables import add_pending_calls
from tests.support.builders import (
    Tenant,
    a_claimed_attempt,
    a_pending_attempt,
    a_placed_attempt,
    a_quarantined_callback,
    a_waiting_command,
    an_attempt_of_unknown_outcome,
    an_unknown_attempt,
    of_company,
)
from tests.support.forked_commands import forked_command
from workers.liveness import Announcement, Presence

NUMBER = "+421915777888"
AUSTRALIAN_MOBILE = "+61412345678"
NO_DATABASE = "postgresql://user@127.0.0.1:1/nothing"
DOWN = Breaker(failures=5, down_until=NOON + timedelta(minutes=5), cause="NOT_CONNECTED")


@pytest.fixture
def pauses(tenant: Tenant) -> Pauses:
    return Pauses(tenant.database, tenant.now)


# ---- explain


def test_explain_shows_next_possible_time_on_both_clocks(duecall: Duecall, tenant: Tenant) -> None:
    attempt = a_pending_attempt(tenant, due_at=NOON + timedelta(hours=3))
    said = duecall(f"explain {attempt.id}")
    assert said.code == 0
    assert "PENDING, waits for its time" in said.told
    assert "may ring 2026-04-02 15:00:00 UTC, in 2 h 59 min" in said.told
    assert "Thu 02 Apr 17:00:00 in Europe/Bratislava" in said.told
    assert "Europe/Bratislava: from the phone number" in said.told
    assert "NOT_DUE until 2026-04-02 15:00:00 UTC, in 2 h 59 min The call is not due yet." in said.told


def test_explain_lists_blocks_in_the_order_of_their_checks(duecall: Duecall, tenant: Tenant, pauses: Pauses) -> None:
    attempt = a_pending_attempt(tenant, due_at=NOON + timedelta(hours=9))
    pauses.pause(tenant.company_id, "their lines are being moved")
    pauses.pause(None, "a drill")
    told = duecall(f"explain {attempt.id}").told
    order = [told.index(rule) for rule in ("ACCOUNT_PAUSED", "COMPANY_PAUSED", "NOT_DUE")]
    assert order == sorted(order)
    assert "COMPANY_PAUSED open-ended The company is paused: their lines are being moved" in told
    assert "PENDING, waits for the end of the pause: a drill" in told
    assert "may ring not known: a rule below has no known end" in told


def test_explain_shows_time_and_condition_while_limit_is_reached(duecall: Duecall, tenant: Tenant) -> None:
    a_placed_attempt(tenant, NUMBER)
    told = duecall(f"explain {a_pending_attempt(tenant, NUMBER, due_at=NOON + timedelta(hours=3)).id}").told
    assert "may ring 2026-04-02 15:00:00 UTC, in 2 h 59 min, unless a rule below still blocks it" in told


def test_explain_says_never_when_no_window_opens_before_expiry(duecall: Duecall, tenant: Tenant) -> None:
    late = NOON + timedelta(hours=9)
    told = duecall(f"explain {a_pending_attempt(tenant, due_at=late, expires_at=late + timedelta(hours=1)).id}").told
    assert "may ring never: no calling window opens" in told


def test_explain_of_unblocked_attempt_says_it_waits_for_its_turn(duecall: Duecall, tenant: Tenant) -> None:
    told = duecall(f"explain {a_pending_attempt(tenant).id}").told
    assert "No rule blocks the call now: it waits for its turn." in told
    assert "Rules that block" not in told


def test_explain_shows_history_with_time_event_and_actor(duecall: Duecall, tenant: Tenant) -> None:
    attempt = a_claimed_attempt(tenant)
    tenant.take(attempt, Deferred(due_at=NOON + timedelta(hours=20), cause="WINDOW_CLOSED"), actor="dial")
    told = duecall(f"explain {attempt.id}").told
    assert "04-02 12:00:00 created PENDING a test" in told
    assert "04-02 12:00:00 claimed PENDING → IN_PROGRESS dial" in told
    assert "04-02 12:00:00 deferred IN_PROGRESS → PENDING WINDOW_CLOSED, due 08:00:00 dial" in told


def test_explain_names_keys_and_merges_repeated_history_lines(duecall: Duecall, tenant: Tenant, now: TestClock) -> None:
    attempt = a_pending_attempt(tenant)
    with tenant.database.transaction() as stores:
        principal, _ = Keys(tenant.database, tenant.hasher, tenant.now).create(kind=KeyKind.ATS, name="Acme ATS")
        for _ in range(3):
            attempt = stores.attempts.save(
                attempt, ExpiryMoved(expires_at=attempt.expires_at), f"key:{principal.key_id}", now()
            )
            now.move(timedelta(minutes=1))
    told = duecall(f"explain {attempt.id}").told
    assert told.count("expiry moved") == 1
    assert f"expiry moved PENDING key Acme ATS {str(principal.key_id)[:8]}" in told
    assert "to 04-02 12:02:00, 3 times" in told


def test_explain_shows_each_progress_of_a_call(duecall: Duecall, tenant: Tenant) -> None:
    placed = a_placed_attempt(tenant)
    for rank in (CallProgress.DIALLED, CallProgress.RINGING, CallProgress.ANSWERED):
        placed = tenant.take(placed, Progressed(rank=rank), actor="carrier")
    told = duecall(f"explain {placed.id}").told
    for word in ("DIALLED", "RINGING", "ANSWERED"):
        assert f"progressed IN_PROGRESS {word} carrier" in told


def test_explain_of_finished_attempt_shows_no_time_and_no_blocks(duecall: Duecall, tenant: Tenant) -> None:
    told = duecall(f"explain {an_attempt_of_unknown_outcome(tenant).id}").told
    assert "FAILED, OUTCOME_UNKNOWN" in told
    assert "an operator must decide" in told
    assert "may ring" not in told
    assert "Rules that block" not in told


@pytest.mark.parametrize(
    ("clock", "number", "told"),
    [
        pytest.param(
            CalleeClock(source=TimezoneSource.OFFSET, offset=-timedelta(hours=2)),
            None,
            ["Thu 02 Apr 10:00:00 at -02:00", "the request named this offset"],
            id="an offset",
        ),
        pytest.param(
            CalleeClock(source=TimezoneSource.PHONE_NUMBER, zones=callee_zones.read_number(AUSTRALIAN_MOBILE).zones),
            AUSTRALIAN_MOBILE,
            [
                "8 time zones",
                "all of them must be open",
                "Fri 03 Apr 08:00:00 in Australia/Perth to Fri 03 Apr 11:00:00 in Australia/Sydney",
            ],
            id="many zones: their number, and the ends of the day that they span",
        ),
        pytest.param(
            CalleeClock(source=TimezoneSource.CANDIDATE, zones=("Europe/Lisbon",)),
            None,
            ["Thu 02 Apr 13:00:00 in Europe/Lisbon", "the candidate's zone"],
            id="the candidate's",
        ),
    ],
)
def test_explain_names_the_deciding_clock_and_its_source(
    duecall: Duecall, tenant: Tenant, clock: CalleeClock, number: str | None, told: Sequence[str]
) -> None:
    attempt = a_pending_attempt(tenant, number, clock=clock)
    page = duecall(f"explain {attempt.id}").told
    assert [each for each in told if each not in page] == []


def test_explain_of_interview_explains_its_newest_attempt(duecall: Duecall, tenant: Tenant, now: TestClock) -> None:
    older = an_attempt_of_unknown_outcome(tenant)
    now.move(timedelta(seconds=1))
    assert "Explaining its only attempt:" in duecall(f"explain {older.interview_id}").err
    newest = a_pending_attempt(tenant, interview_id=older.interview_id, due_at=NOON + timedelta(hours=1))
    said = duecall(f"explain {older.interview_id}")
    assert said.code == 0
    assert f"Attempt {newest.id}" in said.out
    assert "the newest of its 2 attempts" in said.err
    assert str(older.id) in said.err


def test_explain_of_unknown_id_prints_one_error_line(duecall: Duecall, tenant: Tenant) -> None:
    said = duecall(f"explain {uuid4()}")
    assert (said.out, said.code) == ("", 1)
    (warning, error) = said.err.splitlines()
    assert warning.startswith("WARNING: REDIS_URL is not set")
    assert error.startswith("No call attempt has this id")


def test_explain_prints_the_json_of_the_api(duecall: Duecall, tenant: Tenant) -> None:
    attempt = a_pending_attempt(tenant, due_at=NOON + timedelta(hours=3))
    told = duecall(f"explain {attempt.id} --json").data
    assert told["attemptId"] == str(attempt.id)
    assert told["nextPossibleAt"] == "2026-04-02T15:00:00Z"
    assert [block["rule"] for block in told["blocks"]] == ["NOT_DUE"]
    assert [each["event"] for each in told["history"]] == ["created"]


def test_pages_contain_no_phone_number_and_no_name(duecall: Duecall, tenant: Tenant) -> None:
    attempt = a_placed_attempt(tenant, NUMBER)
    for line in (f"explain {attempt.id}", f"explain {attempt.id} --json", f"explain {attempt.interview_id}", "status"):
        said = duecall(line)
        assert said.code == 0
        for personal in (NUMBER.removeprefix("+"), "Ada", "Byron"):
            assert personal not in said.out + said.err


# ---- status


def _in_every_way(tenant: Tenant) -> None:
    """One attempt of each that a status tells apart; two calls to one number, so that the second waits for it."""
    a_pending_attempt(tenant, due_at=NOON + timedelta(hours=1))
    a_pending_attempt(tenant)
    a_waiting_command(tenant, a_pending_attempt(tenant).interview_id)
    a_placed_attempt(tenant, NUMBER)
    a_pending_attempt(tenant, NUMBER)
    an_unknown_attempt(tenant)
    an_attempt_of_unknown_outcome(tenant)


def test_status_counts_waiting_attempts_by_reason(duecall: Duecall, tenant: Tenant) -> None:
    _in_every_way(tenant)
    told = duecall("status").told
    assert "Carrier takes calls; 2 of 1000 calls in progress" in told
    assert f"Company {tenant.company_id} runs" in told
    assert "waiting 1 for their time, 1 for a command, 1 for their number, 1 for their turn" in told
    assert "next is due 2026-04-02 13:00:00 UTC, in 59 min" in told
    assert "due 3, late by" in told
    assert "held 1 by COMMAND_WAITING, the oldest for" in told
    assert "held 1 by NUMBER_BUSY, the oldest for" in told
    assert "in progress 2 of 1000" in told
    assert "polled 1" in told
    assert "unknown 1" in told


def test_status_of_idle_company_omits_empty_lines(duecall: Duecall, tenant: Tenant) -> None:
    told = duecall("status").told
    assert "waiting nothing" in told
    for absent in ("polled", "unknown", "next is due"):
        assert absent not in told


def test_status_counts_due_attempts_of_paused_company_as_paused(
    duecall: Duecall, tenant: Tenant, pauses: Pauses
) -> None:
    a_pending_attempt(tenant)
    pauses.pause(tenant.company_id, "they asked for silence")
    told = duecall("status").told
    assert "PAUSED: they asked for silence" in told
    assert "waiting 1 for the end of the pause" in told
    assert "for their turn" not in told


def test_status_ranks_pause_and_outage_before_other_reasons(duecall: Duecall, tenant: Tenant, pauses: Pauses) -> None:
    _in_every_way(tenant)
    pauses.pause(tenant.company_id, "they asked for silence")
    assert "waiting 1 for their time, 3 for the end of the pause" in duecall("status").told
    _set_breaker(tenant, DOWN)
    assert "waiting 1 for their time, 3 for the carrier" in duecall("status").told
    pauses.pause(None, "a drill")
    told = duecall("status").told
    assert "waiting 1 for their time, 3 for the end of the pause" in told
    assert f"Company {tenant.company_id} PAUSED: they asked for silence" in told


def test_status_of_running_company_names_a_pause_of_all(duecall: Duecall, tenant: Tenant, pauses: Pauses) -> None:
    pauses.pause(None, "a drill")
    assert f"Company {tenant.company_id} runs, but all calls are paused" in duecall("status").told


def test_status_counts_attempts_that_wait_up_to_a_maximum(
    duecall: Duecall, tenant: Tenant, seeded: Seeded, postgres_url: str
) -> None:
    add_pending_calls(postgres_url, seeded, NOON, COUNTED_UP_TO, named=False)
    assert f"waiting {COUNTED_UP_TO} for their time" in duecall("status").told
    other = seed(tenant.database, NOON)
    add_pending_calls(postgres_url, other, NOON, COUNTED_UP_TO + 2, named=False)
    assert "waiting more than 10,000 for their time" in duecall("status").told
    counted = {each["companyId"]: each for each in duecall("status --json").data["companies"]}
    for company, expected in ((seeded, (COUNTED_UP_TO, False)), (other, (COUNTED_UP_TO + 1, True))):
        row = counted[str(company.company_id)]
        assert (row["waiting"], row["waitingIsEstimate"]) == expected


def test_status_says_a_place_when_the_call_limit_is_reached(duecall: Duecall, tenant: Tenant) -> None:
    a_placed_attempt(tenant)
    a_pending_attempt(tenant)
    tenant.change("UPDATE companies SET concurrent_calls = 1")
    assert "waiting 1 for a place" in duecall("status").told
    tenant.change("UPDATE companies SET concurrent_calls = 2")
    assert "waiting 1 for their turn" in duecall("status").told
    tenant.change("UPDATE carrier_accounts SET max_calls = 1")
    assert "waiting 1 for a place" in duecall("status").told


def _set_breaker(tenant: Tenant, breaker: Breaker) -> None:
    with tenant.database.transaction() as stores:
        stores.carrier_accounts.set_breaker(tenant.account_id, breaker, NOON)


def test_status_shows_carrier_outage_first_with_cause(duecall: Duecall, tenant: Tenant) -> None:
    _set_breaker(tenant, DOWN)
    a_pending_attempt(tenant)
    told = duecall("status").told
    assert "Carrier DOWN (NOT_CONNECTED), next probe 2026-04-02 12:05:00 UTC, in 4 min" in told
    assert "waiting 1 for the carrier" in told
    since = NOON - timedelta(minutes=5)
    _set_breaker(tenant, replace(DOWN, down_until=since))
    assert "Carrier DOWN (NOT_CONNECTED), next probe now" in duecall("status").told
    _set_breaker(tenant, replace(DOWN, down_until=since, answered_at=since))
    told = duecall("status").told
    assert "ON TRIAL, one call at a time" in told
    assert "Carrier DOWN" not in told


def _back_off(tenant: Tenant, scope: Scope, breaker: Breaker) -> None:
    with tenant.database.transaction() as stores:
        before = stores.carrier_accounts.lock(tenant.account_id).backoffs
        after = {**before, scope: Backoff(scope=scope, breaker=breaker)}
        stores.backoffs.save(tenant.account_id, after, tenant.now())


def _back_off_in_every_way(tenant: Tenant) -> None:
    """Two countries and one company's number wait or are on trial; of another number one failure is counted."""
    in_five = NOON + timedelta(minutes=5)
    _back_off(tenant, Scope(country="AT"), Breaker(failures=5, down_until=in_five, cause="COUNTRY_REFUSED"))
    on_trial = Breaker(failures=5, down_until=NOON, answered_at=NOON, cause="COUNTRY_REFUSED")
    _back_off(tenant, Scope(country="SK"), on_trial)
    caller = Scope(company_id=tenant.company_id, caller="+12025550123")
    _back_off(tenant, caller, Breaker(failures=6, down_until=NOON - timedelta(minutes=1), cause="HTTP_500"))
    _back_off(tenant, replace(caller, caller="+12025550124"), Breaker(failures=1, cause="HTTP_400"))


def test_status_shows_back_offs_without_numbers(duecall: Duecall, tenant: Tenant) -> None:
    before = duecall("status")
    assert "Back-off" not in before.out
    assert duecall("status --json").data["carrierBackoffs"] == []
    _back_off_in_every_way(tenant)
    said = duecall("status")
    assert "Back-off calls to AT WAIT (COUNTRY_REFUSED), next trial 2026-04-02 12:05:00 UTC, in 4 min" in said.told
    assert "Back-off calls to SK: ON TRIAL, one at a time (COUNTRY_REFUSED)" in said.told
    company = str(tenant.company_id)
    whose = f"Back-off calls of company {company} from one of its numbers WAIT (HTTP_500), next trial once"
    assert whose in said.told
    assert said.told.count("Back-off") == 3
    scripts = duecall("status --json")
    names = ("country", "companyId", "cause", "onTrial", "triedAt")
    expected = [
        ("AT", None, "COUNTRY_REFUSED", False, "2026-04-02T12:05:00Z"),
        ("SK", None, "COUNTRY_REFUSED", True, "2026-04-02T12:00:00Z"),
        (None, company, "HTTP_500", False, "2026-04-02T11:59:00Z"),
    ]
    assert scripts.data["carrierBackoffs"] == [dict(zip(names, values, strict=True)) for values in expected]
    assert duecall("carrier list --json").data == scripts.data["carrierBackoffs"]
    assert "+1202555" not in said.out + scripts.out


def test_status_shows_only_unsent_invitations(duecall: Duecall, tenant: Tenant) -> None:
    """F3-2."""
    now = tenant.now()
    invitation = Invitation(
        id=uuid4(), company_id=tenant.company_id, email="owner@example.com", expires_at=now + timedelta(days=7)
    )
    assert "invitation" not in duecall("status").told
    with tenant.database.transaction() as stores:
        stores.invitations.add(invitation, now)
    assert "invitation the mail is due" in duecall("status").told
    with tenant.database.transaction() as stores:
        taken = stores.invitations.take_due(now, now)
        assert taken is not None
        stores.invitations.not_sent(taken, now + timedelta(hours=1), now)
    assert "invitation not sent yet, tries: 1; next try in 59 min" in duecall("status").told
    with tenant.database.transaction() as stores:
        stores.invitations.not_sent(taken, None, now)
    said = duecall("status")
    assert "invitation the mail server rejected it permanently" in said.told
    assert "owner@example.com" not in said.out
    rejected = {"companyId": str(tenant.company_id), "tries": 1, "tryAt": None}
    assert duecall("status --json").data["unsentInvitations"] == [rejected]
    with tenant.database.transaction() as stores:
        stores.invitations.sent(taken, now)
    assert "invitation" not in duecall("status").told


def test_status_json_has_the_same_counts(duecall: Duecall, tenant: Tenant) -> None:
    _in_every_way(tenant)
    told = duecall("status --json").data
    (company,) = told["companies"]
    assert company["companyId"] == str(tenant.company_id)
    counted = ("waiting", "due", "forCommands", "forNumbers", "forPlaces", "inProgress", "askedFor", "unknown")
    assert [company[name] for name in counted] == [1, 3, 1, 1, 1, 2, 1, 1]
    assert company["nextDueAt"] == "2026-04-02T13:00:00Z"
    assert 0 <= company["lateSeconds"] < 60
    assert {rule: each["count"] for rule, each in company["held"].items()} == {"COMMAND_WAITING": 1, "NUMBER_BUSY": 1}
    assert told["carriers"] == [
        {"pauseReason": None, "downUntil": None, "downCause": None, "onTrial": False, "inProgress": 2, "maxCalls": 1000}
    ]


def test_status_counts_unapplied_commands_and_oldest_age(duecall: Duecall, tenant: Tenant, now: TestClock) -> None:
    other = of_company(tenant, seed(tenant.database, now()))
    now.move(-timedelta(minutes=3))
    a_waiting_command(tenant, None)
    now.move(timedelta(minutes=2))
    a_waiting_command(tenant, None)
    a_waiting_command(other, None)
    told = duecall("status").told
    assert "Commands 3 accepted and not applied yet, the oldest for 3 min" in told
    assert "Check that Redis answers and an intake worker runs." in told
    assert "commands 2 accepted and not applied yet, the oldest for 3 min" in told
    assert "commands 1 accepted and not applied yet, the oldest for 1 min" in told
    assert "quarantine" not in told
    scripts = duecall("status --json").data
    assert scripts["commands"]["waiting"] == 3
    assert 180 <= scripts["commands"]["oldestSeconds"] < 240
    by_company = {each["companyId"]: each["commands"]["waiting"] for each in scripts["companies"]}
    assert by_company == {str(tenant.company_id): 2, str(other.company_id): 1}


def test_status_counts_quarantined_commands_separately(duecall: Duecall, tenant: Tenant) -> None:
    command = a_waiting_command(tenant, None)
    for _ in range(5):
        with tenant.database.transaction() as stores:
            stores.inbox.count_failure(command.id, "A_TEST", tenant.now())
    told = duecall("status").told
    assert "Commands 1 in quarantine" in told
    assert "not applied yet" not in told
    counted = duecall("status --json").data["commands"]
    assert counted == {"waiting": 0, "oldestSeconds": None, "quarantined": 1}


def test_status_counts_callbacks_in_quarantine(duecall: Duecall, tenant: Tenant) -> None:
    assert "Callbacks" not in duecall("status").told
    a_quarantined_callback(tenant, "a-token")
    assert "Callbacks 1 in quarantine: they failed five times; see `duecall quarantine list`" in duecall("status").told
    assert duecall("status --json").data["callbacks"] == {"quarantined": 1}
    tenant.change("UPDATE carrier_events SET heard_at = :at", at=tenant.now())
    assert duecall("status --json").data["callbacks"] == {"quarantined": 0}


def test_status_does_not_count_applied_commands(duecall: Duecall, tenant: Tenant) -> None:
    command = a_waiting_command(tenant, None)
    with tenant.database.transaction() as stores:
        stores.inbox.answer(command, Answer(), None, tenant.now())
    assert "ommands" not in duecall("status").told


def _delete_company(tenant: Tenant, since: datetime) -> UUID:
    """A company that was deleted then, and of which nothing is erased yet."""
    other = seed(tenant.database, since)
    with tenant.database.transaction() as stores:
        assert stores.companies.lock_to_delete(other.company_id)
        stores.companies.delete(other.company_id, since)
        stores.erasures.ask(other.company_id, since)
    return other.company_id


def test_status_counts_unfinished_erasures_and_oldest_age(duecall: Duecall, tenant: Tenant, now: TestClock) -> None:
    assert "rasures" not in duecall("status").told
    assert duecall("status --json").data["erasures"] == {"count": 0, "oldestSeconds": None}
    first = _delete_company(tenant, since=NOON - timedelta(minutes=3))
    _delete_company(tenant, since=NOON - timedelta(minutes=1))
    told = duecall("status").told
    assert "Erasures 2 deleted companies not erased yet, the oldest for 3 min" in told
    assert str(first) not in told
    counted = duecall("status --json").data["erasures"]
    assert counted["count"] == 2
    assert 180 <= counted["oldestSeconds"] < 240
    tenant.change("UPDATE erasures SET finished_at = :now", now=now())
    assert "rasures" not in duecall("status").told


def test_metrics_equal_the_numbers_of_status(tenant: Tenant, pauses: Pauses) -> None:
    _in_every_way(tenant)
    counts = Counts(tenant.context)
    _delete_company(tenant, since=NOON - timedelta(minutes=3))
    pauses.pause(None, "a drill")
    _set_breaker(tenant, DOWN)
    a_quarantined_callback(tenant, "a-token")
    with tenant.database.transaction() as stores:
        raise_in(stores, "CAUSE_LOST", NOON, company_id=tenant.company_id)

    def metrics() -> str:
        return health._counted_metrics(counts.count()).decode()

    kinds = ("country", "caller")
    assert all(f'duecall_carrier_backoffs{{kind="{kind}"}} 0.0' in metrics() for kind in kinds)
    _back_off_in_every_way(tenant)
    told = metrics()
    company = f'{{company_id="{tenant.company_id}"}}'
    for line in (
        f"duecall_attempts_waiting{company} 1.0",
        f"duecall_attempts_due{company} 3.0",
        f"duecall_attempts_due_for_commands{company} 1.0",
        f"duecall_attempts_due_for_numbers{company} 1.0",
        f"duecall_attempts_due_for_places{company} 1.0",
        f'duecall_held_attempts{{company_id="{tenant.company_id}",rule="ACCOUNT_PAUSED"}} 3.0',
        f'duecall_held_attempts{{company_id="{tenant.company_id}",rule="COMMAND_WAITING"}} 0.0',
        f"duecall_late_seconds{company} 0.0",
        f"duecall_attempts_in_progress{company} 2.0",
        f"duecall_attempts_in_progress_limit{company} 1000.0",
        f"duecall_commands_waiting{company} 1.0",
        f"duecall_commands_oldest_seconds{company} 0.0",
        f"duecall_commands_quarantined{company} 0.0",
        "duecall_callbacks_quarantined 1.0",
        "duecall_erasures_open 1.0",
        "duecall_erasures_oldest_seconds 180.0",
        'duecall_carrier_paused{account="1"} 1.0',
        'duecall_carrier_down{account="1"} 1.0',
        'duecall_carrier_on_trial{account="1"} 0.0',
        'duecall_carrier_calls_in_progress{account="1"} 2.0',
        'duecall_carrier_calls_limit{account="1"} 1000.0',
        'duecall_carrier_backoffs{kind="country"} 2.0',
        'duecall_carrier_backoffs{kind="caller"} 1.0',
        'duecall_alarms_open{kind="CAUSE_LOST"} 1.0',
    ):
        assert line in told
    assert told.count("duecall_carrier_backoffs{") == 2
    assert "+1202555" not in told
    assert "drill" not in told


# ---- pause and resume


def _reasons(tenant: Tenant) -> list[str | None]:
    """Return the reasons for the pauses of the account and of the company."""
    return [
        tenant.ask("SELECT pause_reason FROM carrier_accounts")[0][0],
        tenant.ask("SELECT pause_reason FROM companies WHERE id = :id", id=tenant.company_id)[0][0],
    ]


def _what(said: CliResult) -> str:
    """Return the report without the name of the installation."""
    system, _, what = said.told.partition(": ")
    assert system.startswith("The system of DATABASE_URL, database duecall at 127.0.0.1:")
    return what


def test_pause_and_resume_report_what_they_changed(duecall: Duecall, tenant: Tenant, now: TestClock) -> None:
    other, company = of_company(tenant, seed(tenant.database, now())), f"Company {tenant.company_id}"
    pause, resume = f"pause {tenant.company_id} --reason", f"resume {tenant.company_id}"
    everything = ("pause --all --reason drill", "Everything is paused: drill", ["drill", None])
    for line, report, reasons in (
        (f"{pause} 'until Monday'", f"{company} is paused: until Monday", [None, "until Monday"]),
        (f"{pause} second", f"{company} was already paused (reason: until Monday)", [None, "until Monday"]),
        (resume, f"{company} is resumed; it was paused (reason: until Monday)", [None, None]),
        (resume, f"{company} was not paused; nothing changed", [None, None]),
        ("resume --all", "There was no pause of all calls; nothing changed", [None, None]),
        everything,
        (f"{pause} x", f"{company} is paused: x", ["drill", "x"]),
        (resume, "Everything is still paused: drill.", ["drill", None]),
        ("resume --all", "Everything is resumed; it was paused (reason: drill)", [None, None]),
        (f"{pause} x", f"{company} is paused: x", [None, "x"]),
        (everything[0], everything[1], ["drill", "x"]),
        ("resume --all", f"Still paused separately: {tenant.company_id}", [None, "x"]),
    ):
        said = duecall(line)
        assert said.code == 0
        assert report in _what(said), line
        assert _reasons(tenant) == reasons, line
    assert _reasons(other) == [None, None]


def test_pause_by_an_alarm_is_reported_as_such(duecall: Duecall, tenant: Tenant) -> None:
    with tenant.database.transaction() as stores:
        stores.companies.pause(tenant.company_id, "ALARM: TWO_CALLS_TO_ONE_NUMBER", NOON)
    assert "PAUSED: ALARM: TWO_CALLS_TO_ONE_NUMBER" in duecall("status").told
    assert "by the alarm TWO_CALLS_TO_ONE_NUMBER" in duecall(f"pause {tenant.company_id} --reason x").told
    assert duecall(f"pause {tenant.company_id} --reason x --json").data["byAlarm"] is True
    assert "by the alarm TWO_CALLS_TO_ONE_NUMBER" in duecall(f"resume {tenant.company_id}").told


def test_pause_json_has_state_and_whether_it_changed(duecall: Duecall, tenant: Tenant) -> None:
    company = str(tenant.company_id)
    first = duecall(f"pause {company} --reason one --json").data
    assert first == {"companyId": company, "paused": True, "reason": "one", "byAlarm": False, "changed": True}
    assert duecall(f"pause {company} --reason two --json").data == {**first, "changed": False}
    assert duecall(f"resume {company} --json").data["paused"] is False


def test_pause_all_is_refused_before_a_worker_has_started(duecall: Duecall, seeded: Seeded) -> None:
    said = duecall("pause --all --reason 'a drill'")
    assert said.code == 1
    assert "No worker has started" in said.told


# ---- limits


def test_companies_limit_lowers_the_limits(duecall: Duecall, tenant: Tenant) -> None:
    found = duecall(f"companies limit {tenant.company_id} --concurrent-calls 7 --json --reason 'a small contract'").data
    assert found["ceiling"] == {"concurrentCalls": 7, "callsPerSecond": None}
    assert found["limits"]["concurrentCalls"] == 7
    dropped = duecall(f"companies limit {tenant.company_id} --default --json").data
    assert dropped == {**found, "ceiling": {"concurrentCalls": None, "callsPerSecond": None}}
    assert "as the account" in duecall(f"companies limit {tenant.company_id} --calls-per-second 0.5").err
    assert duecall(f"companies limit {tenant.company_id}").code == 2


# ---- billing


def test_billing_set_keeps_omitted_values(duecall: Duecall, tenant: Tenant) -> None:
    first = duecall(f"billing set {tenant.company_id} --price SCREENING:2.50:0.25:10 --json").data
    assert first["billingSystem"] == "minutes"
    assert first["ownPrices"] == ["SCREENING"]
    price = {"baseCost": "2.50", "costPerMinute": "0.25", "includedMinutes": "10"}
    assert first["prices"]["SCREENING"] == price
    assert set(first["prices"]) == {"GENERIC", "SCREENING", "OUTREACH", "LANGUAGE_TEST"}
    second = duecall(f"billing set {tenant.company_id} --system credits --json").data
    assert second == {**first, "billingSystem": "credits"}
    third = duecall(f"billing set {tenant.company_id} --default-prices --price GENERIC:0:0:0 --json").data
    assert (third["billingSystem"], third["ownPrices"]) == ("credits", ["GENERIC"])
    said = duecall(f"billing set {tenant.company_id} --system minutes")
    assert said.code == 0
    assert f"Company {tenant.company_id} is billed in minutes." in said.told
    assert "GENERIC: 0 credits, 0 per minute beyond 0 (own price)" in said.told


def test_invalid_billing_is_refused_and_changes_nothing(duecall: Duecall, tenant: Tenant) -> None:
    prices = ("SCREENING:1", "SCREENING:1:2:x", "UNDEFINED:1:2:3")
    for words in ("", "--system hours", *(f"--price {price}" for price in prices)):
        assert duecall(f"billing set {tenant.company_id} {words}").is_one_error_line(code=2), words
    assert tenant.ask("SELECT billing_system, prices FROM companies") == [("minutes", {})]
    assert duecall(f"billing set {UUID(int=1)} --system credits").code == 1


# ---- wrong words


@pytest.mark.parametrize(
    ("line", "code"),
    [
        pytest.param("explain not-an-id", 2, id="an invalid id"),
        pytest.param(f"pause {UUID(int=1)} --all --reason x", 2, id="one company and everything"),
        pytest.param(f"resume {UUID(int=1)} --all", 2, id="resume one company and everything"),
        pytest.param("pause --all --reason ' '", 2, id="with an empty reason"),
        pytest.param("pause --all --reason '+421 915 123 456 asked'", 2, id="with a number for a reason"),
        pytest.param(f"pause {UUID(int=1)} --reason 'ada@example.com asked'", 2, id="with an address for a reason"),
        pytest.param("pause --all --reason 'two\nlines'", 2, id="with a reason of two lines"),
        pytest.param(f"pause {UUID(int=1)} --reason x", 1, id="pause a company that is not there"),
        pytest.param(f"resume {UUID(int=1)}", 1, id="resume a company that is not there"),
        pytest.param(f"numbers add {UUID(int=1)} {NUMBER}", 1, id="a number for a company that is not there"),
        pytest.param(f"numbers add {UUID(int=1)} 12", 2, id="an invalid number"),
        pytest.param("up --port 65536", 2, id="a port beyond all ports"),
        pytest.param("up --at tomorrow", 2, id="a time that cannot be read"),
        pytest.param("up --at 2026-04-02T10:00", 2, id="a time without a zone"),
        pytest.param("demo --carrier generous", 2, id="an invalid carrier"),
    ],
)
def test_invalid_arguments_print_one_line_and_change_nothing(
    duecall: Duecall, tenant: Tenant, line: str, code: int
) -> None:
    assert duecall(line).is_one_error_line(code)
    assert _reasons(tenant) == [None, None]


MISSING = (
    ("explain", "Missing ID. See: duecall explain --help"),
    ("numbers add", "Missing COMPANY_ID and NUMBER. See: duecall numbers add --help"),
    (f"numbers add {UUID(int=1)}", "Missing NUMBER. See: duecall numbers add --help"),
    ("import", "Missing FILE and --key. Set the variable DUECALL_API_KEY. See: duecall import --help"),
    ("reconcile", "Missing --since. See: duecall reconcile --help"),
    ("quarantine retry", "Missing ID. See: duecall quarantine retry --help"),
    ("pause", "Missing COMPANY_ID (see `duecall status`) or --all, and --reason. See: duecall pause --help"),
    ("pause --all", "Missing --reason. See: duecall pause --help"),
    ("pause --reason x", "Missing COMPANY_ID (see `duecall status`) or --all. See: duecall pause --help"),
    ("resume", "Missing COMPANY_ID (see `duecall status`) or --all. See: duecall resume --help"),
    ("status --nonsense", "No such option: --nonsense. See: duecall status --help"),
    ("statsu", "No such command 'statsu'. Did you mean 'status'? See: duecall --help"),
    ("up --port 0", "--port must be from 1 to 65535; got 0. Without --port, a free port is chosen."),
)


def test_usage_error_names_all_that_is_missing(duecall: Duecall) -> None:
    for line, expected in MISSING:
        said = duecall(line)
        assert said.is_one_error_line(code=2), line
        assert said.err.strip() == expected


def test_group_without_a_command_prints_its_help_only(duecall: Duecall) -> None:
    said = duecall("keys")
    assert said.code == 2
    assert "See:" not in said.told


def test_malformed_id_error_shows_an_id_and_quotes_nothing(duecall: Duecall) -> None:
    for line in (
        *("explain", "resume", "keys revoke", "keys list --company", "quarantine retry"),
        *("numbers add {id} +421221020001", "billing set {id} --system credits"),
    ):
        said = duecall((line if "{id}" in line else f"{line} {{id}}").format(id=NUMBER))
        assert said.is_one_error_line(code=2), line
        assert "this is not an id. Write it like 6f1f3a52-0c8e-4f0a-9d4e-0b7a1f1f9c11." in said.err
        assert NUMBER[4:] not in said.err


def test_misspelled_zone_error_names_the_closest_zone(duecall: Duecall) -> None:
    assert "the closest name is Europe/Bratislava" in duecall("up --at '2026-04-02T10:00[Europe/Bratislav]'").told


def test_version_option_prints_the_version(duecall: Duecall) -> None:
    said = duecall("--version")
    assert (said.out.strip(), said.err, said.code) == (f"duecall {metadata.version('duecall')}", "", 0)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param(("duecall:", "duecall:wrong"), "password authentication failed", id="a wrong password"),
        pytest.param(("@127.0.0.1", "@no-such-host.invalid"), "failed to resolve host", id="an unknown host"),
        pytest.param(("/duecall", "/another"), 'database "another" does not exist', id="an unknown database"),
    ],
)
@pytest.mark.parametrize("line", ["status", "pause --all --reason x", "db upgrade", "up"])
def test_unreachable_database_prints_one_line_with_reason(
    duecall: Duecall, monkeypatch: pytest.MonkeyPatch, postgres_url: str, line: str, change: tuple[str, str], why: str
) -> None:
    before, after = change
    monkeypatch.setenv("DATABASE_URL", after.join(postgres_url.rsplit(before, 1)))
    said = duecall(line)
    assert (said.out, said.code) == ("", 1)
    last = said.err.splitlines()[-1]  # `up` says before it what it does
    assert last.startswith("The database cannot be reached: ")
    assert why in last
    assert "Traceback" not in said.err
    assert _password(postgres_url) not in said.err


def _password(postgres_url: str) -> str:
    return postgres_url.partition("duecall:")[2].partition("@")[0]


@pytest.fixture
def empty_database(duecall: Duecall, monkeypatch: pytest.MonkeyPatch, postgres_url: str) -> str:
    """An empty database on the same server, which DATABASE_URL names."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS an_empty_one WITH (FORCE)")
        connection.execute("CREATE DATABASE an_empty_one")
    url = postgres_url.rpartition("/")[0] + "/an_empty_one"
    monkeypatch.setenv("DATABASE_URL", url)
    return url


def test_upgrade_prints_the_revision_as_json(duecall: Duecall, empty_database: str) -> None:
    upgraded = duecall("db upgrade --json")
    assert upgraded.code == 0, upgraded.err
    assert json.loads(upgraded.out) == {"revision": sessions.head()}


def test_added_number_is_printed_as_json(duecall: Duecall, tenant: Tenant) -> None:
    added = duecall(f"numbers add {tenant.company_id} +421221020009 --json")
    number = json.loads(added.out)
    assert (number["companyId"], number["number"]) == (str(tenant.company_id), "+421221020009")
    assert tenant.ask("SELECT number FROM phone_numbers WHERE id = :id", id=number["id"]) == [("+421221020009",)]


def test_numbers_are_listed_with_their_calls_of_a_day(duecall: Duecall, tenant: Tenant) -> None:
    tenant.change(
        "INSERT INTO caller_days (company_id, phone_number_id, day, calls, answered, declined, blocked)"
        " SELECT company_id, id, '2026-04-01', 9, 4, 2, 1 FROM phone_numbers WHERE company_id = :id",
        id=tenant.company_id,
    )
    listed = json.loads(duecall(f"numbers list {tenant.company_id} --day 2026-04-01 --json").out)
    assert [
        (each["number"], each["calls"], each["answered"], each["declined"], each["blocked"]) for each in listed
    ] == [(tenant.caller, 9, 4, 2, 1)]
    assert "calls 0  answered 0  declined 0  blocked 0" in duecall(f"numbers list {tenant.company_id}").out
    assert duecall(f"numbers list {UUID(int=1)}").is_one_error_line(1)


def test_foreign_database_prints_one_error_line(duecall: Duecall, empty_database: str) -> None:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("CREATE TABLE companies (id int)")
    said = duecall("db upgrade")
    assert said.is_one_error_line()
    assert 'relation "companies" already exists' in said.err


@pytest.mark.parametrize("home", ["a file", "a file/inside"])
@pytest.mark.parametrize("line", ["up", "demo --once"])
def test_unusable_home_prints_one_error_line(duecall: Duecall, folder: Path, line: str, home: str) -> None:
    (folder / "a file").touch()
    said = duecall(f"--home '{folder / home}' {line}")
    assert said.is_one_error_line()
    assert str(folder / home) in said.err
    assert "DUECALL_HOME" in said.err


def test_database_without_schema_names_db_upgrade(duecall: Duecall, empty_database: str) -> None:
    said = duecall("status")
    assert said.code == 1
    assert "duecall db upgrade" in said.told


def test_invalid_settings_print_one_error_line(duecall: Duecall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWILIO_CPS", "none")
    said = duecall("status")
    assert said.code == 2
    assert said.err.startswith("TWILIO_CPS ")
    assert said.err.count("\n") == 1


def test_simulator_names_missing_settings(duecall: Duecall) -> None:
    said = duecall("simulator")
    assert (said.code, said.err.count("\n")) == (1, 1)
    assert "TWILIO_ACCOUNT_SID" in said.err


def _commands() -> list[str]:
    root = typer.main.get_command(cli.app)
    found = []
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        found += [f"{name} {each}" for each in command.commands] if hasattr(command, "commands") else [name]
    return found


def test_help_has_examples_wrapped_texts_and_all_arguments(duecall: Duecall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 2000)
    for command in _commands():
        said = duecall(f"{command} --help")
        assert said.code == 0
        assert f"duecall {command}" in said.told.partition("Examples:")[2]
        usage, *paragraphs = filter(str.strip, said.out.partition("\n╭")[0].splitlines())
        assert usage.startswith(" Usage: ")
        assert [line for line in paragraphs if not line.rstrip().endswith(".")] == []
        found = typer.main.get_command(cli.app)
        for word in command.split():
            found = found.commands[word]  # type: ignore[attr-defined]
        assert [each.name for each in found.params if not each.help] == []  # type: ignore[attr-defined]


# ---- which installation is meant


def _run_file(home: Path, database_url: str) -> Path:
    """As a system writes it that is ready, and whose clock runs with ours."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "clock_offset_s").write_text("0.0")
    file = home / "run.json"
    file.write_text(json.dumps({"databaseUrl": database_url}))
    return file


def test_run_file_names_the_database_without_database_url(
    duecall: Duecall, tenant: Tenant, folder: Path, monkeypatch: pytest.MonkeyPatch, postgres_url: str
) -> None:
    monkeypatch.delenv("DATABASE_URL")
    said = duecall("status")
    assert (said.code, said.err.count("\n")) == (1, 1)
    assert "DATABASE_URL is not set" in said.told
    for home, what in ((folder / "demo", "the demo"), (folder, "the system")):
        run_file = _run_file(home, postgres_url)
        told = duecall("status").told
        assert str(tenant.company_id) in told
        assert told.startswith(f"System {what} in {home}, database duecall at 127.0.0.1:")
        run_file.unlink()


MINUTES_TO_CLOSING = timedelta(minutes=3)
"""Long enough for a phone that rings for 30 s, and too short for one that rings for 600 s."""


@pytest.fixture
def closes_soon(tenant: Tenant) -> str:
    """An attempt that is due now and whose hours end soon: whether it may ring depends on RING_TIMEOUT_S."""
    start = timedelta(hours=14) - timedelta(minutes=1)  # noon, in Bratislava
    hours = (CallTimeInterval(days=EVERY_DAY, start=start, end=start + timedelta(minutes=1) + MINUTES_TO_CLOSING),)
    with tenant.database.transaction() as stores:
        company = stores.companies.lock(tenant.company_id)
        assert company is not None
        stores.companies.save(replace(company, settings=replace(company.settings, intervals=hours)))
    return str(a_pending_attempt(tenant).id)


def rules_that_block(said: CliResult) -> list[str]:
    return [each["rule"] for each in said.data["blocks"]]


Announce = Callable[[dict[str, float]], None]


@pytest.fixture
def announce(duecall: Duecall, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Announce:
    """Announce the times of a live process in the Redis that REDIS_URL names."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    return lambda times: Presence(redis_url).announce(Announcement(times=times))


def test_explain_uses_the_times_of_the_running_system(
    duecall: Duecall, closes_soon: str, folder: Path, monkeypatch: pytest.MonkeyPatch, postgres_url: str
) -> None:
    monkeypatch.delenv("DATABASE_URL")
    _run_file(folder, postgres_url)
    (folder / "clock_offset_s").write_text(os.environ["DUECALL_CLOCK_OFFSET_S"])
    (folder / "settings.json").write_text(json.dumps({"RING_TIMEOUT_S": "30.0"}))
    monkeypatch.setenv("RING_TIMEOUT_S", "600")
    assert rules_that_block(duecall(f"explain {closes_soon} --json")) == []
    (folder / "settings.json").write_text(json.dumps({"RING_TIMEOUT_S": "600.0"}))
    monkeypatch.setenv("RING_TIMEOUT_S", "30")
    assert rules_that_block(duecall(f"explain {closes_soon} --json")) == ["WINDOW_CLOSED"]


@pytest.mark.parametrize(
    ("process_s", "shell_s", "blocks"), [(30.0, "600", []), (600.0, "30", ["WINDOW_CLOSED"])], ids=str
)
def test_explain_uses_the_times_that_processes_announce(
    duecall: Duecall,
    closes_soon: str,
    announce: Announce,
    monkeypatch: pytest.MonkeyPatch,
    process_s: float,
    shell_s: str,
    blocks: list[str],
) -> None:
    announce({"RING_TIMEOUT_S": process_s})
    monkeypatch.setenv("RING_TIMEOUT_S", shell_s)
    said = duecall(f"explain {closes_soon} --json")
    assert rules_that_block(said) == blocks
    assert "this shell sets RING_TIMEOUT_S differently" in said.err


def test_explain_does_not_warn_when_times_agree(
    duecall: Duecall, closes_soon: str, announce: Announce, monkeypatch: pytest.MonkeyPatch
) -> None:
    announce({"RING_TIMEOUT_S": 30.0})
    monkeypatch.setenv("RING_TIMEOUT_S", "30")
    said = duecall(f"explain {closes_soon} --json")
    assert (rules_that_block(said), said.err) == ([], "")


@pytest.mark.parametrize(
    ("announced", "why"),
    [
        ([], "no live process has announced its times"),
        ([{}], "no live process has announced its times"),
        ([{"RING_TIMEOUT_S": 30.0}, {"RING_TIMEOUT_S": 600.0}], "the live processes have different times"),
    ],
    ids=["none", "an older one", "two"],
)
def test_explain_warns_when_it_uses_the_times_of_the_shell(
    duecall: Duecall,
    closes_soon: str,
    announce: Announce,
    monkeypatch: pytest.MonkeyPatch,
    announced: list[dict[str, float]],
    why: str,
) -> None:
    for times in announced:
        announce(times)
    monkeypatch.setenv("RING_TIMEOUT_S", "600")
    said = duecall(f"explain {closes_soon} --json")
    assert rules_that_block(said) == ["WINDOW_CLOSED"]
    assert f"{why}; times such as RING_TIMEOUT_S are those of this shell." in said.told


def test_explain_warns_when_redis_does_not_answer(
    duecall: Duecall, closes_soon: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:9/0")
    said = duecall(f"explain {closes_soon} --json")
    assert said.code == 0
    assert "Redis does not answer" in said.told


def test_output_names_the_installation_without_its_password(
    duecall: Duecall, tenant: Tenant, postgres_url: str
) -> None:
    attempt = a_pending_attempt(tenant)
    for line in (
        "status",
        f"explain {attempt.id}",
        f"explain {uuid4()}",
        "pause --all --reason x",
        "resume --all",
        "keys create --ats Acme",
    ):
        told = duecall(line).told.replace("The system", "the system")
        assert "the system of DATABASE_URL, database duecall at 127.0.0.1:" in told, line
        assert _password(postgres_url) not in told, line


def test_home_option_overrides_database_url(
    duecall: Duecall, tenant: Tenant, folder: Path, monkeypatch: pytest.MonkeyPatch, postgres_url: str
) -> None:
    for name in ("DATABASE_URL", "DATABASE_WORKER_URL"):
        monkeypatch.setenv(name, NO_DATABASE)
    _run_file(folder / "a demo", postgres_url)
    said = duecall(f"--home '{folder / 'a demo'}' pause {tenant.company_id} --reason x")
    assert said.code == 0
    assert _reasons(tenant) == [None, "x"]


def test_home_option_without_running_system_fails(duecall: Duecall, tenant: Tenant, folder: Path) -> None:
    said = duecall(f"--home '{folder / 'another'}' pause --all --reason x")
    assert said.is_one_error_line()
    assert f"Nothing runs in {folder / 'another'}" in said.err
    assert _reasons(tenant) == [None, None]


def test_unreadable_run_file_prints_one_error_line(
    duecall: Duecall, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABASE_URL")
    (folder / "run.json").write_text("{")
    said = duecall("status")
    assert said.is_one_error_line()
    assert str(folder) in said.err


def test_status_waits_for_a_starting_system(
    duecall: Duecall, tenant: Tenant, folder: Path, monkeypatch: pytest.MonkeyPatch, postgres_url: str
) -> None:
    monkeypatch.delenv("DATABASE_URL")
    with (folder / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with forked_command(("-m", "scheduler", "status"), os.environ) as asking:
            wait_until(lambda: "is starting or stopping" in asking.errors.read_text(), seconds=60, says="it waits")
            _run_file(folder, postgres_url)
            done = asking.ended()
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert str(tenant.company_id) in done.stdout


def _a_running_demo(tenant: Tenant, postgres_url: str) -> Running:
    return Running(
        apiUrl="http://127.0.0.1:1",
        simulatorUrl="http://127.0.0.1:2",
        consoleUrl="http://127.0.0.1:4",
        flowerUrl="http://127.0.0.1:3",
        databaseUrl=postgres_url,
        redisUrl="redis://127.0.0.1:4/0",
        atsKey="ats",
        companyKey="key",
        companyId=str(tenant.company_id),
        agentId=str(uuid4()),
        phoneNumberId=str(uuid4()),
    )


def test_demo_that_ends_prints_no_commands_that_need_it(
    tenant: Tenant, folder: Path, capsys: pytest.CaptureFixture[str], postgres_url: str
) -> None:
    attempt = a_pending_attempt(tenant, due_at=NOON + timedelta(hours=1))
    settings.cache_clear()
    print_what_to_try(_a_running_demo(tenant, postgres_url), settings(), folder, explanation_page, stays_up=False)
    printed = capsys.readouterr().out
    assert f"Attempt {attempt.id}" in " ".join(printed.split())
    assert not [each for each in ("--home", "curl") if each in printed]
    assert printed.splitlines()[-1].startswith("This demo ends now.")


def test_commands_printed_by_the_demo_use_its_folder(
    duecall: Duecall,
    tenant: Tenant,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    postgres_url: str,
) -> None:
    home = folder / "a demo"
    a_pending_attempt(tenant, due_at=NOON + timedelta(hours=1))
    _run_file(home, postgres_url)
    monkeypatch.setenv("DATABASE_URL", NO_DATABASE)
    settings.cache_clear()
    print_what_to_try(_a_running_demo(tenant, postgres_url), settings(), home, explanation_page, stays_up=True)
    printed = [line.strip() for line in capsys.readouterr().out.splitlines()]
    typed = [line.partition("duecall ")[2] for line in printed if "duecall --home" in line]
    assert [line.split()[0] for line in typed] == ["--home"] * 5
    for line in typed:
        said = duecall(line)
        assert said.code == 0, line
        assert str(home) in said.told
    sent = [line for line in printed if line.startswith("curl")]
    assert len(sent) == 4
    assert all(line.endswith("; echo") for line in sent)
