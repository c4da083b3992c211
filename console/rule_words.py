"""Words for the rules that hold due calls."""

from collections.abc import Mapping

from scheduler.domain.explanation import PACE, Rule

HOLDS: Mapping[str, str] = {
    Rule.ACCOUNT_PAUSED: "All calls are paused.",
    Rule.CARRIER_DOWN: "The carrier accepts no calls. It is asked again periodically.",
    Rule.CARRIER_REFUSES_COUNTRY: "The carrier refuses calls to the country.",
    Rule.CARRIER_REFUSES_CALLER: "The carrier refuses calls from the company's number.",
    Rule.CARRIER_FAILS_CALLER: "The carrier fails calls from the company's number.",
    Rule.COMPANY_PAUSED: "The company is paused.",
    Rule.COMMAND_WAITING: "A command for the interview is not applied yet.",
    Rule.EXPIRED: "The interview has expired. A worker ends it.",
    Rule.NUMBER_BUSY: "The person's number has another call, or had one shortly before.",
    Rule.COMPANY_LIMIT: "The company has reached its limit of calls in progress.",
    Rule.ACCOUNT_LIMIT: "The carrier account has reached its limit of calls in progress.",
    PACE: "The calls per second of the company or of the account are used up.",
}
"""Sentences about the rules that hold due calls."""
RULES: Mapping[str, str] = {rule: sentence.partition(".")[0] for rule, sentence in HOLDS.items()}
"""The first sentences, as labels."""
