"""Find pending attempts resolved with older zone data; let the API restart a recomputation that waits already.

An index and a right: processes of the release before neither need nor notice them.
"""

import sqlalchemy as sa
from alembic import op

revision = '0011'
down_revision = '0010'
branch_labels = None
depends_on = None

_RESTARTED = 'is_last_pass, not_before, asked_at, rung_at'


def upgrade() -> None:
    op.create_index(
        'ix_attempts_zone_data',
        'attempts',
        [sa.text("(schedule ->> 'tzdata_version')")],
        unique=False,
        postgresql_where=sa.text("state = 'PENDING'"),
    )
    op.execute(f"GRANT UPDATE ({_RESTARTED}) ON reresolutions TO duecall_api")


def downgrade() -> None:
    op.execute(f"REVOKE UPDATE ({_RESTARTED}) ON reresolutions FROM duecall_api")
    op.drop_index('ix_attempts_zone_data', table_name='attempts')
