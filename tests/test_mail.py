"""Mails have one recipient and only our headers, whatever names and addresses contain. Refusals by the server."""

import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from scheduler.mail import (
    Mail,
    MailAway,
    MailDeferred,
    MailFolder,
    MailRefused,
    MailSender,
    SmtpMailer,
    SmtpServer,
    UnsafeMail,
    as_bytes,
)
from scheduler.rules.owners import NotAnAddress, canonical
from scheduler.rules.resources import is_printable, shown
from tests.conftest import NOON
from tests.support.smtp_server import CERTIFICATE, HANG_UP, USER, PostOffice, a_closed_door, a_post_office

SENDER = MailSender(name="Duecall", address="mail@duecall.example")
TO = "owner@example.com"
HEADERS = [
    *("From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted"),
    *("Content-Type", "Content-Transfer-Encoding", "MIME-Version"),
]

PERSIAN = "\u0639\u0644\u06cc\u200c\u0631\u0636\u0627"
"""Ali-Reza, written with a joiner that cannot be seen."""

LINE_ENDS = ("\r\n", "\n", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029")
HOSTILE_NAMES = [
    *(f"Acme{line_end}Bcc: victim@example.org" for line_end in LINE_ENDS),
    *("Acme\r\n\r\nA body of its own", "Acme\n\nA body of its own", "\n.\n"),
    "Acme\r\n.\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<victim@example.org>\r\nDATA",
    "Acme\u2028\u2028<victim@example.org>",
    "=?utf-8?q?Acme=0D=0ABcc:_victim=40example.org?=",
    "=?utf-8?b?QWNtZQ0KQmNjOiB2aWN0aW1AZXhhbXBsZS5vcmc=?=",
    "=?utf-8?q?=0A?= =?utf-8?q?Bcc:_victim=40example.org?=",
    "=?us-ascii?q?=0ATo:_victim=40example.org?=",
    "=\u202e?utf-8?q?=0ABcc:_victim=40example.org?=",
    "=\r\n?utf-8?q?=0ABcc:_victim=40example.org?=",
    "==??utf-8?q?=0ABcc:_victim=40example.org?=?=",
    '"Acme" <victim@example.org>, <second@example.org>',
    *("Acme, victim@example.org", "Acme; victim@example.org", "Acme <victim@example.org>", "<victim@example.org>"),
    *("undisclosed-recipients:;", "To: victim@example.org", "Subject: Your account", "Content-Type: text/html"),
    *("--boundary\r\nContent-Type: text/html\r\n\r\n<script>", "<script>alert(1)</script>"),
    *("Acme\u202egpj.exe", "Acme\u2066\u2067\u2069", "\u200f\u200eAcme", "\U000e0041\U000e0042 tags"),
    *("Acme\x00\x01\x1b[31m", "\ufeffAcme\u00ad", "\x7f\x9b", " \r\n \t", "Acme\t\tBcc:\tvictim@example.org"),
    *("{company} {link} {until} {0} %s %(name)s", "(comment) [brackets] \\ backslash \\r\\n"),
    *("a\u0301" * 50, "x" * 100, "Žluťoučký kůň, úpěl ďábelské ódy; " * 3),
    *("株式会社　デューコール", PERSIAN, "👩\u200d🚀 Rocket"),
    *("%0d%0aBcc:%20victim@example.org", "&#13;&#10;Bcc: victim@example.org", "Re: Fwd: invoice@@@example.org@"),
]

GOOD_ADDRESSES = [
    ("owner@example.com", "owner@example.com"),
    ("Owner.Name+Tag@EXAMPLE.com", "owner.name+tag@example.com"),
    ("o'neil@example.com", "o'neil@example.com"),
    ("a_b-c@sub.domain.example.com", "a_b-c@sub.domain.example.com"),
    ("!#$%&'*+-/=^_`{|}~@example.com", "!#$%&'*+-/=^_`{|}~@example.com"),
    ("-rf@example.com", "-rf@example.com"),
    ("owner@Bücher.example.com", "owner@xn--bcher-kva.example.com"),
    ("owner@xn--bcher-kva.example.com", "owner@xn--bcher-kva.example.com"),
    (f"{'a' * 64}@{'b' * 60}.{'c' * 60}.{'d' * 60}.com", f"{'a' * 64}@{'b' * 60}.{'c' * 60}.{'d' * 60}.com"),
]

BAD_ADDRESSES = [
    # parts that are missing
    *("", "owner", "owner@", "@example.com", "owner@localhost"),
    # several recipients
    *("owner@example.com, victim@example.org", "owner@example.com; victim@example.org"),
    *("owner@example.com victim@example.org", "owner@example.com,"),
    # line ends and control characters
    *("owner@example.com\r\nBcc: victim@example.org", "owner@example.com\nRCPT TO:<victim@example.org>"),
    *("owner\r\n@example.com", "owner@example.com\r\n", "owner@example.com\n", " owner@example.com"),
    *("owner@example.com\u2028", "owner@exa\u2028mple.com", "owner@example.com\x00", "owner@exam\x00ple.com"),
    # names, quotes and comments
    *("Owner <owner@example.com>", '"Owner" <owner@example.com>, <victim@example.org>', "<owner@example.com>"),
    *('"owner, victim@example.org"@example.com', '"owner"@example.com', '"a\\"b"@example.com'),
    *('"owner> RCPT TO:<victim"@example.com', "owner(comment)@example.com", "owner@(comment)example.com"),
    # malformed hosts and dots
    *("owner@[127.0.0.1]", "owner@[IPv6:::1]", "owner@127.0.0.1", "owner@-example.com", "owner@exa_mple.com"),
    *("own..er@example.com", ".owner@example.com", "owner.@example.com", "owner@example..com", "owner@example.com."),
    # encoded words, and characters beyond ASCII
    *("=?utf-8?q?=0ABcc:?=@example.com", "=?utf-8?q?owner=40example.org=2C?=@example.com"),
    *("jörg@example.com", "\uff4fwner@example.com", "owner@exam\u00adple.com\u202e"),
    # groups and routes
    *("undisclosed-recipients:;", "group:owner@example.com;", "@relay.example:owner@example.com"),
    *("owner@victim@example.com", "mailto:owner@example.com?bcc=victim@example.org,"),
    # parts that are too long
    *(f"{'a' * 65}@example.com", f"{'a' * 64}@{'b' * 63}.{'c' * 63}.{'d' * 63}.example.com", f"owner@{'a' * 64}.com"),
]


def a_mail(name: str = "Acme", to: str = TO) -> Mail:
    """As an invitation is written: the name in the subject and the text, both times made fit to be shown."""
    company = shown(name, 60)
    return Mail(
        name=str(uuid4()),
        to=to,
        subject=f"Invitation to become the owner of {company}",
        text=f"Of this company:\n\n    {company}\n\nhttps://app.example.com/invitations/accept#token=t\n",
        written_at=NOON,
    )


@pytest.fixture(scope="module")
def post() -> Iterator[PostOffice]:
    with a_post_office() as office:
        yield office


@pytest.fixture
def office(post: PostOffice) -> Iterator[PostOffice]:
    post.mails.clear()
    post.asked.clear()
    yield post
    for name in ("to_recipient", "to_mail"):
        setattr(post, name, lambda _: "250 OK")


def mailer(url: str) -> SmtpMailer:
    return SmtpMailer(SmtpServer.of(url), SENDER)


@contextmanager
def away(*, surely_not: bool) -> Iterator[None]:
    """Expect an unavailable mail server, and whether it is certain that the mail was not sent."""
    with pytest.raises(MailAway) as error:
        yield
    assert error.value.surely_not is surely_not


# ---- F3-5: names and addresses


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=ascii)
def test_a_name_adds_no_header_no_recipient_and_no_line(office: PostOffice, name: str) -> None:
    """F3-5."""
    mailer(office.url).send(a_mail(name))
    [mail] = office.mails
    assert (mail.sender, mail.recipients, office.asked) == (SENDER.address, (TO,), [TO])
    assert mail.headers == HEADERS
    assert mail.message["To"] == TO
    assert mail.message["From"] == "Duecall <mail@duecall.example>"
    assert mail.message.get_content_type() == "text/plain"
    assert not mail.message.is_multipart()
    # A mail reader that decodes the subject shows exactly our line, without control characters.
    assert str(mail.message["Subject"]).strip() == f"Invitation to become the owner of {shown(name, 60)}".strip()
    assert len(mail.text.splitlines()) == 5
    assert mail.text.splitlines()[2].strip() == shown(name, 60)
    assert mail.raw.isascii()


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=ascii)
def test_displayed_name_is_one_short_printable_line(name: str) -> None:
    """F3-5."""
    line = shown(name, 60)
    assert len(line) <= 60
    assert not line or is_printable(line)
    assert "=?" not in line


