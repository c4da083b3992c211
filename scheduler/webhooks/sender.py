"""One signed POST to a receiver: one deadline for the whole exchange, no redirect, proxy, cookie or retry.

A URL of a partner must not lead to a server inside our network. `requests-hardened` resolves the name, refuses
addresses that are not public, and connects to the address that it checked. A later answer of the name server has no
effect.
"""

import json
import logging
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING

import requests
from pydantic.alias_generators import to_camel
from requests.adapters import HTTPAdapter
from requests_hardened.ip_filter import InvalidIPAddress
from requests_hardened.ip_filter_adapter import IPFilterAdapter
from urllib3.exceptions import HTTPError, NameResolutionError, NewConnectionError, SSLError

from scheduler import process
from scheduler.clock import machine_now
from scheduler.domain.alarm import POSTED_WITHIN_S, KeptAlarm, NotPosted
from scheduler.domain.webhook import ErrorKind, NotSent, Outcome, WebhookAnswer, WebhookRequest
from scheduler.exchange import Exchange, ExchangeAdapter
from scheduler.rules import webhook_urls
from scheduler.rules.webhooks import DEADLINE_S, answer_of, no_answer
from scheduler.webhooks.sending import signed_headers

if TYPE_CHECKING:
    from requests.adapters import _HostParams, _PoolKwargs

_MOST_OF_AN_ANSWER = 4096
"""Bytes of the answer's body that are read, so that most receivers can finish it. They are dropped."""

# It logs the partner's host with each refused address. The refusal is an outcome that is stored.
logging.getLogger("requests_hardened").setLevel(logging.ERROR)


class WebhookSender:
    """Sends messages to receivers. Threads may share it.

    `to_partners`: the URL comes from a partner, so only public addresses are allowed. `in_development`: loopback and
    plain http are also allowed. The deadline covers everything except the lookup of the name, which the system's
    resolver limits: nothing is sent when it returns too late.
    """

    def __init__(
        self,
        *,
        to_partners: bool = True,
        in_development: bool = False,
        deadline_s: float = DEADLINE_S,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._to_partners = to_partners
        self._in_development = in_development
        self._deadline_s = deadline_s
        # Shared by all requests: to read the certificate authorities takes longer than everything else.
        self._context = context or ssl.create_default_context()

    def post(self, request: WebhookRequest) -> WebhookAnswer:
        """Send the message once. Never raises for what the receiver or the network does.

        Raises NotSent if this machine could not open a connection.
        """
        if self._to_partners and webhook_urls.fault(  # guard: hook_url
            request.url, https_only=not self._in_development
        ):
            return no_answer(ErrorKind.URL_FORBIDDEN)
        headers = _headers(request)
        with Exchange(self._deadline_s) as exchange:
            try:
                status, retry_after = self._exchange(request, headers, exchange)
            except (requests.RequestException, HTTPError, OSError, ValueError) as error:
                if process.is_shortage(error):  # guard: hook_shortage
                    process.report_shortage()
                    raise NotSent from error
                kind = ErrorKind.TIMEOUT if exchange.is_over else _kind_of(error)
                return no_answer(kind, exchange.milliseconds)
            return answer_of(status, retry_after, machine_now(), exchange.milliseconds)

    def _exchange(
        self, request: WebhookRequest, headers: Mapping[str, str], exchange: Exchange
    ) -> tuple[int, str | None]:
        """Make the exchange, and read the status and the Retry-After of the answer."""
        prepared = requests.Request("POST", request.url, headers=headers, data=request.body.encode()).prepare()
        adapter = self._adapter(prepared.url or "")
        # Not by a session: even without following redirects it reads the whole body of one, however large, and it takes
        # proxies and passwords from the environment.
        try:
            response = adapter.send(prepared, stream=True, timeout=self._deadline_s, verify=True, proxies={})
            with response:
                # A head that was cut off parses like a whole one.
                exchange.remaining_s()
                # The status decides. A receiver that breaks off after it has accepted the message has accepted it.
                with suppress(Exception):
                    response.raw.read(_MOST_OF_AN_ANSWER, decode_content=False)
                return response.status_code, response.headers.get("Retry-After")
        finally:
            adapter.close()

    def _adapter(self, url: str) -> HTTPAdapter:
        if self._to_partners:  # guard: hook_address
            is_https = url.startswith("https:")
            return _FilteringAdapter(self._context, is_https=is_https, allow_loopback=self._in_development)
        return ExchangeAdapter(self._context)


def _headers(request: WebhookRequest) -> Mapping[str, str]:
    """Build the headers of a request. Those of the partner replace only the first one, see `webhook_urls`."""
    return {
        "User-Agent": "duecall",
        # The rules refuse other names. A row may be older than a rule.
        **{name: value for name, value in request.headers.items() if webhook_urls.name_fault(name) is None},
        "Content-Type": "application/json",
        # Also so that a small compressed answer cannot become a large one.
        "Accept-Encoding": "identity",
        "Connection": "close",
        **signed_headers(request.message_id, request.body, request.secrets, machine_now()),
    }


class _FilteringAdapter(ExchangeAdapter, IPFilterAdapter):
    """Connections to public addresses only."""

    def __init__(self, context: ssl.SSLContext, *, is_https: bool, allow_loopback: bool) -> None:
        self._loopback_is_allowed = allow_loopback
        super().__init__(context, is_https_proto=is_https, allow_loopback=allow_loopback)

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: bool | str, cert: str | tuple[str, str] | None = None
    ) -> "tuple[_HostParams, _PoolKwargs]":
        host, pool = super().build_connection_pool_key_attributes(request, verify, cert)
        # The address that the base has chosen and will connect to.
        address = ip_address(host["host"].strip("[]"))
        if webhook_urls.is_forbidden(address, allow_loopback=self._loopback_is_allowed):
            raise InvalidIPAddress(address)
        return host, pool


