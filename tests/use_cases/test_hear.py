"""Carrier callbacks: stored once, verified, and applied with the same result in any order."""

import json
from collections.abc import Callable
from dataclasses import fields
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
from structlog.testing import capture_logs
from twilio.request_validator import RequestValidator

from scheduler.carriers.interface import NotACallback
from scheduler.carriers.twilio import FALLBACK, callback_path
from scheduler.domain.attempt import Attempt, AttemptState, NeverDialled, Phase, Progressed, Reason
from scheduler.domain.call import Accepted, AnsweredBy, CallProgress, NeverTaken
from scheduler.domain.interview import InterviewStatus
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.release import Release
from scheduler.use_cases.shared import hints as tasks
from tests.architecture.guards import guards
from tests.conftest import TestClock
from tests.support.builders import (
    RecordingHints,
    Tenant,
    a_claimed_attempt,
    a_number,
    a_pending_attempt,
    a_placed_attempt,
    a_sid,
    an_unknown_attempt,
)
from tests.support.servers import ACCOUNT_SID, PRIMARY, SECONDARY
from tests.use_cases.conftest import PUBLIC_URL, pause_reason

Form = list[tuple[str, str]]
ApplyCallbacks = Callable[..., Attempt]


def a_form(call: Attempt | str, status: str, **fields: str) -> Form:
    """Build a callback about the call of this attempt, or the call with this sid."""
    sid = call if isinstance(call, str) else call.call_sid
    assert sid is not None
    return [
        ("CallSid", sid),
        ("AccountSid", ACCOUNT_SID),
        ("CallStatus", status),
        ("CallbackSource", "call-progress-events"),
        *fields.items(),
    ]


def signature(token: str, form: Form, *, key: str = PRIMARY) -> str:
    return str(RequestValidator(key).compute_signature(f"{PUBLIC_URL}{callback_path(token)}", dict(form)))


def deliver(hear: Hear, attempt: Attempt, form: Form) -> None:
    """The carrier sends a callback for this attempt's present token."""
    assert attempt.token is not None
    hear.store([hear.genuine(attempt.token, callback_path(attempt.token), form, signature(attempt.token, form))])


def apply_callback(tenant: Tenant, hear: Hear, hints: RecordingHints, attempt: Attempt, form: Form) -> Attempt:
    """Send a callback for the attempt, and apply it in a worker of the tenant."""
    hints.rung.clear()
    deliver(hear, attempt, form)
    worker = Hear(tenant.context, hints, hear._callbacks)
    for event_id in hints.ids(tasks.HEAR):
        worker.event(event_id)
    return tenant.attempt(attempt.id)


@pytest.fixture
def apply_callbacks(tenant: Tenant, hear: Hear, hints: RecordingHints) -> ApplyCallbacks:
    """Send callbacks for an attempt, and apply each in its turn."""

    def applied(attempt: Attempt, *forms: Form) -> Attempt:
        for form in forms:
            apply_callback(tenant, hear, hints, attempt, form)
        return tenant.attempt(attempt.id)

    return applied


def stored(tenant: Tenant) -> int:
    return int(tenant.ask("SELECT count(*) FROM carrier_events")[0][0])


def unheard(tenant: Tenant) -> int:
    return int(tenant.ask("SELECT count(*) FROM carrier_events WHERE heard_at IS NULL")[0][0])


# ---- storing


def test_genuine_callback_is_stored_and_hinted(tenant: Tenant, hear: Hear, hints: RecordingHints) -> None:
    mine = a_placed_attempt(tenant)
    deliver(hear, mine, a_form(mine, "ringing"))
    assert (stored(tenant), len(hints.ids(tasks.HEAR))) == (1, 1)
    assert tenant.attempt(mine.id) == mine, "storing changes nothing yet"


@guards("stored_once")
def test_repeated_callback_is_answered_and_stored_once(tenant: Tenant, hear: Hear, hints: RecordingHints) -> None:
    mine = a_placed_attempt(tenant)
    for _ in range(3):
        deliver(hear, mine, a_form(mine, "ringing"))
    assert (stored(tenant), len(hints.ids(tasks.HEAR))) == (1, 1)


