"""Plans: the callee's reaction to a call, and the carrier's faults. A journal of them survives a kill."""

import json
from collections import defaultdict
from enum import Enum, StrEnum, auto
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

# --- Journal: the state that survives a kill, in a file with one line for each change


class Journal:
    """The last state of each entry by kind and key. Without a file the state ends with the process.

    Each line is written with one system call before a phone rings or a request is answered, so that a killed process
    loses no ring. A line that a kill cut short is ignored: its change has not happened yet.
    """

    def __init__(self, path: Path | None) -> None:
        self._kept: dict[str, dict[str, Any]] = {}
        self._file: FileIO | None = None
        if path is not None:
            whole = self._read(path)
            self._file = FileIO(path, "a")
            self._file.truncate(whole)

    def kept(self, kind: str) -> list[Any]:
        """The restored entries of this kind, in the order in which they were first stored."""
        return list(self._kept.get(kind, {}).values())

    def keep(self, kind: str, key: str, thing: BaseModel) -> None:
        if self._file is not None:
            self._write(kind, key, thing.model_dump_json())

    def forget(self, kind: str, key: str) -> None:
        self._write(kind, key, "null")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _write(self, kind: str, key: str, thing: str) -> None:
        if self._file is not None:
            line = f'{{"kind":{json.dumps(kind)},"key":{json.dumps(key)},"is":{thing}}}\n'
            self._file.write(line.encode())

    def _read(self, path: Path) -> int:
        """Restore the entries of the file, and return the length of its complete lines."""
        text = path.read_bytes() if path.exists() else b""
        whole = text.rpartition(b"\n")[0]
        for line in whole.splitlines():
            entry = json.loads(line)
            things = self._kept.setdefault(entry["kind"], {})
            things[entry["key"]] = entry["is"]
            if entry["is"] is None:
                del things[entry["key"]]
        return len(whole) + 1 if whole else 0


# --- Plans: the callee's reaction to a call, and the carrier's faults


class Outcome(StrEnum):
    """The outcome of a call."""

    ANSWERED = "answered"
    ANSWERED_UNKNOWN = "answered_unknown"
    """Answered, with an unknown result of machine detection."""
    BUSY = "busy"
    NO_ANSWER = "no_answer"
    VOICEMAIL = "voicemail"
    FAX = "fax"
    DECLINED = "declined"
    INVALID_NUMBER = "invalid_number"
    FAILED = "failed"
    CANCELED_BEFORE_RINGING = "canceled_before_ringing"
    """By the carrier itself, after it dialled."""
    CANCELED_RINGING = "canceled_ringing"
    """By the carrier itself, after it rang for `ring_s`."""


class Fault(StrEnum):
    """A fault of the carrier in a request to place a call."""

    ACCEPT_AND_SILENCE = "accept_and_silence"
    """It rings, and the request is never answered."""
    ACCEPT_THEN_500 = "accept_then_500"
    """It rings, and the answer is an error."""
    REFUSE_500 = "refuse_500"
    REFUSE = "refuse"
    """Refused with the plan's `code` and `status`."""
    DROP = "drop"
    """The connection is closed without an answer, and it does not ring."""
    SLOW = "slow"
    """It rings at once, and the answer comes after `delay_s`."""
    LATE_ACCEPT = "late_accept"
    """It rings `delay_s` after the request arrived, and the request is never answered."""
    TOO_MANY_REQUESTS = "429"
    BAD_CREDENTIALS = "401"


class Acceptance(Enum):
    AT_ONCE = auto()
    LATE = auto()
    NEVER = auto()


class Reply(Enum):
    CREATED = auto()
    CREATED_LATE = auto()
    REFUSED = auto()
    SILENCE = auto()
    HANG_UP = auto()


class Conduct(NamedTuple):
    """The carrier's behaviour for a fault: if the call will ring, and the answer to the request."""

    accepts: Acceptance
    replies: Reply
    code: int | None = None
    """Twilio's error code. None takes the plan's."""


CONDUCTS: dict[Fault | None, Conduct] = {
    None: Conduct(Acceptance.AT_ONCE, Reply.CREATED),
    Fault.ACCEPT_AND_SILENCE: Conduct(Acceptance.AT_ONCE, Reply.SILENCE),
    Fault.ACCEPT_THEN_500: Conduct(Acceptance.AT_ONCE, Reply.REFUSED, 20500),
    Fault.REFUSE_500: Conduct(Acceptance.NEVER, Reply.REFUSED, 20500),
    Fault.REFUSE: Conduct(Acceptance.NEVER, Reply.REFUSED),
    Fault.DROP: Conduct(Acceptance.NEVER, Reply.HANG_UP),
    Fault.SLOW: Conduct(Acceptance.AT_ONCE, Reply.CREATED_LATE),
    Fault.LATE_ACCEPT: Conduct(Acceptance.LATE, Reply.SILENCE),
    Fault.TOO_MANY_REQUESTS: Conduct(Acceptance.NEVER, Reply.REFUSED, 20429),
    Fault.BAD_CREDENTIALS: Conduct(Acceptance.NEVER, Reply.REFUSED, 20003),
}


