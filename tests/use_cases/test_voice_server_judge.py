"""The voice server fails: all calls wait until it answers a probe and a trial call gets its instructions."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import requests

from scheduler.carriers.twilio_queries import TwilioQueries
from scheduler.carriers.voice_server import HttpVoiceServer
from scheduler.domain.attempt import Attempt, Ended, Progressed, Reason
from scheduler.domain.call import Accepted, AnswerUnknown, CallProgress, CallStatus
from scheduler.domain.explanation import Rule
from scheduler.lifecycle import voice_server
from scheduler.lifecycle.breaker import BACK_OFF, Breaker
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.release import Release
from scheduler.use_cases.settle import Settle
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.carrier_state import CarrierProbe
from scheduler.use_cases.shared.voice_server import VoiceServerJudge
from tests.architecture.guards import guards
from tests.conftest import TestClock, seed
from tests.support.builders import (
    RecordingHints,
    Tenant,
    a_claimed_attempt,
    a_number,
    a_pending_attempt,
    a_placed_attempt,
    of_company,
)
from tests.support.servers import SimulatedCarrier
from tests.use_cases.conftest import Released, answered, apply_news, breaker_of, claimed, end, is_claimed, settle_at
from tests.use_cases.test_hear import request_fallback

A_SECOND = timedelta(seconds=1)
Fail = Callable[..., None]


def at_voice_server(carrier: SimulatedCarrier, method: str) -> None:
    requests.request(method, f"{carrier.url}/voice/outage", timeout=30).raise_for_status()


@pytest.fixture
def judge(tenant: Tenant, carrier: SimulatedCarrier) -> Any:
    """The judge, with the simulated carrier's own voice server, which starts again at the end."""
    account = replace(carrier.account(), voice_url=f"{carrier.url}/voice")
    yield VoiceServerJudge(tenant.context, HttpVoiceServer(account), tenant.account_id)
    at_voice_server(carrier, "DELETE")


@pytest.fixture
def fail(hear: Hear, hints: RecordingHints, judge: VoiceServerJudge) -> Fail:
    """The carrier requests the fallback of a call, and a worker applies that."""

    def failed(of: Tenant, attempt: Attempt | None = None) -> None:
        failed_call(of, hear, hints, judge, attempt)

    return failed


def failed_call(
    of: Tenant, hear: Hear, hints: RecordingHints, judge: VoiceServerJudge, attempt: Attempt | None = None
) -> None:
    hints.rung.clear()
    judging = Hear(of.context, hints, hear._callbacks, judge)
    request_fallback(judging, attempt or a_placed_attempt(of))
    for event_id in hints.ids(tasks.HEAR):
        judging.event(event_id)


def test_two_calls_in_a_row_stop_the_calls_of_all(
    tenant: Tenant, other: Tenant, fail: Fail, release: Release, explain: Explain
) -> None:
    fail(tenant)
    assert breaker_of(tenant).down_until is None
    fail(other)
    assert breaker_of(tenant) == Breaker(failures=5, down_until=tenant.now() + BACK_OFF[0], cause=voice_server.CAUSE)
    for each in (tenant, other):
        waiting = a_pending_attempt(each)
        assert not is_claimed(each, waiting)
    assert release.round(resends=False).released == 0
    waiting = a_pending_attempt(tenant)
    found = explain.explanation_of(waiting.id)
    assert (found.blocks[0].rule, found.waits_for) == (Rule.VOICE_SERVER_DOWN, "the voice server")


def test_repeated_fallback_of_one_call_counts_once(tenant: Tenant, fail: Fail) -> None:
    mine = a_placed_attempt(tenant)
    for _ in range(3):
        fail(tenant, mine)
    assert breaker_of(tenant) == Breaker()


def test_conversation_between_two_failures_closes_the_row(
    tenant: Tenant, other: Tenant, now: TestClock, fail: Fail
) -> None:
    fail(tenant)
    now.move(A_SECOND)
    talk = a_placed_attempt(tenant)
    tenant.take(talk, Ended(reason=Reason.ANSWERED, ended_at=now(), duration=A_SECOND))
    now.move(A_SECOND)
    fail(other)
    assert breaker_of(tenant) == Breaker()


def test_conversation_counts_if_an_older_call_ends_after_it(
    tenant: Tenant, other: Tenant, now: TestClock, fail: Fail
) -> None:
    older = answered(tenant)
    now.move(A_SECOND)
    fail(tenant)
    now.move(A_SECOND)
    talk = a_placed_attempt(tenant)
    for each in (talk, older):
        now.move(A_SECOND)
        tenant.take(each, Ended(reason=Reason.ANSWERED, ended_at=now(), duration=A_SECOND))
    fail(other)
    assert breaker_of(tenant) == Breaker()


