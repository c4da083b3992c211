"""What the carrier says: stored once, believed when it is genuine, and the same whatever its order."""

import json
from datetime import timedelta
from itertools import permutations
from uuid import UUID

import psycopg
import pytest
from structlog.testing import capture_logs
from twilio.request_validator import RequestValidator

from scheduler.carriers.interface import NotACallback
from scheduler.carriers.twilio import TwilioCallbacks, callback_path
from scheduler.domain.attempt import Attempt, AttemptState, Phase, Reason
from scheduler.domain.call import Accepted, AnsweredBy, NeverTaken
from scheduler.domain.interview import InterviewStatus
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.release import Release
from scheduler.use_cases.shared import hints as tasks
from tests.architecture.guards import guards
from tests.conftest import TestClock, seed
from tests.support.builders import (
    House,
    KeptBell,
    a_claimed_attempt,
    a_number,
    a_pending_attempt,
    a_placed_attempt,
    a_sid,
    an_attempt_of_unknown_outcome,
    an_unknown_attempt,
    of_company,
)
from tests.support.servers import ACCOUNT_SID, PRIMARY, SECONDARY, SimulatedCarrier

PUBLIC_URL = "https://calls.example.com"
Form = list[tuple[str, str]]


@pytest.fixture
def hear(house: House, bell: KeptBell, carrier: SimulatedCarrier) -> Hear:
    callbacks = TwilioCallbacks(carrier.account(public_url=PUBLIC_URL))
    return Hear(house.database, bell, callbacks, house.consequences, house.now)


def a_form(sid: str, status: str, **fields: str) -> Form:
    return [
        ("CallSid", sid),
        ("AccountSid", ACCOUNT_SID),
        ("CallStatus", status),
        ("CallbackSource", "call-progress-events"),
        *fields.items(),
    ]


def signature(token: str, form: Form, *, key: str = PRIMARY) -> str:
    return str(RequestValidator(key).compute_signature(f"{PUBLIC_URL}{callback_path(token)}", dict(form)))


def tell(hear: Hear, attempt: Attempt, form: Form) -> None:
    """The carrier sends a callback for this attempt's present token."""
    assert attempt.token is not None
    hear.callback(attempt.token, callback_path(attempt.token), form, signature(attempt.token, form))


def say(house: House, hear: Hear, bell: KeptBell, attempt: Attempt, *forms: Form) -> Attempt:
    """The carrier sends these, and each is heard in its turn."""
    for form in forms:
        bell.rung.clear()
        tell(hear, attempt, form)
        for event_id in bell.ids(tasks.HEAR):
            hear.event(event_id)
    return house.attempt(attempt.id)


def stored(house: House) -> int:
    return int(house.ask("SELECT count(*) FROM carrier_events")[0][0])


def unheard(house: House) -> int:
    return int(house.ask("SELECT count(*) FROM carrier_events WHERE heard_at IS NULL")[0][0])


def pause_reason(house: House) -> str | None:
    reason = house.ask("SELECT pause_reason FROM companies WHERE id = :id", id=house.company_id)[0][0]
    return None if reason is None else str(reason)


# ---- storing


def test_a_genuine_callback_is_stored_and_rung_for(house: House, hear: Hear, bell: KeptBell) -> None:
    mine = a_placed_attempt(house)
    assert mine.call_sid is not None
    tell(hear, mine, a_form(mine.call_sid, "ringing"))
    assert (stored(house), len(bell.ids(tasks.HEAR))) == (1, 1)
    assert house.attempt(mine.id) == mine, "storing changes nothing yet"


@guards("stored_once")
def test_the_same_callback_again_is_answered_and_stored_no_second_time(
    house: House, hear: Hear, bell: KeptBell
) -> None:
    mine = a_placed_attempt(house)
    assert mine.call_sid is not None
    for _ in range(3):
        tell(hear, mine, a_form(mine.call_sid, "ringing"))
    assert (stored(house), len(bell.ids(tasks.HEAR))) == (1, 1)


