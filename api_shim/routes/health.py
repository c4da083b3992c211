"""Whether this process lives and can work, and what waits."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from pydantic import Field
from redis import RedisError

from api_shim import answers
from api_shim.errors import SchemaNotReady
from api_shim.house import House, asked, house
from api_shim.openapi import error_answers
from api_shim.queries import refuse_wrong_query
from api_shim.schemas.envelope import Answer
from scheduler.lifecycle.backoffs import Backoff
from scheduler.use_cases.backlog import Commands, OpenErasures
from scheduler.use_cases.explain import Carrier, Waiting
from scheduler.wire.base import Wire
from workers.presence import Degraded, degraded_by

router = APIRouter(tags=["health"], dependencies=[Depends(refuse_wrong_query)])


class HealthView(Wire):
    status: Literal["ok"] = "ok"
    degraded: list[Degraded] = Field(default_factory=list)
    """What is wrong although requests are still answered.

    `redis`: unreachable. `workers`: no live worker serves one of the queues. `tzdata`: the processes have different
    versions of the tz database. `clock`: this process's clock and the database's differ by more than 2 s.
    """
    instance: str | None = None
    """Which `duecall up` this process belongs to; null where it is run by itself."""


class HealthAnswer(Answer[HealthView]):
    """It works."""


@router.get(
    "/healthz",
    operation_id="isAlive",
    summary="This process answers",
    responses={200: {"model": HealthAnswer}, **error_answers(400)},
)
async def is_alive(request: Request) -> JSONResponse:
    return answers.answered(request, HealthView(instance=house(request).instance))


@router.get(
    "/readyz",
    operation_id="isReady",
    summary="The database is there and at this release's schema",
    responses={200: {"model": HealthAnswer}, **error_answers(400, 503)},
)
async def is_ready(request: Request) -> JSONResponse:
    here = house(request)
    revision = await asked(here.rooms.health, here.doors.health.schema_revision)
    if revision is None or revision != here.schema_head:
        raise SchemaNotReady
    degraded = await _degraded_by_redis(here)
    if not await asked(here.rooms.health, here.doors.health.clock_is_right):
        degraded.append("clock")
    return answers.answered(request, HealthView(degraded=degraded, instance=here.instance))


async def _degraded_by_redis(here: House) -> list[Degraded]:
    """Without Redis, nothing is known of the workers: only `redis` is reported then."""
    if here.waiter.is_away:
        return ["redis"]
    try:
        return degraded_by(await asked(here.rooms.health, here.presence.live))
    except (OSError, RedisError):
        return ["redis"]


@router.get(
    "/metrics",
    operation_id="getMetrics",
    summary="What waits and for what, per company, and how the carrier stands; for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}, **error_answers(400, 503)},
)
async def get_metrics(request: Request) -> Response:
    here = house(request)
    counted = await asked(here.rooms.strangers, here.doors.explain.waiting)
    carriers = await asked(here.rooms.strangers, here.doors.explain.carriers)
    backoffs = await asked(here.rooms.strangers, here.doors.carrier_waits.all)
    commands = await asked(here.rooms.strangers, here.doors.backlog.commands)
    erasures = await asked(here.rooms.strangers, here.doors.backlog.erasures)
    told = _metrics(counted, carriers, backoffs, commands, erasures, redis_is_away=here.waiter.is_away)
    return Response(told, media_type=CONTENT_TYPE_LATEST)


_GAUGES: tuple[tuple[str, str, Callable[[Waiting], int]], ...] = (
    ("waiting", "Pending attempts whose time has not come.", lambda row: row.waiting),
    ("due", "Pending attempts whose time has come.", lambda row: row.due),
    ("due_for_commands", "Of the due ones: a command is not applied yet.", lambda row: row.for_commands),
    ("due_for_numbers", "Of the due ones: another call holds their number.", lambda row: row.for_numbers),
    ("due_for_places", "Of the due ones: they wait for a turn, or for a pause to end.", lambda row: row.for_places),
    ("in_progress", "Attempts whose phone may be ringing.", lambda row: row.in_progress),
    ("in_progress_limit", "How many may be in progress at once.", lambda row: row.concurrent_calls),
    ("asked_for", "Attempts whose answer was lost; the carrier is being asked.", lambda row: row.asked_for),
    (
        "undecided",
        "Of those asked for: overdue, because no list of the carrier's calls could be read.",
        lambda row: row.undecided,
    ),
    ("unknown", "Attempts that ended with an unknown outcome; a person decides.", lambda row: row.unknown),
    (
        "cause_lost",
        "Attempts that failed while the callback that says why was lost; not retried.",
        lambda row: row.cause_lost,
    ),
)


_CARRIER_GAUGES: tuple[tuple[str, str, Callable[[Carrier], int]], ...] = (
    ("paused", "1 while an operator has stopped everything.", lambda each: each.pause_reason is not None),
    ("down", "1 while the carrier takes no calls and none is tried.", lambda each: each.is_down),
    ("on_trial", "1 while it is tried with one call at a time.", lambda each: each.on_trial),
    ("calls_in_progress", "Calls in progress on the account.", lambda each: each.in_progress),
    ("calls_limit", "How many the account may have at once.", lambda each: each.max_calls),
)


_COMMAND_GAUGES: tuple[tuple[str, str, Callable[[Commands], float]], ...] = (
    ("waiting", "Commands that were accepted and are not applied yet.", lambda row: row.waiting),
    (
        "oldest_seconds",
        "How long the oldest of them has been waiting.",
        lambda row: 0 if row.oldest is None else row.oldest.total_seconds(),
    ),
    ("quarantined", "Commands that failed five times; an engineer decides.", lambda row: row.quarantined),
)


def _metrics(
    counted: Sequence[Waiting],
    carriers: Sequence[Carrier],
    backoffs: Sequence[Backoff],
    commands: Mapping[UUID, Commands],
    erasures: OpenErasures,
    *,
    redis_is_away: bool,
) -> bytes:
    """Numbers by company id and by the place of a carrier account, and nothing about a person."""
    registry = CollectorRegistry()
    for name, says, number in _GAUGES:
        gauge = Gauge(f"duecall_attempts_{name}", says, ["company_id"], registry=registry)
        for row in counted:
            gauge.labels(str(row.company_id)).set(number(row))
    late = Gauge(
        "duecall_late_seconds",
        "How long the longest attempt has waited that could be rung at once: free, not held back, within the pace.",
        ["company_id"],
        registry=registry,
    )
    paused = Gauge("duecall_paused", "1 while no call of it is claimed.", ["company_id"], registry=registry)
    for row in counted:
        late.labels(str(row.company_id)).set(0 if row.late is None else row.late.total_seconds())
        paused.labels(str(row.company_id)).set(row.paused)
    for name, says, stands in _CARRIER_GAUGES:
        gauge = Gauge(f"duecall_carrier_{name}", says, ["account"], registry=registry)
        for place, carrier in enumerate(carriers, start=1):
            gauge.labels(str(place)).set(stands(carrier))
    waits = Gauge(
        "duecall_carrier_backoffs",
        "Countries, and companies' numbers, whose calls wait because the carrier refuses or fails them.",
        ["kind"],
        registry=registry,
    )
    by_kind = Counter("caller" if each.scope.country is None else "country" for each in backoffs)
    for kind in ("country", "caller"):
        waits.labels(kind).set(by_kind[kind])
    for name, says, told in _COMMAND_GAUGES:
        gauge = Gauge(f"duecall_commands_{name}", says, ["company_id"], registry=registry)
        # Nought, too, is told: a gauge that goes away keeps its last number on the screens.
        for company_id in {*commands, *(row.company_id for row in counted)}:
            gauge.labels(str(company_id)).set(told(commands.get(company_id, Commands())))
    Gauge("duecall_erasures_open", "Deleted companies of which not everything is erased yet.", registry=registry).set(
        erasures.count
    )
    Gauge("duecall_erasures_oldest_seconds", "How long ago the first of them was deleted.", registry=registry).set(
        0 if erasures.oldest is None else erasures.oldest.total_seconds()
    )
    Gauge("duecall_redis_away", "1 while nobody waits for answers over Redis.", registry=registry).set(redis_is_away)
    return generate_latest(registry)
