"""Twilio: our account there, its words for calls in our terms, its address and certificate, and its callbacks."""

import http.client
import re
import ssl
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from hmac import compare_digest
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlparse, urlsplit

from twilio.request_validator import RequestValidator

from scheduler.carriers.interface import NotACallback
from scheduler.domain.call import AnsweredBy, CallNews, CallStatus

# --- Certificate authorities that may sign a carrier's certificate, for the dialling and the querying client


class NotTrustable(ValueError):
    """The file cannot be read, or holds no certificate in PEM."""


def trusted(ca_file: Path | None) -> ssl.SSLContext:
    """Build a context that trusts the system's authorities and those in `ca_file`. Raises NotTrustable."""
    context = ssl.create_default_context()
    if ca_file is None:
        return context
    try:
        context.load_verify_locations(cafile=ca_file)
    except ssl.SSLError:
        raise NotTrustable("names a file that holds no certificate in PEM form") from None
    except OSError as error:
        raise NotTrustable(f"names a file that cannot be read: {error.strerror}") from None
    return context


# --- Twilio: our account there, and Twilio's words for calls in our terms


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
    """Build the path of the callbacks for the call of one claim."""
    return f"/carrier/twilio/{token}"


FALLBACK = "/fallback"
"""The end of the path of the instructions for a call whose voice server gave none, after its `callback_path`."""


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


# --- Check of the carrier's address at the start of a dial worker
# Later a wrong path would look like an unknown outcome: a 404 on a POST does not prove that no call was accepted.


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


# --- Twilio's status callbacks: checks their signatures and reads their forms


class _Params(dict[str, str]):
    """Parameters of a request. Of any other mapping the validator asks for two methods first, an error each."""

    def getall(self, name: str) -> list[str]:
        return [self[name]]


class TwilioCallbacks:
    """Reads status callbacks. The signature must cover our public URL. The request's Host header is not used."""

    def __init__(self, account: TwilioAccount) -> None:
        self._account = account
        self._validators = [RequestValidator(token) for token in account.auth_tokens]

    def is_genuine(self, path: str, form: Sequence[tuple[str, str]], signature: str) -> bool:
        """Return True if the signature covers our public URL with this path, query and form. Never raises."""
        params = _Params(form)
        if len(params) != len(form):
            return False  # Twilio never repeats a parameter
        url = f"{self._account.public_url}{path}"
        try:
            # Twilio signs this URL or, rarely, one with the port added or removed. `validate` always computes both.
            usual = urlparse(url).geturl()
            # Try all tokens, so that the duration does not reveal the matching token.
            genuine = [compare_digest(each.compute_signature(usual, params), signature) for each in self._validators]
            if not any(genuine):
                genuine = [each.validate(url, params, signature) for each in self._validators]
        except (TypeError, ValueError):  # text that cannot be encoded cannot have been signed
            return False
        return any(genuine)

    def read(self, token: str, form: Mapping[str, str]) -> CallNews:
        """Parse a callback's form. Raises NotACallback if a known field is invalid.

        The verdict of asynchronous machine detection has no status, and proves that the call was answered. Twilio adds
        parameters without notice, so unknown parameters are ignored.
        """
        sid = form.get("CallSid", "")
        if not CALL_SID.fullmatch(sid) or form.get("AccountSid") != self._account.account_sid:
            raise NotACallback
        if _has_moved_boundary(form):
            raise NotACallback
        sip = form.get("SipResponseCode", "")
        duration = form.get("CallDuration")
        return CallNews(
            call_sid=sid,
            token=token,
            status=CallStatus.ANSWERED if _is_verdict(form) else status_of(form.get("CallStatus", "")),
            answered_by=answered_by_of(form.get("AnsweredBy")),
            sip_code=int(sip) if re.fullmatch(r"[1-6][0-9]{2}", sip) else None,
            duration=None if not duration else seconds_of(duration),
            to=form.get("To") or None,
        )

    def read_fallback(self, token: str, form: Mapping[str, str]) -> CallNews:
        """Parse the form of a request to our FallbackUrl. Raises NotACallback if a known field is invalid.

        Twilio requests instructions only after the answer. Its status callbacks report the end of the call.
        """
        news = self.read(token, form)
        return replace(news, status=CallStatus.ANSWERED, duration=None, instructions_failed=True)


def _is_verdict(form: Mapping[str, str]) -> bool:
    return "CallStatus" not in form and bool(form.get("AnsweredBy"))


_READ = ("AccountSid", "AnsweredBy", "CallDuration", "CallSid", "CallStatus", "SipResponseCode", "To")
_BEGINNINGS = (*(name for name in _READ if name != "To"), "To+")
"""Beginnings of the fields that we read, in the signed text. Other names begin with To, but none with To+."""
_HIDDEN = re.compile("|".join(map(re.escape, _BEGINNINGS)))


def _has_moved_boundary(form: Mapping[str, str]) -> bool:
    """Return True if a field that we read may be hidden in another one.

    The signature covers names and values in one text without separators: `CallDuratio=n12` has the signature of
    `CallDuration=12`, and so has a value or a name that contains the next field.
    """
    # None of them contains NUL, so each is found only within one value.
    return _HIDDEN.search("\0".join(form.values())) is not None or any(
        (name + value).startswith(_BEGINNINGS)
        # A name of letters alone may contain another one: ParentCallSid. Such a name hides no field, because the values
        # before the fields that may be missing (versions, numbers, times) do not consist of letters.
        or (not name.isalpha() and _HIDDEN.search(name + value) is not None)
        for name, value in form.items()
        if name not in _READ
    )
