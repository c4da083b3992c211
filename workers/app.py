"""The Celery application: broker, queues, routes, each setting's reason, and the proof that a process does its work."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from threading import Lock
from typing import Any

from celery import Celery
from celery.signals import setup_logging
from celery.utils.dispatch import Signal
from kombu import Connection, Exchange, Queue
from kombu.transport import TRANSPORT_ALIASES

from scheduler.clock import monotonic
from scheduler.logs import configure, log
from scheduler.settings import Settings, settings
from scheduler.start_checks import failure_line
from scheduler.use_cases.shared.hints import LIVENESS, QUEUES

_log = log(__name__)
KEY_PREFIX = "duecall:"
ANSWERED_CHANNEL = "duecall:answered"
"""The Redis channel on which workers publish the ids of answered commands."""
DUE_AT = "due_at"
"""The header of a message for dial workers that holds the due times of attempts that are not due yet, by id."""


# By its alias and not as `broker_transport`, because Flower would use that name as the scheme of the broker's URL.
TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), "workers.redis_transport:Transport"))

app = Celery("duecall", backend=None, include=["workers.tasks"])


@contextmanager
def starting() -> Iterator[None]:
    """End the process in one line if it cannot start.

    Celery would show a traceback, or only log the error and keep taking hints without doing their work.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 - after any error, this process could not do its work
        raise SystemExit(failure_line(error)) from None


def at_start(signal: Signal) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Connect a function to a signal of a worker's start. Its error ends the process: Celery would only log it."""

    def connected(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def or_end(**arguments: object) -> None:
            with starting():
                function(**arguments)

        signal.connect(or_end, weak=False)
        return or_end

    return connected


def process_settings() -> Settings:
    """Read our settings. Ends the process if they are wrong."""
    with starting():
        return settings()


def _configuration() -> dict[str, Any]:
    """Build Celery's settings. Called when one is first used, so that importing this module reads no environment."""
    with starting():
        return configuration(settings().redis)


def configuration(redis_url: str) -> dict[str, Any]:
    """Build Celery's settings for this broker."""
    return {
        "broker_url": redis_url,
        "task_serializer": "json",
        "accept_content": ["json"],
        # A message is a hint: no process waits for its result, and a lost or doubled hint does no harm.
        "task_ignore_result": True,
        "task_acks_late": False,
        "task_publish_retry": False,
        # The default exchange routes to the queue of that name alone, without a look-up for each message.
        "task_queues": [Queue(name, Exchange(""), routing_key=name) for name in sorted(set(QUEUES.values()))],
        "task_routes": {task: {"queue": queue} for task, queue in QUEUES.items()},
        "task_default_queue": "maintenance",
        "worker_prefetch_multiplier": 1,
        # Wait for a broker that is away, and finish the tasks that were received.
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_transport_options": {
            "visibility_timeout": 300,
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 15,
            "global_keyprefix": KEY_PREFIX,
        },
        # Flower shows tasks by these events. Arguments are ids. The tasks of every call send none: two events a message
        # took a tenth of a worker's time.
        "worker_send_task_events": True,
        "task_send_sent_event": False,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "beat_scheduler": "workers.clock:Clock",
        "beat_max_loop_interval": 1,
        # For liveness checks of the clock: it no longer answers a ping when its last tick is a minute old.
        "beat_enable_remote_control": True,
    }


app.add_defaults(_configuration)


def watch_only(chosen: Settings) -> None:
    """Let this process receive events and nothing else: it writes nothing to Redis. For Flower."""
    TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), "workers.redis_transport:WatchingTransport"))
    app.conf.broker_url = chosen.flower_redis
    # Flower's page of queues reads the options of TLS from here alone.
    app.conf.broker_use_ssl = Connection(chosen.flower_redis).ssl


@setup_logging.connect  # type: ignore[untyped-decorator]
def _our_logs(**_: Any) -> None:  # noqa: ANN401 - a signal's own arguments
    configure()
    for name in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).addFilter(_is_no_ping)


def _is_no_ping(record: logging.LogRecord) -> bool:
    """Return False for the lines of a worker's ping to itself, which would be most lines of an idle worker."""
    return not (isinstance(record.args, Mapping) and record.args.get("name") == LIVENESS)


# --- Proof of work: a process touches a file whenever its work has succeeded
# A health check reads the file's age by `find`, without another Python process. DUECALL_PROOF_FILE names it.


_TOUCH_EVERY_S = 1.0


class _Proof:
    """The file of this process."""

    path: Path | None = None
    next_at = 0.0
    has_failed = False


_lock = Lock()


def begin_proof(path: Path | None) -> None:
    """Set the file of this process, and delete the one of an earlier process. None: there is no health check."""
    _Proof.path, _Proof.next_at = path, 0.0
    if path is not None:
        path.unlink(missing_ok=True)


def end_proof() -> None:
    """Delete the file: this process stops, and does no more work."""
    with _lock:
        path, _Proof.path = _Proof.path, None
    if path is not None:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def note_work() -> None:
    """Note that this process has done its work. Touches the file at most once a second. Never raises."""
    instant = monotonic()
    with _lock:
        if _Proof.path is None or instant < _Proof.next_at:
            return
        _Proof.next_at = instant + _TOUCH_EVERY_S
        _touch(_Proof.path)


def _touch(path: Path) -> None:
    try:
        path.touch()
    except OSError as error:
        if not _Proof.has_failed:
            _log.warning(
                "proof_not_written: the file of DUECALL_PROOF_FILE could not be written, so health checks fail",
                exc_info=error,
            )
        _Proof.has_failed = True
    else:
        _Proof.has_failed = False
