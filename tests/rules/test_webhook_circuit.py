"""Circuits of endpoints: ten failures open one, a probe a minute, a success closes it, five days disable it."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.domain.webhook import DisabledCause
from scheduler.rules.webhooks import (
    DISABLED_AFTER,
    OPENS_AFTER,
    PROBE_EVERY,
    Circuit,
    after_failure,
    after_gone,
    after_success,
    reset,
    while_probed,
)
from tests.conftest import NOON

SECOND = timedelta(seconds=1)


def failed(times: int, circuit: Circuit | None = None, *, at: datetime = NOON) -> Circuit:
    circuit = circuit or Circuit()
    for _ in range(times):
        circuit = after_failure(circuit, at)
    return circuit


OPEN = failed(OPENS_AFTER)


@given(times=st.integers(0, OPENS_AFTER - 1))
def test_circuit_stays_closed_before_the_tenth_failure(times: int) -> None:
    circuit = failed(times)
    assert (circuit.is_open, circuit.may_send(NOON), circuit.consecutive_failures) == (False, True, times)
    assert while_probed(circuit, NOON) == circuit, "a closed circuit limits nothing"


def test_tenth_failure_opens_the_circuit() -> None:
    assert (
        Circuit(consecutive_failures=10, failing_since=NOON, circuit_opened_at=NOON, probe_at=NOON + PROBE_EVERY)
        == OPEN
    )
    assert not OPEN.may_send(NOON)
    assert not OPEN.may_send(NOON + PROBE_EVERY - SECOND)
    assert OPEN.may_send(NOON + PROBE_EVERY)


def test_one_worker_probes_and_the_next_waits_a_minute() -> None:
    at = NOON + PROBE_EVERY
    probing = while_probed(OPEN, at)
    assert not probing.may_send(at)
    assert probing.may_send(at + PROBE_EVERY), "the worker may have died"
    assert failed(1, probing, at=at + SECOND).probe_at == at + PROBE_EVERY


def test_late_failures_do_not_delay_the_probe() -> None:
    assert failed(5, OPEN, at=NOON + 30 * SECOND).probe_at == OPEN.probe_at


@given(times=st.integers(0, 40))
def test_one_success_closes_the_circuit(times: int) -> None:
    assert after_success(failed(times)) == Circuit()


def test_failures_count_only_in_a_row() -> None:
    assert not failed(OPENS_AFTER - 1, after_success(failed(OPENS_AFTER - 1))).is_open


def test_probe_is_due_when_the_clock_was_set_back() -> None:
    assert OPEN.may_send(NOON - timedelta(days=1))
    assert not OPEN.may_send(NOON + SECOND)


def test_five_days_of_failures_disable_the_endpoint() -> None:
    early = failed(1, OPEN, at=NOON + DISABLED_AFTER - SECOND)
    assert early.disabled_at is None
    at = NOON + DISABLED_AFTER
    late = failed(1, early, at=at)
    assert (late.disabled_at, late.disabled_cause) == (at, DisabledCause.FAILING)
    assert not late.may_send(at + timedelta(days=30))


def test_few_failures_do_not_disable_after_five_days() -> None:
    circuit = failed(1, failed(1), at=NOON + 2 * DISABLED_AFTER)
    assert (circuit.disabled_at, circuit.is_open) == (None, False)


def test_success_restarts_the_five_days() -> None:
    circuit = failed(OPENS_AFTER, after_success(OPEN), at=NOON + DISABLED_AFTER)
    assert (circuit.disabled_at, circuit.failing_since) == (None, NOON + DISABLED_AFTER)


@pytest.mark.parametrize("circuit", [Circuit(), failed(3), OPEN])
def test_gone_disables_at_once(circuit: Circuit) -> None:
    gone = after_gone(circuit, NOON)
    assert gone == replace(circuit, disabled_at=NOON, disabled_cause=DisabledCause.GONE)
    assert not gone.may_send(NOON)


def test_disabled_endpoint_stays_so_until_it_is_reset() -> None:
    gone = after_gone(Circuit(), NOON)
    for later in (after_success(gone), failed(20, gone, at=NOON + SECOND), after_gone(gone, NOON + SECOND)):
        assert (later.disabled_at, later.disabled_cause) == (NOON, DisabledCause.GONE)
    assert reset() == Circuit()
    assert reset().may_send(NOON)


STEPS = st.lists(
    st.tuples(st.sampled_from(["failure", "success", "send"]), st.timedeltas(timedelta(0), timedelta(hours=9))),
    max_size=60,
)


@given(steps=STEPS)
def test_any_history_keeps_the_promises(steps: list[tuple[str, timedelta]]) -> None:
    circuit, now, in_a_row, sent_while_open = Circuit(), NOON, 0, None
    since: datetime | None = None
    for step, wait in steps:
        now += wait
        if step == "send" and circuit.may_send(now):
            if circuit.is_open:
                assert sent_while_open is None or now - sent_while_open >= PROBE_EVERY
                sent_while_open = now
            circuit = while_probed(circuit, now)
        elif step == "failure":
            since, in_a_row = since or now, in_a_row + (circuit.disabled_at is None)
            circuit = after_failure(circuit, now)
        elif step == "success":
            since, in_a_row, sent_while_open = None, 0, None
            circuit = after_success(circuit)
        if circuit.disabled_at is not None:
            assert circuit.disabled_cause is DisabledCause.FAILING
            return
        assert circuit.consecutive_failures == in_a_row
        assert circuit.is_open == (in_a_row >= OPENS_AFTER)
        assert since is None or in_a_row < OPENS_AFTER or step != "failure" or now - since < DISABLED_AFTER