class CallbackFault(StrEnum):
    """A fault of the carrier in its status callbacks."""

    NONE = "none"
    """They are lost."""
    DOUBLED = "doubled"
    """Each is sent twice, with the same fields."""
    REORDERED = "reordered"
    """All are sent when the call has ended, the last first."""


class InstructionsFault(StrEnum):
    """A fault of the voice server: it gives an answered call no instructions."""

    FALLBACK = "fallback"
    """The carrier requests the order's FallbackUrl instead. Lost with the other callbacks of the call."""
    LOST = "lost"
    """That request is lost, too. Only the notifications name the error."""


class OtherLeg(StrEnum):
    """The direction of a leg that no request has placed."""

    DIALLED = "outbound-dial"
    """A `<Dial>` verb in the instructions of a call. It names that call as its parent."""
    INBOUND = "inbound"


class Plan(BaseModel):
    """A rule for calls: the calls that it matches, their course and their faults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    to: str | None = None
    """The number called. None is every number."""
    attempt: int | None = Field(default=None, ge=1)
    """The nth valid request for that number. None is each of them."""
    outcome: Outcome = Outcome.ANSWERED
    fault: Fault | None = None
    code: int = 21215
    status: int = Field(default=400, ge=400, le=599)
    delay_s: float = Field(default=1.0, ge=0)
    ring_s: float = Field(default=1.0, ge=0)
    talk_s: float = Field(default=2.0, ge=0)
    error_s: float = Field(default=4.0, ge=0)
    """The time for which the carrier plays an error if the voice server gives no instructions, at most `talk_s`."""
    verdict_s: float | None = Field(default=1.0, ge=0)
    """The time from the answer to the verdict of asynchronous machine detection, which may come after the end of the
    call. None: it never comes, and is in no answer to a query either."""
    queue_s: float = Field(default=0.0, ge=0)
    """The minimal time in the carrier's queue before it is dialled, in real seconds."""
    listed: bool = True
    """False: the carrier's lists do not show the call, but it can be queried and ended by its SID."""
    other_leg: OtherLeg | None = None
    """Lists also show a finished leg of this direction between the same two numbers."""
    callbacks: CallbackFault | None = None
    instructions: InstructionsFault | None = None
    error_codes: tuple[int, ...] = ()
    """Twilio's codes in the call's notifications once it has ended."""
    times: int | None = Field(default=None, ge=1)
    """The number of calls that it applies to. None is any number."""

    def is_about(self, to: str, attempt: int) -> bool:
        return self.to in {None, to} and self.attempt in {None, attempt}

    @property
    def exactness(self) -> tuple[bool, bool]:
        """Precedence: number and attempt, number, attempt, all calls."""
        return self.to is not None, self.attempt is not None


class PostedPlan(Plan):
    """A plan with its position and the number of its uses."""

    number: int
    used: int = 0

    @property
    def is_open(self) -> bool:
        return self.times is None or self.used < self.times


class Plans:
    """The posted plans. The most exact open plan decides, and the latest one if several are equal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._posted: dict[int, PostedPlan] = {}
        self._about: defaultdict[str | None, dict[int, None]] = defaultdict(dict)
        for kept in journal.kept("plan"):
            self._hold(PostedPlan.model_validate(kept))
        self._next_number = max(self._posted, default=0) + 1

    def post(self, plan: Plan) -> PostedPlan:
        posted = PostedPlan(**dict(plan), number=self._next_number)
        self._next_number += 1
        self._keep(posted)
        return posted

    def all(self) -> list[PostedPlan]:
        return list(self._posted.values())

    def clear(self) -> None:
        for number in self._posted:
            self._journal.forget("plan", str(number))
        self._posted.clear()
        self._about.clear()

    def follow(self, to: str, attempt: int) -> Plan:
        """Choose the plan for this call and count its use. Without a posted plan, the default."""
        numbers = (*self._about.get(to, ()), *self._about.get(None, ()))
        about = (self._posted[number] for number in numbers)
        fitting = [posted for posted in about if posted.is_open and posted.is_about(to, attempt)]
        if not fitting:
            return Plan()
        chosen = max(fitting, key=lambda posted: (posted.exactness, posted.number))
        self._keep(chosen.model_copy(update={"used": chosen.used + 1}))
        return chosen

    def _keep(self, posted: PostedPlan) -> None:
        self._hold(posted)
        self._journal.keep("plan", str(posted.number), posted)

    def _hold(self, posted: PostedPlan) -> None:
        self._posted[posted.number] = posted
        self._about[posted.to][posted.number] = None
