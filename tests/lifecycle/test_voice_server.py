"""The breaker of the voice server: when it opens, and how a probe and one trial call close it."""

from datetime import timedelta
from uuid import UUID

import pytest

from scheduler.domain.call import Accepted, CarrierAnswer, NumberRefused
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
