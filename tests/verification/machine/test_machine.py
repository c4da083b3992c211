"""State machine test: the rules hold after any sequence of use cases over the real stores."""

import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar

import hypothesis
import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from psycopg.rows import dict_row

from scheduler.clock import monotonic
from scheduler.domain.attempt import Decision
from scheduler.domain.call import Accepted, AnswerUnknown, CallOrder, NeverTaken, NumberRefused
from scheduler.domain.command import DeleteAttempt, DeleteInterview, InvokeAttempt, RescheduleAttempt, UpdateInterview
from scheduler.domain.company import EVERY_DAY, CallLimits, CallTimeInterval, CompanySettings, RetryPolicy
from scheduler.lifecycle.policy import Policy
from scheduler.persistence.database import Database
from scheduler.use_cases.shared import hints as tasks
from tests.support.builders import ALWAYS, Reach
from tests.verification.carrier.scripted import ENDS, Leg, Way
from tests.verification.judge.history import Verb
from tests.verification.judge.invariants import Fields, Snapshot, faults
from tests.verification.judge.violations import Wrong, violations
from tests.verification.machine.world import World, as_text

EXAMPLES = int(os.environ.get("DUECALL_EXAMPLES", "15"))
"""`make proof` runs 300, with another seed each time."""
SETTINGS = settings(
    max_examples=EXAMPLES, stateful_step_count=50, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
SPANS = [timedelta(seconds=seconds) for seconds in (1, 5, 6, 16, 61, 301, 601, 901, 7_200, 15_000, 43_200, 100_000)]
AHEAD = [timedelta(seconds=seconds) for seconds in (0, 30, 600, 3_600, 20_000, 90_000)]
DAYTIME = (CallTimeInterval(days=EVERY_DAY, start=timedelta(hours=9), end=timedelta(hours=17)),)
LIMITS = CallLimits(concurrent_calls=1000, calls_per_second=1000.0)
HUNG_UP_AFTER = Policy().max_call
"""Before this span is over, a listed call is given up only if the carrier's list could not be read."""
ROUNDS = 150
"""Rounds within which all attempts must finish. A number is called once in ten minutes, and all may share one."""

TAKES_IT, LOSES_IT, NEVER_GETS_IT = (
    "the carrier takes it",
    "the carrier takes it, and its answer is lost",
    "the carrier never gets it",
)
REFUSES_IT, SILENCE = "the carrier refuses the number", "the carrier takes no call, and its answer is lost"
DIES_BEFORE, DIES_AFTER = "the dialler dies before its last look", "the dialler dies after its POST"
QUEUES_IT = "the carrier takes it, and queues it for hours"
FORGETS_IT = "the carrier takes it, its answer is lost, and its lists omit it"
NOT_TAKEN = {
    NEVER_GETS_IT: NeverTaken(cause="NEVER_CONNECTED"),
    REFUSES_IT: NumberRefused(cause="TWILIO_21211"),
    SILENCE: AnswerUnknown(cause="NO_ANSWER_IN_TIME"),
}

any_one = range(60)
"""Index of an item, taken modulo the number of items."""
mostly = [*[True] * 5, False]
seldom = [False, False, False, False, True]
ZONES = [None, None, "America/New_York", "Asia/Tokyo"]
BECOMES = [*[TAKES_IT] * 8, *[LOSES_IT] * 2, *[FORGETS_IT] * 2, *NOT_TAKEN, QUEUES_IT, DIES_BEFORE, DIES_AFTER]
A_CALL = {"which": any_one, "end": list(ENDS), "steps": [4, 3, 2, 1], "told": mostly}


class Machine(RuleBasedStateMachine):
    new_world: ClassVar[Callable[[], World]]
    steps: ClassVar[int] = 0
    rings: ClassVar[int] = 0
    examples: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).examples += 1
        self.world = type(self).new_world()
        for place, number in enumerate(self.world.numbers):
            self.world.create(self.world.tenants[place % 2], number, None, applied=True)
        self.snapshot = self.world.read_snapshot()
        self.is_whole = True
        self.goes_to_its_end = False

    @initialize(goes_to_its_end=st.sampled_from([False, False, False, True]))
    def begin(self, goes_to_its_end: bool) -> None:
        """Bring one example in four to its end, to check that no attempt is lost."""
        self.goes_to_its_end = goes_to_its_end

    def look(self) -> Snapshot:
        self.snapshot = self.world.read_snapshot()
        return self.snapshot

    def one(self, place: int) -> Fields:
        """Choose an attempt, usually an open one."""
        attempts = list(self.snapshot.attempts.values())
        is_open = [each for each in attempts if each["state"] in _OPEN]
        chosen = is_open if is_open and place % 4 else attempts
        return chosen[-1 - place % len(chosen)]

    @rule(chosen=st.integers(0, 2**64 - 1))
    def step(self, chosen: int) -> None:
        """Run a step drawn from one integer, because the possible steps may differ between runs (ids, tokens)."""
        dice = random.Random(chosen)
        steps = self.possible_steps()
        what = dice.choice([step.what for step in steps for _ in range(step.weight) if step.needs(self)])
        by = next(step.by for step in steps if step.what == what)
        choices = {name: dice.choice(each) for name, each in by.items()}
        hypothesis.note(f"{what} {choices}")
        self.is_whole = False
        getattr(self, what)(**choices)

    def possible_steps(self) -> "Sequence[Step]":
        return STEPS

    def tenant_of(self, row: Fields) -> Any:
        return next(tenant for tenant in self.world.tenants if tenant.company_id == row["company_id"])

    # ---- callers

    def create(self, which: int, number: int, ahead: timedelta | None, applied: bool) -> None:
        world = self.world
        at = None if ahead is None else (world.now() + ahead).replace(microsecond=0) + timedelta(seconds=1)
        world.create(world.tenants[which % 2], world.numbers[number % len(world.numbers)], at, applied=applied)

    def move(self, which: int, ahead: timedelta, applied: bool) -> None:
        attempt = self.one(which)
        at = (self.world.now() + ahead).replace(microsecond=0) + timedelta(seconds=1)
        request = RescheduleAttempt(
            interview_id=attempt["interview_id"], attempt_id=attempt["id"], scheduled_at=as_text(at)
        )
        self.world.ask(self.tenant_of(attempt), request, due_at=at, applied=applied)

    def delete(self, which: int, applied: bool) -> None:
        attempt = self.one(which)
        request = DeleteAttempt(interview_id=attempt["interview_id"], attempt_id=attempt["id"])
        self.world.ask(self.tenant_of(attempt), request, applied=applied)

    def invoke(self, which: int, applied: bool) -> None:
        attempt = self.one(which)
        self.world.ask(self.tenant_of(attempt), InvokeAttempt(interview_id=attempt["interview_id"]), applied=applied)

    def let_it_expire(self, which: int, ahead: timedelta, applied: bool) -> None:
        attempt = self.one(which)
        at = self.world.now() + ahead + timedelta(minutes=2)
        request = UpdateInterview(interview_id=attempt["interview_id"], expires_at=as_text(at))
        self.world.ask(self.tenant_of(attempt), request, applied=applied)

    def delete_for_good(self, which: int, applied: bool, of_interview: bool) -> None:
        """Delete the interview, or its candidate."""
        attempt = self.one(which)
        tenant, interview = self.tenant_of(attempt), self.snapshot.interviews[attempt["interview_id"]]
        if of_interview:
            self.world.ask(tenant, DeleteInterview(interview_id=interview["id"]), applied=applied)
        elif self.snapshot.candidates[interview["candidate_id"]]["erased_at"] is None:
            self.world.records.delete_candidate(tenant.principal, interview["candidate_id"])

    def decide(self, which: int, decision: Decision, applied: bool) -> None:
        """Decide about any attempt: most are refused, because their outcome is known or was decided."""
        attempt = self.one(which)
        self.world.decide(self.tenant_of(attempt), attempt["id"], decision, applied=applied)

    def apply(self, which: int) -> None:
        self.world.apply_waiting(which % len(self.world.waiting))

    # ---- operators and records

    def pause_or_resume(self, which: int | None, pauses: bool) -> None:
        company_id = None if which is None else self.world.tenants[which].company_id
        self.world.pause_or_resume(Verb.PAUSE if pauses else Verb.RESUME, company_id)

    def change_settings(self, which: int, always: bool, max_retries: int, soon: bool) -> None:
        hours, retries = ALWAYS if always else DAYTIME, RetryPolicy(max_retries=max_retries)
        changed = CompanySettings(intervals=hours, retry_policy=retries, limits=LIMITS)
        self.world.records.change_settings(self.world.tenants[which % 2].principal, changed)
        if soon:
            self.world.records.recompute()

    def change_reach(self, which: int, number: int, zone: str | None, soon: bool) -> None:
        attempt = self.one(which)
        candidate = self.snapshot.candidates[self.snapshot.interviews[attempt["interview_id"]]["candidate_id"]]
        if candidate["erased_at"] is None:
            reach = Reach(phone_number=self.world.numbers[number % len(self.world.numbers)], timezone=zone)
            self.world.records.change_reach(self.tenant_of(candidate).principal, candidate["id"], reach)
        if soon:
            self.world.records.recompute()

    # ---- dialling

    def release(self) -> None:
        before = self.snapshot
        rung = len(self.world.hints.rung)
        self.world.release.round(resends=False)
        for task, attempt_id in self.world.hints.rung[rung:]:
            assert task == tasks.DIAL
            assert list(before.stops_claim(before.attempts[attempt_id])) == [], "released although a rule forbids it"

    def claim(self) -> None:
        """Claim with hints for all attempts: a hint alone is never a reason to claim."""
        before = self.snapshot
        claims = self.world.tenant.dial.claim(list(before.attempts))
        for claim in claims.claimed:
            assert list(before.stops_claim(before.attempts[claim.attempt.id])) == [], (
                "claimed although a rule forbids it"
            )
        self.world.held.extend(claims.claimed)

    def dial(self, which: int, becomes: str) -> None:
        """Take the last look and, if it allows, send the POST. The answer is recorded later, or never."""
        world = self.world
        claim = world.held.pop(which % len(world.held))
        if becomes == DIES_BEFORE:
            return
        order = world.tenant.dial.last_look(claim.attempt)
        if order is None:
            return
        attempt = self.snapshot.attempts[claim.attempt.id]
        assert list(self.snapshot.stops_ring(attempt, order.to)) == [], "dialled although a rule forbids it"
        if becomes in NOT_TAKEN:
            world.sent.append((claim.attempt, NOT_TAKEN[becomes]))
            return
        leg = self._ring(order, attempt, is_listed=becomes != FORGETS_IT)
        if becomes in {LOSES_IT, FORGETS_IT}:
            world.sent.append((claim.attempt, NOT_TAKEN[SILENCE]))
        elif becomes != DIES_AFTER:
            waits = timedelta(hours=6) if becomes == QUEUES_IT else timedelta()
            world.sent.append((claim.attempt, Accepted(call_sid=leg.sid, queue_time=waits)))

    def _ring(self, order: CallOrder, attempt: Fields, *, is_listed: bool) -> Leg:
        """Start the call. Any other live call to this number must have been given up as unknown."""
        type(self).rings += 1
        for other in self.world.carrier.alive():
            if other.to == order.to and not other.is_stray:
                theirs = next(row for row in self.snapshot.rows for claim in row.claims if claim.token == other.token)
                given_up = theirs.reason == "OUTCOME_UNKNOWN" and self.snapshot.attempts[theirs.id]["look_at"] is None
                assert given_up, f"two calls to one number at once: {theirs}"
                hung_up_at = other.created_at + HUNG_UP_AFTER
                assert not other.is_listed or self.world.now() >= hung_up_at, (
                    f"given up without reading the call list: {theirs}"
                )
                assert theirs.id != attempt["id"], "an attempt rang twice"
        return self.world.carrier.ring(order, self.world.now(), is_listed=is_listed)

    def dial_what_is_due(self, becomes: str) -> None:
        """Claim, dial and record in one step."""
        self.claim()
        while self.world.held:
            self.world.tick()
            self.look()
            self.dial(0, becomes)
        while self.world.sent:
            self.record(0)

    def record(self, which: int) -> None:
        self.world.tenant.dial.record([self.world.sent.pop(which % len(self.world.sent))])

    # ---- the carrier

    def a_call_goes_on(self, which: int, end: str, steps: int, told: bool) -> None:
        carrier = self.world.carrier
        leg = carrier.alive()[which % len(carrier.alive())]
        for _ in range(steps):
            if leg.is_alive:
                leg = carrier.goes_towards(leg, end, self.world.now())
                if told:
                    self.world.deliver(carrier.callbacks[-1])
        if told:
            self._hear_all()

    def _hear_all(self) -> None:
        for event_id in self.world.unheard()[-4:]:
            self.world.hear.event(event_id)

    def a_callback_comes(self, which: int, heard: bool) -> None:
        """Deliver any callback: late, before an earlier one, or again."""
        callbacks = self.world.carrier.callbacks
        self.world.deliver(callbacks[-1 - which % len(callbacks)])
        if heard:
            self._hear_all()

    def hear(self, which: int) -> None:
        unheard = self.world.unheard()
        self.world.hear.event(unheard[which % len(unheard)])

    def the_carrier_calls_twice(self, which: int, really: bool) -> None:
        """Start a second call by the carrier's mistake. Its callbacks carry the token of the ordered call."""
        carrier = self.world.carrier
        leg = carrier.alive()[which % len(carrier.alive())]
        if not really or any(each.is_stray for each in carrier.legs.values()):
            return
        stray = carrier.ring(leg, self.world.now(), is_stray=True)
        carrier.goes_on(stray, Way(status="initiated"), self.world.now())

    def settle(self, away: bool) -> None:
        self.world.carrier.is_away = away
        self.world.settle.round()
        self.world.carrier.is_away = False

    def time_passes(self, span: timedelta) -> None:
        self.world.now.move(span)

    # ---- rules

    @invariant()
    def nothing_is_wrong(self) -> None:
        type(self).steps += 1
        self.world.tick()
        before = self.snapshot
        snapshot = self.look()
        assert list(faults(snapshot, before)) == []
        wrong = violations(self.world.history(snapshot))
        # `_ring` checks for two legs, because it knows whether the other call was given up as unknown.
        assert [each for each in wrong if each.kind is not Wrong.TWO_LEGS] == []
        self.is_whole = True

    def teardown(self) -> None:
        if self.is_whole and self.goes_to_its_end:
            self._bring_all_to_an_end()

    def _bring_all_to_an_end(self) -> None:
        """Resume calling, run all workers and answer all calls: then every attempt must finish."""
        for company_id in (None, *(tenant.company_id for tenant in self.world.tenants)):
            self.world.pause_or_resume(Verb.RESUME, company_id)
        for _ in range(ROUNDS):
            self.nothing_is_wrong()
            if self._is_quiet():
                return
            self._a_good_round()
        pytest.fail(f"still waiting after {ROUNDS} rounds: {[row for row in self.snapshot.rows if row.state in _OPEN]}")

    def _is_quiet(self) -> bool:
        is_open = any(row.state in _OPEN for row in self.snapshot.rows)
        is_held = any(line["attempt_id"] is not None for line in self.snapshot.lines.values())
        return not (is_open or is_held or self.world.waiting)

    def _a_good_round(self) -> None:
        world = self.world
        for company_id in (tenant.company_id for tenant in world.tenants):
            world.pause_or_resume(Verb.RESUME, company_id)
        for place in reversed(range(len(world.waiting))):
            world.apply_waiting(place)
        world.records.recompute()
        world.tick()
        self.look()
        self.dial_what_is_due(TAKES_IT)
        for leg in world.carrier.alive():
            going = leg
            while going.is_alive:
                going = world.carrier.goes_towards(going, "a person answers", world.now())
                if not going.is_listed:
                    world.deliver(world.carrier.callbacks[-1])
        world.now.move(timedelta(minutes=11))
        rung = len(world.hints.rung)
        world.release.round(resends=True)
        for task, event_id in world.hints.rung[rung:]:
            if task == tasks.HEAR:
                world.hear.event(event_id)
        world.settle.round()
        snapshot = self.look()
        due = [row.due_at for row in snapshot.rows if row.state == "PENDING"]
        if due and not any(row.state == "IN_PROGRESS" for row in snapshot.rows):
            world.now.instant = max(world.now(), min(due))


