"""The breaker of the voice server: when it opens, and how a probe and one trial call close it."""

from datetime import timedelta
from uuid import UUID

import pytest

from scheduler.domain.call import Accepted, AnswerUnknown, CarrierAnswer, NumberRefused
from scheduler.lifecycle import backoffs, voice_server
from scheduler.lifecycle.backoffs import Where
from scheduler.lifecycle.breaker import BACK_OFF, Breaker
from scheduler.lifecycle.voice_server import CAUSE, TRIAL_LASTS, Failures, Trial
from tests.architecture.guards import guards
from tests.conftest import NOON

A_SECOND = timedelta(seconds=1)
OPEN = voice_server.after_failure(Breaker(), NOON, NOON)
PROBED_AT = NOON + BACK_OFF[0]
ON_TRIAL = voice_server.after_probe(OPEN, PROBED_AT)
PLACED = voice_server.after_trial_was_placed(ON_TRIAL, PROBED_AT + A_SECOND)
WHERE = Where(company_id=UUID(int=1), caller="+421221020001", country="SK")


@pytest.mark.parametrize(
    ("failures", "companies", "answers", "is_open"),
    [
        pytest.param((1, 1), 1, False, False, id="one call"),
        pytest.param((2, 1), 1, True, True, id="the only company"),
        pytest.param((2, 2), 2, True, True, id="two companies"),
        pytest.param((5, 1), 2, True, False, id="one of several", marks=guards("voice_alone")),
        pytest.param((2, 1), 2, False, True, id="one of several, and no answer"),
        pytest.param((5, 1), 2, None, False, id="one of several, without a probe", marks=guards("voice_alone")),
        pytest.param((2, 2), 2, None, True, id="two companies, without a probe"),
        pytest.param((2, 1), 1, None, True, id="the only company, without a probe"),
    ],
)
def test_two_failures_in_a_row_open(
    failures: tuple[int, int], companies: int, answers: bool | None, is_open: bool
) -> None:
    counted = Failures(calls=failures[0], companies=failures[1])
    assert voice_server.opens(counted, companies, answers=answers) is is_open


def test_breaker_of_the_carrier_keeps_its_cause() -> None:
    down = Breaker(failures=5, down_until=PROBED_AT, cause="HTTP_500")
    assert voice_server.after_failure(down, NOON, NOON) == down
    assert not voice_server.is_down(down)


def test_answered_probe_permits_one_call() -> None:
    assert (OPEN.is_down, OPEN.is_to_be_asked(PROBED_AT - A_SECOND), OPEN.is_to_be_asked(PROBED_AT)) == (
        *(True, False, True),
    )
    assert ON_TRIAL.is_on_trial
    probed = voice_server.while_probed(OPEN, PROBED_AT)
    assert (probed.is_down, probed.down_until) == (True, PROBED_AT + BACK_OFF[0]), "the wait stays short"


def answered(before: Breaker, answer: CarrierAnswer) -> Breaker:
    return backoffs.judge(before, {}, [(WHERE, answer)], 1, PROBED_AT + A_SECOND).account


@guards("voice_trial")
def test_placed_trial_is_decided_later() -> None:
    after = answered(ON_TRIAL, Accepted(call_sid="CA1"))
    assert after == PLACED
    assert after.is_down
    assert voice_server.awaits_verdict(after)
    assert answered(ON_TRIAL, NumberRefused(cause="TWILIO_21211")) == ON_TRIAL, "it shows nothing of the voice server"


def test_trial_without_a_fallback_closes_the_breaker() -> None:
    assert PLACED.down_until == PROBED_AT + A_SECOND + TRIAL_LASTS
    assert voice_server.after_probe(PLACED, PLACED.down_until, Trial(is_open=False, has_succeeded=True)) == Breaker()
    again = voice_server.after_probe(PLACED, PLACED.down_until, Trial(is_open=False, has_succeeded=False))
    assert (again.is_on_trial, again.trials) == (True, 0), "it was not answered, so another call is tried"
    probed_in_vain = voice_server.while_probed(PLACED, PLACED.down_until)
    assert voice_server.awaits_verdict(probed_in_vain)


@guards("trial_behind")
def test_trial_is_not_claimed_before_its_probe() -> None:
    behind = PROBED_AT - A_SECOND
    assert voice_server.claimed_at(ON_TRIAL, behind) == PROBED_AT
    assert voice_server.claimed_at(ON_TRIAL, PROBED_AT + A_SECOND) == PROBED_AT + A_SECOND
    assert [voice_server.claimed_at(each, behind) for each in (Breaker(), OPEN)] == [behind, behind]


