"""Erasures that are not finished are counted over all companies, as commands are."""

from alembic import op

revision = '0005'
down_revision = '0004'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("GRANT SELECT (asked_at, finished_at) ON erasures TO duecall_counter")
    op.execute("CREATE POLICY counted ON erasures FOR SELECT TO duecall_counter USING (true)")


def downgrade() -> None:
    op.execute("DROP POLICY counted ON erasures")
    op.execute("REVOKE SELECT (asked_at, finished_at) ON erasures FROM duecall_counter")