def test_a_name_that_does_no_harm_is_shown_as_it_is(office: PostOffice) -> None:
    for name in ("Acme", "Žluťoučký kůň, s. r. o.", "O'Neil & Sons (Trnava)", PERSIAN):
        assert shown(name, 60) == name
        mailer(office.url).send(a_mail(name))
        assert str(office.mails[-1].message["Subject"]).endswith(f"of {name}")


@pytest.mark.parametrize(("text", "expected"), GOOD_ADDRESSES)
def test_mail_goes_only_to_the_canonical_address(office: PostOffice, text: str, expected: str) -> None:
    """F3-1, F3-5."""
    assert canonical(text) == expected == canonical(expected)
    mailer(office.url).send(a_mail(to=expected))
    [mail] = office.mails
    assert (mail.recipients, mail.headers) == ((expected,), HEADERS)
    assert mail.message["To"].addresses[0].addr_spec == expected


@pytest.mark.parametrize("text", BAD_ADDRESSES, ids=ascii)
def test_what_is_not_one_address_is_refused_without_quoting_it(text: str) -> None:
    """F3-1, F3-5."""
    with pytest.raises(NotAnAddress) as refused:
        canonical(text)
    assert str(refused.value) == ""
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    "text", [each for each in BAD_ADDRESSES if not each.isascii() or set(each) & set("\r\n,<\x00 =")]
)
def test_mailer_refuses_an_unsafe_address(office: PostOffice, text: str) -> None:
    """F3-5: the last of three walls."""
    with pytest.raises((UnsafeMail, MailAway)):
        mailer(office.url).send(a_mail(to=text))
    assert not office.mails


