"""Twilio's error codes, and the consequence of each for the order that was refused with it.

`docs/reference/carrier-codes.md` has the same table, and a test keeps the two equal. A code that is not listed proves
nothing: the outcome of such an order is unknown.
"""

from enum import StrEnum
from typing import NamedTuple


class Consequence(StrEnum):
    """The consequence of a code. For all but NUMBER the call was not placed, and the attempt is pending again."""

    NUMBER = "NUMBER"
    """The number itself cannot be called: the attempt fails as INVALID_NUMBER."""
    COUNTRY_REFUSED = "COUNTRY_REFUSED"
    """Our account may not call that country: only orders to it wait."""
    CALLER_REFUSED = "CALLER_REFUSED"
    """Our account may not call from that number: only that company's orders from it wait."""
    ORDER_REFUSED = "ORDER_REFUSED"
    """One of our own settings or fields is wrong: only that order waits."""
    ACCOUNT_LIMITED = "ACCOUNT_LIMITED"
    """A trial account: only that order waits."""
    THROTTLED = "THROTTLED"
    """Too many at once: counted against the carrier."""
    QUEUE_FULL = "QUEUE_FULL"
    """The account's queue is full: counted against the carrier."""
    CREDENTIALS = "CREDENTIALS"
    """Our credentials are wrong: no company's calls are dialled."""
    ACCOUNT_NOT_ACTIVE = "ACCOUNT_NOT_ACTIVE"
    """The account is closed or suspended: no company's calls are dialled."""


class Meaning(NamedTuple):
    consequence: Consequence
    text: str
    """Twilio's description of the code, shortened."""


CODES: dict[int, Meaning] = {
    10001: Meaning(Consequence.ACCOUNT_NOT_ACTIVE, "the account is not active"),
    10002: Meaning(Consequence.ACCOUNT_LIMITED, "trial accounts cannot use this"),
    10004: Meaning(Consequence.THROTTLED, "more calls at once than the account may have"),
    10005: Meaning(Consequence.ACCOUNT_NOT_ACTIVE, "voice is disabled for the account"),
    13212: Meaning(Consequence.CALLER_REFUSED, "the caller id is invalid"),
    13214: Meaning(Consequence.CALLER_REFUSED, "the caller id is invalid"),
    13223: Meaning(Consequence.NUMBER, "the format of the number is invalid"),
    13224: Meaning(Consequence.NUMBER, "the number is invalid or cannot be reached"),
    13225: Meaning(Consequence.NUMBER, "no account may call the number"),
    13226: Meaning(Consequence.NUMBER, "there is no such country code"),
    13227: Meaning(Consequence.COUNTRY_REFUSED, "no geographic permission for the country"),
    20001: Meaning(Consequence.ORDER_REFUSED, "a parameter is invalid"),
    20003: Meaning(Consequence.CREDENTIALS, "not authenticated"),
    20005: Meaning(Consequence.ACCOUNT_NOT_ACTIVE, "the account is not active"),
    20006: Meaning(Consequence.ORDER_REFUSED, "the key lacks a privilege for this request"),
    20008: Meaning(Consequence.CREDENTIALS, "test credentials cannot do this"),
    20403: Meaning(Consequence.CREDENTIALS, "the account may not use the API; it is suspended or closed"),
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
    21216: Meaning(Consequence.COUNTRY_REFUSED, "the account may not call there: risk, law or a missing profile"),
    21217: Meaning(Consequence.NUMBER, "the number does not appear to be valid"),
    21218: Meaning(Consequence.ORDER_REFUSED, "the application is invalid"),
    21219: Meaning(Consequence.ACCOUNT_LIMITED, "a trial account calls verified numbers only"),
    21609: Meaning(Consequence.ORDER_REFUSED, "the URL of the callbacks is invalid"),
    22005: Meaning(Consequence.QUEUE_FULL, "the queue would take more than 24 hours"),
    32205: Meaning(Consequence.COUNTRY_REFUSED, "no geographic permission for the destination"),
    70051: Meaning(Consequence.CREDENTIALS, "authorization failed"),
}
