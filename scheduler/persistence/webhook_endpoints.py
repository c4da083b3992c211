"""Endpoints of partners. Each belongs to the principal of its key. Keys of the same company may see and delete it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, and_, any_, delete, func, insert, or_, select, text, tuple_, update

from scheduler.domain.pagination import Listed, Slice
from scheduler.domain.partner_event import EventType
from scheduler.domain.principal import KeyKind, Principal
from scheduler.domain.webhook import DisabledCause
from scheduler.domain.webhook_endpoint import EndpointTest, TestProgress, WebhookEndpoint
from scheduler.ids import new_id
from scheduler.persistence.rows import as_columns, from_row
from scheduler.persistence.store import Store
from scheduler.persistence.tables import companies, events, webhook_deliveries, webhook_endpoints
from scheduler.rules.webhook_secrets import EndpointSecrets

_LOCK_PRINCIPAL = text("SELECT pg_advisory_xact_lock(hashtextextended('webhooks ' || :principal_id, 0))")
_PLACE = text("SELECT nextval('event_places')")
_w = webhook_endpoints.c
_IS_LISTED = _w.disabled_cause.is_distinct_from(DisabledCause.DELETED.value)
_READ = select(*(_w[name] for name in WebhookEndpoint.__dataclass_fields__ if name in _w))
_FIXED = {"id", "principal_id", "api_key_id", "company_id", "created_at", "signing_secret"}
_ENCRYPTED = ("headers", "secret", "old_secret")


class WebhookEndpoints(Store):
    def lock_principal(self, principal_id: UUID) -> None:
        """Let no other transaction create an endpoint for this principal until we commit."""
        self._connection.execute(_LOCK_PRINCIPAL, {"principal_id": str(principal_id)})

    def count(self, principal_id: UUID) -> int:
        query = select(func.count()).select_from(webhook_endpoints)
        return self._count(query.where(_w.principal_id == principal_id, _IS_LISTED))

    def add(self, endpoint: WebhookEndpoint, secret: bytes, headers: bytes | None) -> None:
        """Add an endpoint with its encrypted secret and headers."""
        columns = as_columns(endpoint, without={"signing_secret"}, secret=secret, headers=headers)
        self._connection.execute(insert(webhook_endpoints).values(**_arrays(columns)))

    def get(self, principal_id: UUID, endpoint_id: UUID) -> WebhookEndpoint | None:
        """Return the endpoint, if it is this principal's and not deleted."""
        return self._one(_endpoint, _of_principal(principal_id).where(_w.id == endpoint_id))

    def find(self, principal: Principal, endpoint_id: UUID) -> WebhookEndpoint | None:
        """Return the endpoint, if it is not deleted and the principal may see and delete it."""
        return self._one(_endpoint, _shared_with(principal).where(_w.id == endpoint_id))

    def lock_shared(self, principal: Principal, endpoint_id: UUID) -> WebhookEndpoint | None:
        """Lock the endpoint to delete it, like `find`."""
        query = _shared_with(principal).where(_w.id == endpoint_id)
        return self._one(_endpoint, query.with_for_update(key_share=True))

    def lock(self, principal_id: UUID, endpoint_id: UUID) -> WebhookEndpoint | None:
        """Lock the endpoint, if it is this principal's and not deleted."""
        query = _of_principal(principal_id).where(_w.id == endpoint_id)
        return self._one(_endpoint, query.with_for_update(key_share=True))

    def page(self, principal: Principal, company_id: UUID | None, requested: Slice) -> Listed[WebhookEndpoint]:
        """Return a page of the endpoints that `find` returns, or only of those for one company."""
        query = _shared_with(principal)
        if company_id is not None:
            query = query.where(_w.company_id == company_id)
        return self._page(_endpoint, query, webhook_endpoints, requested)

    def save(self, endpoint: WebhookEndpoint, **encrypted: bytes | None) -> None:
        """Write the mutable fields of an endpoint that the caller has locked. `encrypted`: the changed `headers`."""
        columns = as_columns(endpoint, without=_FIXED, **encrypted)
        self._connection.execute(update(webhook_endpoints).where(_w.id == endpoint.id).values(**_arrays(columns)))

    def secrets_of(self, endpoint_id: UUID) -> EndpointSecrets:
        """Return the encrypted secrets of an endpoint that the caller has locked."""
        row = self._connection.execute(
            select(_w.secret, _w.old_secret, _w.old_secret_until).where(_w.id == endpoint_id)
        ).one()
        return from_row(EndpointSecrets, row)

    def save_secrets(self, endpoint_id: UUID, secrets: EndpointSecrets, now: datetime) -> None:
        values = {**as_columns(secrets), "updated_at": now}
        self._connection.execute(update(webhook_endpoints).where(_w.id == endpoint_id).values(**values))

    def remove(self, endpoint_id: UUID, now: datetime) -> None:
        """Hide the endpoint and forget its address, texts and secrets. The purge deletes it with its deliveries.

        An endpoint of an ATS may have millions of them, so they are not deleted here.
        """
        self._connection.execute(
            update(webhook_endpoints)
            .where(_w.id == endpoint_id)
            .values(
                url="",
                name=None,
                description=None,
                headers=None,
                header_names=[],
                secret=b"",
                old_secret=None,
                old_secret_until=None,
                is_active=False,
                disabled_at=now,
                disabled_cause=DisabledCause.DELETED.value,
                notice_at=None,
                updated_at=now,
            )
        )

    def forget_removed(self, limit: int) -> int:
        """Delete up to `limit` deliveries of removed endpoints, and the endpoints that have no more."""
        d = webhook_deliveries.c
        removed = _w.disabled_cause == DisabledCause.DELETED.value
        some = (
            select(d.event_id, d.endpoint_id)
            .where(d.endpoint_id.in_(select(_w.id).where(removed)))
            .limit(limit)
            .with_for_update(skip_locked=True, of=webhook_deliveries)
        )
        # Two statements: within one, PostgreSQL may execute a locking subquery with a limit again, and delete more.
        keys = [(row.event_id, row.endpoint_id) for row in self._connection.execute(some).all()]
        if keys:
            self._connection.execute(delete(webhook_deliveries).where(tuple_(d.event_id, d.endpoint_id).in_(keys)))
        count = len(keys)
        if count < limit:
            has_any = select(d.event_id).where(d.endpoint_id == _w.id).exists()
            self._connection.execute(delete(webhook_endpoints).where(removed, ~has_any))
        return count

    def disable_of_principal(self, principal_id: UUID, cause: DisabledCause, now: datetime) -> int:
        """Disable the principal's endpoints that are not disabled yet. Return how many."""
        return self._connection.execute(
            update(webhook_endpoints)
            .where(_w.principal_id == principal_id, _w.disabled_at.is_(None))
            .values(disabled_at=now, disabled_cause=cause.value, updated_at=now)
        ).rowcount

    def add_test(self, endpoint: WebhookEndpoint, principal: Principal, now: datetime) -> EndpointTest:
        """Write a ping and its delivery to this endpoint. It is sent like any other delivery.

        It gets its place here and not by numbering, so a reader of `GET /events` that is faster may not see it.
        """
        is_ats = principal.kind is KeyKind.ATS
        place = self._connection.execute(_PLACE).scalar_one()
        test = EndpointTest(id=new_id(now), endpoint_id=endpoint.id, company_id=endpoint.company_id)
        self._connection.execute(
            insert(events).values(
                id=test.id,
                # The companies of an ATS do not see its pings, nor the other way round.
                company_id=None if is_ats else endpoint.company_id,
                # Only this principal reads it.
                ats_principal_id=principal.id,
                type=EventType.PING.value,
                occurred_at=now,
                data={"webhookId": str(endpoint.id)},
                place=place,
            )
        )
        self._connection.execute(
            insert(webhook_deliveries).values(
                event_id=test.id,
                endpoint_id=endpoint.id,
                place=place,
                state="WAITING",
                # So that it waits neither for a backlog of events nor for the probe of an open circuit.
                is_replay=True,
                send_at=now,
                created_at=now,
            )
        )
        return test

    def progress(self, principal_id: UUID, test: EndpointTest) -> TestProgress | None:
        """Return the progress of a test. None: the endpoint was deleted."""
        d = webhook_deliveries.c
        query = (
            select(
                (d.state != "WAITING").label("is_over"),
                (d.state == "DELIVERED").label("is_delivered"),
                d.last_status,
                d.last_error_kind,
                d.last_ms,
            )
            .join(webhook_endpoints, _w.id == d.endpoint_id)
            .where(d.event_id == test.id, d.endpoint_id == test.endpoint_id)
            .where(_w.principal_id == principal_id, _IS_LISTED)
        )
        return self._one(partial(from_row, TestProgress), query)

    def lock_encrypted(self, after: UUID | None, limit: int) -> Sequence[Mapping[str, Any]]:
        """Lock the next endpoints by their ids, and return their encrypted fields."""
        query = select(_w.id, *(_w[name] for name in _ENCRYPTED)).where(_IS_LISTED).order_by(_w.id).limit(limit)
        if after is not None:
            query = query.where(_w.id > after)
        return [row._asdict() for row in self._connection.execute(query.with_for_update(key_share=True))]

    def save_encrypted(self, endpoint_id: UUID, encrypted: Mapping[str, bytes | None]) -> None:
        self._connection.execute(update(webhook_endpoints).where(_w.id == endpoint_id).values(**encrypted))


