"""When the process is told to stop, so that nobody is kept waiting until the server cuts them off."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def told_to_stop(then: Callable[[], None]) -> Iterator[None]:
    """Calls `then` in the running event loop once a signal asks this process to stop, and passes the signal on.

    The server has no word for "I am about to stop": what it does first is to wait for the open requests. Outside the
    main thread no signal arrives, and nothing happens.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def stop(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(then)
        passed_on = before[signal.Signals(number)]
        if callable(passed_on):
            passed_on(number, frame)

    for number, served in before.items():
        if callable(served):
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, served in before.items():
            signal.signal(number, served)
