"""Calls of a platform that never reports an outcome: its webhooks get what release 0.2.0 sent, byte for byte.

`events_of_0_2_0.json` has the bodies of each play, with ids and times in the order of their first occurrence. It was
recorded in a checkout of commit 407638a7 into which this file was copied: RECORD_EVENTS_IN=FILE pytest THIS_FILE.
"""

import json
import os
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from scheduler.domain.attempt import Attempt, AttemptState, ProofMissing
from scheduler.domain.call import Accepted, AnsweredBy, CallStatus
from scheduler.domain.command import DeleteAttempt, DeleteInterview, InvokeAttempt, RescheduleAttempt
from scheduler.domain.webhook import EventType
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.settle import Settle
from scheduler.use_cases.submit import Submit
from tests.conftest import TestClock
from tests.support.builders import RecordingHints, Tenant, a_sid
from tests.use_cases.conftest import apply_news
from tests.use_cases.test_apply import a_wish
from tests.use_cases.webhooks.endpoints import ACCEPTED, ScriptedSender, Webhooks

RECORDED = Path(__file__).with_name("events_of_0_2_0.json")
TALK: dict[str, Any] = {"answered_by": AnsweredBy.PERSON, "duration": timedelta(seconds=61)}
VOICEMAIL: dict[str, Any] = {"answered_by": AnsweredBy.MACHINE, "duration": timedelta(seconds=9)}
EIGHT_DAYS = timedelta(days=8)
_IDS = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIMES = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")


class Play:
    """One interview of a company that reads events and reports no outcome."""

    def __init__(self, company: Tenant, now: TestClock, settle: Settle) -> None:
        self._company = company
        self._now = now
        self._settle = settle
        hints = RecordingHints()
        self._webhooks = Webhooks(tenant=company, hints=hints)
        self._webhooks.endpoint(events=[each.value for each in EventType])
        self._submit = Submit(company.database, hints, company.now)
        self._apply = Apply(company.context, hints)
        self.interview_id = self._request(a_wish(company))

    def call(self) -> Attempt:
        """Place the interview's pending call when it is due."""
        pending = self.pending()
        self._now.move(max(pending.due_at - self._now(), timedelta()))
        [claim] = self._company.dial.claim([pending.id]).claimed
        self._company.dial.record([(claim.attempt, Accepted(call_sid=a_sid()))])
        return claim.attempt

    def lose_answer(self) -> Attempt:
        """Place a call of which nothing is known any longer."""
        lost = self.call()
        return self._company.take(self._company.attempt(lost.id), ProofMissing())

    def hear(self, attempt: Attempt, status: CallStatus, **fields: Any) -> None:
        self._now.move(timedelta(seconds=5))
        apply_news(self._company, self._company.attempt(attempt.id), status, **fields)

    def end(self, status: CallStatus, **fields: Any) -> None:
        """Place the pending call, which rings and ends so."""
        attempt = self.call()
        self.hear(attempt, CallStatus.RINGING)
        if status is CallStatus.COMPLETED:
            self.hear(attempt, CallStatus.ANSWERED, answered_by=fields["answered_by"])
        self.hear(attempt, status, **fields)

    def pending(self) -> Attempt:
        [pending] = [each for each in self._company.attempts(self.interview_id) if each.state is AttemptState.PENDING]
        return pending

    def invoke(self) -> None:
        self._request(InvokeAttempt(interview_id=self.interview_id))

    def move(self, scheduled_at: str) -> None:
        pending = self.pending()
        self._request(
            RescheduleAttempt(interview_id=self.interview_id, attempt_id=pending.id, scheduled_at=scheduled_at)
        )

    def delete(self) -> None:
        self._request(DeleteInterview(interview_id=self.interview_id))

    def delete_attempt(self) -> None:
        self._request(DeleteAttempt(interview_id=self.interview_id, attempt_id=self.pending().id))

    def pass_time(self, span: timedelta) -> None:
        self._now.move(span)
        self._settle.round()

    def bodies(self) -> list[str]:
        """Deliver everything, in the order of places, and return the bodies as sent, but for ids and times."""
        sender = ScriptedSender(ACCEPTED)
        self._webhooks.number()
        while self._webhooks.send_all(self._webhooks.deliver(sender)):
            pass
        places = {str(row[0]): index for index, row in enumerate(self._events())}
        sent = sorted(sender.sent, key=lambda each: places[json.loads(each.body)["deliveryId"]])
        ids: dict[str, str] = {}
        for each in sent:
            for found in _IDS.findall(each.body):
                ids.setdefault(found, f"id {len(ids) + 1}")
        start = self._company.interview(self.interview_id).created_at
        return [
            _TIMES.sub(lambda time: _since(start, time[0]), _IDS.sub(lambda id_: ids[id_[0]], each.body))
            for each in sent
        ]

    def _events(self) -> list[Any]:
        return self._company.ask("SELECT id FROM events WHERE place IS NOT NULL ORDER BY place")

    def _request(self, request: Any) -> UUID:
        principal = self._company.principal
        command = self._submit.command(principal, None, request, idempotency_key=None, request_hash=b"hash").command
        self._apply.command(command.id)
        done = self._submit.find(principal, str(command.id))
        assert done.answer is not None
        assert done.answer.refusal is None
        assert done.interview_id is not None
        return done.interview_id