def test_what_was_heard_keeps_no_number(house: House, hear: Hear, bell: KeptBell) -> None:
    number = a_number()
    mine = a_placed_attempt(house, number)
    assert mine.call_sid is not None
    for status in ("ringing", "completed"):
        say(house, hear, bell, mine, a_form(mine.call_sid, status, To=number, Called=number, ToCity="BRATISLAVA"))
    assert unheard(house) == 0
    assert [row[0] for row in house.ask("SELECT raw::text FROM carrier_events")] == ["{}", "{}"]


def test_a_callback_signed_with_the_second_token_of_a_rotation_is_genuine(house: House, hear: Hear) -> None:
    mine = a_placed_attempt(house)
    assert mine.call_sid is not None
    assert mine.token is not None
    form = a_form(mine.call_sid, "ringing")
    hear.callback(mine.token, callback_path(mine.token), form, signature(mine.token, form, key=SECONDARY))
    assert stored(house) == 1


@guards("signature")
def test_a_forged_callback_stores_nothing(house: House, hear: Hear, bell: KeptBell) -> None:
    mine, other = a_placed_attempt(house), a_placed_attempt(house)
    assert mine.call_sid is not None
    assert mine.token is not None
    assert other.token is not None
    form = a_form(mine.call_sid, "completed", CallDuration="60")
    path = callback_path(mine.token)
    good = signature(mine.token, form)
    forgeries = [
        (mine.token, path, form, ""),
        (mine.token, path, form, signature(mine.token, form, key="a guess")),
        (mine.token, path, form[:-1], good),
        (mine.token, path, [*form, ("More", "1")], good),
        (mine.token, path, [*form, form[0]], good),
        (other.token, callback_path(other.token), form, good),
        (mine.token, f"{path}?a=b", form, good),
    ]
    for token, at, body, signed in forgeries:
        with pytest.raises(NotACallback):
            hear.callback(token, at, body, signed)
    assert (stored(house), bell.rings) == (0, [])
    assert house.attempt(mine.id) == mine


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(a_form("CA1", "ringing"), id="a sid that is none"),
        pytest.param(a_form(a_sid(), "singing"), id="a status that is none"),
        pytest.param(a_form(a_sid(), "completed", CallDuration="-1"), id="a duration that is none"),
        pytest.param(
            [("CallSid", a_sid()), ("AccountSid", "AC" + "9" * 32), ("CallStatus", "busy")], id="another account"
        ),
        pytest.param([], id="nothing"),
    ],
)
def test_a_genuine_one_that_cannot_be_read_stores_nothing(house: House, hear: Hear, form: Form) -> None:
    with pytest.raises(NotACallback):
        tell(hear, a_placed_attempt(house), form)
    assert stored(house) == 0


def test_one_with_a_field_that_twilio_added_since_is_heard(house: House, hear: Hear, bell: KeptBell) -> None:
    mine = a_placed_attempt(house)
    assert mine.call_sid is not None
    assert say(house, hear, bell, mine, a_form(mine.call_sid, "busy", Novelty="yes")).reason is Reason.BUSY


def test_one_for_a_token_of_nobody_is_answered_and_kept_nowhere(house: House, hear: Hear, bell: KeptBell) -> None:
    form = a_form(a_sid(), "ringing")
    hear.callback("nobody", callback_path("nobody"), form, signature("nobody", form))
    assert (stored(house), bell.rings) == (0, [])


# ---- hearing


