"""Carrier outage of an hour: due calls wait, at most calls under way are lost, and afterwards all others are placed.

`make proof` has more outages, and more people.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from scheduler.carriers.twilio_calls import TwilioCallPlacer
from scheduler.lifecycle.breaker import BACK_OFF, OPENS_AFTER
from scheduler.use_cases.release import Release
from tests.conftest import TestClock
from tests.support import exhaustive
from tests.support.builders import RecordingHints, Tenant, a_pending_attempt
from tests.support.servers import SimulatedCarrier, a_closed_port
from tests.verification.world.moved_clock import UNDER_WAY, WorkerHand, a_worker_hand, settling

PEOPLE = exhaustive.cases(200, 60)
A_LOOK = timedelta(seconds=exhaustive.cases(10, 20))
AN_HOUR = timedelta(hours=1)
A_FEW_MINUTES = timedelta(minutes=7)
"""The last failed probe may precede the carrier's return. The next probe follows five minutes later."""
BEFORE_IT_IS_KNOWN = OPENS_AFTER + UNDER_WAY - 1
"""POSTs that fail before the breaker opens, where a failure costs no call."""
TRIALS = len(BACK_OFF) - 1 + AN_HOUR // BACK_OFF[-1]
"""Further trials in an hour in which the carrier answers polls and accepts no calls."""


def pass_time(hand: WorkerHand, span: timedelta) -> None:
    """Run the clock, the diallers and the settler every few seconds."""
    until = hand.now() + span
    while hand.now() < until:
        hand.look()
        hand.settle.round()
        hand.now.instant = max(hand.now(), min(hand.now() + A_LOOK, until))


def breaker_of(tenant: Tenant) -> tuple[int, datetime | None]:
    [row] = tenant.ask("SELECT failures, down_until FROM carrier_accounts")
    return row.failures, row.down_until


def ends_of(tenant: Tenant) -> dict[str, int]:
    rows = tenant.ask("SELECT coalesce(reason, state) AS became, count(*) AS times FROM attempts GROUP BY 1")
    return {row.became: row.times for row in rows}


@contextmanager
def down(kind: str, hand: WorkerHand, carrier: SimulatedCarrier, *, answers: bool = False) -> Iterator[None]:
    """Take the carrier down for the diallers and the settler. It is up again at the end."""
    line, settle, account = hand.line, hand.settle, carrier.account()
    if kind == "refused":
        account = replace(account, api_url=a_closed_port())
    elif kind == "wrong credentials":
        account = replace(account, auth_tokens=("another's token",))
    else:
        carrier.down(kind, answers_questions=answers)
    hand.line = TwilioCallPlacer(account, hand.tenant.policy)
    with settling(account, hand.tenant) as hand.settle:
        yield
    hand.close_line()
    hand.line, hand.settle = line, settle
    carrier.up()


def alarms(logs: Any) -> set[str]:
    return {str(each["alarm"]) for each in logs if "alarm" in each}


@pytest.fixture
def hand(
    tenant: Tenant, now: TestClock, release: Release, hints: RecordingHints, carrier: SimulatedCarrier
) -> Iterator[WorkerHand]:
    account = carrier.account()
    line = TwilioCallPlacer(account, tenant.policy)
    with a_worker_hand(tenant, now, release, hints, line) as hand, settling(account, tenant) as hand.settle:
        yield hand


