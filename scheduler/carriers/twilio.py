"""Twilio: our account there, and Twilio's words for calls in our terms."""

import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from scheduler.carriers.interface import NotACallback
from scheduler.domain.call import AnsweredBy, CallStatus

CALL_SID = re.compile(r"CA[0-9a-fA-F]{32}")
_STATUSES = {
    "queued": CallStatus.QUEUED,
    "initiated": CallStatus.DIALLED,
    "ringing": CallStatus.RINGING,
    "in-progress": CallStatus.ANSWERED,
    "completed": CallStatus.COMPLETED,
    "busy": CallStatus.BUSY,
    "no-answer": CallStatus.NO_ANSWER,
    "failed": CallStatus.FAILED,
    "canceled": CallStatus.CANCELLED,
}
_ANSWERED_BY = {
    "human": AnsweredBy.PERSON,
    "machine": AnsweredBy.MACHINE,
    "machine_start": AnsweredBy.MACHINE,
    "machine_end_beep": AnsweredBy.MACHINE,
    "machine_end_silence": AnsweredBy.MACHINE,
    "machine_end_other": AnsweredBy.MACHINE,
    "fax": AnsweredBy.FAX,
    "unknown": AnsweredBy.UNKNOWN,
}
_CALL_IS_NOT_THERE = 20404
_CALL_IS_OVER = 21220
"""Twilio's code if the call has ended, or was answered before it could be cancelled."""
NOTHING_LEFT_TO_STOP = {(400, _CALL_IS_OVER), (404, _CALL_IS_NOT_THERE)}


@dataclass(frozen=True, kw_only=True)
class TwilioAccount:
    """The address of the API, our account, and the URLs at which the carrier reaches us."""

    api_url: str
    account_sid: str
    auth_tokens: tuple[str, ...]
    """The first one authenticates our requests. Callbacks may be signed with any of them."""
    public_url: str
    voice_url: str
    ca_file: Path | None = None
    """Trusted in addition to the system's authorities, for a carrier behind a private CA."""

    def __repr__(self) -> str:
        """Without the secrets."""
        return f"TwilioAccount({self.account_sid})"


def callback_path(token: str) -> str:
    """Return the path of the callbacks for the call of one claim."""
    return f"/carrier/twilio/{token}"


def status_of(word: str) -> CallStatus:
    status = _STATUSES.get(word)
    if status is None:
        raise NotACallback
    return status


def answered_by_of(word: str | None) -> AnsweredBy | None:
    """Parse the result of machine detection. None without machine detection."""
    return _ANSWERED_BY.get(word, AnsweredBy.UNKNOWN) if word else None


def seconds_of(text: str) -> timedelta:
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise NotACallback
    return timedelta(seconds=int(text))
