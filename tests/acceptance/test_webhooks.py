"""Webhooks in the whole system: a partner receives signed events, whatever its receiver or our process does."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from standardwebhooks import Webhook

from scheduler.webhooks.sending import new_secret, secret_place
from tests.acceptance.conftest import WholeSystem
from tests.architecture.rules import does, does_not
from tests.support.webhook_receivers import Visit, WebhookReceiver, a_webhook_receiver, answers
from tests.use_cases.webhooks.endpoints import ENCRYPTION

TYPES = ("interview.scheduled", "call_attempt.ended", "interview.completed")
ACCEPTS = answers(200)


@dataclass(frozen=True, kw_only=True)
class Received:
    """A signed request to the receiver."""

    id: str
    interview_id: str
    type: str
    sequence: int


@dataclass
class Partner:
    """An endpoint and its receiver, which answers as `answer` says."""

    whole: WholeSystem
    secret: str = field(default_factory=new_secret)
    endpoint_id: str = field(default_factory=lambda: str(uuid4()))
    answer: Callable[[Visit], None] = ACCEPTS
    receiver: WebhookReceiver | None = None

    def behave(self, visit: Visit) -> None:
        self.answer(visit)

    def register(self, receiver: WebhookReceiver) -> None:
        self.receiver = receiver
        encrypted = ENCRYPTION.encrypt(self.secret, secret_place(UUID(self.endpoint_id))).hex()
        self.whole.change(
            "INSERT INTO webhook_endpoints (id, principal_id, api_key_id, company_id, url, events, max_retries,"
            f" timeout_ms, secret, created_at, updated_at) SELECT '{self.endpoint_id}', principal_id, id, company_id,"
            f" '{receiver.url}', '{{{','.join(TYPES)}}}', 9, 15000, '\\x{encrypted}', now(), now()"
            f" FROM api_keys WHERE company_id = '{self.whole.running.companyId}' LIMIT 1"
        )

    def received(self, interview_id: str = "") -> list[Received]:
        """List the requests in the order of their arrival, of one interview or all."""
        assert self.receiver is not None
        found = [self._read(visit) for visit in self.receiver.visits if "webhook-id" in visit.headers]
        return [each for each in found if interview_id in {"", each.interview_id}]

    def _read(self, visit: Visit) -> Received:
        Webhook(self.secret).verify(visit.body, visit.headers)
        body = json.loads(visit.body)
        return Received(
            id=visit.headers["webhook-id"],
            interview_id=body["data"]["interviewId"],
            type=body["type"],
            sequence=body["sequence"],
        )

    def wait_for(self, condition: Callable[[], object], says: str) -> None:
        self.whole.wait_until(condition, seconds=60, says=says)

    def wait_for_all(self, interview_id: str) -> list[str]:
        """List the types of the interview's events in the order of their first arrival."""
        self.wait_for(lambda: len(self._types(interview_id)) == len(TYPES), "all events have arrived")
        return self._types(interview_id)

    def _types(self, interview_id: str) -> list[str]:
        return list({each.id: each.type for each in self.received(interview_id)}.values())

    def try_until(self, condition: Callable[[], object], says: str) -> None:
        """Let each delivery be tried at once, also one that is being sent just now, until the condition is true."""
        again = "UPDATE webhook_deliveries SET send_at = created_at WHERE state = 'WAITING' AND claim IS NULL"

        def tried() -> object:
            self.whole.change(again)
            return condition()

        self.wait_for(tried, says)


@contextmanager
def a_partner(whole: WholeSystem, answer: Callable[[Visit], None] = ACCEPTS) -> Iterator[Partner]:
    partner = Partner(whole, answer=answer)
    with a_webhook_receiver(partner.behave) as receiver:
        partner.register(receiver)
        yield partner
        whole.change(f"DELETE FROM webhook_endpoints WHERE id = '{partner.endpoint_id}'")


@does("F7-4")
def test_partner_receives_the_events_of_each_call(whole: WholeSystem) -> None:
    with a_partner(whole) as partner:
        for number, is_killed in (("+421915400001", False), ("+421915400002", True)):
            if is_killed:
                whole.send_signal("webhooks")
            assert partner.wait_for_all(whole.client.created(number)["id"]) == list(TYPES)


@does("F7-4", "F7-5")
@does_not("F7-5")
def test_failed_event_blocks_its_interview_and_no_other(whole: WholeSystem) -> None:
    with a_partner(whole, answers(500)) as partner:
        slow = whole.client.created("+421915400003")["id"]
        partner.wait_for(lambda: partner.received(slow), "the first event was refused")
        [refused] = {each.id for each in partner.received(slow)}
        partner.answer = lambda visit: (answers(500) if refused in visit.head else ACCEPTS)(visit)
        assert partner.wait_for_all(whole.client.created("+421915400004")["id"]) == list(TYPES)
        assert {each.id for each in partner.received(slow)} == {refused}
        partner.answer = ACCEPTS
        partner.try_until(lambda: len(partner._types(slow)) > 1, "the first event was accepted")
        assert partner.wait_for_all(slow) == list(TYPES)
        sequences = [each.sequence for each in partner.received(slow)]
        assert sequences == sorted(sequences)
        assert [each.id for each in partner.received(slow)].count(refused) >= 2


@does("F7-7")
@does_not("F7-4")
def test_redirect_fails_and_is_not_followed(whole: WholeSystem) -> None:
    with a_partner(whole) as partner, a_webhook_receiver(ACCEPTS) as inside:
        partner.answer = answers(301, f"Location: {inside.url}")
        interview = whole.client.created("+421915400005")["id"]
        failed = (
            "SELECT 1 FROM webhook_deliveries WHERE state = 'WAITING' AND last_status = 301 AND last_error_kind ="
            f" 'REDIRECT' AND endpoint_id = '{partner.endpoint_id}'"
        )
        partner.wait_for(lambda: whole.rows(failed), "the redirect was recorded as a failure")
        assert inside.connections == 0
        partner.answer = answers(410)
        disabled = f"SELECT 1 FROM webhook_endpoints WHERE disabled_cause = 'GONE' AND id = '{partner.endpoint_id}'"
        partner.try_until(lambda: whole.rows(disabled), "the endpoint that is gone was disabled")
        assert len({each.id for each in partner.received(interview)}) == 1