@pytest.mark.parametrize(
    ("kind", "answers", "alarm"),
    [
        pytest.param("429", True, "CARRIER_THROTTLED", id="429 to calls alone"),
        *exhaustive.more(
            pytest.param("refused", False, "CARRIER_NEVER_CONNECTED", id="no connection is accepted"),
            pytest.param("429", False, "CARRIER_THROTTLED", id="429"),
            pytest.param(
                *("wrong credentials", False, "CARRIER_CREDENTIALS"),
                id="our credentials are wrong, until the settings are fixed",
            ),
        ),
    ],
)
def test_outage_with_clear_refusals_costs_no_call(
    hand: WorkerHand, carrier: SimulatedCarrier, kind: str, answers: bool, alarm: str, aloud: Callable[[str], None]
) -> None:
    tenant = hand.tenant
    people = [a_pending_attempt(tenant) for _ in range(PEOPLE)]
    with capture_logs() as logs, down(kind, hand, carrier, answers=answers):
        pass_time(hand, AN_HOUR)
    trials = hand.claims[1:]
    assert alarms(logs) == {alarm}
    assert carrier.rings() == []
    assert ends_of(tenant) == {"PENDING": PEOPLE}
    assert len(hand.posts) - len(trials) <= BEFORE_IT_IS_KNOWN
    assert [count for _, count in trials] == [1] * len(trials), "one at a time"
    assert len(trials) <= (TRIALS if answers else 0), "no trial while polls fail"
    assert breaker_of(tenant)[1] is not None

    tried = len(hand.posts)
    aloud(f"  {kind}: {tried} POSTs in an hour, {len(trials)} of them trials, for {PEOPLE} due calls")
    with capture_logs() as logs:
        pass_time(hand, A_FEW_MINUTES)
    assert len(hand.posts) - tried == PEOPLE, "each person once"
    assert len({ring["to"] for ring in carrier.rings()}) == len(carrier.rings()) == PEOPLE
    assert breaker_of(tenant) == (0, None), "the first success closes it"
    assert [each["event"] for each in logs if "carrier" in each["event"]] == [
        "carrier_half_open: the carrier answered a probe, so one call is tried",
        "carrier_up: the carrier accepted a call again",
    ]
    assert ends_of(tenant) == {"ANSWERED": PEOPLE}
    rows = tenant.ask("SELECT count(*), max(retry_number), max(not_placed) FROM attempts")
    assert tuple(rows[0]) == (len(people), 0, 0), "no retry was used or made"


@pytest.mark.parametrize(
    ("kind", "answers", "alarm", "trials"),
    [
        pytest.param("503", False, "CARRIER_HTTP_503", 0, id="503 to everything"),
        pytest.param("503", True, "CARRIER_HTTP_503", TRIALS, id="503 to calls alone"),
        *exhaustive.more(
            pytest.param("drop", False, "CARRIER_ANSWER_BROKE_OFF", 0, id="it hangs up on everything"),
            pytest.param("drop", True, "CARRIER_ANSWER_BROKE_OFF", TRIALS, id="it hangs up on calls alone"),
        ),
    ],
)
def test_outage_without_proof_ends_only_sent_calls_unknown(
    hand: WorkerHand,
    carrier: SimulatedCarrier,
    kind: str,
    answers: bool,
    alarm: str,
    trials: int,
    aloud: Callable[[str], None],
) -> None:
    tenant = hand.tenant
    for _ in range(PEOPLE):
        a_pending_attempt(tenant)
    with capture_logs() as logs, down(kind, hand, carrier, answers=answers):
        pass_time(hand, AN_HOUR)
    unknown = len(hand.posts)
    aloud(f"  {kind}: {unknown} POSTs in an hour, each of unknown outcome, for {PEOPLE} due calls")
    # While every poll fails there is no verdict, so an alarm reports that it is overdue.
    assert alarms(logs) == {alarm, "OUTCOME_UNKNOWN" if answers else "OUTCOME_UNDECIDED"}
    assert len(hand.claims) - 1 <= trials, "no trial while polls fail"
    assert unknown == UNDER_WAY + len(hand.claims) - 1, "calls under way before the first answer, and each trial"
    pass_time(hand, A_FEW_MINUTES)
    assert len({ring["to"] for ring in carrier.rings()}) == len(carrier.rings()) == PEOPLE - unknown
    assert ends_of(tenant) == {"ANSWERED": PEOPLE - unknown, "OUTCOME_UNKNOWN": unknown}
    assert breaker_of(tenant) == (0, None)
