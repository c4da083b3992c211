"""Twilio's queries: reads calls and ends them, with Twilio's own SDK."""

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from requests.exceptions import RequestException
from twilio.base.exceptions import TwilioException, TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.http.response import Response
from twilio.rest import Client
from twilio.rest.api.v2010.account.call import CallInstance

from scheduler import clock, process
from scheduler.carriers.interface import CarrierAway, CarrierUnavailable, NotACallback, QueryNotSent
from scheduler.carriers.twilio import (
    NOTHING_LEFT_TO_STOP,
    TwilioAccount,
    answered_by_of,
    seconds_of,
    status_of,
    trusted,
)
from scheduler.carriers.twilio_calls import CODES, Consequence
from scheduler.domain.call import CallNews, CallStatus, FailureCause, ListedCall
from scheduler.exchange import Exchange, ExchangeAdapter
from scheduler.lifecycle.policy import Policy
from scheduler.process import made_progress

_SERVER_ERROR = 500
_NO_ANSWER = (
    TwilioException,
    NotACallback,
    # The SDK's errors if an answer is not as documented: no JSON, no object, a missing field.
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
)
_ACCOUNT_REJECTED = frozenset({401, 403, 429})
"""Statuses about our account, whatever the query."""
_QUERY_S = 60.0
"""The time for all requests of one query. A server may name ever more pages of a list."""
_SPAN_S = 3600.0
"""The same for all calls of a span, which an operator compares with a restored database."""


class _HttpClient(TwilioHttpClient):  # type: ignore[misc]
    """The SDK's client for `api_url` with its path, with a deadline and without a proxy from the environment.

    Raises CarrierAway for errors that any other request would meet too.
    """

    def __init__(self, api_url: str, timeout: float, trust: ssl.SSLContext) -> None:
        super().__init__(pool_connections=True, timeout=timeout)
        self._api = urlsplit(api_url)
        if self.session is not None:
            self.session.trust_env = False
            # With our context: requests would use its own list of authorities and ignore the setting.
            for scheme in ("https://", "http://"):
                self.session.mount(scheme, ExchangeAdapter(trust))

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Response:  # noqa: ANN401 - the SDK's own
        made_progress()
        parts = urlsplit(url)
        # A server that knows its own path includes it in the URL of the next page.
        path = parts.path if parts.path.startswith(f"{self._api.path}/") else self._api.path + parts.path
        full_url = urlunsplit((self._api.scheme, self._api.netloc, path, parts.query, ""))
        try:
            with Exchange(min(self.timeout, clock.remaining_s() or self.timeout)) as exchange:
                exchange.remaining_s()  # raises if the query has no time left
                response = super().request(method, full_url, *args, **kwargs)
                exchange.remaining_s()  # an answer that was cut off may look like a whole one
        except (RequestException, TimeoutError) as error:
            if process.is_shortage(error):
                process.report_shortage()
                raise QueryNotSent from error
            raise CarrierAway from error
        # Checked here, because the SDK raises no error with a status for an answer that is not JSON.
        if response.status_code in _ACCOUNT_REJECTED or response.status_code >= _SERVER_ERROR:
            raise CarrierAway(f"HTTP_{response.status_code}")
        return response


