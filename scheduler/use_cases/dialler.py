"""The dialler: one event loop that claims what is due, sends the one POST of each attempt, and records the answers.

The only place from which a phone rings.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

from scheduler.carriers.interface import CarrierLine
from scheduler.clock import Now, monotonic
from scheduler.domain.attempt import Attempt
from scheduler.domain.call import AnswerUnknown, CallOrder, CarrierAnswer, NeverTaken
from scheduler.failpoints import failpoint
from scheduler.lifecycle import breaker
from scheduler.lifecycle.policy import RELEASE_SPAN, SEND_SPAN, Policy
from scheduler.logs import log
from scheduler.persistence.database import DatabaseAway
from scheduler.use_cases.dial import ClaimInDoubt, Dial, PermittedOrder, ToSend
from scheduler.use_cases.lease_alarm import LeaseAlarm
from scheduler.use_cases.permit import Permit

_log = log(__name__)
_FLUSH_EVERY = 0.02
_RETRY_CLAIM = 0.25
_RETRY_RECORD = 0.5
_SILENT_CALLS = 2
_SILENT_FOR_S = 1.0
_LONGEST_WAIT_S = RELEASE_SPAN.total_seconds()
_IN_TIME = timedelta(0)
_DRAIN_S = 15.0
T = TypeVar("T")


class Dialler:
    """Holds the hints that a worker was handed and dials what may be dialled: one event loop, in a thread of its own.

    `take` returns at once, so a hanging POST does not hold up the next hint. `stop` claims nothing more and waits for
    what was sent.
    """

    def __init__(self, dial: Dial, line: CarrierLine, policy: Policy, now: Now) -> None:
        self._dial = dial
        self._line = line
        self._policy = policy
        self._now = now
        self._hand: dict[UUID, float] = {}
        self._alarm = LeaseAlarm()
        self._sent_at: dict[UUID, float] = {}
        self._heard_at = 0.0
        self._unjudged: set[UUID] = set()
        self._answers: list[tuple[Attempt, CarrierAnswer]] = []
        self._cancelling: set[asyncio.Task[bool]] = set()
        self._stopping = False
        self._threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="dial")
        self._loop = asyncio.new_event_loop()
        self._wake = asyncio.Event()
        self._flush = asyncio.Event()
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
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._main())

    def _take(self, ids: tuple[UUID, ...]) -> None:
        until = monotonic() + RELEASE_SPAN.total_seconds()
        self._hand.update(dict.fromkeys(ids, until))
        self._wake.set()

    async def _main(self) -> None:
        recorder = asyncio.create_task(self._record_answers())
        calls: set[asyncio.Task[None]] = set()
        while not self._stopping:
            self._wake.clear()
            pause = _RETRY_CLAIM if self._is_in_doubt() else await self._claim_from_hand(calls)
            await _wait(self._wake, pause)
        if calls:
            await asyncio.wait(calls)
        self._flush.set()
        await recorder
        if self._cancelling:
            await asyncio.wait(self._cancelling)
        await self._line.close()

    async def _claim_from_hand(self, calls: set[asyncio.Task[None]]) -> float | None:
        """Claim what has a place. Returns how many seconds to wait before trying again; None: until woken."""
        instant = monotonic()
        self._hand = {each: until for each, until in self._hand.items() if until > instant}
        if not self._hand:
            return None
        ids = list(self._hand)
        try:
            claims = await self._in_thread(lambda: self._dial.claim(ids))
        except ClaimInDoubt as doubt:
            _log.warning("nobody knows whether these were claimed; they are given back", count=len(doubt.claimed))
            # The recorder reads each by its token, on another connection, until the database says which of them stand.
            self._answers += [(claim.attempt, NeverTaken(cause="NOT_SENT")) for claim in doubt.claimed]
            self._flush.set()
            return _RETRY_CLAIM
        except DatabaseAway:
            _log.warning("nothing is claimed: the database is away")
            return _RETRY_CLAIM
        except Exception:  # noqa: BLE001 - whatever it was, the loop must live for the other calls
            # The rows are released again; this hint is dropped rather than tried in a circle.
            _log.exception("a claim failed")
            self._hand.clear()
            return None
        for each in ids:
            if each not in claims.waiting:
                self._hand.pop(each, None)
        self._begin(claims.claimed, calls)
        if not self._hand:
            return None
        if claims.try_again_at is not None:
            # Never longer than a release stands: the clock may have been set back meanwhile.
            return min(_LONGEST_WAIT_S, max(0.01, (claims.try_again_at - self._now()).total_seconds()))
        return _RETRY_CLAIM

    def _begin(self, claimed: Sequence[ToSend], calls: set[asyncio.Task[None]]) -> None:
        for claim in self._in_step(claimed):
            self._alarm.hold(claim.attempt.id, claim.lease_ends)
            task = asyncio.create_task(self._call(claim))
            calls.add(task)
            task.add_done_callback(calls.discard)
        if claimed:
            failpoint("dial.claimed")

    def _in_step(self, claimed: Sequence[ToSend]) -> list[ToSend]:
        """The same, as far apart from each other as before, however long the claim took.

        Sent all at once because they are late, they would all be spent before the first answer tells that the
        carrier is down.
        """
        late = max((self._now() - min(each.send_at for each in claimed)) if claimed else _IN_TIME, _IN_TIME)
        return [replace(each, send_at=each.send_at + late) for each in claimed]

    async def _call(self, claim: ToSend) -> None:
        attempt = claim.attempt
        try:
            answer = await self._dial_once(claim)
            if answer is not None:
                self._answers.append((attempt, answer))
                self._flush.set()
        except Exception:  # noqa: BLE001 - the same
            _log.exception("a dial broke off; it will be settled", attempt_id=str(attempt.id))
            self._unjudged.discard(attempt.id)
        finally:
            self._alarm.drop(attempt.id)

    async def _dial_once(self, claim: ToSend) -> CarrierAnswer | None:
        """Return the answer to the one POST, or None without one: the attempt was given back, or is not ours."""
        # A claim holds only what is sent within a second: a longer wait comes from a clock that was set back.
        await asyncio.sleep(min(SEND_SPAN, max(_IN_TIME, claim.send_at - self._now())).total_seconds())
        permit = Permit(claim, lambda: self._look(claim.attempt), self._alarm, self._now)
        cause = "SLOW_LOOK"
        while order := await permit.order():
            if self._is_in_doubt():
                cause = "CARRIER_IN_DOUBT"
                break
            failpoint("dial.looked")
            answer = await self._place(claim.attempt.id, order, permit)
            if not permit.has_refused:
                failpoint("dial.answered")
                return answer
        if permit.is_given_back:
            return None
        if permit.look_failed:
            return NeverTaken(cause="NOT_SENT")  # the recorder goes on trying to write that
        await self._in_thread(lambda: self._dial.give_back(claim.attempt, cause))
        return None

    async def _look(self, attempt: Attempt) -> PermittedOrder | None:
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

    async def _record_answers(self) -> None:
        """Write answers as they come, gathered for 20 ms; until all are written when stopping."""
        while True:
            await self._flush.wait()
            self._flush.clear()
            await asyncio.sleep(_FLUSH_EVERY)
            answers, self._answers = self._answers, []
            await self._record(answers)
            if self._stopping and not self._alarm and not self._answers:
                return

    async def _record(self, answers: list[tuple[Attempt, CarrierAnswer]]) -> None:
        """Write them together; what fails together is written one by one, so that none waits for another's trouble."""
        groups = [answers] if answers else []
        while groups:
            group = groups.pop(0)
            try:
                to_cancel = await self._in_thread(lambda group=group: self._dial.record(group))  # type: ignore[misc]
                failpoint("dial.judged")
                self._unjudged.difference_update(attempt.id for attempt, _ in group)
                self._cancel_at_the_carrier(to_cancel)
            except DatabaseAway:
                _log.warning("not recorded yet: the database is away", count=len(group))
                await asyncio.sleep(_RETRY_RECORD)
                groups.append(group)
            except Exception:  # noqa: BLE001 - the same
                if len(group) > 1:
                    groups.extend([each] for each in group)
                else:
                    _log.exception("not recorded; it will be settled", attempt_id=str(group[0][0].id))
                    self._unjudged.discard(group[0][0].id)

    def _cancel_at_the_carrier(self, call_sids: Sequence[str]) -> None:
        """Asked at once, because their turn in the queue comes soon; who settles asks again until they are over."""
        for sid in call_sids:
            task = asyncio.create_task(self._line.cancel(sid))
            self._cancelling.add(task)
            task.add_done_callback(self._cancelling.discard)

    async def _in_thread(self, step: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._threads, step)


async def _wait(event: asyncio.Event, seconds: float | None) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