def _of_principal(principal_id: UUID) -> Select[Any]:
    return _READ.where(
        _w.principal_id == principal_id,  # guard: hook_owner
        _IS_LISTED,
    )


def _shared_with(principal: Principal) -> Select[Any]:
    """Return those of the principal, and those of other keys of its company, or of the companies of an ATS.

    Not those that an ATS has created for the company of a regular key: they are the ATS's own.
    """
    c = companies.c
    if principal.kind is KeyKind.ATS:
        shared = _w.company_id == any_(
            func.array(select(c.id).where(c.ats_principal_id == principal.id).scalar_subquery())
        )
    else:
        ats = select(c.ats_principal_id).where(c.id == principal.company_id).scalar_subquery()
        shared = and_(_w.company_id == principal.company_id, _w.principal_id.is_distinct_from(ats))
    return _READ.where(
        or_(_w.principal_id == principal.id, shared),  # guard: hook_shared
        _IS_LISTED,
    )


def _arrays(columns: dict[str, Any]) -> dict[str, Any]:
    return {
        **columns,
        "header_names": list(columns["header_names"]),
        "events": [each.value for each in columns["events"]],
    }


def _endpoint(row: Row[Any]) -> WebhookEndpoint:
    return from_row(
        WebhookEndpoint,
        row,
        header_names=tuple(row.header_names),
        events=tuple(EventType(each) for each in row.events),
        signing_secret=None,
    )
