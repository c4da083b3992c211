"""HTTP routes for liveness, readiness and metrics."""

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal, TypeVar, get_args
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from pydantic import Field
from redis import RedisError

from api_shim import http_metrics, responses
from api_shim.assembly import ApiUseCases, AppContext, app_context
from api_shim.errors import SchemaNotReady
from api_shim.openapi import error_answers
from api_shim.request_input import refuse_wrong_query
from api_shim.schemas.envelope import answer
from api_shim.thread_pools import run_in_thread
from scheduler.clock import deadline_in
from scheduler.domain.resource import COUNTED_UP_TO
from scheduler.lifecycle.backoffs import Backoff
from scheduler.persistence.errors import WrongDatabase
from scheduler.rules.reputation import CallerDay
from scheduler.use_cases.operations.counts import HOLDING, Carrier, Commands, Counted, Held, Waiting
from scheduler.wire.field_types import Wire
from workers.liveness import Degraded, degraded_by

R = TypeVar("R")
_READY_S = 3.0
"""A process that cannot read within this time is not ready for requests, which give up after 6 s."""
_AHEAD_S = 1.0
"""A start is not delayed by more than this."""

router = APIRouter(tags=["health"], dependencies=[Depends(refuse_wrong_query)])


class HealthView(Wire):
    status: Literal["ok"] = "ok"
    degraded: list[Degraded] = Field(default_factory=list)
    """Problems that do not stop requests from being answered.

    `redis`: unreachable. `workers`: no live worker serves one of the queues. `tzdata`: the processes have different
    versions of the tz database. `clock`: this process's clock and the database's differ by more than 2 s.
    """
    instance: str | None = None
    """Id of the `duecall up` that started this process. Null for a process started on its own."""


HealthAnswer = answer("HealthAnswer", HealthView, "The service works.")


@router.get(
    "/healthz",
    operation_id="isAlive",
    summary="Check that the process responds",
    responses={200: {"model": HealthAnswer}, **error_answers(400)},
)
async def is_alive(request: Request) -> JSONResponse:
    return responses.answered(request, HealthView(instance=app_context(request).instance))


@router.get(
    "/readyz",
    operation_id="isReady",
    summary="Check that the process can serve requests",
    description="Ready means that the database answers within 3 s over the connections of requests, that it has the"
    " schema of this version, and that it belongs to this installation.",
    responses={200: {"model": HealthAnswer}, **error_answers(400, 503)},
)
async def is_ready(request: Request) -> JSONResponse:
    context = app_context(request)
    # By the connections of requests with a key: others may work while these hang. Not by their threads: the database is
    # there while requests occupy all of them.
    with deadline_in(_READY_S):
        revision = await run_in_thread(context.threads.health, context.use_cases.database.schema_revision)
        if revision is None or revision != context.schema_head:
            raise SchemaNotReady
        try:
            await run_in_thread(context.threads.health, context.use_cases.marks.check)
        except WrongDatabase as wrong:
            raise SchemaNotReady(str(wrong)) from wrong
    return responses.answered(request, HealthView(degraded=await _degraded(context), instance=context.instance))


async def _degraded(context: AppContext) -> list[Degraded]:
    degraded = await _degraded_by_redis(context)
    if not await run_in_thread(context.threads.health, context.use_cases.health.clock_is_right):
        degraded.append("clock")
    return degraded


async def _degraded_by_redis(context: AppContext) -> list[Degraded]:
    """Find the problems seen over Redis. Without Redis, worker state is unknown and only `redis` is reported."""
    if context.waiter.is_away:
        return ["redis"]
    try:
        return degraded_by(await run_in_thread(context.threads.health, context.presence.live))
    except (OSError, RedisError):
        return ["redis"]


@router.get(
    "/metrics",
    operation_id="getMetrics",
    summary="Get metrics for Prometheus",
    description="Waiting and active calls per company, commands, and the state of each carrier account, and counters"
    " and histograms over all processes. Each process counts at most once in 5 s, so the values may be that old."
    " `duecall_redis_away` and `duecall_degraded` are always current.",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}, **error_answers(400, 503)},
)
async def get_metrics(request: Request) -> Response:
    context = app_context(request)
    counted = await context.counted.get(
        lambda: run_in_thread(context.threads.without_key, _counted_now, context.use_cases)
    )
    current = _current_metrics(await _degraded(context), is_redis_away=context.waiter.is_away)
    return Response(counted + current, media_type=CONTENT_TYPE_LATEST)


