"""Notices of disabled webhooks: mails that are due to the owners of their companies."""

from datetime import datetime
from functools import partial

from sqlalchemy import text

from scheduler.domain.webhook_delivery import Notice
from scheduler.persistence.rows import from_row
from scheduler.persistence.store import Store
from scheduler.rules.alarm_posting import latest_try

# Not those that the partner itself has deleted or revoked the key of since.
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
           c.name AS company_name, u.email
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
        due: bool = self._connection.execute(_IS_ONE_DUE, _instants(now)).scalar_one()
        return due

    def take_due(self, now: datetime, until: datetime) -> Notice | None:
        """Return the notice that has been due longest, for one try. No other worker tries before `until`."""
        return self._one(partial(from_row, Notice), _TAKE_DUE, _instants(now) | {"until": until})

    def tried(self, notice: Notice, again_at: datetime | None) -> None:
        """Record a try, unless the endpoint was disabled again since. None: there is no further one."""
        values = {"endpoint_id": notice.endpoint_id, "tries": notice.tries, "disabled_at": notice.disabled_at}
        self._connection.execute(_TRIED, {**values, "again_at": again_at})


def _instants(now: datetime) -> dict[str, datetime]:
    return {"now": now, "latest_try": latest_try(now)}