def test_a_call_that_was_answered_and_is_over_completes_attempt_and_interview(
    house: House, hear: Hear, bell: KeptBell, now: TestClock
) -> None:
    mine = a_placed_attempt(house)
    sid = mine.call_sid
    assert sid is not None
    over = say(
        house,
        hear,
        bell,
        mine,
        *(a_form(sid, status) for status in ("initiated", "ringing", "in-progress")),
        a_form(sid, "completed", CallDuration="61", AnsweredBy="human"),
    )
    assert (over.state, over.reason, over.answered_by) == (AttemptState.COMPLETED, Reason.ANSWERED, AnsweredBy.PERSON)
    assert over.duration == timedelta(seconds=61)
    assert house.interview_status(mine) is InterviewStatus.COMPLETED
    assert house.line(mine) == (None, mine.interview_id, now() + house.policy.line_gap)
    assert unheard(house) == 0


def test_the_end_of_a_call_leaves_a_cancelled_interview_cancelled(house: House, hear: Hear, bell: KeptBell) -> None:
    mine = a_placed_attempt(house)
    assert mine.call_sid is not None
    house.change("UPDATE interviews SET status = 'CANCELLED', finished_at = :at", at=house.now())
    say(house, hear, bell, mine, a_form(mine.call_sid, "completed"))
    assert house.attempt(mine.id).state is AttemptState.COMPLETED
    assert house.interview_status(mine) is InterviewStatus.CANCELLED


@guards("heard_once")
def test_an_event_is_heard_once(house: House, hear: Hear, bell: KeptBell) -> None:
    mine = a_placed_attempt(house)
    assert mine.call_sid is not None
    tell(hear, mine, a_form(mine.call_sid, "ringing"))
    [event_id] = bell.ids(tasks.HEAR)
    hear.event(event_id)
    heard = house.attempt(mine.id)
    hear.event(event_id)
    assert house.attempt(mine.id) == heard
    assert house.history(mine.id) == ["created", "claimed", "placed", "progressed"]


def test_one_that_nobody_heard_is_rung_for_again(
    house: House, hear: Hear, bell: KeptBell, release: Release, now: TestClock
) -> None:
    mine = a_placed_attempt(house)
    assert mine.call_sid is not None
    tell(hear, mine, a_form(mine.call_sid, "busy"))
    bell.rung.clear()
    release.unanswered()
    assert bell.ids(tasks.HEAR) == []
    now.move(timedelta(seconds=2))
    release.unanswered()
    for event_id in bell.ids(tasks.HEAR):
        hear.event(event_id)
    assert house.attempt(mine.id).reason is Reason.BUSY
    bell.rung.clear()
    now.move(timedelta(seconds=2))
    release.unanswered()
    assert bell.ids(tasks.HEAR) == []


def break_the_settings_of(house: House) -> None:
    """So that what follows the end of a call cannot be decided."""
    house.change("UPDATE companies SET settings = '{}' WHERE id = :id", id=house.company_id)


def told_what_nobody_can_hear(house: House, hear: Hear, bell: KeptBell) -> UUID:
    mine = a_placed_attempt(house)
    assert mine.call_sid is not None
    break_the_settings_of(house)
    tell(hear, mine, a_form(mine.call_sid, "busy", To="+421915000000"))
    return bell.ids(tasks.HEAR)[-1]


def test_one_that_can_never_be_heard_is_set_aside_after_five_times_with_an_alarm(
    house: House, hear: Hear, bell: KeptBell, release: Release, now: TestClock
) -> None:
    event_id = told_what_nobody_can_hear(house, hear, bell)
    for times in range(1, 6):
        bell.rung.clear()
        now.move(timedelta(seconds=8))
        release.unanswered()
        assert bell.ids(tasks.HEAR) == [event_id], times
        with capture_logs() as logs, pytest.raises(KeyError):
            hear.event(event_id)
        assert [each["alarm"] for each in logs if "alarm" in each] == (["QUARANTINE"] if times == 5 else [])
    bell.rung.clear()
    now.move(timedelta(days=1))
    release.unanswered()
    assert bell.ids(tasks.HEAR) == [], "nobody is rung for it any more"
    hear.event(event_id)
    assert unheard(house) == 1, "and it is kept, for a person"


