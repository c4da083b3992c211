"""Partner events: written by the transaction that makes a change, and numbered by a later one, with their deliveries.

A transaction that claims or records a call locks no interview, and transactions commit in another order than they
begin. So none of them can give its events a place in the order, or a sequence. Only one transaction at a time numbers
events, and only committed ones: a reader that has read up to a place misses no event that appears later.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, select, text

from scheduler.domain.webhook import OF_AN_OWNER, EventFilter, EventPage, NewEvent, PartnerEvent
from scheduler.ids import first_id, new_id
from scheduler.persistence.connection import among
from scheduler.persistence.rows import AnyRow, as_columns, from_row, readable
from scheduler.persistence.store import IN_ORDER, Statements, Store, statement
from scheduler.persistence.tables import events, webhook_deliveries
from scheduler.persistence.tallies import ADD as ADD_TALLY
from scheduler.rules.tallies import WEBHOOK_DELIVERIES, Amount, key_of

_LOCK = 4_302_201
"""The advisory lock of the transaction that numbers events. It has no meaning elsewhere."""
_MOST_READ = 5_000
"""Events that one page reads at most. A filter that matches few of them gets a short page, and continues."""

_NUMBERED_WITHIN = timedelta(minutes=1)
"""Longer than a transaction: events whose times differ by more are numbered in the order of their times."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST, _LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_FAILED = key_of(WEBHOOK_DELIVERIES, "FAILED")

_FACTS = {"candidateId": "candidate_id", "jobId": "job_id", "externalId": "external_id"}
"""The ids that numbering reads from the interview."""

# The function returns the events of companies that have a reader. Short and without a list of columns, because the
# driver parses a text above 4 kB again for each execution: this one is joined with the other writes of a transaction.
_INSERT = "INSERT INTO events SELECT * FROM kept_events(CAST(%(rows)s AS json))"

_IS_WANTED = """
    CASE n.type
        WHEN 'ping' THEN false  -- guard: own_ping
        WHEN 'endpoint.disabled' THEN w.principal_id = n.ats_principal_id AND w.id::text <> n.data ->> 'webhookId'
        ELSE coalesce(w.company_id = n.company_id, w.principal_id = n.ats_principal_id)
    END
"""
"""Whether an endpoint `w` gets a numbered event `n` of a type that it names. A ping is only for the tested endpoint,
and the deactivation of an endpoint is only for the others of the same key."""