def test_applied_callback_keeps_no_number(tenant: Tenant, apply_callbacks: ApplyCallbacks) -> None:
    number = a_number()
    mine = a_placed_attempt(tenant, number)
    for status in ("ringing", "completed"):
        apply_callbacks(mine, a_form(mine, status, To=number, Called=number, ToCity="BRATISLAVA"))
    assert unheard(tenant) == 0
    assert [row[0] for row in tenant.ask("SELECT raw::text FROM carrier_events")] == ["{}", "{}"]


def test_callback_signed_with_the_rotated_token_is_genuine(tenant: Tenant, hear: Hear) -> None:
    mine = a_placed_attempt(tenant)
    assert mine.token is not None
    form = a_form(mine, "ringing")
    signed = signature(mine.token, form, key=SECONDARY)
    hear.store([hear.genuine(mine.token, callback_path(mine.token), form, signed)])
    assert stored(tenant) == 1


@guards("signature")
def test_forged_callback_stores_nothing(tenant: Tenant, hear: Hear, hints: RecordingHints) -> None:
    mine, other = a_placed_attempt(tenant), a_placed_attempt(tenant)
    assert mine.token is not None
    assert other.token is not None
    form = a_form(mine, "completed", CallDuration="60")
    path = callback_path(mine.token)
    good = signature(mine.token, form)
    guess = signature(mine.token, form, key="a guess")
    for token, at, signed in ((mine.token, path, guess), (other.token, callback_path(other.token), good)):
        with pytest.raises(NotACallback):
            hear.store([hear.genuine(token, at, form, signed)])
    assert (stored(tenant), hints.rings) == (0, [])
    assert tenant.attempt(mine.id) == mine


def test_unreadable_callback_stores_nothing(tenant: Tenant, hear: Hear) -> None:
    with pytest.raises(NotACallback):
        deliver(hear, a_placed_attempt(tenant), a_form(a_sid(), "singing"))
    assert stored(tenant) == 0


def test_callback_with_an_unknown_field_is_applied(tenant: Tenant, apply_callbacks: ApplyCallbacks) -> None:
    mine = a_placed_attempt(tenant)
    assert apply_callbacks(mine, a_form(mine, "busy", Novelty="yes")).reason is Reason.BUSY


def test_callback_for_an_unknown_token_is_not_stored(tenant: Tenant, hear: Hear, hints: RecordingHints) -> None:
    form = a_form(a_sid(), "ringing")
    hear.store([hear.genuine("unknown", callback_path("unknown"), form, signature("unknown", form))])
    assert (stored(tenant), hints.rings) == (0, [])


# ---- hearing


def test_end_of_an_answered_call_completes_the_interview(
    tenant: Tenant, now: TestClock, apply_callbacks: ApplyCallbacks
) -> None:
    mine = a_placed_attempt(tenant)
    apply_callbacks(mine, *(a_form(mine, status) for status in ("initiated", "ringing", "in-progress")))
    now.move(timedelta(minutes=2))
    over = apply_callbacks(mine, a_form(mine, "completed", CallDuration="61", AnsweredBy="human"))
    assert (over.state, over.reason, over.answered_by) == (AttemptState.COMPLETED, Reason.ANSWERED, AnsweredBy.PERSON)
    assert over.duration == timedelta(seconds=61)
    interview = tenant.interview(mine.interview_id)
    assert interview.status is InterviewStatus.COMPLETED
    assert (interview.finished_at, interview.updated_at) == (now(), now())
    assert tenant.line(mine) == (None, mine.interview_id, now() + tenant.policy.line_gap)
    assert unheard(tenant) == 0


def test_end_of_a_call_leaves_a_cancelled_interview_cancelled(tenant: Tenant, apply_callbacks: ApplyCallbacks) -> None:
    mine = a_placed_attempt(tenant)
    tenant.change("UPDATE interviews SET status = 'CANCELLED', finished_at = :at", at=tenant.now())
    apply_callbacks(mine, a_form(mine, "completed"))
    assert tenant.attempt(mine.id).state is AttemptState.COMPLETED
    assert tenant.interview_status(mine) is InterviewStatus.CANCELLED


