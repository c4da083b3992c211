"""`duecall audit`: acts of operators and API keys."""

from typing import Annotated
from uuid import UUID

import typer

from scheduler.cli.app import app, examples
from scheduler.cli.on_demand import operator_session, print_pages
from scheduler.cli.options import AsJson, id_of, instant_of
from scheduler.cli.output import print_json, refuse
from scheduler.domain.audit import TargetKind

_MOST = 1000


@app.command(
    epilog=examples(
        "duecall audit",
        "duecall audit --since 2026-04-02T00:00Z --company 0d6e5a4e-7d39-4d0c-9f6e-2f1f0f3c7a55",
        "duecall audit --target key:6f1f3a52-0c8e-4f0a-9d4e-0b7a1f1f9c11 --json | jq '.entries[].verb'",
        "duecall audit --before 1234   # the entries that follow on the list",
    )
)
def audit(
    since: Annotated[
        str | None, typer.Option(help="Earliest time, e.g. 2026-04-02T07:00Z.", show_default=False)
    ] = None,
    actor: Annotated[
        str | None,
        typer.Option(
            help="Actor, for example cli:USER@HOST or key:KEY_ID.",
            show_default=False,
        ),
    ] = None,
    company: Annotated[
        UUID | None, typer.Option(metavar="COMPANY_ID", parser=id_of, help="Company that an act concerned.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="KIND:ID",
            help=f"Target of the act, for example key:KEY_ID. Kinds: {', '.join(TargetKind)}. A kind alone matches all"
            " of it.",
        ),
    ] = None,
    before: Annotated[
        int | None,
        typer.Option(metavar="ENTRY_ID", min=1, help="Entry after which the list continues, with older ones."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=_MOST, help="Most entries to list.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List acts, newest first: the actor, the time, the target, the reason, and the values before and after."""
    from scheduler.persistence.audit import AuditFilter
    from scheduler.terminal.audit import audit_as_json, audit_page

    kind, target_id = _target(target)
    wanted = AuditFilter(
        since=None if since is None else instant_of(since, "--since"),
        actor=actor,
        company_id=company,
        target_kind=kind,
        target_id=target_id,
    )
    with operator_session() as session:
        found = session.acts.newest(wanted, before, limit + 1)
        creators = session.acts.link_creators(each.actor for each in found)
    entries, has_more = found[:limit], len(found) > limit
    if as_json:
        print_json(audit_as_json(entries, creators, has_more=has_more))
    else:
        print_pages(audit_page(entries, creators, has_more=has_more))


def _target(text: str | None) -> tuple[str | None, str | None]:
    if text is None:
        return None, None
    kind, _, target_id = text.strip().partition(":")
    if kind not in set(TargetKind):
        refuse(f"--target must begin with one of {', '.join(TargetKind)}, for example key:KEY_ID.")
    return kind, (str(id_of(target_id)) if target_id else None)
