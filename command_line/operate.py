"""`duecall explain`, `status`, `pause`, `resume` and `reconcile`: the operator's commands."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, TypeVar
from uuid import UUID

import typer

from command_line.app import (
    NO_PERSON,
    AllCompanies,
    AsJson,
    OneCompanyId,
    Reason,
    app,
    examples,
    id_argument,
    instant_of,
    operator_session,
    print_pages,
)
from command_line.output import fail, print_json, print_note, print_result, refuse
from scheduler.domain.company import ALARM
from scheduler.domain.explanation import Explanation
from scheduler.domain.refusals import NotFound

if TYPE_CHECKING:
    from command_line.session import OperatorSession
    from scheduler.settings import Settings

T = TypeVar("T")


@app.command(
    epilog=examples(
        "duecall explain 6f1f3a52-0c8e-4f0a-9d4e-0b7a1f1f9c11",
        "duecall explain ID --json | jq .blocks",
        "duecall explain ID --evidence --json",
    )
)
def explain(
    attempt_id: Annotated[
        UUID,
        id_argument("ID", "Id of a call attempt or of an interview. Of an interview, the newest attempt is explained."),
    ],
    evidence: Annotated[
        bool,
        typer.Option(
            "--evidence",
            help="The document that proves how the call came about. Exits with 1 if its history was changed.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Explain a call attempt: when it may ring, on which clock, which rules block it, and its history.

    The rules are those that the dialler uses. Deleted attempts are explained too.
    """
    from api_shim.schemas.interview import ExplanationView
    from command_line.terminal import explanation_page, system_line

    with operator_session(computes=True) as session:
        if evidence:
            _print_evidence(session, attempt_id, as_json=as_json)
            return
        explanation = _explanation(session, attempt_id)
        if as_json:
            print_result(ExplanationView.of(explanation).model_dump_json(by_alias=True))
        else:
            print_pages(system_line(session.system), explanation_page(explanation, session.now()))


def _print_evidence(session: "OperatorSession", attempt_id: UUID, *, as_json: bool) -> None:
    from api_shim.schemas.evidence import EvidenceView
    from command_line.evidence_page import evidence_page
    from command_line.terminal import system_line
    from scheduler.domain.evidence import SealState

    found = _of_attempt(session, attempt_id, session.evidence.of_operator)
    view = EvidenceView.of(found)
    if as_json:
        print_result(view.model_dump_json(by_alias=True))
    else:
        print_pages(system_line(session.system), evidence_page(view))
    if found.seals.state is SealState.BROKEN:
        fail("The history of this call was changed after it was written.")


def _explanation(session: "OperatorSession", attempt_or_interview: UUID) -> Explanation:
    return _of_attempt(session, attempt_or_interview, session.explain.explanation_of)


def _of_attempt(session: "OperatorSession", attempt_or_interview: UUID, read: Callable[[UUID], T]) -> T:
    """Read it of an attempt, or of the newest attempt of an interview."""
    from command_line.terminal import attempt_line

    try:
        return read(attempt_or_interview)
    except NotFound:
        attempts = session.explain.attempts_of(attempt_or_interview)
        if not attempts:
            raise NotFound("No call attempt has this id, and no interview with call attempts.") from None
    which = "its only attempt" if len(attempts) == 1 else f"the newest of its {len(attempts)} attempts"
    print_note(f"This is an interview. Explaining {which}:")
    for attempt in attempts:
        print_note(attempt_line(attempt))
    return read(attempts[-1].id)


@app.command(epilog=examples("duecall status", "duecall status --json | jq .carriers", "watch -n 1 duecall status"))
def status(as_json: AsJson = False) -> None:
    """Show the carrier's state, and per company the calls that wait, are late, in progress or of unknown outcome.

    Also shows open alarms, unsent invitations, what is in quarantine, and the number and age of accepted commands that
    are not applied yet and of deleted companies that are not erased yet.
    """
    from command_line.status import status_as_json, status_page
    from command_line.terminal import system_line

    with operator_session(computes=True) as session:
        found, unsent_mails = session.counts.status(), session.explain.unsent_invitations()
    if as_json:
        print_json(status_as_json(found, unsent_mails))
    else:
        print_pages(system_line(session.system), status_page(found, unsent_mails, session.now()))


@app.command(
    epilog=examples(
        "duecall pause 0d6e5a4e-7d39-4d0c-9f6e-2f1f0f3c7a55 --reason 'they asked for silence until Monday'",
        "duecall pause --all --reason 'the voice server is down'",
    )
)
def pause(
    company_id: OneCompanyId = None,
    reason: Annotated[
        str | None, typer.Option(help=f"Reason, in one line, for operators and for the company. Required. {NO_PERSON}")
    ] = None,
    everything: AllCompanies = False,
    as_json: AsJson = False,
) -> None:
    """Pause calling for one company, or for all. Calls in progress continue; due calls wait.

    Pausing again changes nothing: the first reason is kept.
    """
    target = _target("pause", company_id, everything=everything, missing=["--reason"] if reason is None else [])
    reason = (reason or "").strip()
    if not reason:
        refuse("--reason must not be empty: it is shown to operators and to the company.")
    with operator_session() as session:
        before = session.pauses.pause(company_id, reason)
    if as_json:
        _print_pause(company_id, reason if before is None else before.reason, changed=before is None)
    elif before is None:
        session.report(f"{target} is paused: {reason}")
    else:
        session.report(f"{target} was already paused ({_cause(before.reason)}); nothing changed")


