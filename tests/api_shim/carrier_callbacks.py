"""Carrier callbacks, signed and sent like Twilio's."""

from urllib.parse import urlencode

import httpx
from twilio.request_validator import RequestValidator

from scheduler.carriers.twilio import TwilioCallbacks
from scheduler.domain.attempt import Attempt
from scheduler.use_cases.hear import Hear
from tests.api_shim.intake import PUBLIC_URL, Intake
from tests.support.builders import RecordingHints, Tenant, a_sid
from tests.support.servers import ACCOUNT_SID, PRIMARY, SimulatedCarrier

FORM = [
    ("CallSid", a_sid()),
    ("AccountSid", ACCOUNT_SID),
    ("CallStatus", "ringing"),
    ("To", "+421915123456"),
    ("FromCity", ""),
    ("SequenceNumber", "1"),
]


def call_back(
    intake: Intake,
    token: str,
    form: list[tuple[str, str]] = FORM,
    *,
    path: str | None = None,
    signed: str | None = None,
    signature: str | None = "right",
) -> httpx.Response:
    """Send a callback like Twilio. `signed` is the path that the signature covers, by default the path in use."""
    path = path or path_of(token)
    if signature == "right":
        signature = sign(signed or path, form)
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    if signature is not None:
        headers["X-Twilio-Signature"] = signature
    return intake.client.post(path, content=urlencode(form), headers=headers)


def token_of(attempt: Attempt) -> str:
    """Return the token that names a claimed attempt to the carrier."""
    assert attempt.token is not None
    return attempt.token


def path_of(token: str) -> str:
    return f"/carrier/twilio/{token}"


def sign(path: str, form: list[tuple[str, str]]) -> str:
    return str(RequestValidator(PRIMARY).compute_signature(PUBLIC_URL + path, dict(form)))


def changed(**fields: str) -> list[tuple[str, str]]:
    return list({**dict(FORM), **fields}.items())


def hear_all(intake: Intake, tenant: Tenant) -> None:
    """Evaluate the stored callbacks, as a worker does."""
    callbacks = TwilioCallbacks(SimulatedCarrier(url="http://carrier.example").account(public_url=PUBLIC_URL))
    hear = Hear(tenant.context, RecordingHints(), callbacks)
    for (event_id,) in intake.ask("SELECT id FROM carrier_events WHERE heard_at IS NULL"):
        hear.event(event_id)