async def count_ahead(context: AppContext) -> None:
    """Count once without keeping the result, before the process serves.

    The connection's backend reads the catalogue of all counted tables then, and plans three times as long as later.
    An error is not reported: the first request for `/metrics` gets it too, if it lasts.
    """
    with deadline_in(_AHEAD_S), contextlib.suppress(Exception):
        await run_in_thread(context.threads.without_key, _counted_now, context.use_cases)


def _counted_now(use_cases: ApiUseCases) -> bytes:
    return _counted_metrics(use_cases.counts.count())


_Gauges = tuple[tuple[str, str, Callable[[R], float]], ...]
"""Name, documentation, and the value of a row."""

_ATTEMPT_GAUGES: _Gauges[Waiting] = (
    (
        "waiting",
        f"Pending attempts that are not due yet. {COUNTED_UP_TO + 1} means more than {COUNTED_UP_TO:,}.",
        lambda row: row.waiting,
    ),
    (
        "due",
        f"Pending attempts that are due. {COUNTED_UP_TO + 1} means more than {COUNTED_UP_TO:,}.",
        lambda row: row.due,
    ),
    ("due_for_commands", "Due attempts that wait for a command to be applied.", lambda row: row.for_commands),
    ("due_for_numbers", "Due attempts that wait for another call to the same number.", lambda row: row.for_numbers),
    ("due_for_places", "Due attempts that wait for a free slot or for a pause to end.", lambda row: row.for_places),
    ("in_progress", "Attempts whose phone may be ringing.", lambda row: row.in_progress),
    ("in_progress_limit", "Maximum number of attempts in progress.", lambda row: row.concurrent_calls),
    (
        "asked_for",
        "Attempts whose carrier response was lost and for which the carrier is polled.",
        lambda row: row.asked_for,
    ),
    (
        "undecided",
        "Polled attempts that are overdue because no list of the carrier's calls could be read.",
        lambda row: row.undecided,
    ),
    ("unknown", "Attempts with an unknown outcome about which no operator has decided yet.", lambda row: row.unknown),
    ("cause_lost", "Failed attempts whose final callback was lost. Not retried.", lambda row: row.cause_lost),
)
_COMPANY_GAUGES: _Gauges[Waiting] = (
    (
        "late_seconds",
        "Longest wait of an attempt that could be called now: not blocked by any rule and within the call rate.",
        lambda row: _seconds(row.late),
    ),
    ("paused", "1 while the company's calls are paused.", lambda row: row.paused),
)
_HELD_GAUGES: _Gauges[Held] = (
    (
        "attempts",
        "Due attempts, by the first rule that holds them. Those that no rule holds could be called now.",
        lambda row: row.count,
    ),
    ("oldest_seconds", "Time since the first of them was due.", lambda row: _seconds(row.oldest)),
)
_CARRIER_GAUGES: _Gauges[Carrier] = (
    ("paused", "1 while all calls are paused.", lambda row: row.pause_reason is not None),
    ("down", "1 while the carrier accepts no calls and none is tried.", lambda row: row.is_down),
    ("on_trial", "1 while the carrier is tested with one call at a time.", lambda row: row.on_trial),
    ("calls_in_progress", "Calls in progress on the account.", lambda row: row.in_progress),
    ("calls_limit", "Maximum number of calls in progress on the account.", lambda row: row.max_calls),
)
_CALLER_GAUGES: _Gauges[CallerDay] = (
    ("calls", "Calls of the caller id that ended today (UTC).", lambda row: row.calls),
    ("answered", "Of these calls, those that a person answered.", lambda row: row.answered),
    ("declined", "Of these calls, those that the person declined.", lambda row: row.declined),
    ("blocked", "Of these calls, those that the person's network blocked.", lambda row: row.blocked),
)
_COMMAND_GAUGES: _Gauges[Commands] = (
    ("waiting", "Accepted commands that are not applied yet.", lambda row: row.waiting),
    ("oldest_seconds", "Age of the oldest waiting command.", lambda row: _seconds(row.oldest)),
    ("quarantined", "Commands that failed five times; an engineer decides.", lambda row: row.quarantined),
)