def test_failures_that_are_far_apart_are_not_in_a_row(
    tenant: Tenant, other: Tenant, now: TestClock, fail: Fail
) -> None:
    fail(tenant)
    now.move(voice_server.WITHIN + A_SECOND)
    fail(other)
    assert breaker_of(tenant) == Breaker()


@guards("voice_alone")
def test_one_company_does_not_stop_the_others(
    tenant: Tenant, other: Tenant, carrier: SimulatedCarrier, now: TestClock, fail: Fail
) -> None:
    """Its calls alone fail, and the voice server answers the probe."""
    for _ in range(4):
        fail(tenant)
    assert breaker_of(tenant) == Breaker()
    at_voice_server(carrier, "POST")
    now.move(BACK_OFF[0])  # the good answer is kept until then
    fail(tenant)
    assert breaker_of(tenant).cause == voice_server.CAUSE, "now it does not answer"


@guards("kept_answer", "voice_alone")
def test_failures_of_one_company_send_few_probes(
    tenant: Tenant, other: Tenant, carrier: SimulatedCarrier, now: TestClock, hear: Hear, hints: RecordingHints
) -> None:
    probes = []

    class Server(HttpVoiceServer):
        def answers(self) -> bool:
            probes.append(now())
            return super().answers()

    server = Server(replace(carrier.account(), voice_url=f"{carrier.url}/voice"))
    judge = VoiceServerJudge(tenant.context, server, tenant.account_id)
    for failures in range(1, 21):
        failed_call(tenant, hear, hints, judge)
        assert len(probes) == min(failures - 1, 1), "one failure alone opens nothing"
        now.move(timedelta(milliseconds=100))
    now.move(BACK_OFF[0])
    failed_call(tenant, hear, hints, judge)
    assert len(probes) == 2
    now.move(-timedelta(minutes=30))
    failed_call(tenant, hear, hints, judge)
    assert len(probes) == 3, "the clock was set back"


@guards("voice_alone")
def test_without_a_probe_one_company_does_not_stop_the_others(
    tenant: Tenant, other: Tenant, hear: Hear, hints: RecordingHints
) -> None:
    """Nothing but the calls of another company shows that the failures are not its own."""
    unprobed = VoiceServerJudge(tenant.context, None, tenant.account_id)
    for _ in range(4):
        failed_call(tenant, hear, hints, unprobed)
    assert breaker_of(tenant) == Breaker()
    failed_call(other, hear, hints, unprobed)
    assert breaker_of(tenant).cause == voice_server.CAUSE


def test_without_a_probe_the_only_company_stops_itself(tenant: Tenant, hear: Hear, hints: RecordingHints) -> None:
    unprobed = VoiceServerJudge(tenant.context, None, tenant.account_id)
    for _ in range(2):
        failed_call(tenant, hear, hints, unprobed)
    assert breaker_of(tenant).cause == voice_server.CAUSE


def placed(tenant: Tenant, pending: Attempt | None = None) -> Attempt:
    """The carrier accepts the next call."""
    trial = a_claimed_attempt(tenant) if pending is None else claimed(tenant, pending)[0]
    tenant.dial.record([(trial, Accepted(call_sid=f"CA{trial.id.hex}"))])
    return tenant.attempt(trial.id)


@guards("voice_trial", "breaker")
def test_calls_resume_after_a_probe_and_a_trial(
    tenant: Tenant, other: Tenant, carrier: SimulatedCarrier, now: TestClock, fail: Fail, judge: VoiceServerJudge
) -> None:
    at_voice_server(carrier, "POST")
    for each in (tenant, other):
        fail(each)
    for _ in range(3):
        now.move(BACK_OFF[0])
        judge.run()
        assert breaker_of(tenant).is_down
    at_voice_server(carrier, "DELETE")
    answers_at = now()
    now.move(BACK_OFF[0])
    judge.run()
    assert breaker_of(tenant).is_on_trial
    trial = placed(tenant)
    assert breaker_of(tenant).is_down
    assert not is_claimed(other, a_pending_attempt(other))
    now.move(A_SECOND)
    tenant.take(trial, Progressed(rank=CallProgress.ANSWERED))
    now.move(voice_server.TRIAL_LASTS)
    judge.run()
    assert breaker_of(tenant) == Breaker()
    assert now() - answers_at <= timedelta(seconds=30)
    assert is_claimed(other, a_pending_attempt(other))


