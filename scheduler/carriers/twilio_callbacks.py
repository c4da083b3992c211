"""Twilio's status callbacks: checks their signatures and reads their forms."""

import re
from collections.abc import Mapping, Sequence
from hmac import compare_digest
from urllib.parse import urlparse

from twilio.request_validator import RequestValidator

from scheduler.carriers.interface import NotACallback
from scheduler.carriers.twilio import CALL_SID, TwilioAccount, answered_by_of, seconds_of, status_of
from scheduler.domain.call import CallNews


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

        Twilio adds parameters without notice, so unknown parameters are ignored.
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
            status=status_of(form.get("CallStatus", "")),
            answered_by=answered_by_of(form.get("AnsweredBy")),
            sip_code=int(sip) if re.fullmatch(r"[1-6][0-9]{2}", sip) else None,
            duration=None if not duration else seconds_of(duration),
            to=form.get("To") or None,
        )


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
