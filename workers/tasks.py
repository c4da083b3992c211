"""Celery tasks: each one reads its message and calls one use case. Messages carry ids and no state."""

import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from celery import Task
from celery.exceptions import Reject
from celery.signals import worker_init, worker_ready, worker_shutdown, worker_shutting_down
from celery.worker.request import Request

from scheduler import assembly, start_checks
from scheduler.assembly import WorkerUseCases
from scheduler.lifecycle.policy import AT_MOST_A_TRANSACTION, COMMANDS_A_TRANSACTION
from scheduler.logs import configure, log
from scheduler.persistence.database import BATCH_LOCK_S
from scheduler.persistence.errors import ClockWrong, DatabaseAway, LockTaken, StatementFailed
from scheduler.process import EXIT_S, QUIET_S, Watchdog, collect_rarely, end_process, raise_limit, watching
from scheduler.settings import settings
from scheduler.use_cases.dial import Dialler
from scheduler.use_cases.shared import hints as names
from scheduler.use_cases.shared.conflicts import again_at_once
from workers import liveness
from workers.alarm_writer import AlarmWriter
from workers.app import DUE_AT, app, at_start, begin_proof, end_proof
from workers.hints import GatheredIds, RedisHintPublisher
from workers.liveness import Announcement

if TYPE_CHECKING:
    from scheduler.use_cases.webhooks.deliverer import Deliverer

_log = log(__name__)


@lru_cache(maxsize=1)
def _hints() -> RedisHintPublisher:
    hints = RedisHintPublisher(app, settings().redis)
    hints.start()
    return hints


@lru_cache(maxsize=1)
def _alarms() -> AlarmWriter:
    return AlarmWriter(assembly.alarm_store(settings(), "worker"))


@lru_cache(maxsize=1)
def use_cases() -> WorkerUseCases:
    """Get this process's use cases, assembled at its start."""
    return WorkerUseCases(settings(), _hints())


class _Dialler:
    """The dialler of a dial worker, started and drained with the worker."""

    one: Dialler | None = None


class _Deliverer:
    """The deliverer of a webhooks worker, started and drained with the worker."""

    one: "Deliverer | None" = None


_MAIL_S = 90
_ONLY_WAKING = {names.DIAL, names.DELIVER, names.LIVENESS}
"""Tasks that leave the work to another thread. Their success proves nothing."""
_QUIET_S = {names.INVITE: _MAIL_S, names.NOTIFY_OWNERS: _MAIL_S}
"""How long a task may make no step: a mail takes up to 70 s."""
_DRAINS_S = 15.0
"""A dial worker whose thread hangs may end its POSTs for this time. Other workers have less."""


class QuietTask(Task):  # type: ignore[misc]
    """A task whose failure is logged without the error's text, which may quote a number."""

    def __call__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - whatever the message holds
        try:
            with watching(self.name, _QUIET_S.get(self.name, QUIET_S)):
                again_at_once(lambda: super(QuietTask, self).__call__(*args, **kwargs))
            if self.name not in _ONLY_WAKING:
                liveness.worked()
        except Reject:
            raise
        except ClockWrong:
            _log.debug("clock_wrong: nothing was done; the clock sends the hint again", task=self.name)
        except LockTaken:
            _log.warning(
                "task_conflict: the task waited too long for a locked row; the clock sends the hint again",
                task=self.name,
            )
        except DatabaseAway:
            _log.warning(
                "database_away: the task could not reach the database; the clock sends the hint again", task=self.name
            )
        except Exception:  # noqa: BLE001 - logged by kind and place; its text stays here
            _log.exception("task_failed: the task ended by an error; the clock sends the hint again", task=self.name)


class _Unshown(Request):  # type: ignore[misc]
    """A message whose contents are hidden from events and worker inspection, and so from Flower."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as Celery makes it
        super().__init__(*args, **kwargs)
        self._argsrepr = self._kwargsrepr = "..."

    def info(self, safe: bool = False) -> dict[str, Any]:  # noqa: ARG002 - asked for either way, it shows the same
        return dict(super().info(safe=True))


class _MessageTask(QuietTask):
    """A task whose message is a command. It is acknowledged when the command's row is committed."""

    Request = _Unshown
    acks_late = True
    typing = False


_RETRY_AFTER_S = 1.0
_MOST_FAILED_STATEMENTS = 3
_never_set = threading.Event()