@pytest.fixture
def on_trial(tenant: Tenant, other: Tenant, now: TestClock, fail: Fail, judge: VoiceServerJudge) -> VoiceServerJudge:
    """Open the breaker and let the voice server answer a probe."""
    for each in (tenant, other):
        fail(each)
    now.move(BACK_OFF[0])
    judge.run()
    assert breaker_of(tenant).is_on_trial
    return judge


def test_calls_wait_while_the_trial_rings(tenant: Tenant, now: TestClock, on_trial: VoiceServerJudge) -> None:
    trial = placed(tenant)
    for _ in range(2):
        now.move(voice_server.TRIAL_LASTS)
        on_trial.run()
        assert breaker_of(tenant).is_down
    tenant.take(trial, Ended(reason=Reason.BUSY, ended_at=now()))
    now.move(BACK_OFF[0])
    on_trial.run()
    assert breaker_of(tenant).is_on_trial, "it was not answered, so another call is tried"
    conversation = placed(tenant)
    tenant.take(conversation, Ended(reason=Reason.ANSWERED, ended_at=now(), duration=A_SECOND))
    now.move(voice_server.TRIAL_LASTS)
    on_trial.run()
    assert breaker_of(tenant) == Breaker()


def test_trial_without_news_does_not_keep_calls_waiting(
    tenant: Tenant, now: TestClock, on_trial: VoiceServerJudge
) -> None:
    placed(tenant)
    now.move(tenant.policy.room + A_SECOND)
    on_trial.run()
    assert breaker_of(tenant) == Breaker()


def test_failed_trial_keeps_the_calls_waiting(
    tenant: Tenant, other: Tenant, now: TestClock, fail: Fail, judge: VoiceServerJudge
) -> None:
    late = a_placed_attempt(tenant)
    for each in (tenant, other):
        fail(each)
    now.move(BACK_OFF[0])
    judge.run()
    now.move(A_SECOND)
    trial = placed(tenant)
    waits = breaker_of(tenant)
    fail(tenant, late)
    assert breaker_of(tenant) == waits, "it was placed before the breaker opened"
    fail(tenant, trial)
    assert (breaker_of(tenant).trials, breaker_of(tenant).down_until) == (1, now() + BACK_OFF[1])


@guards("one_trial", "voice_trial")
@pytest.mark.usefixtures("on_trial")
def test_callback_before_the_record_makes_no_room_for_a_trial(
    tenant: Tenant, other: Tenant, released: Released, now: TestClock
) -> None:
    [trial] = claimed(tenant, a_pending_attempt(tenant))
    now.move(A_SECOND)
    apply_news(tenant, trial, CallStatus.RINGING, call_sid=f"CA{trial.id.hex}")
    assert breaker_of(tenant).is_on_trial
    for each in (other, tenant):
        assert not is_claimed(each, a_pending_attempt(each))
    assert released() == []
    tenant.dial.record([(trial, Accepted(call_sid=f"CA{trial.id.hex}"))])
    assert voice_server.awaits_verdict(breaker_of(tenant))


@guards("voice_cause", "voice_trial")
def test_carrier_that_fails_trials_does_not_end_the_outage(
    tenant: Tenant, other: Tenant, carrier: SimulatedCarrier, now: TestClock, on_trial: VoiceServerJudge
) -> None:
    for each in (tenant, other):
        each.dial.record([(a_claimed_attempt(each), AnswerUnknown(cause="HTTP_500"))])
    down = breaker_of(tenant)
    assert (down.is_down, down.cause, down.trials) == (True, voice_server.CAUSE, 1)
    assert down.down_until == now() + BACK_OFF[1]
    now.move(BACK_OFF[1])
    CarrierProbe(tenant.context, TwilioQueries(carrier.account(), tenant.policy), tenant.account_id).run()
    on_trial.run()
    assert breaker_of(tenant).is_on_trial
    placed(of_company(tenant, seed(tenant.database, now())))
    assert voice_server.awaits_verdict(breaker_of(tenant)), "no call has shown that the voice server works"


@guards("trial_in_turns", "look_refused")
def test_refused_numbers_of_a_company_do_not_hold_the_trial(
    tenant: Tenant, other: Tenant, now: TestClock, fail: Fail, judge: VoiceServerJudge, released: Released
) -> None:
    """Each of its due calls is to a person who has opted out. The next trial is another company's, which failed."""
    third = of_company(tenant, seed(tenant.database, now()))
    numbers = [a_number() for _ in range(5)]
    for number in numbers:
        end(third, answered(third, a_placed_attempt(third, number)))
    third.change(
        "UPDATE attempts SET outcome = 'OPTED_OUT', outcome_at = :now, outcome_until = NULL WHERE company_id = :of",
        now=now(),
        of=third.company_id,
    )
    now.move(third.policy.line_gap + A_SECOND)
    refused = {a_pending_attempt(third, number).id for number in numbers}
    for each in (tenant, other):
        fail(each)
    now.move(A_SECOND)
    due = {a_pending_attempt(each).id for each in (tenant, other)}
    now.move(BACK_OFF[0])
    judge.run()
    [tried] = released()
    assert tried in refused
    for claim in third.dial.claim([tried]).claimed:
        assert third.dial.last_look(claim.attempt) is None
    now.move(A_SECOND)
    [tried] = released()
    assert tried in due


