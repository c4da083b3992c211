"""Twilio's error codes: the consequence of each for the order that it refuses, or for the failed call that it explains.

`duecall openapi carrier-codes` writes `docs/reference/carrier-codes.md` from this module, and
`tests/carriers/test_twilio_codes.py` compares it with the codes that Twilio publishes. A code that is not listed proves
nothing: the outcome of such an order is unknown.
"""

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from scheduler.domain.call import FailureCause


class Consequence(StrEnum):
    """The consequence of a code. `docs/reference/carrier-codes.md` describes each."""

    NUMBER = "NUMBER"
    UNREACHABLE = "UNREACHABLE"
    NUMBER_BLOCKED = "NUMBER_BLOCKED"
    BLOCKED_BY_NETWORK = "BLOCKED_BY_NETWORK"
    CARRIER_FAILED = "CARRIER_FAILED"
    INSTRUCTIONS_FAILED = "INSTRUCTIONS_FAILED"
    COUNTRY_REFUSED = "COUNTRY_REFUSED"
    CALLER_REFUSED = "CALLER_REFUSED"
    ORDER_REFUSED = "ORDER_REFUSED"
    ACCOUNT_LIMITED = "ACCOUNT_LIMITED"
    THROTTLED = "THROTTLED"
    QUEUE_FULL = "QUEUE_FULL"
    CREDENTIALS = "CREDENTIALS"
    ACCOUNT_NOT_ACTIVE = "ACCOUNT_NOT_ACTIVE"


class Meaning(NamedTuple):
    consequence: Consequence
    text: str
    """Twilio's description of the code, shortened."""


def _all(codes: Collection[int], consequence: Consequence, text: str) -> dict[int, Meaning]:
    return dict.fromkeys(codes, Meaning(consequence, text))


