"""Logging: one JSON object per line, with ids and words of the glossary, never personal data.

A field that is not in `ALLOWED` is never written, so that no name or number slips in.
"""

import json
import logging
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import structlog
from structlog.typing import EventDict, WrappedLogger

ALLOWED = frozenset(
    {
        # of every line
        *("event", "level", "logger", "at", "process", "trace_id"),
        # what it is about
        *(
            "attempt_id",
            "interview_id",
            "invitation_id",
            "company_id",
            "command_id",
            "batch_id",
            "index",
            "event_id",
            "phone_number_id",
        ),
        *("key_id", "session_id", "call_sid", "country", "table", "row_id", "ids", "name", "pid", "port", "url"),
        *("task", "queue", "method", "route", "kind", "signal"),
        # what has happened to it
        *("alarm", "error", "cause", "reason", "state", "phase", "epoch", "status", "count", "seconds"),
        *("due_at", "until"),
    }
)


class _Watches:
    """The functions that receive the errors and the alarms of this process."""

    errors: Callable[[BaseException], None] | None = None
    alarms: Callable[[str, Mapping[str, object]], None] | None = None


def _alarm_watched(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    # `is_stored`: the alarm was stored in the transaction of its cause.
    is_stored = event.pop("is_stored", False)
    if _Watches.alarms is not None and not is_stored and "alarm" in event:
        with suppress(Exception):  # a log line must not raise an error in its caller
            _Watches.alarms(str(event["alarm"]), event)
    return event


def _only_allowed(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {key: value for key, value in event.items() if key in ALLOWED}


def _without_a_message(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    # Celery logs the whole content of a malformed message, which may come from any client of the broker.
    record = event.get("_record")
    if record is not None and record.name.startswith("celery.worker") and "body" in str(record.msg):
        event["event"] = str(record.msg).strip().partition("\n")[0]
    return event


def _error_by_kind(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    # The text of an exception may quote a value, such as a phone number. Its type and location cannot.
    info = event.pop("exc_info", None)
    error = sys.exc_info()[1] if info is True else info
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        if _Watches.errors is not None:
            _Watches.errors(error)
        event["error"] = place_of(error)
    return event


def place_of(error: BaseException) -> str:
    """Name the type of an error and the line that raised it, without its text."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" at {trace.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno}" if trace else ""
    return f"{type(error).__module__}.{type(error).__qualname__}{where}"


class _Event(dict[str, Any]):
    """The fields of one of our own lines, as they are written."""


def _for_formatter(_logger: WrappedLogger, _method: str, event: EventDict) -> tuple[tuple[_Event], dict[str, Any]]:
    return (_Event(event),), {}


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Renders our own lines directly: copying each record and its fields first would take as long as all the rest."""

    def format(self, record: logging.LogRecord) -> str:
        if isinstance(record.msg, _Event):
            return json.dumps(record.msg, default=str)
        return super().format(record)


_CHAIN: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    _without_a_message,
    _error_by_kind,
    _alarm_watched,
]


_PROCESSORS: list[Any] = [
    structlog.stdlib.filter_by_level,
    *_CHAIN,
    _only_allowed,
    _for_formatter,
]
"""A single list, also if a process is configured repeatedly: loggers cache the first list that they get."""


def configure(level: int = logging.INFO) -> None:
    """Send the logs of this process and its libraries to stderr as JSON lines. Call once, at the start."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _Formatter(
            foreign_pre_chain=_CHAIN,
            processors=[_only_allowed, structlog.processors.JSONRenderer(default=str)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # A record that fails to format must not be printed raw, because its arguments are not filtered.
    logging.raiseExceptions = False
    # No line contains them, and each record would look them up.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    for verbose in ("aiohttp.access", "uvicorn.access", "twilio.http_client", "httpx", "tornado.access"):
        logging.getLogger(verbose).setLevel(logging.WARNING)
    structlog.configure(
        processors=_PROCESSORS,
        # structlog's own loggers search the stack for the caller of each line, and no line contains it.
        logger_factory=logging.getLogger,
        cache_logger_on_first_use=True,
    )


def watch_errors(watch: Callable[[BaseException], None] | None) -> None:
    """Pass every logged error, also of libraries, to `watch`. None ends this."""
    _Watches.errors = watch


def watch_alarms(watch: Callable[[str, Mapping[str, object]], None] | None) -> None:
    """Pass the kind and the fields of every logged alarm to `watch`, which must not block. None ends this."""
    _Watches.alarms = watch


def log(name: str) -> structlog.stdlib.BoundLogger:
    """Get the logger of a module. Only fields in `ALLOWED` are written."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
