"""The page Attempts: lists of calls by state, rule, company, time zone and due time, and the cancellation of a list."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from console.acts import SHOWN, Act, act_routes, address_of
from console.assembly import ConsoleUseCases, console_context
from console.attempt_list import (
    FIELDS,
    OUTCOMES,
    REASONS,
    STATES,
    AttemptFilter,
    ListedAttempt,
    ListOrder,
    ListState,
    described,
    fields_of,
    filter_of,
    place_of,
    text_of,
)
from console.attempt_words import RULES, badge_of
from console.lists import COMPANY, Asked, Filter, ListPage, Part, WrongFilter
from console.operators import viewer
from console.reads.attempts import INTERVIEWS_SCANNED, SCANNED, AttemptPage
from console.rendering import none_or_number_of, number, number_of, page
from console.stores.sessions import ConsoleSession
from scheduler.domain.attempt import AttemptState, ConversationOutcome, Decision, Phase, Reason
from scheduler.domain.principal import OperatorRole
from scheduler.domain.refusals import InvalidFields, Refused
from scheduler.timing.call_windows import local_times

router = APIRouter()
_PATH = "/attempts"
_BY_OPERATOR, _BY_ADMIN = 200, 10_000
"""Calls that one act cancels at most."""
_LASTS_S = 30.0
"""A tenth of it suffices usually. A cancellation that is cut off has cancelled the first calls only."""
_TIMES = 3
"""The callee's times of a row at most."""
_COUNT = re.compile(r"[0-9]{1,6}")
_CANCELLED = "cancelled"
"""The field of the list's address with the number of calls that an act has cancelled."""
_PHASES = {
    Phase.DIALLING: "The carrier's answer",
    Phase.PLACED: "The end of the call",
    Phase.UNKNOWN: "Proof of its outcome",
}


def _time(name: str, label: str, placeholder: str = "2030-01-31T09:00") -> Filter:
    return Filter(name=name, label=label, placeholder=placeholder, size=24)


_LIST = ListPage(
    path=_PATH,
    filters=(
        Filter(name="state", label="State", options={"": "All", **STATES}),
        Filter(name="rule", label="Held by a rule (due calls)", options={"": "Any", **RULES}),
        Filter(name="reason", label="End reason (finished calls)", options={"": "Any", **REASONS}),
        Filter(name="outcome", label="Outcome (answered calls)", options={"": "Any", **OUTCOMES}),
        COMPANY,
        Filter(name="zone", label="Time zone (pending calls)", placeholder="Europe/Bratislava"),
        _time("due_from", "Due from, UTC (pending or finished calls)", "09:00, or 2030-01-31T09:00"),
        _time("due_to", "Due before, UTC", "17:00, or 2030-01-31T17:00"),
        _time("created_from", "Created from, UTC (of one company)"),
        _time("created_to", "Created before, UTC (of one company)", "2030-01-31T17:00"),
        _time("changed_from", "Changed from, UTC (of one company)"),
    ),
)
_BY_TIME = replace(_LIST, pager=("First", "Later"))


@router.get(_PATH)
async def attempts(request: Request, session: Annotated[ConsoleSession, Depends(viewer)]) -> Response:
    context = console_context(request)
    texts = {name: request.query_params.get(name, "").strip() for name in FIELDS}
    try:
        only = filter_of(texts, context.use_cases.now())
        after = place_of(only, request.query_params)
        found = await context.run(context.use_cases.attempt_lists.page, only, after)
    except (WrongFilter, Refused) as wrong:
        asked = Asked(of=_LIST, texts=texts, problem=wrong.message if isinstance(wrong, Refused) else str(wrong))
        return page(request, "attempts.html", asked.status, asked=asked, cancels=[])
    fields = fields_of(only)
    asked = Asked(of=_BY_TIME if only.is_pending else _LIST, texts={name: fields.get(name, "") for name in FIELDS})
    is_operator, attempts = session.role.may(OperatorRole.OPERATOR), found.attempts
    return page(
        request,
        "attempts.html",
        asked=asked,
        listed=Part(
            rows=attempts,
            first=_address(fields) if after is not None else None,
            following=None if found.next is None else _address({**fields, "after": text_of(only, found.next)}),
        ),
        order=_ORDERS[only.order],
        searched=_searched(only, found),
        cancelled=_cancelled(request.query_params.get(_CANCELLED, "")),
        cancels=_cancels(only, session.role) if attempts else [],
        is_too_wide=bool(attempts and only.is_pending and not _is_narrow(only) and is_operator),
        views={each.id: _view(each, context.use_cases) for each in attempts},
    )