def _since(start: datetime, text: str) -> str:
    """Write an instant as the time since the request."""
    return f"start + {datetime.fromisoformat(text) - start}"


def answered(play: Play) -> None:
    play.end(CallStatus.COMPLETED, **TALK)


def answered_by_an_unknown(play: Play) -> None:
    play.end(CallStatus.COMPLETED, answered_by=AnsweredBy.UNKNOWN, duration=timedelta(seconds=1))


def not_answered_and_then_answered(play: Play) -> None:
    play.end(CallStatus.NO_ANSWER)
    play.end(CallStatus.COMPLETED, **TALK)


def busy_until_no_retry_is_left(play: Play) -> None:
    for _ in range(4):
        play.end(CallStatus.BUSY)


def voicemail_and_then_answered(play: Play) -> None:
    play.end(CallStatus.COMPLETED, **VOICEMAIL)
    play.end(CallStatus.COMPLETED, **TALK)


def failed_and_then_declined(play: Play) -> None:
    play.end(CallStatus.FAILED, sip_code=503)
    play.end(CallStatus.FAILED, sip_code=603)


def invalid_number(play: Play) -> None:
    play.end(CallStatus.FAILED, sip_code=404)


def cancelled_by_the_deletion_of_the_interview(play: Play) -> None:
    play.delete()


def cancelled_and_invoked_again(play: Play) -> None:
    play.delete_attempt()
    play.invoke()
    play.end(CallStatus.COMPLETED, **TALK)


def moved_and_replaced(play: Play) -> None:
    play.move("2026-04-03T10:00:00+02:00")
    play.invoke()
    play.end(CallStatus.NO_ANSWER)


def cancelled_at_the_carrier(play: Play) -> None:
    play.hear(play.call(), CallStatus.CANCELLED, started=True)


def unknown_and_proven_later(play: Play) -> None:
    lost = play.lose_answer()
    play.hear(lost, CallStatus.COMPLETED, **TALK)


def expired(play: Play) -> None:
    play.pass_time(EIGHT_DAYS)


PLAYS: dict[str, Callable[[Play], None]] = {
    each.__name__: each
    for each in (
        answered,
        answered_by_an_unknown,
        not_answered_and_then_answered,
        busy_until_no_retry_is_left,
        voicemail_and_then_answered,
        failed_and_then_declined,
        invalid_number,
        cancelled_by_the_deletion_of_the_interview,
        cancelled_and_invoked_again,
        moved_and_replaced,
        cancelled_at_the_carrier,
        unknown_and_proven_later,
        expired,
    )
}


@pytest.mark.parametrize("name", PLAYS)
def test_company_that_never_reports_gets_the_events_of_0_2_0(
    retrying: Tenant, now: TestClock, offline: Settle, name: str
) -> None:
    play = Play(retrying, now, offline)
    PLAYS[name](play)
    # Longer than any wait for a report.
    play.pass_time(timedelta(minutes=3))
    bodies = play.bodies()
    if file := os.environ.get("RECORD_EVENTS_IN"):
        _record(Path(file), name, bodies)
    else:
        assert bodies == json.loads(RECORDED.read_text(encoding="utf-8"))["plays"][name]


def _record(file: Path, name: str, bodies: list[str]) -> None:
    recorded: Any = {"commit": "407638a7", "plays": {}}
    if file.exists():
        recorded = json.loads(file.read_text(encoding="utf-8"))
    recorded["plays"][name] = bodies
    file.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")