_CODES: dict[int, Meaning] = {
    10001: Meaning(Consequence.ACCOUNT_NOT_ACTIVE, "the account is not active"),
    10002: Meaning(Consequence.ACCOUNT_LIMITED, "trial accounts cannot use this"),
    10004: Meaning(Consequence.THROTTLED, "more calls at once than the account may have"),
    10005: Meaning(Consequence.ACCOUNT_NOT_ACTIVE, "voice is disabled for the account"),
    11100: Meaning(Consequence.INSTRUCTIONS_FAILED, "the format of the URL is invalid"),
    11200: Meaning(Consequence.INSTRUCTIONS_FAILED, "the URL was not fetched: an HTTP error, or no answer in time"),
    11201: Meaning(Consequence.INSTRUCTIONS_FAILED, "the TCP connection timed out"),
    11202: Meaning(Consequence.INSTRUCTIONS_FAILED, "the TCP connection was refused"),
    11203: Meaning(Consequence.INSTRUCTIONS_FAILED, "the HTTP request took longer than its total timeout"),
    11205: Meaning(Consequence.INSTRUCTIONS_FAILED, "the HTTP connection failed"),
    11206: Meaning(Consequence.INSTRUCTIONS_FAILED, "the HTTP response violates the protocol"),
    11210: Meaning(Consequence.INSTRUCTIONS_FAILED, "the host name of the URL cannot be resolved"),
    11215: Meaning(Consequence.INSTRUCTIONS_FAILED, "too many HTTP redirects"),
    11220: Meaning(Consequence.INSTRUCTIONS_FAILED, "the TLS handshake failed"),
    11235: Meaning(Consequence.INSTRUCTIONS_FAILED, "the certificate is of another domain"),
    11236: Meaning(Consequence.INSTRUCTIONS_FAILED, "the certificate has expired"),
    11237: Meaning(Consequence.INSTRUCTIONS_FAILED, "the certificate has no path to a known authority"),
    11240: Meaning(Consequence.INSTRUCTIONS_FAILED, "the edge location of the connection is invalid"),
    11241: Meaning(Consequence.INSTRUCTIONS_FAILED, "the edge location of the connection is not supported"),
    11242: Meaning(Consequence.INSTRUCTIONS_FAILED, "the connection over Interconnect is not allowed"),
    11251: Meaning(Consequence.INSTRUCTIONS_FAILED, "the HTTP response violates the protocol fatally"),
    11750: Meaning(Consequence.INSTRUCTIONS_FAILED, "the TwiML is too large"),
    11770: Meaning(Consequence.INSTRUCTIONS_FAILED, "the body of the response is empty"),
    12100: Meaning(Consequence.INSTRUCTIONS_FAILED, "the document cannot be parsed"),
    12101: Meaning(Consequence.INSTRUCTIONS_FAILED, "the version of the XML markup is invalid"),
    12102: Meaning(Consequence.INSTRUCTIONS_FAILED, "the root element of the document is not Response"),
    12300: Meaning(Consequence.INSTRUCTIONS_FAILED, "the Content-Type is invalid"),
    12400: Meaning(Consequence.CARRIER_FAILED, "an internal failure of Twilio"),
    13214: Meaning(Consequence.CALLER_REFUSED, "the caller id is invalid"),
    13223: Meaning(Consequence.NUMBER, "the format of the number is invalid"),
    13224: Meaning(Consequence.UNREACHABLE, "the number is invalid, or no carrier can reach it now: an outage"),
    13225: Meaning(Consequence.NUMBER, "Twilio blocks the number for all accounts: fraud or regulation"),
    13226: Meaning(Consequence.NUMBER, "there is no such country code"),
    13227: Meaning(Consequence.COUNTRY_REFUSED, "no geographic permission for the country"),
    13247: Meaning(Consequence.CALLER_REFUSED, "the caller id is invalid"),
    20001: Meaning(Consequence.ORDER_REFUSED, "a parameter is unknown or invalid"),
    20003: Meaning(Consequence.CREDENTIALS, "not authenticated"),
    20004: Meaning(Consequence.ORDER_REFUSED, "the method is not allowed"),
    20005: Meaning(Consequence.ACCOUNT_NOT_ACTIVE, "the account is not active"),
    20006: Meaning(Consequence.ORDER_REFUSED, "the key lacks a privilege for this request"),
    20008: Meaning(Consequence.CREDENTIALS, "test credentials cannot do this"),
    20010: Meaning(Consequence.ORDER_REFUSED, "the action is disabled for the account"),
    20403: Meaning(Consequence.CREDENTIALS, "the account may not use the API; it is suspended or closed"),
    20422: Meaning(Consequence.ORDER_REFUSED, "a parameter is invalid"),
    20429: Meaning(Consequence.THROTTLED, "too many requests"),
    21201: Meaning(Consequence.ORDER_REFUSED, "no number to call was named"),
    21202: Meaning(Consequence.NUMBER, "the number is a premium number"),
    21203: Meaning(Consequence.COUNTRY_REFUSED, "international calls are not enabled for the account"),
    21205: Meaning(Consequence.ORDER_REFUSED, "the URL of the instructions is invalid"),
    21206: Meaning(Consequence.ORDER_REFUSED, "the digits to send are invalid"),
    21207: Meaning(Consequence.ORDER_REFUSED, "the setting of machine detection is invalid"),
    21208: Meaning(Consequence.ORDER_REFUSED, "the ring timeout is invalid"),
    21209: Meaning(Consequence.ORDER_REFUSED, "the HTTP method is invalid"),
    21210: Meaning(Consequence.CALLER_REFUSED, "the caller id is not verified for the account"),
    21211: Meaning(Consequence.NUMBER, "the number is invalid"),
    21212: Meaning(Consequence.CALLER_REFUSED, "the caller id is invalid, or not the account's"),
    21213: Meaning(Consequence.CALLER_REFUSED, "the caller id is missing"),
    21214: Meaning(Consequence.NUMBER, "the number cannot be reached"),
    21215: Meaning(Consequence.COUNTRY_REFUSED, "no geographic permission for the number's country"),
    21216: Meaning(
        Consequence.NUMBER_BLOCKED, "Twilio blocks the number: fraud, regulation or, for +1, a missing customer profile"
    ),
    21217: Meaning(Consequence.NUMBER, "the number does not appear to be valid"),
    21218: Meaning(Consequence.ORDER_REFUSED, "the application is invalid"),
    21219: Meaning(Consequence.ACCOUNT_LIMITED, "a trial account calls verified numbers only"),
    **_all(range(21221, 21226), Consequence.ORDER_REFUSED, "the user name or password of SIP is invalid"),
    21226: Meaning(Consequence.ORDER_REFUSED, "SIP calling is not enabled for the account"),
    **_all(range(21227, 21230), Consequence.ORDER_REFUSED, "the headers of SIP are invalid"),
    21234: Meaning(Consequence.ORDER_REFUSED, "the configuration of machine detection is invalid"),
    21262: Meaning(Consequence.ORDER_REFUSED, "no URL for the callback of machine detection was named"),
    21263: Meaning(Consequence.ORDER_REFUSED, "the parameters of machine detection are invalid"),
    21609: Meaning(Consequence.ORDER_REFUSED, "the URL of the callbacks is invalid"),
    22001: Meaning(Consequence.CARRIER_FAILED, "the call timed out before Twilio could complete it"),
    22005: Meaning(Consequence.QUEUE_FULL, "the queue would take more than 24 hours"),
    32016: Meaning(Consequence.CARRIER_FAILED, "no carrier of the route responded within 60 seconds"),
    32017: Meaning(Consequence.BLOCKED_BY_NETWORK, "a carrier blocked the call because of its caller id (reputation)"),
    32205: Meaning(Consequence.COUNTRY_REFUSED, "no geographic permission for the destination"),
    70051: Meaning(Consequence.CREDENTIALS, "authorization failed"),
    86008: Meaning(Consequence.THROTTLED, "more calls at once than the account may have"),
}
CODES: Mapping[int, Meaning] = dict(sorted(_CODES.items()))

