"""Roles of database connections: each process refuses a login with another role than its own."""

from sqlalchemy import Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection

from scheduler.persistence.errors import WrongRole

_ROLE = """
    SELECT r.rolname,
           r.rolsuper OR r.rolbypassrls
               OR EXISTS (
                   SELECT FROM pg_class t WHERE t.oid = to_regclass('companies') AND pg_has_role(t.relowner, 'USAGE')
               )
               OR EXISTS (SELECT FROM pg_roles w WHERE w.rolname = 'duecall_worker' AND pg_has_role(w.oid, 'USAGE')),
           EXISTS (SELECT FROM pg_roles a WHERE a.rolname = 'duecall_api' AND pg_has_role(a.oid, 'USAGE'))
    FROM pg_roles r
    WHERE r.rolname = current_user AND to_regclass('companies') IS NOT NULL
"""
"""Our role, whether it sees every tenant's rows, and whether it is bound to a principal's rows.

No row in a database without tables.
"""


def require_bound(engine: Engine, *, bound: bool) -> None:
    """Refuse each connection whose role is not bound to its principal's rows, or with `bound` False, one that is."""
    event.listen(engine, "connect", lambda connection, _: _refuse_wrong_role(connection, bound=bound))


def _refuse_wrong_role(connection: DBAPIConnection, *, bound: bool) -> None:
    cursor = connection.cursor()
    cursor.execute(_ROLE)
    row = cursor.fetchone()
    cursor.close()
    connection.rollback()
    if row is None:
        return
    role, sees_all, is_api = row
    if sees_all is not bound and (is_api or not bound):
        return
    connection.close()
    if bound:
        raise WrongRole(
            f"DATABASE_URL logs in as {role}, which sees {'every' if sees_all else 'no'} company's rows;"
            " the API needs a role that is bound by row-level security: CREATE ROLE api LOGIN PASSWORD '...' IN ROLE"
            " duecall_api. Workers and migrations have roles of their own: DATABASE_WORKER_URL, DATABASE_OWNER_URL."
        )
    raise WrongRole(
        f"workers and operators would log in as {role}, which is bound by row-level security and sees no row; set"
        " DATABASE_WORKER_URL to a role of their own: CREATE ROLE worker LOGIN PASSWORD '...' IN ROLE duecall_worker."
    )
