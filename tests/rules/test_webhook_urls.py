"""URLs and headers of endpoints: which ones a partner may set."""

import string
from ipaddress import IPv4Address, IPv6Address

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from requests_hardened.ip_filter import InvalidIPAddress, filter_host

from scheduler.rules import webhook_urls
from scheduler.rules.webhook_urls import name_fault, repeated, value_fault
from tests.architecture.guards import guards

LONG_NAME = ".".join(["a" * 63] * 3) + "." + "b" * 61


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com",
        "https://hooks.example.com/",
        "https://hooks.example.com./a/b?c=d&e=%20",
        "HTTPS://Hooks.Example.COM/Path",
        "https://hooks.example.com:443/",
        "https://hooks.example.com:1024/",
        "https://hooks.example.com:65535/",
        "https://my_host.example.com/",
        "https://xn--bcher-kva.example/",
        "https://93.184.216.34/",
        "https://[2606:2800:220:1::1]:8443/",
        f"https://{LONG_NAME}/",
        "https://hooks.example.com/" + "x" * (webhook_urls.LONGEST - 26),
    ],
)
def test_usual_url_is_taken(url: str) -> None:
    assert webhook_urls.fault(url, https_only=True) is None


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("", "INVALID_URL"),
        ("hooks.example.com", "HTTPS_REQUIRED"),
        ("//hooks.example.com", "HTTPS_REQUIRED"),
        pytest.param("http://hooks.example.com/", "HTTPS_REQUIRED", marks=guards("hook_https")),
        pytest.param("ftp://hooks.example.com/", "HTTPS_REQUIRED", marks=guards("hook_https")),
        ("file:///etc/passwd", "HTTPS_REQUIRED"),
        pytest.param("gopher://hooks.example.com:6379/_x", "HTTPS_REQUIRED", marks=guards("hook_https")),
        ("https://", "INVALID_HOST"),
        ("https:///path", "INVALID_HOST"),
        ("https:hooks.example.com", "INVALID_HOST"),
        ("https://:443/", "INVALID_HOST"),
        ("https://hooks.example.com:/", "INVALID_HOST"),
        ("https://hooks.example.com:x/", "INVALID_HOST"),
        ("https://hooks.example.com:443443/", "INVALID_HOST"),
        ("https://hooks..example.com/", "INVALID_HOST"),
        ("https://.example.com/", "INVALID_HOST"),
        ("https://-a.example.com/", "INVALID_HOST"),
        (f"https://{'a' * 64}.example.com/", "INVALID_HOST"),
        (f"https://{LONG_NAME}b/", "INVALID_HOST"),
        ("https://a%2eb/", "INVALID_HOST"),
        ("https://[fe80::1%25eth0]/", "INVALID_HOST"),
        ("https://user@hooks.example.com/", "USERINFO_NOT_ALLOWED"),
        ("https://user:password@hooks.example.com/", "USERINFO_NOT_ALLOWED"),
        ("https://hooks.example.com@127.0.0.1/", "USERINFO_NOT_ALLOWED"),
        ("https://hooks.example.com/#part", "FRAGMENT_NOT_ALLOWED"),
        ("https://hooks.example.com#", "FRAGMENT_NOT_ALLOWED"),
        pytest.param("https://hooks.example.com:0/", "PORT_NOT_ALLOWED", marks=guards("hook_port")),
        pytest.param("https://hooks.example.com:22/", "PORT_NOT_ALLOWED", marks=guards("hook_port")),
        pytest.param("https://hooks.example.com:80/", "PORT_NOT_ALLOWED", marks=guards("hook_port")),
        pytest.param("https://hooks.example.com:1023/", "PORT_NOT_ALLOWED", marks=guards("hook_port")),
        pytest.param("https://hooks.example.com:65536/", "PORT_NOT_ALLOWED", marks=guards("hook_port")),
        ("https://hooks.example.com/a b", "INVALID_URL"),
        (" https://hooks.example.com/", "INVALID_URL"),
        ("https://hooks.example.com/\n", "INVALID_URL"),
        ("https://hooks.example.com\t/", "INVALID_URL"),
        ("https://hooks.example.com\\@127.0.0.1/", "INVALID_URL"),
        ("https://bücher.example/", "INVALID_URL"),
        ("https://ⓔxample.com/", "INVALID_URL"),
        ("https://hooks.example.com/" + "x" * (webhook_urls.LONGEST - 25), "TOO_LONG"),
    ],
)
def test_forbidden_url_is_refused(url: str, code: str) -> None:
    fault = webhook_urls.fault(url, https_only=True)
    assert fault is not None
    assert fault[0] == code


