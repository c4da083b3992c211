"""Columns that a forecast over all companies needs: how long calls last, and when people may be called."""

from alembic import op

revision = '0027'
down_revision = '0026'
branch_labels = None
depends_on = None

_COUNTED = {
    'attempts': 'SELECT (claimed_at, ended_at, schedule)',
    'companies': 'SELECT (settings)',
    'attempt_history': 'SELECT (id, attempt_id, from_state, to_state)',
}


def upgrade() -> None:
    for table, rights in _COUNTED.items():
        op.execute(f'GRANT {rights} ON {table} TO duecall_counter')
    op.execute('CREATE POLICY counted ON attempt_history FOR SELECT TO duecall_counter USING (true)')


def downgrade() -> None:
    op.execute('DROP POLICY counted ON attempt_history')
    for table, rights in _COUNTED.items():
        op.execute(f'REVOKE {rights} ON {table} FROM duecall_counter')
