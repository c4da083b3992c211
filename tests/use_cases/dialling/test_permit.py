"""A permit ends with its look: on either clock, with the last instant for a call to start, and with the lease."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import pytest

from scheduler.clock import monotonic
from scheduler.domain.attempt import Attempt
from scheduler.domain.call import MachineDetection
from scheduler.lifecycle.policy import LOOK_TO_END, LOOK_TO_SEND
from scheduler.use_cases.dial import Dialler
from scheduler.use_cases.dialling import watch
from scheduler.use_cases.dialling.claim import ToSend
from scheduler.use_cases.dialling.look import PermittedOrder
from scheduler.use_cases.dialling.sender import LOOKS_PER_CALL, Permit
from scheduler.use_cases.dialling.watch import LeaseAlarm
from tests.architecture.guards import guards
from tests.conftest import TestClock
from tests.support.builders import Tenant, a_claimed_attempt
from tests.use_cases.conftest import MonotonicClock

LEASE_S = 60.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> MonotonicClock:
    """The clock of the permit: no stall makes a look too old."""
    clock = MonotonicClock(monotonic())
    monkeypatch.setattr("scheduler.use_cases.dialling.sender.monotonic", clock)
    return clock


@pytest.fixture
def alarm(monkeypatch: pytest.MonkeyPatch) -> Iterator[LeaseAlarm]:
    """The kernel's timer is set to an hour later, so that no stall ends this process. It is off at the end."""
    monkeypatch.setattr(watch, "monotonic", lambda: monotonic() - 3600)
    alarm = LeaseAlarm()
    yield alarm
    alarm.clear()


class Looks:
    """The product's last look at one attempt, counted. Each one takes a millisecond."""

    def __init__(self, tenant: Tenant, clock: MonotonicClock, attempt: Attempt) -> None:
        self.tenant = tenant
        self.clock = clock
        self.attempt = attempt
        self.made = 0

    async def __call__(self) -> PermittedOrder | None:
        self.made += 1
        order = self.tenant.dial.last_look(self.attempt)
        if order is not None:
            self.clock.at = order.looked + 0.001
        return order


@pytest.fixture
def looks(tenant: Tenant, clock: MonotonicClock) -> Looks:
    return Looks(tenant, clock, a_claimed_attempt(tenant))


@pytest.fixture
def permit(looks: Looks, alarm: LeaseAlarm) -> Permit:
    return a_permit(looks, alarm)


def a_permit(looks: Looks, alarm: LeaseAlarm, *, send_within_s: float = LEASE_S) -> Permit:
    claim = a_claim(looks.tenant, looks.attempt, looks.clock(), send_within_s=send_within_s)
    return Permit(claim, looks, alarm, looks.tenant.now)


def a_claim(tenant: Tenant, attempt: Attempt, started: float, *, send_within_s: float) -> ToSend:
    ends, send_by = started + LEASE_S, started + send_within_s
    return ToSend(attempt=attempt, send_at=tenant.now(), lease_ends=ends, send_by=send_by)


async def test_fresh_look_permits_the_call(permit: Permit, looks: Looks) -> None:
    assert await permit.order() is not None
    assert await permit.connected()
    assert permit.may_leave()
    assert not permit.has_refused
    assert looks.made == 1


@guards("look_age")
async def test_look_ages_while_the_wall_clock_is_stopped(permit: Permit, clock: MonotonicClock) -> None:
    assert await permit.order() is not None
    assert permit.may_leave()
    clock.at += LOOK_TO_SEND.total_seconds()
    assert not permit.may_leave()
    assert permit.has_refused


@guards("look_age_by_wall")
async def test_look_ages_while_the_monotonic_clock_is_stopped(permit: Permit, now: TestClock) -> None:
    assert await permit.order() is not None
    now.move(LOOK_TO_SEND + timedelta(milliseconds=1))  # as after a pause of the virtual machine
    assert not permit.may_leave()


@guards("leave_by", "look_age")
async def test_call_is_not_sent_after_the_last_start_before_closing(
    tenant: Tenant, alarm: LeaseAlarm, clock: MonotonicClock, now: TestClock
) -> None:
    # 35 s before closing in Bratislava, and the smallest bit more.
    now.instant = now().replace(hour=17, minute=59, second=25) - timedelta.resolution
    mine = a_claimed_attempt(tenant)
    assert tenant.dial.last_look(mine) is not None, "this instant is the last one"
    permit = a_permit(Looks(tenant, clock, mine), alarm)
    assert await permit.order() is None, "and it is over when the look has been answered"
    assert not permit.may_leave()


