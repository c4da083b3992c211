"""The evidence of a call: its request, its last look, its callbacks, and its history with the check of its seals."""

from dataclasses import replace
from datetime import datetime
from uuid import UUID

from scheduler.domain.evidence import Evidence, EvidenceEntry, StoredConsent
from scheduler.domain.principal import Principal, seen_by_companies
from scheduler.ids import VERSION, first_id
from scheduler.lifecycle import look_records
from scheduler.persistence.stores import Stores
from scheduler.rules import history_seals, retention, sealed_facts
from scheduler.use_cases.explain import with_key_names
from scheduler.use_cases.shared import access
from scheduler.use_cases.shared.context import Context


class CallEvidence:
    def __init__(self, context: Context) -> None:
        self._database = context.database
        self._hasher = context.hasher
        self._now = context.now

    def of_call(self, principal: Principal, company_id: UUID | None, attempt_id: UUID) -> Evidence:
        """Collect the evidence of a call. Raises NotFound, AccessDenied, CompanyIdRequired, DatabaseAway."""
        with self._database.reading(principal) as stores:
            company = access.authorized_company(stores, principal, company_id)
            if not stores.evidence.is_listed(company, attempt_id):
                raise access.not_found("callAttempt", attempt_id)
            return self._evidence(stores, attempt_id, principal)

    def of_operator(self, attempt_id: UUID) -> Evidence:
        """Collect the evidence of any call for the operator, also of a deleted one. Raises NotFound, DatabaseAway."""
        with self._database.reading() as stores:
            return self._evidence(stores, attempt_id, None)

    def _evidence(self, stores: Stores, attempt_id: UUID, reader: Principal | None) -> Evidence:
        now = self._now()
        attempt = access.require(stores.attempts.find(attempt_id), "callAttempt", attempt_id)
        stored, read = stores.evidence.stored(attempt_id), stores.evidence.history(attempt_id)
        history = read.entries
        named = with_key_names(stores, [each.happening for each in history], attempt.company_id, reader)
        if reader is not None:
            named = tuple(replace(each, actor=seen_by_companies(each.actor)) for each in named)
        return Evidence(
            attempt=attempt,
            read_at=now,
            consent=StoredConsent(until=stored.consent_until, person_erased=stored.person_erased),
            last_look=look_records.last_look(named),
            callbacks=tuple(stores.evidence.callbacks(attempt_id)),
            entries=tuple(
                EvidenceEntry(number=each.number, happening=happening, is_sealed=each.seal is not None)
                for each, happening in zip(history, named, strict=True)
            ),
            is_cut=read.is_cut,
            seals=history_seals.check(
                self._hasher.history_key(),
                history,
                last_number=stored.last_number,
                closing_seal=stored.closing_seal,
                schedule=stored.schedule,
                facts=sealed_facts.facts_of(attempt),
                is_purged=read.is_cut or _may_be_purged(attempt_id, now),
            ),
        )


def _may_be_purged(attempt_id: UUID, now: datetime) -> bool:
    """Return True if the start of this history may have been deleted after its retention.

    The id tells the age, because no seal covers the column. Ids of release 0.1.0 are random, and tell nothing.
    """
    return attempt_id.version != VERSION or attempt_id < first_id(now - retention.HISTORY)
