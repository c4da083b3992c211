"""A simulated carrier on loopback that Twilio's own SDK accepts as Twilio."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from standalone.simulator import control, twilio_api
from standalone.simulator.call_intake import CallIntake
from standalone.simulator.call_lives import CallLives
from standalone.simulator.callbacks import CallbackSender
from standalone.simulator.journal import Journal
from standalone.simulator.ledger import RequestLog
from standalone.simulator.no_answer import CanHangUp, HungUp, NoAnswer
from standalone.simulator.outage import Outage
from standalone.simulator.plans import Plans
from standalone.simulator.refusals import RefusedByTwilio

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
) -> FastAPI:
    """Build the carrier, ready for uvicorn.

    `auth_tokens`: each authenticates requests, and the first signs the callbacks.
    `now`: aware UTC. On a stopped clock calls ring and end in real time, and every step has the same instant. A plan
    with `ring_s` and `talk_s` 0 ends a call at once on any clock.
    `state_file`: keeps the state after the process has ended. Two processes must not share it.
    `speed`: seconds of a call in one real second. Pacing, delays of answers and deadlines stay real.
    `follows_clock`: if `now` is moved ahead, calls that would have ended by then end. Otherwise they go on in real
    time.
    """
    journal = Journal(state_file)
    outage = Outage()
    sender = CallbackSender(auth_token=auth_tokens[0], retry_after_s=callback_retry_after_s, outage=outage)
    lives = CallLives(
        account_sid=account_sid,
        now=now,
        calls_per_second=calls_per_second,
        speed=speed,
        follows_clock=follows_clock,
        journal=journal,
        sender=sender,
    )
    plans = Plans(journal)
    arrivals = RequestLog(journal, now=now)
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
        twilio_api.routes(authentication=authentication, intake=intake, lives=lives, outage=outage)
    )
    app.include_router(control.routes(lives=lives, plans=plans, arrivals=arrivals, outage=outage))
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
