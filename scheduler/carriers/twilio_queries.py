"""Twilio's queries: reads calls and ends them, with Twilio's own SDK."""

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from requests.exceptions import RequestException
from twilio.base import values
from twilio.base.exceptions import TwilioException, TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.http.response import Response
from twilio.rest import Client
from twilio.rest.api.v2010.account.call import CallInstance
from twilio.rest.api.v2010.account.call.notification import NotificationInstance

from scheduler import clock, process
from scheduler.carriers.interface import CarrierAway, CarrierUnavailable, NotACallback, QueryNotSent
from scheduler.carriers.twilio import (
    FALLBACK,
    NOTHING_LEFT_TO_STOP,
    TwilioAccount,
    answered_by_of,
    callback_path,
    seconds_of,
    status_of,
    trusted,
)
from scheduler.carriers.twilio_codes import OF_THE_INSTRUCTIONS, cause_of
from scheduler.domain.call import CallNews, CallStatus, FailureCause, ListedCall
from scheduler.exchange import Exchange, ExchangeAdapter
from scheduler.lifecycle.call_reasons import may_lack_instructions
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
_PAGE = 50
_LARGEST_PAGE = 1000
"""The calls on a page of a list, and the most that Twilio allows."""


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
        self._policy = policy
        self._callback_url = account.public_url + callback_path("")
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

        Without a StartTime filter, because a queued call has no start time yet and would be missed. The carrier
        promises no order, so the list is read to its end. Raises CarrierUnavailable.
        """
        calls = {}
        page_size = _LARGEST_PAGE if to is None else _PAGE
        with _query(_SPAN_S if to is None else _QUERY_S):
            for call in self._client.calls.stream(to=to or values.unset, from_=caller, page_size=page_size):
                if not _is_ours(call):  # guard: other_leg
                    continue
                listed = _listed(call)
                if created_from <= listed.created_at < created_until:
                    calls[listed.news.call_sid] = listed  # once, also if it moves to the next page meanwhile
        return list(calls.values())

    def fetch(self, call_sid: str) -> CallNews:
        """Fetch the state of a call, and from its notifications the cause of a failure, or why a call was short.

        Raises CarrierUnavailable.
        """
        with _query():
            call = self._client.calls(call_sid).fetch()
            if not _is_ours(call):
                raise NotACallback
            news = _listed(call).news
        if news.status is CallStatus.FAILED:
            return replace(news, cause=self._cause(call_sid))
        if may_lack_instructions(news, self._policy):
            return replace(news, instructions_failed=self._lacked_instructions(call_sid))
        return news

    def _lacked_instructions(self, call_sid: str) -> bool:
        """Return True if the call's notifications say that it got no instructions. Raises CarrierAway.

        A carrier that does not answer now is asked again, because the call may have been no conversation. False for a
        server that has no notifications.
        """
        try:
            return any(
                str(each.error_code) in OF_THE_INSTRUCTIONS and not self._is_about_a_callback(each)
                for each in self._notifications(call_sid)
            )
        except CarrierAway:  # guard: unread_notifications
            raise
        except CarrierUnavailable:
            return False

    def _is_about_a_callback(self, notification: NotificationInstance) -> bool:
        """Return True if one of our callbacks failed: the same codes report that, and the call had its instructions.

        A fallback is requested only if the voice server gave none, so a failed one is no such callback.
        """
        url, _, _ = str(notification.request_url or "").partition("?")
        return url.startswith(self._callback_url) and not url.endswith(FALLBACK)  # guard: failed_callback

    def _notifications(self, call_sid: str) -> Sequence[NotificationInstance]:
        """Read the call's notifications. Raises CarrierUnavailable."""
        with _query():
            return list(self._client.calls(call_sid).notifications.list(limit=50))

    def _cause(self, call_sid: str) -> FailureCause | None:
        """Find the cause of a failed call. None if its notifications name none or cannot be read.

        Some servers with the Calls API have no notifications, and a known failure must not stay open because its cause
        is unknown. Without a cause no retry follows.
        """
        try:
            return cause_of([each.error_code for each in self._notifications(call_sid)])
        except CarrierUnavailable:
            return None

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


def _is_ours(call: CallInstance) -> bool:
    """Return False for an incoming call, and for a leg that a verb of the instructions has dialled.

    Such a leg may have the same two numbers as our call.
    """
    return not call.parent_call_sid and call.direction in _OUR_DIRECTIONS


_OUR_DIRECTIONS = frozenset({"outbound-api", "", None})
"""A server that names no direction is not doubted."""


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
