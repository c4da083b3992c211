"""A year of nights: people all over the world are due around closings, openings and clock changes.

The product's own code dials, over PostgreSQL and a simulated carrier. The test moves the clock from stop to stop and
delivers the hints, some of them twice.
"""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from random import Random
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

from scheduler.carriers.twilio import TwilioCallbacks
from scheduler.carriers.twilio_calls import TwilioCallPlacer
from scheduler.domain.attempt import Attempt
from scheduler.domain.call import CallOrder, CarrierAnswer, Schedule
from scheduler.domain.company import CallLimits, CallTimeInterval, CompanySettings, RetryPolicy, Weekday
from scheduler.domain.refusals import OutsideCallTimeInterval, Refused
from scheduler.hashing import Hasher
from scheduler.lifecycle import scheduling
from scheduler.lifecycle.policy import Policy
from scheduler.lifecycle.scheduling import Callee
from scheduler.persistence.database import Database
from scheduler.rules.tallies import Sent
from scheduler.timing import callee_zones
from scheduler.use_cases.dialling.claim import ToSend
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.release import Release
from scheduler.use_cases.settle import Settle
from scheduler.use_cases.shared import hints as tasks
from tests.conftest import TestClock, seed
from tests.support.builders import FOREVER, RecordingHints, Tenant, a_tenant, of_company
from tests.support.servers import ACCOUNT_SID, SimulatedCarrier, a_carrier, a_door, address_of, serving
from tests.verification.judge.hours import Hours
from tests.verification.world.bulk_attempts import FIRST, INVOKE, NewCall, copy_calls
from tests.verification.world.moved_clock import settling
from tests.verification.world.places import PLACES, SHAPES, Place, Shape, offset_text
from tests.verification.world.workers import callbacks_to

BEGINS = datetime(2027, 1, 4, tzinfo=UTC)
ENDS = datetime(2028, 1, 4, tzinfo=UTC)
POLICY = Policy(connect_timeout=timedelta(seconds=1), total_timeout=timedelta(seconds=2), short_call=timedelta())
A_DAY = timedelta(days=1)
A_MONTH = timedelta(days=30)
A_BATCH = 50
A_TICK = timedelta(seconds=15)
NEVER = datetime(2100, 1, 1, tzinfo=UTC)

AROUND_CLOSING_S = (-120, -37, -36, -35, -34, -30, -1, 0, 1)
AROUND_OPENING_S = (-1, 0, 1, 60)
OUTCOMES = ("answered",) * 6 + ("busy", "no_answer", "voicemail", "declined", "failed", "answered_unknown")
FAULTS = ("accept_then_500", "refuse_500", "drop", "429", "401", "accept_and_silence")
ODD_OFFSETS = tuple(timedelta(minutes=15 * quarter) for quarter in range(-48, 57))


@dataclass(frozen=True, kw_only=True)
class Wish:
    """One form of a requested time, with the zone or the offset that the text names."""

    text: str | None
    zone: str | None = None
    offset: timedelta | None = None


@dataclass(frozen=True, kw_only=True)
class RequestedCall:
    """One person's request, in the test's own terms."""

    interview_id: UUID
    place: Place
    shape: Shape
    candidate_zone: str | None
    wish: Wish
    due_at: datetime
    consent_until: date


