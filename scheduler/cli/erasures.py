"""`duecall erasures`: certificates of deleted companies."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from scheduler.cli.app import erasures, examples
from scheduler.cli.on_demand import operator_session
from scheduler.cli.options import AsJson, id_of, instant_text
from scheduler.cli.output import print_json, print_result, print_rows

if TYPE_CHECKING:
    from scheduler.persistence.erasures import Certificate


@erasures.command("list", epilog=examples("duecall erasures list", "duecall erasures list --json"))
def erasures_list(as_json: AsJson = False) -> None:
    """List the newest 100 erasures of companies: the time of the request and of the end, and the deleted rows."""
    with operator_session() as session:
        certificates = [_as_json(each) for each in session.certificates.newest()]
    if as_json:
        print_json(certificates)
        return
    if not certificates:
        session.report("no company was deleted")
    print_rows([_line(each) for each in certificates])


@erasures.command(
    "show", epilog=examples("duecall erasures show COMPANY_ID", "duecall erasures show COMPANY_ID --json")
)
def erasures_show(
    company_id: Annotated[
        UUID, typer.Argument(metavar="COMPANY_ID", parser=id_of, help="Id from `duecall erasures list`.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show the certificate of a company's erasure: the times, and how many rows of each kind were deleted."""
    with operator_session() as session:
        certificate = session.certificates.of_company(company_id)
    if as_json:
        print_json(_as_json(certificate))
        return
    print_result(f"company   {certificate.company_id}")
    print_result(f"requested {certificate.asked_at.isoformat()}")
    print_result(f"finished  {instant_text(certificate.finished_at) or 'not yet'}")
    for kind, count in sorted(certificate.erased.items()):
        print_result(f"{count:>9} {kind}")


def _as_json(certificate: "Certificate") -> Mapping[str, object]:
    return {
        "companyId": str(certificate.company_id),
        "requestedAt": certificate.asked_at.isoformat(),
        "finishedAt": instant_text(certificate.finished_at),
        "erased": certificate.erased,
        "rows": sum(certificate.erased.values()),
    }


def _line(certificate: Mapping[str, object]) -> Mapping[str, object]:
    return {
        "company": certificate["companyId"],
        "requested": f"requested {certificate['requestedAt']}",
        "finished": f"finished {certificate['finishedAt'] or 'not yet'}",
        "rows": f"{certificate['rows']} rows deleted",
    }
