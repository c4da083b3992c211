"""Check of the carrier's address at the start of a dial worker.

Later a wrong path would look like an unknown outcome: a 404 on a POST does not prove that no call was accepted.
"""

import http.client
from base64 import b64encode
from http import HTTPStatus
from urllib.parse import urlsplit

from scheduler.carriers.trust import trusted
from scheduler.carriers.twilio import TwilioAccount

_TIMEOUT_S = 5.0
"""For the connection and for the answer. A carrier that does not answer is no reason not to start."""


def calls_are_there(account: TwilioAccount) -> bool:
    """Return False if the carrier answers that the list of our calls does not exist. Places no call, never raises."""
    parts = urlsplit(account.api_url)
    if not parts.hostname:
        return True
    path = f"{parts.path}/2010-04-01/Accounts/{account.account_sid}/Calls.json?PageSize=1"
    credentials = b64encode(f"{account.account_sid}:{account.auth_tokens[0]}".encode()).decode()
    connection = (
        http.client.HTTPSConnection(parts.hostname, parts.port, timeout=_TIMEOUT_S, context=trusted(account.ca_file))
        if parts.scheme == "https"
        else http.client.HTTPConnection(parts.hostname, parts.port, timeout=_TIMEOUT_S)
    )
    try:
        connection.request("GET", path, headers={"Authorization": f"Basic {credentials}"})
        return connection.getresponse().status != HTTPStatus.NOT_FOUND
    except (OSError, http.client.HTTPException):
        return True
    finally:
        connection.close()
