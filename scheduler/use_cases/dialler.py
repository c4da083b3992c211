"""The dialler: one event loop that claims what is due, sends the one POST of each attempt, and records the answers.

The only place from which a phone rings.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from scheduler.carriers.interface import CallPlacer
from scheduler.clock import Now, monotonic
from scheduler.domain.attempt import Attempt
from scheduler.domain.call import AnswerUnknown, CallOrder, CarrierAnswer, NeverTaken, Withheld
from scheduler.failpoints import failpoint
from scheduler.lifecycle import breaker
from scheduler.lifecycle.capacity import SendRate, in_step
from scheduler.lifecycle.policy import LOOK_TO_SEND, RELEASE_SPAN, SEND_SPAN, Policy
from scheduler.logs import log
from scheduler.persistence.database import DatabaseAway, LockTaken
from scheduler.use_cases.dial import ClaimInDoubt, Claims, ClaimTooSlow, Dial, PermittedOrder, ToSend
from scheduler.use_cases.dialling.hand import Hand
from scheduler.use_cases.dialling.lease_alarm import LeaseAlarm
from scheduler.use_cases.dialling.look_limit import LookLimit
from scheduler.use_cases.dialling.permit import Permit
from scheduler.use_cases.dialling.recorder import Answer, Recorder
from scheduler.use_cases.dialling.watch import LockWatch, LookWatch

_log = log(__name__)
_RETRY_CLAIM = 0.25
_RETRY_LOOK = 1.0
_SILENT_CALLS = 2
_SILENT_FOR_S = 1.0
_LONGEST_WAIT_S = RELEASE_SPAN.total_seconds()
_DRAIN_S = 15.0
T = TypeVar("T")


def _end_the_process() -> None:
    """Exit with status 70: a supervisor that restarts on failure only starts the worker again."""
    os._exit(os.EX_SOFTWARE)


class Dialler:
    """Holds the hints that a worker was handed and dials what may be dialled: one event loop, in a thread of its own.

    `take` returns at once, so a hanging POST does not hold up the next hint. `stop` claims nothing more and waits for
    what was sent. `on_failure` is called when the loop has ended by an error: a worker without it would take hints and
    dial nothing, so by default the process ends.
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
        self._rate = SendRate()
        self._locks = LockWatch(dial.lock_holder)
        self._looks = LookWatch()
        self._alarm = LeaseAlarm()
        self._look_limit = LookLimit()
        self._unsent: set[UUID] = set()
        self._account_free_at = 0.0
        self._conflicts = 0
        self._sent_at: dict[UUID, float] = {}
        self._heard_at = 0.0
        self._unjudged: set[UUID] = set()
        self._cancelling: set[asyncio.Task[bool]] = set()
        self._stopping = False
        self._is_over = False
        """No call is under way, and no other one is begun."""
        self._threads = _threads("dial")
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(_threads("names"))
        self._wake = asyncio.Event()
        self._recorder = Recorder(self._record, self._forget)
        self._thread = threading.Thread(target=self._run, name="dial-loop", daemon=True)

    def start(self) -> None:
        """Call from the main thread: the alarm that ends a frozen process must have its default action."""
        LeaseAlarm.prepare()
        self._thread.start()

    def take(self, ids: Sequence[UUID]) -> None:
        """Look at these, for as long as their release stands."""
        failpoint("dial.taken")
        self._loop.call_soon_threadsafe(self._take, tuple(ids))

    def stop_claiming(self) -> None:
        """Claim nothing more."""
        self._stopping = True
        self._loop.call_soon_threadsafe(self._wake.set)

    def stop(self) -> None:
        """Claim nothing more; wait up to 15 s for the POSTs under way and their records."""
        self.stop_claiming()
        self._thread.join(_DRAIN_S)
        if self._thread.is_alive():
            _log.error("stopped with calls unrecorded; they will be settled", count=len(self._alarm))

    # ---- all below runs on the loop

    def _run(self) -> None:
        LeaseAlarm.unblock()
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._main())
        except BaseException:  # noqa: BLE001 - whatever it was, a worker without its loop dials nothing
            _log.exception(
                "dialler_failed: The dial loop ended by an error. The worker exits to be started again.",
                alarm="DIALLER_FAILED",
            )
            self._on_failure()

    def _take(self, ids: tuple[UUID, ...]) -> None:
        self._hand.take(ids, monotonic())
        self._wake.set()

    async def _main(self) -> None:
        recorder = asyncio.create_task(self._recorder.run(lambda: self._is_over))
        calls: set[asyncio.Task[None]] = set()
        while not self._stopping:
            self._wake.clear()
            pause = _RETRY_CLAIM if self._is_in_doubt() else await self._claim_from_hand(calls)
            await _wait(self._wake, pause)
        if calls:
            await asyncio.wait(calls)
        self._is_over = True
        self._recorder.wake()
        await recorder
        if self._cancelling:
            await asyncio.wait(self._cancelling)
        await self._line.close()

    # ---- claiming

    async def _claim_from_hand(self, calls: set[asyncio.Task[None]]) -> float | None:
        """Claim what has a place. Returns how many seconds to wait before trying again; None: until woken."""
        try:
            await self._give_turns()
            ids = self._next_ids()
            if not ids:
                return self._pause()
            if await self._looks_are_too_slow(ids[0]):
                return _RETRY_LOOK
            claims = await self._in_thread(lambda: self._dial.claim(ids))
        except ClaimInDoubt as doubt:
            _log.warning("nobody knows whether these were claimed; they are given back", count=len(doubt.claimed))
            # The recorder reads each by its token, on another connection, until the database says which of them stand.
            self._recorder.add(*((claim.attempt, NeverTaken(cause="NOT_SENT")) for claim in doubt.claimed))
            return _RETRY_CLAIM
        except LockTaken:
            self._conflicts += 1
            _log.info("claim_conflict", count=self._conflicts)
            await self._in_thread(lambda: self._locks.saw({None}, set(), monotonic()))
            return 0.0
        except ClaimTooSlow:
            _log.warning("A claim took too long and was rolled back; the next one is smaller.", count=len(ids))
            self._rate.fell_behind(monotonic())
            return _RETRY_CLAIM
        except DatabaseAway:
            _log.warning("nothing is claimed: the database is away")
            return _RETRY_CLAIM
        except Exception:  # noqa: BLE001 - whatever it was, the loop must live for the other calls
            # The rows are released again; this hint is dropped rather than tried in a circle.
            _log.exception("a claim failed")
            self._hand.clear()
            return None
        await self._learn(ids, claims)
        self._begin(claims.claimed, calls)
        return self._pause()

    async def _give_turns(self) -> None:
        new = self._hand.without_a_turn()
        if new:
            self._hand.give_turns(new, await self._in_thread(lambda: self._dial.hinted(new)))

    def _next_ids(self) -> list[UUID]:
        """As many as this machine can send soon, and the account may start."""
        instant = monotonic()
        if self._account_free_at > instant:
            return []
        room = self._rate.may_claim(instant, len(self._unsent) + len(self._recorder))
        return self._hand.next(instant, room) if room else []

    async def _looks_are_too_slow(self, attempt_id: UUID) -> bool:
        """Whether the calls of a claim would only be given back. Tried by a look when the last one took too long.

        Claimed all the same, they would end undecided if the database became too slow to give them back.
        """
        took = self._dial.look_took
        if took is None:
            return False
        if took > LOOK_TO_SEND:
            took = await self._in_thread(lambda: self._dial.try_look(attempt_id))
        return self._looks.is_too_slow(took, monotonic())

    async def _learn(self, ids: Sequence[UUID], claims: Claims) -> None:
        """Drop the hints that a claim has used, and hold those that it could not use."""
        instant = monotonic()
        if claims.is_stopped:
            self._hand.clear()
            return
        again_s = _RETRY_CLAIM
        if claims.try_again_at is not None:
            again_s = max(0.01, self._until(claims.try_again_at))
        self._hand.drop(each for each in ids if each not in claims.waiting)
        # Not those that lack only a place: while they were held, later hints would take each place that becomes free.
        self._hand.hold(claims.waiting - claims.unplaced, instant + _RETRY_CLAIM)
        self._hand.hold(claims.full, instant + again_s)
        self._hand.hold(claims.locked, instant + _RETRY_CLAIM)
        if claims.account_free_at is not None:
            self._account_free_at = instant + self._until(claims.account_free_at)
        if claims.locked or self._locks:
            await self._in_thread(lambda: self._locks.saw(claims.locked, {None, *claims.unlocked}, instant))

    def _until(self, at: datetime) -> float:
        """Seconds until then, but never longer than a release lasts: the clock may have been set back meanwhile."""
        return min(_LONGEST_WAIT_S, max(0.0, (at - self._now()).total_seconds()))

    def _pause(self) -> float | None:
        """Seconds until something may be claimed again, if no call is sent, recorded or hinted at before."""
        if not self._hand:
            return None
        if self._next_ids():
            return 0.0
        wait = max(self._account_free_at, self._hand.ready_at() or 0.0) - monotonic()
        return wait if wait > 0 else _RETRY_CLAIM

    def _begin(self, claimed: Sequence[ToSend], calls: set[asyncio.Task[None]]) -> None:
        send_at = in_step([each.send_at for each in claimed], self._now())
        for claim in (replace(each, send_at=at) for each, at in zip(claimed, send_at, strict=True)):
            if monotonic() >= claim.send_by:
                self._withhold(claim, "TOO_SLOW")
                continue
            self._unsent.add(claim.attempt.id)
            self._alarm.hold(claim.attempt.id, claim.lease_ends)
            task = asyncio.create_task(self._call(claim))
            calls.add(task)
            task.add_done_callback(calls.discard)
        if claimed:
            failpoint("dial.claimed")

    # ---- sending

    async def _call(self, claim: ToSend) -> None:
        attempt = claim.attempt
        try:
            answer = await self._dial_once(claim)
            if answer is not None:
                self._recorder.add((attempt, answer))
        except Exception:  # noqa: BLE001 - the same
            _log.exception("a dial broke off; it will be settled", attempt_id=str(attempt.id))
            self._unjudged.discard(attempt.id)
        finally:
            self._alarm.drop(attempt.id)
            self._look_limit.end(attempt.id)
            self._is_sent(attempt.id)

    def _is_sent(self, attempt_id: UUID) -> None:
        """Sent or given back: there is room for another one."""
        self._unsent.discard(attempt_id)
        self._wake.set()

    async def _dial_once(self, claim: ToSend) -> CarrierAnswer | None:
        """Return what to record: the answer to the one POST, or why there was none. None: a last look wrote it."""
        # A claim holds only what is sent within a second: a longer wait comes from a clock that was set back.
        await asyncio.sleep(min(SEND_SPAN.total_seconds(), self._until(claim.send_at)))
        permit = Permit(claim, lambda: self._look(claim.attempt), self._alarm, self._now, lambda: self._left(claim))
        while order := await permit.order():
            if self._is_in_doubt():
                return Withheld(cause="CARRIER_IN_DOUBT")
            failpoint("dial.looked")
            answer = await self._place(claim.attempt.id, order, permit)
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

    def _left(self, claim: ToSend) -> None:
        self._look_limit.end(claim.attempt.id)
        self._rate.sent(monotonic())
        self._is_sent(claim.attempt.id)

    def _withhold(self, claim: ToSend, cause: str) -> None:
        """Give back a call that was not begun."""
        self._rate.fell_behind(monotonic())
        self._recorder.add((claim.attempt, Withheld(cause=cause)))

    async def _look(self, attempt: Attempt) -> PermittedOrder | None:
        await self._look_limit.begin(attempt.id)
        return await self._in_thread(lambda: self._dial.last_look(attempt))

    async def _place(self, attempt_id: UUID, order: CallOrder, permit: Permit) -> CarrierAnswer:
        self._sent_at[attempt_id] = monotonic()
        try:
            answer = await self._line.place(order, permit)
        finally:
            del self._sent_at[attempt_id]
        if permit.has_refused:
            return answer
        if not isinstance(answer, AnswerUnknown):
            self._heard_at = monotonic()
        elif breaker.opens_at_once(answer.cause):
            self._unjudged.add(attempt_id)
        return answer

    def _is_in_doubt(self) -> bool:
        """Whether one more POST may be spent like the last ones; sooner than the breaker can tell.

        An answer that will open it is not recorded yet. Or several POSTs are out and none was answered since they were
        sent, though the first one's time is not over; one that hangs among others that are answered holds up nobody.
        """
        if self._unjudged:
            return True
        silent = [sent for sent in self._sent_at.values() if sent > self._heard_at]
        return len(silent) >= _SILENT_CALLS and min(silent) < monotonic() - _SILENT_FOR_S

    # ---- recording

    async def _record(self, answers: Sequence[Answer]) -> None:
        to_cancel = await self._in_thread(lambda: self._dial.record(answers))
        failpoint("dial.judged")
        self._unjudged.difference_update(attempt.id for attempt, _ in answers)
        self._cancel_at_the_carrier(to_cancel)
        self._wake.set()

    def _forget(self, answer: Answer) -> None:
        self._unjudged.discard(answer[0].id)

    def _cancel_at_the_carrier(self, call_sids: Sequence[str]) -> None:
        """Asked at once, because their turn in the queue comes soon; who settles asks again until they are over."""
        for sid in call_sids:
            task = asyncio.create_task(self._line.cancel(sid))
            self._cancelling.add(task)
            task.add_done_callback(self._cancelling.discard)

    async def _in_thread(self, step: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._threads, step)


def _threads(name: str) -> ThreadPoolExecutor:
    """Threads that do not take the signal of the alarm: the loop starts them, and each would inherit its mask."""
    return ThreadPoolExecutor(max_workers=12, thread_name_prefix=name, initializer=LeaseAlarm.block)


async def _wait(event: asyncio.Event, seconds: float | None) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
