"""The circuit of an endpoint: ten failures in a row leave it one probe a minute, five days of failures disable it."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from scheduler.domain.webhook import DisabledCause

OPENS_AFTER = 10
"""Consecutive failures, over all messages of the endpoint."""
PROBE_EVERY = timedelta(minutes=1)
DISABLED_AFTER = timedelta(days=5)


@dataclass(frozen=True, kw_only=True)
class Circuit:
    """The recent answers of an endpoint. Replays are not among them."""

    consecutive_failures: int = 0
    failing_since: datetime | None = None
    """The first of the consecutive failures."""
    circuit_opened_at: datetime | None = None
    probe_at: datetime | None = None
    """The time of the next probe. None while the circuit is closed."""
    disabled_at: datetime | None = None
    disabled_cause: DisabledCause | None = None

    @property
    def is_open(self) -> bool:
        return self.circuit_opened_at is not None

    def may_send(self, now: datetime) -> bool:
        """Return whether a message may be sent now. With an open circuit only one, see `while_probed`."""
        if self.disabled_at is not None:
            return False
        if self.probe_at is None:
            return True
        # A wait beyond the maximum began on a clock that has been set back since.
        return now >= self.probe_at or now < self.probe_at - PROBE_EVERY


def while_probed(circuit: Circuit, now: datetime) -> Circuit:
    """Return the circuit when a message is taken to be sent. The next one may be sent a minute later if it is open.

    It is stored before the message is sent, so that one of several workers probes, and a crash of that worker blocks
    none.
    """
    return replace(circuit, probe_at=now + PROBE_EVERY) if circuit.is_open else circuit


def after_success(circuit: Circuit) -> Circuit:
    """Return the circuit after a delivery. A late answer does not enable a webhook again: its partner does."""
    return Circuit(disabled_at=circuit.disabled_at, disabled_cause=circuit.disabled_cause)


def after_failure(circuit: Circuit, now: datetime) -> Circuit:
    """Return the circuit after a failed try."""
    if circuit.disabled_at is not None:
        return circuit
    failures = circuit.consecutive_failures + 1
    failing_since = now if circuit.failing_since is None else min(circuit.failing_since, now)
    failing = replace(circuit, consecutive_failures=failures, failing_since=failing_since)
    if failures < OPENS_AFTER:
        # Also after five days: a few failures of a webhook with few messages say little about it.
        return failing
    if now - failing_since >= DISABLED_AFTER:
        return _disabled(failing, DisabledCause.FAILING, now)
    if circuit.is_open:
        # The next probe was set when this one was taken. Answers to messages sent before the opening do not delay it.
        return failing
    return replace(failing, circuit_opened_at=now, probe_at=now + PROBE_EVERY)


def after_gone(circuit: Circuit, now: datetime) -> Circuit:
    """Return the circuit after a 410."""
    return circuit if circuit.disabled_at is not None else _disabled(circuit, DisabledCause.GONE, now)


def reset() -> Circuit:
    """Return the circuit after a reset: closed, enabled, without failures."""
    return Circuit()


def _disabled(circuit: Circuit, cause: DisabledCause, now: datetime) -> Circuit:
    return replace(circuit, disabled_at=now, disabled_cause=cause)