def test_one_that_is_heard_after_all_was_not_set_aside(house: House, hear: Hear, bell: KeptBell) -> None:
    settings = house.ask("SELECT settings FROM companies WHERE id = :id", id=house.company_id)[0].settings
    event_id = told_what_nobody_can_hear(house, hear, bell)
    for _ in range(4):
        with pytest.raises(KeyError):
            hear.event(event_id)
    house.change(
        "UPDATE companies SET settings = CAST(:settings AS jsonb) WHERE id = :id",
        settings=json.dumps(settings),
        id=house.company_id,
    )
    hear.event(event_id)
    assert unheard(house) == 0


def test_one_that_is_set_aside_keeps_no_other_waiting(house: House, hear: Hear, bell: KeptBell) -> None:
    broken = told_what_nobody_can_hear(house, hear, bell)
    for _ in range(5):
        with pytest.raises(KeyError):
            hear.event(broken)
    other = of_company(house, seed(house.database, house.now()))
    mine = a_placed_attempt(other)
    assert mine.call_sid is not None
    assert say(other, hear, bell, mine, a_form(mine.call_sid, "busy")).reason is Reason.BUSY


@pytest.mark.parametrize(("status", "reason"), [("busy", Reason.BUSY), ("completed", Reason.ANSWERED)])
def test_event_of_a_locked_company_is_heard(
    house: House, hear: Hear, bell: KeptBell, postgres_url: str, status: str, reason: Reason
) -> None:
    """Neither the retry nor the usage refers to the company's row, so no callback waits for a forgotten session."""
    mine = a_placed_attempt(house)
    assert mine.call_sid is not None
    with psycopg.connect(postgres_url) as session:
        session.execute("SELECT FROM companies WHERE id = %s FOR UPDATE", [house.company_id])
        told = a_form(mine.call_sid, status, AnsweredBy="human", CallDuration="60")
        assert say(house, hear, bell, mine, told).reason is reason


def test_what_was_set_aside_keeps_no_number_of_a_candidate_who_was_erased(
    house: House, hear: Hear, bell: KeptBell
) -> None:
    event_id = told_what_nobody_can_hear(house, hear, bell)
    for _ in range(5):
        with pytest.raises(KeyError):
            hear.event(event_id)
    [[candidate_id]] = house.ask("SELECT id FROM candidates")
    with house.database.transaction() as stores:
        stores.carrier_events.forget_candidate(candidate_id)
    assert [row[0] for row in house.ask("SELECT raw::text FROM carrier_events")] == ["{}"]


def forms_of(sid: str) -> list[Form]:
    return [
        a_form(sid, "initiated"),
        a_form(sid, "ringing"),
        a_form(sid, "in-progress"),
        a_form(sid, "completed", CallDuration="5", AnsweredBy="machine_start"),
    ]


@pytest.mark.parametrize("recorded_at", [0, 2, 4, None], ids=["first", "between", "last", "never"])
def test_in_whatever_order_they_come_the_end_is_the_same(
    house: House, hear: Hear, bell: KeptBell, recorded_at: int | None
) -> None:
    ends = set()
    for order in permutations(range(4)):
        mine, sid = a_claimed_attempt(house), a_sid()
        forms = [forms_of(sid)[each] for each in order]
        for place in range(5):
            if place == recorded_at:
                house.dial.record([(mine, Accepted(call_sid=sid))])
            if place < 4:
                say(house, hear, bell, mine, forms[place])
        over = house.attempt(mine.id)
        assert over.call_sid == sid
        ends.add((over.state, over.reason, over.answered_by, over.duration, over.heard_rank))
    assert len(ends) == 1
    assert next(iter(ends))[1] is Reason.VOICEMAIL
    assert pause_reason(house) is None


@guards("rank")
def test_news_that_come_after_newer_ones_change_nothing(house: House, hear: Hear, bell: KeptBell) -> None:
    mine, sid = a_claimed_attempt(house), a_sid()
    answered = say(house, hear, bell, mine, a_form(sid, "in-progress"))
    for late in ("ringing", "initiated"):
        assert say(house, hear, bell, mine, a_form(sid, late)) == answered