@pytest.mark.parametrize("text", ["a\r\nBcc: b@example.org", "a\nb", "=?utf-8?q?a=0ABcc:_b=40example.org?="])
def test_mailer_refuses_an_unsafe_subject(text: str) -> None:
    """F3-5: also by a Python whose library lets line breaks into headers (CVE-2024-6923)."""
    mail = Mail(name="a", to=TO, subject=text, text="t", written_at=NOON)
    try:
        raw = as_bytes(mail, SENDER)
    except UnsafeMail:
        return
    assert b"\nBcc" not in raw
    assert [line.partition(b":")[0].decode() for line in raw.partition(b"\r\n\r\n")[0].split(b"\r\n")] == HEADERS


# ---- meanings of a no


def test_a_mail_that_is_taken_is_there_once(office: PostOffice) -> None:
    mailer(office.url).send(a_mail())
    assert len(office.mails) == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        pytest.param("450 mailbox busy", MailDeferred, id="later"),
        pytest.param("421 too busy", MailDeferred, id="later, and goodbye"),
        pytest.param("550 no such user here", MailRefused, id="never"),
    ],
)
@pytest.mark.parametrize("place", ["to_recipient", "to_mail"])
def test_a_servers_no_tells_later_from_never(
    office: PostOffice, place: str, answer: str, error: type[Exception]
) -> None:
    setattr(office, place, lambda _: answer)
    with pytest.raises(error) as refused:
        mailer(office.url).send(a_mail())
    assert getattr(refused.value, "status", None) == int(answer[:3])
    assert (str(refused.value), refused.value.__cause__) == ("", None), "its text would quote the address"
    assert not office.mails


def test_a_server_that_is_not_there_is_away() -> None:
    with a_closed_door() as door, away(surely_not=True):
        mailer(f"smtp://127.0.0.1:{door.getsockname()[1]}").send(a_mail())


def test_mail_is_uncertain_if_the_server_closes_the_connection(office: PostOffice) -> None:
    office.to_mail = lambda _: HANG_UP
    with away(surely_not=False):
        mailer(office.url).send(a_mail())
    assert len(office.mails) == 1


def test_a_server_that_says_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler.mail._ANSWERS_WITHIN_S", 0.2)
    with a_closed_door() as door:
        door.listen()
        with pytest.raises(MailAway):
            mailer(f"smtp://127.0.0.1:{door.getsockname()[1]}").send(a_mail())