def request_fallback(hear: Hear, attempt: Attempt, **fields: str) -> None:
    """The carrier requests other instructions for this attempt's call."""
    assert attempt.token is not None
    form, path = a_form(attempt, "in-progress", ErrorCode="11200", **fields), callback_path(attempt.token) + FALLBACK
    signed = str(RequestValidator(PRIMARY).compute_signature(f"{PUBLIC_URL}{path}", dict(form)))
    hear.store([hear.genuine(attempt.token, path, form, signed, is_fallback=True)])


def hear_stored(hear: Hear, hints: RecordingHints) -> None:
    for alone in hear.batch(hints.ids(tasks.HEAR)):
        hear.event(alone)


@guards("instructions_failed")
@pytest.mark.parametrize("answered_by", ["human", "machine_start"])
def test_call_without_instructions_is_retried_and_not_booked(
    retrying: Tenant, hear: Hear, hints: RecordingHints, answered_by: str
) -> None:
    mine = a_placed_attempt(retrying)
    for _ in range(2):
        request_fallback(hear, mine, To=a_number())
    deliver(hear, mine, a_form(mine, "completed", CallDuration="4", AnsweredBy=answered_by))
    hear_stored(hear, hints)
    over, retry = retrying.attempts(mine.interview_id)
    assert (over.state, over.reason) == (AttemptState.FAILED, Reason.INSTRUCTIONS_FAILED)
    assert (retry.state, retry.due_at) == (AttemptState.PENDING, retrying.now() + timedelta(minutes=15))
    assert retrying.interview_status(mine) is InterviewStatus.SCHEDULED
    assert retrying.ask("SELECT FROM usage") == []
    assert [row.raw for row in retrying.ask("SELECT raw FROM carrier_events")] == [{}, {}, {}]


def test_late_fallback_changes_nothing(tenant: Tenant, hear: Hear, hints: RecordingHints) -> None:
    mine = a_placed_attempt(tenant)
    deliver(hear, mine, a_form(mine, "completed", CallDuration="61"))
    hear_stored(hear, hints)
    over = tenant.attempt(mine.id)
    request_fallback(hear, mine)
    hear_stored(hear, hints)
    assert tenant.attempt(mine.id) == over
    assert over.reason is Reason.ANSWERED
    assert unheard(tenant) == 0


def test_status_callback_is_no_fallback(tenant: Tenant, hear: Hear) -> None:
    """The signature covers the path, and no callback can mark itself as a request for instructions."""
    mine = a_placed_attempt(tenant)
    assert mine.token is not None
    form = a_form(mine, "in-progress")
    with pytest.raises(NotACallback):
        hear.genuine(
            mine.token, callback_path(mine.token) + FALLBACK, form, signature(mine.token, form), is_fallback=True
        )
    marked = [*form, ("duecall-fallback", "true")]
    with pytest.raises(NotACallback):
        hear.genuine(mine.token, callback_path(mine.token), marked, signature(mine.token, marked))


@guards("heard_once")
def test_callback_is_applied_once(tenant: Tenant, hear: Hear, hints: RecordingHints) -> None:
    mine = a_placed_attempt(tenant)
    deliver(hear, mine, a_form(mine, "ringing"))
    [event_id] = hints.ids(tasks.HEAR)
    hear.event(event_id)
    heard = tenant.attempt(mine.id)
    hear.event(event_id)
    assert tenant.attempt(mine.id) == heard
    assert tenant.history(mine.id) == ["created", "claimed", "placed", "progressed"]


def test_callback_not_applied_yet_is_hinted_again(
    tenant: Tenant, hear: Hear, hints: RecordingHints, release: Release, now: TestClock
) -> None:
    mine = a_placed_attempt(tenant)
    deliver(hear, mine, a_form(mine, "busy"))
    hints.rung.clear()
    release.round(resends=True)
    assert hints.ids(tasks.HEAR) == []
    now.move(timedelta(seconds=2))
    release.round(resends=True)
    for event_id in hints.ids(tasks.HEAR):
        hear.event(event_id)
    assert tenant.attempt(mine.id).reason is Reason.BUSY
    hints.rung.clear()
    now.move(timedelta(seconds=2))
    release.round(resends=True)
    assert hints.ids(tasks.HEAR) == []


