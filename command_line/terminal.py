"""Pages of the terminal: words for times and zones, JSON for scripts, and the page of an explanation."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any
from uuid import UUID

from pydantic.alias_generators import to_camel
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from scheduler.domain.attempt import Attempt, AttemptState, Reason
from scheduler.domain.call import CalleeClock, CallProgress, TimezoneSource
from scheduler.domain.explanation import Block, Explanation, HistoryEntry
from scheduler.domain.refusals import TimezoneUnknown
from scheduler.timing import call_windows
from scheduler.timing.time_texts import offset_text, span_text

# --- JSON for scripts: names as on the wire, instants in UTC, spans in seconds


_SPANS = ("late", "oldest")


def as_json(**values: Any) -> dict[str, Any]:  # noqa: ANN401 - of any row
    converted = {}
    for name, value in values.items():
        if name in _SPANS:
            converted[f"{name}Seconds"] = None if value is None else value.total_seconds()
        elif isinstance(value, datetime):
            converted[to_camel(name)] = value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        else:
            converted[to_camel(name)] = str(value) if isinstance(value, UUID) else value
    return converted


# --- Words for times, zones and spans on the pages of the terminal


_MAX_NAMED_ZONES = 3
"""Up to this many zones are named. For more, only their count is shown."""


def terminal() -> Console:
    """Return the console for pages. Without a terminal it is 120 columns wide."""
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=120)


def system_line(system: str) -> Text:
    """Return the first line of a page: the name of the installation."""
    return Text(f"System    {system}", "dim")


def add_facts(heading: Text, facts: Iterable[tuple[str, str]]) -> Text:
    """Add a line with the name and the value of each fact below a heading."""
    for name, value in facts:
        heading.append(f"\n  {name:<13} ", "dim").append(value)
    return heading


def utc(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def local_time(clock: CalleeClock, instant: datetime) -> str:
    """Return the callee's local time, or for several zones the earliest and the latest."""
    try:
        local = call_windows.local_times(clock, instant)
    except TimezoneUnknown:
        return "local time unknown"
    if clock.offset is not None:
        return f"{local[0]:%a %d %b %H:%M:%S} at {offset_text(clock.offset)}"
    shown = sorted(zip(local, clock.zones, strict=True))
    if len({each for each, _ in shown}) == 1:
        return f"{shown[0][0]:%a %d %b %H:%M:%S} in {clock_name(clock)}"
    (first, where_first), (last, where_last) = shown[0], shown[-1]
    return f"{first:%a %d %b %H:%M:%S} in {where_first} to {last:%a %d %b %H:%M:%S} in {where_last}"


def clock_name(clock: CalleeClock) -> str:
    if clock.offset is not None:
        return offset_text(clock.offset)
    return ", ".join(clock.zones) if len(clock.zones) <= _MAX_NAMED_ZONES else f"{len(clock.zones)} time zones"


def from_now(instant: datetime, now: datetime) -> str:
    if instant <= now:
        return "now" if now - instant < timedelta(seconds=1) else f"since {span_text(now - instant)}"
    return f"in {span_text(instant - now)}"


# --- The page of an explanation. No phone number and no name of a person is on it


STYLES = {
    AttemptState.PENDING: "blue",
    AttemptState.IN_PROGRESS: "cyan",
    AttemptState.COMPLETED: "green",
    AttemptState.FAILED: "yellow",
    AttemptState.CANCELLED: "magenta",
}


