"""Dialler: an event loop that claims due attempts, sends one POST for each, and records the answers.

No other code places calls.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache, partial
from typing import TypeVar
from uuid import UUID

from scheduler import process
from scheduler.carriers.interface import CallPlacer
from scheduler.clock import Now, monotonic
from scheduler.domain.attempt import Attempt
from scheduler.domain.call import AnswerUnknown, CallOrder, CarrierAnswer, NeverTaken, Withheld
from scheduler.failpoints import failpoint
from scheduler.lifecycle import breaker
from scheduler.lifecycle.capacity import SendRate, in_step, look_waits
from scheduler.lifecycle.policy import LOOK_TO_SEND, LOOKS_TOGETHER, RELEASE_SPAN, SEND_SPAN, Policy
from scheduler.logs import log
from scheduler.persistence.errors import DatabaseAway, LockTaken, WrongDatabase
from scheduler.process import CHECK_EVERY_S, QUIET_DATABASE_S, made_progress, watching
from scheduler.use_cases.dial import Dial
from scheduler.use_cases.dialling.hand import (
    PLACES_COME_TOGETHER,
    ClaimInDoubt,
    Claims,
    ClaimTooSlow,
    Hand,
    KnownPaces,
    PermittedOrder,
    SomeHeld,
    ToSend,
    on_monotonic,
)
from scheduler.use_cases.dialling.look import LookFacts, LookLimit, LookQueries, Permit, PutBack
from scheduler.use_cases.dialling.record import Answer, Recorder
from scheduler.use_cases.dialling.watch import LeaseAlarm, LockWatch, LookWatch, PostTimes

_log = log(__name__)
_RETRY_CLAIM = 0.25
_RETRY_LOOK = 1.0
_LONGEST_WAIT_S = RELEASE_SPAN.total_seconds()
_DRAIN_S = 15.0
T = TypeVar("T")


def _end_the_process() -> None:
    """Exit with status 70, so that a supervisor that restarts only on failure starts the worker again."""
    os._exit(os.EX_SOFTWARE)


class Dialler:
    """Holds the hints of a worker and dials their attempts, in an event loop with its own thread.

    `take` returns at once, so a hanging POST does not delay the next hint. `on_failure` is called when the loop has
    ended with an error. By default it ends the process, because the worker would take hints and dial nothing.
    """

    def __init__(
        self,
        dial: Dial,
        line: CallPlacer,
        policy: Policy,
        now: Now,
        *,
        on_failure: Callable[[], None] = _end_the_process,
    ) -> None:
        self._dial = dial
        self._line = line
        self._policy = policy
        self._now = now
        self._on_failure = on_failure
        self._hand = Hand()
        self._paces = KnownPaces()
        self._rate = SendRate()
        self._locks = LockWatch(dial.lock_holder)
        self._looks = LookWatch()
        self._alarm = LeaseAlarm()
        self._look_limit = LookLimit()
        self._look_queries = LookQueries(self._look_all)
        self._unsent: set[UUID] = set()
        self._waits_for_calls = False
        """True if the loop waits for an answer, or for calls to be sent or recorded. Otherwise none wakes it."""
        self._account_free_at = 0.0
        self._conflicts = 0
        self._post_times = PostTimes()
        self._unrecorded_failures: set[UUID] = set()
        self._cancelling: set[asyncio.Task[bool]] = set()
        self._proof: asyncio.Task[None] | None = None
        self._stopping = False
        self._has_ended = False
        """True once all calls have ended and no further one is begun."""
        self._threads = LeaseAlarm.threads("dial")
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(LeaseAlarm.threads("names"))
        self._wake = asyncio.Event()
        self._recorder = Recorder(self._record, self._forget)
        self._thread = threading.Thread(target=self._run, name="dial-loop", daemon=True)

    def start(self) -> None:
        """Start the loop. Call from the main thread, which alone can set the action of the alarm signal."""
        LeaseAlarm.prepare()
        self._thread.start()

    def take(self, ids: Sequence[UUID], due_at: Mapping[UUID, datetime] | None = None) -> None:
        """Take hints, to claim their attempts while their release lasts.

        `due_at`: the due times of attempts that are not due yet. They are kept until then. The claim decides.
        """
        failpoint("dial.taken")
        self._loop.call_soon_threadsafe(self._take, tuple(ids), dict(due_at or {}))

    def prove(self, received: Callable[[], None], worked: Callable[[], None]) -> None:
        """Call `received` on the loop, and `worked` if a transaction of the loop's threads succeeds."""
        self._loop.call_soon_threadsafe(self._begin_proof, received, worked)

    def stop_claiming(self) -> None:
        """Stop claiming."""
        self._stopping = True
        self._loop.call_soon_threadsafe(self._wake.set)

    def stop(self) -> None:
        """Stop claiming, and wait up to 15 s for the POSTs in flight and their records."""
        self.stop_claiming()
        self._thread.join(_DRAIN_S)
        if self._thread.is_alive():
            _log.error(
                "dialler_stopped_early: some calls were not recorded in time and will be settled",
                count=len(self._alarm),
            )

    def left(self) -> list[UUID]:
        """List the attempts of the hints that are left after `stop`, so that another worker takes them."""
        return [] if self._thread.is_alive() else self._hand.ids()

    # ---- all below runs on the loop

    def _run(self) -> None:
        LeaseAlarm.unblock()
        asyncio.set_event_loop(self._loop)
        try:
            with watching("dial loop", QUIET_DATABASE_S):
                self._beat()
                self._loop.run_until_complete(self._main())
        except BaseException:  # noqa: BLE001 - after any error, a worker without its loop dials nothing
            _log.exception(
                "dialler_failed: the dial loop ended with an error, so the worker exits",
                alarm="DIALLER_FAILED",
            )
            self._on_failure()

    def _beat(self) -> None:
        made_progress()
        self._loop.call_later(CHECK_EVERY_S / 2, self._beat)

    def _take(self, ids: tuple[UUID, ...], due_at: Mapping[UUID, datetime]) -> None:
        self._hand.take(ids, monotonic(), on_monotonic(due_at, self._now))
        self._wake.set()

    def _begin_proof(self, received: Callable[[], None], worked: Callable[[], None]) -> None:
        received()
        self._proof = asyncio.create_task(self._prove(worked))
        self._wake.set()

    async def _prove(self, worked: Callable[[], None]) -> None:
        try:
            await self._in_thread(self._dial.prove)
        except (DatabaseAway, WrongDatabase):
            _log.warning("work_not_proven: a transaction of this dial worker failed, so it counts as not ready")
        else:
            worked()

    async def _main(self) -> None:
        recorder = asyncio.create_task(self._recorder.run(lambda: self._has_ended))
        calls: set[asyncio.Task[None]] = set()
        while not self._stopping:
            if recorder.done():
                recorder.result()  # raises its error: nothing would be recorded
            self._wake.clear()
            self._waits_for_calls = self._is_in_doubt()
            pause = _RETRY_CLAIM if self._waits_for_calls else await self._claim_from_hand(calls)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
        if calls:
            await asyncio.wait(calls)
        self._has_ended = True
        self._recorder.wake()
        await recorder
        if self._cancelling:
            await asyncio.wait(self._cancelling)
        await self._line.close()

    # ---- claiming

    async def _claim_from_hand(self, calls: set[asyncio.Task[None]]) -> float | None:
        """Claim the attempts that have a place. Return the seconds until the next try. None: wait to be woken."""
        if not self._hand:
            return None
        self._hand.become_due(monotonic())
        limit = self._limit()
        try:
            ids = self._hand.untried(limit)
            if not ids:
                await self._give_turns()
                ids = self._next_ids()
            if not ids:
                return self._pause()
            if await self._looks_are_too_slow(ids[0]):
                return _RETRY_LOOK
            claims = await self._in_thread(lambda: self._dial.claim(ids))
        except ClaimInDoubt as doubt:
            _log.warning(
                "claim_in_doubt: commit status of the claim is unknown, so the attempts go back to PENDING",
                count=len(doubt.claimed),
            )
            # The recorder looks up each by its token, on another connection, until it can read which were committed.
            self._recorder.add(*((claim.attempt, NeverTaken(cause="NOT_SENT")) for claim in doubt.claimed))
            return _RETRY_CLAIM
        except LockTaken:
            self._conflicts += 1
            _log.info("claim_conflict: another transaction held a row", count=self._conflicts)
            await self._in_thread(lambda: self._locks.saw({None}, set(), monotonic()))
            return 0.0
        except ClaimTooSlow:
            _log.warning("claim_too_slow: a claim took too long and was rolled back", count=len(ids))
            self._rate.fell_behind(monotonic())
            return _RETRY_CLAIM
        except DatabaseAway:
            _log.warning("claim_failed: the database is unavailable")
            return _RETRY_CLAIM
        except Exception:  # noqa: BLE001 - after any error, the loop must go on for the other calls
            # Dropped rather than retried in a loop: the clock releases the rows again.
            _log.exception("claim_failed: an unexpected error stopped a claim")
            self._hand.clear()
            return self._until_due()  # early hints are kept
        await self._update_hints(ids, claims)
        self._begin(claims.claimed, calls)
        return self._pause()

    async def _give_turns(self) -> None:
        ids = self._hand.without_a_turn()
        if ids:
            pending = await self._in_thread(lambda: self._dial.hinted(ids))
            self._hand.give_turns(ids, pending, cache(self._paces.last_start_of), monotonic())

    def _next_ids(self) -> list[UUID]:
        """Choose the next ids to claim, as many as this machine can send soon and the account may start."""
        limit, now = self._limit(), self._now()
        if not limit:
            return []
        return self._hand.next(monotonic(), limit, cache(lambda company_id: self._paces.of_company(company_id, now)))

    def _limit(self) -> int:
        """Compute how many ids the next claim can use."""
        room = self._room()
        if not room or self._account_free_at > monotonic():
            return 0
        return min(room, self._paces.of_account(self._now()))

    def _room(self) -> int:
        """Compute how many calls this machine may claim."""
        room = self._rate.may_claim(monotonic(), len(self._unsent) + self._recorder.unwritten)
        # Each claimed call may need a connection. Without a free one, other dial workers can send these calls.
        room = min(room, max(0, process.most_posts() - len(self._alarm)))
        if room and process.are_out():  # guard: no_descriptor
            process.report_shortage()
            room = 0
        self._waits_for_calls = not room
        return room

    async def _looks_are_too_slow(self, attempt_id: UUID) -> bool:
        """Return True if claimed calls would only be given back. Measures again if the latest look took too long.

        Do not claim them: if the database became too slow to give them back, their outcome would stay undecided.
        """
        took = self._dial.look_took
        if took is None:
            return False
        if took > LOOK_TO_SEND:
            took = await self._in_thread(lambda: self._dial.try_look(attempt_id))
        return self._looks.is_too_slow(took, monotonic())

    async def _update_hints(self, ids: Sequence[UUID], claims: Claims) -> None:
        """Drop the hints that a claim has used, and hold back the hints that it could not use."""
        instant = monotonic()
        if claims.is_stopped:
            self._hand.clear()
            if self._locks:  # the row of the account was free
                await self._in_thread(lambda: self._locks.saw(set(), {None}, instant))
            return
        again_s = _RETRY_CLAIM
        if claims.try_again_at is not None:
            again_s = max(0.01, self._until(claims.try_again_at + PLACES_COME_TOGETHER))
        self._paces.learn(claims.account, claims.companies)
        self._hand.wait_until_due(on_monotonic(claims.early, self._now))
        self._hand.drop(each for each in ids if each not in claims.waiting)
        # Do not hold attempts that lack only a place: later hints would take each place that becomes free.
        self._hand.hold(claims.waiting - claims.unplaced, instant + _RETRY_CLAIM)
        self._hand.hold(claims.full, instant + again_s)
        # There is no event for the end of a call, and its place must not wait for the pace of another company.
        without_room = [each for each in claims.full if claims.companies[each].room <= 0]
        self._hand.hold(without_room, instant + min(again_s, _RETRY_CLAIM))
        self._hand.hold(claims.locked, instant + _RETRY_CLAIM)
        if claims.account_free_at is not None:
            self._account_free_at = instant + self._until(claims.account_free_at)
        if claims.locked or self._locks:
            await self._in_thread(lambda: self._locks.saw(claims.locked, {None, *claims.unlocked}, instant))

    def _until(self, at: datetime) -> float:
        """Compute the seconds until then, at most the length of a release: the clock may have been set back."""
        return min(_LONGEST_WAIT_S, max(0.0, (at - self._now()).total_seconds()))

    def _pause(self) -> float | None:
        """Compute the seconds until the next claim, if no call is sent or recorded and no hint arrives before."""
        if not self._hand:
            return None
        if not self._room():
            return _RETRY_CLAIM  # a call that is sent or recorded wakes the loop
        if self._next_ids():
            return 0.0
        instant, due_at = monotonic(), self._hand.due_at()
        wait = max(self._account_free_at, self._hand.ready_at() or 0.0) - instant
        wait = wait if wait > 0 else _RETRY_CLAIM
        return wait if due_at is None else max(0.0, min(wait, max(self._account_free_at, due_at) - instant))

    def _until_due(self) -> float | None:
        """Compute the seconds until the next early hint becomes due. None without one."""
        due_at = self._hand.due_at()
        return None if due_at is None else max(0.0, due_at - monotonic())

    def _begin(self, claimed: Sequence[ToSend], calls: set[asyncio.Task[None]]) -> None:
        now, instant = self._now(), self._loop.time()
        send_at = in_step([each.send_at for each in claimed], now)
        for each, at, wait in zip(claimed, send_at, look_waits(send_at, now), strict=True):
            claim = each if each.send_at == at else replace(each, send_at=at)
            # Claimed calls are sent within a second. A longer wait comes from a clock that was set back.
            look_at = instant + min(wait, SEND_SPAN).total_seconds()
            if monotonic() >= claim.send_by:
                self._withhold(claim, "TOO_SLOW")
                continue
            self._unsent.add(claim.attempt.id)
            self._alarm.hold(claim.attempt.id, claim.lease_ends)
            task = asyncio.create_task(self._call(claim, look_at))
            calls.add(task)
            task.add_done_callback(calls.discard)
        if claimed:
            failpoint("dial.claimed")

    # ---- sending

    async def _call(self, claim: ToSend, look_at: float) -> None:
        """Dial one claimed call. Its last look begins at `look_at`, in the loop's time."""
        attempt = claim.attempt
        try:
            await asyncio.sleep(look_at - self._loop.time())
            answer = await self._dial_once(claim)
            if answer is not None:
                self._recorder.add((attempt, answer))
        except Exception:  # noqa: BLE001 - the loop must go on for the other calls
            _log.exception(
                "dial_failed: an unexpected error stopped a dial, and the attempt will be settled",
                attempt_id=str(attempt.id),
            )
            self._unrecorded_failures.discard(attempt.id)
            self._post_times.drop([attempt.id])
        finally:
            self._alarm.drop(attempt.id)
            self._look_limit.end(attempt.id)
            self._make_room(attempt.id)

    def _make_room(self, attempt_id: UUID) -> None:
        """Make room for another call: this one was sent or given back."""
        self._unsent.discard(attempt_id)
        self._wake_for_room()

    def _wake_for_room(self) -> None:
        if self._waits_for_calls:
            self._wake.set()

    async def _dial_once(self, claim: ToSend) -> CarrierAnswer | None:
        """Send at most one POST. Return its answer or the reason for not sending. None: a last look gave it back."""
        attempt = claim.attempt
        permit = Permit(claim, lambda: self._look(attempt), self._alarm, self._now, partial(self._on_left, attempt.id))
        while order := await permit.order():
            if claim.send_at > self._now():
                await asyncio.sleep(min(LOOKS_TOGETHER.total_seconds(), self._until(claim.send_at)))
            if self._is_in_doubt():
                return Withheld(cause="CARRIER_IN_DOUBT")
            failpoint("dial.looked")
            answer = await self._place(attempt.id, order, permit)
            if not permit.has_refused:
                failpoint("dial.answered")
                return answer
        if permit.is_given_back:
            return None
        if permit.look_failed:
            return NeverTaken(cause="NOT_SENT")
        self._rate.fell_behind(monotonic())
        if self._dial.look_took is not None:
            self._looks.is_too_slow(self._dial.look_took, monotonic())
        return Withheld(cause="TOO_SLOW" if permit.is_too_late else "SLOW_LOOK")

    def _on_left(self, attempt_id: UUID, age: timedelta, could_ring_at: datetime) -> None:
        self._post_times.left(attempt_id, self._now() - could_ring_at)
        self._look_limit.sent(attempt_id, age)
        self._rate.sent(monotonic())
        self._make_room(attempt_id)

    def _withhold(self, claim: ToSend, cause: str) -> None:
        """Give back a claimed call that was not started."""
        self._rate.fell_behind(monotonic())
        self._recorder.add((claim.attempt, Withheld(cause=cause)))

    async def _look(self, attempt: Attempt) -> PermittedOrder | None:
        await self._look_limit.begin(attempt.id)
        found = self._dial.verdict(attempt, await self._look_queries.of(attempt))
        if not isinstance(found, PutBack):
            return found
        await self._in_thread(lambda: self._dial.put_back(attempt, found))
        return None

    async def _look_all(self, attempts: Sequence[Attempt]) -> LookFacts:
        return await self._in_thread(lambda: self._dial.look_all(attempts))

    async def _place(self, attempt_id: UUID, order: CallOrder, permit: Permit) -> CarrierAnswer:
        with self._post_times.in_flight(attempt_id):
            answer = await self._line.place(order, permit)
        if permit.has_refused or isinstance(answer, Withheld):
            return answer
        if not isinstance(answer, AnswerUnknown):
            self._post_times.answered()
        elif breaker.opens_at_once(answer.cause):
            self._unrecorded_failures.add(attempt_id)
        return answer

    def _is_in_doubt(self) -> bool:
        """Return True if the next POST may be lost like the latest ones. Notices an outage before the breaker can.

        True while an answer that will open the breaker is not recorded yet, or while at least two POSTs are in flight,
        the first for over a second, and none was answered since. A single hanging POST among answered ones is ignored.
        """
        return bool(self._unrecorded_failures) or self._post_times.are_unanswered()

    # ---- recording

    async def _record(self, answers: Sequence[Answer]) -> None:
        """Record answers, and act on the recorded ones. Raises SomeHeld for the others."""
        sent = self._post_times.of([attempt.id for attempt, _ in answers])
        held: SomeHeld | None = None
        try:
            to_cancel: Sequence[str] = await self._in_thread(lambda: self._dial.record(answers, sent))
        except SomeHeld as some:
            held, to_cancel = some, some.to_cancel
        recorded = {attempt.id for attempt, _ in answers} - (held.attempt_ids if held else set())
        self._post_times.drop([each for each in sent if each in recorded])
        failpoint("dial.judged")
        self._unrecorded_failures.difference_update(recorded)
        self._cancel_at_the_carrier(to_cancel)
        self._wake_for_room()
        if held is not None:
            raise held

    def _forget(self, answer: Answer) -> None:
        self._post_times.drop([answer[0].id])
        self._unrecorded_failures.discard(answer[0].id)

    def _cancel_at_the_carrier(self, call_sids: Sequence[str]) -> None:
        """Cancel at once, because the calls leave the carrier's queue soon. Settle retries until they have ended."""
        for sid in call_sids:
            task = asyncio.create_task(self._line.cancel(sid))
            self._cancelling.add(task)
            task.add_done_callback(self._cancelling.discard)

    async def _in_thread(self, step: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._threads, partial(_watched, step))


def _watched(step: Callable[[], T]) -> T:
    with watching("dial", QUIET_DATABASE_S):
        return step()
