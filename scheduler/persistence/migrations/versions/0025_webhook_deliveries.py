"""Deliveries of partner events to webhooks: one row for each event and endpoint that wants it."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy import text

revision = '0025'
down_revision = '0024'
branch_labels = None
depends_on = None

_OWN = 'EXISTS (SELECT FROM webhook_endpoints w WHERE w.id = webhook_deliveries.endpoint_id)'
"""The policies of the endpoints decide which of them the role sees."""

_CHANGED_BY_REPLAYS = 'state, is_replay, tries, send_at, claim, lease_until, first_failed_at, finished_at'


def upgrade() -> None:
    _make_table()
    op.execute('GRANT SELECT, INSERT, UPDATE, DELETE ON webhook_deliveries TO duecall_worker')
    op.execute('ALTER TABLE webhook_deliveries ENABLE ROW LEVEL SECURITY')
    op.execute('ALTER TABLE webhook_deliveries FORCE ROW LEVEL SECURITY')
    op.execute('CREATE POLICY everything ON webhook_deliveries TO duecall_worker, CURRENT_USER USING (true)')
    op.execute('GRANT SELECT, INSERT, UPDATE ON webhook_deliveries TO duecall_api')
    op.execute(f'CREATE POLICY own_seen ON webhook_deliveries FOR SELECT TO duecall_api USING ({_OWN})')
    op.execute(f'CREATE POLICY own_made ON webhook_deliveries FOR INSERT TO duecall_api WITH CHECK ({_OWN})')
    op.execute(f'CREATE POLICY own_changed ON webhook_deliveries FOR UPDATE TO duecall_api USING ({_OWN})')
    op.execute('GRANT SELECT (endpoint_id, state, is_replay, send_at) ON webhook_deliveries TO duecall_counter')
    op.execute('CREATE POLICY counted ON webhook_deliveries FOR SELECT TO duecall_counter USING (true)')
    op.execute('GRANT SELECT (id, is_active, disabled_at, circuit_opened_at) ON webhook_endpoints TO duecall_counter')
    op.execute('CREATE POLICY counted ON webhook_endpoints FOR SELECT TO duecall_counter USING (true)')
    op.execute('GRANT SELECT ON webhook_deliveries TO duecall_operator')
    op.execute('CREATE POLICY operator_seen ON webhook_deliveries FOR SELECT TO duecall_operator USING (true)')
    # An operator replays deliveries that have failed.
    op.execute(f'GRANT UPDATE ({_CHANGED_BY_REPLAYS}) ON webhook_deliveries TO duecall_operator')
    op.execute(
        "CREATE POLICY operator_replayed ON webhook_deliveries FOR UPDATE TO duecall_operator USING (state = 'FAILED')"
        " WITH CHECK (state = 'WAITING' AND is_replay AND tries = 0 AND claim IS NULL)"
    )
    # And enables a webhook, whose waiting deliveries are sent then.
    op.execute(
        "CREATE POLICY operator_advanced ON webhook_deliveries FOR UPDATE TO duecall_operator"
        " USING (state = 'WAITING' AND claim IS NULL)"
        " WITH CHECK (state = 'WAITING' AND claim IS NULL AND first_failed_at IS NULL AND tries < 10)"
    )


def _make_table() -> None:
    instant = sa.DateTime(timezone=True)
    op.create_table(
        'webhook_deliveries',
        sa.Column('event_id', sa.Uuid(), nullable=False),
        sa.Column('endpoint_id', sa.Uuid(), nullable=False),
        sa.Column('place', sa.BigInteger(), nullable=False),
        sa.Column('interview_id', sa.Uuid(), nullable=True),
        sa.Column('sequence', sa.Integer(), nullable=True),
        sa.Column('state', sa.Text(), nullable=False),
        sa.Column('is_replay', sa.Boolean(), server_default=text('false'), nullable=False),
        sa.Column('tries', sa.SmallInteger(), server_default=text('0'), nullable=False),
        sa.Column('send_at', instant, nullable=False),
        sa.Column('claim', sa.Uuid(), nullable=True),
        sa.Column('lease_until', instant, nullable=True),
        sa.Column('first_failed_at', instant, nullable=True),
        sa.Column('last_tried_at', instant, nullable=True),
        sa.Column('last_status', sa.SmallInteger(), nullable=True),
        sa.Column('last_error_kind', sa.Text(), nullable=True),
        sa.Column('last_ms', sa.Integer(), nullable=True),
        sa.Column('finished_at', instant, nullable=True),
        sa.Column('created_at', instant, nullable=False),
        sa.CheckConstraint(
            "state IN ('WAITING', 'DELIVERED', 'FAILED')", name=op.f('ck_webhook_deliveries_state')
        ),
        sa.CheckConstraint(
            "(state = 'WAITING') = (finished_at IS NULL)", name=op.f('ck_webhook_deliveries_finished_if_not_waiting')
        ),
        sa.CheckConstraint(
            '(claim IS NULL) = (lease_until IS NULL)', name=op.f('ck_webhook_deliveries_a_claim_has_a_lease')
        ),
        sa.ForeignKeyConstraint(
            ['event_id'], ['events.id'], ondelete='CASCADE', name=op.f('fk_webhook_deliveries_event_id')
        ),
        sa.ForeignKeyConstraint(
            ['endpoint_id'],
            ['webhook_endpoints.id'],
            ondelete='CASCADE',
            name=op.f('fk_webhook_deliveries_endpoint_id'),
        ),
        sa.PrimaryKeyConstraint('event_id', 'endpoint_id', name=op.f('pk_webhook_deliveries')),
    )
    op.create_index('ix_webhook_deliveries_endpoint_id_place', 'webhook_deliveries', ['endpoint_id', 'place'])
    op.create_index(
        'ix_webhook_deliveries_waiting',
        'webhook_deliveries',
        ['endpoint_id', 'is_replay', 'send_at', 'place'],
        postgresql_where=text("state = 'WAITING'"),
    )
    op.create_index(
        'ix_webhook_deliveries_undelivered',
        'webhook_deliveries',
        ['endpoint_id', 'place'],
        postgresql_where=text("state <> 'DELIVERED'"),
    )
    op.create_index(
        'ix_webhook_deliveries_in_order',
        'webhook_deliveries',
        ['endpoint_id', 'interview_id', 'sequence'],
        postgresql_where=text("state = 'WAITING' AND NOT is_replay"),
    )
    op.create_index(
        'ix_webhook_deliveries_in_flight', 'webhook_deliveries', ['endpoint_id'],
        postgresql_where=text('claim IS NOT NULL'),
    )


def downgrade() -> None:
    op.execute('DROP POLICY counted ON webhook_endpoints')
    op.execute('REVOKE SELECT (id, is_active, disabled_at, circuit_opened_at) ON webhook_endpoints FROM duecall_counter')
    op.drop_table('webhook_deliveries')
