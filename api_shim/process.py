"""The life of an HTTP process: its start, the connections of its clients, its memory and its end."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from scheduler import start_checks
from scheduler.logs import watch_errors
from scheduler.persistence.database import Database
from scheduler.persistence.errors import DatabaseAway
from scheduler.process import Watchdog
from scheduler.start_checks import failure_line
from scheduler.use_cases.operations.installation import InstallationMarks

# --- The start of an HTTP process: its checks, its errors in one line, and logs in our form


def check_start(database: Database, redis_url: str, marks: InstallationMarks) -> None:
    """Raise an error if this process could not answer requests. Servers that are away may come back, and raise none.

    Raises RedisRefuses, WrongRole, SchemaNotReady, and WrongDatabase for the database of another installation.
    """
    start_checks.check_login(redis_url)
    with suppress(DatabaseAway):
        database.check_start()
        marks.check()


class PlainStart:
    """Middleware that reports a failed start in one line instead of the framework's traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_plainly(message: Message) -> None:
            error = sys.exception()
            if message["type"] == "lifespan.startup.failed" and error is not None:
                message["message"] = failure_line(error)
            await send(message)

        await self._app(scope, receive, send_plainly if scope["type"] == "lifespan" else send)


def uvicorn_logs_as_we_do() -> None:
    """Route uvicorn's records through our logging. Its own handlers write error texts, which may quote input."""
    for name in ("uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = True


# --- Connections of clients over HTTP: one that sends no request is closed, because each takes a descriptor
# Uvicorn closes idle connections only after their first response. `--http` in the Procfile names this class.


FIRST_REQUEST_S = 10.0
"""The time from a connection to the end of the head of its first request."""


class Connection(H11Protocol):
    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - those of the base
        super().__init__(*args, **kwargs)
        self._closing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._closing = self.loop.call_later(FIRST_REQUEST_S, self._close_without_a_request)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._closing is not None:
            self._closing.cancel()
        super().connection_lost(exc)

    def _close_without_a_request(self) -> None:
        if not self.cycle:  # its type hides that it is None until the first head has been read
            self.transport.close()


# --- Exit of an HTTP process that ran out of memory, so that its supervisor restarts it
# After a MemoryError the process is unreliable: a thread that never began may hold a lock, and code that starts a
# thread may wait for it permanently. Accepted commands are in PostgreSQL, so an exit loses none of them.


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

    Also ends the process if the event loop is blocked for 30 s, or if a thread hangs (`scheduler/process.py`).
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


# --- Stop signals: requests that wait are released before the server closes their connections


_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def on_stop_signal(callback: Callable[[], None]) -> Iterator[None]:
    """Call `callback` in the running event loop on a stop signal, and pass the signal on.

    The server has no hook for this: on a signal it first waits for open requests. Does nothing outside the main thread,
    where no signals arrive.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    previous = {number: signal.getsignal(number) for number in _SIGNALS}

    def stop(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(callback)
        handler = previous[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for number, handler in previous.items():
        if callable(handler):
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
