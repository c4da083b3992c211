"""`duecall carrier`: calls to a country or from a number that wait for the carrier, and stray calls."""

from scheduler.cli.app import carrier, examples
from scheduler.cli.on_demand import operator_session
from scheduler.cli.options import AsJson, Reason
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
def carrier_retry(reason: Reason = None) -> None:
    """Try one call of each back-off now. If the carrier accepts it, the other calls follow."""
    with operator_session() as session:
        count = session.carrier_waits.end(reason)
    session.report(f"{count} back-offs ended; one call of each is tried")


@carrier.command("strays", epilog=examples("duecall carrier strays", "duecall carrier strays --json"))
def carrier_strays(as_json: AsJson = False) -> None:
    """List the stray calls, which belong to no attempt and have not provably ended, oldest first.

    Each line has the carrier's id of the call, the attempt whose number it calls, and the times at which it was seen
    and is polled next.
    """
    with operator_session() as session:
        strays = session.carrier_waits.stray_calls()
    rows = [
        {
            "callSid": each.call_sid,
            "attemptId": str(each.attempt_id),
            "seenAt": each.seen_at.isoformat(),
            "nextAskedAt": each.look_at.isoformat(),
        }
        for each in strays
    ]
    if as_json:
        print_json(rows)
        return
    if not rows:
        session.report("no stray call is open")
    print_rows(rows)
