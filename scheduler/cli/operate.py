"""`duecall explain`, `status`, `pause`, `resume` and `reconcile`: the operator's commands."""

import json
from collections.abc import Iterator
from typing import Annotated
from uuid import UUID

import typer

from api_shim.schemas.explanation import ExplanationView
from scheduler import assembly
from scheduler.carriers.interface import CarrierUnavailable
from scheduler.cli.app import app, examples
from scheduler.cli.installation import OperatorSession, installation, operator_session
from scheduler.cli.options import AsJson, Everything, WhichCompany, instant_of
from scheduler.cli.output import fail, refuse, say_plainly
from scheduler.domain.company import ALARM
from scheduler.domain.explanation import Explanation
from scheduler.domain.refusals import NotFound
from scheduler.terminal import explanation as explanation_text
from scheduler.terminal import status as status_text
from scheduler.terminal.text import system_line, terminal
from scheduler.use_cases.operations.reconcile import NotPaused


@app.command(
    epilog=examples("duecall explain 6f1f3a52-0c8e-4f0a-9d4e-0b7a1f1f9c11", "duecall explain ID --json | jq .blocks")
)
def explain(
    attempt_id: Annotated[UUID, typer.Argument(metavar="ATTEMPT_ID", help="Or an interview's: then its newest one.")],
    as_json: AsJson = False,
) -> None:
    """Why an attempt stands as it does: when it may ring, on whose clock, what keeps it, and what has happened.

    It asks the very rules that dial. Deleted attempts are explained too.
    """
    with operator_session(computes=True) as desk:
        explanation = _explanation(desk, attempt_id)
        if as_json:
            print(ExplanationView.of(explanation).model_dump_json(by_alias=True))  # noqa: T201 - the answer itself
        else:
            terminal().print(system_line(desk.system))
            terminal().print(explanation_text.explanation_page(explanation, desk.now()))


def _explanation(desk: "OperatorSession", attempt_or_interview: UUID) -> Explanation:
    """Whoever has an interview's id at hand is helped: its newest attempt is the one that is asked about."""
    try:
        return desk.explain.explanation_of(attempt_or_interview)
    except NotFound:
        attempts = desk.explain.attempts_of(attempt_or_interview)
        if not attempts:
            raise NotFound("There is no call attempt of this id, and no interview of it that has any.") from None
    say_plainly(f"This is an interview; its newest attempt of {len(attempts)} is explained:")
    for each in attempts:
        say_plainly(explanation_text.attempt_line(each))
    return desk.explain.explanation_of(attempts[-1].id)


@app.command(epilog=examples("duecall status", "duecall status --json | jq .carriers", "watch -n 1 duecall status"))
def status(as_json: AsJson = False) -> None:
    """What waits and for what, what is late, calling and unknown, per company; and how the carrier and mail stand.

    Of commands that were accepted and are not applied yet, and of deleted companies that are not erased yet, it tells
    the number and the age.
    """
    with operator_session(computes=True) as desk:
        carriers, companies, commands = desk.explain.carriers(), desk.explain.waiting(), desk.backlog.commands()
        mails, erasures = desk.explain.unsent_invitations(), desk.backlog.erasures()
        backoffs = desk.carrier_waits.all()
    if as_json:
        told = status_text.status_as_json(carriers, backoffs, companies, commands, mails, erasures)
        print(json.dumps(told))  # noqa: T201 - the answer itself
    else:
        terminal().print(system_line(desk.system))
        page = status_text.status_page(carriers, backoffs, companies, commands, mails, erasures, desk.now())
        terminal().print(page)


@app.command(
    epilog=examples(
        "duecall pause 0d6e5a4e-7d39-4d0c-9f6e-2f1f0f3c7a55 --reason 'they asked for silence until Monday'",
        "duecall pause --all --reason 'the voice server is down'",
    )
)
def pause(
    reason: Annotated[
        str,
        typer.Option(
            help="Why, in one line, for whoever asks later; the company reads it. No name, number or address."
        ),
    ],
    company_id: WhichCompany = None,
    everything: Everything = False,
    as_json: AsJson = False,
) -> None:
    """Stop the dialling, of one company or of everything. Calls in progress go on; what is due waits.

    Doing it again changes nothing: a pause that stands keeps its first reason.
    """
    reason = reason.strip()
    if not reason:
        refuse("say why: --reason TEXT; whoever finds the calls waiting will ask")
    whose = _whose(company_id, everything=everything)
    with operator_session() as desk:
        before = desk.pauses.pause(company_id, reason)
    if as_json:
        _print_pause(company_id, before or reason, changed=before is None)
    elif before is None:
        desk.tell(f"{whose} is paused: {reason}")
    else:
        desk.tell(f"{whose} was paused already, {_by_whom(before)}, and stays so")


