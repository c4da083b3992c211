"""The page of an installation's status, and its JSON. No phone number and no name of a person is on it."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from command_line.terminal import add_facts, as_json, from_now, utc
from scheduler.domain.company import Mails
from scheduler.domain.resource import COUNTED_UP_TO
from scheduler.lifecycle.backoffs import NO_COUNTRY, Backoff
from scheduler.timing.time_texts import span_text
from scheduler.use_cases.operations.counts import Carrier, Commands, Status, Waiting

_THEIR_TIME = "their time"
_NOT_SOON = timedelta(seconds=10)
"""If a command has waited this long, Redis or the intake worker is probably down."""


def status_page(status: Status, unsent_mails: Sequence[Mails], now: datetime) -> RenderableType:
    """Show the state of the carriers, then of each company. `unsent_mails`: owners' invitations that were not sent."""
    lines: list[RenderableType] = [_carrier(each, now) for each in status.carriers]
    if not status.carriers:
        lines.append(Text("Carrier   none yet: the first worker to start registers it"))
    lines += [_backoff(each, now) for each in status.backoffs]
    lines += _warnings(status)
    mail_of = {each.company_id: each for each in unsent_mails}
    for company in status.companies:
        of_company = status.commands.get(company.company_id, Commands())
        lines += ["", _company(company, status.carriers, of_company, mail_of.get(company.company_id), now)]
    return Group(*lines)


def _warnings(status: Status) -> Iterator[Text]:
    """Yield a line for what concerns the whole installation and needs attention."""

    def warning(name: str, text: str) -> Text:
        return Text(f"{name:<10}").append(text, "bold yellow")

    if status.alarms:
        kinds = ", ".join(kind if count == 1 else f"{kind} ({count})" for kind, count in status.alarms.items())
        yield warning("Alarms", f"{sum(status.alarms.values())} open: {kinds}; see `duecall alarms list`")
    total = status.all_commands
    if line := _of_commands(total):
        yield warning("Commands", line)
        if total.oldest is not None and total.oldest >= _NOT_SOON:
            yield Text("          Check that Redis answers and an intake worker runs. No command is lost.", "dim")
    if status.callbacks_quarantined:
        yield warning("Callbacks", _in_quarantine(status.callbacks_quarantined))
    if status.erasures.oldest is not None:
        oldest = span_text(status.erasures.oldest)
        yield warning("Erasures", f"{status.erasures.count} deleted companies not erased yet, the oldest for {oldest}")


def _of_commands(commands: Commands) -> str:
    """Build a line about commands that are accepted but not applied, or an empty string."""
    parts = []
    if commands.oldest is not None:
        parts.append(f"{commands.waiting} accepted and not applied yet, the oldest for {span_text(commands.oldest)}")
    if commands.quarantined:
        parts.append(_in_quarantine(commands.quarantined))
    return "; ".join(parts)


def _in_quarantine(count: int) -> str:
    return f"{count} in quarantine: they failed five times; see `duecall quarantine list`"


def _carrier(carrier: Carrier, now: datetime) -> Text:
    line = Text("Carrier   ")
    if carrier.pause_reason is not None:
        line.append("PAUSED", "bold red").append(f", everything waits: {carrier.pause_reason}; ")
    if carrier.on_trial:
        line.append("ON TRIAL", "bold yellow").append(f", one call at a time (it was down: {carrier.down_cause}); ")
    elif carrier.down_until is not None:
        until = carrier.down_until
        probe = f"{utc(until)}, {from_now(until, now)}" if until > now else "now"
        line.append("DOWN", "bold red").append(f" ({carrier.down_cause}), next probe {probe}; ")
    elif carrier.pause_reason is None:
        line.append("takes calls", "green").append("; ")
    return line.append(f"{carrier.in_progress} of {carrier.max_calls} calls in progress")


def _backoff(backoff: Backoff, now: datetime) -> Text:
    scope, until = backoff.scope, backoff.breaker.down_until
    if scope.country is None:
        calls = f"calls of company {scope.company_id} from one of its numbers"
    else:
        calls = "calls to numbers without a country" if scope.country == NO_COUNTRY else f"calls to {scope.country}"
    line = Text("Back-off  ").append(calls)
    if backoff.breaker.is_on_trial:
        return line.append(": ").append("ON TRIAL", "bold yellow").append(f", one at a time ({backoff.cause})")
    line.append(" ").append("WAIT", "bold yellow").append(f" ({backoff.cause}), ")
    if until is None or until <= now:
        return line.append("next trial once the carrier answers a query")
    return line.append(f"next trial {utc(until)}, {from_now(until, now)}")


