"""Webhook posts: signed, one deadline for the whole exchange, no redirect, and no way into our own network."""

import gc
import json
import socket
import ssl
import tracemalloc
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError
from standardwebhooks.webhooks import EmptyWebhookSecretError

from scheduler.assembly import webhook_sender
from scheduler.domain.webhook import ErrorKind, Outcome, WebhookAnswer, WebhookRequest
from scheduler.settings import Settings
from scheduler.webhooks.sender import WebhookSender
from scheduler.webhooks.sending import new_secret
from tests.architecture.guards import guards
from tests.support.servers import a_closed_port
from tests.support.smtp_server import CERTIFICATE
from tests.support.webhook_receivers import (
    Behaviour,
    a_webhook_receiver,
    answers,
    drips,
    floods,
    hangs,
    resets,
    talks_nonsense,
)
from tests.test_settings_of_mail import STRONG

SECRET = new_secret()
BODY = json.dumps({"type": "ping"})
SHORT_S = 0.4
"""The deadline for receivers that never finish."""


def trusting() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(CERTIFICATE))


def in_development(deadline_s: float = 20.0) -> WebhookSender:
    return WebhookSender(in_development=True, deadline_s=deadline_s, context=trusting())


def in_production(deadline_s: float = 20.0) -> WebhookSender:
    return WebhookSender(deadline_s=deadline_s, context=trusting())


def message(url: str, **given: Any) -> WebhookRequest:
    return WebhookRequest(**{"url": url, "message_id": "evt_1", "body": BODY, "secrets": (SECRET,), **given})


def failed(kind: ErrorKind, status: int | None = None) -> dict[str, Any]:
    return {"outcome": Outcome.FAILED, "status": status, "error_kind": kind, "retry_after": None}


def facts(answer: WebhookAnswer) -> dict[str, Any]:
    """Return an answer without its time, which differs."""
    assert answer.milliseconds >= 0
    return {name: getattr(answer, name) for name in ("outcome", "status", "error_kind", "retry_after")}


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_message_is_delivered_and_signed(status: int, tls: bool) -> None:
    with a_webhook_receiver(answers(status), tls=tls) as receiver:
        answer = in_development().post(message(receiver.url, headers={"X-Team": "calls", "user-agent": "ours"}))
        [visit] = receiver.visits
    assert (answer.outcome, answer.status, answer.error_kind) == (Outcome.DELIVERED, status, None)
    assert visit.head.startswith("POST /hooks?of=calls HTTP/1.1\r\n")
    assert Webhook(SECRET).verify(visit.body, visit.headers) == {"type": "ping"}
    expected = {
        "host": f"127.0.0.1:{receiver.port}",
        "webhook-id": "evt_1",
        "content-type": "application/json",
        "content-length": str(len(BODY)),
        "accept-encoding": "identity",
        "connection": "close",
        "x-team": "calls",
        "user-agent": "ours",
    }
    signed = {"webhook-timestamp", "webhook-signature"}
    assert {name: value for name, value in visit.headers.items() if name not in signed} == expected


def test_each_secret_of_a_rotation_signs() -> None:
    new, old, other = new_secret(), new_secret(), new_secret()
    with a_webhook_receiver(answers(200)) as receiver:
        in_development().post(message(receiver.url, secrets=(new, old)))
        [visit] = receiver.visits
    for secret in (new, old):
        Webhook(secret).verify(visit.body, visit.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(other).verify(visit.body, visit.headers)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_fails_and_is_not_followed(status: int) -> None:
    with a_webhook_receiver(answers(200)) as target:
        redirect = answers(status, f"Location: {target.url}", "Set-Cookie: a=b")
        with a_webhook_receiver(redirect) as receiver:
            answer = in_development().post(message(receiver.url))
        assert (receiver.connections, target.connections) == (1, 0)
    assert facts(answer) == failed(ErrorKind.REDIRECT, status)


@pytest.mark.parametrize("location", ["http://[", "//", "\x80", "file:///etc/passwd", "https://169.254.169.254/"])
def test_location_of_a_redirect_is_not_read(location: str) -> None:
    with a_webhook_receiver(answers(301, f"Location: {location}")) as receiver:
        answer = in_development().post(message(receiver.url))
    assert facts(answer) == failed(ErrorKind.REDIRECT, 301)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 418, 500, 502, 504, 599, 999])