_OPEN = {"PENDING", "IN_PROGRESS"}


@dataclass(frozen=True)
class Step:
    what: str
    weight: int
    needs: Callable[[Machine], Any] = field(default=lambda _: True, repr=False)
    by: Mapping[str, Sequence[Any]] = field(default_factory=dict, repr=False)


STEPS = (
    # The dial
    Step("dial_what_is_due", 4, by={"becomes": BECOMES}),
    Step("claim", 6),
    Step("dial", 5, lambda machine: machine.world.held, {"which": any_one, "becomes": BECOMES}),
    Step("record", 5, lambda machine: machine.world.sent, {"which": any_one}),
    Step("release", 1),
    # The carrier
    Step("a_call_goes_on", 8, lambda machine: machine.world.carrier.alive(), A_CALL),
    Step("a_callback_comes", 3, lambda machine: machine.world.carrier.callbacks, {"which": any_one, "heard": mostly}),
    Step("hear", 1, lambda machine: machine.world.unheard(), {"which": any_one}),
    Step(
        "the_carrier_calls_twice",
        1,
        lambda machine: machine.world.carrier.alive(),
        {"which": any_one, "really": seldom},
    ),
    Step("settle", 5, by={"away": seldom}),
    Step("time_passes", 6, by={"span": SPANS}),
    # Callers
    Step("create", 3, by={"which": any_one, "number": any_one, "ahead": [*[None] * 6, *AHEAD], "applied": mostly}),
    Step("move", 2, by={"which": any_one, "ahead": AHEAD, "applied": mostly}),
    Step("delete", 2, by={"which": any_one, "applied": mostly}),
    Step("decide", 2, by={"which": any_one, "decision": [*Decision], "applied": mostly}),
    Step("invoke", 3, by={"which": any_one, "applied": mostly}),
    Step("let_it_expire", 1, by={"which": any_one, "ahead": AHEAD, "applied": mostly}),
    Step("delete_for_good", 1, by={"which": any_one, "applied": mostly, "of_interview": mostly}),
    Step("apply", 3, lambda machine: machine.world.waiting, {"which": any_one}),
    # Operators and records
    Step("pause_or_resume", 1, by={"which": [0, 1, None], "pauses": seldom}),
    Step("change_settings", 1, by={"which": any_one, "always": mostly, "max_retries": range(4), "soon": mostly}),
    Step("change_reach", 1, by={"which": any_one, "number": any_one, "zone": ZONES, "soon": mostly}),
)