def _each(ids: Iterable[UUID], verb: Callable[[UUID], None], *, once: bool = False) -> None:
    """Call `verb` with each id. If it fails for one, the clock sends that hint again, and the others are done.

    `once`: a conflict is not tried again, because the others would wait. Raises DatabaseAway, and StatementFailed for
    the third failed statement in a row: then the whole database is in trouble.
    """
    failed = 0
    for each in ids:
        try:
            (_once if once else again_at_once)(partial(verb, each))
        except LockTaken:
            _log.warning(
                "task_conflict: an id waited too long for a locked row; the clock sends its hint again", ids=str(each)
            )
        except StatementFailed:
            failed += 1
            if failed == _MOST_FAILED_STATEMENTS:
                raise
            _log.warning(
                "statement_failed: the database did not complete a statement for an id; the clock sends its hint again",
                ids=str(each),
            )
            continue
        except DatabaseAway:
            raise
        except Exception:  # noqa: BLE001 - the others get their turn
            _log.exception("id_failed: the task failed for one id; the clock sends its hint again", ids=str(each))
        failed = 0


def _once(verb: Callable[[], None]) -> None:
    verb()


def _together(ids: list[UUID], batch: Callable[[list[UUID]], list[UUID]], alone: Callable[..., None]) -> None:
    """Process ids in one transaction, and the ids that it leaves with a transaction each.

    None waits long for a lock. Locked rows of one company would otherwise delay all others.
    """
    _each(batch(ids), partial(alone, lock_s=BATCH_LOCK_S), once=True)


def _apply(command_ids: list[UUID]) -> None:
    _together(command_ids, use_cases().apply.batch, use_cases().apply.command)


_commands = GatheredIds(_apply, at_a_time=2, largest=COMMANDS_A_TRANSACTION)


@app.task(name=names.APPLY, base=QuietTask, send_events=False)  # type: ignore[untyped-decorator]
def apply(command_ids: list[str]) -> None:
    _commands.take(map(UUID, command_ids))


@app.task(name=names.SUBMIT, base=_MessageTask)  # type: ignore[untyped-decorator]
def submit(*_: Any, **message: Any) -> None:  # noqa: ANN401 - whatever the message holds
    try:
        use_cases().messages.take(message)
    except DatabaseAway:
        # The clock sends no hint for it, so it goes back into the queue, at most once a second.
        _never_set.wait(_RETRY_AFTER_S)
        raise Reject(requeue=True) from None


@app.task(name=names.DIAL, base=QuietTask, bind=True, send_events=False)  # type: ignore[untyped-decorator]
def dial(self: Task, attempt_ids: list[str]) -> None:
    if _Dialler.one is None:
        raise RuntimeError("this worker has no dialler: start it with -Q dial --pool solo")
    early: dict[str, str] = self.request.get(DUE_AT) or {}
    due_at = {UUID(each): datetime.fromisoformat(at) for each, at in early.items()}
    _Dialler.one.take([UUID(each) for each in attempt_ids], due_at)


def _hear(event_ids: list[UUID]) -> None:
    _together(event_ids, use_cases().hear.batch, use_cases().hear.event)


# Not more at a time: callbacks of one call would wait for each other's locks.
_callbacks = GatheredIds(_hear, at_a_time=2, largest=AT_MOST_A_TRANSACTION)


@app.task(name=names.HEAR, base=QuietTask, send_events=False)  # type: ignore[untyped-decorator]
def hear(event_ids: list[str]) -> None:
    _callbacks.take(map(UUID, event_ids))


_ROUNDS: Mapping[str, Callable[[WorkerUseCases], object]] = {
    names.BATCHES: lambda all_of: all_of.batches.turn(),
    names.SETTLE: lambda all_of: all_of.settle.round(),
    names.RECOMPUTE: lambda all_of: all_of.records.recompute(),
    names.INVITE: lambda all_of: all_of.invitations.send(),
    names.PURGE: lambda all_of: all_of.purge.round(),
    names.POST_ALARMS: lambda all_of: all_of.alarm_posts.send(),
    names.NUMBER_EVENTS: lambda all_of: all_of.number_events.all(),
    names.NOTIFY_OWNERS: lambda all_of: all_of.notices.send(),
    names.ERASE_PEOPLE: lambda all_of: all_of.erase_people.turn(),
}
"""Tasks whose message names no row: each verb finds its work itself."""


