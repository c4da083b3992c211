"""How an explanation and the state of an installation read at a terminal, and the JSON that scripts get of the latter.

No number and no name is on any page: what is shown is what an explanation holds, and counts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
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
from scheduler.domain.call import Rank
from scheduler.domain.explanation import Block, Explanation, Happening
from scheduler.domain.key import LONGEST_NAME, Key, KeyState
from scheduler.domain.owner import Mails
from scheduler.domain.refusals import TimezoneUnknown
from scheduler.domain.schedule import CalleeClock, TimezoneSource
from scheduler.lifecycle.backoffs import NO_COUNTRY, Backoff
from scheduler.lifecycle.scheduling import offset_text
from scheduler.lifecycle.shown_names import shown
from scheduler.timing import call_windows
from scheduler.use_cases.backlog import Commands, OpenErasures
from scheduler.use_cases.explain import Carrier, Waiting

STYLES = {
    AttemptState.PENDING: "blue",
    AttemptState.IN_PROGRESS: "cyan",
    AttemptState.COMPLETED: "green",
    AttemptState.FAILED: "yellow",
    AttemptState.CANCELLED: "magenta",
}
_NOT_SOON = timedelta(seconds=10)
"""A command that has waited so long waits for something that is not there."""
_KEY_STYLES = {
    KeyState.ACTIVE: "green",
    KeyState.SUSPENDED: "bold yellow",
    KeyState.EXPIRED: "magenta",
    KeyState.REVOKED: "magenta",
}
_LIST_AT_MOST = 3
"""So many zones are named; of more their number is told, and the ends of the day that they span."""


# ---- which installation that is


def system_line(system: str) -> Text:
    """On top of a page: of several installations, the one that was asked."""
    return Text(f"System    {system}", "dim")


# ---- an explanation


def explanation_page(explanation: Explanation, now: datetime) -> RenderableType:
    """Why an attempt stands as it does, in this order: what it is, when it may ring, what keeps it, what happened."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(explanation, now):
        facts.add_row(name, value)
    parts: list[RenderableType] = [_headline(explanation), "", Padding(facts, (0, 0, 0, 2)), ""]
    if explanation.attempt.state is AttemptState.PENDING:
        parts += [_blocks(explanation.blocks, now), ""]
    return Group(*parts, Text("What has happened, oldest first (UTC):"), _history(explanation.happenings))


def _headline(explanation: Explanation) -> Text:
    attempt = explanation.attempt
    line = Text.assemble(f"Attempt {attempt.id}\n", (attempt.state.value, f"bold {STYLES[attempt.state]}"))
    if attempt.reason is not None:
        line.append(f", {attempt.reason.value}")
    if explanation.waits_for:
        line.append(f", waits for {explanation.waits_for}")
    if attempt.deleted_at is not None:
        line.append(", deleted: it is listed no more, and goes on counting")
    return line


def _facts(explanation: Explanation, now: datetime) -> Iterator[tuple[str, str]]:
    attempt = explanation.attempt
    clock = attempt.schedule.clock
    yield "interview", str(attempt.interview_id)
    yield "company", str(attempt.company_id)
    yield "chain", "its first call" if attempt.retry_number == 0 else f"retry {attempt.retry_number}"
    if attempt.state is AttemptState.PENDING:
        yield from _when_it_may_ring(explanation, now)
    else:
        yield "was due", f"{_utc(attempt.due_at)}, {_there(clock, attempt.due_at)}"
    yield "whose clock", f"{_clock(clock)}: {_why(attempt)}"
    yield "asked for", attempt.schedule.requested or "as soon as allowed"
    if attempt.warnings:
        yield "warnings", ", ".join(attempt.warnings)
    if attempt.state is AttemptState.PENDING:
        yield "expires", f"{_utc(attempt.expires_at)}, {_from_now(attempt.expires_at, now)}"
    if attempt.call_sid is not None:
        yield "carrier's call", attempt.call_sid
    if attempt.duration is not None:
        yield "talked", _span(attempt.duration)
    if attempt.reason is Reason.OUTCOME_UNKNOWN:
        yield "what now", "nothing proves whether it rang; a person decides: POST .../call-attempts calls again"