def _kind_of(error: BaseException) -> ErrorKind:
    """Find the cause of an error, which the layers of the client wrap in one another."""
    causes = list(process.causes_of(error))
    for kinds, kind in (
        ((InvalidIPAddress,), ErrorKind.ADDRESS_FORBIDDEN),
        # A label that is too long or empty is a UnicodeError.
        ((socket.gaierror, NameResolutionError, UnicodeError, requests.exceptions.InvalidURL), ErrorKind.NAME_UNKNOWN),
        ((ssl.SSLError, SSLError, requests.exceptions.SSLError), ErrorKind.TLS_FAILED),
        ((NewConnectionError, ConnectionRefusedError), ErrorKind.NOT_CONNECTED),
    ):
        if any(isinstance(cause, kinds) for cause in causes):
            return kind
    return ErrorKind.CONNECTION_LOST


# --- Alarms, posted to the operator's webhook. No other module knows their format
# An alarm's id is the id of its message: a receiver that sees an id twice can ignore the repetition.


_ALARM_TYPE = "alarm.raised"


class AlarmWebhook:
    """The receiver at a URL. It is used as it is set, and may be inside the operator's network."""

    def __init__(self, url: str, secret: str, *, deadline_s: float = POSTED_WITHIN_S) -> None:
        self._url = url
        self._secret = secret
        self._sender = WebhookSender(to_partners=False, deadline_s=deadline_s)

    def post(self, alarm: KeptAlarm) -> None:
        body = _alarm_body(alarm, machine_now())
        request = WebhookRequest(url=self._url, message_id=str(alarm.id), body=body, secrets=(self._secret,))
        try:
            answer = self._sender.post(request)
        except NotSent as error:
            raise NotPosted(None) from error
        if answer.outcome is not Outcome.DELIVERED:
            raise NotPosted(answer.status)


def _alarm_body(alarm: KeptAlarm, posted_at: datetime) -> str:
    """Build the JSON of an alarm. It contains ids, a kind, times and a count, and no personal data."""
    data = {
        "id": str(alarm.id),
        "kind": alarm.kind,
        "subjects": {to_camel(name): value for name, value in alarm.subjects.items()},
        "firstSeenAt": _text(alarm.first_seen_at),
        "lastSeenAt": _text(alarm.last_seen_at),
        "count": alarm.count,
    }
    return json.dumps({"type": _ALARM_TYPE, "timestamp": _text(posted_at), "data": data}, separators=(",", ":"))


def _text(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")