def _declare_round(name: str, verb: Callable[[WorkerUseCases], object]) -> None:
    @app.task(name=name, base=QuietTask)  # type: ignore[untyped-decorator]
    def take_round(_: list[str]) -> None:
        verb(use_cases())


for _name, _verb in _ROUNDS.items():
    _declare_round(_name, _verb)


@app.task(name=names.DELIVER, base=QuietTask, send_events=False)  # type: ignore[untyped-decorator]
def deliver(_: list[str]) -> None:
    if _Deliverer.one is None:
        raise RuntimeError("this worker has no deliverer: start it with -Q webhooks --pool solo")
    _Deliverer.one.wake()


@app.task(name=names.ERASE, base=QuietTask)  # type: ignore[untyped-decorator]
def erase(company_ids: list[str]) -> None:
    _each(map(UUID, company_ids), use_cases().erase.company)


@app.task(name=names.LIVENESS, base=QuietTask, send_events=False)  # type: ignore[untyped-decorator]
def heard() -> None:
    """Prove that this worker receives messages and does their work."""
    if _Dialler.one is not None:
        _Dialler.one.prove(liveness.heard, liveness.worked)
        return
    liveness.heard()
    if _Deliverer.one is None:
        use_cases().database.prove()
        liveness.worked()


@at_start(worker_init)
def _start(sender: Any, **_: Any) -> None:  # noqa: ANN401 - a signal's own arguments
    # Celery sets up logging after this signal: until then, lines would not be filtered and their alarms not be stored.
    configure()
    raise_limit()
    begin_proof(settings().duecall_proof_file)
    _alarms().start()
    assembly.check_worker_start(settings())
    queues = set(sender.app.amqp.queues.consume_from)
    process = Announcement(queues=frozenset(queues), times=settings().times)
    liveness.listen(sender.hostname, process, sender.concurrency or 1, settings().redis)
    for name in queues & {"dial", "webhooks"}:
        # Each has threads or a loop of its own, which its tasks only wake.
        if queues != {name} or "solo" not in str(sender.pool_cls):
            raise SystemExit(
                f"a {name} worker takes no other queue and has pool solo: celery ... -Q {name} --pool solo"
            )
    if "dial" in queues:
        assembly.must_find_the_calls(settings())
        _Dialler.one = assembly.dialler(settings())
        _Dialler.one.start()
    elif "webhooks" in queues:
        _Deliverer.one = assembly.deliverer(settings(), _hints(), liveness.worked)
        _Deliverer.one.start()
    else:
        use_cases()
    # Last, because a dialler blocks its alarm signal in all threads that start after it.
    Watchdog(partial(end_process, _DRAINS_S if "dial" in queues else EXIT_S)).start()


@at_start(worker_ready)
def _end_of_start(**_: Any) -> None:  # noqa: ANN401 - a signal's own arguments
    collect_rarely()


@at_start(worker_ready)
def _warn_of_eviction(**_: Any) -> None:  # noqa: ANN401 - a signal's own arguments
    """Raise an alarm if Redis evicts messages. The worker still starts: hints are sent again, but calls are late."""
    policy = start_checks.evicts_by(settings().redis)
    if policy is not None:
        _log.error(
            "redis_evicts: Redis evicts messages when its memory is full; set maxmemory-policy to noeviction",
            alarm="REDIS_EVICTS",
            cause=policy,
        )


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _stop_claiming(**_: Any) -> None:  # noqa: ANN401 - a signal's own arguments
    end_proof()
    if _Dialler.one is not None:
        _Dialler.one.stop_claiming()
    if _Deliverer.one is not None:
        _Deliverer.one.stop_claiming()


@worker_shutdown.connect  # type: ignore[untyped-decorator]
def _stop(**_: Any) -> None:  # noqa: ANN401 - a signal's own arguments
    if _Dialler.one is not None:
        _Dialler.one.stop()
        left = _Dialler.one.left()
        for start in range(0, len(left), AT_MOST_A_TRANSACTION):
            _hints().send(names.DIAL, left[start : start + AT_MOST_A_TRANSACTION])
    if _Deliverer.one is not None:
        _Deliverer.one.stop()
    if _hints.cache_info().currsize:
        _hints().stop()
    if _alarms.cache_info().currsize:
        _alarms().stop()