def test_other_status_fails_without_text_of_the_receiver(status: int) -> None:
    with a_webhook_receiver(answers(status, "Retry-After: 60", body=b"internal secret")) as receiver:
        answer = in_development().post(message(receiver.url))
    assert facts(answer) == failed(ErrorKind.HTTP_ERROR, status)
    assert "secret" not in repr(answer)


@guards("hook_gone")
def test_gone_receiver_is_reported_as_gone() -> None:
    with a_webhook_receiver(answers(410)) as receiver:
        answer = in_development().post(message(receiver.url))
    assert (answer.outcome, answer.status, answer.error_kind) == (Outcome.GONE, 410, ErrorKind.GONE)


@pytest.mark.parametrize("status", [429, 503])
def test_throttling_receiver_sets_the_delay(status: int) -> None:
    with a_webhook_receiver(answers(status, "Retry-After: 120")) as receiver:
        answer = in_development().post(message(receiver.url))
    assert facts(answer) == failed(ErrorKind.THROTTLED, status) | {"retry_after": timedelta(seconds=120)}


BROKEN: dict[str, tuple[Behaviour, ErrorKind]] = {
    "it hangs": (hangs, ErrorKind.TIMEOUT),
    "it drips its status line": (drips(b"HTTP/1.1 200 ", b"O"), ErrorKind.TIMEOUT),
    "it drips headers": (drips(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"), ErrorKind.TIMEOUT),
    "it drips 100 Continue": (drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), ErrorKind.TIMEOUT),
}


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize(("behaviour", "kind"), BROKEN.values(), ids=BROKEN)
def test_receiver_that_never_ends_is_cut(behaviour: Behaviour, kind: ErrorKind, tls: bool) -> None:
    with a_webhook_receiver(behaviour, tls=tls) as receiver:
        answer = in_development(SHORT_S).post(message(receiver.url))
        assert receiver.left.wait(20), "the connection is closed, too"
    assert facts(answer) == failed(kind)


def test_receiver_that_never_answers_tls_is_cut() -> None:
    with a_webhook_receiver(hangs, tls=True, answers_tls=False) as receiver:
        answer = in_development(SHORT_S).post(message(receiver.url))
        assert receiver.left.wait(20)
        assert (receiver.connections, receiver.visits) == (1, [])
    assert facts(answer) == failed(ErrorKind.TIMEOUT)


@pytest.mark.parametrize("status", [200, 500])
def test_status_counts_although_the_body_drips(status: int) -> None:
    behaviour = drips(f"HTTP/1.1 {status} X\r\nContent-Length: 1000000\r\n\r\n".encode(), b"x")
    with a_webhook_receiver(behaviour) as receiver:
        # Also on a busy machine the head has arrived by then.
        answer = in_development(3).post(message(receiver.url))
        assert receiver.left.wait(20)
    assert answer.status == status
    assert (answer.outcome is Outcome.DELIVERED) == (status == 200)


TEN_MB = 10_000_000
LARGE = {
    "a length": b"Content-Length: 10000000",
    "no length": b"X: y",
    "a redirect's": b"Content-Length: 10000000\r\nLocation: https://example.com/",
    "compressed": b"Content-Length: 10000000\r\nContent-Encoding: gzip",
}


@pytest.mark.parametrize("header", LARGE.values(), ids=LARGE)
@pytest.mark.parametrize("status", [200, 301])
def test_large_body_is_not_read(header: bytes, status: int) -> None:
    behaviour = floods(b"HTTP/1.1 %d X\r\n%s\r\n\r\n" % (status, header), b"x" * 10_000, TEN_MB // 10_000)
    with a_webhook_receiver(behaviour) as receiver:
        answer = in_development().post(message(receiver.url))
        assert receiver.left.wait(20)
        [visit] = receiver.visits
    assert answer.status == status
    assert visit.is_left.is_set(), "the receiver could not send all of it"


NOT_HTTP: dict[str, Behaviour] = {
    "it resets": resets,
    "it closes": lambda _: None,
    "another protocol": talks_nonsense,
    "a head without end": floods(b"HTTP/1.1 200 OK\r\n", b"X" * 10_000, 1_000),
    "too many headers": floods(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", 10_000),
    "a status without a number": lambda visit: visit.send(b"HTTP/1.1 abc OK\r\n\r\n"),
}


@pytest.mark.parametrize("behaviour", NOT_HTTP.values(), ids=NOT_HTTP)
def test_answer_that_is_not_http_fails(behaviour: Behaviour) -> None:
    with a_webhook_receiver(behaviour) as receiver:
        answer = in_development().post(message(receiver.url))
    assert facts(answer) == failed(ErrorKind.CONNECTION_LOST)


def test_receiver_that_is_away_is_not_connected() -> None:
    assert facts(in_development().post(message(a_closed_port()))) == failed(ErrorKind.NOT_CONNECTED)


def test_unknown_certificate_is_refused() -> None:
    with a_webhook_receiver(answers(200), tls=True) as receiver:
        answer = WebhookSender(in_development=True).post(message(receiver.url))
        assert receiver.visits == [], "it has learnt nothing"
    assert facts(answer) == failed(ErrorKind.TLS_FAILED)


def test_certificate_of_another_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_webhook_receiver(answers(200), tls=True) as receiver:
        resolves(monkeypatch, lambda _: "127.0.0.1")
        answer = in_development().post(message(f"https://hooks.example.com:{receiver.port}/"))
        assert receiver.visits == []
    assert facts(answer) == failed(ErrorKind.TLS_FAILED)


def test_plain_receiver_does_not_pass_for_tls() -> None:
    with a_webhook_receiver(answers(200), greeting=b"HTTP/1.1 200 OK\r\n\r\n") as receiver:
        answer = in_development().post(message(receiver.url.replace("http:", "https:")))
    assert facts(answer) == failed(ErrorKind.TLS_FAILED)


def test_environment_has_no_effect(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login u password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, a_closed_port())
    with a_webhook_receiver(answers(200)) as receiver:
        answer = in_development().post(message(receiver.url))
        [visit] = receiver.visits
    assert answer.outcome is Outcome.DELIVERED
    assert "authorization" not in visit.headers


def test_cookie_is_not_sent_back() -> None:
    with a_webhook_receiver(answers(200, "Set-Cookie: session=1")) as receiver:
        sender = in_development()
        for _ in range(2):
            sender.post(message(receiver.url))
        assert [visit.headers.get("cookie") for visit in receiver.visits] == [None, None]


# Addresses inside


def resolves(monkeypatch: pytest.MonkeyPatch, address_of: Callable[[str], str]) -> None:
    """Let every name lead to these addresses."""

    def found(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        address = address_of(host)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", found)


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Record each address to which a connection was tried. None is made."""
    tried: list[Any] = []

    def refuse(_self: socket.socket, address: Any) -> None:
        tried.append(address[:2])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tried


SPELLINGS = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "127.255.255.254",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "017700000001",
    "0177.0.0.1",
    "0.0.0.0",
    "0",
    "localhost",
    "LocalHost",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[::ffff:0:7f00:1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "[fec0::1]",
]


@pytest.mark.parametrize("host", SPELLINGS)
def test_loopback_is_unreachable_in_any_spelling(host: str) -> None:
    with a_webhook_receiver(answers(200), tls=True) as receiver:
        answer = in_production().post(message(f"https://{host}:{receiver.port}/"))
        assert receiver.connections == 0
    assert facts(answer) == failed(ErrorKind.ADDRESS_FORBIDDEN)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "2130706433", "localhost"])
def test_same_receiver_is_reached_in_development(host: str) -> None:
    """Shows that the receiver of the test above could be reached."""
    with a_webhook_receiver(answers(200)) as receiver:
        assert in_development().post(message(f"http://{host}:{receiver.port}/")).outcome is Outcome.DELIVERED


INSIDE = [
    "10.0.0.1",
    "10.255.255.255",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "100.64.0.1",
    "100.127.255.255",
    "192.0.0.8",
    "192.0.0.192",
    "198.18.0.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "[fe80::1]",
    "[fd00:ec2::254]",
    "[fc00::1]",
    "[ff02::1]",
    "[::ffff:10.0.0.1]",
    "[::ffff:169.254.169.254]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::a00:1]",
    "[2002:a00:1::]",
]
INSIDE_BY_V6 = [
    "[fec0::1]",
    "[feff::1]",
    "[::10.0.0.1]",
    "[::a9fe:a9fe]",
    "[::ffff:0:10.0.0.1]",
    "[100:0:0:1::1]",
    "[4000::1]",
    "[fe00::1]",
]
"""Addresses that `ipaddress` does not call private."""


@guards("hook_address")
@pytest.mark.parametrize(
    "host", [*INSIDE, *(pytest.param(each, marks=guards("hook_address_v6")) for each in INSIDE_BY_V6)]
)
@pytest.mark.parametrize("sender", [in_production, in_development])
def test_address_inside_is_not_even_tried(connected: list[Any], host: str, sender: Callable[[], WebhookSender]) -> None:
    answer = sender().post(message(f"https://{host}/"))
    assert facts(answer) == failed(ErrorKind.ADDRESS_FORBIDDEN)
    assert connected == []


@pytest.mark.parametrize("host", ["93.184.216.34", "[2606:2800:220:1::1]", "[2001:4860:4860::8888]"])
def test_public_address_is_tried(connected: list[Any], host: str) -> None:
    answer = in_production().post(message(f"https://{host}/"))
    assert facts(answer) == failed(ErrorKind.NOT_CONNECTED)
    assert connected == [(host.strip("[]"), 443)]


@guards("hook_address")
@pytest.mark.parametrize("host", ["hooks.example.com", "hooks.example.com.", "localhost.", "metadata"])
def test_name_that_leads_inside_is_refused(monkeypatch: pytest.MonkeyPatch, connected: list[Any], host: str) -> None:
    resolves(monkeypatch, lambda _: "169.254.169.254")
    answer = in_production().post(message(f"https://{host}/"))
    assert facts(answer) == failed(ErrorKind.ADDRESS_FORBIDDEN)
    assert connected == []


def test_name_that_leads_elsewhere_later_is_not_asked_again(
    monkeypatch: pytest.MonkeyPatch, connected: list[Any]
) -> None:
    asked: list[str] = []

    def rebinding(host: str) -> str:
        asked.append(host)
        return "93.184.216.34" if host != "93.184.216.34" and asked.count(host) == 1 else host_or_loopback(host)

    def host_or_loopback(host: str) -> str:
        return host if host[0].isdigit() else "127.0.0.1"

    resolves(monkeypatch, rebinding)
    answer = in_production().post(message("https://hooks.example.com/"))
    assert facts(answer) == failed(ErrorKind.NOT_CONNECTED)
    assert connected == [("93.184.216.34", 443)]
    assert asked.count("hooks.example.com") == 1


def test_unknown_name_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert facts(in_production().post(message("https://hooks.example.com/"))) == failed(ErrorKind.NAME_UNKNOWN)


def test_late_name_server_leads_to_no_connection(monkeypatch: pytest.MonkeyPatch, connected: list[Any]) -> None:
    resolves(monkeypatch, lambda _: "93.184.216.34")
    answer = in_production(deadline_s=0.0).post(message("https://hooks.example.com/"))
    assert facts(answer) == failed(ErrorKind.TIMEOUT)
    assert connected == []


@guards("hook_url")
@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://hooks.example.com/", marks=guards("hook_https")),
        pytest.param("ftp://hooks.example.com/", marks=guards("hook_https")),
        "https://user:password@hooks.example.com/",
        pytest.param("https://hooks.example.com:22/", marks=guards("hook_port")),
        pytest.param("https://hooks.example.com:80/", marks=guards("hook_port")),
        "https://hooks.example.com\\@127.0.0.1/",
        "https://hooks.example.com:443\\@127.0.0.1:6379/",
        "https://hooks..example.com/",
        "https://hooks.example.com /",
        "hooks.example.com",
        "",
    ],
)
def test_forbidden_url_is_not_resolved(monkeypatch: pytest.MonkeyPatch, connected: list[Any], url: str) -> None:
    asked: list[str] = []

    def found(host: str) -> str:
        asked.append(host)
        return "93.184.216.34"

    resolves(monkeypatch, found)
    assert facts(in_production().post(message(url))) == failed(ErrorKind.URL_FORBIDDEN)
    assert (asked, connected) == ([], [])


def test_receiver_of_the_operator_may_be_inside(connected: list[Any]) -> None:
    WebhookSender(to_partners=False).post(message("http://10.0.0.1:9/"))
    assert connected == [("10.0.0.1", 9)]


def test_production_reaches_no_receiver_on_this_machine() -> None:
    production = webhook_sender(Settings.model_validate(STRONG))
    with a_webhook_receiver(answers(200)) as receiver:
        assert facts(production.post(message(receiver.url))) == failed(ErrorKind.URL_FORBIDDEN)
        with_tls = message(receiver.url.replace("http:", "https:"))
        assert facts(production.post(with_tls)) == failed(ErrorKind.ADDRESS_FORBIDDEN)
        assert receiver.connections == 0
        assert webhook_sender(Settings()).post(message(receiver.url)).outcome is Outcome.DELIVERED


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Team": "calls\r\nHost: 127.0.0.1"},
        {"X-Team": "calls\nwebhook-id: forged"},
        {"X-Team": "calls\r\n\r\nGET /admin HTTP/1.1"},
    ],
    ids=repr,
)
def test_header_with_a_line_break_is_not_sent(headers: dict[str, str]) -> None:
    """The rules refuse it, and so does the sender: a row may have been written by another version."""
    with a_webhook_receiver(answers(200)) as receiver:
        answer = in_development().post(message(receiver.url, headers=headers))
        assert receiver.visits == []
    assert answer.outcome is Outcome.FAILED


@pytest.mark.parametrize(
    "name",
    [
        *("Host", "host", "Content-Length", "Transfer-Encoding", "webhook-id", "Connection", "Proxy-Authorization"),
        *("X-Team\r\nHost", "X: a\r\n\r\nPOST / HTTP/1.1\r\nX"),
    ],
)
def test_header_with_a_name_of_ours_is_left_out(name: str) -> None:
    with a_webhook_receiver(answers(200)) as receiver:
        assert in_development().post(message(receiver.url, headers={name: "777"})).outcome is Outcome.DELIVERED
        [visit] = receiver.visits
    assert ": 777" not in visit.head


def test_memory_stays_flat_while_receivers_flood() -> None:
    sender = in_development()
    behaviour = floods(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n", b"x" * 10_000, 1_000)

    def post_all(count: int) -> int:
        with a_webhook_receiver(behaviour) as receiver:
            for _ in range(count):
                sender.post(message(receiver.url))
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        post_all(3)
        tracemalloc.reset_peak()
        before = post_all(3)
        after = post_all(12)
        assert after - before < 100_000
        assert tracemalloc.get_traced_memory()[1] - before < TEN_MB // 4
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_a"])
def test_unusable_secret_is_an_error_and_no_failed_delivery(connected: list[Any], secret: str) -> None:
    with pytest.raises((EmptyWebhookSecretError, ValueError)):
        in_production().post(message("https://hooks.example.com/", secrets=(secret,)))
    assert connected == []
