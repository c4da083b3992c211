"""Behaviours of the carrier during one person's calls, and the expected result of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scheduler.domain.attempt import Reason

SHORT = {"ring_s": 0.2, "talk_s": 0.2}
_LONG_S = 600
"""Longer than any cell waits, so that only a worker ends the call."""
ANSWERED = (Reason.ANSWERED,)
UNKNOWN = (Reason.OUTCOME_UNKNOWN,)


@dataclass(frozen=True, kw_only=True)
class Ending:
    """The number of rings, and the reason that ended each attempt, in order of creation."""

    rings: int
    reasons: Sequence[Reason]


OUTCOME_UNPROVEN = Ending(rings=0, reasons=UNKNOWN)
"""The phone has not rung, but nothing can prove it, so an operator decides."""


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """`rules` are plans for the carrier's first requests, in order. Later requests succeed."""

    rules: Sequence[Mapping[str, Any]]
    ending: Ending = Ending(rings=1, reasons=ANSWERED)
    unrecorded: Ending | None = None
    """The ending if the carrier's answer was not recorded. Default: `ending`, because callbacks or polls prove it."""

    @property
    def when_unrecorded(self) -> Ending:
        return self.unrecorded or self.ending


def _fault(fault: str, **more: Any) -> Mapping[str, Any]:
    return {**SHORT, "fault": fault, **more}


BEHAVIOURS: Mapping[str, Behaviour] = {
    "answered": Behaviour(rules=[{**SHORT, "callbacks": "doubled"}]),
    "reordered": Behaviour(rules=[{**SHORT, "callbacks": "reordered"}]),
    "slow": Behaviour(rules=[_fault("slow", delay_s=0.6, callbacks="doubled")]),
    "late_accept": Behaviour(rules=[_fault("late_accept", delay_s=2.0)]),
    # Without callbacks, only the carrier's list can prove the outcome.
    "accept_and_silence": Behaviour(rules=[_fault("accept_and_silence", callbacks="none")]),
    "accept_then_500": Behaviour(rules=[_fault("accept_then_500", callbacks="reordered")]),
    # Missing from the carrier's list, so only its callbacks can prove the outcome.
    "unlisted": Behaviour(rules=[_fault("accept_and_silence", listed=False, callbacks="doubled")]),
    # The phone rings, but nothing can ever prove it.
    "unprovable": Behaviour(
        rules=[_fault("accept_and_silence", listed=False, callbacks="none")], ending=Ending(rings=1, reasons=UNKNOWN)
    ),
    "refuse_500": Behaviour(rules=[_fault("refuse_500")], ending=OUTCOME_UNPROVEN),
    "drop": Behaviour(rules=[_fault("drop")], ending=OUTCOME_UNPROVEN),
    "bad_number": Behaviour(
        rules=[_fault("refuse", code=21211)],
        ending=Ending(rings=0, reasons=(Reason.INVALID_NUMBER,)),
        unrecorded=OUTCOME_UNPROVEN,
    ),
    "429": Behaviour(rules=[_fault("429")], unrecorded=OUTCOME_UNPROVEN),
    "401": Behaviour(rules=[_fault("401")], unrecorded=OUTCOME_UNPROVEN),
    # Busy at first. The automatic retry reaches the person.
    "busy": Behaviour(
        rules=[{**SHORT, "outcome": "busy", "callbacks": "doubled"}, {**SHORT, "callbacks": "doubled"}],
        ending=Ending(rings=2, reasons=(Reason.BUSY, Reason.ANSWERED)),
    ),
    "no_answer": Behaviour(
        rules=[{"ring_s": 60, "outcome": "no_answer", "callbacks": "reordered"}, SHORT],
        ending=Ending(rings=2, reasons=(Reason.NO_ANSWER, Reason.ANSWERED)),
    ),
    "declined": Behaviour(rules=[{**SHORT, "outcome": "declined"}], ending=Ending(rings=1, reasons=(Reason.DECLINED,))),
    # Calls that last until a worker ends them.
    "talking": Behaviour(rules=[{"ring_s": 0.2, "talk_s": _LONG_S, "callbacks": "doubled"}]),
    "talking_silent": Behaviour(rules=[{"ring_s": 0.2, "talk_s": _LONG_S, "callbacks": "none"}]),
    # Answered by a machine, as the verdict of asynchronous machine detection reports. The retry reaches the person.
    "machine": Behaviour(
        rules=[{**SHORT, "outcome": "voicemail", "callbacks": "doubled", "verdict_s": 0.1}, SHORT],
        ending=Ending(rings=2, reasons=(Reason.VOICEMAIL, Reason.ANSWERED)),
    ),
    "machine_after_the_end": Behaviour(
        rules=[{**SHORT, "outcome": "voicemail", "callbacks": "doubled", "verdict_s": 0.6}, SHORT],
        ending=Ending(rings=2, reasons=(Reason.VOICEMAIL, Reason.ANSWERED)),
    ),
    "judged_after_the_end": Behaviour(rules=[{**SHORT, "callbacks": "reordered", "verdict_s": 0.6}]),
    "no_verdict": Behaviour(rules=[{**SHORT, "callbacks": "doubled", "verdict_s": None}]),
    # The voice server gives no instructions, and the carrier requests others. A retry follows after 15 minutes.
    "no_instructions": Behaviour(
        rules=[{**SHORT, "callbacks": "doubled", "instructions": "fallback"}],
        ending=Ending(rings=1, reasons=(Reason.INSTRUCTIONS_FAILED,)),
    ),
    "queued": Behaviour(rules=[{**SHORT, "queue_s": _LONG_S}]),
    "unnamed": Behaviour(
        rules=[{"fault": "accept_and_silence", "ring_s": 0.2, "talk_s": _LONG_S, "callbacks": "none"}]
    ),
}

USUAL = (
    *("answered", "reordered", "slow", "late_accept", "accept_and_silence", "accept_then_500", "unlisted"),
    *("unprovable", "refuse_500", "drop", "bad_number", "429", "401", "busy"),
)
NOT_YET_SENT = (
    *("answered", "late_accept", "accept_and_silence", "accept_then_500", "unlisted"),
    *("drop", "bad_number", "429", "busy"),
)
"""Behaviours for processes that die long before they send a request to the carrier."""
CALLING_BACK = (
    *("answered", "reordered", "slow", "late_accept", "accept_then_500", "unlisted", "busy", "no_answer", "declined"),
)
LISTED = ("answered", "reordered", "slow", "accept_and_silence", "accept_then_500", "late_accept", "busy", "no_answer")
NEVER_ACCEPTED = ("refuse_500", "drop", "bad_number", "429")
HEARD_AS_ANSWERED = ("answered", "reordered", "slow", "late_accept", "accept_then_500", "unlisted")
"""Behaviours whose callbacks report an answered call."""
JUDGED = ("machine", "machine_after_the_end", "judged_after_the_end")
"""Behaviours with a verdict of asynchronous machine detection."""
LIVE = ("talking", "talking_silent", "queued", "unnamed")
OPENING = ("accept_and_silence", "refuse_500", "drop", "401")
"""Behaviours that open the breaker immediately."""
