"""Settings that belong to this database, as keyed hashes: another installation notices it."""

import sqlalchemy as sa
from alembic import op

revision = '0032'
down_revision = '0031'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        'installation_marks',
        sa.Column('setting', sa.Text(), nullable=False),
        sa.Column('mark', sa.LargeBinary(), nullable=False),
        sa.Column('since', sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint('setting', name=op.f('pk_installation_marks')),
    )
    op.execute('GRANT SELECT ON installation_marks TO duecall_api, duecall_operator')
    op.execute('GRANT SELECT, INSERT, UPDATE ON installation_marks TO duecall_worker')


def downgrade() -> None:
    op.drop_table('installation_marks')