@guards("trial_set_back")
def test_verdict_is_awaited_if_the_clock_is_set_back() -> None:
    back = PROBED_AT - timedelta(minutes=30)
    for each in (voice_server.after_trial_was_placed(ON_TRIAL, back), voice_server.while_probed(PLACED, back)):
        assert voice_server.awaits_verdict(each)
        assert each.answered_at == back


def test_only_claims_after_an_answered_probe_are_trials() -> None:
    of_the_carrier = Breaker(failures=5, down_until=PROBED_AT, answered_at=PROBED_AT, cause="HTTP_500")
    assert of_the_carrier.is_on_trial
    assert [voice_server.tried_since(each) for each in (Breaker(), OPEN, of_the_carrier, PLACED)] == [None] * 4
    assert voice_server.tried_since(ON_TRIAL) == PROBED_AT


@guards("voice_cause")
def test_failure_of_the_carrier_keeps_the_cause() -> None:
    failed = answered(ON_TRIAL, AnswerUnknown(cause="HTTP_500"))
    assert (failed.is_down, failed.cause, failed.trials) == (True, CAUSE, 1)
    assert failed.down_until == PROBED_AT + A_SECOND + BACK_OFF[1]
    of_the_carrier = Breaker(failures=6, down_until=PROBED_AT, cause="HTTP_500", trials=1)
    assert voice_server.after_carrier_failure(ON_TRIAL, of_the_carrier) == Breaker(
        failures=6, down_until=PROBED_AT, cause=CAUSE, trials=1
    )


UNANSWERED = Trial(is_open=False, has_succeeded=False)


@guards("unanswered_trials")
def test_unanswered_trials_in_a_row_lengthen_the_wait() -> None:
    """The first one is followed by another at once, so that one person who is out delays no others."""
    found, now = PLACED, PROBED_AT + timedelta(minutes=1)
    found = voice_server.after_probe(found, now, UNANSWERED)
    assert found.is_on_trial
    for wait in (BACK_OFF[1], BACK_OFF[2], BACK_OFF[3], BACK_OFF[3]):
        found = voice_server.after_trial_was_placed(found, now)
        now += timedelta(minutes=1)
        found = voice_server.after_probe(voice_server.while_probed(found, now), now, UNANSWERED)
        assert (found.is_down, found.down_until, found.trials, found.cause) == (True, now + wait, 0, CAUSE)
        assert not voice_server.awaits_verdict(found)
        now += wait
        found = voice_server.after_probe(voice_server.while_probed(found, now), now)
        assert found.is_on_trial
    failed = voice_server.after_failure(found, now, now)
    assert (failed.trials, failed.down_until) == (1, now + BACK_OFF[1]), "a verdict begins a new row"


def test_only_trials_of_the_voice_server_are_unanswered() -> None:
    once = voice_server.after_probe(PLACED, PROBED_AT, UNANSWERED)
    assert [voice_server.unanswered_trials(each) for each in (Breaker(), PLACED, once)] == [0, 0, 1]
    of_the_carrier = Breaker(failures=9, down_until=PROBED_AT, cause="HTTP_500")
    assert voice_server.unanswered_trials(of_the_carrier) == 0, "its failures are probes"


def test_failed_trial_lengthens_the_wait() -> None:
    found = PLACED
    for trials in (1, 2, 3, 4):
        now = NOON + timedelta(hours=trials)
        found = voice_server.after_failure(found, now, now)
        wait = BACK_OFF[min(trials, len(BACK_OFF) - 1)]
        assert (found.trials, found.down_until, found.answered_at, found.cause) == (trials, now + wait, None, CAUSE)
        probed_at = now + wait
        found = voice_server.after_trial_was_placed(voice_server.after_probe(found, probed_at), probed_at)


@pytest.mark.parametrize(
    ("failed_companies", "waits"),
    [
        pytest.param(1, [1, 1, 1, 1], id="one of several", marks=guards("trials_of_one")),
        pytest.param(2, [1, 2, 2, 2], id="two of several"),
        pytest.param(9, [1, 2, 3, 3], id="many"),
        pytest.param(None, [1, 2, 3, 3], id="the only company"),
    ],
)
def test_trials_of_one_company_lengthen_the_wait_by_a_step(failed_companies: int | None, waits: list[int]) -> None:
    found = PLACED
    for trials, steps in enumerate(waits, start=1):
        now = NOON + timedelta(hours=trials)
        found = voice_server.after_failure(found, now, now, failed_companies)
        assert (found.trials, found.down_until) == (trials, now + BACK_OFF[steps])
        found = voice_server.after_trial_was_placed(voice_server.after_probe(found, now + BACK_OFF[steps]), now)


@pytest.mark.parametrize("breaker", [OPEN, ON_TRIAL, PLACED])
def test_failure_of_an_earlier_call_does_not_count(breaker: Breaker) -> None:
    assert voice_server.after_failure(breaker, NOON, PROBED_AT + 2 * A_SECOND) == breaker
