"""A simulated carrier on loopback that Twilio's own SDK accepts as Twilio, and the API of its operator."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from standalone.simulator import faults, twilio_api
from standalone.simulator.call_lives import CallLives
from standalone.simulator.callbacks import CallbackSender
from standalone.simulator.faults import CanHangUp, HungUp, NoAnswer, Outage, RefusedByTwilio, VoiceServer
from standalone.simulator.ledger import Differences, RequestLog, requests, rings, verdict
from standalone.simulator.plans import Journal, Plan, Plans, PostedPlan
from standalone.simulator.twilio_api import CallIntake

# --- The operator's API of the simulated carrier: plans, outages and the ledger


def routes(
    *,
    lives: CallLives,
    plans: Plans,
    arrivals: RequestLog,
    differences: Differences,
    outage: Outage,
    voice_server: VoiceServer,
) -> APIRouter:
    """Build the routes. They need no authentication, for loopback only. The ledger is read-only."""
    router = APIRouter()
    router.include_router(_plan_routes(plans, outage))
    router.include_router(_ledger_routes(lives, arrivals, differences))
    router.include_router(_voice_routes(voice_server))
    return router


def _plan_routes(plans: Plans, outage: Outage) -> APIRouter:
    router = APIRouter()

    @router.get("/healthz")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @router.post("/plans", status_code=201)
    async def post_plan(plan: Plan | list[Plan]) -> PostedPlan | dict[str, list[PostedPlan]]:
        if isinstance(plan, Plan):
            return plans.post(plan)
        return {"plans": [plans.post(each) for each in plan]}

    @router.get("/plans")
    async def list_plans() -> dict[str, list[PostedPlan]]:
        return {"plans": plans.all()}

    @router.delete("/plans", status_code=204)
    async def clear_plans() -> None:
        plans.clear()

    @router.post("/outage", status_code=201)
    async def begin_outage(order: faults.Order, request: Request) -> faults.Order:
        await outage.begin(order, request.scope)
        return order

    @router.get("/outage")
    async def show_outage() -> dict[str, str | None]:
        return {"kind": outage.kind}

    @router.delete("/outage", status_code=204)
    async def end_outage() -> None:
        outage.end()

    return router


def _voice_routes(voice_server: VoiceServer) -> APIRouter:
    """Build the routes of the stand-in for the caller's voice server, and those that end and start it."""
    router = APIRouter()

    @router.api_route("/voice", methods=["GET", "POST"])
    async def give_instructions(request: Request) -> Response:
        if not voice_server.answers(is_probe="probe" in request.query_params):
            return Response(status_code=503)
        return Response("<Response/>", media_type="text/xml")

    @router.post("/voice/outage", status_code=201)
    async def end_voice_server(outage: faults.VoiceOutage | None = None) -> faults.VoiceOutage:
        ended = outage or faults.VoiceOutage()
        voice_server.end(ended)
        return ended

    @router.delete("/voice/outage", status_code=204)
    async def start_voice_server() -> None:
        voice_server.start()

    return router


def _ledger_routes(lives: CallLives, arrivals: RequestLog, differences: Differences) -> APIRouter:
    """Build the routes of the ledger. FastAPI does not validate their answers, which may be long."""
    router = APIRouter()

    @router.get("/ledger")
    async def ledger(to: str | None = None) -> JSONResponse:
        return JSONResponse({"rings": rings(lives.all(to))})

    @router.get("/requests")
    async def list_requests(to: str | None = None) -> JSONResponse:
        return JSONResponse({"requests": requests(arrivals.all(to))})

    @router.get("/verdict")
    async def judge() -> JSONResponse:
        return JSONResponse(verdict(arrivals.all(), lives.all(), differences))

    return router


# --- A simulated carrier on loopback that Twilio's own SDK accepts as Twilio


_CODE_OF_STATUS = {404: 20404, 405: 20405}


def create_app(
    *,
    account_sid: str,
    auth_tokens: Sequence[str],
    now: Callable[[], datetime],
    calls_per_second: float = 50.0,
    state_file: Path | None = None,
    speed: float = 1.0,
    follows_clock: bool = False,
    callback_retry_after_s: float = 0.5,
    lists_oldest_first: bool = False,
    requests_instructions: bool = False,
) -> FastAPI:
    """Build the carrier, ready for uvicorn.

    `auth_tokens`: each authenticates requests, and the first signs the callbacks.
    `now`: aware UTC. On a stopped clock calls ring and end in real time, and every step has the same instant. A plan
    with `ring_s` and `talk_s` 0 ends a call at once on any clock.
    `state_file`: keeps the state after the process has ended. Two processes must not share it.
    `speed`: seconds of a call in one real second. Pacing, delays of answers and deadlines stay real.
    `follows_clock`: if `now` is moved ahead, calls that would have ended by then end. Otherwise they go on in real
    time.
    `lists_oldest_first`: the order of lists, which Twilio does not promise. Otherwise they are newest first.
    `requests_instructions`: requests each order's `Url` when its call is answered. Otherwise no voice server is needed.
    """
    journal = Journal(state_file)
    outage = Outage()
    voice_server = VoiceServer(is_requested=requests_instructions)
    sender = CallbackSender(auth_token=auth_tokens[0], retry_after_s=callback_retry_after_s, outage=outage)
    lives = CallLives(
        account_sid=account_sid,
        now=now,
        calls_per_second=calls_per_second,
        speed=speed,
        follows_clock=follows_clock,
        journal=journal,
        sender=sender,
        voice_server=voice_server,
    )
    plans = Plans(journal)
    arrivals, differences = RequestLog(journal, now=now), Differences(journal)
    intake = CallIntake(lives=lives, plans=plans, arrivals=arrivals, outage=outage)
    authentication = twilio_api.Authentication(account_sid=account_sid, auth_tokens=auth_tokens)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await sender.open()
        lives.resume()
        yield
        await lives.stop()
        await sender.close()
        journal.close()

    app = CanHangUp(title="A carrier on loopback", lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None)
    app.router.routes.extend(
        twilio_api.routes(
            authentication=authentication,
            intake=intake,
            lives=lives,
            differences=differences,
            outage=outage,
            oldest_first=lists_oldest_first,
        )
    )
    app.include_router(
        routes(
            lives=lives,
            plans=plans,
            arrivals=arrivals,
            differences=differences,
            outage=outage,
            voice_server=voice_server,
        )
    )
    app.state.differences = differences
    app.add_exception_handler(RefusedByTwilio, _refused)
    app.add_exception_handler(HTTPException, _not_ours)
    app.add_exception_handler(HungUp, _hung_up)
    return app


async def _refused(_: Request, refusal: Exception) -> JSONResponse:
    assert isinstance(refusal, RefusedByTwilio)
    headers = {"WWW-Authenticate": 'Basic realm="Twilio API"'} if refusal.code == 20003 else None  # noqa: PLR2004 - Twilio's code
    return JSONResponse(refusal.body(), status_code=refusal.status, headers=headers)


async def _hung_up(_: Request, error: Exception) -> NoAnswer:
    assert isinstance(error, HungUp)
    return NoAnswer(hold_s=error.hold_s)


async def _not_ours(request: Request, error: Exception) -> JSONResponse:
    """Answer an unknown path or method as Twilio does."""
    assert isinstance(error, HTTPException)
    code = _CODE_OF_STATUS.get(error.status_code, error.status_code)
    return await _refused(request, RefusedByTwilio(code, status=error.status_code))
