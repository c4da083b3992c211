"""Trials of the voice server: the companies whose calls they are, those without a verdict, and wrong clocks."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from scheduler.carriers.twilio_queries import TwilioQueries
from scheduler.domain.attempt import Attempt, Ended, Progressed, Reason
from scheduler.domain.call import Accepted, AnsweredBy, AnswerUnknown, CallProgress, CallStatus
from scheduler.lifecycle import voice_server
from scheduler.lifecycle.breaker import BACK_OFF, Breaker
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.shared.carrier_state import CarrierProbe
from scheduler.use_cases.shared.voice_server import VoiceServerJudge
from tests.architecture.guards import guards
from tests.conftest import TestClock, seed
from tests.support.builders import (
    RecordingHints,
    Tenant,
    a_claimed_attempt,
    a_pending_attempt,
    a_placed_attempt,
    of_company,
)
from tests.support.servers import SimulatedCarrier, a_closed_port
from tests.use_cases.conftest import Released, answered, apply_news, breaker_of, claimed, is_claimed
from tests.use_cases.test_voice_server_judge import A_SECOND, failed_call, placed


@pytest.fixture
def on_trial(tenant: Tenant, other: Tenant, now: TestClock, hear: Hear, hints: RecordingHints) -> VoiceServerJudge:
    """Open the breaker of a voice server that is not probed, and permit a trial."""
    judge = VoiceServerJudge(tenant.context, None, tenant.account_id)
    for each in (tenant, other):
        failed_call(each, hear, hints, judge)
    now.move(BACK_OFF[0])
    judge.run()
    assert breaker_of(tenant).is_on_trial
    return judge


def alarms_of(logs: Iterable[Mapping[str, Any]]) -> list[str]:
    return [each["alarm"] for each in logs if "alarm" in each]


@guards("unanswered_trials", "voice_trial", "breaker")
def test_unanswered_trials_lengthen_the_wait(
    tenant: Tenant, other: Tenant, now: TestClock, on_trial: VoiceServerJudge
) -> None:
    for is_tried in (True, False):
        trial = placed(tenant)
        now.move(A_SECOND)
        tenant.take(trial, Ended(reason=Reason.NO_ANSWER, ended_at=now()))
        now.move(voice_server.TRIAL_LASTS)
        on_trial.run()
        assert breaker_of(tenant).is_on_trial is is_tried
    assert breaker_of(tenant).down_until == now() + BACK_OFF[1]
    assert not is_claimed(other, a_pending_attempt(other))
    now.move(BACK_OFF[1])
    on_trial.run()
    assert breaker_of(tenant).is_on_trial
    talk = placed(other)
    other.take(talk, Ended(reason=Reason.ANSWERED, ended_at=now(), duration=A_SECOND))
    now.move(voice_server.TRIAL_LASTS)
    on_trial.run()
    assert breaker_of(tenant) == Breaker()


def tried_in_vain(
    companies: Iterable[Tenant], now: TestClock, judge: VoiceServerJudge, released: Released, trials: int
) -> list[UUID]:
    """Let several calls of each company become due. No trial is answered. Return the companies of the trials."""
    due: dict[UUID, tuple[Tenant, Attempt]] = {}
    for each in companies:
        due |= {pending.id: (each, pending) for pending in [a_pending_attempt(each) for _ in range(trials)]}
        now.move(A_SECOND)
    tried = []
    for _ in range(trials):
        tried_id = wait_for_trial(now, judge, released)
        of, pending = due[tried_id]
        tried.append(of.company_id)
        trial = placed(of, pending)
        now.move(A_SECOND)
        of.take(trial, Ended(reason=Reason.NO_ANSWER, ended_at=now()))
        now.move(voice_server.TRIAL_LASTS)
        judge.run()
    return tried


def wait_for_trial(now: TestClock, judge: VoiceServerJudge, released: Released) -> UUID:
    for _ in range(100):
        if ids := released():
            [tried] = ids
            return tried
        now.move(BACK_OFF[0])
        judge.run()
    raise AssertionError("no trial was released")


@guards("trial_after_no_answer", "voice_trial")
@pytest.mark.parametrize("ahead", [timedelta(), timedelta(days=1)], ids=["", "slot of a wrong clock"])
def test_company_without_answers_does_not_use_up_all_trials(
    tenant: Tenant, other: Tenant, now: TestClock, on_trial: VoiceServerJudge, released: Released, ahead: timedelta
) -> None:
    """Its latest failure is the oldest."""
    slot_at = now() - 2 * A_SECOND + ahead
    other.change("UPDATE companies SET next_slot_at = :at WHERE id = :id", at=slot_at, id=other.company_id)
    tried = tried_in_vain((tenant, other), now, on_trial, released, 4)
    assert tried == [tenant.company_id, other.company_id] * 2


@guards("trial_after_no_answer", "trial_of_another", "voice_trial")
def test_trials_in_vain_are_first_of_companies_without_failures(
    tenant: Tenant, other: Tenant, now: TestClock, on_trial: VoiceServerJudge, released: Released
) -> None:
    """The calls of these started last before the probe."""
    well = [of_company(tenant, seed(tenant.database, now())) for _ in range(2)]
    before = now() - 2 * A_SECOND
    for each in well:
        each.change("UPDATE companies SET next_slot_at = :at WHERE id = :id", at=before, id=each.company_id)
    tried = tried_in_vain((tenant, other, *well), now, on_trial, released, 6)
    assert tried == [each.company_id for each in (*well, tenant, other, *well)]


@guards("trial_without_answer", "voice_trial")
def test_ringing_trial_does_not_close_the_breaker(
    tenant: Tenant, other: Tenant, now: TestClock, on_trial: VoiceServerJudge
) -> None:
    """The callback of its end is late, so another call is tried."""
    trial = placed(tenant)
    now.move(timedelta(seconds=20))
    tenant.take(trial, Progressed(rank=CallProgress.RINGING))
    now.move(tenant.policy.room - A_SECOND)
    on_trial.run()
    assert voice_server.awaits_verdict(breaker_of(tenant)), "it may still ring"
    now.move(BACK_OFF[0])
    on_trial.run()
    assert breaker_of(tenant).is_on_trial
    assert is_claimed(other, a_pending_attempt(other))


def test_queued_trial_is_awaited_for_five_minutes(tenant: Tenant, now: TestClock, on_trial: VoiceServerJudge) -> None:
    trial = a_claimed_attempt(tenant)
    tenant.dial.record([(trial, Accepted(call_sid=f"CA{trial.id.hex}", queue_time=timedelta(minutes=10)))])
    now.move(tenant.policy.room + A_SECOND)
    on_trial.run()
    assert voice_server.awaits_verdict(breaker_of(tenant))
    now.move(BACK_OFF[-1])
    on_trial.run()
    assert breaker_of(tenant).is_on_trial, "another call is tried, so that calls do not wait any longer"


def test_trial_with_an_unknown_answer_shows_nothing(
    tenant: Tenant, other: Tenant, now: TestClock, on_trial: VoiceServerJudge
) -> None:
    tenant.dial.record([(a_claimed_attempt(tenant), AnswerUnknown(cause="HTTP_500"))])
    trial = placed(other)
    other.take(trial, Ended(reason=Reason.BUSY, ended_at=now()))
    now.move(tenant.policy.room + A_SECOND)
    on_trial.run()
    assert breaker_of(tenant).is_on_trial


def test_trial_counts_if_an_older_call_ends_after_it(
    tenant: Tenant, now: TestClock, hear: Hear, hints: RecordingHints
) -> None:
    older = answered(tenant)
    now.move(A_SECOND)
    judge = VoiceServerJudge(tenant.context, None, tenant.account_id)
    for _ in range(2):
        failed_call(tenant, hear, hints, judge)
    now.move(BACK_OFF[0])
    judge.run()
    trial = placed(tenant)
    for each in (trial, older):
        now.move(A_SECOND)
        tenant.take(each, Ended(reason=Reason.ANSWERED, ended_at=now(), duration=A_SECOND))
    now.move(voice_server.TRIAL_LASTS)
    judge.run()
    assert breaker_of(tenant) == Breaker()


@pytest.mark.parametrize("is_failed", [pytest.param(False, marks=guards("trial_of_a_machine")), True])
def test_trial_that_a_machine_answered_got_its_instructions(
    tenant: Tenant, now: TestClock, on_trial: VoiceServerJudge, is_failed: bool
) -> None:
    trial = answered(tenant, placed(tenant))
    now.move(A_SECOND)
    tenant.take(trial, Ended(reason=Reason.VOICEMAIL, ended_at=now(), answered_by=AnsweredBy.MACHINE))
    if is_failed:
        tenant.change("UPDATE attempts SET instructions_failed = true WHERE id = :id", id=trial.id)
    now.move(voice_server.TRIAL_LASTS)
    on_trial.run()
    assert (breaker_of(tenant) == Breaker()) is not is_failed


def test_verdict_of_a_trial_is_awaited_if_its_record_is_lost(
    tenant: Tenant, now: TestClock, on_trial: VoiceServerJudge
) -> None:
    [trial] = claimed(tenant, a_pending_attempt(tenant))
    on_trial.run()
    assert breaker_of(tenant).is_on_trial, "it is not placed yet"
    apply_news(tenant, trial, CallStatus.ANSWERED, call_sid=f"CA{trial.id.hex}")
    on_trial.run()
    assert voice_server.awaits_verdict(breaker_of(tenant))
    now.move(voice_server.TRIAL_LASTS)
    on_trial.run()
    assert breaker_of(tenant) == Breaker()


@guards("trial_behind", "voice_trial", "one_trial")
def test_trial_of_a_worker_whose_clock_is_behind_counts(
    tenant: Tenant, other: Tenant, now: TestClock, on_trial: VoiceServerJudge, hear: Hear, hints: RecordingHints
) -> None:
    behind = replace(tenant, now=lambda: now() - 2 * A_SECOND)
    pending = a_pending_attempt(tenant)
    tenant.change("UPDATE attempts SET due_at = :at WHERE id = :id", at=now() - 10 * A_SECOND, id=pending.id)
    [trial] = claimed(behind, pending)
    assert trial.claimed_at == now()
    apply_news(tenant, trial, CallStatus.RINGING, call_sid=f"CA{trial.id.hex}")
    assert not is_claimed(other, a_pending_attempt(other)), "it is the one trial"
    tenant.dial.record([(trial, Accepted(call_sid=f"CA{trial.id.hex}"))])
    failed_call(tenant, hear, hints, on_trial, tenant.attempt(trial.id))
    assert (breaker_of(tenant).trials, breaker_of(tenant).down_until) == (1, now() + BACK_OFF[1])


@guards("trial_set_back", "voice_trial", "breaker")
def test_trial_closes_the_breaker_if_the_clock_is_set_back(
    tenant: Tenant, other: Tenant, now: TestClock, on_trial: VoiceServerJudge
) -> None:
    now.move(-timedelta(minutes=30))
    trial = answered(tenant, placed(tenant))
    assert not is_claimed(other, a_pending_attempt(other))
    now.move(A_SECOND)
    tenant.take(trial, Ended(reason=Reason.ANSWERED, ended_at=now(), duration=A_SECOND))
    now.move(voice_server.TRIAL_LASTS)
    on_trial.run()
    assert breaker_of(tenant) == Breaker()


@pytest.mark.usefixtures("on_trial")
@pytest.mark.parametrize("fails_of", ["one", "both"])
def test_alarm_of_a_failed_trial_names_what_the_carrier_did(tenant: Tenant, other: Tenant, fails_of: str) -> None:
    with capture_logs() as logs:
        for each in (tenant, other)[: 2 if fails_of == "both" else 1]:
            each.dial.record([(a_claimed_attempt(each), AnswerUnknown(cause="HTTP_500"))])
    alarms = alarms_of(logs)
    assert "CARRIER_VOICE_SERVER" not in alarms
    assert ("CARRIER_HTTP_500" in alarms) is (fails_of == "both")
    assert breaker_of(tenant).cause == voice_server.CAUSE


@pytest.mark.parametrize("is_tried", [False, True])
def test_failed_probe_of_the_carrier_does_not_end_the_outage(
    tenant: Tenant,
    other: Tenant,
    carrier: SimulatedCarrier,
    now: TestClock,
    hear: Hear,
    hints: RecordingHints,
    is_tried: bool,
) -> None:
    """The carrier failed the calls of one company, and is probed while calls get no instructions."""
    judge = VoiceServerJudge(tenant.context, None, tenant.account_id)
    failing = {each.company_id: (each, a_placed_attempt(each)) for each in (tenant, other)}
    tenant.dial.record([(a_claimed_attempt(tenant), AnswerUnknown(cause="HTTP_500"))])
    now.move(BACK_OFF[0])

    class Queries(TwilioQueries):
        def probe(self) -> None:
            for each, attempt in failing.values():
                failed_call(each, hear, hints, judge, attempt)
            if is_tried:
                now.move(BACK_OFF[0])
                judge.run()
            super().probe()

    away = Queries(carrier.account(url=a_closed_port()), tenant.policy)
    with capture_logs() as logs:
        CarrierProbe(tenant.context, away, tenant.account_id).run()
    assert alarms_of(logs)[-1] == "CARRIER_HTTP_500"
    down = breaker_of(tenant)
    assert (down.is_down, down.cause, down.answered_at) == (True, voice_server.CAUSE, None)
    assert down.down_until == now() + BACK_OFF[0]
