"""The page of carrier codes, which `duecall openapi carrier-codes` writes from the table of codes."""

from collections.abc import Mapping

from scheduler.carriers.twilio_codes import CODES, Consequence

_HEAD = """\
# Carrier error codes

The consequences of Twilio's error codes. This page is generated from `scheduler/carriers/twilio_codes.py`
(`make openapi`), and `make check` compares the two. `tests/carriers/test_twilio_codes.py` compares the codes with the
list that Twilio publishes.

Twilio uses its codes in two places. It **refuses an order** with an HTTP status of class 4xx and a code. After a 5xx
the code does not count: the carrier failed and may have placed the call before, so the outcome is unknown. Or it has
taken the call, and a **notification of the failed call** names the code. Duecall reads notifications when it asks
Twilio about a call that failed, because its last callback did not arrive.

| consequence | a refused order | a failed call |
|---|---|---|
"""
_AFTER = """
"Not placed" means that the attempt is `PENDING` again and uses up no retry. Status 401 counts as `CREDENTIALS` and 429
as `THROTTLED`, whatever the code. **Every other response means an unknown outcome**, in particular a 403 with a code
that is not listed: it may concern one call only, so it does not stop those of other companies.

## The SIP code and the notification

The last callback of a call has its SIP code, and a notification has its error code. For a call that failed, both decide
together. The first line that applies is used:

| known | reason |
|---|---|
| a notification with `BLOCKED_BY_NETWORK` | `BLOCKED_BY_NETWORK` |
| a notification with `NUMBER` | `INVALID_NUMBER` |
| SIP 607 or 608, also if the call was busy or not answered | `BLOCKED_BY_NETWORK` |
| SIP 603 from a number in +1 | `BLOCKED_BY_NETWORK`, see below |
| SIP 603 from any other number | `DECLINED` |
| SIP 404, 410, 484 or 604 | `INVALID_NUMBER` |
| SIP 486 or 600 | `BUSY` |
| a notification with `UNREACHABLE` | `UNREACHABLE` |
| anything else | `CARRIER_ERROR` |

Networks of the USA answer 603 to calls that they block ("603+", since March 2026). Twilio's callback does not
distinguish this from a person's refusal, so 603 from +1 is not called declined. Neither is retried.

If neither code is known (the last callback was lost and no notification names a cause), the reason is `CARRIER_ERROR`
without a retry: alarm [CAUSE_LOST](../operations.md#cause_lost).

## Codes

| code | Twilio's meaning | consequence |
|---|---|---|
"""
_CARRIER_ERROR = "`CARRIER_ERROR`, retried."
_UNKNOWN = "Proves nothing: the outcome is unknown."
_PERMISSION = "carrier_refuses_country--carrier_refuses_caller"
_CLOSED = "carrier_credentials--carrier_account_not_active"


def _alarm(name: str, anchor: str) -> str:
    return f"Alarm [{name}](../operations.md#{anchor})."


_EFFECTS: Mapping[tuple[Consequence, ...], tuple[str, str]] = {
    (Consequence.NUMBER,): (
        "The number itself cannot be called. The attempt is `FAILED` with `INVALID_NUMBER`.",
        "The same.",
    ),
    (Consequence.UNREACHABLE,): (
        (
            "The number is invalid, or no network can reach it now (an outage). The attempt is `FAILED` with"
            " `UNREACHABLE` and is retried once, on the next day. The second time in a chain it is `INVALID_NUMBER`."
        ),
        "The same.",
    ),
    (Consequence.NUMBER_BLOCKED,): (
        (
            "Twilio blocks this number. The call was not placed. The attempt waits for an hour, then for a day each"
            " time, and other calls to the number wait for `LINE_GAP_S`. Two numbers of a country within an hour count"
            f" as `COUNTRY_REFUSED`. {_alarm('NUMBER_BLOCKED', 'number_blocked')}"
        ),
        _CARRIER_ERROR,
    ),
    (Consequence.BLOCKED_BY_NETWORK,): (
        _UNKNOWN,
        "A network on the way blocked the caller id. `BLOCKED_BY_NETWORK`, not retried.",
    ),
    (Consequence.CARRIER_FAILED,): (_UNKNOWN, f"Twilio or its networks failed. {_CARRIER_ERROR}"),
    (Consequence.INSTRUCTIONS_FAILED,): (
        _UNKNOWN,
        (
            "Proves nothing about a call that failed: Twilio uses the same codes for callbacks. For an answered call it"
            " may mean that the voice server gave no instructions."
        ),
    ),
    (Consequence.COUNTRY_REFUSED,): (
        (
            "The account may not call that country. The call was not placed. Calls to that country wait, of all"
            f" companies, and no others. {_alarm('CARRIER_REFUSES_COUNTRY', _PERMISSION)}"
        ),
        _CARRIER_ERROR,
    ),
    (Consequence.CALLER_REFUSED,): (
        (
            "The account may not call from that number. The call was not placed. The company's calls from that number"
            f" wait, and no others. {_alarm('CARRIER_REFUSES_CALLER', _PERMISSION)}"
        ),
        _CARRIER_ERROR,
    ),
    (Consequence.ORDER_REFUSED, Consequence.ACCOUNT_LIMITED): (
        (
            "A setting or field is wrong, or the account is a trial account. The call was not placed and is tried again"
            " later, less and less often. Other calls go on."
            f" {_alarm('ORDER_REFUSED or ACCOUNT_LIMITED', 'order_refused--account_limited')}"
        ),
        f"`ACCOUNT_LIMITED`: {_CARRIER_ERROR} `ORDER_REFUSED` proves nothing.",
    ),
    (Consequence.THROTTLED, Consequence.QUEUE_FULL): (
        (
            "The call was not placed, and the failure counts against the carrier. The fifth in a row stops the"
            " company's calls, and failures of two companies stop all calls."
        ),
        _CARRIER_ERROR,
    ),
    (Consequence.CREDENTIALS, Consequence.ACCOUNT_NOT_ACTIVE): (
        (
            "The credentials are wrong, or the account is closed. The call was not placed, and no calls are placed for"
            f" any company. {_alarm('CARRIER_CREDENTIALS or CARRIER_ACCOUNT_NOT_ACTIVE', _CLOSED)}"
        ),
        f"`ACCOUNT_NOT_ACTIVE`: {_CARRIER_ERROR} `CREDENTIALS` proves nothing.",
    ),
}


def carrier_codes_text() -> str:
    """Build the page."""
    effects = [
        f"| {', '.join(f'`{each.value}`' for each in consequences)} | {refused} | {failed} |"
        for consequences, (refused, failed) in _EFFECTS.items()
    ]
    codes = [f"| {code} | {meaning.text} | `{meaning.consequence.value}` |" for code, meaning in CODES.items()]
    return "\n".join((_HEAD.rstrip("\n"), *effects, _AFTER.rstrip("\n"), *codes, ""))