def _when_it_may_ring(explanation: Explanation, now: datetime) -> Iterator[tuple[str, str]]:
    possible = explanation.next_possible_at
    open_ended = any(block.until is None for block in explanation.blocks)
    if possible is None and open_ended:
        yield "may ring", "nobody can tell when: what is open-ended below must end first"
        return
    if possible is None:
        yield "may ring", "never, as things stand: there is no opening before it expires, or the consent does"
        return
    condition = ", if by then nothing below keeps it" if open_ended else ""
    yield "may ring", f"{_utc(possible)}, {_from_now(possible, now)}{condition}"
    yield "", _there(explanation.attempt.schedule.clock, possible)


_WHY = {
    TimezoneSource.OFFSET: "the request named this offset, and it is used as it is",
    TimezoneSource.ZONE: "the request named this zone",
    TimezoneSource.CANDIDATE: "the candidate's own zone; {silence}",
    TimezoneSource.PHONE_NUMBER: "from the phone number; {silence}, and the candidate has no zone set",
    TimezoneSource.COMPANY: "the company's zone; {silence}, the candidate has none set, and the number tells none",
}


def _why(attempt: Attempt) -> str:
    schedule = attempt.schedule
    silence = "no time was asked for" if schedule.requested is None else "the request names nobody's clock"
    why = _WHY[schedule.clock.source].format(silence=silence)
    if schedule.clock.offset is not None and attempt.retry_number > 0:
        why += "; the request did not name the retry's time by it, so the person's own zones must be open too"
    if len(schedule.clock.zones) > 1:
        why += "; all of them must be open"
    return why


def _blocks(blocks: Sequence[Block], now: datetime) -> RenderableType:
    if not blocks:
        return Text("Nothing keeps it from ringing now: it waits for its turn.")
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for block in blocks:
        until = "open-ended" if block.until is None else f"until {_utc(block.until)}, {_from_now(block.until, now)}"
        table.add_row(block.rule.value, Text.assemble(f"{until}\n", (block.detail, "dim")))
    return Group(
        Text("What keeps it from ringing now, in the order in which the dialler asks:"), Padding(table, (0, 0, 0, 2))
    )


