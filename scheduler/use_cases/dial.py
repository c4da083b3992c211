"""The stage `dial`: an event loop that claims due attempts, sends one POST for each, and records the answers.

    take ─► claim ─► last look ─► POST ─► record
            commit    ≤ 200 ms    once    fenced by the epoch

After any failure nothing is sent again. Before the POST the attempt returns to PENDING. After it the lease lapses and
`settle` polls the carrier. No other code places calls. The parts are in `dialling`.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from uuid import UUID

from scheduler.carriers.interface import CallPlacer
from scheduler.clock import Now
from scheduler.failpoints import failpoint
from scheduler.logs import log
from scheduler.persistence.errors import DatabaseAway, WrongDatabase
from scheduler.process import CHECK_EVERY_S, QUIET_DATABASE_S, made_progress, watching
from scheduler.use_cases.dialling.claim import Claiming
from scheduler.use_cases.dialling.claimer import RETRY_CLAIM_S, Claimer, NotNow, Room
from scheduler.use_cases.dialling.look import Looks
from scheduler.use_cases.dialling.record import Recorder, Records
from scheduler.use_cases.dialling.sender import Sender
from scheduler.use_cases.dialling.watch import DatabaseThreads, LeaseAlarm, LookWatch
from scheduler.use_cases.shared.context import Context

_log = log(__name__)
_DRAIN_S = 15.0


def _end_the_process() -> None:
    """Exit with status 70, so that a supervisor that restarts only on failure starts the worker again."""
    os._exit(os.EX_SOFTWARE)


class Dial:
    """The database steps of one dial, each one short transaction. Only `Claiming` keeps state: late slots."""

    def __init__(self, context: Context, account_id: int) -> None:
        self._database = context.database
        self.claiming = Claiming(context, account_id)
        records = Records(context, account_id)
        self.looks = Looks(context, records)
        self.claim, self.hinted = self.claiming.claim, self.claiming.hinted
        self.lock_holder = self.claiming.lock_holder
        self.look_all, self.verdict, self.last_look = self.looks.look_all, self.looks.verdict, self.looks.last_look
        self.record, self.give_back = records.record, records.give_back

    def prove(self) -> None:
        """Raise DatabaseAway or WrongDatabase unless claims work now."""
        self._database.prove()


class Dialler:
    """Holds the hints of a worker and dials their attempts, in an event loop with its own thread.

    `take` returns at once, so a hanging POST does not delay the next hint. `on_failure` is called when the loop has
    ended with an error. By default it ends the process, because the worker would take hints and dial nothing.
    """

    def __init__(
        self, dial: Dial, line: CallPlacer, now: Now, *, on_failure: Callable[[], None] = _end_the_process
    ) -> None:
        self._dial = dial
        self._line = line
        self._on_failure = on_failure
        self._threads = DatabaseThreads()
        self._wake = asyncio.Event()
        self._alarm = LeaseAlarm()
        threads, watch = self._threads, LookWatch()
        self.room = Room(self._alarm, lambda: self.recorder.unwritten, self._wake.set)
        self.recorder = Recorder(dial.record, threads, line.cancel, self.room.wake_if_awaited)
        self.claimer = Claimer(dial.claiming, dial.looks, threads, now, self.room, watch, self.recorder)
        self.sender = Sender(dial.looks, line, threads, now, self._alarm, self.room, watch, self.recorder)
        self._proof: asyncio.Task[None] | None = None
        self._stopping = False
        self._has_ended = False
        """True once all calls have ended and no further one is begun."""
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(LeaseAlarm.threads("names"))
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
        return [] if self._thread.is_alive() else self.claimer.hand.ids()

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

    async def _main(self) -> None:
        recorder = asyncio.create_task(self.recorder.run(lambda: self._has_ended))
        while not self._stopping:
            if recorder.done():
                recorder.result()  # raises its error: nothing would be recorded
            self._wake.clear()
            pause = await self.claim_and_send()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
        await self.sender.end()
        self._has_ended = True
        self.recorder.wake()
        await recorder
        await self._line.close()

    async def claim_and_send(self) -> float | None:
        """Claim the hinted attempts that have a place, and begin their calls. Each answer goes to the recorder.

        Returns the seconds until the next claim. None: wait to be woken.
        """
        self.room.is_awaited = self.sender.is_in_doubt()
        if self.room.is_awaited:
            return RETRY_CLAIM_S
        try:
            claimed = await self.claimer.claim()
        except NotNow as failed:
            return failed.seconds
        self.sender.send(claimed)
        return self.claimer.pause()

    def _take(self, ids: Sequence[UUID], due_at: Mapping[UUID, datetime]) -> None:
        self.claimer.take(ids, due_at)
        self._wake.set()

    def _begin_proof(self, received: Callable[[], None], worked: Callable[[], None]) -> None:
        received()
        self._proof = asyncio.create_task(self._prove(worked))
        self._wake.set()

    async def _prove(self, worked: Callable[[], None]) -> None:
        try:
            await self._threads.run(self._dial.prove)
        except (DatabaseAway, WrongDatabase):
            _log.warning("work_not_proven: a transaction of this dial worker failed, so it counts as not ready")
        else:
            worked()
