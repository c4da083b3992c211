"""Hundreds of forged and replayed callbacks, none of which changes anything."""

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from tests.api_shim.carrier_callbacks import FORM, call_back, path_of, token_of
from tests.api_shim.intake import PUBLIC_URL, Intake
from tests.support.builders import Tenant, a_claimed_attempt, a_sid
from tests.support.servers import ACCOUNT_SID, PRIMARY

AT_LEAST = 200
OTHER_TOKEN = "another-accounts-token"
OTHER_ACCOUNT = "AC" + "9" * 32

Form = list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Forgery:
    """One request. `is_called` describes the forgery."""

    is_called: str
    path: str
    form: Form
    signature: str | None
    method: str = "POST"
    may_be: frozenset[int] = frozenset({403})


def signed(path: str, form: Form, *, token: str = PRIMARY, public_url: str = PUBLIC_URL) -> str:
    """Sign as Twilio documents, without its library: the URL, then name and value of each field, sorted."""
    text = public_url + path + "".join(name + value for name, value in sorted(set(form)))
    return base64.b64encode(hmac.new(token.encode(), text.encode(), hashlib.sha1).digest()).decode()


class Forger:
    """Makes callbacks that are not the carrier's, from everything that an eavesdropper could know."""

    def __init__(self, path: str, other_path: str) -> None:
        self._path = path
        self._other_path = other_path
        self._right = signed(path, FORM)

    def all(self) -> list[Forgery]:
        kinds = (
            self.of_bodies,
            self.of_secrets,
            self.of_places,
            self.of_contents,
            self.of_boundaries,
            self.of_signatures,
        )
        return [forgery for kind in kinds for forgery in kind()]

    def _made(self, is_called: str, form: Form = FORM, signature: str | None = "", **more: Any) -> Forgery:
        request = {"path": self._path, "form": form, "signature": self._right if signature == "" else signature}
        return Forgery(is_called=is_called, **(request | more))

    def _ours(self, is_called: str, form: Form) -> Forgery:
        """Signed with our own token, but not a callback for a call of this account."""
        return self._made(is_called, form, signed(self._path, form))

    def of_bodies(self) -> Iterator[Forgery]:
        for name, form in bodies():
            yield self._made(f"altered body: {name}", form)

    def of_secrets(self) -> Iterator[Forgery]:
        near = ("", "x", OTHER_TOKEN, PRIMARY[:-1], PRIMARY + "x", PRIMARY.upper())
        for token in (*near, *(f"guess {n}" for n in range(20))):
            yield self._made(f"signed with {token!r}", signature=signed(self._path, FORM, token=token))

    def of_places(self) -> Iterator[Forgery]:
        path = self._path
        for here in ("http://duecall.example", PUBLIC_URL + ":8443", "https://evil.example", ""):
            yield self._made(f"signed for {here!r}", signature=signed(path, FORM, public_url=here))
        for changed in (path + "?a=1", path + "?", path + "/", path.upper(), path[:-1], "/v1" + path):
            yield self._made(f"signed for the path {changed}", signature=signed(changed, FORM))
        for query in ("?a=1", "?AccountSid=" + ACCOUNT_SID, "?CallStatus=completed", "?a=%2F"):
            yield self._made(f"a query that was not signed: {query}", path=path + query)
        yield self._made("for another attempt", path=self._other_path)
        yield self._made("with another attempt's signature", signature=signed(self._other_path, FORM))
        for method in ("GET", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE"):
            yield self._made(f"by {method}", method=method, may_be=frozenset({405}))

    def of_contents(self) -> Iterator[Forgery]:
        for name, value in FORM:
            yield self._ours(f"{name} twice", [*FORM, (name, "a second one")])
            yield self._made(f"{name} twice, the same", [*FORM, (name, value)])
        for account in (OTHER_ACCOUNT, "", "AC", ACCOUNT_SID.lower(), ACCOUNT_SID + "0"):
            yield self._ours(f"of the account {account!r}", altered(AccountSid=account))
        for status in ("", "sleeping", "COMPLETED", "completed ", "in-progress\n", "0"):
            yield self._ours(f"the status {status!r}", altered(CallStatus=status))
        for sid in ("", "CA", "CA" + "g" * 32, a_sid() + "0", a_sid().lower(), "SM" + "0" * 32):
            yield self._ours(f"the call {sid!r}", altered(CallSid=sid))

    def of_boundaries(self) -> Iterator[Forgery]:
        """A signature covers no boundary between a name and its value, nor between two fields."""
        for index, (name, value) in enumerate(READ):
            before, after = READ[:index], READ[index + 1 :]
            signature = signed(self._path, READ)
            for cut in range(1, len(name)):
                moved = [*before, (name[:cut], name[cut:] + value), *after]
                yield self._made(f"{name} cut after {cut}", moved, signature)
            for more in range(1, len(value) + 1):
                moved = [*before, (name + value[:more], value[more:]), *after]
                yield self._made(f"{name} longer by {more}", moved, signature)
            for behind, (swallowed, its) in enumerate(after[:1], start=1):
                moved = [*before, (name, value + swallowed + its), *after[behind:]]
                yield self._made(f"{name} with {swallowed} in it", moved, signature)
        signature = signed(self._path, MORE)
        for index, (name, value) in enumerate(MORE[1:], start=1):
            before, [(other, its)], after = MORE[: index - 1], MORE[index - 1 : index], MORE[index + 1 :]
            if name in NAMES_OF_READ:
                for more in range(1, len(name + value) + 1):
                    swallowed = its + name + value
                    here = len(its) + more
                    moved = [*before, (other + swallowed[:here], swallowed[here:]), *after]
                    yield self._made(f"{name} in the name of {other}, up to {more}", moved, signature)

    def of_signatures(self) -> Iterator[Forgery]:
        right = self._right
        for signature in (None, "x", "=", right[:-1], right + "=", right.lower(), right.upper(), right[::-1], "A" * 28):
            yield self._made(f"the signature {signature!r}", signature=signature)
        for position in range(27):
            other = "A" if right[position] != "A" else "B"
            changed = right[:position] + other + right[position + 1 :]
            yield self._made(f"the signature, {position} changed", signature=changed)


READ: Form = sorted([*FORM, ("AnsweredBy", "human"), ("CallDuration", "12"), ("SipResponseCode", "200")])
READ = [each for each in READ if each[0] not in {"FromCity", "SequenceNumber"}]
"""All fields that are read of a callback, in signing order. The others may be changed."""
NAMES_OF_READ = frozenset(name for name, _ in READ)
MORE: Form = sorted(
    [*READ, ("ApiVersion", "2010-04-01"), ("SequenceNumber", "1"), ("Timestamp", "Fri, 27 Nov 2026 12:00:00 +0000")]
)
"""The same with fields that are not read, each right before one that is."""


def bodies() -> Iterator[tuple[str, Form]]:
    """The genuine form with content that was not signed."""
    for name, value in FORM:
        yield f"without {name}", [each for each in FORM if each[0] != name]
        for other in ("x", value + "x", value + " ", value[:-1] or "y", value.swapcase() + "."):
            yield f"{name}={other!r}", altered(**{name: other})
    for name, value in (("CallDuration", "3600"), ("AnsweredBy", "human"), ("SipResponseCode", "404"), ("Nothing", "")):
        yield f"with {name}", [*FORM, (name, value or "x")]


def altered(**fields: str) -> Form:
    return list({**dict(FORM), **fields}.items())


def test_our_way_of_signing_is_the_carriers(intake: Intake, tenant: Tenant) -> None:
    token = token_of(a_claimed_attempt(tenant))
    path = path_of(token)
    assert call_back(intake, token, signature=signed(path, FORM)).status_code == 204
    assert intake.count("carrier_events") == 1


def test_forged_callback_and_replayed_callback_change_nothing(
    intake: Intake, tenant: Tenant, aloud: Callable[[str], None]
) -> None:
    victim, other = a_claimed_attempt(tenant), a_claimed_attempt(tenant)
    path, other_path = path_of(token_of(victim)), path_of(token_of(other))
    made = Forger(path, other_path).all()
    wrong = [each.is_called for each in made if send(intake, each) not in each.may_be]
    assert wrong == []
    assert intake.count("carrier_events") == 0

    # A genuine callback, repeated and sent for another attempt, is stored once, for its own attempt.
    genuine = Forgery(is_called="genuine", path=path, form=FORM, signature=signed(path, FORM))
    replays = 50
    assert {send(intake, genuine) for _ in range(replays)} == {204}
    assert send(intake, Forgery(is_called="moved", path=other_path, form=FORM, signature=genuine.signature)) == 403
    assert intake.ask("SELECT token FROM carrier_events") == [(victim.token,)]
    assert [tenant.attempt(each.id).epoch for each in (victim, other)] == [victim.epoch, other.epoch]
    aloud(f"{len(made)} forgeries and {replays} replays: 0 accepted")
    assert len(made) >= AT_LEAST


def send(intake: Intake, forgery: Forgery) -> int:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    if forgery.signature is not None:
        headers["X-Twilio-Signature"] = forgery.signature
    answer = intake.client.request(forgery.method, forgery.path, content=urlencode(forgery.form), headers=headers)
    return int(answer.status_code)
