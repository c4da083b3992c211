"""State machine test with conversations: reports, refused numbers, batches and operators, in any order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID, uuid4

import pytest

from scheduler.domain.attempt import ConversationOutcome
from scheduler.domain.call import AnswerUnknown
from scheduler.domain.command import CommandKind, CreateInterview, ReportOutcome
from scheduler.domain.interview import NewCandidate
from scheduler.domain.refusals import NotFound
from scheduler.lifecycle.policy import SLACK
from scheduler.persistence.database import Database
from scheduler.use_cases.apply_batches import ApplyBatches
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.operations.unknown_outcomes import OperatorCommands
from scheduler.use_cases.resources.batches import Batches
from scheduler.use_cases.resources.idempotent_writes import IdempotentWrites
from scheduler.wire.batches import Item
from tests.support.builders import FOREVER, a_voice_key, a_write
from tests.verification.carrier.scripted import Leg
from tests.verification.judge.invariants import Fields
from tests.verification.machine import test_machine
from tests.verification.machine.test_machine import (
    BECOMES,
    DIES_BEFORE,
    Machine,
    Step,
    any_one,
    mostly,
    run,
    seldom,
)
from tests.verification.machine.world import as_text

OUTCOMES = [*ConversationOutcome, *[ConversationOutcome.CALL_BACK] * 3, *[ConversationOutcome.OPTED_OUT] * 2]
CALLS_BACK = [timedelta(minutes=minutes) for minutes in (2, 20, 61, 600, 1500, 3000)]
REFUSALS = {ConversationOutcome.OPTED_OUT, ConversationOutcome.WRONG_PERSON}


@dataclass(frozen=True, kw_only=True)
class Said:
    """A report of a refusal, as the voice server sent it."""

    place: int
    """Index of the request."""
    outcome: ConversationOutcome
    number: str
    interview_id: UUID
    candidate_id: UUID
    company_id: UUID
    at: datetime


class Conversing(Machine):
    """The machine with two companies whose calls are reported."""

    reports: ClassVar[int] = 0
    accepted: ClassVar[dict[str, int]] = {}

    def __init__(self) -> None:
        super().__init__()
        for tenant in self.world.tenants:
            a_voice_key(tenant)
        self.said: list[Said] = []
        self.asked_times: dict[UUID, datetime] = {}
        self.batches: list[tuple[Any, UUID]] = []
        tenant = self.world.tenant
        self.explain = Explain(tenant.context)
        writes = IdempotentWrites(self.world.database, self.world.now)
        self.stored = Batches(self.world.database, writes, self.world.hints)
        self.bulk = ApplyBatches(tenant.context, self.world.hints)
        self.operators = OperatorCommands(self.world.database, self.world.now, "cli:a test", self.world.hints)

    def possible_steps(self) -> Sequence[Step]:
        return STEPS

    # ---- voice servers

    def row_of(self, token: str) -> Fields:
        row = next(row for row in self.snapshot.rows for claim in row.claims if claim.token == token)
        return self.snapshot.attempts[row.id]

    def report(  # noqa: PLR0913
        self,
        which: int,
        outcome: ConversationOutcome,
        ahead: timedelta,
        wall: bool,
        applied: bool,
        foreign: bool,
    ) -> None:
        """Report the outcome of a call that rang. Later calls are reported more often."""
        legs = [leg for leg in self.world.carrier.legs.values() if not leg.is_stray]
        answered = [leg for leg in legs if leg.answered_by]
        chosen = answered if answered and which % 5 else legs
        self._report(chosen[-1 - (which // 5) % len(chosen)], outcome, ahead, wall, applied, foreign)

    def _report(  # noqa: PLR0913, PLR0917
        self, leg: Leg, outcome: ConversationOutcome, ahead: timedelta, wall: bool, applied: bool, foreign: bool
    ) -> None:
        world, attempt = self.world, self.row_of(leg.token)
        tenant = self.tenant_of(attempt)
        stranger = next(each for each in world.tenants if each is not tenant)
        at = (world.now() + ahead).replace(microsecond=0)
        text = None
        if outcome is ConversationOutcome.CALL_BACK:
            text = as_text(at)[:-1] if wall else as_text(at)
        try:
            named = self.explain.reported_call(
                tenant.principal, leg.token, refuses_number=outcome in REFUSALS
            )
        except NotFound:
            return
        assert named.id == attempt["id"]
        request = ReportOutcome(
            interview_id=attempt["interview_id"], attempt_id=attempt["id"], outcome=outcome, call_back_at=text
        )
        if outcome in REFUSALS and not foreign:
            interview = self.snapshot.interviews[attempt["interview_id"]]
            self.said.append(
                Said(
                    place=len(world.asked),
                    outcome=outcome,
                    number=leg.to,
                    interview_id=interview["id"],
                    candidate_id=interview["candidate_id"],
                    company_id=tenant.company_id,
                    at=world.now(),
                )
            )
        type(self).reports += 1
        place = len(world.asked)
        world.ask(stranger if foreign else tenant, request, applied=applied)
        if foreign:
            assert world.asked[place].outcome.status == 409, "another company reported a call"
        elif world.asked[place].outcome.status == 204 or world.asked[place].outcome.status == 201:
            type(self).accepted[outcome] = type(self).accepted.get(outcome, 0) + 1

    def a_conversation(self, which: int, outcome: ConversationOutcome, ahead: timedelta, wall: bool, ends: bool) -> None:
        """Let a live call be answered by a person, and report it."""
        carrier = self.world.carrier
        leg = carrier.alive()[which % len(carrier.alive())]
        if leg.is_stray:
            return
        while leg.is_alive and leg.status != "in-progress":
            leg = carrier.goes_towards(leg, "a person answers", self.world.now())
            self.world.deliver(carrier.callbacks[-1])
        self._hear_all()
        self.look()
        self._report(leg, outcome, ahead, wall, applied=True, foreign=False)
        if ends and leg.is_alive:
            carrier.goes_towards(leg, "a person answers", self.world.now())
            self.world.deliver(carrier.callbacks[-1])
            self._hear_all()

    # ---- callers

    def create_another(self, which: int, ahead: timedelta | None, applied: bool) -> None:
        """Create another interview of a known candidate."""
        attempt = self.one(which)
        tenant = self.tenant_of(attempt)
        candidate = self.snapshot.interviews[attempt["interview_id"]]["candidate_id"]
        if self.snapshot.candidates[candidate]["erased_at"] is not None:
            return
        at = None if ahead is None else (self.world.now() + ahead).replace(microsecond=0) + timedelta(seconds=1)
        request = CreateInterview(
            agent_id=tenant.agent_id, candidate_id=candidate, scheduled_at=None if at is None else as_text(at)
        )
        self.world.ask(tenant, request, due_at=at, applied=applied)

    def store_batch(self, which: int, number: int, applied: bool) -> None:
        tenant = self.world.tenants[which % 2]
        items = []
        for place in range(2):
            candidate = NewCandidate(
                first_name="Ada",
                last_name="Byron",
                email="ada@example.com",
                gdpr_expiry_date=FOREVER,
                phone_number=self.world.numbers[(number + place) % len(self.world.numbers)],
            )
            items.append(Item(index=place, request=CreateInterview(agent_id=tenant.agent_id, candidate=candidate)))
        sent = a_write(CommandKind.CREATE_BATCH, tenant.principal, key=str(uuid4()), request_hash=b"same")
        batch: Any = self.stored.create(sent, None, "a batch", items).record
        self.batches.append((tenant, batch.id))
        if applied:
            self.apply_batches()

    def apply_batches(self) -> None:
        self.bulk.turn()

    def cancel_batch(self, which: int) -> None:
        tenant, batch_id = self.batches[which % len(self.batches)]
        sent = a_write(CommandKind.CANCEL_BATCH, tenant.principal, key=str(uuid4()), request_hash=b"same")
        self.stored.cancel(sent, None, batch_id)

    def operator_cancels(self, which: int) -> None:
        pending = [each["id"] for each in self.snapshot.attempts.values() if each["state"] == "PENDING"]
        if pending:
            self.operators.cancel(pending[which % len(pending) :][:2], "a step")

    def apply_all(self) -> None:
        """Apply all commands, also those of operators."""
        for _ in range(2):
            for place in reversed(range(len(self.world.waiting))):
                self.world.apply_waiting(place)
            for row in self.world.looking.execute("SELECT id FROM inbox WHERE applied_at IS NULL ORDER BY received_at"):
                self.world.apply.command(row["id"])

    # ---- oracle

    def dial(self, which: int, becomes: str) -> None:
        claim = self.world.held[which % len(self.world.held)]
        before = set(self.world.carrier.legs)
        super().dial(which, becomes)
        for sid in set(self.world.carrier.legs) - before:
            self._judge_ring(claim.attempt.id, self.world.carrier.legs[sid])

    def _judge_ring(self, attempt_id: UUID, leg: Leg) -> None:
        attempt = self.snapshot.attempts[attempt_id]
        candidate_id = self.snapshot.interviews[attempt["interview_id"]]["candidate_id"]
        chain = [each for each in self.snapshot.attempts.values() if each["chain_id"] == attempt["chain_id"]]
        began = min(each["created_at"] for each in chain)
        for said in self.said:
            told = self.world.asked[said.place]
            if told.outcome.status >= 400 or said.company_id != attempt["company_id"]:
                continue
            opted_out = said.outcome is ConversationOutcome.OPTED_OUT
            waits = told.outcome.status == 202
            if said.number == leg.to and (opted_out or waits or said.candidate_id == candidate_id):
                pytest.fail(f"rang a refused number: {said} {attempt}")
            if said.interview_id == attempt["interview_id"] and opted_out and began <= said.at + SLACK:
                pytest.fail(f"rang after an opt-out of the interview: {said} {attempt}")
        if attempt["retry_number"]:
            before = next(each for each in chain if each["retry_number"] == attempt["retry_number"] - 1)
            named = before["call_back"]
            if before["outcome"] == "CALL_BACK" and named["requested"].endswith("Z"):
                moved = any(each.attempt_id == attempt_id for each in self.world.asked)
                early = self.world.now() < datetime.fromisoformat(named["requested"])
                assert moved or not early, f"called back too early: {named} {attempt}"

    def _is_refused(self, attempt: Fields) -> bool:
        candidate = self.snapshot.candidates[self.snapshot.interviews[attempt["interview_id"]]["candidate_id"]]
        return any(
            self.world.asked[said.place].outcome.status < 400
            and said.company_id == attempt["company_id"]
            and (
                said.number == candidate["phone_number"]
                or (said.outcome is ConversationOutcome.OPTED_OUT and said.interview_id == attempt["interview_id"])
            )
            for said in self.said
        )

    def _is_quiet(self) -> bool:
        refused = {each["id"] for each in self.snapshot.attempts.values() if self._is_refused(each)}
        is_open = any(row.state == "IN_PROGRESS" or (row.state == "PENDING" and row.id not in refused) for row in self.snapshot.rows)
        awaited = any(each["outcome_until"] is not None for each in self.snapshot.attempts.values())
        is_held = any(line["attempt_id"] is not None for line in self.snapshot.lines.values())
        return not (is_open or is_held or awaited or self.world.waiting)

    def _a_good_round(self) -> None:
        self.apply_all()
        self.bulk.turn()
        super()._a_good_round()


_REPORT = {"outcome": OUTCOMES, "ahead": CALLS_BACK, "wall": seldom}
STEPS = (
    *test_machine.STEPS,
    Step("dial_what_is_due", 6, by={"becomes": BECOMES}),
    Step("change_reach", 2, by={"which": any_one, "number": any_one, "zone": test_machine.ZONES, "soon": [True, False]}),
    Step(
        "report",
        8,
        lambda machine: any(not leg.is_stray for leg in machine.world.carrier.legs.values()),
        {"which": any_one, **_REPORT, "applied": mostly, "foreign": seldom},
    ),
    Step(
        "a_conversation",
        8,
        lambda machine: machine.world.carrier.alive(),
        {"which": any_one, **_REPORT, "ends": mostly},
    ),
    Step("create_another", 2, by={"which": any_one, "ahead": [None, *test_machine.AHEAD], "applied": mostly}),
    Step("store_batch", 1, by={"which": any_one, "number": any_one, "applied": mostly}),
    Step("apply_batches", 1, lambda machine: machine.batches),  # type: ignore[attr-defined]
    Step("cancel_batch", 1, lambda machine: machine.batches, {"which": any_one}),  # type: ignore[attr-defined]
    Step("operator_cancels", 1, by={"which": any_one}),
    Step("apply_all", 1),
)


@pytest.mark.timeout(1800)
def test_rules_hold_whatever_conversations_report(
    database: Database, postgres_url: str, cleaner: Callable[[], object], aloud: Callable[[str], None]
) -> None:
    Conversing.reports, Conversing.accepted = 0, {}
    run(Conversing, database, postgres_url, cleaner, aloud)
    aloud(f"{Conversing.reports} reports, accepted {Conversing.accepted}")
    assert Conversing.reports > test_machine.EXAMPLES, "too few calls were reported"
