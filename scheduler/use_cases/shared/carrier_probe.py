"""Probes a carrier whose breaker or back-offs are open, for the settle round."""

from dataclasses import dataclass

from scheduler import process
from scheduler.carriers.interface import CarrierAway, CarrierQueries, CarrierUnavailable, QueryNotSent
from scheduler.failpoints import failpoint
from scheduler.lifecycle import backoffs, breaker
from scheduler.lifecycle.backoffs import Backoffs
from scheduler.lifecycle.breaker import Breaker
from scheduler.logs import log
from scheduler.persistence.carrier_accounts import CarrierAccount
from scheduler.use_cases.shared.context import Context

_log = log(__name__)


@dataclass(frozen=True, kw_only=True)
class _Probe:
    """The account and its back-offs before a probe, and the states stored while the probe is running."""

    before: CarrierAccount
    account: Breaker
    backoffs: Backoffs


class CarrierProbe:
    def __init__(self, context: Context, queries: CarrierQueries, account_id: int) -> None:
        self._database = context.database
        self._queries = queries
        self._account_id = account_id
        self._now = context.now

    def run(self) -> bool:
        """Probe a carrier that is down, with a free request that places no call. A good answer permits one trial call.

        Also probe at once when calls of one company have failed. Only a failed probe then stops the other companies.
        Return True if the carrier is unavailable. Raises DatabaseAway.
        """
        if process.are_out():  # before the probe is marked as running: another process can send it
            process.report_shortage()
            return True
        probe = self._begin()
        if probe is None:
            return False
        failpoint("settle.probe_begun")
        try:
            self._queries.probe()
            failpoint("settle.probe_answered")
        except QueryNotSent:  # guard: local_probe
            return True
        except CarrierUnavailable as error:
            self._fail(probe)
            return isinstance(error, CarrierAway)
        if self._answer(probe):
            failpoint("settle.on_trial")
            _log.info("carrier_half_open: the carrier answered a probe, so one call is tried")
        return False

    def _begin(self) -> _Probe | None:
        """Mark the probe as running. None: no probe is due, or another worker is running it."""
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            # Check before locking, because every claim waits for this row.
            if not stores.carrier_accounts.get(self._account_id).is_to_be_asked(now):
                return None
            before = stores.carrier_accounts.lock(self._account_id)
            if not before.is_to_be_asked(now):
                return None
            account = before.breaker
            if account.is_to_be_asked(now):
                account = breaker.while_asked(account, now)
                stores.carrier_accounts.set_breaker(self._account_id, account, now)
            held = {
                scope: backoffs.while_asked(each, now) if each.is_to_be_asked(now) else each
                for scope, each in before.backoffs.items()
            }
            if held != before.backoffs:
                stores.backoffs.save(self._account_id, held, now)
        return _Probe(before=before, account=account, backoffs=held)

    def _fail(self, probe: _Probe) -> None:
        """Open the account's breaker: the carrier does not answer, so the failures concern every company."""
        judged = probe.account
        of_the_carrier = [
            each for each in probe.backoffs.values() if each.breaker.is_down and each.speaks_of_the_carrier
        ]
        if not judged.is_down:
            with self._database.transaction() as stores:
                now = stores.instant(self._now)
                account = stores.carrier_accounts.lock(self._account_id)
                cause = of_the_carrier[0].cause if of_the_carrier else "NO_ANSWER_IN_TIME"
                judged = breaker.after_question_in_vain(account.breaker, cause, now)
                stores.carrier_accounts.set_breaker(self._account_id, judged, now)
                stores.backoffs.save(self._account_id, backoffs.without_the_carriers(account.backoffs), now)
        _log.error(
            "carrier_down: the carrier did not answer a probe, so all calls wait",
            alarm=f"CARRIER_{judged.cause}",
            until=judged.down_until and judged.down_until.isoformat(),
        )

    def _answer(self, probe: _Probe) -> bool:
        """Store a good answer to the probe. Return True if a trial call is permitted now."""
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            account = stores.carrier_accounts.lock(self._account_id)
            # A state that has changed since comes from a newer probe or from a call.
            is_tried = probe.account != probe.before.breaker and account.breaker == probe.account
            if is_tried:
                answered = breaker.after_answer(probe.before.breaker, now)
                stores.carrier_accounts.set_breaker(self._account_id, answered, now)
            held = dict(account.backoffs)
            for scope, each in probe.backoffs.items():
                if held.get(scope) == each and each.breaker != probe.before.backoffs[scope].breaker:
                    held[scope] = backoffs.after_answer(probe.before.backoffs[scope], now)
                    is_tried = True
            if held != account.backoffs:
                stores.backoffs.save(self._account_id, held, now)
            stores.notify_due()
        return is_tried