OF_THE_NUMBER = frozenset({Consequence.NUMBER, Consequence.UNREACHABLE})
"""Consequences that end an attempt whose order is refused with them."""
OF_A_CALL_ONLY = frozenset(
    {Consequence.BLOCKED_BY_NETWORK, Consequence.CARRIER_FAILED, Consequence.INSTRUCTIONS_FAILED}
)
"""Consequences for a call that the carrier has taken. In the answer to an order they prove nothing."""

OF_THE_INSTRUCTIONS = frozenset(
    str(code) for code, meaning in CODES.items() if meaning.consequence is Consequence.INSTRUCTIONS_FAILED
)
"""Codes if the voice server could not be reached, or answered no TwiML, as a notification names them."""

_CAUSES: Mapping[Consequence, FailureCause] = {
    Consequence.BLOCKED_BY_NETWORK: FailureCause.BLOCKED,
    Consequence.NUMBER: FailureCause.NUMBER,
    Consequence.UNREACHABLE: FailureCause.UNREACHABLE,
    Consequence.NUMBER_BLOCKED: FailureCause.CARRIER,
    Consequence.COUNTRY_REFUSED: FailureCause.CARRIER,
    Consequence.CALLER_REFUSED: FailureCause.CARRIER,
    Consequence.ACCOUNT_LIMITED: FailureCause.CARRIER,
    Consequence.ACCOUNT_NOT_ACTIVE: FailureCause.CARRIER,
    Consequence.THROTTLED: FailureCause.CARRIER,
    Consequence.QUEUE_FULL: FailureCause.CARRIER,
    Consequence.CARRIER_FAILED: FailureCause.CARRIER,
}
"""The cause of a failed call with a notification of the code. The first one in this order is used.

INSTRUCTIONS_FAILED is not among them: the code of a failed call may be about our callbacks, which use the same codes.
"""


def cause_of(error_codes: Sequence[object]) -> FailureCause | None:
    """Find the cause in a failed call's error codes. None if none of them proves a cause."""
    known = {CODES[int(code)].consequence for code in map(str, error_codes) if code.isdecimal() and int(code) in CODES}
    return next((cause for consequence, cause in _CAUSES.items() if consequence in known), None)