_ORDERS = {
    ListOrder.DUE_TIME: "The first call that is due comes first.",
    ListOrder.NEWEST: "The newest call comes first.",
    ListOrder.END: "The call that ended last comes first.",
    ListOrder.INTERVIEW: "The calls of the newest interview come first.",
}


def _address(fields: Mapping[str, str]) -> str:
    return f"{_PATH}?{urlencode(fields)}" if fields else _PATH


def _searched(only: AttemptFilter, listed: AttemptPage) -> str | None:
    """Say that a page looked at a part of the list only."""
    if not listed.is_cut:
        return None
    if only.order is ListOrder.INTERVIEW:
        return f"{number(INTERVIEWS_SCANNED)} interviews of this company were searched. Go on for older ones."
    if only.is_pending:
        return f"{number(SCANNED)} pending calls were searched. Go on for later ones, or name a company."
    if only.order is ListOrder.DUE_TIME:
        return f"{number(SCANNED)} finished calls of this company were searched. Go on for later ones."
    return f"The last {number(SCANNED)} events of calls were searched. Go on for older ones, or name a company."


def _view(attempt: ListedAttempt, use_cases: ConsoleUseCases) -> dict[str, object]:
    """Choose the words of a row."""
    is_due = attempt.state is AttemptState.PENDING and attempt.due_at <= use_cases.now()
    clock = attempt.schedule.clock
    names = clock.zones or ("offset of the request",)
    return {
        "badge": badge_of(attempt, use_cases.now()),
        "waits_for": _waits_for(attempt, is_due=is_due),
        "reason": _reason(attempt),
        "local": _local(
            [f"{at:%H:%M} {name}" for at, name in zip(local_times(clock, attempt.due_at), names, strict=True)]
        ),
    }


def _local(times: Sequence[str]) -> str:
    """List the callee's times of a row. The page of an attempt has all of them: a toll-free number has 58 zones."""
    if len(times) <= _TIMES:
        return ", ".join(times)
    return f"{times[0]} and {len(times) - 1} more zones"


def _waits_for(attempt: ListedAttempt, *, is_due: bool) -> str:
    if attempt.state is AttemptState.PENDING:
        if attempt.command_waits and attempt.rule is None:
            return "A command is not applied yet"
        return RULES[attempt.rule] if attempt.rule is not None else "Its turn" if is_due else "Its time"
    return _PHASES[attempt.phase] if attempt.phase is not None else ""


_DECISIONS = {
    Decision.RANG: "decided: it rang",
    Decision.DID_NOT_RING: "decided: it did not ring",
    Decision.LEFT: "decided: left as it is",
}


def _reason(attempt: ListedAttempt) -> str:
    if attempt.reason is None:
        return ""
    words = [_word_of(attempt.reason)]
    if attempt.outcome is not None:
        words.append(_word_of_outcome(attempt.outcome))
    if attempt.cause_is_lost:
        words.append("cause lost")
    if attempt.decision is not None:
        words.append(_DECISIONS[attempt.decision])
    if attempt.deleted_at is not None:
        words.append("deleted by a client")
    return ", ".join(words)


def _word_of(reason: Reason) -> str:
    return REASONS[reason.value.lower().replace("_", "-")]


def _word_of_outcome(outcome: ConversationOutcome) -> str:
    return f"outcome: {OUTCOMES[outcome.value.lower().replace('_', '-')].lower()}"


# ---- the act


_ACT_FIELDS = tuple(name for name in FIELDS if name not in {"reason", "outcome"})
"""Without end reason and outcome, which only finished calls have. The field `reason` is the reason of the act."""


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """The calls that one act cancels."""

    only: AttemptFilter
    shown: int
    """The number of calls that the form named. 0 before there is a form."""


