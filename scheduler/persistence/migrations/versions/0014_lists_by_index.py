"""Indexes of the lists and counts that would otherwise read every row of a company.

Row-level security keeps the API's role from the index of a search: PostgreSQL evaluates a policy before an operator
that could reveal what it compares, such as LIKE. So a function of the owner searches, after the same check of the
principal. It returns ids only, and the policies still apply to the query that reads the rows.

Every key of the search's index contains the company. An index by pg_trgm has one entry for the letters "nov" of all
companies: the time of a search would reveal the names that other companies have. This is so with `company_id` as
another column of that index, too, because a GIN index has separate entries for each column.
"""

import sqlalchemy as sa
from alembic import op
from psycopg.errors import LockNotAvailable
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from scheduler.persistence.errors import SchemaNotMade

revision = '0014'
down_revision = '0013'
branch_labels = None
depends_on = None

_TRIES = 12


def upgrade() -> None:
    _lock('SHARE')
    op.create_index(
        'ix_attempts_unknown', 'attempts', ['company_id'], postgresql_where=sa.text("reason = 'OUTCOME_UNKNOWN'")
    )
    for table in ('interviews', 'candidates'):
        op.create_index(op.f(f'ix_{table}_company_id_status_created_at_id'), table, ['company_id', 'status', 'created_at', 'id'])
    _make_keys()
    op.create_index(
        'ix_candidates_search',
        'candidates',
        [
            sa.literal_column("candidate_search_keys(company_id, (first_name || ' ') || last_name)"),
            sa.literal_column('candidate_search_keys(company_id, email)'),
        ],
        postgresql_using='gin',
        # The list of pending entries would be read in full by each search, and has the entries of all companies.
        postgresql_with={'fastupdate': False},
    )
    _make_search()


def _lock(mode: str) -> None:
    """Lock all tables before the first change. Writers wait until the migration has ended."""
    bind = op.get_bind()
    # Intake writes candidates before attempts, and settling writes them after attempts, so no order excludes a
    # deadlock. Each try ends before PostgreSQL would look for one (deadlock_timeout, 1 s), and gives all locks back.
    for _ in range(_TRIES):
        try:
            with bind.begin_nested():
                bind.execute(text("SET LOCAL lock_timeout = '400ms'"))
                bind.execute(text(f"LOCK TABLE attempts, interviews, candidates IN {mode} MODE"))
                bind.execute(text("SET LOCAL lock_timeout = '10s'"))
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable):
                raise
        else:
            return
    raise SchemaNotMade(
        "the tables attempts, interviews and candidates could not be locked within 5 s, because other transactions"
        " write to them. Pause calling (duecall pause --all), then try again."
    )


def _make_keys() -> None:
    # PL/pgSQL takes a quarter of the time of the same function in SQL.
    op.execute("""
        CREATE FUNCTION candidate_search_keys(company uuid, content text) RETURNS bigint[]
        LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
        AS $function$
        DECLARE
            letters text := lower(content);
            seed bigint := uuid_hash_extended(company, 0);
            keys bigint[] := '{}';
        BEGIN
            FOR i IN 1 .. length(letters) - 2 LOOP
                keys[i] := hashtextextended(substr(letters, i, 3), seed);
            END LOOP;
            RETURN keys;
        END
        $function$
    """)
    # Every role that writes candidates calls it, and so does the owner of the table, for CREATE INDEX and ANALYZE. The
    # owner may be another role than this one. Any role may call it: it reads no table, and has only the caller's rights.
    op.execute("GRANT EXECUTE ON FUNCTION candidate_search_keys(uuid, text) TO PUBLIC")


def _make_search() -> None:
    schema = op.get_bind().execute(text("SELECT quote_ident(current_schema())")).scalar_one()
    # Dynamic, so that each search is planned for its own keys. One or two letters have no keys: an empty array would
    # read the whole index, with the entries of all companies.
    op.execute(f"""
        CREATE FUNCTION candidates_found(searched uuid, part text, most integer) RETURNS SETOF uuid
        LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        AS $function$
        DECLARE
            keys bigint[] := {schema}.candidate_search_keys(searched, part);
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
                '   AND (strpos(lower(c.first_name || '' '' || c.last_name), lower($2)) > 0'
                '        OR strpos(lower(c.email), lower($2)) > 0)'
                || CASE WHEN cardinality(keys) > 0 THEN
                '   AND ({schema}.candidate_search_keys(c.company_id, (c.first_name || '' '') || c.last_name) @> $4'
                '        OR {schema}.candidate_search_keys(c.company_id, c.email) @> $4)'
                ELSE '' END
                || ' LIMIT $3'
                USING searched, part, most, keys;
        END
        $function$
    """)
    op.execute("REVOKE ALL ON FUNCTION candidates_found(uuid, text, integer) FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION candidates_found(uuid, text, integer) TO duecall_api, duecall_worker")


def downgrade() -> None:
    _lock('ACCESS EXCLUSIVE')
    op.execute('DROP FUNCTION candidates_found(uuid, text, integer)')
    op.drop_index('ix_candidates_search', table_name='candidates')
    op.execute('DROP FUNCTION candidate_search_keys(uuid, text)')
    for table in ('candidates', 'interviews'):
        op.drop_index(op.f(f'ix_{table}_company_id_status_created_at_id'), table_name=table)
    op.drop_index('ix_attempts_unknown', table_name='attempts')