def explanation_page(explanation: Explanation, now: datetime) -> RenderableType:
    """Return an attempt's state, when it may ring, which rules block it, and its history."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(explanation, now):
        facts.add_row(name, value)
    parts: list[RenderableType] = [_headline(explanation), "", Padding(facts, (0, 0, 0, 2)), ""]
    if explanation.attempt.state is AttemptState.PENDING:
        parts += [_blocks(explanation.blocks, now), ""]
    return Group(*parts, Text("History, oldest first (UTC):"), _history(explanation.happenings))


def _headline(explanation: Explanation) -> Text:
    attempt = explanation.attempt
    line = Text.assemble(f"Attempt {attempt.id}\n", (attempt.state.value, f"bold {STYLES[attempt.state]}"))
    if attempt.reason is not None:
        line.append(f", {attempt.reason.value}")
    if explanation.waits_for:
        line.append(f", waits for {explanation.waits_for}")
    if attempt.deleted_at is not None:
        line.append(", deleted: no longer listed, but still counted")
    return line


def _facts(explanation: Explanation, now: datetime) -> Iterator[tuple[str, str]]:
    attempt = explanation.attempt
    clock = attempt.schedule.clock
    yield "interview", str(attempt.interview_id)
    yield "company", str(attempt.company_id)
    yield "chain", "first call" if attempt.retry_number == 0 else f"retry {attempt.retry_number}"
    if attempt.state is AttemptState.PENDING:
        yield from _when_it_may_ring(explanation, now)
    else:
        yield "was due", f"{utc(attempt.due_at)}, {local_time(clock, attempt.due_at)}"
    yield "clock", f"{clock_name(clock)}: {_why(attempt)}"
    yield "requested", attempt.schedule.requested or "as soon as allowed"
    if attempt.warnings:
        yield "warnings", ", ".join(attempt.warnings)
    if attempt.state is AttemptState.PENDING:
        yield "expires", f"{utc(attempt.expires_at)}, {from_now(attempt.expires_at, now)}"
    if attempt.call_sid is not None:
        yield "carrier's call", attempt.call_sid
    if attempt.duration is not None:
        yield "talk time", span_text(attempt.duration)
    if attempt.reason is Reason.OUTCOME_UNKNOWN:
        if attempt.decision is None:
            yield "next step", "no proof whether it rang; an operator must decide: duecall unknown decide --help"
        elif attempt.decided_at is not None:
            yield "decision", f"{attempt.decision.value}, {utc(attempt.decided_at)}"


def _when_it_may_ring(explanation: Explanation, now: datetime) -> Iterator[tuple[str, str]]:
    possible = explanation.next_possible_at
    open_ended = any(block.until is None for block in explanation.blocks)
    if possible is None and open_ended:
        yield "may ring", "not known: a rule below has no known end"
        return
    if possible is None:
        yield (
            "may ring",
            "never: no calling window opens before the attempt or the consent expires",
        )
        return
    condition = ", unless a rule below still blocks it" if open_ended else ""
    yield "may ring", f"{utc(possible)}, {from_now(possible, now)}{condition}"
    yield "", local_time(explanation.attempt.schedule.clock, possible)


_WHY = {
    TimezoneSource.OFFSET: "the request named this offset; it is used unchanged",
    TimezoneSource.ZONE: "the request named this zone",
    TimezoneSource.CANDIDATE: "the candidate's zone; {missing}",
    TimezoneSource.PHONE_NUMBER: "from the phone number; {missing}, and the candidate has no zone",
    TimezoneSource.COMPANY: "the company's zone; {missing}, the candidate has no zone, nor has the phone number",
}


def _why(attempt: Attempt) -> str:
    schedule = attempt.schedule
    missing = "the request has no time" if schedule.requested is None else "the request names no zone"
    why = _WHY[schedule.clock.source].format(missing=missing)
    if schedule.clock.offset is not None and attempt.retry_number > 0:
        why += "; the request did not schedule the retry, so the callee's own zones must be open too"
    if len(schedule.clock.zones) > 1:
        why += "; all of them must be open"
    return why


def _blocks(blocks: Sequence[Block], now: datetime) -> RenderableType:
    if not blocks:
        return Text("No rule blocks the call now: it waits for its turn.")
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for block in blocks:
        until = "open-ended" if block.until is None else f"until {utc(block.until)}, {from_now(block.until, now)}"
        table.add_row(block.rule.value, Text.assemble(f"{until}\n", (block.detail, "dim")))
    return Group(
        Text("Rules that block the call now, in the order of their checks:"),
        Padding(table, (0, 0, 0, 2)),
    )


def _history(happenings: Sequence[HistoryEntry]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for heading, keeps_whole in (("when", True), ("event", True), ("from → to", True), ("reason", False), ("by", True)):
        table.add_column(heading, no_wrap=keeps_whole, overflow="fold")
    for cells, repeated in groupby(happenings, key=_cells):
        times = [each.at for each in repeated]
        when = f"{times[0]:%m-%d %H:%M:%S}"
        if len(times) > 1:
            when += f"\nto {times[-1]:%m-%d %H:%M:%S}, {len(times)} times"
        table.add_row(when, *cells)
    return table


def _cells(happening: HistoryEntry) -> tuple[str, str, str, str]:
    """Return every cell of a row except the time."""
    source, target = happening.from_state, happening.to_state
    moved = target if source in {None, target} else f"{source} → {target}"
    return happening.event.replace("_", " "), moved, _reason(happening), _by(happening)


def _reason(happening: HistoryEntry) -> str:
    rank = happening.detail.get("rank")
    decided = (happening.detail["decision"], happening.detail["reason"]) if "decision" in happening.detail else ()
    parts = [
        happening.reason,
        happening.detail.get("cause"),
        *decided,
        None if rank is None else CallProgress(rank).name,
    ]
    if (due_at := happening.detail.get("due_at")) is not None:
        parts.append(f"due {utc(datetime.fromisoformat(due_at))[11:19]}")
    return ", ".join(part for part in parts if part)


def _by(happening: HistoryEntry) -> str:
    """Return the actor. For an API key: its name and the beginning of its id."""
    kind, _, actor_id = happening.actor.partition(":")
    return " ".join(each for each in (kind, happening.key_name, actor_id[:8] if kind == "key" else actor_id) if each)


def attempt_line(attempt: Attempt) -> str:
    """Return one line for a list of an interview's attempts."""
    reason = "" if attempt.reason is None else f", {attempt.reason.value}"
    return f"  {attempt.id}  due {utc(attempt.due_at)}  {attempt.state.value}{reason}"
