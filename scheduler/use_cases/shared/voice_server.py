"""State of the voice server: calls without instructions, probes and trial calls decide whether calls are placed."""

from collections.abc import Sequence
from datetime import datetime

from scheduler.carriers.interface import QueryNotSent, VoiceServer
from scheduler.domain.attempt import Attempt
from scheduler.lifecycle import voice_server
from scheduler.lifecycle.breaker import BACK_OFF, Breaker
from scheduler.lifecycle.voice_server import Trial
from scheduler.logs import log
from scheduler.persistence.errors import DatabaseAway
from scheduler.persistence.stores import Stores
from scheduler.use_cases.shared.context import Context

_log = log(__name__)


class VoiceServerJudge:
    """Opens the breaker after calls without instructions, and closes it after a probe and a trial call."""

    def __init__(self, context: Context, server: VoiceServer | None, account_id: int) -> None:
        """Judge with `server`. None: it cannot be probed."""
        self._database = context.database
        self._server = server
        self._account_id = account_id
        self._policy = context.policy
        self._now = context.now
        self._answered_at: datetime | None = None
        """The last good answer to a probe after a failure."""

    def hear(self, failed: Sequence[Attempt]) -> None:
        """Count calls whose instructions have failed. If that is impossible now, the next failure counts them too.

        Not in the transaction that stored the failure, because the account is locked before any attempt.
        """
        if not failed:
            return
        try:
            self._count(failed)
        except DatabaseAway:
            _log.warning("voice_failure_not_judged: the next call without instructions judges the voice server")

    def _count(self, failed: Sequence[Attempt]) -> None:
        latest = max(each.claimed_at for each in failed if each.claimed_at is not None)
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            account = stores.carrier_accounts.lock(self._account_id)
            opened = account.breaker
            if opened.down_until is not None and voice_server.after_failure(opened, latest, now) == opened:
                return  # it was no trial, and this failure shows nothing new
            failures = stores.voice_failures.in_a_row(account.id, now - voice_server.WITHIN)
            companies = stores.companies.count_up_to(2)
            if opened.down_until is not None:
                judged = voice_server.after_failure(opened, latest, now, failures.companies if companies > 1 else None)
                stores.carrier_accounts.set_breaker(account.id, judged, now)
                _report_down(judged)
                return
        if not voice_server.opens(failures, companies, answers=False):
            return
        # Outside the transaction. Failures of two companies need no answer.
        if not voice_server.opens(failures, companies, answers=True) and self._answers() is not False:
            return
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            account = stores.carrier_accounts.lock(self._account_id)
            if account.breaker.down_until is None:
                judged = voice_server.after_failure(account.breaker, latest, now)
                stores.carrier_accounts.set_breaker(account.id, judged, now)
                _report_down(judged)

    def run(self) -> None:
        """Probe a voice server whose breaker is open. A good answer permits a trial call, or ends its trial.

        Raises DatabaseAway, LockTaken.
        """
        begun = self._begin()
        if begun is None:
            return
        before, probed = begun
        if self._server is not None:
            try:
                if not self._server.answers():
                    _log.info("voice_server_silent: the voice server did not answer a probe, so all calls wait")
                    return
            except QueryNotSent:
                return
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            account = stores.carrier_accounts.lock(self._account_id)
            if account.breaker != probed:
                return  # a newer probe, or a call
            trial = self._trial(stores, before, now)
            if trial is not None and trial.is_open:
                return  # the next probe asks again
            judged = voice_server.after_probe(before, now, trial)
            stores.carrier_accounts.set_breaker(account.id, judged, now)
            stores.notify_due()
        if judged.down_until is None:
            _log.info("voice_server_up: a trial call got its instructions")
        elif judged.is_down:
            _log.info(
                "voice_server_unknown: the trial calls were not answered, so all calls wait for the next one",
                until=judged.down_until.isoformat(),
            )
        else:
            _log.info("voice_server_half_open: the voice server answered a probe, so one call is tried")

    def _trial(self, stores: Stores, breaker: Breaker, now: datetime) -> Trial | None:
        """Read the trial whose verdict the breaker awaits. None: it awaits none."""
        if not voice_server.awaits_verdict(breaker) or breaker.answered_at is None:
            return None
        return stores.voice_failures.trial(self._account_id, breaker.answered_at, now, self._policy.room)

    def _answers(self) -> bool | None:
        """Probe the voice server. A good answer is kept for a moment: each probe may take a worker's thread for 2 s."""
        now, kept = self._now(), self._answered_at
        if kept is not None and kept <= now < kept + BACK_OFF[0]:  # guard: kept_answer
            return True
        try:
            answers = None if self._server is None else self._server.answers()
        except QueryNotSent:
            return True
        self._answered_at = now if answers else None
        return answers

    def _begin(self) -> tuple[Breaker, Breaker] | None:
        """Mark the probe as running, so that one of several workers sends it. Return the breaker before and after.

        None: no probe of the voice server is due.
        """
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            found = stores.carrier_accounts.get(self._account_id).breaker
            self._notice_trial(stores, found, now)
            # Check before locking, because every claim waits for this row.
            if not (voice_server.is_down(found) and found.is_to_be_asked(now)):
                return None
            before = stores.carrier_accounts.lock(self._account_id).breaker
            if not (voice_server.is_down(before) and before.is_to_be_asked(now)):
                return None
            probed = voice_server.while_probed(before, now)
            stores.carrier_accounts.set_breaker(self._account_id, probed, now)
        return before, probed

    def _notice_trial(self, stores: Stores, found: Breaker, now: datetime) -> None:
        """Await the verdict of a placed trial whose record was lost. Otherwise calls would wait until it ends."""
        since = voice_server.tried_since(found)
        if since is None or not stores.voice_failures.is_tried(self._account_id, since):
            return
        if stores.carrier_accounts.lock(self._account_id).breaker == found:
            placed = voice_server.after_trial_was_placed(found, now)
            stores.carrier_accounts.set_breaker(self._account_id, placed, now)


def _report_down(judged: Breaker) -> None:
    _log.error(
        "voice_server_down: the voice server gave answered calls no instructions, so all calls wait",
        alarm="VOICE_SERVER_DOWN",
        until=judged.down_until and judged.down_until.isoformat(),
    )
