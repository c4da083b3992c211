"""Acts of operators: a form that shows the effects, then the act, then a redirect. Pauses work like this."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from secrets import token_urlsafe
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from starlette.responses import RedirectResponse, Response

from api_shim.thread_pools import MAX_S
from console.assembly import ConsoleContext, ConsoleUseCases, console_context
from console.operators import needs
from console.rendering import list_of, none_or_number_of, number, number_of, page, utc_text
from console.security import form_of
from console.stores.sessions import ConsoleSession
from scheduler.clock import set_deadline
from scheduler.domain.principal import OperatorRole
from scheduler.domain.refusals import Conflict, NotFound, Refused
from scheduler.logs import log
from scheduler.rules.operators import LONGEST
from scheduler.use_cases.operations.counts import Waiting
from scheduler.use_cases.operations.pauses import Pause

# A page defines its acts next to its routes and adds `act_routes(...)` to its router. It links to `address_of(act,
# ...)`. Each form asks for a reason, which is checked like that of `duecall pause`, and has a token, so that sending
# it twice acts once.


T = TypeVar("T")
_log = log(__name__)
_SEE_OTHER, _NOT_FOUND, _CONFLICT, _UNPROCESSABLE = 303, 404, 409, 422
SHOWN = "shown"
"""The field with the change that the form announced."""
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""Without a colon: tokens of sign-ins are kept in the same table."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A question of the form with one answer out of several, for example the decision about an unknown outcome."""

    name: str
    """Name of the field. `Act.read` finds the answer under it, or no such field while nothing is chosen."""
    label: str
    options: Mapping[str, str]
    """Texts by their values."""


@dataclass(frozen=True, kw_only=True)
class Act(Generic[T]):
    """Something that an operator changes. `T` is its subject, for example the id of a company."""

    name: str
    """Part of its address."""
    title: str
    verb: str
    """The label of its button."""
    fields: tuple[str, ...] = ()
    """Fields of the address that name the subject. The form sends them again."""
    read: Callable[[Mapping[str, str]], T]
    """Return the subject from the fields that are not empty. Raises Refused."""
    preview: Callable[[ConsoleUseCases, T], Sequence[str]]
    """Sentences about its effects now. Raises Refused if there is no such subject, and DatabaseAway."""
    run: Callable[[ConsoleUseCases, str, str, T], object]
    """Executes it for an actor with a reason. Raises Refused, ClockWrong, DatabaseAway."""
    back: Callable[[T], str]
    """The address of the page that shows the result."""
    result: Callable[[T, Any], str] | None = None
    """The address after the act, also from what `run` returned. None: `back`."""
    shown: Callable[[ConsoleUseCases, T], object] | None = None
    """A limit of its effects, for example a number. `read` finds its text in the form as `SHOWN`.

    Raises like `preview`.
    """
    choice: Choice | None = None
    role: OperatorRole = OperatorRole.OPERATOR
    lasts_s: float = MAX_S
    """The most time for `run`."""
    is_danger: bool = False


def address_of(act: Act[T], **fields: object) -> str:
    """Build the address of the form of this act for a subject."""
    return f"/acts/{act.name}?{urlencode(fields)}" if fields else f"/acts/{act.name}"


def act_routes(*acts: Act[Any]) -> APIRouter:
    """Build the routes of these acts: the form, and its target."""
    router = APIRouter()
    for act in acts:
        _add_routes(router, act)
    return router


def id_in(fields: Mapping[str, str], name: str, resource: str) -> UUID:
    """Read the id in a field. Raises NotFound if it is missing or not an id."""
    try:
        return UUID(fields[name])
    except (KeyError, ValueError):
        raise NotFound(
            f"This form needs the id of one {resource}. Open it from a page.", resourceType=resource
        ) from None


@dataclass(frozen=True, kw_only=True)
class _Filled:
    """The contents of a form that is shown again."""

    status: int = 200
    problem: str | None = None
    reason: str = ""
    chosen: str = ""


async def _form(request: Request, act: Act[T], fields: Mapping[str, str], filled: _Filled) -> Response:
    context = console_context(request)
    try:
        subject = act.read(fields)
        shown = {}
        if act.shown is not None:  # first: of two numbers the operator confirms the lower one
            shown[SHOWN] = await context.run(act.shown, context.use_cases, subject)
        preview = await context.run(act.preview, context.use_cases, subject)
    except Refused as refused:
        status = _NOT_FOUND if isinstance(refused, NotFound) else _UNPROCESSABLE
        return page(request, "error.html", status, title="This cannot be done.", text=refused.message)
    back = act.back(subject)
    above = list_of(back)
    return page(
        request,
        "act.html",
        filled.status,
        act=act,
        above=[] if above is None else [(above.title, above.path)],
        section=back.partition("?")[0],
        back=back,
        fields={name: fields[name] for name in act.fields if name in fields} | shown,
        preview=preview,
        filled=filled,
        longest_reason=LONGEST,
        token=token_urlsafe(16),
    )


