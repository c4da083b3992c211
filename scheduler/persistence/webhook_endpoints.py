"""Endpoints of partners, as their owners and as operators see them, and notices of disabled ones."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache, partial
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, TextClause, and_, any_, func, insert, or_, select, text, tuple_, update

from scheduler.domain.delivery_history import EndpointFilter, EndpointState, EndpointStatus, ReplayFilter
from scheduler.domain.principal import KeyKind, Principal
from scheduler.domain.resource import COUNTED_UP_TO, Listed, Slice
from scheduler.domain.webhook import DisabledCause, EndpointTest, EventType, Notice, TestProgress, WebhookEndpoint
from scheduler.ids import new_id
from scheduler.lifecycle import partner_events
from scheduler.persistence.events import place_range
from scheduler.persistence.rows import as_columns, from_row
from scheduler.persistence.store import IN_ORDER, Store
from scheduler.persistence.tables import companies, events, webhook_deliveries, webhook_endpoints
from scheduler.rules.operators import latest_try
from scheduler.rules.webhooks import EndpointSecrets

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
        self._insert(webhook_endpoints, **_arrays(columns))

    def get(self, principal_id: UUID, endpoint_id: UUID) -> WebhookEndpoint | None:
        """Find the endpoint, if it is this principal's and not deleted."""
        return self._one(_endpoint, _of_principal(principal_id).where(_w.id == endpoint_id))

    def find(self, principal: Principal, endpoint_id: UUID) -> WebhookEndpoint | None:
        """Find the endpoint, if it is not deleted and the principal may see and delete it."""
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
        """Read a page of the endpoints that `find` returns, or only of those for one company."""
        query = _shared_with(principal)
        if company_id is not None:
            query = query.where(_w.company_id == company_id)
        return self._page(_endpoint, query, webhook_endpoints, requested)

    def save(self, endpoint: WebhookEndpoint, **encrypted: bytes | None) -> None:
        """Write the mutable fields of an endpoint that the caller has locked. `encrypted`: the changed `headers`."""
        columns = as_columns(endpoint, without=_FIXED, **encrypted)
        self._update(webhook_endpoints, _w.id == endpoint.id, **_arrays(columns))

    def secrets_of(self, endpoint_id: UUID) -> EndpointSecrets:
        """Read the encrypted secrets of an endpoint that the caller has locked."""
        row = self._connection.execute(
            select(_w.secret, _w.old_secret, _w.old_secret_until).where(_w.id == endpoint_id)
        ).one()
        return from_row(EndpointSecrets, row)

    def save_secrets(self, endpoint_id: UUID, secrets: EndpointSecrets, now: datetime) -> None:
        values = {**as_columns(secrets), "updated_at": now}
        self._update(webhook_endpoints, _w.id == endpoint_id, **values)

    def remove(self, endpoint_id: UUID, now: datetime) -> None:
        """Hide the endpoint and forget its address, texts and secrets. The purge deletes it with its deliveries.

        An endpoint of an ATS may have millions of them, so they are not deleted here.
        """
        self._update(
            webhook_endpoints,
            _w.id == endpoint_id,
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
            self._delete(webhook_deliveries, tuple_(d.event_id, d.endpoint_id).in_(keys))
        count = len(keys)
        if count < limit:
            has_any = select(d.event_id).where(d.endpoint_id == _w.id).exists()
            self._delete(webhook_endpoints, removed, ~has_any)
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
        event = partner_events.of_test(endpoint.id)
        place = self._connection.execute(_PLACE).scalar_one()
        test = EndpointTest(id=new_id(now), endpoint_id=endpoint.id, company_id=endpoint.company_id)
        self._connection.execute(
            insert(events).values(
                id=test.id,
                # The companies of an ATS do not see its pings, nor the other way round.
                company_id=None if is_ats else endpoint.company_id,
                # Only this principal reads it.
                ats_principal_id=principal.id,
                type=event.type.value,
                occurred_at=now,
                data=event.data,
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
        """Read the progress of a test. None: the endpoint was deleted."""
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
        self._update(webhook_endpoints, _w.id == endpoint_id, **encrypted)


def _of_principal(principal_id: UUID) -> Select[Any]:
    return _READ.where(
        _w.principal_id == principal_id,  # guard: hook_owner
        _IS_LISTED,
    )


def _shared_with(principal: Principal) -> Select[Any]:
    """Select the endpoints of the principal, and of other keys of its company, or of the companies of an ATS.

    Endpoints that an ATS has created for the company of a regular key do not count: they are the ATS's own.
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


# --- Endpoints of all principals, as operators see them


_LOOKED_AT = 1_000
"""The newest deliveries among which the last failure is searched."""

_OF_COMPANY = """
    SELECT o.id FROM webhook_endpoints o WHERE o.company_id = :company
    UNION ALL
    SELECT o.id FROM companies c
    JOIN webhook_endpoints o ON o.principal_id = c.ats_principal_id AND o.company_id IS NULL
    WHERE c.id = :company
"""
_IS_LISTED_FOR_OPERATORS = "w.disabled_cause IS DISTINCT FROM :deleted"
_STATUS: Mapping[EndpointStatus, str] = {
    EndpointStatus.ACTIVE: "w.is_active AND w.disabled_at IS NULL AND w.circuit_opened_at IS NULL",
    EndpointStatus.CIRCUIT_OPEN: "w.is_active AND w.disabled_at IS NULL AND w.circuit_opened_at IS NOT NULL",
    EndpointStatus.PAUSED: "NOT w.is_active AND w.disabled_at IS NULL",
    EndpointStatus.DISABLED: "w.disabled_at IS NOT NULL",
}
# Ids begin with the time of creation. The limit applies before deliveries are counted.
_STATES = """
    SELECT w.id, w.principal_id, w.company_id, c.name AS company_name, webhook_origin(w.id) AS origin, w.is_active,
           w.disabled_at, w.disabled_cause, w.consecutive_failures, w.failing_since, w.circuit_opened_at, w.created_at,
           waiting.waiting, waiting.oldest_waiting_at, failed.last_failed_at, failed.last_status, failed.last_error_kind
    FROM (SELECT w.id, w.principal_id, w.company_id, w.is_active, w.disabled_at, w.disabled_cause,
                 w.consecutive_failures, w.failing_since, w.circuit_opened_at, w.created_at
          FROM webhook_endpoints w
          WHERE {conditions}
          ORDER BY w.id
          LIMIT :limit) w
    LEFT JOIN companies c ON c.id = w.company_id
    CROSS JOIN LATERAL (
        SELECT count(*) AS waiting, min(d.created_at) AS oldest_waiting_at
        FROM (SELECT d.created_at FROM webhook_deliveries d WHERE d.endpoint_id = w.id AND d.state = 'WAITING'
              LIMIT :counted) d
    ) waiting
    LEFT JOIN LATERAL (
        SELECT d.last_tried_at AS last_failed_at, d.last_status, d.last_error_kind
        FROM (SELECT d.* FROM webhook_deliveries d WHERE d.endpoint_id = w.id AND d.state <> 'DELIVERED'
              ORDER BY d.place DESC LIMIT :looked_at) d
        WHERE d.last_error_kind IS NOT NULL
        ORDER BY d.last_tried_at DESC
        LIMIT 1
    ) failed ON true
    ORDER BY w.id
"""
_COUNT_OF_COMPANY = text(
    f"SELECT count(*) FROM webhook_endpoints w WHERE w.id IN ({_OF_COMPANY}) AND {_IS_LISTED_FOR_OPERATORS}"  # noqa: S608 - the texts above
)
_COUNT_FAILED = text("""
    SELECT count(*) FROM (
        SELECT FROM webhook_deliveries d
        JOIN events e ON e.id = d.event_id
        WHERE d.endpoint_id = :endpoint AND d.state <> 'DELIVERED' AND d.state = 'FAILED'
          AND d.place > (SELECT p.after FROM event_places(CAST(:first AS uuid), CAST(:last AS uuid)) p)
          AND d.place < (SELECT p.before FROM event_places(CAST(:first AS uuid), CAST(:last AS uuid)) p)
          AND e.occurred_at >= :since AND e.type <> 'ping'
          AND (CAST(:until AS timestamptz) IS NULL OR e.occurred_at < CAST(:until AS timestamptz))
        LIMIT :counted
    ) counted
""")
_IN_ORDER = text(f"SELECT {IN_ORDER}")
_state = partial(from_row, EndpointState)
_ALL = EndpointFilter()


class WebhookOverview(Store):
    def states(self, limit: int, wanted: EndpointFilter = _ALL, after: UUID | None = None) -> Sequence[EndpointState]:
        """List the endpoints that are not deleted, oldest first. `after`: only those younger than this one."""
        statement, values = _query(wanted, after)
        limits = {"counted": COUNTED_UP_TO + 1, "looked_at": _LOOKED_AT, "limit": limit}
        self._connection.execute(_IN_ORDER)
        return self._readable(webhook_endpoints, _state, statement, {**values, **limits})

    def count_of_company(self, company_id: UUID) -> int:
        """Count the endpoints that receive events of a company."""
        values = {"company": company_id, "deleted": DisabledCause.DELETED.value}
        return self._count(_COUNT_OF_COMPANY, values)

    def count_failed(self, endpoint_id: UUID, wanted: ReplayFilter) -> int:
        """Count the failed deliveries of a range that a replay sends again, up to one more than `COUNTED_UP_TO`."""
        values = {
            "endpoint": endpoint_id,
            "since": wanted.since,
            "until": wanted.until,
            "counted": COUNTED_UP_TO + 1,
            **place_range(wanted.since, wanted.until),
        }
        return self._count(_COUNT_FAILED, values)


def _query(wanted: EndpointFilter, after: UUID | None) -> tuple[TextClause, Mapping[str, object]]:
    """Build the statement for a filter, and its values. Only conditions that apply, so that an index is used."""
    conditions, values = [_IS_LISTED_FOR_OPERATORS], dict[str, object](deleted=DisabledCause.DELETED.value)
    if wanted.status is not None:
        conditions.append(_STATUS[wanted.status])
    for name, condition, value in (
        ("id", "w.id = :id", wanted.id),
        ("company", f"w.id IN ({_OF_COMPANY})", wanted.company_id),
        ("after", "w.id > :after", after),
    ):
        if value is not None:
            conditions.append(condition)
            values[name] = value
    return _text(" AND ".join(conditions)), values


@cache
def _text(conditions: str) -> TextClause:
    return text(_STATES.replace("{conditions}", conditions))


# --- Notices of disabled webhooks: mails that are due to the owners of their companies


# Not if the partner itself has deleted the webhook or revoked its key since.
# A later instant than the latest possible one was written by a wrong clock.
_IS_DUE = """
    w.disabled_cause IN ('GONE', 'FAILING') AND (
        w.notice_at <= :now
        OR w.notice_at > :latest_try  -- guard: impossible_notice
    )
"""
_IS_ONE_DUE = text(f"SELECT EXISTS (SELECT FROM webhook_endpoints w WHERE {_IS_DUE})")  # noqa: S608 - a constant
_TAKE_DUE = text(f"""
    WITH taken AS (
        UPDATE webhook_endpoints e SET notice_at = :until, notice_tries = e.notice_tries + 1
        WHERE e.id = (SELECT w.id FROM webhook_endpoints w WHERE {_IS_DUE}
                      ORDER BY w.notice_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED)
        RETURNING e.*
    )
    SELECT t.id AS endpoint_id, t.company_id, t.disabled_at, t.disabled_cause AS cause, t.notice_tries AS tries,
           c.name AS company_name, c.settings ->> 'locale' AS locale, u.email
    FROM taken t
    LEFT JOIN companies c ON c.id = t.company_id AND c.deleted_at IS NULL
    LEFT JOIN memberships m ON m.company_id = c.id AND m.role = 'OWNER'
        AND NOT EXISTS (SELECT FROM api_keys k WHERE k.principal_id = t.principal_id AND k.kind = 'ATS')
    LEFT JOIN users u ON u.id = m.user_id
""")  # noqa: S608 - a constant
"""The webhooks of an ATS have no owner: that of a company does not know them."""
_TRIED = text("""
    UPDATE webhook_endpoints SET notice_at = :again_at
    WHERE id = :endpoint_id AND notice_tries = :tries AND disabled_at = :disabled_at
""")


class WebhookNotices(Store):
    def is_one_due(self, now: datetime) -> bool:
        return bool(self._connection.execute(_IS_ONE_DUE, _instants(now)).scalar_one())

    def take_due(self, now: datetime, until: datetime) -> Notice | None:
        """Take the notice that has been due longest, for one try. No other worker tries before `until`."""
        return self._one(partial(from_row, Notice), _TAKE_DUE, _instants(now) | {"until": until})

    def tried(self, notice: Notice, again_at: datetime | None) -> None:
        """Record a try, unless the endpoint was disabled again since. None: there is no further one."""
        values = {"endpoint_id": notice.endpoint_id, "tries": notice.tries, "disabled_at": notice.disabled_at}
        self._connection.execute(_TRIED, {**values, "again_at": again_at})


def _instants(now: datetime) -> dict[str, datetime]:
    return {"now": now, "latest_try": latest_try(now)}