_NUMBER = text(
    """
    WITH taken AS MATERIALIZED (
        SELECT e.id, e.entry, e.interview_id FROM events e
        WHERE e.place IS NULL
        ORDER BY e.entry
        LIMIT :limit
        FOR UPDATE SKIP LOCKED
    ), ordered AS (
        SELECT t.id, t.interview_id,
               row_number() OVER (PARTITION BY t.interview_id ORDER BY t.entry) AS nth,
               count(*) OVER (PARTITION BY t.interview_id) AS new
        FROM taken t
    ), risen AS MATERIALIZED (
        SELECT setval('event_places', :lowest) FROM event_places s
        WHERE s.last_value < :lowest AND EXISTS (SELECT FROM taken)
    ), placed AS MATERIALIZED (
        SELECT o.id, nextval('event_places') AS place FROM (SELECT t.id FROM taken t ORDER BY t.entry) o
        -- Always true: it has the sequence raised before the first place is taken.
        WHERE (SELECT count(*) FROM risen) < 2
    ), last AS (
        INSERT INTO interview_sequences AS s (interview_id, last)
        SELECT t.interview_id, count(*) FROM taken t
        WHERE t.interview_id IS NOT NULL
        GROUP BY t.interview_id
        ON CONFLICT (interview_id) DO UPDATE SET last = s.last + excluded.last
        RETURNING s.interview_id, s.last
    ), numbered AS (
        UPDATE events e
        SET place = p.place, sequence = l.last - o.new + o.nth, data = e.data || jsonb_strip_nulls({facts})
        FROM ordered o
        JOIN placed p ON p.id = o.id
        LEFT JOIN last l ON l.interview_id = o.interview_id
        LEFT JOIN interviews i ON i.id = o.interview_id
        WHERE e.id = o.id
        RETURNING e.*
    ), receiving AS MATERIALIZED (
        SELECT w.id, w.principal_id, w.company_id, w.events FROM webhook_endpoints w
        WHERE (w.company_id = ANY (ARRAY (SELECT n.company_id FROM numbered n))
               OR w.principal_id = ANY (ARRAY (SELECT n.ats_principal_id FROM numbered n)))
          AND w.is_active AND w.disabled_at IS NULL
        FOR KEY SHARE
    ), made AS (
        INSERT INTO webhook_deliveries
            (event_id, endpoint_id, place, interview_id, sequence, state, send_at, created_at)
        SELECT n.id, w.id, n.place, n.interview_id, n.sequence, 'WAITING', :now, :now
        FROM numbered n
        JOIN receiving w ON n.type = ANY (w.events) AND {is_wanted}
        ON CONFLICT DO NOTHING
        RETURNING event_id
    )
    SELECT (SELECT count(*) FROM numbered) AS events, (SELECT count(*) FROM made) AS deliveries
    """.replace("{is_wanted}", _IS_WANTED).replace(
        "{facts}", "jsonb_build_object(" + ", ".join(f"'{name}', i.{column}" for name, column in _FACTS.items()) + ")"
    )
)


@dataclass(frozen=True, kw_only=True)
class Numbered:
    """Counts of one batch."""

    events: int
    deliveries: int


_OF_AN_OWNER = ", ".join(f"'{each}'" for each in sorted(OF_AN_OWNER))
# Not by NOT EXISTS, for which PostgreSQL may read all deliveries of a dead endpoint.
_PAGE = """
    WITH bounds AS MATERIALIZED (
        SELECT greatest(:after, p.after) AS after, p.before
        FROM event_places(CAST(:first AS uuid), CAST(:last AS uuid)) p
    ), scanned AS MATERIALIZED (
        {scanned}
    ), found AS (
        SELECT s.* FROM scanned s
        WHERE s.{readable} = :reader
          -- The principal of a webhook, also of a regular key, is stored in the column of the ATS.
          AND (s.type NOT IN ({of_an_owner}) OR s.ats_principal_id = :principal)
          AND (CAST(:types AS text[]) IS NULL OR s.type = ANY (CAST(:types AS text[])))
          AND (CAST(:since AS timestamptz) IS NULL OR s.occurred_at >= CAST(:since AS timestamptz))
          AND (CAST(:until AS timestamptz) IS NULL OR s.occurred_at < CAST(:until AS timestamptz))
          -- A test says nothing about the delivery of events.
          AND (NOT :is_undelivered OR s.type <> 'ping')
          AND (NOT :is_delivered OR s.type = 'ping' OR (
              SELECT d.event_id FROM webhook_deliveries d JOIN webhook_endpoints w ON w.id = d.endpoint_id
              WHERE d.event_id = s.id AND d.state <> 'DELIVERED' AND w.principal_id = :principal
              LIMIT 1) IS NULL)
        ORDER BY s.place
        LIMIT :limit
    )
    SELECT b.last_scanned, b.count_scanned, f.*
    FROM (SELECT max(s.scanned_place) AS last_scanned, count(*) AS count_scanned FROM scanned s) b
    LEFT JOIN found f ON true
    ORDER BY f.place
"""
_SCANNED = """
        SELECT e.*, e.place AS scanned_place FROM events e
        WHERE e.{readable} = :reader
          AND e.place > (SELECT b.after FROM bounds b) AND e.place < (SELECT b.before FROM bounds b)
        ORDER BY e.place
        LIMIT :scanned
"""
# For all endpoints of the reader. Failed deliveries may be few among a million, so the events are not searched.
_SCANNED_UNDELIVERED = """
        SELECT e.*, d.place AS scanned_place FROM (
            SELECT DISTINCT d.place, d.event_id FROM webhook_endpoints w
            CROSS JOIN LATERAL (
                SELECT d.place, d.event_id FROM webhook_deliveries d
                WHERE d.endpoint_id = w.id AND d.state <> 'DELIVERED'
                  AND d.place > (SELECT b.after FROM bounds b) AND d.place < (SELECT b.before FROM bounds b)
                ORDER BY d.place
                LIMIT :scanned
            ) d
            WHERE w.principal_id = :principal
            ORDER BY d.place
            LIMIT :scanned
        ) d
        LEFT JOIN events e ON e.id = d.event_id
"""
_OF_COMPANY, _OF_ATS = "company_id", "ats_principal_id"
_PAGES = {
    (column, is_undelivered): text(
        _PAGE.replace("{scanned}", scanned).replace("{readable}", column).replace("{of_an_owner}", _OF_AN_OWNER)
    )
    for column in (_OF_COMPANY, _OF_ATS)
    for is_undelivered, scanned in ((False, _SCANNED), (True, _SCANNED_UNDELIVERED))
}
_ONES = {
    readable: text(
        f"SELECT e.* FROM events e WHERE e.id = :id AND e.place IS NOT NULL AND e.{readable} = :reader"  # noqa: S608
        f" AND (e.type NOT IN ({_OF_AN_OWNER}) OR e.ats_principal_id = :principal)"
    )
    for readable in (_OF_COMPANY, _OF_ATS)
}
_TRY_LOCK = text("SELECT pg_try_advisory_xact_lock(:lock)")
_IN_ORDER = text(f"SELECT {IN_ORDER}")
_event = partial(from_row, PartnerEvent)