async def _execute(
    request: Request, act: Act[T], session: ConsoleSession, form: Mapping[str, str], filled: _Filled
) -> Response | str:
    """Execute the act once. Return the answer, or the problem for which nothing was done."""
    context = console_context(request)
    if act.choice is not None and filled.chosen not in act.choice.options:
        return f"Choose one: {act.choice.label}"
    if not filled.reason:
        return "Write a reason."
    try:
        subject = act.read(form)
        if not await _is_first(context, form.get("token")):
            problem = "This form was already sent, so it was not executed again. The state now is described below."
            return await _form(request, act, form, _Filled(status=_CONFLICT, problem=problem))
        set_deadline(act.lasts_s)
        done = await context.run(act.run, context.use_cases, session.actor, filled.reason, subject)
    except Refused as refused:
        return refused.message
    _log.info("console_act: An operator's act was executed.", name=act.name, kind=session.role.value)
    return RedirectResponse(act.back(subject) if act.result is None else act.result(subject, done), _SEE_OTHER)


async def _is_first(context: ConsoleContext, token: str | None) -> bool:
    if token is None or not _TOKEN.fullmatch(token):
        return False
    return await context.run(context.use_cases.sessions.take_act, token)


def _add_routes(router: APIRouter, act: Act[T]) -> None:
    allowed = needs(act.role)

    @router.get(f"/acts/{act.name}", name=f"preview {act.name}")
    async def preview(request: Request, _: Annotated[ConsoleSession, Depends(allowed)]) -> Response:
        return await _form(request, act, _filled_in(request.query_params), _Filled())

    @router.post(f"/acts/{act.name}", name=act.name)
    async def execute(request: Request, session: Annotated[ConsoleSession, Depends(allowed)]) -> Response:
        form = _filled_in(await form_of(request))
        chosen = form.get(act.choice.name, "") if act.choice is not None else ""
        filled = _Filled(status=_UNPROCESSABLE, reason=form.get("reason", ""), chosen=chosen)
        answer = await _execute(request, act, session, form, filled)
        if isinstance(answer, Response):
            return answer
        return await _form(request, act, form, replace(filled, problem=answer))


def _filled_in(fields: Mapping[str, str]) -> dict[str, str]:
    return {name: value.strip() for name, value in fields.items() if value.strip()}


# --- A pause of one company or of all calls, and its end, as acts of operators


def pause(use_cases: ConsoleUseCases, actor: str, reason: str, company_id: UUID | None) -> None:
    """Pause one company, or all. Raises Conflict if it is paused already: the page would show another reason."""
    existing = use_cases.pauses(actor).pause(company_id, reason)
    if existing is not None:
        raise Conflict(f"{began(use_cases, existing)} Its reason is: {existing.reason}. Your reason was not stored.")


def resume(use_cases: ConsoleUseCases, actor: str, reason: str, company_id: UUID | None) -> None:
    """Resume one company, or all. Raises Conflict if it is not paused."""
    if use_cases.pauses(actor).resume(company_id, reason) is None:
        raise Conflict("The pause has ended already. Nothing was changed, and your reason was not stored.")


def pending_calls(attempts: Iterable[Waiting]) -> str:
    """Count the calls that a pause affects, with their noun."""
    counted = tuple(attempts)
    count = sum(each.waiting + each.due for each in counted)
    if any(each.waiting_is_estimate for each in counted):
        return f"{number(count)}+ pending calls"
    return number_of(count, "pending call", "pending calls")


def due_now(count: int) -> str:
    return f"{none_or_number_of(count, 'None of them is', 'of them is', 'of them are')} due now."


def placed_at_once(due: int, within: str) -> str:
    """Say what becomes of due calls after a pause. `within`: the limits that still apply."""
    if due == 1:
        return f"1 call is due. It is placed at once if it is within calling hours, {within}."
    if not due:
        return "No call is due."
    return f"{number(due)} calls are due. Those within calling hours are placed at once, {within}."


def began(use_cases: ConsoleUseCases, existing: Pause) -> str:
    """Name the operator who began a pause, and when. The reason of a pause by an alarm names the alarm."""
    at, actor = utc_text(existing.paused_at), existing.actor
    if actor is None:
        return f"The pause began at {at}."
    creator = use_cases.audit.link_creators([actor]).get(actor)
    by = actor if creator is None else f"{actor} (link created by {creator})"
    return f"The pause began at {at} by {by}."