@dataclass
class Year:
    url: str
    tenant: Tenant
    tenants: dict[str, Tenant]
    carrier: SimulatedCarrier
    now: TestClock
    dice: Random
    release: Release
    hear: Hear
    settle: Settle
    hints: RecordingHints
    line: TwilioCallPlacer
    runner: asyncio.Runner
    threads: ThreadPoolExecutor
    settings: dict[str, CompanySettings]
    asked: dict[UUID, RequestedCall] = field(default_factory=dict)
    numbers: dict[str, str] = field(default_factory=dict)
    """The latest number of each place."""
    refused: int = 0
    healthy: bool = False
    """The carrier's present plan contains no fault."""
    rounds: int = 0
    stops: list[datetime] = field(default_factory=list)

    # ---- the clock

    def pass_the_year(self, people: int, nights: int) -> None:
        """Create this many people in total, live through the year, and continue until no attempt is open."""
        eves = _eves(self.dice, nights)
        for place, eve in enumerate(eves):
            self._move_to(eve)
            self._ask(people * (place + 1) // nights - len(self.asked), eves[place : place + 2])
        self._move_to(ENDS)
        while (left := self._next()) < NEVER:
            assert left < ENDS + A_MONTH, "an attempt is polled without end"
            self._move_to(left)

    def _move_to(self, until: datetime) -> None:
        while self.now() < until:
            stop = min([each for each in self.stops if each > self.now()] or [until])
            bound = min(until, stop)
            at = min(self._next(), bound)
            chance = self.dice.random()
            if chance < 0.4 and bound - self.now() < A_DAY / 2:
                at = bound  # no worker ran until then: some calls are placed at the last instant, or too late
            elif chance < 0.7:  # a worker is late, and more calls have become due
                at = min(at + timedelta(seconds=self.dice.choice((3, 300, 3600))) * self.dice.random(), bound)
            self.now.instant = max(at, self.now() + timedelta(microseconds=1))
            self._work()
        self.stops = [each for each in self.stops if each > self.now()]

    def _next(self) -> datetime:
        """Return when something may next happen by itself."""
        [(at,)] = self.tenant.ask(_NEXT, now=self.now(), tick=A_TICK)
        return at or NEVER

    def _work(self) -> None:
        """Do all work that is due now. Dialling may move the clock by seconds."""
        self.rounds += 1
        while self.release.round(resends=False).released:
            rung = self.hints.ids(tasks.DIAL)
            self.hints.rung.clear()
            for start in range(0, len(rung), A_BATCH):
                self._dial(rung[start : start + A_BATCH])
        # As the clock does each second. Without it a callback whose hint was lost above would never be heard.
        self.release.round(resends=True)
        for event_id in self.hints.ids(tasks.HEAR):
            self.hear.event(event_id)
        self.hints.rung.clear()
        self.hints.rings.clear()
        while self.tenant.ask(_IS_TO_BE_SETTLED, now=self.now())[0][0]:
            self.settle.round()

    # ---- dialling

    def _dial(self, ids: Sequence[UUID]) -> None:
        """Dial as the dialler does. Where it would wait, move the clock."""
        waiting = list(ids)
        for _ in range(4):
            hands = 2 if self.dice.random() < 0.1 else 1  # a duplicate hint
            claims = list(self.threads.map(self.tenant.dial.claim, [waiting] * hands))
            mine = sorted((each for claim in claims for each in claim.claimed), key=lambda each: each.send_at)
            if mine:
                self.now.instant = max(self.now(), mine[-1].send_at)
                self.runner.run(self._send(mine))
            again_at = claims[0].try_again_at
            waiting = list(claims[0].waiting)
            if not waiting or again_at is None:
                return
            self.now.instant = max(self.now(), again_at)

    async def _send(self, mine: Sequence[ToSend]) -> None:
        died = self.dice.random() < 0.02  # the process dies before it sends or before it records
        loop = asyncio.get_running_loop()
        looks = [loop.run_in_executor(self.threads, self.tenant.dial.last_look, each.attempt) for each in mine]
        orders = await asyncio.gather(*looks)
        sent = [(each.attempt, order) for each, order in zip(mine, orders, strict=True) if order is not None]
        if died and self.dice.random() < 0.5:
            return
        self._plan()
        if self.dice.random() < 0.3:
            self.now.move(timedelta(milliseconds=self.dice.randrange(200)))
        answers = await asyncio.gather(*(self._place(attempt, order) for attempt, order in sent))
        times = {attempt.id: Sent(lateness=timedelta(), answered_after=0.0, look=order.look) for attempt, order in sent}
        # When the carrier answers this later request, all calls that ring at once have rung.
        await loop.run_in_executor(self.threads, self.carrier.check_health)
        if not died:
            await loop.run_in_executor(self.threads, self.tenant.dial.record, answers, times)

    async def _place(self, attempt: Attempt, order: CallOrder) -> tuple[Attempt, CarrierAnswer]:
        return attempt, await self.line.place(order)

    def _plan(self) -> None:
        """Plan the outcome of the next calls. Often the plan stays as it is."""
        if self.healthy and self.dice.random() < 0.6:
            return
        fault = self.dice.choice(FAULTS) if self.dice.random() < 0.12 else None
        self.healthy = fault is None
        callbacks = None if self.dice.random() < 0.1 else "none"
        plan = {"outcome": self.dice.choice(OUTCOMES), "fault": fault, "callbacks": callbacks, "ring_s": 0, "talk_s": 0}
        self.carrier.clear()
        self.carrier.plan(**plan)

    # ---- asking

    def _ask(self, people: int, eves: Sequence[datetime]) -> None:
        """Create people for the nights after these eves, near an opening, a closing or a clock change."""
        made: list[tuple[RequestedCall, str, Schedule, datetime]] = []
        while len(made) < people:
            place, shape, eve = self.dice.choice(PLACES), self.dice.choice(SHAPES), self.dice.choice(eves)
            edges = list(_edges(place, shape, eve))
            if edges:
                instant, around = self.dice.choice(edges)
                self.stops.append(instant + timedelta(seconds=self.dice.choice(around)))
            for _ in range(5):  # neighbours, so that several become due together
                person = self._person_due(place, shape, self._near(edges, eve))
                if person is not None:
                    made.append(person)
        self._take_in(made)
        self.stops = sorted({each for each in self.stops if each > self.now()})

    def _near(self, edges: Sequence[tuple[datetime, Sequence[int]]], eve: datetime) -> datetime:
        if not edges or self.dice.random() < 0.15:
            return eve + timedelta(seconds=self.dice.randrange(2 * 86_400))
        instant, around = self.dice.choice(edges)
        if self.dice.random() < 0.5:
            return instant + timedelta(seconds=self.dice.choice(around))
        return instant + timedelta(seconds=self.dice.choice((1, -1)) * self.dice.randrange(5400))

    def _person_due(
        self, place: Place, shape: Shape, at: datetime
    ) -> tuple[RequestedCall, str, Schedule, datetime] | None:
        """Return a person who is due about then, or None if the product refuses the request."""
        number = self._number(place)
        candidate_zone = self.dice.choice(_ZONES) if self.dice.random() < 0.15 else None
        for _ in range(3):
            wish = self._wish(place, candidate_zone or shape.timezone, at)
            consent = FOREVER if self.dice.random() < 0.9 else (at + A_DAY * self.dice.randrange(2)).date()
            try:
                schedule = self._schedule(number, wish.text, shape, candidate_zone, consent)
            except OutsideCallTimeInterval as refused:
                opening = refused.details["nextAllowedAt"]
                if opening is None:
                    break
                at = datetime.fromisoformat(opening) + timedelta(seconds=self.dice.choice((0, 1, 30, 600)))
            except Refused:
                break
            else:
                asked = RequestedCall(
                    interview_id=uuid4(),
                    place=place,
                    shape=shape,
                    candidate_zone=candidate_zone,
                    wish=wish,
                    due_at=schedule.due_at,
                    consent_until=consent,
                )
                lives = timedelta(minutes=self.dice.randrange(1, 90)) if self.dice.random() < 0.05 else 7 * A_DAY
                return asked, number, schedule, schedule.due_at + lives
        self.refused += 1
        return None

    def _number(self, place: Place) -> str:
        """Build a new number or, rarely, the latest number of this place again."""
        if place.name not in self.numbers or self.dice.random() < 0.95:
            self.numbers[place.name] = place.a_number(self.dice)
        return self.numbers[place.name]

    def _schedule(
        self, number: str, text: str | None, shape: Shape, candidate_zone: str | None, consent: date
    ) -> Schedule:
        callee = Callee(
            number=callee_zones.read_number(number),
            timezone=candidate_zone,
            consent_until=consent,
            settings=self.settings[shape.name],
        )
        schedule, _ = scheduling.on_request(text, callee, self.now(), POLICY)
        return schedule

    def _wish(self, place: Place, elsewhere: str | None, at: datetime) -> Wish:
        """Build the instant in one of the five forms in which it may be requested."""
        at = at.replace(microsecond=0)
        home = ZoneInfo((place.zones or (elsewhere or "UTC",))[0])
        match self.dice.choice(("none", "offset", "zone", "Z", "wall", "wall")):
            case "none":
                return Wish(text=None)
            case "offset":
                own = at.astimezone(home).utcoffset()
                assert own is not None
                offset = own if self.dice.random() < 0.6 else self.dice.choice(ODD_OFFSETS)
                return Wish(text=f"{(at + offset):%Y-%m-%dT%H:%M:%S}{offset_text(offset)}", offset=offset)
            case "zone":
                zone = self.dice.choice((home.key, home.key, self.dice.choice(_ZONES)))
                local = at.astimezone(ZoneInfo(zone))
                ahead = local.utcoffset()
                assert ahead is not None
                return Wish(text=f"{local:%Y-%m-%dT%H:%M:%S}{offset_text(ahead)}[{zone}]", zone=zone)
            case "Z":
                return Wish(text=f"{at:%Y-%m-%dT%H:%M:%SZ}")
        return Wish(text=f"{at.astimezone(ZoneInfo(elsewhere) if elsewhere else home):%Y-%m-%dT%H:%M:%S}")

    def _take_in(self, made: Sequence[tuple[RequestedCall, str, Schedule, datetime]]) -> None:
        """Write what `apply` would write for each person."""
        calls = []
        for asked, number, schedule, expires_at in made:
            self.asked[asked.interview_id] = asked
            calls.append(
                NewCall(
                    tenant=self.tenants[asked.shape.name],
                    kind=INVOKE if self.dice.random() < 0.5 else FIRST,
                    number=number,
                    schedule=schedule,
                    expires_at=expires_at,
                    interview_id=asked.interview_id,
                    timezone=asked.candidate_zone,
                    consent_until=asked.consent_until,
                )
            )
        if calls:
            copy_calls(self.url, calls)


_ZONES = tuple(sorted({zone for place in PLACES for zone in place.zones}))


@cache
def changes(zone: str) -> tuple[datetime, ...]:
    """List the instants of this year at which the zone's clock changes, to the second."""
    clock = ZoneInfo(zone)
    instants = []
    for day in range((ENDS - BEGINS) // A_DAY):
        early, late = BEGINS + day * A_DAY, BEGINS + (day + 1) * A_DAY
        if early.astimezone(clock).utcoffset() == late.astimezone(clock).utcoffset():
            continue
        before = early.astimezone(clock).utcoffset()
        while late - early > timedelta(seconds=1):
            middle = (early + (late - early) / 2).replace(microsecond=0)
            early, late = (middle, late) if middle.astimezone(clock).utcoffset() == before else (early, middle)
        instants.append(late)
    return tuple(instants)


def _eves(dice: Random, nights: int) -> list[datetime]:
    """List the mornings before the nights. Clocks change somewhere in about half of the nights."""
    changing = sorted({instant.replace(hour=0, minute=0, second=0) for zone in _ZONES for instant in changes(zone)})
    others = [BEGINS + day * A_DAY for day in range(2, (ENDS - BEGINS) // A_DAY)]
    chosen = dice.sample(changing, min(len(changing), nights // 2))
    chosen += dice.sample([each for each in others if each not in chosen], nights - len(chosen))
    return sorted(day - timedelta(hours=14) for day in chosen)


def _edges(place: Place, shape: Shape, eve: datetime) -> Iterator[tuple[datetime, Sequence[int]]]:
    """Yield openings, closings and clock changes after an eve, each with the seconds around it to test."""
    until = eve + timedelta(hours=40)
    for zone in place.zones[:2] or ("UTC",):
        yield from ((at, (-3600, -36, -1, 0, 1, 1800, 3564)) for at in changes(zone) if eve < at < until)
        for day in range(-1, 3):
            yield from _edges_of_a_day(ZoneInfo(zone), shape.hours, (eve + day * A_DAY).date(), eve, until)


def _edges_of_a_day(
    zone: ZoneInfo, hours: Sequence[Hours], day: date, eve: datetime, until: datetime
) -> Iterator[tuple[datetime, Sequence[int]]]:
    midnight = datetime.combine(day, datetime.min.time(), zone)
    for each in hours:
        if day.weekday() in each.days:
            for second, around in ((each.start_s, AROUND_OPENING_S), (each.end_s, AROUND_CLOSING_S)):
                at = (midnight + timedelta(seconds=second)).astimezone(UTC)
                if eve < at < until:
                    yield at, around


_NEXT = """
    SELECT min(at) FROM (
        SELECT CASE WHEN a.due_at > :now THEN a.due_at ELSE greatest(
                   CAST(:now AS timestamptz) + CAST(:tick AS interval),
                   a.released_until,
                   CASE WHEN l.interview_id IS DISTINCT FROM a.interview_id THEN l.free_at END
               ) END AS at
        FROM attempts a JOIN lines l ON l.number_hash = a.number_hash
        WHERE a.state = 'PENDING'
        UNION ALL
        SELECT expires_at FROM attempts WHERE state = 'PENDING'
        UNION ALL
        SELECT least(lease_until, look_at) FROM attempts WHERE lease_until IS NOT NULL OR look_at IS NOT NULL
    ) AS coming
"""

_IS_TO_BE_SETTLED = """
    SELECT EXISTS (SELECT FROM attempts WHERE state = 'PENDING' AND expires_at <= :now)
        OR EXISTS (SELECT FROM attempts WHERE lease_until <= :now)
        OR EXISTS (SELECT FROM attempts WHERE look_at <= :now)
"""


def intervals(shape: Shape) -> tuple[CallTimeInterval, ...]:
    """Build a company's hours as the product's own intervals."""
    return tuple(
        CallTimeInterval(
            days=frozenset(Weekday(day) for day in each.days),
            start=timedelta(seconds=each.start_s),
            end=timedelta(seconds=each.end_s),
        )
        for each in shape.hours
    )


@contextmanager
def a_year(url: str, dice: Random) -> Iterator[Year]:
    """Start the system on a clock set to the beginning of the year."""
    now = TestClock(BEGINS)
    door = a_door()
    with ExitStack() as stack:
        carrier = stack.enter_context(a_carrier(calls_per_second=1_000_000_000.0))
        carrier.clock = now
        hasher = Hasher("a pepper for tests")
        database = Database(url, pool_size=12, history_key=hasher.history_key())
        stack.callback(database.close)
        companies = {shape.name: _company(database, now, shape) for shape in SHAPES}
        tenant = a_tenant(database, companies[SHAPES[0].name], hasher, now, policy=POLICY, account_sid=ACCOUNT_SID)
        tenants = {name: of_company(tenant, company) for name, company in companies.items()}
        account = carrier.account(public_url=address_of(door))
        hints = RecordingHints()
        hear = Hear(tenant.context, hints, TwilioCallbacks(account))
        app = callbacks_to(lambda *received, **kind: hear.store([hear.genuine(*received, **kind)]))
        stack.enter_context(serving(app, door))
        runner = stack.enter_context(asyncio.Runner())
        line = TwilioCallPlacer(account, POLICY)
        stack.callback(lambda: runner.run(line.close()))
        yield Year(
            url=url,
            tenant=tenant,
            tenants=tenants,
            settings={name: _settings(each) for name, each in tenants.items()},
            carrier=carrier,
            now=now,
            dice=dice,
            release=Release(tenant.context, hints, tenant.account_id),
            hear=hear,
            settle=stack.enter_context(settling(account, tenant)),
            hints=hints,
            line=line,
            runner=runner,
            threads=stack.enter_context(ThreadPoolExecutor(8)),
        )


def _settings(tenant: Tenant) -> CompanySettings:
    with tenant.database.transaction() as stores:
        company = stores.companies.get(tenant.company_id)
    assert company is not None
    return company.settings


def _company(database: Database, now: TestClock, shape: Shape) -> object:
    return seed(
        database,
        now(),
        intervals=intervals(shape),
        timezone=shape.timezone,
        limits=CallLimits(concurrent_calls=shape.concurrent_calls, calls_per_second=shape.calls_per_second),
        retry_policy=RetryPolicy() if shape.retries else RetryPolicy(max_retries=0),
    )