def test_a_callback_before_the_record_places_it_and_the_record_then_writes_nothing(
    house: House, hear: Hear, bell: KeptBell
) -> None:
    mine, sid = a_claimed_attempt(house), a_sid()
    heard = say(house, hear, bell, mine, a_form(sid, "initiated"))
    assert (heard.phase, heard.call_sid) == (Phase.PLACED, sid)
    house.dial.record([(mine, Accepted(call_sid=sid))])
    assert house.attempt(mine.id) == heard


def test_a_callback_for_a_lost_answer_is_the_proof(house: House, hear: Hear, bell: KeptBell) -> None:
    heard = say(house, hear, bell, an_unknown_attempt(house), a_form(a_sid(), "ringing"))
    assert heard.phase is Phase.PLACED


def test_late_proof_ends_an_unknown_outcome_as_it_was(house: House, hear: Hear, bell: KeptBell) -> None:
    mine, sid = an_attempt_of_unknown_outcome(house), a_sid()
    assert house.interview_status(mine) is InterviewStatus.FAILED
    rang = say(house, hear, bell, mine, a_form(sid, "ringing"))
    assert rang.reason is Reason.OUTCOME_UNKNOWN, "that it rang does not say how it ended"
    over = say(house, hear, bell, mine, a_form(sid, "completed", CallDuration="9"))
    assert (over.state, over.reason, over.call_sid) == (AttemptState.COMPLETED, Reason.ANSWERED, sid)
    assert house.interview_status(mine) is InterviewStatus.COMPLETED


# ---- alarms


def test_a_second_call_for_one_token_pauses_the_company(house: House, hear: Hear, bell: KeptBell) -> None:
    mine = a_placed_attempt(house)
    assert say(house, hear, bell, mine, a_form(a_sid(), "ringing")) == mine
    assert pause_reason(house) == "ALARM: TWO_CALLS_FOR_ONE_TOKEN"
    assert unheard(house) == 0
    assert house.dial.claim([a_pending_attempt(house).id]).claimed == ()


def test_news_for_an_old_token_pause_the_company(house: House, hear: Hear, bell: KeptBell, now: TestClock) -> None:
    old = a_claimed_attempt(house)
    house.dial.record([(old, NeverTaken(cause="A_TEST"))])
    now.move(timedelta(seconds=5))
    house.dial.claim([old.id])
    new = house.attempt(old.id)
    assert say(house, hear, bell, old, a_form(a_sid(), "ringing")) == new
    assert pause_reason(house) == "ALARM: NEWS_FOR_AN_OLD_TOKEN"


def test_news_for_a_call_that_was_not_placed_pause_the_company(house: House, hear: Hear, bell: KeptBell) -> None:
    mine = a_claimed_attempt(house)
    house.dial.record([(mine, NeverTaken(cause="A_TEST"))])
    pending = house.attempt(mine.id)
    assert say(house, hear, bell, mine, a_form(a_sid(), "ringing")) == pending
    assert pause_reason(house) == "ALARM: NEWS_FOR_A_CALL_THAT_WAS_NOT_PLACED"


def test_a_second_alarm_keeps_the_first_reason(house: House, hear: Hear, bell: KeptBell) -> None:
    mine = a_placed_attempt(house)
    say(house, hear, bell, mine, a_form(a_sid(), "ringing"), a_form(a_sid(), "busy"))
    assert pause_reason(house) == "ALARM: TWO_CALLS_FOR_ONE_TOKEN"


def test_ordinary_news_pause_nobody(house: House, hear: Hear, bell: KeptBell) -> None:
    mine = a_placed_attempt(house, a_number())
    assert mine.call_sid is not None
    say(house, hear, bell, mine, *forms_of(mine.call_sid), *forms_of(mine.call_sid))
    assert pause_reason(house) is None