def test_server_that_dawdles_is_left(office: PostOffice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler.mail._TAKES_AT_MOST_S", 0.3)
    left = threading.Event()

    def dawdle(_: bytes) -> str:
        left.wait(60)
        return "250 OK"

    office.to_mail = dawdle
    try:
        with away(surely_not=False):
            mailer(office.url).send(a_mail())
    finally:
        left.set()


# ---- TLS and passwords


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))


WITH_PASSWORD = f"{USER}:p%40ss%2Fword@"


def test_a_password_goes_over_tls_alone(trusted: None) -> None:
    with a_post_office(starttls=True, password=True) as office:
        mailer(f"smtp://{WITH_PASSWORD}127.0.0.1:{office.port}").send(a_mail())
        assert [(each.over_tls, each.user) for each in office.mails] == [(True, USER)]
    with a_post_office() as plain, pytest.raises(MailAway):
        mailer(f"smtp://{WITH_PASSWORD}127.0.0.1:{plain.port}").send(a_mail())
    assert not plain.mails


def test_smtps_is_tls_from_the_first_byte(trusted: None) -> None:
    with a_post_office(tls=True, password=True) as office:
        mailer(f"smtps://{WITH_PASSWORD}localhost:{office.port}").send(a_mail())
        assert [(each.over_tls, each.user) for each in office.mails] == [(True, USER)]


def test_a_wrong_password_is_our_mistake_and_tried_again(trusted: None) -> None:
    with a_post_office(starttls=True, password=True) as office:
        with pytest.raises(MailAway) as refused:
            mailer(f"smtp://{USER}:wrong@127.0.0.1:{office.port}").send(a_mail())
        assert refused.value.status == 535
        assert not office.mails


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_a_server_that_cannot_prove_its_name_gets_nothing(scheme: str) -> None:
    with a_post_office(tls=scheme == "smtps", starttls=scheme == "smtp") as office:
        with pytest.raises(MailAway):
            mailer(f"{scheme}://127.0.0.1:{office.port}").send(a_mail())
        assert not office.mails


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://mail.example.com", ("mail.example.com", 25, False, "offered", None)),
        ("smtp://u:p@mail.example.com", ("mail.example.com", 587, False, "always", "u")),
        ("smtps://u:p@mail.example.com", ("mail.example.com", 465, True, "always", "u")),
        ("smtp://u%40x:p@h:2525/?starttls=never", ("h", 2525, False, "never", "u@x")),
    ],
)
def test_a_servers_address_says_how_it_is_spoken_to(url: str, expected: tuple[object, ...]) -> None:
    server = SmtpServer.of(url)
    assert (server.host, server.port, server.tls, server.starttls, server.user) == expected
    assert "'p'" not in repr(server)


@pytest.mark.parametrize(
    "url",
    [
        *("mail.example.com", "http://mail.example.com", "smtp://", "smtp://h:port", "smtp://h:99999"),
        *("smtp://u:secret@h?tls=1", "smtp://u:secret@h?starttls=maybe", "smtp://u:secret@h/path"),
        *("smtp://u:secret@h#x", "smtp://u:se/cret@h"),
    ],
)
def test_an_address_of_no_server_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(ValueError, match="must be smtp://") as refused:
        SmtpServer.of(url)
    assert "secret" not in str(refused.value)


# ---- files instead


def test_mail_without_a_server_is_a_new_file(folder: Path) -> None:
    mail = a_mail("Acme\r\nBcc: victim@example.org")
    out = MailFolder(folder / "below" / "mail", SENDER)
    for _ in range(3):
        out.send(mail)
    files = sorted((folder / "below" / "mail").iterdir())
    assert len(files) == 3
    assert {file.read_bytes() for file in files} == {as_bytes(mail, SENDER)}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}, "there is a token in it"
    assert stat.S_IMODE((folder / "below" / "mail").stat().st_mode) == 0o700


def test_many_at_once_are_as_many_files(folder: Path) -> None:
    mail = a_mail()
    out = MailFolder(folder, SENDER)
    threads = [threading.Thread(target=out.send, args=[mail]) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(folder.iterdir())) == 20


def test_a_folder_that_cannot_be_written_is_away(folder: Path) -> None:
    (folder / "mail").write_text("a file where the folder should be")
    with pytest.raises(MailAway):
        MailFolder(folder / "mail", SENDER).send(a_mail())