class Events(Store):
    def note(self, noted: Iterable[NewEvent]) -> None:
        """Write events of companies that have a reader. Within `gathering` they are sent with the other writes."""
        _note_all(self._connection, noted)

    def note_of(self, company_id: UUID, noted: Callable[[], Iterable[NewEvent]]) -> None:
        """Write events of one company like `note`. `noted` is not called if it is known to have no reader."""
        note(self._connection, company_id, noted)

    def number(self, limit: int, now: datetime) -> Numbered | None:
        """Give up to `limit` events their places and sequences, and make their deliveries, which are due now.

        In the order in which they were written, which for each attempt is that of its history. Places rise with the
        clock, and go on rising if the clock is set back. None: another transaction does it.
        """
        if not self._connection.execute(_TRY_LOCK, {"lock": _LOCK}).scalar_one():  # guard: one_numberer
            return None
        counts = self._connection.execute(_NUMBER, {"limit": limit, "now": now, "lowest": _lowest_place(now)}).one()
        return Numbered(events=counts.events, deliveries=counts.deliveries)

    def find(self, event_id: UUID, company_id: UUID | None, principal_id: UUID) -> PartnerEvent | None:
        """Find an event of the company, or with None of any company that the ATS key has created.

        Events about endpoints of other principals are left out.
        """
        column, reader = _readable_by(company_id, principal_id)
        return self._one(_event, _ONES[column], {"id": event_id, "reader": reader, "principal": principal_id})

    def page(
        self, company_id: UUID | None, wanted: EventFilter, after: int, limit: int, principal_id: UUID
    ) -> EventPage:
        """List up to `limit` events like `find` that follow a place, in the order of places.

        `principal_id`: the reader, whose endpoints decide about `delivery_success`.
        """
        column, reader = _readable_by(company_id, principal_id)
        # One more than asked for shows whether another one follows.
        scanned = limit + 1 if wanted == EventFilter() else _MOST_READ
        values = {
            **place_range(wanted.since, wanted.until),
            "reader": reader,
            "principal": principal_id,
            "after": after,
            "scanned": scanned,
            "types": None if wanted.types is None else sorted(wanted.types),
            "since": wanted.since,
            "until": wanted.until,
            "is_undelivered": wanted.delivery_success is False,
            "is_delivered": wanted.delivery_success is True,
            "limit": limit + 1,
        }
        self._connection.execute(_IN_ORDER)
        rows = self._connection.execute(_PAGES[column, wanted.delivery_success is False], values).all()
        found = [row for row in rows if row.id is not None]
        shown = tuple(readable(found[:limit], _event, events.name))
        if len(found) > limit:
            return EventPage(events=shown, after=found[limit - 1].place, has_more=True)
        last = rows[0]
        return EventPage(events=shown, after=last.last_scanned or after, has_more=bool(last.count_scanned == scanned))

    def forget(self, before: datetime, limit: int) -> int:
        """Delete events before then, with their deliveries. Deliveries that still wait count as failed.

        Places are given in the order of time, so the oldest have the lowest.
        """
        entries = select(events.c.id, events.c.occurred_at).where(events.c.place.is_not(None))
        oldest = entries.order_by(events.c.place).limit(limit).subquery()
        ids = self._connection.execute(select(oldest.c.id).where(oldest.c.occurred_at < before)).scalars()
        of_old = and_(among(webhook_deliveries.c.event_id, ids), webhook_deliveries.c.finished_at.is_(None))
        failed = self._delete(webhook_deliveries, of_old)
        if failed:
            self._connection.write(ADD_TALLY, _FAILED, (_FAILED, Amount(n=failed)))
        return self._delete(events, among(events.c.id, ids))


