"""The reason for the end of a call: one table over its status, its SIP code and the cause that the carrier names."""

from scheduler.domain.attempt import ConversationOutcome, Reason
from scheduler.domain.call import AnsweredBy, CallNews, CallStatus, FailureCause
from scheduler.lifecycle.policy import Policy

_REASON_OF = {
    CallStatus.BUSY: Reason.BUSY,
    CallStatus.NO_ANSWER: Reason.NO_ANSWER,
    CallStatus.CANCELLED: Reason.CANCELLED_AT_CARRIER,
}
_OF_CAUSE = {
    FailureCause.BLOCKED: Reason.BLOCKED_BY_NETWORK,
    FailureCause.NUMBER: Reason.INVALID_NUMBER,
}
"""Causes that decide whatever the SIP code is."""
_SIP_REASONS = {
    404: Reason.INVALID_NUMBER,
    410: Reason.INVALID_NUMBER,
    484: Reason.INVALID_NUMBER,
    604: Reason.INVALID_NUMBER,
    486: Reason.BUSY,
    600: Reason.BUSY,
    603: Reason.DECLINED,
    607: Reason.BLOCKED_BY_NETWORK,
    608: Reason.BLOCKED_BY_NETWORK,
}
"""Final responses about the number or the person (RFC 3261 section 21), or of a network (RFC 8197, RFC 8688)."""
_DECLINE = 603
_NORTH_AMERICA = "+1"
"""Networks of the USA answer a call that they block with 603 ("603+", 47 CFR 64.1200, since 2026-03-25). The carrier
reports the code without the text that would distinguish it from a person's refusal, so neither is called declined."""


def reason_of(news: CallNews, called: str | None = None, outcome: ConversationOutcome | None = None) -> Reason:
    """Derive the reason for the end of a call, from the news of its end and the report of its conversation.

    `called` is the called number, if known.
    """
    if news.status is CallStatus.COMPLETED:
        return reason_of_answered(
            instructions_failed=news.instructions_failed, outcome=outcome, answered_by=news.answered_by
        )
    by_sip = _by_sip(news.sip_code, news.to or called)
    if news.status is not CallStatus.FAILED:
        is_blocked = news.status is not CallStatus.CANCELLED and by_sip is Reason.BLOCKED_BY_NETWORK
        return Reason.BLOCKED_BY_NETWORK if is_blocked else _REASON_OF[news.status]
    if news.cause in _OF_CAUSE:
        return _OF_CAUSE[news.cause]
    if by_sip is None and news.cause is FailureCause.UNREACHABLE:
        return Reason.UNREACHABLE
    return by_sip or Reason.CARRIER_ERROR


def reason_of_answered(
    *, instructions_failed: bool | None, outcome: ConversationOutcome | None, answered_by: AnsweredBy | None
) -> Reason:
    """Derive the reason for the end of an answered call.

    A conversation that has reported an outcome knows better than the carrier whether a person spoke. Only one that
    failed for a technical reason may be one for which the instructions failed.
    """
    if outcome not in {None, ConversationOutcome.TECHNICAL}:  # guard: reported_outcome
        return Reason.ANSWERED
    if instructions_failed:  # guard: instructions_failed
        return Reason.INSTRUCTIONS_FAILED
    if outcome is not None:  # guard: technical_outcome
        return Reason.ANSWERED
    if answered_by in {AnsweredBy.MACHINE, AnsweredBy.FAX}:
        return Reason.VOICEMAIL
    return Reason.ANSWERED


def may_lack_instructions(news: CallNews, policy: Policy) -> bool:
    """Return whether the call was short, and nothing says if the voice server gave it instructions.

    The carrier plays an error to the person then, and the call ends as after a conversation. Only its notifications
    name the error if the request for other instructions was lost.
    """
    is_answered = news.status is CallStatus.COMPLETED and reason_of(news) is Reason.ANSWERED
    if not policy.short_call or not is_answered or news.instructions_failed is not None:
        return False
    return news.duration is None or news.duration < policy.short_call


def may_name_a_cause(news: CallNews, called: str | None, policy: Policy) -> bool:
    """Return whether the notifications of a failed call may name a cause that its callback cannot.

    A network's block is often reported there alone, whatever the SIP code is.
    """
    is_reported = news.status is CallStatus.FAILED and news.token is not None and news.cause is None
    return is_reported and bool(policy.short_call) and reason_of(news, called) is not Reason.BLOCKED_BY_NETWORK


def names_no_cause(news: CallNews) -> bool:
    """Return whether the call failed and a poll returned no cause, which only a callback could have reported.

    A callback without a code means that there was no cause.
    """
    is_polled = news.token is None and news.sip_code is None
    return news.status is CallStatus.FAILED and is_polled and news.cause is None


def _by_sip(sip_code: int | None, called: str | None) -> Reason | None:
    if sip_code == _DECLINE and called is not None and called.startswith(_NORTH_AMERICA):
        return Reason.BLOCKED_BY_NETWORK
    return None if sip_code is None else _SIP_REASONS.get(sip_code)
