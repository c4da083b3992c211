"""The page of one attempt: the rules that block it and who ends each, times, history and call, and its cancellation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from console.acts import Act, act_routes, address_of, id_in
from console.assembly import ConsoleUseCases, console_context
from console.operators import viewer
from console.pages.unknown import DECIDE
from console.reads.attempts import AttemptDetails
from console.rendering import link_to, not_found, page, page_of, value_text
from console.security import id_in_path
from console.stores.sessions import ConsoleSession
from console.timeline import CallHours, Timeline, clock_text, timeline_of, wall_time
from scheduler.domain.attempt import AttemptState, Reason
from scheduler.domain.explanation import Block, HistoryEntry, Rule
from scheduler.domain.principal import OperatorRole
from scheduler.domain.refusals import CallAttemptNotPending, NotFound

router = APIRouter()


@dataclass(frozen=True, kw_only=True)
class Ender:
    """The person or event that ends a block, and the page where it happens, if it is one of the console."""

    words: str
    link: str = ""
    href: str | None = None


@router.get("/attempts/{attempt_id}")
async def attempt(request: Request, session: Annotated[ConsoleSession, Depends(viewer)], attempt_id: str) -> Response:
    context = console_context(request)
    try:
        details = await context.run(context.use_cases.attempt_pages.details, id_in_path(attempt_id))
    except NotFound:
        text = "It was erased with its company, or the id is incomplete. The page Find looks for ids of every kind."
        return not_found(request, "There is no such attempt.", text)
    hours = CallHours(clocks=details.clocks, intervals=details.settings.intervals, consent_until=details.consent_until)
    timeline = timeline_of(details.explanation, hours, details.now)
    return page(
        request,
        "attempt.html",
        details=details,
        timeline=timeline,
        on_clock=lambda at: _on_clock(at, timeline),
        blocks=[(block, ender_of(block, details)) for block in details.explanation.blocks],
        acts=_acts(session, details),
        detail_text=_detail_text,
    )


def _on_clock(at: datetime, timeline: Timeline) -> str:
    """Format the time on the callee's own clock. Empty if their zone is unknown."""
    if timeline.clock is None:
        return ""
    return f"{wall_time(timeline.clock, at):%Y-%m-%d %H:%M} {clock_text(timeline.clock)}"


def _acts(session: ConsoleSession, details: AttemptDetails) -> list[tuple[str, str]]:
    """List label and address of what this operator may do with the attempt."""
    attempt = details.attempt
    if not session.role.may(OperatorRole.OPERATOR):
        return []
    if attempt.state is AttemptState.PENDING:
        return [("Cancel this call…", address_of(CANCEL, attempt=attempt.id))]
    if attempt.reason is Reason.OUTCOME_UNKNOWN and attempt.decision is None:
        return [("Decide what happened…", address_of(DECIDE, attempt=attempt.id))]
    return []


def _detail_text(entry: HistoryEntry) -> str:
    """Describe the details of an event. They contain ids, times and codes."""
    return ", ".join(f"{name.replace('_', ' ')} {value_text(value)}" for name, value in entry.detail.items())


# ---- who can end a block


def ender_of(block: Block, details: AttemptDetails) -> Ender:
    """Find out who can end the block, and where."""
    return _ENDERS[block.rule](details)


def _fixed(words: str, link: str = "", name: str | None = None, **query: str) -> Callable[[AttemptDetails], Ender]:
    return lambda _: Ender(words=words, link=link, href=None if name is None else link_to(name, **query))


def _company(words: str, link: str) -> Callable[[AttemptDetails], Ender]:
    return lambda details: Ender(words=words, link=link, href=page_of("companies", details.attempt.company_id))


def _command(details: AttemptDetails) -> Ender:
    if any(each.quarantined_at is not None for each in details.commands):
        words = "An operator retries or drops the command, which failed five times."
        company = str(details.attempt.company_id)
        return Ender(words=words, link="Quarantine", href=link_to("quarantine", kind="command", company=company))
    words = "A worker applies the command, usually within a second."
    return Ender(words=words, link="Commands", href=f"{page_of('companies', details.attempt.company_id)}#commands")


def _line(details: AttemptDetails) -> Ender:
    holder, last = details.line_holder, details.last_on_line
    if holder is None:
        href = None if last is None else page_of("attempts", last)
        return Ender(words="Time: the number rests after its last call.", link="The last call", href=href)
    return Ender(words="The end of the other call.", link="The other call", href=page_of("attempts", holder))


