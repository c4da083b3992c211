"""The operator's API of the simulated carrier: plans, outages and the ledger."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from standalone.simulator import outage as outages
from standalone.simulator.call_lives import CallLives
from standalone.simulator.ledger import RequestLog, requests, rings, verdict
from standalone.simulator.outage import Outage
from standalone.simulator.plans import Plan, Plans, PostedPlan


def routes(*, lives: CallLives, plans: Plans, arrivals: RequestLog, outage: Outage) -> APIRouter:
    """Build the routes. They need no authentication, for loopback only. The ledger is read-only."""
    router = APIRouter()
    router.include_router(_plan_routes(plans, outage))
    router.include_router(_ledger_routes(lives, arrivals))
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
    async def begin_outage(order: outages.Order, request: Request) -> outages.Order:
        await outage.begin(order, request.scope)
        return order

    @router.get("/outage")
    async def show_outage() -> dict[str, str | None]:
        return {"kind": outage.kind}

    @router.delete("/outage", status_code=204)
    async def end_outage() -> None:
        outage.end()

    return router


def _ledger_routes(lives: CallLives, arrivals: RequestLog) -> APIRouter:
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
        return JSONResponse(verdict(arrivals.all(), lives.all()))

    return router
