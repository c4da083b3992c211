"""Decisions of operators about unknown outcomes, and the failures of what is in quarantine."""

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
    op.create_index(
        'ix_carrier_events_quarantined',
        'carrier_events',
        ['received_at'],
        postgresql_where=sa.text('heard_at IS NULL AND quarantined_at IS NOT NULL'),
    )


def downgrade() -> None:
    op.drop_index('ix_carrier_events_quarantined', table_name='carrier_events')
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
