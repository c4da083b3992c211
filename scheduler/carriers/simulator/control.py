"""The carrier as its operator sees it: what shall happen, and what did happen."""

from typing import Any

from fastapi import APIRouter

from scheduler.carriers.simulator.exchange import Exchange
from scheduler.carriers.simulator.ledger import Arrivals, requests, rings
from scheduler.carriers.simulator.plans import Plan, Plans, PostedPlan


def routes(*, exchange: Exchange, plans: Plans, arrivals: Arrivals) -> APIRouter:
    """Without authentication: for loopback only. The ledger can be read and not be changed."""
    router = APIRouter()

    @router.get("/healthz")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @router.post("/plans", status_code=201)
    async def post_plan(plan: Plan) -> PostedPlan:
        return plans.post(plan)

    @router.get("/plans")
    async def list_plans() -> dict[str, list[PostedPlan]]:
        return {"plans": plans.all()}

    @router.delete("/plans", status_code=204)
    async def clear_plans() -> None:
        plans.clear()

    @router.get("/ledger")
    async def ledger(to: str | None = None) -> dict[str, list[dict[str, Any]]]:
        return {"rings": rings(call for call in exchange.all() if to in {None, call.order.to})}

    @router.get("/requests")
    async def list_requests(to: str | None = None) -> dict[str, list[dict[str, Any]]]:
        return {"requests": requests(arrival for arrival in arrivals.all() if to in {None, arrival.to})}

    return router