@app.command(
    epilog=examples("duecall resume 0d6e5a4e-7d39-4d0c-9f6e-2f1f0f3c7a55", "duecall resume --all"),
)
def resume(
    company_id: OneCompanyId = None,
    reason: Reason = None,
    everything: AllCompanies = False,
    as_json: AsJson = False,
) -> None:
    """Resume calling for one company, or for all. Overdue calls are placed immediately, within calling hours.

    --all does not resume companies that were paused separately.
    """
    target = _target("resume", company_id, everything=everything)
    with operator_session() as session:
        before = session.pauses.resume(company_id, reason)
        other_pauses = list(_other_pauses(session, company_id))
    if as_json:
        _print_pause(company_id, None, changed=before is not None)
        return
    if before is None:
        without = "There was no pause of all calls" if everything else f"{target} was not paused"
        session.report(f"{without}; nothing changed")
    else:
        session.report(f"{target} is resumed; it was paused ({_cause(before)})")
    for line in other_pauses:
        print_note(line)


@app.command(
    epilog=examples(
        "duecall pause --all --reason 'restored the backup of 07:00'",
        "duecall reconcile --since 2026-04-02T07:00Z",
        "duecall resume --all",
    )
)
def reconcile(
    since: Annotated[str, typer.Option(help="Time of the backup, or an earlier time.")],
    reason: Reason = None,
    as_json: AsJson = False,
) -> None:
    """Find calls that a restored database does not contain, by querying the carrier. Places no calls.

    Run it after a restore or a failover, while everything is paused. It can be repeated. Repeat it after clients have
    sent lost commands again.
    """
    from command_line.installation import installation
    from scheduler import assembly
    from scheduler.carriers.interface import CarrierUnavailable
    from scheduler.use_cases.operations.reconcile import NotPaused

    since_at = instant_of(since, "--since")
    chosen = installation()[0]
    with _alarms_stored(chosen), operator_session() as session:
        try:
            result = assembly.reconcile(chosen, session.database, session.actor).since(since_at, reason)
        except NotPaused:
            refuse("Pause everything first: duecall pause --all --reason 'the database was restored'")
        except CarrierUnavailable:
            fail("The carrier does not answer. Keep everything paused, and try again.")
    if as_json:
        counts = {"calls": result.calls, "known": result.known, "bound": list(result.bound)}
        print_json(counts | {"strangers": list(result.unmatched)})
        return
    session.report(
        f"{result.calls} calls since {since_at.isoformat()}: {result.known} known, {len(result.bound)} were missing"
        f" and are now bound to their attempts, {len(result.unmatched)} match no waiting attempt"
    )
    for call_sid in result.unmatched:
        print_note(f"  no match: {call_sid}")


@contextmanager
def _alarms_stored(settings: "Settings") -> Iterator[None]:
    """Log problems to stderr, and store alarms, as a worker does: the block settles calls, which can raise alarms."""
    from scheduler import assembly
    from scheduler.logs import configure
    from workers.alarm_writer import AlarmWriter

    configure(logging.WARNING)
    alarms = AlarmWriter(assembly.alarm_store(settings, "worker"))
    alarms.start()
    try:
        yield
    finally:
        alarms.stop()


def _target(command: str, company_id: UUID | None, *, everything: bool, missing: Sequence[str] = ()) -> str:
    """Name the target, to begin a sentence. Exactly one option is required, so that an omission pauses nothing.

    One error names everything that is missing.
    """
    if company_id is None and not everything:
        missing = ["COMPANY_ID (see `duecall status`) or --all", *missing]
    if missing:
        refuse(f"Missing {', and '.join(missing)}. See: duecall {command} --help")
    if company_id is not None and everything:
        refuse(f"Give either COMPANY_ID or --all, not both. See: duecall {command} --help")
    return "Everything" if everything else f"Company {company_id}"


def _cause(reason: str) -> str:
    if reason.startswith(ALARM):
        return f"by the alarm {reason.removeprefix(ALARM)}, see the logs"
    return f"reason: {reason}"


def _other_pauses(session: "OperatorSession", company_id: UUID | None) -> Iterator[str]:
    """Yield a line for pauses that this resume did not end."""
    all_reason, companies = session.pauses.active()
    if company_id is not None and all_reason is not None:
        yield f"Everything is still paused: {all_reason}. To resume: duecall resume --all"
    elif company_id is None and companies:
        yield f"Still paused separately: {', '.join(map(str, companies))}"


def _print_pause(company_id: UUID | None, reason: str | None, *, changed: bool) -> None:
    print_json(
        {
            "companyId": company_id,
            "paused": reason is not None,
            "reason": reason,
            "byAlarm": reason is not None and reason.startswith(ALARM),
            "changed": changed,
        }
    )
