"""Freezing at a failpoint: the process stops exactly there, not some steps later."""

import os
import signal
import threading
from ctypes import c_int
from typing import Any

import pytest

from scheduler import failpoints
from tests.conftest import wait_until
from tests.verification.world.installation import begun, nursery
from tests.verification.world.workers import is_stopped, killed, thawed

pytestmark = pytest.mark.crash


def frozen_in_a_thread(has_gone_on: Any) -> None:
    """Freeze in a thread, as a dial worker does when it sends, while the main thread waits for SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    failpoints.arm("dial.permitted:stop")

    may_go_on = threading.Event()

    def reach_it() -> None:
        may_go_on.wait()
        failpoints.failpoint("dial.permitted")
        has_gone_on.value = 1

    threading.Thread(target=reach_it, daemon=True).start()
    # As on a busy machine, the main thread handles no signal before the other thread yields the CPU.
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    may_go_on.set()
    signal.sigwait({signal.SIGTERM})


def test_failpoint_freezes_a_thread_before_its_next_step() -> None:
    has_gone_on = nursery.RawValue(c_int, 0)
    process = begun(frozen_in_a_thread, has_gone_on)
    try:
        wait_until(lambda: is_stopped(process), says="the process is frozen")
        assert has_gone_on.value == 0
        thawed(process)
        wait_until(lambda: has_gone_on.value == 1, says="the process continues from there")
    finally:
        killed(process)