def test_plain_http_is_taken_in_development() -> None:
    for url in ("http://127.0.0.1:3000/", "http://localhost:3000", "http://hooks.example.com/"):
        assert webhook_urls.fault(url, https_only=False) is None
    assert webhook_urls.fault("http://127.0.0.1:443/", https_only=False) is not None


PRIVATE = [
    *("10.0.0.1", "172.17.0.1", "192.168.1.4", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "192.88.99.1"),
    *("[fc00::1]", "[fe80::1]", "[::]", "[::ffff:10.0.0.1]", "[2002:a00:1::]", "[2001:db8::1]", "[ff02::1]"),
    *(
        pytest.param(each, marks=guards("hook_address_v6"))
        for each in ("[fec0::1]", "[::10.0.0.1]", "[64:ff9b::a00:1]")
    ),
]
LOOPBACK = [
    *("127.0.0.1", "127.1.2.3", "[::1]", "[::ffff:127.0.0.1]", "127.0.0.1."),
    *("2130706433", "0x7f000001", "0x7F.1", "127.1", "127.0.1", "0177.0.0.1", "017700000001"),
]
LOOPBACK_NAMES = ["localhost", "LOCALHOST", "localhost.", "hooks.localhost"]
INNER_NAMES = [
    *("printer.local", "redis.default.svc", "redis.default.svc.cluster.local", "metadata.google.internal"),
    *("METADATA.google.internal.", "db.lan", "nas.home.arpa", "internal", "ip-10-0-0-1.ec2.internal"),
]
PUBLIC = [
    *("hooks.example.com", "local.example.com", "internal.example.com", "mylocal", "svc.example.com", "1.example.com"),
    *("93.184.216.34", "1572395042", "0x5db8d822", "93.12113954", "1.2.3.4.5", "999999999999", "1.2.3.0400"),
]


@guards("hook_literal")
@pytest.mark.parametrize("host", PRIVATE)
def test_address_that_is_not_public_is_refused(host: str) -> None:
    for allow_loopback in (True, False):
        fault = webhook_urls.address_fault(f"https://{host}:8443/a", allow_loopback=allow_loopback)
        assert fault is not None
        assert fault[0] == "ADDRESS_FORBIDDEN"


@guards("hook_inner_name")
@pytest.mark.parametrize("host", INNER_NAMES)
def test_name_that_is_never_public_is_refused(host: str) -> None:
    for allow_loopback in (True, False):
        fault = webhook_urls.address_fault(f"https://{host}:8443/a", allow_loopback=allow_loopback)
        assert fault is not None
        assert fault[0] == "ADDRESS_FORBIDDEN"


@guards("hook_inner_name")
@pytest.mark.parametrize("host", LOOPBACK_NAMES)
def test_loopback_name_is_refused_in_production_only(host: str) -> None:
    assert webhook_urls.address_fault(f"http://{host}:8443", allow_loopback=True) is None
    assert webhook_urls.address_fault(f"https://{host}:8443", allow_loopback=False) is not None


@pytest.mark.parametrize("host", PUBLIC)
def test_public_host_is_taken_in_any_spelling(host: str) -> None:
    assert webhook_urls.address_fault(f"https://{host}/", allow_loopback=False) is None


@given(st.integers(0, 2**32 - 1))
def test_other_spelling_is_read_like_the_usual_one(number: int) -> None:
    usual = webhook_urls.address_fault(f"https://{IPv4Address(number)}/", allow_loopback=False)
    for host in (str(number), hex(number), f"0{number:o}"):
        assert webhook_urls.address_fault(f"https://{host}/", allow_loopback=False) == usual


@guards("hook_literal")
@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_is_refused_in_production_only(host: str) -> None:
    assert webhook_urls.address_fault(f"http://{host}:8443", allow_loopback=True) is None
    assert webhook_urls.address_fault(f"https://{host}:8443", allow_loopback=False) is not None


