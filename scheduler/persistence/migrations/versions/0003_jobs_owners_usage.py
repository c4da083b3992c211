"""Jobs and who is considered for them; owners by email; usage; what remains of a company that was deleted.

A carrier that is down is asked before a call is tried; carrier events that nobody can hear are set aside.

Workers of the release before run on this schema: what they do not know has a default.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('erasures',
    sa.Column('company_id', sa.Uuid(), nullable=False),
    sa.Column('ats_principal_id', sa.Uuid(), nullable=True),
    sa.Column('asked_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('rung_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('finished_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('erased', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.PrimaryKeyConstraint('company_id', name=op.f('pk_erasures'))
    )
    op.create_index('ix_erasures_open', 'erasures', ['rung_at'], unique=False, postgresql_where=sa.text('finished_at IS NULL'))
    op.create_table('usage',
    sa.Column('attempt_id', sa.Uuid(), nullable=False),
    sa.Column('company_id', sa.Uuid(), nullable=False),
    sa.Column('ats_principal_id', sa.Uuid(), nullable=True),
    sa.Column('interview_id', sa.Uuid(), nullable=False),
    sa.Column('booked_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('billing_system', sa.Text(), nullable=False),
    sa.Column('cost_key', sa.Text(), nullable=False),
    sa.Column('talked', sa.Interval(), nullable=False),
    sa.Column('credits', sa.Numeric(precision=14, scale=6), nullable=True),
    sa.CheckConstraint("(billing_system = 'credits') = (credits IS NOT NULL)", name=op.f('ck_usage_credits_by_unit')),
    sa.CheckConstraint("billing_system IN ('minutes', 'credits')", name=op.f('ck_usage_billing_system')),
    sa.PrimaryKeyConstraint('attempt_id', name=op.f('pk_usage'))
    )
    op.create_index(op.f('ix_usage_ats_principal_id_booked_at'), 'usage', ['ats_principal_id', 'booked_at'], unique=False)
    op.create_index(op.f('ix_usage_company_id_booked_at'), 'usage', ['company_id', 'booked_at'], unique=False)
    op.create_table('users',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('email', sa.Text(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('updated_at', sa.DateTime(timezone=True), nullable=False),
    sa.CheckConstraint('email = lower(email)', name=op.f('ck_users_email_in_lower_case')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_users')),
    sa.UniqueConstraint('email', name=op.f('uq_users_email'))
    )
    op.create_table('invitations',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('company_id', sa.Uuid(), nullable=False),
    sa.Column('email', sa.Text(), nullable=False),
    sa.Column('expires_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('accepted_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('revoked_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('sent_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('tries', sa.Integer(), nullable=False),
    sa.Column('send_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('updated_at', sa.DateTime(timezone=True), nullable=False),
    sa.CheckConstraint('email = lower(email)', name=op.f('ck_invitations_email_in_lower_case')),
    sa.CheckConstraint('num_nonnulls(accepted_at, revoked_at) < 2', name=op.f('ck_invitations_one_end')),
    sa.ForeignKeyConstraint(['company_id'], ['companies.id'], name=op.f('fk_invitations_company_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_invitations'))
    )
    op.create_index(op.f('ix_invitations_company_id'), 'invitations', ['company_id'], unique=False)
    op.create_index('ix_invitations_to_send', 'invitations', ['send_at'], unique=False, postgresql_where=sa.text('send_at IS NOT NULL'))
    op.create_index('uq_invitations_one_open_per_company', 'invitations', ['company_id'], unique=True, postgresql_where=sa.text('accepted_at IS NULL AND revoked_at IS NULL'))
    op.create_table('invitation_tokens',
    sa.Column('token_hash', sa.LargeBinary(), nullable=False),
    sa.Column('invitation_id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['invitation_id'], ['invitations.id'], name=op.f('fk_invitation_tokens_invitation_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('token_hash', name=op.f('pk_invitation_tokens'))
    )
    op.create_index(op.f('ix_invitation_tokens_invitation_id'), 'invitation_tokens', ['invitation_id'], unique=False)
    op.create_table('jobs',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('company_id', sa.Uuid(), nullable=False),
    sa.Column('title', sa.Text(), nullable=True),
    sa.Column('description', sa.Text(), nullable=True),
    sa.Column('status', sa.Text(), nullable=False),
    sa.Column('details', postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
    sa.Column('metadata', postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
    sa.Column('deleted_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('updated_at', sa.DateTime(timezone=True), nullable=False),
    sa.CheckConstraint("status IN ('OPEN', 'CLOSED')", name=op.f('ck_jobs_status')),
    sa.CheckConstraint('num_nulls(title, description) = CASE WHEN deleted_at IS NULL THEN 0 ELSE 2 END', name=op.f('ck_jobs_texts')),
    sa.ForeignKeyConstraint(['company_id'], ['companies.id'], name=op.f('fk_jobs_company_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_jobs')),
    sa.UniqueConstraint('company_id', 'id', name=op.f('uq_jobs_company_id_id'))
    )
    op.create_index(op.f('ix_jobs_company_id_created_at_id'), 'jobs', ['company_id', 'created_at', 'id'], unique=False)
    op.create_table('memberships',
    sa.Column('company_id', sa.Uuid(), nullable=False),
    sa.Column('user_id', sa.Uuid(), nullable=False),
    sa.Column('role', sa.Text(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('updated_at', sa.DateTime(timezone=True), nullable=False),
    sa.CheckConstraint("role IN ('OWNER', 'ADMIN')", name=op.f('ck_memberships_role')),
    sa.ForeignKeyConstraint(['company_id'], ['companies.id'], name=op.f('fk_memberships_company_id')),
    sa.ForeignKeyConstraint(['user_id'], ['users.id'], name=op.f('fk_memberships_user_id')),
    sa.PrimaryKeyConstraint('company_id', 'user_id', name=op.f('pk_memberships'))
    )
    op.create_index(op.f('ix_memberships_user_id'), 'memberships', ['user_id'], unique=False)
    op.create_index('uq_memberships_one_owner', 'memberships', ['company_id'], unique=True, postgresql_where=sa.text("role = 'OWNER'"))
    op.create_table('assignments',
    sa.Column('candidate_id', sa.Uuid(), nullable=False),
    sa.Column('job_id', sa.Uuid(), nullable=False),
    sa.Column('company_id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['company_id', 'candidate_id'], ['candidates.company_id', 'candidates.id'], name=op.f('fk_assignments_company_id_candidate_id')),
    sa.ForeignKeyConstraint(['company_id', 'job_id'], ['jobs.company_id', 'jobs.id'], name=op.f('fk_assignments_company_id_job_id')),
    sa.PrimaryKeyConstraint('candidate_id', 'job_id', name=op.f('pk_assignments'))
    )
    op.create_index(op.f('ix_assignments_job_id'), 'assignments', ['job_id'], unique=False)
    op.add_column('agents', sa.Column('details', postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False))
    op.create_index(op.f('ix_agents_company_id_created_at_id'), 'agents', ['company_id', 'created_at', 'id'], unique=False)
    op.add_column('api_keys', sa.Column('last_used_at', sa.DateTime(timezone=True), nullable=True))
    op.add_column('api_keys', sa.Column('suspend_reason', sa.Text(), nullable=True))
    op.create_check_constraint('a_reason_of_a_suspension', 'api_keys', 'suspend_reason IS NULL OR suspended_at IS NOT NULL')
    op.add_column('candidates', sa.Column('status', sa.Text(), server_default='APPLIED', nullable=False))
    op.create_index(op.f('ix_candidates_company_id_created_at_id'), 'candidates', ['company_id', 'created_at', 'id'], unique=False)
    op.add_column('companies', sa.Column('profile', postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False))
    op.add_column('companies', sa.Column('metadata', postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False))
    op.add_column('companies', sa.Column('billing_system', sa.Text(), server_default='minutes', nullable=False))
    op.add_column('companies', sa.Column('prices', postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False))
    op.drop_index(op.f('ix_companies_ats_principal_id'), table_name='companies')
    op.create_index(op.f('ix_companies_ats_principal_id_created_at_id'), 'companies', ['ats_principal_id', 'created_at', 'id'], unique=False)
    op.alter_column('inbox', 'company_id', existing_type=sa.UUID(), nullable=True)
    op.add_column('carrier_accounts', sa.Column('answered_at', sa.DateTime(timezone=True), nullable=True))
    op.add_column('carrier_events', sa.Column('failures', sa.Integer(), server_default=sa.text('0'), nullable=False))
    op.add_column('carrier_events', sa.Column('quarantined_at', sa.DateTime(timezone=True), nullable=True))
    op.add_column('inbox', sa.Column('key_id', sa.Uuid(), nullable=True))
    op.add_column('interviews', sa.Column('job_id', sa.Uuid(), nullable=True))
    op.create_foreign_key(op.f('fk_interviews_company_id_job_id'), 'interviews', 'jobs', ['company_id', 'job_id'], ['company_id', 'id'])
    op.create_index(op.f('ix_interviews_job_id'), 'interviews', ['job_id'], unique=False)
    op.add_column('phone_numbers', sa.Column('capabilities', sa.Text(), server_default='OUTBOUND', nullable=False))
    op.add_column('phone_numbers', sa.Column('custom', sa.Boolean(), server_default=sa.text('false'), nullable=False))
    op.add_column('phone_numbers', sa.Column('location', sa.Text(), nullable=True))
    op.create_index('ix_attempts_waiting_by_number', 'attempts', ['number_hash'], unique=False, postgresql_where=sa.text("state = 'PENDING'"))
    op.create_index('ix_carrier_events_heard', 'carrier_events', ['heard_at'], unique=False, postgresql_where=sa.text('heard_at IS NOT NULL'))
    op.create_index('ix_inbox_answered', 'inbox', ['applied_at'], unique=False, postgresql_where=sa.text('applied_at IS NOT NULL'))
    op.create_index(op.f('ix_inbox_company_id'), 'inbox', ['company_id'], unique=False)
    op.drop_constraint(op.f('uq_lines_attempt_id'), 'lines', type_='unique')
    op.create_index('uq_lines_attempt_id', 'lines', ['attempt_id'], unique=True, postgresql_where=sa.text('attempt_id IS NOT NULL'))
    op.execute("INSERT INTO arrows (event, from_state, to_state, reason) VALUES ('hang_up_wanted', 'FAILED', 'FAILED', 'OUTCOME_UNKNOWN')")
    op.create_check_constraint('billing_system', 'companies', "billing_system IN ('minutes', 'credits')")
    op.create_check_constraint('status', 'candidates', "status IN ('APPLIED', 'IN_PROCESS', 'REJECTED', 'ACCEPTED')")


def downgrade() -> None:
    for table in ('attempt_history', 'arrows'):
        op.execute(f"DELETE FROM {table} WHERE event = 'hang_up_wanted' AND from_state = 'FAILED'")
    op.drop_index('uq_lines_attempt_id', table_name='lines', postgresql_where=sa.text('attempt_id IS NOT NULL'))
    op.create_unique_constraint(op.f('uq_lines_attempt_id'), 'lines', ['attempt_id'])
    op.drop_index(op.f('ix_inbox_company_id'), table_name='inbox')
    op.drop_index('ix_inbox_answered', table_name='inbox', postgresql_where=sa.text('applied_at IS NOT NULL'))
    op.drop_index('ix_carrier_events_heard', table_name='carrier_events', postgresql_where=sa.text('heard_at IS NOT NULL'))
    op.drop_index('ix_attempts_waiting_by_number', table_name='attempts', postgresql_where=sa.text("state = 'PENDING'"))
    op.drop_constraint(op.f('ck_candidates_status'), 'candidates', type_='check')
    op.drop_constraint(op.f('ck_companies_billing_system'), 'companies', type_='check')
    op.drop_column('phone_numbers', 'location')
    op.drop_column('phone_numbers', 'custom')
    op.drop_column('phone_numbers', 'capabilities')
    op.drop_index(op.f('ix_interviews_job_id'), table_name='interviews')
    op.drop_constraint(op.f('fk_interviews_company_id_job_id'), 'interviews', type_='foreignkey')
    op.drop_column('interviews', 'job_id')
    op.drop_column('inbox', 'key_id')
    op.drop_column('carrier_events', 'quarantined_at')
    op.drop_column('carrier_events', 'failures')
    op.drop_column('carrier_accounts', 'answered_at')
    op.execute('DELETE FROM inbox WHERE company_id IS NULL')
    op.alter_column('inbox', 'company_id', existing_type=sa.UUID(), nullable=False)
    op.drop_index(op.f('ix_companies_ats_principal_id_created_at_id'), table_name='companies')
    op.create_index(op.f('ix_companies_ats_principal_id'), 'companies', ['ats_principal_id'], unique=False)
    op.drop_column('companies', 'prices')
    op.drop_column('companies', 'billing_system')
    op.drop_column('companies', 'metadata')
    op.drop_column('companies', 'profile')
    op.drop_index(op.f('ix_candidates_company_id_created_at_id'), table_name='candidates')
    op.drop_column('candidates', 'status')
    op.drop_constraint('a_reason_of_a_suspension', 'api_keys', type_='check')
    op.drop_column('api_keys', 'suspend_reason')
    op.drop_column('api_keys', 'last_used_at')
    op.drop_index(op.f('ix_agents_company_id_created_at_id'), table_name='agents')
    op.drop_column('agents', 'details')
    op.drop_index(op.f('ix_assignments_job_id'), table_name='assignments')
    op.drop_table('assignments')
    op.drop_index('uq_memberships_one_owner', table_name='memberships', postgresql_where=sa.text("role = 'OWNER'"))
    op.drop_index(op.f('ix_memberships_user_id'), table_name='memberships')
    op.drop_table('memberships')
    op.drop_index(op.f('ix_jobs_company_id_created_at_id'), table_name='jobs')
    op.drop_table('jobs')
    op.drop_index(op.f('ix_invitation_tokens_invitation_id'), table_name='invitation_tokens')
    op.drop_table('invitation_tokens')
    op.drop_index('uq_invitations_one_open_per_company', table_name='invitations', postgresql_where=sa.text('accepted_at IS NULL AND revoked_at IS NULL'))
    op.drop_index('ix_invitations_to_send', table_name='invitations', postgresql_where=sa.text('send_at IS NOT NULL'))
    op.drop_index(op.f('ix_invitations_company_id'), table_name='invitations')
    op.drop_table('invitations')
    op.drop_table('users')
    op.drop_index(op.f('ix_usage_company_id_booked_at'), table_name='usage')
    op.drop_index(op.f('ix_usage_ats_principal_id_booked_at'), table_name='usage')
    op.drop_table('usage')
    op.drop_index('ix_erasures_open', table_name='erasures', postgresql_where=sa.text('finished_at IS NULL'))
    op.drop_table('erasures')