class TwilioQueries:
    """Queries calls and ends them with Twilio's own SDK: both may be repeated."""

    def __init__(self, account: TwilioAccount, policy: Policy) -> None:
        self._client = Client(
            account.account_sid,
            account.auth_tokens[0],
            http_client=_HttpClient(account.api_url, policy.total_timeout.total_seconds(), trusted(account.ca_file)),
        )

    def probe(self) -> None:
        """Read one call of the list in which unknown calls are searched. Raises CarrierUnavailable."""
        with _query():
            list(self._client.calls.page(page_size=1))

    def listed(
        self, *, to: str | None, caller: str, created_from: datetime, created_until: datetime
    ) -> Sequence[ListedCall]:
        """List calls between two numbers, or from `caller` to any, that were created in the half-open span.

        Without a StartTime filter, because a queued call has no start time yet and would be missed. The list is newest
        first, so reading ends at the first older call. Raises CarrierUnavailable.
        """
        calls = []
        filters = {} if to is None else {"to": to}
        with _query(_SPAN_S if to is None else _QUERY_S):
            for call in self._client.calls.stream(**filters, from_=caller, page_size=50):
                listed = _listed(call)
                if listed.created_at < created_from:
                    break
                if listed.created_at < created_until:
                    calls.append(listed)
        return calls

    def fetch(self, call_sid: str) -> CallNews:
        """Fetch the state of a call, and of a failed call also the cause from its notifications.

        Raises CarrierUnavailable.
        """
        with _query():
            news = _listed(self._client.calls(call_sid).fetch()).news
        return replace(news, cause=self._cause(call_sid)) if news.status is CallStatus.FAILED else news

    def _cause(self, call_sid: str) -> FailureCause | None:
        """Find the cause of a failed call. None if its notifications name none or cannot be read.

        Some servers with the Calls API have no notifications, and a known failure must not stay open because its cause
        is unknown. Without a cause no retry follows.
        """
        try:
            with _query():
                codes = [each.error_code for each in self._client.calls(call_sid).notifications.list(limit=50)]
        except CarrierUnavailable:
            return None
        return cause_of(codes)

    def cancel(self, call_sid: str) -> None:
        """Cancel an unanswered call. An answered call goes on. Raises CarrierUnavailable."""
        self._stop(call_sid, CallInstance.UpdateStatus.CANCELED)

    def hang_up(self, call_sid: str) -> None:
        """End a call in any state. A finished call stays as it is. Raises CarrierUnavailable."""
        self._stop(call_sid, CallInstance.UpdateStatus.COMPLETED)

    def _stop(self, call_sid: str, status: str) -> None:
        with _query():
            try:
                _listed(self._client.calls(call_sid).update(status=status))
            except TwilioRestException as refusal:
                if (refusal.status, refusal.code) not in NOTHING_LEFT_TO_STOP:
                    raise


@contextmanager
def _query(within_s: float = _QUERY_S) -> Iterator[None]:
    """Limit all requests of a query. Raises CarrierUnavailable if it was not answered as documented."""
    with clock.deadline_in(within_s):
        try:
            yield
        except _NO_ANSWER as error:
            raise CarrierUnavailable from error


def cause_of(error_codes: Sequence[object]) -> FailureCause | None:
    """Find the cause in a failed call's error codes. A code about the number takes precedence.

    A code that is not in the table proves nothing: it may be about a web request of the call.
    """
    known = {CODES[int(code)].consequence for code in map(str, error_codes) if code.isdecimal() and int(code) in CODES}
    if Consequence.NUMBER in known:
        return FailureCause.NUMBER
    return FailureCause.CARRIER if known & _CAUSES_OF_THE_ACCOUNT else None


_CAUSES_OF_THE_ACCOUNT = frozenset(
    {
        Consequence.COUNTRY_REFUSED,
        Consequence.CALLER_REFUSED,
        Consequence.ACCOUNT_LIMITED,
        Consequence.ACCOUNT_NOT_ACTIVE,
    }
)
"""Reasons not to connect an accepted call that prove nothing about the number or the person."""


def _listed(call: CallInstance) -> ListedCall:
    created = call.date_created
    if call.sid is None or not isinstance(created, datetime):
        raise NotACallback
    news = CallNews(
        call_sid=call.sid,
        status=status_of(str(call.status)),
        answered_by=answered_by_of(call.answered_by),
        duration=None if not call.duration else seconds_of(str(call.duration)),
        # Documented: empty if the call has not yet been dialled.
        started=call.start_time is not None,
        to=call.to or None,
    )
    return ListedCall(news=news, created_at=created.astimezone(UTC))
