"""Explanations of attempts that have not been called yet, from the rules that dial, and the effects of a pause."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from scheduler.domain.attempt import Attempt
from scheduler.domain.explanation import CallTimeQuestion, Rule
from scheduler.domain.principal import KeyKind
from scheduler.domain.refusals import NotFound
from scheduler.persistence import schema
from scheduler.persistence.database import Database
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.operations.counts import Counts
from scheduler.use_cases.operations.pauses import Pauses
from scheduler.use_cases.release import Release
from scheduler.use_cases.resources.keys import Keys
from tests.conftest import TestClock
from tests.support.builders import (
    Tenant,
    a_candidate,
    a_claimed_attempt,
    a_number,
    a_pending_attempt,
    a_placed_attempt,
    a_waiting_command,
    an_attempt_of_unknown_outcome,
)
from tests.use_cases.conftest import PAUSED, an_ended_attempt, is_claimed

A_DAY = timedelta(days=1)


def rules(explain: Explain, attempt: Attempt) -> list[Rule]:
    return [block.rule for block in explain.explanation_of(attempt.id).blocks]


def waiting(explain: Explain, attempt: Attempt) -> tuple[str, datetime | None]:
    """Return what an attempt waits for, and its next possible time."""
    explanation = explain.explanation_of(attempt.id)
    return explanation.waits_for, explanation.next_possible_at


# ---- pauses


@pytest.mark.parametrize("everything", [False, True], ids=["one company", "everything"])
def test_paused_calling_continues_once_resumed(
    tenant: Tenant, pauses: Pauses, release: Release, *, everything: bool
) -> None:
    due, company_id = a_pending_attempt(tenant), None if everything else tenant.company_id
    pauses.pause(company_id, "a holiday")
    assert release.round(resends=False).released == 0
    assert not is_claimed(tenant, due)
    pauses.resume(company_id)
    assert release.round(resends=False).released == 1
    assert is_claimed(tenant, due)


# ---- explanations


def test_callable_attempt_has_no_block(tenant: Tenant, explain: Explain, now: TestClock) -> None:
    explanation = explain.explanation_of(a_pending_attempt(tenant).id)
    assert explanation.blocks == ()
    assert explanation.next_possible_at == now()
    assert [each.event for each in explanation.happenings] == ["created"]


def test_blocks_are_listed_in_the_order_of_the_rules(
    tenant: Tenant, explain: Explain, pauses: Pauses, now: TestClock
) -> None:
    number = a_number()
    a_claimed_attempt(tenant, number)
    attempt = a_pending_attempt(tenant, number, due_at=now() + 10 * timedelta(hours=1), expires_at=now() + A_DAY)
    pauses.pause(None, "why")
    pauses.pause(tenant.company_id, "why not")
    a_waiting_command(tenant, attempt.interview_id)
    tenant.change("UPDATE companies SET concurrent_calls = 1")
    tenant.change("UPDATE carrier_accounts SET max_calls = 1, failures = 5, down_until = :at", at=now() + A_DAY)
    now.move(timedelta(hours=9))
    assert rules(explain, attempt) == [
        Rule.ACCOUNT_PAUSED,
        Rule.CARRIER_DOWN,
        Rule.COMPANY_PAUSED,
        Rule.COMMAND_WAITING,
        Rule.NOT_DUE,
        Rule.WINDOW_CLOSED,
        Rule.NUMBER_BUSY,
        Rule.COMPANY_LIMIT,
        Rule.ACCOUNT_LIMIT,
    ]


@pytest.mark.parametrize(
    ("statement", "words", "when"),
    [
        pytest.param("", "its turn", "now", id="nothing"),
        pytest.param(f"UPDATE companies SET {PAUSED}", "the end of the pause: a test", None, id="a pause"),
        pytest.param(
            f"UPDATE carrier_accounts SET {PAUSED}", "the end of the pause: a test", None, id="a pause of everything"
        ),
        pytest.param(
            "UPDATE carrier_accounts SET failures = 5, down_until = :at, down_cause = 'X'",
            "the carrier",
            "later",
            id="a carrier that is down",
        ),
        pytest.param("UPDATE companies SET concurrent_calls = 0", "a place", None, id="a company at its limit"),
        pytest.param("UPDATE carrier_accounts SET max_calls = 0", "a place", None, id="an account at its limit"),
        pytest.param("UPDATE lines SET free_at = :at", "its number", "later", id="a line that rests"),
        pytest.param("UPDATE attempts SET due_at = :at", "its time", "later", id="its time"),
        pytest.param(
            "UPDATE candidates SET phone_number = NULL, email = 'a@b'",
            "a number that may be called",
            None,
            id="no number",
        ),
        pytest.param("UPDATE attempts SET expires_at = due_at", "its end", None, id="its end"),
    ],
)
def test_first_block_decides_waiting_for_and_next_possible_time(
    tenant: Tenant, explain: Explain, now: TestClock, statement: str, words: str, when: str | None
) -> None:
    attempt = a_pending_attempt(tenant)
    later = now() + timedelta(minutes=5)
    if statement:
        tenant.change(statement, **({"at": later} if ":at" in statement else {}))
    assert waiting(explain, attempt) == (words, {"now": now(), "later": later, None: None}[when])


def test_waiting_command_and_live_call_have_no_known_end(tenant: Tenant, explain: Explain) -> None:
    number = a_number()
    a_placed_attempt(tenant, number)
    assert waiting(explain, a_pending_attempt(tenant, number)) == ("its number", None)
    held = a_pending_attempt(tenant)
    a_waiting_command(tenant, held.interview_id)
    assert waiting(explain, held) == ("a command", None)


def test_carrier_down_past_closing_defers_to_the_next_opening(tenant: Tenant, explain: Explain, now: TestClock) -> None:
    attempt = a_pending_attempt(tenant)
    tenant.change(
        "UPDATE carrier_accounts SET failures = 5, down_until = :at, down_cause = 'X'", at=now() + timedelta(hours=7)
    )
    assert waiting(explain, attempt) == ("the carrier", datetime(2026, 4, 3, 6, tzinfo=UTC))


def test_pause_has_no_known_end_for_a_later_attempt(tenant: Tenant, explain: Explain, pauses: Pauses) -> None:
    number = a_number()
    a_placed_attempt(tenant, number)
    attempt = a_pending_attempt(tenant, number, due_at=tenant.now() + timedelta(hours=3))
    assert waiting(explain, attempt) == ("its time", attempt.due_at)
    pauses.pause(tenant.company_id, "a holiday")
    assert waiting(explain, attempt) == ("the end of the pause: a holiday", None)


def test_closed_window_names_its_next_opening(tenant: Tenant, explain: Explain, now: TestClock) -> None:
    attempt = a_pending_attempt(tenant)
    now.move(timedelta(hours=7))
    explanation = explain.explanation_of(attempt.id)
    [block] = explanation.blocks
    assert block.rule is Rule.WINDOW_CLOSED
    opens = datetime(2026, 4, 3, 6, tzinfo=UTC)
    assert block.until == explanation.next_possible_at == opens
    now.instant = opens
    [claim] = tenant.dial.claim([attempt.id]).claimed
    assert tenant.dial.last_look(claim.attempt) is not None, "the dialler agrees"


def test_line_gap_names_its_end_except_to_its_own_interview(tenant: Tenant, explain: Explain, now: TestClock) -> None:
    number = a_number()
    over = an_ended_attempt(tenant, number)
    other = a_pending_attempt(tenant, number)
    same = a_pending_attempt(tenant, number, interview_id=over.interview_id)
    tenant.change("UPDATE interviews SET status = 'SCHEDULED', finished_at = NULL")
    [block] = explain.explanation_of(other.id).blocks
    assert (block.rule, block.until) == (Rule.NUMBER_BUSY, now() + tenant.policy.line_gap)
    assert "rests for 10 min (LINE_GAP_S) after another call to it" in block.detail
    assert rules(explain, same) == []


def test_finished_or_live_attempt_has_no_block(tenant: Tenant, explain: Explain) -> None:
    placed = explain.explanation_of(a_placed_attempt(tenant).id)
    assert (placed.blocks, placed.next_possible_at, placed.waits_for) == ((), None, "the call's end")
    unknown = explain.explanation_of(an_attempt_of_unknown_outcome(tenant).id)
    assert (unknown.blocks, unknown.waits_for) == ((), "")
    assert [each.event for each in unknown.happenings] == ["created", "claimed", "answer_lost", "proof_missing"]


def test_explanation_contains_no_number_and_no_token(tenant: Tenant, explain: Explain) -> None:
    number = a_number()
    placed = a_placed_attempt(tenant, number)
    text = repr(explain.explanation_of(placed.id))
    assert number not in text
    assert placed.token is not None
    assert placed.token not in text


def test_unknown_attempt_cannot_be_explained(tenant: Tenant, explain: Explain) -> None:
    with pytest.raises(NotFound):
        explain.explanation_of(uuid4())
    attempt = a_pending_attempt(tenant)
    with pytest.raises(NotFound):
        explain.explanation(tenant.principal, None, a_pending_attempt(tenant).interview_id, attempt.id)


# ---- previews


def test_preview_returns_the_time_and_creates_nothing(tenant: Tenant, explain: Explain, now: TestClock) -> None:
    answer = explain.preview(tenant.principal, None, CallTimeQuestion(phone_number=a_number()))
    assert answer.refusal is None
    assert answer.next_possible_at == now()
    assert tenant.ask("SELECT count(*) FROM interviews") == [(0,)]


def test_preview_of_a_closed_hour_gives_the_interviews_refusal(tenant: Tenant, explain: Explain) -> None:
    night = CallTimeQuestion(phone_number=a_number(), scheduled_at="2026-04-03T03:00:00")
    answer = explain.preview(tenant.principal, None, night)
    assert answer.refusal is not None
    assert answer.refusal.code == "OUTSIDE_CALL_TIME_INTERVAL"
    assert str(answer.next_possible_at) == "2026-04-03 06:00:00+00:00"


def test_preview_uses_the_requested_zone_or_the_candidates(tenant: Tenant, explain: Explain) -> None:
    candidate = a_candidate(tenant)
    mine = explain.preview(tenant.principal, None, CallTimeQuestion(candidate_id=candidate.id))
    assert mine.schedule is not None
    assert mine.schedule.clock.zones == ("Europe/Bratislava",)
    elsewhere = CallTimeQuestion(candidate_id=candidate.id, timezone="America/New_York")
    named = explain.preview(tenant.principal, None, elsewhere)
    assert named.schedule is not None
    assert named.schedule.clock.zones == ("America/New_York",)
    with pytest.raises(NotFound):
        explain.preview(tenant.principal, None, CallTimeQuestion(candidate_id=uuid4()))


# ---- names of keys


@pytest.fixture
def keys(tenant: Tenant) -> tuple[UUID, UUID]:
    """The ids of two keys: of an ATS, and of the company."""
    keys = Keys(tenant.database, tenant.hasher, tenant.now)
    ats, _ = keys.create(kind=KeyKind.ATS, name="a secret partner")
    own, _ = keys.create(kind=KeyKind.REGULAR, name="the night shift", company_id=tenant.company_id)
    assert ats.key_id is not None
    assert own.key_id is not None
    return ats.key_id, own.key_id


def test_explanation_names_no_key_of_another_tenant(tenant: Tenant, explain: Explain, keys: tuple[UUID, UUID]) -> None:
    """Not even on a connection that sees every row: the query itself names whose keys the reader may know."""
    attempt = a_claimed_attempt(tenant)
    for event, key in zip(("created", "claimed"), keys, strict=True):
        tenant.change("UPDATE attempt_history SET actor = :key WHERE event = :event", event=event, key=f"key:{key}")
    mine = explain.explanation(tenant.principal, None, attempt.interview_id, attempt.id)
    assert [each.key_name for each in mine.happenings] == [None, "the night shift"]
    operators = explain.explanation_of(attempt.id)
    assert [each.key_name for each in operators.happenings] == ["a secret partner", "the night shift"]


def test_database_names_no_key_of_another_tenant(
    tenant: Tenant, logins: schema.Logins, keys: tuple[UUID, UUID]
) -> None:
    """The wall behind the query: PostgreSQL hides that key, even where a query asks as an operator does."""
    api = Database(logins.api, bound=True)
    with api.transaction(tenant.principal) as stores:
        seen = stores.keys.named(list(keys), tenant.company_id, None)
    api.close()
    assert [each.name for each in seen] == ["the night shift"]


def test_status_counts_waiting_attempts_by_cause(tenant: Tenant, now: TestClock) -> None:
    counts = Counts(tenant.context)
    number = a_number()
    a_claimed_attempt(tenant, number)
    a_pending_attempt(tenant, number)
    held = a_pending_attempt(tenant)
    a_waiting_command(tenant, held.interview_id)
    a_pending_attempt(tenant, due_at=now() - timedelta(minutes=3))
    later = a_pending_attempt(tenant, due_at=now() + A_DAY)
    an_attempt_of_unknown_outcome(tenant)
    [row] = counts.attempts()
    assert (row.waiting, row.next_due_at) == (1, later.due_at)
    assert (row.due, row.for_numbers, row.for_commands, row.for_places) == (3, 1, 1, 1)
    assert row.late == timedelta(minutes=3)
    assert (row.in_progress, row.asked_for, row.unknown) == (1, 0, 1)
    [carrier] = counts.carriers()
    assert (carrier.in_progress, carrier.down_until, carrier.pause_reason) == (1, None, None)
