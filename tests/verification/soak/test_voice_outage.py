"""The judgement of a dead voice server reports each kind of fault, and accepts an outage without one."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.verification.soak.soak_setup import STARTS_AT
from tests.verification.soak.voice_outage import (
    Answer,
    Breaker,
    BreakerEvent,
    VoiceOutage,
    answers_from,
    breaker_events_in,
    judged,
)

HOUR_S = 3600.0


def at(seconds: float) -> datetime:
    """Compute an instant after the death of the voice server."""
    return STARTS_AT + timedelta(seconds=seconds)


def event(kind: Breaker, seconds: float) -> BreakerEvent:
    return BreakerEvent(kind=kind, at=at(seconds))


def answer(seconds: float, *, is_instructed: bool = False) -> Answer:
    """Build a call that was answered half a second after it was accepted."""
    return Answer(accepted_at=at(seconds), answered_at=at(seconds + 0.5), is_instructed=is_instructed)


OUTAGE = VoiceOutage(
    died_at=STARTS_AT,
    answers_at=at(HOUR_S),
    events=[event(Breaker.OPENED, 1.0), event(Breaker.TRIED, HOUR_S + 4), event(Breaker.CLOSED, HOUR_S + 20)],
    answers=[
        answer(-1, is_instructed=True),
        *(answer(seconds) for seconds in (0.1, 0.2, 0.3, 0.4)),
        *(answer(HOUR_S + seconds, is_instructed=True) for seconds in (5, 20.5, 20.6)),
    ],
)


def with_events(*events: BreakerEvent) -> VoiceOutage:
    return replace(OUTAGE, events=events)


def with_answers(*more: Answer) -> VoiceOutage:
    return replace(OUTAGE, answers=[*OUTAGE.answers, *more])


def only_instructed_after(*seconds: float) -> VoiceOutage:
    before: Sequence[Answer] = [each for each in OUTAGE.answers if each.accepted_at < OUTAGE.answers_at]
    return replace(OUTAGE, answers=[*before, *(answer(HOUR_S + each, is_instructed=True) for each in seconds)])


def test_outage_that_calls_wait_for_has_no_fault() -> None:
    found = judged(OUTAGE)
    assert found.faults == []
    assert "2 calls were spent to notice it, 2 more were in the air" in found.lines[0]
    assert "a trial call after 5.0 s, all calls after 20.5 s" in found.lines[-1]


@pytest.mark.parametrize(
    ("outage", "fault"),
    [
        pytest.param(with_events(), "did not open", id="the breaker does not open"),
        pytest.param(
            with_events(event(Breaker.OPENED, HOUR_S + 1)), "did not open", id="it opens after the voice server answers"
        ),
        pytest.param(
            with_events(event(Breaker.OPENED, 9.0), event(Breaker.CLOSED, HOUR_S + 20)), "opened 8.3 s", id="it is slow"
        ),
        pytest.param(with_answers(answer(4.0)), "number 1, after 0 trials", id="a call is placed although it is open"),
        pytest.param(with_events(event(Breaker.OPENED, 1.0)), "did not close", id="it does not close"),
        pytest.param(only_instructed_after(5.0), "did not close", id="only the trial call is placed"),
        pytest.param(only_instructed_after(5.0, 31.0), "only 31.0 s", id="calls are placed again too late"),
    ],
)
def test_each_fault_of_an_outage_is_reported(outage: VoiceOutage, fault: str) -> None:
    assert any(fault in each for each in judged(outage).faults)


def test_call_is_allowed_for_each_trial() -> None:
    tried = [*OUTAGE.events, event(Breaker.TRIED, 60.0), event(Breaker.OPENED, 62.0)]
    outage = replace(with_answers(answer(61.0)), events=tried)
    assert judged(outage).faults == []
    assert judged(replace(outage, answers=[*outage.answers, answer(63.0), answer(64.0)])).faults != []


def test_breaker_events_are_found_in_logs(tmp_path: Path) -> None:
    log = tmp_path / "settle.log"
    line = '{"event": "voice_server_up: a trial call got its instructions", "at": "2026-04-02T14:26:00Z"}'
    others = [
        "not JSON",
        '{"event": "voice_server_',
        '{"event": "voice_server_silent: x", "at": "2026-04-02T14:26:00Z"}',
    ]
    log.write_text("\n".join((*others, line)), encoding="utf-8")
    assert list(breaker_events_in(log)) == [BreakerEvent(kind=Breaker.CLOSED, at=STARTS_AT)]


def test_ledger_gives_answered_calls_only() -> None:
    ring = {"accepted_at": at(0).isoformat(), "answered_at": at(0.5).isoformat(), "instructed": False}
    assert list(answers_from([ring, {**ring, "answered_at": None, "instructed": None}])) == [answer(0)]
