"""Orders of one caller or to one country wait by themselves when the carrier refuses or fails them.

Workers of the release before neither read nor write any of this.
"""

import sqlalchemy as sa
from alembic import op

revision = '0009'
down_revision = '0008'
branch_labels = None
depends_on = None

_PRINCIPAL = "(SELECT nullif(current_setting('duecall.principal_id', true), '')::uuid)"
_COMPANY = "(SELECT nullif(current_setting('duecall.company_id', true), '')::uuid)"
_OWN = (
    f"(company_id = {_COMPANY} OR EXISTS (SELECT FROM companies c WHERE c.id = carrier_backoffs.company_id)"
    # That a country may not be called is everybody's to know.
    f" OR company_id IS NULL AND num_nonnulls({_PRINCIPAL}, {_COMPANY}) > 0)"
)
_COUNTED = (
    'id, account_id, company_id, country, failures, trials, down_until, answered_at, cause, is_asked, others_work,'
    ' updated_at'
)


def upgrade() -> None:
    op.add_column('carrier_accounts', sa.Column('trials', sa.Integer(), server_default=sa.text('0'), nullable=False))
    op.add_column('lines', sa.Column('country', sa.Text(), nullable=True))
    op.create_table(
        'carrier_backoffs',
        sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column('account_id', sa.SmallInteger(), nullable=False),
        sa.Column('company_id', sa.Uuid(), nullable=True),
        sa.Column('caller', sa.Text(), nullable=True),
        sa.Column('country', sa.Text(), nullable=True),
        sa.Column('failures', sa.Integer(), nullable=False),
        sa.Column('trials', sa.Integer(), nullable=False),
        sa.Column('down_until', sa.DateTime(timezone=True), nullable=True),
        sa.Column('answered_at', sa.DateTime(timezone=True), nullable=True),
        sa.Column('cause', sa.Text(), nullable=False),
        sa.Column('is_asked', sa.Boolean(), nullable=False),
        sa.Column('others_work', sa.Boolean(), nullable=False),
        sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
        sa.Column('updated_at', sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            'num_nonnulls(country, caller) = 1 AND num_nonnulls(company_id, caller) <> 1',
            name=op.f('ck_carrier_backoffs_a_country_or_a_caller'),
        ),
        sa.ForeignKeyConstraint(
            ['account_id'], ['carrier_accounts.id'], name=op.f('fk_carrier_backoffs_account_id')
        ),
        sa.ForeignKeyConstraint(['company_id'], ['companies.id'], name=op.f('fk_carrier_backoffs_company_id')),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_carrier_backoffs')),
        sa.UniqueConstraint('company_id', 'caller', 'account_id', name=op.f('uq_carrier_backoffs_company_id_caller_account_id')),
        sa.UniqueConstraint('country', 'account_id', name=op.f('uq_carrier_backoffs_country_account_id')),
    )
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON carrier_backoffs TO duecall_worker")
    op.execute("GRANT SELECT ON carrier_backoffs TO duecall_api")
    op.execute(f"GRANT SELECT ({_COUNTED}) ON carrier_backoffs TO duecall_counter")
    op.execute("ALTER TABLE carrier_backoffs ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE carrier_backoffs FORCE ROW LEVEL SECURITY")
    op.execute("CREATE POLICY everything ON carrier_backoffs TO duecall_worker, CURRENT_USER USING (true)")
    op.execute(f"CREATE POLICY own_seen ON carrier_backoffs FOR SELECT TO duecall_api USING ({_OWN})")
    op.execute("CREATE POLICY counted ON carrier_backoffs FOR SELECT TO duecall_counter USING (true)")


def downgrade() -> None:
    op.drop_table('carrier_backoffs')
    op.drop_column('lines', 'country')
    op.drop_column('carrier_accounts', 'trials')