def _readable_by(company_id: UUID | None, principal_id: UUID) -> tuple[str, UUID]:
    return (_OF_ATS, principal_id) if company_id is None else (_OF_COMPANY, company_id)


def _lowest_place(now: datetime) -> int:
    """Compute the place below the next one at the least: microseconds since 1970.

    A restored database has forgotten the places that were given after its backup, and a reader may have read up to
    them. No installation numbers a million events a second, so all places of the past are lower.
    """
    return (now - _EPOCH) // timedelta(microseconds=1)


def place_range(since: datetime | None, until: datetime | None) -> Mapping[str, UUID | None]:
    """Build the ids by which `event_places` finds the places between which all events of a period lie.

    A minute longer on each side, because events of about the same time are numbered in any order.
    """
    return {
        "first": None if since is None else first_id(max(since, _EARLIEST + _NUMBERED_WITHIN) - _NUMBERED_WITHIN),
        "last": None if until is None else first_id(min(until, _LATEST - _NUMBERED_WITHIN) + _NUMBERED_WITHIN),
    }


def has_reader(company_id: ColumnElement[UUID]) -> ColumnElement[bool]:
    """Return whether the company has a reader, for any role."""
    return func.has_reader(company_id).label("has_reader")


def keep_reader(connection: Statements, company_id: UUID, row: AnyRow) -> None:
    """Remember for this transaction whether the company has a reader: the row has the column `has_reader`.

    Most companies have no reader. Building their events for the database to drop takes a twentieth of a call.
    """
    if not row.has_reader:
        connection.without_reader.add(company_id)


def note(connection: Statements, company_id: UUID, noted: Callable[[], Iterable[NewEvent]]) -> None:
    """Write events like `Events.note`, for the other stores.

    `noted` is not called if this transaction has read that the company has no reader.
    """
    if company_id not in connection.without_reader:
        _note_all(connection, noted())


def _note_all(connection: Statements, noted: Iterable[NewEvent]) -> None:
    for each in noted:
        if each.company_id in connection.without_reader:
            continue
        event_id = new_id(each.occurred_at)
        connection.write(_NOTE, event_id, as_columns(each, id=event_id))


# With the history of attempts, so that both are sent by one statement.
_NOTE = statement(events.name, _INSERT, turn=3)