@pytest.mark.parametrize("host", ["93.184.216.34", "[2606:2800:220:1::1]", "hooks.example.com", "hooks"])
def test_public_address_and_name_are_taken(host: str) -> None:
    for allow_loopback in (True, False):
        assert webhook_urls.address_fault(f"https://{host}/a", allow_loopback=allow_loopback) is None


@given(address=st.ip_addresses(), allow_loopback=st.booleans())
def test_rule_refuses_each_address_that_the_client_refuses(
    address: IPv4Address | IPv6Address, allow_loopback: bool
) -> None:
    try:
        filter_host(str(address), 443, allow_loopback=allow_loopback)
    except requests.ConnectionError:
        assert address.version == 6, "this machine has no IPv6"
    except InvalidIPAddress:
        assert webhook_urls.is_forbidden(address, allow_loopback=allow_loopback)


ODD = st.text(
    st.sampled_from(string.ascii_letters + string.digits + ".:-_@[]%\\/?#&= \t\n;,!*'()~+$\"<>^`{|}\x00é。"),
    max_size=30,
)
HOSTS = st.sampled_from(["a.b", "A.b:8443", "[::1]", "[::1]:1024", "127.1", "0x7f.1", "a_b.c.", "xn--a.b:443"])
URLS = st.builds(
    "{}://{}{}".format,
    st.sampled_from(["https", "HTTPS", "http", "ftp"]),
    ODD | HOSTS | st.builds("{}{}".format, HOSTS, ODD) | st.builds("{}{}".format, ODD, HOSTS),
    st.sampled_from(["", "/", "/a", "?b", "/a?b=c"]),
)


@given(url=URLS)
def test_taken_url_means_one_host_to_every_parser(url: str) -> None:
    if webhook_urls.fault(url, https_only=True) is None:
        prepared = requests.Request("POST", url).prepare().url
        assert prepared is not None
        assert webhook_urls.fault(prepared, https_only=True) is None
        netloc = url.split("/")[2].partition("?")[0].lower()
        assert prepared.split("/")[2].partition("?")[0].lower() == netloc


@pytest.mark.parametrize(
    "name", ["Authorization", "X-Team", "x", "User-Agent", "Accept", "Hosts", "Contents", "x" * 255]
)
def test_usual_header_is_taken(name: str) -> None:
    assert name_fault(name) is None


@guards("hook_header")
@pytest.mark.parametrize(
    "name",
    [
        *("Host", "HOST", "host", "Content-Type", "content-length", "CONTENT-X", "webhook-id", "Webhook-Signature"),
        *("Transfer-Encoding", "Connection", "TE", "Trailer", "Upgrade", "Expect", "Keep-Alive", "Proxy-Authorization"),
        "Accept-Encoding",
    ],
)
def test_header_of_ours_is_refused(name: str) -> None:
    fault = name_fault(name)
    assert fault is not None
    assert fault[0] == "HEADER_NOT_SETTABLE"


@pytest.mark.parametrize("name", ["", "a b", "a:", ":a", "a\r\nHost", "é", "a\x00", "Host ", " Host", "x" * 256])
def test_name_that_is_not_a_token_is_refused(name: str) -> None:
    fault = name_fault(name)
    assert fault is not None
    assert fault[0] == "INVALID_HEADER_NAME"


@pytest.mark.parametrize("value", ["Bearer abc", "x", "a\tb", "~!@#", "x" * 4096])
def test_usual_value_is_taken(value: str) -> None:
    assert value_fault(value) is None


@pytest.mark.parametrize("value", ["", " x", "x ", "a\r\nb", "a\nb", "\x00", "é", "\x7f", "x" * 4097])
def test_value_that_could_end_the_header_is_refused(value: str) -> None:
    assert value_fault(value) is not None


@given(names=st.lists(st.sampled_from(["a", "A", "b", "B", "c"]), max_size=8))
def test_repeated_headers_are_found(names: list[str]) -> None:
    found = list(repeated(names))
    kept = [name.lower() for place, name in enumerate(names) if place not in found]
    assert len(kept) == len(set(kept)) == len({name.lower() for name in names})
