"""Operators sign acts only as the operator of a session, and read no token of a call. Keys of a company share webhooks.

A token signs nothing by itself, but it names a call to the carrier's callbacks. The role of the console needs
only the attempt of a quarantined callback, which a function returns.
"""

from alembic import op

revision = '0030'
down_revision = '0029'
branch_labels = None
depends_on = None

_ROLE = 'duecall_operator'
_NEW_COLUMNS = {'companies': 'calls_per_second_ceiling, concurrent_calls_ceiling', 'candidates': 'leaving_at'}
"""Of the revisions before this one. They contain no personal data."""
_OLD_ACTOR = "actor LIKE 'link:%' OR actor LIKE 'oidc:%'"
_ACTOR_OF_A_SESSION = (
    "EXISTS (SELECT FROM console_sessions s"
    " WHERE s.actor = audit.actor AND s.revoked_at IS NULL AND s.expires_at > audit.at)"
)
_SIGNED_IN = (
    "actor LIKE 'oidc:%' OR EXISTS (SELECT FROM sign_in_links l WHERE console_sessions.actor = 'link:' || l.id"
    " AND l.used_at IS NOT NULL AND l.role = console_sessions.role)"
)
"""A session of a link has the role of the link, which is used by then."""

_PRINCIPAL = "(SELECT nullif(current_setting('duecall.principal_id', true), '')::uuid)"
_COMPANY = "(SELECT nullif(current_setting('duecall.company_id', true), '')::uuid)"
_OWN = f"principal_id = {_PRINCIPAL}"
_SHARED = (
    f"({_OWN} OR EXISTS (SELECT FROM companies c WHERE c.id = webhook_endpoints.company_id"
    f" AND (c.ats_principal_id = {_PRINCIPAL}"
    f" OR (c.id = {_COMPANY} AND c.ats_principal_id IS DISTINCT FROM webhook_endpoints.principal_id))))"
)
"""Those of the company's other keys, and for its ATS those of the company's keys. Not those of the ATS for the company."""
_REACHED = (
    f"(company_id IS NULL OR (company_id = {_COMPANY}"
    " OR EXISTS (SELECT FROM companies c WHERE c.id = webhook_endpoints.company_id)))"
)
_SHARED_CHANGE = f"({_OWN} AND {_REACHED} OR disabled_cause = 'DELETED' AND {_SHARED})"
"""Other keys may only delete."""


def upgrade() -> None:
    op.execute("""
        CREATE FUNCTION quarantined_call(callback uuid) RETURNS uuid
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        BEGIN ATOMIC
            SELECT t.attempt_id FROM carrier_events e JOIN attempt_tokens t ON t.token = e.token
            WHERE e.id = callback AND e.quarantined_at IS NOT NULL;
        END
    """)
    op.execute('REVOKE ALL ON FUNCTION quarantined_call(uuid) FROM PUBLIC')
    op.execute(f'GRANT EXECUTE ON FUNCTION quarantined_call(uuid) TO duecall_worker, {_ROLE}')
    op.execute(f'REVOKE SELECT (token) ON attempts, carrier_events FROM {_ROLE}')
    op.execute(f'REVOKE SELECT ON attempt_tokens FROM {_ROLE}')
    for table, columns in _NEW_COLUMNS.items():
        op.execute(f'GRANT SELECT ({columns}) ON {table} TO {_ROLE}')
    _replace('audit', 'operator_made', f'FOR INSERT TO {_ROLE} WITH CHECK ({_ACTOR_OF_A_SESSION})')
    _replace('console_sessions', 'operator_made', f'FOR INSERT TO {_ROLE} WITH CHECK ({_SIGNED_IN})')
    _replace('webhook_endpoints', 'own_seen', f'FOR SELECT TO duecall_api USING ({_SHARED})')
    _replace(
        'webhook_endpoints',
        'own_changed',
        f'FOR UPDATE TO duecall_api USING ({_SHARED}) WITH CHECK ({_SHARED_CHANGE})',
    )


def _replace(table: str, name: str, policy: str) -> None:
    op.execute(f'DROP POLICY {name} ON {table}')
    op.execute(f'CREATE POLICY {name} ON {table} {policy}')


def downgrade() -> None:
    _replace(
        'webhook_endpoints',
        'own_changed',
        f'FOR UPDATE TO duecall_api USING ({_OWN}) WITH CHECK ({_OWN} AND {_REACHED})',
    )
    _replace('webhook_endpoints', 'own_seen', f'FOR SELECT TO duecall_api USING ({_OWN})')
    _replace('console_sessions', 'operator_made', f'FOR INSERT TO {_ROLE} WITH CHECK (true)')
    _replace('audit', 'operator_made', f'FOR INSERT TO {_ROLE} WITH CHECK ({_OLD_ACTOR})')
    op.execute(f'GRANT SELECT ON attempt_tokens TO {_ROLE}')
    op.execute(f'GRANT SELECT (token) ON attempts, carrier_events TO {_ROLE}')
    for table, columns in _NEW_COLUMNS.items():
        op.execute(f'REVOKE SELECT ({columns}) ON {table} FROM {_ROLE}')
    op.execute('DROP FUNCTION quarantined_call(uuid)')