def a_failing_callback(tenant: Tenant, hear: Hear, hints: RecordingHints) -> UUID:
    """Break the rules that decide what follows the end of a call, and store its last callback."""
    mine = a_placed_attempt(tenant)
    tenant.change("UPDATE companies SET settings = '{}' WHERE id = :id", id=tenant.company_id)
    deliver(hear, mine, a_form(mine, "busy", To="+421915000000"))
    return hints.ids(tasks.HEAR)[-1]


def fail(hear: Hear, event_id: UUID, times: int) -> None:
    """Try a callback that fails. The fifth failure quarantines it."""
    for _ in range(times):
        with pytest.raises(KeyError):
            hear.event(event_id)


def test_callback_is_quarantined_after_five_failures(
    tenant: Tenant, hear: Hear, hints: RecordingHints, release: Release, now: TestClock
) -> None:
    event_id = a_failing_callback(tenant, hear, hints)
    for times in range(1, 6):
        hints.rung.clear()
        now.move(timedelta(seconds=8))
        release.round(resends=True)
        assert hints.ids(tasks.HEAR) == [event_id], times
        with capture_logs() as logs, pytest.raises(KeyError):
            hear.event(event_id)
        assert [each["alarm"] for each in logs if "alarm" in each] == (["QUARANTINE"] if times == 5 else [])
    hints.rung.clear()
    now.move(timedelta(days=1))
    release.round(resends=True)
    assert hints.ids(tasks.HEAR) == [], "no further hint is sent for it"
    hear.event(event_id)
    assert unheard(tenant) == 1, "and it is kept, for a person"


def test_callback_applied_after_failures_is_not_quarantined(tenant: Tenant, hear: Hear, hints: RecordingHints) -> None:
    settings = tenant.ask("SELECT settings FROM companies WHERE id = :id", id=tenant.company_id)[0].settings
    event_id = a_failing_callback(tenant, hear, hints)
    fail(hear, event_id, times=4)
    tenant.change("UPDATE companies SET settings = CAST(:kept AS jsonb)", kept=json.dumps(settings))
    hear.event(event_id)
    assert unheard(tenant) == 0


@pytest.mark.parametrize(("status", "reason"), [("busy", Reason.BUSY), ("completed", Reason.ANSWERED)])
def test_callback_of_a_locked_company_is_applied(
    tenant: Tenant, apply_callbacks: ApplyCallbacks, postgres_url: str, status: str, reason: Reason
) -> None:
    """Neither the retry nor the usage refers to the company's row, so no callback waits for a forgotten session."""
    mine = a_placed_attempt(tenant)
    with psycopg.connect(postgres_url) as session:
        session.execute("SELECT FROM companies WHERE id = %s FOR UPDATE", [tenant.company_id])
        ending = a_form(mine, status, AnsweredBy="human", CallDuration="60")
        assert apply_callbacks(mine, ending).reason is reason


def test_quarantined_callback_of_an_erased_person_has_no_number(
    tenant: Tenant, hear: Hear, hints: RecordingHints
) -> None:
    fail(hear, a_failing_callback(tenant, hear, hints), times=5)
    [[candidate_id]] = tenant.ask("SELECT id FROM candidates")
    with tenant.database.transaction() as stores:
        stores.carrier_events.forget_candidate(candidate_id)
    assert [row[0] for row in tenant.ask("SELECT raw::text FROM carrier_events")] == ["{}"]


def forms_of(call: Attempt | str) -> list[Form]:
    return [
        a_form(call, "initiated"),
        a_form(call, "ringing"),
        a_form(call, "in-progress"),
        a_form(call, "completed", CallDuration="5", AnsweredBy="machine_start"),
    ]


@guards("rank")
def test_callback_older_than_the_latest_changes_nothing(tenant: Tenant, apply_callbacks: ApplyCallbacks) -> None:
    mine, sid = a_claimed_attempt(tenant), a_sid()
    answered = apply_callbacks(mine, a_form(sid, "in-progress"))
    for late in ("ringing", "initiated"):
        assert apply_callbacks(mine, a_form(sid, late)) == answered


