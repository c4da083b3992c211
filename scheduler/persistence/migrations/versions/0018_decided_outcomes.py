"""Decisions of operators about unknown outcomes, causes of quarantines, and a list of open transactions."""

import sqlalchemy as sa
from alembic import op

revision = '0018'
down_revision = '0017'
branch_labels = None
depends_on = None

_ARROW = "('decided', 'FAILED', 'FAILED', 'OUTCOME_UNKNOWN')"
_CHECKS = {
    'decision': "decision IN ('RANG', 'DID_NOT_RING', 'LEFT')",
    'decided_at_an_instant': '(decision IS NULL) = (decided_at IS NULL)',
    'decided_is_over': "decision IS NULL OR state NOT IN ('PENDING', 'IN_PROGRESS')",
}
_QUARANTINES = ('inbox', 'carrier_events')


# With the owner's rights: other roles do not see the state and the beginning of each other's transactions. Statements are
# left out, because they may contain personal data.
_TRANSACTIONS = """
    CREATE FUNCTION open_transactions() RETURNS TABLE (
        pid integer, login name, program text, state text, waits_for text, since timestamptz, blocks bigint
    )
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT a.pid, a.usename, a.application_name, a.state, a.wait_event_type, a.xact_start,
               (SELECT count(DISTINCT w.pid) FROM pg_locks w
                WHERE NOT w.granted AND a.pid = ANY (pg_blocking_pids(w.pid)))
        FROM pg_stat_activity a
        WHERE a.datname = current_database() AND a.backend_type = 'client backend'
          AND a.xact_start IS NOT NULL AND a.pid <> pg_backend_pid()
        ORDER BY a.xact_start;
    END
"""


def upgrade() -> None:
    op.add_column('attempts', sa.Column('decision', sa.Text(), nullable=True))
    op.add_column('attempts', sa.Column('decided_at', sa.DateTime(timezone=True), nullable=True))
    for name, condition in _CHECKS.items():
        op.create_check_constraint(op.f(f'ck_attempts_{name}'), 'attempts', condition)
    _index_unknown("reason = 'OUTCOME_UNKNOWN' AND decided_at IS NULL")
    op.execute('GRANT SELECT (decided_at) ON attempts TO duecall_counter')
    op.execute(f'INSERT INTO arrows (event, from_state, to_state, reason) VALUES {_ARROW}')
    for table in _QUARANTINES:
        op.add_column(table, sa.Column('first_failed_at', sa.DateTime(timezone=True), nullable=True))
        op.add_column(table, sa.Column('failed_with', sa.Text(), nullable=True))
    op.execute(_TRANSACTIONS)
    op.execute('REVOKE ALL ON FUNCTION open_transactions() FROM PUBLIC')
    op.execute('GRANT EXECUTE ON FUNCTION open_transactions() TO duecall_worker')


def downgrade() -> None:
    op.execute('DROP FUNCTION open_transactions()')
    # Workers of the previous version would leave them, and each would block its interview.
    op.execute("DELETE FROM inbox WHERE kind = 'decide_outcome'")
    for table in _QUARANTINES:
        op.drop_column(table, 'failed_with')
        op.drop_column(table, 'first_failed_at')
    for table in ('attempt_history', 'arrows'):
        op.execute(f'DELETE FROM {table} WHERE (event, from_state, to_state, reason) = {_ARROW}')
    op.execute('REVOKE SELECT (decided_at) ON attempts FROM duecall_counter')
    _index_unknown("reason = 'OUTCOME_UNKNOWN'")
    for name in _CHECKS:
        op.drop_constraint(op.f(f'ck_attempts_{name}'), 'attempts', type_='check')
    op.drop_column('attempts', 'decided_at')
    op.drop_column('attempts', 'decision')


def _index_unknown(condition: str) -> None:
    op.drop_index('ix_attempts_unknown', table_name='attempts')
    op.create_index('ix_attempts_unknown', 'attempts', ['company_id'], postgresql_where=sa.text(condition))
