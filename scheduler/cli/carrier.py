"""`duecall carrier`: calls to a country or from a number that wait for the carrier."""

from scheduler.cli.app import carrier, examples
from scheduler.cli.on_demand import operator_session
from scheduler.cli.options import AsJson
from scheduler.cli.output import print_json, print_rows


@carrier.command("list", epilog=examples("duecall carrier list", "duecall carrier list --json"))
def carrier_list(as_json: AsJson = False) -> None:
    """List the back-offs: the country or the company's number, the cause, and the time of the next trial."""
    from scheduler.terminal.status import backoffs_as_json

    with operator_session() as session:
        backoffs = backoffs_as_json(session.carrier_waits.all())
    if as_json:
        print_json(backoffs)
        return
    if not backoffs:
        session.report("no calls back off")
    print_rows(backoffs)


@carrier.command("retry", epilog=examples("duecall carrier retry   # after the carrier has granted a permission"))
def carrier_retry() -> None:
    """Try one call of each back-off now. If the carrier accepts it, the other calls follow."""
    with operator_session() as session:
        count = session.carrier_waits.end()
    session.report(f"{count} back-offs ended; one call of each is tried")
