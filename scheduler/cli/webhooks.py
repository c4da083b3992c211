"""`duecall webhooks`: endpoints of partners."""

from scheduler.cli.app import examples, webhooks
from scheduler.cli.on_demand import operator_session
from scheduler.cli.options import AsJson
from scheduler.cli.output import fail, print_json, print_result


@webhooks.command("encrypt", epilog=examples("duecall webhooks encrypt", "duecall webhooks encrypt --json"))
def webhooks_encrypt(as_json: AsJson = False) -> None:
    """Encrypt the secrets of all webhooks with the first key of WEBHOOK_KEY, so that the second can be removed.

    Exit status 1: some secrets were encrypted with neither key. Their partners must rotate them and set headers again.
    """
    with operator_session() as session:
        done = session.encrypt_webhooks.all()
    unreadable = [str(each) for each in done.unreadable]
    if as_json:
        print_json({"encrypted": done.changed, "current": done.current, "unreadable": unreadable})
    else:
        print_result(f"{done.changed} webhooks encrypted again, {done.current} were encrypted with the first key")
    if unreadable:
        fail(f"Neither key decrypts the secrets of {', '.join(unreadable)}. Set the key that encrypted them, too.")