def _history(happenings: Sequence[Happening]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for heading, keeps_whole in (("when", True), ("event", True), ("from → to", True), ("reason", False), ("by", True)):
        table.add_column(heading, no_wrap=keeps_whole, overflow="fold")
    for told, alike in groupby(happenings, key=_told):
        times = [each.at for each in alike]
        when = f"{times[0]:%m-%d %H:%M:%S}"
        if len(times) > 1:
            when += f"\nto {times[-1]:%m-%d %H:%M:%S}, {len(times)} times"
        table.add_row(when, *told)
    return table


def _told(happening: Happening) -> tuple[str, str, str, str]:
    """All that a line says but when it was."""
    source, target = happening.from_state, happening.to_state
    moved = target if source in {None, target} else f"{source} → {target}"
    return happening.event.replace("_", " "), moved, _reason(happening), _by(happening)


def _reason(happening: Happening) -> str:
    rank = happening.detail.get("rank")
    told = [happening.reason, happening.detail.get("cause"), None if rank is None else Rank(rank).name]
    if (due_at := happening.detail.get("due_at")) is not None:
        told.append(f"due {_utc(datetime.fromisoformat(due_at))[11:19]}")
    return ", ".join(each for each in told if each)


def _by(happening: Happening) -> str:
    """Of a key its name and the beginning of its id, by which it can be found and stopped."""
    kind, _, key_id = happening.actor.partition(":")
    return " ".join(each for each in (kind, happening.key_name, key_id[:8]) if each)


# ---- several attempts of one interview


def attempt_line(attempt: Attempt) -> str:
    """One of an interview's attempts, for whoever knows only the interview."""
    reason = "" if attempt.reason is None else f", {attempt.reason.value}"
    return f"  {attempt.id}  due {_utc(attempt.due_at)}  {attempt.state.value}{reason}"


# ---- the state of an installation


def status_page(
    carriers: Sequence[Carrier],
    backoffs: Sequence[Backoff],
    companies: Sequence[Waiting],
    commands: Mapping[UUID, Commands],
    mails: Sequence[Mails],
    erasures: OpenErasures,
    now: datetime,
) -> RenderableType:
    """The carrier on top, then each company: what waits and for what, what is late, calling, asked for, unknown.

    `backoffs`: those of a country or of a company's number. `mails`: invitations of owners that were not sent.
    """
    mail_of = {each.company_id: each for each in mails}
    lines: list[RenderableType] = [_carrier(each, now) for each in carriers]
    if not carriers:
        lines.append(Text("Carrier   none yet: the first worker that starts makes it known"))
    lines += [_backoff(each, now) for each in backoffs]
    total = _all_of(commands)
    if told := _of_commands(total):
        lines.append(Text("Commands  ").append(told, "bold yellow"))
        if total.oldest is not None and total.oldest >= _NOT_SOON:
            lines.append(
                Text("          Does Redis answer, and does an intake worker run? Nothing accepted is lost.", "dim")
            )
    if erasures.oldest is not None:
        told = f"{erasures.count} of deleted companies not finished yet, the oldest for {_span(erasures.oldest)}"
        lines.append(Text("Erasures  ").append(told, "bold yellow"))
    for company in companies:
        of_company = commands.get(company.company_id, Commands())
        lines += ["", _company(company, carriers, of_company, mail_of.get(company.company_id), now)]
    return Group(*lines)


def _all_of(commands: Mapping[UUID, Commands]) -> Commands:
    """Of every company, those that are deleted too."""
    return Commands(
        waiting=sum(each.waiting for each in commands.values()),
        oldest=max((each.oldest for each in commands.values() if each.oldest is not None), default=None),
        quarantined=sum(each.quarantined for each in commands.values()),
    )


def _of_commands(commands: Commands) -> str:
    """Those that were accepted and are not applied, in a line; empty when there are none."""
    told = []
    if commands.oldest is not None:
        told.append(f"{commands.waiting} accepted and not applied yet, the oldest for {_span(commands.oldest)}")
    if commands.quarantined:
        told.append(f"{commands.quarantined} in quarantine: they failed five times; see `duecall commands list`")
    return "; ".join(told)


def _carrier(carrier: Carrier, now: datetime) -> Text:
    line = Text("Carrier   ")
    if carrier.pause_reason is not None:
        line.append("PAUSED", "bold red").append(f", everything waits: {carrier.pause_reason}; ")
    if carrier.on_trial:
        line.append("ON TRIAL", "bold yellow").append(f", one call at a time (it was down: {carrier.down_cause}); ")
    elif carrier.down_until is not None:
        until = carrier.down_until
        asked = f"{_utc(until)}, {_from_now(until, now)}" if until > now else "now"
        line.append("DOWN", "bold red").append(f" ({carrier.down_cause}), asked again {asked}; ")
    elif carrier.pause_reason is None:
        line.append("takes calls", "green").append("; ")
    return line.append(f"{carrier.in_progress} of {carrier.max_calls} calls in progress")


def _backoff(backoff: Backoff, now: datetime) -> Text:
    scope, until = backoff.scope, backoff.breaker.down_until
    if scope.country is None:
        whose = f"calls of company {scope.company_id} from one of its numbers"
    else:
        whose = "calls to numbers of no country" if scope.country == NO_COUNTRY else f"calls to {scope.country}"
    line = Text("Back-off  ").append(whose)
    if backoff.breaker.is_on_trial:
        return line.append(": ").append("ON TRIAL", "bold yellow").append(f", one at a time ({backoff.cause})")
    line.append(" ").append("WAIT", "bold yellow").append(f" ({backoff.cause}), ")
    if until is None or until <= now:
        return line.append("one is tried as soon as the carrier answers a question")
    return line.append(f"one is tried {_utc(until)}, {_from_now(until, now)}")


def _company(
    company: Waiting, carriers: Sequence[Carrier], commands: Commands, mail: Mails | None, now: datetime
) -> Text:
    text = Text(f"Company   {company.company_id}  ")
    if company.pause_reason is None:
        text.append("runs", "green")
    else:
        text.append("PAUSED", "bold red").append(f": {company.pause_reason}")
    for name, told in _of_company(company, carriers, now):
        text.append(f"\n  {name:<13} ", "dim").append(told)
    if told := _of_commands(commands):
        text.append(f"\n  {'commands':<13} ", "dim").append(told)
    if mail is not None:
        text.append(f"\n  {'invitation':<13} ", "dim").append(_mail(mail, now))
    return text


def _mail(mail: Mails, now: datetime) -> str:
    if mail.try_at is None:
        return "the mail server refused it for good; name the owner anew, another or after null the same"
    if not mail.tries:
        return "its mail goes out now"
    return f"not sent yet, tries: {mail.tries}; again {_from_now(mail.try_at, now)}"


def _of_company(company: Waiting, carriers: Sequence[Carrier], now: datetime) -> Iterator[tuple[str, str]]:
    waits = {name: count for name, count in waits_for(company, carriers).items() if count}
    yield "waiting", ", ".join(f"{count} for {name}" for name, count in waits.items()) or "nothing"
    if company.next_due_at is not None:
        yield "next is due", f"{_utc(company.next_due_at)}, {_from_now(company.next_due_at, now)}"
    late = "" if company.late is None else f", late by {_span(company.late)}"
    yield "due", f"{company.due}{late}"
    yield "in progress", f"{company.in_progress} of {company.concurrent_calls}"
    if company.asked_for:
        yield "asked for", f"{company.asked_for}: their answer was lost, and the carrier is asked"
    if company.undecided:
        yield "undecided", f"{company.undecided}: the carrier's list of calls cannot be read"
    if company.cause_lost:
        yield "cause lost", f"{company.cause_lost}: they failed, and nothing says why; a person decides"
    if company.unknown:
        yield "unknown", f"{company.unknown}: nothing proved whether they rang; a person decides"


def waits_for(company: Waiting, carriers: Sequence[Carrier]) -> dict[str, int]:
    """How many pending attempts wait for what. Each is counted once, by the first thing that it waits for."""
    down = any(carrier.is_down for carrier in carriers)
    if any(carrier.pause_reason is not None for carrier in carriers) or (company.paused and not down):
        return {"their time": company.waiting, "an end of the pause": company.due}
    if down:
        return {"their time": company.waiting, "the carrier": company.due}
    full = company.in_progress >= company.concurrent_calls or any(each.is_full for each in carriers)
    return {
        "their time": company.waiting,
        "a command": company.for_commands,
        "their number": company.for_numbers,
        "a place" if full else "their turn": company.for_places,
    }


def backoffs_as_json(backoffs: Sequence[Backoff]) -> list[dict[str, Any]]:
    """Names as on the wire; instants in UTC."""
    return [
        _as_json(
            {
                "country": each.scope.country,
                "company_id": each.scope.company_id,
                "cause": each.cause,
                "on_trial": each.breaker.is_on_trial,
                "tried_at": each.breaker.down_until,
            }
        )
        for each in backoffs
    ]


def status_as_json(
    carriers: Sequence[Carrier],
    backoffs: Sequence[Backoff],
    companies: Sequence[Waiting],
    commands: Mapping[UUID, Commands],
    mails: Sequence[Mails],
    erasures: OpenErasures,
) -> dict[str, Any]:
    """Names as on the wire; instants in UTC, spans in seconds."""
    return {
        "carriers": [_as_json(asdict(each)) for each in carriers],
        "carrierBackoffs": backoffs_as_json(backoffs),
        "commands": _as_json(asdict(_all_of(commands))),
        "companies": [
            _as_json(asdict(each)) | {"commands": _as_json(asdict(commands.get(each.company_id, Commands())))}
            for each in companies
        ],
        "erasures": _as_json(asdict(erasures)),
        "unsentInvitations": [_as_json(asdict(each)) for each in mails],
    }


_SPANS = ("late", "oldest")


def _as_json(values: dict[str, Any]) -> dict[str, Any]:
    told = {}
    for name, value in values.items():
        if name in _SPANS:
            told[f"{name}Seconds"] = None if value is None else value.total_seconds()
        elif isinstance(value, datetime):
            told[to_camel(name)] = value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        else:
            told[to_camel(name)] = str(value) if isinstance(value, UUID) else value
    return told


# ---- keys


def keys_page(keys: Sequence[Key], now: datetime) -> RenderableType:
    """Each key: whose it is, how it stands, what it opens, how often it may ask. Keys themselves are kept nowhere."""
    return Group(*(_key(each, now) for each in keys)) if keys else Text("There is no key.")


def _key(key: Key, now: datetime) -> Text:
    state = key.state(now)
    text = Text(f"Key       {key.principal.key_id}  ").append(state.value, _KEY_STYLES[state])
    if key.suspend_reason is not None:
        text.append(f": {key.suspend_reason}")
    for name, told in _of_key(key, now):
        text.append(f"\n  {name:<13} ", "dim").append(told)
    return text.append("\n")


def _of_key(key: Key, now: datetime) -> Iterator[tuple[str, str]]:
    principal = key.principal
    name = shown(key.name, LONGEST_NAME)
    yield "of", f"company {principal.company_id}, {name}" if principal.company_id is not None else f"ATS {name}"
    yield "principal", str(principal.id)
    yield "opens", ", ".join(sorted(principal.scopes))
    yield "may ask", f"{key.per_minute} times a minute, {key.per_hour} an hour"
    yield "made", _utc(key.created_at)
    if key.expires_at is not None:
        yield "good until", f"{_utc(key.expires_at)}, {_from_now(key.expires_at, now)}"
    yield "last used", "never" if key.last_used_at is None else _utc(key.last_used_at)


def keys_as_json(keys: Sequence[Key], now: datetime) -> list[dict[str, Any]]:
    """Names as on the wire; instants in UTC."""
    return [
        _as_json(
            {
                "key_id": key.principal.key_id,
                "principal_id": key.principal.id,
                "kind": key.principal.kind.value,
                "company_id": key.principal.company_id,
                "name": shown(key.name, LONGEST_NAME),
                "state": key.state(now).value,
                "scopes": sorted(key.principal.scopes),
                "per_minute": key.per_minute,
                "per_hour": key.per_hour,
                "created_at": key.created_at,
                "expires_at": key.expires_at,
                "suspended_at": key.suspended_at,
                "suspend_reason": key.suspend_reason,
                "revoked_at": key.revoked_at,
                "last_used_at": key.last_used_at,
            }
        )
        for key in keys
    ]


# ---- words for times and clocks


def _utc(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _there(clock: CalleeClock, instant: datetime) -> str:
    """What the callee's clock shows at that instant; of many zones the earliest and the latest."""
    try:
        local = call_windows.local_times(clock, instant)
    except TimezoneUnknown:
        return "at an hour there that nobody knows"
    if clock.offset is not None:
        return f"{local[0]:%a %d %b %H:%M:%S} at {offset_text(clock.offset)}"
    shown = sorted(zip(local, clock.zones, strict=True))
    if len({each for each, _ in shown}) == 1:
        return f"{shown[0][0]:%a %d %b %H:%M:%S} in {_clock(clock)}"
    (first, where_first), (last, where_last) = shown[0], shown[-1]
    return f"{first:%a %d %b %H:%M:%S} in {where_first} to {last:%a %d %b %H:%M:%S} in {where_last}"


def _clock(clock: CalleeClock) -> str:
    if clock.offset is not None:
        return offset_text(clock.offset)
    return ", ".join(clock.zones) if len(clock.zones) <= _LIST_AT_MOST else f"{len(clock.zones)} time zones"


def _from_now(instant: datetime, now: datetime) -> str:
    if instant <= now:
        return "now" if now - instant < timedelta(seconds=1) else f"since {_span(now - instant)}"
    return f"in {_span(instant - now)}"


def _span(span: timedelta) -> str:
    """Its two greatest units, as people say it."""
    seconds = span.total_seconds()
    if seconds < 10:  # noqa: PLR2004 - below this a tenth of a second tells something
        return f"{seconds:.1f} s"
    days, rest = divmod(int(seconds), 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, seconds_left = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds_left, "s")]
    first = next(index for index, (count, _) in enumerate(parts) if count)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count)


def terminal() -> Console:
    """Where a page is printed: as wide as the terminal, and wide enough for a page where there is none."""
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=120)
