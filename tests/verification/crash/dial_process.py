"""A dial worker without a broker. It takes the given attempts and dials until SIGTERM.

    python tests/verification/crash/dial_process.py ATTEMPT_ID ...

Like any worker, it reads its settings from the environment.
"""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.synchronize import Event
from uuid import UUID

from scheduler import assembly
from scheduler.logs import configure
from scheduler.settings import Settings
from tests.verification.crash.wrong_clock import WrongClock


def run(
    environment: Mapping[str, str],
    ids: Sequence[UUID],
    can_be_told: Event | None = None,
    clock: WrongClock | None = None,
) -> None:
    """Dial with the settings in `environment`. `LOG_TO` there names a file for the log.

    `can_be_told` is set as soon as SIGTERM no longer ends the process by itself.
    """
    # Block SIGTERM in every thread, so that it stays pending until `sigwait`.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    if can_be_told is not None:
        can_be_told.set()
    os.environ.update(environment)
    if "LOG_TO" in environment:
        os.dup2(os.open(environment["LOG_TO"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), sys.stderr.fileno())
    configure()
    if clock is not None:
        clock.begin()
    dialler = assembly.dialler(Settings())
    dialler.start()
    dialler.take(ids)
    signal.sigwait({signal.SIGTERM})
    dialler.stop()


if __name__ == "__main__":
    run({}, [UUID(each) for each in sys.argv[1:]])