def test_callback_before_the_record_replaces_the_record(tenant: Tenant, apply_callbacks: ApplyCallbacks) -> None:
    mine, sid = a_claimed_attempt(tenant), a_sid()
    heard = apply_callbacks(mine, a_form(sid, "initiated"))
    assert (heard.phase, heard.call_sid) == (Phase.PLACED, sid)
    tenant.dial.record([(mine, Accepted(call_sid=sid))])
    assert tenant.attempt(mine.id) == heard


def test_callback_proves_a_call_with_a_lost_answer(tenant: Tenant, apply_callbacks: ApplyCallbacks) -> None:
    heard = apply_callbacks(an_unknown_attempt(tenant), a_form(a_sid(), "ringing"))
    assert heard.phase is Phase.PLACED


# ---- alarms


def test_second_call_for_one_token_pauses_the_company(tenant: Tenant, apply_callbacks: ApplyCallbacks) -> None:
    mine = a_placed_attempt(tenant)
    assert apply_callbacks(mine, a_form(a_sid(), "ringing")) == mine
    assert pause_reason(tenant) == "ALARM: TWO_CALLS_FOR_ONE_TOKEN"
    assert unheard(tenant) == 0
    assert tenant.dial.claim([a_pending_attempt(tenant).id]).claimed == ()


def test_news_for_an_old_token_pauses_the_company(
    tenant: Tenant, apply_callbacks: ApplyCallbacks, now: TestClock
) -> None:
    old = a_claimed_attempt(tenant)
    tenant.dial.record([(old, NeverTaken(cause="A_TEST"))])
    now.move(timedelta(seconds=5))
    tenant.dial.claim([old.id])
    new = tenant.attempt(old.id)
    assert apply_callbacks(old, a_form(a_sid(), "ringing")) == new
    assert pause_reason(tenant) == "ALARM: NEWS_FOR_AN_OLD_TOKEN"


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("ringing", "ALARM: NEWS_FOR_A_CALL_THAT_WAS_NOT_PLACED"),
        ("in-progress", "ALARM: NEWS_FOR_A_CALL_THAT_WAS_NOT_PLACED"),
        ("busy", "ALARM: NEWS_FOR_A_CALL_THAT_WAS_NOT_PLACED"),
        ("queued", None),
        ("canceled", None),
    ],
)
def test_call_proven_never_dialled_raises_an_alarm_if_it_rings(
    tenant: Tenant, apply_callbacks: ApplyCallbacks, status: str, reason: str | None
) -> None:
    mine = a_placed_attempt(tenant)
    assert mine.call_sid is not None
    pending = tenant.take(mine, NeverDialled(due_at=tenant.now() + timedelta(hours=1), call_sid=mine.call_sid))
    assert apply_callbacks(mine, a_form(mine.call_sid, status)) == pending
    assert pause_reason(tenant) == reason


def test_ordinary_news_pauses_no_company(tenant: Tenant, apply_callbacks: ApplyCallbacks) -> None:
    mine = a_placed_attempt(tenant, a_number())
    apply_callbacks(mine, *forms_of(mine), *forms_of(mine))
    assert pause_reason(tenant) is None


# ---- cost


_INDEXED = """
    SELECT DISTINCT a.attname
    FROM pg_index i
    JOIN pg_class c ON c.oid = i.indexrelid
    JOIN pg_am m ON m.oid = c.relam
    JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid AND d.refobjid = i.indrelid
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = d.refobjsubid
    WHERE i.indrelid = 'attempts'::regclass AND d.refobjsubid > 0 AND m.amname <> 'brin'
"""
"""Columns of `attempts` in a key, expression or condition of an index, except for BRIN indexes."""


def test_progress_of_a_call_changes_no_indexed_column(tenant: Tenant, now: TestClock) -> None:
    """PostgreSQL then adds no entry to any index (HOT), and most events of a call are of this kind."""
    before = a_placed_attempt(tenant)
    now.move(timedelta(seconds=1))
    after = tenant.take(before, Progressed(rank=CallProgress.ANSWERED, answered_by=AnsweredBy.PERSON))
    changed = {each.name for each in fields(Attempt) if getattr(before, each.name) != getattr(after, each.name)}
    indexed = {row.attname for row in tenant.ask(_INDEXED)}
    assert changed == {"heard_rank", "answered_by", "epoch", "updated_at", "history_seal"}
    assert {"state", "call_sid", "look_at"} <= indexed
    assert not changed & indexed