def _company(
    company: Waiting, carriers: Sequence[Carrier], commands: Commands, mail: Mails | None, now: datetime
) -> Text:
    text = Text(f"Company   {company.company_id}  ")
    if company.pause_reason is not None:
        text.append("PAUSED", "bold red").append(f": {company.pause_reason}")
    elif any(each.pause_reason is not None for each in carriers):
        text.append("runs", "green").append(", but all calls are paused", "bold red")
    else:
        text.append("runs", "green")
    add_facts(text, _facts(company, carriers, now))
    if line := _of_commands(commands):
        add_facts(text, [("commands", line)])
    if mail is not None:
        add_facts(text, [("invitation", _mail(mail, now))])
    return text


def _mail(mail: Mails, now: datetime) -> str:
    if mail.try_at is None:
        return "the mail server rejected it permanently; set another owner, or clear the owner and set it again"
    if not mail.tries:
        return "the mail is due"
    return f"not sent yet, tries: {mail.tries}; next try {from_now(mail.try_at, now)}"


def _facts(company: Waiting, carriers: Sequence[Carrier], now: datetime) -> Iterator[tuple[str, str]]:
    waits = {name: str(count) for name, count in waits_for(company, carriers).items() if count}
    if company.waiting_is_estimate:
        waits[_THEIR_TIME] = f"more than {COUNTED_UP_TO:,}"
    yield "waiting", ", ".join(f"{count} for {name}" for name, count in waits.items()) or "nothing"
    if company.next_due_at is not None:
        yield "next is due", f"{utc(company.next_due_at)}, {from_now(company.next_due_at, now)}"
    late = "" if company.late is None else f", late by {span_text(company.late)}"
    due = company.due if company.due <= COUNTED_UP_TO else f"more than {COUNTED_UP_TO:,}"
    yield "due", f"{due}{late}"
    for rule, held in company.held.items():
        yield "held", f"{held.count} by {rule}, the oldest for {span_text(held.oldest)}"
    yield "in progress", f"{company.in_progress} of {company.concurrent_calls}"
    if company.asked_for:
        yield "polled", f"{company.asked_for}: the carrier's answer was lost, so the carrier is polled"
    if company.undecided:
        yield "undecided", f"{company.undecided}: the carrier's list of calls cannot be read"
    if company.cause_lost:
        yield "cause lost", f"{company.cause_lost}: failed for an unknown cause; an operator must decide"
    if company.unknown:
        yield "unknown", f"{company.unknown}: no proof whether they rang; decide by `duecall unknown list`"


def waits_for(company: Waiting, carriers: Sequence[Carrier]) -> dict[str, int]:
    """Count pending attempts by what they wait for. Each attempt is counted once, by the first rule that blocks it."""
    down = any(carrier.is_down for carrier in carriers)
    if any(carrier.pause_reason is not None for carrier in carriers) or (company.paused and not down):
        return {_THEIR_TIME: company.waiting, "the end of the pause": company.due}
    if down:
        return {_THEIR_TIME: company.waiting, "the carrier": company.due}
    full = company.in_progress >= company.concurrent_calls or any(
        each.is_full_for(company.in_progress) for each in carriers
    )
    return {
        _THEIR_TIME: company.waiting,
        "a command": company.for_commands,
        "their number": company.for_numbers,
        "a place" if full else "their turn": company.for_places,
    }


def backoff_as_json(backoff: Backoff) -> dict[str, Any]:
    return as_json(
        country=backoff.scope.country,
        company_id=backoff.scope.company_id,
        cause=backoff.cause,
        on_trial=backoff.breaker.is_on_trial,
        tried_at=backoff.breaker.down_until,
    )


def status_as_json(status: Status, unsent_mails: Sequence[Mails]) -> dict[str, Any]:
    return {
        "alarms": dict(status.alarms),
        "callbacks": {"quarantined": status.callbacks_quarantined},
        "carriers": [as_json(**asdict(each)) for each in status.carriers],
        "carrierBackoffs": [backoff_as_json(each) for each in status.backoffs],
        "commands": as_json(**asdict(status.all_commands)),
        "companies": [
            as_json(**asdict(each))
            | {"held": {rule: as_json(**asdict(held)) for rule, held in each.held.items()}}
            | {"commands": as_json(**asdict(status.commands.get(each.company_id, Commands())))}
            for each in status.companies
        ],
        "erasures": as_json(**asdict(status.erasures)),
        "unsentInvitations": [as_json(**asdict(each)) for each in unsent_mails],
    }
