"""Exit of an HTTP process that ran out of memory, so that its supervisor restarts it.

After a MemoryError the process is unreliable: a thread that never began may hold a lock, and code that starts a thread
may wait for it permanently. Accepted commands are in PostgreSQL, so an exit loses none of them.
"""

import asyncio
import contextlib
import json
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

from scheduler.logs import watch_errors
from scheduler.watchdog import Watchdog

STATUS = 70
"""Exit status (EX_SOFTWARE). Not 0, so that a supervisor that restarts only on failure restarts the process."""


def _line(event: str, *, alarm: str) -> bytes:
    return f"{json.dumps({'event': event, 'alarm': alarm})}\n".encode()


_LAST_WORDS = _line("out_of_memory: The process ran out of memory and exits.", alarm="OUT_OF_MEMORY")
"""Built in advance: there may be no memory left to write a log line."""
_STUCK = _line("loop_stuck: The event loop stopped and the process exits.", alarm="LOOP_STUCK")
_NO_THREAD = "can't start new thread"
_CHECK_EVERY_S = 1.0
_MISSED_BEATS = 30


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether this error or one of its causes means that memory ran out."""
    checked: set[int] = set()
    while error is not None and id(error) not in checked:
        if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _NO_THREAD in str(error)):
            return True
        if isinstance(error, BaseExceptionGroup) and any(map(is_out_of_memory, error.exceptions)):
            return True
        checked.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def end_if(error: BaseException | None) -> None:
    """Exit with status 70 if memory ran out. Does nothing in a process that only embeds the API, such as a test."""
    if _is_ours and is_out_of_memory(error):
        _end(_LAST_WORDS)


@contextlib.contextmanager
def ending_the_process() -> Iterator[None]:
    """End the process on a MemoryError in any thread or callback, even if it was only logged.

    Also ends the process if the event loop is blocked for 30 s, or if a thread hangs (`scheduler/watchdog.py`).
    Works only in the main thread, like signals: in other threads the process belongs to another program.
    """
    global _is_ours  # noqa: PLW0603 - there is one process
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    previous = threading.excepthook, sys.unraisablehook, loop.get_exception_handler()

    def in_thread(failed: threading.ExceptHookArgs) -> None:
        end_if(failed.exc_value)
        previous[0](failed)

    def unraisable(failed: "sys.UnraisableHookArgs") -> None:
        end_if(failed.exc_value)
        previous[1](failed)

    def in_loop(of_loop: asyncio.AbstractEventLoop, failed: dict[str, Any]) -> None:
        end_if(failed.get("exception"))
        of_loop.default_exception_handler(failed)

    _is_ours = True
    threading.excepthook, sys.unraisablehook = in_thread, unraisable
    loop.set_exception_handler(in_loop)
    watch_errors(end_if)
    try:
        with _watched(loop):
            yield
    finally:
        _is_ours = False
        watch_errors(None)
        loop.set_exception_handler(previous[2])
        threading.excepthook, sys.unraisablehook = previous[:2]


_is_ours = False


class _Pulse:
    """A counter that the event loop increases every second."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.beats = 0
        self._next = loop.call_later(_CHECK_EVERY_S, self._beat)

    def _beat(self) -> None:
        self.beats += 1
        self._next = self._loop.call_later(_CHECK_EVERY_S, self._beat)

    def stop(self) -> None:
        self._next.cancel()


@contextlib.contextmanager
def _watched(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    pulse, over = _Pulse(loop), threading.Event()
    watchdog = Watchdog()
    watchdog.start()
    thread = threading.Thread(target=_watch, args=(pulse, over), name="watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        watchdog.stop()
        pulse.stop()


def _watch(pulse: _Pulse, over: threading.Event) -> None:
    """End the process after 30 checks without a beat.

    Counts checks, not seconds: after a pause of the whole process the loop gets as many turns as this thread.
    """
    last, missed = pulse.beats, 0
    while not over.wait(_CHECK_EVERY_S):
        missed = missed + 1 if pulse.beats == last else 0
        last = pulse.beats
        if missed >= _MISSED_BEATS:
            _end(_STUCK)


def _end(last_words: bytes) -> NoReturn:
    with contextlib.suppress(OSError):
        os.write(2, last_words)
    os._exit(STATUS)
