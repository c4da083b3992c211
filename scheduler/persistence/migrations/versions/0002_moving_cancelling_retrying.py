"""Attempts are moved, cancelled, retried; the carrier has a breaker; settings are resolved anew.

Workers of the release before run on this schema: what they do not know has a default, and no new check is about a
column that they would have to write.
"""

import sqlalchemy as sa
from alembic import op

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None


ENDS = {
    'COMPLETED': ('ANSWERED', 'TEST'),
    'FAILED': (
        'BUSY', 'NO_ANSWER', 'VOICEMAIL', 'DECLINED', 'INVALID_NUMBER', 'CARRIER_ERROR', 'CANCELLED_AT_CARRIER',
        'OUTCOME_UNKNOWN', 'EXPIRED', 'CONSENT_EXPIRED',
    ),
    'CANCELLED': ('CANCELLED_BY_USER', 'REPLACED', 'INTERVIEW_DELETED', 'CANDIDATE_DELETED', 'COMPANY_DELETED'),
}

ARROWS = [
    # event, from, to, reason; '' stands for none
    ('rescheduled', 'PENDING', 'PENDING', ''),
    ('moved_by_settings', 'PENDING', 'PENDING', ''),
    ('expiry_moved', 'PENDING', 'PENDING', ''),
    ('hang_up_wanted', 'IN_PROGRESS', 'IN_PROGRESS', ''),
    ('never_dialled', 'IN_PROGRESS', 'PENDING', ''),
    ('leg_seen', 'FAILED', 'FAILED', 'OUTCOME_UNKNOWN'),
    ('proof_missing', 'FAILED', 'FAILED', 'OUTCOME_UNKNOWN'),
    *(('deleted', state, state, reason) for state, reasons in ENDS.items() for reason in reasons),
]


def upgrade() -> None:
    op.create_table('reresolutions',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('company_id', sa.Uuid(), nullable=False),
    sa.Column('candidate_id', sa.Uuid(), nullable=True),
    sa.Column('after_id', sa.Uuid(), nullable=True),
    sa.Column('is_last_pass', sa.Boolean(), nullable=False),
    sa.Column('not_before', sa.DateTime(timezone=True), nullable=False),
    sa.Column('asked_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('rung_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['company_id'], ['companies.id'], name=op.f('fk_reresolutions_company_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_reresolutions'))
    )
    op.create_index(op.f('ix_reresolutions_company_id'), 'reresolutions', ['company_id'], unique=False)
    op.create_index(op.f('ix_reresolutions_rung_at'), 'reresolutions', ['rung_at'], unique=False)
    op.create_table('stray_calls',
    sa.Column('call_sid', sa.Text(), nullable=False),
    sa.Column('attempt_id', sa.Uuid(), nullable=False),
    sa.Column('seen_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('look_at', sa.DateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['attempt_id'], ['attempts.id'], name=op.f('fk_stray_calls_attempt_id')),
    sa.PrimaryKeyConstraint('call_sid', name=op.f('pk_stray_calls'))
    )
    op.create_index(op.f('ix_stray_calls_attempt_id'), 'stray_calls', ['attempt_id'], unique=False)
    op.create_index('ix_stray_calls_look', 'stray_calls', ['look_at'], unique=False, postgresql_where=sa.text('look_at IS NOT NULL'))
    op.add_column('attempt_tokens', sa.Column('closed_sid', sa.Text(), nullable=True))
    op.add_column('attempts', sa.Column('called_number', sa.Text(), nullable=True))
    op.add_column('attempts', sa.Column('hang_up', sa.Text(), nullable=True))
    op.add_column('attempts', sa.Column('deleted_at', sa.DateTime(timezone=True), nullable=True))
    op.create_index(op.f('ix_attempts_chain_id'), 'attempts', ['chain_id'], unique=False)
    op.add_column('carrier_accounts', sa.Column('failures', sa.Integer(), server_default=sa.text('0'), nullable=False))
    op.add_column('carrier_accounts', sa.Column('down_until', sa.DateTime(timezone=True), nullable=True))
    op.add_column('carrier_accounts', sa.Column('down_cause', sa.Text(), nullable=True))
    op.add_column('interviews', sa.Column('expires_by_default', sa.Boolean(), server_default=sa.text('true'), nullable=False))
    op.add_column('interviews', sa.Column('scheduled_at', sa.DateTime(timezone=True), nullable=True))
    op.create_check_constraint('hang_up', 'attempts', "hang_up IN ('QUEUED_PAST_CLOSING', 'COMPANY_DELETED')")
    op.create_check_constraint('deleted_is_over', 'attempts', "deleted_at IS NULL OR state NOT IN ('PENDING', 'IN_PROGRESS')")
    op.create_check_constraint(
        'a_live_leg_has_a_name',
        'attempts',
        "look_at IS NULL OR state = 'IN_PROGRESS' OR (reason IS NOT DISTINCT FROM 'OUTCOME_UNKNOWN' AND call_sid IS NOT NULL)",
    )
    op.create_check_constraint('a_pause_has_a_reason', 'carrier_accounts', '(paused_at IS NULL) = (pause_reason IS NULL)')
    arrows = sa.table('arrows', *(sa.column(name) for name in ('event', 'from_state', 'to_state', 'reason')))
    op.bulk_insert(arrows, [dict(zip(('event', 'from_state', 'to_state', 'reason'), row)) for row in ARROWS])


def downgrade() -> None:
    arrows = ', '.join(f"('{event}', '{source}', '{target}', '{reason}')" for event, source, target, reason in ARROWS)
    for table in ('attempt_history', 'arrows'):
        op.execute(f"DELETE FROM {table} WHERE (event, from_state, to_state, reason) IN ({arrows})")
    op.drop_constraint('a_pause_has_a_reason', 'carrier_accounts', type_='check')
    op.drop_constraint('a_live_leg_has_a_name', 'attempts', type_='check')
    op.drop_constraint('deleted_is_over', 'attempts', type_='check')
    op.drop_constraint('hang_up', 'attempts', type_='check')
    op.drop_column('interviews', 'scheduled_at')
    op.drop_column('interviews', 'expires_by_default')
    op.drop_column('carrier_accounts', 'down_cause')
    op.drop_column('carrier_accounts', 'down_until')
    op.drop_column('carrier_accounts', 'failures')
    op.drop_index(op.f('ix_attempts_chain_id'), table_name='attempts')
    op.drop_column('attempts', 'deleted_at')
    op.drop_column('attempts', 'hang_up')
    op.drop_column('attempts', 'called_number')
    op.drop_column('attempt_tokens', 'closed_sid')
    op.drop_index('ix_stray_calls_look', table_name='stray_calls', postgresql_where=sa.text('look_at IS NOT NULL'))
    op.drop_index(op.f('ix_stray_calls_attempt_id'), table_name='stray_calls')
    op.drop_table('stray_calls')
    op.drop_index(op.f('ix_reresolutions_rung_at'), table_name='reresolutions')
    op.drop_index(op.f('ix_reresolutions_company_id'), table_name='reresolutions')
    op.drop_table('reresolutions')