@pytest.mark.timeout(1800)
def test_rules_hold_after_any_sequence_of_steps(
    database: Database, postgres_url: str, cleaner: Callable[[], object], aloud: Callable[[str], None]
) -> None:
    run(Machine, database, postgres_url, cleaner, aloud)


def run(
    machine: type[Machine],
    database: Database,
    postgres_url: str,
    cleaner: Callable[[], object],
    aloud: Callable[[str], None],
) -> None:
    other = random.SystemRandom().randrange(10**6) if "DUECALL_EXAMPLES" in os.environ else 20
    chosen = int(os.environ.get("DUECALL_SEED") or other)
    print(f"DUECALL_SEED={chosen} repeats this run")
    began = monotonic()
    with psycopg.connect(postgres_url, autocommit=True, row_factory=dict_row) as looking:

        def new_world() -> World:
            cleaner()
            return World(database=database, looking=looking)

        machine.new_world = new_world
        machine.steps = machine.rings = machine.examples = 0
        run_state_machine_as_test(hypothesis.seed(chosen)(machine), settings=SETTINGS)
    seconds = monotonic() - began
    aloud(f"{machine.examples} examples, {machine.steps} steps, {machine.rings} rings, {seconds:.1f} s, seed {chosen}")
    assert machine.rings > EXAMPLES, "too few calls rang"
