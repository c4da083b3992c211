"""The page Unknown: calls about which the carrier proved nothing, and the decision about one of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from console.acts import Act, Choice, act_routes, address_of, id_in
from console.assembly import ConsoleContext, ConsoleUseCases, console_context
from console.lists import COMPANY, ROWS, ListPage
from console.operators import viewer
from console.rendering import name, page, span, utc_text
from console.stores.sessions import ConsoleSession
from scheduler.domain.attempt import Decision
from scheduler.ids import id_or_none

router = APIRouter()
_PATH = "/unknown"
_LIST = ListPage(path=_PATH, filters=(COMPANY,), place=(datetime, UUID), pager=("Oldest", "Newer"))
_AS_BEFORE = "as-before"
"""In place of a command's id: the attempt had this decision already."""
_RELOAD = "Reload this page to see the result. If it still waits, check on the page Now that an intake worker runs."


@router.get(_PATH)
async def unknown(request: Request, _: Annotated[ConsoleSession, Depends(viewer)]) -> Response:
    context, query = console_context(request), request.query_params
    asked, result = _LIST.asked(query), await _result(context, query)
    listed = None
    if asked.problem is None:
        outcomes = context.use_cases.unknown_outcomes()
        found = await context.run(outcomes.page, asked.id("company"), asked.place, ROWS + 1)
        listed = asked.part(found, lambda each: (each.ended_at, each.id))
    return page(
        request,
        "unknown.html",
        asked.status,
        asked=asked,
        listed=listed,
        result=result,
        now=context.use_cases.now(),
        decide=lambda attempt_id: address_of(DECIDE, attempt=attempt_id),
    )


@dataclass(frozen=True, kw_only=True)
class _Result:
    text: str
    is_refused: bool = False


async def _result(context: ConsoleContext, query: Mapping[str, str]) -> _Result | None:
    """Read the result of the decision after which the page is shown. None without one, and for a wrong address."""
    attempt_id, decided = id_or_none(query.get("attempt", "")), query.get("decided", "")
    if attempt_id is None:
        return None
    if decided == _AS_BEFORE:
        return _Result(text=f"Attempt {attempt_id} was decided so before. Nothing changed.")
    command_id, outcomes = id_or_none(decided), context.use_cases.unknown_outcomes()
    answer = None if command_id is None else await context.run(outcomes.answer, command_id)
    if answer is None:
        return None
    if answer.refusal is not None:
        text = f"Nothing was decided about attempt {attempt_id}. {answer.refusal}"
        return _Result(text=text, is_refused=True)
    if not answer.is_applied:
        text = f"The decision about attempt {attempt_id} is accepted, and a worker applies it within seconds. {_RELOAD}"
        return _Result(text=text)
    again = "" if answer.attempt_id in {None, attempt_id} else f" Attempt {answer.attempt_id} calls again."
    return _Result(text=f"The decision about attempt {attempt_id} is applied.{again}")


@dataclass(frozen=True, kw_only=True)
class _Decision:
    attempt_id: UUID
    chosen: Decision | None
    """None while the form is shown."""


_FIELD = "decision"
_OPTIONS = {
    Decision.RANG.value: "It rang. No call follows.",
    Decision.DID_NOT_RING.value: "It did not ring: call again.",
    Decision.LEFT.value: "Leave it. No call follows.",
}


def _read(fields: Mapping[str, str]) -> _Decision:
    chosen = fields.get(_FIELD)
    return _Decision(
        attempt_id=id_in(fields, "attempt", "callAttempt"),
        chosen=Decision(chosen) if chosen in _OPTIONS else None,
    )


def _preview(use_cases: ConsoleUseCases, wanted: _Decision) -> Sequence[str]:
    undecided = use_cases.unknown_outcomes().undecided(wanted.attempt_id)
    outcome = undecided.outcome
    since = f"{utc_text(outcome.ended_at)} ({span(use_cases.now() - outcome.ended_at)} ago)"
    again = (
        "Call again: a new call is placed within the calling hours of the person, under all rules of a new call. If one"
        " forbids it, for example because the consent has ended, nothing is decided, and the list shows why."
    )
    late = (
        "Late proof still wins: if the carrier shows the call later, its outcome replaces the decision, and a new call"
        " is cancelled while it is pending."
    )
    if undecided.reported is not None:
        again = f"Call again is refused: the phone rang, and a conversation has reported {undecided.reported}."
    elif undecided.replaced_by is not None:
        again = f"Call again is refused: the interview has the newer attempt {undecided.replaced_by}."
    claimed = "not known" if outcome.claimed_at is None else utc_text(outcome.claimed_at)
    return [
        f"Attempt {outcome.id} of {name(outcome.company_name)} has had an unknown outcome since {since}.",
        f"Time of the claim: {claimed}. Carrier's list read in full: {_read_at(outcome.listed_at)}.",
        "It rang, or leave it: no call follows. The attempt keeps its unknown outcome and leaves the list.",
        again,
        late,
        "A decision cannot be changed. Only the first of two operators decides; the other one sees a refusal.",
    ]


def _read_at(listed_at: datetime | None) -> str:
    return "never, so that it proves nothing yet" if listed_at is None else f"{utc_text(listed_at)}, without this call"


def _run(use_cases: ConsoleUseCases, actor: str, reason: str, wanted: _Decision) -> UUID | None:
    assert wanted.chosen is not None, "the form was checked"
    return use_cases.unknown_outcomes(actor).decide(wanted.attempt_id, wanted.chosen, reason)


def _after(wanted: _Decision, command_id: object) -> str:
    return f"{_PATH}?{urlencode({'decided': command_id or _AS_BEFORE, 'attempt': wanted.attempt_id})}"


DECIDE = Act(
    name="decide-outcome",
    title="Decide about a call",
    verb="Decide",
    fields=("attempt",),
    read=_read,
    preview=_preview,
    run=_run,
    back=lambda _: _PATH,
    result=_after,
    choice=Choice(name=_FIELD, label="What the carrier's console shows", options=_OPTIONS),
)
router.routes.extend(act_routes(DECIDE).routes)