@app.command(
    epilog=examples("duecall resume 0d6e5a4e-7d39-4d0c-9f6e-2f1f0f3c7a55", "duecall resume --all"),
)
def resume(company_id: WhichCompany = None, everything: Everything = False, as_json: AsJson = False) -> None:
    """Let the dialling go on, of one company or of everything; what is due meanwhile is rung at once, in its hours.

    --all ends the pause of everything; a company that is paused by itself stays paused.
    """
    whose = _whose(company_id, everything=everything)
    with operator_session() as desk:
        before = desk.pauses.resume(company_id)
        still_waits = list(_what_still_waits(desk, company_id))
    if as_json:
        _print_pause(company_id, None, changed=before is not None)
        return
    if before is None:
        desk.tell(f"{whose} was not paused")
    else:
        desk.tell(f"{whose} goes on; it had been paused {_by_whom(before)}")
    for still in still_waits:
        say_plainly(still)


@app.command(
    epilog=examples(
        "duecall pause --all --reason 'restored the backup of 07:00'",
        "duecall reconcile --since 2026-04-02T07:00Z",
        "duecall resume --all",
    )
)
def reconcile(
    since: Annotated[str, typer.Option(help="When the backup was made, or a moment that the database surely knows.")],
    as_json: AsJson = False,
) -> None:
    """After a restore or a failover: ask the carrier for the calls that this database has forgotten. Rings nobody.

    Everything must be paused. It may be repeated, and should be once lost commands have been sent again.
    """
    instant = instant_of(since, "--since")
    with operator_session() as desk:
        try:
            found = assembly.reconcile(installation()[0], desk.database).since(instant)
        except NotPaused:
            refuse("stop everything first: duecall pause --all --reason 'the database was restored'")
        except CarrierUnavailable:
            fail("the carrier cannot be asked; nothing may be dialled before it was: try again")
    told = {"calls": found.calls, "known": found.known, "bound": [str(each) for each in found.bound]}
    if as_json:
        print(json.dumps(told | {"strangers": list(found.strangers)}))  # noqa: T201 - the answer itself
        return
    desk.tell(
        f"{found.calls} calls since {instant.isoformat()}: {found.known} known, {len(found.bound)} had been forgotten"
        f" and are bound again, {len(found.strangers)} fit nothing that waits"
    )
    for sid in found.strangers:
        say_plainly(f"  fits nothing: {sid}")


def _whose(company_id: UUID | None, *, everything: bool) -> str:
    """Who is meant, as a sentence begins. One of the two must be said, so that nobody stops all by leaving one out."""
    if (company_id is None) != everything:
        refuse("say either COMPANY_ID or --all; `duecall status` lists the companies")
    return "Everything" if everything else f"Company {company_id}"


def _by_whom(reason: str) -> str:
    if reason.startswith(ALARM):
        return f"by an alarm ({reason.removeprefix(ALARM)}): something happened that never must, see the logs"
    return f"because: {reason}"


def _what_still_waits(desk: "OperatorSession", company_id: UUID | None) -> Iterator[str]:
    """What a resume did not end."""
    everything, companies = desk.pauses.standing()
    if company_id is not None and everything is not None:
        yield f"Everything is paused still: {everything}. End that with: duecall resume --all"
    elif company_id is None and companies:
        yield f"Paused by themselves, and still so: {', '.join(map(str, companies))}"


def _print_pause(company_id: UUID | None, reason: str | None, *, changed: bool) -> None:
    by_alarm = reason is not None and reason.startswith(ALARM)
    told = {
        "companyId": None if company_id is None else str(company_id),
        "paused": reason is not None,
        "reason": reason,
        "byAlarm": by_alarm,
        "changed": changed,
    }
    print(json.dumps(told))  # noqa: T201 - the answer itself
