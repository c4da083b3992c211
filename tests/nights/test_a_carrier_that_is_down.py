"""A carrier that is down for an hour: who is due waits, nothing is spent, and afterwards every phone rings."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from scheduler.carriers.twilio import TwilioLine
from scheduler.lifecycle.breaker import BACK_OFF, OPENS_AFTER
from scheduler.use_cases.release import Release
from scheduler.use_cases.settle import Settle
from tests.builders import House, KeptBell, a_pending_attempt
from tests.conftest import TestClock
from tests.nights.hand import UNDER_WAY, Hand, a_hand
from tests.servers import SimulatedCarrier, a_closed_port

PEOPLE = 200
A_LOOK = timedelta(seconds=10)
AN_HOUR = timedelta(hours=1)
A_FEW_MINUTES = timedelta(minutes=7)
"""The last probe may have been in vain just before the carrier came back; the next one is five minutes later."""
PROBES = 3 + AN_HOUR // BACK_OFF[-1]


def pass_time(hand: Hand, settle: Settle, span: timedelta) -> None:
    """The clock, the diallers and whoever settles look every few seconds."""
    until = hand.now() + span
    while hand.now() < until:
        hand.look()
        settle.round()
        hand.now.instant = max(hand.now(), min(hand.now() + A_LOOK, until))


def breaker_of(house: House) -> tuple[int, datetime | None]:
    [row] = house.ask("SELECT failures, down_until FROM carrier_accounts")
    return row.failures, row.down_until


def ends_of(house: House) -> dict[str, int]:
    rows = house.ask("SELECT coalesce(reason, state) AS became, count(*) AS times FROM attempts GROUP BY 1")
    return {row.became: row.times for row in rows}


@contextmanager
def down(kind: str, hand: Hand, carrier: SimulatedCarrier, house: House) -> Iterator[None]:
    """However a carrier can be down; it is up again at the end."""
    up = hand.line
    account = carrier.account()
    if kind == "refused":
        hand.line = TwilioLine(replace(account, api_url=a_closed_port()), house.policy)
    elif kind == "wrong credentials":
        hand.line = TwilioLine(replace(account, auth_tokens=("another's token",)), house.policy)
    else:
        carrier.down(kind)
    yield
    if hand.line is up:
        carrier.up()
    else:
        hand.closes()
        hand.line = up


def alarms(logs: Any) -> set[str]:
    return {str(each["alarm"]) for each in logs if "alarm" in each}


@pytest.fixture
def hand(house: House, now: TestClock, release: Release, bell: KeptBell, carrier: SimulatedCarrier) -> Iterator[Hand]:
    with a_hand(house, now, release, bell, TwilioLine(carrier.account(), house.policy)) as hand:
        yield hand


@pytest.mark.parametrize(
    ("kind", "alarm"),
    [
        pytest.param("refused", "CARRIER_NEVER_CONNECTED", id="no connection is taken"),
        pytest.param("429", "CARRIER_THROTTLED", id="429"),
        pytest.param(
            "wrong credentials", "CARRIER_CREDENTIALS", id="our credentials are wrong, until settings mend them"
        ),
    ],
)
def test_an_hour_in_which_the_carrier_takes_nothing_costs_nobody_a_call(
    house: House,
    hand: Hand,
    settle: Settle,
    carrier: SimulatedCarrier,
    kind: str,
    alarm: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    people = [a_pending_attempt(house) for _ in range(PEOPLE)]
    with capture_logs() as logs, down(kind, hand, carrier, house):
        pass_time(hand, settle, AN_HOUR)
    probes = hand.claims[1:]
    assert alarm in alarms(logs)
    assert carrier.rings() == []
    assert ends_of(house) == {"PENDING": PEOPLE}
    assert len(hand.posts) <= OPENS_AFTER + UNDER_WAY + PROBES, "few are tried in vain"
    assert [count for _, count in probes] == [1] * len(probes), "one at a time"
    assert len(probes) <= PROBES
    assert breaker_of(house)[1] is not None

    tried = len(hand.posts)
    with capsys.disabled():
        print(f"\n  {kind}: {tried} POSTs in an hour, {len(probes)} of them probes, for {PEOPLE} people who were due")
    with capture_logs() as logs:
        pass_time(hand, settle, A_FEW_MINUTES)
    assert len(hand.posts) - tried == PEOPLE, "each once"
    assert len({ring["to"] for ring in carrier.rings()}) == len(carrier.rings()) == PEOPLE
    assert breaker_of(house) == (0, None), "the first success closes it"
    assert [each["event"] for each in logs if "carrier" in each["event"]] == ["the carrier takes calls"]
    assert ends_of(house) == {"ANSWERED": PEOPLE}
    rows = house.ask("SELECT count(*), max(retry_number), max(not_placed) FROM attempts")
    assert tuple(rows[0]) == (len(people), 0, 0), "no retry was spent, none was made"


def test_of_an_hour_of_answers_that_prove_nothing_a_handful_ends_unknown_and_the_others_ring(
    house: House, hand: Hand, settle: Settle, carrier: SimulatedCarrier, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(PEOPLE):
        a_pending_attempt(house)
    with capture_logs() as logs, down("503", hand, carrier, house):
        pass_time(hand, settle, AN_HOUR)
    unknown = len(hand.posts)
    with capsys.disabled():
        print(f"\n  503: {unknown} POSTs in an hour, each of unknown outcome, for {PEOPLE} people who were due")
    assert alarms(logs) == {"CARRIER_HTTP_503", "OUTCOME_UNKNOWN"}
    assert unknown <= OPENS_AFTER + UNDER_WAY + PROBES
    pass_time(hand, settle, A_FEW_MINUTES)
    assert len({ring["to"] for ring in carrier.rings()}) == len(carrier.rings()) == PEOPLE - unknown
    assert ends_of(house) == {"ANSWERED": PEOPLE - unknown, "OUTCOME_UNKNOWN": unknown}
    assert breaker_of(house) == (0, None)
