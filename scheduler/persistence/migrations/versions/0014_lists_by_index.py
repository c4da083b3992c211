"""Indexes of the lists and counts that would otherwise read every row of a company.

Row-level security keeps the API's role from the index of a search: PostgreSQL evaluates a policy before an operator
that could reveal what it compares, such as ILIKE. So a function of the owner searches, after the same check of the
principal. It returns ids only, and the policies still apply to the query that reads the rows.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from scheduler.persistence.schema import SchemaNotMade

revision = '0014'
down_revision = '0013'
branch_labels = None
depends_on = None


def upgrade() -> None:
    _make_extension()
    op.create_index(
        'ix_candidates_search',
        'candidates',
        [sa.literal_column("((first_name || ' ') || last_name)").label('name'), 'email'],
        postgresql_using='gin',
        postgresql_ops={'name': 'gin_trgm_ops', 'email': 'gin_trgm_ops'},
    )
    for table in ('candidates', 'interviews'):
        op.create_index(op.f(f'ix_{table}_company_id_status_created_at_id'), table, ['company_id', 'status', 'created_at', 'id'])
    op.create_index(
        'ix_attempts_unknown', 'attempts', ['company_id'], postgresql_where=sa.text("reason = 'OUTCOME_UNKNOWN'")
    )
    _make_search()


def _make_extension() -> None:
    bind = op.get_bind()
    if bind.execute(text("SELECT FROM pg_extension WHERE extname = 'pg_trgm'")).first():
        return
    try:
        with bind.begin_nested():
            bind.execute(text("CREATE EXTENSION pg_trgm"))
    except DBAPIError as error:
        raise SchemaNotMade(
            f"the extension pg_trgm could not be created ({str(error.orig).splitlines()[0]}). It is a part of"
            " PostgreSQL's contrib modules. Install them, and have the database's owner or a superuser run"
            " this once, then try again: CREATE EXTENSION pg_trgm;"
        ) from error


def _make_search() -> None:
    schema = op.get_bind().execute(text("SELECT quote_ident(current_schema())")).scalar_one()
    # Dynamic, so that each search is planned for its own pattern: an index by three letters is of no use for "a".
    op.execute(f"""
        CREATE FUNCTION candidates_found(searched uuid, pattern text, most integer) RETURNS SETOF uuid
        LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        AS $function$
        BEGIN
            IF NOT EXISTS (
                SELECT FROM {schema}.companies c
                WHERE c.id = searched
                  AND (c.id = nullif(current_setting('duecall.company_id', true), '')::uuid
                       OR c.ats_principal_id = nullif(current_setting('duecall.principal_id', true), '')::uuid)
            ) THEN
                RETURN;
            END IF;
            RETURN QUERY EXECUTE
                'SELECT c.id FROM {schema}.candidates c'
                ' WHERE c.company_id = $1 AND c.erased_at IS NULL'
                '   AND ((c.first_name || '' '' || c.last_name) ILIKE $2 OR c.email ILIKE $2)'
                ' LIMIT $3'
                USING searched, pattern, most;
        END
        $function$
    """)
    op.execute("REVOKE ALL ON FUNCTION candidates_found(uuid, text, integer) FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION candidates_found(uuid, text, integer) TO duecall_api, duecall_worker")


def downgrade() -> None:
    op.execute('DROP FUNCTION candidates_found(uuid, text, integer)')
    op.drop_index('ix_attempts_unknown', table_name='attempts')
    for table in ('interviews', 'candidates'):
        op.drop_index(op.f(f'ix_{table}_company_id_status_created_at_id'), table_name=table)
    op.drop_index('ix_candidates_search', table_name='candidates')
    op.execute('DROP EXTENSION pg_trgm')
