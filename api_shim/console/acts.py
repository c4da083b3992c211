"""Acts of operators: a form that shows the effects, then the act, then a redirect to the page that shows its result.

Each form has a token, so that sending it twice acts once. Reasons are checked as those of `duecall pause`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from secrets import token_urlsafe
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import RedirectResponse, Response

from api_shim.console.context import ConsoleContext, console_context
from api_shim.console.forms import form_of
from api_shim.console.operators import operator
from api_shim.console.rendering import number, page
from scheduler.assembly import ConsoleUseCases
from scheduler.domain.operator import ConsoleSession
from scheduler.domain.refusals import Refused
from scheduler.logs import log
from scheduler.rules.pause_reasons import LONGEST
from scheduler.use_cases.operations.operator_pages import Overview

router = APIRouter()
_log = log(__name__)
_SEE_OTHER, _CONFLICT, _UNPROCESSABLE = 303, 409, 422


@dataclass(frozen=True, kw_only=True)
class Act:
    """Something that an operator changes."""

    name: str
    """Part of its address."""
    title: str
    verb: str
    """The label of its button."""
    preview: Callable[[Overview], Sequence[str]]
    """Sentences about what it would change now."""
    run: Callable[[ConsoleUseCases, str, str], object]
    """Executes it for an actor with a reason. Raises Refused, ClockWrong, DatabaseAway."""
    needs_reason: bool = True
    is_danger: bool = False


def _pause_preview(overview: Overview) -> Sequence[str]:
    if overview.pause_reason is not None:
        return [f"All calls are paused already: {overview.pause_reason}. Pausing again changes nothing."]
    waiting = f"{number(overview.waiting + overview.due)}{'+' if overview.waiting_is_estimate else ''}"
    return [
        f"{waiting} pending calls of {number(len(overview.companies))} companies will wait until calls are resumed.",
        f"{number(overview.due)} of them are due now.",
        f"{number(overview.in_progress)} calls in progress continue.",
    ]


def _resume_preview(overview: Overview) -> Sequence[str]:
    if overview.pause_reason is None:
        return ["All calls are running. Resuming changes nothing."]
    return [
        f"The pause of all calls ends. Its reason was: {overview.pause_reason}",
        f"{number(overview.due)} calls are due. Those within calling hours are placed at once, at the account's pace.",
        f"{number(overview.paused_companies)} companies that are paused separately stay paused.",
    ]


ACTS: Mapping[str, Act] = {
    act.name: act
    for act in (
        Act(
            name="pause-everything",
            title="Pause all calls",
            verb="Pause all calls",
            preview=_pause_preview,
            run=lambda use_cases, actor, reason: use_cases.pauses(actor).pause(None, reason),
            is_danger=True,
        ),
        Act(
            name="resume-everything",
            title="Resume all calls",
            verb="Resume all calls",
            preview=_resume_preview,
            run=lambda use_cases, actor, reason: use_cases.pauses(actor).resume(None, reason or None),
            needs_reason=False,
        ),
    )
}


async def _form(
    request: Request, act: Act, *, status: int = 200, problem: str | None = None, reason: str = ""
) -> Response:
    context = console_context(request)
    overview = await context.run(context.use_cases.pages.overview)
    return page(
        request,
        "act.html",
        status,
        act=act,
        preview=act.preview(overview),
        problem=problem,
        reason=reason,
        longest_reason=LONGEST,
        token=token_urlsafe(16),
    )


async def _do(context: ConsoleContext, session: ConsoleSession, act: Act, reason: str) -> None:
    await context.run(act.run, context.use_cases, session.actor, reason)
    _log.info("console_act: An operator's act was executed.", name=act.name, kind=session.role.value)


def _add_routes(act: Act) -> None:
    @router.get(f"/acts/{act.name}", name=f"preview {act.name}")
    async def preview(request: Request, _: Annotated[ConsoleSession, Depends(operator)]) -> Response:
        return await _form(request, act)

    @router.post(f"/acts/{act.name}", name=act.name)
    async def execute(request: Request, session: Annotated[ConsoleSession, Depends(operator)]) -> Response:
        context, form = console_context(request), await form_of(request)
        token, reason = form.get("token", ""), form.get("reason", "").strip()
        if act.needs_reason and not reason:
            return await _form(request, act, status=_UNPROCESSABLE, problem="Write a reason.")
        if not token or not await context.run(context.use_cases.sessions.take_act, token):
            problem = "This form was already sent, so it was not executed again. The state now is described below."
            return await _form(request, act, status=_CONFLICT, problem=problem)
        try:
            await _do(context, session, act, reason)
        except Refused as refused:
            return await _form(request, act, status=_UNPROCESSABLE, problem=refused.message, reason=reason)
        return RedirectResponse("/", _SEE_OTHER)


for _act in ACTS.values():
    _add_routes(_act)