def _to_cancel(fields: Mapping[str, str]) -> _Wanted:
    only = filter_of({name: fields[name] for name in _ACT_FIELDS if name in fields})
    if not only.is_pending:
        raise InvalidFields(
            "Only pending calls can be cancelled. Choose due or waiting calls on the page Attempts first."
        )
    if not _is_narrow(only):
        raise InvalidFields(
            "This filter would cancel the pending calls of all companies. Add a company, a time zone or a range of due"
            " times on the page Attempts first."
        )
    shown = fields.get(SHOWN, "")
    return _Wanted(only=only, shown=int(shown) if _COUNT.fullmatch(shown) else 0)


def _is_narrow(only: AttemptFilter) -> bool:
    return bool(only.state is ListState.DUE or only.company_id or only.zone or only.due_from or only.due_to)


def _cancels(only: AttemptFilter, role: OperatorRole) -> list[tuple[str, str]]:
    """List the labels and addresses of the forms with which this operator may cancel the list."""
    if not only.is_pending or not _is_narrow(only):
        return []
    acts = ((CANCEL, _BY_OPERATOR), (CANCEL_MANY, _BY_ADMIN))
    return [
        (f"Cancel up to {number(most)} calls…", address_of(act, **fields_of(only)))
        for act, most in acts
        if role.may(act.role)
    ]


def _described(only: AttemptFilter) -> str:
    return f"The filter is: {described(fields_of(only))}."


def _counted(most: int, use_cases: ConsoleUseCases, wanted: _Wanted) -> int:
    return use_cases.attempt_lists.matching_counts(wanted.only, most).attempts


def _preview(most: int, use_cases: ConsoleUseCases, wanted: _Wanted) -> Sequence[str]:
    only, found = wanted.only, use_cases.attempt_lists.matching_counts(wanted.only, most)
    if not found.attempts:
        return [_described(only), "No pending call matches now, so nothing will be cancelled."]
    calls = number_of(found.attempts, "pending call", "pending calls")
    companies = number_of(found.companies, "company", "companies")
    return [
        _described(only),
        f"{calls} of {companies} will be cancelled. No retry follows.",
        f"{none_or_number_of(found.soon, 'None of them is', 'of them is', 'of them are')} due within the hour.",
        "They leave the list when their commands are applied, normally within seconds.",
        "Calls in progress continue. A call that is claimed before you send this form continues too.",
        "If more calls match when you send it, nothing is cancelled, and you see the new number first.",
        "A cancelled call cannot be restored. Its company sees that an operator cancelled it, and your reason.",
    ]


def _cancel(most: int, use_cases: ConsoleUseCases, actor: str, reason: str, wanted: _Wanted) -> int:
    found = use_cases.attempt_lists.matching(wanted.only, most)
    if len(found) > wanted.shown:
        raise InvalidFields(
            f"{number_of(len(found), 'call matches', 'calls match')} by now, and the form named {number(wanted.shown)}."
            " Read the effects again before you send it."
        )
    return use_cases.commands(actor).cancel(found, reason, fields_of(wanted.only))


def _after(wanted: _Wanted, count: object) -> str:
    return _address({**fields_of(wanted.only), _CANCELLED: str(count)})


def _cancelled(text: str) -> str | None:
    """Write the notice of the act after which the list is shown. A worker has to apply its commands first."""
    if not _COUNT.fullmatch(text):
        return None
    if not int(text):
        return "No call was cancelled: those that matched were claimed meanwhile, or are being cancelled already."
    calls = "1 call is" if int(text) == 1 else f"{number(int(text))} calls are"
    return (
        f"{calls} being cancelled. They leave the list when their commands are applied, normally within seconds. Reload"
        " this page to see it. If they stay, check on the page Now that an intake worker runs."
    )


def _cancel_act(name: str, role: OperatorRole, most: int) -> Act[_Wanted]:
    return Act(
        name=name,
        title="Cancel calls",
        verb="Cancel these calls",
        fields=_ACT_FIELDS,
        read=_to_cancel,
        shown=partial(_counted, most),
        preview=partial(_preview, most),
        run=partial(_cancel, most),
        back=lambda wanted: _address(fields_of(wanted.only)),
        result=_after,
        role=role,
        lasts_s=_LASTS_S,
        is_danger=True,
    )


CANCEL = _cancel_act("cancel-attempts", OperatorRole.OPERATOR, _BY_OPERATOR)
CANCEL_MANY = _cancel_act("cancel-many-attempts", OperatorRole.ADMIN, _BY_ADMIN)
router.routes.extend(act_routes(CANCEL, CANCEL_MANY).routes)
