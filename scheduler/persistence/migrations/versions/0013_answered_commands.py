"""A function by which an API process looks at once for the answers of all its requests that wait.

They belong to several principals, and the API's role sees the rows of one at a time. The function returns ids that its
caller names, and nothing else about a command. Workers of the release before do not call it.
"""

from alembic import op

revision = '0013'
down_revision = '0012'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE FUNCTION answered_commands(waiting uuid[]) RETURNS SETOF uuid
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        BEGIN ATOMIC
            SELECT i.id FROM inbox i
            WHERE i.id = ANY(waiting) AND (i.applied_at IS NOT NULL OR i.quarantined_at IS NOT NULL);
        END
    """)
    op.execute("REVOKE ALL ON FUNCTION answered_commands(uuid[]) FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION answered_commands(uuid[]) TO duecall_api, duecall_worker")


def downgrade() -> None:
    op.execute('DROP FUNCTION answered_commands(uuid[])')
