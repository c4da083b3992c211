"""`duecall carrier`: calls that wait because the carrier refuses or fails them."""

import json

from scheduler.cli.app import carrier, examples
from scheduler.cli.installation import operator_session
from scheduler.cli.options import AsJson
from scheduler.terminal import status as status_text


@carrier.command("list", epilog=examples("duecall carrier list", "duecall carrier list --json"))
def carrier_list(as_json: AsJson = False) -> None:
    """Which country, or which company's number, waits for the carrier, why, and until when."""
    with operator_session() as desk:
        found = desk.carrier_waits.all()
    told = status_text.backoffs_as_json(found)
    if as_json:
        print(json.dumps(told))  # noqa: T201 - the answer itself
    elif not told:
        desk.tell("no orders wait for the carrier by themselves")
    for each in () if as_json else told:
        print("  ".join(str(value or "-") for value in each.values()))  # noqa: T201 - the answer itself


@carrier.command("retry", epilog=examples("duecall carrier retry   # after the permission was given"))
def carrier_retry() -> None:
    """Have one call of each country and number that waits tried at once; when it is taken, the others go on."""
    with operator_session() as desk:
        ended = desk.carrier_waits.end()
    desk.tell(f"{ended} waits are over; one call of each is tried")
