"""The first schema."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0001'
down_revision = None
branch_labels = None
depends_on = None


ARROWS = [
    # event, from, to, reason; '' stands for none
    ('created', '', 'PENDING', ''),
    ('created_as_test', '', 'COMPLETED', 'TEST'),
    ('claimed', 'PENDING', 'IN_PROGRESS', ''),
    ('deferred', 'IN_PROGRESS', 'PENDING', ''),
    ('not_placed', 'IN_PROGRESS', 'PENDING', ''),
    ('placed', 'IN_PROGRESS', 'IN_PROGRESS', ''),
    ('answer_lost', 'IN_PROGRESS', 'IN_PROGRESS', ''),
    ('progressed', 'IN_PROGRESS', 'IN_PROGRESS', ''),
    ('ended', 'IN_PROGRESS', 'COMPLETED', 'ANSWERED'),
    ('ended', 'IN_PROGRESS', 'FAILED', 'BUSY'),
    ('ended', 'IN_PROGRESS', 'FAILED', 'NO_ANSWER'),
    ('ended', 'IN_PROGRESS', 'FAILED', 'VOICEMAIL'),
    ('ended', 'IN_PROGRESS', 'FAILED', 'DECLINED'),
    ('ended', 'IN_PROGRESS', 'FAILED', 'INVALID_NUMBER'),
    ('ended', 'IN_PROGRESS', 'FAILED', 'CARRIER_ERROR'),
    ('ended', 'IN_PROGRESS', 'FAILED', 'CANCELLED_AT_CARRIER'),
    ('proof_missing', 'IN_PROGRESS', 'FAILED', 'OUTCOME_UNKNOWN'),
    ('proven', 'FAILED', 'COMPLETED', 'ANSWERED'),
    ('proven', 'FAILED', 'FAILED', 'BUSY'),
    ('proven', 'FAILED', 'FAILED', 'NO_ANSWER'),
    ('proven', 'FAILED', 'FAILED', 'VOICEMAIL'),
    ('proven', 'FAILED', 'FAILED', 'DECLINED'),
    ('proven', 'FAILED', 'FAILED', 'INVALID_NUMBER'),
    ('proven', 'FAILED', 'FAILED', 'CARRIER_ERROR'),
    ('proven', 'FAILED', 'FAILED', 'CANCELLED_AT_CARRIER'),
    ('expired', 'PENDING', 'FAILED', 'EXPIRED'),
    ('consent_ended', 'PENDING', 'FAILED', 'CONSENT_EXPIRED'),
    ('cancelled', 'PENDING', 'CANCELLED', 'CANCELLED_BY_USER'),
    ('cancelled', 'PENDING', 'CANCELLED', 'REPLACED'),
    ('cancelled', 'PENDING', 'CANCELLED', 'INTERVIEW_DELETED'),
    ('cancelled', 'PENDING', 'CANCELLED', 'CANDIDATE_DELETED'),
    ('cancelled', 'PENDING', 'CANCELLED', 'COMPANY_DELETED'),
    ('cancelled', 'IN_PROGRESS', 'CANCELLED', 'COMPANY_DELETED'),
]


def upgrade() -> None:
    op.create_table('arrows',
    sa.Column('event', sa.Text(), nullable=False),
    sa.Column('from_state', sa.Text(), nullable=False),
    sa.Column('to_state', sa.Text(), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('event', 'from_state', 'to_state', 'reason', name=op.f('pk_arrows'))
    )
    op.create_table('carrier_accounts',
    sa.Column('id', sa.SmallInteger(), nullable=False),
    sa.Column('account_sid', sa.Text(), nullable=False),
    sa.Column('calls_per_second', sa.Numeric(precision=8, scale=3), nullable=False),
    sa.Column('max_calls', sa.Integer(), nullable=False),
    sa.Column('next_slot_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('paused_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('pause_reason', sa.Text(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('updated_at', sa.DateTime(timezone=True), nullable=False),
    sa.CheckConstraint('calls_per_second > 0 AND max_calls >= 0', name=op.f('ck_carrier_accounts_limits_are_positive')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_carrier_accounts')),
    sa.UniqueConstraint('account_sid', name=op.f('uq_carrier_accounts_account_sid'))
    )
    op.create_table('carrier_events',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('token', sa.Text(), nullable=False),
    sa.Column('fingerprint', sa.LargeBinary(), nullable=False),
    sa.Column('raw', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('received_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('rung_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('heard_at', sa.DateTime(timezone=True), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_carrier_events')),
    sa.UniqueConstraint('fingerprint', name=op.f('uq_carrier_events_fingerprint'))
    )
    op.create_index(op.f('ix_carrier_events_token'), 'carrier_events', ['token'], unique=False)
    op.create_index('ix_carrier_events_unheard', 'carrier_events', ['rung_at'], unique=False, postgresql_where=sa.text('heard_at IS NULL'))
    op.create_table('companies',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('settings', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('ats_principal_id', sa.Uuid(), nullable=True),
    sa.Column('calls_per_second', sa.Numeric(precision=8, scale=3), nullable=False),
    sa.Column('concurrent_calls', sa.Integer(), nullable=False),
    sa.Column('next_slot_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('paused_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('pause_reason', sa.Text(), nullable=True),
    sa.Column('deleted_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('updated_at', sa.DateTime(timezone=True), nullable=False),
    sa.CheckConstraint('(paused_at IS NULL) = (pause_reason IS NULL)', name=op.f('ck_companies_a_pause_has_a_reason')),
    sa.CheckConstraint('calls_per_second > 0 AND concurrent_calls >= 0', name=op.f('ck_companies_limits_are_positive')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_companies'))
    )
    op.create_index(op.f('ix_companies_ats_principal_id'), 'companies', ['ats_principal_id'], unique=False)
    op.create_table('api_keys',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('principal_id', sa.Uuid(), nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('company_id', sa.Uuid(), nullable=True),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('key_hash', sa.LargeBinary(), nullable=False),
    sa.Column('scopes', sa.ARRAY(sa.Text()), nullable=False),
    sa.Column('per_minute', sa.Integer(), nullable=False),
    sa.Column('per_hour', sa.Integer(), nullable=False),
    sa.Column('expires_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('suspended_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('revoked_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('updated_at', sa.DateTime(timezone=True), nullable=False),
    sa.CheckConstraint("(kind = 'REGULAR') = (company_id IS NOT NULL)", name=op.f('ck_api_keys_a_regular_key_has_one_company')),
    sa.CheckConstraint("kind IN ('REGULAR', 'ATS')", name=op.f('ck_api_keys_kind')),
    sa.ForeignKeyConstraint(['company_id'], ['companies.id'], name=op.f('fk_api_keys_company_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_api_keys')),
    sa.UniqueConstraint('key_hash', name=op.f('uq_api_keys_key_hash'))
    )
    op.create_index(op.f('ix_api_keys_company_id'), 'api_keys', ['company_id'], unique=False)
    op.create_index(op.f('ix_api_keys_principal_id'), 'api_keys', ['principal_id'], unique=False)
    op.create_table('candidates',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('company_id', sa.Uuid(), nullable=False),
    sa.Column('first_name', sa.Text(), nullable=True),
    sa.Column('last_name', sa.Text(), nullable=True),
    sa.Column('email', sa.Text(), nullable=True),
    sa.Column('phone_number', sa.Text(), nullable=True),
    sa.Column('timezone', sa.Text(), nullable=True),
    sa.Column('gdpr_expiry_date', sa.Date(), nullable=False),
    sa.Column('metadata', postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
    sa.Column('erased_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('updated_at', sa.DateTime(timezone=True), nullable=False),
    sa.CheckConstraint("phone_number ~ '^\\+[1-9][0-9]{6,14}$'", name=op.f('ck_candidates_e164')),
    sa.CheckConstraint('CASE WHEN erased_at IS NULL THEN first_name IS NOT NULL AND last_name IS NOT NULL AND (email IS NOT NULL OR phone_number IS NOT NULL) ELSE num_nonnulls(first_name, last_name, email, phone_number) = 0 END', name=op.f('ck_candidates_somebody_or_nobody')),
    sa.ForeignKeyConstraint(['company_id'], ['companies.id'], name=op.f('fk_candidates_company_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_candidates')),
    sa.UniqueConstraint('company_id', 'id', name=op.f('uq_candidates_company_id_id'))
    )
    op.create_table('inbox',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('seq', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('principal_id', sa.Uuid(), nullable=False),
    sa.Column('company_id', sa.Uuid(), nullable=False),
    sa.Column('idempotency_key', sa.Text(), nullable=True),
    sa.Column('request_hash', sa.LargeBinary(), nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('body', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.Column('interview_id', sa.Uuid(), nullable=True),
    sa.Column('received_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('rung_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('applied_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('answer', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.Column('failures', sa.Integer(), nullable=False),
    sa.Column('quarantined_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint('(applied_at IS NULL) = (answer IS NULL)', name=op.f('ck_inbox_applied_is_answered')),
    sa.CheckConstraint('(applied_at IS NULL) = (body IS NOT NULL)', name=op.f('ck_inbox_a_body_until_applied')),
    sa.ForeignKeyConstraint(['company_id'], ['companies.id'], name=op.f('fk_inbox_company_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_inbox'))
    )
    op.create_index('ix_inbox_waiting', 'inbox', ['rung_at'], unique=False, postgresql_where=sa.text('applied_at IS NULL'))
    op.create_index('ix_inbox_waiting_by_interview', 'inbox', ['interview_id', 'seq'], unique=False, postgresql_where=sa.text('applied_at IS NULL'))
    op.create_index('uq_inbox_idempotency_key', 'inbox', ['principal_id', 'idempotency_key'], unique=True, postgresql_where=sa.text('idempotency_key IS NOT NULL'))
    op.create_table('phone_numbers',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('company_id', sa.Uuid(), nullable=False),
    sa.Column('number', sa.Text(), nullable=False),
    sa.Column('number_type', sa.Text(), server_default='LOCAL', nullable=False),
    sa.Column('provider', sa.Text(), server_default='TWILIO', nullable=False),
    sa.Column('status', sa.Text(), server_default='AVAILABLE', nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('updated_at', sa.DateTime(timezone=True), nullable=False),
    sa.CheckConstraint("number ~ '^\\+[1-9][0-9]{6,14}$'", name=op.f('ck_phone_numbers_e164')),
    sa.ForeignKeyConstraint(['company_id'], ['companies.id'], name=op.f('fk_phone_numbers_company_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_phone_numbers')),
    sa.UniqueConstraint('company_id', 'id', name=op.f('uq_phone_numbers_company_id_id')),
    sa.UniqueConstraint('company_id', 'number', name=op.f('uq_phone_numbers_company_id_number'))
    )
    op.create_table('agents',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('company_id', sa.Uuid(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('type', sa.Text(), nullable=False),
    sa.Column('focus', sa.Text(), nullable=False),
    sa.Column('language', sa.Text(), nullable=False),
    sa.Column('duration', sa.Interval(), nullable=False),
    sa.Column('phone_number_id', sa.Uuid(), nullable=True),
    sa.Column('metadata', postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
    sa.Column('deleted_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('updated_at', sa.DateTime(timezone=True), nullable=False),
    sa.CheckConstraint("focus IN ('GENERIC', 'SCREENING', 'OUTREACH', 'LANGUAGE_TEST')", name=op.f('ck_agents_focus')),
    sa.CheckConstraint("type <> 'PHONE' OR phone_number_id IS NOT NULL", name=op.f('ck_agents_a_phone_agent_has_a_caller_id')),
    sa.CheckConstraint("type IN ('PHONE', 'ONLINE')", name=op.f('ck_agents_type')),
    sa.ForeignKeyConstraint(['company_id', 'phone_number_id'], ['phone_numbers.company_id', 'phone_numbers.id'], name=op.f('fk_agents_company_id_phone_number_id')),
    sa.ForeignKeyConstraint(['company_id'], ['companies.id'], name=op.f('fk_agents_company_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_agents')),
    sa.UniqueConstraint('company_id', 'id', name=op.f('uq_agents_company_id_id'))
    )
    op.create_table('interviews',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('company_id', sa.Uuid(), nullable=False),
    sa.Column('candidate_id', sa.Uuid(), nullable=False),
    sa.Column('agent_id', sa.Uuid(), nullable=False),
    sa.Column('type', sa.Text(), nullable=False),
    sa.Column('focus', sa.Text(), nullable=False),
    sa.Column('duration', sa.Interval(), nullable=False),
    sa.Column('caller_number', sa.Text(), nullable=True),
    sa.Column('status', sa.Text(), nullable=False),
    sa.Column('is_test', sa.Boolean(), nullable=False),
    sa.Column('metadata', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('expires_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('finished_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('deleted_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('updated_at', sa.DateTime(timezone=True), nullable=False),
    sa.CheckConstraint("(status = 'SCHEDULED') = (finished_at IS NULL)", name=op.f('ck_interviews_finished_when_over')),
    sa.CheckConstraint("status IN ('SCHEDULED', 'COMPLETED', 'FAILED', 'CANCELLED')", name=op.f('ck_interviews_status')),
    sa.CheckConstraint("type <> 'PHONE' OR caller_number IS NOT NULL", name=op.f('ck_interviews_a_phone_interview_has_a_caller_id')),
    sa.CheckConstraint("type IN ('PHONE', 'ONLINE')", name=op.f('ck_interviews_type')),
    sa.ForeignKeyConstraint(['company_id', 'agent_id'], ['agents.company_id', 'agents.id'], name=op.f('fk_interviews_company_id_agent_id')),
    sa.ForeignKeyConstraint(['company_id', 'candidate_id'], ['candidates.company_id', 'candidates.id'], name=op.f('fk_interviews_company_id_candidate_id')),
    sa.ForeignKeyConstraint(['company_id'], ['companies.id'], name=op.f('fk_interviews_company_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_interviews')),
    sa.UniqueConstraint('company_id', 'id', name=op.f('uq_interviews_company_id_id'))
    )
    op.create_index(op.f('ix_interviews_agent_id'), 'interviews', ['agent_id'], unique=False)
    op.create_index(op.f('ix_interviews_candidate_id'), 'interviews', ['candidate_id'], unique=False)
    op.create_index(op.f('ix_interviews_company_id_created_at_id'), 'interviews', ['company_id', 'created_at', 'id'], unique=False)
    op.create_table('attempts',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('interview_id', sa.Uuid(), nullable=False),
    sa.Column('company_id', sa.Uuid(), nullable=False),
    sa.Column('chain_id', sa.Uuid(), nullable=False),
    sa.Column('retry_number', sa.Integer(), nullable=False),
    sa.Column('manual', sa.Boolean(), nullable=False),
    sa.Column('state', sa.Text(), nullable=False),
    sa.Column('phase', sa.Text(), nullable=True),
    sa.Column('reason', sa.Text(), nullable=True),
    sa.Column('due_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('expires_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('released_until', sa.DateTime(timezone=True), nullable=True),
    sa.Column('schedule', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('warnings', sa.ARRAY(sa.Text()), nullable=False),
    sa.Column('number_hash', sa.LargeBinary(), nullable=True),
    sa.Column('epoch', sa.Integer(), nullable=False),
    sa.Column('token', sa.Text(), nullable=True),
    sa.Column('account_id', sa.SmallInteger(), nullable=True),
    sa.Column('claimed_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('lease_until', sa.DateTime(timezone=True), nullable=True),
    sa.Column('call_sid', sa.Text(), nullable=True),
    sa.Column('heard_rank', sa.SmallInteger(), nullable=False),
    sa.Column('unknown_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('look_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('looks', sa.Integer(), nullable=False),
    sa.Column('not_placed', sa.Integer(), nullable=False),
    sa.Column('answered_by', sa.Text(), nullable=True),
    sa.Column('duration', sa.Interval(), nullable=True),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('updated_at', sa.DateTime(timezone=True), nullable=False),
    sa.CheckConstraint("(phase IS NOT DISTINCT FROM 'DIALLING') = (lease_until IS NOT NULL)", name=op.f('ck_attempts_dialling_has_a_lease')),
    sa.CheckConstraint("(state = 'IN_PROGRESS') = (phase IS NOT NULL)", name=op.f('ck_attempts_a_phase_in_progress_only')),
    sa.CheckConstraint("((state IN ('PENDING', 'IN_PROGRESS') AND reason IS NULL) OR (state = 'COMPLETED' AND reason IN ('ANSWERED', 'TEST')) OR (state = 'FAILED' AND reason IN ('BUSY', 'NO_ANSWER', 'VOICEMAIL', 'DECLINED', 'INVALID_NUMBER', 'CARRIER_ERROR', 'CANCELLED_AT_CARRIER', 'OUTCOME_UNKNOWN', 'EXPIRED', 'CONSENT_EXPIRED')) OR (state = 'CANCELLED' AND reason IN ('CANCELLED_BY_USER', 'REPLACED', 'INTERVIEW_DELETED', 'CANDIDATE_DELETED', 'COMPANY_DELETED'))) IS TRUE", name=op.f('ck_attempts_state_and_reason')),
    sa.CheckConstraint("(state IN ('PENDING', 'IN_PROGRESS')) = (ended_at IS NULL)", name=op.f('ck_attempts_ended_when_over')),
    sa.CheckConstraint("phase <> 'PLACED' OR call_sid IS NOT NULL", name=op.f('ck_attempts_placed_is_named')),
    sa.CheckConstraint("phase <> 'UNKNOWN' OR unknown_at IS NOT NULL", name=op.f('ck_attempts_unknown_since')),
    sa.CheckConstraint("phase IN ('DIALLING', 'PLACED', 'UNKNOWN')", name=op.f('ck_attempts_phase')),
    sa.CheckConstraint("phase IS NULL OR phase = 'DIALLING' OR look_at IS NOT NULL", name=op.f('ck_attempts_somebody_looks_for_its_end')),
    sa.CheckConstraint("reason IS NOT DISTINCT FROM 'TEST' OR number_hash IS NOT NULL", name=op.f('ck_attempts_a_call_has_a_line')),
    sa.CheckConstraint("state <> 'IN_PROGRESS' OR num_nulls(token, claimed_at, account_id, number_hash) = 0", name=op.f('ck_attempts_in_progress_is_claimed')),
    sa.CheckConstraint("state <> 'PENDING' OR num_nonnulls(claimed_at, lease_until, call_sid, unknown_at, look_at) = 0", name=op.f('ck_attempts_pending_is_not_called')),
    sa.ForeignKeyConstraint(['account_id'], ['carrier_accounts.id'], name=op.f('fk_attempts_account_id')),
    sa.ForeignKeyConstraint(['company_id', 'interview_id'], ['interviews.company_id', 'interviews.id'], name=op.f('fk_attempts_company_id_interview_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_attempts')),
    sa.UniqueConstraint('company_id', 'id', name=op.f('uq_attempts_company_id_id'))
    )
    op.create_index('ix_attempts_due', 'attempts', ['due_at'], unique=False, postgresql_where=sa.text("state = 'PENDING'"))
    op.create_index('ix_attempts_due_by_company', 'attempts', ['company_id', 'due_at'], unique=False, postgresql_where=sa.text("state = 'PENDING'"))
    op.create_index('ix_attempts_expiry', 'attempts', ['expires_at'], unique=False, postgresql_where=sa.text("state = 'PENDING'"))
    op.create_index('ix_attempts_in_progress', 'attempts', ['company_id'], unique=False, postgresql_where=sa.text("state = 'IN_PROGRESS'"))
    op.create_index(op.f('ix_attempts_interview_id_created_at'), 'attempts', ['interview_id', 'created_at'], unique=False)
    op.create_index('ix_attempts_lease', 'attempts', ['lease_until'], unique=False, postgresql_where=sa.text('lease_until IS NOT NULL'))
    op.create_index('ix_attempts_released', 'attempts', ['company_id', 'released_until'], unique=False, postgresql_where=sa.text("state = 'PENDING' AND released_until IS NOT NULL"))
    op.create_index('ix_attempts_look', 'attempts', ['look_at'], unique=False, postgresql_where=sa.text('look_at IS NOT NULL'))
    op.create_index('uq_attempts_call_sid', 'attempts', ['call_sid'], unique=True, postgresql_where=sa.text('call_sid IS NOT NULL'))
    op.create_index('uq_attempts_one_call_per_number', 'attempts', ['number_hash'], unique=True, postgresql_where=sa.text("state = 'IN_PROGRESS'"))
    op.create_index('uq_attempts_one_open_per_interview', 'attempts', ['interview_id'], unique=True, postgresql_where=sa.text("state IN ('PENDING', 'IN_PROGRESS')"))
    op.create_table('attempt_history',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('attempt_id', sa.Uuid(), nullable=False),
    sa.Column('at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('event', sa.Text(), nullable=False),
    sa.Column('from_state', sa.Text(), nullable=False),
    sa.Column('to_state', sa.Text(), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('epoch', sa.Integer(), nullable=False),
    sa.Column('actor', sa.Text(), nullable=False),
    sa.Column('detail', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.ForeignKeyConstraint(['attempt_id'], ['attempts.id'], name=op.f('fk_attempt_history_attempt_id')),
    sa.ForeignKeyConstraint(['event', 'from_state', 'to_state', 'reason'], ['arrows.event', 'arrows.from_state', 'arrows.to_state', 'arrows.reason'], name=op.f('fk_attempt_history_event_from_state_to_state_reason')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_attempt_history'))
    )
    op.create_index(op.f('ix_attempt_history_attempt_id_id'), 'attempt_history', ['attempt_id', 'id'], unique=False)
    op.create_table('attempt_tokens',
    sa.Column('token', sa.Text(), nullable=False),
    sa.Column('attempt_id', sa.Uuid(), nullable=False),
    sa.Column('claimed_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['attempt_id'], ['attempts.id'], name=op.f('fk_attempt_tokens_attempt_id')),
    sa.PrimaryKeyConstraint('token', name=op.f('pk_attempt_tokens'))
    )
    op.create_index(op.f('ix_attempt_tokens_attempt_id'), 'attempt_tokens', ['attempt_id'], unique=False)
    op.create_table('lines',
    sa.Column('number_hash', sa.LargeBinary(), nullable=False),
    sa.Column('attempt_id', sa.Uuid(), nullable=True),
    sa.Column('interview_id', sa.Uuid(), nullable=True),
    sa.Column('free_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['attempt_id'], ['attempts.id'], name=op.f('fk_lines_attempt_id')),
    sa.PrimaryKeyConstraint('number_hash', name=op.f('pk_lines')),
    sa.UniqueConstraint('attempt_id', name=op.f('uq_lines_attempt_id'))
    )
    arrows = sa.table('arrows', *(sa.column(name) for name in ('event', 'from_state', 'to_state', 'reason')))
    op.bulk_insert(arrows, [dict(zip(('event', 'from_state', 'to_state', 'reason'), row)) for row in ARROWS])


def downgrade() -> None:
    op.drop_table('lines')
    op.drop_index(op.f('ix_attempt_tokens_attempt_id'), table_name='attempt_tokens')
    op.drop_table('attempt_tokens')
    op.drop_index(op.f('ix_attempt_history_attempt_id_id'), table_name='attempt_history')
    op.drop_table('attempt_history')
    op.drop_index('uq_attempts_one_open_per_interview', table_name='attempts', postgresql_where=sa.text("state IN ('PENDING', 'IN_PROGRESS')"))
    op.drop_index('uq_attempts_one_call_per_number', table_name='attempts', postgresql_where=sa.text("state = 'IN_PROGRESS'"))
    op.drop_index('uq_attempts_call_sid', table_name='attempts', postgresql_where=sa.text('call_sid IS NOT NULL'))
    op.drop_index('ix_attempts_look', table_name='attempts', postgresql_where=sa.text('look_at IS NOT NULL'))
    op.drop_index('ix_attempts_lease', table_name='attempts', postgresql_where=sa.text('lease_until IS NOT NULL'))
    op.drop_index(op.f('ix_attempts_interview_id_created_at'), table_name='attempts')
    op.drop_index('ix_attempts_in_progress', table_name='attempts', postgresql_where=sa.text("state = 'IN_PROGRESS'"))
    op.drop_index('ix_attempts_expiry', table_name='attempts', postgresql_where=sa.text("state = 'PENDING'"))
    op.drop_index('ix_attempts_due_by_company', table_name='attempts', postgresql_where=sa.text("state = 'PENDING'"))
    op.drop_index('ix_attempts_due', table_name='attempts', postgresql_where=sa.text("state = 'PENDING'"))
    op.drop_table('attempts')
    op.drop_index(op.f('ix_interviews_company_id_created_at_id'), table_name='interviews')
    op.drop_index(op.f('ix_interviews_candidate_id'), table_name='interviews')
    op.drop_index(op.f('ix_interviews_agent_id'), table_name='interviews')
    op.drop_table('interviews')
    op.drop_table('agents')
    op.drop_table('phone_numbers')
    op.drop_index('uq_inbox_idempotency_key', table_name='inbox', postgresql_where=sa.text('idempotency_key IS NOT NULL'))
    op.drop_index('ix_inbox_waiting_by_interview', table_name='inbox', postgresql_where=sa.text('applied_at IS NULL'))
    op.drop_index('ix_inbox_waiting', table_name='inbox', postgresql_where=sa.text('applied_at IS NULL'))
    op.drop_table('inbox')
    op.drop_table('candidates')
    op.drop_index(op.f('ix_api_keys_principal_id'), table_name='api_keys')
    op.drop_index(op.f('ix_api_keys_company_id'), table_name='api_keys')
    op.drop_table('api_keys')
    op.drop_index(op.f('ix_companies_ats_principal_id'), table_name='companies')
    op.drop_table('companies')
    op.drop_index('ix_carrier_events_unheard', table_name='carrier_events', postgresql_where=sa.text('heard_at IS NULL'))
    op.drop_index(op.f('ix_carrier_events_token'), table_name='carrier_events')
    op.drop_table('carrier_events')
    op.drop_table('carrier_accounts')
    op.drop_table('arrows')
