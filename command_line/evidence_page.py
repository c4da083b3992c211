"""The page of the evidence of a call, on the terminal."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from api_shim.schemas.evidence import EvidenceView, LastLookView
from command_line.terminal import utc
from scheduler.domain.evidence import LookResult, RuleResult, SealState

_STYLES = {SealState.WHOLE: "green", SealState.PARTLY_SEALED: "yellow", SealState.BROKEN: "bold red"}


def evidence_page(view: EvidenceView) -> RenderableType:
    """Return the request, the clock, the last look, the carrier's news and the check of the history."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(view):
        facts.add_row(name, value)
    return Group(
        Text(f"Evidence of attempt {view.call_attempt_id}, {view.status.value}", style="bold"),
        "",
        Padding(facts, (0, 0, 0, 2)),
        "",
        Text("History, oldest first (UTC):"),
        _history(view),
        "",
        Text(f"History {view.seals.state.value}: {_check(view)}", style=_STYLES[view.seals.state]),
    )


def _facts(view: EvidenceView) -> Iterator[tuple[str, str]]:
    request, schedule = view.request, view.schedule
    yield "interview", str(view.interview_id)
    yield "company", str(view.company_id)
    yield "asked", f"{utc(request.at) if request.at else 'no longer kept'}, by {request.key_name or request.by}"
    yield "requested", request.requested or "as soon as allowed"
    clock = schedule.timezone or schedule.utc_offset or ""
    yield "clock", f"{clock}, from {schedule.timezone_source.value}, tz data {schedule.tzdata_version}"
    yield "was due", f"{utc(view.scheduled_at)}, there {schedule.local_time}"
    yield "consent", f"until {view.consent.until}" + (", the person was erased" if view.consent.person_erased else "")
    if view.last_look is not None:
        yield from _look(view.last_look)
    yield "carrier's call", view.carrier.call_id or "none"
    for each in view.carrier.callbacks:
        yield "callback", f"received {utc(each.received_at)}"
    if view.reported is not None:
        called_back = view.reported.call_back_at
        then = "" if called_back is None else f", to be called at {utc(called_back)}"
        yield "reported", f"{view.reported.outcome.value}, {utc(view.reported.reported_at)}{then}"


def _look(look: LastLookView) -> Iterator[tuple[str, str]]:
    yield "last look", look.result.value + (f": {look.cause}" if look.cause else "")
    facts = look.facts
    if look.result is LookResult.NOT_RECORDED:
        yield (
            "",
            "It was made, because no request leaves without one. Its facts were lost with the process that made it,",
        )
        yield "", "or the call had ended before they were written. Nothing here proves which rules it checked."
    if facts is not None:
        yield "", f"{utc(facts.at)}, could leave until {utc(facts.leave_by)}, tz data {facts.tzdata_version}"
        for clock in facts.clocks:
            yield "", f"{clock.timezone} ({clock.utc_offset}): {clock.local_time}"
        for hours in facts.call_time_intervals:
            yield "", f"open {', '.join(hours.days)} {hours.start} to {hours.end}"
    passed = [each.rule.value for each in look.rules if each.result is RuleResult.PASSED]
    if passed:
        yield "rules passed", ", ".join(passed)


def _history(view: EvidenceView) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for each in view.history:
        table.add_row(
            str(each.number), utc(each.at), each.event, each.to_state, each.by, "" if each.sealed else "unsealed"
        )
    return Padding(table, (0, 0, 0, 2))


def _check(view: EvidenceView) -> str:
    if view.seals.faults:
        return ", ".join(f"entry {each.number} {each.kind.value}" for each in view.seals.faults)
    if view.seals.unsealed:
        numbers = ", ".join(str(each) for each in view.seals.unsealed)
        return f"no change was found, but nothing proves the entries {numbers}"
    if not view.history:
        return "no entry is stored, so nothing proves the history"
    return "no entry and no schedule was changed, removed or added"