def _calls(words: str, link: str, *, of_company: bool) -> Callable[[AttemptDetails], Ender]:
    def ender(details: AttemptDetails) -> Ender:
        only = {"company": str(details.attempt.company_id)} if of_company else {}
        return Ender(words=words, link=link, href=link_to("attempts", state="in-progress", **only))

    return ender


_CLIENT = "The company, by its API: "
_CARRIER = "The administrator of the carrier account, by allowing "
_ENDERS: Mapping[Rule, Callable[[AttemptDetails], Ender]] = MappingProxyType(
    {
        Rule.ACCOUNT_PAUSED: _fixed("An operator resumes all calls.", "Now", "now"),
        Rule.CARRIER_DOWN: _fixed("The carrier. Duecall asks it again by itself.", "Now", "now"),
        Rule.VOICE_SERVER_DOWN: _fixed("The voice server. Duecall asks it again by itself.", "Now", "now"),
        Rule.CARRIER_REFUSES_COUNTRY: _fixed(f"{_CARRIER}calls to the country.", "Now", "now"),
        Rule.CARRIER_REFUSES_CALLER: _fixed(f"{_CARRIER}calls from the company's number.", "Now", "now"),
        Rule.CARRIER_FAILS_CALLER: _fixed("The carrier. Duecall tries one call by itself.", "Now", "now"),
        Rule.COMPANY_PAUSED: _company("An operator resumes the company.", "The company"),
        Rule.COMPANY_DELETED: _fixed("Nothing: the attempt will be cancelled and erased.", "Erasures", "erasures"),
        Rule.INTERVIEW_OVER: _fixed("Nothing: the attempt will be cancelled."),
        Rule.COMMAND_WAITING: _command,
        Rule.EXPIRED: _fixed(f"{_CLIENT}a later expiresAt of the interview."),
        Rule.NUMBER_MISSING: _fixed(f"{_CLIENT}a phone number of the candidate."),
        Rule.NUMBER_NOT_ALLOWED: _company(
            f"{_CLIENT}allowedCountries in its settings, or another number of the candidate.", "The company"
        ),
        Rule.WRONG_NUMBER: _fixed(f"{_CLIENT}another number of the candidate."),
        Rule.OPTED_OUT: _fixed("Nothing: the person asks for no further calls at this number."),
        Rule.TIMEZONE_UNKNOWN: _fixed(f"{_CLIENT}the time zone of the candidate."),
        Rule.CONSENT_EXPIRED: _fixed(f"{_CLIENT}a later gdprExpiryDate, with the person's consent."),
        Rule.NOT_DUE: _fixed("Time. The company can move the call by its API."),
        Rule.WINDOW_CLOSED: lambda details: Ender(
            words="Time, or wider callTimeIntervals in the company's settings.",
            link="The company's hours",
            href=link_to("calendar", company=str(details.attempt.company_id)),
        ),
        Rule.NUMBER_BUSY: _line,
        Rule.COMPANY_LIMIT: _calls(
            "The end of one of the company's calls, or a higher limit in its settings.",
            "Its calls in progress",
            of_company=True,
        ),
        Rule.ACCOUNT_LIMIT: _calls(
            "The end of another call, or a higher TWILIO_MAX_CALLS.", "Calls in progress", of_company=False
        ),
    }
)


# ---- the act


def _cancel_preview(use_cases: ConsoleUseCases, attempt_id: UUID) -> Sequence[str]:
    attempt = use_cases.attempt_pages.details(attempt_id).attempt
    if attempt.state is not AttemptState.PENDING:
        return [f"The attempt is {attempt.state.value} now, so nothing will be cancelled."]
    return [
        f"Attempt {attempt_id} will be cancelled. No retry follows.",
        "If it is claimed before you send this form, its call continues.",
        "A cancelled call cannot be restored. Its company sees that an operator cancelled it, and your reason.",
    ]


def _cancel(use_cases: ConsoleUseCases, actor: str, reason: str, attempt_id: UUID) -> None:
    if not use_cases.commands(actor).cancel([attempt_id], reason):
        raise CallAttemptNotPending("The attempt is not pending any longer, or is being cancelled already.")


CANCEL = Act(
    name="cancel-attempt",
    title="Cancel a call",
    verb="Cancel this call",
    fields=("attempt",),
    read=lambda fields: id_in(fields, "attempt", "callAttempt"),
    preview=_cancel_preview,
    run=_cancel,
    back=lambda attempt_id: page_of("attempts", attempt_id),
    is_danger=True,
)
router.routes.extend(act_routes(CANCEL).routes)