def _counted_metrics(counted: Counted) -> bytes:
    """Render the counts. Labels are ids and positions of carrier accounts, never personal data."""
    registry = CollectorRegistry()
    by_company = {row.company_id: row for row in counted.companies}
    _add(registry, "attempts_", _ATTEMPT_GAUGES, "company_id", by_company)
    _add(registry, "", _COMPANY_GAUGES, "company_id", by_company)
    _add_held(registry, by_company)
    _add(registry, "carrier_", _CARRIER_GAUGES, "account", dict(enumerate(counted.carriers, start=1)))
    _add_backoffs(registry, counted.backoffs)
    callers = {each.phone_number_id: each for each in counted.callers}
    _add(registry, "caller_today_", _CALLER_GAUGES, "phone_number_id", callers)
    # Also export zero: dashboards keep the last value of a gauge that disappears.
    of_company = {each: counted.commands.get(each, Commands()) for each in {*counted.commands, *by_company}}
    _add(registry, "commands_", _COMMAND_GAUGES, "company_id", of_company)
    for name, documentation, value in (
        (
            "callbacks_quarantined",
            "Callbacks that failed five times; an engineer decides.",
            counted.callbacks_quarantined,
        ),
        ("erasures_open", "Deleted companies that are not fully erased yet.", counted.erasures.count),
        ("erasures_oldest_seconds", "Time since the oldest of them was deleted.", _seconds(counted.erasures.oldest)),
        (
            "webhook_deliveries_waiting",
            "Deliveries to webhooks that wait to be sent. 10001 means more than 10,000.",
            counted.webhooks.count,
        ),
        (
            "webhook_deliveries_oldest_seconds",
            "Time since the oldest delivery to a webhook that is not failing was due.",
            _seconds(counted.webhooks_late),
        ),
        ("batches_waiting", "Batches that are neither finished nor paused.", counted.batches.count),
        ("batch_items_waiting", "Items of these batches that have no outcome yet.", counted.batches.items),
        (
            "batches_oldest_seconds",
            "Time since the oldest of these batches was stored.",
            _seconds(counted.batches_oldest),
        ),
        (
            "batches_still_seconds",
            "Longest time since the batches of a company made progress.",
            _seconds(counted.batches_still),
        ),
    ):
        Gauge(f"duecall_{name}", documentation, registry=registry).set(value)
    http_metrics.register(registry, counted.totals)
    _add_alarms(registry, counted.alarms)
    return generate_latest(registry)


def _current_metrics(degraded: Sequence[Degraded], *, is_redis_away: bool) -> bytes:
    registry = CollectorRegistry()
    documentation = "1 while requests cannot wait for results over Redis."
    Gauge("duecall_redis_away", documentation, registry=registry).set(is_redis_away)
    problems = Gauge("duecall_degraded", "1 while `/readyz` reports this problem.", ["problem"], registry=registry)
    for problem in get_args(Degraded):
        problems.labels(problem).set(problem in degraded)
    return generate_latest(registry)


def _add(registry: CollectorRegistry, prefix: str, gauges: _Gauges[R], label: str, rows: Mapping[Any, R]) -> None:
    """Add gauges with a value for each row, labelled by its key."""
    for name, documentation, value_of in gauges:
        gauge = Gauge(f"duecall_{prefix}{name}", documentation, [label], registry=registry)
        for key, row in rows.items():
            gauge.labels(str(key)).set(value_of(row))


def _add_held(registry: CollectorRegistry, by_company: Mapping[UUID, Waiting]) -> None:
    for name, documentation, value_of in _HELD_GAUGES:
        gauge = Gauge(f"duecall_held_{name}", documentation, ["company_id", "rule"], registry=registry)
        for company_id, row in by_company.items():
            for rule in HOLDING:
                gauge.labels(str(company_id), rule).set(value_of(row.held.get(rule, Held())))


def _add_backoffs(registry: CollectorRegistry, backoffs: Sequence[Backoff]) -> None:
    waits = Gauge(
        "duecall_carrier_backoffs",
        "Countries and caller numbers whose calls wait because the carrier refuses or fails them.",
        ["kind"],
        registry=registry,
    )
    by_kind = Counter("caller" if each.scope.country is None else "country" for each in backoffs)
    for kind in ("country", "caller"):
        waits.labels(kind).set(by_kind[kind])


def _add_alarms(registry: CollectorRegistry, alarms: Mapping[str, int]) -> None:
    opened = Gauge("duecall_alarms_open", "Alarms that no operator has acknowledged yet.", ["kind"], registry=registry)
    for kind, count in alarms.items():
        opened.labels(kind).set(count)


def _seconds(span: timedelta | None) -> float:
    return 0 if span is None else span.total_seconds()