async def test_old_look_is_repeated_once_connected(permit: Permit, looks: Looks, now: TestClock) -> None:
    assert await permit.order() is not None
    now.move(timedelta(seconds=3))
    assert await permit.connected()
    assert looks.made == 2


async def test_company_paused_while_connecting_gets_no_call(tenant: Tenant, permit: Permit, now: TestClock) -> None:
    assert await permit.order() is not None
    now.move(timedelta(seconds=3))
    tenant.change("UPDATE companies SET paused_at = :at, pause_reason = 'a test'", at=now())
    assert not await permit.connected()
    assert permit.is_given_back
    assert not permit.may_leave()


async def test_order_changed_while_connecting_is_not_sent(tenant: Tenant, permit: Permit, now: TestClock) -> None:
    first = await permit.order()
    assert first is not None
    now.move(timedelta(seconds=3))
    tenant.change("""UPDATE companies SET settings = settings || '{"machineDetection": false}'""")
    assert not await permit.connected()
    second = await permit.order()
    assert second is not None
    assert (first.machine_detection, second.machine_detection) == (MachineDetection.SYNC, MachineDetection.OFF)


async def test_permit_gives_up_after_some_looks(permit: Permit, looks: Looks, now: TestClock) -> None:
    while await permit.order() is not None:
        now.move(timedelta(seconds=1))
    assert looks.made == LOOKS_PER_CALL
    assert not permit.is_given_back


@guards("send_by")
async def test_call_is_not_looked_at_after_its_time_to_send(
    looks: Looks, alarm: LeaseAlarm, clock: MonotonicClock
) -> None:
    permit = a_permit(looks, alarm, send_within_s=1.0)
    clock.at += 1.0
    assert await permit.order() is None
    assert (permit.is_too_late, looks.made) == (True, 0)


@guards("send_by", "look_age")
async def test_old_look_is_not_repeated_after_the_time_to_send(
    looks: Looks, alarm: LeaseAlarm, clock: MonotonicClock
) -> None:
    permit = a_permit(looks, alarm, send_within_s=30.0)
    assert await permit.order() is not None
    clock.at += 30.0
    assert not await permit.connected()
    assert (permit.is_too_late, permit.may_leave(), looks.made) == (True, False, 1)


@guards("late_claim")
@pytest.mark.usefixtures("alarm")
def test_claim_that_is_known_too_late_holds_no_timer(tenant: Tenant, dialler: Dialler, clock: MonotonicClock) -> None:
    """Its lease is over, so the timer would end the process with all its other calls."""
    claim = a_claim(tenant, a_claimed_attempt(tenant), clock() - LEASE_S, send_within_s=LEASE_S / 2)

    async def send() -> int:
        dialler.sender.send([claim])
        held = len(dialler._alarm)
        await dialler.sender.end()
        await dialler.recorder.run(lambda: True)
        return held

    assert dialler._loop.run_until_complete(send()) == 0
    assert tenant.history(claim.attempt.id)[-1] == "deferred"


async def test_hanging_look_is_awaited_no_longer_than_the_call(
    tenant: Tenant, alarm: LeaseAlarm, clock: MonotonicClock
) -> None:
    """Waited for until the lease is over, it would end the process with all its other calls."""

    async def hangs() -> None:
        await asyncio.Event().wait()

    claim = a_claim(tenant, a_claimed_attempt(tenant), clock(), send_within_s=0.1)
    permit = Permit(claim, hangs, alarm, tenant.now)
    async with asyncio.timeout(LEASE_S / 2):
        assert await permit.order() is None
    assert permit.is_too_late


async def test_timer_ends_with_the_look_until_the_call_is_sent(
    tenant: Tenant, alarm: LeaseAlarm, clock: MonotonicClock
) -> None:
    mine = a_claimed_attempt(tenant)
    permit = a_permit(Looks(tenant, clock, mine), alarm)
    order = await permit.order()
    assert order is not None
    assert permit.may_leave()
    assert alarm.ends_of(mine.id) == pytest.approx(order.looked + LOOK_TO_END.total_seconds())
    permit.left()
    assert alarm.ends_of(mine.id) > clock() + LOOK_TO_END.total_seconds()


async def test_timer_ends_with_the_last_start_before_closing(
    tenant: Tenant, alarm: LeaseAlarm, clock: MonotonicClock, now: TestClock
) -> None:
    now.instant = now().replace(hour=17, minute=59, second=24)
    mine = a_claimed_attempt(tenant)
    permit = a_permit(Looks(tenant, clock, mine), alarm)
    order = await permit.order()
    assert order is not None
    assert permit.may_leave()
    assert alarm.ends_of(mine.id) == pytest.approx(order.looked + 1.0, abs=0.001)