@guards("trial_of_another", "voice_trial")
def test_next_trial_is_not_of_the_company_that_fails(
    tenant: Tenant, other: Tenant, now: TestClock, fail: Fail, judge: VoiceServerJudge, released: Released
) -> None:
    """The conversations of `tenant` alone fail, and its calls are due first."""
    for each in (other, tenant):
        fail(each)
        now.move(A_SECOND)
    mine = {each.id: each for each in (a_pending_attempt(tenant) for _ in range(3))}
    now.move(A_SECOND)
    theirs = {each.id: each for each in (a_pending_attempt(other) for _ in range(2))}
    now.move(BACK_OFF[0])
    judge.run()
    [tried] = released()
    trial = placed(other, theirs.pop(tried))
    now.move(A_SECOND)
    fail(other, trial)
    now.move(BACK_OFF[1])
    judge.run()
    [tried] = released()
    assert tried in mine, "its latest failure is the older one now"
    now.move(A_SECOND)
    trial = placed(tenant, mine[tried])
    now.move(A_SECOND)
    fail(tenant, trial)
    assert breaker_of(tenant).down_until == now() + BACK_OFF[2], "two companies fail"
    now.move(BACK_OFF[2])
    judge.run()
    assert released() == [*theirs]


@guards("trials_of_one", "voice_trial")
def test_trials_of_one_company_keep_the_wait_short(
    tenant: Tenant, other: Tenant, now: TestClock, fail: Fail, judge: VoiceServerJudge
) -> None:
    for each in (tenant, other):
        fail(each)
    now.move(voice_server.WITHIN)
    for _ in range(3):
        judge.run()
        now.move(A_SECOND)
        fail(tenant, placed(tenant))
        assert breaker_of(tenant).down_until == now() + BACK_OFF[1]
        now.move(BACK_OFF[1])


def test_server_without_a_probe_is_tried_by_calls_alone(
    tenant: Tenant, other: Tenant, carrier: SimulatedCarrier, now: TestClock, fail: Fail
) -> None:
    at_voice_server(carrier, "POST")
    for each in (tenant, other):
        fail(each)
    now.move(BACK_OFF[0])
    VoiceServerJudge(tenant.context, None, tenant.account_id).run()
    assert breaker_of(tenant).is_on_trial


def test_settle_probes_the_voice_server_and_not_the_carrier(
    tenant: Tenant, other: Tenant, now: TestClock, fail: Fail, judge: VoiceServerJudge, carrier: SimulatedCarrier
) -> None:
    for each in (tenant, other):
        fail(each)
    now.move(BACK_OFF[0])
    settle_at(tenant, carrier.url).round()
    assert breaker_of(tenant).is_down, "the carrier's probe says nothing of the voice server"
    judging: Settle = settle_at(tenant, carrier.url, voice=judge)
    judging.round()
    assert breaker_of(tenant).is_on_trial


def test_polled_failure_counts_like_a_fallback(tenant: Tenant, other: Tenant, fail: Fail) -> None:
    """The fallback was lost, and the carrier's notifications name the error."""
    polled = a_placed_attempt(tenant)
    tenant.take(polled, Progressed(rank=CallProgress.ANSWERED))
    ended = tenant.take(polled, Ended(reason=Reason.INSTRUCTIONS_FAILED, ended_at=tenant.now()))
    assert ended.instructions_failed
    fail(other)
    assert breaker_of(tenant).cause == voice_server.CAUSE


@guards("failed_conversation")
def test_failure_counts_after_its_conversation_was_booked(tenant: Tenant, other: Tenant, fail: Fail) -> None:
    """A conversation reported its outcome, and lost its instructions then."""
    reported = a_placed_attempt(tenant)
    fail(tenant, reported)
    tenant.take(tenant.attempt(reported.id), Ended(reason=Reason.ANSWERED, ended_at=tenant.now(), duration=A_SECOND))
    assert breaker_of(tenant) == Breaker()
    fail(other)
    assert breaker_of(tenant).cause == voice_server.CAUSE
